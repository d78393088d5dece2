#!/usr/bin/env python3
"""Measure forward and backward of the loss on the CPU: the layer, its kernel, and the alternatives.

`make bench` runs this. Every contestant has a process, in which it computes the same loss on arrays
of its own, and they take turns (A B C A B C ...), on one thread and on all cores. Before it is
timed, each has to agree with the exact loss and gradient. Into the output folder go report.json,
and report.txt and report.png, which --plot makes again of a report.json.
"""

import argparse
import sys
from pathlib import Path

from failure import BenchError

try:
    from bench import Bench
    from chart import draw
    from contestants import OTHERS
    from report_file import read_json, write_json
    from shown import Shown
    from tables import ATTRIBUTES, text
except ImportError as error:
    sys.exit(f"cpu.py: {error}; run `make bench`, which installs it into build/bench-venv")

SIZES = sorted([ATTRIBUTES, *(1 << k for k in range(10, 27, 2))])
QUICK_SIZES = [1 << 12, ATTRIBUTES, 1 << 16, 1 << 20]


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--install", type=Path, metavar="DIR", help="the built Caffe")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where everything goes")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--sizes", type=int, nargs="+", metavar="N", help="numbers of elements")
    sizes.add_argument("--quick", action="store_true", help="a few small sizes, in a minute")
    others = [other.name for other in OTHERS]
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=["ours", "package", *others],
        help=f"measure these against the floor: ours (the layer and its kernel), package, "
        f"{', '.join(others)}",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="JSON", help="measure nothing; make table and plot of this"
    )
    args = parser.parse_args(argv)
    if not args.plot and not (args.install and args.output):
        parser.error("--install and --output are needed, or --plot")
    if args.sizes and min(args.sizes) < 1:
        parser.error("--sizes are at least 1")
    args.sizes = sorted(set(args.sizes or (QUICK_SIZES if args.quick else SIZES)))
    return args


def show(report, folder):
    """Table and plot, of the report alone."""
    said = text(report)
    (folder / "report.txt").write_text(said + "\n", encoding="utf-8")
    draw(report, folder / "report.png")
    print(said)
    print(f"\nreport.json, report.txt and report.png are in {folder}")


def main(argv=None):
    args = parse_arguments(argv)
    if args.plot:
        show(read_json(args.plot), args.plot.parent)
        return
    args.output.mkdir(parents=True, exist_ok=True)
    bench = Bench(args.install, args.output, args.sizes, args.only)
    with Shown(bench) as progress:
        bench.run(progress)
    write_json(args.output / "report.json", bench.report)
    show(bench.report, args.output)


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        print(f"cpu.py: {error}", file=sys.stderr)
        sys.exit(error.status)
    except OSError as error:
        print(f"cpu.py: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("cpu.py: interrupted; nothing was written", file=sys.stderr)
        sys.exit(130)
