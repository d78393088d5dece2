"""What the programs in scripts/, devtools/, benchmarks/ and examples/ share.

Python 3.6 and its standard library only, because apply.py imports this.
"""

import contextlib
import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Failure(Exception):
    """An expected failure: a line that says what is wrong and what to do.

    status: the program's exit status; 2 is for wrong input.
    """

    def __init__(self, message, status=1):
        super().__init__(message)
        self.status = status


def program(main, interrupted="interrupted; run it again"):
    """Run a program's main() and exit with the status that it returns; None is 0.

    What it may expect to fail with, and Ctrl-C, become one line on stderr, `NAME: message`.
    """
    try:
        status = main()
        sys.stdout.flush()
    except Failure as error:
        status = _tell(error, error.status)
    except KeyboardInterrupt:
        status = _tell(interrupted, 130)
    except BrokenPipeError:
        # Whoever reads the output, as `head` does, has read enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:
        status = _tell(_words(error), 1)
    sys.exit(status)


def first_line(doc):
    """Of a program's docstring, which PYTHONOPTIMIZE=2 takes away."""
    return (doc or "").partition("\n")[0]


def _tell(message, status):
    sys.stdout.flush()
    path = Path(sys.argv[0])
    name = path.parent.name if path.name == "__main__.py" else path.name
    print(f"{name}: {message}", file=sys.stderr)
    return status


def _words(error):
    words = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        words += ": make room and run it again"
    return f"{error.filename}: {words}" if error.filename else words


def write_atomic(path, data, folder=None):
    """Write bytes so that PATH is at every moment the old file or the new one.

    The mode is kept, and the owner where the system allows it. A link stays, and its target is
    written. What is not a regular file, as a pipe or a device, is written into. The new file is
    begun beside the old one, or in FOLDER, which must be on the same disk.
    """
    path = Path(os.path.realpath(str(path)))
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    folder = str(folder or path.parent)
    handle, temporary = tempfile.mkstemp(prefix="." + path.name + ".", dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        _imitate(path, temporary)
        os.replace(temporary, str(path))
    except BaseException:
        os.unlink(temporary)
        raise


def _imitate(path, temporary):
    """Give the new file the old one's owner and mode."""
    try:
        old = path.stat()
    except FileNotFoundError:
        # mkstemp makes files private; a new file gets what the user's umask allows, as open() does.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        return
    with contextlib.suppress(PermissionError):  # Only root may give a file away.
        os.chown(temporary, old.st_uid, old.st_gid)
    os.chmod(temporary, old.st_mode & 0o7777)


def run(argv, check=True, quiet=False, remedy="", **keywords):
    """Run a command; return what subprocess.run() does, whose keywords these are.

    With QUIET, what it prints is shown only where it fails. Raises Failure, which names the command
    and the REMEDY, where it cannot start, where it is not done within the timeout, and unless CHECK
    is False where it does not succeed.
    """
    argv = [str(word) for word in argv]
    if quiet:
        keywords.update(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")
    try:
        done = subprocess.run(argv, **keywords)
    except OSError as error:
        what = f"cannot run {argv[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        what = f"{argv[0]} was not done after {keywords['timeout']} s"
    else:
        if not check or done.returncode == 0:
            return done
        what = f"{' '.join(argv)} failed with status {done.returncode}"
        if quiet:
            print(done.stdout, end="", file=sys.stderr)
            if "No space left on device" in done.stdout:
                remedy = "the disk is full"
    raise Failure(f"{what}; {remedy}" if remedy else what)


def output(argv, **keywords):
    """What the command prints, as text; it must succeed."""
    keywords.update(stdout=subprocess.PIPE, universal_newlines=True)
    return run(argv, **keywords).stdout
