"""Nets and models that are damaged, and layers with any parameters: right, or refused in a line."""

from pathlib import Path
from random import Random

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from fuzzing import SEEDS, mutated
from google.protobuf import text_format
from one_layer import LIMIT, Expected, Layer, parse_layer

from weighted_loss_tools import nets
from weighted_sigmoid_loss.errors import Refused

ARTICLE = Path(__file__).parent / "data" / "article.prototxt"
NET = """
name: "net"
layer { name: "data" type: "Input" top: "x" top: "t"
  input_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 4 } } }
layer { name: "hidden" type: "InnerProduct" bottom: "x" top: "h"
  inner_product_param { num_output: 5 weight_filler { type: "gaussian" } } }
layer { name: "prelu" type: "PReLU" bottom: "h" top: "h" }
layer { name: "score" type: "InnerProduct" bottom: "h" top: "s"
  inner_product_param { num_output: 4 weight_filler { type: "gaussian" } } }
layer { name: "flat" type: "Reshape" bottom: "s" top: "u"
  reshape_param { shape { dim: 0 dim: 4 } } }
layer { name: "loss" type: "SigmoidCrossEntropyWeightLoss" bottom: "u" bottom: "t" top: "loss"
  sigmoid_cross_entropy_weight_loss_param { cls_weight: [2, 3, 4, 5] neg_weight: 0.5 } }
"""


def one_line(status, out, err):
    return (status, out, err.count("\n")) == (2, "", 1) and len(err) < 1000


@pytest.mark.parametrize("seed", SEEDS)
def test_migrate(seed, tmp_path, tools_command):
    """Rewritten to what can be read and needs no second time, or left as it is."""
    random, net = Random(seed), tmp_path / "net.prototxt"
    original = ARTICLE.read_bytes()
    for _ in range(60):
        data = mutated(original * random.choice((1, 1, 3)), random)
        net.write_bytes(data)
        status, out, err = tools_command("migrate", net, "--element-weights")
        if status:
            assert one_line(status, out, err) and net.read_bytes() == data
            continue
        new = net.read_bytes()
        text_format.Parse(new.decode("latin-1"), caffe_pb2.NetParameter())
        assert tools_command("migrate", net)[0] == 0 and net.read_bytes() == new
    assert list(tmp_path.iterdir()) == [net]


@pytest.mark.parametrize("seed", SEEDS)
def test_calibrate(seed, tmp_path, tools_command):
    """A model for all layers of a net that runs, or no file at all."""
    random, net, model = Random(seed), tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    made = [tmp_path / "out.caffemodel", tmp_path / "out.prototxt"]
    net.write_text(NET)
    caffe.Net(str(net), caffe.TRAIN).save(str(model))
    originals = {path: path.read_bytes() for path in (net, model)}
    for _ in range(30):
        for path, data in originals.items():
            path.write_bytes(data)
        changed = random.choice((net, model, model))
        changed.write_bytes(mutated(originals[changed], random))
        status, out, err = tools_command(
            "calibrate", net, model, "--output", tmp_path / "out", "--shape", "x=2,3"
        )
        if status:
            assert one_line(status, out, err)
            assert not any(path.exists() for path in made)
            continue
        trained = caffe_pb2.NetParameter.FromString(made[0].read_bytes())
        deploy = text_format.Parse(made[1].read_text("latin-1"), caffe_pb2.NetParameter())
        with_blobs = {one.name for one in deploy.layer if one.type in ("InnerProduct", "PReLU")}
        assert with_blobs <= {one.name for one in trained.layer if one.blobs}
        for path in made:
            path.unlink()


# The layer's prototxt

SHAPES = [(4, 3), (2, 3, 2, 2), (5,), (3, 1, 4), (1, 3, 3), (2, 2, 2, 1, 2)]
NUMBERS = ["0", "1", "2.5", "1e10", "1e-10", "0.1", "1", "2", "-1", "inf", "nan"]


def random_layer(random, shape, bottoms):
    """What stands inside the layer: right more often than not."""

    def some(*values, share=0.5):
        return random.choice(values) if random.random() < share else ""

    axis = random.choice((*range(-len(shape), len(shape)), 1, 1, 9))
    channels = shape[axis] if axis < len(shape) else 3
    numbers = NUMBERS[: random.choice((8, 8, 8, 11))]
    own = "".join(
        f"{name}: {random.choice(numbers)} "
        for name in ("cls_weight", "neg_weight")
        for _ in range(random.choice((0, 0, 1, 1, channels, channels, channels + 1)))
    )
    own += some(f"axis: {axis} ", share=0.9)
    own += some("class_balance: " + random.choice(
        caffe_pb2.SigmoidCrossEntropyWeightLossParameter.ClassBalance.keys()
    ) + " ")  # fmt: skip
    own += some("stop_on_nan: true ", share=0.2)
    own += some("ignore_soft_targets: true ", share=0.2)
    common = some(*(f"normalization: {name} " for name in ("FULL", "VALID", "BATCH_SIZE", "NONE")))
    common += some("ignore_label: 0 ", "ignore_label: 2 ", "ignore_label: -1 ")
    common += some("normalize: true ", "normalize: false ", share=0.2)
    rest = some("loss_weight: 0.5 ", "loss_weight: 3 ", share=0.3)
    rest += some(
        f"propagate_down: {[1, 0, 0][:bottoms]} ", f"propagate_down: {[1] * bottoms} ", share=0.1
    )
    return f"sigmoid_cross_entropy_weight_loss_param {{ {own}}} loss_param {{ {common}}} {rest}"


def random_blobs(random, shape):
    generator = np.random.default_rng(random.getrandbits(32))
    scores = generator.normal(scale=random.choice((1, 30, 1000)), size=shape)
    targets = generator.integers(0, 2, shape).astype(float)
    soft = generator.random(shape) < random.choice((0, 0.3))
    targets[soft] = generator.random(soft.sum())
    targets[generator.random(shape) < random.choice((0, 0.3))] = random.choice((0, 1))
    weight = None
    if random.random() < 0.3:
        weight_shape = [size if random.random() < 0.6 else 1 for size in shape]
        weight = generator.random(weight_shape[: random.randint(1, len(shape))]) * 3
    scores = scores.astype(np.float32)
    if random.random() < 0.2:
        targets = targets.reshape(
            random.choice((targets.shape, targets.shape[::-1], (-1, 1, 7))[:2])
        )
    return scores, targets.astype(np.float32), None if weight is None else weight.astype(np.float32)


def errors(text, scores, targets, weight):
    layer = parse_layer(text)
    loss, grad = Layer(layer).run(scores, targets, weight)
    return Expected(layer, scores, targets, weight).errors(loss, grad)


@pytest.mark.parametrize("seed", SEEDS)
def test_layer(seed):
    """Within its bounds, or a failed check that says what is wrong in which layer."""
    random, ran = Random(seed), 0
    for _ in range(60):
        shape = random.choice(SHAPES)
        blobs = random_blobs(random, shape)
        text = random_layer(random, shape, 2 if blobs[2] is None else 3)
        try:
            found = nets.run(errors, text, *blobs)
        except Refused as refused:
            words = str(refused)
            assert "loss" in words.replace("loss_weight", "") and "Error" not in words, (
                text,
                words,
            )
            continue
        ran += 1
        assert max(found) <= LIMIT, (text, found)
    assert ran > 10
