"""The loss of NumPy arrays, by the compiled kernel."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Sequence
from numbers import Number
from typing import TYPE_CHECKING, Any, Literal, Protocol, SupportsIndex, TypeVar, Union, get_args

import numpy as np

from ._kernel import compute, compute_plain

if TYPE_CHECKING:
    import numpy.typing as npt  # since NumPy 1.20

Float = TypeVar("Float", np.float32, np.float64)


class HasArray(Protocol):
    """What NumPy makes an array of: a tensor of PyTorch's, a table of pandas'."""

    def __array__(self) -> Any: ...


class HasDLPack(Protocol):
    """What exchanges its memory by DLPack."""

    def __dlpack__(self) -> Any: ...

    def __dlpack_device__(self) -> Any: ...


Real = Union[float, Number, "np.number[Any]"]
Weights = Union[Real, Sequence[Real], "npt.NDArray[np.number[Any]]"]
Normalization = Literal["full", "valid", "batch_size", "none"]
ClassBalance = Literal["none", "batch", "instance", "channel", "instance_channel"]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

# An out that asks for no gradient.
_LOSS_ALONE: Any = object()


def loss_and_grad(
    scores: npt.NDArray[Float] | HasArray | HasDLPack,
    targets: npt.NDArray[Float] | HasArray | HasDLPack,
    *,
    cls_weight: Weights = 1.0,
    neg_weight: Weights = 1.0,
    weight: npt.NDArray[Float] | HasArray | HasDLPack | None = None,
    axis: SupportsIndex = 1,
    ignore_label: Real | None = None,
    ignore_soft_targets: bool = False,
    normalization: Normalization = "batch_size",
    class_balance: ClassBalance = "none",
    out: npt.NDArray[Float] | None = None,
) -> tuple[float, npt.NDArray[Float]]:
    """Return the loss and its gradient with respect to the scores, computed in one pass.

    For score x and target t in channel c, with element weight e,

        a = e * cls_weight[c] * b_pos
        b = e * neg_weight[c] * b_neg
        loss = sum of (a t softplus(-x) + b (1 - t) softplus(x)) / normalizer
        grad = (b (1 - t) sigmoid(x) - a t sigmoid(-x)) / normalizer

    without the elements whose target is ignored. The parameters are those of the Caffe layer
    SigmoidCrossEntropyWeightLoss, and each element of grad has the bits that this layer gives it.

    scores: N x C x ..., float32 or float64, one axis or more, before any sigmoid.
    targets: the same shape and type, in [0, 1]; soft ones too.
    cls_weight, neg_weight: one for all channels, or one per channel along axis. Finite, not
        negative.
    weight: element weights of the same type. Each axis is as long as that of the scores or 1; axes
        that it lacks at the end count as 1. Finite, not negative.
    axis: the channels' axis; a negative one counts from the end. Looked at only where a weight a
        channel or the class_balance of channels needs it.
    ignore_label: elements whose target equals it have no loss and a gradient of 0.
    ignore_soft_targets: so have those whose target is from 2^-20 to 1 - 2^-20.
    normalization: "full" divides by the number of elements, "valid" by that of the elements not
        ignored, "batch_size" by N, "none" by 1; never by less than 1.
    class_balance: "batch", "instance", "channel" or "instance_channel", which is each channel of
        each instance: in each such scope, b_pos is the share of negatives and b_neg that of
        positives. "none": both are 1.
    out: where grad goes, of the scores' shape and type; the scores themselves, if wanted. It may
        overlap them in no other way, and targets and weight not at all.

    Aligned C-contiguous arrays are not copied; others are, as those in Fortran's order. Whatever
    has __array__() or DLPack is taken as well, a tensor of PyTorch's say, without a copy where its
    memory is of that kind. out is such an array itself. The loss is a float, summed in double.

    Raises TypeError for what is not an array or of another type, and for a masked array;
    ValueError for a shape that does not fit, a weight that is negative or not finite, an axis out
    of range, an unknown name, and an out that is read-only, not contiguous or overlaps. Where an
    element weight is negative or not finite, out has been overwritten. Targets outside [0, 1] that
    are not ignored are used as they are, with a UserWarning.

    While this computes, other Python threads run; they must not write to the arrays.
    """
    ignores = ignore_label is not None or ignore_soft_targets is not False
    if weight is None and not ignores and class_balance == "none":
        # All the checks below, in a sixth of the time, where there is nothing to say.
        plain = compute_plain(scores, targets, out, cls_weight, neg_weight, normalization)
        if plain:
            total, grad, bad_targets = plain
            if bad_targets:
                report(grad.size, bad_targets, 0, stacklevel=3)
            return total, grad
    scores, targets, weight = _arrays(scores, targets, weight)
    grad = None
    if out is None:
        out = grad = np.empty_like(scores, subok=False)
    elif out is not _LOSS_ALONE:
        _check_out(out, scores, targets, weight)
        grad = out
    shape = scores.shape
    positive = _numbers("cls_weight", cls_weight)
    negative = _numbers("neg_weight", neg_weight)
    channels = max(positive.size, negative.size)
    along, inner = 0, 1
    if channels > 1 or class_balance in ("channel", "instance_channel"):
        along = _checked_axis(axis, shape)
        inner = _inner(shape, along)
    if channels > 1:
        positive = _a_channel("cls_weight", positive, shape, along)
        negative = _a_channel("neg_weight", negative, shape, along)
    total, bad_targets, bad_weights = compute(
        scores,
        targets,
        grad,
        None if weight is None else weight.reshape(_aligned_shape(weight, shape)),
        positive,
        negative,
        inner if channels > 1 else 1,
        _scope(class_balance, shape, along),
        _checked_label(ignore_label),
        _checked_flag("ignore_soft_targets", ignore_soft_targets),
        _normalizer(normalization, shape),
    )
    if bad_weights or bad_targets:
        report(scores.size, bad_targets, bad_weights, stacklevel=4 if grad is None else 3)
    return total, out


def loss(
    scores: npt.NDArray[Float] | HasArray | HasDLPack,
    targets: npt.NDArray[Float] | HasArray | HasDLPack,
    *,
    cls_weight: Weights = 1.0,
    neg_weight: Weights = 1.0,
    weight: npt.NDArray[Float] | HasArray | HasDLPack | None = None,
    axis: SupportsIndex = 1,
    ignore_label: Real | None = None,
    ignore_soft_targets: bool = False,
    normalization: Normalization = "batch_size",
    class_balance: ClassBalance = "none",
) -> float:
    """Return the loss alone: the bits of loss_and_grad()'s, whose parameters and errors it has."""
    return loss_and_grad(
        scores,
        targets,
        cls_weight=cls_weight,
        neg_weight=neg_weight,
        weight=weight,
        axis=axis,
        ignore_label=ignore_label,
        ignore_soft_targets=ignore_soft_targets,
        normalization=normalization,
        class_balance=class_balance,
        out=_LOSS_ALONE,
    )[0]


