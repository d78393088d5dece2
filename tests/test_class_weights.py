"""`weighted-loss class-weights`: what it reads, counts, prints and refuses."""

import io
import json
import math
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from weighted_loss_tools import counts, labels, progress
from weighted_sigmoid_loss import schemes

# 8 instances of 3 channels: 4, 2 and 1 positives.
TARGETS = np.array([[1, 0, 0]] * 3 + [[1, 1, 0]] + [[0, 1, 0]] + [[0, 0, 1]] + [[0, 0, 0]] * 2)
POSITIVES = [4, 2, 1]


def write_lmdb(path, datums):
    """An LMDB as Caffe's own programs write it: keys in order."""
    with lmdb.open(str(path), map_size=1 << 26) as database, database.begin(write=True) as txn:
        for i, datum in enumerate(datums):
            txn.put(f"{i:08}".encode(), datum.SerializeToString())
    return path


def float_datum(values):
    values = np.asarray(values)
    channels, height, width = (*values.shape, 1, 1)[:3]
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width)
    datum.float_data.extend(values.ravel().tolist())
    return datum


def byte_datum(values):
    datum = float_datum(values)
    datum.data = np.asarray(values, np.uint8).tobytes()
    datum.ClearField("float_data")
    return datum


def write_hdf5_list(folder, arrays, dataset="label"):
    names = []
    for i, array in enumerate(arrays):
        names.append(str(folder / f"{i}.h5"))
        with h5py.File(names[-1], "w") as file:
            file[dataset] = array
    source = folder / "train.txt"
    source.write_text("\n".join(names) + "\n")
    return source


def write_npy(path, array):
    np.save(path, array)
    return path


@pytest.fixture
def class_weights(tools_command):
    return lambda *arguments: tools_command("class-weights", *arguments)


@pytest.fixture
def counted(class_weights):
    """The report of a run that succeeds."""

    def run(*arguments):
        status, out, err = class_weights(*arguments, "--json")
        assert status == 0, err
        report = json.loads(out)
        assert [f"warning: {one}" for one in report["warnings"]] == err.splitlines()
        return report

    return run


