"""loss() and loss_and_grad() of NumPy arrays: right, checked, and the layer's bits."""

import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weighted_sigmoid_loss import numpy as wsl
from weighted_sigmoid_loss import reference

ROOT = Path(__file__).resolve().parent.parent.parent
CASES = json.loads((ROOT / "tests" / "golden.json").read_text())
LIMIT = 4  # ulp, the kernel's guarantee
ULP = {np.float32: 2.0**-23, np.float64: 2.0**-52}
# What NumPy's exp and log1p may be off themselves, in the reference, of the larger term.
REFERENCE = 16 * 2.0**-53
TINY = {np.float32: 2.0**-126, np.float64: 2.0**-1022}


def lower(known):
    """Arguments of the reference as the package's: names in lower case."""
    return {k: v.lower() if isinstance(v, str) else v for k, v in known.items()}


def check(scores, targets, weight=None, **known):
    """Hold loss_and_grad to the reference and the guarantee; return what it gave."""
    dtype = scores.dtype.type
    loss, grad = wsl.loss_and_grad(scores, targets, weight=weight, **lower(known))
    assert isinstance(loss, float)
    assert grad.dtype == scores.dtype and grad.shape == scores.shape

    expected_loss, expected_grad = reference.weighted_sigmoid_loss(scores, targets, weight, **known)
    larger, terms = sizes(scores, targets, weight, **known)
    limit = LIMIT * ULP[dtype] + REFERENCE
    floor = TINY[dtype] * np.maximum(larger, 1)
    assert np.all(np.abs(grad - expected_grad) <= limit * terms + floor)
    assert abs(loss - expected_loss) <= limit * expected_loss + TINY[dtype] * larger.sum()
    return loss, grad


def sizes(
    scores,
    targets,
    weight,
    cls_weight=(),
    neg_weight=(),
    axis=1,
    class_balance="NONE",
    normalization="BATCH_SIZE",
    ignore_label=None,
    ignore_soft_targets=False,
):
    """What errors are judged against: each element's larger weight and larger gradient term."""
    x, t = np.asarray(scores, np.float64), np.asarray(targets, np.float64)
    valid = reference.not_ignored(t, ignore_label, ignore_soft_targets)
    counts = {"FULL": x.size, "VALID": valid.sum(), "BATCH_SIZE": len(x), "NONE": 1}
    e = reference.element_weights(weight, x.shape) * valid / max(1, counts[normalization])
    b_pos, b_neg = reference.balance_factors(t, valid, class_balance, axis)
    a = e * reference.channel_weights(cls_weight, x.shape, axis) * b_pos
    b = e * reference.channel_weights(neg_weight, x.shape, axis) * b_neg
    up, down = b * (1 - t) * reference.sigmoid(x), a * t * reference.sigmoid(-x)
    return np.maximum(a, b), np.maximum(up, down)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden(case):
    from test_reference import arguments

    known, fields = arguments(case)
    loss_weight = float(fields.pop("loss_weight", ["1"])[0])
    if "weight" in known:
        known["weight"] = known["weight"].astype(np.float32)
    scores = np.array(case["scores"], np.float32).reshape(case["shape"])
    targets = np.array(case["targets"], np.float32).reshape(case["shape"])
    loss, grad = wsl.loss_and_grad(scores, targets, **lower(known))
    if case["loss"] <= np.finfo(np.float32).max:
        assert abs(loss - case["loss"]) <= LIMIT * 2.0**-23 * case["loss"] + case["loss_floor"]
    error = np.abs(loss_weight * grad.astype(np.float64).ravel() - np.ravel(case["grad"]))
    scale, floor = (np.ravel(case[name]) for name in ("grad_scale", "grad_floor"))
    assert np.all(error <= LIMIT * 2.0**-23 * np.array(scale) + floor)


