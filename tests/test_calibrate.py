"""`weighted-loss calibrate`: the nets before and after, run by pycaffe."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import caffe
import h5py
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from weighted_loss_tools import calibrate as module
from weighted_sigmoid_loss.reference import sigmoid, weighted_sigmoid_loss

CLS_WEIGHT, NEG_WEIGHT = [2.0, 12.5, 80.0], [1.5, 1.0, 0.25]
SHIFT = np.log(CLS_WEIGHT) - np.log(NEG_WEIGHT)

INPUT = """
layer { name: "data" type: "Input" top: "x" top: "t"
  input_param { shape { dim: 4 dim: 2 dim: 5 dim: 6 } shape { dim: 4 dim: 3 } } }
"""
HIDDEN = """
layer { name: "conv" type: "Convolution" bottom: "x" top: "h"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" } } }
layer { name: "relu" type: "ReLU" bottom: "h" top: "h" }
layer { name: "drop" type: "Dropout" bottom: "h" top: "h" }
"""
FILLERS = 'weight_filler { type: "gaussian" } bias_filler { type: "gaussian" }'
MAKERS = {
    "InnerProduct": f"inner_product_param {{ num_output: 3 {FILLERS} %s }}",
    "InnerProduct, transposed":
        f"inner_product_param {{ num_output: 3 transpose: true {FILLERS} %s }}",
    "Convolution": f"convolution_param {{ num_output: 3 kernel_size: 3 {FILLERS} %s }}",
    "Deconvolution": f"convolution_param {{ num_output: 3 kernel_size: 2 stride: 2 {FILLERS} %s }}",
}  # fmt: skip
WEIGHTS = " ".join(
    [f"cls_weight: {w}" for w in CLS_WEIGHT] + [f"neg_weight: {w}" for w in NEG_WEIGHT]
)


def maker(kind="InnerProduct", more=""):
    type_ = kind.split(",")[0]
    parameter = MAKERS[kind] % more
    return f'layer {{ name: "score" type: "{type_}" bottom: "h" top: "s" {parameter} }}\n'


def loss(own=WEIGHTS, more="", bottoms=("s", "t"), name="loss"):
    lines = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
    return (
        f'layer {{ name: "{name}" type: "SigmoidCrossEntropyWeightLoss" {lines} top: "{name}" '
        f"sigmoid_cross_entropy_weight_loss_param {{ {own} }} {more} }}\n"
    )


NET = INPUT + HIDDEN + maker() + loss()


def named(net, name):
    """The layer of a net or a model."""
    (layer,) = (one for one in net.layer if one.name == name)
    return layer


class Folder:
    """A trained net's files, and the command run on them."""

    def __init__(self, path, command):
        self.path, self.command = path, command
        self.net, self.model = path / "net.prototxt", path / "net.caffemodel"
        self.prefix = path / "out"

    def write(self, text, model_of=None):
        """The prototxt, and a model with random weights, of another prototxt if one is given."""
        self.net.write_text(text)
        source = self.path / "model_of.prototxt"
        source.write_text(model_of or text)
        net = caffe.Net(str(source), caffe.TEST)
        for name in net.params:
            for blob in net.params[name]:
                random = np.random.default_rng(len(name))
                blob.data[...] = random.normal(scale=0.3, size=blob.data.shape)
        net.save(str(self.model))
        source.unlink()

    def run(self, *arguments):
        arguments = "--output", self.prefix, *arguments
        return self.command("calibrate", self.net, self.model, *arguments)

    def calibrated(self, *arguments):
        status, out, err = self.run(*arguments)
        assert status == 0, err
        return out, err

    def refused(self, *arguments):
        before = {path: path.read_bytes() for path in self.path.iterdir()}
        status, out, err = self.run(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("calibrate: ") and err.count("\n") == 1
        assert {path: path.read_bytes() for path in self.path.iterdir()} == before
        return err

    def before(self):
        return caffe.Net(str(self.net), caffe.TEST, weights=str(self.model))

    def after(self):
        return caffe.Net(f"{self.prefix}.prototxt", caffe.TEST, weights=f"{self.prefix}.caffemodel")

    def deploy(self):
        text = Path(f"{self.prefix}.prototxt").read_text()
        return text_format.Parse(text, caffe_pb2.NetParameter())

    def bias(self, name, path=None):
        return np.array(named(self.trained(path), name).blobs[1].data)

    @contextmanager
    def changed(self, name):
        """A layer of the trained model, which is written as it then is."""
        model = self.trained(self.model)
        yield named(model, name)
        self.model.write_bytes(model.SerializeToString())

    def trained(self, path=None):
        model = caffe_pb2.NetParameter()
        model.ParseFromString(Path(path or f"{self.prefix}.caffemodel").read_bytes())
        return model


@pytest.fixture
def folder(tmp_path, tools_command):
    return Folder(tmp_path, tools_command)


def same(before, after, shift=SHIFT, scores="s", prob="prob"):
    """The new net gives sigmoid(score - log(a / b)), a channel each, of the old one's scores."""
    random = np.random.default_rng(1)
    x = random.normal(size=before.blobs["x"].data.shape)
    old = before.blobs["x"], after.blobs["x"]
    for blob in old:
        blob.data[...] = x
    # Only as far as the scores: targets and loss do not matter.
    before.forward()
    after.forward()
    old = before.blobs[scores].data.astype(np.float64)
    shift = np.asarray(shift).reshape(-1, *[1] * (old.ndim - 2))
    np.testing.assert_allclose(after.blobs[scores].data, old - shift, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(after.blobs[prob].data, sigmoid(old - shift), rtol=1e-5, atol=1e-7)


def conv_net(kind, more="", own=WEIGHTS):
    """As many targets as the maker has scores."""
    size = {"Convolution": (3, 4), "Deconvolution": (10, 12)}.get(kind)
    text = INPUT + HIDDEN + maker(kind, more) + loss(own)
    if not size:
        return text
    dims = "".join(f" dim: {n}" for n in size)
    return text.replace("shape { dim: 4 dim: 3 }", f"shape {{ dim: 4 dim: 3{dims} }}")


# What it does


@pytest.mark.parametrize("bias", ["", "bias_term: false"])
@pytest.mark.parametrize("kind", MAKERS)
def test_scores_shift_by_log_a_over_b(kind, bias, folder):
    folder.write(conv_net(kind, bias))
    folder.calibrated()
    same(folder.before(), folder.after())


def test_bias_term_is_true_where_a_bias_was_added(folder):
    folder.write(INPUT + HIDDEN + maker(more="bias_term: false") + loss())
    folder.calibrated()
    deployed, trained = (named(net, "score") for net in (folder.deploy(), folder.trained()))
    assert deployed.inner_product_param.bias_term and trained.inner_product_param.bias_term
    np.testing.assert_allclose(trained.blobs[1].data, -SHIFT, rtol=1e-6)


@pytest.mark.parametrize(
    ("own", "shift"),
    [
        ("cls_weight: 100", [np.log(100)] * 3),
        ("neg_weight: 4", [-np.log(4)] * 3),
        ("cls_weight: 3 neg_weight: [1, 2, 3]", np.log([3, 1.5, 1])),
        ("", [0, 0, 0]),
        (f"{WEIGHTS} axis: -1", SHIFT),
    ],
)
def test_weights(own, shift, folder):
    folder.write(INPUT + HIDDEN + maker() + loss(own))
    folder.calibrated()
    same(folder.before(), folder.after(), shift)


@pytest.mark.parametrize("axis", [1, -3])
def test_axis_of_a_convolution(axis, folder):
    folder.write(conv_net("Convolution", own=f"{WEIGHTS} axis: {axis}"))
    folder.calibrated()
    same(folder.before(), folder.after())


def test_nothing_but_the_bias_and_the_loss_change(folder):
    folder.write(NET)
    folder.calibrated()
    old, new = folder.trained(folder.model), folder.trained()
    for model in (old, new):
        named(model, "score").blobs[1].ClearField("data")
    assert old.layer[-1].type == "SigmoidCrossEntropyWeightLoss"
    assert (new.layer[-1].name, new.layer[-1].type) == ("loss", "Sigmoid")
    del old.layer[-1], new.layer[-1]
    assert old == new


def test_not_twice(folder):
    folder.write(NET)
    folder.calibrated()
    Path(f"{folder.prefix}.caffemodel").rename(folder.model)
    Path(f"{folder.prefix}.prototxt").unlink()
    assert "in place of layer 'loss': it is calibrated already" in folder.refused()


def test_what_it_prints(folder):
    folder.write(NET)
    bias = np.array([0.5, -1, 0])
    with folder.changed("score") as layer:
        layer.blobs[1].data[:] = bias
    out, err = folder.calibrated()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("layer 'loss': log(a / b) folded out of the bias of layer 'score'")
    assert lines[1].split() == ["channel", "a", "b", "log(a", "/", "b)", "bias", "new", "bias"]
    for c, line in enumerate(lines[2:5]):
        row = [c, CLS_WEIGHT[c], NEG_WEIGHT[c], SHIFT[c], bias[c], bias[c] - SHIFT[c]]
        assert [float(cell) for cell in line.split()] == pytest.approx(row, rel=1e-5)
    assert lines[-1] == f"wrote {folder.prefix}.caffemodel and {folder.prefix}.prototxt"


def test_names_of_the_files(folder, tools_command):
    folder.write(NET)
    assert tools_command("calibrate", folder.net, folder.model)[0] == 0
    names = {path.name for path in folder.path.iterdir()} - {"net.prototxt", "net.caffemodel"}
    assert names == {"net-calibrated.caffemodel", "net-calibrated.prototxt"}


def test_names_with_any_character(folder):
    """Chinese layer names are the same in the prototxts and in the models."""
    names = {'"score"': '"得分"', '"s"': '"输出"', '"loss"': '"损失"'}
    text = NET
    for old, new in names.items():
        text = text.replace(old, new)
    folder.write(text)
    assert "layer '损失'" in folder.calibrated()[0]
    same(folder.before(), folder.after(), scores="输出")


def test_score_that_minimizes_the_loss():
    """Where a share p is positive the best score is log(p / (1 - p)) + log(a / b)."""
    for share, a, b in ((0.1, 9, 1), (0.02, 80, 0.25)):
        x = np.log(share / (1 - share)) + np.log(a / b)
        targets = np.array([[1.0]] * round(100 * share) + [[0.0]] * round(100 * (1 - share)))
        _, grad = weighted_sigmoid_loss(np.full((100, 1), x), targets, cls_weight=a, neg_weight=b)
        assert abs(grad.sum()) < 1e-12
        assert sigmoid(np.array(x - np.log(a / b))) == pytest.approx(share)


# The net to deploy

TRAIN_VAL = """
name: "train_val"
layer { name: "data" type: "HDF5Data" top: "x" top: "t" include { phase: TRAIN }
  hdf5_data_param { source: "train.txt" batch_size: 4 } }
layer { name: "data" type: "HDF5Data" top: "x" top: "t" include { phase: TEST }
  hdf5_data_param { source: "test.txt" batch_size: 4 } }
""" + HIDDEN + maker() + loss(more="include { phase: TRAIN }") + """
layer { name: "mirror" type: "Sigmoid" bottom: "s" top: "prob" include { phase: TEST } }
layer { name: "accuracy" type: "SigmoidCrossEntropyLoss" bottom: "s" bottom: "t" top: "test_loss"
  include { phase: TEST } }
layer { name: "aux" type: "InnerProduct" bottom: "h" top: "aux"
  inner_product_param { num_output: 2 } }
layer { name: "silence" type: "Silence" bottom: "aux" }
"""  # fmt: skip


def test_train_val(folder):
    """Data layers become one Input; phases, targets, other heads and test losses go."""
    folder.write(TRAIN_VAL, model_of=NET)
    folder.calibrated("--shape", "x=4,2,5,6")
    deploy = folder.deploy()
    kinds = [(layer.name, layer.type) for layer in deploy.layer]
    assert kinds == [
        ("x", "Input"),
        ("conv", "Convolution"),
        ("relu", "ReLU"),
        ("drop", "Dropout"),
        ("score", "InnerProduct"),
        ("prob", "Sigmoid"),
    ]
    assert deploy.name == "train_val"
    assert not any(layer.include or layer.exclude for layer in deploy.layer)
    folder.net.write_text(NET)
    same(folder.before(), folder.after())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the shape of the input 'x' is its data layer's, which is not read: give it, as --sh"),
        (["--shape", "x=4,2,5,6", "--shape", "t=4,3"], "--shape t: no such input of the net to"),
        (["--shape", "x=4,0"], "--shape x=4,0: write it as BLOB=N,C,H,W"),
        (["--shape", "4,2"], "--shape 4,2: write it as BLOB=N,C,H,W"),
        (["--shape", "x=4,a"], "write it as BLOB=N,C,H,W"),
    ],
)
def test_shapes(arguments, message, folder):
    folder.write(TRAIN_VAL, model_of=NET)
    assert message in folder.refused(*arguments)


def test_shape_of_an_input_of_another_stage(folder):
    """As in the demo: the prototxt has an Input for deploying already."""
    stage = 'include { phase: TEST stage: "deploy" }'
    shape = "input_param { shape { dim: 4 dim: 2 dim: 5 dim: 6 } }"
    own = f'layer {{ name: "data" type: "Input" top: "x" {stage} {shape} }}\n'
    folder.write(own + TRAIN_VAL, model_of=NET)
    folder.calibrated()
    folder.net.write_text(NET)
    same(folder.before(), folder.after())


@pytest.mark.parametrize(
    "inputs",
    [
        'input: "x" input_shape { dim: 4 dim: 2 dim: 5 dim: 6 } input: "t" '
        "input_shape { dim: 4 dim: 3 }\n",
        'input: "x" input: "t" input_dim: [4, 2, 5, 6, 4, 3, 1, 1]\n',
    ],
)
def test_old_inputs(inputs, folder):
    folder.write(NET.replace(INPUT, inputs))
    folder.calibrated()
    same(folder.before(), folder.after())


def test_layers_of_training_alone_go(folder):
    """And rules that hold in TEST stay in force."""
    noise = 'layer { name: "%s" type: "Power" bottom: "h" top: "h" power_param { %s } %s }\n'
    text = NET.replace(
        maker(),
        noise % ("a", "scale: 100", "include { phase: TRAIN }")
        + noise % ("b", "scale: 2", "exclude { phase: TRAIN }")
        + noise % ("c", "scale: 100", "include { min_level: 1 }")
        + noise % ("d", "shift: 1", 'include { not_stage: "x" max_level: 0 }')
        + noise % ("e", "scale: 100", 'include { stage: "x" }')
        + maker(),
    )
    folder.write(text)
    folder.calibrated()
    assert [layer.name for layer in folder.deploy().layer if layer.type == "Power"] == ["b", "d"]
    same(folder.before(), folder.after())


def test_through_split(folder):
    text = NET.replace(
        loss(), 'layer { name: "two" type: "Split" bottom: "s" top: "u" top: "v" }\n'
    ) + loss(bottoms=("u", "t"))
    folder.write(text)
    folder.calibrated()
    same(folder.before(), folder.after(), scores="s")


def test_two_losses(folder):
    second = maker().replace('"score"', '"score2"').replace('"s"', '"s2"')
    other = loss("cls_weight: 7", bottoms=("s2", "t"), name="loss2")
    folder.write(INPUT + HIDDEN + maker() + second + loss() + other)
    out, _ = folder.calibrated()
    assert out.count("folded out of the bias") == 2
    same(folder.before(), folder.after(), prob="loss_prob")
    shift = [np.log(7)] * 3
    same(folder.before(), folder.after(), shift, scores="s2", prob="loss2_prob")


def test_one_of_two_losses(folder):
    second = maker().replace('"score"', '"score2"').replace('"s"', '"s2"')
    other = loss("cls_weight: 7", bottoms=("s2", "t"), name="loss2")
    folder.write(INPUT + HIDDEN + maker() + second + loss() + other)
    folder.calibrated("--layer", "loss2")
    assert "score" not in [layer.name for layer in folder.deploy().layer]
    same(folder.before(), folder.after(), [np.log(7)] * 3, scores="s2")


def test_blobs_of_doubles(folder):
    """As a Caffe that computes in double saves them."""
    folder.write(NET.replace(maker(), maker(more="bias_term: false")))
    model = folder.trained(folder.model)
    for layer in model.layer:
        for blob in layer.blobs:
            blob.double_data.extend(blob.data)
            blob.ClearField("data")
    folder.model.write_bytes(model.SerializeToString())
    folder.calibrated()
    same(folder.before(), folder.after())


def test_warns_of_another_loss_on_the_scores(folder):
    """Not of one that only TEST has."""
    other = "layer { name: 'other' type: 'EuclideanLoss' bottom: 's' bottom: 't' top: 'other' %s }"
    folder.write(NET + other % "")
    _, err = folder.calibrated()
    assert err == (
        "warning: layer 'other' of type EuclideanLoss takes scores of the same layer in training, "
        "too: this is exact only if it does not train these\n"
    )
    folder.prefix = folder.path / "second"
    folder.net.write_text(NET + other % "include { phase: TEST }")
    assert folder.calibrated()[1] == ""


def test_free_names(folder):
    folder.write(NET.replace('"relu"', '"prob"'))
    folder.calibrated()
    assert folder.deploy().layer[-1].name == "prob_"
    same(folder.before(), folder.after(), prob="prob_")


def test_warns_of_element_weights(folder):
    text = NET.replace(loss(), "").replace('top: "t"', 'top: "t" top: "e"')
    text = text.replace("dim: 3 } }", "dim: 3 } shape { dim: 4 } }") + loss(bottoms=("s", "t", "e"))
    folder.write(text)
    _, err = folder.calibrated()
    assert err.startswith("warning: layer 'loss' has element weights (a third bottom)")
    same(folder.before(), folder.after())


# Layers between that only move the scores


def conv(outputs, name="score", top="s", more=""):
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "h" top: "{top}" {more} '
        f"convolution_param {{ num_output: {outputs} kernel_size: 1 {FILLERS} }} }}\n"
    )


