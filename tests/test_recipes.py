"""docs/recipes.md: every net trains as it stands, with the loss of the labels that went in."""

import os
import re
import subprocess
import sys

import caffe
import h5py
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from documents import blocks
from google.protobuf import text_format
from PIL import Image
from sklearn.metrics import average_precision_score

from weighted_sigmoid_loss import reference

RECIPES = ["docs/recipes.md", "docs/recipes.zh-CN.md"]


def files(document):
    """The code blocks of a document that name a file in their first line, by that name."""
    heads = (block.partition("\n") for block in blocks(document))
    return {head[2:]: text for head, _, text in heads if re.fullmatch(r"# \S+", head)}


BLOCKS = files(RECIPES[0])


def parsed(name):
    return text_format.Parse(BLOCKS[name], caffe_pb2.NetParameter())


class Folder:
    """A folder with a net and its data, trained by the built Caffe and run by pycaffe."""

    def __init__(self, path, install):
        self.path = path
        self.install = install
        self.random = np.random.default_rng(20)

    def write_net(self, name, instead=None, added=None):
        """The recipe's net; layers of a second recipe stand for those of the same name."""
        net = parsed(name)
        if instead:
            other = parsed(instead)
            replaced = {layer.name for layer in other.layer}
            kept = [layer for layer in net.layer if layer.name not in replaced]
            del net.layer[:]
            net.layer.extend([*kept, *other.layer])
        if added:
            net.layer.extend(parsed(added).layer)
        (self.path / "net.prototxt").write_text(text_format.MessageToString(net))

    def write_images(self, kind, arrays):
        for i, array in enumerate(arrays):
            Image.fromarray(array).save(self.path / f"{kind}{i}.png")
        names = "".join(f"{kind}{i}.png 0\n" for i in range(len(arrays)))
        (self.path / f"{kind}.txt").write_text(names)

    def write_pairs(self, name, labels):
        """HDF5 of random data and these labels."""
        data = self.random.normal(size=(len(labels), 7)).astype(np.float32)
        with h5py.File(self.path / f"{name}.h5", "w") as file:
            file["data"], file["label"] = data, labels.astype(np.float32)
        (self.path / f"{name}.txt").write_text(f"{name}.h5\n")

    def run_program(self, argv):
        python = f"{self.install / 'python'}:."
        environment = {**os.environ, "PYTHONPATH": python, "CAFFE": str(self.install)}
        run = subprocess.run(
            argv, cwd=self.path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert run.returncode == 0, run.stderr
        return run.stderr

    def run_block(self, name):
        (self.path / name).write_text(BLOCKS[name])
        return self.run_program([sys.executable, name])

    def train(self, *arguments, solver='net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed"'):
        if "max_iter" not in solver:
            solver += " max_iter: 3 solver_mode: CPU snapshot_after_train: false"
        (self.path / "solver.prototxt").write_text(solver)
        argv = [self.install / "bin" / "caffe", "train", "--solver", "solver.prototxt", *arguments]
        log = self.run_program(argv)
        assert not [line for line in log.splitlines() if re.match(r"[WE]\d{4} .*loss", line)], log
        return log

    def forward(self, weights=None):
        """The blobs of one Forward."""
        arguments = [str(weights)] if weights else []
        net = caffe.Net("net.prototxt", *arguments, caffe.TRAIN)
        net.forward()
        return {name: blob.data.copy() for name, blob in net.blobs.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch, caffe_install):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Folder(tmp_path, caffe_install)


def assert_loss(blobs, targets, weight=None, **keywords):
    loss, _ = reference.weighted_sigmoid_loss(blobs["scores"], targets, weight, **keywords)
    np.testing.assert_allclose(blobs["loss"], loss, rtol=1e-6)


def test_documents_have_the_same_blocks():
    assert files(RECIPES[1]) == BLOCKS


def test_masks(folder):
    masks = 255 * (folder.random.random((4, 6, 9)) < 0.2).astype(np.uint8)
    folder.write_images("images", folder.random.integers(0, 256, (4, 6, 9, 3), dtype=np.uint8))
    folder.write_images("masks", masks)
    folder.write_net("masks.prototxt")
    folder.train()
    targets = (masks[:2, None] == 255).astype(float)
    assert_loss(folder.forward(), targets, cls_weight=20, normalization="FULL")


RCF = {"class_balance": "INSTANCE", "neg_weight": 1.1, "ignore_label": 2}
# The rule of each, from gray values, as the authors' own data layers have it, and the loss.
EDGES = {
    "hed": ("hed.prototxt", lambda gray: gray >= 128, {"class_balance": "INSTANCE"}),
    "rcf": ("rcf.prototxt", lambda gray: np.select([gray == 0, gray >= 128], [0, 1], 2), RCF),
    "all": ("rcf.prototxt", lambda gray: np.select([gray == 0, gray == 255], [0, 1], 2), RCF),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges(folder, monkeypatch, name):
    recipe, rule, keywords = EDGES[name]
    if name == "all":
        text = BLOCKS[recipe].replace("threshold: 127.5", "threshold: 254.5")
        monkeypatch.setitem(BLOCKS, recipe, text)
    shares = np.array([0, 51, 102, 127, 128, 153, 204, 255], np.uint8)
    masks = folder.random.choice(shares, (4, 6, 9))
    folder.write_images("images", folder.random.integers(0, 256, (4, 6, 9, 3), dtype=np.uint8))
    folder.write_images("masks", masks)
    folder.write_net("masks.prototxt", instead=recipe)
    folder.train()
    assert_loss(folder.forward(), rule(masks[:2, None]).astype(float), **keywords)


def test_signs(folder):
    labels = folder.random.integers(-1, 2, (16, 5))
    folder.write_pairs("signs", labels)
    folder.write_net("signs.prototxt")
    folder.train()
    targets = np.select([labels == -1, labels == 1], [0.0, 1.0], 2.0)[:8]
    assert_loss(folder.forward(), targets, cls_weight=4, ignore_label=2, normalization="VALID")


def test_one_hot(folder):
    numbers = folder.random.permutation(np.arange(16) % 6)
    folder.write_pairs("numbers", numbers)
    folder.write_net("one_hot.prototxt")
    folder.run_block("one_hot.py")
    folder.train("--weights", "one_hot.caffemodel")
    targets = (numbers[:8, None] == np.arange(5)).astype(float)
    targets[numbers[:8] == 5] = -1
    assert_loss(folder.forward("one_hot.caffemodel"), targets, ignore_label=-1)


def test_the_table_does_not_learn(folder):
    folder.write_pairs("numbers", np.arange(16) % 6)
    folder.write_net("one_hot.prototxt")
    folder.run_block("one_hot.py")
    solver = 'net: "net.prototxt" base_lr: 1 weight_decay: 0.1 lr_policy: "fixed" max_iter: 3'
    folder.train("--weights", "one_hot.caffemodel", solver=solver + " solver_mode: CPU")
    trained = caffe.Net("net.prototxt", "solver_iter_3.caffemodel", caffe.TRAIN)
    table = np.vstack([np.eye(5), np.full((1, 5), -1)])
    np.testing.assert_array_equal(trained.params["one_hot"][0].data, table)


def test_many_hdf5(folder):
    folder.run_block("many_hdf5.py")
    folder.write_net("many_hdf5.prototxt")
    folder.train()
    blobs = folder.forward()
    with h5py.File("train.h5") as file:
        data, label = file["data"][:], file["label"][:]
    rows = [np.flatnonzero((data == sample).all(axis=(1, 2, 3))).item() for sample in blobs["data"]]
    assert_loss(blobs, label[rows], cls_weight=4)


def test_many_lmdb(folder):
    folder.run_block("many_lmdb.py")
    folder.write_net("many_lmdb.prototxt")
    folder.train()
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
    labels = random.random((40, 5)) < 0.2
    blobs = folder.forward()
    np.testing.assert_allclose(blobs["data"], images[:8] / 255, atol=1e-6)
    assert_loss(blobs, labels[:8].astype(float), cls_weight=4)


def test_casenet(folder):
    classes, ignored = 4, 1 << 31
    words = folder.random.choice([0, 0, 0, 1, 2, 5, 8, ignored], (3, 6, 9)).astype("<u4")
    for i, word in enumerate(words):
        word.tofile(folder.path / f"labels{i}.bin")
    (folder.path / "labels.txt").write_text("".join(f"labels{i}.bin\n" for i in range(3)))
    folder.write_images("images", folder.random.integers(0, 256, (3, 6, 9, 3), dtype=np.uint8))
    (folder.path / "casenet_labels.py").write_text(BLOCKS["casenet_labels.py"])
    folder.write_net("casenet.prototxt")
    folder.train()
    blobs = folder.forward()

    targets = np.full((1, classes, 6, 9), -1.0)
    weight = np.zeros(targets.shape)
    valid = words[0] != ignored
    edges = np.count_nonzero(valid & (words[0] != 0)) / np.count_nonzero(valid)
    for k in range(classes):
        has = words[0] & 1 << k != 0
        targets[0, k][valid] = has[valid]
        weight[0, k] = np.where(has, 1 - edges, edges)
    assert_loss(blobs, targets, weight, ignore_label=-1)


def test_average_precision(folder):
    folder.run_block("many_hdf5.py")
    (folder.path / "average_precision.py").write_text(BLOCKS["average_precision.py"])
    folder.write_net("many_hdf5.prototxt", added="average_precision.prototxt")
    log = folder.train(solver=BLOCKS["average_precision_solver.prototxt"])
    printed = float(re.search(r"average_precision = (\S+)", log).group(1))

    net = caffe.Net("net.prototxt", "solver_iter_10.caffemodel", caffe.TRAIN)
    scores, targets = [], []
    for _ in range(5):
        net.forward()
        scores.append(net.blobs["scores"].data.copy())
        targets.append(net.blobs["label"].data.copy())
    wanted = average_precision_score(np.concatenate(targets), np.concatenate(scores))
    np.testing.assert_allclose(printed, wanted, rtol=1e-5)
