"""What the tests share: Caffe's unpatched source, and the Caffe that was built from it."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def must_exist(path):
    assert path.exists(), f"{path} is missing: run `make runtest`"
    return path


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
def run_caffe(caffe_bin):
    """Run the caffe program; return the finished process, with its log in stderr."""

    def run(*arguments, cwd):
        return subprocess.run(
            [caffe_bin, *arguments], cwd=cwd, capture_output=True, text=True, timeout=600
        )

    return run
