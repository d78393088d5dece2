"""The layer against 60-digit results, through pycaffe."""

import json
from pathlib import Path

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

ULP = 2.0**-23  # of float32, relative
LIMIT = 4  # ulp, the layer's guarantee
CASES = json.loads((Path(__file__).parent / "golden.json").read_text())


def make_net(case):
    """A net of the case's layer on Input layers."""
    blobs = {"scores": case["shape"], "targets": case["shape"]}
    if case["weight"]:
        blobs["weight"] = case["weight"]["shape"]
    net = caffe_pb2.NetParameter(force_backward=True)
    for name, shape in blobs.items():
        layer = net.layer.add(name=name, type="Input", top=[name])
        layer.input_param.shape.add(dim=shape)
    loss = net.layer.add(name="loss", type="SigmoidCrossEntropyWeightLoss", top=["loss"])
    loss.bottom.extend(blobs)
    text_format.Merge(case["layer"], loss)
    return net


def load(net, folder):
    path = folder / "net.prototxt"
    path.write_text(text_format.MessageToString(net))
    return caffe.Net(str(path), caffe.TRAIN)


def worst_ulp(got, expected, scale, floor):
    """The largest error beyond the floor, in ulp of scale."""
    excess = np.abs(np.asarray(got, np.float64).ravel() - expected) - floor
    return float(np.max(np.maximum(excess, 0) / (ULP * np.maximum(scale, 1e-300))))


@pytest.fixture(scope="module")
def seen():
    """The worst errors of all cases; said when the last case is through."""
    errors = []
    yield errors
    loss, grad = np.max(errors, axis=0)
    print(f"\n{len(errors)} golden cases: loss {loss:.2f} ulp, grad {grad:.2f} ulp")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden(case, tmp_path, seen):
    net = load(make_net(case), tmp_path)
    values = {"scores": case["scores"], "targets": case["targets"]}
    if case["weight"]:
        values["weight"] = case["weight"]["data"]
    for name, data in values.items():
        net.blobs[name].data.flat = data
    net.forward()
    net.backward()
    loss = float(net.blobs["loss"].data)
    errors = (
        worst_ulp([loss], case["loss"], np.abs(case["loss"]), case["loss_floor"]),
        worst_ulp(
            net.blobs["scores"].diff,
            np.array(case["grad"]),
            np.array(case["grad_scale"]),
            np.array(case["grad_floor"]),
        ),
    )
    seen.append(errors)
    assert np.isfinite(loss) == np.isfinite(case["loss"])
    assert max(errors) <= LIMIT
