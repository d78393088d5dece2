#!/usr/bin/python3
"""Make a virtual environment of Debian's Python, for what runs on the built Caffe.

It sees Debian's own packages (NumPy and so on: those that pycaffe is built against). With
--requirements it has pip and what that file names, and sees nothing else. An environment that is
complete and made for the same Python and requirements is left as it is; any other is made anew.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))  # PYTHONSAFEPATH leaves it out

from _common import first_line, program, run

PYTHON = Path("/usr/bin/python3")
STAMP = "complete"


def stamp_text(folder, python, requirements):
    """What it depends on: its programs name its place, it has Python's version and requirements."""
    ask = "import sys; print(sys.version)"
    asking = [python, "-I", "-c", ask]
    version = run(asking, remedy="apt-get install python3", stdout=subprocess.PIPE).stdout
    wanted = requirements.read_bytes() if requirements else b""
    place = os.fsencode(folder.resolve())
    return hashlib.sha256(b"\0".join([place, version, wanted])).hexdigest() + "\n"


def make_venv(folder, requirements=None, python=PYTHON):
    """Return the Python of the environment FOLDER, which is made where it is not there yet."""
    stamp = stamp_text(folder, python, requirements)
    inside = folder / "bin" / "python"
    if inside.exists() and (folder / STAMP).exists() and (folder / STAMP).read_text() == stamp:
        return inside
    print(f"make_venv: making {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    kind = [] if requirements else ["--system-site-packages", "--without-pip"]
    making = [python, "-I", "-m", "venv", *kind, folder]
    run(making, quiet=True, remedy="apt-get install python3-venv")
    if requirements:
        pip = [inside, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        argv = [*pip, "--requirement", requirements]
        run(argv, quiet=True, env=pip_environment(), remedy="is the network there?")
    # Last, so that an environment whose making was interrupted is not taken for a whole one.
    (folder / STAMP).write_text(stamp)
    return inside


def pip_environment():
    """A server that never answers ends pip within a minute, not five, unless the user says so."""
    return {"PIP_DEFAULT_TIMEOUT": "15", "PIP_RETRIES": "1", **os.environ}


def make_site(folder, packages):
    """The folder of the modules of an environment of these packages, which are for pip to name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    requirements = folder.with_suffix(".txt")
    requirements.write_text("".join(f"{package}\n" for package in packages))
    make_venv(folder, requirements)
    return next(folder.glob("lib/python3*/site-packages"))


def main():
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--requirements", type=Path, metavar="FILE", help="what pip installs")
    arguments = parser.parse_args()
    make_venv(arguments.folder, arguments.requirements)


if __name__ == "__main__":
    program(main)
