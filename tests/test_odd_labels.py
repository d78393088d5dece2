"""Files of labels that are damaged, or that no one would expect: one line, and status 2."""

import gzip
import io
import math
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from random import Random

import h5py
import lmdb
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from fuzzing import SEEDS, mutated
from label_files import (
    TARGETS,
    float_datum,
    write_hdf5_list,
    write_lmdb,
    write_npy,
)
from PIL import Image

from weighted_loss_tools import counts, labels
from weighted_loss_tools.labels import common

# Damaged files


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


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x08\1\x0c\x10\1"])
def test_damaged_datum(data, tmp_path, refused):
    """The second is one of which protobuf reads a part, and warns."""
    source = write_lmdb(tmp_path / "db", [float_datum([1, 0])])
    with lmdb.open(str(source)) as database, database.begin(write=True) as txn:
        txn.put(b"00000001", data)
    assert "Datum '00000001' is damaged, or no Datum" in refused(source)


@pytest.mark.parametrize(
    ("datum", "message"),
    [
        (float_datum([1, 0]), "is 2 x 1 x 1, and the first has 3 channels: all must have as many"),
        (caffe_pb2.Datum(channels=3, height=1, width=1), "has 0 values, and its shape is 3 x 1 x"),
        (caffe_pb2.Datum(channels=3, data=b"123"), "has 3 values, and its shape is 3 x 0 x 0"),
        (
            caffe_pb2.Datum(channels=-1, height=-1, width=3, data=b"123"),
            "has 3 values, and its shape is -1 x -1 x 3",
        ),
        (
            caffe_pb2.Datum(channels=1 << 30, height=1 << 30, width=16, data=b""),
            "has 0 values, and its shape is 1,073,741,824 x",
        ),
        (caffe_pb2.Datum(encoded=True, data=b"x"), "Datum '00000008': not a whole image"),
    ],
)
def test_datum_that_does_not_fit(datum, message, tmp_path, refused):
    source = write_lmdb(tmp_path / "db", [*map(float_datum, TARGETS), datum])
    assert message in refused(source)


def test_datum_without_a_label(tmp_path, refused):
    source = write_lmdb(tmp_path / "db", [caffe_pb2.Datum(label=1), caffe_pb2.Datum()])
    message = "Datum '00000001' has no label: --field data"
    assert message in refused(source, "--field", "label")


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
        if not hasattr(dataset.id, "get_chunk_info"):
            pytest.skip("h5py before 3 cannot tell where a chunk is")
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


@pytest.mark.parametrize(
    "text",
    [b"", b" \n" * 9, b"a\0b", b"a " * 9000 + b"\0", b"\xef\xbb\xbf\n", "\x1c\n\xa0".encode()],
)
def test_what_is_no_text(text, tmp_path, refused):
    (tmp_path / "a").write_bytes(text)
    assert "neither an LMDB folder, an HDF5, .npy" in refused(tmp_path / "a")


def test_fields_of_any_length(tmp_path, refused):
    """Of a CSV: more than the 128 KiB that Python's reader takes."""
    (tmp_path / "a").write_text(f"{'x' * 200_000},1\n" * 4 + "y,1,1\n")
    assert "line 5 has 2 labels, and others have 1: give a number" in refused(tmp_path / "a")


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (b"PK\3\4\0\0", "not a whole .npz file of numbers"),
        (pickle.dumps(TARGETS), "a pickle: numpy.save() its array"),
        (gzip.compress(b"x"), "compressed: unpack it first"),
        ("a.png 0".encode("utf-16"), "a text in UTF-16: save it as UTF-8"),
        (b'{"labels": [1]}', "JSON: numpy.save() its labels"),
        (b"<annotation>", "XML: numpy.save() its labels"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "a MATLAB file: numpy.save() what"),
        (b'name: "net"\nlayer {\n', "a net's prototxt: give it with --net"),
        (b"PAR1\x15\0", "Parquet: write it as CSV"),
    ],
)
def test_files_of_others_are_named(data, advice, tmp_path, refused):
    (tmp_path / "a").write_bytes(data)
    assert advice in refused(tmp_path / "a")


def test_file_of_an_lmdb_is_named(tmp_path, refused):
    source = write_lmdb(tmp_path / "db", [float_datum([1, 0])])
    assert "give the folder that it is in" in refused(source / "data.mdb")


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
        (np.zeros((3, 0)), "no labels in it"),
        (np.array([[0, 1], [1, np.nan]]), "NaN among the labels, first in instance 1 (from 0)"),
    ],
)
def test_refused_arrays(array, message, tmp_path, refused):
    path = tmp_path / "a.npy"
    np.save(path, array, allow_pickle=True)
    assert message in refused(path)


