"""The weighted sigmoid cross-entropy loss for Caffe: reference and tools.

__init__, reference and param_str, which the Python layer imports, run on Python 2.7 as well.
"""
