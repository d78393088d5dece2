"""`make runtest DEVICE=gpu` with a stand-in for the driver, and scripts for what was built."""

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import stand_in_gpu
from stand_in_program import shell

ROOT = Path(__file__).resolve().parent.parent
TYPED = "[----------] 1 test from {0}/2, where TypeParam = caffe::GPUDevice<float>"
LOSSES = ["Contrastive", "Euclidean", "Hinge", "Infogain", "SigmoidCrossEntropy", "SoftmaxWith"]
SUITES = [
    *(f"{name}LossLayerTest" for name in LOSSES),
    "SigmoidCrossEntropyWeightLossAdviceTest",
    "SigmoidCrossEntropyWeightLossLayerTest",
    "SigmoidCrossEntropyWeightLossNetTest",
    "WeightedSigmoidLossRandomTest",
    "WeightedSigmoidLossGPUTest",
]


def gtest(suites=SUITES):
    lines = []
    for suite in suites:
        case = f"{suite}/2.TestPasses"
        lines += [TYPED.format(suite), f"[ RUN      ] {case}", f"[       OK ] {case} (3 ms)"]
    return "\n".join(f'echo "{line}"' for line in lines) + "\n"


# For the real driver, where this machine has one.
NO_GPU = {"LD_LIBRARY_PATH": "", "CUDA_VISIBLE_DEVICES": ""}
FAILS = """\
echo "[ RUN      ] AGPUTest.TestFails"
echo "a.cpp:3: Failure"
echo "[  FAILED  ] AGPUTest.TestFails (3 ms)"
exit 1
"""
# Losses that fall; on the GPU they are off by so much.
TRAIN = """\
awk -v CONVFMT=%.9g -v off={off} 'BEGIN {{ for (i = 0; i < 30; ++i)
  print "I sgd.cpp:1] Iteration " i " (9 iter/s), loss = " (2 - i / 30) * (1 + off * {gpu}) }}'
"""
CAFFE = 'case "$*" in *gpu*) gpu=1 ;; *) gpu=0 ;; esac\n' + TRAIN.replace("{gpu}", "'$gpu'")
# Not awk's own, which each awk spells and reads in its way.
DIVERGES = (
    CAFFE.format(off=0).rstrip() + " | if [ $gpu = 1 ]; then sed 's/[^ ]*$/nan/'; else cat; fi\n"
)
SANITIZER = """\
while [ "${1#-}" != "$1" ]; do shift 2; done
[ "$SANITIZER" = none ] && echo "========= Error: Device not supported." && exit 1
"$@"
echo "========= ERROR SUMMARY: $SANITIZER errors"
[ "$SANITIZER" = 0 ] || exit 99
"""


@pytest.fixture
def tree(tmp_path):
    """A copy of the repository with build/cuda."""
    tree = tmp_path / "tree"
    for name in ("scripts", "tests/gpu"):
        shutil.copytree(ROOT / name, tree / name)
    for name in ("pyproject.toml", "tests/conftest.py", "tests/golden.json"):
        shutil.copy(ROOT / name, tree / name)
    cuda = tree / "build" / "cuda"
    (cuda / "demo").mkdir(parents=True)
    shell(cuda / "install" / "bin" / "caffe", CAFFE.format(off=1e-6))
    # What ldd reads has to be a program.
    shell(cuda / "ldd" / "ldd", "exit 0")
    shell(cuda / "cmake" / "caffe" / "test" / "test.testbin", gtest())
    shell(cuda / "cmake" / "tests" / "golden", "echo 34 golden cases, 0 failures")
    shell(cuda / "cmake" / "tests" / "device", 'echo "$*: 0 differ"')
    shell(cuda / "cmake" / "tests" / "nccl", TRAIN.format(off=0, gpu=0))
    return tree


@pytest.fixture
def runtest(tree, tmp_path):
    """Runs it there; returns exit status, {test: outcome}, and all output."""
    gpu = stand_in_gpu.driver(tmp_path / "driver")
    gpu["PATH"] = f"{tree / 'build' / 'cuda' / 'ldd'}:{gpu['PATH']}"

    def run(options="", **environment):
        argv = [sys.executable, tree / "scripts" / "runtest.py", "--device", "gpu"]
        argv += ["--output", tmp_path / "out"]
        environment = {**os.environ, **gpu, "PYTEST_ADDOPTS": options, **environment}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=300)
        report = tmp_path / "out" / "gpu.xml"
        cases = ElementTree.parse(report).iter("testcase") if report.exists() else []
        outcomes = {case.get("name"): outcome(case) for case in cases}
        return done.returncode, outcomes, done.stdout + done.stderr

    return run


