"""Every weighting in any combination, through pycaffe: random layers against the reference.

What random problems are made of is in problems(); how far off the layer may be is its guarantee.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from one_layer import LIMIT, Expected, Layer, parse_layer

CHECKED = settings(
    max_examples=500,
    deadline=None,
    derandomize=True,  # the same problems in each run
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
IGNORE_LABELS = [-1, 0, 1, 2, 255]
NORMALIZATIONS = [
    "normalization: FULL",
    "normalization: VALID",
    "normalization: BATCH_SIZE",
    "normalization: NONE",
    "normalize: true",
    "normalize: false",
    "",
]
# Where exponentials vanish or overflow, and the ends of float32.
EDGES = [0, -0.0, 1e-45, 1e-30, 16.64, 87.33, 87.34, 88.73, 103.3, 104, 1e4, 3.4e38]

weights = st.just(0.0) | st.floats(2**-10, 2**14, width=32)


def fields(name, values):
    return " ".join(f"{name}: {value!r}" for value in values)


@st.composite
def some_weights(draw, channels):
    """None, one, or one per channel."""
    number = draw(st.sampled_from(sorted({0, 1, channels})))
    return draw(st.lists(weights, min_size=number, max_size=number))


def balances(shape, axis):
    """Those that the layer takes for scores of a shape."""
    has_scopes = axis % len(shape) > 0 and np.prod(shape) > shape[0] * shape[axis]
    return ["NONE", "BATCH", "INSTANCE", "CHANNEL", *["INSTANCE_CHANNEL"] * int(has_scopes)]


@st.composite
def layer_texts(draw, shape):
    """What stands inside the layer, for scores of a shape; and the axis of a weight per channel."""
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    channels = shape[axis]
    own = [
        fields("cls_weight", draw(some_weights(channels))),
        fields("neg_weight", draw(some_weights(channels))),
        f"class_balance: {draw(st.sampled_from(balances(shape, axis)))}",
        f"axis: {axis}",
        draw(st.sampled_from(["", "ignore_soft_targets: true"])),
    ]
    label = draw(st.none() | st.sampled_from(IGNORE_LABELS))
    common = [
        "" if label is None else f"ignore_label: {label}",
        draw(st.sampled_from(NORMALIZATIONS)),
    ]
    loss_weight = draw(st.none() | st.floats(0.125, 8, width=32))
    return (
        f"sigmoid_cross_entropy_weight_loss_param {{ {' '.join(own)} }} "
        f"loss_param {{ {' '.join(common)} }} "
        + ("" if loss_weight is None else f"loss_weight: {loss_weight!r}"),
        axis,
    )


@st.composite
def weight_shapes(draw, shape):
    """None, or a shape to be broadcast, which may lack trailing axes or have more of them."""
    if draw(st.booleans()):
        return None
    kept = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    whole = [size if keep else 1 for size, keep in zip(shape, kept)]
    while whole and whole[-1] == 1 and draw(st.booleans()):
        whole.pop()
    return (*whole, *[1] * draw(st.integers(0, 2)))


def fill(seed, shape, weight_shape, text):
    """Scores, targets and element weights."""
    random = np.random.default_rng(seed)
    edges = random.choice(EDGES, shape) * random.choice([-1, 1], shape)
    kinds = [random.normal(scale=3, size=shape), random.uniform(-110, 110, shape), edges]
    scores = np.choose(random.choice(3, shape, p=[0.5, 0.3, 0.2]), kinds).astype(np.float32)
    label = parse_layer(text).loss_param.ignore_label
    kinds = [np.zeros(shape), np.ones(shape), random.random(shape), np.full(shape, label)]
    shares = random.dirichlet([1, 1, 1, 0.5])
    if not parse_layer(text).loss_param.HasField("ignore_label"):
        shares = [*(shares[:3] / shares[:3].sum()), 0]
    targets = np.choose(random.choice(4, shape, p=shares), kinds).astype(np.float32)
    weight = None
    if weight_shape is not None:
        weight = random.choice([0, 1, 0.3, 7.5, 100], weight_shape) * random.random(weight_shape)
        weight = np.asarray(weight, np.float32)
    return scores, targets, weight


shapes = st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def problems(draw):
    """A layer's text, and its bottoms; targets may have another shape than the scores."""
    shape = draw(shapes)
    text, _ = draw(layer_texts(shape))
    bottoms = fill(draw(seeds), shape, draw(weight_shapes(shape)), text)
    if draw(st.booleans()):
        scores, targets, weight = bottoms
        bottoms = scores, targets.reshape(shape[0], -1), weight
    return text, bottoms


@st.composite
def reshaped_problems(draw):
    """A layer's text, and two sets of bottoms of as many axes and channels."""
    shape = draw(shapes)
    text, axis = draw(layer_texts(shape))
    other = [draw(st.integers(1, 5)) for _ in shape]
    other[axis] = shape[axis]
    assume("INSTANCE_CHANNEL" not in text or "INSTANCE_CHANNEL" in balances(other, axis))
    kept = draw(st.none() | st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    return text, [
        fill(draw(seeds), s, kept and [n if k else 1 for n, k in zip(s, kept)], text)
        for s in (shape, tuple(other))
    ]


@pytest.fixture(scope="module")
def seen():
    """The errors of all problems; the largest are printed at the end."""
    errors = []
    yield errors
    loss, grad = np.max(errors, axis=0)
    print(f"\n{len(errors)} random layers: loss {loss:.2f} ulp, gradient {grad:.2f} ulp")


@CHECKED
@given(problem=problems())
def test_any_combination(problem, seen):
    text, bottoms = problem
    layer = parse_layer(text)
    loss, grad = Layer(layer).run(*bottoms)
    errors = Expected(layer, *bottoms).errors(loss, grad)
    assert max(errors) <= LIMIT
    seen.append(errors)


@settings(CHECKED, max_examples=60)
@given(problem=reshaped_problems())
def test_reshape_at_run_time(problem):
    """A layer that has seen other shapes gives the same bits as a new one."""
    text, bottoms = problem
    layer = parse_layer(text)
    fresh = [Layer(layer).run(*each) for each in bottoms]
    used = Layer(layer)
    for index in (0, 1, 0):
        loss, grad = used.run(*bottoms[index])
        assert loss == fresh[index][0]
        np.testing.assert_array_equal(grad, fresh[index][1])
