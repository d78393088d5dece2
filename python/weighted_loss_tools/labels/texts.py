"""Labels in text files: tables of numbers, and lists of HDF5 files, images or masks."""

import csv
import os
import re
from itertools import islice
from pathlib import Path

import numpy as np

from weighted_sigmoid_loss.errors import Refused

from . import hdf5, images
from .common import Labels, first_bytes, rows_a_piece

NONE_OF_THESE = (
    "neither an LMDB folder, an HDF5, .npy, .npz or image file, nor a text: a table of numbers, or "
    "a list of HDF5 files or images"
)
ONLY_LABELS = (
    "give a number per channel, 0 for what is not there, and no other column; a mark for a missing "
    "one takes --ignore-label"
)
LONGEST_LINE = 1 << 24
csv.field_size_limit(LONGEST_LINE)
TRUTH = {"true": 1.0, "false": 0.0}  # as pandas' to_csv() writes bool
# Names of a table's first column that numbers its rows; "" is what pandas' to_csv() writes.
ROW_NUMBERS = ("", "id", "image_id", "index")


def text(path, source):
    """What the third line says that it is: a table, or a list."""
    table = Table(path)
    if table.width > 1 or (table.width and (table.delimiter or not table.names)):
        yield from numbers(path, table)
    elif table.width:
        yield from numbered_list(path, source)
    else:
        yield from names(path, source)


def lines(path):
    """Each line that is not blank, with its number."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as stream:
        number = 0
        while line := stream.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE or "\0" in line:
                raise Refused(f"{path}: {NONE_OF_THESE}")
            if line.strip():
                yield number, line.rstrip("\n")


# Tables


class Table:
    """How a text's lines divide into names and numbers."""

    def __init__(self, path):
        self.path = path
        head = [line for _, line in islice(lines(path), 3)]
        if not head:
            raise Refused(f"{path}: {NONE_OF_THESE}")
        self.delimiter = next((d for d in ",;\t" if d in head[-1] and width(head[-1], d)), None)
        self.width = width(head[-1], self.delimiter)
        self.names = len(split(head[-1], self.delimiter)) - self.width
        self.headings = 0
        for line in head[:-1]:
            self.read_heading(split(line, self.delimiter))

    def read_heading(self, fields):
        """The columns' names, and what CelebA's lists have above these: the number of images."""
        rows_are_numbered = fields[0].lower() in ROW_NUMBERS
        names = fields[rows_are_numbered:]
        numbered = names == [str(i) for i in range(len(names))]  # pandas' columns without names
        is_names = not width(names) or (numbered and len(names) > 2)
        self.headings += is_names or self.width > 1 == len(fields)
        if is_names and rows_are_numbered and not self.names and self.width > 1:
            self.names, self.width = 1, self.width - 1

    def __iter__(self):
        """The numbers of each line."""
        for number, line in islice(lines(self.path), self.headings, None):
            fields = split(line, self.delimiter)
            if len(fields) != self.names + self.width and width(fields) != self.width:
                raise Refused(
                    f"{self.path}: line {number} has {width(fields)} labels, and others have "
                    f"{self.width}: {ONLY_LABELS}"
                )
            try:
                yield [number_in(field) for field in fields[-self.width :]]
            except ValueError as error:
                raise Refused(f"{self.path}: line {number}: {error}: {ONLY_LABELS}") from None


def split(line, delimiter):
    return next(csv.reader([line], delimiter=delimiter)) if delimiter else line.split()


def width(fields, delimiter=None):
    """How many fields at the end are numbers."""
    count = 0
    for field in reversed(split(fields, delimiter) if isinstance(fields, str) else fields):
        try:
            number_in(field)
        except ValueError:
            break
        count += 1
    return count


def number_in(field):
    truth = TRUTH.get(field.strip().lower())
    return float(field) if truth is None else truth


def numbers(path, table):
    instances = sum(1 for _ in lines(path)) - table.headings
    yield Labels(f"{instances:,} x {table.width:,} in {path}", instances, False, [])
    rows = iter(table)
    while piece := list(islice(rows, rows_a_piece((1, table.width)))):
        yield np.array(piece, np.float32)


# Lists


def names(path, source):
    """HDF5 files, or masks: the last name of each line, as in pairs of images and masks."""
    (first,) = islice(lines(path), 1)
    if any(d in first[1] for d in ",;\t") and not os.path.isfile(first[1].split()[0]):
        raise Refused(f"{path}: not a table of numbers: {ONLY_LABELS}")
    head = first_bytes(present(path, first[1].split()[0]))
    if head.startswith(hdf5.MAGIC):
        files = [present(path, name) for _, line in lines(path) for name in line.split()]
        yield from hdf5.files(files, path, source)
    elif re.match(images.MAGIC, head, re.DOTALL):
        yield from masks(path, [present(path, line.split()[-1]) for _, line in lines(path)])
    else:
        raise Refused(f"{path}: it names {first[1].split()[0]}, neither an HDF5 file nor an image")


def numbered_list(path, source):
    """ImageData's: a name and the number of a class; the images, if all numbers are equal."""
    entries = [entry(path, *line) for line in lines(path)]
    alike = len({number for _, number in entries}) == 1
    if source.field == "label" or (source.field is None and not alike):
        words = f"{len(entries):,} class numbers in {path}"
        yield Labels(words, len(entries), True, [])
        yield np.array([number for _, number in entries], np.float32)
        return
    notes = []
    if source.field is None:
        notes.append(
            f"all numbers of the list are {entries[0][1]:g}, so that the images' pixels are "
            "counted: --field label counts the numbers"
        )
    files = [present(path, (source.root or "") + name) for name, _ in entries]
    yield from masks(path, files, notes)


def entry(path, number, line):
    name, blank, label = line.rstrip().rpartition(" ")
    if not blank:
        return label, 0.0  # as ImageData takes it
    try:
        return name, float(label)
    except ValueError:
        raise Refused(
            f"{path}: line {number} does not end with a class number, as ImageData's do"
        ) from None


def masks(path, files, notes=()):
    yield Labels(f"{len(files):,} masks that {path} names", len(files), False, [*notes])
    for file in files:
        first_bytes(file)
        yield images.read(file.read_bytes(), file)[None, None]


def present(path, name):
    if not os.path.isfile(name):
        raise Refused(
            f"{path}: it names {name}, which is not here: names in a list start at the folder "
            "that `caffe train` runs in, so run this there"
        )
    return Path(name)
