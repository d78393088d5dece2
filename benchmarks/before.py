"""Time the kernel before and after a change: python -m benchmarks.before REVISION

Run it from the repository's root with PYTHONPATH=scripts.

Compiles the kernel of that revision and that of the working tree, alone and in the same way, and
lets them take turns (A B A B ...) in one process for each instruction set.
"""

import argparse
import ctypes
import io
import multiprocessing
import os
import statistics
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from _common import Failure, program, run
from benchmarks import machine
from benchmarks.contestants import INSTRUCTION_SETS
from benchmarks.devices import ATTRIBUTES, ROOT
from benchmarks.problem import Problem
from benchmarks.tables import align
from benchmarks.team import ISA_VARIABLE

SIZES = (512, ATTRIBUTES, 1 << 16, 1 << 20, 1 << 24)
PASSES = ("loss", "gradient", "two passes", "one pass")
# What an element is weighted by, besides a weight of all positives. Sizes are multiples of both.
CHANNELS, SCOPES = 32, 16
WEIGHTINGS = ("plain", "per channel", "per element", "a tenth ignored", "class_balance")
TURNS = 9
TURN_SECONDS = 0.005
SOURCES = ("include/caffe/util", "src/caffe/util")
# Hidden, and not unique in the process: each library is to call its own functions. OpenMP is for
# revisions that took its threads.
FLAGS = ["-std=c++11", "-O3", "-DNDEBUG", "-fopenmp", "-fPIC", "-shared", "-fvisibility=hidden"]
FLAGS += ["-fno-gnu-unique", "-Wl,-Bsymbolic"]


class Case(ctypes.Structure):
    """As in before.cpp."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("count", "channels", "scopes")),
        *((name, ctypes.c_void_p) for name in ("scores", "targets", "weight")),
        *((name, ctypes.c_void_p) for name in ("cls_weight", "neg_weight", "balance", "grad")),
        ("has_ignore_label", ctypes.c_int),
    ]


def compile_kernel(tree, library):
    sources = sorted((tree / "src/caffe/util").glob("weighted_sigmoid_loss*.cpp"))
    shim = Path(__file__).with_suffix(".cpp")
    run(["g++", *FLAGS, f"-I{tree / 'include'}", *sources, shim, "-o", library])


def unpack(revision, folder):
    argv = ["git", "-C", ROOT, "archive", revision, *SOURCES]
    done = subprocess.run(argv, capture_output=True)
    if done.returncode != 0:
        raise Failure(f"no kernel of {revision}: {done.stderr.decode().strip()}", 2)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder)


def case_of(weighting, count, dtype):
    """The arrays, which must outlive it, and the case of them."""
    problem = Problem(
        (count // CHANNELS, CHANNELS),
        dtype,
        by_channel=weighting == "per channel",
        ignored=0.1 if weighting == "a tenth ignored" else 0.0,
        weight_shape=(count // CHANNELS, CHANNELS) if weighting == "per element" else (),
    )
    scores, targets, weight = problem.arrays()
    cls_weight = np.array(problem.cls_weight, np.float64)
    balance = np.empty(2 * SCOPES) if weighting == "class_balance" else None
    arrays = {
        "scores": scores,
        "targets": targets,
        "weight": weight,
        "cls_weight": cls_weight,
        "neg_weight": np.ones_like(cls_weight),
        "balance": balance,
        "grad": np.empty_like(scores),
    }
    case = Case(count, len(cls_weight), SCOPES, has_ignore_label=problem.ignored > 0)
    for name, array in arrays.items():
        setattr(case, name, None if array is None else array.ctypes.data)
    return arrays, case


def medians(libraries, name, case, is_double):
    """Seconds of one pass of each."""

    def timed(library, calls):
        return library.before_run(name.encode(), is_double, ctypes.byref(case), calls) / calls

    first = [timed(library, 1) for library in libraries for _ in range(2)]
    calls = max(1, round(TURN_SECONDS / min(first)))
    turns = [[timed(library, calls) for library in libraries] for _ in range(TURNS)]
    return [statistics.median(seconds) for seconds in zip(*turns)]


def measure(isa, threads, paths, sizes):
    """Print the rows of one instruction set; in a process of its own, which reads these once."""
    os.environ.update({ISA_VARIABLE: isa, "OMP_NUM_THREADS": str(threads)})
    libraries = [ctypes.CDLL(str(path)) for path in paths]
    for library in libraries:
        library.before_run.restype = ctypes.c_double
        library.before_run.argtypes = [
            *(ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(Case), ctypes.c_size_t)
        ]
    rows = [["us before, after, their ratio", *(f"{size:,}" for size in sizes)]]
    for dtype in ("float32", "float64"):
        for weighting in WEIGHTINGS:
            cells = {name: [] for name in PASSES}
            for size in sizes:
                arrays, case = case_of(weighting, size, dtype)
                for name in PASSES:
                    before, after = medians(libraries, name, case, dtype == "float64")
                    shown = f"{1e6 * before:.4g} {1e6 * after:.4g} {after / before:.2f}"
                    cells[name].append(shown)
                del arrays
            for name, row in cells.items():
                rows.append([f"{INSTRUCTION_SETS[isa]}, {dtype}, {weighting}, {name}", *row])
    print("\n".join(align(rows)), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", metavar="REVISION", help="the kernel before, as git names it")
    parser.add_argument("--sets", nargs="+", choices=INSTRUCTION_SETS, default=[*INSTRUCTION_SETS])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="(%(default)s)")
    args = parser.parse_args()
    if any(size < 1 or size % CHANNELS for size in args.sizes):
        raise Failure(f"--sizes are multiples of {CHANNELS}", 2)
    with tempfile.TemporaryDirectory(prefix="before.") as scratch:
        folder = Path(scratch)
        unpack(args.revision, folder / "tree")
        paths = [folder / "before.so", folder / "after.so"]
        for tree, path in zip((folder / "tree", ROOT), paths):
            compile_kernel(tree, path)
        about = machine.describe()
        print(f"{about['cpu']}, {about['cores']} cores, {about['system']}; threads: {args.threads}")
        print(f"before: {args.revision}; after: {machine.source()['commit']}", flush=True)
        for isa in args.sets:
            child = multiprocessing.Process(
                target=measure, args=(isa, args.threads, paths, args.sizes)
            )
            child.start()
            child.join()
            if child.exitcode != 0:
                raise Failure(f"{isa}: its process ended ({child.exitcode})")


if __name__ == "__main__":
    program(main)
