"""The contestants' processes, as the driver sees them: each does what it is asked, when asked."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import cuda_toolkit
from _common import Failure
from benchmarks.devices import ROOT

SCRIPTS = ROOT / "scripts"
ISA_VARIABLE = "WEIGHTED_SIGMOID_LOSS_ISA"


class ContestantFailed(Failure):
    """One contestant cannot continue; the others can."""

    def __init__(self, contestant, message):
        super().__init__(message)
        self.contestant = contestant


class Disagreement(ContestantFailed):
    """One whose result is wrong."""


def processors(threads):
    """Which ones to run on: the last, as the first are likelier to serve interrupts."""
    return sorted(os.sched_getaffinity(0))[-threads:]


def environment(device, threads, adapter, cache):
    """The same for all: that many threads, which sleep when they have nothing to do."""
    number = str(threads)
    # scripts/ has names that packages have, which libraries import.
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = [folder for folder in given if folder and Path(folder).resolve() != SCRIPTS]
    callers = cuda_toolkit.environment(adapter) if device.name == "gpu" else os.environ
    return {
        **{k: v for k, v in callers.items() if not k.startswith(("OMP_", "GOMP_", "XLA_"))},
        "BENCH_ADAPTER": str(adapter),
        "GLOG_minloglevel": "2",
        "OMP_NUM_THREADS": number,
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_NUM_THREADS": number,
        "PYTHONPATH": os.pathsep.join(folders),
        "TORCHINDUCTOR_CACHE_DIR": str(cache),
        **device.environment,
    }


class Worker:
    """One contestant's process. Its standard error goes to a file."""

    def __init__(self, contestant, device, threads, environment, log):
        self.contestant = contestant
        self.waited = self.used = 0.0
        self.log = log
        if contestant.isa:
            environment = {**environment, ISA_VARIABLE: contestant.isa}
        else:
            environment = {k: v for k, v in environment.items() if k != ISA_VARIABLE}
        where = ",".join(map(str, processors(threads)))
        argv = [sys.executable, "-m", "benchmarks.worker"]
        with open(log, "w") as stream:
            self.process = subprocess.Popen(
                [*argv, contestant.family, "--device", device.name, "--processors", where],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )

    def send(self, do, **message):
        with suppress(BrokenPipeError):  # receive() says what became of the process
            self.process.stdin.write(json.dumps({"do": do, **message}) + "\n")
            self.process.stdin.flush()

    def receive(self):
        line = self.process.stdout.readline()
        if not line:
            self.fail_dead()
        answer = json.loads(line)
        if "error" in answer:
            raise self.failed(answer["error"])
        return answer

    def ask(self, do, **message):
        self.send(do, **message)
        return self.receive()

    def run(self, calls):
        """Seconds for that many steps in a row; also records what was used while waiting."""
        answer = self.ask("run", calls=calls)
        self.waited += answer["waited"]
        self.used += answer["used"]
        return answer["seconds"]

    def fail_dead(self):
        status = self.process.wait()
        lines = self.log.read_text(errors="replace").splitlines()
        fatal = [line for line in lines if "Check failed" in line]
        said = (fatal or lines or ["it said nothing"])[-1]
        raise self.failed(f"its process ended ({status}): {said}")

    def failed(self, why):
        return ContestantFailed(self.contestant, f"{self.contestant.label}: {why}")

    def close(self):
        self.process.kill()
        self.process.wait()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()


@contextmanager
def started(contestants, device, threads, environment, logs):
    """The workers of these, by name."""
    logs.mkdir(parents=True, exist_ok=True)
    workers = {}
    try:
        for contestant in contestants:
            log = logs / f"{contestant.name}-{threads}.log"
            workers[contestant.name] = Worker(contestant, device, threads, environment, log)
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def ask_all(workers, do, messages):
    """All at once, so that they share the processors; nothing is timed.

    Each answer is read before a failure is raised, so that the others can be asked again.
    """
    for name, worker in workers.items():
        worker.send(do, **messages.get(name, {}))
    answers, failures = {}, []
    for name, worker in workers.items():
        try:
            answers[name] = worker.receive()
        except ContestantFailed as failure:
            failures.append(failure)
    if failures:
        raise failures[0]
    return answers
