#!/usr/bin/env python3
"""Measure forward and backward of the loss on a GPU: the layer, its kernel, and the alternatives.

devtools/gpu_run.py runs this on the machine with the GPU, on a bundle of devtools/gpu_bundle.py. As
on the CPU (cpu.py), every contestant has a process, and they take turns (A B C A B C ...); each has
to agree with the exact loss and gradient before it is timed, and with our layer's loss at each
size. Into the output folder go report.json, and report.txt and report.png, which --plot makes again
of a report.json.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from failure import BenchError, ContestantFailed, Disagreement

try:
    import machine
    import measure
    from gpu_contestants import CONTESTANTS, LAYER
    from gpu_report import draw, text
    from problem import CLS_WEIGHT, DEVIATION, POSITIVES, Problem
    from report_file import read_json, write_json
    from tables import ATTRIBUTES
    from team import ask_all, started
except ImportError as error:
    sys.exit(f"gpu.py: {error}; it takes NumPy")

SIZES = [1 << k for k in range(12, 29, 2)]
QUICK_SIZES = [1 << 12, 1 << 20, 1 << 26]
DTYPE = "float32"
JUDGED = (256, ATTRIBUTES // 256)


def whole_turn(calls):
    """A GPU that was idle clocks up for some milliseconds."""
    return calls


def environment(bundle, cache):
    """Frameworks share the GPU's memory, and use what the machine has of CUDA."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("XLA_")},
        "BENCH_ADAPTER": str(bundle / "lib" / "adapter.so"),
        "GLOG_minloglevel": "2",
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "TORCHINDUCTOR_CACHE_DIR": cache,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def describe_gpu(bundle):
    """What `device describe` says."""
    folders = f"{bundle / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    done = subprocess.run(
        [bundle / "bin" / "device", "describe"],
        env={**os.environ, "LD_LIBRARY_PATH": folders},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise BenchError(f"no GPU that the bundle runs on: {done.stderr.strip()}", status=2)
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


class Bench:
    """One run, and the report that it fills."""

    def __init__(self, bundle, folder, sizes, driver, only=None):
        self.folder, self.sizes, self.bundle = folder, sizes, bundle
        self.contestants = [c for c in CONTESTANTS if not only or c.name in [*only, LAYER]]
        self.disagreements = []
        self.report = {
            "machine": {**machine.describe(), "gpu": describe_gpu(bundle), "driver": driver},
            "bundle": read_json(bundle / "manifest.json"),
            "date": machine.source()["date"],
            "settings": {
                "turns": measure.TURNS,
                "warm_ups": measure.WARM_UPS,
                "turn_seconds": measure.TURN_SECONDS,
                "deviation": DEVIATION,
                "positives": POSITIVES,
                "cls_weight": CLS_WEIGHT,
            },
            "contestants": [],
            "agreement": [],
            "measured": [],
            "left_out": [],
        }

    def run(self):
        threads, logs = self.report["machine"]["cores"], self.folder / "logs"
        with tempfile.TemporaryDirectory(prefix="gpu_bench.") as cache:
            settings = environment(self.bundle, cache)
            with started(self.contestants, threads, settings, logs) as workers:
                for name in list(workers):
                    self.admit(workers, name)
                for count in self.sizes:
                    self.measure_size(workers, count)
        if self.disagreements:
            raise self.disagreements[0]

    def admit(self, workers, name):
        """Hold one to the exact result."""
        worker = workers[name]
        try:
            said = worker.ask("describe")
            problems = measure.problems_of({name: worker}, Problem(JUDGED, DTYPE))
            self.report["agreement"] += measure.agree({name: worker}, problems)
        except ContestantFailed as failure:
            self.leave_out(workers, failure)
            return
        row = {"name": name, "label": worker.contestant.label, "bytes": worker.contestant.bytes}
        self.report["contestants"].append({**row, "versions": said["versions"]})

    def leave_out(self, workers, failure):
        """From here on, with the reason, what this machine may lack; all else ends the run."""
        if not failure.contestant.is_optional:
            raise failure
        name = failure.contestant.name
        workers.pop(name).close()
        self.report["left_out"].append({"contestant": name, "why": str(failure)})
        print(f"left out: {failure}", file=sys.stderr, flush=True)
        if isinstance(failure, Disagreement):
            self.disagreements.append(failure)

    def measure_size(self, workers, count):
        """Once more, without it, where one fails: its memory may not suffice."""
        begin = time.monotonic()
        try:
            rows, agreement = self.time_all(workers, count)
        except ContestantFailed as failure:
            self.leave_out(workers, failure)
            self.measure_size(workers, count)
            return
        self.report["measured"] += [{"count": count, **row} for row in rows]
        self.report["agreement"] += agreement
        write_json(self.folder / "report.json", self.report)
        seconds = time.monotonic() - begin
        print(f"measured {count:,} elements: {seconds:.0f} s", file=sys.stderr, flush=True)

    def time_all(self, workers, count):
        """Frameworks compile each size anew: what is timed is held to our layer's loss."""
        problems = measure.problems_of(workers, Problem((count,), DTYPE))
        losses = measure.losses_by(workers[LAYER], problems.values())
        ask_all(workers, "prepare", measure.messages(problems))
        rows = measure.timed(workers, measure.TURNS, lambda: None, lead=whole_turn)
        agreement = measure.agree_on_losses(workers, problems, losses)
        ask_all(workers, "release", {})
        return rows, agreement


def show(report, folder):
    """Table and plot, of the report alone."""
    said = text(report)
    (folder / "report.txt").write_text(said + "\n", encoding="utf-8")
    try:
        draw(report, folder / "report.png")
    except ImportError as error:
        print(f"no report.png: {error}; elsewhere, gpu.py --plot makes it", file=sys.stderr)
    print(said)


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="the unpacked bundle")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where everything goes")
    parser.add_argument(
        "--driver", default="unknown", metavar="VERSION", help="NVIDIA's driver, for the report"
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--sizes", type=int, nargs="+", metavar="N", help="numbers of elements")
    sizes.add_argument("--quick", action="store_true", help="a few sizes")
    names = [contestant.name for contestant in CONTESTANTS]
    words = f"measure these beside our layer: {', '.join(names)}"
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=words)
    parser.add_argument(
        "--plot", type=Path, metavar="JSON", help="measure nothing; make table and plot of this"
    )
    args = parser.parse_args(argv)
    if not args.plot and not (args.bundle and args.output):
        parser.error("--bundle and --output are needed, or --plot")
    if args.sizes and min(args.sizes) < 1:
        parser.error("--sizes are at least 1")
    args.sizes = sorted(set(args.sizes or (QUICK_SIZES if args.quick else SIZES)))
    return args


def main(argv=None):
    args = parse_arguments(argv)
    if args.plot:
        show(read_json(args.plot), args.plot.parent)
        return
    args.output.mkdir(parents=True, exist_ok=True)
    bench = Bench(args.bundle.resolve(), args.output.resolve(), args.sizes, args.driver, args.only)
    try:
        bench.run()
    finally:  # what was measured before a failure, too
        if bench.report["measured"]:
            write_json(args.output / "report.json", bench.report)
            show(bench.report, args.output)


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        sys.exit(error.status)
    except OSError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("gpu.py: interrupted", file=sys.stderr)
        sys.exit(130)
