"""Training: one `caffe train` per run, a few at a time; each finished model has a record.

A run is a scheme of weights and a seed. Everything of it lies in OUTPUT/models/SCHEME-seedN:
net.prototxt and solver.prototxt (the example's, with the run's paths, weights and seed filled in),
train.log, model.caffemodel and, written last, record.json. Only a record whose digests match makes
a run a finished one: a training that was interrupted leaves none.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from google.protobuf import text_format
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from _common import Failure

from .common import write_json

LOSS = re.compile(r"Iteration (\d+)(?: \(.*\))?, loss = (\S+)")
TESTING = re.compile(r"Iteration (\d+), Testing net")
TEST_LOSS = re.compile(r"Test net output #\d+: test_loss = (\S+)")

Run = namedtuple("Run", "scheme seed")


def run_folder(output, run):
    return output / "models" / f"{run.scheme}-seed{run.seed}"


def read_prototxt(path, message):
    return text_format.Parse(path.read_text(encoding="utf-8"), message)


def solver_prototxt(solver, run, iterations):
    """A solver's text with the run's seed, and paths relative to the output folder."""
    folder = run_folder(Path(), run)
    solver.net = str(folder / "net.prototxt")
    solver.snapshot_prefix = str(folder / "partial")
    solver.random_seed = run.seed
    solver.max_iter = iterations
    return text_format.MessageToString(solver)


def prepare(output, texts, context):
    """Write each run's prototxts; returns {run: the key that its record must have}.

    texts: {run: {file name: text}}. context: what else a model depends on (the data, Caffe's
    library).
    """
    keys = {}
    for run, files in texts.items():
        folder = run_folder(output, run)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        everything = json.dumps({**files, **context}, sort_keys=True)
        keys[run] = hashlib.sha256(everything.encode()).hexdigest()
    return keys


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record_of(output, run, key):
    """The record of a finished run with this key, or None."""
    folder = run_folder(output, run)
    try:
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        whole = record["key"] == key and record["sha256"] == sha256(folder / "model.caffemodel")
    except (OSError, ValueError, KeyError):
        return None
    return record if whole else None


def read_log(lines, on_iteration):
    """The loss curves in a log of `caffe train`: lists of [iteration, loss]."""
    train, test, tested_at = [], [], 0
    for line in lines:
        if match := LOSS.search(line):
            train.append([int(match[1]), float(match[2])])
            on_iteration(*train[-1])
        elif match := TESTING.search(line):
            tested_at = int(match[1])
        elif match := TEST_LOSS.search(line):
            test.append([tested_at, float(match[1])])
    return {"train_loss": train, "test_loss": test}


def train_missing(trainer, keys, titles, write_data, retrain):
    """Train the runs of {run: key} that are not finished; returns {run: record}.

    write_data(seeds) writes the files that these seeds' runs are trained on.
    """
    records = {run: record_of(trainer.output, run, key) for run, key in keys.items()}
    missing = {run: key for run, key in keys.items() if retrain or records[run] is None}
    if missing:
        write_data(sorted({run.seed for run in missing}))
        with Progress(missing, trainer.max_iter, titles) as progress:
            records.update(trainer.train_all(missing, progress.on_iteration, progress.on_finished))
    else:
        print(f"nothing to train: {len(keys)} finished runs in {trainer.output}", file=sys.stderr)
    return records


class Progress:
    """A bar on a terminal, and a line for each finished run. titles: {scheme: its words}."""

    def __init__(self, runs, iterations, titles):
        self.iterations, self.titles = iterations, titles
        self.done = dict.fromkeys(runs, 0)
        share = TextColumn("{task.percentage:3.0f}%")
        columns = (TextColumn("{task.description:48}"), BarColumn(), share)
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


class Trainer:
    """Runs `caffe train` for several runs at a time; on a failure stops them all."""

    def __init__(self, caffe, output, max_iter):
        self.caffe, self.output, self.max_iter = caffe, output, max_iter
        self.running = set()

    def train_all(self, keys, on_iteration, on_finished):
        """Train every run of {run: key}, one per processor at a time; returns {run: record}."""
        pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        jobs = {pool.submit(self.train, run, key, on_iteration): run for run, key in keys.items()}
        records = {}
        try:
            for job in as_completed(jobs):
                records[jobs[job]] = job.result()
                on_finished(jobs[job], job.result())
            return records
        finally:
            for job in jobs:
                job.cancel()
            for process in list(self.running):
                process.kill()
            pool.shutdown()

    def train(self, run, key, on_iteration):
        """Train one run and write its record, which says what was trained and how it went."""
        folder = run_folder(self.output, run)
        for name in ("record.json", "model.caffemodel"):
            (folder / name).unlink(missing_ok=True)
        started = time.monotonic()
        curves = self.run_caffe(run, folder, lambda i, loss: on_iteration(run, i, loss))
        seconds = round(time.monotonic() - started, 1)
        model = folder / f"partial_iter_{self.max_iter}.caffemodel"
        if not model.is_file():
            raise Failure(f"{folder.name}: training stopped early; run it again")
        os.replace(model, folder / "model.caffemodel")
        model.with_suffix(".solverstate").unlink()
        record = {
            "key": key,
            "sha256": sha256(folder / "model.caffemodel"),
            "seconds": seconds,
            **curves,
        }
        write_json(folder / "record.json", record)
        return record

    def run_caffe(self, run, folder, on_iteration):
        argv = [str(self.caffe.program), "train"]
        argv += ["-solver", str(run_folder(Path(), run) / "solver.prototxt")]
        # One thread each: more trainings at a time use the cores better than more threads in such
        # small products, and the sums do not depend on how many cores there are.
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        process = subprocess.Popen(
            argv,
            cwd=self.output,
            env={**os.environ, **threads, "GLOG_logtostderr": "1", "GLOG_minloglevel": "0"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        self.running.add(process)
        with open(folder / "train.log", "w", 1, encoding="utf-8") as log, process:
            curves = read_log(tee(process.stderr, log), on_iteration)
        self.running.discard(process)
        if process.returncode != 0:
            raise Failure(f"{folder.name}: caffe train failed: {last_words(folder)}")
        return curves


def tee(lines, log):
    for line in lines:
        log.write(line)
        yield line


def last_words(folder):
    """Caffe's own fatal line (glog starts it with F), and where the rest is."""
    path = folder / "train.log"
    fatal = [
        line.split("] ", 1)[-1]
        for line in path.read_text(encoding="utf-8").splitlines()
        if line[:1] == "F"
    ]
    return f"{fatal[-1]} (see {path})" if fatal else f"see {path}"
