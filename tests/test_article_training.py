"""From the article's Python layer to the native one: the same training on real data.

Three nets that differ in the loss layer alone (the article's code, our Python layer, what migrate
makes of it) train on scikit-learn's scanned digits from one seed.
"""

import os
import subprocess
import sys
from pathlib import Path

import caffe
import h5py
import numpy as np
import pytest
from sklearn.datasets import load_digits

import weighted_sigmoid_loss
from weighted_sigmoid_loss.reference import weighted_sigmoid_loss as reference

KINDS = ("article", "python", "native")
ITERATIONS = 200
ULP = 2.0**-23  # of float32, relative
# The three differ in rounding alone: our layers' gradients are off by at most 4 ulp of an element's
# larger term, the article's by as much while no score is far out. This training is stable, so that
# such errors die away and do not grow; on x86-64 the losses were within 4 ulp of each other and the
# weights within 2. What is asserted leaves room for another BLAS, and a cls_weight that is wrong by
# a ten-thousandth still misses it by far, which a test below asserts.
LIMIT = 16 * ULP

ARTICLE = (Path(__file__).parent / "data" / "article.prototxt").read_bytes()
# The article's computation, as it defines it.
ARTICLE_CODE = """
import caffe
import numpy as np

class SigmoidCrossEntropyWeightLossLayer(caffe.Layer):

    def setup(self, bottom, top):
        self.cls_weight = float(eval(self.param_str)["cls_weight"])

    def reshape(self, bottom, top):
        self.diff = np.zeros_like(bottom[0].data, dtype=np.float32)
        top[0].reshape(1)

    def forward(self, bottom, top):
        score = bottom[0].data
        label = bottom[1].data
        first_term = -(label-1)*score
        second_term = -((1-self.cls_weight)*label - 1)*np.log(1+np.exp(-score))
        top[0].data[...] = np.sum(first_term + second_term)
        sig = 1.0/(1.0+np.exp(-score))
        self.diff = ((self.cls_weight-1)*label+1)*sig - self.cls_weight*label
        if np.isnan(top[0].data):
            exit()

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.diff
"""
NET = b"""
layer {
  name: "digits" type: "HDF5Data" top: "data" top: "label"
  hdf5_data_param { source: "digits.txt" batch_size: 60 }
}
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } }
}
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer {
  name: "conv5" type: "Convolution" bottom: "conv1" top: "conv5"
  convolution_param { num_output: 10 kernel_size: 6 weight_filler { type: "xavier" } }
}
"""
# 25 batches are an epoch, so that HDF5Data is at its first row again at the snapshot.
SOLVER = """
net: "{name}.prototxt"
base_lr: 1e-5
momentum: 0.9
lr_policy: "fixed"
max_iter: 200
snapshot: 100
snapshot_prefix: "{name}"
random_seed: 1
solver_mode: CPU
"""
# The package may lie beside pycaffe, as in the installation, or not.
PYTHONPATH = os.pathsep.join(
    dict.fromkeys(
        str(Path(package.__file__).parent.parent) for package in (caffe, weighted_sigmoid_loss)
    )
)


def run(*argv, cwd):
    """Run a command; return the finished process."""
    return subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=120,
    )


def must_run(*argv, cwd):
    done = run(*argv, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr


def write_job(folder, name, loss):
    (folder / f"{name}.prototxt").write_bytes(NET + loss)
    (folder / f"{name}_solver.prototxt").write_text(SOLVER.format(name=name))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The data, and one job for each of the three loss layers."""
    folder = tmp_path_factory.mktemp("digits")
    images, digits = load_digits(return_X_y=True)
    with h5py.File(folder / "digits.h5", "w") as file:
        file["data"] = (images[:1500] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
        file["label"] = np.eye(10, dtype=np.float32)[digits[:1500]].reshape(-1, 10, 1, 1)
    (folder / "digits.txt").write_text("digits.h5\n")
    (folder / "article_code.py").write_text(ARTICLE_CODE)
    write_job(folder, "article", with_article_code(ARTICLE))
    write_job(folder, "python", ARTICLE)
    write_job(folder, "native", ARTICLE)
    must_run(sys.executable, "-m", "weighted_loss_tools", "migrate", "native.prototxt", cwd=folder)
    before = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    os.chdir(before)


def with_article_code(loss):
    """The layer with the article's code in place of ours: another module of the same class."""
    return loss.replace(b'module: "SigmoidCrossEntropyWeightLossLayer"', b'module: "article_code"')


def weights_of(net):
    return np.concatenate([blob.data.ravel() for blobs in net.params.values() for blob in blobs])


def train(name):
    """Return the loss of each iteration and the weights after the last, and leave snapshots."""
    solver = caffe.SGDSolver(f"{name}_solver.prototxt")
    losses = []
    for _ in range(ITERATIONS):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data.item()))
    return np.array(losses), weights_of(solver.net)