@pytest.fixture
def refused(class_weights, tmp_path):
    """The one line of a run that is refused; it must write nothing."""

    def run(*arguments):
        before = sorted(tmp_path.rglob("*"))
        status, out, err = class_weights(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("class-weights: ") and err.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before
        return err

    return run


def column(report, name):
    return [channel[name] for channel in report["channels"]]


# Sources


SOURCES = {
    "lmdb, floats": lambda folder: write_lmdb(folder / "db", map(float_datum, TARGETS)),
    "lmdb, bytes": lambda folder: write_lmdb(folder / "db", map(byte_datum, TARGETS)),
    "hdf5 list": lambda folder: write_hdf5_list(folder, [TARGETS[:3], TARGETS[3:]]),
    "hdf5 file": lambda folder: write_hdf5_list(folder, [TARGETS]).with_name("0.h5"),
    "npy": lambda folder: write_npy(folder / "a.npy", TARGETS.astype(np.float32)),
    "npy, bools": lambda folder: write_npy(folder / "a.npy", TARGETS.astype(bool)),
    "npy, by columns": lambda folder: write_npy(folder / "a.npy", np.asfortranarray(TARGETS)),
}


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("source", SOURCES)
def test_sources(source, piece, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(labels, "PIECE", piece)
    report = counted(SOURCES[source](tmp_path))
    assert column(report, "positives") == POSITIVES
    assert column(report, "negatives") == [4, 6, 7]
    assert column(report, "frequency") == [0.5, 0.25, 0.125]
    assert (report["instances"], report["ignored"], report["warnings"]) == (8, 0, [])


def test_class_indices_of_a_classification_lmdb(tmp_path, counted):
    indices = [0, 2, 2, 1, 2, 3]
    encoded = [caffe_pb2.Datum(encoded=True, data=b"jpeg", label=i) for i in indices]
    report = counted(write_lmdb(tmp_path / "db", encoded))
    assert "field `label`" in report["labels"]
    assert column(report, "positives") == [1, 1, 3, 1]
    assert column(report, "negatives") == [5, 5, 3, 5]
    report = counted(tmp_path / "db", "--classes", 5)
    assert column(report, "positives") == [1, 1, 3, 1, 0]
    assert "no positives in channel 4" in report["warnings"][0]


def test_class_indices_that_grow_from_piece_to_piece(tmp_path, counted, monkeypatch):
    monkeypatch.setattr(labels, "PIECE", 2)
    datums = [caffe_pb2.Datum(label=i) for i in (0, 0, 1, 2, 0)]
    report = counted(write_lmdb(tmp_path / "db", datums))
    assert column(report, "positives") == [3, 1, 1]
    assert column(report, "negatives") == [2, 4, 4]


def test_class_indices_of_pixels(tmp_path, counted):
    masks = np.array([[[0, 1], [2, 255]]] * 4)
    report = counted(
        write_npy(tmp_path / "a.npy", masks), "--classes", 3, "--ignore-label", 255, "--json"
    )
    assert column(report, "positives") == [4, 4, 4]
    assert column(report, "negatives") == [8, 8, 8]
    assert report["ignored"] == 4


def test_field_is_chosen(tmp_path, counted):
    datums = [byte_datum(row) for row in TARGETS]
    for datum in datums:
        datum.label = 1
    write_lmdb(tmp_path / "db", datums)
    assert column(counted(tmp_path / "db"), "positives") == [0, 8]
    assert column(counted(tmp_path / "db", "--field", "data"), "positives") == POSITIVES


def test_list_is_relative_to_the_current_folder(tmp_path, counted, refused, monkeypatch):
    source = write_hdf5_list(tmp_path, [TARGETS])
    source.write_text("0.h5\n")
    assert "start at the folder that `caffe train` runs in" in refused(source)
    monkeypatch.chdir(tmp_path)
    assert column(counted(source), "positives") == POSITIVES


def net(layers):
    return f"{layers} layer {{ name: 'x' type: 'ReLU' bottom: 'label' top: 'x' }}"


HDF5_LAYER = (
    "layer {{ name: 'd{phase}' type: 'HDF5Data' top: 'image' top: 'label' "
    "hdf5_data_param {{ source: '{source}' batch_size: 2 }} include {{ phase: {phase} }} }} "
)
LMDB_LAYER = (
    "layer {{ name: 'd' type: 'Data' top: '{tops}' data_param {{ source: '{source}' "
    "backend: LMDB batch_size: 2 }} transform_param {{ {transform} }} }} "
)


def test_source_from_a_net(tmp_path, counted):
    source = write_hdf5_list(tmp_path, [TARGETS])
    path = tmp_path / "net.prototxt"
    path.write_text(
        net(
            HDF5_LAYER.format(source=source, phase="TRAIN")
            + HDF5_LAYER.format(source="missing", phase="TEST")
        )
    )
    assert column(counted("--net", path), "positives") == POSITIVES


def test_source_from_a_net_has_its_scale(tmp_path, counted, refused):
    """Masks of 0 and 255 in an LMDB of their own."""
    write_lmdb(tmp_path / "db", [byte_datum(255 * row) for row in TARGETS])
    path = tmp_path / "net.prototxt"
    arguments = {"source": tmp_path / "db", "tops": "mask"}
    path.write_text(net(LMDB_LAYER.format(**arguments, transform="scale: 0.00392156886")))
    report = counted("--net", path, "--top", "mask")
    assert column(report, "positives") == pytest.approx(POSITIVES)
    path.write_text(net(LMDB_LAYER.format(**arguments, transform="mean_value: 3")))
    assert "layer 'd' subtracts a mean from the labels" in refused("--net", path, "--top", "mask")


def test_second_top_of_a_data_layer_is_the_class_index(tmp_path, counted):
    datums = [caffe_pb2.Datum(encoded=True, data=b"jpeg", label=i) for i in (0, 1, 1)]
    source = write_lmdb(tmp_path / "db", datums)
    path = tmp_path / "net.prototxt"
    tops = "image' top: 'label"
    path.write_text(net(LMDB_LAYER.format(source=source, tops=tops, transform="scale: 0.1")))
    assert column(counted("--net", path), "positives") == [1, 2]


@pytest.mark.parametrize(
    ("layers", "arguments", "message"),
    [
        ("", [], "0 data layers have the top 'label' in training (none)"),
        (HDF5_LAYER.format(source="x", phase="TRAIN") * 2, [], "2 data layers have the top"),
        (HDF5_LAYER.format(source="x", phase="TRAIN"), ["--layer", "y"], "0 data layers have"),
        ("layer { name: 'd' type: 'ImageData' top: 'label' }", [], "is of type ImageData"),
        ("layer {", [], "not a net's prototxt"),
    ],
)
def test_net_without_such_a_source(layers, arguments, message, tmp_path, refused):
    path = tmp_path / "net.prototxt"
    path.write_text(layers)
    assert message in refused("--net", path, *arguments)


def test_one_source_at_a_time(tmp_path, refused):
    assert "give the labels' source, or --net" in refused()
    assert "give the labels' source, or --net" in refused(tmp_path, "--net", tmp_path)


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


def test_memory_does_not_grow_with_the_labels(tmp_path, counted):
    """64 million labels, 256 MiB as floats; in the file most chunks were never written."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("label", (1 << 22, 16), np.float32, chunks=(1 << 16, 16))
        file["label"][0] = 1
    tracemalloc.start()
    report = counted(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert column(report, "positives") == [1] * 16
    assert peak < 32 << 20


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
    report = counted(write_npy(tmp_path / "a.npy", np.array([[0, 255], [-1, 1], [1, 0]])))
    assert column(report, "positives") == [1, 1]
    assert column(report, "negatives") == [1, 1]
    assert report["outside"] == 2
    (warning,) = report["warnings"]
    assert warning.startswith("2 labels are outside [0, 1] and not counted, the first is 255:")


@pytest.mark.parametrize("scheme", ["ratio", "deepmar", "effective-number", "inverse-sqrt"])
def test_warns_of_classes_without_positives(scheme, tmp_path, counted):
    path = write_npy(tmp_path / "a.npy", np.array([[1, 0], [0, 0]]))
    report = counted(path, "--scheme", scheme)
    assert report["channels"][1]["cls_weight"] == 1
    assert report["warnings"] == [
        "no positives in channel 1: cls_weight multiplies nothing there, and is written as 1"
    ]


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


def test_warns_where_beta_tells_nothing_apart(tmp_path, counted):
    values = np.zeros((40000, 2))
    values[:8000, 0] = values[:30000, 1] = 1
    path = write_npy(tmp_path / "a.npy", values)
    assert "bring --beta nearer to 1" in counted(path)["warnings"][0]
    assert counted(path, "--beta", "0.9999")["warnings"] == []


# Wrong input


def damaged(path, keep):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def test_no_such_file(tmp_path, refused):
    assert "missing: No such file or directory" in refused(tmp_path / "missing")


def test_truncated_lmdb(tmp_path, refused):
    source = write_lmdb(tmp_path / "db", [float_datum(np.zeros(3000))] * 50)
    damaged(source / "data.mdb", 0.5)
    assert "truncated: data.mdb has" in refused(source)


@pytest.mark.parametrize("data", [b"", b"not a database" * 1000])
def test_what_is_no_lmdb(data, tmp_path, refused):
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "data.mdb").write_bytes(data)
    assert "not a readable LMDB" in refused(tmp_path / "db")


def test_folders_that_are_no_lmdb(tmp_path, refused):
    assert "no LMDB in this folder" in refused(tmp_path)
    (tmp_path / "CURRENT").touch()
    assert "a LevelDB: write the labels to" in refused(tmp_path)


def test_empty_lmdb(tmp_path, refused):
    assert "no labels in it" in refused(write_lmdb(tmp_path / "db", []))


def test_damaged_datum(tmp_path, refused):
    source = write_lmdb(tmp_path / "db", [float_datum([1, 0])])
    with lmdb.open(str(source)) as database, database.begin(write=True) as txn:
        txn.put(b"00000001", b"\xff\xff\xff")
    assert "Datum '00000001' is damaged, or no Datum" in refused(source)


@pytest.mark.parametrize(
    ("datum", "message"),
    [
        (float_datum([1, 0]), "is 2 x 1 x 1, and the first 3 x 1 x 1: label blobs must be of equ"),
        (float_datum(np.zeros((3, 2))), "is 3 x 2 x 1, and the first 3 x 1 x 1"),
        (caffe_pb2.Datum(channels=3, height=1, width=1), "has 0 values, and its shape is 3 x 1 x"),
        (caffe_pb2.Datum(channels=3, data=b"123"), "has 3 values, and its shape is 3 x 0 x 0"),
        (caffe_pb2.Datum(encoded=True, data=b"x"), "is an encoded image: --field label counts"),
    ],
)
def test_datum_that_does_not_fit(datum, message, tmp_path, refused):
    source = write_lmdb(tmp_path / "db", [*map(float_datum, TARGETS), datum])
    assert message in refused(source)


def test_datum_without_a_label(tmp_path, refused):
    source = write_lmdb(tmp_path / "db", [caffe_pb2.Datum(label=1), caffe_pb2.Datum()])
    assert "Datum '00000001' has no label: --field data" in refused(source)


def test_truncated_hdf5(tmp_path, refused):
    source = write_hdf5_list(tmp_path, [TARGETS, np.zeros((10000, 3))])
    damaged(tmp_path / "1.h5", 0.5)
    assert f"{tmp_path / '1.h5'}: not a whole HDF5 file" in refused(source)


def test_damaged_hdf5(tmp_path, refused):
    """Whole but for the bytes of a compressed chunk, which are read late."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        values = np.random.default_rng(1).random((1 << 17, 16)) < 0.5
        chunks = (1 << 14, 16)
        dataset = file.create_dataset("label", data=values, chunks=chunks, compression="gzip")
        where = dataset.id.get_chunk_info(7)
    with open(path, "r+b") as stream:
        stream.seek(where.byte_offset)
        stream.write(bytes(where.size))
    assert "not a whole HDF5 file" in refused(path)


def test_hdf5_blobs_of_unequal_size(tmp_path, refused):
    source = write_hdf5_list(tmp_path, [TARGETS, TARGETS[:, :2]])
    assert "1.h5: dataset 'label' is 8 x 2, and 8 x 3 in" in refused(source)


def test_no_such_dataset(tmp_path, refused):
    source = write_hdf5_list(tmp_path, [TARGETS], dataset="attributes")
    assert "no dataset 'label' (it has: attributes): name it, --dataset" in refused(source)


@pytest.mark.parametrize("text", [b"", b"\xff\xfe\x00", b"PK\x03\x04\0\0"])
def test_what_is_no_list(text, tmp_path, refused):
    (tmp_path / "a").write_bytes(text)
    assert "neither an LMDB folder, an HDF5 or .npy file, nor a list" in refused(tmp_path / "a")


@pytest.mark.parametrize("keep", [0.01, 0.5])
def test_truncated_npy(keep, tmp_path, refused):
    path = damaged(write_npy(tmp_path / "a.npy", np.zeros((100, 30))), keep)
    assert "not a whole .npy file of numbers" in refused(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([{}, {}]), "not a whole .npy file of numbers"),
        (np.array(["cat", "dog"]), "its values are of type <U3: labels must be numbers"),
        (np.array(3.0), "a single number"),
        (np.zeros((0, 3)), "no labels in it"),
        (np.zeros((3, 0)), "no channel, or nothing but ignored labels"),
        (np.array([[0, 1], [1, np.nan]]), "NaN among the labels, first in instance 1 (from 0)"),
    ],
)
def test_refused_arrays(array, message, tmp_path, refused):
    path = tmp_path / "a.npy"
    np.save(path, array, allow_pickle=True)
    assert message in refused(path)