@st.composite
def problems(draw):
    """Arrays of random shapes and types, and arguments of the reference."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = random.normal(scale=draw(st.sampled_from([0.1, 3, 40])), size=shape).astype(dtype)
    kinds = [(random.random(shape) < 0.3).astype(dtype), random.random(shape).astype(dtype)]
    targets = draw(st.sampled_from(kinds))
    ignore_label = draw(st.sampled_from([None, 255, -1]))
    if ignore_label is not None:
        targets[random.random(shape) < 0.3] = ignore_label
    weights = st.sampled_from(
        [0.0, 1.0, 2.5, 100.0, [], [3.0], random.random(shape[axis]).tolist()]
    )
    weight = None
    if draw(st.booleans()):
        kept = draw(st.integers(0, len(shape)))
        lengths = [size if draw(st.booleans()) else 1 for size in shape[:kept]]
        weight = random.random(lengths + [1] * draw(st.integers(0, 2))).astype(dtype)
        if weight.ndim > len(shape):
            weight = weight.reshape(weight.shape[: len(shape)] + (1,) * (weight.ndim - len(shape)))
    balances = ["NONE", "BATCH", "INSTANCE", "CHANNEL"]
    if axis % len(shape) > 0 and scores.size > shape[0] * shape[axis]:
        balances.append("INSTANCE_CHANNEL")
    return (
        scores,
        targets,
        {
            "weight": weight,
            "cls_weight": draw(weights),
            "neg_weight": draw(weights),
            "axis": axis,
            "class_balance": draw(st.sampled_from(balances)),
            "normalization": draw(st.sampled_from(["FULL", "VALID", "BATCH_SIZE", "NONE"])),
            "ignore_label": ignore_label,
            "ignore_soft_targets": draw(st.booleans()),
        },
    )


@settings(max_examples=300, deadline=None)
@given(problems())
def test_any_combination(problem):
    scores, targets, known = problem
    loss, grad = check(scores, targets, **known)
    named = lower(known)
    assert wsl.loss(scores, targets, **named) == loss
    # In place: the gradient takes the place of the scores.
    both = scores.copy()
    in_place, same = wsl.loss_and_grad(both, targets, out=both, **named)
    assert same is both
    assert in_place == loss
    assert both.tobytes() == grad.tobytes()


@settings(max_examples=100, deadline=None)
@given(problems(), st.randoms())
def test_any_strides(problem, random):
    """What is not in C's order is copied, with the same result."""
    arrays, known = list(problem[:2]), lower(problem[2])
    weight = known.pop("weight")
    if weight is not None:
        shape = weight.shape[: arrays[0].ndim]
        arrays.append(weight.reshape(shape + (1,) * (arrays[0].ndim - len(shape))))
    axes = list(range(arrays[0].ndim))
    random.shuffle(axes)
    back = sorted(axes, key=axes.__getitem__)

    def shuffled(array):
        return array.transpose(axes)[::-1].copy()[::-1].transpose(back)

    x, t, *weight = map(shuffled, arrays)
    got = wsl.loss_and_grad(x, t, weight=weight[0] if weight else None, **known)
    x, t, *weight = arrays
    expected = wsl.loss_and_grad(x, t, weight=weight[0] if weight else None, **known)
    assert got[0] == expected[0] and np.array_equal(got[1], expected[1])


def unaligned(array):
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    made = memory.view(array.dtype).reshape(array.shape)
    made[...] = array
    assert not made.flags.aligned
    return made


class HasArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class HasDLPack:
    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **how):
        return self.array.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def tensor(array):
    from pytorch import torch

    return torch.from_numpy(array)


@pytest.mark.parametrize(
    "kind",
    [
        np.asfortranarray,
        unaligned,
        HasArray,
        pytest.param(
            HasDLPack,
            marks=pytest.mark.skipif(
                not hasattr(np, "from_dlpack"), reason="np.from_dlpack() came with NumPy 1.23"
            ),
        ),
        tensor,
        lambda array: array.view(np.memmap),
    ],
)
def test_kinds_of_arrays(kind):
    random = np.random.default_rng(11)
    arrays = [random.random((5, 3)).astype(np.float32) for _ in range(3)]
    x, t, weight = map(kind, arrays)
    loss, grad = wsl.loss_and_grad(x, t, weight=weight, cls_weight=[1, 2, 3])
    expected, exact = wsl.loss_and_grad(*arrays[:2], weight=arrays[2], cls_weight=[1, 2, 3])
    assert loss == expected and type(grad) is np.ndarray and np.array_equal(grad, exact)


