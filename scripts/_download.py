"""Caffe's source over the network: through this machine's apt or its Python package index.

Which server is asked is for the machine's own configuration to say; no address is written here.
"""

import hashlib
import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

from _common import Failure, run
from _mirrors import PATIENCE, one_answers

# How the folders begin that an interrupted run leaves; the next one clears them away.
UNFINISHED = ".unfinished-"


NETWORK_ERRORS = (
    ConnectionError,
    TimeoutError,
    socket.timeout,  # another one before Python 3.10
    http.client.HTTPException,
    urllib.error.URLError,
)


class Unavailable(Failure):
    """A source that this machine cannot have: tests skip what needs it."""


def is_whole(path, sha256):
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def from_debian(package, folder):
    """Download the upstream tarball of a Debian source package into FOLDER; return its path.

    A package with the part --diff-only is that of Debian's changes instead.
    """
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder) as work:
        reasons = []
        for mirror in _mirrors(Path(work)):
            try:
                _apt_source(package, mirror, Path(work))
                downloaded = Path(work, package["file"])
                if not is_whole(downloaded, package["sha256"]):
                    raise Unavailable(f"{mirror} has another {package['file']}")
                return downloaded.replace(folder / package["file"])
            except Unavailable as error:
                reasons.append(str(error))
    raise Unavailable("; ".join(reasons) or "apt's sources name no Debian mirror")


def _mirrors(work):
    """The mirrors in the machine's apt sources, of either format, as apt itself reads them."""
    targets = _apt("apt-get", *_private(work), "update", "--print-uris")
    # Suites with a dash are those beside a release: security, updates, other people's.
    found = re.findall(r"^'(\S+)/dists/[^/-]+/main/binary-", targets, re.MULTILINE)
    return list(dict.fromkeys(found))


def _apt_source(package, mirror, work):
    if not one_answers([f"{mirror}/dists/{package['suite']}/InRelease"]):
        raise Unavailable(f"{mirror} did not answer in {PATIENCE} s")
    sources = work / "sources.list"
    signed = f"[signed-by={package['keyring']}]"
    sources.write_text(f"deb-src {signed} {mirror} {package['suite']} main\n")
    only_these = _options(("Dir::Etc::sourcelist", sources), ("Dir::Etc::sourceparts", "/dev/null"))
    apt = ["apt-get", *_private(work), *only_these]
    wanted = f"{package['package']}={package['version']}"
    print(f"fetch: Debian's source package {wanted}, from {mirror}", flush=True)
    _apt(*apt, "update", show=True)
    part = package.get("part", "--tar-only")
    _apt(*apt, "source", "--download-only", part, wanted, cwd=work, show=True)


def _private(work):
    """Options with which apt neither needs nor touches the machine's own state."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    return _options(
        ("Dir::State::lists", work / "lists"),
        ("Dir::Cache", work / "cache"),
        # As root, apt would become a user who may not be allowed into this folder.
        ("APT::Sandbox::User", "root"),
        ("APT::Update::Error-Mode", "any"),
        ("Acquire::Retries", 2),
        ("Acquire::http::Timeout", PATIENCE),
        ("Acquire::https::Timeout", PATIENCE),
    )


def _options(*settings):
    return [f"--option={name}={value}" for name, value in settings]


def _apt(*argv, show=False, cwd=None):
    """Run apt; return what it prints, or show that while it runs."""
    output = None if show else subprocess.PIPE
    # Messages are looked at below, so they must be apt's own, not a translation.
    environment = dict(os.environ, LC_ALL="C.UTF-8")
    try:
        done = run(
            argv,
            check=False,
            cwd=cwd,
            env=environment,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )
    except Failure as error:
        raise Unavailable(error) from None
    if done.returncode != 0:
        messages = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))]
        raise Unavailable(messages[0][2:].strip() if messages else f"{argv[0]} failed")
    return done.stdout


def from_pypi(package, folder):
    """Download a source distribution into FOLDER from the index that pip uses; return its path."""
    project = _index(folder).rstrip("/") + f"/{package['project']}/"
    print(f"fetch: {package['file']}, from {project}", flush=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder) as work:
        downloaded = Path(work, package["file"])
        try:
            _save(_link(project, package["file"]), downloaded)
        except NETWORK_ERRORS as error:
            reason = getattr(error, "reason", None) or error
            raise Unavailable(f"{project} cannot be reached: {reason}") from error
        if not is_whole(downloaded, package["sha256"]):
            raise Unavailable(f"{project} has another {package['file']}, or broke off")
        return downloaded.replace(folder / package["file"])


def _link(project, name):
    links = Links(project)
    with urllib.request.urlopen(project, timeout=PATIENCE) as page:
        links.feed(page.read().decode())
    if name not in links.found:
        raise Unavailable(f"{project} has no {name}")
    return links.found[name]


def _save(address, path):
    show = sys.stdout.isatty()
    with urllib.request.urlopen(address, timeout=PATIENCE) as stream, path.open("wb") as out:
        total = int(stream.headers.get("Content-Length") or 0)
        while True:
            piece = stream.read(1 << 18)
            if not piece:
                break
            out.write(piece)
            if show:
                print(f"\r{out.tell() / 1e6:.1f} of {total / 1e6:.1f} MB", end="", flush=True)
    print("\r" * show + f"fetch: {path.stat().st_size / 1e6:.1f} MB downloaded")


def _index(folder):
    """The index that pip is set up for. pip's help is the one place where any pip tells it."""
    # Wide enough that no line is broken inside the address.
    environment = dict(os.environ, COLUMNS="2000")
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder) as work:
        for python in _pythons_with_pip(Path(work)):
            show = [python, "-m", "pip", "download", "--help"]
            done = run(show, check=False, env=environment, capture_output=True, text=True)
            found = re.search(r"--index-url <url>.*?\(default (\S+?)\)", done.stdout, re.DOTALL)
            if found:
                return found.group(1)
    raise Unavailable("there is no pip to tell the index: install python3-venv")


def _pythons_with_pip(work):
    yield sys.executable
    # Debian's Python has its pip inside venv only.
    run([sys.executable, "-m", "venv", work], check=False, capture_output=True)
    if (work / "bin" / "python").exists():
        yield work / "bin" / "python"


class Links(HTMLParser):
    """The files that a page of a package index (PEP 503) links to: name to address."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.found = {}

    def handle_starttag(self, tag, attrs):
        if tag == "a" and dict(attrs).get("href"):
            url = urllib.parse.urljoin(self.base, dict(attrs)["href"])
            name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
            self.found[name] = url.partition("#")[0]
