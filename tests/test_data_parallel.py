"""What docs/data_parallel.md says that Caffe's data parallelism makes of each setting."""

import re

import numpy as np
import pytest
from one_layer import Layer, parse_layer
from test_docs import ROOT, table_with

DOCUMENTS = ["docs/data_parallel.md", "docs/data_parallel.zh-CN.md"]
FIRST = "loss_param { normalization: BATCH_SIZE }"
GPUS, INSTANCES = 3, 4
# What a row says; the Chinese words as escapes, as all code here is ASCII.
EQUAL, DIFFERENT = {"equal", "\u76f8\u540c"}, {"different", "\u4e0d\u540c"}


def settings(document):
    return {row[0]: row[2] for row in table_with(document, FIRST)}


def batch():
    """Scores and targets; the GPUs' parts have different shares of ones and of -1."""
    random = np.random.default_rng(20181227)
    shape = (GPUS * INSTANCES, 3, 5)
    scores = random.normal(scale=3, size=shape).astype(np.float32)
    share = np.repeat([0.1, 0.3, 0.6], INSTANCES)[:, None, None]
    targets = (random.random(shape) < share).astype(np.float32)
    targets[random.random(shape) < share[::-1] / 2] = -1
    return scores, targets


def run(text, scores, targets):
    if "ignore_label" not in text:
        targets = np.maximum(targets, 0)
    return Layer(parse_layer(text)).run(scores, targets)


def one_gpu(text):
    """Loss and gradient of all batches as one. The loss weight makes up for several GPUs."""
    return run(re.sub(r"loss_weight: \w+", "", text), *batch())


def several_gpus(text):
    """What the update is made of: the mean over the GPUs of their losses, and its gradient."""
    text = text.replace("loss_weight: G", f"loss_weight: {GPUS}")
    parts = [run(text, *part) for part in zip(*(np.split(array, GPUS) for array in batch()))]
    losses, gradients = zip(*parts)
    weight = parse_layer(text).loss_weight or [1]
    return weight[0] * np.mean(losses), np.concatenate(gradients) / GPUS


@pytest.mark.parametrize("text", settings(DOCUMENTS[0]))
def test_gradient_is_as_the_table_says(text):
    said = settings(DOCUMENTS[0])[text]
    loss, gradient = one_gpu(text)
    got_loss, got_gradient = several_gpus(text)
    scale = np.abs(gradient).max()
    if said in DIFFERENT:
        # No common factor makes them equal.
        factor = (gradient * got_gradient).sum() / (gradient**2).sum()
        assert np.abs(got_gradient - factor * gradient).max() > 1e-2 * scale
    else:
        factor = 1 if said in EQUAL else 1 / GPUS
        assert said in EQUAL or said == "1/G"
        assert got_loss == pytest.approx(factor * loss, rel=1e-6)
        np.testing.assert_allclose(got_gradient, factor * gradient, rtol=1e-6)


def test_languages_say_the_same():
    english, chinese = map(settings, DOCUMENTS)
    assert list(english) == list(chinese)
    for text, said in english.items():
        words = next((w for w in (EQUAL, DIFFERENT) if said in w), {said})
        assert chinese[text] in words
    bodies = [(ROOT / document).read_text(encoding="utf-8") for document in DOCUMENTS]
    assert len({tuple(re.findall(r"^ {4}\S.*$", body, re.MULTILINE)) for body in bodies}) == 1
    assert len({len(re.findall(r"^#+ ", body, re.MULTILINE)) for body in bodies}) == 1


def test_bytes_of_the_demo():
    """The figures of the network: its parameters by pycaffe, the rest by the formulas."""
    net = demo_net()
    parameters = sum(blob.data.size for blobs in net.params.values() for blob in blobs)
    scores = 64 * net.blobs["score"].data.shape[1]
    figures = [parameters, 20 * scores, 8 * parameters * 7 // 8]
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        assert all(f"{figure:,}" in text for figure in figures), figures


def demo_net():
    import caffe

    path = ROOT / "examples" / "fashion_mnist" / "net.prototxt"
    return caffe.Net(str(path), caffe.TEST, stages=["deploy"])
