#!/usr/bin/python3
"""Put the layer into forks of Caffe, build them by their own Makefiles, and run our C++ tests.

One is real, PyPI's brocolli-caffe 9.0.2: SSD's layers, and more, on the Caffe before 1.0, with
field numbers of its own. The other is a stand-in for the Caffe of 2015. Each is made in
build/forks, where apply.py --modernize changes it as it would a user's; nothing else in it is
changed. What the compiler prints goes to build/forks/build.log, and what the tests print to
build/forks/NAME.log. Exit status 0 means that all tests passed.
"""

import argparse
import shutil
import sysconfig

import _download
import _stand_in_trees
import apply
from _common import ROOT, Failure, program
from _gtest import run_gtest
from _real_trees import brocolli_9
from build import SOURCE, Build, add_jobs, build_environment, only_one

FOLDER = ROOT / "build" / "forks"
MULTIARCH = sysconfig.get_config_var("MULTIARCH")
# brocolli-caffe's own Makefile.config, but for its folders of a conda.
CONFIG = f"""\
CPU_ONLY := 1
USE_OPENCV := 0
USE_LEVELDB := 0
USE_LMDB := 0
BLAS := open
INCLUDE_DIRS := /usr/include/hdf5/serial
LIBRARY_DIRS := /usr/lib/{MULTIARCH}/hdf5/serial
BUILD_DIR := build
"""
OURS = sorted(path.name for path in (ROOT / "src" / "caffe" / "test").glob("test_*.cpp"))
# Layers of the fork's, and upstream's that ours resembles: they must work as before.
THEIRS = ["test_sigmoid_cross_entropy_loss_layer.cpp", "test_permute_layer.cpp"]


def stand_in_of_2015(tree):
    if not SOURCE.is_dir():
        raise Failure("Caffe's source is not here; run `make forks`, or scripts/fetch.py")
    shutil.copytree(SOURCE, tree, symlinks=True)
    _stand_in_trees.caffe_2015(tree)


FORKS = {"brocolli-caffe-9.0.2": brocolli_9, "stand-in-2015": stand_in_of_2015}


def get(name, tree):
    if tree.exists():
        return
    partial = FOLDER / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        FORKS[name](partial)
    except _download.Unavailable as error:
        raise Failure(f"no {name}: {error}") from None
    partial.rename(tree)


def make(build, name, tree):
    """The library and a program of the tests, by the fork's Makefile."""
    config = FOLDER / "Makefile.config"
    config.write_text(CONFIG)
    tests = [path for path in (tree / "src/caffe/test").glob("*.cpp") if path.name in OURS + THEIRS]
    sources = " ".join(str(path.relative_to(tree)) for path in sorted(tests))
    words = [f"-j{build.jobs}", f"CONFIG_FILE={config}", f"TEST_SRCS={sources}"]
    print(f"forks: compiling {name}, {build.jobs} at a time: see {build.log}", flush=True)
    build.run(["make", "-C", tree, *words, "test"])


def run_tests(name, tree):
    tests = next(tree.glob(".*_release/test/test_all.testbin"))
    done = run_gtest(tests, FOLDER / f"{name}.log", "-*GPU*", cwd=tree, env=build_environment())
    done.show_failures()
    return done


def report(name, done):
    """A line for our tests and one for the fork's."""
    for whose, names in (("ours", True), ("the fork's", False)):
        passed = [ok for case, ok in done.results.items() if ("Weight" in case) == names]
        print(f"{name}: {whose}: {sum(passed)} passed, {len(passed) - sum(passed)} failed")
        if not passed:
            raise Failure("these did not run")
    if done.problem:
        raise Failure(done.problem)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_jobs(parser)
    parser.add_argument("only", metavar="NAME", nargs="*", help=f"of {', '.join(FORKS)}")
    args = parser.parse_args()
    unknown = set(args.only) - set(FORKS)
    if unknown:
        parser.error(f"no fork {', '.join(sorted(unknown))}: there are {', '.join(FORKS)}")
    build = Build("forks", args.jobs)
    with only_one(FOLDER):
        build.log.write_text("")
        for name in args.only or FORKS:
            tree = FOLDER / name
            get(name, tree)
            apply.main([str(tree), "--modernize"])
            make(build, name, tree)
            report(name, run_tests(name, tree))


if __name__ == "__main__":
    program(main, "interrupted; the next run resumes where this one stopped")
