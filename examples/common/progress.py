"""The progress of several trainings: a bar on a terminal, and a line for each that is finished."""

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Told of iterations and finished runs; a context manager. titles: {scheme: its words}."""

    def __init__(self, runs, iterations, titles):
        self.iterations, self.titles = iterations, titles
        self.done = dict.fromkeys(runs, 0)
        columns = (TextColumn("{task.description:48}"), BarColumn(), TaskProgressColumn())
        console = Console(stderr=True, highlight=False)
        self.bar = Bar(*columns, TimeRemainingColumn(), console=console, transient=True)
        self.task = self.bar.add_task("training", total=len(runs) * iterations)

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, *_):
        self.bar.stop()

    def words(self, run):
        return f"{self.titles[run.scheme]}, seed {run.seed}"

    def on_iteration(self, run, iteration, loss):
        self.done[run] = iteration
        description = f"{self.words(run)}: loss {loss:.3f}"
        self.bar.update(self.task, completed=sum(self.done.values()), description=description)

    def on_finished(self, run, record):
        self.done[run] = self.iterations
        self.bar.console.print(f"trained {self.words(run)}: {record['seconds']:.0f} s")
