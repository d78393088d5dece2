"""Stand-ins for forks of Caffe that no registry has: upstream's tree with a fork's marks.

The marks are those that decide how apply.py fares: field numbers, the modes of normalization, what
a layer's class looks like, how sources are listed, and lines that a toolchain fix is for. They were
read off the forks' public repositories; the text is ours.
"""

import re

PROTO = "src/caffe/proto/caffe.proto"
LAYER = "include/caffe/layer.hpp"
LOSS_LAYER = "include/caffe/layers/loss_layer.hpp"
BLOB = "include/caffe/blob.hpp"
NET = "include/caffe/net.hpp"
IO = "src/caffe/util/io.cpp"
WINDOWS = "src/caffe/layers/window_data_layer.cpp"
# Fields of SSD, which other forks have taken over.
SSD_FIELDS = {
    "annotated_data": 200,
    "multibox_loss": 201,
    "permute": 202,
    "prior_box": 203,
    "detection_output": 204,
    "detection_evaluate": 205,
    "norm": 206,
    "video_data": 207,
}
INTEL_FIELDS = {
    "split": 147,
    "smooth_l1_loss": 148,
    "multinode": 150,
    "mn_activation": 151,
    "box_annotator_ohem": 152,
    "psroi_pooling": 153,
    "roi_pooling": 154,
    "spatial_dropout": 155,
    "mn_grad_compress": 156,
    "quantization": 158,
}
MICROSOFT_FIELDS = {
    "roi_pooling": 147,
    "smooth_l1_loss": 148,
    "psroi_pooling": 149,
    "box_annotator_ohem": 150,
    "mil_data": "0x004d4944",
    "mil": "0x004d494c",
}


def edit(tree, path, pattern, replacement):
    """Replace what the pattern matches; it must match."""
    text, found = re.subn(pattern, replacement, (tree / path).read_text(), flags=re.DOTALL)
    assert found, f"{pattern} is not in {path}"
    (tree / path).write_text(text)


def add_fields(tree, fields, extra=""):
    """Give LayerParameter these fields, in place of upstream's swish_param and clip_param."""
    lines = "".join(f"  optional int32 {name}_param = {n};\n" for name, n in fields.items()) + extra
    edit(tree, PROTO, r"(message LayerParameter \{\n)", rf"\g<1>{lines}")


def drop_upstreams_last_fields(tree):
    """Upstream gave out 147 and 148 after most forks had branched off."""
    edit(tree, PROTO, r"  optional \w+ \w+ = 14[78];[^\n]*\n", "")


def pre_fixed(tree):
    """A mode of normalization in the middle, so that NONE has another number."""
    edit(tree, PROTO, r"\n    NONE = 3;", "\n    PRE_FIXED = 3;\n    NONE = 4;")


def shared_layers(tree):
    """The Caffe before 1.0 shares layers among the nets of several GPUs."""
    shared = " public:\n  virtual inline bool ShareInParallel() const { return false; }\n"
    edit(tree, LAYER, r"(class Layer \{\n) public:\n", rf"\g<1>{shared}")


def master(tree):
    """Upstream."""


def ssd(tree):
    drop_upstreams_last_fields(tree)
    add_fields(tree, SSD_FIELDS)
    shared_layers(tree)
    normalizer = "  Dtype GetNormalizer(const LossParameter_NormalizationMode, int, int, int);\n"
    edit(
        tree, LOSS_LAYER, r"(LossLayer : public Layer<Dtype> \{\n public:\n)", rf"\g<1>{normalizer}"
    )
    edit(tree, IO, r"#include <stdint\.h>", "#include <stdint.h>\n#include <map>")


def nvidia_0_15(tree):
    drop_upstreams_last_fields(tree)
    add_fields(tree, {"detectnet_groundtruth": 6801, "detectnet_augmentation": 6802})
    shared_layers(tree)


def cmu(tree):
    """OpenPose's: OpenCV 4's constants in a way of its own, and Python 3."""
    edit(tree, "CMakeLists.txt", r'python_version "2"', 'python_version "3"')
    constants = "  #ifdef OPENCV_VERSION4\n    #define CV_LOAD_IMAGE_COLOR 1\n  #endif\n"
    edit(tree, WINDOWS, r"(#ifdef USE_OPENCV\n)", rf"\g<1>{constants}")


def intel(tree):
    drop_upstreams_last_fields(tree)
    engine = '  optional string engine = 149 [default = ""];\n'
    add_fields(tree, {**SSD_FIELDS, **INTEL_FIELDS}, engine)
    pre_fixed(tree)
    edit(tree, BLOB, r"inline int (count\()", r"inline long \g<1>")


def microsoft(tree):
    drop_upstreams_last_fields(tree)
    add_fields(tree, {**SSD_FIELDS, **MICROSOFT_FIELDS})
    pre_fixed(tree)
    project = tree / "windows" / "libcaffe" / "libcaffe.vcxproj"
    project.parent.mkdir(parents=True)
    source = "..\\..\\src\\caffe\\layers\\softmax_loss_layer.cpp"
    project.write_text(f'<ClCompile Include="{source}" />\n')


