"""The weighted sigmoid cross-entropy loss: loss() and loss_and_grad() of NumPy arrays, the torch
module for PyTorch, the reference, and tools for Caffe.

__init__, reference and param_str, which Caffe's Python layer imports, run on Python 2.7 as well.
"""

__version__ = "0.1.0"

_IN_ARRAYS = ("loss", "loss_and_grad")


def __getattr__(name):
    """loss and loss_and_grad when they are asked for: only they need the compiled module."""
    if name not in _IN_ARRAYS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import arrays

    globals().update((key, getattr(arrays, key)) for key in _IN_ARRAYS)
    return globals()[name]
