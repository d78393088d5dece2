"""The CUDA kernels, run on the CPU: compiled as C++ with an emulation of what they take of CUDA.

It finds wrong indices, reads and writes outside of arrays, misaligned vectors, threads that wait
in different places, and results other than the CPU's. What a GPU alone can show, it does not.
"""

import ctypes
import json
import re
import subprocess
from math import prod
from pathlib import Path

import numpy as np
import pytest
from one_layer import LIMIT, arguments, in_ulp, parse_layer

ROOT = Path(__file__).resolve().parent.parent
EMULATION = Path(__file__).resolve().parent / "cuda_emulation"
UTIL = ROOT / "src" / "caffe" / "util"
LAUNCH = re.compile(r"(\w+(?:<[^<>]*>)?)(?:\s|//.*\n)*<<<([^>]*), (\w+)>>>\(([^;]*)\);")
# A small grid, so that small inputs have threads take many vectors each.
GRID = "caffe/util/weighted_sigmoid_loss_threads.cuh"
GRID_SIZES = {
    f"const unsigned {name} = {old};": f"const unsigned {name} = {new};"
    for name, old, new in [("kThreads", 256, 64), ("kMaxBlocks", 4096, 16), ("kFewBlocks", 512, 2)]
}
KERNEL_SIZES = {"const unsigned kFinishThreads = 1024;": "const unsigned kFinishThreads = 64;"}
# tests/gpu/device.cu on inputs that an emulation can do.
DEVICE_SIZES = {
    "const unsigned kThreads = 256;": "const unsigned kThreads = 64;",
    "const unsigned kBlocks = 4096;": "const unsigned kBlocks = 3;",
    "kChunk = std::size_t(1) << 24;": "kChunk = 5000;",
    "kSamples = 40000,": "kSamples = 400,",
    "kTimes = 50;": "kTimes = 4;",
    "kCount = (std::size_t(1) << 26) + 3;": "kCount = 4099;",
    "2147483647,": "10007,",
    "21483, 151, 662,": "11, 7, 46,",
}
FLAGS = [
    *["-std=c++11", "-O1", "-march=native", "-ffp-contract=off"],
    *["-fsanitize=undefined", "-fno-sanitize-recover=all"],
]


def smaller(text, sizes):
    for old, new in sizes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def emulated(path, sizes):
    """The CUDA source as C++: launches as calls, and smaller."""
    source = path.read_text()
    text, launches = LAUNCH.subn(r"Emulate(\2, \3, [&] { \1(\4); });", source)
    assert launches == source.count("<<<") > 0
    return smaller(text, sizes)


def kernel():
    return emulated(UTIL / "weighted_sigmoid_loss.cu", KERNEL_SIZES)


def compile_emulated(folder, *flags, **texts):
    """Compile these with balance's kernels and the CPU kernel; return the program."""
    texts["balance"] = emulated(UTIL / "weighted_sigmoid_loss_balance.cu", {})
    sources = []
    for name, text in texts.items():
        sources.append(folder / f"{name}.cpp")
        sources[-1].write_text(text)
    grid = folder / GRID
    grid.parent.mkdir(parents=True)
    grid.write_text(smaller((ROOT / "include" / GRID).read_text(), GRID_SIZES))
    includes = [f"-I{folder}", f"-I{EMULATION}", f"-I{ROOT / 'include'}"]
    sources += sorted(UTIL.glob("weighted_sigmoid_loss*.cpp"))
    program = folder / "emulated"
    argv = ["g++", *FLAGS, *flags, *includes, "-o", program, *sources, "-pthread"]
    subprocess.run(argv, check=True)
    return program


def run(*argv):
    argv = list(map(str, argv))
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_emulated_kernels_are_the_cpu_kernel(tmp_path):
    done = run(compile_emulated(tmp_path, emulated=kernel() + '#include "main.cpp"\n'))
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"^\d{3,} cases, 0 failures$", done.stdout, re.MULTILINE)


# The golden cases

POINTERS = {np.float32: ctypes.c_float, np.float64: ctypes.c_double, np.uintp: ctypes.c_size_t}
CASES = json.loads((Path(__file__).parent / "golden.json").read_text())


class Problem(ctypes.Structure):
    """What golden.cpp has under this name."""

    _fields_ = [
        *[(name, ctypes.c_size_t) for name in ("axes", "weight_axes")],
        *[(name, ctypes.POINTER(ctypes.c_size_t)) for name in ("shape", "weight_shape")],
        *[(name, ctypes.POINTER(ctypes.c_float)) for name in ("scores", "targets", "weight")],
        *[(name, ctypes.c_size_t) for name in ("channels", "channel_inner")],
        *[(name, ctypes.POINTER(ctypes.c_double)) for name in ("cls_weight", "neg_weight")],
        *[(name, ctypes.c_size_t) for name in ("scope_size", "scope_inner", "instances")],
        *[
            (name, ctypes.c_int)
            for name in ("has_ignore_label", "ignore_label", "ignores_soft_targets")
        ],
        *[(name, ctypes.c_double) for name in ("normalizer", "loss_weight")],
    ]


