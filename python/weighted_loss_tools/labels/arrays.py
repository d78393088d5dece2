"""Labels in .npy and .npz files."""

import math
import zipfile

import numpy as np

from weighted_sigmoid_loss.errors import Refused

from .common import Labels, check_array, dimensions, refusing, rows_a_piece


def npy(path, source):
    with refusing(f"{path}: not a whole .npy file of numbers"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        check_array(path, array.shape, array.dtype)
        yield Labels(f"{dimensions(array.shape)} in {path}", len(array), False, [])
        step = rows_a_piece(array.shape)
        for start in range(0, len(array), step):
            yield np.array(array[start : start + step])


def npz(path, source):
    with refusing(f"{path}: not a whole .npz file of numbers"), zipfile.ZipFile(path) as archive:
        name = chosen(path, archive, source.dataset)
        with archive.open(name + ".npy") as stream:
            shape, by_columns, dtype = header(stream)
            words = f"{path}: array '{name}'"
            check_array(words, shape, dtype)
            if by_columns and len(shape) > 1:
                raise Refused(f"{words} is stored by columns: save numpy.ascontiguousarray() of it")
            yield Labels(f"{dimensions(shape)} in {path}, array '{name}'", shape[0], False, [])
            yield from rows(stream, shape, dtype)


def chosen(path, archive, name):
    """The array that is meant: 'label', or the only one."""
    names = [entry[:-4] for entry in archive.namelist() if entry.endswith(".npy")]
    if name is None:
        name = names[0] if len(names) == 1 else "label"
    if name not in names:
        held = ", ".join(names[:10]) or "none"
        raise Refused(f"{path}: no array '{name}' (it has: {held}): name it, --dataset")
    return name


def header(stream):
    """Of version 1.0, as NumPy writes it for numbers: later ones may be of any length."""
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("a header of a later version than that of numbers")
    return np.lib.format.read_array_header_1_0(stream)


def rows(stream, shape, dtype):
    """What a zip file compresses cannot be mapped; a stream takes no more memory than it has."""
    step = rows_a_piece(shape)
    for start in range(0, shape[0], step):
        part = (min(step, shape[0] - start), *shape[1:])
        data = stream.read(math.prod(part) * dtype.itemsize)
        yield np.frombuffer(data, dtype).reshape(part)
