"""The Python layer under the article's names, through pycaffe, on nets of Input layers."""

import json
from pathlib import Path

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

ULP = 2.0**-23  # of float32, relative
TESTS = Path(__file__).parent
ARTICLE = (TESTS / "data" / "article.prototxt").read_text()
CASES = {case["name"]: case for case in json.loads((TESTS / "golden.json").read_text())}


@pytest.fixture
def load(tmp_path):
    """Make the net of a loss layer, by its text, on inputs of these shapes."""

    def make(text=ARTICLE, scores=(4, 3), targets=None, **changes):
        net = caffe_pb2.NetParameter(force_backward=True)
        for name, shape in (("conv5", scores), ("label", targets or scores)):
            layer = net.layer.add(name=name, type="Input", top=[name])
            layer.input_param.shape.add(dim=shape)
        loss = text_format.Parse(text, caffe_pb2.NetParameter()).layer[0]
        for name, value in changes.items():
            if name == "param_str":
                loss.python_param.param_str = value
            else:
                loss.ClearField(name)
                getattr(loss, name).extend(value)
        net.layer.append(loss)
        path = tmp_path / "net.prototxt"
        path.write_text(text_format.MessageToString(net))
        return caffe.Net(str(path), caffe.TRAIN)

    return make


def run(net, scores, targets):
    """The loss and the gradient."""
    net.blobs["conv5"].data.flat = scores
    net.blobs["label"].data.flat = targets
    net.forward()
    net.backward()
    return net.blobs["loss"].data.item(), net.blobs["conv5"].diff.copy()


@pytest.fixture
def values():
    random = np.random.default_rng(20181227)
    return random.normal(0, 3, 12), random.integers(0, 2, 12)


@pytest.mark.parametrize("name", ["article", "edges_t0", "edges_t1", "subnormal_w1"])
def test_golden(load, name):
    """Rounded once from float64: within 1/2 ulp, and a little for what float64 rounds."""
    case = CASES[name]
    weight = caffe_pb2.LayerParameter()
    text_format.Merge(case["layer"], weight)
    (cls_weight,) = weight.sigmoid_cross_entropy_weight_loss_param.cls_weight
    net = load(scores=case["shape"], param_str=str({"cls_weight": cls_weight}))
    loss, grad = run(net, case["scores"], case["targets"])
    # Where a result is below 2^-126, an ulp is 2^-149.
    assert loss == pytest.approx(case["loss"], rel=0.51 * ULP, abs=0.51 * 2.0**-149)
    error = np.abs(grad.ravel() - case["grad"])
    assert np.all(error <= 0.51 * np.maximum(ULP * np.array(case["grad_scale"]), 2.0**-149))


@pytest.mark.parametrize(
    "param_str",
    [
        "{'cls_weight': 100}",
        '{"cls_weight":100}',
        ' {"cls_weight" : 1e2,} ',
        "{'cls_weight':'100'}",
    ],
)
def test_param_str(load, values, param_str):
    expected = run(load(), *values)
    loss, grad = run(load(param_str=param_str), *values)
    assert loss == expected[0] and np.array_equal(grad, expected[1])


@pytest.mark.parametrize(
    ("param_str", "message"),
    [
        ("", "must be a dictionary of plain values"),
        ("100", "must be a dictionary of plain values"),
        ("{'cls_weight': 10 * 10}", "with no expression; it is {'cls_weight': 10 \\* 10}"),
        ("__import__('os').abort()", "with no expression"),
        ("{'cls_weight': 100", "must be a dictionary of plain values"),
        ("{[]: 1}", "must be a dictionary of plain values"),
        ("{}", "key 'cls_weight' and no other; it has no key"),
        ("{'weight': 100}", "key 'cls_weight' and no other; it has 'weight'"),
        (
            "{'cls_weight': 1, 'neg': 2}",
            "key 'cls_weight' and no other; it has 'cls_weight', 'neg'",
        ),
        ("{'cls_weight': -1}", "cls_weight must be a finite number, not negative; it is -1"),
        ("{'cls_weight': 1e39}", "must be a finite number"),
        ("{'cls_weight': 'nan'}", "must be a finite number"),
        ("{'cls_weight': 1" + 400 * "0" + "}", "must be a finite number"),
        ("{'cls_weight': [1, 2]}", "must be a finite number, not negative; it is \\[1, 2\\]"),
    ],
)
def test_wrong_param_str(load, param_str, message):
    with pytest.raises(ValueError, match=message):
        load(param_str=param_str)


