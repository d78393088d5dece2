"""Unified diffs, as `diff -u` writes them: read, apply without fuzz, write. Python 3.6."""

import difflib
import re

from _common import Failure

HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
NO_NEWLINE = b"\\ No newline at end of file\n"


class FileDiff:
    """The hunks for one file: each is (line it starts at, lines before, lines after)."""

    def __init__(self, path, creates):
        self.path = path
        self.creates = creates
        self.hunks = []


def split_lines(data):
    """Lines with their ends. Only a line feed ends a line: form feeds and the like are text."""
    return re.findall(rb"[^\n]*\n|[^\n]+", data)


def parse(data):
    """The FileDiffs of a patch for `patch -p1`; text before a file's `---` line is a comment.

    Raises Failure, in words that follow the patch's name, where it cannot be read.
    """
    lines = split_lines(data)
    files = []
    at = 0
    while at < len(lines):
        if lines[at].startswith(b"--- ") and lines[at + 1 : at + 2] != []:
            files.append(_file_header(lines[at], lines[at + 1]))
            at += 2
        elif lines[at].startswith(b"@@ ") and files:
            at = _read_hunk(lines, at, files[-1].hunks)
        else:
            at += 1
    if not files or not all(one.hunks for one in files):
        raise Failure("is not a unified diff")
    return files


def _file_header(minus, plus):
    old, new = (line[4:].split(b"\t")[0].strip().decode() for line in (minus, plus))
    creates = old == "/dev/null"
    path = new[2:]
    if not new.startswith("b/") or not (creates or old == "a/" + path):
        raise Failure(f"edits {old} to {new}: wanted a/PATH to b/PATH")
    if ".." in path.split("/"):
        raise Failure(f"leaves the tree: {path}")
    return FileDiff(path, creates)


def _read_hunk(lines, at, hunks):
    match = HUNK.match(lines[at])
    if not match:
        raise Failure(f"has a hunk header that is none: {lines[at].decode().strip()}")
    left, right = (1 if match.group(n) is None else int(match.group(n)) for n in (2, 4))
    before, after = [], []
    at += 1
    while len(before) < left or len(after) < right:
        mark, text = (lines[at][:1], lines[at][1:]) if at < len(lines) else (b"", b"")
        sides = {b" ": (before, after), b"-": (before,), b"+": (after,)}.get(mark)
        if sides is None:
            raise Failure("breaks off inside a hunk")
        at += 1
        if lines[at : at + 1] == [NO_NEWLINE]:
            text = text[:-1]
            at += 1
        for side in sides:
            side.append(text)
    if (len(before), len(after)) != (left, right):
        raise Failure("has a hunk with other line counts than its header says")
    hunks.append((int(match.group(1)), before, after))
    return at


def apply(data, file_diff, moved_ok=True):
    """The file's bytes after the diff. DATA is None for a file that does not exist.

    Every line before must be there exactly. A hunk whose lines are not at the line that it names
    is taken where they are (a fork has other lines above) if that is one place only, and only with
    MOVED_OK. Raises Failure where the diff does not fit.
    """
    if file_diff.creates:
        if data is not None:
            raise Failure(f"{file_diff.path} exists already")
        return b"".join(file_diff.hunks[0][2])
    if data is None:
        raise Failure(f"{file_diff.path} does not exist")
    lines = split_lines(data)
    result = []
    done = 0
    for start, before, after in file_diff.hunks:
        at = _find(lines, start, before, moved_ok)
        if at is None or at < done:
            raise Failure(f"{file_diff.path}: the hunk at line {start} does not match")
        result += lines[done:at] + after
        done = at + len(before)
    return b"".join(result + lines[done:])


def apply_once(data, file_diff):
    """As apply(), but a file that has every line after the diff already stays as it is.

    A file whose lines all end in CR LF keeps these ends.
    """
    if data and data.count(b"\n") == data.count(b"\r\n") > 0:
        return apply_once(data.replace(b"\r\n", b"\n"), file_diff).replace(b"\n", b"\r\n")
    try:
        return apply(data, file_diff)
    except Failure:
        if data is None or not _is_applied(data, file_diff):
            raise
        return data


def _is_applied(data, file_diff):
    if file_diff.creates:
        return data == b"".join(file_diff.hunks[0][2])
    backward = FileDiff(file_diff.path, False)
    backward.hunks = [(start, after, before) for start, before, after in file_diff.hunks]
    try:
        apply(data, backward)
    except Failure:
        return False
    return True


def _find(lines, start, before, moved_ok):
    size = len(before)
    stated = start - 1 if size else start
    if lines[stated : stated + size] == before:
        return stated
    places = [at for at in range(len(lines) - size + 1) if lines[at : at + size] == before]
    return places[0] if moved_ok and size and len(places) == 1 else None


def write(path, old, new):
    """The diff for `patch -p1` between two contents of a file; None is a file that is not there."""
    names = [
        "/dev/null" if old is None else "a/" + path,
        "/dev/null" if new is None else "b/" + path,
    ]
    # Latin-1 takes every byte to one character and back.
    sides = [[line.decode("latin-1") for line in split_lines(side or b"")] for side in (old, new)]
    lines = difflib.unified_diff(sides[0], sides[1], names[0], names[1])
    encoded = (line.encode("latin-1") for line in lines)
    return b"".join(line if line.endswith(b"\n") else line + b"\n" + NO_NEWLINE for line in encoded)
