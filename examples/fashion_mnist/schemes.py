"""Class weights from the number of training images a class: the runs that are compared."""

from collections import namedtuple

BETA = 0.999


def effective_number(counts, beta=BETA):
    """Weights by the effective number of samples, scaled so that the commonest class has 1.

    A class with n images counts as (1 - beta^n) / (1 - beta) distinct ones, and weighs the inverse
    (Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019).
    """
    effective = [(1 - beta**n) / (1 - beta) for n in counts]
    return [max(effective) / e for e in effective]


def negatives_to_positives(counts):
    """The plain ratio, which makes both terms of a class's loss weigh the same in all."""
    return [(sum(counts) - n) / n for n in counts]


def unweighted(counts):
    return [1.0 for _ in counts]


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
