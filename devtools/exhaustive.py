#!/usr/bin/python3
"""Prove the accuracy of the kernel's elements: all float scores, a billion double ones, and climbs.

Compiles the kernel and tests/exhaustive/ alone, without Caffe, and runs that: every instruction set
that this machine has, against a wider type. Exit status 0 means that the bounds which
weighted_sigmoid_loss_math.hpp and weighted_sigmoid_loss.hpp state hold. --stride takes one score in
N, and one step of the search for the worst soft target and weights.
"""

import argparse
import platform

from _common import ROOT, Failure, program, run
from build import positive

KERNEL = sorted((ROOT / "src" / "caffe" / "util").glob("weighted_sigmoid_loss*.cpp"))
FLAGS = ["-std=c++11", "-O3", "-Wall", "-Wextra", f"-I{ROOT / 'include'}"]


def compile_proof(compiler, objects, proof, *options):
    """Compile tests/exhaustive/ and link it with the kernel, sources or objects."""
    sources = sorted((ROOT / "tests" / "exhaustive").glob("*.cpp"))
    run([compiler, *FLAGS, *sources, *objects, "-o", proof, "-pthread", *options])


def compile_native_proof(folder):
    """The proof for this machine; return the program."""
    folder.mkdir(parents=True, exist_ok=True)
    proof = folder / "exhaustive"
    # GCC's 128-bit type, which confirms that x86's long double is exact enough for double.
    quadmath = ["-DHAS_QUADMATH", "-lquadmath"] if platform.machine() == "x86_64" else []
    compile_proof("g++", KERNEL, proof, *quadmath)
    return proof


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--stride", type=positive, default=1, metavar="N", help="one score in N (1)"
    )
    stride = parser.parse_args().stride
    proof = compile_native_proof(ROOT / "build" / "exhaustive")
    status = run([proof, "--stride", stride], check=False).returncode
    if status != 0:
        raise Failure(
            "the bounds do not hold: see FAILED above" if status == 1 else f"status {status}"
        )


if __name__ == "__main__":
    program(main)
