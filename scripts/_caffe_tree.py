"""What a source tree is, by what is in it: no Caffe, one that the layer fits, or one of those that
it does not. Python 3.6.

docs/forks.md lists the forks. Their names and versions are not looked at: copies keep neither.
"""

import re

import _caffe_proto
from _common import Failure

PROTO = "src/caffe/proto/caffe.proto"
LAYER = "include/caffe/layer.hpp"
LAYERS = "include/caffe/layers"
LOSS_LAYER = LAYERS + "/loss_layer.hpp"
INSTEAD = "train in this repository's Caffe with the same prototxt (docs/forks.md)"
MODES = {"FULL", "VALID", "BATCH_SIZE", "NONE"}

COMMENT = re.compile(rb"//[^\n]*|/\*.*?\*/", re.DOTALL)
LAYER_CLASS = re.compile(rb"template\s*<([^<>]*)>\s*class\s+(?:\w+\s+)?Layer\b\s*[:{]")
# Where build files may be that name each source: not in folders that a build fills.
BUILD_FILES = ["", "cmake", "src", "windows", "android", "jni"]
BUILD_FILE = re.compile(r"Makefile.*|CMakeLists\.txt|BUILD|.*\.(?:cmake|mk|vcxproj|pro)")
EVERY_CAFFE_HAS = b"softmax_loss_layer.cpp"
GENERATED = re.compile(r"caffe\.pb\.(?:h|cc|cpp)")


def why_not(root, read):
    """Why the layer cannot go into the tree, in words that follow the tree's name; None if it can.

    READ gives a file's bytes before us, None where there is no file.
    """
    for path in (PROTO, LAYER):
        if read(path) is None:
            return f"is not a Caffe source tree: it has no {path}"
    reason = _unfit(root, read)
    if reason:
        return f"{reason}; {INSTEAD}"
    if read(LOSS_LAYER) is None:
        return f"is not a whole Caffe source tree: it has no {LOSS_LAYER}"
    return None


def _unfit(root, read):
    if not (root / LAYERS).is_dir():
        return f"is a Caffe from before 1.0, which the layer does not fit: it has no {LAYERS}"
    layer = COMMENT.sub(b"", read(LAYER))
    if re.search(rb"\bint_tp\b", layer):
        return f"is an OpenCL Caffe, which the layer does not fit: {LAYER} counts in int_tp"
    found = LAYER_CLASS.search(layer)
    parameters = found.group(1).decode("latin-1").split(",") if found else []
    if len(parameters) > 1:
        words = ", ".join(parameter.split()[-1] for parameter in parameters)
        return (
            f"has layers of {len(parameters)} types, as NVIDIA's Caffe has since 0.16, "
            f"which the layer does not fit: Layer<{words}> in {LAYER}"
        )
    modes = _normalization_modes(read(PROTO))
    missing = sorted(MODES - modes)
    if missing:
        lacks = "normalization " + ", ".join(missing) if modes else "NormalizationMode"
        return (
            "is a Caffe from before 1.0, which the layer does not fit: "
            f"LossParameter in {PROTO} has no {lacks}"
        )
    return None


def _normalization_modes(proto):
    try:
        blocks = _caffe_proto.blocks(proto.decode("latin-1"))
    except Failure:
        return MODES  # What is wrong with the file is said where the addition is made.
    for block in blocks:
        inside = block.parent and block.parent.words
        if block.words == ["enum", "NormalizationMode"] and inside == ["message", "LossParameter"]:
            return {name for name, _ in block.fields}
    return set()


def notes(root, message):
    """What the tree's owner is to see to before the build, a line each."""
    for path in _files(root, BUILD_FILES, BUILD_FILE):
        if EVERY_CAFFE_HAS in path.read_bytes():
            name = path.relative_to(root).as_posix()
            yield f"{name} lists its sources by name: add the new .cpp and .cu files to it"
    for path in _files(root, ["include", "src"], GENERATED):
        if message.encode() not in path.read_bytes():
            name = path.relative_to(root).as_posix()
            yield f"{name} is from the former caffe.proto: delete it, or run protoc again"


def _files(root, folders, name):
    for folder in folders:
        found = (root / folder).rglob("*") if folder else root.iterdir()
        for path in sorted(found):
            if name.fullmatch(path.name) and path.is_file():
                yield path
