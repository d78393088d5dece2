#!/usr/bin/python3
"""Compile the kernel for arm64 with Debian's cross compiler, and test it under qemu-user.

Checked are that the compiler makes vector code of the loops, without calls to the mathematical
library; that the kernel's C++ tests pass; and that the elements have the same bits as on this
machine's instruction sets with a fused multiply-add.
"""

import re
import shutil

from _common import ROOT, Failure, output, program, run
from _machine_code import check_loops
from exhaustive import FLAGS, KERNEL, compile_native_proof, compile_proof

TARGET = "aarch64-linux-gnu"
COMPILER = f"{TARGET}-g++"
EMULATOR = ["qemu-aarch64", "-L", f"/usr/{TARGET}"]
GTEST = ROOT / "build" / "source" / "caffe" / "src"
TESTS = ["test_weighted_sigmoid_loss.cpp", "test_weighted_sigmoid_loss_elements.cpp"]
# These compare with long double, which is software here, and software is slow under an emulator.
# What they would tell follows from the bits' being those of this machine.
TOO_SLOW = ["*ErrorTest*", "*.TestWalk", "*.TestClimb"]
# A prime that leaves a million scores; a larger one is no faster to speak of.
STRIDE = 4001
LINE = re.compile(r"^(float|double): |^  elements, (\w+): .*checksum (\w+)$", re.MULTILINE)


def compile_kernel(folder):
    """Return the object files."""
    objects = []
    for source in KERNEL:
        objects.append(folder / f"{source.stem}.o")
        run([COMPILER, *FLAGS, "-Werror", "-c", source, "-o", objects[-1]])
    return objects


def compile_tests(folder, objects):
    """The C++ tests of the kernel, with the GoogleTest that Caffe brings; return the program."""
    sources = [ROOT / "src" / "caffe" / "test" / name for name in TESTS]
    gtest = [GTEST / "gtest" / "gtest-all.cpp", GTEST / "gtest" / "gtest_main.cc"]
    if not gtest[0].exists():
        raise Failure("Caffe's source is not here; run `make arm64`, or scripts/fetch.py")
    tests = folder / "tests"
    # -w: GoogleTest is not ours, and its macros warn in our tests.
    options = ["-std=c++11", "-O2", "-w", f"-I{ROOT / 'include'}", f"-I{GTEST}", "-pthread"]
    run([COMPILER, *options, *sources, *gtest, *objects, "-o", tests])
    return tests


def checksums(argv):
    """{(type, instruction set): checksum} of a proof, which must succeed."""
    text = output([*argv, "--stride", STRIDE])
    print(text, end="", flush=True)
    found = {}
    number = None
    for match in LINE.finditer(text):
        number = match[1] or number
        if match[2]:
            found[number, match[2]] = match[3]
    return found


def compare(there, here):
    """The bits on arm64 with those of every set with a fused multiply-add here."""
    fused = {key: value for key, value in here.items() if key[1] != "baseline"}
    if not fused:
        print("arm64: this machine has no fused multiply-add, so no bits were compared")
    for (number, name), checksum in fused.items():
        if there[number, "baseline"] != checksum:
            raise Failure(f"{number} elements do not have the bits that they have with {name}")
        print(f"arm64: {number} elements have the bits that they have with {name}")


def main():
    for name in [COMPILER, EMULATOR[0]]:
        if not shutil.which(name):
            raise Failure(f"{name} is missing; run `make arm64`, which installs it")
    folder = ROOT / "build" / "arm64"
    folder.mkdir(parents=True, exist_ok=True)
    objects = compile_kernel(folder)
    functions = check_loops(folder / "weighted_sigmoid_loss_baseline.o", f"{TARGET}-")
    print(f"arm64: vector code in {functions} functions of the loops", flush=True)
    tests = compile_tests(folder, objects)
    run([*EMULATOR, tests, f"--gtest_filter=-{':'.join(TOO_SLOW)}"])
    proof = folder / "exhaustive"
    compile_proof(COMPILER, objects, proof)
    compare(checksums([*EMULATOR, proof]), checksums([compile_native_proof(folder / "native")]))


if __name__ == "__main__":
    program(main)
