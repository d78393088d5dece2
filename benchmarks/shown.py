"""The progress of a run: a bar on a terminal, and a line for each size that is finished."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from bench import DTYPES, cases_count
from measure import TURNS


class Shown:
    """Told of sizes and turns; a context manager."""

    def __init__(self, bench):
        sizes, threads = bench.sizes, len(bench.thread_counts())
        total = threads * len(DTYPES) * sum(map(self.cost, sizes))
        if bench.has_cases():
            total += threads * self.cost(cases_count(sizes))
        columns = (TextColumn("{task.description:48}"), BarColumn(), TaskProgressColumn())
        console = Console(stderr=True, highlight=False)
        self.bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
        self.task = self.bar.add_task("starting", total=total)

    def __enter__(self):
        if self.bar.console.is_interactive:
            self.bar.start()
        return self

    def __exit__(self, *_):
        if self.bar.console.is_interactive:
            self.bar.stop()

    @staticmethod
    def cost(count):
        """What a size takes, roughly: so much for each, and so much an element."""
        return (1 << 20) + count

    def begin(self, description, count):
        self.bar.update(self.task, description=description)
        step = self.cost(count) / (TURNS + 1)
        return lambda: self.bar.advance(self.task, step)

    def end(self, line):
        self.bar.console.print(f"measured {line}")

    def skip(self, count):
        self.bar.advance(self.task, self.cost(count))
