"""The loss in NumPy, in float64: the formulas, with the names of the Caffe layer's parameters.

Element i, of score x and target t in [0, 1], in channel c, with element weight e, has

    a = e * cls_weight[c] * b_pos
    b = e * neg_weight[c] * b_neg
    loss = a t softplus(-x) + b (1 - t) softplus(x)
    grad = b (1 - t) sigmoid(x) - a t sigmoid(-x)

and none of either where t is ignore_label, or soft with ignore_soft_targets. b_pos and b_neg
come from class_balance. The loss is the sum over the elements divided by the normalizer.
"""

# Python 2.7 would import the module numpy beside this one.
from __future__ import absolute_import  # noqa: UP010

import numpy as np


def softplus(x):
    """log(1 + exp(x)), which neither overflows nor cancels at any x."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x):
    """1 / (1 + exp(-x)), likewise; with u = exp(-|x|) it is u / (1 + u) for x < 0."""
    u = np.exp(-np.abs(x))
    return np.where(x < 0, u, 1) / (1 + u)


def weighted_sigmoid_loss(
    scores,
    targets,
    weight=None,
    cls_weight=(),
    neg_weight=(),
    axis=1,
    class_balance="NONE",
    normalization="BATCH_SIZE",
    ignore_label=None,
    ignore_soft_targets=False,
):
    """Return the loss and its gradient with respect to the scores.

    weight is the layer's third bottom. cls_weight and neg_weight are a number, or a sequence of
    none (1), one, or one per channel along axis.
    """
    x = np.asarray(scores, np.float64)
    t = np.asarray(targets, np.float64).reshape(x.shape)
    valid = not_ignored(t, ignore_label, ignore_soft_targets)

    e = element_weights(weight, x.shape)
    b_pos, b_neg = balance_factors(t, valid, class_balance, axis)
    a = e * channel_weights(cls_weight, x.shape, axis) * b_pos
    b = e * channel_weights(neg_weight, x.shape, axis) * b_neg
    loss = a * t * softplus(-x) + b * (1 - t) * softplus(x)
    grad = b * (1 - t) * sigmoid(x) - a * t * sigmoid(-x)

    normalizer = {
        "FULL": x.size,
        "VALID": np.count_nonzero(valid),
        "BATCH_SIZE": x.shape[0],
        "NONE": 1,
    }[normalization]
    normalizer = max(1.0, normalizer)
    return np.where(valid, loss, 0).sum() / normalizer, np.where(valid, grad, 0) / normalizer


def not_ignored(t, ignore_label, ignore_soft_targets):
    """Which targets count. Soft is from 2^-20 on: closer to 0 or 1 they are rounded ones."""
    valid = np.full(t.shape, True) if ignore_label is None else t != ignore_label
    if ignore_soft_targets:
        valid = valid & ~((t >= 2.0**-20) & (t <= 1 - 2.0**-20))
    return valid


def channel_weights(values, shape, axis):
    """The weight per channel, or one for all, laid out over the scores' shape."""
    values = np.asarray(values, np.float64).ravel()
    if values.size == 0:
        return np.ones(shape)
    if values.size > 1:
        along_axis = [1] * len(shape)
        along_axis[axis] = values.size
        values = values.reshape(along_axis)
    return np.broadcast_to(values, shape)


def element_weights(weight, shape):
    """The third bottom over the scores' shape; axes that it lacks at the end are taken as of 1."""
    if weight is None:
        return np.ones(shape)
    e = np.asarray(weight, np.float64)
    ndim = len(shape)
    return np.broadcast_to(e.reshape(e.shape[:ndim] + (1,) * (ndim - e.ndim)), shape)


def balance_factors(t, valid, class_balance, axis):
    """b_pos = Q / (P + Q), b_neg = P / (P + Q) in each scope; 0 where it has no valid element."""
    if class_balance == "NONE":
        return 1.0, 1.0
    kept = {
        "BATCH": [],
        "INSTANCE": [0],
        "CHANNEL": [axis % t.ndim],
        "INSTANCE_CHANNEL": [0, axis % t.ndim],
    }[class_balance]
    summed = tuple(k for k in range(t.ndim) if k not in kept)
    p = np.where(valid, t, 0).sum(axis=summed, keepdims=True)
    q = np.where(valid, 1 - t, 0).sum(axis=summed, keepdims=True)
    total = np.where(p + q == 0, 1, p + q)
    return q / total, p / total
