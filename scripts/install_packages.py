#!/usr/bin/env python3
"""Install the Debian packages that a purpose needs and that are missing.

A purpose is a list in scripts/packages: build, demo, test and so on. Where nothing is missing, this
does nothing and needs no rights. DEPS=off in the environment turns it off.
"""

import argparse
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))  # PYTHONSAFEPATH leaves it out

import _mirrors
from _common import ROOT, Failure, first_line, program, run

LISTS = ROOT / "scripts" / "packages"
INSTALL = ["apt-get", "install", "--yes", "--no-install-recommends"]
# Another apt, the nightly one for instance, may be at work: wait for it, seconds.
PATIENCE = ["--option", "DPkg::Lock::Timeout=600"]


def main():
    parser = argparse.ArgumentParser(description=first_line(__doc__))
    purposes = sorted(path.stem for path in LISTS.glob("*.txt"))
    parser.add_argument("purpose", nargs="+", choices=purposes)
    parser.add_argument(
        "--optional", action="store_true", help="continue without what cannot be installed"
    )
    arguments = parser.parse_args()
    if os.environ.get("DEPS") == "off":
        return
    install(missing(packages_for(arguments.purpose)), arguments.optional)


def packages_for(purposes):
    """The packages in these lists, each once, in order."""
    lines = (line for name in purposes for line in read_list(name))
    return list(dict.fromkeys(lines))


def read_list(name):
    lines = (line.partition("#")[0].strip() for line in (LISTS / f"{name}.txt").open())
    return [line for line in lines if line]


def missing(packages):
    if not shutil.which("dpkg-query") or not shutil.which("apt-get"):
        raise Failure(
            "this is no Debian: install what the files in scripts/packages name by your own means,"
            " then run it again with DEPS=off"
        )
    form = "${Package} ${db:Status-Status}\n"
    # Its status is 1 where it does not know a package, which is not a failure here.
    argv = ["dpkg-query", "--show", f"--showformat={form}", *packages]
    known = run(argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    installed = {
        line.split()[0] for line in known.stdout.splitlines() if line.endswith(" installed")
    }
    return [package for package in packages if package not in installed]


def install(packages, optional=False):
    if not packages:
        return
    print(f"install_packages: missing: {' '.join(packages)}", flush=True)
    by_hand = "apt-get update && " + " ".join([*INSTALL, *packages])
    problem = try_to_install(packages)
    if problem and not optional:
        raise Failure(f"{problem}: {by_hand}")
    if problem:
        print(f"install_packages: continuing without: {problem}: {by_hand}", flush=True)


def try_to_install(packages):
    """Install them; return None, or what stands in the way and who is to do it by hand."""
    root = as_root()
    if not root:
        return "neither root nor sudo here; have an administrator run"
    if not _mirrors.one_answers(_mirrors.releases(targets())):
        return (
            f"no mirror answered in {_mirrors.PATIENCE} s; look at the network and apt's proxy,"
            " then run it again, or as root"
        )
    if not installs(root, packages):
        return "apt-get failed, as it says above; put that right, or run as root"
    return None


def installs(root, packages):
    if simulates(packages) and apt(root, [*INSTALL, *packages]):
        return True
    # Something killed an installation before: dpkg wants that finished first.
    run([*root, "dpkg", "--configure", "-a"], check=False)
    # The machine's lists are missing, or so old that they name versions that are gone. Where only
    # somebody else's list cannot be had, update fails and Debian's packages install all the same.
    apt(root, ["apt-get", "update"])
    return apt(root, [*INSTALL, *packages])


def as_root():
    """The words before a command that make it run as root and ask nothing, or None."""
    words = ["env", "DEBIAN_FRONTEND=noninteractive"]
    if os.geteuid() == 0:
        return words
    return ["sudo", *words] if shutil.which("sudo") else None


def targets():
    """The files that apt's sources name, which apt-get prints."""
    keywords = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return run(["apt-get", "update", "--print-uris"], check=False, **keywords).stdout


def simulates(packages):
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return run([*INSTALL, "--simulate", *packages], check=False, **silent).returncode == 0


def apt(root, argv):
    """Run apt-get; return whether it succeeded."""
    process = subprocess.Popen([*root, argv[0], *PATIENCE, *argv[1:]])
    try:
        return process.wait() == 0
    except KeyboardInterrupt:
        # It has the signal, too, and ends by itself: in the midst of dpkg's work, after that.
        process.wait()
        raise


if __name__ == "__main__":
    program(main)
