"""Print what a step of our layer takes while other processes keep every processor busy.

    PYTHONPATH=scripts:python build/venv/bin/python -m benchmarks.busy

On a machine that is idle but for it, a minute or two: on one thread and on one per processor, in
turn, first alone, then with a process on each processor that does nothing but compute. Times are
means: a step on such a machine is quick, or waits for a processor.
"""

import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

from _common import program
from benchmarks import adapter_build, machine
from benchmarks.contestants import LAYER, known
from benchmarks.devices import CPU
from benchmarks.problem import Problem
from benchmarks.report import size_name
from benchmarks.tables import align, machine_line, number
from benchmarks.team import environment, processors, started

SIZES = [1 << k for k in (17, 18, 20, 24)]
TURNS = 9
TURN_SECONDS = 0.2  # on the idle machine; a processor's time is shared out in milliseconds
SPIN = "import os, sys\nos.sched_setaffinity(0, [int(sys.argv[1])])\nwhile True: pass"


@contextmanager
def busy(cores):
    with ExitStack() as stack:
        for core in processors(cores):
            process = subprocess.Popen([sys.executable, "-c", SPIN, str(core)])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def times(workers, calls):
    """Each worker's milliseconds a step, in turn, as it took on average."""
    turns = [[1e3 * worker.run(calls) / calls for worker in workers] for _ in range(TURNS)]
    return [statistics.mean(of_one) for of_one in zip(*turns)]


def row(workers, cores, count):
    for worker in workers:
        worker.ask("prepare", problem=Problem((count,)).message())
        worker.run(3)
    calls = max(1, round(TURN_SECONDS / workers[-1].run(1)))
    idle = times(workers, calls)
    with busy(cores):
        loaded = times(workers, calls)
    cells = [*idle, idle[1] / idle[0], *loaded, loaded[1] / loaded[0]]
    return [size_name(count), *map(number, cells)]


def table(adapter, logs):
    """Lines of text, with a column for the machine idle and busy, by number of threads."""
    seen = machine.describe()
    cores = seen["cores"]
    with ExitStack() as stack:
        workers = []
        for threads in (1, cores):
            settings = environment(CPU, threads, adapter, logs)
            found = stack.enter_context(started([known(LAYER)], CPU, threads, settings, logs))
            workers += found.values()
        seen["instruction_sets"] = [workers[0].ask("describe")["isa"]]
        titles = [f"{state}, {n}" for state in ("idle", "busy") for n in (1, cores, f"{cores} / 1")]
        rows = [row(workers, cores, count) for count in SIZES]
    yield machine_line(seen)
    yield from align([["float32, ms a step, threads", *titles], *rows])


def main():
    with tempfile.TemporaryDirectory(prefix="busy.") as folder:
        adapter = adapter_build.build(CPU, CPU.install, Path(folder))
        print("\n".join(table(adapter, Path(folder))))


if __name__ == "__main__":
    program(main)
