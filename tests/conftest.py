"""What the tests share: Caffe's unpatched source, and the Caffe that was built from it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# What the tests import. Those of the package import the installed one and do without this file.
IMPORTED = ["scripts", "devtools", "python", ".", "build/cpu/install/python"]
sys.path[:0] = [str(ROOT / folder) for folder in IMPORTED]
collect_ignore = ["package"]


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


@pytest.fixture
def hung():
    """A server on this machine, or a proxy, that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


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


@pytest.fixture
def class_weights(tools_command):
    return lambda *arguments: tools_command("class-weights", *arguments)


@pytest.fixture
def counted(class_weights):
    """The report of a run that succeeds."""

    def run(*arguments):
        status, out, err = class_weights(*arguments, "--json")
        assert status == 0, err
        report = json.loads(out)
        assert [f"warning: {one}" for one in report["warnings"]] == err.splitlines()
        return report

    return run


@pytest.fixture
def refused(class_weights, tmp_path):
    """The one line of a run that is refused; it must write nothing."""

    def run(*arguments):
        before = sorted(tmp_path.rglob("*"))
        status, out, err = class_weights(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("class-weights: ") and err.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before
        return err

    return run
