"""The loss of PyTorch's CPU tensors, in place of BCEWithLogitsLoss: as accurate and as fast as the
kernel.

    from weighted_sigmoid_loss.torch import BCEWithLogitsLoss

    criterion = BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 12.5, 80.0]))

The gradient is computed together with the loss where the input requires one.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._kernel import compute_float32_at, compute_float64_at
from .numpy import report

REDUCTIONS = ("none", "mean", "sum")


class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss):
    """torch.nn.BCEWithLogitsLoss, computed by binary_cross_entropy_with_logits() of this module.

    It has that module's parameters, buffers and state_dict. It is for CPU tensors of float32 and
    float64; the function has the errors.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(
            input, target, self.weight, pos_weight=self.pos_weight, reduction=self.reduction
        )


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    pos_weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Return the loss as torch.nn.functional.binary_cross_entropy_with_logits() does.

    With score x, target t, and w and p the element's entries in weight and pos_weight, its loss is

        w (p t softplus(-x) + (1 - t) softplus(x))

    input: the scores, of any shape, float32 or float64, on the CPU.
    target: the same shape and type, in [0, 1]; soft ones too.
    weight, pos_weight: of the same type and any shape that broadcasts to input's, from the last
        axis, as PyTorch does. Finite, not negative.
    reduction: "none" is the loss of each element, "sum" their sum, "mean" that over their number.

    Only the input has a gradient. This has no derivative of its own: differentiating what
    create_graph=True gave is a RuntimeError. Tensors that are not contiguous are copied.

    Raises TypeError for another type, and ValueError for a tensor that is not a dense one on the
    CPU, a shape that does not fit, a weight that is negative or not finite, an unknown reduction,
    and a target or weight that requires a gradient. Targets outside [0, 1] are used as they are,
    with a UserWarning.
    """
    _check(input, target, weight, pos_weight, reduction)
    if input.requires_grad and torch.is_grad_enabled():
        return _loss(input, target, weight, pos_weight, reduction)
    return _compute(input, target, weight, pos_weight, reduction, None)


class _Gradients:
    """Where gradients are written. The memory of the last large one is used again once it is free:
    the system clears new memory, which takes as long as half of the loss."""

    LARGE = 32 << 20  # bytes: from here on, glibc takes every allocation from the system

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._memory: Any = None
        self._lease: Any = None

    def like(self, input: Tensor) -> Tensor:
        """A contiguous tensor of the input's shape and type."""
        size = input.numel() * input.element_size()
        if size < self.LARGE:
            return torch.empty_like(input, memory_format=torch.contiguous_format)
        with self._lock:
            in_use = self._lease is not None and self._lease() is not None
            if in_use or self._memory is None or self._memory.nbytes != size:
                self._memory = np.empty(size, np.uint8)
            dtype = np.float32 if input.dtype == torch.float32 else np.float64
            lease = self._memory.view(dtype).reshape(input.shape)
            # The tensor, and all that shares its memory, keeps this array alive.
            self._lease = weakref.ref(lease)
        return torch.from_numpy(lease)


_gradients = _Gradients()


class _Loss(torch.autograd.Function):
    """Forward keeps the gradient, which the first backward hands over; any further one, of a graph
    that was retained, computes it again. So nobody else holds what was handed over."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        pos_weight: Tensor | None,
        reduction: str,
    ) -> Tensor:
        ctx.save_for_backward(input, target, weight, pos_weight)
        ctx.reduction = reduction
        ctx.grad = _gradients.like(input)
        return _compute(input, target, weight, pos_weight, reduction, ctx.grad)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, target, weight, pos_weight = ctx.saved_tensors
        grad, ctx.grad = ctx.grad, None
        if grad is None:
            grad = _gradients.like(input)
            _compute(input, target, weight, pos_weight, ctx.reduction, grad)
        if ctx.reduction == "none" or grad_output.item() != 1:
            grad *= grad_output
        if torch.is_grad_enabled():  # create_graph=True
            grad = _not_differentiable(grad, input)
        return grad, None, None, None, None


class _NotDifferentiable(torch.autograd.Function):
    """A gradient that may be used, but not as if it did not depend on the input."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, input: Tensor) -> Tensor:
        result: Tensor = grad.view_as(grad)  # another tensor, as autograd wants of an output
        return result

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            "weighted_sigmoid_loss.torch has no second derivative; "
            "torch.nn.functional.binary_cross_entropy_with_logits has"
        )


