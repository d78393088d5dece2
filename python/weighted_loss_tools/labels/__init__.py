"""Labels as Caffe's nets and their users' scripts read them, each kind of source by a reader."""

import os
import re
from collections import namedtuple

from weighted_sigmoid_loss.errors import Refused

from ..in_child import in_child
from . import arrays, datums, hdf5, images, texts
from .common import first_bytes

# dataset: which one of an HDF5 or .npz file's. field: a Datum's or an image list's `data` or
# `label`; None where the values tell. root: for the list of an ImageData layer, what it puts before
# each name. scale: what the layer multiplies by. notes: what the user may not expect of the layer.
Source = namedtuple("Source", "path dataset field root scale notes", defaults=(None,) * 3 + (1, ()))

# By the first bytes: a reader; or, of what others write, how to make of it what is read here.
KINDS = [
    (rb"\x93NUMPY", arrays.npy),
    (rb"PK\x03\x04", arrays.npz),
    (hdf5.MAGIC, hdf5.hdf5),
    (images.MAGIC, images.image),
    (rb"MATLAB [57]\.", "a MATLAB file: numpy.save() what scipy.io.loadmat() or h5py reads of it"),
    (rb"\x80[\x02-\x05]", "a pickle: numpy.save() its array"),
    (rb"\x1f\x8b|BZh\d1AY|\xfd7zXZ\x00", "compressed: unpack it first"),
    (rb"\xff\xfe|\xfe\xff", "a text in UTF-16: save it as UTF-8"),
    (rb"\s*[{[]", "JSON: numpy.save() its labels, N x C, or write them as CSV"),
    (rb"\s*<", "XML: numpy.save() its labels, N x C, or write them as CSV"),
    (rb"\s*(name:|layer\b.*\{)", "a net's prototxt: give it with --net"),
    (rb"PAR1[^\n -~]", "Parquet: write it as CSV, pandas.read_parquet(...).to_csv(...)"),
    (rb".{16}\xde\xc0\xef\xbe", "the file of an LMDB: give the folder that it is in"),
]


def open_labels(source):
    """Return a source's Labels, and its pieces: an iterator, to be closed."""
    pieces = in_child(source.path, read, source)
    return next(pieces), pieces


def read(source):
    yield from reader(source)(source.path, source)


def reader(source):
    path = source.path
    if os.path.isdir(path):
        return folder_reader(path)
    head = first_bytes(path)
    if source.root is not None:
        return texts.numbered_list
    for magic, kind in KINDS:
        if re.match(magic, head, re.DOTALL):
            if isinstance(kind, str):
                raise Refused(f"{path}: {kind}")
            return kind
    if b"\0" in head or not head.strip():
        raise Refused(f"{path}: {texts.NONE_OF_THESE}")
    return texts.text


def folder_reader(path):
    if (path / "CURRENT").is_file():
        raise Refused(f"{path}: a LevelDB: write the labels to an LMDB, HDF5 or .npy file")
    if not (path / "data.mdb").is_file():
        raise Refused(
            f"{path}: no LMDB in this folder: it has no data.mdb (of a folder of masks, give a "
            "list, a name per line)"
        )
    return datums.lmdb
