"""The kernel's C++ tests, forced to each instruction set."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "build" / "cpu" / "cmake" / "caffe" / "test" / "test.testbin"
# TestWalk and TestSoftTargets go through every set by themselves.
FILTER = "WeightedSigmoidLossSumTest*:WeightedSigmoidLossElementsTest*-*.TestWalk"


@pytest.mark.parametrize("name", ["avx512", "avx2", "baseline"])
def test_kernel(name):
    environment = {**os.environ, "WEIGHTED_SIGMOID_LOSS_ISA": name}
    done = subprocess.run(
        [PROGRAM, f"--gtest_filter={FILTER}"], env=environment, capture_output=True, text=True
    )
    if f"{name} is not used" in done.stderr:
        pytest.skip(f"this machine has no {name}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"\[  PASSED  \] (\d+) tests", done.stdout)[1]) >= 30
