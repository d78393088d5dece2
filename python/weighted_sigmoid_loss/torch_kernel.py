"""The compiled kernel on PyTorch's tensors: those that are plain memory on the CPU."""

from __future__ import annotations

import functools
import math
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import torch_formula as formula
from ._kernel import compute_float32_at, compute_float64_at

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}  # as the kernel's module numbers them
COMPUTE = {torch.float32: compute_float32_at, torch.float64: compute_float64_at}
PLAIN = (Tensor, torch.nn.Parameter)  # no set: PyTorch 2.6 cannot compile a look into one
# Of these are made the results that are one value: half a microsecond less than by new_empty().
_SCALARS = {dtype: torch.empty((), dtype=dtype, device="cpu") for dtype in COMPUTE}


# None of this is PyTorch's public interface. Where it is missing, its own functions compute.
_untyped: Any = torch
try:
    _dispatch_keys = _untyped._C._dispatch_keys
    _dispatch_modes = _untyped._C._len_torch_dispatch_stack
    functorch_is_active = _untyped._C._are_functorch_transforms_active
    _tracing_state = _untyped._C._get_tracing_state
    forward_ad._current_level  # noqa: B018
except AttributeError:

    def is_plain(tensor: Tensor) -> bool:
        return False

    def is_transformed() -> bool:
        return True

    functorch_is_active = is_transformed
else:
    # Which of PyTorch's parts see a call on the tensor, as something that compares.
    _as_number = getattr(_untyped._C.DispatchKeySet, "raw_repr", repr)
    with _untyped.inference_mode():
        _inference = torch.empty(0, device="cpu")
    _PLAIN_KEYS = {
        _as_number(_dispatch_keys(tensor)) for tensor in (*_SCALARS.values(), _inference)
    }

    def is_plain(tensor: Tensor) -> bool:
        """Whether its elements are in memory on the CPU, and nobody else wants to know of them."""
        return type(tensor) in PLAIN and _as_number(_dispatch_keys(tensor)) in _PLAIN_KEYS

    def is_transformed() -> bool:
        """Whether PyTorch has to see each operation: to trace it, or to differentiate forward."""
        return bool(
            _dispatch_modes()
            or functorch_is_active()
            or forward_ad._current_level >= 0
            or _tracing_state() is not None
        )


# What a call needs besides the input: target, weight and pos_weight; then the reduction's number,
# the kernel's function, and that function's last arguments, on pos_weight's and weight's axes.
Others = tuple[Tensor, "Tensor | None", "Tensor | None"]
How = tuple[int, Callable[..., int], "tuple[Any, ...]"]
Call = tuple[Others, How]


def loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
) -> Tensor:
    """The loss of plain tensors of one type, float32 or float64, of which only the input may
    require a gradient."""
    order = _memory_order(input)
    input, call = _prepare(input, target, weight, pos_weight, reduction, order)
    result = short(input, call)
    return _in_shape(result, order) if reduction == "none" else result


def usual_call(
    input: Tensor, target: Tensor, pos_weight: Tensor | None, reduction: str
) -> Call | None:
    """What goes with an input of the usual kind; None where there is something to convert, to order
    or to refuse. Small tensors are why: this takes two microseconds."""
    if not (
        is_plain(input)
        and is_plain(target)
        and (shape := input.shape) == target.shape
        and (dtype := input.dtype) in COMPUTE
        and target.dtype is dtype
        and input.is_contiguous()
        and target.is_contiguous()
        and not target.requires_grad
        and reduction in REDUCTIONS
        and not is_transformed()
    ):
        return None
    channels = 1
    if pos_weight is not None:
        if not (
            is_plain(pos_weight) and pos_weight.dtype is dtype and not pos_weight.requires_grad
        ):
            return None
        if ndim := pos_weight.dim():
            channels = pos_weight.numel()
            fits = ndim == 1 and shape and channels in (1, shape[-1])
            if not fits or not pos_weight.is_contiguous():
                return None
    return (target, None, pos_weight), (REDUCTIONS[reduction], COMPUTE[dtype], (channels, 1))


def short(input: Tensor, call: Call) -> Tensor:
    """The loss of what is prepared, and contiguous."""
    if input.requires_grad and torch.is_grad_enabled():
        return _apply(input, *call)
    return _run(input, *call, None)


