"""benchmarks/gpu.py with the CPU's adapter in the GPU's place, and on a made-up report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import adapter  # noqa: E402
import gpu_report  # noqa: E402
from failure import ContestantFailed  # noqa: E402
from gpu_contestants import CONTESTANTS  # noqa: E402
from team import ask_all  # noqa: E402

GPU = {
    "name": "Made-up GPU",
    "compute capability": "9.0",
    "CUDA runtime": "13.0",
    "CUDA driver": "13.0",
}
MANIFEST = {"commit": "0123456789abcdef", "dirty": False, "cuda": "13.0", "architecture": "90"}


def run_program(*arguments, **environment):
    argv = [sys.executable, BENCHMARKS / "gpu.py", *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=600)


# A report that was made up


def made_up_report(**milliseconds):
    """At 2^26 and 2^25, all as given or 10 ms; the copy 1."""
    times = {c.name: milliseconds.get(c.name.replace("-", "_"), 10) for c in CONTESTANTS}
    times["copy"] = 1
    return {
        "machine": {"gpu": GPU, "driver": "580.1", "cpu": "Made-up CPU", "system": "Made-up"},
        "bundle": MANIFEST,
        "date": "2018-12-27",
        "settings": {
            "turns": 9,
            "turn_seconds": 0.01,
            "deviation": 3,
            "positives": 0.01,
            "cls_weight": 100.0,
        },
        "contestants": [
            {"name": c.name, "label": c.label, "bytes": c.bytes, "versions": "1.0"}
            for c in CONTESTANTS
        ],
        "measured": [
            {"count": 1 << power, "contestant": name, "median": 1e-3 * ms * 2 ** (power - 26)}
            for power in (25, 26)
            for name, ms in times.items()
        ],
        "left_out": [{"contestant": "jax", "why": "JAX jit: none here"}],
    }


def verdicts(report):
    return {
        target.words: (pytest.approx(target.value), target.verdict)
        for target in gpu_report.targets(report)
    }


def test_targets_are_bandwidths_and_ratios():
    # The copy moves 8 bytes an element in 1 ms, the layer 20, the one pass 12.
    found = verdicts(made_up_report(layer=2.5 / 0.9, one_pass=1.5 / 0.8, torch=13.9))
    assert found == {
        "our layer: bandwidth, of the copy's": (0.9, "reached"),
        "our kernel, one pass: bandwidth, of the copy's": (0.8, "missed"),
        "our layer: times as fast as PyTorch eager": (13.9 * 0.9 / 2.5, "reached"),
        "our layer: times as fast as PyTorch torch.compile": (3.6, "reached"),
        "our layer: times as fast as upstream's layer, unweighted": (3.6, "reached"),
        "our kernel, one pass: times as fast as PyTorch torch.compile": (8 / 1.5, "reached"),
    }


def test_what_was_not_measured_reaches_nothing():
    report = made_up_report()
    report["measured"] = [row for row in report["measured"] if row["count"] == 1 << 25]
    assert {target.verdict for target in gpu_report.targets(report)} == {"not measured"}
    assert "33,554,432 elements" in gpu_report.text(report)


def test_last_line_is_the_outcome(tmp_path):
    # As above: the layer reaches its four, the one pass only the other of its two.
    report = made_up_report(layer=2.5 / 0.9, one_pass=1.5 / 0.8, torch=13.9)
    line = "5 of 6 targets reached, 0 not measured; left out: jax"
    assert gpu_report.text(report).splitlines()[-1] == line
    report["measured"] = [row for row in report["measured"] if row["contestant"] != "torch"]
    report["left_out"] = []
    (tmp_path / "report.json").write_text(json.dumps(report))
    # Also where there is nothing to draw with.
    (tmp_path / "matplotlib.py").write_text("raise ImportError('no Matplotlib here')\n")
    # As gpu_run.py runs it: what it prints goes to one file, at once.
    argv = [sys.executable, BENCHMARKS / "gpu.py", "--plot", tmp_path / "report.json"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    printed = subprocess.check_output(
        argv, env=environment, stderr=subprocess.STDOUT, text=True
    ).splitlines()
    assert printed[0].startswith("no report.png: no Matplotlib here")
    assert printed[-1] == "4 of 6 targets reached, 1 not measured; left out: none"


def test_table_and_plot_are_made_of_the_json_alone(tmp_path):
    report = made_up_report(layer=2.5)
    (tmp_path / "report.json").write_text(json.dumps(report))
    done = run_program("--plot", tmp_path / "report.json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    said = (tmp_path / "report.txt").read_text(encoding="utf-8")
    assert said.rstrip() == gpu_report.text(report)
    (row,) = [line for line in said.splitlines() if line.startswith("our layer  ")][:1]
    # 20 bytes of 2^26 elements in 2.5 ms; the copy 8 in 1.
    assert row.split()[2:] == ["2.500", "536.9", "1.00", "1.00"]
    assert "left out: jax: JAX jit: none here" in said
    assert "CUDA runtime 13.0, driver 580.1 for CUDA 13.0; Made-up CPU" in said


# A tiny run


@pytest.fixture
def bundle(caffe_install, tmp_path):
    """As far as the benchmark takes it; the adapter has the functions of the GPU's."""
    folder = tmp_path / "bundle"
    for name in ("bin", "lib"):
        (folder / name).mkdir(parents=True)
    built = adapter.build(caffe_install, tmp_path / "adapter")
    (folder / "lib" / "adapter.so").symlink_to(built)
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    lines = "".join(f"echo '{name}: {value}'\n" for name, value in GPU.items())
    (folder / "bin" / "device").write_text(f"#!/bin/sh\n{lines}")
    (folder / "bin" / "device").chmod(0o755)
    return folder


