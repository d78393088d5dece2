"""The tests of the installed Python package. scripts/runtest.py runs them in build/package-venv,
into which scripts/wheel.py has installed the wheel."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
INSTALLED = importlib.util.find_spec("weighted_sigmoid_loss._kernel") is not None

if INSTALLED:
    # pycaffe comes last, since a copy of the package without the kernel is beside it.
    sys.path += [str(ROOT / "tests"), str(ROOT / "build" / "cpu" / "install" / "python")]
else:
    # Not installed, as in the tests' own environment: here is nothing to test.
    collect_ignore_glob = ["test_*.py"]
