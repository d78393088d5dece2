"""python -m weighted_sigmoid_loss --version; and where this package's commands have gone."""

import sys

from . import __version__

if sys.argv[1:] == ["--version"]:
    print(f"weighted-sigmoid-loss {__version__}")
    sys.exit()
print(
    "weighted_sigmoid_loss: migrate, class-weights and calibrate are commands of "
    "build/cpu/install/bin/weighted-loss now",
    file=sys.stderr,
)
sys.exit(2)
