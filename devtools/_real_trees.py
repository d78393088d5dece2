"""Caffe trees that a registry has, as their makers released them: downloaded once and unpacked.

scripts/caffe_source/source.json and forks.json pin each by hash. docs/forks.md says what each is
like.
"""

import json
from pathlib import Path

import _download
from _common import ROOT, output, run
from fetch import SOURCE, alone_in

KEPT = ROOT / "build" / "source"
FORKS = json.loads(Path(__file__).with_name("forks.json").read_text())


def debian(folder):
    """Debian's source package: upstream's tarball."""
    unpack(kept(SOURCE["debian"], _download.from_debian), folder)


def debian_patched(folder):
    """The same with Debian's patches, which is what Debian builds."""
    debian(folder)
    fork = FORKS["debian-patched"]
    package = {**SOURCE["debian"], "file": fork["patches"], "sha256": fork["sha256"]}
    archive = kept({**package, "part": "--diff-only"}, _download.from_debian)
    unpack(archive, folder / "debian")
    series = (folder / "debian" / "patches" / "series").read_text().split()
    for name in series:
        patch = folder / "debian" / "patches" / name
        run(["patch", "--quiet", "--strip=1", f"--input={patch}"], cwd=folder)


def brocolli_3(folder):
    """PyPI's sdist: upstream with two files changed."""
    unpack(kept(SOURCE["pypi"], _download.from_pypi), folder)


def brocolli_9(folder):
    """PyPI's sdist: SSD's layers, and more, on the Caffe before 1.0."""
    unpack(kept(FORKS["brocolli-9.0.2"], _download.from_pypi), folder)


TREES = {
    "debian": debian,
    "debian-patched": debian_patched,
    "brocolli-3.0.0": brocolli_3,
    "brocolli-9.0.2": brocolli_9,
}


def kept(package, download):
    """The package's file, downloaded unless it was before; _download.Unavailable where it cannot
    be."""
    file = KEPT / package["file"]
    KEPT.mkdir(parents=True, exist_ok=True)
    with alone_in(KEPT):
        return file if _download.is_whole(file, package["sha256"]) else download(package, KEPT)


def unpack(archive, folder):
    """Into FOLDER, without the one folder that all is in. The files become the user's own, or git
    would not answer in the trees that are repositories."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = output(["tar", "--list", "--file", archive])
    tops = {line.partition("/")[0] for line in listed.splitlines()}
    strip = ["--strip-components=1"] if len(tops) == 1 else []
    run(["tar", "--extract", "--no-same-owner", *strip, "--file", archive], cwd=folder)