def test_kinds_of_numbers():
    from decimal import Decimal
    from fractions import Fraction

    t = np.array([[1, 0, 255]], np.float32)
    x = np.ones_like(t)

    def loss(weight, several, label):
        known = {"cls_weight": weight, "neg_weight": several, "ignore_label": label}
        return wsl.loss(x, t, **known)

    expected = loss(2.5, [1.0, 2.0, 3.0], 255)
    for kind in (np.float32, np.float64, np.float16, Fraction, Decimal):
        assert loss(kind(2.5), [kind(k) for k in (1, 2, 3)], kind(255)) == expected
    assert loss(np.array(2.5), np.arange(1, 4), np.uint8(255)) == expected
    assert loss(2.5, (1, np.int8(2), Fraction(3)), np.int64(255)) == expected


SCORES = np.zeros((4, 3), np.float32)
TARGETS = np.ones((4, 3), np.float32)
LINE = np.zeros(25, np.float32)
READ_ONLY = np.zeros((4, 3), np.float32)
READ_ONLY.flags.writeable = False
SCOPES_OF_ONE = {"class_balance": "instance_channel"}
WRONG = [
    (TypeError, "scores: need an array, got list", {"scores": [[0.0] * 3] * 4}),
    (TypeError, "scores: is a masked array", {"scores": np.ma.array(SCORES, mask=True)}),
    (TypeError, "targets: is a masked array", {"targets": np.ma.array(TARGETS, mask=True)}),
    (TypeError, "weight: is a masked array", {"weight": np.ma.array(TARGETS, mask=True)}),
    (
        TypeError,
        "cls_weight: is a masked",
        {"cls_weight": np.ma.array([1.0, 2, 3], mask=[0, 1, 0])},
    ),
    (TypeError, "out: need .* MaskedArray", {"out": np.ma.array(SCORES)}),
    (TypeError, "out: need .* got list", {"out": [[0.0] * 3] * 4}),
    (TypeError, "scores: .* got float16", {"scores": SCORES.astype(np.float16)}),
    (TypeError, "scores: .* got >f4", {"scores": SCORES.astype(">f4")}),
    (TypeError, "scores: .* got int64", {"scores": SCORES.astype(np.int64)}),
    (TypeError, "targets: need .* float32, got float64", {"targets": TARGETS.astype(float)}),
    (TypeError, "weight: need .* got list", {"weight": [1.0]}),
    (TypeError, "weight: need .* float32, got float64", {"weight": np.ones(4)}),
    (TypeError, "out: need .* float32, got float64", {"out": np.ones((4, 3))}),
    (TypeError, "cls_weight: need a number", {"cls_weight": "heavy"}),
    (TypeError, "cls_weight: need a number", {"cls_weight": None}),
    (ValueError, "at least one axis", {"scores": SCORES[0, 0:1].reshape(()), "targets": TARGETS}),
    (ValueError, "targets: need the scores' shape", {"targets": TARGETS[:3]}),
    (ValueError, "targets: need the scores' shape", {"targets": TARGETS.reshape(3, 4)}),
    (ValueError, "out: need the scores' shape", {"out": np.zeros((3, 4), np.float32)}),
    (ValueError, "out: .* read-only", {"out": READ_ONLY}),
    (ValueError, "out: need a C-contiguous", {"out": np.zeros((3, 4), np.float32).T}),
    (ValueError, "out: overlaps targets", {"out": TARGETS}),
    (
        ValueError,
        "overlaps the scores",
        {"scores": LINE[:12], "targets": TARGETS.ravel(), "out": LINE[1:13]},
    ),
    (ValueError, "cls_weight: .* not negative, got -1", {"cls_weight": -1}),
    (ValueError, "neg_weight: .* got nan", {"neg_weight": float("nan")}),
    (ValueError, "cls_weight: .* got inf", {"cls_weight": [1, np.inf, 2]}),
    (ValueError, "cls_weight: .* got nan", {"cls_weight": np.array([1, np.nan, 2])}),
    (ValueError, "cls_weight: has 2 values", {"cls_weight": [1, 2]}),
    (ValueError, "neg_weight: has 4 values", {"cls_weight": [1, 2, 3], "neg_weight": [1] * 4}),
    (ValueError, "cls_weight: .* got shape", {"cls_weight": [[1, 2, 3]]}),
    (ValueError, "axis: need -2 to 1", {"cls_weight": [1, 2, 3], "axis": 2}),
    (ValueError, "axis: need -2 to 1", {"class_balance": "channel", "axis": -3}),
    (TypeError, "axis: need an integer, got None", {"cls_weight": [1, 2, 3], "axis": None}),
    (TypeError, "axis: need an integer, got 1.0", {"cls_weight": [1, 2, 3], "axis": 1.0}),
    (ValueError, "axis: need -2 to 1", {"cls_weight": [1, 2, 3], "axis": 10**400}),
    (ValueError, "cls_weight: need a number that a float", {"cls_weight": 10**400}),
    (ValueError, "neg_weight: need a number that a float", {"neg_weight": [1, 2, 10**400]}),
    (ValueError, "ignore_label: need a number that a float", {"ignore_label": 10**400}),
    (TypeError, "cls_weight: need a real number", {"cls_weight": 1j}),
    (TypeError, "cls_weight: need a number or", {"cls_weight": [1, None, 3]}),
    (ValueError, "weight: each axis", {"weight": np.ones(3, np.float32)}),
    (ValueError, "weight: each axis", {"weight": np.ones((4, 3, 2), np.float32)}),
    (ValueError, "weight: 3 of 12", {"weight": np.array([1, -1, 1, 1], np.float32)}),
    (ValueError, "weight: 3 of 12", {"weight": np.array([1, np.nan, 1, 1], np.float32)}),
    (ValueError, "weight: 12 of 12", {"weight": np.full((4, 3), np.inf, np.float32)}),
    (ValueError, "normalization: need one of", {"normalization": "VALID"}),
    (ValueError, "class_balance: need one of", {"class_balance": "image"}),
    (ValueError, "of .4, 3., which has one element along axis 1", SCOPES_OF_ONE),
    (ValueError, "axis is that of the instances", {**SCOPES_OF_ONE, "axis": -2}),
    (ValueError, "axis: need -2 to 1", {**SCOPES_OF_ONE, "axis": 2}),
    (TypeError, "ignore_soft_targets: need True or", {"ignore_soft_targets": "false"}),
    (ValueError, "ignore_label: need a number", {"ignore_label": float("nan")}),
    (ValueError, "ignore_label: need a number", {"ignore_label": "255"}),
]


