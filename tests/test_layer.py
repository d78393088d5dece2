"""The layer as a user has it: NetSpec, saved nets, `caffe train` with snapshots, wrong prototxt."""

import re
import subprocess

import caffe
import h5py
import numpy as np
import pytest
from caffe import layers
from caffe.proto import caffe_pb2
from google.protobuf import text_format

SOLVER = """
net: "net.prototxt"
base_lr: 0.1
momentum: 0.9
lr_policy: "fixed"
display: 1
max_iter: 20
snapshot: 10
snapshot_prefix: "snap"
random_seed: 1
solver_mode: CPU
"""
NET = """
layer {
  name: "data" type: "HDF5Data" top: "data" top: "targets"
  hdf5_data_param { source: "train.txt" batch_size: 20 }
}
layer {
  name: "scores" type: "InnerProduct" bottom: "data" top: "scores"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
}
layer {
  name: "loss" type: "SigmoidCrossEntropyWeightLoss" bottom: "scores" bottom: "targets" top: "loss"
  sigmoid_cross_entropy_weight_loss_param { cls_weight: 1 cls_weight: 5 cls_weight: 20 %s }
  %s
}
"""


def net_text(parameter="", field=""):
    """The net, with more in the loss's own parameters or in its layer."""
    return NET % (parameter, field)


@pytest.fixture
def job(tmp_path):
    """A folder with a solver, a net and data: rare positives that the data tell linearly."""
    random = np.random.default_rng(1701)
    data = random.normal(size=(100, 8)).astype(np.float32)
    targets = (data @ random.normal(size=(8, 3)) > 3).astype(np.float32)
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["data"], file["targets"] = data, targets
    (tmp_path / "train.txt").write_text("train.h5\n")
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    (tmp_path / "net.prototxt").write_text(net_text())
    return tmp_path


@pytest.fixture
def train(job, caffe_bin):
    """Runs `caffe train` in the job's folder; the finished process."""

    def run(*arguments):
        argv = [caffe_bin, "train", "--solver=solver.prototxt", *arguments]
        return subprocess.run(argv, cwd=job, capture_output=True, text=True, timeout=120)

    return run


def losses(process):
    assert process.returncode == 0, process.stderr
    found = re.findall(r"Iteration (\d+) .*loss = (\S+)", process.stderr)
    return {int(iteration): float(loss) for iteration, loss in found}


def test_net_spec():
    spec = caffe.NetSpec()
    spec.scores, spec.targets = layers.DummyData(shape=[{"dim": [2, 3]}] * 2, ntop=2)
    spec.one = layers.SigmoidCrossEntropyWeightLoss(spec.scores, spec.targets, cls_weight=100)
    spec.three = layers.SigmoidCrossEntropyWeightLoss(
        spec.scores, spec.targets, cls_weight=[1, 2, 3], axis=-1, stop_on_nan=True
    )
    _, one, three = spec.to_proto().layer
    parameters = one.sigmoid_cross_entropy_weight_loss_param
    assert one.type == "SigmoidCrossEntropyWeightLoss"
    assert parameters.cls_weight == [100]
    assert (parameters.axis, parameters.stop_on_nan) == (1, False)
    parameters = three.sigmoid_cross_entropy_weight_loss_param
    assert parameters.cls_weight == [1, 2, 3]
    assert (parameters.axis, parameters.stop_on_nan) == (-1, True)


def test_field_number():
    field = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name[
        "sigmoid_cross_entropy_weight_loss_param"
    ]
    assert field.number == 20181227
    assert "SigmoidCrossEntropyWeightLoss" in caffe.layer_type_list()


@pytest.mark.parametrize("kind", ["caffemodel", "h5"])
def test_saved_net(job, monkeypatch, kind):
    monkeypatch.chdir(job)
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    before = net.forward()["loss"].copy()
    saved = f"saved.{kind}"
    net.save(saved) if kind == "caffemodel" else net.save_hdf5(saved)
    again = caffe.Net("net.prototxt", caffe.TRAIN, weights=saved)
    assert again.forward()["loss"] == before
    if kind == "caffemodel":
        model = caffe_pb2.NetParameter.FromString((job / saved).read_bytes())
        parameters = model.layer[-1].sigmoid_cross_entropy_weight_loss_param
        assert parameters.cls_weight == [1, 5, 20]


