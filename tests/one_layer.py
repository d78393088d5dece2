"""The layer alone in a net, through pycaffe, and what it must give: the reference, and how far off
the layer may be by its guarantee."""

import tempfile
from pathlib import Path

import caffe
import numpy as np
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from weighted_sigmoid_loss import reference

ULP = 2.0**-23  # of float32, relative
LIMIT = 4  # ulp, the layer's guarantee
FLOOR = 2.0**-126
LARGEST = float(np.finfo(np.float32).max)


def parse_layer(text):
    """What stands inside a layer { } of this type, as a message."""
    layer = caffe_pb2.LayerParameter(name="loss", type="SigmoidCrossEntropyWeightLoss")
    return text_format.Parse(text, layer)


class Layer:
    """A net of one such layer on Input layers, which take the shapes of what it is run on."""

    def __init__(self, layer):
        self.layer = layer
        self.net = None

    def run(self, scores, targets, weight=None):
        """Forward and Backward; return the loss and the gradient."""
        blobs = {"scores": scores, "targets": targets}
        if weight is not None:
            blobs["weight"] = weight
        if self.net is None:
            self.net = self._load({name: np.shape(value) for name, value in blobs.items()})
        for name, value in blobs.items():
            self.net.blobs[name].reshape(*np.shape(value))
            self.net.blobs[name].data[...] = value
        # What Backward does not write shows.
        self.net.blobs["scores"].diff[...] = np.nan
        self.net.forward()
        self.net.backward()
        return self.net.blobs["loss"].data.item(), self.net.blobs["scores"].diff.copy()

    def _load(self, shapes):
        net = caffe_pb2.NetParameter(force_backward=True)
        for name, shape in shapes.items():
            layer = net.layer.add(name=name, type="Input", top=[name])
            layer.input_param.shape.add(dim=shape)
        loss = net.layer.add()
        loss.CopyFrom(self.layer)
        loss.bottom[:] = shapes
        loss.top[:] = ["loss"]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.prototxt"
            path.write_text(text_format.MessageToString(net))
            return caffe.Net(str(path), caffe.TRAIN)


def arguments(layer):
    """The layer's parameters as arguments of the reference."""
    own, common = layer.sigmoid_cross_entropy_weight_loss_param, layer.loss_param
    normalization = common.NormalizationMode.Name(common.normalization)
    if not common.HasField("normalization"):
        normalization = "VALID" if common.normalize else "BATCH_SIZE"
    return {
        "cls_weight": list(own.cls_weight),
        "neg_weight": list(own.neg_weight),
        "axis": own.axis,
        "class_balance": own.ClassBalance.Name(own.class_balance),
        "normalization": normalization,
        "ignore_label": common.ignore_label if common.HasField("ignore_label") else None,
        "ignore_soft_targets": own.ignore_soft_targets,
    }


class Expected:
    """The reference's results, and what a layer's error is to be judged against."""

    def __init__(self, layer, scores, targets, weight=None):
        given = arguments(layer)
        loss_weight = layer.loss_weight[0] if layer.loss_weight else 1.0
        x = np.asarray(scores, np.float64)
        t = np.asarray(targets, np.float64).reshape(x.shape)
        valid = reference.not_ignored(t, layer_label(given), given["ignore_soft_targets"])
        normalizer = {
            "FULL": x.size,
            "VALID": np.count_nonzero(valid),
            "BATCH_SIZE": x.shape[0],
            "NONE": 1,
        }[given["normalization"]]
        normalizer = max(1, normalizer)

        self.loss, grad = reference.weighted_sigmoid_loss(x, t, weight, **given)
        self.grad = loss_weight * grad

        b_pos, b_neg = reference.balance_factors(t, valid, given["class_balance"], given["axis"])
        e = reference.element_weights(weight, x.shape)
        a, b = (
            e * reference.channel_weights(given[name], x.shape, given["axis"]) * factor
            for name, factor in (("cls_weight", b_pos), ("neg_weight", b_neg))
        )
        top_diff = loss_weight / normalizer
        larger = np.where(valid, np.maximum(a, b), 0)
        self.weight = larger * top_diff
        up = b * (1 - t) * reference.sigmoid(x) * top_diff
        down = a * t * reference.sigmoid(-x) * top_diff
        self.scale = np.where(valid, np.maximum(up, down), 0)
        self.grad_floor = np.where(valid, FLOOR * np.maximum(self.weight, 1), 0)
        self.loss_floor = max(FLOOR, FLOOR * larger.sum() / normalizer)

    def errors(self, loss, grad):
        """Largest errors of loss and gradient, in ulp, besides the floor."""
        if self.loss > LARGEST:
            loss_error = 0.0 if loss == np.inf else np.inf
        else:
            loss_error = in_ulp(loss - self.loss, self.loss, self.loss_floor)
        return loss_error, in_ulp(grad - self.grad, self.scale, self.grad_floor)


def layer_label(given):
    """ignore_label as targets are: float32; None where there is none."""
    return None if given["ignore_label"] is None else np.float32(given["ignore_label"])


def in_ulp(error, scale, floor):
    """The largest error beyond the floor; infinite where nothing may be off, or for NaN."""
    excess = np.abs(error) - floor
    with np.errstate(divide="ignore", invalid="ignore"):
        ulp = np.where(excess <= 0, 0, excess / (ULP * np.asarray(scale)))
    return float(np.max(np.where(np.isnan(ulp), np.inf, ulp)))


def check(text, scores, targets, weight=None):
    """Run a layer of this text and hold it to its guarantee; return its loss and gradient."""
    layer = parse_layer(text)
    loss, grad = Layer(layer).run(scores, targets, weight)
    errors = Expected(layer, scores, targets, weight).errors(loss, grad)
    assert max(errors) <= LIMIT, errors
    return loss, grad
