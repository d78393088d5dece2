"""Labels as Caffe's nets read them: an LMDB of Datum, a list of HDF5 files, or an .npy file.

They come in pieces of bounded size, so that a data set of any size takes the same memory.
"""

from collections import namedtuple
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np

from weighted_sigmoid_loss.errors import Failure, Refused

from .prototxt import caffe_messages

PIECE = 1 << 20  # elements read at a time; but always a whole instance

# words: what they are, for people. indices: whether they are class indices. pieces: arrays of
# instances along axis 0, of any numeric type.
Labels = namedtuple("Labels", "words instances indices pieces")


@contextmanager
def open_labels(path, dataset="label", field=None):
    """Open what a data layer's source names, or one HDF5 or .npy file.

    dataset: which one of an HDF5 file's. field: a Datum's `data` or `label`; None: `label` where
    the first Datum has one.
    """
    with opener(path, dataset, field) as labels:
        if not labels.instances:
            raise Refused(f"{path}: no labels in it")
        yield labels


def opener(path, dataset, field):
    if path.is_dir():
        if (path / "CURRENT").is_file():
            raise Refused(f"{path}: a LevelDB: write the labels to an LMDB, HDF5 or .npy file")
        if not (path / "data.mdb").is_file():
            raise Refused(f"{path}: no LMDB in this folder: it has no data.mdb")
        return lmdb_labels(path, field)
    magic = first_bytes(path)
    if magic.startswith(b"\x93NUMPY"):
        return npy_labels(path)
    if magic.startswith(b"\x89HDF"):
        return hdf5_labels([path], dataset, path)
    return hdf5_labels(listed_files(path), dataset, path)


def first_bytes(path):
    try:
        with open(path, "rb") as stream:
            return stream.read(8)
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


def numeric(dtype, where):
    if dtype.kind not in "biuf":
        raise Refused(f"{where}: its values are of type {dtype}: labels must be numbers")


