"""The build: which files it takes, that it is done once, and what stops it."""

import os
import re
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest
from stand_in_program import shell

import build
import make_venv
from _common import Failure
from _git_tree import FILE

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "/usr/bin/python3"
LAYER = "src/caffe/layers/sigmoid_cross_entropy_weight_loss_layer.cpp"


@pytest.fixture
def decoy(tmp_path, monkeypatch):
    """A prefix like pyenv's or conda's, first on PATH, whose every file is a wrong one."""
    prefix = tmp_path / "decoy"
    for name in (
        "python",
        "python3",
        "python3.99",
        "protoc",
        "cmake",
        "ninja",
        "g++",
        "c++",
        "h5cc",
    ):
        shell(prefix / "bin" / name, f"echo decoy {name} >&2; exit 1")
    for name in ("include/python3.99/Python.h", "include/google/protobuf/message.h"):
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text("#error decoy\n")
    for name in ("libpython3.99.so", "libprotobuf.so", "libopenblas.so", "libhdf5.so"):
        (prefix / "lib").mkdir(exist_ok=True)
        (prefix / "lib" / name).touch()
    monkeypatch.setenv("PATH", f"{prefix / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CMAKE_PREFIX_PATH", str(prefix))
    monkeypatch.setenv("CONDA_PREFIX", str(prefix))
    monkeypatch.setenv("PYTHONPATH", str(prefix / "lib"))
    monkeypatch.setenv("CPATH", str(prefix / "include"))
    return prefix


def test_configure_takes_nothing_of_a_decoy(decoy, tmp_path):
    one = build.Build("cpu", 1, tmp_path / "build")
    one.folder.mkdir()
    one.tree = ROOT / "build" / "cpu" / "caffe"
    one.configure()
    cache = (one.cmake / "CMakeCache.txt").read_text()
    assert f"PYTHON_EXECUTABLE:FILEPATH={PYTHON}\n" in cache
    ask = "import sysconfig; print(sysconfig.get_path('include'))"
    include = subprocess.run([PYTHON, "-c", ask], capture_output=True, text=True).stdout.strip()
    assert re.search(rf"Python3_INCLUDE_DIR:\w+={re.escape(include)}\n", cache)
    for text in (cache, (one.cmake / "build.ninja").read_text()):
        assert str(decoy) not in text


def test_path_with_odd_characters_builds(tmp_path):
    """A library, out of files that are generated, with the tools that CMake calls for them."""
    one = build.Build("cpu", 2, tmp_path / "a b%c,d{e}~f=g+h@i!ä")
    shutil.copytree(ROOT / "build" / "cpu" / "caffe", one.tree)
    one.configure()
    one.compile(["caffeproto"])
    assert (one.cmake / "caffe" / "lib" / "libcaffeproto.a").exists()


@pytest.mark.parametrize("character", build.NOT_IN_PATHS)
def test_path_that_cmake_cannot_take_is_refused(tmp_path, character):
    with pytest.raises(Failure, match=r"^CMake cannot build in .*: move the repository"):
        build.Build("cpu", 1, tmp_path / f"a{character}b").make()


