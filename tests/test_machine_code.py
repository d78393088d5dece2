"""What devtools/_machine_code.py finds in the loops that were built, and what it refuses."""

import platform
import subprocess
from pathlib import Path

import pytest

import _machine_code
from _common import Failure

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "build/cpu/cmake/caffe/src/caffe/CMakeFiles/caffe.dir/util"
HEADERS = Path("include/caffe/util")
LOG1P = "WEIGHTED_SIGMOID_LOSS_HOST_DEVICE double Log1p(double u) {"

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="reads code of x86-64")


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
def test_the_loops_are_vector_code(name):
    assert _machine_code.check_loops(BUILT / f"weighted_sigmoid_loss_{name}.cpp.o") > 50


@pytest.mark.parametrize(
    ("header", "old", "new", "message"),
    [
        (
            "math",
            LOG1P,
            "static __attribute__((noinline)) double Log1p(double u) {",
            "inline .*Log1p",
        ),
        ("math", LOG1P, f"{LOG1P}\n  return __builtin_log1p(u);", "calls log1p"),
        ("loops_inl", '"no-trapping-math", ', "", "no vector code"),
    ],
)
def test_a_slow_loop_is_refused(tmp_path, header, old, new, message):
    header = HEADERS / f"weighted_sigmoid_loss_{header}.hpp"
    text = (ROOT / header).read_text()
    assert old in text
    (tmp_path / HEADERS).mkdir(parents=True)
    (tmp_path / header).write_text(text.replace(old, new))
    source = ROOT / "src/caffe/util/weighted_sigmoid_loss_baseline.cpp"
    folders = [f"-I{folder / 'include'}" for folder in (tmp_path, ROOT)]
    subprocess.run(
        ["g++", "-std=c++11", "-O3", *folders, "-c", source, "-o", "loops.o"],
        cwd=tmp_path,
        check=True,
    )
    with pytest.raises(Failure, match=message):
        _machine_code.check_loops(tmp_path / "loops.o")
