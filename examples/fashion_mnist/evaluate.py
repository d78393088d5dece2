"""Recompute a report's figures from its trained models, and compare.

The models are scored on the test images again, every figure in report.json is computed anew, and
the largest difference is printed. Exit status 1 if one differs by more than 0.001 (another
processor may round a score differently and so move an image across a threshold).
"""

import argparse
import json
from collections import namedtuple
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from _common import Failure, program

from ..common import CaffeInstall, summary
from . import longtail
from .calibration import evaluate_calibration
from .schemes import BASELINE, DEFAULT, SCHEMES, class_weights
from .scoring import probabilities, score_runs

TOLERANCE = 1e-3
METRICS = ("average_precision", "precision", "recall", "f1")

# A row of the report: whose scores (a scheme), cut where. cut is the scheme by whose weights w the
# scores are cut at 1 / (1 + w); None cuts at 0.5.
Row = namedtuple("Row", "name title scheme cut")
ROWS = [Row(name, scheme.title, name, None) for name, scheme in SCHEMES.items()]
CUT = f"{BASELINE}_cut"
ROWS.insert(1, Row(CUT, "unweighted, cut at 1/(1+w)", BASELINE, DEFAULT))


def figures(scores, targets, weights):
    """Each metric per class, with probabilities cut at 1 / (1 + weight), and the means."""
    chosen = scores > -np.log(weights)
    precision, recall, f1, _ = precision_recall_fscore_support(targets, chosen, zero_division=0)
    ap = average_precision_score(targets, scores, average=None)
    per_class = dict(zip(METRICS, (ap, precision, recall, f1)))
    return {
        "per_class": {metric: values.tolist() for metric, values in per_class.items()},
        "mean": {metric: float(values.mean()) for metric, values in per_class.items()},
    }


def evaluate_row(row, scores, targets, counts):
    """A row's figures for every seed and their summary; scores is {(scheme, seed): array}."""
    weights = np.array(class_weights(row.cut or BASELINE, counts))
    seeds = {
        str(seed): figures(values, targets, weights)
        for (scheme, seed), values in scores.items()
        if scheme == row.scheme
    }
    return {"title": row.title, "seeds": seeds, "summary": summary(list(seeds.values()))}


def evaluate(scores, split):
    targets = longtail.one_vs_rest(split.test.labels)
    return {row.name: evaluate_row(row, scores, targets, split.counts) for row in ROWS}


def leaves(tree):
    """The numbers in a tree of dicts and lists, in order."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    if isinstance(tree, list):
        return [leaf for item in tree for leaf in leaves(item)]
    return [tree] if isinstance(tree, float) else []


def recompute(report, folder, caffe, data):
    """The figures of a report, from the models beside it."""
    split = longtail.load_split(data, report["data"]["split"])
    folders = {
        (run["scheme"], run["seed"]): (folder / run["model"]).parent for run in report["runs"]
    }
    scores = score_runs(caffe, folders, split.test.images)
    found = probabilities(caffe, folders, split.test.images, scores)
    return {"results": evaluate(scores, split), "calibration": evaluate_calibration(found, split)}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="report.json of a demo's output")
    parser.add_argument(
        "--data", type=Path, default=longtail.DATA_DIR, help="Fashion-MNIST's files"
    )
    args = parser.parse_args(argv)
    try:
        report = json.loads(args.report.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Failure(f"{args.report} is not a report: {error}", status=2) from None
    caffe = CaffeInstall().pycaffe()
    recomputed = recompute(report, args.report.resolve().parent, caffe, args.data)
    old, new = leaves({key: report.get(key) for key in recomputed}), leaves(recomputed)
    if len(old) != len(new):
        raise Failure(f"{args.report} has {len(old)} figures, its models give {len(new)}")
    worst = max(abs(a - b) for a, b in zip(old, new))
    print(
        f"{len(new)} figures recomputed from {len(report['runs'])} models; "
        f"largest difference {worst:.2g}"
    )
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    program(main)
