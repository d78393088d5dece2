"""benchmarks/: a tiny run of what needs no more than the tests have, and a made-up report."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import chart  # noqa: E402
import measure  # noqa: E402
import tables  # noqa: E402
from contestants import all_contestants  # noqa: E402
from failure import BenchError  # noqa: E402
from problem import Problem  # noqa: E402

HEADLINE = 1 << 24
SETS = ["avx512", "avx2", "baseline"]


def run_program(*arguments, folder=BENCHMARKS, **environment):
    argv = [sys.executable, folder / "cpu.py", *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=600)


def one_line(done, status):
    assert done.returncode == status, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("measured ")]
    assert len(lines) == 1 and lines[0].startswith("cpu.py: "), done.stderr
    return lines[0]


# A report that was made up


def made_up_report(**milliseconds):
    """At 2^24 on two threads, all as given or 100 ms; the floor 10; half of that at 2^23."""
    contestants = all_contestants(SETS)
    times = {c.name: milliseconds.get(c.name.replace("-", "_"), 100) for c in contestants}
    times["floor"] = 10
    rows = [
        {
            "threads": threads,
            "dtype": "float32",
            "count": count,
            "contestant": name,
            "calls": 1,
            "median": 1e-3 * time * count / HEADLINE * 2 / threads,
            "quartiles": [0, 0],
            "seconds": [],
        }
        for threads in (1, 2)
        for count in (tables.ATTRIBUTES, HEADLINE // 2, HEADLINE)
        for name, time in times.items()
    ]
    steps = {"plain": 20, "pixel": 39, "element": 41}
    return {
        "machine": {
            "cpu": "Made-up CPU",
            "cores": 2,
            "caches": {"L1": 32 << 10, "L2": 1 << 20},
            "system": "Made-up",
            "load_before": 0.0,
            "clock_resolution": 1e-9,
            "instruction_sets": SETS,
        },
        "commit": "0123456789abcdef",
        "dirty": True,
        "date": "2018-12-27",
        "settings": {
            "turns": 9,
            "turn_seconds": 0.01,
            "deviation": 3,
            "positives": 0.01,
            "cls_weight": 100.0,
        },
        "contestants": [{"name": c.name, "label": c.label, "versions": "1.0"} for c in contestants],
        "measured": rows,
        "cases": [
            {"threads": 2, "count": HEADLINE, "case": k, "label": f"case {k}", "median": 1e-3 * ms}
            for k, ms in steps.items()
        ],
        "left_out": [
            {"threads": 1, "dtype": "float64", "count": 1 << 26, "bytes": 32e9, "free": 20e9}
        ],
        "idle": [{"threads": 2, "contestant": "jax", "share": 0.5}],
    }


def verdicts(report):
    return {target.words: (target.value, target.verdict) for target in tables.targets(report)}


def test_targets_are_ratios_of_medians():
    report = made_up_report(layer_avx512=25, one_pass_avx512=17, torch=301, torch_compile=74)
    found = verdicts(report)
    count = "16,777,216 elements"
    assert found["our layer, AVX-512: times the floor"] == (2.5, "reached")
    assert found["our kernel, one pass, AVX-512: times the floor"] == (pytest.approx(1.7), "missed")
    fast = f"our layer: times as fast as PyTorch eager, {count}"
    assert found[fast] == (pytest.approx(12.04), "reached")
    fast = f"our layer: times as fast as PyTorch torch.compile, {count}"
    assert found[fast] == (pytest.approx(2.96), "missed")
    assert found["case pixel: times the plain step"] == (1.95, "reached")
    assert found["case element: times the plain step"] == (2.05, "missed")
    assert "case plain: times the plain step" not in found


def test_target_at_its_bound_is_reached():
    found = verdicts(made_up_report(layer_baseline=80))
    assert found["our layer, no FMA: times the floor"] == (8, "reached")


def test_what_was_not_measured_reaches_nothing():
    report = made_up_report()
    report["measured"] = [row for row in report["measured"] if row["contestant"] != "jax"]
    value, verdict = verdicts(report)["our layer: times as fast as JAX jit, 16,777,216 elements"]
    assert (value, verdict) == (None, "not measured")


def cells(text, start):
    """The columns of the first line that starts so, after that."""
    (line, *_) = [line for line in text.splitlines() if line.startswith(start)]
    return line[len(start) :].split()


def test_text_has_times_and_ratios():
    text = tables.text(made_up_report(layer_avx512=25, article=290))
    # ms on 1 and 2 threads, then the ratios to the floor's 20 and 10 ms and to the layer's.
    expected = ["580", "290", "29.0", "29.0", "11.6", "11.6"]
    assert cells(text, "the article, NumPy") == expected
    assert "float32, 16,777,216 elements" in text
    # 25 ms of 2^24 elements: 1.49 ns each, at every size that was made up.
    assert "2^23, which L2 does not hold, to 2^24 elements: 1.49 to 1.49 ns" in text
    assert "medians of 9 turns of 10 ms or one step (the clock resolves 1 ns)" in text
    assert "commit 0123456789ab with changes, 2018-12-27" in text


def test_text_has_what_is_called_from_python():
    text = tables.text(made_up_report(front_torch_avx512=16, torch_overhead=0.5))
    table = text[text.index("forward and backward, float32") :]
    columns = ["8,960, us, 1 thread", "8,960, us, 2 threads", "2^24, ms, 1 thread"]
    assert re.split("  +", table.splitlines()[0])[1:] == [*columns, "2^24, ms, 2 threads"]
    # 16 ms on two threads at 2^24, and 8,960 / 2^24 of that.
    assert cells(table, "our package, PyTorch, AVX-512") == ["17.1", "8.54", "32.0", "16.0"]


def test_text_says_what_was_left_out_and_what_disturbed():
    text = tables.text(made_up_report())
    assert "float64 at 67,108,864 elements, 1 thread (32 GB, 20 GB free)" in text
    assert "jax, 2 threads, 50% of a processor" in text


def test_numbers_have_three_digits():
    found = [tables.number(value) for value in (0.1234, 1.234, 12.34, 1234.5, None)]
    assert found == ["0.12", "1.23", "12.3", "1,234", "-"]


def test_table_and_plot_are_made_of_the_json_alone(tmp_path):
    report = tmp_path / "report.json"
    report.write_text(json.dumps(made_up_report()))
    done = run_program("--plot", report)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    said = (tmp_path / "report.txt").read_text(encoding="utf-8")
    assert said.rstrip() == tables.text(made_up_report())
    assert done.stdout.startswith(said)


def test_labels_stand_apart_and_in_order():
    placed = chart.apart({"a": 1.0, "b": 1.1, "c": 1.15, "d": 9.0}, 0.5)
    heights = [placed[name] for name in "abcd"]
    assert heights[3] == 9
    assert min(b - a for a, b in zip(heights, heights[1:])) >= 0.5 - 1e-12
    assert sum(heights[:3]) == pytest.approx(1.0 + 1.1 + 1.15)


# Turns, on stand-ins for the workers


class StandIn:
    """A worker that takes the same time for every step, and notes that it was run."""

    def __init__(self, name, seconds, runs):
        self.name, self.seconds, self.runs = name, seconds, runs

    def send(self, do, **_):
        pass

    def receive(self):
        return {}

    def run(self, calls):
        self.runs.append(self.name)
        return calls * self.seconds


def test_contestants_take_turns_after_two_warm_ups():
    runs, turns = [], []
    seconds = {"A": 1.0, "B": measure.TURN_SECONDS / 4, "C": 1e-6}
    workers = {name: StandIn(name, time, runs) for name, time in seconds.items()}
    rows = measure.measure(workers, {}, 9, lambda: turns.append(len(runs)))
    warm = len(runs) - 9 * 6
    assert runs[:2] == ["A", "A"] and runs[2:4] == ["B", "B"]
    # Each is run once, and then timed.
    assert runs[warm:] == ["A", "A", "B", "B", "C", "C"] * 9
    assert turns == [warm + 6 * k for k in range(10)]
    assert [row["calls"] for row in rows] == [1, 4, round(measure.TURN_SECONDS / 1e-6)]
    assert [row["median"] for row in rows] == pytest.approx(list(seconds.values()))
    assert all(len(row["seconds"]) == 9 for row in rows)


@pytest.mark.parametrize(
    ("loss", "gradient", "words"),
    [
        (10.1, [1.0, -2.0], "its loss of 2 elements in float32 is off by 0.01"),
        (10.0, [1.0, -1.9], "its gradient of 2 elements in float32 is off by 0.05"),
        (float("nan"), [1.0, -2.0], "its loss of 2 elements in float32 is off by nan"),
    ],
)
def test_wrong_result_is_refused(loss, gradient, words):
    contestant = all_contestants(SETS)[1]
    result = {"loss": loss, "gradient": gradient}
    with pytest.raises(BenchError, match=words):
        measure.judge(contestant, Problem((2,)), result, 10.0, np.array([1.0, -2.0]))


# A tiny run


@pytest.fixture(scope="module")
def finished(caffe_install, tmp_path_factory):
    output = tmp_path_factory.mktemp("bench")
    done = run_program(
        *("--install", caffe_install, "--output", output, "--sizes", 1024),
        *("--only", "ours", "upstream", "article"),
        WEIGHTED_SIGMOID_LOSS_ISA="baseline",
    )
    assert done.returncode == 0, done.stderr
    return output, done


@pytest.fixture(scope="module")
def report(finished):
    return json.loads((finished[0] / "report.json").read_text(encoding="utf-8"))


def test_run_measures_each_contestant(report):
    names = {row["name"] for row in report["contestants"]}
    sets = report["machine"]["instruction_sets"]
    assert names == {"floor", "upstream", "article"} | {
        f"{name}-{isa}" for name in ("layer", "two-passes", "one-pass") for isa in sets
    }
    threads = {1, len(os.sched_getaffinity(0))}
    measured = [
        (row["threads"], row["dtype"], row["count"], row["contestant"])
        for row in report["measured"]
    ]
    assert sorted(measured) == sorted(
        (n, dtype, 1024, name)
        for n in threads
        for dtype in ("float32", "float64")
        for name in names
    )
    for row in report["measured"]:
        low, high = row["quartiles"]
        assert 0 < low <= row["median"] <= high
        assert len(row["seconds"]) == report["settings"]["turns"] >= 9


def test_run_holds_each_to_the_exact_result(report):
    judged = {(row["contestant"], row["dtype"]) for row in report["agreement"]}
    names = {row["name"] for row in report["contestants"]} - {"floor"}
    assert judged >= {(name, dtype) for name in names for dtype in ("float32", "float64")}
    assert judged >= {(row["case"], "float32") for row in report["cases"]}
    # 4 ulp, the layer's guarantee: 4 * 2^-23 and 4 * 2^-52.
    limits = {"float32": 4.8e-7, "float64": 8.9e-16}
    for row in report["agreement"]:
        if row["contestant"].startswith(("layer", "one-pass")):
            # The reference is itself good to float64's rounding.
            assert row["gradient_error"] <= 2 * limits[row["dtype"]], row


def test_run_measures_the_weighted_steps(finished, report):
    threads = report["measured"][0]["threads"]
    names = [row["case"] for row in report["cases"] if row["threads"] == threads]
    assert names[0] == "plain" and len(set(names)) == len(names) == 11
    assert "class_balance: CHANNEL, 256 x 32: times the plain step" in finished[1].stdout


def test_run_says_where_its_results_are(finished):
    _, done = finished
    assert done.stdout.splitlines()[-1].startswith("report.json, report.txt and report.png are in")
    assert "not measured" in done.stdout and "the article, NumPy" in done.stdout


# What goes wrong


@pytest.fixture
def arguments(caffe_install, finished, tmp_path):
    """Of a run that needs to compile nothing."""
    shutil.copytree(finished[0] / "adapter", tmp_path / "out" / "adapter")
    return ["--install", caffe_install, "--output", tmp_path / "out", "--sizes", 1024, "--only"]


def test_contestant_that_disagrees_ends_the_run(arguments, tmp_path):
    shutil.copytree(BENCHMARKS, tmp_path / "benchmarks")
    (tmp_path / "python").symlink_to(ROOT / "python")
    source = tmp_path / "benchmarks" / "contestants.py"
    right = "difference = ((w - 1) * t + 1) * probability - w * t"
    text = source.read_text(encoding="utf-8")
    assert right in text
    source.write_text(text.replace(right, right.replace("- w", "- 0.99 * w")), encoding="utf-8")
    done = run_program(*arguments, "article", folder=tmp_path / "benchmarks")
    line = one_line(done, status=1)
    assert "the article, NumPy disagrees: its gradient of 8960 elements in float32" in line
    assert not (tmp_path / "out" / "report.json").exists()


def test_library_that_is_not_there_ends_the_run(arguments, tmp_path):
    (tmp_path / "jax.py").write_text("raise ImportError('no JAX here')\n")
    line = one_line(run_program(*arguments, "jax", PYTHONPATH=str(tmp_path)), status=1)
    assert "JAX jit: no JAX here" in line


def test_contestant_that_dies_ends_the_run_with_its_last_words(arguments, tmp_path):
    (tmp_path / "jax.py").write_text(
        "import os, sys\nprint('out of luck', file=sys.stderr, flush=True)\nos.abort()\n"
    )
    line = one_line(run_program(*arguments, "jax", PYTHONPATH=str(tmp_path)), status=1)
    assert "JAX jit: its process ended (-6): out of luck" in line


@pytest.mark.parametrize(
    ("compiler", "words"),
    [
        ("false", "does not build against the installed Caffe"),
        ("no-such-compiler", "cannot run no-such-compiler"),
    ],
)
def test_compiler_that_fails(arguments, compiler, words):
    assert words in one_line(run_program(*arguments, "article", CXX=compiler), status=1)


def test_missing_caffe_is_wrong_input(tmp_path):
    done = run_program("--install", tmp_path, "--output", tmp_path / "out")
    assert "run `make bench`" in one_line(done, status=2)


def test_broken_report_is_wrong_input(tmp_path):
    report = tmp_path / "report.json"
    report.write_text("{")
    assert "is no report" in one_line(run_program("--plot", report), status=2)
