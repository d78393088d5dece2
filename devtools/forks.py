#!/usr/bin/python3
"""Put the layer into a real fork of Caffe, build that by its own Makefile, and run our C++ tests.

The fork is PyPI's brocolli-caffe 9.0.2: SSD's layers, and more, on the Caffe before 1.0, with field
numbers of its own. It is fetched to build/forks, where apply.py --modernize changes it as it would
a user's; nothing else in it is changed. What the compiler prints goes to build/forks/build.log, and
what the tests print to build/forks/tests.log. Exit status 0 means that all tests passed.
"""

import argparse
import shutil
import sysconfig

import _download
import apply
from _common import ROOT, Failure, program
from _gtest import run_gtest
from _real_trees import brocolli_9
from build import Build, add_jobs, build_environment, only_one

NAME = "brocolli-caffe 9.0.2"
FOLDER = ROOT / "build" / "forks"
TREE = FOLDER / "brocolli-caffe-9.0.2"
MULTIARCH = sysconfig.get_config_var("MULTIARCH")
# The fork's own Makefile.config, but for its folders of a conda, and with OpenMP, which
# caffe_patch/60-makefile-openmp.patch brings.
CONFIG = f"""\
CPU_ONLY := 1
USE_OPENMP := 1
USE_OPENCV := 0
USE_LEVELDB := 0
USE_LMDB := 0
BLAS := open
INCLUDE_DIRS := /usr/include/hdf5/serial
LIBRARY_DIRS := /usr/lib/{MULTIARCH}/hdf5/serial
BUILD_DIR := build
"""
OURS = sorted(path.name for path in (ROOT / "src" / "caffe" / "test").glob("test_*.cpp"))
# Layers of the fork's, and upstream's that ours resembles: they must go on as they did.
THEIRS = ["test_sigmoid_cross_entropy_loss_layer.cpp", "test_permute_layer.cpp"]


def fetch():
    if TREE.exists():
        return
    partial = FOLDER / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        brocolli_9(partial)
    except _download.Unavailable as error:
        raise Failure(f"no {NAME}: {error}") from None
    partial.rename(TREE)


def make(build):
    """The library and a program of the tests, by the fork's Makefile."""
    config = FOLDER / "Makefile.config"
    config.write_text(CONFIG)
    sources = " ".join(f"src/caffe/test/{name}" for name in [*OURS, *THEIRS])
    words = [f"-j{build.jobs}", f"CONFIG_FILE={config}", f"TEST_SRCS={sources}"]
    print(f"forks: compiling {NAME}, {build.jobs} at a time: see {build.log}", flush=True)
    build.run(["make", "-C", TREE, *words, "test"])


def run_tests():
    tests = next(TREE.glob(".*_release/test/test_all.testbin"))
    done = run_gtest(tests, FOLDER / "tests.log", "-*GPU*", cwd=TREE, env=build_environment())
    done.show_failures()
    return done


def report(done):
    """A line for our tests and one for the fork's."""
    for whose, names in (("ours", True), ("the fork's", False)):
        passed = [ok for name, ok in done.results.items() if ("Weight" in name) == names]
        print(f"{NAME}: {whose}: {sum(passed)} passed, {len(passed) - sum(passed)} failed")
        if not passed:
            raise Failure("these did not run")
    if done.problem:
        raise Failure(done.problem)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_jobs(parser)
    build = Build("forks", parser.parse_args().jobs)
    with only_one(FOLDER):
        fetch()
        apply.main([str(TREE), "--modernize"])
        build.log.write_text("")
        make(build)
        report(run_tests())


if __name__ == "__main__":
    program(main, "interrupted; the next run resumes where this one stopped")