@pytest.mark.parametrize(("error", "words", "wrong"), WRONG, ids=lambda value: str(value)[:30])
def test_wrong_input(error, words, wrong):
    arguments = {"scores": SCORES, "targets": TARGETS, **wrong}
    scores, targets = arguments.pop("scores"), arguments.pop("targets")
    with pytest.raises(error, match=words):
        wsl.loss_and_grad(scores, targets, **arguments)


def test_soft_targets_are_ignored():
    """From 2^-20 to 1 - 2^-20; what is rounded, as 255 times a float32 1/255, is hard."""
    slack = np.float32(2.0**-20)
    soft = [slack, 0.4, 1 - slack]
    hard = [0, slack / 2, 1 - slack / 2, 1, np.float32(0.00392157) * 255]
    targets = np.array([soft + hard], np.float32)
    _, grad = wsl.loss_and_grad(np.ones_like(targets), targets, ignore_soft_targets=True)
    assert grad[0].astype(bool).tolist() == [False] * 3 + [True] * 5


def test_axis_is_looked_at_only_where_it_counts():
    line = np.zeros(3, np.float32)
    assert wsl.loss(line, line, cls_weight=[2], class_balance="none") == pytest.approx(np.log(2))


def test_targets_outside_are_warned_of_and_used():
    targets = np.array([[2, 0, 255]], np.float32)
    with pytest.warns(UserWarning, match="1 of 3 targets are outside") as warned:
        loss = wsl.loss(SCORES[:1], targets, ignore_label=255)
    with pytest.warns(UserWarning, match="1 of 3 targets are outside") as warned_too:
        wsl.loss_and_grad(SCORES[:1], targets, ignore_label=255)
    assert warned[0].filename == warned_too[0].filename == __file__
    assert loss == pytest.approx(2 * np.log(2) - np.log(2) + np.log(2))


def test_nan_score_is_nan():
    scores = SCORES.copy()
    scores[1, 2] = np.nan
    loss, grad = wsl.loss_and_grad(scores, TARGETS)
    assert np.isnan(loss)
    assert np.isnan(grad).sum() == 1


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 5)])
def test_no_elements(shape):
    empty = np.empty(shape, np.float32)
    for balance in ("none", "batch", "instance", "channel"):
        for normalization in ("full", "valid", "batch_size", "none"):
            axis = 0 if len(shape) == 1 else 1
            loss, grad = wsl.loss_and_grad(
                empty, empty, class_balance=balance, normalization=normalization, axis=axis
            )
            assert loss == 0 and grad.shape == shape


