#!/usr/bin/python3
"""Build our C++ tests and run them under the sanitizers, on each instruction set there is.

AddressSanitizer, which looks for leaks as well, and UndefinedBehaviorSanitizer end the program at
the first thing that they find. What it printed is in build/sanitize/tests.SET.log. Then come the
tests of the kernel's threads, under ThreadSanitizer, which excludes the others: threads.log there.
Exit status 0 means that on every instruction set that this machine has all tests passed and nothing
was found.
"""

import argparse
import os
import re
import sys

from _common import ROOT, Failure, program
from _gtest import run_gtest
from _kernel_tests import compile_tests
from _only_tests import only_tests
from build import Build, add_jobs, only_one

# Whatever they find ends the program. The assertions are libstdc++'s, of indices and the like.
SANITIZERS = [
    "-fsanitize=address,undefined,float-cast-overflow",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    "-D_GLIBCXX_ASSERTIONS",
]
SET = "WEIGHTED_SIGMOID_LOSS_ISA"
# No set has this name: the kernel takes the best one and says which there are.
BEST = "best"
SETS = re.compile(rf"{SET}={BEST} is not used: this machine has ([\w ]+);")
FOUND = re.compile(
    r"(?:ERROR|WARNING): \w+Sanitizer|: runtime error: |: Failure$|Assertion '.*' failed"
)
EXCERPT = 40  # lines
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "die_after_fork=0",  # or a forked process may have no threads
}
THREAD_SANITIZER = ["-O1", "-g1", "-fsanitize=thread"]
POOL = ROOT / "src" / "caffe" / "util" / "weighted_sigmoid_loss_pool.cpp"


def build_tests(jobs):
    """Caffe and our tests; return the Build."""
    options = [
        "-DCMAKE_BUILD_TYPE=Sanitize",  # one of its own, without -O3
        f"-DCMAKE_CXX_FLAGS_SANITIZE={' '.join(['-O1', '-g1', *SANITIZERS])}",
        *only_tests(),
    ]
    build = Build("cpu", jobs, ROOT / "build" / "sanitize", options)
    with only_one(build.folder):
        build.prepare()
        build.compile([build.tests.name])
    return build


def run_set(build, name):
    """Run all tests on one instruction set; return what they printed."""
    return run_tests(name, build.tests, build.folder / f"tests.{name}.log", build.tree)


def run_threads(folder):
    tests = folder / "threads"
    compile_tests("g++", THREAD_SANITIZER, ["_pool"], [POOL], tests)
    run_tests("threads", tests, folder / "threads.log", folder)


def run_tests(name, tests, log, folder):
    """Run a program; return what it printed, if nothing was wrong."""
    print(f"sanitize: {name}", flush=True)
    done = run_gtest(tests, log, cwd=folder, env={**os.environ, **OPTIONS, SET: name})
    if done.problem:
        lines = done.text.splitlines()
        at = next((i for i, line in enumerate(lines) if FOUND.search(line)), -EXCERPT)
        print(*lines[at:][:EXCERPT], sep="\n", file=sys.stderr)
        raise Failure(done.problem)
    print(f"sanitize: {name}: {len(done.results)} tests passed, nothing found", flush=True)
    return done.text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_jobs(parser)
    build = build_tests(parser.parse_args().jobs)
    sets = SETS.search(run_set(build, BEST))
    if not sets:
        raise Failure(f"with {SET}={BEST} the kernel did not say which sets this machine has")
    best, *others = sets[1].split()
    print(f"sanitize: {BEST} was {best}", flush=True)
    for name in others:
        run_set(build, name)
    run_threads(build.folder)


if __name__ == "__main__":
    program(main, "interrupted; the next run resumes where this one stopped")
