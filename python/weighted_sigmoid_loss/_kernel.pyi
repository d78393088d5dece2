from collections.abc import Sequence
from typing import TypeVar

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
    scope: tuple[int, int] | None,
    ignore_label: float | None,
    normalizer: float | None,
) -> tuple[float, int, int]: ...
def compute_float32_at(
    shape: Sequence[int],
    scores: int,
    targets: int,
    grad: int,
    losses: int,
    weight: int,
    of_weight: Sequence[int],
    pos_weight: int,
    channels: int,
    channel_inner: int,
    normalizer: float,
    /,
) -> tuple[float, int, int]: ...

compute_float64_at = compute_float32_at

def instruction_set() -> str: ...