def test_loss_weight_counts(load, values):
    loss, grad = run(load(), *values)
    half_loss, half_grad = run(load(loss_weight=[0.5]), *values)
    assert half_loss == loss
    assert np.array_equal(half_grad, grad / 2)


def test_same_as_the_native_layer(load, values):
    native = caffe_pb2.NetParameter()
    layer = native.layer.add(type="SigmoidCrossEntropyWeightLoss", name="loss", top=["loss"])
    layer.bottom.extend(["conv5", "label"])
    layer.loss_param.normalization = caffe_pb2.LossParameter.NONE
    layer.sigmoid_cross_entropy_weight_loss_param.cls_weight.append(100)
    loss, grad = run(load(), *values)
    native_loss, native_grad = run(load(text_format.MessageToString(native)), *values)
    assert loss == pytest.approx(native_loss, rel=4 * ULP)
    assert grad == pytest.approx(native_grad, rel=4 * ULP)


def test_targets_of_another_shape(load, values):
    """(4, 3) under scores of (4, 3, 1, 1): NumPy alone would make (4, 3, 4, 3) of them."""
    loss, grad = run(load(), *values)
    other_loss, other_grad = run(load(scores=(4, 3, 1, 1), targets=(4, 3)), *values)
    assert other_loss == loss and np.array_equal(other_grad.ravel(), grad.ravel())


def test_targets_get_no_gradient(load, values):
    """force_backward, which all nets here have, asks for it."""
    net = load()
    _, grad = run(net, *values)
    assert np.all(grad != 0)
    assert np.all(net.blobs["label"].diff == 0)


def test_scores_that_need_no_gradient_get_none(tmp_path, values):
    """Where the targets learn and the scores do not, Caffe asks for the targets' gradient alone."""
    net = caffe_pb2.NetParameter()
    scores = net.layer.add(name="conv5", type="Input", top=["conv5"])
    scores.input_param.shape.add(dim=(4, 3))
    targets = net.layer.add(name="label", type="Parameter", top=["label"])
    targets.parameter_param.shape.dim.extend((4, 3))
    path = tmp_path / "net.prototxt"
    path.write_text(text_format.MessageToString(net) + ARTICLE)
    net = caffe.Net(str(path), caffe.TRAIN)
    net.blobs["conv5"].diff[...] = 7
    _, grad = run(net, *values)
    assert np.all(grad == 7) and np.all(net.blobs["label"].diff == 0)


def test_reshape(load, values):
    net = load()
    for count in (12, 24):
        net.blobs["conv5"].reshape(count // 3, 3)
        net.blobs["label"].reshape(count // 3, 3)
        net.reshape()
        loss, grad = run(net, np.resize(values[0], count), np.resize(values[1], count))
        assert grad.size == count
        assert loss == pytest.approx(run(load(), *values)[0] * count / 12, rel=ULP)


def test_counts_that_differ(load):
    with pytest.raises(ValueError, match=r"scores of shape \(4, 3\), targets of shape \(4, 2\): "):
        load(targets=(4, 2))


@pytest.mark.parametrize("change", [{"bottom": ["conv5"]}, {"top": ["loss", "more"]}])
def test_wrong_bottoms_or_tops(load, change):
    if "top" in change:
        change["loss_weight"] = [1, 1]
    with pytest.raises(ValueError, match="needs two bottoms, scores and targets, and one top"):
        load(**change)


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_loss_that_is_not_finite(load, values, score):
    scores = values[0].copy()
    scores[:2] = score
    targets = values[1].copy()
    targets[:2] = 0
    with pytest.raises(
        FloatingPointError, match=f"the loss is {score}; 2 of 12 scores are not finite"
    ):
        run(load(), scores, targets)
