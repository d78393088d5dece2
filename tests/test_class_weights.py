"""`weighted-loss class-weights`: what it counts, prints and warns of."""

import io
import math
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format
from label_files import (
    POSITIVES,
    TARGETS,
    column,
    write_npy,
)

from weighted_loss_tools import progress
from weighted_sigmoid_loss import schemes

# Counting


def test_soft_and_ignored_labels(tmp_path, counted):
    values = np.array([[0.25, 1], [2, 0.5], [1, 2], [0, 2]], np.float32)
    report = counted(write_npy(tmp_path / "a.npy", values), "--ignore-label", 2)
    assert column(report, "positives") == [1.25, 1.5]
    assert column(report, "negatives") == [1.75, 0.5]
    assert (report["ignored"], report["outside"]) == (3, 0)


def test_ignore_label_is_exact(tmp_path, counted):
    """As in the layer: 0.3 is not 0."""
    values = np.array([[0.3], [0.0], [1.0]])
    report = counted(write_npy(tmp_path / "a.npy", values), "--ignore-label", 0)
    assert column(report, "positives") == pytest.approx([1.3])
    assert report["ignored"] == 1


@pytest.mark.parametrize(
    "scale", ["1/255", "0.00392157", "0.00392156862745098", "0.0039215689", "0.003921566"]
)
def test_scaled_bytes_are_hard(scale, tmp_path, counted):
    """57 of 1,024 pixels on, and not 57.0001: 255 times a rounded 1/255 is 1, as in the layer."""
    mask = np.zeros(1024, np.uint8)
    mask[::18] = 255
    path = write_npy(tmp_path / "a.npy", mask.reshape(4, 1, 16, 16))
    report = counted(path, "--scale", scale, "--scheme", "ratio", "--ignore-soft-targets")
    assert (column(report, "positives"), column(report, "negatives")) == ([57], [967])
    assert column(report, "cls_weight") == [967 / 57]
    assert (report["ignored"], report["warnings"]) == (0, [])


def test_how_far_from_hard_is_soft(tmp_path, counted):
    """2^-20, as in the layer."""
    ulps = 2.0**-21, 2.0**-19
    values = [[s * u, 1 + s * u] for u in ulps for s in (-1, 1)]
    report = counted(write_npy(tmp_path / "a.npy", np.array(values)), "--ignore-soft-targets")
    assert (column(report, "positives"), column(report, "negatives")) == ([0, 2], [2, 0])
    assert (report["ignored"], report["outside"]) == (2, 2)


def test_ignored_soft_targets(tmp_path, counted):
    """RCF's masks: the share of the annotators that marked a pixel, in 255ths."""
    masks = np.array([0, 51, 102, 255, 255, 0, 0, 0], np.uint8).reshape(1, 1, 2, 4)
    path = write_npy(tmp_path / "a.npy", masks)
    report = counted(path, "--scale", "1/255", "--ignore-soft-targets", "--scheme", "ratio")
    assert (column(report, "positives"), column(report, "negatives")) == ([2], [4])
    assert report["ignored"] == 2
    assert "  ignore_soft_targets: true\n" in report["prototxt"]


def test_shift_and_marks(tmp_path, counted):
    """-1, 0 and 1, of which 0 says nothing."""
    path = write_npy(tmp_path / "a.npy", np.array([[-1, 1], [0, 1], [1, 0], [-1, -1]]))
    report = counted(path, "--scale", "1/2", "--shift", "1/2", "--ignore-soft-targets")
    assert (column(report, "positives"), column(report, "negatives")) == ([1, 2], [2, 1])
    report = counted(path, "--scale", "0.5", "--shift", ".5")
    assert (column(report, "positives"), column(report, "negatives")) == ([1.5, 2.5], [2.5, 1.5])