def test_nan_is_found_in_any_piece(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(common, "PIECE", 2)
    source = write_lmdb(tmp_path / "db", [float_datum([1]), float_datum([0]), float_datum([1]),
                                          float_datum([math.nan])])  # fmt: skip
    assert "NaN among the labels, first in instance 3 (from 0)" in refused(source)


@pytest.mark.parametrize("index", [-1, 5, 0.5])
def test_wrong_class_index(index, tmp_path, refused):
    path = write_npy(tmp_path / "a.npy", np.array([0, index, 4]))
    assert f"{index:g} is not a class index from 0 to 4" in refused(path, "--classes", 5)


def test_absurd_class_index(tmp_path, refused):
    source = write_lmdb(tmp_path / "db", [caffe_pb2.Datum(label=counts.MOST_CLASSES)])
    assert "is not a class index from 0 to 99,999" in refused(source)


@pytest.mark.parametrize("axis", [0, 2, -2])
def test_wrong_axis(axis, tmp_path, refused):
    path = write_npy(tmp_path / "a.npy", TARGETS)
    assert f"--axis {axis} is not a channel axis of labels with 2 axes" in refused(
        path, "--axis", axis
    )


@pytest.mark.parametrize("sigma", ["0.09", "0.01", "1e-200"])
def test_overflowing_weights(sigma, tmp_path, refused):
    """Beyond float, beyond double, and a division by 0."""
    path = write_npy(tmp_path / "a.npy", TARGETS)
    assert "are beyond float" in refused(path, "--scheme", "deepmar", "--sigma", sigma)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--beta", "1"],
        ["--sigma", "0"],
        ["--classes", "0"],
        ["--scheme", "x"],
        ["--scale", "1/0"],
        ["--scale", "1/"],
        ["--scale", "1/2/3"],
        ["--scale", "nan"],
        ["--shift", "1e999"],
    ],
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
    path = [tmp_path / "lib", Path(counts.__file__).parent.parent, *sys.path]
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


# What no data set has


def npy_header(text, version=1):
    data = text.encode("latin-1")
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(data)) + data


SHAPES = {
    "more than there is": "(1000000000000, 8)",
    "more than 64 bits": "(8589934592, 2147483648)",
    "more than any number": "(" + "9" * 9000 + ", 2)",
    "below zero": "(-1, 3)",
    "many times nothing": "(4611686018427387904, 0)",
    "too many axes": "(" + "1," * 200 + ")",
    "no tuple": "3",
    "nothing": "",
    "deep": "(" * 20000,
    "code": "__import__('os').abort()",
}
TYPES = ["'|V0'", "[('a', '<f4')]", "'|O'", "'<U3'", "7", "'<c8'", "''"]


def lying_headers():
    for name, shape in SHAPES.items():
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"
        yield pytest.param(text, id=name)
    for kind in TYPES:
        text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': (3, 3)}}"
        yield pytest.param(text, id=kind)
    yield pytest.param("", id="empty")
    yield pytest.param("\n" * 65535, id="blank")


@pytest.mark.parametrize("header", lying_headers())
@pytest.mark.parametrize("archived", [False, True])
def test_headers_of_npy_that_lie(header, archived, tmp_path, refused):
    """With 36 values behind each; 0.2 GB are enough to refuse it."""
    data = npy_header(header) + bytes(144)
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    if archived:
        path = tmp_path / "a.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("label.npy", data)
    with limited_memory():
        message = refused(path)
    assert f"{path}" in message and len(message) < 1000


@contextmanager
def limited_memory():
    """For this process, 0.2 GB more than it has."""
    with open("/proc/self/statm") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 200_000_000, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


def test_header_of_npy_that_is_longer_than_the_file(tmp_path, refused):
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\2\0\xff\xff\xff\xff{")
    assert "not a whole .npy file of numbers" in refused(path)


def test_npy_as_python_2_wrote_it(tmp_path, class_weights):
    """NumPy warns of an L behind a number; what is counted is right."""
    path = tmp_path / "a.npy"
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 1L), }".ljust(117) + "\n"
    path.write_bytes(npy_header(header) + np.array([1, 0], "<f4").tobytes())
    status, _, err = class_weights(path, "--scheme", "ratio")
    assert (status, err) == (0, "")


@pytest.mark.parametrize("pages", [0.25, 1, 1.5])
def test_lmdb_of_less_than_two_pages(pages, tmp_path, refused):
    """SIGFPE inside liblmdb otherwise."""
    source = write_lmdb(tmp_path / "db", map(float_datum, TARGETS))
    path = source / "data.mdb"
    path.write_bytes(path.read_bytes()[: int(4096 * pages)])
    assert "truncated: data.mdb has" in refused(source)


def test_library_that_dies(tmp_path, refused, monkeypatch):
    def die(path, source):
        yield common.Labels("words", 2, False, [])
        os.write(2, b"liblmdb: Assertion failed\n")
        os.abort()

    monkeypatch.setattr(labels, "reader", lambda source: die)
    message = f"{tmp_path}: reading it ended with SIGABRT: it is damaged"
    assert message in refused(tmp_path)


