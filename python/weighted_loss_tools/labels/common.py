"""What the readers of labels share.

A reader is a generator: it yields a Labels, then pieces, arrays of instances along axis 0 of any
numeric type. They are of bounded size, so that a data set of any size takes the same memory.
"""

import math
import warnings
from collections import namedtuple
from contextlib import contextmanager

from weighted_sigmoid_loss.errors import Failure, Refused

from ..files import refuse_special

PIECE = 1 << 20  # elements read at a time; but always a whole instance
MOST_ELEMENTS = 1 << 27  # of an instance: a header that says more is damaged
LONGEST_MESSAGE = 300  # of a library: it may quote the file

# words: what they are, for people. indices: whether they are class indices. notes: what the user
# may not expect.
Labels = namedtuple("Labels", "words instances indices notes")


@contextmanager
def refusing(words):
    """Whatever a library raises in here, or only warns of, is due to its input."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (Failure, MemoryError):
        raise
    except Exception as error:
        message = " ".join(str(error)[:LONGEST_MESSAGE].split()) or type(error).__name__
        raise Refused(f"{words}: {message}") from None


def first_bytes(path):
    refuse_special(path)
    try:
        with open(path, "rb") as stream:
            return stream.read(1 << 12)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None


def needed(module, package):
    try:
        return __import__(module)
    except ImportError as error:
        raise Failure(
            f"the Python package {module} is needed for this source ({error}); on Debian: "
            f"apt-get install {package}"
        ) from None


def check_array(where, shape, dtype):
    """Refuse what cannot be labels, before any of it is read."""
    if dtype.kind not in "biuf":
        raise Refused(f"{where}: its values are of type {dtype}: labels must be numbers")
    if not shape:
        raise Refused(f"{where}: it has a single number: labels have an axis of instances")
    if not math.prod(shape):
        raise Refused(f"{where}: no labels in it")
    if math.prod(shape[1:]) > MOST_ELEMENTS:
        raise Refused(
            f"{where}: it is {dimensions(shape)}, and an instance has at most {MOST_ELEMENTS:,} "
            "labels: cut it into tiles"
        )


def rows_a_piece(shape):
    """How many instances of this shape make up a piece."""
    return max(1, PIECE // max(1, math.prod(shape[1:])))


def dimensions(shape):
    return " x ".join(f"{size:,}" for size in shape)
