"""Class weights from the number of training images per class: the runs that are compared."""

from collections import namedtuple

from weighted_sigmoid_loss import schemes

BETA = 0.999


def effective_number(counts):
    return schemes.effective_number(counts, negatives(counts), BETA).cls_weight


def negatives_to_positives(counts):
    """The plain ratio, which gives both terms of a class's loss the same total weight."""
    return schemes.ratio(counts, negatives(counts)).cls_weight


def unweighted(counts):
    return [1.0 for _ in counts]


def negatives(counts):
    return [sum(counts) - n for n in counts]


Scheme = namedtuple("Scheme", "title weights")
SCHEMES = {
    "unweighted": Scheme("unweighted", unweighted),
    "effective_number": Scheme("effective number", effective_number),
    "ratio": Scheme("negatives / positives", negatives_to_positives),
}
BASELINE, DEFAULT = "unweighted", "effective_number"


def class_weights(name, counts):
    """A scheme's weights as the prototxt states them: four digits after the point."""
    return [round(w, 4) for w in SCHEMES[name].weights(counts)]
