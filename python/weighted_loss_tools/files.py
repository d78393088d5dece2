"""Reading and rewriting the files that a user names."""

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from weighted_sigmoid_loss.errors import Failure, Refused


def refuse_special(path):
    """A pipe without a writer would wait, a device never end, and a new file would replace both."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise Refused(f"{path}: {getattr(error, 'strerror', error)}") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise Refused(f"{path}: not a regular file: give the file itself, not a pipe or a device")


def read_text(path):
    """A character for each byte."""
    return read_bytes(path).decode("latin-1")


def read_bytes(path):
    refuse_special(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None


def write_atomic(path, data):
    """Rewrite a file so that it is at every moment the old one or the new one; links stay links.

    The mode stays, and the owner where the system allows it.
    """
    refuse_special(path)
    target = Path(os.path.realpath(path))
    try:
        # Not named after the target, whose name may be as long as names can be.
        handle, temporary = tempfile.mkstemp(prefix=".weighted-loss.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            old = target.stat()
            with contextlib.suppress(PermissionError):  # only root may give a file away
                os.chown(temporary, old.st_uid, old.st_gid)
            shutil.copymode(target, temporary)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise Failure(f"{path}: cannot be written: {error.strerror}") from None