@pytest.fixture(scope="module")
def trained(folder):
    return {name: train(name) for name in KINDS}


def distance(one, other):
    """The largest of the losses' relative differences, and that of the weights as vectors."""
    (losses, weights), (other_losses, other_weights) = one, other
    return (
        np.max(np.abs(losses - other_losses) / other_losses),
        np.linalg.norm(weights - other_weights) / np.linalg.norm(other_weights),
    )


def saved_weights(path):
    return weights_of(caffe.Net("native.prototxt", caffe.TRAIN, weights=str(path)))


def test_migrated_layer(folder):
    layers = {}
    for name in ("python", "native"):
        solver = caffe.SGDSolver(f"{name}_solver.prototxt")
        layers[name] = [layer.type for layer in solver.net.layers]
    assert layers["python"][:-1] == layers["native"][:-1]
    assert layers["python"][-1] == "Python"
    assert layers["native"][-1] == "SigmoidCrossEntropyWeightLoss"


def test_it_learns(trained):
    for losses, _ in trained.values():
        assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize(
    ("one", "other"), [("python", "article"), ("native", "article"), ("native", "python")]
)
def test_same_training(trained, one, other):
    losses, weights = distance(trained[one], trained[other])
    print(f"\n{one} and {other}: losses {losses / ULP:.1f} ulp, weights {weights / ULP:.1f} ulp")
    assert losses <= LIMIT and weights <= LIMIT


def test_the_bounds_tell_a_wrong_weight(folder, trained):
    text = (folder / "native.prototxt").read_bytes()
    write_job(folder, "wrong", text[len(NET) :].replace(b"cls_weight: 100", b"cls_weight: 100.01"))
    losses, weights = distance(train("wrong"), trained["native"])
    assert losses > 10 * LIMIT and weights > 10 * LIMIT


def test_caffe_train(caffe_bin, folder, trained):
    """`caffe train` on the article's prototxt byte for byte, and on what migrate made of it."""
    assert (folder / "python.prototxt").read_bytes().endswith(ARTICLE)
    for name in ("python", "native"):
        write_job(folder, f"{name}_run", (folder / f"{name}.prototxt").read_bytes()[len(NET) :])
        must_run(caffe_bin, "train", f"--solver={name}_run_solver.prototxt", cwd=folder)
        saved = saved_weights(folder / f"{name}_run_iter_{ITERATIONS}.caffemodel")
        assert np.linalg.norm(saved - trained[name][1]) <= LIMIT * np.linalg.norm(saved)


def test_snapshot_resumes_under_the_native_layer(caffe_bin, folder, trained):
    write_job(folder, "resumed", (folder / "native.prototxt").read_bytes()[len(NET) :])
    must_run(
        caffe_bin,
        "train",
        "--solver=resumed_solver.prototxt",
        "--snapshot=python_iter_100.solverstate",
        cwd=folder,
    )
    assert not (folder / "resumed_iter_100.caffemodel").exists()
    middle = saved_weights(folder / "python_iter_100.caffemodel")
    final = saved_weights(folder / f"resumed_iter_{ITERATIONS}.caffemodel")
    for name in ("python", "native"):
        assert np.linalg.norm(final - trained[name][1]) <= LIMIT * np.linalg.norm(final)
    assert np.linalg.norm(final - middle) > 1000 * LIMIT * np.linalg.norm(final)