def report(count: int, bad_targets: int, bad_weights: int, stacklevel: int = 4) -> None:
    """What the kernel found in count targets and weights, as a warning or an error.

    stacklevel: how far up the user's call is.
    """
    if bad_weights:
        raise ValueError(
            f"weight: {bad_weights} of {count} elements have a weight that is negative or not "
            "finite"
        )
    warnings.warn(
        f"{bad_targets} of {count} targets are outside [0, 1]; they are used as they are. "
        "Scale a 0/255 mask by 1/255; leave out elements marked -1 or 255",
        stacklevel=stacklevel,
    )


def _arrays(scores: Any, targets: Any, weight: Any) -> tuple[Any, Any, Any]:
    """As the kernel takes them, in their own memory where it can."""
    scores = _array("scores", scores)
    if scores.dtype not in FLOATS:
        raise TypeError(f"scores: need float32 or float64, got {scores.dtype}")
    if scores.ndim == 0:
        raise ValueError("scores: need at least one axis, that of the batch, got none")
    targets = _array("targets", targets)
    _check_dtype("targets", targets, scores)
    if targets.shape != scores.shape:
        raise ValueError(f"targets: need the scores' shape {scores.shape}, got {targets.shape}")
    if weight is not None:
        weight = _array("weight", weight)
        _check_dtype("weight", weight, scores)
    return scores, targets, weight


def _array(name: str, value: Any) -> npt.NDArray[Any]:
    if not isinstance(value, np.ndarray):
        if hasattr(value, "__array__"):
            value = np.asarray(value)
        elif hasattr(value, "__dlpack__") and hasattr(np, "from_dlpack"):
            value = np.from_dlpack(value)
        else:
            raise TypeError(f"{name}: need an array, got {type(value).__name__}")
    _check_mask(name, value)
    flags = value.flags
    if flags.c_contiguous and flags.aligned:
        return value
    return np.require(value, requirements=["C", "A"])


def _check_mask(name: str, value: object) -> None:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: is a masked array, whose mask would not count; leave elements out by "
            "targets.filled(-1) and ignore_label=-1, or by weight"
        )


def _check_dtype(name: str, array: npt.NDArray[Any], scores: npt.NDArray[Any]) -> None:
    if array.dtype != scores.dtype:
        raise TypeError(f"{name}: need the scores' {scores.dtype}, got {array.dtype}")


def _check_out(
    out: npt.NDArray[Float],
    scores: npt.NDArray[Float],
    targets: npt.NDArray[Float],
    weight: npt.NDArray[Float] | None,
) -> None:
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"out: need a NumPy array to write to, got {type(out).__name__}")
    _check_dtype("out", out, scores)
    if not (out.flags.c_contiguous and out.flags.aligned):
        raise ValueError(
            f"out: need a C-contiguous, aligned array, got strides {out.strides} of shape "
            f"{out.shape}; numpy.empty() makes one"
        )
    if out.shape != scores.shape:
        raise ValueError(f"out: need the scores' shape {scores.shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out: need an array that can be written to, got a read-only one")
    for name, array in (("targets", targets), ("weight", weight)):
        if array is not None and np.may_share_memory(out, array):
            raise ValueError(f"out: overlaps {name}")
    if np.may_share_memory(out, scores) and out.ctypes.data != scores.ctypes.data:
        raise ValueError("out: overlaps the scores without being the same memory")


