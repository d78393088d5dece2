"""The kernel as an operator that torch.compile knows, from PyTorch 2.4 on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import torch_formula as formula
from . import torch_kernel as kernel

NAME = "weighted_sigmoid_loss::loss_and_grad"

_library = torch.library.Library("weighted_sigmoid_loss", "DEF")
_library.define(
    "loss_and_grad(Tensor input, Tensor target, Tensor? weight, Tensor? pos_weight, str reduction)"
    " -> (Tensor, Tensor)"
)
_library.impl("loss_and_grad", kernel.loss_and_grad, "CPU")


def _describe_results(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    grad = torch.empty_like(input)
    return torch.empty_like(input) if reduction == "none" else input.new_empty(()), grad


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:4], output[1])
    ctx.reduction = inputs[4]


def _backward(ctx: Any, grad_output: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    input, target, weight, pos_weight, grad = ctx.saved_tensors
    if grad_output is None:
        return (None,) * 5
    if torch.is_grad_enabled():  # create_graph=True
        grad = formula.gradient(input, target, weight, pos_weight, ctx.reduction)
    return grad_output * grad, None, None, None, None


torch.library.register_fake(NAME, _describe_results, lib=_library)
torch.library.register_autograd(NAME, _backward, setup_context=_setup_context, lib=_library)


def loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
) -> Tensor:
    """As the kernel's, of plain tensors of one type."""
    result: Tensor = torch.ops.weighted_sigmoid_loss.loss_and_grad(
        input, target, weight, pos_weight, reduction
    )[0]
    return result
