"""Put the layer SigmoidCrossEntropyWeightLoss into a Caffe source tree, yours or a stock one.

    scripts/apply.py TREE                 the layer: new files, a message and a field in caffe.proto
    scripts/apply.py TREE --modernize     the same, and the toolchain fixes of caffe_patch/series
    scripts/apply.py TREE --remove        every byte as it was before
    scripts/apply.py TREE --check         print what would change as a diff, change nothing
    scripts/apply.py TREE --patch FILE    write the change as a patch for `patch -p1`, not to TREE

Each call says anew what TREE is to look like: without --modernize, the fixes of an earlier
--modernize are taken back. What is as it should be is not written again. An earlier version of ours
is brought up to date. A fix that does not fit TREE is left out whole, and named. A tree that is not
Caffe, that the layer does not fit (docs/forks.md), that has a layer, file, message, field or field
number of ours from elsewhere, in which a file of ours was edited since, or in which git has
uncommitted changes of a file that is to change, is left as it is, with a line that says so. Other
uncommitted changes do not matter. What --remove needs is in
TREE/.sigmoid_cross_entropy_weight_loss. If the program is stopped midway, run it again, or with
--remove.

Afterwards build the tree as you always did: with CMake, or with make and your Makefile.config.

Exit status: 0 done (with --check: nothing to change), 1 failure (with --check: would change),
2 wrong input (with --check: any error).
"""

import argparse
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))  # PYTHONSAFEPATH leaves it out

import _caffe_proto
import _caffe_tree
import _unified_diff
from _applied_tree import AppliedTree, refused
from _caffe_tree import PROTO
from _common import ROOT, Failure, first_line, program, write_atomic
from _uncommitted import uncommitted

OVERLAID = ["include/caffe", "src/caffe"]
SOURCES = {".hpp", ".cuh", ".cpp", ".cu"}
FRAGMENT = ROOT / "proto" / "sigmoid_cross_entropy_weight_loss.proto"
MODES = ROOT / "proto" / "normalization_mode.proto"
TESTS = ("include/caffe/test/", "src/caffe/test/")
SERIES = ROOT / "caffe_patch" / "series"


def main(argv=None):
    args = parse_arguments(argv)
    try:
        return act(args)
    except OSError as error:
        if not args.check or isinstance(error, BrokenPipeError):
            raise
        raise Failure(f"{error.filename or args.tree}: {error.strerror}", 2) from None


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=first_line(__doc__),
        epilog=(__doc__ or "").partition("\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tree", metavar="TREE", type=Path, help="the Caffe source tree")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--modernize", action="store_true", help="with the toolchain fixes")
    what.add_argument("--remove", action="store_true", help="take everything back")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--check", action="store_true", help="print the diff, write nothing")
    how.add_argument("--patch", metavar="FILE", type=Path, help="write the change as a patch")
    args = parser.parse_args(argv)
    if args.remove and args.patch:
        parser.error("argument --patch: not allowed with argument --remove")
    return args


def act(args):
    tree = AppliedTree(args.tree)
    if args.remove and not tree.files:
        check_is_caffe(tree)
    wanted, remarks = ({}, []) if args.remove else wanted_files(tree, args.modernize)
    if args.patch:
        write_patch(tree, wanted, args.patch)
        return tell(remarks, sys.stderr)
    changes = tree.changes(wanted)
    if args.check:
        for path, now, then in changes:
            sys.stdout.buffer.write(_unified_diff.write(path, now, then))
        sys.stdout.flush()
    tree.check_not_edited()
    remarks += check_committed(tree, changes)
    if args.check:
        tell(remarks, sys.stderr)
        return 1 if changes else 0
    tree.make(wanted)
    report(tree, changes, args.remove)
    message = addition().message
    return tell(remarks + ([] if args.remove else list(_caffe_tree.notes(args.tree, message))))


def check_is_caffe(tree):
    if tree.original(PROTO) is None:
        raise refused(f"{tree.root} is not a Caffe source tree: it has no {PROTO}")


def check_committed(tree, changes):
    """Refuse to change what git has no copy of; what is ours already, our record has."""
    paths = [path for path, now, _ in changes if now is not None and path not in tree.files]
    try:
        found = uncommitted(tree.root, paths)
    except Failure as error:
        return [f"not looked for uncommitted changes: {error}"]
    if found:
        raise refused(
            f"{tree.root / found[0]} has changes that are not committed"
            + (f", and so have {len(found) - 1} more that are to change" if found[1:] else "")
            + ": commit or stash them, and run this again"
        )
    return []


