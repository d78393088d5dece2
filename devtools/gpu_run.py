#!/usr/bin/env python3
"""Run on a GPU what devtools/gpu_bundle.py collected: tests, proofs and the benchmark.

It takes Python's standard library, the bundle, this repository's files, NVIDIA's driver, and
cuBLAS, cuRAND and NCCL, which are looked for in Python's packages and in the machine's toolkit. The
checks go on after a failure, each within its time. Into the output folder go, renewed after each
check, summary.txt with a line a check, results.json, which names every GPU case that passed, and
logs.tar.gz with what the programs printed; and the benchmark's report. Exit status 0 means that
nothing failed and something passed; 2, that the bundle or the machine lacks something.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from _common import ROOT, Failure, program
from runtest import read_gtest

PASSED, FAILED, NOT_RUN = "passed", "FAILED", "not run"
# What tests/gpu/device.cu ends with where a machine cannot tell.
CANNOT_TELL = 3
TIMEOUT = "timeout"

# Caffe's typed tests are numbered: CPU float, CPU double, GPU float, GPU double.
GPU_CASES = "*GPU*:*/2.*:*/3.*:WeightedSigmoidLossRandomTest/1.*"
TYPED = re.compile(r"^\[-+\] \d+ tests? from (\S+), where TypeParam = (.*)$", re.MULTILINE)
# Under compute-sanitizer a launch takes a hundred times as long.
SANITIZED_CASES = (
    "WeightedSigmoidLossGPUTest/*:SigmoidCrossEntropyWeightLossLayerTest/2.*"
    "-*.TestLarge:*.TestOffsets:*.TestGradient:*.TestSetUp*"
)
SANITIZER_FAILED = 99
SANITIZER_SUMMARY = re.compile(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (.*)")
NO_SANITIZER = re.compile(
    r"Device not supported|debugger is not supported|Unable to find injection"
)

LOSS = re.compile(r"Iteration (\d+)(?: \(.*\))?, loss = (\S+)")
# How far losses may be apart, relative: in the first iterations by rounding alone, and later by
# what training makes of it. docs/gpu.md says what was seen on a CPU that rounds in two ways.
EARLY, EARLY_BOUND = 10, 1e-3
LATE_BOUND = 0.1

QUICK_STRIDE = "251"


class RunEnded(Exception):
    """The time of the whole run is over, which says nothing of the check in progress."""


@dataclass
class Result:
    """What came of a check."""

    check: str
    verdict: str
    words: str
    seconds: float


@dataclass
class Done:
    """What came of a program."""

    status: object  # an exit status, or TIMEOUT
    text: str

    @property
    def last_line(self):
        lines = [line for line in self.text.splitlines() if line.strip()]
        return lines[-1].strip() if lines else "it printed nothing"


def run_for(argv, seconds, stream, **settings):
    """A program's exit status, or TIMEOUT after ending it with all that it started."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **settings,
        )
    except OSError as error:
        stream.write(f"cannot run {argv[0]}: {error.strerror}\n".encode())
        return error.errno
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return TIMEOUT
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Libraries:
    """The folders with the libraries that the bundle leaves to the machine."""

    def __init__(self, needed, folders):
        self.found = {}
        for name in needed:
            place = next((folder for folder in folders if (folder / name).exists()), None)
            if not place:
                raise Failure(
                    f"{name} is in none of {len(folders)} folders of Python's packages and CUDA "
                    "toolkits: install NVIDIA's package for it, or name its folder in "
                    "LD_LIBRARY_PATH",
                    2,
                )
            self.found[name] = place

    @property
    def folders(self):
        return list(dict.fromkeys(self.found.values()))


def named_folders():
    """Those of LD_LIBRARY_PATH. Programs run in folders of their own."""
    names = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [Path(name).absolute() for name in names if name]


