"""The tests of the installed Python package, in the environment that scripts/wheel.py makes."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PYCAFFE = ROOT / "build" / "cpu" / "install" / "python"
# Beside pycaffe is a copy of the package, without the kernel.
sys.path[:] = [folder for folder in sys.path if Path(folder) != PYCAFFE]
# Processes that tests start see what is installed, and nothing else.
os.environ.pop("PYTHONPATH", None)

sys.path += [str(ROOT / "tests"), str(PYCAFFE)]


@pytest.fixture(scope="session")
def root():
    return ROOT
