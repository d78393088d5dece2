from typing import Optional, TypeVar

import numpy as np
import numpy.typing as npt

Float = TypeVar("Float", np.float32, np.float64)

def compute(
    scores: npt.NDArray[Float],
    targets: npt.NDArray[Float],
    grad: Optional[npt.NDArray[Float]],
    losses: Optional[npt.NDArray[Float]],
    weight: Optional[npt.NDArray[Float]],
    cls_weight: npt.NDArray[np.float64],
    neg_weight: npt.NDArray[np.float64],
    channel_inner: int,
    scope: Optional[tuple[int, int]],
    ignore_label: Optional[float],
    normalizer: Optional[float],
) -> tuple[float, int, int]: ...
def instruction_set() -> str: ...
