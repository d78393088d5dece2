"""devtools/gpu_run.py on stand-ins for the programs; what devtools/gpu_bundle.py collects."""

import json
import os
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import gpu_bundle
import gpu_run
from _common import Failure

DESCRIBE = """\
[ "$1" = describe ] && printf 'name: Made-up GPU\\ndevices: 1\\n' && exit 0
"""
TESTS = """\
echo "[----------] 1 test from ATest/2, where TypeParam = caffe::GPUDevice<float>"
echo "[ RUN      ] ATest/2.TestPasses"
echo "[       OK ] ATest/2.TestPasses (3 ms)"
echo "[ RUN      ] AGPUTest.TestPasses"
echo "[       OK ] AGPUTest.TestPasses (3 ms)"
echo "[----------] 1 test from BTest/2, where TypeParam = float"
echo "[ RUN      ] BTest/2.TestOnCpu"
echo "[       OK ] BTest/2.TestOnCpu (3 ms)"
"""
FAILS = """\
echo "[ RUN      ] AGPUTest.TestFails"
echo "[  FAILED  ] AGPUTest.TestFails (3 ms)"
exit 1
"""
# Losses that fall; on the GPU they are off by so much.
TRAIN = """\
awk -v CONVFMT=%.9g -v off={off} 'BEGIN {{ for (i = 0; i < 30; ++i)
  print "I sgd.cpp:1] Iteration " i " (9 iter/s), loss = " (2 - i / 30) * (1 + off * {gpu}) }}'
"""
CAFFE = 'case "$*" in *gpu*) gpu=1 ;; *) gpu=0 ;; esac\n' + TRAIN.replace("{gpu}", "'$gpu'")


@pytest.fixture
def bundle(tmp_path):
    """A bundle whose programs are shell scripts."""
    folder = tmp_path / "gpu-bundle"
    for name in ("bin", "lib", "demo"):
        (folder / name).mkdir(parents=True)
    manifest = {"commit": "0123", "dirty": False, "cuda": "13.0", "architecture": "90"}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "needs": ["libmade_up.so.1"]}))
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    (libraries / "libmade_up.so.1").touch()
    write(folder, "device", DESCRIBE + 'echo "$*: 0 differ"')
    write(folder, "test.testbin", TESTS)
    write(folder, "golden", "echo 27 golden cases, 0 failures")
    write(folder, "caffe", CAFFE.format(off=1e-6))
    write(folder, "nccl", TRAIN.format(off=0, gpu=0))
    return folder


def write(folder, name, text):
    program = folder / "bin" / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


