"""Positives and negatives a channel of a data set's labels.

Labels are compared in float32, as the layer compares them. Soft targets count in parts: t as
positive, 1 - t as negative. Those outside [0, 1] are counted apart.
"""

import numpy as np

from .progress import progress

MOST_CLASSES = 100_000  # a class index beyond is taken for a mistake


class Counts:
    """Sums a channel: positives, and all labels that were counted."""

    def __init__(self, classes):
        self.positives = np.zeros(classes or 0)
        self.counted = 0  # a number for each channel, or one for all
        self.instances = self.ignored = self.outside = 0
        self.first_outside = None

    @property
    def negatives(self):
        return self.counted - self.positives

    def add(self, positives, counted):
        """Add a piece's sums; with class indices it may have more channels than those before."""
        longer = max(len(self.positives), len(positives))
        self.positives = padded(self.positives, longer) + padded(positives, longer)
        self.counted = self.counted + counted


def padded(sums, length):
    return np.pad(sums, (0, length - len(sums)))


def count(labels, arguments, scale):
    """The counts of the labels; ValueError says what is wrong with them."""
    counts = Counts(arguments.classes)
    with progress("counting", labels.instances) as advance:
        for piece in labels.pieces:
            values = np.asarray(piece, np.float32) * np.float32(scale)
            refuse_nan(values, counts.instances)
            valid = np.full(values.shape, True)
            if arguments.ignore_label is not None:
                valid = values != np.float32(arguments.ignore_label)
            counts.ignored += int(np.count_nonzero(~valid))
            if labels.indices or arguments.classes:
                add_indices(counts, values[valid], arguments.classes)
            else:
                add_targets(counts, values, valid, arguments.axis)
            counts.instances += len(values)
            advance(len(values))
    return counts


def refuse_nan(values, before):
    wrong = np.isnan(values)
    if wrong.any():
        instance = before + int(np.argwhere(wrong)[0][0])
        raise ValueError(f"NaN among the labels, first in instance {instance:,} (from 0)")


def add_indices(counts, values, classes):
    """Class indices, as the one-vs-rest targets that they stand for."""
    below = classes or MOST_CLASSES
    wrong = (values != np.floor(values)) | (values < 0) | (values >= below)
    if wrong.any():
        raise ValueError(
            f"{values[wrong][0]:g} is no class index from 0 to {below - 1:,}: name a mark with "
            "--ignore-label, and how many classes there are with --classes"
        )
    counts.add(np.bincount(values.astype(np.int64)).astype(np.float64), values.size)


def add_targets(counts, values, valid, axis):
    """Targets a channel along the axis; labels of one axis have one channel."""
    if values.ndim == 1:
        values, valid = values[:, None], valid[:, None]
    channel_axis = axis + values.ndim if axis < 0 else axis
    if not 1 <= channel_axis < values.ndim:
        raise ValueError(
            f"--axis {axis} is no channel axis of labels with {values.ndim} axes, the first of "
            "which counts instances"
        )
    inside = (values >= 0) & (values <= 1)
    outside = valid & ~inside
    if outside.any() and not counts.outside:
        counts.first_outside = float(values[outside][0])
    counts.outside += int(np.count_nonzero(outside))
    others = tuple(k for k in range(values.ndim) if k != channel_axis)
    counted = valid & inside
    counts.add(
        np.sum(values, axis=others, where=counted, dtype=np.float64),
        np.count_nonzero(counted, axis=others),
    )