def test_loss_beyond_double_divides_first():
    scores = np.full((4, 1), 1e308)
    assert wsl.loss(scores, 0 * scores) == pytest.approx(1e308)


def test_large_input_is_right_for_any_number_of_threads():
    random = np.random.default_rng(8)
    scores = random.normal(scale=3, size=(997, 211)).astype(np.float32)
    targets = (random.random(scores.shape) < 0.05).astype(np.float32)
    targets[random.random(scores.shape) < 0.1] = -1
    for normalization in ("VALID", "FULL"):
        check(
            scores,
            targets,
            cls_weight=100,
            ignore_label=-1,
            normalization=normalization,
            class_balance="CHANNEL",
        )


THREADS = """
import hashlib, numpy as np
from weighted_sigmoid_loss import numpy as wsl
random = np.random.default_rng(9)
scores = random.normal(scale=3, size=(1003, 211)).astype(np.float32)
targets = (random.random(scores.shape) < 0.05).astype(np.float32)
loss, grad = wsl.loss_and_grad(scores, targets, class_balance="channel", normalization="valid")
print(loss.hex(), hashlib.sha256(grad.tobytes()).hexdigest())
"""


def run(program, **environment):
    """A process of its own, of this Python and what is installed; returns its output."""
    kept = {k: v for k, v in os.environ.items() if k not in {"OMP_NUM_THREADS", "PYTHONPATH"}}
    argv = [sys.executable, "-c", program]
    done = subprocess.run(
        argv, env={**kept, **environment}, text=True, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_same_bits_for_any_number_of_threads():
    assert len({run(THREADS, OMP_NUM_THREADS=str(n)) for n in (1, 2, 7)}) == 1


def test_python_threads_compute_at_the_same_time():
    """Each on its own arrays, with the right result; and the lock is released meanwhile."""
    random = np.random.default_rng(10)
    scores = random.normal(size=(4, 1 << 14)).astype(np.float32)
    targets = (scores > 1).astype(np.float32)
    expected = [wsl.loss_and_grad(s[None], t[None]) for s, t in zip(scores, targets)]
    wrong = []

    def work(k):
        for _ in range(50):
            loss, grad = wsl.loss_and_grad(scores[k][None], targets[k][None])
            if loss != expected[k][0] or not np.array_equal(grad, expected[k][1]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=[k]) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_other_python_threads_run_meanwhile():
    """A thread that counts while one long call is under way gets on."""
    scores = np.zeros(1 << 24, np.float32)
    wsl.loss(scores, scores)
    state = {"ticks": 0, "stop": False}

    def tick():
        while not state["stop"]:
            state["ticks"] += 1
            time.sleep(0)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        before = state["ticks"]
        wsl.loss(scores, scores)
        assert state["ticks"] > before + 1
    finally:
        state["stop"] = True
        thread.join()


FORKED = """
import multiprocessing, numpy as np
from weighted_sigmoid_loss import numpy as wsl

def work(seed):
    scores = np.random.default_rng(seed).normal(size=(1 << 17, 2)).astype(np.float32)
    return wsl.loss(scores, np.zeros_like(scores))

expected = [work(seed) for seed in range(4)]
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(work, range(4)) == expected
"""


def test_forked_workers():
    run(FORKED, OMP_NUM_THREADS="2")


@pytest.mark.parametrize("normalization", ["VALID", "BATCH_SIZE", "FULL", "NONE"])
@pytest.mark.parametrize("balance", ["NONE", "BATCH", "INSTANCE", "CHANNEL", "INSTANCE_CHANNEL"])
def test_gradient_has_the_layers_bits(balance, normalization):
    pytest.importorskip("caffe", reason="Caffe is not built")
    from one_layer import Layer, parse_layer

    random = np.random.default_rng(11)
    scores = random.normal(scale=5, size=(37, 5, 13, 17)).astype(np.float32)
    targets = (random.random(scores.shape) < 0.1).astype(np.float32)
    targets[random.random(scores.shape) < 0.2] = 255
    targets[random.random(scores.shape) < 0.2] = 0.25
    weight = random.random((37, 1, 13, 17)).astype(np.float32)
    # Numbers that float32 has, as the layer's weights are.
    text = (
        "sigmoid_cross_entropy_weight_loss_param { cls_weight: [1, 2.5, 80, 0.5, 100] "
        f"neg_weight: 1.5 class_balance: {balance} ignore_soft_targets: true }} "
        f"loss_param {{ ignore_label: 255 normalization: {normalization} }}"
    )
    layer_loss, layer_grad = Layer(parse_layer(text)).run(scores, targets, weight)
    loss, grad = wsl.loss_and_grad(
        scores,
        targets,
        weight=weight,
        cls_weight=[1, 2.5, 80, 0.5, 100],
        neg_weight=1.5,
        ignore_label=255,
        ignore_soft_targets=True,
        class_balance=balance.lower(),
        normalization=normalization.lower(),
    )
    assert grad.tobytes() == layer_grad.tobytes()
    # The layer divides its sum, this one its elements.
    assert loss == pytest.approx(layer_loss, rel=2.0**-23, abs=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("normalization", ["full", "batch_size", "none"])
def test_a_plain_call_has_the_bits_of_any_other(dtype, normalization, monkeypatch):
    scores = np.linspace(-9, 9, 24, dtype=dtype).reshape(2, 3, 4)
    targets = np.linspace(0, 1, 24, dtype=dtype).reshape(2, 3, 4)
    known = {"cls_weight": 7, "neg_weight": 0.5, "normalization": normalization}
    monkeypatch.setattr(wsl, "compute", None)
    out, in_place = np.empty_like(scores), scores.copy()
    plain = [
        wsl.loss_and_grad(scores, targets, **known),
        wsl.loss_and_grad(scores, targets, out=out, **known),
        wsl.loss_and_grad(in_place, targets, out=in_place, **known),
    ]
    assert plain[1][1] is out and plain[2][1] is in_place
    monkeypatch.undo()
    monkeypatch.setattr(wsl, "compute_plain", lambda *arguments: None)
    loss, grad = wsl.loss_and_grad(scores, targets, **known)
    for other, other_grad in plain:
        assert other == loss and other_grad.tobytes() == grad.tobytes()
        assert other_grad.shape == grad.shape and other_grad.dtype == grad.dtype


X = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    "arguments",
    [
        {"scores": [[0.0]]},
        {"scores": np.float32(0)},
        {"scores": X.astype(">f4")},
        {"scores": X.astype(np.int32)},
        {"scores": np.asfortranarray(X)},
        {"scores": np.ma.masked_array(X)},
        {"targets": X.astype(np.float64)},
        {"targets": X[:1]},
        {"targets": X.reshape(3, 2)},
        {"out": X[:1].copy()},
        {"out": X.astype(np.float64)},
        {"out": np.broadcast_to(np.float32(0), (2, 3))},
        {"out": X},  # the targets
        {"out": np.zeros(7, np.float32)[1:].reshape(2, 3), "shift": True},
        {"cls_weight": -1},
        {"cls_weight": -1.0},
        {"cls_weight": math.inf},
        {"neg_weight": math.nan},
        {"neg_weight": 10**30},
        {"neg_weight": True},
        {"neg_weight": np.ones(3)},
        {"normalization": "valid"},
        {"normalization": None},
    ],
    ids=str,
)
def test_what_is_not_plain_is_looked_at(arguments):
    """Each of these needs a check, a copy or an error of its own."""
    from weighted_sigmoid_loss._kernel import compute_plain

    known = {"scores": X.copy(), "targets": X, "out": None, "cls_weight": 1.0, "neg_weight": 1.0}
    known = {**known, "normalization": "none", **arguments}
    if known.pop("shift", False):  # over the scores, but not their memory
        known["scores"] = known["out"].base[:6].reshape(2, 3)
    assert compute_plain(*known.values()) is None


def test_a_plain_call_warns_of_targets():
    with pytest.warns(UserWarning, match=r"1 of 6 targets are outside \[0, 1\]") as caught:
        wsl.loss_and_grad(X, np.full_like(X, 255) * (np.arange(6).reshape(2, 3) == 4))
    assert caught[0].filename == __file__
