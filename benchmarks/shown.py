"""The progress of a run: a bar on a terminal, and a line for each size that is finished."""

import contextlib
import sys

from benchmarks.measure import TURNS


class Shown:
    """Told of sizes and turns; a context manager."""

    def __init__(self, bench):
        sizes, threads = bench.sizes, len(bench.thread_counts())
        self.total = threads * len(bench.device.dtypes) * sum(map(self.cost, sizes))
        if bench.has_cases():
            self.total += threads * self.cost(bench.cases_count())
        self.bar = None

    def __enter__(self):
        if sys.stderr.isatty():
            # A machine that only runs the benchmark may be without.
            with contextlib.suppress(ImportError):
                self.start_bar()
        return self

    def start_bar(self):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        share = TextColumn("{task.percentage:3.0f}%")
        columns = (TextColumn("{task.description:48}"), BarColumn(), share)
        console = Console(stderr=True, highlight=False)
        self.bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
        self.task = self.bar.add_task("starting", total=self.total)
        self.bar.start()

    def __exit__(self, *_):
        if self.bar:
            self.bar.stop()

    @staticmethod
    def cost(count):
        """What a size takes, roughly: a constant, and a time per element."""
        return (1 << 20) + count

    def begin(self, description, count):
        if self.bar:
            self.bar.update(self.task, description=description)
        step = self.cost(count) / (TURNS + 1)
        return lambda: self.advance(step)

    def skip(self, count):
        self.advance(self.cost(count))

    def advance(self, step):
        if self.bar:
            self.bar.advance(self.task, step)

    def say(self, line):
        if self.bar:
            self.bar.console.print(line)
        else:
            print(line, file=sys.stderr, flush=True)
