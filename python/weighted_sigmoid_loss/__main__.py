"""Where this package's commands have gone, for one release."""

import sys

print(
    "weighted_sigmoid_loss: migrate, class-weights and calibrate are commands of "
    "build/cpu/install/bin/weighted-loss now",
    file=sys.stderr,
)
sys.exit(2)