@pytest.mark.parametrize("values", [[0, 255], [0, 7], [-1, 1]])
def test_two_values_are_no_and_yes(values, tmp_path, counted):
    path = write_npy(tmp_path / "a.npy", np.array(values)[TARGETS])
    report = counted(path)
    assert column(report, "positives") == POSITIVES
    assert column(report, "negatives") == [4, 6, 7]
    assert f"the labels are {values[0]} and {values[1]}, and counted" in report["warnings"][0]
    options = report["warnings"][0].split("as by ")[1].split(";")[0].split()
    report = counted(path, *options)
    assert column(report, "positives") == POSITIVES
    assert report["warnings"] == []


@pytest.mark.parametrize("axis", [2, -2])
def test_axis(axis, tmp_path, counted):
    """Random targets against NumPy's sums."""
    values = np.random.default_rng(1).random((5, 4, 3, 6)) < 0.3
    report = counted(write_npy(tmp_path / "a.npy", values), "--axis", axis)
    assert column(report, "positives") == values.sum(axis=(0, 1, 3)).tolist()
    assert text_format.Parse(report["prototxt"], caffe_pb2.LayerParameter()) is not None
    assert f"axis: {axis}" in report["prototxt"]


def test_labels_of_one_axis_are_one_channel(tmp_path, counted):
    report = counted(write_npy(tmp_path / "a.npy", TARGETS[:, 0]), "--scheme", "ratio")
    assert column(report, "positives") == [4]


def test_memory_does_not_grow_with_the_labels(tmp_path):
    """64 million labels, 256 MiB as floats; in the file most chunks were never written."""
    peaks = []
    for instances in 1 << 17, 1 << 22:
        path = tmp_path / f"{instances}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("label", (instances, 16), np.float32, chunks=(1 << 16, 16))
            file["label"][0] = 1
        done = subprocess.run(
            [sys.executable, "-c", PEAK, "weighted-loss", "class-weights", path],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"{instances:,} x 16 in" in done.stdout
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] < peaks[0] + (32 << 10)


