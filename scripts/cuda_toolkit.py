#!/usr/bin/python3
"""Find the CUDA to build with, and say where it is; find its libraries for what was built.

That is the machine's own nvcc, cuBLAS, cuRAND and NCCL: nvcc from $CUDACXX, PATH or
/usr/local/cuda. Whichever of them is missing comes from NVIDIA's packages on PyPI, in the version
that goes with nvcc, and is installed into build/cuda/wheels.

$CUDA_ARCH names the GPUs to compile for: native (the machine's own), 90 or 80,90 and so on.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))  # PYTHONSAFEPATH leaves it out

from _common import ROOT, Failure, first_line, output, program
from make_venv import make_site

WHEELS = ROOT / "build" / "cuda" / "wheels"
# The version that is installed where the machine has no nvcc: the one that CI builds with.
DEFAULT_VERSION = "13.0"
# PyPI has cuda-toolkit, which names the versions that belong together, since CUDA 12.
OLDEST_ON_PYPI = 12

# Code for one GPU also runs on later ones of the same generation: sm_80's on sm_86 and sm_89.
# Other GPUs translate the PTX of PTX_ARCHITECTURE when a program first runs.
DEFAULT_ARCHITECTURES = [75, 80, 90, 100, 120]
PTX_ARCHITECTURE = 90
ARCHITECTURE = re.compile(r"(\d+)[af]?(-real|-virtual)?")
ARCHITECTURE_WORDS = {"all", "all-major", "native"}
GPU_DEVICES = ["/dev/nvidiactl", "/dev/nvgpu", "/dev/dxg"]


@dataclass(frozen=True)
class Component:
    """Something that nvcc may not find by itself, and the Python package that has it."""

    package: str
    header: str
    library: str


COMPONENTS = [
    Component("cuda-toolkit[cublas]=={version}.*", "cublas_v2.h", "cublas"),
    Component("cuda-toolkit[curand]=={version}.*", "curand.h", "curand"),
    Component("nvidia-nccl-cu{major}", "nccl.h", "nccl"),
]
# What upstream's .cu files need of nvcc itself: its runtime, and Thrust.
NVCC = Component("cuda-toolkit[nvcc,cccl]=={version}.*", "thrust/version.h", "cudart")


@dataclass(frozen=True)
class Toolkit:
    nvcc: Path
    version: str
    prefixes: list  # folders with the include/ and lib/ of what does not lie with nvcc

    @property
    def include_folders(self):
        return [prefix / "include" for prefix in self.prefixes]


def find(wheels=WHEELS):
    """The toolkit, after installing what is missing of it."""
    nvcc, version = machine_nvcc()
    if nvcc:
        missing = [part for part in COMPONENTS if not builds(nvcc, part)]
    else:
        missing = [NVCC, *COMPONENTS]
    if not missing:
        return Toolkit(nvcc, version, [])
    prefixes = install(version, missing, wheels)
    if not nvcc:
        nvcc = next(path for prefix in prefixes for path in prefix.glob("bin/nvcc"))
    return Toolkit(nvcc, version, prefixes)


def machine_nvcc():
    """The machine's nvcc and its version, or None and the version to install."""
    named = os.environ.get("CUDACXX")
    places = [named] if named else ["nvcc", "/usr/local/cuda/bin/nvcc"]
    found = next(filter(None, map(shutil.which, places)), None)
    if named and not found:
        raise Failure(f"{named} does not exist; CUDACXX names it", 2)
    if not found:
        return None, DEFAULT_VERSION
    said = subprocess_output([found, "--version"])
    release = re.search(r"release (\d+\.\d+)", said or "")
    if not release:
        raise Failure(f"{found} is not nvcc" + ("; CUDACXX names it" if named else ""), 2)
    if not builds(found, NVCC, suffix=".cu"):
        print(f"cuda_toolkit: {found} cannot build a program here, so it is not used", flush=True)
        return None, DEFAULT_VERSION
    return Path(found), release[1]


