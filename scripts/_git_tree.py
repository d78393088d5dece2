"""Source trees as git sees them: read from a folder or a tarball, and named by git's ids.

A tree is a dict: path below its root, with slashes, to (mode, bytes), where mode is git's.
"""

import hashlib
import lzma
import os
import re
import tarfile
import zlib

from _common import Failure

FILE, EXECUTABLE, LINK, FOLDER = "100644", "100755", "120000", "40000"

# Left out of every tree, besides what its own .gitignore names.
CACHES = [
    "*.egg-info",
    ".cache",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
]


# .gitignore's, as regular expressions. Sets ([a-z]) are not among them: upstream uses none.
WILDCARDS = {
    "/**/": "/(?:.*/)?",
    "**/": "(?:.*/)?",
    "/**": "/.*",
    "*": "[^/]*",
    "?": "[^/]",
}


def git_id(kind, data):
    """The id that git gives to an object; kind is blob or tree."""
    header = f"{kind} {len(data)}\0".encode()
    return hashlib.sha1(header + data, usedforsecurity=False).hexdigest()


def tree_id(files):
    """The id of git's tree object for FILES; paths are below that tree."""
    entries = {}
    below = {}
    for path, (mode, data) in files.items():
        name, slash, rest = path.partition("/")
        if slash:
            below.setdefault(name, {})[rest] = (mode, data)
        else:
            entries[name] = (mode, git_id("blob", data))
    for name, inner in below.items():
        entries[name] = (FOLDER, tree_id(inner))
    # git sorts a folder as if its name ended in a slash.
    order = sorted(entries, key=lambda name: os.fsencode(name + "/" * (name in below)))
    packed = b""
    for name in order:
        mode, entry_id = entries[name]
        packed += mode.encode() + b" " + os.fsencode(name) + b"\0" + bytes.fromhex(entry_id)
    return git_id("tree", packed)


def read(source, wanted, tracked=()):
    """The files of the folder or tarball SOURCE that are one of the paths WANTED or below one.

    Left out are caches and what the tree's .gitignore names; that .gitignore comes along. The
    paths TRACKED are never left out: git's ignore rules are for files that it does not track.
    Raises Failure where SOURCE is neither.
    """
    if source.is_dir():
        files = _read_folder(source, wanted)
    elif source.is_file():
        files = _read_tarball(source, wanted)
    else:
        raise Failure(f"{source} does not exist", 2)
    ignored = Ignore(files.get(".gitignore", (FILE, b""))[1])
    return {path: entry for path, entry in files.items() if path in tracked or not ignored(path)}


class Ignore:
    """Tells which paths are caches or are named by a .gitignore at the tree's root."""

    def __init__(self, gitignore):
        lines = [line.rstrip() for line in gitignore.decode("utf-8", "replace").split("\n")]
        lines = CACHES + [line for line in lines if line and not line.startswith("#")]
        self.rules = [self._rule(line) for line in lines]

    @staticmethod
    def _rule(line):
        keep = line.startswith("!")
        pattern = line[keep:]
        folders_only = pattern.endswith("/")
        pattern = pattern.rstrip("/")
        anchored = "/" in pattern
        words = re.split(r"(/\*\*/|\*\*/|/\*\*|\*|\?)", pattern.lstrip("/"))
        regex = "".join(WILDCARDS.get(word) or re.escape(word) for word in words)
        return keep, folders_only, re.compile(regex if anchored else "(?:.*/)?" + regex)

    def __call__(self, path):
        # What is below an ignored folder is ignored, whatever later rules say.
        parts = path.split("/")
        above = ("/".join(parts[:end]) for end in range(1, len(parts)))
        return any(self._matches(folder, True) for folder in above) or self._matches(path, False)

    def _matches(self, path, is_folder):
        for keep, folders_only, regex in reversed(self.rules):
            if (is_folder or not folders_only) and regex.fullmatch(path):
                return not keep
        return False


def _is_wanted(path, wanted):
    return path == ".gitignore" or any(path == top or path.startswith(top + "/") for top in wanted)


def _read_folder(root, wanted):
    files = {}

    def read_entry(path):
        full = root / path
        if full.is_symlink():
            files[path] = (LINK, os.fsencode(os.readlink(full)))
        elif full.is_file():
            mode = EXECUTABLE if full.stat().st_mode & 0o100 else FILE
            files[path] = (mode, full.read_bytes())
        elif full.is_dir():
            for name in os.listdir(full):
                read_entry(f"{path}/{name}")

    for path in [".gitignore", *wanted]:
        read_entry(path)
    return files


def _read_tarball(tarball, wanted):
    try:
        with tarfile.open(tarball) as archive:
            members = {_normal(member.name): member for member in archive}
            top = _top_folder(members)
            files = {}
            for name, member in members.items():
                path = name[len(top) :]
                if not name.startswith(top) or not _is_wanted(path, wanted):
                    continue
                if member.issym():
                    files[path] = (LINK, os.fsencode(member.linkname))
                elif member.isfile() or member.islnk():
                    mode = EXECUTABLE if member.mode & 0o100 else FILE
                    files[path] = (mode, archive.extractfile(member).read())
            return files
    except (tarfile.TarError, EOFError, KeyError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise Failure(f"{tarball} is neither a folder nor a whole tarball", 2) from error


def _normal(name):
    return name[2:] if name.startswith("./") else name


def _top_folder(members):
    """The one folder that everything in the tarball is in, with a slash, or nothing."""
    names = {name.partition("/")[0] for name in members if name not in ("", ".")}
    return "".join(names) + "/" if len(names) == 1 else ""
