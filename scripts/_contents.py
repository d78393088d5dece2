"""What was made, by content: a record of files, and which of them are no longer as they were."""

import hashlib
import json

from _common import write_atomic


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def write(record, of, folder=None, files=()):
    """Note in RECORD that these files of the folder were made of what OF stands for."""
    made = {path.relative_to(folder).as_posix(): digest(path) for path in files}
    write_atomic(record, json.dumps({"of": of, "files": made}, indent=0).encode())


def read(record):
    """What was noted; nothing where the record is missing or damaged."""
    try:
        noted = json.loads(record.read_text(encoding="utf-8"))
        return {"of": noted["of"], "files": dict(noted["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"of": None, "files": {}}


def changed(noted, folder):
    """The noted files that are missing or have other content."""
    return [folder / name for name, made in noted["files"].items() if digest(folder / name) != made]
