"""What is computed: the arrays of a loss, the layer's parameters for it, and the exact answer."""

import math
from dataclasses import asdict, dataclass, replace

import numpy as np

from weighted_sigmoid_loss.reference import weighted_sigmoid_loss

SEED = 20181227
DEVIATION = 3
POSITIVES = 0.01
CLS_WEIGHT = 100.0
IGNORE_LABEL = -1


@dataclass(frozen=True)
class Problem:
    """Scores of a shape, their targets, and how the loss weighs them. The loss is the sum."""

    shape: tuple
    dtype: str = "float32"
    is_weighted: bool = True  # False: all weights are 1
    by_channel: bool = False  # weights from 1 to CLS_WEIGHT along axis 1
    class_balance: str = "NONE"
    ignored: float = 0.0  # the share of targets that are IGNORE_LABEL
    weight_shape: tuple = ()  # of the element weights, if any

    @classmethod
    def from_message(cls, message):
        """From what message() gave, after JSON made lists of its tuples."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in message.items()})

    def for_contestant(self, contestant):
        """With its kind of weights; these are 35 or, of a number of elements alone, up to 32."""
        if contestant.by_channel:
            channels = math.gcd(self.count, 32)
            shape = self.shape if len(self.shape) > 1 else (self.count // channels, channels)
            return replace(self, shape=shape, by_channel=True)
        return replace(self, is_weighted=contestant.is_weighted)

    def message(self):
        return asdict(self)

    @property
    def count(self):
        return int(np.prod(self.shape))

    @property
    def cls_weight(self):
        """One for all, or one per channel."""
        if self.by_channel:
            return np.linspace(1, CLS_WEIGHT, self.shape[1], dtype=np.float32).tolist()
        return [CLS_WEIGHT if self.is_weighted else 1.0]

    def arrays(self):
        """Scores, targets and element weights (None where there are none)."""
        weight = np.empty(self.weight_shape, self.dtype) if self.weight_shape else None
        arrays = np.empty(self.shape, self.dtype), np.empty(self.shape, self.dtype), weight
        self.fill(*arrays)
        return arrays

    def fill(self, scores, targets, weight):
        """Write the same values each time, with no array besides: all memory may be in use."""
        rng = np.random.default_rng(SEED)
        rng.standard_normal(dtype=scores.dtype, out=scores)
        scores *= DEVIATION
        rng.random(dtype=targets.dtype, out=targets)
        ignored = targets > 1 - self.ignored
        np.less(targets, POSITIVES, out=targets)
        targets[ignored] = IGNORE_LABEL
        if weight is not None:
            rng.random(dtype=weight.dtype, out=weight)

    def layer(self, kind):
        """Prototxt of the layer, as inside layer { }; upstream's has no parameters of its own."""
        ignore = f"ignore_label: {IGNORE_LABEL} " if self.ignored else ""
        text = f'type: "{kind}" loss_param {{ {ignore}normalization: NONE }}'
        if kind == "SigmoidCrossEntropyLoss":
            return text
        weights = " ".join(f"cls_weight: {weight!r}" for weight in self.cls_weight)
        return (
            f"{text} sigmoid_cross_entropy_weight_loss_param "
            f"{{ {weights} class_balance: {self.class_balance} }}"
        )

    def exact(self):
        """The loss and its gradient, by the reference in float64."""
        scores, targets, weight = self.arrays()
        return weighted_sigmoid_loss(
            scores,
            targets,
            weight,
            cls_weight=self.cls_weight,
            class_balance=self.class_balance,
            normalization="NONE",
            ignore_label=IGNORE_LABEL if self.ignored else None,
        )
