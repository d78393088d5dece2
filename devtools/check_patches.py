"""Check caffe_patch/: the series lists every patch once and in order, each patch says why, and each
applies to a stock Caffe on top of those before it, every line where the patch says it is.

Prints one line for each thing that is wrong. Exit status: 0 all well, 1 not, 2 no tree to try on.
"""

import argparse
from pathlib import Path

import _unified_diff
from _common import ROOT, Failure, program
from apply import SERIES, series

# PyPI's copy of upstream lacks these, which the build with CMake does not need.
FOR_MAKE = ["Makefile", "Makefile.config.example"]
STOCK = ROOT / "build" / "source" / "caffe"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", metavar="TREE", type=Path, nargs="?", default=STOCK)
    tree = parser.parse_args().tree
    if not tree.is_dir():
        raise Failure(f"{tree} is not a folder: run scripts/fetch.py, or name a stock Caffe", 2)
    problems = list(check_list()) + list(check_patches(tree))
    for problem in problems:
        print("caffe_patch/" + problem)
    return 1 if problems else 0


def check_list():
    listed = [patch.name for patch in series()]
    present = {patch.name for patch in SERIES.parent.glob("*.patch")}
    if listed != sorted(set(listed)):
        yield "series: not in the order of the numbers, each once"
    for name in sorted(present - set(listed)):
        yield f"series: does not list {name}"
    for name in sorted(set(listed) - present):
        yield f"series: lists {name}, which does not exist"


def check_patches(tree):
    patched = {}
    for patch in series():
        if not patch.is_file():
            continue
        data = patch.read_bytes()
        if not says_why(data):
            yield f"{patch.name}: wants a title, an empty line and a reason above the diff"
        try:
            apply_strictly(data, tree, patched)
        except Failure as error:
            yield f"{patch.name}: {error}"


def says_why(data):
    title, _, why = data.decode().partition("--- ")[0].partition("\n\n")
    return title.strip() != "" and "\n" not in title and why.strip() != ""


def apply_strictly(data, tree, patched):
    """Apply to the files of TREE as PATCHED has them, {path: bytes}, and keep the result there."""
    for one in _unified_diff.parse(data):
        source = tree / one.path
        before = patched.get(one.path, source.read_bytes() if source.is_file() else None)
        if before is None and one.path in FOR_MAKE:
            continue
        patched[one.path] = _unified_diff.apply(before, one, moved_ok=False)


if __name__ == "__main__":
    program(main)
