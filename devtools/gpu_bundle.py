#!/usr/bin/python3
"""Collect what the tests and the benchmark take to a machine with a GPU: build/gpu-bundle.tar.gz.

That is this repository with build/cuda as if `make runtest DEVICE=gpu` had built it there, its
shared libraries with it, and pytest; the other machine needs no registry and no compiler. What it
must have are Python 3.9 or later (and NumPy, for the benchmark), a glibc no older than this
machine's, NVIDIA's driver, and cuBLAS, cuRAND and NCCL, which are too large to carry.
"""

import argparse
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import cuda_toolkit
from _common import ROOT, Failure, output, program, run
from _only_tests import only_tests
from benchmarks import adapter_build
from build import Build, add_jobs
from make_venv import make_venv

ARCHIVE = ROOT / "build" / "gpu-bundle.tar.gz"
BUILD = ROOT / "build" / "gpu-bundle"  # Caffe with little of what the other machine lacks
LIMIT = 64 << 20  # bytes
# glibc's own, which must be the machine's; its driver's; and what is too large to carry.
LEFT_OUT = re.compile(
    r"(ld-linux-x86-64|libc|libm|libmvec|libpthread|libdl|librt|libresolv|libutil|libanl"
    r"|libcuda|libcublas|libcublasLt|libcurand|libnccl)\.so\.\d+"
)
LOADED = re.compile(r"^\s+(\S+) => (not found|\S+)", re.MULTILINE)
# Their own path is also their libraries', and comes before LD_LIBRARY_PATH.
MOVABLE = "-Wl,--disable-new-dtags"
REQUIREMENTS = Path(__file__).with_name("gpu_bundle_requirements.txt")
TOOLS = ("pip*", "setuptools*", "_distutils_hack", "distutils-precedence.pth", "pkg_resources")


def check_architecture():
    """$CUDA_ARCH names one GPU."""
    named = os.environ.setdefault("CUDA_ARCH", "90")
    if not re.fullmatch(r"\d+a?", named):
        raise Failure(f"CUDA_ARCH is {named}, and a bundle is for one GPU, as in 90", 2)
    return named


def build(toolkit, jobs):
    """Caffe as tests and benchmark use it, with paths that can move."""
    links = [f"-Wl,-rpath-link,{prefix / 'lib'}" for prefix in toolkit.prefixes]
    flags = " ".join([MOVABLE, *links])
    options = [f"-DCMAKE_{kind}_LINKER_FLAGS={flags}" for kind in ("EXE", "SHARED")]
    options += only_tests("*_loss*")
    made = Build("cuda", jobs, BUILD, options)
    made.make(tests=True)
    return made


def collect(built, target):
    """What was built, stripped, each file once."""
    for source, copy in (
        (built.install / "bin" / "caffe", target.install / "bin" / "caffe"),
        (built.install / "lib" / "libcaffe.so.1.0.0", target.install / "lib" / "libcaffe.so.1.0.0"),
        (built.tests, target.tests),
        *((path, target.programs / path.name) for path in sorted(built.programs.iterdir())),
    ):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
    lib = target.install / "lib"
    (lib / "libcaffe.so").symlink_to("libcaffe.so.1.0.0")
    # Where the programs that are not installed look for libcaffe.
    (target.cmake / "caffe" / "lib").symlink_to(os.path.relpath(lib, target.cmake / "caffe"))
    shutil.copytree(built.install / "python", target.install / "python", dirs_exist_ok=True)


def compile_adapter(install, lib):
    """The benchmark's, which finds its libraries beside it: Python leaves its own to others."""
    for argv in adapter_build.for_gpu(install):
        words = [str(word).replace("=-rpath=", "=-rpath-link=") for word in argv]
        words += ["-Xlinker=--disable-new-dtags", "-Xlinker=-rpath=$ORIGIN"]
        adapter_build.compile_in(lib, words)


def programs_of(target):
    return [target.install / "bin" / "caffe", target.tests, *sorted(target.programs.iterdir())]


def collect_libraries(binaries, folders, lib):
    """Copy the shared libraries that they load and the other machine may lack."""
    path = ":".join(map(str, folders))
    environment = {**os.environ, "LD_LIBRARY_PATH": path}
    for binary in binaries:
        said = output(["ldd", binary], env=environment)
        for name, place in LOADED.findall(said):
            if LEFT_OUT.fullmatch(name) or (lib / name).exists():
                continue
            if place == "not found":
                raise Failure(f"{binary.name} needs {name}, which is not on this machine")
            shutil.copyfile(Path(place).resolve(), lib / name)


def strip(target):
    run(["strip", *programs_of(target)])
    libraries = [path for path in (target.install / "lib").iterdir() if not path.is_symlink()]
    run(["strip", "--strip-unneeded", *libraries])


def add_pytest(folder):
    """Beside the installed Python packages; pure Python, so the other Python may be another."""
    python = make_venv(ROOT / "build" / "gpu-bundle-venv", REQUIREMENTS)
    (site,) = python.parent.parent.glob("lib/python3*/site-packages")
    ignored = shutil.ignore_patterns("__pycache__", *TOOLS)
    shutil.copytree(site, folder, ignore=ignored, dirs_exist_ok=True)


def add_repository(folder):
    """Its files as they are here."""
    named = output(["git", "-C", ROOT, "ls-files", "-z"])
    for name in named.split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def built_of(toolkit):
    """What was built of what, which reports on the other machine say."""

    def said(*argv):
        return output(argv).strip()

    return {
        "commit": said("git", "-C", ROOT, "rev-parse", "HEAD"),
        "dirty": bool(said("git", "-C", ROOT, "status", "--porcelain")),
        "cuda": toolkit.version,
        "architecture": check_architecture(),
        "compiler": said("g++", "--version").splitlines()[0],
    }


def make_bundle(folder, jobs):
    toolkit = cuda_toolkit.find()
    built = build(toolkit, jobs)
    target = Build("cuda", jobs, folder / "build" / "cuda")
    add_repository(folder)
    collect(built, target)
    lib = target.install / "lib"
    compile_adapter(built.install, lib)
    folders = [built.install / "lib", *(prefix / "lib" for prefix in toolkit.prefixes)]
    collect_libraries([*programs_of(target), lib / "adapter.so"], folders, lib)
    strip(target)
    add_pytest(target.install / "python")
    run([sys.executable, ROOT / "tests" / "gpu" / "demo_net.py", target.folder / "demo"])
    text = json.dumps(built_of(toolkit), indent=1)
    target.prebuilt.write_text(text + "\n", encoding="utf-8")


def write_archive(folder):
    """One file, since libraries are a third of their size in it."""
    partial = ARCHIVE.with_name(ARCHIVE.name + ".partial")
    with tarfile.open(partial, "w:gz", compresslevel=9) as archive:
        archive.add(folder, arcname="gpu-bundle")
    partial.replace(ARCHIVE)
    return ARCHIVE.stat().st_size


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_jobs(parser)
    args = parser.parse_args()
    architecture = check_architecture()
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-bundle.", dir=ROOT / "build") as scratch:
        make_bundle(Path(scratch), args.jobs)
        size = write_archive(Path(scratch))
    print(f"gpu_bundle: {ARCHIVE}, {size / (1 << 20):.1f} MiB, sm_{architecture}")
    if size > LIMIT:
        raise Failure(f"{ARCHIVE.name} is larger than {LIMIT >> 20} MiB")


if __name__ == "__main__":
    program(main)
