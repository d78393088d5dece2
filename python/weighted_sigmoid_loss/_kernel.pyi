from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Float = TypeVar("Float", np.float32, np.float64)

def compute(
    scores: npt.NDArray[Float],
    targets: npt.NDArray[Float],
    grad: npt.NDArray[Float] | None,
    weight: npt.NDArray[Float] | None,
    cls_weight: npt.NDArray[np.float64],
    neg_weight: npt.NDArray[np.float64],
    channel_inner: int,
    scope: tuple[int, int, int] | None,
    ignore_label: float | None,
    ignore_soft_targets: bool,
    normalizer: float | None,
) -> tuple[float, int, int]: ...
def compute_plain(
    scores: object,
    targets: object,
    out: object,
    cls_weight: object,
    neg_weight: object,
    normalization: object,
    /,
) -> tuple[float, npt.NDArray[Any], int] | None: ...
def compute_float32_at(
    count: int,
    reduction: int,  # 0: none, 1: mean, 2: sum
    scores: int,
    targets: int,
    loss: int,  # one value; for the reduction "none" count of them
    grad: int,
    pos_weight: int,
    weight: int,
    channels: int,  # how many values pos_weight has
    channel_inner: int,
    shape: Sequence[int] = ...,  # where there is a weight
    of_weight: Sequence[int] = ...,  # as many axes as shape, each as long or 1
    /,
) -> int: ...

compute_float64_at = compute_float32_at

def instruction_set() -> str: ...
