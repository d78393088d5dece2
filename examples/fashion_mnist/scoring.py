"""The trained nets' outputs for images: scores, and probabilities before and after `calibrate`."""

import tempfile
from pathlib import Path

import numpy as np

from weighted_loss_tools.calibrate import calibrate
from weighted_loss_tools.files import read_text
from weighted_loss_tools.prototxt import parse
from weighted_loss_tools.trained_model import read_model
from weighted_sigmoid_loss.reference import sigmoid

from ..common import score_batches
from .schemes import BASELINE

BATCH = 500


def score(caffe, folder, images, output="score"):
    """An output (N, 10) of the net in folder."""
    batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
    return np.concatenate(list(score_batches(caffe, folder, batches, output)))


def score_runs(caffe, folders, images):
    """{(scheme, seed): scores} of {(scheme, seed): folder}."""
    return {run: score(caffe, folder, images) for run, folder in folders.items()}


def probabilities(caffe, folders, images, scores):
    """{(scheme, seed, calibrated): (N, 10)}; without weights there is nothing to calibrate."""
    found = {}
    for (scheme, seed), folder in folders.items():
        found[scheme, seed, False] = sigmoid(scores[scheme, seed])
        if scheme != BASELINE:
            found[scheme, seed, True] = calibrated(caffe, folder, images)
    return found


def calibrated(caffe, folder, images):
    """The probabilities given by the net that the package's `calibrate` makes from a run."""
    done = calibrate(
        parse(read_text(folder / "net.prototxt")),
        read_model((folder / "model.caffemodel").read_bytes()),
    )
    with tempfile.TemporaryDirectory() as temporary:
        deploy = Path(temporary)
        (deploy / "net.prototxt").write_text(done.prototxt, encoding="latin-1")
        (deploy / "model.caffemodel").write_bytes(done.model)
        return score(caffe, deploy, images, "prob")
