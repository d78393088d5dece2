"""The loss of PyTorch's CPU tensors, in place of BCEWithLogitsLoss: as accurate and as fast as the
kernel.

    from weighted_sigmoid_loss.torch import BCEWithLogitsLoss

    criterion = BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 12.5, 80.0]))

The gradient is computed together with the loss where the input requires one.
"""

from __future__ import annotations

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "weighted_sigmoid_loss.torch needs PyTorch: pip install 'torch>=1.13'", name="torch"
    ) from None

from collections.abc import Callable
from typing import Any, Literal

if tuple(map(int, torch.__version__.split(".")[:2])) < (1, 13):
    raise ImportError(
        f"weighted_sigmoid_loss.torch needs PyTorch 1.13 or later, not {torch.__version__}: "
        "pip install 'torch>=1.13'",
        name="torch",
    )

from torch import Tensor

from . import torch_formula as formula
from . import torch_kernel as kernel

# Before PyTorch 2.4 there is no such operator: torch.compile takes the formula, or leaves this out
# of its graph. Its versions differ in types, hence Any.
operator: Any = None
if hasattr(torch.library, "register_autograd"):
    from . import torch_operator

    operator = torch_operator
_compiler: Any = getattr(torch, "compiler", None)
is_dynamo_compiling: Callable[[], bool] = getattr(_compiler, "is_dynamo_compiling", lambda: False)
_is_autocast_enabled: Any = torch.is_autocast_enabled

Reduction = Literal["none", "mean", "sum"]
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss):
    """torch.nn.BCEWithLogitsLoss, computed by binary_cross_entropy_with_logits() of this module.

    It has that module's parameters, buffers and state_dict. The function says for which tensors it
    is, and has the errors.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        reduction: Any = self.reduction  # a string, to PyTorch's types
        return binary_cross_entropy_with_logits(
            input, target, self.weight, pos_weight=self.pos_weight, reduction=reduction
        )


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Return the loss as torch.nn.functional.binary_cross_entropy_with_logits() does.

    With score x, target t, and w and p the element's entries in weight and pos_weight, its loss is

        w (p t softplus(-x) + (1 - t) softplus(x))

    input: the scores, of any shape, on the CPU. Where it is bfloat16 or half the loss is computed
        in float32, and under torch.autocast() it is float32.
    target: the same shape, in [0, 1]; soft ones too. The result has its type, as PyTorch's has.
    weight, pos_weight: of any real type and any shape that broadcasts to input's, from the last
        axis, as PyTorch does. Finite, not negative.
    size_average, reduce: PyTorch's older names of the reductions.
    reduction: "none" is the loss of each element, "sum" their sum, "mean" that over their number.

    Dense tensors go to the kernel, in any order of memory; those that are not dense are copied.
    Where one besides the input requires a gradient, and for tensors that are not plain memory
    (subclasses, fake ones) or part of a transform (torch.func, forward mode, a trace, a second
    derivative), PyTorch's own functions compute; these take negative weights, too, and warn of
    nothing.

    Raises TypeError for another type, and ValueError for a tensor that is not a dense one on the
    CPU, a shape that does not fit, a weight that is negative or not finite, and an unknown
    reduction. Targets outside [0, 1] are used as they are, with a UserWarning.
    """
    if size_average is not None or reduce is not None:
        names: Any = torch.nn.BCEWithLogitsLoss(size_average=size_average, reduce=reduce)
        reduction = names.reduction
    if weight is None and not is_dynamo_compiling():
        call = kernel.usual_call(input, target, pos_weight, reduction)
        if call is not None:
            return kernel.short(input, call)
    return _loss(input, target, weight, pos_weight, reduction)


def _loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
) -> Tensor:
    _check(input, target, weight, pos_weight, reduction)
    result_dtype = target.dtype
    if _autocast_is_enabled() and result_dtype != torch.float64:
        result_dtype = torch.float32
    dtype = torch.float64 if torch.float64 in (input.dtype, target.dtype) else torch.float32
    input, target = _converted(input, dtype), _converted(target, dtype)
    others = [target]
    if weight is not None:
        others.append(weight := _converted(weight, dtype))
    if pos_weight is not None:
        others.append(pos_weight := _converted(pos_weight, dtype))
    compute = _function(input, others)
    return _converted(compute(input, target, weight, pos_weight, reduction), result_dtype)


def _function(input: Tensor, others: list[Tensor]) -> Callable[..., Tensor]:
    """What computes the loss of these."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in others):
        return formula.loss
    if is_dynamo_compiling():
        plain = all(type(tensor) in kernel.PLAIN for tensor in [input, *others])
        usable = operator and plain and not kernel.functorch_is_active()
        return operator.loss if usable else formula.loss
    plain = not kernel.is_transformed() and all(map(kernel.is_plain, [input, *others]))
    return kernel.loss if plain else formula.loss


def _converted(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def _autocast_is_enabled() -> bool:
    try:
        return bool(_is_autocast_enabled("cpu"))
    except TypeError:  # before PyTorch 2.4
        return torch.is_autocast_cpu_enabled()


def _check(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: str,
) -> None:
    if reduction not in kernel.REDUCTIONS:
        raise ValueError(f"reduction: need one of {tuple(kernel.REDUCTIONS)}, got {reduction!r}")
    for name, tensor in (("input", input), ("target", target)):
        _check_tensor(name, tensor)
        if tensor.dtype not in FLOATS:
            raise TypeError(
                f"{name}: need float32, float64, bfloat16 or float16, got {tensor.dtype}; convert "
                "it, with .float() say"
            )
    if target.shape != input.shape:
        raise ValueError(
            f"target: need the input's shape {tuple(input.shape)}, got {tuple(target.shape)}"
        )
    for name, weights in (("weight", weight), ("pos_weight", pos_weight)):
        if weights is not None:
            _check_tensor(name, weights)
            if weights.dtype.is_complex:
                raise TypeError(f"{name}: need real numbers, got {weights.dtype}")
            _check_broadcast(name, weights, input)


def _check_tensor(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: need a tensor, got {type(tensor).__name__}")
    if tensor.device.type != "cpu" or tensor.layout != torch.strided:
        raise ValueError(
            f"{name}: need a dense tensor on the CPU, got a {tensor.layout} one on "
            f"{tensor.device}; torch.nn.BCEWithLogitsLoss serves other devices"
        )


def _check_broadcast(name: str, tensor: Tensor, input: Tensor) -> None:
    given, shape = tuple(tensor.shape), tuple(input.shape)
    fits = len(given) <= len(shape) and all(
        size in (1, other) for size, other in zip(given[::-1], shape[::-1])
    )
    if not fits:
        advice = _shape_advice(given, shape)
        raise ValueError(f"{name}: shape {given} does not broadcast to the input's {shape}{advice}")


def _shape_advice(given: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """What to write where a vector was meant to go along another axis than the last."""
    if len(given) != 1 or len(shape) < 2:
        return ""
    if len(shape) > 2 and given[0] == shape[1]:
        trailing = (1,) * (len(shape) - 2)
        return f"; for one weight per channel give it the shape {given + trailing}"
    if given[0] == shape[0]:
        trailing = (1,) * (len(shape) - 1)
        return f"; for one weight per instance give it the shape {given + trailing}"
    return ""
