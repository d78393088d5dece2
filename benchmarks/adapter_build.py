"""Compiles adapter.cpp against the Caffe that was built for a device."""

import hashlib
import os
import shlex
import tempfile
from pathlib import Path

import cuda_toolkit
from _common import Failure, run

HERE = Path(__file__).resolve().parent
OUTPUT = "adapter.so"
LIBRARIES = ["-lcaffe", "-lprotobuf", "-lglog"]


def library_of(device, install):
    library = install / "lib" / "libcaffe.so"
    if not library.exists():
        remedy = f"run `make bench DEVICE={device.name}`"
        raise Failure(f"no built Caffe: {library} is missing; {remedy}", 2)
    return library.resolve()


def build(device, install, folder):
    """Return the adapter for this Caffe, which is compiled where it is not in the folder yet."""
    install = install.resolve()
    library = library_of(device, install)
    commands = [
        list(map(str, argv)) for argv in {"cpu": for_cpu, "gpu": for_gpu}[device.name](install)
    ]
    key = hashlib.sha256(repr(commands).encode())
    for path in (*sorted(HERE.glob("*.[ch]pp")), library):
        key.update(path.read_bytes())
    adapter = folder / f"adapter-{key.hexdigest()[:16]}.so"
    if not adapter.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            for argv in commands:
                compile_in(scratch, argv)
            Path(scratch, OUTPUT).replace(adapter)
    return adapter


def for_cpu(install):
    """The commands; what the kernel is compared with is compiled for this machine's best set."""
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    options = ["-std=c++11", "-Wall", "-fPIC", "-isystem", install / "include"]
    native = ["-march=native", "-fopenmp"]
    sources = {
        "adapter": ["-O2", "-DCPU_ONLY"],
        "floor": ["-O3", *native],
        "plain_loss": ["-Ofast", *native],
        "highway_loss": ["-O3", *native],
    }
    for name, own in sources.items():
        yield [*compiler, *options, *own, "-c", HERE / f"{name}.cpp", "-o", f"{name}.o"]
    objects = [f"{name}.o" for name in sources]
    folder = install / "lib"
    where = [f"-L{folder}", f"-Wl,-rpath,{folder}", "-Wl,--no-undefined"]
    yield [*compiler, "-shared", *objects, *where, *LIBRARIES, "-fopenmp", "-o", OUTPUT]


def for_gpu(install):
    toolkit = cuda_toolkit.find()
    folders = [install / "lib", *(prefix / "lib" for prefix in toolkit.prefixes)]
    argv = [toolkit.nvcc, "-std=c++11", "-O2", "-Xcompiler=-Wall,-fPIC"]
    for headers in (install / "include", *toolkit.include_folders):
        argv += ["-isystem", headers]
    argv += ["-shared", "-cudart=shared", HERE / "adapter.cpp"]
    argv += [f"-L{folder}" for folder in folders]
    argv += [f"-Xlinker=-rpath={folder}" for folder in folders]
    yield [*argv, "-Xlinker=--no-undefined", *LIBRARIES, "-o", OUTPUT]


def compile_in(folder, argv):
    done = run(argv, check=False, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        lines = done.stderr.splitlines()
        cause = next((line for line in lines if "error" in line), "".join(lines[-1:]))
        raise Failure(f"the C++ adapter does not build against the installed Caffe: {cause}")