def crlf(tree):
    """As a checkout on Windows has it: CR LF at the end of every line."""
    for path in tree.rglob("*"):
        if path.suffix in {".hpp", ".cuh", ".cpp", ".cu", ".proto", ".txt", ".cmake"}:
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def rc3(tree):
    """Forward and ForwardBackward want the input blobs."""
    edit(tree, NET, r"  const vector<Blob<Dtype>\*>& Forward\(Dtype\* loss = NULL\);\n", "")
    edit(tree, NET, r"(ForwardPrefilled\(Dtype\* loss = NULL\)) \{.*?\n  \}", r"\g<1>;")
    edit(tree, NET, r"ForwardBackward\(\)", "ForwardBackward(const vector<Blob<Dtype>*>& bottom)")
    edit(tree, NET, r"Forward\(&loss\)", "Forward(bottom, &loss)")
    net = "src/caffe/net.cpp"
    edit(tree, net, r"Forward\(Dtype\* loss\)", "ForwardPrefilled(Dtype* loss)")
    edit(tree, net, r"return Forward\(loss\)", "return ForwardPrefilled(loss)")
    solver = "src/caffe/solver.cpp"
    edit(tree, solver, r"ForwardBackward\(\)", "ForwardBackward(vector<Blob<Dtype>*>())")
    edit(tree, solver, r"->Forward\(&", "->ForwardPrefilled(&")


def no_modes(tree):
    """LossParameter as it was in 2015: ignore_label, and normalize, true by default."""
    edit(tree, PROTO, r"  enum NormalizationMode \{.*?\n  \}\n", "")
    edit(tree, PROTO, r"  optional NormalizationMode [^\n]*\n", "")
    edit(tree, PROTO, r"(optional bool normalize = 2);", r"\g<1> [default = true];")


def caffe_2015(tree):
    """HED's, SegNet's and others: no folder of layers, all losses in one header."""
    rc3(tree)
    no_modes(tree)
    include = tree / "include" / "caffe"
    losses = sorted((include / "layers").glob("*_loss_layer.hpp"))
    (include / "layers").rename(include / "others")
    one = re.compile(rf'"caffe/layers/({"|".join(path.stem for path in losses)}|loss_layer)\.hpp"')
    for folder in ["include", "src", "python", "tools"]:
        for path in (tree / folder).rglob("*.?pp"):
            text = one.sub('"caffe/loss_layers.hpp"', path.read_text())
            path.write_text(text.replace('"caffe/layers/', '"caffe/others/'))
    moved = [include / "others" / path.name for path in [include / "loss_layer.hpp", *losses]]
    text = "".join(path.read_text() for path in moved)
    text = text.replace('#include "caffe/loss_layers.hpp"\n', "")
    (include / "loss_layers.hpp").write_text(text)
    for path in moved:
        path.unlink()


FIT = {
    one.__name__: one
    for one in [
        *[master, ssd, nvidia_0_15, cmu, intel, microsoft, crlf],
        *[rc3, no_modes, caffe_2015],
    ]
}


def nvidia_0_17(tree):
    edit(tree, LAYER, r"template <typename Dtype>\nclass Layer \{", "class LayerBase {")
    two = "\ntemplate <typename Ftype, typename Btype>\nclass Layer : public LayerBase {\n};\n\n}  "
    edit(tree, LAYER, r"\n\}  (?=// namespace caffe)", two)


def edited(path, pattern, replacement):
    """A fork of one mark."""
    return lambda tree: edit(tree, path, pattern, replacement)


OF_THREE_TYPES = "template<typename Dtype, typename MItype, typename MOtype>\nclass Layer "
# What apply.py says of the tree.
EARLY = "is a Caffe too early for the layer: "
UNFIT = {
    "nvidia_0_17": (nvidia_0_17, "Layer<Ftype, Btype> in include/caffe/layer.hpp"),
    "opencl": (
        edited(LAYER, r"virtual inline int ", "virtual inline int_tp "),
        "is an OpenCL Caffe",
    ),
    "opencl_of_three_types": (
        edited(LAYER, r"template <typename Dtype>\nclass Layer ", OF_THREE_TYPES),
        "Layer<Dtype, MItype, MOtype>",
    ),
    "fast_rcnn": (
        edited(PROTO, r"  repeated bool propagate_down = 11;\n", ""),
        f"{EARLY}LayerParameter in {PROTO} has no propagate_down;",
    ),
    "own_loss_parameter": (
        edited(PROTO, r"  optional int32 ignore_label = 1;\n", ""),
        f"LossParameter in {PROTO} has no ignore_label;",
    ),
    "no_loss_parameter": (
        edited(PROTO, r"message LossParameter \{", "message LossesParameter {"),
        f"{EARLY}{PROTO} has no LossParameter;",
    ),
    "half_the_modes": (
        edited(PROTO, r"    BATCH_SIZE = 2;\n", ""),
        "has no normalization BATCH_SIZE;",
    ),
    "rc2": (
        edited(BLOB, r"\bnum_axes\b", "axes"),
        f"{EARLY}Blob in {BLOB} has no num_axes();",
    ),
    "rc1": (
        edited(LAYER, r"const char\* type\(\)", "LayerParameter_LayerType type()"),
        f"{EARLY}Layer in {LAYER} has no const char* type();",
    ),
}