# PyTorch gives apply() no types.
_loss: Callable[..., Tensor] = _Loss.apply
_not_differentiable: Callable[..., Tensor] = _NotDifferentiable.apply


def _compute(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
    grad: Tensor | None,
) -> Tensor:
    """The loss, and where grad is a tensor also that, of tensors that were checked."""
    shape, dtype, count = input.shape, input.dtype, input.numel()
    input, target = _contiguous(input), _contiguous(target)
    losses = torch.empty(shape, dtype=dtype) if reduction == "none" else None
    of_weight: tuple[int, ...] = ()
    if weight is not None:
        of_weight = _aligned_shape(weight, shape)
        weight = _contiguous(weight)
    channels, inner = 1, 1
    if pos_weight is not None:
        if pos_weight.numel() != 1:
            pos_weight, inner = _channels(pos_weight, shape)
            channels = pos_weight.numel()
        pos_weight = _contiguous(pos_weight)
    # The names keep the memory alive: only addresses are passed on.
    compute = compute_float32_at if dtype == torch.float32 else compute_float64_at
    total, bad_targets, bad_weights = compute(
        shape,
        input.data_ptr(),
        target.data_ptr(),
        0 if grad is None else grad.data_ptr(),
        0 if losses is None else losses.data_ptr(),
        0 if weight is None else weight.data_ptr(),
        of_weight,
        0 if pos_weight is None else pos_weight.data_ptr(),
        channels,
        inner,
        count if reduction == "mean" and count else 1,
    )
    if bad_weights or bad_targets:
        report(count, bad_targets, bad_weights)
    if losses is not None:
        return losses
    if reduction == "mean" and count == 0:
        total = math.nan
    result: Tensor = torch.scalar_tensor(total, dtype=dtype)
    return result


def _contiguous(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where its memory is not its elements in order."""
    if tensor.is_neg():
        tensor = torch.resolve_neg(tensor)
    contiguous: Tensor = tensor.contiguous()
    return contiguous


def _aligned_shape(tensor: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Its shape with as many axes as that, from the last."""
    given = tuple(tensor.shape)
    return (1,) * (len(shape) - len(given)) + given


def _channels(pos_weight: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, int]:
    """pos_weight as the kernel takes it: a number a channel, and how many elements each is for.

    From the first of its axes to the last that is longer than 1, all elements are channels.
    """
    aligned = _aligned_shape(pos_weight, shape)
    long = [axis for axis, size in enumerate(aligned) if size != 1]
    begin, end = long[0], long[-1] + 1
    of_channels = pos_weight.detach().reshape(aligned[begin:end]).expand(shape[begin:end])
    return of_channels, max(1, math.prod(shape[end:]))


def _check(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: need one of {REDUCTIONS}, got {reduction!r}")
    _check_tensor("input", input, input)
    if input.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"input: need float32 or float64, got {input.dtype}; convert it, with .float() say"
        )
    _check_tensor("target", target, input)
    if target.shape != input.shape:
        raise ValueError(
            f"target: need the input's shape {tuple(input.shape)}, got {tuple(target.shape)}"
        )
    for name, tensor in (("weight", weight), ("pos_weight", pos_weight)):
        if tensor is not None:
            _check_tensor(name, tensor, input)
            _check_broadcast(name, tensor, input)
    if torch.is_grad_enabled():
        for name, tensor in (("target", target), ("weight", weight), ("pos_weight", pos_weight)):
            if tensor is not None and tensor.requires_grad:
                raise ValueError(f"{name}: only the input has a gradient; detach() the {name}")


def _check_tensor(name: str, tensor: Tensor, input: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: need a tensor, got {type(tensor).__name__}")
    if not tensor.is_cpu or tensor.layout != torch.strided:
        raise ValueError(
            f"{name}: need a dense tensor on the CPU, got a {tensor.layout} one on "
            f"{tensor.device}; torch.nn.BCEWithLogitsLoss serves other devices"
        )
    if tensor.dtype != input.dtype:
        raise TypeError(f"{name}: need the input's {input.dtype}, got {tensor.dtype}")


def _check_broadcast(name: str, tensor: Tensor, input: Tensor) -> None:
    given, shape = tuple(tensor.shape), tuple(input.shape)
    fits = len(given) <= len(shape) and all(
        size in (1, other) for size, other in zip(given[::-1], shape[::-1])
    )
    if not fits:
        raise ValueError(f"{name}: shape {given} does not broadcast to the input's {shape}")
