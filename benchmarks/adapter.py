"""The contestants in C++, called from Python. adapter_build.py compiles them."""

import ctypes

import numpy as np


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
        """The instruction set in use and all that could be, none on a GPU; and the compiler."""
        in_use, *available = self.instruction_sets().decode().split() or [""]
        versions = self.compiler().decode()
        return {"isa": in_use, "instruction_sets": available, "versions": versions}


class AdapterStep:
    """One way (baseline, layer, two passes, one pass) of computing one problem."""

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
