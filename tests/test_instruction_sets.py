"""The kernel's C++ tests, forced to each instruction set."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "build" / "cpu" / "cmake" / "caffe" / "test" / "test.testbin"
# TestWalk, TestClimb and TestSoftTargets go through every set by themselves.
# Without the threads, which compute nothing.
KERNEL = sorted(
    path
    for path in (ROOT / "src" / "caffe" / "util").glob("weighted_sigmoid_loss*.cpp")
    if path.stem != "weighted_sigmoid_loss_pool"
)
FILTER = (
    "WeightedSigmoidLossSumTest*:WeightedSigmoidLossElementsTest*:*.TestWorstSoftTarget"
    "-*.TestWalk:*.TestClimb"
)


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


@pytest.mark.parametrize("flag", ["-ffast-math", "-Ofast", "-ffinite-math-only"])
@pytest.mark.parametrize("source", KERNEL, ids=lambda path: path.stem)
def test_arithmetic_that_is_not_ieees_is_refused(source, flag):
    argv = ["g++", "-std=c++11", "-fsyntax-only", f"-I{ROOT / 'include'}", source]
    assert subprocess.run(argv, capture_output=True).returncode == 0
    run = subprocess.run([*argv, flag], capture_output=True, text=True)
    assert run.returncode != 0
    assert "compile it without -ffast-math" in run.stderr