def rows_a_piece(shape):
    """How many instances of this shape make up a piece."""
    return max(1, PIECE // max(1, int(np.prod(shape[1:], dtype=np.int64))))


# .npy


@contextmanager
def npy_labels(path):
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise Refused(f"{path}: not a whole .npy file of numbers: {one_line(error)}") from None
    numeric(array.dtype, path)
    if not array.ndim:
        raise Refused(f"{path}: it has a single number: labels have an axis of instances")
    step = rows_a_piece(array.shape)
    pieces = (array[start : start + step] for start in range(0, len(array), step))
    yield Labels(f"{dimensions(array.shape)} in {path}", len(array), False, pieces)


def dimensions(shape):
    return " x ".join(f"{size:,}" for size in shape)


def one_line(error):
    return " ".join(str(error).split())


# HDF5


def listed_files(path):
    """The files that a list names, as HDF5Data reads it: words between white space."""
    try:
        names = path.read_bytes().decode("utf-8").split()
    except UnicodeDecodeError:
        names = []
    if not names or any("\0" in name for name in names):
        raise Refused(f"{path}: neither an LMDB folder, an HDF5 or .npy file, nor a list of files")
    for name in names:
        if not Path(name).is_file():
            raise Refused(
                f"{path}: it names {name}, which is not here: names in a list start at the folder "
                "that `caffe train` runs in, so run this there"
            )
    return [Path(name) for name in names]


@contextmanager
def hdf5_labels(files, dataset, source):
    h5py = needed("h5py", "python3-h5py")
    shapes = [hdf5_shape(h5py, path, dataset) for path in files]
    for path, shape in zip(files, shapes):
        if shape[1:] != shapes[0][1:]:
            raise Refused(
                f"{path}: dataset '{dataset}' is {dimensions(shape)}, and {dimensions(shapes[0])} "
                f"in {files[0]}: all but the first axis must be equal"
            )
    instances = sum(shape[0] for shape in shapes)
    shape = dimensions((instances, *shapes[0][1:]))
    pieces = (piece for path in files for piece in hdf5_pieces(h5py, path, dataset))
    yield Labels(f"{shape} in {source}, dataset '{dataset}'", instances, False, pieces)


@contextmanager
def hdf5_dataset(h5py, path, name):
    try:
        with h5py.File(path, "r") as file:
            found = file.get(name)
            if not isinstance(found, h5py.Dataset):
                names = ", ".join(sorted(file)) or "none"
                raise Refused(f"{path}: no dataset '{name}' (it has: {names}): name it, --dataset")
            yield found
    except (OSError, RuntimeError) as error:
        raise Refused(f"{path}: not a whole HDF5 file: {one_line(error)}") from None


def hdf5_shape(h5py, path, name):
    with hdf5_dataset(h5py, path, name) as dataset:
        numeric(dataset.dtype, f"{path}: dataset '{name}'")
        if not dataset.shape:
            raise Refused(f"{path}: dataset '{name}' has no axis of instances")
        return dataset.shape


def hdf5_pieces(h5py, path, name):
    with hdf5_dataset(h5py, path, name) as dataset:
        step = rows_a_piece(dataset.shape)
        for start in range(0, dataset.shape[0], step):
            yield dataset[start : start + step]


# LMDB


@contextmanager
def lmdb_labels(path, field):
    lmdb = needed("lmdb", "python3-lmdb")
    datum = caffe_messages().Datum()
    try:
        with lmdb.open(str(path), readonly=True, lock=False) as database:
            check_length(path, database)
            with database.begin(buffers=True) as transaction:
                records = transaction.cursor()
                instances = database.stat()["entries"]
                if field is None:
                    field = guessed_field(path, records, datum)
                pieces = datum_pieces(path, records, datum, field)
                words = f"{instances:,} Datum in {path}, field `{field}`"
                yield Labels(words, instances, field == "label", pieces)
    except lmdb.Error as error:
        raise Refused(f"{path}: not a readable LMDB: {one_line(error)}") from None


def check_length(path, database):
    """Refuse a file that ends too early: its missing pages would kill the process when read."""
    pages = database.info()["last_pgno"] + 1
    expected = pages * database.stat()["psize"]
    size = (path / "data.mdb").stat().st_size
    if size < expected:
        raise Refused(
            f"{path}: truncated: data.mdb has {size:,} bytes of {expected:,}: copy it again"
        )


def guessed_field(path, records, datum):
    if not records.first():
        return "data"
    read_datum(path, records.key(), records.value(), datum)
    return "label" if datum.HasField("label") else "data"


def datum_pieces(path, records, datum, field):
    values = datum_values(path, records, datum, field)
    while True:
        first = next(values, None)
        if first is None:
            return
        rest = islice(values, rows_a_piece((1, *first.shape)) - 1)
        yield np.stack([first, *rest])


def datum_values(path, records, datum, field):
    """Each Datum's label, or its C x H x W values, all of one shape."""
    shape = None
    for key, value in records:
        read_datum(path, key, value, datum)
        if field == "label":
            if not datum.HasField("label"):
                raise Refused(f"{record(path, key)} has no label: --field data reads its values")
            yield np.array(datum.label)
            continue
        array = datum_array(record(path, key), datum)
        shape = shape or array.shape
        if array.shape != shape:
            raise Refused(
                f"{record(path, key)} is {dimensions(array.shape)}, and the first "
                f"{dimensions(shape)}: label blobs must be of equal size"
            )
        yield array


def record(path, key):
    return f"{path}: Datum '{bytes(key).decode('utf-8', 'replace')}'"


def read_datum(path, key, value, datum):
    from google.protobuf.message import DecodeError

    try:
        datum.ParseFromString(bytes(value))
    except DecodeError:
        raise Refused(f"{record(path, key)} is damaged, or no Datum") from None


def datum_array(where, datum):
    """The values as Caffe takes them: bytes if there are any, else floats."""
    if datum.encoded:
        raise Refused(
            f"{where} is an encoded image: --field label counts its class index; labels of "
            "several classes must be raw, in data or float_data"
        )
    if datum.data:
        values = np.frombuffer(datum.data, np.uint8)
    else:
        values = np.array(datum.float_data, np.float32)
    shape = datum.channels, datum.height, datum.width
    if values.size != np.prod(shape, dtype=np.int64) or not values.size:
        raise Refused(f"{where} has {values.size:,} values, and its shape is {dimensions(shape)}")
    return values.reshape(shape)
