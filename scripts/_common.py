"""What the programs in scripts/ share.

Python 3.6 and its standard library only, because apply.py imports this.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def fail(message, status=1):
    """Print one line, `<program>: <message>`, and exit; status 2 is for wrong input."""
    sys.stdout.flush()
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(status)


def write_atomic(path, data):
    """Write bytes so that PATH is at every moment the old file or the new one. The mode is kept."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix="." + path.name + ".", dir=str(path.parent))
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.chmod(temporary, _mode_for(path))
        os.replace(temporary, str(path))
    except BaseException:
        os.unlink(temporary)
        raise


def _mode_for(path):
    try:
        return path.stat().st_mode & 0o7777
    except FileNotFoundError:
        # mkstemp makes files private; a new file gets what the user's umask allows, as open() does.
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def run(argv, **kw):
    """Run a command; where it cannot start or does not succeed, exit with one line that names it.

    Keywords are those of subprocess.run(); with `check=False` the caller judges the exit status.
    """
    argv = [str(word) for word in argv]
    check = kw.pop("check", True)
    try:
        done = subprocess.run(argv, **kw)
    except OSError as error:
        fail(f"cannot run {argv[0]}: {error.strerror}")
    if check and done.returncode != 0:
        fail(f"{' '.join(argv)} failed with status {done.returncode}")
    return done
