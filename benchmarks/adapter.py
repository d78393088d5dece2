"""The contestants in C++: adapter.cpp and floor.cpp compiled against the built Caffe, and called.

The floor alone is compiled for this machine's instruction set. The rest calls libcaffe, which picks
its own.
"""

import ctypes
import hashlib
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from failure import BenchError

HERE = Path(__file__).resolve().parent
# Which options a source is compiled with.
SOURCES = {
    "adapter.cpp": ["-O2", "-DCPU_ONLY"],
    "floor.cpp": ["-O3", "-march=native", "-fopenmp"],
}
LIBRARIES = ["-lcaffe", "-lprotobuf", "-lglog", "-lboost_system", "-fopenmp"]


def library_of(install):
    library = install / "lib" / "libcaffe.so"
    if not library.exists():
        raise BenchError(f"no built Caffe: {library} is missing; run `make bench`", status=2)
    return library.resolve()


def build(install, folder):
    """Return the adapter for this Caffe, which is compiled where it is not in the folder yet."""
    install = install.resolve()
    library = library_of(install)
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    made_of = [*sorted(HERE.glob("*.[ch]pp")), library, Path(__file__)]
    key = hashlib.sha256(repr([compiler, str(install)]).encode())
    for path in made_of:
        key.update(path.read_bytes())
    adapter = folder / f"adapter-{key.hexdigest()[:16]}.so"
    if not adapter.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            link(compiler, install, Path(scratch)).replace(adapter)
    return adapter


def link(compiler, install, scratch):
    objects = []
    for source, options in SOURCES.items():
        objects.append(scratch / f"{source}.o")
        headers = ["-isystem", install / "include"]
        options = ["-std=c++11", "-Wall", "-fPIC", *options, *headers]
        compile_with(compiler, [*options, "-c", HERE / source, "-o", objects[-1]])
    folder = install / "lib"
    where = [f"-L{folder}", f"-Wl,-rpath,{folder}", "-Wl,--no-undefined"]
    compile_with(compiler, ["-shared", *objects, *where, *LIBRARIES, "-o", scratch / "adapter.so"])
    return scratch / "adapter.so"


def compile_with(compiler, arguments):
    argv = [*compiler, *map(str, arguments)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True)
    except OSError as error:
        raise BenchError(f"cannot run {argv[0]}: {error.strerror}; install g++") from None
    if done.returncode != 0:
        lines = done.stderr.splitlines()
        cause = next((line for line in lines if "error" in line), "".join(lines[-1:]))
        raise BenchError(f"the C++ adapter does not build against the installed Caffe: {cause}")


class Adapter:
    """The compiled adapter, loaded into this process."""

    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))
        pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
        sizes = ctypes.POINTER(number)
        self._declare("instruction_sets", text)
        self._declare("compiler", text)
        self._declare("new", pointer, text, number, text, sizes, number, sizes, number)
        self._declare("delete", None, pointer)
        self._declare("array", pointer, pointer, text)
        self._declare("loss", ctypes.c_double, pointer)
        self._declare("run", ctypes.c_double, pointer, ctypes.c_long)

    def _declare(self, name, result, *arguments):
        function = getattr(self.library, f"adapter_{name}")
        function.restype, function.argtypes = result, arguments
        setattr(self, name, function)

    def describe(self):
        """The instruction set in use, all that could be, and the compiler."""
        in_use, *available = self.instruction_sets().decode().split()
        return in_use, available, self.compiler().decode()


class AdapterStep:
    """One way (floor, layer, two passes, one pass) of computing one problem."""

    def __init__(self, adapter, way, layer, problem):
        self.adapter, self.problem = adapter, problem
        shape, weight_shape = (
            (ctypes.c_int * len(sizes))(*sizes) for sizes in (problem.shape, problem.weight_shape)
        )
        self.step = adapter.new(
            way.encode(),
            problem.dtype == "float64",
            layer.encode(),
            shape,
            len(shape),
            weight_shape,
            len(weight_shape),
        )
        if not self.step:
            raise ValueError("Caffe cannot read the layer's text")
        weight = self._array("weight", problem.weight_shape) if problem.weight_shape else None
        problem.fill(
            self._array("scores", problem.shape), self._array("targets", problem.shape), weight
        )

    def _array(self, name, shape):
        address = self.adapter.array(self.step, name.encode())
        ctype = np.ctypeslib.as_ctypes_type(np.dtype(self.problem.dtype))
        return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctype)), shape)

    def run(self, calls):
        return self.adapter.run(self.step, calls)

    def result(self):
        self.run(1)
        return self.adapter.loss(self.step), self._array("gradient", self.problem.shape)

    def release(self):
        self.adapter.delete(self.step)
        self.step = None
