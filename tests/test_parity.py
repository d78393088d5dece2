"""The catalogue's prototxts (docs/layer.md) against the losses that they stand for.

Each formula is written out in double as users of that loss know it. It must equal the reference up
to the rounding errors of double, and the layer must be within its guarantee of both.
"""

import re

import numpy as np
import pytest
from caffe.proto import caffe_pb2
from documents import blocks_in, read
from google.protobuf import text_format
from one_layer import LIMIT, ULP, Expected, Layer, in_ulp, parse_layer

from weighted_sigmoid_loss import schemes

CATALOGUE = read("docs/layer.md")


def section(title, language):
    """The first code block in a language under a heading of the catalogue."""
    (text,) = re.findall(rf"^### {title}\n(.*?)(?=^#)", f"{CATALOGUE}#", re.MULTILINE | re.DOTALL)
    block, *_ = blocks_in(text, language)
    return block


def documented_layer(title):
    return text_format.Parse(section(title, "prototxt"), caffe_pb2.NetParameter()).layer[0]


def documented_function(title, name):
    names = {}
    exec(section(title, "python"), names)
    return names[name]


def scores_and_targets(shape, rate=0.2):
    """As of a net in training, in float32."""
    random = np.random.default_rng(20181227)
    targets = (random.random(shape) < rate).astype(np.float32)
    scores = random.normal(scale=3, size=shape) + 4 * targets - 2
    return scores.astype(np.float32), targets


def agree(layer, bottoms, loss, grad):
    """Formula, reference and layer give the same; loss and grad are the formula's."""
    expected = Expected(layer, *bottoms)
    # The textbook forms subtract numbers of the score's size.
    rounding = 8 * 2.0**-53 * expected.weight * (1 + np.abs(bottoms[0].astype(np.float64)))
    assert abs(loss - expected.loss) <= rounding.sum()
    assert np.all(np.abs(grad - expected.grad) <= rounding)

    layer_loss, layer_grad = Layer(layer).run(*bottoms)
    assert max(expected.errors(layer_loss, layer_grad)) <= LIMIT
    assert in_ulp(layer_loss - loss, loss, expected.loss_floor + rounding.sum()) <= LIMIT
    floor = expected.grad_floor + rounding
    assert in_ulp(layer_grad - grad, expected.scale, floor) <= LIMIT


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def caffe_loss(x, t):
    """An element's loss as upstream and its forks write it."""
    right = x >= 0
    return -(x * (t - right) - np.log(1 + np.exp(x - 2 * x * right)))


def test_article():
    layer = documented_layer("The article")
    scores, targets = scores_and_targets((6, 4, 5, 5))
    x, t, w = scores.astype(np.float64), targets.astype(np.float64), 100
    first_term = -(t - 1) * x
    second_term = -((1 - w) * t - 1) * np.log(1 + np.exp(-x))
    grad = ((w - 1) * t + 1) * sigmoid(x) - w * t
    agree(layer, (scores, targets), np.sum(first_term + second_term), grad)


def edge_loss(scores, targets, negative=1.0):
    """HED's two loops over each image; negative: what RCF multiplies the negatives' weight by."""
    num = len(scores)
    total, grad = 0.0, np.zeros(scores.shape)
    for i in range(num):
        x, t = scores[i].astype(np.float64), targets[i]
        count_pos, count_neg = np.count_nonzero(t == 1), np.count_nonzero(t == 0)
        weight_pos = count_neg / (count_pos + count_neg)
        weight_neg = negative * count_pos / (count_pos + count_neg)
        weight = np.where(t == 1, weight_pos, np.where(t == 0, weight_neg, 0))
        total += np.sum(weight * caffe_loss(x, t))
        grad[i] = weight * (sigmoid(x) - t)
    return total / num, grad / num


def test_hed():
    scores, targets = scores_and_targets((3, 1, 12, 9))
    agree(documented_layer("HED"), (scores, targets), *edge_loss(scores, targets))


def rcf_pixels(others):
    """Scores and targets, some of which are of these others, to be left out."""
    scores, targets = scores_and_targets((3, 1, 12, 9))
    random = np.random.default_rng(1)
    mixed = random.random(targets.shape) < 0.3
    targets[mixed] = random.choice(others, np.count_nonzero(mixed))
    return scores, targets


def test_rcf():
    """On what the authors' data layer makes of gray values, and their loss leaves out."""
    pixels = rcf_pixels(np.float32([1, 51, 102, 127]) / np.float32(255))
    # 1.1 as the layer has it, in float.
    agree(documented_layer("RCF"), pixels, *edge_loss(*pixels, negative=float(np.float32(1.1))))