def library_folders():
    """Where they may lie: named, of this Python, of the machine's other Pythons, of toolkits."""
    sites = [*sys.path, *map(str, Path("/opt").glob("*/.venv/lib/python3*/site-packages"))]
    sites += map(str, Path("/usr").glob("*/lib/python3*/dist-packages"))
    wheels = [path for site in sites if site for path in sorted(Path(site).glob("nvidia/*/lib"))]
    toolkits = sorted(Path("/usr/local").glob("cuda*"), reverse=True)
    inside = ("lib64", "targets/x86_64-linux/lib")
    own = [Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64")]
    folders = named_folders() + wheels
    folders += [toolkit / name for toolkit in toolkits for name in inside] + own
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


class Bundle:
    """An unpacked bundle, and how its programs are run."""

    def __init__(self, folder, output, seconds):
        self.folder, self.output = folder, output
        self.logs = folder.parent / "logs"
        self.logs.mkdir()
        self.end = time.monotonic() + seconds
        try:
            self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Failure(f"{folder} is no bundle of devtools/gpu_bundle.py: {error}", 2) from None
        self.libraries = Libraries(self.manifest["needs"], library_folders())

    def library_path(self, *own):
        """The machine's named folders last: its driver's may be known by them alone."""
        folders = [*own, *self.libraries.folders, *named_folders()]
        return ":".join(dict.fromkeys(map(str, folders)))

    def environment(self, **more):
        return {
            **os.environ,
            "LD_LIBRARY_PATH": self.library_path(self.folder / "lib"),
            "GLOG_logtostderr": "1",
            **more,
        }

    def program(self, name):
        return self.folder / "bin" / name

    def run(self, log, argv, seconds, cwd=None, environment=None):
        """Run a program, within its time and what is left of all; what it prints is logged."""
        left = self.end - time.monotonic()
        if left < 1:
            raise RunEnded
        path = self.logs / f"{log}.log"
        with path.open("wb") as stream:
            status = run_for(
                [str(word) for word in argv],
                min(seconds, left),
                stream,
                cwd=cwd or self.folder.parent,
                env=environment or self.environment(),
            )
        if status == TIMEOUT and left < seconds:
            raise RunEnded
        return Done(status, path.read_text(encoding="utf-8", errors="replace"))

    def write_logs(self):
        with tarfile.open(self.output / "logs.tar.gz", "w:gz") as archive:
            archive.add(self.logs, arcname="logs")


# The checks: each returns a verdict and words. `report` is what results.json will hold.


def judged(done, words=None):
    """By the exit status alone."""
    if done.status == 0:
        return PASSED, words or done.last_line
    if done.status == CANNOT_TELL:
        return NOT_RUN, done.last_line
    return FAILED, f"status {done.status}: {done.last_line}"


def check_tests(bundle, report, _):
    """Our C++ tests and upstream's of loss layers, those that run on the GPU."""
    argv = [bundle.program("test.testbin"), f"--gtest_filter={GPU_CASES}", "--gtest_color=no"]
    done = bundle.run("tests", argv, 240)
    results, _excerpts = read_gtest(done.text)
    types = dict(TYPED.findall(done.text))
    on_gpu = {
        f"{case} ({types.get(case.split('.')[0], '')})": passed
        for case, passed in results.items()
        if "GPU" in case or "GPU" in types.get(case.split(".")[0], "")
    }
    report["cases"] = {case: PASSED if passed else FAILED for case, passed in on_gpu.items()}
    failed = [case for case, passed in results.items() if not passed]
    if failed or done.status != 0:
        first = f", the first {failed[0]}" if failed else ""
        return FAILED, f"status {done.status}, {len(failed)} cases of {len(results)}{first}"
    if not on_gpu:
        return FAILED, "no case ran on the GPU"
    return PASSED, f"{len(on_gpu)} cases on the GPU"


def check_golden(bundle, _report, _):
    """The layer against 60-digit results."""
    argv = [bundle.program("golden"), ROOT / "tests" / "golden.json", "gpu"]
    return judged(bundle.run("golden", argv, 60))


def check_device(what):
    def check(bundle, _report, quick):
        stride = [QUICK_STRIDE] if what == "walk" and quick else []
        return judged(bundle.run(what, [bundle.program("device"), what, *stride], 240))

    return check


def find_sanitizer():
    places = [
        Path("/usr/local").glob("cuda*/bin"),
        Path("/opt/nvidia").glob("**/compute-sanitizer"),
    ]
    folders = [str(path) for found in places for path in sorted(found)]
    return shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=":".join(folders)
    )


def check_sanitizer(tool):
    def check(bundle, _report, _):
        program = find_sanitizer()
        if not program:
            return NOT_RUN, "this machine has no compute-sanitizer"
        argv = [program, "--tool", tool, "--error-exitcode", SANITIZER_FAILED]
        argv += [bundle.program("test.testbin"), f"--gtest_filter={SANITIZED_CASES}"]
        done = bundle.run(tool, argv, 150)
        if NO_SANITIZER.search(done.text):
            return NOT_RUN, "compute-sanitizer does not support this device"
        results, _excerpts = read_gtest(done.text)
        said = SANITIZER_SUMMARY.findall(done.text)
        words = f"{len(results)} cases: {said[-1] if said else done.last_line}"
        if done.status == 0 and said and results and all(results.values()):
            return PASSED, words
        return FAILED, f"status {done.status}, {words}"

    return check


