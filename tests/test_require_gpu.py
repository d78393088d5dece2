"""scripts/_gpu.py, on a stand-in for NVIDIA's driver."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import stand_in_gpu
from stand_in_program import shell

import _gpu
from _common import Failure

PROGRAM = Path(_gpu.__file__)


def run_program(**environment):
    argv = [sys.executable, PROGRAM]
    return subprocess.run(
        argv, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )


def test_gpu_is_described(tmp_path):
    done = run_program(**stand_in_gpu.driver(tmp_path / "driver"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Made-up GPU, compute capability 9.0, driver 580.95.05\n"


@pytest.mark.parametrize(
    ("driver", "words"),
    [({"count": 0}, "(CUDA error 0)"), ({"init": 100}, "(CUDA error 100)")],
)
def test_driver_without_a_gpu(tmp_path, driver, words):
    done = run_program(**stand_in_gpu.driver(tmp_path / "driver", **driver))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"_gpu.py: no GPU: NVIDIA's driver finds none {words}\n"


def test_machine_without_a_driver(monkeypatch):
    monkeypatch.setattr(_gpu, "DRIVER", "libno_such_driver.so.1")
    with pytest.raises(
        Failure, match=r"^no GPU: NVIDIA's driver .* is not on this machine$"
    ) as told:
        _gpu.require_gpu()
    assert told.value.status == 2


@pytest.mark.parametrize("script", ["echo it has failed; exit 9", "true"])
def test_driver_whose_version_is_unknown(tmp_path, monkeypatch, script):
    shell(tmp_path / "nvidia-smi", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert _gpu.driver_version() == "unknown"
