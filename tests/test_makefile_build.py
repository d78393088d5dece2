"""The applied tree builds with upstream's own Makefile, as many users of Caffe build it.

Only what it takes to make the layer by its name and run it is compiled: the whole of Caffe is built
with CMake by scripts/build.py. CONFIG is a Makefile.config for Debian 12; for pycaffe add
`PYTHON_LIBRARIES := boost_python311 python3.11`, `WITH_PYTHON_LAYER := 1`, and to INCLUDE_DIRS
/usr/include/python3.11 and /usr/lib/python3/dist-packages/numpy/core/include.
"""

import math
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MULTIARCH = f"{platform.machine()}-linux-gnu"
# OpenCV 4 has the library names of OpenCV 3, all that OPENCV_VERSION decides.
CONFIG = f"""\
CPU_ONLY := 1
OPENCV_VERSION := 3
BLAS := open
INCLUDE_DIRS := /usr/include/opencv4 /usr/include/hdf5/serial /usr/include/{MULTIARCH}
LIBRARY_DIRS := /usr/lib/{MULTIARCH}/hdf5/serial
BUILD_DIR := build
"""
# All of ours, and what of upstream's it takes to link them.
SOURCES = [
    path.relative_to(ROOT / "src" / "caffe").as_posix()
    for folder in ["layers", "util"]
    for path in sorted((ROOT / "src" / "caffe" / folder).glob("*.cpp"))
]
SOURCES += ["blob.cpp", "common.cpp", "layer.cpp", "layers/loss_layer.cpp", "proto/caffe.pb.cc"]
SOURCES += ["syncedmem.cpp", "util/math_functions.cpp"]
# Makes the layer as a net does, from text by its type, and prints a loss and a gradient.
PROGRAM = r"""
#include <google/protobuf/text_format.h>

#include <cstdio>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer_factory.hpp"

int main() {
  caffe::LayerParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(
      "name: 'loss' type: 'SigmoidCrossEntropyWeightLoss' loss_weight: 1 "
      "sigmoid_cross_entropy_weight_loss_param { cls_weight: 3 }", &param));
  caffe::Blob<float> scores(std::vector<int>(2, 1)), targets(std::vector<int>(2, 1)), loss;
  scores.mutable_cpu_data()[0] = 0.5;
  targets.mutable_cpu_data()[0] = 1;
  std::vector<caffe::Blob<float>*> bottom = {&scores, &targets}, top = {&loss};
  auto layer = caffe::LayerRegistry<float>::Registry()[param.type()](param);
  layer->SetUp(bottom, top);
  layer->Forward(bottom, top);
  layer->Backward(top, {true, false}, bottom);
  std::printf("%.9g %.9g\n", loss.cpu_data()[0], scores.cpu_diff()[0]);
}
"""


@pytest.fixture(scope="module")
def tree(pristine, tmp_path_factory):
    if not (pristine / "Makefile").is_file():
        pytest.skip("this source of Caffe came without upstream's Makefile")
    tree = tmp_path_factory.mktemp("makefile") / "caffe"
    shutil.copytree(pristine, tree, symlinks=True)
    apply = [sys.executable, ROOT / "scripts" / "apply.py", tree, "--modernize"]
    subprocess.run(apply, check=True, stdout=subprocess.DEVNULL)
    (tree / "Makefile.config").write_text(CONFIG)
    (tree / "tools" / "one_loss.cpp").write_text(PROGRAM)
    return tree


def make(tree, *words):
    run = subprocess.run(["make", "-j2", *words], cwd=tree, text=True, capture_output=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_layer_built_with_upstreams_makefile_works(tree):
    objects = [f".build_release/src/caffe/{source.rpartition('.')[0]}.o" for source in SOURCES]
    make(tree, "OBJS=" + " ".join(objects), ".build_release/tools/one_loss.bin")
    output = subprocess.run(
        [tree / ".build_release" / "tools" / "one_loss.bin"], check=True, capture_output=True
    ).stdout
    loss, gradient = map(float, output.split())
    assert loss == pytest.approx(3 * math.log1p(math.exp(-0.5)), rel=1e-6)
    assert gradient == pytest.approx(-3 / (1 + math.exp(0.5)), rel=1e-6)


def test_makefile_takes_in_every_source(tree):
    listed = make(tree, "--eval=sources: ; @echo $(CXX_SRCS) $(CU_SRCS) $(TEST_SRCS)", "sources")
    for folder in ["layers", "util", "test"]:
        for source in sorted((ROOT / "src" / "caffe" / folder).iterdir()):
            assert source.relative_to(ROOT).as_posix() in listed.split()
