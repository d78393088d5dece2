"""What the tests on a GPU share: the GPU, and the programs that `make runtest DEVICE=gpu` built."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cuda_toolkit
from _common import ROOT, Failure
from _gpu import require_gpu
from build import Build

CUDA = Build("cuda", jobs=1)
TIMEOUT = 1200  # seconds per program, many times what any of them takes


@pytest.fixture(scope="session", autouse=True)
def gpu(record_testsuite_property):
    """The GPU, which the report names; without one, or what was built for it, tests are skipped."""
    try:
        found = require_gpu()
    except Failure as failure:
        pytest.skip(str(failure))
    if not CUDA.programs.exists():
        pytest.skip("needs `make runtest DEVICE=gpu`")
    built = json.loads(CUDA.prebuilt.read_text()) if CUDA.prebuilt.exists() else {}
    for name, value in {**found, **built}.items():
        record_testsuite_property(name, value)
    return found


@pytest.fixture(scope="session")
def run(gpu):
    """Run a built program; return its exit status and what it printed, which the report has too."""
    try:
        environment = {**cuda_toolkit.environment(CUDA.tests), "GLOG_logtostderr": "1"}
    except Failure as failure:
        pytest.fail(str(failure), pytrace=False)
    places = {"caffe": CUDA.install / "bin" / "caffe", "test.testbin": CUDA.tests}

    def run(name, *arguments, under=(), cwd=None, **variables):
        argv = [*under, places.get(name, CUDA.programs / name), *arguments]
        done = subprocess.run(
            list(map(str, argv)),
            cwd=cwd,
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
        )
        print(done.stdout)
        return done.returncode, done.stdout

    return run


@pytest.fixture(scope="session")
def demo(gpu, tmp_path_factory):
    """A folder with the demo's net and its data; a bundle brings it."""
    folder = CUDA.folder / "demo"
    if not folder.exists():
        folder = tmp_path_factory.mktemp("demo") / "net"
        path = os.pathsep.join(map(str, [ROOT / "scripts", ROOT]))
        program = Path(__file__).with_name("demo_net.py")
        environment = {**os.environ, "PYTHONPATH": path}
        subprocess.run([sys.executable, program, folder], env=environment, check=True)
    return folder
