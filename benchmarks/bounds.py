"""What reports are held to: PYTHONPATH=scripts python -m benchmarks.bounds REPORT ...

For maintainers. The bounds are for float32 on all cores. It prints each with what was measured in
each report; exit status 1 means that one is missed which all of the committed runs reach.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from _common import program
from benchmarks.contestants import IN_NET, LAYER, ONE_PASS
from benchmarks.devices import ATTRIBUTES, CPU, GPU
from benchmarks.report import PLAIN, Results, ratio, read_json, size_name
from benchmarks.tables import align, number

# On the CPU, at the headline's size: at most this many times the floor, by instruction set;
OF_FLOOR = {
    LAYER: {"avx512": 1.6, "avx2": 1.75, "baseline": 3.5},
    ONE_PASS: {"avx512": 1.05, "avx2": 1.25, "baseline": 2.8},
}
# the AVX-512 layer at least this many times as fast as these, by size;
AS_FAST = {
    CPU.headline: {"torch": 14, "torch-compile": 3.5, "jax": 8, "upstream": 38},
    ATTRIBUTES: {"torch": 9},
}
# a weighted step at most this many times the plain one;
WEIGHTED = 1.6
# in a net at most this many times what it takes alone;
NET = 1.1
# the package at most this many times the bare kernel's one pass, and at few elements at least this
# many times as fast as PyTorch eager.
FRONT, FRONT_AS_FAST = 1.1, 1.9
# On a GPU: of the copy's bandwidth, and times as fast as these.
OF_COPY = {LAYER: 0.85}
GPU_AS_FAST = {LAYER: {"torch": 5, "torch-compile": 1, "upstream": 3}}
# What one of the runs in results/cpu-avx512 misses at least. README.md has where the time goes.
MISSED = {
    # Memory bounds the floor, and its speed differs from run to run.
    "our layer, AVX-512: times the floor",
    "our layer, AVX2: times the floor",
    "our kernel, one pass, AVX-512: times the floor",
    "our layer: times as fast as PyTorch torch.compile, 16,777,216 elements",
    # Bound by arithmetic.
    "our layer, no FMA: times the floor",
    "our kernel, one pass, no FMA: times the floor",
    "a weight per channel, 256 x 65536: times the plain step",
    "class_balance: CHANNEL, 524288 x 32: times the plain step",
}


@dataclass(frozen=True)
class Bound:
    """A ratio to reach."""

    words: str
    bound: float
    value: float  # None: not measured
    is_least: bool  # the value is to be at least the bound; else at most

    @property
    def verdict(self):
        if self.value is None:
            return "not measured"
        reached = self.value >= self.bound if self.is_least else self.value <= self.bound
        return "reached" if reached else "missed"


def bounds(report):
    """Every bound of the report's device; those of other sizes and sets are not measured."""
    results = Results(report)
    return list(on_gpu(results) if results.device is GPU else on_cpu(results))


def on_cpu(results):
    def times_as_fast(name, other, count):
        return ratio(results.median(other, count), results.median(name, count))

    for family, by_set in OF_FLOOR.items():
        for isa, bound in by_set.items():
            name = f"{family}-{isa}"
            value = times_as_fast("floor", name, CPU.headline)
            yield Bound(f"{results.label(name)}: times the floor", bound, value, is_least=False)
    for count, by_name in AS_FAST.items():
        for other, bound in by_name.items():
            value = times_as_fast(f"{LAYER}-avx512", other, count)
            words = f"our layer: times as fast as {results.label(other)}, {count:,} elements"
            yield Bound(words, bound, value, is_least=True)
    in_net = results.best(IN_NET)
    if in_net in results.labels:  # not a report from before there was this one
        value = times_as_fast(results.layer, in_net, CPU.headline)
        yield Bound(f"{results.label(in_net)}: times our layer", NET, value, is_least=False)
    for front in map(results.best, ("front-numpy", "front-torch")):
        value = times_as_fast(results.best(ONE_PASS), front, CPU.headline)
        words = f"{results.label(front)}: times our kernel, one pass"
        yield Bound(words, FRONT, value, is_least=False)
    for suffix in ("", "-channels"):
        front = results.best(f"front-torch{suffix}")
        if suffix and front not in results.labels:  # a report from before there was this one
            continue
        value = times_as_fast(front, f"torch{suffix}", ATTRIBUTES)
        words = f"{results.label(front)}: times as fast as PyTorch eager, {ATTRIBUTES:,} elements"
        yield Bound(words, FRONT_AS_FAST, value, is_least=True)
    for row in results.report["cases"]:
        if row["threads"] == results.all_threads and row["case"] != PLAIN:
            value = ratio(row["median"], results.case(PLAIN))
            yield Bound(f"{row['label']}: times the plain step", WEIGHTED, value, is_least=False)


def on_gpu(results):
    for name, bound in OF_COPY.items():
        value = ratio(
            results.bandwidth(name, GPU.headline), results.bandwidth("copy", GPU.headline)
        )
        words = f"{results.label(name)}: bandwidth, of the copy's"
        yield Bound(words, bound, value, is_least=True)
    for name, by_other in GPU_AS_FAST.items():
        for other, bound in by_other.items():
            value = ratio(results.median(other, GPU.headline), results.median(name, GPU.headline))
            words = f"{results.label(name)}: times as fast as {results.label(other)}"
            yield Bound(words, bound, value, is_least=True)


def table(found):
    """A row for each bound: its value in each report, and in how many of the measured it holds."""
    rows = []
    for of_each in zip(*found):
        limit = f"{'>=' if of_each[0].is_least else '<='} {of_each[0].bound:g}"
        verdicts = [bound.verdict for bound in of_each if bound.value is not None]
        values = [number(bound.value) for bound in of_each]
        reached = f"{verdicts.count('reached')} of {len(verdicts)}"
        rows.append([of_each[0].words, limit, *values, reached])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, nargs="+", metavar="JSON", help="report.json of a run")
    reports = [read_json(path) for path in parser.parse_args().report]
    found = [bounds(report) for report in reports]
    where = f"at {size_name(Results(reports[0]).device.headline)}"
    titles = [where, "bound", "measured", *[""] * (len(reports) - 1), "reached"]
    print("\n".join(align([titles, *table(found)])))
    missed = {bound.words for of_one in found for bound in of_one if bound.verdict == "missed"}
    return 1 if missed - MISSED else 0


if __name__ == "__main__":
    program(main)
