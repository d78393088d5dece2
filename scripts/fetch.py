#!/usr/bin/env python3
"""Put upstream's Caffe, as its developers released it, at build/source/caffe.

It is taken from the first of these that has it: a tree or tarball that the user names; what was
fetched before; the Debian source package; a source distribution on PyPI. Whatever the way, only
files are used that upstream's git ids prove (caffe_source/source.json): `git rev-parse
COMMIT:src` in a clone of upstream shows the same ones.

caffe_source/files.txt has what these ids stand for, file by file. It names the file in which a
refused tree differs, and those that git tracks although .gitignore names them.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))  # PYTHONSAFEPATH leaves it out

import _download
import _unified_diff
from _common import ROOT, Failure, first_line, program
from _git_tree import EXECUTABLE, FILE, git_id, read, tree_id

DATA = Path(__file__).resolve().parent / "caffe_source"
SOURCE = json.loads((DATA / "source.json").read_text())
WANTED = [*SOURCE["trees"], *SOURCE["files"]]
LISTED = {
    path: f"{mode} {blob}"
    for mode, blob, path in (
        line.split(" ", 2) for line in (DATA / "files.txt").read_text().splitlines()
    )
}


def main():
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("--source", type=Path, metavar="PATH", help="a Caffe tree or tarball")
    parser.add_argument(
        "--dest",
        type=Path,
        metavar="DIR",
        default=ROOT / "build" / "source" / "caffe",
        help="where to put it (default: build/source/caffe)",
    )
    arguments = parser.parse_args()
    fetch(arguments.source, arguments.dest)


def fetch(source, dest):
    """Make DEST upstream's tree, from SOURCE if one is named."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    with alone_in(dest.parent):
        if source:
            files = named(source)
        elif is_upstream(dest):
            return print(f"fetch: {dest} is upstream's Caffe: its git ids are right")
        else:
            files = found(dest.parent)
        if not (dest.is_dir() and upstream_part(dest) == files):
            place(files, dest)
        print(f"fetch: {dest} is upstream's Caffe {SOURCE['commit'][:7]}: its git ids are right")


@contextlib.contextmanager
def alone_in(folder):
    """Hold other runs off, and clear away what an interrupted one left."""
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in folder.glob(_download.UNFINISHED + "*"):
            shutil.rmtree(leftover)
        yield


def named(source):
    """The files of the tree or tarball that the user named."""
    files = upstream_part(source)
    if not any(path.startswith("src/caffe/") for path in files):
        raise Failure(f"{source} holds no Caffe: there is no src/caffe/ in it", 2)
    try:
        verify(files)
    except Failure as error:
        raise Failure(
            f"{source} is not upstream's Caffe {SOURCE['commit'][:7]}: {error}"
            " (to add the layer to a changed Caffe, run scripts/apply.py on it)",
            2,
        ) from None
    return files


def upstream_part(source):
    return read(source, WANTED, tracked=LISTED)


def is_upstream(dest):
    if not dest.is_dir():
        return False
    try:
        verify(upstream_part(dest), SOURCE["pypi"]["left_out"])
    except Failure as error:
        print(f"fetch: {dest} was changed and is fetched anew: {error}")
        return False
    return True


def found(folder):
    """The files of the first source that has them; downloads are kept in FOLDER."""
    sources = (
        (SOURCE["debian"], _download.from_debian, debian),
        (SOURCE["pypi"], _download.from_pypi, pypi),
    )
    for package, _, files_of in sources:
        if _download.is_whole(folder / package["file"], package["sha256"]):
            return files_of(folder / package["file"])
    reasons = []
    for package, download, files_of in sources:
        try:
            return files_of(download(package, folder))
        except Failure as error:
            reasons.append(f"{package['file']}: {error}")
            print(f"fetch: {reasons[-1]}", flush=True)
    raise Failure(f"no Caffe: {'; '.join(reasons)}; name a tree or tarball with CAFFE_SOURCE=PATH")


def debian(tarball):
    files = upstream_part(tarball)
    verify(files)
    return files


def pypi(tarball):
    left_out = SOURCE["pypi"]["left_out"]
    files = {p: entry for p, entry in upstream_part(tarball).items() if p not in left_out}
    for change in _unified_diff.parse((DATA / SOURCE["pypi"]["patch"]).read_bytes()):
        mode, old = files.get(change.path, (FILE, None))
        files[change.path] = mode, _unified_diff.apply(old, change, moved_ok=False)
    verify(files, left_out)
    print(f"fetch: {tarball.name}: left out and not checked: {', '.join(left_out)}")
    return files


def verify(files, may_lack=()):
    """Raise Failure unless FILES are upstream's. A path in MAY_LACK is right when it is missing."""
    for top, wanted in SOURCE["trees"].items():
        inside = {path[len(top) + 1 :]: files[path] for path in files if path.startswith(top + "/")}
        if (inside or top not in may_lack) and tree_id(inside) != wanted:
            refuse_first_difference(files, top)
    for path, wanted in SOURCE["files"].items():
        got = described(files.get(path))
        if (path in files or path not in may_lack) and got.split(" ")[-1] not in wanted:
            refuse(path, got, " or ".join(wanted))


def refuse(path, got, wanted):
    raise Failure(f"{path}: got {got}, wanted {wanted}")


def refuse_first_difference(files, top):
    for path in sorted({*LISTED, *files}):
        got, wanted = described(files.get(path)), LISTED.get(path, "nothing")
        if path.startswith(top + "/") and got != wanted:
            refuse(path, got, wanted)
    raise AssertionError(f"files.txt is not the list of the files in {top}")


def described(entry):
    return f"{entry[0]} {git_id('blob', entry[1])}" if entry else "nothing"


def place(files, dest):
    """Write FILES to DEST, which is at every moment a whole tree or not there."""
    with tempfile.TemporaryDirectory(prefix=_download.UNFINISHED, dir=dest.parent) as work:
        for path, (mode, data) in files.items():
            write(Path(work, "new", path), mode, data)
        if dest.exists():
            os.replace(dest, Path(work, "old"))
        os.replace(Path(work, "new"), dest)


def write(target, mode, data):
    """Write a file, and the folders that it is in."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    if mode == EXECUTABLE:
        readable = target.stat().st_mode & 0o444
        target.chmod(target.stat().st_mode | readable >> 2)


if __name__ == "__main__":
    program(main)
