#!/usr/bin/python3
"""Collect what devtools/gpu_run.py takes to a machine with a GPU: build/gpu-bundle.tar.gz.

From what `scripts/build.py gpu --tests` built: the program caffe, the C++ tests, the programs of
tests/gpu/ and the benchmark's adapter, each with the shared libraries that it loads, and the demo's
net with a part of its data. That machine needs no registry, compiler or Caffe. What it must have is
a glibc no older than this machine's, NVIDIA's driver, and cuBLAS, cuRAND and NCCL, which are too
large to carry.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import cuda_toolkit
from _common import ROOT, Failure, program, run
from build import Build

BUILD = Build("gpu", jobs=1)
BUNDLE = ROOT / "build" / "gpu-bundle"
ARCHIVE = BUNDLE.with_name("gpu-bundle.tar.gz")
PROGRAMS = {
    "golden": "tests/gpu/golden.cpp",
    "nccl": "tests/gpu/nccl.cpp",
    "device": "tests/gpu/device.cu",
}
ADAPTER = "benchmarks/adapter.cpp"
LIBRARIES = ["caffe", "protobuf", "glog", "boost_system", "boost_thread"]
# glibc's own, which must be the machine's; its driver's; and what is too large to carry.
GLIBC = r"ld-linux-x86-64|libc|libm|libmvec|libpthread|libdl|librt|libresolv|libutil|libanl"
NVIDIA = r"libcuda|libcublas|libcublasLt|libcurand|libnccl"
LEFT_OUT = re.compile(rf"(?:{GLIBC}|({NVIDIA}))\.so\.\d+")
LOADED = re.compile(r"^\s+(\S+) => (not found|\S+)", re.MULTILINE)
LIMIT = 60 << 20  # bytes: what carries it may take 64 MiB

DEMO = ROOT / "examples" / "fashion_mnist"
DEMO_IMAGES = 2048
# Without the tests: losses are compared, of every iteration by itself.
DEMO_SOLVER = {
    "net": '"net.prototxt"',
    "max_iter": "100",
    "display": "1",
    "average_loss": "1",
    "snapshot_prefix": '"model"',
    "snapshot_after_train": "false",
}
DEMO_LEFT_OUT = ["test_iter", "test_interval", "solver_mode"]
# The GPU's random numbers are not the CPU's.
DROPOUT = re.compile(r'^layer \{\n  name: "dropout".*?^\}\n', re.MULTILINE | re.DOTALL)


def architecture():
    """The one GPU that $CUDA_ARCH names."""
    named = os.environ.setdefault("CUDA_ARCH", "90")
    if not re.fullmatch(r"\d+a?", named):
        raise Failure(f"CUDA_ARCH is {named}, and a bundle is for one GPU, as in 90", 2)
    return named


def compile_program(toolkit, source, output, *options):
    """Compile and link a source of ours with the Caffe that was built."""
    lib = BUILD.install / "lib"
    argv = [toolkit.nvcc, "-std=c++11", "-O2", "-cudart=shared", "-DUSE_NCCL"]
    argv += ["-DBOOST_BIND_GLOBAL_PLACEHOLDERS", f"-arch=sm_{architecture()}"]
    argv += [f"-I{ROOT / 'include'}", f"-I{BUILD.install / 'include'}"]
    argv += [f"-I{folder}" for folder in toolkit.include_folders]
    argv += [ROOT / source, "-o", output, f"-L{lib}", *(f"-l{name}" for name in LIBRARIES)]
    argv += [f"-Xlinker=-rpath-link={prefix / 'lib'}" for prefix in [lib.parent, *toolkit.prefixes]]
    run([*argv, *options])


def compile_all(toolkit, bundle):
    for name, source in PROGRAMS.items():
        print(f"gpu_bundle: compiling {source}", flush=True)
        compile_program(toolkit, source, bundle / "bin" / name)
    print(f"gpu_bundle: compiling {ADAPTER}", flush=True)
    # Python loads it: a path of its own that is also its libraries' leaves Python's alone.
    path = ["-Xlinker=--disable-new-dtags", "-Xlinker=-rpath=$ORIGIN"]
    options = ["-shared", "-Xcompiler=-fPIC", *path]
    compile_program(toolkit, ADAPTER, bundle / "lib" / "adapter.so", *options)


def loaded_libraries(files, folders):
    """{name: path} of the shared libraries that the files load, and NVIDIA's that are left out."""
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, folders))}
    found, left_out = {}, set()
    for file in files:
        said = run(["ldd", file], env=environment, stdout=subprocess.PIPE, text=True).stdout
        for name, path in LOADED.findall(said):
            if kind := LEFT_OUT.fullmatch(name):
                left_out |= {name} if kind[1] else set()
            elif path == "not found":
                raise Failure(f"{file.name} needs {name}, which is not on this machine")
            else:
                found[name] = Path(path)
    return found, sorted(left_out)