def outcome(case):
    tags = {child.tag for child in case}
    return next((tag for tag in ("failure", "error", "skipped") if tag in tags), "passed")


def test_every_check_passes(runtest, tree, tmp_path):
    shell(tree / "build" / "cuda" / "ldd" / "compute-sanitizer", SANITIZER)
    status, outcomes, said = runtest(SANITIZER="0")
    assert status == 0, said
    assert set(outcomes.values()) == {"passed"}
    assert list(outcomes) == [
        "test_cases",
        "test_golden_cases",
        *(f"test_proof[{name}]" for name in ("repeat", "loss", "large", "walk")),
        *(f"test_sanitizer[{name}]" for name in ("memcheck", "racecheck", "initcheck")),
        *(f"test_losses_are_the_cpus[{name}]" for name in ("gpu-0", "gpu-all", "nccl")),
    ]
    assert said.splitlines()[-1] == "12 passed, 0 failed"
    report = (tmp_path / "out" / "gpu.xml").read_text()
    assert stand_in_gpu.NAME in report and "580.95.05" in report
    assert "WeightedSigmoidLossGPUTest/2.TestPasses" in report, "what passed is named"


@pytest.mark.parametrize(
    ("program", "text", "test", "words"),
    [
        ("caffe/test/test.testbin", gtest() + FAILS, "cases", "a.cpp:3: Failure"),
        ("caffe/test/test.testbin", gtest() + "kill -SEGV $$", "cases", "assert -11 == 0"),
        ("caffe/test/test.testbin", gtest(SUITES[:-1]), "cases", SUITES[-1]),
        ("caffe/test/test.testbin", 'echo "[==========] 0 tests"', "cases", "assert set() =="),
        ("tests/golden", "echo 1 failure; exit 1", "golden", "1 failure"),
        ("tests/device", "echo 5 differ; exit 1", "walk", "5 differ"),
        ("../install/bin/caffe", CAFFE.format(off=0.01), "gpu-0", "apart"),
        ("../install/bin/caffe", DIVERGES, "gpu-0", "nan"),
        ("../install/bin/caffe", "echo F no such layer; exit 6", "gpu-0", "F no such layer"),
        ("tests/nccl", "exit 0", "nccl", "assert []"),
    ],
)
def test_failure_counts(runtest, tree, program, text, test, words):
    shell(tree / "build" / "cuda" / "cmake" / program, text)
    status, outcomes, said = runtest(f"-k 'golden or {test}'")
    assert status == 1
    assert words in said
    failed = [name for name, found in outcomes.items() if found in ("failure", "error")]
    assert len(failed) == 1 and test in failed[0]


def test_what_cannot_be_told_is_skipped(runtest, tree):
    shell(tree / "build" / "cuda" / "cmake" / "tests" / "device", "echo too little memory; exit 3")
    status, outcomes, said = runtest("-k 'golden or large'")
    assert (status, outcomes["test_proof[large]"]) == (0, "skipped")
    assert "too little memory" in said
    assert said.splitlines()[-1] == "1 passed, 0 failed, 1 skipped"
    assert runtest("-k large")[0] == 1, "nothing passed"


@pytest.mark.parametrize(("said", "expected"), [("2", "failure"), ("none", "skipped")])
def test_sanitizer(runtest, tree, said, expected):
    shell(tree / "build" / "cuda" / "ldd" / "compute-sanitizer", SANITIZER)
    assert runtest("-k racecheck", SANITIZER=said)[1] == {"test_sanitizer[racecheck]": expected}


def test_without_a_gpu(runtest):
    status, _, said = runtest(**NO_GPU)
    assert (status, said.count("\n")) == (2, 1)
    assert "no GPU" in said


def test_not_built(runtest, tree):
    shutil.rmtree(tree / "build")
    status, _, said = runtest()
    assert (status, said.count("\n")) == (1, 1)
    assert "run `make runtest DEVICE=gpu`" in said


def test_make_says_first_that_there_is_no_gpu():
    argv = ["make", "--no-print-directory", "runtest", "DEVICE=gpu"]
    environment = {**os.environ, **NO_GPU}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("_gpu.py: no GPU")
    assert "install_packages" not in done.stdout and "build.py" not in done.stdout


@pytest.mark.parametrize("name", ["gpu.md", "gpu.zh-CN.md"])
def test_document_names_every_test(name):
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    sources = [path.read_text() for path in (ROOT / "tests" / "gpu").glob("test_*.py")]
    tests = re.findall(r"^def (test_\w+)", "\n".join(sources), re.MULTILINE)
    assert sorted(set(re.findall(r"`(test_\w+)", text))) == sorted(tests)
