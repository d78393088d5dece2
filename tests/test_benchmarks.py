"""benchmarks/: tiny runs of what needs no more than the tests have, and made-up reports.

A GPU's place is taken by the CPU's adapter, and by a stand-in for NVIDIA's driver.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stand_in_gpu

from _common import Failure
from benchmarks import adapter_build, bounds, busy, chart, measure, tables
from benchmarks.contestants import known, measured_on
from benchmarks.devices import ATTRIBUTES, CPU
from benchmarks.problem import Problem
from benchmarks.report import Results
from benchmarks.team import ContestantFailed, ask_all

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = ROOT / "benchmarks" / "results" / "cpu-avx512"
HEADLINE = 1 << 24
SETS = ["avx512", "avx2", "baseline"]


def run_program(*arguments, root=ROOT, module="benchmarks", path=(), **environment):
    """From that root; path: more folders of Python's."""
    argv = [sys.executable, "-m", module, *map(str, arguments)]
    folders = map(str, [*path, ROOT / "scripts", ROOT / "python"])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), **environment}
    return subprocess.run(
        argv, cwd=root, env=environment, capture_output=True, text=True, timeout=600
    )


def one_line(done, status):
    assert done.returncode == status, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("measured ")]
    assert len(lines) == 1 and lines[0].startswith("benchmarks: "), done.stderr
    return lines[0]


# Reports that were made up


def made_up_report(**milliseconds):
    """At 2^24 on two threads, all as given or 100 ms; the floor 10; half of that at 2^23."""
    contestants = measured_on("cpu", SETS)
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
        for count in (ATTRIBUTES, HEADLINE // 2, HEADLINE)
        for name, time in times.items()
    ]
    steps = {"plain": 20, "pixel": 31, "element": 33}
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
    return {
        bound.words: (bound.value and pytest.approx(bound.value), bound.verdict)
        for bound in bounds.bounds(report)
    }


def test_bounds_are_of_ratios_of_medians():
    report = made_up_report(layer_avx512=15, one_pass_avx512=17, torch=213, torch_compile=51)
    found = verdicts(report)
    count = "16,777,216 elements"
    assert found["our layer, AVX-512: times the floor"] == (1.5, "reached")
    assert found["our kernel, one pass, AVX-512: times the floor"] == (1.7, "missed")
    fast = f"our layer: times as fast as PyTorch eager, {count}"
    assert found[fast] == (14.2, "reached")
    fast = f"our layer: times as fast as PyTorch torch.compile, {count}"
    assert found[fast] == (3.4, "missed")
    assert found["case pixel: times the plain step"] == (1.55, "reached")
    assert found["case element: times the plain step"] == (1.65, "missed")
    assert "case plain: times the plain step" not in found


def test_front_has_a_bound_with_one_weight_and_with_one_per_channel():
    report = made_up_report(front_torch_avx512=50, front_torch_channels_avx512=60)
    words = "our package, PyTorch{}, AVX-512: times as fast as PyTorch eager, 8,960 elements"
    found = verdicts(report)
    assert found[words.format("")] == (2, "reached")
    assert found[words.format(", a weight per channel")] == (pytest.approx(5 / 3), "missed")


def test_layer_in_a_net_is_held_to_the_layer_alone():
    found = verdicts(made_up_report(layer_avx512=20, layer_in_net_avx512=23))
    assert found["our layer in a net, AVX-512: times our layer"] == (1.15, "missed")


def test_value_at_its_bound_is_reached():
    found = verdicts(made_up_report(layer_avx512=12.5))
    fast = "our layer: times as fast as JAX jit, 16,777,216 elements"
    assert found[fast] == (8, "reached")


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


GPU_DESCRIBED = {
    "name": stand_in_gpu.NAME,
    "compute capability": "9.0",
    "CUDA driver": "13.0",
    "driver": "580.95.05",
    "memory_bytes": stand_in_gpu.MEMORY,
    "devices": 1,
}


def made_up_gpu_report(**milliseconds):
    """At 2^26 and 2^25, all as given or 10 ms; the copy 1."""
    contestants = measured_on("gpu")
    times = {c.name: milliseconds.get(c.name.replace("-", "_"), 10) for c in contestants}
    times["copy"] = 1
    where = {"threads": 8, "dtype": "float32"}
    return {
        **made_up_report(),
        "device": "gpu",
        "machine": {
            "gpu": GPU_DESCRIBED,
            "cpu": "Made-up CPU",
            "system": "Made-up",
            "instruction_sets": [],
        },
        "contestants": [
            {"name": c.name, "label": c.label, "bytes": c.bytes, "versions": "1.0"}
            for c in contestants
        ],
        "measured": [
            {**where, "count": 1 << k, "contestant": name, "median": 1e-3 * ms * 2 ** (k - 26)}
            for k in (25, 26)
            for name, ms in times.items()
        ],
        "cases": [],
        "left_out": [],
        "missing": [{"contestant": "jax", "why": "JAX jit: none here"}],
        "idle": [],
    }