def loss_and_grad(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    """The same outside autograd, with the gradient."""
    order = _memory_order(input)
    input, call = _prepare(input, target, weight, pos_weight, reduction, order)
    grad = _gradients.like(input)
    result = _run(input, *call, grad, _warn_once)
    return _in_shape(result, order) if reduction == "none" else result, _in_shape(grad, order)


class _Gradients:
    """Where gradients are written. The memory of the last large one is used again once it is free:
    the system clears new memory, which takes as long as half of the loss."""

    LARGE = 4 << 20  # elements: from 32 MiB on, glibc takes every allocation from the system

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._memory: Any = None
        self._lease: Any = None

    def like(self, input: Tensor) -> Tensor:
        """A contiguous tensor of the contiguous input's shape and type."""
        if input.numel() < self.LARGE:
            return torch.empty_like(input)
        size = input.numel() * input.element_size()
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
    def forward(ctx: Any, input: Tensor, others: Others, how: How) -> Tensor:
        ctx.save_for_backward(input, *others)
        ctx.how = how
        ctx.grad = grad = _gradients.like(input)
        return _run(input, others, how, grad)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        reduction = ctx.how[0]
        if torch.is_grad_enabled():  # create_graph=True
            name = list(REDUCTIONS)[reduction]
            return grad_output * formula.gradient(*ctx.saved_tensors, name), None, None
        grad, ctx.grad = ctx.grad, None
        if grad is None:
            # What hooks on saved tensors give back may lie elsewhere.
            input, *others = (
                None if tensor is None else tensor.contiguous() for tensor in ctx.saved_tensors
            )
            grad = _gradients.like(input)
            _run(input, others, ctx.how, grad, warn=None)
        if is_transformed() or type(grad_output) not in PLAIN:
            return grad_output * grad, None, None
        try:
            if reduction == REDUCTIONS["none"]:
                grad *= grad_output
            elif (factor := grad_output.item()) != 1:
                grad *= factor
        except RuntimeError:  # there are several, by is_grads_batched=True; is_plain() takes longer
            return grad_output * grad, None, None
        return grad, None, None


# PyTorch gives apply() no types. Function's own one is for torch.func's transforms, which do not
# come here; that of its base saves a microsecond.
_apply: Callable[..., Tensor] = getattr(super(torch.autograd.Function, _Loss), "apply", _Loss.apply)


def _warn(lines: set[tuple[str, int]] | None = None) -> None:
    """At the line that called, whatever of this package and of PyTorch lies between; the text is
    always the same, so that Python says it once for each line. lines: those where it was said."""
    level, frame = 2, sys._getframe(1)
    ours = {"torch", __package__, ""}  # code that PyTorch generates may have no name
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ours:
        level, frame = level + 1, frame.f_back
    line = frame.f_code.co_filename, frame.f_lineno
    if lines is None or line not in lines:
        warnings.warn(
            "targets outside [0, 1] are used as they are. Scale a 0/255 mask by 1/255; leave out "
            "elements marked -1 or 255 with weight=mask, which is 0 there, and set their targets "
            "to 0",
            stacklevel=level,
        )
    if lines is not None:
        lines.add(line)


# For the operator: where PyTorch compiles, Python forgets at which lines it has warned.
_warn_once = functools.partial(_warn, set())


def _run(
    input: Tensor,
    others: Others,
    how: How,
    grad: Tensor | None,
    warn: Callable[[], None] | None = _warn,
) -> Tensor:
    """The loss, and where grad is a tensor also that."""
    target, weight, pos_weight = others
    reduction, compute, axes = how
    result = torch.empty_like(_SCALARS[input.dtype] if reduction else input)
    bad_targets = compute(
        input.numel(),
        reduction,
        input.data_ptr(),
        target.data_ptr(),
        result.data_ptr(),
        0 if grad is None else grad.data_ptr(),
        0 if pos_weight is None else pos_weight.data_ptr(),
        0 if weight is None else weight.data_ptr(),
        *axes,
    )
    if bad_targets and warn:
        warn()
    return result


def _prepare(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
    order: list[int] | None,
) -> tuple[Tensor, Call]:
    """The input, contiguous in that order of its axes, and the rest likewise."""
    if order is None and weight is None:
        call = usual_call(input, target, pos_weight, reduction)
        if call is not None:
            return input, call
    ndim = input.dim()
    weight, pos_weight = (
        None if tensor is None else tensor.detach().reshape(_aligned_shape(tensor, ndim))
        for tensor in (weight, pos_weight)
    )
    if order is not None:
        input, target = input.permute(order), target.permute(order)
        weight, pos_weight = (
            None if tensor is None else tensor.permute(order) for tensor in (weight, pos_weight)
        )
    input, target = input.contiguous(), target.detach().contiguous()
    axes: tuple[Any, ...] = (1, 1)
    if pos_weight is not None:
        pos_weight, inner = _channels(pos_weight, tuple(input.shape))
        axes = (pos_weight.numel(), inner)
    if weight is not None:
        weight = weight.contiguous()
        axes += (tuple(input.shape), tuple(weight.shape))
    return input, (
        (target, weight, pos_weight),
        (REDUCTIONS[reduction], COMPUTE[input.dtype], axes),
    )


def _memory_order(input: Tensor) -> list[int] | None:
    """The axes in the order in which results lie in memory, as PyTorch's lie; None: as they are."""
    if input.is_contiguous():
        return None
    strides = torch.empty_like(input, device="meta").stride()
    return sorted(range(input.dim()), key=lambda axis: -strides[axis])


def _in_shape(result: Tensor, order: list[int] | None) -> Tensor:
    """What was computed in that order of axes, with the input's."""
    if order is None:
        return result
    return result.permute(sorted(range(len(order)), key=order.__getitem__))


def _aligned_shape(tensor: Tensor, ndim: int) -> tuple[int, ...]:
    """Its shape with as many axes as that, from the last."""
    return (1,) * (ndim - tensor.dim()) + tuple(tensor.shape)


def _channels(pos_weight: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, int]:
    """pos_weight as the kernel takes it: a number per channel, and how many elements each is for.

    From the first of its axes to the last that is longer than 1, all elements are channels.
    """
    long = [axis for axis, size in enumerate(pos_weight.shape) if size != 1]
    if not long:
        return pos_weight.contiguous(), max(1, math.prod(shape))
    begin, end = long[0], long[-1] + 1
    of_channels = pos_weight.reshape(pos_weight.shape[begin:end]).expand(shape[begin:end])
    return of_channels.contiguous(), max(1, math.prod(shape[end:]))
