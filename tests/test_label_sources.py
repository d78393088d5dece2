"""What `weighted-loss class-weights` reads labels from."""

import io
import os

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from label_files import (
    POSITIVES,
    TARGETS,
    byte_datum,
    column,
    float_datum,
    write_hdf5_list,
    write_lmdb,
    write_npy,
)
from PIL import Image

from weighted_loss_tools.labels import common

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
    monkeypatch.setattr(common, "PIECE", piece)
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
    monkeypatch.setattr(common, "PIECE", 2)
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


# An LMDB's field


def with_labels(datums, labels):
    datums = list(datums)
    for datum, label in zip(datums, labels):
        datum.label = label
    return datums


@pytest.mark.parametrize("label", [0, 1, 7])
def test_equal_labels_are_not_the_classes(label, tmp_path, counted):
    """Older caffe.io.array_to_datum() and convert_imageset put one into each Datum, unasked."""
    datums = with_labels(map(byte_datum, TARGETS), [label] * 8)
    report = counted(write_lmdb(tmp_path / "db", datums))
    assert column(report, "positives") == POSITIVES
    (note,) = report["warnings"]
    assert note.startswith(f"the field `label` is {label} in every Datum")
    report = counted(tmp_path / "db", "--field", "label")
    assert column(report, "positives") == [0] * label + [8]


def test_labels_that_differ_only_at_the_end(tmp_path, counted):
    """As where the classes come one after the other."""
    datums = with_labels(map(byte_datum, np.zeros((300, 4), int)), [0] * 299 + [1])
    assert column(counted(write_lmdb(tmp_path / "db", datums)), "positives") == [299, 1]
    assert column(counted(tmp_path / "db", "--field", "data"), "positives") == [0] * 4


def test_labels_that_some_datum_lack(tmp_path, counted):
    datums = [*with_labels(map(byte_datum, TARGETS[:4]), [1] * 4), *map(byte_datum, TARGETS[4:])]
    assert column(counted(write_lmdb(tmp_path / "db", datums)), "positives") == POSITIVES


def test_labels_that_number_the_records(tmp_path, counted):
    datums = with_labels(map(byte_datum, TARGETS), range(8))
    report = counted(write_lmdb(tmp_path / "db", datums))
    assert report["warnings"][0].startswith("no class occurs twice: if these number the records, ")
    assert column(counted(tmp_path / "db", "--field", "data"), "positives") == POSITIVES


def test_one_class_without_values(tmp_path, counted):
    report = counted(write_lmdb(tmp_path / "db", [caffe_pb2.Datum(label=1)] * 3))
    assert column(report, "positives") == [0, 3]


def test_public_recipe_of_many_labels(tmp_path, counted):
    """The counts that the recipe's author has: 0 and 255 in 5 x 1 x 1 bytes, label 0."""
    positives = [115, 39, 24, 10, 7]
    targets = 255 * (np.arange(200)[:, None] < positives)
    report = counted(write_lmdb(tmp_path / "db", with_labels(map(byte_datum, targets), [0] * 200)))
    assert column(report, "positives") == positives
    assert column(report, "negatives") == [200 - n for n in positives]


# Lists and tables


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