@pytest.fixture
def run(bundle, tmp_path, monkeypatch, capsys):
    """Runs gpu_run.py; returns the exit status, {check: (verdict, words)} and what was printed."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "libraries"))
    monkeypatch.setattr(gpu_run, "find_sanitizer", lambda: None)
    output = tmp_path / "out"

    def run(*arguments, path=bundle):
        try:
            status = gpu_run.main([str(path), "--output", str(output), *map(str, arguments)])
        except Failure as failure:
            status = failure.status
            print(failure, file=sys.stderr)
        report = output / "results.json"
        found = json.loads(report.read_text())["results"] if report.exists() else []
        verdicts = {row["check"]: (row["verdict"], row["words"]) for row in found}
        return status, verdicts, capsys.readouterr()

    return run


PROGRAMS = ["tests", "golden", "train-gpu", "train-gpu-all", "train-nccl-all", "repeat", "walk"]


def test_every_check_passes(run, tmp_path):
    status, found, printed = run("--only", *PROGRAMS)
    assert status == 0
    assert list(found) == PROGRAMS
    assert {verdict for verdict, _ in found.values()} == {gpu_run.PASSED}
    assert found["golden"][1] == "27 golden cases, 0 failures"
    assert found["walk"][1] == "walk: 0 differ"
    assert "from the CPU's: 1.0e-06 in the first 10" in found["train-gpu"][1]
    assert printed.out.splitlines()[-1] == "7 checks passed, 0 failed, 0 not run"
    assert "Made-up GPU" in (tmp_path / "out" / "summary.txt").read_text()
    with tarfile.open(tmp_path / "out" / "logs.tar.gz") as logs:
        assert "logs/train-nccl-all.log" in logs.getnames()


def test_cases_on_the_gpu_are_named(run, tmp_path):
    status, found, _ = run("--only", "tests")
    assert (status, found["tests"]) == (0, (gpu_run.PASSED, "2 cases on the GPU"))
    cases = json.loads((tmp_path / "out" / "results.json").read_text())["cases"]
    assert cases == {
        "ATest/2.TestPasses (caffe::GPUDevice<float>)": "passed",
        "AGPUTest.TestPasses ()": "passed",
    }


@pytest.mark.parametrize(
    ("name", "text", "check", "words"),
    [
        ("test.testbin", TESTS + FAILS, "tests", "status 1, 1 cases of 4, the first AGPUTest"),
        ("test.testbin", TESTS + "kill -SEGV $$", "tests", "status -11, 0 cases of 3"),
        ("test.testbin", 'echo "[==========] 0 tests"', "tests", "no case ran on the GPU"),
        ("golden", "echo 1 failure; exit 1", "golden", "status 1: 1 failure"),
        ("device", DESCRIBE + "echo 5 differ; exit 1", "walk", "status 1: 5 differ"),
        ("caffe", CAFFE.format(off=0.01), "train-gpu", "1.0e-02 in the first 10"),
        ("caffe", CAFFE.format(off="nan"), "train-gpu", "nan"),
        ("caffe", "echo F no such layer; exit 6", "train-gpu", "on the CPU: status 6: F no such"),
        ("nccl", "exit 0", "train-nccl-all", "0 losses, and 30 on the CPU"),
    ],
)
def test_failure_is_counted_and_the_rest_goes_on(run, bundle, name, text, check, words):
    write(bundle, name, text)
    status, found, printed = run("--only", check, "repeat")
    assert status == 1
    assert found[check][0] == gpu_run.FAILED and words in found[check][1]
    if name != "device":
        assert found["repeat"][0] == gpu_run.PASSED
        assert printed.out.splitlines()[-1] == "1 checks passed, 1 failed, 0 not run"


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """Puts a shell script in the place of the Python that runs the benchmark."""
    python = tmp_path / "python"
    monkeypatch.setattr(gpu_run.sys, "executable", str(python))

    def write_script(text):
        python.write_text(f"#!/bin/sh\n{text}\n")
        python.chmod(0o755)

    return write_script


@pytest.mark.parametrize("check", ["golden", "benchmark"])
def test_machines_own_folders_come_last(run, bundle, benchmark, tmp_path, monkeypatch, check):
    write(bundle, "golden", "echo $LD_LIBRARY_PATH")
    benchmark("echo $LD_LIBRARY_PATH")
    libraries = tmp_path / "libraries"
    monkeypatch.chdir(tmp_path)
    # An empty part is the folder that a program runs in.
    monkeypatch.setenv("LD_LIBRARY_PATH", f":/driver:{libraries}:relative:")
    _, found, _ = run("--only", check)
    assert found[check][0] == gpu_run.PASSED
    assert found[check][1].endswith(f"{libraries}:/driver:{tmp_path / 'relative'}")


@pytest.mark.parametrize(
    ("nvidia_smi", "version"),
    [("echo 580.95.05; echo 580.95.05", "580.95.05"), ("echo it has failed; exit 9", "unknown")],
)
def test_driver_is_named(run, benchmark, tmp_path, monkeypatch, nvidia_smi, version):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{nvidia_smi}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    benchmark('echo "$*"')
    run("--only", "benchmark")
    assert f"driver {version}," in (tmp_path / "out" / "summary.txt").read_text()


def test_benchmark_leaves_no_temporary_files(run, benchmark):
    benchmark("mktemp; exit 1")
    (_, words) = run("--only", "benchmark")[1]["benchmark"]
    path = Path(words.split("status 1: ")[1])
    assert path.is_absolute() and not path.exists()


def test_what_cannot_be_told_is_no_failure(run, bundle):
    write(bundle, "device", DESCRIBE + '[ "$1" = walk ] || exit 3')
    status, found, _ = run("--only", "walk", "large", "memcheck")
    assert status == 0
    assert {name: verdict for name, (verdict, _) in found.items()} == {
        "large": gpu_run.NOT_RUN,
        "walk": gpu_run.PASSED,
        "memcheck": gpu_run.NOT_RUN,
    }
    assert run("--only", "large")[0] == 1, "nothing passed"


CUT = (gpu_run.NOT_RUN, "the run's time ended")


@pytest.mark.parametrize(
    ("program", "check"),
    [("test.testbin", "tests"), ("golden", "golden"), ("caffe", "train-gpu"), ("device", "loss")],
)
def test_check_that_the_runs_end_cuts_is_not_run(run, bundle, program, check):
    write(bundle, program, (DESCRIBE if program == "device" else "") + "sleep 60 & sleep 60")
    status, found, printed = run("--only", check, "large", "--seconds", 2)
    assert status == 1, "nothing passed"
    assert found == {check: CUT, "large": CUT}
    assert printed.out.splitlines()[-1] == "0 checks passed, 0 failed, 2 not run"


def test_check_that_exceeds_its_own_time_has_failed(run, bundle, monkeypatch):
    write(bundle, "golden", "echo so far; sleep 60 & sleep 60")

    def check(bundle, _report, _quick):
        return gpu_run.judged(bundle.run("golden", [bundle.program("golden")], 1))

    monkeypatch.setitem(gpu_run.CHECKS, "golden", check)
    status, found, _ = run("--only", "golden", "repeat")
    assert status == 1
    assert found["golden"] == (gpu_run.FAILED, "status timeout: so far")
    assert found["repeat"][0] == gpu_run.PASSED


def test_gpu_that_does_not_answer_in_time(run, bundle):
    write(bundle, "device", "sleep 60")
    status, _, printed = run("--seconds", 1.5)
    assert status == 1 and printed.err.count("\n") == 1
    assert "the run's time ended before the GPU answered" in printed.err


def test_what_the_benchmark_measured_before_the_end_is_kept(run, benchmark, tmp_path):
    benchmark("""while [ "$1" != --output ]; do shift; done
