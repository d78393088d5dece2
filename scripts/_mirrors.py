"""Whether the servers of apt's sources answer at all.

Behind a proxy that takes a connection and never answers, apt waits for each file anew.
"""

import re
import subprocess
import tempfile
from pathlib import Path

APT_HELPER = "/usr/lib/apt/apt-helper"
PATIENCE = 15  # seconds


def one_answers(addresses):
    """Whether one of these does, with whatever, through the proxy that apt is set up for."""
    with tempfile.TemporaryDirectory() as folder:
        files = (f"{folder}/{number}" for number in range(len(addresses)))
        pairs = [word for pair in zip(addresses, files) for word in pair]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            if pairs:
                subprocess.run([APT_HELPER, "download-file", *pairs], timeout=PATIENCE, **silent)
        except subprocess.TimeoutExpired:
            return any(Path(folder).iterdir())
        return True


def releases(targets):
    """The addresses of the suites' own files, in what `apt-get update --print-uris` prints."""
    return re.findall(r"^'(\S+/InRelease)'", targets, re.MULTILINE)