def train(bundle, log, program, *arguments):
    """Train the demo's net for some iterations; return what the program did, and its losses."""
    folder = bundle.folder / "demo"
    environment = bundle.environment(OPENBLAS_NUM_THREADS="4", OMP_NUM_THREADS="4")
    argv = [bundle.program(program), *arguments]
    done = bundle.run(log, argv, 120, cwd=folder, environment=environment)
    return done, [float(loss) for _, loss in LOSS.findall(done.text)]


def compare_losses(expected, got):
    """Verdict and words."""
    if not expected or len(expected) != len(got):
        return FAILED, f"{len(got)} losses, and {len(expected)} on the CPU"
    apart = [abs(a - b) / abs(a) for a, b in zip(expected, got)]
    early, late = max(apart[:EARLY]), max(apart)
    words = (
        f"{len(got)} iterations, losses {got[0]:.4f} to {got[-1]:.4f}; from the CPU's: "
        f"{early:.1e} in the first {EARLY}, {late:.1e} in all"
    )
    # A comparison with NaN is false.
    holds = early <= EARLY_BOUND and late <= LATE_BOUND and got[-1] < got[0]
    return PASSED if holds else FAILED, words


def check_training(name, program, *arguments):
    """The losses of a training on the GPU against those of one on the CPU, which is run once."""

    def check(bundle, report, _):
        if "cpu_losses" not in report:
            done, losses = train(bundle, "train-cpu", "caffe", "train", "-solver=solver.prototxt")
            if done.status != 0:
                return FAILED, f"on the CPU: status {done.status}: {done.last_line}"
            report["cpu_losses"] = losses
        done, losses = train(bundle, name, program, *arguments)
        report[f"{name}_losses"] = losses
        if done.status != 0:
            return FAILED, f"status {done.status}: {done.last_line}"
        if report["device"]["devices"] != "1" and "all" in name:
            return PASSED, f"{len(losses)} iterations on {report['device']['devices']} GPUs"
        return compare_losses(report["cpu_losses"], losses)

    return check


def check_benchmark(bundle, report, quick):
    argv = [sys.executable, "-m", "benchmarks", "--device", "gpu"]
    argv += ["--adapter", bundle.folder / "lib" / "adapter.so"]
    argv += ["--commit", bundle.manifest["commit"]]
    argv += ["--output", bundle.logs / "benchmark", *(["--quick"] if quick else [])]
    environment = {
        **os.environ,
        # Not the bundle's folder, where the adapter looks anyway: Python has libraries of its own.
        "LD_LIBRARY_PATH": bundle.library_path(),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "scripts"), str(ROOT / "python")]),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(bundle.folder.parent),  # what it leaves behind where its time ends goes away
    }
    try:
        verdict, words = judged(bundle.run("benchmark", argv, 420, ROOT, environment))
        if verdict == PASSED:
            argv = [sys.executable, "-m", "benchmarks.bounds"]
            argv += [bundle.logs / "benchmark" / "report.json"]
            words = bundle.run("bounds", argv, 60, ROOT, environment).last_line
        return verdict, words
    finally:  # what was measured before the run ended, too
        for name in ("report.json", "report.txt", "report.png"):
            if (bundle.logs / "benchmark" / name).exists():
                shutil.copy(bundle.logs / "benchmark" / name, bundle.output / f"benchmark-{name}")


TRAIN = ["train", "-solver=solver.prototxt"]
CHECKS = {
    "tests": check_tests,
    "golden": check_golden,
    "train-gpu": check_training("train-gpu", "caffe", *TRAIN, "-gpu=0"),
    "train-gpu-all": check_training("train-gpu-all", "caffe", *TRAIN, "-gpu=all"),
    "train-nccl-all": check_training("train-nccl-all", "nccl", "solver.prototxt"),
    "repeat": check_device("repeat"),
    "loss": check_device("loss"),
    "large": check_device("large"),
    "walk": check_device("walk"),
    "memcheck": check_sanitizer("memcheck"),
    "racecheck": check_sanitizer("racecheck"),
    "initcheck": check_sanitizer("initcheck"),
    "benchmark": check_benchmark,
}


