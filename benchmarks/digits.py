"""Print what float32 leaves of the loss and its gradient, by PyTorch's loss and by this package's.

    python -m benchmarks.digits

It needs this package, PyTorch, and a few seconds. The true values are computed with 50 digits from
the same float32 scores.
"""

import math
import sys
from dataclasses import dataclass
from decimal import Decimal, localcontext

import numpy as np

try:
    import torch

    from weighted_sigmoid_loss.torch import binary_cross_entropy_with_logits
except ImportError as error:
    sys.exit(f"digits: {error}")

POS_WEIGHT = 12.5
FLOAT32_DIGITS = 7.2  # 24 bits
LOSSES = {
    "PyTorch": torch.nn.functional.binary_cross_entropy_with_logits,
    "this package": binary_cross_entropy_with_logits,
}


@dataclass
class Case:
    """Elements of one target; what is shown of them is the sum of their losses, or gradients."""

    name: str
    scores: np.ndarray  # float32
    target: int

    def true_values(self):
        """Loss and gradient, from their definitions: sums of Decimal."""
        weight = Decimal(POS_WEIGHT) if self.target else Decimal(1)
        sign = -1 if self.target else 1
        loss = gradient = Decimal(0)
        with localcontext() as context:
            context.prec = 50
            for score in self.scores.tolist():
                exponential = (sign * Decimal(score)).exp()
                loss += weight * (1 + exponential).ln()
                gradient += sign * weight * exponential / (1 + exponential)
        return loss, gradient

    def values(self, function):
        """The loss that the function returns and the gradient's sum, which is formed in double."""
        scores = torch.from_numpy(self.scores).requires_grad_()
        targets = torch.full_like(scores, self.target, requires_grad=False)
        pos_weight = torch.tensor(POS_WEIGHT)
        loss = function(scores, targets, pos_weight=pos_weight, reduction="sum")
        loss.backward()
        return loss.item(), scores.grad.double().sum().item()


CASES = [
    Case("a negative at -10", np.array([-10], np.float32), 0),
    Case("a negative at -20", np.array([-20], np.float32), 0),
    Case("20,000 negatives, -12 to -8", np.linspace(-12, -8, 20_000, dtype=np.float32), 0),
    Case("a positive at 10", np.array([10], np.float32), 1),
    Case("a positive at 20", np.array([20], np.float32), 1),
    Case("20,000 positives, 8 to 12", np.linspace(8, 12, 20_000, dtype=np.float32), 1),
]


def right_digits(value, true):
    error = float(abs(Decimal(value) - true) / abs(true))
    right = -math.log10(error) if error > 0 else FLOAT32_DIGITS
    return min(max(0, right), FLOAT32_DIGITS)


def table():
    """Lines of text."""
    names = "".join(f"{name:>14}  digits" for name in LOSSES)
    yield f"{'float32 scores':27} {'of them, the':12} {'true value':>14}{names}"
    for case in CASES:
        computed = [case.values(function) for function in LOSSES.values()]
        rows = zip(("loss", "gradient"), case.true_values(), *computed)
        for what, true, *values in rows:
            cells = "".join(f"{value:14.6e}  {right_digits(value, true):6.1f}" for value in values)
            yield f"{case.name:27} {what:12} {float(true):14.6e}{cells}"


def main():
    print(f"PyTorch {torch.__version__}; digits that are right, of {FLOAT32_DIGITS}")
    print("\n".join(table()))


if __name__ == "__main__":
    main()
