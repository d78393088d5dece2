#!/usr/bin/python3
"""Compile our CUDA files for the GPUs before those of today's nvcc, with clang and CUDA 11.8.

PyPI has no nvcc as old as that, but what clang takes in its place: 11.8's headers and assembler.
A warning of clang's is an error. What is compiled is thrown away.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from _common import ROOT, Failure, program, run
from compile_cuda import caffe_headers, caffe_tree, sources
from cuda_toolkit import link
from make_venv import make_site

FOLDER = ROOT / "build" / "cuda" / "old"
VERSION = "11.8"
PACKAGES = [
    f"nvidia-cuda-nvcc-cu11=={VERSION}.*",
    f"nvidia-cuda-runtime-cu11=={VERSION}.*",
    "nvidia-curand-cu11==10.3.*",  # clang's own headers include it
]
ARCHITECTURES = ["60", "70"]  # Pascal and Volta
CLANG = ["clang++-19", "clang++"]
WARNINGS = ["-Werror", "-Wall", "-Wextra", "-Wno-unused-parameter"]
# Caffe's headers name these types of cuBLAS, whose package is 400 MB.
CUBLAS = """\
typedef struct cublasContext* cublasHandle_t;
typedef int cublasStatus_t;
const cublasStatus_t CUBLAS_STATUS_SUCCESS = 0;
"""


def find_clang():
    found = next(filter(None, map(shutil.which, CLANG)), None)
    if not found:
        raise Failure("clang is missing: apt-get install clang-19")
    return found


def find_cuda():
    """What clang takes for a toolkit, and the folders of headers that it does not find there."""
    nvidia = make_site(FOLDER, PACKAGES) / "nvidia"
    # By this header clang tells the version.
    link(nvidia / "cuda_nvcc" / "include" / "cuda.h", nvidia / "cuda_runtime" / "include/cuda.h")
    return nvidia / "cuda_nvcc", [nvidia / "cuda_runtime" / "include", nvidia / "curand/include"]


def compile_file(source, clang, cuda, folders, scratch):
    """For each GPU, and for the host."""
    print(f"compile_old_cuda: {source.relative_to(ROOT)}", flush=True)
    argv = [clang, "-x", "cuda", f"--cuda-path={cuda}", "-std=c++11", "-O3", *WARNINGS]
    argv += [f"-I{ROOT / 'include'}"]
    for folder in folders:
        argv += ["-isystem", folder]
    for number in ARCHITECTURES:
        device = [f"--cuda-gpu-arch=sm_{number}", "--cuda-device-only", "-c"]
        run([*argv, *device, source, "-o", scratch / (source.name + ".cubin")])
    run([*argv, "--cuda-host-only", "-fsyntax-only", source])


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    clang = find_clang()
    cuda, headers = find_cuda()
    tree = caffe_tree()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "cublas_v2.h").write_text(CUBLAS)
        folders = [*headers, *caffe_headers(tree, scratch)]
        for source in sources():
            compile_file(source, clang, cuda, folders, scratch)
    names = ", ".join(f"sm_{number}" for number in ARCHITECTURES)
    print(f"compile_old_cuda: {names} by {Path(clang).name} with CUDA {VERSION}, no warnings")


if __name__ == "__main__":
    program(main)
