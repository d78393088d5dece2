"""What a run ran on and with: processor, caches, memory, libraries, this repository's commit."""

import datetime
import hashlib
import os
import platform
import re
import subprocess
import time
from pathlib import Path

from benchmarks.devices import ROOT


def describe():
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "caches": caches(),
        "memory_bytes": memory("MemTotal"),
        "system": f"{distribution()}, {platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
        "clock_resolution": time.get_clock_info("perf_counter").resolution,
    }


def cpu_name():
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def caches():
    """Bytes of each level of the first core's data caches, as {"L1": ...}."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = (
            (index / name).read_text().strip() for name in ("type", "level", "size")
        )
        if kind != "Instruction":
            found[f"L{level}"] = int(size.rstrip("K")) << 10
    return found


def memory(field):
    """A figure of /proc/meminfo in bytes."""
    text = Path("/proc/meminfo").read_text()
    return int(re.search(rf"^{field}:\s*(\d+) kB$", text, re.MULTILINE)[1]) << 10


def distribution():
    try:
        text = Path("/etc/os-release").read_text()
    except FileNotFoundError:
        return platform.system()
    return re.search(r'^PRETTY_NAME="?([^"\n]*)', text, re.MULTILINE)[1]


def source(commit=None):
    """The commit, whether files differ from it, and today's date; null without git.

    commit: where what is measured was built elsewhere, of what.
    """
    changes = None if commit else git("status", "--porcelain")
    commit = commit or git("rev-parse", "HEAD")
    return {
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
        "date": datetime.date.today().isoformat(),
    }


def git(*arguments):
    try:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
