"""Sigmoid cross-entropy with a weight on class 1, as a Python layer for any Caffe that has these.

Module, class and prototxt are those of the article "Weighted Caffe Sigmoid Cross Ent" (2018):

    layer {
      name: "loss"
      type: "Python"
      bottom: "scores"
      bottom: "targets"
      top: "loss"
      python_param {
        module: "SigmoidCrossEntropyWeightLossLayer"
        layer: "SigmoidCrossEntropyWeightLossLayer"
        param_str: "{\\"cls_weight\\": 100}"
      }
      loss_weight: 1
    }

The loss is the article's sum over all elements, with no normalizer. Other than in the article it is
accurate at any score, and the gradient is that of loss_weight times the loss. Where Caffe has the
native layer, take that: `weighted-loss migrate` rewrites the prototxt.

Put the folder of this file on PYTHONPATH. It runs on Python 2.7, too.
"""

import sys

import caffe
import numpy as np

from weighted_sigmoid_loss.param_str import read_cls_weight
from weighted_sigmoid_loss.reference import weighted_sigmoid_loss


class SigmoidCrossEntropyWeightLossLayer(caffe.Layer):
    """Bottoms: scores, and targets in [0, 1] of the same count. Top: the loss, of shape (1)."""

    def setup(self, bottom, top):
        if len(bottom) != 2 or len(top) != 1:
            stop(ValueError("the layer needs two bottoms, scores and targets, and one top"))
        try:
            self.cls_weight = read_cls_weight(self.param_str)
        except ValueError as error:
            stop(error)

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            scores, targets = str(bottom[0].data.shape), str(bottom[1].data.shape)
            shapes = "scores of shape " + scores + ", targets of shape " + targets
            stop(ValueError(shapes + ": their counts must be equal"))
        top[0].reshape(1)

    def forward(self, bottom, top):
        scores, targets = bottom[0].data, bottom[1].data
        loss, self.grad = weighted_sigmoid_loss(
            scores, targets, cls_weight=self.cls_weight, normalization="NONE"
        )
        top[0].data[...] = loss
        if not np.isfinite(top[0].data[0]):
            bad = str(np.count_nonzero(~np.isfinite(scores))) + " of " + str(scores.size)
            found = "the loss is " + str(top[0].data[0]) + "; " + bad + " scores are not finite"
            stop(FloatingPointError(found))

    def backward(self, top, propagate_down, bottom):
        # The targets have no gradient, even where force_backward asks for it.
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff[0] * self.grad


def stop(error):
    """Raise the error and also say it, since a caffe program built by CMake dies without a word."""
    sys.stderr.write("SigmoidCrossEntropyWeightLossLayer: " + str(error) + "\n")
    sys.stderr.flush()
    raise error
