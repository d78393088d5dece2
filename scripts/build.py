#!/usr/bin/python3
"""Build Caffe with the layer: from nothing to build/VARIANT/install, doing only what is not done.

Caffe's source is fetched (scripts/fetch.py) and laid out in build/VARIANT/caffe with the layer and
the toolchain fixes (scripts/apply.py), CMake and ninja build it in build/VARIANT/cmake, and what is
built is installed. build/VARIANT/install is at every moment a whole installation or absent. What is
not as it was made, by content, is made again. What the compiler prints goes to
build/VARIANT/build.log.

Of the caller's environment CC, CXX and the flags in TAKEN count, and are told; nothing else does.
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

sys.path.insert(0, os.path.dirname(__file__))  # PYTHONSAFEPATH leaves it out

import _contents
import apply
import fetch
from _applied_tree import AppliedTree
from _common import ROOT, Failure, first_line, program
from _git_tree import FILE

SOURCE = ROOT / "build" / "source" / "caffe"
SCRIPTS = ROOT / "scripts"
LAUNCHER = ROOT / "python" / "weighted-loss"
# Debian's folders alone: pyenv's and conda's hold other compilers, libraries and Pythons.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# What CMake reads for itself when it configures.
TAKEN = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CUDAHOSTCXX", "CUDAFLAGS")
KEPT = ("HOME", "LOGNAME", "TERM", "TMPDIR", "USER", *TAKEN)
# Ninja's own, which it checks itself, and what installing writes.
NOT_MADE = (".ninja_deps", ".ninja_log", "install_manifest.txt", "made.json")
GIB = 1 << 30
# Measured: what a build from nothing takes, tests and installation included, and some room.
DISK_NEEDED = {"cpu": GIB / 2, "cuda": 3 * GIB}
# CMake and what it writes take these in a path for something else, and so do lists of paths and the
# shell, to which upstream's rule for pycaffe gives paths as they are.
NOT_IN_PATHS = '"#:;\\\n' + "&()'$`<>|[]"
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
        self.made = self.cmake / "made.json"
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
        self.check_path()
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
        self.lay_out(wanted_files())

    def lay_out(self, files):
        """Make the tree these files, {path: (mode, bytes)}; what is right keeps its time."""
        for path in files_in(self.tree):
            if path.relative_to(self.tree).as_posix() not in files:
                path.unlink()
        for name, (mode, data) in files.items():
            path = self.tree / name
            if path.is_symlink() or not path.is_file() or path.read_bytes() != data:
                path.unlink(missing_ok=True)
                fetch.write(path, mode, data)

    def check_path(self):
        taken = sorted(set(NOT_IN_PATHS) & set(str(self.folder)))
        if taken:
            raise Failure(
                f"CMake cannot build in {str(self.folder)!r}, for the {' '.join(map(repr, taken))}"
                " in its name: move the repository to another folder"
            )

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

    def configure(self):
        """Run CMake where its arguments, the tree's set of files or what was made have changed.

        Caffe's CMake code takes the files that match a pattern when it runs, so CMake itself does
        not notice a new one. It starts without a cache, which would hold on to a folder that the
        build was moved from, or a compiler that is no longer asked for.
        """
        arguments = [f"-DCAFFE_TREE={self.tree}", f"-DCMAKE_INSTALL_PREFIX={self.install}"]
        arguments += [*CMAKE_ARGUMENTS[self.variant](), *self.options]
        taken = [f"{name}={os.environ[name]}" for name in TAKEN if os.environ.get(name)]
        names = [str(path) for path in files_in(self.tree / "include", self.tree / "src")]
        key = digest([*arguments, *taken, *names])
        record = _contents.read(self.made)
        changed = _contents.changed(record, self.cmake)
        if record["of"] == key and not changed:
            return
        if changed:
            print(f"build: {changed[0]} is not as it was made", end="")
            print(f", nor are {len(changed) - 1} more files" if changed[1:] else "")
        print("build: configuring", *(["with", *taken] if taken else []), flush=True)
        for path in [*changed, self.cmake / "CMakeCache.txt"]:
            path.unlink(missing_ok=True)
        shutil.rmtree(self.cmake / "CMakeFiles", ignore_errors=True)
        self.run(["cmake", "-S", ROOT, "-B", self.cmake, "-G", "Ninja", *arguments])
        _contents.write(self.made, key)

    def compile(self, targets):
        argv = ["ninja", "-C", self.cmake, f"-j{self.jobs}", *targets]
        key = _contents.read(self.made)["of"]
        # From here on ninja alone knows what is right, whatever may end this program.
        _contents.write(self.made, key)
        try:
            self.run(argv, show=Progress(f"build: compiling Caffe, {self.jobs} at a time").show)
        finally:
            made = (path for path in files_in(self.cmake) if path.name not in NOT_MADE)
            _contents.write(self.made, key, self.cmake, made)

    def install_built(self):
        """Put the installation together beside the old one and swap them."""
        built = self.cmake / "caffe"
        sources = files_in(self.tree / "include", self.tree / "python", ROOT / "python")
        # Linking pycaffe puts it and the proto's Python beside its sources.
        sources = [path for path in sources if "proto" not in path.parts and path.suffix != ".so"]
        parts = files_in(built / "lib", built / "tools", built / "include", SCRIPTS / "build.py")
        key = digest(f"{path} {_contents.digest(path)}" for path in [*parts, *sources])
        stamp = self.install / "installed"
        record = _contents.read(stamp)
        if record["of"] == key and not _contents.changed(record, self.install):
            return
        print(f"build: installing into {self.install}", flush=True)
        partial = self.folder / "install.partial"
        replaced = self.folder / "install.replaced"
        shutil.rmtree(partial, ignore_errors=True)
        self.run(["cmake", "--install", self.cmake, "--prefix", partial])
        self.install_python(partial)
        _contents.write(partial / "installed", key, partial, files_in(partial))
        shutil.rmtree(replaced, ignore_errors=True)
        if self.install.exists():
            self.install.rename(replaced)
        partial.rename(self.install)
        shutil.rmtree(replaced, ignore_errors=True)

    def install_python(self, prefix):
        """The article's Python layer and the tools, beside pycaffe, and the tools' launcher."""
        # make_tree takes away what linking pycaffe puts into its sources.
        if (prefix / "python" / "caffe").exists():
            proto = prefix / "python" / "caffe" / "proto"
            proto.mkdir(exist_ok=True)
            (proto / "__init__.py").touch()
            shutil.copy(
                self.cmake / "caffe" / "include" / "caffe" / "proto" / "caffe_pb2.py", proto
            )
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
            # Interrupted, it is waited for: ninja takes away what is half made.
            with process:
                for line in process.stdout:
                    log.write(line)
                    lines.append(line)
                    if show:
                        show(line)
            status = process.returncode
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


def wanted_files():
    """What is compiled: upstream's files, with the layer and the toolchain fixes."""
    files = fetch.upstream_part(SOURCE)
    # PyPI's sdist lacks this file, which Caffe's CMake code includes and nothing of ours needs.
    files.setdefault("examples/CMakeLists.txt", (FILE, b""))
    changed, left_out = apply.wanted_files(AppliedTree(SOURCE), modernize=True)
    apply.tell(left_out)
    for name, data in changed.items():
        mode, _ = files.get(name, (FILE, None))
        files[name] = mode, data
    return files


def build_environment():
    """What of the environment leads CMake and the compiler nowhere that is not told."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
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
    parser = argparse.ArgumentParser(description=first_line(__doc__))
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