TABLES = {
    "of names": "a.png 1 0 1\nb.png 0 0 1\nc.png 0 1 1\n",
    "of names with spaces": "an a.png 1 0 1\nb.png 0 0 1\na c.png 0 1 1\n",
    "of numbers": "1 0 1\n0 0 1\n\n0 1 1\n",
    "of numpy.savetxt()": "1.000e+00 0.000e+00 1.000e+00\n0. 0. 1.\n0. 1. 1.",
    "as Windows writes it": "\ufeffa.png 1 0 1\r\nb.png 0 0 1\r\nc.png 0 1 1\r\n",
    "with tabs": "a.png\t1\t0\t1\nb.png\t0\t0\t1\nc.png\t0\t1\t1\n",
    "CSV": "a.png,1,0,1\nb.png,0,0,1\nc.png,0,1,1\n",
    "CSV with a heading": 'name,cat,dog,"a, b"\na.png,1,0,1\n"b, c.png",0,0,1\nc.png,0,1,1\n',
    "CSV of spreadsheets": "name;cat;dog;cow\na.png;1;0;1\nb.png;0;0;1\nc.png;0;1;1\n",
    "CSV of pandas": ",cat,dog,cow\n0,1,0,1\n1,0,0,1\n2,0,1,1\n",
    "CSV of pandas, bool": ",cat,dog,cow\n0,True,False,True\n1,False,False,True\n2,False,True,True",
    "CSV of pandas, columns without names": ",0,1,2\n0,1,0,1\n1,0,0,1\n2,0,1,1\n",
    "CSV of pandas, without rows": "0,1,2\n1,0,1\n0,0,1\n0,1,1\n",
    "CSV with ids": "id,cat,dog,cow\n17,1,0,1\n19,0,0,1\n23,0,1,1\n",
    "CSV with a heading alone": "cat,dog,cow\n1,0,1\n0,0,1\n0,1,1\n",
}


@pytest.mark.parametrize("table", TABLES)
def test_tables(table, tmp_path, counted):
    path = tmp_path / "labels.txt"
    path.write_bytes(TABLES[table].encode())
    report = counted(path)
    assert column(report, "positives") == [1, 1, 3]
    assert (report["instances"], report["labels"][:5]) == (3, "3 x 3")


def test_attributes_of_faces(tmp_path, counted):
    """As in list_attr_celeba.txt: the number of images, the names, and -1 for no."""
    path = tmp_path / "list.txt"
    path.write_text("3\nBald Hat\n1.jpg  -1  1\n2.jpg  -1 -1\n3.jpg   1 -1\n")
    report = counted(path, "--scale", "1/2", "--shift", "1/2")
    assert (column(report, "positives"), column(report, "negatives")) == ([1, 1], [2, 2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png 1 0\nb.png 1\nc.png 1 0\n", "line 2 has 1 labels, and others have 2"),
        ("a.png,1,0\nb.png,1,0\nc.png,1,0\nd.png,,0\n", "line 4: could not convert string to"),
        ("a 0,2\nb 1\nc 0,1\n", "line 2 has 0 labels, and others have 1: give a number per chan"),
        ("a,1,0,train\nb,0,0,test\n", "not a table of numbers: give a number per channel"),
        ("a.png,1,0\nb.png,1,0\nc.png,1,nan\n", "NaN among the labels, first in instance 2"),
        ("a.png 1\nb.png 2\nc.png one\n", "it names a.png, which is not here"),
        ("a.png 1\nb.png one\nc.png 2\n", "line 2 does not end with a class number"),
    ],
)
def test_tables_that_are_none(text, message, tmp_path, refused):
    path = tmp_path / "labels.txt"
    path.write_text(text)
    assert message in refused(path)


def test_names_in_any_encoding(tmp_path, counted, monkeypatch):
    """As in lists of GBK; Caffe takes bytes for names."""
    monkeypatch.chdir(tmp_path)
    name = write_mask(tmp_path / os.fsdecode(b"\xd1\xda.png")).name
    (tmp_path / "masks.txt").write_bytes(os.fsencode(name) + b" 0\n")
    assert column(counted("masks.txt"), "positives") == [6]


def test_list_of_class_numbers(tmp_path, counted):
    """The images are not looked for."""
    path = tmp_path / "list.txt"
    path.write_text("a b.jpg 0\nb.jpg 2\nc.jpg 2\n")
    report = counted(path)
    assert column(report, "positives") == [1, 0, 2]
    assert "3 class numbers" in report["labels"]


# Masks


MASK = np.zeros((6, 8), np.uint8)
MASK[1:3, 2:5] = 255  # 6 pixels of 48


