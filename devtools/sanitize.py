#!/usr/bin/python3
"""Run our C++ tests as `scripts/build.py sanitize` built them, on each instruction set there is.

AddressSanitizer, which looks for leaks as well, and UndefinedBehaviorSanitizer end the program at
the first thing that they find. What it printed is in build/sanitize/tests.SET.log. Exit status 0
means that on every instruction set that this machine has all tests passed and nothing was found.
"""

import argparse
import os
import re
import sys

from _common import Failure, program
from _gtest import run_gtest
from build import Build

BUILD = Build("sanitize", jobs=1)
SET = "WEIGHTED_SIGMOID_LOSS_ISA"
# No set has this name: the kernel takes the best one and says which there are.
BEST = "best"
SETS = re.compile(rf"{SET}={BEST} is not used: this machine has ([\w ]+);")
FOUND = re.compile(r"ERROR: \w+Sanitizer|: runtime error: |: Failure$|Assertion '.*' failed")
EXCERPT = 40  # lines
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def run_tests(name):
    """Run all tests on one instruction set; return what they printed, if nothing was wrong."""
    print(f"sanitize: {name}", flush=True)
    environment = {**os.environ, **OPTIONS, SET: name}
    log = BUILD.folder / f"tests.{name}.log"
    done = run_gtest(BUILD.tests, log, cwd=BUILD.tree, env=environment)
    if done.problem:
        lines = done.text.splitlines()
        at = next((i for i, line in enumerate(lines) if FOUND.search(line)), -EXCERPT)
        print(*lines[at:][:EXCERPT], sep="\n", file=sys.stderr)
        raise Failure(done.problem)
    print(f"sanitize: {name}: {len(done.results)} tests passed, nothing found", flush=True)
    return done.text


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if not BUILD.tests.exists():
        raise Failure("the tests are not built; run `make sanitize`, or scripts/build.py sanitize")
    sets = SETS.search(run_tests(BEST))
    if not sets:
        raise Failure(f"with {SET}={BEST} the kernel did not say which sets this machine has")
    best, *others = sets[1].split()
    print(f"sanitize: {BEST} was {best}", flush=True)
    for name in others:
        run_tests(name)


if __name__ == "__main__":
    program(main)