def builds(nvcc, part, suffix=".cpp"):
    """Whether nvcc finds the header and the library by itself; with .cu, also compiles."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe").with_suffix(suffix)
        source.write_text(f"#include <{part.header}>\nint main() {{ return 0; }}\n")
        argv = [nvcc, source, "-o", source.with_suffix(""), "-cudart=shared", f"-l{part.library}"]
        return subprocess_output(argv) is not None


def subprocess_output(argv):
    """What the command prints, or None where it does not succeed."""
    try:
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def install(version, parts, wheels):
    """Install what is missing, unless it is there; return the folders with include/ and lib/."""
    names = ", ".join(part.library for part in parts)
    major = version.split(".")[0]
    if int(major) < OLDEST_ON_PYPI:
        raise Failure(
            f"CUDA {version} is here without {names}, and PyPI has that for CUDA {OLDEST_ON_PYPI} "
            "and later: install it from where that CUDA came from"
        )
    print(f"cuda_toolkit: {names} for CUDA {version} from PyPI, in {wheels}", flush=True)
    site = make_site(wheels, [part.package.format(version=version, major=major) for part in parts])
    prefixes = [path.parent for path in package_folders(site)]
    for prefix in prefixes:
        complete(prefix)
    return prefixes


def complete(prefix):
    """Add the links that a compiler looks for and wheels, which cannot have links, lack."""
    for library in (prefix / "lib").glob("lib*.so.*"):
        link(library.with_name(library.name.split(".so.")[0] + ".so"), library.name)
    if (prefix / "bin" / "nvcc").exists():
        link(prefix / "lib64", "lib")


def link(path, target):
    if not path.exists():
        path.unlink(missing_ok=True)
        path.symlink_to(target)


def architectures(text, known):
    """What CMAKE_CUDA_ARCHITECTURES is to be, of $CUDA_ARCH and the GPUs that nvcc knows."""
    if not text:
        chosen = [number for number in DEFAULT_ARCHITECTURES if not known or number in known]
        return ";".join(f"{n}" if n == PTX_ARCHITECTURE else f"{n}-real" for n in chosen)
    if text in ARCHITECTURE_WORDS:
        if text == "native" and not any(map(os.path.exists, GPU_DEVICES)):
            raise Failure(
                "CUDA_ARCH=native, and this machine has no NVIDIA GPU: name one, as in 90", 2
            )
        return text
    words = re.split(r"[;, ]+", text.strip())
    for word in words:
        number = ARCHITECTURE.fullmatch(word)
        if not number:
            raise Failure(
                f"CUDA_ARCH: {word} is no GPU architecture, as native, 90 or 80,90 are", 2
            )
        if known and int(number[1]) not in known:
            numbers = ", ".join(map(str, sorted(known)))
            raise Failure(
                f"CUDA_ARCH: this nvcc does not compile for {word}, only for {numbers}", 2
            )
    return ";".join(words)


def known_architectures(nvcc):
    """The GPUs that nvcc compiles for; none where it is too old to say."""
    said = subprocess_output([nvcc, "--list-gpu-arch"])
    return {int(number) for number in re.findall(r"compute_(\d+)\b", said or "")}


def cmake_arguments():
    """What CMake has to be told to build Caffe with CUDA and NCCL."""
    toolkit = find()
    # CMake keeps no rpath into the folder it was called for, where the wheels are.
    rpath = " ".join(f'-Wl,-rpath,"{prefix / "lib"}"' for prefix in toolkit.prefixes)
    wanted = architectures(os.environ.get("CUDA_ARCH"), known_architectures(toolkit.nvcc))
    return [
        "-DCPU_ONLY=OFF",
        "-DUSE_NCCL=ON",
        # Off, and the reason comes from Caffe's CMake code where one asks for it.
        f"-DUSE_CUDNN={os.environ.get('USE_CUDNN') or 'OFF'}",
        f"-DCMAKE_CUDA_COMPILER={toolkit.nvcc}",
        f"-DCMAKE_CUDA_ARCHITECTURES={wanted}",
        "-DCMAKE_PREFIX_PATH=" + ";".join(map(str, toolkit.prefixes)),
        f"-DCMAKE_EXE_LINKER_FLAGS={rpath}",
        f"-DCMAKE_SHARED_LINKER_FLAGS={rpath}",
    ]


def environment(binary):
    """The caller's environment, in which the built binary finds CUDA's libraries.

    Where it finds them by itself, as what `make cuda` built here does, that is os.environ.
    """
    missing = unresolved(binary)
    folders = library_folders()
    found = {name: next((f for f in folders if (f / name).exists()), None) for name in missing}
    lost = [name for name, folder in found.items() if not folder]
    if lost:
        raise Failure(
            f"{', '.join(lost)}: in none of {len(folders)} folders of Python's packages and CUDA "
            "toolkits; install NVIDIA's package for it, or name its folder in LD_LIBRARY_PATH",
            2,
        )
    # The named folders last: the driver's may be known by them alone.
    path = dict.fromkeys(map(str, [*found.values(), *named_folders()]))
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(path)} if found else dict(os.environ)


def unresolved(binary):
    """The names of the shared libraries that a program or library does not find."""
    said = output(["ldd", binary])
    return list(dict.fromkeys(re.findall(r"^\s+(\S+) => not found", said, re.MULTILINE)))


def named_folders():
    """Those of LD_LIBRARY_PATH, whose empty parts are the folder that a program runs in."""
    names = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [Path(name).absolute() for name in names if name]


def library_folders():
    """Where CUDA's libraries may lie: named, of Python's packages, of toolkits, of the system."""
    sites = [*map(str, WHEELS.glob("lib/python3*/site-packages")), *filter(None, sys.path)]
    sites += map(str, Path("/opt").glob("*/.venv/lib/python3*/site-packages"))
    sites += map(str, Path("/usr").glob("*/lib/python3*/dist-packages"))
    folders = [*named_folders(), *(path for site in sites for path in package_folders(Path(site)))]
    inside = ("lib64", "targets/x86_64-linux/lib")
    folders += [toolkit / name for toolkit in toolkits() for name in inside]
    folders += [Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64")]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def package_folders(site):
    """The library folders of NVIDIA's Python packages."""
    return sorted(site.glob("nvidia/*/lib"))


def toolkits():
    return sorted(Path("/usr/local").glob("cuda*"), reverse=True)


def compute_sanitizer():
    """NVIDIA's program, of PATH, a toolkit or its own package; None where it is not there."""
    places = [*(toolkit / "bin" for toolkit in toolkits())]
    places += [path.parent for path in Path("/opt/nvidia").glob("**/compute-sanitizer")]
    path = ":".join(map(str, places))
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=path)


def main():
    argparse.ArgumentParser(description=first_line(__doc__)).parse_args()
    toolkit = find()
    print("nvcc", toolkit.nvcc)
    print("version", toolkit.version)
    for prefix in toolkit.prefixes:
        print("prefix", prefix)


if __name__ == "__main__":
    program(main)
