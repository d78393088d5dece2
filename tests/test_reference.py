"""The NumPy reference against 60-digit results."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from weighted_sigmoid_loss.reference import sigmoid, softplus, weighted_sigmoid_loss

CASES = json.loads((Path(__file__).parent / "golden.json").read_text())
# An element takes some ten operations, each within 2^-53 relative, or 2^-52 for exp and log1p.
LIMIT = 16 * 2.0**-53


def arguments(case):
    """The case's prototxt as arguments of the reference; the rest of it apart."""
    fields = {}
    for name, value in re.findall(r"(\w+): (\S+)", case["layer"]):
        fields.setdefault(name, []).append(value)
    known = {name: [float(value) for value in fields.pop(name, [])] for name in WEIGHTS}
    known |= {name: int(fields.pop(name)[0]) for name in NUMBERS if name in fields}
    known |= {name: fields.pop(name)[0] for name in NAMES if name in fields}
    known |= {name: fields.pop(name) == ["true"] for name in FLAGS if name in fields}
    if case["weight"]:
        known["weight"] = np.array(case["weight"]["data"]).reshape(case["weight"]["shape"])
    return known, fields


WEIGHTS = ("cls_weight", "neg_weight")
NUMBERS = ("axis", "ignore_label")
NAMES = ("class_balance", "normalization")
FLAGS = ("ignore_soft_targets",)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden(case):
    known, fields = arguments(case)
    loss_weight = float(fields.pop("loss_weight", ["1"])[0])
    assert not fields, "a field that this test does not know"
    scores = np.array(case["scores"]).reshape(case["shape"])
    loss, grad = weighted_sigmoid_loss(scores, case["targets"], **known)
    assert grad.shape == scores.shape
    assert loss == pytest.approx(case["loss"], rel=LIMIT, abs=0)
    error = np.abs(loss_weight * grad.ravel() - case["grad"])
    # sigmoid(-x) of a score beyond 708 is below the smallest normal number.
    assert np.all(error <= LIMIT * np.array(case["grad_scale"]) + 2.0**-1022)


def test_all_of_the_vectors_are_here():
    assert len(CASES) == 34


def test_far_scores():
    x = np.array([-np.inf, -1e300, -800, 0, 800, 1e300, np.inf])
    assert softplus(x).tolist() == [0, 0, 0, np.log(2), 800, 1e300, np.inf]
    assert sigmoid(x).tolist() == [0, 0, 0, 0.5, 1, 1, 1]
    assert softplus(np.float64(-700)) == sigmoid(np.float64(-700)) == np.exp(-700.0) > 0


def test_one_number_is_every_channel():
    scores, targets = np.array([[0.5, -2.0]]), np.array([[1.0, 0.0]])
    expected = weighted_sigmoid_loss(scores, targets, cls_weight=[3, 3], neg_weight=[2, 2])
    for got in (
        weighted_sigmoid_loss(scores, targets, cls_weight=3, neg_weight=2),
        weighted_sigmoid_loss(scores, targets, cls_weight=[3], neg_weight=[2]),
    ):
        assert got[0] == expected[0] and np.array_equal(got[1], expected[1])


def test_targets_of_another_shape():
    """As in Caffe, where counts must agree and shapes need not."""
    scores = np.array([[0.5, -2.0], [1.0, 3.0]])
    flat = weighted_sigmoid_loss(scores, [1, 0, 0, 1])
    square = weighted_sigmoid_loss(scores, [[1, 0], [0, 1]])
    assert flat[0] == square[0] and np.array_equal(flat[1], square[1])


@pytest.mark.parametrize(
    "wrong",
    [{"cls_weight": [1, 2, 3]}, {"weight": [1, 2, 3]}, {"weight": np.ones((2, 2, 2))}],
    ids=["cls_weight", "weight", "weight's axes"],
)
def test_shapes_that_do_not_fit(wrong):
    with pytest.raises(ValueError, match="shape"):
        weighted_sigmoid_loss(np.zeros((2, 2)), np.zeros((2, 2)), **wrong)
