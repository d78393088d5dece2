"""Positives and negatives per channel of a data set's labels.

Labels are compared in float32, as the layer compares them, and a scaled byte may miss 0 or 1 by a
rounding. Soft targets count in parts: t as positive, 1 - t as negative. Those outside [0, 1] are
counted apart.
"""

import numpy as np

from .progress import progress

MOST_CLASSES = 100_000  # a class index beyond is taken for a mistake
HARD = 2.0**-20  # targets nearer to 0 or 1 are not soft: the layer's rule
MOST_VALUES = 1 << 8  # that are remembered of those outside


class Counts:
    """Sums per channel: positives, all labels that were counted, and those outside [0, 1]."""

    def __init__(self, classes):
        self.positives = np.zeros(classes or 0)
        # A number for each channel, or one for all.
        self.counted = self.outside_per_channel = 0
        self.instances = self.ignored = 0
        # Which values there are, for advice on those outside.
        self.first_outside = None
        self.values_outside = set()
        self.has_zero = self.has_one = self.has_soft = False
        self.shapes = set()  # of instances

    @property
    def negatives(self):
        return self.counted - self.positives

    @property
    def outside(self):
        return int(np.sum(self.outside_per_channel))

    def add(self, positives, counted):
        """Add a piece's sums; with class indices it may have more channels than those before."""
        longer = max(len(self.positives), len(positives))
        self.positives = padded(self.positives, longer) + padded(positives, longer)
        self.counted = self.counted + counted

    def add_values(self, inside, outside):
        self.has_zero = self.has_zero or bool((inside == 0).any())
        self.has_one = self.has_one or bool((inside == 1).any())
        self.has_soft = self.has_soft or bool(is_soft(inside).any())
        if outside.size and self.first_outside is None:
            self.first_outside = float(outside[0])
        if outside.size and len(self.values_outside) <= MOST_VALUES:
            self.values_outside.update(np.unique(outside)[: MOST_VALUES + 1].tolist())
            self.values_outside.update((float(outside.min()), float(outside.max())))

    def two_values(self):
        """The two values that stand for no and yes, such as 0 and 255."""
        if len(self.values_outside) != 1 or self.has_soft:
            return None
        (value,) = self.values_outside
        if value == -1 and not self.has_zero:
            return -1, 1
        if 1 < value < np.inf and not self.has_one:
            return 0, value
        return None

    def count_two_values(self):
        """Count them as 0 and 1."""
        if self.two_values():
            if self.two_values()[0] == 0:
                self.positives = self.positives + self.outside_per_channel
            self.counted = self.counted + self.outside_per_channel


def padded(sums, length):
    return np.pad(sums, (0, length - len(sums)))


def count(labels, pieces, arguments, scale):
    """The counts of the labels; ValueError says what is wrong with them."""
    counts = Counts(arguments.classes)
    indices = labels.indices or arguments.classes
    with progress("counting", labels.instances) as advance:
        for piece in pieces:
            with np.errstate(over="ignore"):  # infinity is outside [0, 1]
                values = np.asarray(piece, np.float32)
                refuse_nan(values, counts.instances)
                if not indices:
                    values = hardened(values * np.float32(scale) + np.float32(arguments.shift))
            valid = np.full(values.shape, True)
            if arguments.ignore_label is not None:
                valid = values != np.float32(arguments.ignore_label)
            if arguments.ignore_soft_targets:
                valid &= ~is_soft(values)
            counts.ignored += int(np.count_nonzero(~valid))
            if indices:
                add_indices(counts, values[valid], arguments.classes)
            else:
                add_targets(counts, values, valid, arguments.axis)
            counts.instances += len(values)
            advance(len(values))
    counts.count_two_values()
    return counts


def refuse_nan(values, before):
    wrong = np.isnan(values)
    if wrong.any():
        instance = before + int(np.argwhere(wrong)[0][0])
        raise ValueError(f"NaN among the labels, first in instance {instance:,} (from 0)")


def hardened(values):
    """The values, with 0 or 1 for what misses it by a rounding."""
    if not is_hard(values).all():
        for hard in (0, 1):
            values[np.abs(values - np.float32(hard)) < HARD] = hard
    return values


def is_hard(values):
    return (values == 0) | (values == 1)


def is_soft(values):
    return (values > 0) & (values < 1)


def add_indices(counts, values, classes):
    """Class indices, as the one-vs-rest targets that they stand for."""
    below = classes or MOST_CLASSES
    wrong = (values != np.floor(values)) | (values < 0) | (values >= below)
    if wrong.any():
        raise ValueError(
            f"{values[wrong][0]:g} is not a class index from 0 to {below - 1:,}: name a mark with "
            "--ignore-label, and how many classes there are with --classes"
        )
    counts.add(np.bincount(values.astype(np.int64)).astype(np.float64), values.size)


def add_targets(counts, values, valid, axis):
    """Targets per channel along the axis."""
    shape, axis = channel_axis(values.shape, axis)
    counts.shapes.add(shape[1:])
    values, valid = values.reshape(shape), valid.reshape(shape)
    others = tuple(k for k in range(values.ndim) if k != axis)
    inside = valid & (values >= 0) & (values <= 1)
    positives = np.sum(values, axis=others, where=inside, dtype=np.float64)
    counted = np.count_nonzero(inside, axis=others)
    counts.add(positives, counted)
    if is_hard(values).all():
        counts.has_zero = counts.has_zero or bool((counted > positives).any())
        counts.has_one = counts.has_one or bool(positives.any())
        return
    outside = valid & ~inside
    counts.add_values(values[inside], values[outside])
    counts.outside_per_channel = counts.outside_per_channel + np.count_nonzero(outside, axis=others)


def channel_axis(shape, axis):
    """The shape of a piece with its axis of channels, and which one that is.

    Unless an axis is given, labels N are one channel, and so are masks N x H x W.
    """
    if axis is None:
        while len(shape) > 2 and shape[-1] == 1:
            shape = shape[:-1]
        return (shape, 1) if len(shape) not in (1, 3) else ((shape[0], 1, *shape[1:]), 1)
    if len(shape) == 1:
        shape = (*shape, 1)
    chosen = axis + len(shape) if axis < 0 else axis
    if not 1 <= chosen < len(shape):
        raise ValueError(
            f"--axis {axis} is not a channel axis of labels with {len(shape)} axes, the first of "
            "which counts instances"
        )
    return shape, chosen
