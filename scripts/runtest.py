#!/usr/bin/python3
"""Run all tests on the Caffe that `scripts/build.py cpu --tests` built, and count them.

These are upstream's C++ tests with ours, upstream's Python tests, and ours, and the tests of the
Python package, which is built for them. Each C++ case in upstream's unpatched source must have run.
With --device gpu they are those of tests/gpu, on what `scripts/build.py cuda --tests` built; pytest
takes its options from PYTEST_ADDOPTS, such as -k. The last line has the totals; exit status 0 means
that all of them passed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))  # PYTHONSAFEPATH leaves it out

from _common import ROOT, Failure, first_line, program, run
from _gpu import require_gpu
from _gtest import TIMEOUT, run_gtest
from _upstream_cases import upstream_cases
from build import Build
from make_venv import make_venv
from wheel import installed_wheel

SOURCE = ROOT / "build" / "source" / "caffe"
CPU = ROOT / "build" / "cpu"
PYCAFFE = CPU / "install" / "python"
CUDA = Build("cuda", jobs=1)
TESTS = ROOT / "tests"


def cpp_tests(scratch):
    """Run the C++ tests; return {name: passed}. One that never ended has not passed."""
    tests = Build("cpu", jobs=1).tests
    if not tests.exists():
        raise Failure(
            "the C++ tests are not built; run `make runtest`, or scripts/build.py cpu --tests"
        )
    # They name their files relative to Caffe's top folder.
    (scratch / "src").symlink_to(CPU / "caffe" / "src")
    images = CPU / "caffe" / "examples" / "images"
    if images.exists():
        (scratch / "examples").symlink_to(images.parent)
    else:
        print("this Caffe source lacks examples/images: stand-ins of the same sizes are used")
        python = make_venv(ROOT / "build" / "venv")
        run([python, TESTS / "stand_in_images.py", scratch / "examples" / "images"])
    there = {"cwd": scratch, "env": environment(scratch)}
    done = run_gtest(tests, CPU / "cpp_tests.log", "-*GPU*", **there)
    done.show_failures()
    if done.problem:
        print(done.problem)
    if done.problem and not done.excerpts:
        return {**done.results, tests.name: False}
    return done.results


def missing_cases(upstream, results):
    missing = sorted(upstream - set(results))
    for name in missing:
        print(f"--- {name}: a case of upstream's that did not run")
    return missing


def python_tests(scratch, name, *arguments, python=None, path=PYCAFFE):
    """Run pytest, which prints its own results; return {test: passed, or None where skipped}."""
    report = scratch / f"{name}.xml"
    python = python or make_venv(ROOT / "build" / "venv")
    argv = [python, "-m", "pytest", "--quiet", f"--junitxml={report}", *arguments]
    cwd = scratch if name == "upstream" else ROOT
    there = {"cwd": cwd, "env": environment(cwd, path), "stdin": subprocess.DEVNULL}
    run(argv, check=False, timeout=TIMEOUT, **there)
    if not report.exists():
        raise Failure(f"pytest did not finish on the {name} tests; the lines above say why")
    results = {}
    for number, case in enumerate(ElementTree.parse(report).iter("testcase")):
        outcome = {child.tag for child in case}
        passed = not outcome & {"failure", "error"}
        results[number] = None if "skipped" in outcome else passed
    # pytest's other failures (a file that cannot be imported) are cases with an error, too.
    return results


def environment(cwd, path=PYCAFFE):
    """With this PYTHONPATH, without the user's own packages, and with assert statements."""
    made = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    made.update(PYTHONPATH=str(path), PYTHONNOUSERSITE="1")
    # Upstream's tests leave temporary files behind.
    return made if cwd == ROOT else {**made, "TMPDIR": str(cwd)}


def table(suites):
    """One line a suite, and the line of totals."""
    total = Counter()
    for name, results in suites.items():
        counts = Counter(results.values())
        total += counts
        words = [
            f"{counts[True]:5} passed",
            f"{counts[False]:4} failed",
            f"{counts[None]:3} skipped",
        ]
        print(f"{name:24}", *words, sep="  ")
    skipped = f", {total[None]} skipped" if total[None] else ""
    print(f"{total[True]} passed, {total[False]} failed{skipped}", flush=True)
    return total[True] > 0 and total[False] == 0


def cpu_suites(scratch):
    suites = {}
    heading("C++ tests, upstream's and ours")
    results = cpp_tests(scratch)
    upstream = upstream_cases(SOURCE)
    results.update(dict.fromkeys(missing_cases(upstream, results), False))
    suites["C++, upstream's"] = {k: v for k, v in results.items() if k in upstream}
    suites["C++, ours"] = {k: v for k, v in results.items() if k not in upstream}
    heading("Python tests, upstream's")
    there = CPU / "caffe" / "python" / "caffe" / "test"
    options = [
        "-p",
        "no:cacheprovider",
        "--disable-warnings",
        "-c",
        os.devnull,
        f"--rootdir={there}",
    ]
    suites["Python, upstream's"] = python_tests(scratch, "upstream", *options, there)
    heading("Python tests, ours")
    suites["Python, ours"] = python_tests(scratch, "our")
    heading("Python tests, the package's")
    # Nothing else on the path: our sources would hide the wheel.
    options = [f"--confcutdir={TESTS / 'package'}", TESTS / "package"]
    only = {"python": installed_wheel(), "path": ""}
    suites["Python, the package's"] = python_tests(scratch, "package", *options, **only)
    return suites


def gpu_suites(scratch):
    """The programs' output goes into the report, which names what passed as well."""
    gpu = require_gpu()
    if not CUDA.programs.exists():
        raise Failure(
            "the tests for a GPU are not built; run `make runtest DEVICE=gpu`, or "
            "scripts/build.py cuda --tests"
        )
    heading(f"Tests on {gpu['name']}")
    options = ["-rs", "--durations=0", "--override-ini=junit_logging=all", TESTS / "gpu"]
    # This Python, since a bundle has no virtual environment; it brings pytest.
    this = {"python": sys.executable, "path": CUDA.install / "python"}
    return {"On the GPU": python_tests(scratch, "gpu", *options, **this)}


def parse_arguments():
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="(%(default)s)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep pytest's XML reports here")
    return parser.parse_args()


def main():
    args = parse_arguments()
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="runtest.", dir=ROOT / "build") as folder:
        scratch = Path(folder)
        try:
            suites = {"cpu": cpu_suites, "gpu": gpu_suites}[args.device](scratch)
        finally:  # those that there are, whatever ended it
            if args.output:
                args.output.mkdir(parents=True, exist_ok=True)
                for report in scratch.glob("*.xml"):
                    shutil.copy(report, args.output)
    print()
    return 0 if table(suites) else 1


def heading(text):
    print(f"== {text}", flush=True)


if __name__ == "__main__":
    program(main)