def test_gpu_bounds_are_bandwidths_and_ratios():
    # The copy moves 8 bytes per element in 1 ms, the layer 20.
    found = verdicts(made_up_gpu_report(layer=2.5 / 0.8, torch=13.9))
    assert found == {
        "our layer: bandwidth, of the copy's": (0.8, "missed"),
        "our layer: times as fast as PyTorch eager": (13.9 * 0.8 / 2.5, "missed"),
        "our layer: times as fast as PyTorch torch.compile": (3.2, "reached"),
        "our layer: times as fast as upstream's layer, unweighted": (3.2, "reached"),
    }


def test_bounds_are_of_the_headline_alone():
    report = made_up_gpu_report()
    report["measured"] = [row for row in report["measured"] if row["count"] == 1 << 25]
    assert {bound.verdict for bound in bounds.bounds(report)} == {"not measured"}
    assert "33,554,432 elements" in tables.text(report)


def reached(done):
    """The last column."""
    return [line.split("  ")[-1].strip() for line in done.stdout.splitlines()[1:]]


def test_bounds_are_printed(tmp_path):
    report = made_up_gpu_report(layer=2.5 / 0.9, torch=12)
    (tmp_path / "report.json").write_text(json.dumps(report))
    done = run_program(tmp_path / "report.json", module="benchmarks.bounds")
    assert (done.returncode, done.stderr) == (1, "")
    assert reached(done) == ["1 of 1", "0 of 1", "1 of 1", "1 of 1"]
    report["measured"] = [row for row in report["measured"] if row["contestant"] != "torch"]
    (tmp_path / "other.json").write_text(json.dumps(report))
    done = run_program(tmp_path / "other.json", module="benchmarks.bounds")
    assert (done.returncode, done.stderr) == (0, "")
    assert reached(done) == ["1 of 1", "0 of 0", "1 of 1", "1 of 1"]
    both = [tmp_path / "report.json", tmp_path / "other.json"]
    done = run_program(*both, module="benchmarks.bounds")
    assert reached(done) == ["2 of 2", "0 of 1", "2 of 2", "2 of 2"]


def test_gpu_text_has_bandwidths():
    text = tables.text(made_up_gpu_report(layer=2.5))
    # 20 bytes of 2^26 elements in 2.5 ms; the copy 8 in 1.
    assert cells(text, "our layer  ") == ["2.50", "537", "1.00", "1.00"]
    # Half as many take half as long.
    assert cells(text[text.index("microseconds") :], "our layer  ") == ["1,250", "2,500"]
    assert "left out: jax: JAX jit: none here" in text
    assert "Made-up GPU, compute capability 9.0, driver 580.95.05 for CUDA 13.0; Made" in text


def test_committed_text_is_made_of_the_committed_json():
    report = json.loads((COMMITTED / "report.json").read_text(encoding="utf-8"))
    assert tables.text(report) + "\n" == (COMMITTED / "report.txt").read_text(encoding="utf-8")


def test_committed_runs_miss_what_the_bounds_name():
    paths = [COMMITTED / f"{name}.json" for name in ("report", "second", "third")]
    done = run_program(*paths, module="benchmarks.bounds")
    assert done.returncode == 0
    assert done.stdout == (COMMITTED / "bounds.txt").read_text(encoding="utf-8")
    found = [bound for path in paths for bound in bounds.bounds(json.loads(path.read_text()))]
    assert len(found) == 3 * 26 and {bound.verdict for bound in found} == {"reached", "missed"}
    assert {bound.words for bound in found if bound.verdict == "missed"} == bounds.MISSED


SHOWN_IN = ["README.md", "README.zh-CN.md", "benchmarks/README.md"]


