"""The weighted sigmoid cross-entropy loss: loss() and loss_and_grad() of NumPy arrays and, in the
module torch, of tensors, where the compiled kernel is; reference, schemes, param_str and errors.

__init__, reference and param_str, which Caffe's Python layer imports, run on Python 2.7 as well.
"""

import sys

__version__ = "0.2.0"
__all__ = []

if sys.version_info >= (3,):  # noqa: UP036
    from importlib.util import find_spec

    # The wheel has the kernel; the copy beside pycaffe does not.
    if find_spec(__name__ + "._kernel"):
        from .numpy import loss as loss
        from .numpy import loss_and_grad as loss_and_grad

        __all__ += ["loss", "loss_and_grad"]
