"""What the tests share: Caffe's unpatched source, and the Caffe that was built from it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def must_exist(path):
    assert path.exists(), f"{path} is missing: run `make runtest`"
    return path


@pytest.fixture(autouse=True)
def caffes_log(monkeypatch):
    """The programs that a test runs log all, whatever an earlier test's imports have set."""
    monkeypatch.delenv("GLOG_minloglevel", raising=False)


@pytest.fixture(scope="session")
def pristine():
    """Upstream's source tree, to be copied and not written to."""
    return must_exist(ROOT / "build" / "source" / "caffe")


@pytest.fixture(scope="session")
def caffe_install():
    return must_exist(ROOT / "build" / "cpu" / "install")


@pytest.fixture(scope="session")
def caffe_bin(caffe_install):
    return caffe_install / "bin" / "caffe"


@pytest.fixture(scope="session")
def run_example(caffe_install):
    """Run a module of examples as the Makefile does; install: whose Caffe it finds."""

    def run(module, *arguments, install=caffe_install, start=subprocess.run, **keywords):
        path = f"{ROOT / 'scripts'}:{install / 'python'}"
        keywords = keywords or {"capture_output": True, "timeout": 600}
        environment = {**os.environ, "PYTHONPATH": path}
        argv = [sys.executable, "-m", module, *arguments]
        return start(argv, cwd=ROOT, env=environment, text=True, **keywords)

    return run


@pytest.fixture
def tools_command(monkeypatch, capfd):
    """Run one of the tools in this process; return its exit status, output and errors."""
    from weighted_loss_tools import __main__

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["weighted-loss", *map(str, arguments)])
        capfd.readouterr()  # Caffe's log of what the test itself has run
        status = __main__.main()
        return status, *capfd.readouterr()

    return run