def write_mask(path, pixels=MASK, mode=None, **options):
    Image.fromarray(pixels).convert(mode or "L").save(path, **options)
    return path


def encoded(pixels, kind="PNG"):
    stream = io.BytesIO()
    write_mask(stream, pixels, format=kind)
    return caffe_pb2.Datum(encoded=True, data=stream.getvalue(), label=0)


MODES = {
    "png": ["1", "L", "LA", "P", "RGB", "RGBA"],
    "tif": ["1", "L", "P", "RGB"],
    "bmp": ["1", "L", "P", "RGB"],
    "jpg": ["L", "RGB"],
    "ppm": ["1", "L", "RGB"],
}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind in MODES for mode in MODES[kind]])
def test_pixels_are_those_of_caffe(kind, mode, tmp_path, counted):
    """Against ImageData itself."""
    name = write_mask(tmp_path / f"a.{kind}", mode=mode)
    (tmp_path / "masks.txt").write_text(f"{name} 0\n")
    (tmp_path / "net.prototxt").write_text(
        "layer { name: 'd' type: 'ImageData' top: 'mask' top: 'number' image_data_param { "
        f"source: '{tmp_path / 'masks.txt'}' is_color: false batch_size: 1 }} }}"
    )
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TRAIN)
    net.forward()
    pixels = net.blobs["mask"].data
    assert pixels.shape == (1, 1, 6, 8) and pixels.max() > 250
    report = counted("--net", tmp_path / "net.prototxt", "--top", "mask", "--scale", "1/255")
    assert column(report, "positives") == pytest.approx([pixels.sum() / 255], rel=1e-6)


@pytest.mark.parametrize("line", ["{name}", "images/x.jpg {name}", "{name} 0", "{name} 5"])
def test_lists_of_masks(line, tmp_path, counted, monkeypatch):
    """ImageData's, whose numbers are of no use; pairs as HED's; and names alone."""
    names = [write_mask(tmp_path / f"{i}.png", np.roll(MASK, i)).name for i in range(3)]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    write_mask(tmp_path / "images" / "x.jpg")
    source = tmp_path / "masks.txt"
    source.write_text("".join(line.format(name=name) + "\n" for name in names))
    report = counted(source, "--scale", "1/255")
    assert (column(report, "positives"), column(report, "negatives")) == ([18], [126])


def test_encoded_masks_of_several_sizes(tmp_path, counted):
    masks = [MASK, MASK[:4], MASK[:, 3:], np.zeros((2, 2), np.uint8)]
    source = write_lmdb(tmp_path / "db", map(encoded, masks))
    report = counted(source, "--scale", "1/255")
    assert column(report, "positives") == [6 + 6 + 4]
    assert "in a net they take batch_size: 1" in report["warnings"][1]


def test_class_numbers_in_masks(tmp_path, counted):
    masks = [np.array([[0, 1], [2, 255]], np.uint8)] * 4
    source = write_lmdb(tmp_path / "db", map(encoded, masks))
    report = counted(source, "--classes", 3, "--ignore-label", 255)
    assert column(report, "positives") == [4, 4, 4]


def test_masks_that_caffe_would_misread(tmp_path, refused):
    """The numbers of a palette's colors, which OpenCV makes gray; 16 bits, which it cuts."""
    palette = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8), "P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [1, 2, 3] * 50)
    palette.save(tmp_path / "voc.png")
    assert "has colors" in refused(tmp_path / "voc.png")
    Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8)).save(tmp_path / "16.png")
    assert "not of 8 bits per pixel" in refused(tmp_path / "16.png")


# Arrays