mkdir "$2" && echo measured >"$2/report.json" && sleep 60 & sleep 60""")
    assert run("--only", "benchmark", "--seconds", 3)[1] == {"benchmark": CUT}
    assert (tmp_path / "out" / "benchmark-report.json").read_text() == "measured\n"


SANITIZER = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift 2; done
[ "$SANITIZER" = none ] && echo "========= Error: Device not supported." && exit 1
"$@"
echo "========= ERROR SUMMARY: $SANITIZER errors"
[ "$SANITIZER" = 0 ] || exit 99
"""


@pytest.mark.parametrize(
    ("said", "verdict", "words"),
    [
        ("0", gpu_run.PASSED, "3 cases: 0 errors"),
        ("2", gpu_run.FAILED, "status 99, 3 cases: 2 errors"),
        ("none", gpu_run.NOT_RUN, "compute-sanitizer does not support this device"),
    ],
)
def test_sanitizer(run, tmp_path, monkeypatch, said, verdict, words):
    program = tmp_path / "compute-sanitizer"
    program.write_text(SANITIZER)
    program.chmod(0o755)
    monkeypatch.setattr(gpu_run, "find_sanitizer", lambda: str(program))
    monkeypatch.setenv("SANITIZER", said)
    assert run("--only", "racecheck")[1]["racecheck"] == (verdict, words)


def test_no_gpu(run, bundle):
    write(bundle, "device", "echo device: no CUDA-capable device is detected >&2; exit 1")
    status, _, printed = run()
    assert status == 2
    assert printed.err.count("\n") == 1
    assert "no GPU that the bundle runs on: device: no CUDA-capable device" in printed.err


def test_missing_library(run, monkeypatch):
    monkeypatch.delenv("LD_LIBRARY_PATH")
    status, _, printed = run()
    assert status == 2
    assert "libmade_up.so.1 is in none of" in printed.err


