"""The weighted sigmoid cross-entropy loss: the modules numpy and torch, which need the compiled
kernel, and reference, schemes, param_str and errors, which do not.

__init__, reference and param_str, which Caffe's Python layer imports, run on Python 2.7 as well.
"""

__version__ = "0.1.0"
