"""Stand-ins for forks of Caffe that no registry has: upstream's tree with a fork's marks.

The marks are those that decide how apply.py fares: field numbers, the modes of normalization, what
a layer's class looks like, how sources are listed, and lines that a toolchain fix is for. They were
read off the forks' public repositories; the text is ours.
"""

import re
import shutil

PROTO = "src/caffe/proto/caffe.proto"
LAYER = "include/caffe/layer.hpp"
LOSS_LAYER = "include/caffe/layers/loss_layer.hpp"
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
        if path.suffix in {".hpp", ".cpp", ".cu", ".proto", ".txt", ".cmake"}:
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


FIT = {one.__name__: one for one in [master, ssd, nvidia_0_15, cmu, intel, microsoft, crlf]}


def nvidia_0_17(tree):
    edit(tree, LAYER, r"template <typename Dtype>\nclass Layer \{", "class LayerBase {")
    two = "\ntemplate <typename Ftype, typename Btype>\nclass Layer : public LayerBase {\n};\n\n}  "
    edit(tree, LAYER, r"\n\}  (?=// namespace caffe)", two)


def opencl(tree):
    edit(tree, LAYER, r"virtual inline int ", "virtual inline int_tp ")


def opencl_of_three_types(tree):
    types = "template<typename Dtype, typename MItype, typename MOtype>\nclass Layer "
    edit(tree, LAYER, r"template <typename Dtype>\nclass Layer ", types)


def rc2(tree):
    """A header a kind of layer, no NormalizationMode."""
    shutil.rmtree(tree / "include" / "caffe" / "layers")
    (tree / "include" / "caffe" / "loss_layers.hpp").write_text("// class LossLayer\n")
    no_modes(tree)


def no_modes(tree):
    """LossParameter as it was, with normalize alone."""
    edit(tree, PROTO, r"  enum NormalizationMode \{.*?\n  \}\n", "")
    edit(tree, PROTO, r"  optional NormalizationMode [^\n]*\n", "")


# What apply.py says of the tree.
UNFIT = {
    "nvidia_0_17": (nvidia_0_17, "Layer<Ftype, Btype> in include/caffe/layer.hpp"),
    "opencl": (opencl, "is an OpenCL Caffe"),
    "opencl_of_three_types": (opencl_of_three_types, "Layer<Dtype, MItype, MOtype>"),
    "rc2": (rc2, "has no include/caffe/layers;"),
    "no_modes": (no_modes, "has no NormalizationMode;"),
}
