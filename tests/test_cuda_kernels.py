"""The CUDA kernels, run on the CPU: compiled as C++ with an emulation of what they take of CUDA.

It finds wrong indices, reads and writes outside of arrays, misaligned vectors, threads that wait
in different places, and results other than the CPU's. What a GPU alone can show, it does not.
"""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EMULATION = Path(__file__).resolve().parent / "cuda_emulation"
UTIL = ROOT / "src" / "caffe" / "util"
LAUNCH = re.compile(r"(\w+(?:<[^<>]*>)?)(?:\s|//.*\n)*<<<([^>]*), (\w+)>>>\(([^;]*)\);")
# A small grid, so that small inputs have threads take many vectors each.
CONSTANTS = {"kThreads": 64, "kFinishThreads": 64, "kMaxBlocks": 16, "kFewBlocks": 2}
FLAGS = [
    *["-std=c++11", "-O1", "-march=native", "-ffp-contract=off"],
    *["-fsanitize=undefined", "-fno-sanitize-recover=all"],
]


def emulated(source):
    """The CUDA source as C++: launches as calls, the grid smaller, and what checks it."""
    text, launches = LAUNCH.subn(r"Emulate(\2, \3, [&] { \1(\4); });", source)
    assert launches == source.count("<<<") > 0
    for name, value in CONSTANTS.items():
        text, found = re.subn(
            rf"const unsigned {name} = \d+;", f"const unsigned {name} = {value};", text
        )
        assert found == 1
    return text + '#include "main.cpp"\n'


def test_emulated_kernels_are_the_cpu_kernel(tmp_path):
    program, source = tmp_path / "emulated", tmp_path / "emulated.cpp"
    source.write_text(emulated((UTIL / "weighted_sigmoid_loss.cu").read_text()))
    includes = [f"-I{EMULATION}", f"-I{ROOT / 'include'}"]
    kernel = sorted(UTIL.glob("weighted_sigmoid_loss*.cpp"))
    subprocess.run(["g++", *FLAGS, *includes, "-o", program, source, *kernel], check=True)
    done = subprocess.run([program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"^\d{3,} cases, 0 failures$", done.stdout, re.MULTILINE)