def problem(case):
    """A golden case as the kernel's input."""
    layer = parse_layer(case["layer"])
    given, shape = arguments(layer), case["shape"]
    axis = given["axis"] % len(shape)
    channel = shape[axis], prod(shape[axis + 1 :])
    weights = [np.array(given[name] or [1], np.float64) for name in ("cls_weight", "neg_weight")]
    channels = max(weight.size for weight in weights)
    made = Problem(
        axes=len(shape),
        channels=channels,
        channel_inner=channel[1] if channels > 1 else 1,
        has_ignore_label=given["ignore_label"] is not None,
        ignore_label=given["ignore_label"] or 0,
        ignores_soft_targets=given["ignore_soft_targets"],
        normalizer={"FULL": prod(shape), "VALID": 0, "BATCH_SIZE": shape[0], "NONE": 1}[
            given["normalization"]
        ],
        loss_weight=layer.loss_weight[0] if layer.loss_weight else 1,
    )
    made.scope_size, made.scope_inner, made.instances = {
        "NONE": (0, 0, 0),
        "BATCH": (1, prod(shape), 1),
        "INSTANCE": (shape[0], prod(shape[1:]), 1),
        "CHANNEL": (*channel, 1),
        "INSTANCE_CHANNEL": (*channel, shape[0]),
    }[given["class_balance"]]
    arrays = {
        "shape": np.array(shape, np.uintp),
        "scores": np.array(case["scores"], np.float32),
        "targets": np.array(case["targets"], np.float32),
        "cls_weight": np.broadcast_to(weights[0], channels).copy(),
        "neg_weight": np.broadcast_to(weights[1], channels).copy(),
    }
    if case["weight"]:
        arrays["weight"] = np.array(case["weight"]["data"], np.float32)
        arrays["weight_shape"] = np.array(case["weight"]["shape"], np.uintp)
        made.weight_axes = len(case["weight"]["shape"])
    for name, array in arrays.items():
        setattr(made, name, array.ctypes.data_as(ctypes.POINTER(POINTERS[array.dtype.type])))
    made.arrays = arrays  # which Problem points to
    return made


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The loss and the gradient of a Problem."""
    folder = tmp_path_factory.mktemp("golden")
    text = (EMULATION / "golden.cpp").read_text()
    library = ctypes.CDLL(
        compile_emulated(folder, "-shared", "-fPIC", kernel=kernel(), golden=text)
    )
    library.Run.restype = ctypes.c_double

    def run_case(given):
        grad = np.full(given.arrays["scores"].size, np.nan, np.float32)
        loss = library.Run(ctypes.byref(given), grad.ctypes.data_as(ctypes.c_void_p))
        return loss, grad

    return run_case


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden_cases_emulated(case, golden):
    loss, grad = golden(problem(case))
    loss = float(np.float32(loss))
    assert np.isfinite(loss) == np.isfinite(case["loss"])
    assert in_ulp(loss - case["loss"], abs(case["loss"]), case["loss_floor"]) <= LIMIT
    error = grad - np.array(case["grad"])
    assert in_ulp(error, case["grad_scale"], case["grad_floor"]) <= LIMIT


# tests/gpu/device.cu, which is for a GPU: that it finds nothing here, and finds what is wrong.

STRIDE = 262147  # prime; leaves 16,384 scores
CHECKS = {"walk": [STRIDE], "loss": [], "repeat": [], "large": []}
# Of the kernel: gradients that are not written, others that are off in their last bits, sums that
# are, and losses that are; and which checks find them.
WRITE = "Write(vectors[k].grad, grad + i);"
REST = "grad[i] = rest.grad.value[0];"
SUM = "block_sums[0] = sums;"
LOSS = "LossElement(x, t, constants.a[l], constants.b[l], Log1p(u));"
FAULTS = {
    "unwritten": (WRITE, f"if (i < 400 || i > 403) {{ {WRITE} }}", ["walk", "repeat", "large"]),
    "rest": (REST, REST.replace(";", " * T(1.0000002);"), ["large"]),
    "sum": (
        SUM,
        f"static int calls; sums.loss *= 1 + 1e-7 * calls++; {SUM}",
        ["loss", "repeat", "large"],
    ),
    "losses": (LOSS, f"1.0000001 * {LOSS}", ["loss", "large"]),
}


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """Compiles it with the kernel's text; returns the program."""

    def compile_with(text):
        folder = tmp_path_factory.mktemp("device")
        program = emulated(ROOT / "tests" / "gpu" / "device.cu", DEVICE_SIZES)
        return compile_emulated(folder, kernel=text, device=program)

    return compile_with


@pytest.fixture(scope="module")
def device_program(device):
    return device(kernel())


@pytest.mark.parametrize("check", CHECKS)
def test_device_program_finds_nothing(device_program, check):
    done = run(device_program, check, *CHECKS[check])
    assert done.returncode == 0, done.stdout[-3000:]
    lines = done.stdout.splitlines()
    assert all(line.startswith(f"{check}: ") for line in lines)
    assert all(re.search(r": 0 (differ|failures)$", line) for line in lines)


def test_device_program_describes(device_program):
    done = run(device_program, "describe")
    assert done.returncode == 0
    assert "name: emulation\ndevices: 1\ncompute capability: 0.0\n" in done.stdout


@pytest.mark.parametrize("words", [[], ["none"], ["walk", "0"], ["loss", "1"]])
def test_device_program_refuses(device_program, words):
    assert run(device_program, *words).returncode == 2


@pytest.mark.parametrize(("right", "wrong", "checks"), FAULTS.values(), ids=FAULTS)
def test_device_program_finds(device, right, wrong, checks):
    text = kernel()
    assert text.count(right) == 1
    program = device(text.replace(right, wrong))
    for check in checks:
        done = run(program, check, *CHECKS[check])
        assert done.returncode == 1, check
        assert "FAILED" in done.stdout