def test_nan_is_found_in_any_piece(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(labels, "PIECE", 2)
    source = write_lmdb(tmp_path / "db", [float_datum([1]), float_datum([0]), float_datum([1]),
                                          float_datum([math.nan])])  # fmt: skip
    assert "NaN among the labels, first in instance 3 (from 0)" in refused(source)


@pytest.mark.parametrize("index", [-1, 5, 0.5])
def test_wrong_class_index(index, tmp_path, refused):
    path = write_npy(tmp_path / "a.npy", np.array([0, index, 4]))
    assert f"{index:g} is no class index from 0 to 4" in refused(path, "--classes", 5)


def test_absurd_class_index(tmp_path, refused):
    source = write_lmdb(tmp_path / "db", [caffe_pb2.Datum(label=counts.MOST_CLASSES)])
    assert "is no class index from 0 to 99,999" in refused(source)


@pytest.mark.parametrize("axis", [0, 2, -2])
def test_wrong_axis(axis, tmp_path, refused):
    path = write_npy(tmp_path / "a.npy", TARGETS)
    assert f"--axis {axis} is no channel axis of labels with 2 axes" in refused(
        path, "--axis", axis
    )


@pytest.mark.parametrize("sigma", ["0.09", "0.01", "1e-200"])
def test_overflowing_weights(sigma, tmp_path, refused):
    """Beyond float, beyond double, and a division by 0."""
    path = write_npy(tmp_path / "a.npy", TARGETS)
    assert "are beyond float" in refused(path, "--scheme", "deepmar", "--sigma", sigma)


@pytest.mark.parametrize(
    "arguments", [["--beta", "1"], ["--sigma", "0"], ["--classes", "0"], ["--scheme", "x"]]
)
def test_wrong_arguments(arguments, class_weights, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        class_weights(tmp_path, *arguments)
    assert stopped.value.code == 2


@pytest.mark.parametrize("module", ["lmdb", "h5py", "caffe"])
def test_missing_package_is_named(module, tmp_path):
    """A Python without one of them, as a program of its own."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / f"{module}.py").write_text("raise ImportError('not here')")
    write_lmdb(tmp_path / "db", map(float_datum, TARGETS))
    write_hdf5_list(tmp_path, [TARGETS])
    source = tmp_path / ("train.txt" if module == "h5py" else "db")
    path = [tmp_path / "lib", Path(labels.__file__).parent.parent, *sys.path]
    done = subprocess.run(
        [sys.executable, "-m", "weighted_loss_tools", "class-weights", source],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "(not here)" in done.stderr
    assert {"caffe": "pycaffe", "lmdb": "python3-lmdb", "h5py": "python3-h5py"}[
        module
    ] in done.stderr
