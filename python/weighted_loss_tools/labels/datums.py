"""Labels in an LMDB of Datum, as Data reads it."""

import math
import struct
from itertools import groupby, islice

import numpy as np

from weighted_sigmoid_loss.errors import Refused

from ..prototxt import caffe_messages, takes_all
from . import images
from .common import Labels, dimensions, needed, refusing, rows_a_piece

MAGIC, MAGIC_AT, PAGE_SIZE_AT = 0xBEEFC0DE, 16, 40  # in an LMDB's first page


def lmdb(path, source):
    library = needed("lmdb", "python3-lmdb")
    datum = caffe_messages().Datum()
    check_pages(path)
    with refusing(f"{path}: not a readable LMDB"):
        database = library.open(str(path), readonly=True, lock=False)
        check_length(path, database)
        records = Records(path, database, datum)
        field, notes = (source.field, []) if source.field else chosen_field(records)
        words = f"{records.entries:,} Datum in {path}, field `{field}`"
        yield Labels(words, records.entries, field == "label", notes)
        values = class_indices(records) if field == "label" else arrays(records)
        # Masks of several sizes make pieces of one size each.
        for shape, alike in groupby(values, np.shape):
            while piece := list(islice(alike, rows_a_piece((1, *shape)))):
                yield np.stack(piece)


def check_pages(path):
    """Refuse what has not even the two pages that liblmdb divides by and reads unasked."""
    with open(path / "data.mdb", "rb") as stream:
        head = stream.read(PAGE_SIZE_AT + 4)
        size = stream.seek(0, 2)
    if len(head) < PAGE_SIZE_AT + 4 or struct.unpack_from("=I", head, MAGIC_AT) != (MAGIC,):
        raise Refused(f"{path}: not a readable LMDB: data.mdb does not begin as one does")
    (page,) = struct.unpack_from("=I", head, PAGE_SIZE_AT)
    if size < 2 * page or not page:
        raise Refused(f"{path}: truncated: data.mdb has {size:,} bytes: copy it again")


def check_length(path, database):
    """Refuse a file that ends too early: its missing pages would kill the process when read."""
    pages = database.info()["last_pgno"] + 1
    expected = pages * database.stat()["psize"]
    size = (path / "data.mdb").stat().st_size
    if size < expected:
        raise Refused(
            f"{path}: truncated: data.mdb has {size:,} bytes of {expected:,}: copy it again"
        )


class Records:
    """The LMDB's Datum, each with words for messages; the message is the same one each time."""

    def __init__(self, path, database, datum):
        self.path, self.database, self.datum = path, database, datum
        self.entries = database.stat()["entries"]
        if not self.entries:
            raise Refused(f"{path}: no labels in it")

    def __iter__(self):
        found = 0
        for key, value in self.database.begin(buffers=True).cursor():
            found += 1
            where = f"{self.path}: Datum '{bytes(key[:100]).decode('utf-8', 'replace')}'"
            if not takes_all(self.datum, bytes(value)):
                raise Refused(f"{where} is damaged, or no Datum")
            yield where, self.datum
        if found != self.entries:
            raise Refused(
                f"{self.path}: damaged: it has {found:,} records of {self.entries:,}: copy it again"
            )


def chosen_field(records):
    """`label` if any two differ: all-equal ones are what writers put in unasked, beside values."""
    first, has_values = None, False
    for _, datum in records:
        if not datum.HasField("label"):
            return "data", []
        if first is None:
            first = datum.label
        if datum.label != first:
            return "label", []
        has_values = has_values or bool(datum.data or datum.float_data)
    if not has_values:
        return "label", []
    note = (
        f"the field `label` is {first} in every Datum, so that the values are counted: "
        "--field label counts it"
    )
    return "data", [note]


def class_indices(records):
    for where, datum in records:
        if not datum.HasField("label"):
            raise Refused(f"{where} has no label: --field data reads its values")
        yield np.array(datum.label)


def arrays(records):
    """Each Datum's values, C x H x W, of one number of channels."""
    channels = None
    for where, datum in records:
        array = datum_array(where, datum)
        channels = channels or len(array)
        if len(array) != channels:
            raise Refused(
                f"{where} is {dimensions(array.shape)}, and the first has {channels} channels: "
                "all must have as many"
            )
        yield array


def datum_array(where, datum):
    """The values as Caffe takes them: an image's pixels, else bytes if there are any, or floats."""
    if datum.encoded:
        return images.read(datum.data, where)[None]
    if datum.data:
        values = np.frombuffer(datum.data, np.uint8)
    else:
        values = np.array(datum.float_data, np.float32)
    shape = datum.channels, datum.height, datum.width
    if min(shape) < 1 or values.size != math.prod(shape):
        raise Refused(f"{where} has {values.size:,} values, and its shape is {dimensions(shape)}")
    return values.reshape(shape)
