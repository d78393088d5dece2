"""What a source tree is, by what is in it: no Caffe, one that the layer fits, or one of those that
it does not. Python 3.6.

docs/forks.md lists the forks. Their names and versions are not looked at: copies keep neither.
"""

import os
import re

import _caffe_proto
from _common import Failure, output

PROTO = "src/caffe/proto/caffe.proto"
LAYER = "include/caffe/layer.hpp"
BLOB = "include/caffe/blob.hpp"
LOSS_LAYER = "include/caffe/layers/loss_layer.hpp"
# The Caffe of 2015 has no folder of layers.
LOSS_LAYERS = "include/caffe/loss_layers.hpp"
FORWARDED = [LOSS_LAYER, "include/caffe/layers/sigmoid_cross_entropy_loss_layer.hpp"]
# HED's, RCF's and CASENet's prototxts begin with a data layer that no other tree has.
INSTEAD = (
    "train in this repository's Caffe, with its data layers in place of the tree's own "
    "(docs/forks.md)"
)
MODES = {"FULL", "VALID", "BATCH_SIZE", "NONE"}
# What the layer reads, of messages that every Caffe has.
FIELDS = {"LossParameter": ["ignore_label", "normalize"], "LayerParameter": ["propagate_down"]}

COMMENT = re.compile(rb"//[^\n]*|/\*.*?\*/", re.DOTALL)
LAYER_CLASS = re.compile(rb"template\s*<([^<>]*)>\s*class\s+(?:\w+\s+)?Layer\b\s*[:{]")
# Where build files may be that name each source: not in folders that a build fills.
BUILD_FILES = ["", "cmake", "src", "windows", "android", "jni"]
BUILD_FILE = re.compile(r"Makefile.*|CMakeLists\.txt|BUILD|.*\.(?:cmake|mk|vcxproj|pro)")
EVERY_CAFFE_HAS = b"softmax_loss_layer.cpp"
CXX11 = re.compile(rb"-std=(?:c|gnu)\+\+|CMAKE_CXX_STANDARD")
GENERATED = re.compile(r"caffe\.pb\.(?:h|cc|cpp)")


def why_not(root, read):
    """Why the layer cannot go into the tree, in words that follow the tree's name; None if it can.

    READ gives a file's bytes before us, None where there is no file.
    """
    for path in (PROTO, LAYER):
        if read(path) is None:
            return f"is not a Caffe source tree: it has no {path}"
    reason = _unfit(read)
    if reason:
        return f"{reason}; {INSTEAD}"
    if read(LOSS_LAYER) is None and read(LOSS_LAYERS) is None:
        return f"is not a whole Caffe source tree: it has no {LOSS_LAYER}"
    return None


def _unfit(read):
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
    lacks = _too_early(layer, read)
    return f"is a Caffe too early for the layer: {lacks}" if lacks else None


def _too_early(layer, read):
    if not re.search(rb"\bconst\s+char\s*\*\s*type\s*\(", layer):
        return f"Layer in {LAYER} has no const char* type()"
    if not re.search(rb"\bnum_axes\b", COMMENT.sub(b"", read(BLOB) or b"")):
        return f"Blob in {BLOB} has no num_axes()"
    try:
        found = _caffe_proto.blocks(read(PROTO).decode("latin-1"))
    except Failure:
        return None  # The addition says what is wrong with the file.
    fields = {
        block.words[1]: dict(block.fields) for block in found if block.words[:1] == ["message"]
    }
    if "LossParameter" not in fields:
        return f"{PROTO} has no LossParameter"
    for message, names in FIELDS.items():
        for name in names:
            if name not in fields.get(message, names):
                return f"{message} in {PROTO} has no {name}"
    modes = normalization_modes(read)
    missing = ", ".join(sorted(MODES - modes))
    if modes and missing:
        return f"LossParameter in {PROTO} has no normalization {missing}"
    return None


def normalization_modes(read):
    """Of LossParameter, none in a Caffe of 2015."""
    for block in _caffe_proto.blocks(read(PROTO).decode("latin-1")):
        inside = block.parent and block.parent.words
        if block.words == ["enum", "NormalizationMode"] and inside == ["message", "LossParameter"]:
            return {name for name, _ in block.fields}
    return set()


def forwarders(read):
    """{path: bytes} of the headers that the layer includes and a Caffe of 2015 has in one."""
    if read(LOSS_LAYERS) is None:
        return {}
    return {path: _forwarder(path) for path in FORWARDED if read(path) is None}


def _forwarder(path):
    guard = "CAFFE_LAYERS_" + path.rpartition("/")[2].upper().replace(".", "_") + "_"
    text = f"""\
#ifndef {guard}
#define {guard}

// The Caffe of 2015 has all its loss layers in one header.
#include "caffe/loss_layers.hpp"

#endif  // {guard}
"""
    return text.encode()


def has_gtest(root):
    return any((root / "src").rglob("gtest.h"))


def notes(root, message):
    """What the tree's owner is to see to before the build, a line each."""
    yield from _dialect(root)
    for path in _files(root, BUILD_FILES, BUILD_FILE):
        if EVERY_CAFFE_HAS in path.read_bytes():
            name = path.relative_to(root).as_posix()
            yield f"{name} lists its sources by name: add the new .cpp and .cu files to it"
    for path in _files(root, ["include", "src"], GENERATED):
        if message.encode() not in path.read_bytes():
            name = path.relative_to(root).as_posix()
            yield f"{name} is from the former caffe.proto: delete it, or run protoc again"


def _dialect(root):
    """GCC, and nvcc after it, took C++98 until GCC 6."""
    compiler = os.environ.get("CXX") or "g++"
    try:
        version = output([compiler, "-dumpversion"]).strip()
    except Failure:
        return
    number = re.match(r"\d+", version)
    if not number or int(number.group()) >= 6:
        return
    build_files = _files(root, BUILD_FILES[:2], BUILD_FILE)
    if not any(CXX11.search(path.read_bytes()) for path in build_files):
        yield (
            f"{compiler} {version} takes C++98 unless told otherwise, and the layer is C++11: add "
            "-std=c++11 to the Makefile's CXXFLAGS and NVCCFLAGS, or to CMAKE_CXX_FLAGS and "
            "CUDA_NVCC_FLAGS"
        )


def _files(root, folders, name):
    for folder in folders:
        found = (root / folder).rglob("*") if folder else root.iterdir()
        for path in sorted(found):
            if name.fullmatch(path.name) and path.is_file():
                yield path
