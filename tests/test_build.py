"""The build: which files it takes, that it is done once, and what stops it."""

import errno
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


def test_make_runs_debians_python(decoy):
    done = subprocess.run(["make", "patch"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "decoy" not in done.stderr
    assert LAYER in (ROOT / "build" / "weighted_sigmoid_loss.patch").read_text()


def test_second_build_does_nothing(caffe_install):
    def state():
        return {path: path.stat().st_mtime_ns for path in build.files_in(caffe_install)}

    # Else this compiles for minutes, which is no fault of the build's.
    check = [PYTHON, ROOT / "scripts" / "apply.py", build.Build("cpu", 1).tree]
    stale = subprocess.run([*check, "--modernize", "--check"], capture_output=True).returncode
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


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A build of a few files, whose cmake and ninja are scripts in the folder that is returned."""
    source = tmp_path / "source"
    for name in ("include/a.hpp", "src/a.cpp", "python/a.py"):
        (source / name).parent.mkdir(parents=True)
        (source / name).write_text(f"{name}\n")
    monkeypatch.setattr(build, "SOURCE", source)
    tools = tmp_path / "tools"
    monkeypatch.setattr(build, "PATH", f"{tools}:{build.PATH}")
    # cmake is called to configure, and to install: `cmake --install DIR --prefix PREFIX`.
    shell(
        tools / "cmake",
        'case "$1" in --install) mkdir -p "$4"; echo whole > "$4/file" ;; *) mkdir -p "$4" ;; esac',
    )
    shell(tools / "ninja", "echo '[1/1] Linking libcaffe.so'")
    return tools


@pytest.fixture
def small(fake, tmp_path):
    one = build.Build("cpu", 1, tmp_path / "build")
    one.folder.mkdir()
    return one


def steps(one):
    one.copy_tree()
    one.configure()
    one.compile(["all"])
    one.install_built()


def test_whole_build(small):
    steps(small)
    assert (small.install / "file").read_text() == "whole\n"
    assert (small.tree / "src" / "a.cpp").read_text() == "src/a.cpp\n"


def test_new_source_file_is_configured(small, capsys):
    steps(small)
    capsys.readouterr()
    small.configure()
    assert not capsys.readouterr().out
    (small.tree / "src" / "b.cpp").touch()
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
    whole = (fake / "cmake").read_text()
    shell(fake / "cmake", whole + 'case "$1" in --install) echo half > "$4/file"; exit 1 ;; esac')
    with pytest.raises(Failure):
        steps(small)
    assert not small.install.exists()
    shell(fake / "cmake", whole)
    steps(small)
    assert (small.install / "file").read_text() == "whole\n"
    # And the next one, which replaces it, leaves it in place until it is whole itself.
    (small.tree / "python" / "a.py").write_text("changed\n")
    shell(fake / "cmake", whole + 'case "$1" in --install) echo half > "$4/file"; exit 1 ;; esac')
    with pytest.raises(Failure):
        steps(small)
    assert (small.install / "file").read_text() == "whole\n"


def test_interrupted_copy_is_not_taken_for_a_tree(small):
    (small.folder / "caffe.partial").mkdir()
    (small.folder / "caffe.partial" / "left_over").touch()
    small.copy_tree()
    assert (small.tree / "include" / "a.hpp").exists()
    assert not (small.tree / "left_over").exists()


def test_full_disk_is_said_beforehand(small, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(Failure, match=r"has 0\.1 GiB free"):
        small.check_disk()


def test_disk_fills_up_while_copying(small, monkeypatch):
    def full(source, target, **_):
        Path(target).mkdir()
        raise OSError(errno.ENOSPC, "No space left on device", target)

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(OSError, match="No space left"):
        small.copy_tree()
    assert not small.tree.exists()


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
