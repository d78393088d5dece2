"""Nets that run in a process of their own, since Caffe ends the process where a net is wrong."""

import tempfile
from pathlib import Path

import numpy as np

from weighted_sigmoid_loss.errors import Refused

from .in_child import in_child

CANNOT_RUN = "Caffe cannot run the net to deploy"


def run(function, *arguments):
    """What one of the functions below returns."""
    (result,) = in_child(CANNOT_RUN, one_result, function, arguments)
    return result


def one_result(function, arguments):
    try:
        yield function(*arguments)
    except Exception as error:  # whatever a Python layer raises, too
        raise Refused(f"{CANNOT_RUN}: {type(error).__name__}: {error}") from None


def load(text, model=None):
    import caffe

    caffe.set_random_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "net.prototxt").write_bytes(text.encode("latin-1"))
        if model is None:
            return caffe.Net(str(path / "net.prototxt"), caffe.TEST)
        (path / "net.caffemodel").write_bytes(model)
        return caffe.Net(
            str(path / "net.prototxt"), caffe.TEST, weights=str(path / "net.caffemodel")
        )


def follow(text, makers, blobs):
    """Where outputs of layers get to: {blob: an output's number for each element}.

    makers: {layer: (top, axis, the number of the first output)}. Also returns the layers that have
    blobs of their own.
    """
    net = load(text)
    for i, name in enumerate(net._layer_names):
        if name not in makers:
            net._forward(i, i)
            continue
        top, axis, first = makers[name]
        data = np.moveaxis(net.blobs[top].data, axis, -1)
        data[...] = first + np.arange(data.shape[-1])
    return {blob: net.blobs[blob].data.astype(np.int64) for blob in blobs}, list(net.params)


def outputs(text, model, blobs):
    """What the net gives on random input, the same in each call."""
    net = load(text, model)
    random = np.random.default_rng(1)
    for blob in net.inputs:
        # From 0 to 1: an Embed layer takes it for an index.
        net.blobs[blob].data[...] = random.random(net.blobs[blob].data.shape)
    net.forward()
    return {blob: net.blobs[blob].data.astype(np.float64) for blob in blobs}
