"""The package as a contestant of the benchmark, on a tiny problem."""

import json
import os
import subprocess
import sys


def test_benchmark_measures_both_fronts(root, tmp_path):
    import pytorch  # noqa: F401

    argv = [sys.executable, "-m", "benchmarks", "--device", "cpu", "--output", tmp_path]
    argv += ["--sizes", "1024", "--only", "package"]
    environment = {**os.environ, "PYTHONPATH": str(root / "scripts")}
    done = subprocess.run(
        argv, cwd=root, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    best = report["machine"]["instruction_sets"][0]
    fronts = {f"{front}-{best}" for front in ("front-numpy", "front-torch", "front-torch-channels")}
    measured = {row["contestant"] for row in report["measured"]}
    assert measured == {"floor", "torch-overhead", *fronts}
    # Each was held to the exact result, and is within the guarantee, 4 ulp.
    limits = {"float32": 2 * 4.8e-7, "float64": 2 * 8.9e-16}  # the reference has errors, too
    judged = [row for row in report["agreement"] if row["contestant"] in fronts]
    assert {(row["contestant"], row["dtype"]) for row in judged} == {
        (front, dtype) for front in fronts for dtype in limits
    }
    assert all(row["gradient_error"] <= limits[row["dtype"]] for row in judged)
    assert "our package, PyTorch" in done.stdout
