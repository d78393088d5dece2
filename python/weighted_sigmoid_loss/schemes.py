"""Class weights from a data set's counts: the formulas.

Each takes the positives and the negatives of every channel (whole numbers, or sums of soft targets)
and returns cls_weight and neg_weight, a value per channel; neg_weight is empty where it is 1.
Where a channel has no positives its cls_weight multiplies nothing, and is 1.
"""

import math
from collections import namedtuple

Weights = namedtuple("Weights", "cls_weight neg_weight")


def ratio(positives, negatives):
    """Negatives / positives, which makes the two classes of a channel weigh the same in all.

    1 without negatives: a weight of 0 would take away the channel's whole loss.
    """
    return Weights([n / p if p and n else 1.0 for p, n in zip(positives, negatives)], [])


def inverse_sqrt(positives, negatives):
    """1 / sqrt(positives), scaled so that the commonest class has 1."""
    most = max(positives)
    return Weights([math.sqrt(most / p) if p else 1.0 for p in positives], [])


def effective_number(positives, negatives, beta=0.999):
    """Weights by the effective number of samples, scaled so that the commonest class has 1.

    A class with n positives counts as (1 - beta^n) / (1 - beta) distinct ones, and weighs the
    inverse (Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019).
    """
    effective = [(1 - beta**n) / (1 - beta) for n in positives]
    most = max(effective)
    return Weights([most / e if e else 1.0 for e in effective], [])


def deepmar(positives, negatives, sigma=1.0):
    """exp((1 - p) / sigma^2) and exp(p / sigma^2), p the share of positives (Li et al., 2015)."""
    shares = [p / (p + n) if p + n else 0.0 for p, n in zip(positives, negatives)]
    return Weights(
        [math.exp((1 - p) / sigma**2) if p else 1.0 for p in shares],
        [math.exp(p / sigma**2) for p in shares],
    )