def test_archive_is_unpacked(run, bundle, monkeypatch, tmp_path):
    archive = tmp_path / "gpu-bundle.tar.gz"
    monkeypatch.setattr(gpu_bundle, "ARCHIVE", archive)
    assert gpu_bundle.write_archive(bundle) == archive.stat().st_size
    assert run("--only", "golden", path=archive)[0] == 0


def test_no_bundle_is_wrong_input(run, tmp_path):
    status, _, printed = run(path=tmp_path / "none.tar.gz")
    assert status == 2 and "`make gpu-bundle` makes it" in printed.err


def test_help_names_the_checks(monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    argv = [sys.executable, gpu_run.__file__, "--help"]
    environment = {**os.environ, "PYTHONPATH": str(gpu_run.ROOT / "scripts")}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment)
    said = done.stdout
    assert all(check in said for check in gpu_run.CHECKS)


@pytest.mark.parametrize("name", ["gpu.md", "gpu.zh-CN.md"])
def test_documented_runs_make_each_check_once(name):
    text = (gpu_run.ROOT / "docs" / name).read_text(encoding="utf-8").replace("\\\n", "")
    command = "PYTHONPATH=scripts python3 devtools/gpu_run.py "
    lines = [line for line in text.splitlines() if line.startswith(command)]
    runs = [gpu_run.parse_arguments(shlex.split(line)[3:]) for line in lines]
    made = [check for run in runs for check in run.checks]
    assert len(runs) == 3 and sorted(made) == sorted(gpu_run.CHECKS)


# The bundle


def test_libraries_that_are_carried(tmp_path, monkeypatch):
    said = """\
\tlinux-vdso.so.1 (0x00007ffd)
\tlibcaffe.so.1.0.0 => /opt/libcaffe.so.1.0.0 (0x00007f)
\tlibcublas.so.13 => not found
\tlibnccl.so.2 => /opt/libnccl.so.2 (0x00007f)
\tlibcudart.so.13 => /opt/libcudart.so.13 (0x00007f)
\tlibm.so.6 => /lib/libm.so.6 (0x00007f)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f)
"""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "said").write_text(said)
    (tmp_path / "ldd").write_text(f"#!/bin/sh\ncat {tmp_path / 'said'}\n")
    (tmp_path / "ldd").chmod(0o755)
    found, left_out = gpu_bundle.loaded_libraries([tmp_path / "caffe"], [])
    assert sorted(found) == ["libcaffe.so.1.0.0", "libcudart.so.13"]
    assert left_out == ["libcublas.so.13", "libnccl.so.2"]
    (tmp_path / "said").write_text("\tlibhdf5.so.103 => not found\n")
    with pytest.raises(Failure) as stop:
        gpu_bundle.loaded_libraries([tmp_path / "caffe"], [])
    assert stop.value.status == 1


def test_demo_is_trained_without_dropout_and_tests(tmp_path):
    gpu_bundle.write_demo(tmp_path / "demo")
    net = (tmp_path / "demo" / "net.prototxt").read_text()
    assert "SigmoidCrossEntropyWeightLoss" in net and "Dropout" not in net
    solver = (tmp_path / "demo" / "solver.prototxt").read_text()
    fields = [line.split(":")[0] for line in solver.splitlines() if line[0] != "#"]
    assert len(fields) == len(set(fields))
    assert "test_iter" not in fields and "display: 1\n" in solver and 'type: "Adam"' in solver


@pytest.mark.parametrize("named", ["native", "80,90", "sm_90"])
def test_bundle_is_for_one_gpu(monkeypatch, named):
    monkeypatch.setenv("CUDA_ARCH", named)
    with pytest.raises(Failure) as stop:
        gpu_bundle.architecture()
    assert stop.value.status == 2
    assert f"CUDA_ARCH is {named}, and a bundle is for one GPU" in str(stop.value)


def test_bundle_that_was_not_built(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["gpu_bundle.py"])
    monkeypatch.setattr(gpu_bundle, "BUILD", gpu_bundle.Build("gpu", 1, tmp_path / "none"))
    with pytest.raises(Failure, match="run `make gpu-bundle`"):
        gpu_bundle.main()