# The KiB that the command takes, or the child that reads the labels for it, if that takes more.
PEAK = """
import resource, sys
sys.argv = sys.argv[1:]
from weighted_loss_tools.__main__ import main
main()
print(max(resource.getrusage(whose).ru_maxrss
          for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def test_progress_is_for_terminals(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    for terminal in (False, True):
        stream.isatty = lambda terminal=terminal: terminal
        with progress.progress("counting", 2) as advance:
            advance(2)
        assert ("counting" in stream.getvalue()) == terminal


# Schemes


def test_ratio():
    weights = schemes.ratio([4, 2, 1], [4, 6, 7])
    assert weights == ([1, 3, 7], [])


def test_inverse_sqrt():
    assert schemes.inverse_sqrt([16, 4, 1], [0, 12, 15]) == ([1, 2, 4], [])


def test_effective_number():
    """Against the geometric series that (1 - beta^n) / (1 - beta) is."""
    effective = [sum(0.9**k for k in range(n)) for n in (20, 5, 1)]
    weights, _ = schemes.effective_number([20, 5, 1], [0, 15, 19], beta=0.9)
    assert weights == pytest.approx([effective[0] / e for e in effective], rel=1e-12)


def test_deepmar():
    positive, negative = schemes.deepmar([1, 3], [3, 1], sigma=0.5)
    assert positive == pytest.approx([math.exp(3), math.e], rel=1e-12)
    assert negative == pytest.approx([math.e, math.exp(3)], rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--scheme", "ratio"], schemes.ratio(POSITIVES, [4, 6, 7])),
        (["--scheme", "inverse-sqrt"], schemes.inverse_sqrt(POSITIVES, [4, 6, 7])),
        (["--beta", "0.5"], schemes.effective_number(POSITIVES, [4, 6, 7], 0.5)),
        (["--scheme", "deepmar", "--sigma", "2"], schemes.deepmar(POSITIVES, [4, 6, 7], 2)),
    ],
)
def test_printed_weights_are_a_layers(arguments, expected, tmp_path, class_weights):
    status, out, _ = class_weights(write_npy(tmp_path / "a.npy", TARGETS), *arguments)
    assert status == 0
    layer = caffe_pb2.LayerParameter()
    text_format.Parse(out[out.index("sigmoid_cross_entropy_weight_loss_param") :], layer)
    own = layer.sigmoid_cross_entropy_weight_loss_param
    assert list(own.cls_weight) == pytest.approx(expected.cls_weight, rel=1e-5)
    assert list(own.neg_weight) == pytest.approx(expected.neg_weight, rel=1e-5)


def test_table(tmp_path, class_weights):
    path = write_npy(tmp_path / "a.npy", np.tile(TARGETS, (1000, 1)))
    status, out, err = class_weights(path, "--scheme", "ratio")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == [f"8,000 x 3 in {path}", "scheme: ratio"]
    assert lines[3].split() == ["channel", "positives", "negatives", "frequency", "cls_weight"]
    assert lines[5].split() == ["1", "2,000", "6,000", "0.25", "3"]


# Warnings


def test_warns_of_labels_outside(tmp_path, counted):
    path = write_npy(tmp_path / "a.npy", np.array([[0, 255], [-1, 1], [1, 0]]))
    report = counted(path, "--scheme", "ratio")
    assert column(report, "positives") == [1, 1]
    assert column(report, "negatives") == [1, 1]
    assert report["outside"] == 2
    (warning,) = report["warnings"]
    assert warning.startswith("2 labels are outside [0, 1] and not counted, the first is 255:")


# The values that there are, and what the advice has to name.
CAUSES = {
    "marks of -1, or -1, 0, 1": (
        [-1, 0, 1],
        ["--ignore-label -1", "--scale 1/2 --shift 1/2 --ignore-soft-targets"],
    ),
    "marks of 255": ([0, 1, 255], ["--ignore-label 255"]),
    "marks of 2, or classes": ([0, 1, 2], ["--ignore-label 2", "--classes 3"]),
    "-1 in a byte": ([1, 255], ["write the labels to float_data"]),
    "1 and 2": ([1, 2], ["--shift -1"]),
    "classes": (range(5), ["--classes 5"]),
    "classes and a mark": ([*range(21), 255], ["--classes 21 --ignore-label 255"]),
    "classes and another mark": ([-1, 0, 1, 2, 3], ["--classes 4 --ignore-label -1"]),
    "many classes": (range(1000), ["--classes 1000"]),
    "gray": (range(0, 256, 15), ["--scale 1/255", "--classes 241 --ignore-label 255"]),
    "gray of three values": ([0, 128, 255], ["--scale 1/255", "--classes 129 --ignore-label 255"]),
    "shares of 100": ([0, 12.5, 50, 100], ["--scale 1/100"]),
    "scores": ([-3.5, 0.25, 7], ["are they labels? scores and features have such values"]),
    "ids": ([1, 3_000_001, 3_000_002], ["are they labels, and not ids of the samples?"]),
    "infinity": ([0, 1, math.inf], ["look for infinity in the data"]),
    "beyond float": ([0, 1, 1e300], ["look for infinity in the data"]),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_advice_is_by_the_cause(cause, tmp_path, counted):
    """And run with an option that it names, the warning is gone."""
    values, advice = CAUSES[cause]
    path = write_npy(tmp_path / "a.npy", np.repeat(np.array(values, np.float64), 3))
    warning = counted(path)["warnings"][0]
    for one in advice:
        assert one in warning
        if one.startswith("--"):
            warnings = counted(path, *one.split())["warnings"]
            assert not any("outside [0, 1]" in other for other in warnings)


def test_advice_where_nothing_is_counted(tmp_path, refused):
    path = write_npy(tmp_path / "a.npy", np.array([[2, 3], [4, 5]]))
    assert "4 labels are outside [0, 1] and not counted" in refused(path)
    assert "class numbers take --classes 6" in refused(path)


def test_advice_says_that_values_are_scaled(tmp_path, counted):
    path = write_npy(tmp_path / "a.npy", np.array([0, 1, 255]))
    assert "outside [0, 1] after --scale and --shift" in counted(path, "--scale", 2)["warnings"][0]


@pytest.mark.parametrize("scheme", ["ratio", "deepmar", "effective-number", "inverse-sqrt"])
def test_warns_of_classes_without_positives(scheme, tmp_path, counted):
    path = write_npy(tmp_path / "a.npy", np.array([[1, 0], [0, 0]]))
    report = counted(path, "--scheme", scheme)
    assert report["channels"][1]["cls_weight"] == 1
    assert report["warnings"][0] == (
        "no positives in channel 1: cls_weight multiplies nothing there, and is written as 1"
    )


def test_warns_of_classes_without_negatives(tmp_path, counted):
    path = write_npy(tmp_path / "a.npy", np.array([[1, 0], [1, 1]]))
    report = counted(path, "--scheme", "ratio")
    assert column(report, "cls_weight") == [1, 1]
    assert report["warnings"] == [
        "no negatives in channel 0; ratio would be 0 there, and is written as 1"
    ]


@pytest.mark.parametrize(("negatives", "warned"), [(100, False), (101, True)])
def test_warns_of_extreme_weights(negatives, warned, tmp_path, counted):
    path = write_npy(tmp_path / "a.npy", np.array([1] + [0] * negatives))
    warnings = counted(path, "--scheme", "ratio")["warnings"]
    assert bool(warnings) == warned
    assert all("more than 100 times the other in channel 0: scores shift by up to 4.6" in one
               for one in warnings)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "channels", "milder"),
    [
        (["--scheme", "ratio"], 2, "effective-number or inverse-sqrt"),
        (["--scheme", "ratio"], 1, "deepmar"),
        (["--scheme", "inverse-sqrt"], 2, "deepmar"),
        (["--scheme", "deepmar", "--sigma", "0.4"], 2, "a larger --sigma"),
    ],
)
def test_advice_on_extreme_weights_is_another_scheme(
    arguments, channels, milder, tmp_path, counted
):
    values = np.zeros((30_000, channels), bool)
    values[0, 0] = values[:20_000, 1:] = 1
    warnings = counted(write_npy(tmp_path / "a.npy", values), *arguments)["warnings"]
    assert warnings[-1].endswith(f"consider {milder}")


def test_warns_where_beta_tells_nothing_apart(tmp_path, counted):
    values = np.zeros((40000, 2))
    values[:8000, 0] = values[:30000, 1] = 1
    path = write_npy(tmp_path / "a.npy", values)
    assert "bring --beta nearer to 1" in counted(path)["warnings"][0]
    assert counted(path, "--beta", "0.9999")["warnings"] == []


@pytest.mark.parametrize("scheme", ["effective-number", "inverse-sqrt"])
@pytest.mark.parametrize(
    ("channels", "words"), [(1, "there is one channel"), (3, "the channels are equally rare")]
)
def test_warns_where_there_is_nothing_to_compare(scheme, channels, words, tmp_path, counted):
    """25 positives of 300 get the weight 1, as any other share would."""
    path = write_npy(tmp_path / "a.npy", np.repeat(np.arange(300)[:, None] < 25, channels, 1))
    report = counted(path, "--scheme", scheme)
    assert column(report, "cls_weight") == [1] * channels
    (warning,) = report["warnings"]
    assert warning.startswith(f"{scheme} compares channels with each other only, and {words}")
    for other in "ratio", "deepmar":
        assert other in warning
        assert counted(path, "--scheme", other)["warnings"] == []
    assert column(counted(path, "--scheme", "ratio"), "cls_weight") == [11] * channels


def test_warns_where_one_channel_alone_has_positives(tmp_path, counted):
    path = write_npy(tmp_path / "a.npy", np.eye(20)[:3, :2] * [[1, 0]])
    warnings = counted(path)["warnings"]
    assert "compares channels with each other only, and one alone has positives" in warnings[1]