def collect_libraries(toolkit, bundle):
    """Copy what is carried; return the names of what the other machine must have."""
    files = [path for path in bundle.glob("*/*") if path.parent.name in ("bin", "lib")]
    folders = [BUILD.install / "lib", *(prefix / "lib" for prefix in toolkit.prefixes)]
    found, left_out = loaded_libraries(files, folders)
    for name, path in found.items():
        shutil.copyfile(path.resolve(), bundle / "lib" / name)
    return left_out


def strip(bundle):
    for path in bundle.glob("bin/*"):
        run(["strip", path])
    for path in bundle.glob("lib/*"):
        run(["strip", "--strip-unneeded", path])


def demo_solver(text):
    """The demo's solver with what is another here; a line a field."""
    replaced = {**dict.fromkeys(DEMO_LEFT_OUT), **DEMO_SOLVER}
    lines = [line for line in text.splitlines() if line.split(":")[0] not in replaced]
    lines += [f"{name}: {value}" for name, value in DEMO_SOLVER.items()]
    return "".join(f"{line}\n" for line in lines)


def write_demo(folder):
    """The demo's net, its schedule, and the first of its training images."""
    try:
        from examples.common import write_hdf5
        from examples.fashion_mnist import longtail
    except ImportError as error:
        raise Failure(
            f"{error}; run `make gpu-bundle`, which installs what the demo takes"
        ) from None
    (folder / "data").mkdir(parents=True)
    net, without = DROPOUT.subn("", (DEMO / "net.prototxt").read_text(encoding="utf-8"))
    if without != 1:
        raise Failure(
            "examples/fashion_mnist/net.prototxt has no layer dropout that can be left out"
        )
    (folder / "net.prototxt").write_text(net, encoding="utf-8")
    solver = (DEMO / "solver.prototxt").read_text(encoding="utf-8")
    (folder / "solver.prototxt").write_text(demo_solver(solver), encoding="utf-8")
    split = longtail.load_split(longtail.DATA_DIR, "test")
    every = max(1, len(split.train.labels) // DEMO_IMAGES)
    data = longtail.pick(split.train, slice(None, None, every))
    write_hdf5(folder / "data", "train-seed1", longtail.blobs(data))


def manifest(toolkit):
    """What was built of what; devtools/gpu_run.py copies it into its results."""

    def git(*arguments):
        argv = ["git", "-C", ROOT, *arguments]
        return run(argv, stdout=subprocess.PIPE, text=True).stdout.strip()

    return {
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain")),
        "cuda": toolkit.version,
        "architecture": architecture(),
        "compiler": run(["g++", "--version"], stdout=subprocess.PIPE, text=True).stdout.split("\n")[
            0
        ],
    }


def make_bundle(bundle):
    toolkit = cuda_toolkit.find()
    for name in ("bin", "lib"):
        (bundle / name).mkdir(parents=True)
    shutil.copy(BUILD.install / "bin" / "caffe", bundle / "bin" / "caffe")
    shutil.copy(BUILD.tests, bundle / "bin" / BUILD.tests.name)
    compile_all(toolkit, bundle)
    needs = collect_libraries(toolkit, bundle)
    strip(bundle)
    write_demo(bundle / "demo")
    text = json.dumps({**manifest(toolkit), "needs": needs}, indent=1)
    (bundle / "manifest.json").write_text(text + "\n", encoding="utf-8")


def write_archive(bundle):
    """One file, since libraries are a third of their size in it."""
    partial = ARCHIVE.with_name(ARCHIVE.name + ".partial")
    with tarfile.open(partial, "w:gz", compresslevel=6) as archive:
        archive.add(bundle, arcname=BUNDLE.name)
    partial.replace(ARCHIVE)
    return ARCHIVE.stat().st_size


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    if not (BUILD.install.exists() and BUILD.tests.exists()):
        raise Failure(
            "there is no Caffe for it; run `make gpu-bundle`, or scripts/build.py gpu --tests"
        )
    partial = BUNDLE.with_name(BUNDLE.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    make_bundle(partial)
    shutil.rmtree(BUNDLE, ignore_errors=True)
    partial.rename(BUNDLE)
    size = write_archive(BUNDLE)
    print(f"gpu_bundle: {ARCHIVE}, {size / (1 << 20):.1f} MiB, sm_{architecture()}")
    if size > LIMIT:
        raise Failure(f"{ARCHIVE.name} is larger than {LIMIT >> 20} MiB")


if __name__ == "__main__":
    program(main)