def test_rcf_in_pytorch():
    scores, targets = pixels = rcf_pixels([2])
    layer = documented_layer("RCF")
    own = layer.sigmoid_cross_entropy_weight_loss_param
    own.ClearField("ignore_soft_targets")
    own.class_balance = own.BATCH
    layer.loss_param.ignore_label = 2
    layer.loss_param.normalization = layer.loss_param.NONE
    one_image = edge_loss(scores[None], targets[None], negative=float(np.float32(1.1)))
    agree(layer, pixels, one_image[0], one_image[1][0])


def test_casenet():
    layer = documented_layer("CASENet")
    scores, targets = scores_and_targets((3, 5, 8, 7), rate=0.05)
    ignored = np.random.default_rng(1).random((3, 1, 8, 7)) < 0.1
    loss, grad = 0.0, np.zeros(scores.shape)
    for i in range(3):
        pixels = ~ignored[i, 0]
        count_pos = np.count_nonzero(targets[i].any(axis=0) & pixels)
        count_neg = np.count_nonzero(pixels) - count_pos
        for k in range(5):
            x, t = scores[i, k].astype(np.float64), targets[i, k]
            weight = np.where(t == 1, count_neg, count_pos) / (count_pos + count_neg) * pixels
            loss += np.sum(weight * caffe_loss(x, t)) / 3
            grad[i, k] = weight * (sigmoid(x) - t) / 3
    targets[np.broadcast_to(ignored, targets.shape)] = 255
    weights = documented_function("CASENet", "casenet_weights")(targets)
    expected = Expected(layer, scores, targets, weights)
    assert expected.loss == pytest.approx(loss, rel=1e-13, abs=0)
    np.testing.assert_allclose(expected.grad, grad, rtol=1e-12, atol=0)
    # The layer takes the weights in float: half an ulp.
    got = Layer(layer).run(scores, targets, weights.astype(np.float32))
    assert max(expected.errors(*got)) <= LIMIT + 0.5


def test_deepmar():
    layer = documented_layer("DeepMAR")
    own = layer.sigmoid_cross_entropy_weight_loss_param
    p = np.array([0.02, 0.25, 0.6])
    sigma = 1.0
    # Rates of the catalogue in a data set of 100.
    data = np.arange(100)[:, None] < 100 * p
    positive, negative = schemes.deepmar(data.sum(axis=0), (~data).sum(axis=0), sigma)
    np.testing.assert_array_equal(own.cls_weight, np.float32(positive))
    np.testing.assert_array_equal(own.neg_weight, np.float32(negative))

    scores, targets = scores_and_targets((20, 3))
    x, t = scores.astype(np.float64), targets.astype(np.float64)
    weight = np.exp(t * (1 - p) / sigma**2 + (1 - t) * p / sigma**2)
    weight = np.float32(weight).astype(np.float64)  # as the prototxt has them
    loss = -np.sum(weight * (t * np.log(sigmoid(x)) + (1 - t) * np.log(1 - sigmoid(x)))) / 20
    agree(layer, (scores, targets), loss, weight * (sigmoid(x) - t) / 20)


def with_logits(x, t, pos_weight):
    """The form that PyTorch's and TensorFlow's documents give, in the type of x; its gradient."""
    one = x.dtype.type(1)
    factor = one + (pos_weight - one) * t
    softplus_neg = np.log1p(np.exp(-np.abs(x))) + np.maximum(-x, 0)
    return (one - t) * x + factor * softplus_neg, (one - t) - factor * sigmoid(-x)


POS_WEIGHT = np.array([1, 12.5, 80])
WEIGHT_SHAPES = [(8, 3, 5, 4), (8, 1, 5, 4), (8, 1, 1, 1), (1, 3, 1, 1)]


def pytorch_problem(weight_shape, normalization):
    """The documented layer, its bottoms, and by what the sum is divided."""
    layer = documented_layer("PyTorch")
    loss_param = layer.loss_param
    assert loss_param.normalization == loss_param.FULL
    loss_param.normalization = loss_param.NormalizationMode.Value(normalization)
    scores, targets = scores_and_targets((8, 3, 5, 4))
    random = np.random.default_rng(2)
    targets[:4] = random.random((4, 3, 5, 4))  # soft
    weight = random.uniform(0, 2, weight_shape).astype(np.float32)
    return layer, (scores, targets, weight), scores.size if normalization == "FULL" else 1