@pytest.mark.parametrize("file", SHOWN_IN)
def test_documents_show_the_committed_tables(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- speed table -->\n```text\n(.*?)\n```", text, re.DOTALL)
    committed = (COMMITTED / "report.txt").read_text(encoding="utf-8")
    assert all(section in committed for section in shown.split("\n\n"))
    assert "our layer" in shown


@pytest.mark.parametrize("made_up", [made_up_report, made_up_gpu_report])
def test_curves_have_the_colours_of_the_table(made_up, tmp_path):
    report = made_up()
    report["contestants"].append({"name": "new-one", "label": "a new one", "versions": "1.0"})
    rows = [row for row in report["measured"] if row["contestant"] == "torch"]
    report["measured"] += [{**row, "contestant": "new-one"} for row in rows]
    results = Results(report)
    drawn = [name for name in results.labels if chart.is_drawn(name, results)]
    colours = {name: chart.style(name, results)["color"] for name in drawn}
    red = {known(name).family for name in drawn if colours[name] == colours[results.layer]}
    assert red <= {"layer", "one-pass", "front-torch"}
    others = {known(name).family: colours[name] for name in drawn if known(name).family not in red}
    assert "new-one" in others and len(set(others.values())) == len(others)
    chart.draw(report, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


# Turns, on stand-ins for the workers


class StandIn:
    """A worker that takes the same time for every step, and notes that it was run."""

    def __init__(self, name, seconds, runs):
        self.name, self.seconds, self.runs = name, seconds, runs

    def run(self, calls):
        self.runs.append(self.name)
        return calls * self.seconds


def test_contestants_take_turns_after_two_warm_ups():
    runs, turns = [], []
    seconds = {"A": 1.0, "B": measure.TURN_SECONDS / 4, "C": 1e-6}
    workers = {name: StandIn(name, time, runs) for name, time in seconds.items()}
    rows = measure.timed(workers, 9, lambda: turns.append(len(runs)))
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
    contestant = measured_on("cpu", SETS)[1]
    result = {"loss": loss, "gradient": gradient}
    with pytest.raises(Failure, match=words):
        measure.judge(contestant, Problem((2,)), result, 10.0, np.array([1.0, -2.0]))


# A tiny run


@pytest.fixture(scope="module")
def caffe_install(caffe_install):
    """The adapter is compiled against it and against Highway, which Debian has from 12 on."""
    argv = ["g++", "-fsyntax-only", "-include", "hwy/highway.h", "-xc++", os.devnull]
    if subprocess.run(argv, capture_output=True).returncode != 0:
        pytest.skip("no Highway: libhwy-dev is not installed")
    return caffe_install


@pytest.fixture(scope="module")
def finished(caffe_install, tmp_path_factory):
    output = tmp_path_factory.mktemp("bench")
    done = run_program(
        *("--install", caffe_install, "--output", output, "--sizes", 1024),
        *("--only", "ours", "plain", "highway", "upstream", "article"),
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
    ours = {f"{name}-{isa}" for name in ("layer", "two-passes", "one-pass") for isa in sets}
    ours.add(f"layer-in-net-{sets[0]}")
    assert names == ours | {"floor", "plain", "highway", "upstream", "article"}
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


def test_busy_machine(finished, caffe_install, tmp_path, monkeypatch):
    monkeypatch.setattr(busy, "SIZES", [1 << 17])
    monkeypatch.setattr(busy, "TURN_SECONDS", 0.01)
    adapter = adapter_build.build(CPU, caffe_install, finished[0] / "adapter")
    _, *lines = busy.table(adapter, tmp_path)
    titles, (name, *cells) = (re.split("  +", line) for line in lines)
    cores = len(os.sched_getaffinity(0))
    ratio = f"{cores} / 1"
    assert titles[1:] == ["idle, 1", f"idle, {cores}", f"idle, {ratio}"] + [
        *("busy, 1", f"busy, {cores}", f"busy, {ratio}")
    ]
    assert name == "2^17" and all(float(cell) > 0 for cell in cells)


def test_run_measures_the_weighted_steps(finished, report):
    threads = report["measured"][0]["threads"]
    names = [row["case"] for row in report["cases"] if row["threads"] == threads]
    assert names[0] == "plain" and len(set(names)) == len(names) == 11
    assert "class_balance: CHANNEL, 256 x 32" in finished[1].stdout


def test_run_says_where_its_results_are(finished):
    _, done = finished
    assert done.stdout.splitlines()[-1].startswith("report.json, report.txt and report.png are in")
    assert "the article, NumPy" in done.stdout


# What goes wrong


@pytest.fixture
def arguments(caffe_install, finished, tmp_path):
    """Of a run that needs to compile nothing."""
    shutil.copytree(finished[0] / "adapter", tmp_path / "out" / "adapter")
    return ["--install", caffe_install, "--output", tmp_path / "out", "--sizes", 1024, "--only"]


def test_contestant_that_disagrees_ends_the_run(arguments, tmp_path):
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks")
    source = tmp_path / "benchmarks" / "implementations.py"
    right = "difference = ((w - 1) * t + 1) * probability - w * t"
    text = source.read_text(encoding="utf-8")
    assert right in text
    source.write_text(text.replace(right, right.replace("- w", "- 0.99 * w")), encoding="utf-8")
    done = run_program(*arguments, "article", root=tmp_path)
    line = one_line(done, status=1)
    assert "the article, NumPy disagrees: its gradient of 8960 elements in float32" in line
    assert not (tmp_path / "out" / "report.json").exists()


def test_library_that_is_not_there_ends_the_run(arguments, tmp_path):
    (tmp_path / "jax.py").write_text("raise ImportError('no JAX here')\n")
    line = one_line(run_program(*arguments, "jax", path=[tmp_path]), status=1)
    assert "JAX jit: no JAX here" in line


def test_contestant_that_dies_ends_the_run_with_its_last_words(arguments, tmp_path):
    (tmp_path / "jax.py").write_text(
        "import os, sys\nprint('out of luck', file=sys.stderr, flush=True)\nos.abort()\n"
    )
    line = one_line(run_program(*arguments, "jax", path=[tmp_path]), status=1)
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
    assert "run `make bench DEVICE=cpu`" in one_line(done, status=2)


def test_broken_report_is_wrong_input(tmp_path):
    report = tmp_path / "report.json"
    report.write_text("{")
    assert "is not a report" in one_line(run_program("--plot", report), status=2)


# A tiny run on a GPU, as far as a machine without one goes


COMMIT = "0123456789abcdef"


@pytest.fixture
def run_on_gpu(caffe_install, tmp_path):
    """Runs the benchmark with the CPU's adapter, which has the functions of the GPU's."""
    built = adapter_build.build(CPU, caffe_install, tmp_path / "adapter")
    driver = stand_in_gpu.driver(tmp_path / "driver", memory=1 << 50)

    def run(*arguments):
        given = ["--device", "gpu", "--adapter", built, "--commit", COMMIT]
        given += ["--output", tmp_path / "out", *arguments]
        return run_program(*given, path=[tmp_path], **driver)

    return run


def test_gpu_run_measures_what_there_is(run_on_gpu, tmp_path):
    (tmp_path / "torch.py").write_text(
        "import os\n"
        "cache = os.environ['TORCHINDUCTOR_CACHE_DIR']\n"
        "assert os.path.isdir(cache)\n"
        "raise ImportError(f'no PyTorch here: {cache}')\n"
    )
    (tmp_path / "jax.py").write_text("raise ImportError('no JAX here')\n")
    done = run_on_gpu("--sizes", 1024, 4096)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    there = {"copy", "layer", "two-passes", "upstream"}
    assert {row["name"] for row in report["contestants"]} == there
    # Upstream's has no weights: also at large sizes it is held to its own problem.
    assert {(row["contestant"], row["count"]) for row in report["agreement"]} == {
        (name, count) for name in there - {"copy"} for count in (8960, 1024, 4096)
    }
    assert {(row["contestant"], row["count"]) for row in report["measured"]} == {
        (name, count) for name in there for count in (1024, 4096)
    }
    missing = {row["contestant"]: row["why"] for row in report["missing"]}
    assert missing["jax"] == "JAX jit: no JAX here" and len(missing) == 3
    assert report["machine"]["gpu"] == {**GPU_DESCRIBED, "memory_bytes": 1 << 50}
    assert report["commit"] == COMMIT
    assert "left out: torch: PyTorch eager: no PyTorch here" in done.stdout
    cache = Path(missing["torch-compile"].split(": ")[-1])
    assert tmp_path / "out" not in cache.parents and not cache.exists()
    assert (tmp_path / "out" / "report.png").exists()


def test_machine_without_matplotlib_has_the_rest(run_on_gpu, tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('no Matplotlib here')\n")
    done = run_on_gpu("--sizes", 1024, "--only", "ours")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("no report.png: no Matplotlib here")
    assert (tmp_path / "out" / "report.txt").exists()


def test_size_that_the_gpus_memory_does_not_hold_is_left_out(run_on_gpu, tmp_path):
    # The made-up GPU has 2^50 bytes; the copy, the layer and the kernel hold 11 arrays.
    done = run_on_gpu("--sizes", 1024, 1 << 46, "--only", "ours")
    assert done.returncode == 0, done.stderr
    assert "left out for want of memory: float32 at 70,368,744,177,664 elements" in done.stdout


# JAX as far as the benchmark takes it. At 4096 elements it does something else.
JAX = """\
import types
import numpy as np
from benchmarks.problem import CLS_WEIGHT

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
def run_with_jax(run_on_gpu, tmp_path):
    """Runs the benchmark with a made-up JAX; returns the program, and the report's rows."""

    def run(at_4096):
        (tmp_path / "jax.py").write_text(JAX.format(at_4096=at_4096))
        done = run_on_gpu("--sizes", 1024, 4096, 16384, "--only", "upstream", "jax")
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        measured = [(row["contestant"], row["count"]) for row in report["measured"]]
        assert (tmp_path / "out" / "report.txt").read_text().rstrip() == tables.text(report)
        return done, measured, report["missing"]

    return run


class StandInThatAnswers:
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
    workers = dict(enumerate(map(StandInThatAnswers, given)))
    with pytest.raises(ContestantFailed, match="the first"):
        ask_all(workers, "prepare", {})
    assert not any(worker.answers for worker in workers.values())


ALL_BUT_JAX_LATE = [
    *(("copy", 1024), ("layer", 1024), ("upstream", 1024), ("jax", 1024)),
    *(("copy", 4096), ("layer", 4096), ("upstream", 4096)),
    *(("copy", 16384), ("layer", 16384), ("upstream", 16384)),
]


def test_one_that_fails_late_is_left_out_from_there_on(run_with_jax):
    done, measured, left_out = run_with_jax("raise MemoryError('2 GiB more')")
    assert done.returncode == 0, done.stderr
    assert measured == ALL_BUT_JAX_LATE
    assert left_out == [{"contestant": "jax", "why": "JAX jit: MemoryError: 2 GiB more"}]
    assert "left out: jax: JAX jit: MemoryError: 2 GiB more" in done.stdout


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
    assert done.stderr.splitlines()[-1] == f"benchmarks: {why}"


def test_what_was_measured_before_ours_fails_is_shown(run_on_gpu, tmp_path):
    # Caffe counts in int.
    done = run_on_gpu("--sizes", 1024, 1 << 31, "--only", "ours")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert "our layer: its process ended (-6): " in line and "Check failed" in line
    assert (tmp_path / "out" / "report.png").exists()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {row["count"] for row in report["measured"]} == {1024}
    assert done.stdout.startswith(tables.text(report) + "\n")


def test_no_gpu(tmp_path):
    driver = stand_in_gpu.driver(tmp_path / "driver", count=0)
    done = run_program("--device", "gpu", "--output", tmp_path / "out", **driver)
    line = "benchmarks: no GPU: NVIDIA's driver finds none (CUDA error 0)\n"
    assert (done.returncode, done.stderr) == (2, line)
    assert not (tmp_path / "out").exists()


def test_no_gpu_stops_make_before_anything_is_installed(tmp_path):
    driver = stand_in_gpu.driver(tmp_path / "driver", count=0)
    done = subprocess.run(
        ["make", "--no-print-directory", "bench", "DEVICE=gpu"],
        cwd=ROOT,
        env={**os.environ, **driver},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "/usr/bin/python3 scripts/_gpu.py\n")
    assert done.stderr.startswith("_gpu.py: no GPU: NVIDIA's driver finds none")


def test_contestant_of_the_other_device_is_wrong_input(tmp_path):
    done = run_program("--output", tmp_path / "out", "--only", "copy")
    assert done.returncode == 2 and "--only: copy not measured here" in done.stderr


def test_before_and_after_alternate():
    """HEAD's kernel beside this tree's."""
    sizes = ["--sets", "baseline", "--sizes", "32"]
    done = run_program("HEAD", *sizes, module="benchmarks.before")
    assert done.returncode == 0, done.stderr
    row = re.compile(r"no FMA, float(?:32|64), [a-z _]+, [a-z ]+  +[\d.]+ [\d.]+ ([\d.]+)")
    ratios = [float(ratio) for ratio in row.findall(done.stdout)]
    assert len(ratios) == 2 * 5 * 4 and all(ratio > 0 for ratio in ratios)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["no-such"], "no kernel of no-such: "), (["HEAD", "--sizes", "9"], "multiples of 32")],
)
def test_before_refuses(arguments, message):
    done = run_program(*arguments, module="benchmarks.before")
    assert done.returncode == 2 and message in done.stderr
