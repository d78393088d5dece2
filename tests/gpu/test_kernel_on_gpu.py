"""The kernel and the layer on a GPU: our C++ tests, upstream's of losses, and long proofs."""

import re

import pytest

import cuda_toolkit
from _common import ROOT
from _gtest import read_gtest

# What tests/gpu/device.cu ends with where a machine cannot tell.
CANNOT_TELL = 3

# Caffe's typed tests are numbered: CPU float, CPU double, GPU float, GPU double.
CASES = "*Loss*GPU*:*Loss*/2.*:*Loss*/3.*:WeightedSigmoidLossRandomTest/1.*"
TYPED = re.compile(r"^\[-+\] \d+ tests? from (\S+), where TypeParam = (.*)$", re.MULTILINE)
SUITES = {
    "SigmoidCrossEntropyWeightLossAdviceTest",
    "SigmoidCrossEntropyWeightLossLayerTest",
    "SigmoidCrossEntropyWeightLossNetTest",
    "WeightedSigmoidLossGPUTest",
    "WeightedSigmoidLossRandomTest",
    "ContrastiveLossLayerTest",
    "EuclideanLossLayerTest",
    "HingeLossLayerTest",
    "InfogainLossLayerTest",
    "SigmoidCrossEntropyLossLayerTest",
    "SoftmaxWithLossLayerTest",
}

# Under compute-sanitizer a launch takes a hundred times as long.
SANITIZED_CASES = (
    "WeightedSigmoidLossGPUTest/*:SigmoidCrossEntropyWeightLossLayerTest/2.*"
    "-*.TestLarge:*.TestMisalignedDeath:*.TestGradient:*.TestSetUp*"
)
SANITIZER_FAILED = 99
SANITIZER_SUMMARY = re.compile(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (.*)")
NO_SANITIZER = re.compile(
    r"Device not supported|debugger is not supported|Unable to find injection"
)


def passed(status, text):
    """The cases, all of which have to pass."""
    results, excerpts = read_gtest(text)
    assert not excerpts, "\n".join(line for lines in excerpts.values() for line in lines)
    assert status == 0
    return results


def test_cases(run):
    """Ours and upstream's of loss layers, those that run on the GPU."""
    status, text = run("test.testbin", f"--gtest_filter={CASES}", "--gtest_color=no")
    types = dict(TYPED.findall(text))
    suites = {case.split(".")[0] for case in passed(status, text)}
    on_gpu = {name for name in suites if "GPU" in name or "GPU" in types.get(name, "")}
    assert {name.split("/")[0] for name in on_gpu} == SUITES


def test_golden_cases(run):
    """The layer against 60-digit results."""
    status, text = run("golden", ROOT / "tests" / "golden.json", "gpu")
    assert status == 0, text


@pytest.mark.parametrize("proof", ["repeat", "loss", "large", "walk"])
def test_proof(run, proof):
    """Of tests/gpu/device.cu, whose head says what each is."""
    status, text = run("device", proof)
    if status == CANNOT_TELL:
        pytest.skip(text.splitlines()[-1])
    assert status == 0, text


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck"])
def test_sanitizer(run, tool):
    sanitizer = cuda_toolkit.compute_sanitizer()
    if not sanitizer:
        pytest.skip("this machine has no compute-sanitizer")
    under = [sanitizer, "--tool", tool, "--error-exitcode", SANITIZER_FAILED]
    status, text = run("test.testbin", f"--gtest_filter={SANITIZED_CASES}", under=under)
    if NO_SANITIZER.search(text):
        pytest.skip("compute-sanitizer does not support this device")
    assert SANITIZER_SUMMARY.findall(text), text
    assert passed(status, text), "no case ran"