def test_make_runs_debians_python_as_it_is(decoy, monkeypatch):
    for name in ("PYTHONSAFEPATH", "PYTHONINSPECT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    done = subprocess.run(["make", "patch"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "decoy" not in done.stderr
    assert LAYER in (ROOT / "build" / "weighted_sigmoid_loss.patch").read_text()


def test_second_build_does_nothing(caffe_install):
    def state():
        return {path: path.stat().st_mtime_ns for path in build.files_in(caffe_install)}

    # Else this compiles for minutes, which is not the build's fault.
    tree = build.Build("cpu", 1).tree
    files = build.wanted_files()
    stale = [name for name, (_, data) in files.items() if (tree / name).read_bytes() != data]
    assert not stale, "sources were edited since the build: run `make runtest`"
    before = state()
    argv = [PYTHON, ROOT / "scripts" / "build.py", "cpu", "--tests"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not re.search("configuring|compiling|installing", done.stdout)
    assert state() == before


def test_installation_runs_where_it_is_moved_to(caffe_install, tmp_path):
    moved = shutil.copytree(caffe_install, tmp_path / "moved", symlinks=True)
    for binary in (moved / "bin" / "caffe", moved / "python" / "caffe" / "_caffe.so"):
        needs = subprocess.run(["ldd", binary], capture_output=True, text=True, env={}).stdout
        assert re.search(rf"libcaffe\.so\S* => {moved}/\S+libcaffe\.so", needs)
        assert "not found" not in needs
    done = subprocess.run([moved / "bin" / "caffe", "--version"], capture_output=True, text=True)
    assert "caffe version 1.0.0" in done.stdout + done.stderr


TREE = {
    name: (FILE, f"{name}\n".encode()) for name in ("include/a.hpp", "src/a.cpp", "python/a.py")
}
# CMake and ninja, as far as this goes: each makes its files where they are missing, out of sources.
CMAKE = """\
case "$1" in
  --install) mkdir -p "$4/python"; cp "$2/caffe/lib/libcaffe.so" "$4" ;;
  *) mkdir -p "$4/caffe/lib" "$4/CMakeFiles"
     for name in CMakeCache.txt build.ninja CMakeFiles/rules.ninja; do
       echo whole > "$4/$name"
     done ;;
esac
"""
NINJA = """\
cd "$2"
grep -q whole build.ninja || exit 1
for name in a.o caffe/lib/libcaffe.so; do [ -e "$name" ] || echo whole > "$name"; done
echo '[1/1] Linking libcaffe.so'
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The folder of the scripts that are cmake and ninja here."""
    tools = tmp_path / "tools"
    monkeypatch.setattr(build, "PATH", f"{tools}:{build.PATH}")
    shell(tools / "cmake", CMAKE)
    shell(tools / "ninja", NINJA)
    return tools


@pytest.fixture
def small(fake, tmp_path):
    one = build.Build("cpu", 1, tmp_path / "build")
    one.folder.mkdir()
    return one


def steps(one):
    one.lay_out(TREE)
    one.configure()
    one.compile(["all"])
    one.install_built()


def test_whole_build(small):
    steps(small)
    assert (small.install / "libcaffe.so").read_text() == "whole\n"
    assert (small.tree / "src" / "a.cpp").read_text() == "src/a.cpp\n"


def state(one):
    """All that counts, by content."""
    files = build.files_in(one.tree, one.cmake, one.install)
    return {path: path.read_bytes() for path in files}


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "truncated": lambda path: path.write_bytes(b""),
    "changed and backdated": lambda path: (path.write_bytes(b"other\n"), os.utime(path, (0, 0))),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize(
    "name",
    [
        "caffe/src/a.cpp",
        "cmake/CMakeCache.txt",
        "cmake/CMakeFiles/rules.ninja",
        "cmake/a.o",
        "cmake/build.ninja",
        "cmake/caffe/lib/libcaffe.so",
        "cmake/made.json",
        "install/installed",
        "install/libcaffe.so",
    ],
)
def test_what_is_not_as_it_was_made_is_made_again(small, name, damage):
    steps(small)
    whole = state(small)
    damage(small.folder / name)
    steps(small)
    assert state(small) == whole


@pytest.mark.parametrize("name", ["src/b.cpp", "include/caffe/proto/caffe.pb.h", "CMakeLists.txt"])
def test_nothing_else_is_in_the_tree(small, name):
    """CMake would compile it, or find it first."""
    steps(small)
    (small.tree / name).parent.mkdir(parents=True, exist_ok=True)
    (small.tree / name).write_text("stray")
    steps(small)
    assert not (small.tree / name).exists()


def test_link_in_the_tree_is_not_written_through(small, tmp_path):
    steps(small)
    mine = tmp_path / "mine.cpp"
    mine.write_text("mine")
    (small.tree / "src" / "a.cpp").unlink()
    (small.tree / "src" / "a.cpp").symlink_to(mine)
    steps(small)
    assert mine.read_text() == "mine"
    assert (small.tree / "src" / "a.cpp").read_text() == "src/a.cpp\n"


def test_interrupted_compilation_goes_on_where_it_stopped(small, fake, capsys):
    steps(small)
    shell(fake / "ninja", 'echo newer > "$2/a.o"; exit 1')
    with pytest.raises(Failure):
        small.compile(["all"])
    shell(fake / "ninja", NINJA)
    capsys.readouterr()
    steps(small)
    assert "configuring" not in capsys.readouterr().out
    assert (small.cmake / "a.o").read_text() == "newer\n"


def test_folder_that_moved_is_configured_anew(small, tmp_path, capsys):
    steps(small)
    moved = build.Build("cpu", 1, tmp_path / "moved")
    small.folder.rename(moved.folder)
    (moved.cmake / "CMakeCache.txt").write_text(str(small.folder))
    capsys.readouterr()
    steps(moved)
    assert "configuring" in capsys.readouterr().out
    assert (moved.cmake / "CMakeCache.txt").read_text() == "whole\n"


def test_environment_gets_in_only_where_it_is_told(small, fake, monkeypatch, capsys, tmp_path):
    poison = {
        "DESTDIR": str(tmp_path / "elsewhere"),
        "CMAKE_BUILD_TYPE": "Debug",
        "CMAKE_GENERATOR": "Unix Makefiles",
        "CPATH": "/decoy",
        "LD_PRELOAD": "",
        "NVCC_APPEND_FLAGS": "-use_fast_math",
        "OpenBLAS_HOME": "/decoy",
        "PYTHONOPTIMIZE": "2",
    }
    for name, value in {**poison, "CXXFLAGS": "-g"}.items():
        monkeypatch.setenv(name, value)
    shell(fake / "cmake", f"env > {tmp_path / 'seen'}\n{CMAKE}")
    small.lay_out(TREE)
    small.configure()
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert seen.keys() & poison.keys() == set()
    assert seen["CXXFLAGS"] == "-g"
    assert "configuring with CXXFLAGS=-g\n" in capsys.readouterr().out
    small.configure()
    assert capsys.readouterr().out == ""
    monkeypatch.delenv("CXXFLAGS")
    small.configure()
    assert capsys.readouterr().out == "build: configuring\n"


def test_new_source_file_is_configured(small, capsys):
    steps(small)
    capsys.readouterr()
    small.configure()
    assert not capsys.readouterr().out
    small.lay_out({**TREE, "src/b.cpp": (FILE, b"")})
    small.configure()
    assert "configuring" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("a.s: No space left on device", "the disk is full"),
        ("g++: fatal error: Killed signal terminated program cc1plus", "JOBS=1"),
        ("a.cpp:1:2: error: 'x' was not declared", "the lines above say why"),
    ],
)
def test_compiler_fails(small, fake, capsys, said, cause):
    shell(fake / "ninja", f'echo "FAILED: a.o"; echo "{said}"; exit 1')
    with pytest.raises(Failure, match=cause) as stopped:
        steps(small)
    assert stopped.value.status == 1
    assert said in capsys.readouterr().err.splitlines()
    assert not small.install.exists()
    assert said in small.log.read_text()


