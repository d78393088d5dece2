"""One run: every contestant of a device on every size, and the report that comes of it."""

import tempfile
import time

from _common import Failure
from benchmarks import machine, measure, report
from benchmarks.cases import SMALLEST, case_contestants, cases
from benchmarks.contestants import LAYER, known, measured_on
from benchmarks.devices import ATTRIBUTES
from benchmarks.problem import CLS_WEIGHT, DEVIATION, POSITIVES, Problem
from benchmarks.team import ContestantFailed, Disagreement, ask_all, environment, started

# As the agreement is judged: 256 images of 35 attributes.
JUDGED = (256, ATTRIBUTES // 256)
# What all contestants' arrays may take of the memory that is free.
SHARE_OF_MEMORY = 0.9
# A process that uses more than this of a processor while others are timed disturbs them.
IDLE_LIMIT = 0.05


class Bench:
    """What a run is made of, and the report that it fills."""

    def __init__(self, device, adapter, folder, sizes, source, only=None, gpu=None):
        """source: what the adapter was built from.

        only: the groups to measure beside the device's own. gpu: as require_gpu() describes it.
        """
        self.device, self.adapter, self.folder, self.sizes = device, adapter, folder, sizes
        self.disagreements = []
        self.report = {
            "device": device.name,
            "machine": {**machine.describe(), **({"gpu": gpu} if gpu else {})},
            **source,
            "settings": {
                "turns": measure.TURNS,
                "warm_ups": measure.WARM_UPS,
                "turn_seconds": measure.TURN_SECONDS,
                "deviation": DEVIATION,
                "positives": POSITIVES,
                "cls_weight": CLS_WEIGHT,
            },
            **{name: [] for name in ("contestants", "agreement", "measured", "cases")},
            **{name: [] for name in ("left_out", "missing", "idle")},
        }
        sets = self.instruction_sets() if device.name == "cpu" else []
        self.report["machine"]["instruction_sets"] = sets
        self.contestants = [
            contestant
            for contestant in measured_on(device.name, sets)
            if not only or contestant.known_by in only or contestant.family in device.always
        ]

    def instruction_sets(self):
        """Those of this machine that our kernel can use, the best first."""
        baseline = known(self.device.baseline)
        with self.start([baseline], 1) as workers:
            return workers[baseline.name].ask("describe")["instruction_sets"]

    def start(self, contestants, threads, cache=""):
        """cache: where PyTorch keeps what it compiles."""
        settings = environment(self.device, threads, self.adapter, cache)
        return started(contestants, self.device, threads, settings, self.folder / "logs")

    def has_cases(self):
        """Whether the weighted steps are measured: where our layer is."""
        return self.device.has_cases and any(c.family == LAYER for c in self.contestants)

    def thread_counts(self):
        return self.device.thread_counts(self.report["machine"]["cores"])

    def cases_count(self):
        """The headline's size; for smaller sizes, the greatest power of two among them."""
        largest = min(max(self.sizes), self.device.headline)
        return max(SMALLEST, 1 << (largest.bit_length() - 1))

    def run(self, progress):
        """Raises Failure where one that may not be missing cannot continue, or one was wrong."""
        with tempfile.TemporaryDirectory(prefix="bench.") as cache:
            for threads in self.thread_counts():
                with self.start(self.contestants, threads, cache) as workers:
                    self.admit(workers, threads, progress)
                    for dtype in self.device.dtypes:
                        for count in self.sizes:
                            self.measure_size(workers, threads, dtype, count, progress)
                    self.note_idle(workers, threads)
                if self.has_cases():
                    self.measure_cases(threads, progress)
        if self.disagreements:
            raise self.disagreements[0]
        if not self.report["measured"]:
            raise Failure("the memory holds no size: name smaller ones with --sizes", 2)

    def admit(self, workers, threads, progress):
        """Hold each to the exact result, and note who takes part, with versions."""
        self.report["contestants"] = []
        for name, worker in list(workers.items()):
            contestant = worker.contestant
            try:
                said = worker.ask("describe")
                if contestant.isa and said["isa"] != contestant.isa:
                    raise Failure(f"{contestant.label}: it runs with {said['isa']}")
                for dtype in self.device.dtypes:
                    problems = measure.problems_of({name: worker}, Problem(JUDGED, dtype))
                    self.note_agreement(threads, measure.agree({name: worker}, problems))
            except ContestantFailed as failure:
                self.leave_out(workers, failure, progress)
                continue
            row = {"name": name, "label": contestant.label, "bytes": contestant.bytes}
            self.report["contestants"].append({**row, "versions": said["versions"]})

    def note_agreement(self, threads, rows):
        self.report["agreement"] += [{"threads": threads, **row} for row in rows]

    def leave_out(self, workers, failure, progress):
        """From here on, with the reason, one that may be missing; any other ends the run."""
        contestant = failure.contestant
        if self.device.name not in contestant.may_be_missing:
            raise failure
        workers.pop(contestant.name).close()
        self.report["missing"].append({"contestant": contestant.name, "why": str(failure)})
        progress.say(f"left out: {failure}")
        if isinstance(failure, Disagreement):
            self.disagreements.append(failure)

    def fits(self, workers, threads, dtype, count):
        """Whether all arrays of this size fit into memory; where not, the report says so."""
        arrays = sum(w.contestant.arrays[self.device.name] for w in workers.values())
        needed = arrays * count * (8 if dtype == "float64" else 4)
        needed += len(workers) * self.device.process_bytes
        gpu = self.report["machine"].get("gpu")
        free = gpu["memory_bytes"] if gpu else machine.memory("MemAvailable")
        if needed > SHARE_OF_MEMORY * free:
            row = {"threads": threads, "dtype": dtype, "count": count}
            self.report["left_out"].append({**row, "bytes": needed, "free": free})
        return needed <= SHARE_OF_MEMORY * free

    def measure_size(self, workers, threads, dtype, count, progress):
        """Once more, without it, where one fails that may be missing."""
        if not self.fits(workers, threads, dtype, count):
            progress.skip(count)
            return
        problem = Problem(JUDGED if count == ATTRIBUTES else (count,), dtype)
        problems = measure.problems_of(workers, problem)
        words = f"{dtype}, {report.in_words(threads)}"
        try:
            losses = self.losses_of_ours(workers, problems)
            rows, agreement = self.measure(workers, problems, losses, words, progress)
        except ContestantFailed as failure:
            self.leave_out(workers, failure, progress)
            self.measure_size(workers, threads, dtype, count, progress)
            return
        where = {"threads": threads, "dtype": dtype, "count": count}
        self.report["measured"] += [{**where, **row} for row in rows]
        self.note_agreement(threads, agreement)
        report.write_json(self.folder / "report.json", self.report)

    def losses_of_ours(self, workers, problems):
        """What the others are held to at this size, where the device wants that."""
        if not self.device.holds_each_size:
            return None
        return measure.losses_by(workers[LAYER], problems.values())

    def measure(self, workers, problems, losses, words, progress):
        """Rows of times, and of agreement where there are losses to agree on."""
        count = max(problem.count for problem in problems.values())
        begin = time.monotonic()
        on_turn = progress.begin(f"{words}, {count:,} elements", count)
        ask_all(workers, "prepare", measure.messages(problems))
        rows = measure.timed(workers, measure.TURNS, on_turn, self.device.is_led_by_turn)
        agreement = measure.agree_on_losses(workers, problems, losses) if losses else []
        ask_all(workers, "release", {})
        progress.say(f"measured {words}, {count:,} elements: {time.monotonic() - begin:.0f} s")
        return rows, agreement

    def measure_cases(self, threads, progress):
        """The layer's weighted steps, with the machine's best instruction set, in float32."""
        count = self.cases_count()
        best = self.report["machine"]["instruction_sets"][0]
        with self.start(case_contestants(best), threads) as workers:
            small = {name: problem for name, _, problem in cases(SMALLEST)}
            self.note_agreement(threads, measure.agree(workers, small))
            timed = {name: problem for name, _, problem in cases(count)}
            words = f"weights, {report.in_words(threads)}"
            rows, _ = self.measure(workers, timed, None, words, progress)
            self.note_idle(workers, threads)
        labels = {name: label for name, label, _ in cases(count)}
        where = {"threads": threads, "dtype": "float32", "count": count}
        for row in rows:
            name = row.pop("contestant")
            self.report["cases"].append({**where, "case": name, "label": labels[name], **row})

    def note_idle(self, workers, threads):
        """Who used a processor while waiting for its turn."""
        for name, worker in workers.items():
            share = worker.used / worker.waited if worker.waited else 0
            row = {"threads": threads, "contestant": name, "share": float(f"{share:.2g}")}
            if share > IDLE_LIMIT:
                self.report["idle"].append(row)
