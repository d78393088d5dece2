#!/usr/bin/python3
"""Build Caffe with the layer: from nothing to build/VARIANT/install, doing only what is not done.

Caffe's source is fetched (scripts/fetch.py) and copied to build/VARIANT/caffe, the layer and the
toolchain fixes are applied there (scripts/apply.py), CMake and ninja build it in
build/VARIANT/cmake, and what is built is installed. build/VARIANT/install is at every moment a
whole installation or absent. What the compiler prints goes to build/VARIANT/build.log.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import apply
import fetch
from _common import ROOT, Failure, program

SOURCE = ROOT / "build" / "source" / "caffe"
SCRIPTS = ROOT / "scripts"
LAUNCHER = ROOT / "python" / "weighted-loss"
# Debian's folders alone: pyenv's and conda's hold other compilers, libraries and Pythons.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
FOREIGN = re.compile(r"PYTHON|CONDA|CMAKE_PREFIX_PATH|LD_LIBRARY_PATH|LIBRARY_PATH|C.*INCLUDE_PATH")
GIB = 1 << 30
# Measured: what a build from nothing takes, tests and installation included, and some room.
DISK_NEEDED = {"cpu": GIB / 2, "cuda": 3 * GIB}
# The largest of Caffe's source files takes about this much to compile.
MEMORY_A_JOB = 1.5 * GIB
# What went wrong, by what the log says. The first that is found is the cause.
CAUSES = [
    (r"No space left on device", "the disk is full: free some space and run it again"),
    (
        r"Killed signal terminated|internal compiler error: Killed|Killed$",
        "the compiler was killed, most likely for want of memory: try JOBS=1",
    ),
    (r"Permission denied", "a file cannot be written; is build/ of another user?"),
]


def cpu_arguments():
    return ["-DCPU_ONLY=ON"]


def cuda_arguments():
    from cuda_toolkit import cmake_arguments

    return cmake_arguments()


CMAKE_ARGUMENTS = {"cpu": cpu_arguments, "cuda": cuda_arguments}


class Build:
    """The folders of one variant, and the steps that fill them, in order."""

    def __init__(self, variant, jobs, folder=None, options=()):
        """options: what CMake is told besides."""
        self.variant = variant
        self.jobs = jobs
        self.options = options
        self.folder = folder or ROOT / "build" / variant
        self.tree = self.folder / "caffe"
        self.cmake = self.folder / "cmake"
        self.install = self.folder / "install"
        self.tests = self.cmake / "caffe" / "test" / "test.testbin"
        self.programs = self.cmake / "tests"
        self.log = self.folder / "build.log"
        # There where another machine built it (devtools/gpu_bundle.py), and what of.
        self.prebuilt = self.folder / "bundle.json"

    def make(self, source=None, tests=False):
        """All of it; source: a tree or tarball of upstream Caffe to use."""
        if self.prebuilt.exists():
            print(f"build: {self.folder} was built elsewhere: {self.prebuilt} says of what")
            return
        with only_one(self.folder):
            self.prepare(source)
            self.compile(["all", "test_programs"] if tests else ["all"])
            self.install_built()

    def prepare(self, source=None):
        """All that comes before compiling."""
        self.check_disk()
        self.make_tree(source)
        self.log.write_text("")
        self.configure()

    def make_tree(self, source=None):
        """Caffe's source with the layer and the toolchain fixes."""
        fetch.fetch(source, SOURCE)
        self.copy_tree()
        apply.main([str(self.tree), "--modernize"])

    def check_disk(self):
        """Say so before an hour's work, not after it."""
        if self.install.exists() or self.tests.exists():
            return
        free = shutil.disk_usage(self.folder).free
        needed = DISK_NEEDED[self.variant]
        if free < needed:
            raise Failure(
                f"the disk of {self.folder} has {free / GIB:.1f} GiB free and the build needs "
                f"{needed / GIB:.1f} GiB: free some space and run it again"
            )

    def copy_tree(self):
        """Copy Caffe's source, unless the copy has all of it; apply.py keeps its files right."""
        names = (path.relative_to(SOURCE) for path in files_in(SOURCE))
        if self.tree.exists() and all((self.tree / name).exists() for name in names):
            return
        partial = self.folder / "caffe.partial"
        for old in (partial, self.tree):
            shutil.rmtree(old, ignore_errors=True)
        try:
            shutil.copytree(SOURCE, partial, symlinks=True)
        except shutil.Error as error:
            (_, target, why), *_ = error.args[0]
            raise Failure(f"cannot copy to {target}: {why}") from None
        # PyPI's sdist lacks this file, which Caffe's CMake code includes and nothing of ours needs.
        examples = partial / "examples" / "CMakeLists.txt"
        examples.parent.mkdir(exist_ok=True)
        examples.touch()
        partial.rename(self.tree)

    def configure(self):
        """Run CMake where its arguments or the tree's set of files have changed.

        Caffe's CMake code takes the files that match a pattern when it runs, so CMake itself does
        not notice a new one.
        """
        arguments = [f"-DCAFFE_TREE={self.tree}", f"-DCMAKE_INSTALL_PREFIX={self.install}"]
        arguments += [*CMAKE_ARGUMENTS[self.variant](), *self.options]
        names = [str(path) for path in files_in(self.tree / "include", self.tree / "src")]
        key = digest([*arguments, *names])
        stamp = self.cmake / "configured"
        if stamp.exists() and stamp.read_text() == key:
            return
        print("build: configuring", flush=True)
        self.run(["cmake", "-S", ROOT, "-B", self.cmake, "-G", "Ninja", *arguments])
        stamp.write_text(key)

    def compile(self, targets):
        argv = ["ninja", "-C", self.cmake, f"-j{self.jobs}", *targets]
        self.run(argv, show=Progress(f"build: compiling Caffe, {self.jobs} at a time").show)

    def install_built(self):
        """Put the installation together beside the old one and swap them."""
        key = digest(
            f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}"
            for path in files_in(*(self.cmake / "caffe" / name for name in ("lib", "tools")))
            + files_in(self.tree / "include", self.tree / "python", SCRIPTS / "build.py")
            + files_in(ROOT / "python")
        )
        stamp = self.install / "installed"
        if stamp.exists() and stamp.read_text() == key:
            return
        print(f"build: installing into {self.install}", flush=True)
        partial = self.folder / "install.partial"
        replaced = self.folder / "install.replaced"
        shutil.rmtree(partial, ignore_errors=True)
        self.run(["cmake", "--install", self.cmake, "--prefix", partial])
        self.install_python(partial)
        (partial / "installed").write_text(key)
        shutil.rmtree(replaced, ignore_errors=True)
        if self.install.exists():
            self.install.rename(replaced)
        partial.rename(self.install)
        shutil.rmtree(replaced, ignore_errors=True)

    def install_python(self, prefix):
        """The article's Python layer and the tools, beside pycaffe, and the tools' launcher."""
        (prefix / "bin").mkdir(exist_ok=True)
        shutil.copy(LAUNCHER, prefix / "bin")
        others = shutil.ignore_patterns(LAUNCHER.name, "CMakeLists.txt", "*.cpp", "__pycache__")
        shutil.copytree(ROOT / "python", prefix / "python", ignore=others, dirs_exist_ok=True)

    def run(self, argv, show=None):
        """Run a command with its output in the log, each line also given to SHOW."""
        argv = [str(word) for word in argv]
        lines = []
        with self.log.open("a", encoding="utf-8", buffering=1) as log:
            print("$", *argv, file=log, flush=True)
            try:
                process = subprocess.Popen(
                    argv,
                    env=build_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                )
            except FileNotFoundError:
                raise Failure(
                    f"{argv[0]} is not installed; run without DEPS=off, or apt-get install it"
                ) from None
            for line in process.stdout:
                log.write(line)
                lines.append(line)
                if show:
                    show(line)
            status = process.wait()
        if status != 0:
            self.report_failure(argv[0], status, lines)

    def report_failure(self, name, status, lines):
        at = next((i for i, line in enumerate(lines) if line.startswith("FAILED:")), -25)
        # The line after FAILED is the compiler's command line, a screenful that says nothing.
        excerpt = [line for line in lines[at:] if len(line) < 500][:25]
        print(*excerpt, sep="", end="", file=sys.stderr)
        text = "".join(lines)
        causes = (what for pattern, what in CAUSES if re.search(pattern, text, re.MULTILINE))
        cause = next(causes, "the lines above say why")
        raise Failure(f"{name} failed with status {status}: {cause} (all of it is in {self.log})")


