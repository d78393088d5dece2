"""Which CUDA is found, what is installed beside it, and that our .cu files are held to C++11."""

import importlib
import os
import shutil
from pathlib import Path

import pytest
from stand_in_program import shell

from _common import Failure

ROOT = Path(__file__).resolve().parent.parent
KNOWN = {75, 80, 86, 89, 90, 100, 103, 110, 120, 121}
# An nvcc that finds every library but those that $LACKS names.
NVCC = """\
case "$*" in
*--version*) echo "Cuda compilation tools, release {version}, V{version}.88"; exit 0 ;;
esac
for word in $LACKS; do case "$*" in *"-l$word"*) exit 1 ;; esac; done
exit 0
"""


@pytest.fixture
def toolkit(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("cuda_toolkit")


@pytest.fixture
def fake_nvcc(tmp_path, monkeypatch):
    def make(version="13.0", lacks=""):
        path = tmp_path / "nvcc"
        shell(path, NVCC.format(version=version))
        monkeypatch.setenv("CUDACXX", str(path))
        monkeypatch.setenv("LACKS", lacks)
        return path

    return make


@pytest.fixture
def pip(toolkit, monkeypatch):
    """In place of pip: what it is asked for, and wheels with the layout of NVIDIA's."""
    asked = []

    def make_venv(folder, requirements):
        asked.extend(requirements.read_text().split())
        site = folder / "lib" / "python3.11" / "site-packages" / "nvidia"
        for name in ["cu13/lib/libcublas.so.13", "cu13/bin/nvcc", "nccl/lib/libnccl.so.2"]:
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).touch()

    monkeypatch.setattr("make_venv.make_venv", make_venv)
    return asked


def test_a_whole_toolkit_needs_no_packages(toolkit, fake_nvcc, pip, tmp_path):
    nvcc = fake_nvcc()
    assert toolkit.find(tmp_path / "wheels") == toolkit.Toolkit(nvcc, "13.0", [])
    assert pip == []


def test_what_is_missing_is_installed_for_the_version_of_nvcc(toolkit, fake_nvcc, pip, tmp_path):
    nvcc = fake_nvcc("12.4", lacks="cublas nccl")
    found = toolkit.find(tmp_path / "wheels")
    assert pip == ["cuda-toolkit[cublas]==12.4.*", "nvidia-nccl-cu12"]
    assert (found.nvcc, found.version) == (nvcc, "12.4")
    assert [folder.name for folder in found.prefixes] == ["cu13", "nccl"]
    link = found.prefixes[1] / "lib" / "libnccl.so"
    assert os.readlink(link) == "libnccl.so.2"


@pytest.mark.parametrize("lacks", ["cudart", None])
def test_without_a_working_nvcc_all_is_installed(
    toolkit, fake_nvcc, pip, tmp_path, monkeypatch, lacks
):
    fake_nvcc("11.8", lacks=lacks or "")
    if lacks is None:
        monkeypatch.delenv("CUDACXX")
        monkeypatch.setattr(toolkit.shutil, "which", lambda name: None)
    found = toolkit.find(tmp_path / "wheels")
    assert pip[0] == "cuda-toolkit[nvcc,cccl]==13.0.*"
    assert len(pip) == 1 + len(toolkit.COMPONENTS)
    assert found.version == "13.0"
    assert found.nvcc == found.prefixes[0] / "bin" / "nvcc"
    assert os.readlink(found.prefixes[0] / "lib64") == "lib"


def test_an_old_toolkit_is_not_completed_from_pypi(toolkit, fake_nvcc, pip, tmp_path):
    fake_nvcc("10.2", lacks="nccl")
    with pytest.raises(Failure) as stop:
        toolkit.find(tmp_path / "wheels")
    assert stop.value.status == 1
    assert "CUDA 10.2 is here without nccl" in str(stop.value)


@pytest.mark.parametrize(
    ("name", "message"), [("/bin/true", "is not nvcc"), ("none", "does not exist")]
)
def test_what_is_no_nvcc_is_refused(toolkit, monkeypatch, tmp_path, name, message):
    monkeypatch.setenv("CUDACXX", name)
    with pytest.raises(Failure) as stop:
        toolkit.find(tmp_path / "wheels")
    assert stop.value.status == 2
    assert f"{name} {message}; CUDACXX names it" in str(stop.value)


@pytest.mark.parametrize(
    ("text", "known", "wanted"),
    [
        (None, KNOWN, "75-real;80-real;90;100-real;120-real"),
        ("", {70, 75, 80, 90}, "75-real;80-real;90"),
        ("90", KNOWN, "90"),
        ("75, 90a-real", KNOWN, "75;90a-real"),
        ("60", set(), "60"),
        ("all-major", KNOWN, "all-major"),
    ],
)
def test_architectures(toolkit, text, known, wanted):
    assert toolkit.architectures(text, known) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sm_90", "sm_90 is no GPU architecture"),
        ("60", "does not compile for 60, only for 75, 80"),
        ("native", "this machine has no NVIDIA GPU"),
    ],
)
def test_wrong_architectures(toolkit, monkeypatch, text, message):
    monkeypatch.setattr(toolkit, "GPU_DEVICES", [])
    with pytest.raises(Failure) as stop:
        toolkit.architectures(text, KNOWN)
    assert stop.value.status == 2
    assert message in str(stop.value)