def tell(lines, stream=None):
    for line in lines:
        print(f"note: {line}", file=stream or sys.stdout)
    return 0


def report(tree, changes, removed):
    verbs = {(True, False): "added", (False, False): "changed", (False, True): "removed"}
    for path, now, then in changes:
        print(f"{verbs[now is None, then is None]} {path}")
    if not changes:
        print(f"{tree.root}: nothing to {'remove' if removed else 'change'}")


def write_patch(tree, wanted, target):
    stock = ((path, tree.original(path), wanted[path]) for path in sorted(wanted))
    data = b"".join(_unified_diff.write(path, old, new) for path, old, new in stock if old != new)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, data)
    print(f"wrote {target}: apply it with `patch -p1 < {target.name}` in the tree")


# What a tree is to look like


def addition(fragment=FRAGMENT):
    return _caffe_proto.Addition(fragment.read_text(encoding="utf-8"))


def wanted_files(tree, modernize):
    """{path: bytes} for every file that differs from the tree's original, or is new; what to say of
    it, a line each."""
    reason = _caffe_tree.why_not(tree.root, tree.original)
    if reason:
        raise refused(f"{tree.root} {reason}")
    wanted, remarks = new_files(tree)
    if modernize:
        remarks += apply_series(tree, wanted)
    proto = wanted.get(PROTO, tree.original(PROTO))
    try:
        wanted[PROTO] = addition().add_to(proto)
        if not _caffe_tree.normalization_modes(tree.original):
            modes = addition(MODES)
            wanted[PROTO] = modes.add_to(wanted[PROTO])
            remarks.append(
                f"{PROTO} gets {modes.extended}'s {modes.field} = {modes.number}, which the tree's "
                "other layers do not read"
            )
    except Failure as error:
        raise refused(f"{tree.root / PROTO} {error}: left as it is") from None
    return wanted, remarks


def new_files(tree):
    check_layer_is_new(tree, addition().message[: -len("Parameter")])
    wanted = _caffe_tree.forwarders(tree.original)
    remarks = []
    tests = _caffe_tree.has_gtest(tree.root)
    if not tests:
        remarks.append("the layer's tests are left out: the tree has no gtest in src")
    for path, source in overlay():
        if tree.original(path) is not None:
            raise refused(f"{tree.root / path} exists and is not ours: left as it is")
        if tests or not path.startswith(TESTS):
            wanted[path] = source.read_bytes()
    return wanted, remarks


def overlay():
    """(path in a tree, file of ours) of every new file."""
    for folder in OVERLAID:
        for source in sorted((ROOT / folder).rglob("*")):
            if source.suffix in SOURCES:
                yield source.relative_to(ROOT).as_posix(), source


def check_layer_is_new(tree, layer_type):
    registration = re.compile(
        rf"^[^\S\n]*REGISTER_LAYER_(?:CLASS|CREATOR)\s*\(\s*{layer_type}\b".encode(),
        re.MULTILINE,
    )
    for source in sorted((tree.root / "src" / "caffe").rglob("*.c*")):
        path = source.relative_to(tree.root).as_posix()
        if source.is_file() and registration.search(tree.original(path) or b""):
            raise refused(f"{source} already has a layer {layer_type}: left as it is")


def series():
    """The patches, in order: one name a line, `#` starts a comment."""
    lines = (line.split("#")[0].strip() for line in SERIES.read_text(encoding="utf-8").splitlines())
    return [SERIES.parent / line for line in lines if line]


def apply_series(tree, wanted):
    """Apply the toolchain patches to WANTED, each on top of those before; return what was left out.

    A patch has one purpose, so it goes in whole or not at all. A fork may have made the same fix
    to a file, or may lack the file: then there is nothing left to do in that file.
    """
    left_out = []
    for patch in series():
        edits = _unified_diff.parse(patch.read_bytes())
        before = {one.path: wanted.get(one.path, tree.original(one.path)) for one in edits}
        there = [one for one in edits if before[one.path] is not None]
        try:
            wanted.update(
                {one.path: _unified_diff.apply_once(before[one.path], one) for one in there}
            )
        except Failure as error:
            left_out.append(f"caffe_patch/{patch.name} does not fit and is left out: {error}")
    return left_out


if __name__ == "__main__":
    program(main, "interrupted: run it again to finish, or with --remove to take it back")
