"""Measure forward and backward of the loss: the layer, its kernel, and the alternatives.

`make bench` runs this, from the repository's root. Every contestant has a process, in which it
computes the same loss on arrays of its own, and they take turns (A B C A B C ...), on a GPU or, on
the CPU, on one thread and on all cores. Before it is timed, each has to agree with the exact loss
and gradient. Into the output folder go report.json, and report.txt and report.png, which --plot
makes again of a report.json.
"""

import argparse
import sys
from pathlib import Path

from _common import Failure, program
from _gpu import require_gpu
from benchmarks.contestants import groups
from benchmarks.devices import DEVICES


def parse_arguments():
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="(%(default)s)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where everything goes")
    parser.add_argument(
        "--install", type=Path, metavar="DIR", help="the built Caffe (build/cpu/install or cuda's)"
    )
    parser.add_argument(
        "--adapter",
        type=Path,
        metavar="FILE",
        help="adapter.cpp, compiled elsewhere for the device",
    )
    parser.add_argument(
        "--commit", metavar="ID", help="what that was compiled from, for the report"
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--sizes", type=int, nargs="+", metavar="N", help="numbers of elements")
    sizes.add_argument("--quick", action="store_true", help="a few sizes, in a minute or two")
    names = "; ".join(f"{name}: {', '.join(groups(name))}" for name in DEVICES)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"measure these ({names})")
    parser.add_argument(
        "--plot", type=Path, metavar="JSON", help="measure nothing; make table and plot of this"
    )
    args = parser.parse_args()
    args.device = DEVICES[args.device]
    if not args.plot and not args.output:
        parser.error("--output is needed, or --plot")
    if args.sizes and min(args.sizes) < 1:
        parser.error("--sizes are at least 1")
    unknown = set(args.only or []) - set(groups(args.device.name))
    if unknown:
        parser.error(f"--only: {', '.join(sorted(unknown))} not measured here; {names}")
    device = args.device
    args.sizes = sorted(set(args.sizes or (device.quick_sizes if args.quick else device.sizes)))
    return args


def show(report, folder):
    """Table and plot, of the report alone."""
    from benchmarks.tables import text

    said = text(report)
    (folder / "report.txt").write_text(said + "\n", encoding="utf-8")
    print(said)
    try:
        from benchmarks.chart import draw
    except ImportError as error:  # on a machine that only runs the benchmark
        print(f"\nreport.json and report.txt are in {folder}; no report.png: {error}")
    else:
        draw(report, folder / "report.png")
        print(f"\nreport.json, report.txt and report.png are in {folder}")
    sys.stdout.flush()


def measure(args):
    gpu = require_gpu() if args.device.name == "gpu" else None
    try:
        from benchmarks import adapter_build, machine
        from benchmarks.bench import Bench
        from benchmarks.report import write_json
        from benchmarks.shown import Shown
    except ImportError as error:
        raise Failure(
            f"{error}; run `make bench`, which installs it into build/bench-venv"
        ) from None
    source = machine.source(args.commit)
    args.output.mkdir(parents=True, exist_ok=True)
    if args.adapter:
        adapter = args.adapter
        if not adapter.exists():
            raise Failure(f"{adapter} is not there", 2)
    else:
        install = args.install or args.device.install
        adapter = adapter_build.build(args.device, install, args.output / "adapter")
        source["libcaffe_sha256"] = machine.digest(adapter_build.library_of(args.device, install))
    output = args.output.resolve()
    bench = Bench(args.device, adapter.resolve(), output, args.sizes, source, args.only, gpu)
    try:
        with Shown(bench) as progress:
            bench.run(progress)
    finally:  # what was measured before a failure, too
        if bench.report["measured"]:
            write_json(output / "report.json", bench.report)
            show(bench.report, output)


def main():
    args = parse_arguments()
    if args.plot:
        from benchmarks.report import read_json

        show(read_json(args.plot), args.plot.parent)
    else:
        measure(args)


if __name__ == "__main__":
    program(main)