@pytest.mark.parametrize("weight_shape", WEIGHT_SHAPES)
def test_pytorch_formula(weight_shape):
    layer, bottoms, divisor = pytorch_problem(weight_shape, "FULL")
    x, t, weight = (value.astype(np.float64) for value in bottoms)
    loss, grad = with_logits(x, t, POS_WEIGHT[:, None, None])
    agree(layer, bottoms, np.sum(weight * loss) / divisor, weight * grad / divisor)


@pytest.mark.parametrize("weight_shape", WEIGHT_SHAPES)
@pytest.mark.parametrize(("reduction", "normalization"), [("mean", "FULL"), ("sum", "NONE")])
def test_pytorch(weight_shape, reduction, normalization):
    torch = pytest.importorskip("torch")
    layer, bottoms, _ = pytorch_problem(weight_shape, normalization)
    x, t, weight = (torch.tensor(value, dtype=torch.float64) for value in bottoms)
    x.requires_grad_()
    pos_weight = torch.tensor(POS_WEIGHT[:, None, None])
    criterion = torch.nn.BCEWithLogitsLoss(weight, pos_weight=pos_weight, reduction=reduction)
    loss = criterion(x, t)
    loss.backward()
    agree(layer, bottoms, loss.item(), x.grad.numpy())


def test_tensorflow():
    layer = documented_layer("TensorFlow")
    scores, targets = scores_and_targets((40, 7))
    targets[:10] = np.random.default_rng(3).random((10, 7))
    loss, grad = with_logits(scores.astype(np.float64), targets.astype(np.float64), 12.5)
    agree(layer, (scores, targets), loss.mean(), grad / scores.size)


# What the others lose in float32


def run_upstream(score, target):
    layer = caffe_pb2.LayerParameter(name="loss", type="SigmoidCrossEntropyLoss")
    loss, grad = Layer(layer).run(*column(score, target))
    return loss, grad.item()


def run_pytorch(score, target):
    torch = pytest.importorskip("torch")
    x = torch.tensor([float(score)], requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        x, torch.tensor([float(target)]), pos_weight=torch.tensor([3.0])
    )
    loss.backward()
    return loss.item(), x.grad.item()


def column(score, target):
    return np.full((1, 1), score, np.float32), np.full((1, 1), target, np.float32)


def run_tensorflow(score, target):
    loss, _ = with_logits(*column(score, target), np.float32(3))
    return loss.item(), None


def run_forks(score, target):
    """HED, RCF and CASENet."""
    x, t = column(score, target)
    return caffe_loss(x, t).item(), (sigmoid(x) - t).item()


def run_article(score, target):
    x, t = column(score, target)
    w, one = np.float32(3), np.float32(1)
    loss = -(t - one) * x - ((one - w) * t - one) * np.log(one + np.exp(-x))
    return loss.item(), (((w - one) * t + one) * sigmoid(x) - w * t).item()


@pytest.mark.parametrize(
    "other", [run_article, run_upstream, run_forks, run_pytorch, run_tensorflow]
)
def test_easy_negative(other):
    assert other(-20, 0)[0] == 0
    loss, _ = Layer(parse_layer("")).run(*column(-20, 0))
    assert loss == pytest.approx(np.log1p(np.exp(-20.0)), rel=LIMIT * ULP, abs=0)


@pytest.mark.parametrize("other", [run_article, run_upstream, run_forks, run_pytorch])
def test_easy_positive(other):
    assert other(20, 1)[1] == 0
    _, grad = Layer(parse_layer("")).run(*column(20, 1))
    assert grad.item() == pytest.approx(-sigmoid(-20.0), rel=LIMIT * ULP, abs=0)


def test_zero_weights_count():
    """Elements of weight 0 have no loss, and are in the balance and in VALID."""
    text = (
        "sigmoid_cross_entropy_weight_loss_param { class_balance: BATCH } "
        "loss_param { normalization: VALID }"
    )
    scores = np.array([[-1.0, 2, 3, 1e30]], np.float32)
    targets = np.array([[1.0, 0, 0, 0]], np.float32)
    loss, grad = Layer(parse_layer(text)).run(scores, targets, np.array([[1.0, 1, 1, 0]], "f"))
    expected = (0.75 * np.log1p(np.e) + 0.25 * np.sum(np.log1p(np.exp([2, 3])))) / 4
    assert loss == pytest.approx(expected, rel=LIMIT * ULP, abs=0)
    assert grad[0, 3] == 0 and np.all(grad[0, :3] != 0)
