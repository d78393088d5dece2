"""What `make cuda` installed, on a machine without a GPU."""

import os
import subprocess
from pathlib import Path

import pytest

import cuda_toolkit
from build import Build
from cuda_toolkit import GPU_DEVICES

TESTS = Path(__file__).resolve().parent
CUDA = Build("cuda", jobs=1)
PROGRAM = CUDA.install / "bin" / "caffe"
pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="needs `make cuda`")
NO_GPU = pytest.mark.skipif(any(map(os.path.exists, GPU_DEVICES)), reason="there is a GPU")
SOLVER = """
net_param {
  layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 } } }
}
base_lr: 0 lr_policy: "fixed" max_iter: 1 solver_mode: GPU snapshot_after_train: false
"""


def run(*arguments):
    """Only of the program's own is what it finds its libraries by."""
    kept = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
    argv = [PROGRAM, *arguments]
    done = subprocess.run(
        argv, env={**kept, "GLOG_logtostderr": "1"}, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


def test_version():
    assert run("--version") == (0, "caffe version 1.0.0\n")


@NO_GPU
@pytest.mark.parametrize(
    "arguments", [("device_query", "-gpu=0"), ("device_query", "-gpu=all"), ("train", "-gpu=0,1")]
)
def test_gpu_is_refused(arguments, tmp_path):
    solver = tmp_path / "solver.prototxt"
    solver.write_text(SOLVER)
    status, said = run(*arguments, f"-solver={solver}")
    assert status != 0
    assert f"{arguments[-1]}: this machine has no GPU that CUDA can use (" in said
    assert "leave -gpu out and set solver_mode: CPU" in said


@NO_GPU
def test_solver_mode_gpu_is_refused_and_cpu_trains(tmp_path):
    solver = tmp_path / "solver.prototxt"
    solver.write_text(SOLVER)
    status, said = run("train", f"-solver={solver}")
    assert status != 0 and "-gpu=0: this machine has no GPU that CUDA can use" in said
    solver.write_text(SOLVER.replace("solver_mode: GPU", "solver_mode: CPU"))
    status, said = run("train", f"-solver={solver}")
    assert status == 0 and "Optimization Done." in said


def test_programs_for_a_gpu_start():
    def ended(name, *arguments):
        argv = [CUDA.programs / name, *arguments]
        return subprocess.run(argv, capture_output=True, timeout=60).returncode

    assert ended("golden", TESTS / "golden.json", "cpu") == 0
    assert [ended(name) for name in ("golden", "nccl", "device")] == [2, 2, 2]
    assert cuda_toolkit.unresolved(CUDA.tests) == []
