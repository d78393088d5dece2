#!/usr/bin/python3
"""Compile our CUDA files as C++11 for three GPU generations; any warning is an error.

The rest of Caffe may be compiled as C++17, which CUDA 13's Thrust needs. Ours stay C++11, for the
old toolkits of Caffe's users, and this program holds them to it. What is compiled is thrown away.
"""

import argparse
import tempfile
from pathlib import Path

import cuda_toolkit
from _common import ROOT, Failure, program, run
from build import Build, only_one

ARCHITECTURES = ["75", "90", "120"]
FOLDERS = ["src/caffe/layers", "src/caffe/util"]
WARNINGS = ["-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Wno-unused-parameter"]


def caffe_tree():
    """Caffe with the layer, as `make cuda` builds it."""
    build = Build("cuda", jobs=1)
    with only_one(build.folder):
        build.make_tree()
    return build.tree


def sources():
    """Our CUDA files."""
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.cu"))]
    if not found:
        raise Failure("no .cu file under " + " and ".join(FOLDERS))
    return found


def caffe_headers(tree, scratch):
    """Folders of Caffe's headers, caffe.pb.h among them, which is made in SCRATCH."""
    proto = tree / "src" / "caffe" / "proto"
    generated = scratch / "caffe" / "proto"
    generated.mkdir(parents=True)
    run(["protoc", f"--proto_path={proto}", f"--cpp_out={generated}", proto / "caffe.proto"])
    return [scratch, tree / "include"]


def compile_file(source, toolkit, folders, architectures, scratch):
    print(
        "compile_cuda:", source.relative_to(ROOT), *(f"sm_{n}" for n in architectures), flush=True
    )
    argv = [toolkit.nvcc, "-std=c++11", *WARNINGS, f"-I{ROOT / 'include'}"]
    for folder in folders:
        argv += ["-isystem", folder]
    argv += [f"-gencode=arch=compute_{n},code=sm_{n}" for n in architectures]
    run([*argv, "-c", source, "-o", scratch / (source.name + ".o")])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--arch",
        action="append",
        metavar="N",
        help="a GPU to compile for, 75 is sm_75 (75, 90, 120)",
    )
    architectures = parser.parse_args().arch or ARCHITECTURES
    files = sources()
    toolkit = cuda_toolkit.find()
    cuda_toolkit.architectures(
        ",".join(architectures), cuda_toolkit.known_architectures(toolkit.nvcc)
    )
    tree = caffe_tree()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        folders = [*caffe_headers(tree, scratch), *toolkit.include_folders]
        for source in files:
            compile_file(source, toolkit, folders, architectures, scratch)
    print(f"compile_cuda: CUDA {toolkit.version}, {len(files)} files, no warnings")


if __name__ == "__main__":
    program(main)
