"""The tests of the installed wheel, in the environment that scripts/wheel.py makes."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# For the golden cases and the layer's bits. At the end: the copy of the package beside pycaffe is
# not what is tested.
sys.path += [str(ROOT / "tests"), str(ROOT / "build" / "cpu" / "install" / "python")]


@pytest.fixture(scope="session")
def root():
    return ROOT