def test_run_measures_what_there_is(bundle, tmp_path):
    (tmp_path / "torch.py").write_text(
        "import os\n"
        "cache = os.environ['TORCHINDUCTOR_CACHE_DIR']\n"
        "assert os.path.isdir(cache)\n"
        "raise ImportError(f'no PyTorch here: {cache}')\n"
    )
    (tmp_path / "jax.py").write_text("raise ImportError('no JAX here')\n")
    done = run_program(
        *("--bundle", bundle, "--output", tmp_path / "out", "--sizes", 1024, 4096),
        *("--driver", "580.2"),
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    there = {"copy", "layer", "two-passes", "one-pass", "upstream"}
    assert {row["name"] for row in report["contestants"]} == there
    # Upstream's has no weights: also at large sizes it is held to its own problem.
    assert {(row["contestant"], row["count"]) for row in report["agreement"]} == {
        (name, count) for name in there - {"copy"} for count in (8960, 1024, 4096)
    }
    assert {(row["contestant"], row["count"]) for row in report["measured"]} == {
        (name, count) for name in there for count in (1024, 4096)
    }
    left_out = {row["contestant"]: row["why"] for row in report["left_out"]}
    assert left_out["jax"] == "JAX jit: no JAX here" and len(left_out) == 3
    assert report["bundle"] == MANIFEST and report["machine"]["gpu"] == GPU
    assert report["machine"]["driver"] == "580.2"
    assert "left out: torch: PyTorch eager: no PyTorch here" in done.stdout
    cache = Path(left_out["torch-compile"].split(": ")[-1])
    assert tmp_path / "out" not in cache.parents and not cache.exists()
    assert (tmp_path / "out" / "report.png").exists()


# JAX as far as the benchmark takes it. At 4096 elements it does something else.
JAX = """\
import types
import numpy as np
from problem import CLS_WEIGHT

__version__ = "made up"
numpy = types.SimpleNamespace(asarray=np.asarray)

def default_backend():
    return "gpu"

def jit(function):
    return function

def block_until_ready(result):
    return result

def value_and_grad(_):
    def both(x, t):
        x, t = x.astype(float), t.astype(float)
        weight = 1 + (CLS_WEIGHT - 1) * t
        loss = np.sum((1 - t) * x + weight * np.logaddexp(0, -x))
        gradient = 1 - t - weight / (1 + np.exp(x))
        if x.size == 4096:
            {at_4096}
        return loss, gradient
    return both
"""


@pytest.fixture
def run_with_jax(bundle, tmp_path):
    """Runs the benchmark with a made-up JAX; returns the program, and the report's rows."""

    def run(at_4096):
        (tmp_path / "jax.py").write_text(JAX.format(at_4096=at_4096))
        done = run_program(
            *("--bundle", bundle, "--output", tmp_path / "out", "--sizes", 1024, 4096, 16384),
            *("--only", "upstream", "jax"),
            PYTHONPATH=str(tmp_path),
        )
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        measured = [(row["contestant"], row["count"]) for row in report["measured"]]
        assert (tmp_path / "out" / "report.txt").read_text().rstrip() == gpu_report.text(report)
        return done, measured, report["left_out"]

    return run


class StandIn:
    """A worker that answers so, or fails."""

    def __init__(self, answer):
        self.answers = [answer]

    def send(self, do):
        pass

    def receive(self):
        answer = self.answers.pop()
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_answers_are_read_before_a_failure_is_raised():
    given = [{}, ContestantFailed(None, "the first"), ContestantFailed(None, "the second"), {}]
    workers = dict(enumerate(map(StandIn, given)))
    with pytest.raises(ContestantFailed, match="the first"):
        ask_all(workers, "prepare", {})
    assert not any(worker.answers for worker in workers.values())


ALL_BUT_JAX_LATE = [
    *(("layer", 1024), ("upstream", 1024), ("jax", 1024)),
    *(("layer", 4096), ("upstream", 4096)),
    *(("layer", 16384), ("upstream", 16384)),
]


def test_one_that_fails_late_is_left_out_from_there_on(run_with_jax):
    done, measured, left_out = run_with_jax("raise MemoryError('2 GiB more')")
    assert done.returncode == 0, done.stderr
    assert measured == ALL_BUT_JAX_LATE
    assert left_out == [{"contestant": "jax", "why": "JAX jit: MemoryError: 2 GiB more"}]
    assert done.stdout.endswith("left out: jax\n")


def test_one_that_dies_late_is_left_out_from_there_on(run_with_jax):
    done, measured, left_out = run_with_jax("import os; os.abort()")
    assert done.returncode == 0, done.stderr
    assert measured == ALL_BUT_JAX_LATE
    assert left_out[0]["why"].startswith("JAX jit: its process ended (-6)")


def test_one_that_computes_something_else_late_is_said_loudly(run_with_jax):
    done, measured, left_out = run_with_jax("loss *= 1.01")
    assert measured == ALL_BUT_JAX_LATE
    why = "JAX jit disagrees: its loss of 4096 elements in float32 is off by 0.01, relative"
    assert left_out == [{"contestant": "jax", "why": why}]
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"gpu.py: {why}"


def test_what_was_measured_before_ours_fails_is_shown(bundle, tmp_path):
    # Caffe counts in int.
    sizes = ["--sizes", 1024, 1 << 31, "--only", "layer"]
    done = run_program("--bundle", bundle, "--output", tmp_path / "out", *sizes)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("gpu.py: our layer: its process ended (-6): ") and "Check failed" in line
    assert (tmp_path / "out" / "report.png").exists()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["count"] for row in report["measured"]] == [1024]
    assert done.stdout == gpu_report.text(report) + "\n"


def test_no_gpu(bundle, tmp_path):
    (bundle / "bin" / "device").write_text("#!/bin/sh\necho device: none >&2; exit 1\n")
    done = run_program("--bundle", bundle, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == "gpu.py: no GPU that the bundle runs on: device: none\n"