def test_training_resumes(train):
    whole = losses(train())
    # 5 batches are an epoch, so that HDF5Data starts at the same place again.
    resumed = losses(train("--snapshot=snap_iter_10.solverstate"))
    assert list(whole) == list(range(20)) and list(resumed) == list(range(10, 20))
    assert whole[19] < 0.7 * whole[0]
    assert resumed == {iteration: whole[iteration] for iteration in resumed}


def test_training_is_deterministic(train, job):
    models = []
    for _ in range(2):
        losses(train())
        models.append((job / "snap_iter_20.caffemodel").read_bytes())
    assert models[0] == models[1]


def test_log_names_the_parameters(train):
    assert (
        "SigmoidCrossEntropyWeightLoss layer 'loss': cls_weight 1 5 20, neg_weight 1, "
        "class_balance NONE, normalization BATCH_SIZE" in train("--iterations=1").stderr
    )


@pytest.mark.parametrize(
    ("parameter", "field", "message"),
    [
        (
            "cls_weight: 2",
            "",
            "cls_weight has 4 values, the scores (bottom 0) of shape 20 3 (60) have 3 channels "
            "along axis 1; give none, one, or one per channel.",
        ),
        (
            "axis: 2",
            "",
            "axis is 2, the scores (bottom 0) have shape 20 3 (60); axis must be from -2 to 1.",
        ),
        (
            "",
            "propagate_down: true propagate_down: true",
            "propagate_down is true for bottom 1, but only the scores (bottom 0) have a "
            "gradient; it must be false.",
        ),
    ],
)
def test_wrong_prototxt(train, job, parameter, field, message):
    (job / "net.prototxt").write_text(net_text(parameter, field))
    process = train()
    assert process.returncode != 0
    assert f"SigmoidCrossEntropyWeightLoss layer 'loss': {message}" in process.stderr


def test_negative_weight(train, job):
    (job / "net.prototxt").write_text(net_text().replace("cls_weight: 5", "cls_weight: -5"))
    process = train()
    assert process.returncode != 0
    assert (
        "layer 'loss': cls_weight number 2 is -5; a weight must be finite and not negative."
        in process.stderr
    )


def test_targets_that_learn(train, job):
    """Targets from a layer with weights: Backward dies, and the cure it names works."""
    net = text_format.Parse(net_text(), caffe_pb2.NetParameter())
    learnt = net.layer.add()
    learnt.CopyFrom(net.layer[1])
    learnt.name, learnt.top[0] = "learnt", "learnt"
    loss = net.layer[2]
    loss.bottom[1] = "learnt"
    ordered = caffe_pb2.NetParameter()
    ordered.layer.extend([net.layer[0], net.layer[1], learnt, loss])
    # HDF5Data gives targets, too, which something has to take.
    ordered.layer.add(name="silence", type="Silence", bottom=["targets"])
    (job / "net.prototxt").write_text(text_format.MessageToString(ordered))
    process = train()
    assert process.returncode != 0
    assert "put propagate_down: true propagate_down: false into this layer." in process.stderr
    ordered.layer[3].propagate_down.extend([True, False])
    (job / "net.prototxt").write_text(text_format.MessageToString(ordered))
    assert train().returncode == 0


def test_stop_on_nan(train, job):
    (job / "net.prototxt").write_text(net_text("stop_on_nan: true"))
    with h5py.File(job / "train.h5", "r+") as file:
        file["data"][33] = np.nan
    process = train()
    assert process.returncode != 0
    assert "the loss is nan; 3 of 60 scores are not finite, the first is nan (" in process.stderr


def test_mask_mistake_is_warned_of_once(train, job):
    with h5py.File(job / "train.h5", "r+") as file:
        file["targets"][...] = file["targets"][...] * 255
        positive = int(np.count_nonzero(file["targets"][:20]))
    process = train()
    warnings = re.findall(r"^W.*targets are outside.*$", process.stderr, re.MULTILINE)
    assert len(warnings) == 1
    assert f"{positive} of 60 targets are outside [0, 1], the first is 255;" in warnings[0]