def mover(kind, bottoms, tops, parameter=""):
    lines = [f'bottom: "{one}"' for one in bottoms] + [f'top: "{one}"' for one in tops]
    name = "_".join([kind, *tops])
    return f'layer {{ name: "{name}" type: "{kind}" {" ".join(lines)} {parameter} }}\n'


SLICE = "slice_param { slice_point: 2 }"
ONE = "cls_weight: 8 neg_weight: 2"
# From the hidden layer (4 x 4 x 5 x 6): layers, the loss's axis, and log(a / b) of the outputs.
MOVED = {
    "Flatten": (conv(3) + mover("Flatten", "s", "u", "flatten_param { axis: 2 }"), 1, SHIFT),
    "Reshape": (
        maker().replace("num_output: 3", "num_output: 6")
        + mover("Reshape", "s", "u", "reshape_param { shape { dim: 0 dim: 3 dim: 2 } }"),
        1,
        np.repeat(SHIFT, 2),
    ),
    "Reshape, channels last": (
        maker().replace("num_output: 3", "num_output: 6")
        + mover("Reshape", "s", "u", "reshape_param { shape { dim: 0 dim: 2 dim: 3 } }"),
        -1,
        np.tile(SHIFT, 2),
    ),
    "Slice": (conv(5) + mover("Slice", "s", "vu", SLICE), 1, [0, 0, *SHIFT]),
    "Concat": (
        conv(1) + conv(2, "second", "v") + mover("Concat", "sv", "u"),
        1,
        SHIFT[:1],
    ),
    "Slice and Concat": (
        conv(3) + mover("Slice", "s", "vw", SLICE) + mover("Concat", "wv", "u"),
        1,
        [SHIFT[1], SHIFT[2], SHIFT[0]],
    ),
    "Crop": (
        conv(3) + mover("Pooling", "h", "p", "pooling_param { kernel_size: 2 }")
        + mover("Crop", "sp", "u", "crop_param { offset: 1 }"),
        1,
        SHIFT,
    ),
    "Dropout": (conv(3) + mover("Dropout", "s", "u"), 1, SHIFT),
    "Dropout in place, Split": (
        conv(3) + mover("Dropout", "s", "s") + mover("Split", "s", "uv"),
        1,
        SHIFT,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MOVED)
def test_layers_that_move_scores(kind, folder):
    """The probabilities are p / (p + (a / b)(1 - p)) of the old ones, in every place."""
    layers, axis, shift = MOVED[kind]
    folder.write(INPUT + HIDDEN + layers)
    folder.net.write_text(INPUT + HIDDEN + layers + loss(f"{WEIGHTS} axis: {axis}", bottoms="ut"))
    _, err = folder.calibrated()
    assert ("drops scores in training" in err) == ("Dropout" in kind)
    folder.net.write_text(INPUT + HIDDEN + layers + mover("Sigmoid", "u", ["old"]))
    moved = folder.bias("score", folder.model) - folder.bias("score")
    np.testing.assert_allclose(moved, shift, rtol=1e-5, atol=1e-6)
    before, after = folder.before(), folder.after()
    for net in (before, after):
        net.blobs["x"].data[...] = np.random.default_rng(2).normal(size=net.blobs["x"].data.shape)
        net.forward()
    p = before.blobs["old"].data.astype(np.float64)
    shape = [1] * p.ndim
    shape[axis] = 3
    ratio = np.exp(SHIFT).reshape(shape)
    np.testing.assert_allclose(after.blobs["prob"].data, p / (p + ratio * (1 - p)), rtol=1e-4)


def test_two_losses_on_slices_of_one_layer(folder):
    layers = conv(5) + mover("Slice", "s", "vu", SLICE)
    text = layers + loss(bottoms="ut") + loss(ONE, bottoms="vt", name="loss2")
    folder.write(INPUT + HIDDEN + layers)
    folder.net.write_text(INPUT + HIDDEN + text)
    out, _ = folder.calibrated()
    assert out.count("folded out of the bias of layer 'score'") == 2
    folder.net.write_text(INPUT + HIDDEN + layers)
    np.testing.assert_allclose(
        folder.bias("score", folder.model) - folder.bias("score"),
        [np.log(4)] * 2 + [*SHIFT],
        rtol=1e-5,
    )


def test_bias_that_two_losses_add(folder):
    layers = conv(5).replace("kernel", "bias_term: false kernel") + mover("Slice", "s", "vu", SLICE)
    text = layers + loss(bottoms="ut") + loss(ONE, bottoms="vt", name="loss2")
    folder.write(INPUT + HIDDEN + layers)
    folder.net.write_text(INPUT + HIDDEN + text)
    folder.calibrated()
    expected = [-np.log(4)] * 2 + [*-SHIFT]
    np.testing.assert_allclose(folder.bias("score"), expected, rtol=1e-6)


def test_record_of_a_moved_loss(folder):
    """It is not calibrated twice."""
    layers = conv(3) + mover("Flatten", "s", "u", "flatten_param { axis: 2 }")
    folder.write(INPUT + HIDDEN + layers)
    folder.net.write_text(INPUT + HIDDEN + layers + loss(bottoms="ut"))
    model = folder.trained(folder.model)
    model.layer.add(name="loss", type="Sigmoid", bottom=["u"], top=["prob"])
    folder.model.write_bytes(model.SerializeToString())
    assert "in place of layer 'loss': it is calibrated already" in folder.refused()


# What it refuses


@pytest.mark.parametrize(
    ("layers", "own", "message"),
    [
        (
            conv(3) + mover("Reshape", "s", "u", "reshape_param { shape { dim: [4, 30, 3] } }"),
            f"{WEIGHTS} axis: 2",
            "'loss' has several weights for the scores of one output of layer 'score' of type Conv",
        ),
        (
            conv(3) + mover("Concat", "sss", "u", "concat_param { axis: 1 }"),
            " ".join(f"cls_weight: {w}" for w in range(1, 10)),
            "'loss' has several weights for the scores of one output of layer 'score' of type Conv",
        ),
        (
            conv(3) + mover("Concat", "sh", "u"),
            WEIGHTS,
            "layer 'relu' of type ReLU makes the scores",
        ),
        (
            conv(3) + mover("Softmax", "s", "u"),
            WEIGHTS,
            "layer 'Softmax_u' of type Softmax makes the scores of layer 'loss', and has no bias",
        ),
        (
            conv(3) + mover("Reshape", "s", "u", "reshape_param { shape { dim: 7 dim: -1 } }"),
            WEIGHTS,
            "Caffe cannot run the net to deploy: Check failed: ",
        ),
        (
            conv(3) + mover("Slice", "s", "uv", "slice_param { slice_point: 9 }"),
            WEIGHTS,
            "Caffe cannot run the net to deploy: Check failed: ",
        ),
    ],
)  # fmt: skip
def test_layers_that_mix_scores(layers, own, message, folder):
    folder.write(INPUT + HIDDEN + conv(3))
    folder.net.write_text(INPUT + HIDDEN + layers + loss(own, bottoms="ut"))
    assert message in folder.refused()


def test_other_loss_on_a_slice(folder):
    """It is not known here whether its channels are others."""
    layers = conv(5) + mover("Slice", "s", "vu", SLICE)
    folder.write(INPUT + HIDDEN + layers)
    text = INPUT + HIDDEN + layers + loss(bottoms="ut") + loss(ONE, bottoms="vt", name="loss2")
    folder.net.write_text(text)
    assert "calibrate both at once, without --layer" in folder.refused("--layer", "loss")


def test_scores_that_do_not_shift(folder, monkeypatch):
    """Of whatever the steps before should have refused."""
    folder.write(NET)
    fold = module.fold

    def wrong(net, *arguments):
        folds = fold(net, *arguments)
        named(arguments[-1], "score").blobs[0].data[7] += 0.5
        return folds

    monkeypatch.setattr(module, "fold", wrong)
    assert "the scores of layer 'loss' do not shift by log(a / b)" in folder.refused()


def test_scores_that_are_not_finite(folder):
    folder.write(NET)
    with folder.changed("conv") as layer:
        layer.blobs[0].data[0] = float("nan")
    assert "they are not finite" in folder.refused()


@pytest.mark.parametrize(
    "more",
    [
        "layer { name: 'bn' type: 'BatchNorm' bottom: 'h' top: 'h' }",
        "layer { name: 'bn' type: 'PReLU' bottom: 'h' top: 'h' }",
    ],
)
def test_model_that_lacks_a_layer(more, folder):
    """As a file that was cut between two layers; Caffe would leave that one as it begins."""
    folder.write(NET)
    folder.net.write_text(INPUT + HIDDEN + more + maker() + loss())
    assert "the model does not fit the net: it has no layer 'bn'" in folder.refused()


def test_layer_that_caffe_lacks(folder):
    folder.write(NET)
    text = INPUT + HIDDEN + "layer { name: 'n' type: 'Mine' bottom: 'h' top: 'h' }" + maker()
    folder.net.write_text(text + loss())
    assert "Unknown layer type: Mine" in folder.refused()


BALANCED = "class_balance: %s"
SHARED = maker().replace("inner_product", 'param { name: "w" } param { name: "b" } inner_product')


REFUSED = [
    (INPUT + HIDDEN + maker(), "no layer SigmoidCrossEntropyWeightLoss is in the net in trai"),
    (NET.replace("Dropout", "Power"), "layer 'drop' is of type Dropout there, and Power in"),
    (INPUT + HIDDEN + maker() + loss(BALANCED % "BATCH"), "'loss' has class_balance"),
    (INPUT + HIDDEN + maker() + loss(BALANCED % "CHANNEL"), "there is no constant shift"),
    (INPUT + HIDDEN + maker() + loss("cls_weight: [1, 0, 2]"), "cls_weight 0 (value 1, from"),
    (INPUT + HIDDEN + maker() + loss("neg_weight: 0"), "finite weights above 0"),
    (INPUT + HIDDEN + maker() + loss("cls_weight: inf"), "cls_weight inf (value 0, from 0)"),
    (INPUT + HIDDEN + maker() + loss("cls_weight: [1, 2]"), "cls_weight has 2 values, which"),
    (INPUT + HIDDEN + maker() + loss(f"{WEIGHTS} axis: 2"), "the scores' axis 2 has not"),
    (INPUT + HIDDEN + maker() + loss(bottoms=["s"]), "no two bottoms, scores and targets"),
    (
        INPUT + HIDDEN + maker() + "layer { name: 'r' type: 'ReLU' bottom: 's' top: 's' }"
        + loss(),
        "layer 'r' of type ReLU makes the scores of layer 'loss', and has no bias to fold",
    ),
    (
        INPUT + HIDDEN + maker() + "layer { name: 'r' type: 'ReLU' bottom: 's' top: 's' "
        "include { phase: TEST } }" + loss(),
        "made by the same layers in TRAIN and TEST, or cannot be calibrated; not in both: layer "
        "'score' of type InnerProduct, layer 'r' of type ReLU",
    ),
    (INPUT + HIDDEN + loss(), "no layer makes 's', the scores of layer 'loss'"),
    (NET + loss(name="loss2"), "'loss2' and layer 'loss' are on the same scores, which their"),
    (
        INPUT + HIDDEN + SHARED + SHARED.replace('"s"', '"u"').replace('"score"', '"v"')
        + loss(),
        "layer 'score' shares its bias with layer 'v' (param name 'b')",
    ),
    ("layers { name: 'x' type: SIGMOID }", "layers in Caffe's old format"),
    ("layer {", "not a net's prototxt"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused(text, message, folder):
    folder.write(NET)
    folder.net.write_text(text)
    assert message in folder.refused()


def test_scores_that_other_layers_compute_from(folder):
    """A cascade: the second head was trained on the first one's scores."""
    second = maker().replace('"h"', '"u"').replace('"s"', '"v"').replace('"score"', '"score2"')
    text = (
        "layer { name: 'r' type: 'Power' bottom: 's' top: 'u' }\n"
        + second + loss() + loss(bottoms=("v", "t"), name="loss2")
    )  # fmt: skip
    folder.write(INPUT + HIDDEN + maker() + text)
    message = "layer 'r' of type Power takes the scores of layer 'score' too, and would get others"
    assert message in folder.refused()


def test_articles_layer_is_pointed_to_migrate(folder):
    folder.write(NET)
    folder.net.write_text(NET.replace("SigmoidCrossEntropyWeightLoss", "Python"))
    assert "the command migrate makes the article's Python layer one" in folder.refused()


def test_no_such_loss(folder):
    folder.write(NET)
    assert "with the name 'x' is in the net" in folder.refused("--layer", "x")


FIVE = NET.replace("num_output: 3", "num_output: 5").replace("dim: 3", "dim: 5")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (NET.replace('"score"', '"fc"'), "it has 0 of layer 'score'"),
        (NET.replace('"conv"', '"first"'), "it has 0 of layer 'conv'"),
        (
            FIVE.replace(WEIGHTS, ""),
            "layer 'score' has blobs of shape [5, 120], [5] there, and the prototxt says "
            "num_output: 3, bias_term: true",
        ),
        (NET.replace(maker(), maker(more="bias_term: false")), "shape [3, 120] there, and the"),
        (conv_net("Convolution"), "layer 'score' is of type Convolution there, and InnerProduct"),
        (NET.replace("12.5", "12"), "it was trained with another cls_weight in layer 'loss' than"),
        (NET.replace(WEIGHTS, ""), "it was trained with another cls_weight in layer 'loss' than"),
    ],
)
def test_model_of_another_net(other, message, folder):
    folder.write(NET, model_of=other)
    err = folder.refused()
    assert "the model does not fit the net: " in err and message in err


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated_model(keep, folder):
    folder.write(NET)
    data = folder.model.read_bytes()
    folder.model.write_bytes(data[: int(keep * len(data))])
    assert "truncated or damaged, or no .caffemodel" in folder.refused()


def test_model_with_names_that_are_no_utf8(folder):
    """Protobuf gives bytes for it, and from its version 4 on takes the model for damaged."""
    folder.write(NET)
    folder.model.write_bytes(folder.model.read_bytes().replace(b"loss", b"l\xd6\xd8s"))
    said = folder.refused()
    name = "it has a name that is not UTF-8, or is damaged: b'l\\xd6\\xd8s'"
    assert name in said or "truncated or damaged, or no .caffemodel" in said


def test_empty_model(folder):
    folder.write(NET)
    folder.model.write_bytes(b"")
    assert "the model does not fit the net: it has 0 of layer 'conv'" in folder.refused()


def test_blob_that_is_not_whole(folder):
    folder.write(NET)
    with folder.changed("score") as layer:
        del layer.blobs[0].data[-1]
    assert "the model does not fit the net: layer 'score' has blobs" in folder.refused()


def test_diverged_model(folder):
    folder.write(NET)
    with folder.changed("score") as layer:
        layer.blobs[1].data[0] = float("nan")
    assert "layer 'score' has a bias in the model that is not finite" in folder.refused()


def test_hdf5_model(folder):
    folder.write(NET)
    with h5py.File(folder.model, "w") as file:
        file["data"] = 1
    assert "an HDF5 model: save it with snapshot_format: BINARYPROTO" in folder.refused()


@pytest.mark.parametrize("missing", ["net", "model"])
def test_no_such_file(missing, folder):
    folder.write(NET)
    path = getattr(folder, missing)
    path.unlink()
    assert f"{path}: No such file or directory" in folder.refused()


@pytest.mark.parametrize("suffix", ["caffemodel", "prototxt"])
def test_nothing_is_overwritten(suffix, folder):
    folder.write(NET)
    Path(f"{folder.prefix}.{suffix}").symlink_to("nowhere")
    before = sorted(folder.path.iterdir())
    status, _, err = folder.run()
    assert status == 2
    assert f"{folder.prefix}.{suffix}: exists, and nothing is overwritten" in err
    assert sorted(folder.path.iterdir()) == before


@pytest.mark.parametrize("fails_at", [1, 2])
def test_disk_that_fails(fails_at, folder, monkeypatch):
    """Neither file is left when one cannot be written."""
    folder.write(NET)
    before = sorted(folder.path.iterdir())
    link, calls = os.link, []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == fails_at:
            raise OSError(28, "No space left on device")
        link(*arguments)

    monkeypatch.setattr(os, "link", fail)
    status, out, err = folder.run()
    assert (status, out) == (1, "")
    assert "cannot be written: No space left on device" in err and err.count("\n") == 1
    assert sorted(folder.path.iterdir()) == before


def test_modes_are_those_of_new_files(folder):
    folder.write(NET)
    old = os.umask(0o027)
    try:
        folder.calibrated()
    finally:
        os.umask(old)
    assert Path(f"{folder.prefix}.caffemodel").stat().st_mode & 0o777 == 0o640


def test_missing_pycaffe(tmp_path):
    (tmp_path / "caffe.py").write_text("raise ImportError('no _caffe.so')")
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "net.caffemodel").write_bytes(b"")
    path = [tmp_path, Path(module.__file__).parent.parent, *sys.path]
    done = subprocess.run(
        [sys.executable, "-m", "weighted_loss_tools", "calibrate", "net.prototxt",
         "net.caffemodel"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "pycaffe is needed and cannot be imported (no _caffe.so)" in done.stderr
    assert done.stderr.count("\n") == 1
