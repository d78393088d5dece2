#!/usr/bin/python3
"""Check the format and style of the files that are ours; all findings are printed.

Python: ruff. C++ and CUDA: clang-format, and Caffe's own linter, scripts/cpp_lint.py of its source.
caffe_patch/: check_patches.py. --fix formats the files first.
"""

import argparse
import os
import subprocess

from _common import ROOT, program, run
from apply import SOURCES
from make_venv import PYTHON, make_venv

CPP_LINT = ROOT / "build" / "source" / "caffe" / "scripts" / "cpp_lint.py"
REQUIREMENTS = ROOT / "devtools" / "lint_requirements.txt"
# All else knows nothing of Caffe, so that Caffe's own functions are not for it.
LAYER = "sigmoid_cross_entropy_weight_loss_layer"
NOT_FOR_KERNEL = ["caffe/alt_fn", "caffe/random_fn"]


def cpp_files():
    folders = [ROOT / name for name in ("include", "src", "python", "tests", "benchmarks")]
    found = (path for folder in folders for path in folder.rglob("*"))
    return sorted(p.relative_to(ROOT) for p in found if p.suffix in SOURCES)


def commands(fix):
    """Each as (what it is, its command line)."""
    programs = make_venv(ROOT / "build" / "lint-venv", REQUIREMENTS).parent
    files = cpp_files()
    layer = [path for path in files if LAYER in path.stem]
    kernel = [path for path in files if path not in layer]
    if fix:
        yield "ruff, fixing", [programs / "ruff", "check", "--quiet", "--fix", "."]
        yield "ruff format, writing", [programs / "ruff", "format", "--quiet", "."]
        yield "clang-format, writing", [programs / "clang-format", "-i", *files]
    yield "ruff", [programs / "ruff", "check", "--quiet", "."]
    yield "ruff format", [programs / "ruff", "format", "--quiet", "--diff", "."]
    yield "clang-format", [programs / "clang-format", "--dry-run", "--Werror", *files]
    without = ",".join(f"-{rule}" for rule in NOT_FOR_KERNEL)
    yield "cpp_lint, the layer", [PYTHON, CPP_LINT, *layer]
    yield "cpp_lint, the kernel", [PYTHON, CPP_LINT, f"--filter={without}", *kernel]
    yield "caffe_patch", [PYTHON, ROOT / "devtools" / "check_patches.py"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fix", action="store_true", help="format the files first")
    failed = []
    # cpp_lint uses a module that later Pythons warn of.
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    for name, argv in commands(parser.parse_args().fix):
        done = run(
            argv,
            check=False,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        print(f"lint: {name}: {'failed' if done.returncode else 'ok'}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stdout)
    return 1 if failed else 0


if __name__ == "__main__":
    program(main)