def test_diverging_training_stops(caffe_bin, folder):
    """With a line that says why and no success, other than at the article's exit()."""
    write_job(folder, "diverging", ARTICLE)
    solver = folder / "diverging_solver.prototxt"
    solver.write_text(solver.read_text().replace("base_lr: 1e-5", "base_lr: 1e20"))
    done = run(caffe_bin, "train", f"--solver={solver.name}", cwd=folder)
    assert done.returncode != 0
    layer = "SigmoidCrossEntropyWeightLossLayer"
    assert f"{layer}: the loss is nan; 600 of 600 scores are not finite\n" in done.stderr


def single(folder, kind, score, target, cls_weight=100):
    """The loss and gradient of one element under one of the three layers."""
    loss = (folder / f"{kind}.prototxt").read_bytes()[len(NET) :]
    loss = loss.replace(b'cls_weight\\":100', b'cls_weight\\":%d' % cls_weight)
    inputs = b"".join(
        b'layer { name: "%s" type: "Input" top: "%s" input_param { shape { dim: [1, 1] } } }\n'
        % (name, name)
        for name in (b"conv5", b"label")
    )
    (folder / "single.prototxt").write_bytes(b"force_backward: true\n" + inputs + loss)
    net = caffe.Net("single.prototxt", caffe.TRAIN)
    net.blobs["conv5"].data[...] = score
    net.blobs["label"].data[...] = target
    with np.errstate(all="ignore"):
        net.forward()
        net.backward()
    return float(net.blobs["loss"].data.item()), float(net.blobs["conv5"].diff.item())


# Score, target, and whether the article's loss and gradient have a right digit there. In float32,
# exp(-x) is infinite below x = -88.7; 1 + exp(-x) is 1 above x = 16.6, and log(1 + exp(-x)) is -x
# below -16.6, so that what is left of two large terms is 0.
FAR = [
    (-1000, 0, False, True),  # the gradient is 0
    (-1000, 1, False, True),
    (-100, 0, False, True),
    (-100, 1, False, True),
    (-80, 0, False, True),
    (-80, 1, True, True),
    (-20, 0, False, True),
    (20, 0, True, True),
    (20, 1, False, False),
    (80, 1, False, False),
    (100, 0, True, True),
    (1000, 1, True, True),
]


def test_far_scores(folder):
    """The article against our layers where its formulas overflow or cancel."""
    print(f"\n{'score':>6} {'target':>6}  {'loss: exact':>11} {'article':>9} {'python':>9}", end="")
    print(f" {'native':>9}  {'gradient: exact':>15} {'article':>9} {'python':>9} {'native':>9}")
    for score, target, loss_is_right, gradient_is_right in FAR:
        loss, gradient = reference([[score]], [[target]], cls_weight=100, normalization="NONE")
        exact = (float(loss), gradient.item())
        got = {kind: single(folder, kind, score, target) for kind in KINDS}
        print(f"{score:6} {target:6}", end="  ")
        for quantity, width in ((0, 11), (1, 15)):
            print(f"{exact[quantity]:{width}.3g}", end=" ")
            print(" ".join(f"{values[quantity]:9.3g}" for values in got.values()), end="  ")
        print()
        # Below 2^-126 a float has fewer digits, or is 0 in the native layer.
        floor = 100 * 2.0**-126
        for kind in ("python", "native"):
            assert got[kind] == pytest.approx(exact, rel=4 * ULP, abs=floor)
        right = tuple(
            value == pytest.approx(true, rel=0.1, abs=floor)
            for value, true in zip(got["article"], exact)
        )
        assert right == (loss_is_right, gradient_is_right)


def test_the_article_exits_where_we_go_on(folder):
    """A channel of weight 0: the article's loss is 0 times infinity, and its exit() ends it all."""
    with pytest.raises(SystemExit):
        single(folder, "article", -100, 1, cls_weight=0)
    assert single(folder, "python", -100, 1, cls_weight=0) == (0, 0)