@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("__global__ void K(float*) { int left = 3; }", "never referenced"),
        ("void F() { auto f = [](auto x) { return x; }; f(1); }", "auto"),
    ],
    ids=["warning", "C++14"],
)
def test_cuda_check_refuses(toolkit, tmp_path, monkeypatch, capfd, code, message):
    compile_cuda = importlib.import_module("compile_cuda")
    monkeypatch.setattr(compile_cuda, "ROOT", tmp_path)
    source = tmp_path / "wrong.cu"
    source.write_text(code)
    nvcc = toolkit.Toolkit(Path(shutil.which("nvcc")), "", [])
    with pytest.raises(Failure) as stop:
        compile_cuda.compile_file(source, nvcc, [], ["90"], tmp_path)
    assert stop.value.status == 1
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("__global__ void K(float*) { int left = 3; }", "unused variable"),
        ("void F() { auto f = [](auto x) { return x; }; f(1); }", "auto"),
        ("__global__ void K() { __nanosleep(1); }", "__nanosleep"),
    ],
    ids=["warning", "C++14", "of later GPUs"],
)
def test_cuda_check_refuses_for_old_gpus(toolkit, tmp_path, monkeypatch, capfd, code, message):
    old = importlib.import_module("compile_old_cuda")
    if not any(map(shutil.which, old.CLANG)) or not (old.FOLDER / "complete").exists():
        pytest.skip("needs `make cuda-check`")
    cuda, folders = old.find_cuda()
    monkeypatch.setattr(old, "ROOT", tmp_path)
    source = tmp_path / "wrong.cu"
    source.write_text(code)
    with pytest.raises(Failure) as stop:
        old.compile_file(source, old.find_clang(), cuda, folders, tmp_path)
    assert stop.value.status == 1
    assert message in capfd.readouterr().err


def test_installed_programs_find_the_packages(toolkit, monkeypatch, tmp_path):
    wheels = toolkit.Toolkit(Path("nvcc"), "13.0", [tmp_path / "cu13", tmp_path / "nccl"])
    monkeypatch.setattr(toolkit, "find", lambda: wheels)
    monkeypatch.setenv("CUDA_ARCH", "90")
    arguments = toolkit.cmake_arguments()
    rpath = f'-Wl,-rpath,"{tmp_path}/cu13/lib" -Wl,-rpath,"{tmp_path}/nccl/lib"'
    assert f"-DCMAKE_SHARED_LINKER_FLAGS={rpath}" in arguments
    assert f"-DCMAKE_PREFIX_PATH={tmp_path}/cu13;{tmp_path}/nccl" in arguments
    assert "-DCMAKE_CUDA_ARCHITECTURES=90" in arguments


# CUDA's libraries, for what was built


@pytest.fixture
def needs(toolkit, tmp_path, monkeypatch):
    """A program that ldd says to lack a library; the folders to look in are made up."""
    ldd = tmp_path / "bin" / "ldd"
    lines = ["\tlibm.so.6 => /lib/libm.so.6 (0x7f)", "\tlibmade_up.so.1 => not found"]
    shell(ldd, "\n".join(f"echo '{line}'" for line in lines))
    monkeypatch.setenv("PATH", f"{ldd.parent}:/usr/bin:/bin")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(toolkit, "WHEELS", tmp_path / "wheels")
    monkeypatch.setattr(toolkit.sys, "path", [str(tmp_path / "site")])
    monkeypatch.chdir(tmp_path)
    return tmp_path / "program"


@pytest.mark.parametrize(
    "place", ["wheels/lib/python3.11/site-packages/nvidia/cu13/lib", "site/nvidia/nccl/lib"]
)
def test_library_of_a_package(toolkit, needs, tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(parents=True)
    (folder / "libmade_up.so.1").touch()
    assert toolkit.environment(needs)["LD_LIBRARY_PATH"] == str(folder)


def test_machines_own_folders_come_last(toolkit, needs, tmp_path, monkeypatch):
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "libmade_up.so.1").touch()
    # An empty part is the folder that a program runs in.
    monkeypatch.setenv("LD_LIBRARY_PATH", ":/driver:named:")
    path = toolkit.environment(needs)["LD_LIBRARY_PATH"]
    assert path == f"{tmp_path / 'named'}:/driver"


def test_missing_library(toolkit, needs):
    with pytest.raises(toolkit.Failure, match=r"libmade_up\.so\.1: in none of \d+ folders") as stop:
        toolkit.environment(needs)
    assert stop.value.status == 2


def test_what_finds_its_libraries_keeps_the_environment(toolkit, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", ":relative")
    assert toolkit.environment(Path("/bin/sh")) == dict(os.environ)
