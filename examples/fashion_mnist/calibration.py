"""Whether the nets' sigmoids are probabilities, before and after the package's `calibrate`.

Probabilities are of data as of the training, whose classes are long-tailed. Those of the images to
score are not, so that each such image counts by its class's share in training over that here.

Expected calibration error (ECE), of a class: its sigmoids in 15 bins of equal width; the difference
between the mean sigmoid and the share of positives in a bin, weighted by what is in the bin. Brier
score: the mean square of sigmoid minus target. Both are means of the ten one-vs-rest classes.
"""

from collections import namedtuple

import numpy as np
from sklearn.metrics import brier_score_loss

from ..common import summary
from . import longtail
from .schemes import BASELINE, SCHEMES

BINS = 15
METRICS = ("ece", "brier")

Row = namedtuple("Row", "name title scheme calibrated")


def rows_of(name, title):
    yield Row(name, title, name, False)
    if name != BASELINE:
        yield Row(f"{name}_calibrated", f"{title}, calibrated", name, True)


ROWS = [row for name, scheme in SCHEMES.items() for row in rows_of(name, scheme.title)]


def image_weights(split):
    """One weight per image to score, so that classes have the shares they have in training."""
    tested = np.bincount(split.test.labels, minlength=len(longtail.CLASSES))
    return (np.array(split.counts) / tested)[split.test.labels]


def reliability(probability, targets, weights):
    """Per bin: its weight, the mean probability, and the share of positives; 0 if empty."""
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    weight, predicted, positive = (
        np.bincount(bins, weights * values, BINS) for values in (1, probability, targets)
    )
    whole = np.where(weight > 0, weight, 1)
    return weight, predicted / whole, positive / whole


def expected_error(probability, targets, weights):
    weight, predicted, positive = reliability(probability, targets, weights)
    return float(np.sum(weight * np.abs(predicted - positive)) / weight.sum())


def figures(probability, targets, weights):
    """Each metric per class, and the means."""
    columns = list(zip(probability.T, targets.T))
    per_class = {
        "ece": [expected_error(p, t, weights) for p, t in columns],
        "brier": [float(brier_score_loss(t, p, sample_weight=weights)) for p, t in columns],
    }
    return {
        "per_class": per_class,
        "mean": {metric: float(np.mean(values)) for metric, values in per_class.items()},
    }


def evaluate_calibration(probabilities, split):
    """A row's figures for every seed and their summary.

    probabilities: {(scheme, seed, calibrated): (N, 10)}.
    """
    targets, weights = longtail.one_vs_rest(split.test.labels), image_weights(split)
    results = {}
    for row in ROWS:
        seeds = {
            str(seed): figures(values, targets, weights)
            for (scheme, seed, calibrated), values in probabilities.items()
            if (scheme, calibrated) == (row.scheme, row.calibrated)
        }
        results[row.name] = {
            "title": row.title,
            "seeds": seeds,
            "summary": summary(list(seeds.values())),
        }
    return results
