"""How good a map of scores is as a map of edges: the F-measure of edge detection, ODS and OIS, AP.

As the Berkeley benchmark has it: scores are thinned to their ridges, cut at each of a range of
thresholds, and each pixel that is left may be matched to one true edge pixel within a tolerance.
Comments in the code say what differs.
"""

from collections import namedtuple

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import KDTree
from skimage.morphology import skeletonize

from .pictures import EDGE, UNDECIDED

# The benchmark's tolerance: this part of the picture's diagonal.
TOLERANCE = 0.0075
# Logits, evenly spaced: the same probabilities apart for a net that is sure and one that is not,
# where the benchmark's 99 even probabilities would favour nets whose best one is near a half.
THRESHOLDS = np.linspace(-6, 6, 49)
HALF = 24  # the index of probability 0.5, where a user would cut
RIDGE_SIGMA = 1.5
RECALL = np.linspace(0, 1, 101)

# Edge pixels: those in the target, those found, and those found that match one in the target.
Counts = namedtuple("Counts", "true found matched")


def ridges(scores):
    """The scores where none across the line there is greater; -inf elsewhere.

    Thinning the scores, not the probabilities, so that a constant added to all changes nothing.
    """

    def derivative(*order):
        return gaussian_filter(scores, RIDGE_SIGMA, order=order)

    rows, columns, mixed = derivative(2, 0), derivative(0, 2), derivative(1, 1)
    # The direction in which the second derivative is least: across a ridge.
    across = 0.5 * np.arctan2(2 * mixed, columns - rows) + np.pi / 2
    step = np.array([np.sin(across), np.cos(across)])
    here = np.indices(scores.shape)
    beside = (map_coordinates(scores, here + s * step, order=1, mode="nearest") for s in (-1, 1))
    return np.where(np.all([scores >= side for side in beside], axis=0), scores, -np.inf)


def within(points, others, tolerance):
    """A sparse matrix: which of points (rows) are within tolerance of which of others."""
    shape = len(points), len(others)
    if not all(shape):
        return coo_matrix(shape, dtype=bool).tocsr()
    trees = KDTree(points), KDTree(others)
    pairs = trees[0].sparse_distance_matrix(trees[1], tolerance, output_type="ndarray")
    return coo_matrix((np.ones(len(pairs), bool), (pairs["i"], pairs["j"])), shape).tocsr()


def count(scores, target):
    """Counts: arrays with one entry per threshold.

    The matching is a largest one; the benchmark's, one of least total distance, is approximate. A
    pixel that matches no edge does not count as found if it is within the tolerance of an undecided
    one.
    """
    tolerance = TOLERANCE * np.hypot(*target.shape)
    ridge = ridges(scores)
    edges, undecided = (np.argwhere(target == label) for label in (EDGE, UNDECIDED))
    found, matched = [], []
    for threshold in THRESHOLDS:
        points = np.argwhere(skeletonize(ridge >= threshold))
        candidates = within(points, edges, tolerance)
        match = maximum_bipartite_matching(candidates, perm_type="column") >= 0
        excused = within(points, undecided, tolerance).getnnz(axis=1) > 0
        matched.append(match.sum())
        found.append(len(points) - (excused & ~match).sum())
    return Counts(np.full(len(THRESHOLDS), len(edges)), np.array(found), np.array(matched))


def add(counts):
    return Counts(*(np.sum(values, axis=0) for values in zip(*counts)))


def f_measure(counts):
    """2 PR / (P + R), and 0 where nothing matches."""
    return 2 * counts.matched / np.maximum(counts.true + counts.found, 1)


def precision(counts):
    return counts.matched / np.maximum(counts.found, 1)


def recall(counts):
    return counts.matched / np.maximum(counts.true, 1)


def at(counts, index):
    """The figures of counts at one threshold."""
    measures = {"f": f_measure, "precision": precision, "recall": recall}
    return {name: float(measure(counts)[index]) for name, measure in measures.items()}


def average_precision(counts):
    """The mean, over RECALL, of the best precision with that recall or more."""
    points = sorted(zip(recall(counts), precision(counts)))
    recalls, precisions = np.transpose(points)
    best = np.append(np.maximum.accumulate(precisions[::-1])[::-1], 0)
    return float(best[np.searchsorted(recalls, RECALL)].mean())


def figures(counts):
    """For pictures with these counts: ODS, one threshold for all; OIS, each picture's own best."""
    total = add(counts)
    best = int(np.argmax(f_measure(total)))
    each = [int(np.argmax(f_measure(picture))) for picture in counts]
    own = add([Counts(*(v[i : i + 1] for v in c)) for c, i in zip(counts, each)])
    return {
        "half": at(total, HALF),
        "ods": {**at(total, best), "threshold": float(1 / (1 + np.exp(-THRESHOLDS[best])))},
        "ois": at(own, 0),
        "ap": average_precision(total),
    }