def test_npz(tmp_path, counted, refused):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, TARGETS)
    assert column(counted(path), "positives") == POSITIVES
    np.savez(path, images=np.zeros(8), label=TARGETS, by_columns=np.asfortranarray(TARGETS))
    assert column(counted(path), "positives") == POSITIVES
    assert "array 'images'" in counted(path, "--dataset", "images")["labels"]
    assert "is stored by columns: save numpy.ascontig" in refused(path, "--dataset", "by_columns")
    np.savez(path, x=TARGETS, y=TARGETS)
    assert "no array 'label' (it has: x, y): name it, --dataset" in refused(path)


@pytest.mark.parametrize("shape", [(4, 6, 8), (4, 1, 6, 8), (4, 6, 8, 1)])
def test_masks_without_an_axis_of_channels(shape, tmp_path, counted):
    """N x H x W, as most programs keep them, are one channel and not H."""
    path = write_npy(tmp_path / "a.npy", np.broadcast_to(MASK > 0, (4, 6, 8)).reshape(shape))
    assert column(counted(path), "positives") == [24]


def test_shapes_that_may_be_others(tmp_path, counted):
    random = np.random.default_rng(1)
    for shape, words in {
        (4, 9, 9, 3): "if the channels come last, N x H x W x C, --axis 3",
        (2, 48, 64, 3): "if the channels come last",
        (64, 64): "if it is one mask of H x W, save it as 1 x H x W",
        (4, 3, 9, 9): "",
        (4, 9, 9, 1): "",
        (4, 6, 8): "",
        (4, 20, 7, 7): "",
        (64, 63): "",
    }.items():
        path = write_npy(tmp_path / "a.npy", random.random(shape) < 0.5)
        warnings = " ".join(counted(path, "--scheme", "ratio")["warnings"])
        assert words in warnings if words else " if " not in warnings
    path = write_npy(tmp_path / "a.npy", random.random((4, 9, 9, 3)) < 0.5)
    assert counted(path, "--axis", 3, "--scheme", "ratio")["warnings"] == []


def test_axes_of_length_1_are_no_masks(tmp_path, counted):
    path = write_npy(tmp_path / "a.npy", TARGETS[:, :, None])
    assert column(counted(path), "positives") == POSITIVES
    path = write_npy(tmp_path / "b.npy", np.repeat(TARGETS[:, :, None], 2, axis=2))
    assert column(counted(path), "positives") == [14]
    assert column(counted(path, "--axis", 1), "positives") == [8, 4, 2]


# Nets


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
    path.write_text(net(LMDB_LAYER.format(**arguments, transform="mean_value: 0 scale: 1")))
    assert column(counted("--net", path, "--top", "mask"), "positives") == POSITIVES
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
        ("layer { name: 'd' type: 'Python' top: 'label' }", [], "of type Python makes 'label'"),
        (
            "layer { name: 'd' type: 'ImageData' top: 'label' }",
            [],
            "layer 'd' reads its masks in color: add is_color: false",
        ),
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


IMAGE_LAYER = (
    "layer {{ name: 'd' type: 'ImageData' top: 'mask' top: 'label' image_data_param {{ "
    "source: '{source}' root_folder: '{folder}/' is_color: false {more} }} "
    "transform_param {{ scale: 0.00392156862745098 }} }} "
)


def test_masks_of_a_net(tmp_path, counted):
    for i in range(3):
        write_mask(tmp_path / f"{i}.png")
    source = tmp_path / "masks.txt"
    source.write_text("0.png 0\n1.png 1\n2.png 1\n")
    path = tmp_path / "net.prototxt"
    for more, notes in ("", 0), ("new_height: 2 new_width: 2", 1):
        path.write_text(net(IMAGE_LAYER.format(source=source, folder=tmp_path, more=more)))
        report = counted("--net", path, "--top", "mask", "--scheme", "ratio")
        assert (column(report, "positives"), column(report, "negatives")) == ([18], [126])
        assert len(report["warnings"]) == notes
    assert column(counted("--net", path), "positives") == [1, 2]
    source.write_text("0.png\n1.png\n")
    assert column(counted("--net", path, "--top", "mask"), "positives") == [12]