def test_interrupted_installation_is_not_taken_for_one(small, fake):
    half = 'case "$1" in --install) mkdir -p "$4"; echo half > "$4/libcaffe.so"; exit 1 ;; esac\n'
    shell(fake / "cmake", half + CMAKE)
    with pytest.raises(Failure):
        steps(small)
    assert not small.install.exists()
    shell(fake / "cmake", CMAKE)
    steps(small)
    # And the next one, which replaces it, leaves it in place until it is whole itself.
    (small.cmake / "caffe" / "lib" / "libcaffe.so").write_text("newer\n")
    shell(fake / "cmake", half + CMAKE)
    with pytest.raises(Failure):
        small.install_built()
    assert (small.install / "libcaffe.so").read_text() == "whole\n"


def test_full_disk_is_said_beforehand(small, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(Failure, match=r"has 0\.1 GiB free"):
        small.check_disk()


@pytest.mark.parametrize("words", [["none"], ["cpu", "--jobs", "0"], ["cpu", "--jobs", "many"]])
def test_wrong_arguments(words):
    argv = [PYTHON, ROOT / "scripts" / "build.py", *words]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_environment_is_made_anew_where_it_is_not_whole(tmp_path):
    folder = tmp_path / "venv"
    python = make_venv.make_venv(folder)
    ask = "import numpy, sys; print(sys.prefix)"
    assert subprocess.check_output([python, "-c", ask], text=True).strip() == str(folder)
    left_over = folder / "left_over"
    left_over.touch()
    make_venv.make_venv(folder)
    assert left_over.exists()
    (folder / make_venv.STAMP).unlink()
    make_venv.make_venv(folder)
    assert not left_over.exists()


def test_environment_that_moved_is_made_anew(tmp_path):
    """Its programs' first lines name the folder that it was made in."""
    make_venv.make_venv(tmp_path / "venv")
    (tmp_path / "venv").rename(tmp_path / "moved")
    (tmp_path / "moved" / "left_over").touch()
    make_venv.make_venv(tmp_path / "moved")
    assert not (tmp_path / "moved" / "left_over").exists()


def test_no_venv_module(tmp_path):
    python = tmp_path / "python3"
    shell(python, 'case "$*" in *venv*) echo "No module named venv" >&2; exit 1 ;; esac; echo 3.11')
    with pytest.raises(Failure, match="apt-get install python3-venv"):
        make_venv.make_venv(tmp_path / "venv", python=python)
    assert not (tmp_path / "venv" / make_venv.STAMP).exists()


def test_what_another_machine_built_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(build.fetch, "fetch", None)
    made = build.Build("cuda", 1, tmp_path)
    made.prebuilt.touch()
    made.make(tests=True)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.json"]