def test_no_process_is_left(tmp_path):
    """Killed, the command takes along the child that reads for it."""
    path = tmp_path / "a.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (1 << 14, 1 << 20)).flush()
    command = subprocess.Popen(
        [sys.executable, "-m", "weighted_loss_tools", "class-weights", path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    wait_for(lambda: children.read_text().split())
    (child,) = children.read_text().split()
    command.kill()
    command.wait()
    wait_for(lambda: not is_running(child))


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_hdf5_that_was_never_written(tmp_path, refused):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("label", (1 << 60, 3), np.float32, chunks=(1 << 10, 3))
    assert "and next to nothing was written to it" in refused(tmp_path / "a.h5")


@pytest.mark.parametrize("keywords", [{"shape": (1, 1 << 30)}, {"shape": (1 << 20, 1 << 28)}])
def test_hdf5_with_an_instance_beyond_memory(keywords, tmp_path, refused):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("label", dtype=np.float32, chunks=(1, 1 << 10), **keywords)[0, 0] = 1
    assert "an instance has at most 134,217,728 labels" in refused(tmp_path / "a.h5")


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "a\tb\x1b[31m"])
def test_odd_names(name, tmp_path, refused):
    message = refused(tmp_path / name)
    assert "\x1b" not in message and "\t" not in message


def test_odd_names_in_a_net_and_in_lists(tmp_path, refused):
    net = tmp_path / "net.prototxt"
    net.write_text(
        "layer { name: 'd' type: 'HDF5Data' top: 'label' hdf5_data_param { source: 'a\\000b' } }"
    )
    assert "a\\x00b" in refused("--net", net)
    (tmp_path / "list.txt").write_text(f"{'x' * 300}.h5\n")
    assert "which is not here" in refused(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("a\x1b[31m.h5\n")
    assert "a\\x1b[31m.h5, which is not here" in refused(tmp_path / "list.txt")


@pytest.mark.parametrize("arguments", [["{}"], ["--net", "{}"]])
def test_pipe_is_not_waited_for(arguments, tmp_path, refused):
    os.mkfifo(tmp_path / "pipe")
    message = refused(*[one.format(tmp_path / "pipe") for one in arguments])
    assert "not a regular file" in message


def test_pipe_in_a_list(tmp_path, refused):
    os.mkfifo(tmp_path / "pipe")
    for line in "{}\n", "{} 0\n", "x.png {}\n":
        (tmp_path / "list.txt").write_text(line.format(tmp_path / "pipe"))
        assert "which is not here" in refused(tmp_path / "list.txt")


def test_many_classes_take_little_time(tmp_path, counted):
    """40,000 took 6 s, for each was compared with all."""
    path = write_npy(tmp_path / "a.npy", np.eye(20, 40_000, dtype=bool))
    start = processor_time()
    counted(path)
    assert processor_time() - start < 3


def test_image_with_more_pixels_than_bytes(tmp_path, refused):
    stream = io.BytesIO()
    Image.new("L", (1, 1)).save(stream, "BMP")
    data = bytearray(stream.getvalue())
    data[18:26] = struct.pack("<ii", 20_000, 20_000)
    (tmp_path / "a.bmp").write_bytes(data)
    assert "not a whole image" in refused(tmp_path / "a.bmp")


# Whatever


def seeds(folder):
    """A source of each kind."""
    write_lmdb(folder / "lmdb", map(float_datum, np.tile(TARGETS, (40, 1))))
    with h5py.File(folder / "a.h5", "w") as file:
        values = np.tile(TARGETS, (500, 1))
        file.create_dataset("label", data=values, chunks=(200, 3), compression="gzip")
    np.save(folder / "a.npy", TARGETS)
    np.savez_compressed(folder / "a.npz", label=TARGETS)
    for kind in "png", "tif", "bmp", "jpg", "pgm":
        Image.fromarray(np.tile(TARGETS, 3).astype(np.uint8)).save(folder / f"a.{kind}")
    (folder / "a.csv").write_text("name,cat,dog\na.png,1,0\nb.png,0,1\nc.png,0,0\n")
    (folder / "net.prototxt").write_text(
        "layer { name: 'd' type: 'Data' top: 'x' top: 'label' transform_param { scale: 0.5 } "
        f"data_param {{ source: '{folder}/lmdb' batch_size: 1 backend: LMDB }} }}"
    )
    (folder / "a.txt").write_text("a.png 0\nb.png 1\nc.png 1\n")
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock.mdb")


def processor_time():
    """This process's, and that of its children which have ended: no other program counts."""
    return sum(os.times()[:4])


@pytest.mark.parametrize("seed", SEEDS)
def test_mutated_files(seed, tmp_path, class_weights):
    """Counted, or refused in a line; FUZZ_SEEDS=400 takes some minutes."""
    random = Random(seed)
    for path in seeds(tmp_path):
        source = [path.parent] if path.name == "data.mdb" else [path]
        if path.suffix == ".prototxt":
            source = ["--net", path, "--top", "x"]
        original = path.read_bytes()
        for _ in range(8):
            path.write_bytes(mutated(original, random))
            start = processor_time()
            status, out, err = class_weights(*source, "--ignore-label", random.choice((255, 1)))
            assert processor_time() - start < 5
            if status:
                assert (status, out, err.count("\n")) == (2, "", 1)
            else:
                assert all(line.startswith("warning: ") for line in err.splitlines())
        path.write_bytes(original)
