"""The loss and its gradient made of PyTorch's own functions: for tensors without memory to read
(fake ones, subclasses), transforms (torch.func, forward mode, tracing) and further derivatives.

Neither subtracts numbers that are nearly equal, so that digits are kept here, too.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus


def loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
) -> Tensor:
    positive = target if pos_weight is None else pos_weight * target
    # Beyond the threshold softplus(x) is x: at 40, less than half an ulp away in float64, too.
    up, down = softplus(input, threshold=40), softplus(-input, threshold=40)
    losses = positive * down + (1 - target) * up
    if weight is not None:
        losses = losses * weight
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def gradient(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
) -> Tensor:
    """That of the loss, or of each loss, with respect to its own score."""
    positive = target if pos_weight is None else pos_weight * target
    grad = (1 - target) * input.sigmoid() - positive * (-input).sigmoid()
    if weight is not None:
        grad = grad * weight
    return grad / input.numel() if reduction == "mean" else grad
