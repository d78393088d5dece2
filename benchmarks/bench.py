"""One run: every contestant on every size, and the report that comes of it."""

import time

import adapter
import machine
import measure
from cases import SMALLEST, case_contestants, cases
from contestants import Contestant, all_contestants
from failure import BenchError
from problem import CLS_WEIGHT, DEVIATION, POSITIVES, Problem
from tables import ATTRIBUTES, HEADLINE, in_words
from team import environment, started

DTYPES = ("float32", "float64")
# As the agreement is judged: 256 images of 35 attributes.
JUDGED = (256, ATTRIBUTES // 256)
# What all contestants' arrays may take of the memory that is free.
SHARE_OF_MEMORY = 0.9
# A process that uses more than this of a processor while others are timed disturbs them.
IDLE_LIMIT = 0.05


class Bench:
    """What a run is made of, and the report that it fills."""

    def __init__(self, install, folder, sizes, only=None):
        """only: the groups of those to measure against the floor."""
        self.folder, self.sizes = folder, sizes
        self.adapter = adapter.build(install, folder / "adapter")
        self.report = {
            "machine": machine.describe(),
            **machine.source(),
            "libcaffe_sha256": machine.digest(adapter.library_of(install)),
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
            "cases": [],
            "left_out": [],
            "idle": [],
        }
        self.contestants = self.choose(only)

    def choose(self, only):
        """Those asked for; ours with each instruction set of this machine."""
        probe = Contestant("probe", "the C++ adapter", "floor", 0)
        with self.start([probe], 1) as workers:
            sets = workers["probe"].ask("describe")["instruction_sets"]
        self.report["machine"]["instruction_sets"] = sets
        return [
            contestant
            for contestant in all_contestants(sets)
            if not only or contestant.group in [*only, "floor"]
        ]

    def start(self, contestants, threads):
        settings = environment(threads, self.adapter, self.folder / "torch-compile")
        return started(contestants, threads, settings, self.folder / "logs")

    def has_cases(self):
        """Whether the weighted steps are measured: where our layer is."""
        return any(contestant.kind == "layer" for contestant in self.contestants)

    def thread_counts(self):
        return sorted({1, self.report["machine"]["cores"]})

    def fits(self, threads, dtype, count):
        """Whether all arrays of this size fit into memory; where not, the report says so."""
        arrays = sum(contestant.arrays for contestant in self.contestants)
        needed = arrays * count * (8 if dtype == "float64" else 4)
        free = machine.memory("MemAvailable")
        if needed > SHARE_OF_MEMORY * free:
            row = {"threads": threads, "dtype": dtype, "count": count}
            self.report["left_out"].append({**row, "bytes": needed, "free": free})
        return needed <= SHARE_OF_MEMORY * free

    def run(self, progress):
        for threads in self.thread_counts():
            with self.start(self.contestants, threads) as workers:
                self.describe(workers)
                for dtype in DTYPES:
                    self.agree(workers, threads, dtype)
                for dtype in DTYPES:
                    for count in self.sizes:
                        self.measure_size(workers, threads, dtype, count, progress)
                self.note_idle(workers, threads)
            if self.has_cases():
                self.measure_cases(threads, progress)

    def describe(self, workers):
        """Who takes part, with versions; also that each has the instruction set that it must."""
        rows = []
        for name, worker in workers.items():
            said = worker.ask("describe")
            isa = worker.contestant.isa
            if isa and said["isa"] != isa:
                raise BenchError(f"{worker.contestant.label}: it runs with {said['isa']}")
            label, versions = worker.contestant.label, said["versions"]
            rows.append({"name": name, "label": label, "versions": versions})
        self.report["contestants"] = rows

    def agree(self, workers, threads, dtype):
        problems = measure.problems_of(workers, Problem(JUDGED, dtype))
        rows = measure.agree(workers, problems)
        self.report["agreement"] += [{"threads": threads, **row} for row in rows]

    def measure_size(self, workers, threads, dtype, count, progress):
        if self.fits(threads, dtype, count):
            shape = JUDGED if count == ATTRIBUTES else (count,)
            problems = measure.problems_of(workers, Problem(shape, dtype))
            rows = self.measure(workers, problems, f"{dtype}, {in_words(threads)}", progress)
            where = {"threads": threads, "dtype": dtype, "count": count}
            self.report["measured"] += [{**where, **row} for row in rows]
        else:
            progress.skip(count)

    def measure(self, workers, problems, words, progress):
        count = max(problem.count for problem in problems.values())
        begin = time.monotonic()
        on_turn = progress.begin(f"{words}, {count:,} elements", count)
        rows = measure.measure(workers, problems, measure.TURNS, on_turn)
        progress.end(f"{words}, {count:,} elements: {time.monotonic() - begin:.0f} s")
        return rows

    def measure_cases(self, threads, progress):
        """The layer's weighted steps, with the machine's best instruction set, in float32."""
        count = cases_count(self.sizes)
        best = self.report["machine"]["instruction_sets"][0]
        with self.start(case_contestants(best), threads) as workers:
            small = {name: problem for name, _, problem in cases(SMALLEST)}
            rows = measure.agree(workers, small)
            self.report["agreement"] += [{"threads": threads, **row} for row in rows]
            timed = {name: problem for name, _, problem in cases(count)}
            rows = self.measure(workers, timed, f"weights, {in_words(threads)}", progress)
            self.note_idle(workers, threads)
        labels = {name: label for name, label, _ in cases(count)}
        where = {"threads": threads, "dtype": "float32", "count": count}
        for row in rows:
            name = row.pop("contestant")
            self.report["cases"].append({**where, "case": name, "label": labels[name], **row})

    def note_idle(self, workers, threads):
        """Who used a processor while waiting for its turn."""
        for name, worker in workers.items():
            share = worker.used / worker.waited
            row = {"threads": threads, "contestant": name, "share": float(f"{share:.2g}")}
            if share > IDLE_LIMIT:
                self.report["idle"].append(row)


def cases_count(sizes):
    """The headline's size; for a run of smaller sizes, the greatest power of two among them."""
    largest = min(max(sizes), HEADLINE)
    return max(SMALLEST, 1 << (largest.bit_length() - 1))