def describe_device(bundle):
    """What `device describe` says, a field a line."""
    try:
        done = bundle.run("describe", [bundle.program("device"), "describe"], 60)
    except RunEnded:
        raise Failure("the run's time ended before the GPU answered") from None
    if done.status != 0:
        raise Failure(f"no GPU that the bundle runs on: {done.last_line}", 2)
    return dict(line.split(": ", 1) for line in done.text.splitlines() if ": " in line)


def driver_version():
    """As nvidia-smi gives it; CUDA itself names only the newest CUDA that the driver has."""
    try:
        argv = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    lines = done.stdout.splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else "unknown"


def summary(report):
    device, bundle = report["device"], report["bundle"]
    mark = " with changes" if bundle["dirty"] else ""
    yield f"commit {bundle['commit']}{mark}, CUDA {bundle['cuda']}, sm_{bundle['architecture']}"
    yield f"{device['name']}, driver {report['driver']}, {report['system']}"
    for result in report["results"]:
        yield "{verdict:8} {check:15} {seconds:6.1f} s  {words}".format(**result)
    counts = [sum(r["verdict"] == v for r in report["results"]) for v in (PASSED, FAILED, NOT_RUN)]
    yield "{} checks passed, {} failed, {} not run".format(*counts)


def write_results(bundle, report):
    text = "".join(f"{line}\n" for line in summary(report))
    (bundle.output / "summary.txt").write_text(text, encoding="utf-8")
    written = json.dumps(report, indent=1)
    (bundle.output / "results.json").write_text(written + "\n", encoding="utf-8")
    bundle.write_logs()
    return text


def make_check(name, bundle, report, quick):
    begin = time.monotonic()
    try:
        verdict, words = CHECKS[name](bundle, report, quick)
    except RunEnded:
        verdict, words = NOT_RUN, "the run's time ended"
    return Result(name, verdict, words, round(time.monotonic() - begin, 1))


def run_checks(bundle, checks, quick):
    report = {
        "bundle": bundle.manifest,
        "device": describe_device(bundle),
        "driver": driver_version(),
        "system": f"{platform.platform()}, Python {platform.python_version()}",
        "libraries": {name: str(path) for name, path in bundle.libraries.found.items()},
        "results": [],
    }
    for name in checks:
        result = make_check(name, bundle, report, quick)
        print(f"gpu_run: {name}: {result.verdict}: {result.words}", flush=True)
        report["results"].append(asdict(result))
        text = write_results(bundle, report)
    print(text, end="", flush=True)
    return report["results"]


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, help="gpu-bundle.tar.gz, or the folder")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    choice = parser.add_mutually_exclusive_group()
    for option, words in (("--only", "run these checks"), ("--without", "run all but these")):
        choice.add_argument(
            option, nargs="+", choices=CHECKS, metavar="CHECK", help=f"{words}: {', '.join(CHECKS)}"
        )
    parser.add_argument("--quick", action="store_true", help="a strided walk, a small benchmark")
    parser.add_argument(
        "--seconds", type=float, default=540, metavar="N", help="for all of it (%(default)s)"
    )
    args = parser.parse_args(argv)
    args.checks = [
        name
        for name in CHECKS
        if name in (args.only or CHECKS) and name not in (args.without or [])
    ]
    return args


def unpack(path, scratch):
    """The bundle's folder, below scratch."""
    folder = scratch / "gpu-bundle"
    if path.is_dir():
        shutil.copytree(path, folder)
        return folder
    # Python 3.12 warns where it is not told whom to trust; older ones cannot be told.
    trust = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
    try:
        with tarfile.open(path) as archive:
            archive.extractall(scratch, **trust)
    except (OSError, tarfile.TarError) as error:
        raise Failure(f"cannot read {path}: {error}; `make gpu-bundle` makes it", 2) from None
    return folder


def main(argv=None):
    args = parse_arguments(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu_run.") as scratch:
        bundle = Bundle(unpack(args.bundle, Path(scratch)), args.output.resolve(), args.seconds)
        results = run_checks(bundle, args.checks, args.quick)
    verdicts = [result["verdict"] for result in results]
    return 0 if PASSED in verdicts and FAILED not in verdicts else 1


if __name__ == "__main__":
    program(main)