class Progress:
    """One line, kept up to date, on a terminal; one line every tenth of the way elsewhere."""

    STEP = re.compile(r"\[(\d+)/(\d+)\] (.*)")

    def __init__(self, title):
        self.title = title
        self.shown = 0

    def show(self, line):
        step = self.STEP.match(line)
        if not step:
            return
        done, total = int(step[1]), int(step[2])
        if sys.stdout.isatty():
            end = "\n" if done == total else ""
            file = step[3].rsplit("/", 1)[-1]
            print(f"\r\033[K{self.title}: {done}/{total} {file}"[:100], end=end, flush=True)
        elif self.shown == 0 or done * 10 // total > self.shown * 10 // total or done == total:
            print(f"{self.title}: {done}/{total}", flush=True)
            self.shown = done


def build_environment():
    """The environment without what would lead CMake and the compiler away from Debian's files."""
    kept = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
    return {**kept, "PATH": PATH, "LC_ALL": "C.UTF-8", "NINJA_STATUS": "[%f/%t] "}


def files_in(*folders):
    """All files of the folders (or the file that one is), in a fixed order."""
    found = []
    for folder in folders:
        found += [folder] if folder.is_file() else (p for p in folder.rglob("*") if p.is_file())
    return sorted(path for path in found if "__pycache__" not in path.parts)


def digest(lines):
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def default_jobs():
    """As many as there are cores, and as memory allows."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, int(memory_available() // MEMORY_A_JOB)))


def memory_available():
    """In bytes, within the container's limit where there is one."""
    text = Path("/proc/meminfo").read_text()
    available = int(re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and limit.read_text().strip() != "max":
        available = min(available, int(limit.read_text()))
    return available


@contextlib.contextmanager
def only_one(folder):
    """Two builds in one folder would write into each other's files: the second waits."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"build: waiting for another build in {folder}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def positive(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def add_jobs(parser):
    parser.add_argument(
        "--jobs", type=positive, default=default_jobs(), help="compilers at a time (%(default)s)"
    )


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variant", choices=sorted(CMAKE_ARGUMENTS))
    parser.add_argument("--source", type=Path, help="a tree or tarball of upstream Caffe to use")
    parser.add_argument("--tests", action="store_true", help="build the C++ tests too")
    add_jobs(parser)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    Build(arguments.variant, arguments.jobs).make(arguments.source, arguments.tests)


if __name__ == "__main__":
    program(main, "interrupted; the next run resumes where this one stopped")
