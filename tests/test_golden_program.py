"""tests/gpu/golden.cpp, the golden cases in C++, in the mode that needs no GPU."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from build import Build

TESTS = Path(__file__).resolve().parent
CASES = json.loads((TESTS / "golden.json").read_text())


@pytest.fixture
def golden(tmp_path):
    """Runs the program on some cases; returns exit status and lines."""
    program = Build("cpu", jobs=1).programs / "golden"
    assert program.exists(), f"{program} is missing: run `make runtest`"

    def run(cases, mode="cpu", **environment):
        path = tmp_path / "cases.json"
        path.write_text(cases if isinstance(cases, str) else json.dumps(cases))
        argv = [program, path, mode]
        done = subprocess.run(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            env={**os.environ, **environment},
        )
        return done.returncode, done.stdout.splitlines()

    return run


@pytest.mark.parametrize("name", ["avx512", "avx2", "baseline"])
def test_cases_are_within_the_guarantee(golden, name):
    status, lines = golden(CASES, WEIGHTED_SIGMOID_LOSS_ISA=name)
    if f"{name} is not used" in lines[0]:
        pytest.skip(f"this machine has no {name}")
    assert status == 0
    assert lines[-1].startswith(f"{len(CASES)} golden cases on the cpu, 0 failures: loss 0.")
    assert [line.split()[:2] for line in lines[:-1]] == [["ok", case["name"]] for case in CASES]


@pytest.mark.parametrize("what", ["loss", "grad"])
def test_wrong_result_is_a_failure(golden, what):
    wrong = dict(CASES[0])
    off = 1 + 6 * 2.0**-23
    wrong[what] = off * wrong[what] if what == "loss" else [off * g for g in wrong[what]]
    status, lines = golden([CASES[0], wrong])
    assert status == 1
    assert lines[0].startswith("ok ") and lines[1].startswith("FAILED ")
    assert "2 golden cases on the cpu, 1 failures" in lines[-1]


def test_nothing_is_no_success(golden):
    assert golden([])[0] == 1


@pytest.mark.parametrize(("cases", "mode"), [("{", "cpu"), (CASES, "gpu")])
def test_wrong_input(golden, cases, mode):
    assert golden(cases, mode)[0] == 2
