"""A progress bar on stderr, where that is a terminal and rich is there."""

import sys
from contextlib import contextmanager
from importlib.util import find_spec


@contextmanager
def progress(words, total):
    """Yield a function that is told how many more are done."""
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(words, total=total)
        yield lambda done: bar.advance(task, done)