def _numbers(name: str, values: Weights) -> npt.NDArray[np.float64]:
    """Weights of channels as the kernel takes them: at least one."""
    if isinstance(values, (int, float, Number)):
        value = _float(name, values)
        _check_weight(name, value)
        return np.array([value], np.float64)
    _check_mask(name, values)
    given = np.asarray(values)
    if given.dtype.kind == "O" and given.ndim and all(isinstance(v, Number) for v in given.flat):
        given = np.array([_float(name, v) for v in given.flat]).reshape(given.shape)
    if given.dtype.kind not in "iuf":
        raise TypeError(f"{name}: need a number or a sequence of them, got {values!r}")
    numbers = given.astype(np.float64)
    if numbers.ndim > 1:
        raise ValueError(f"{name}: need a number or one per channel, got shape {numbers.shape}")
    for value in (numbers.min(), numbers.max()) if numbers.size else ():
        _check_weight(name, value)
    return numbers.reshape(-1) if numbers.size else np.ones(1)


def _float(name: str, value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: need a number that a float can hold") from None
    except TypeError:
        raise TypeError(f"{name}: need a real number, got {value!r}") from None


def _check_weight(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}: a weight must be finite and not negative, got {value}")


def _a_channel(
    name: str, values: npt.NDArray[np.float64], shape: tuple[int, ...], axis: int
) -> npt.NDArray[np.float64]:
    if values.size == 1:
        return np.full(shape[axis], values[0])
    if values.size != shape[axis]:
        raise ValueError(
            f"{name}: has {values.size} values, and scores of shape {shape} have {shape[axis]} "
            f"channels along axis {axis}; give one, or one per channel"
        )
    return values


def _checked_axis(axis: SupportsIndex, shape: tuple[int, ...]) -> int:
    """From the start."""
    ndim = len(shape)
    try:
        index = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis: need an integer, got {axis!r}") from None
    if not -ndim <= index < ndim:
        raise ValueError(
            f"axis: need {-ndim} to {ndim - 1} for scores of shape {shape}, got {axis}"
        )
    return index % ndim


def _inner(shape: tuple[int, ...], axis: int) -> int:
    """How many elements one step along the axis takes."""
    return math.prod(shape[axis + 1 :]) or 1


def _aligned_shape(weight: npt.NDArray[Float], shape: tuple[int, ...]) -> tuple[int, ...]:
    """That of the weights with the scores' number of axes, from the first."""
    given = weight.shape
    fits = all(size == 1 for size in given[len(shape) :]) and all(
        size in (1, other) for size, other in zip(given, shape)
    )
    if not fits:
        raise ValueError(
            f"weight: each axis must be as long as that of the scores or 1, got shape {given} for "
            f"scores of shape {shape}"
        )
    return given[: len(shape)] + (1,) * (len(shape) - len(given))


def _scope(class_balance: str, shape: tuple[int, ...], axis: int) -> tuple[int, int, int] | None:
    """The axis along which the scopes of class_balance lie: its length, its step's elements, and in
    how many instances its indices are others."""
    if class_balance == "none":
        return None
    if class_balance == "batch":
        return 1, math.prod(shape) or 1, 1
    if class_balance == "instance":
        return shape[0], _inner(shape, 0), 1
    if class_balance == "channel":
        return shape[axis], _inner(shape, axis), 1
    if class_balance == "instance_channel":
        _check_instance_channels(shape, axis)
        return shape[axis], _inner(shape, axis), shape[0]
    raise ValueError(f"class_balance: need one of {get_args(ClassBalance)}, got {class_balance!r}")


def _check_instance_channels(shape: tuple[int, ...], axis: int) -> None:
    what = f"class_balance: instance_channel balances each channel of each instance of {shape}"
    if axis == 0:
        raise ValueError(f"{what}, and axis is that of the instances; instance balances these")
    if 0 < math.prod(shape) <= shape[0] * shape[axis]:
        raise ValueError(
            f"{what}, which has one element along axis {axis}; choose channel, instance or batch"
        )


def _checked_flag(name: str, value: bool) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{name}: need True or False, got {value!r}")


def _checked_label(ignore_label: Real | None) -> float | None:
    if ignore_label is None:
        return None
    if isinstance(ignore_label, (int, float, Number)):
        label = _float("ignore_label", ignore_label)
        if label == label:
            return label
    raise ValueError(f"ignore_label: need a number or None, got {ignore_label!r}")


def _normalizer(normalization: str, shape: tuple[int, ...]) -> float | None:
    """What to divide by; None where the kernel has to count."""
    if normalization == "batch_size":
        return float(shape[0] or 1)
    if normalization == "none":
        return 1.0
    if normalization == "full":
        return float(math.prod(shape) or 1)
    if normalization == "valid":
        return None
    raise ValueError(f"normalization: need one of {get_args(Normalization)}, got {normalization!r}")
