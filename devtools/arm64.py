#!/usr/bin/python3
"""Compile the kernel for arm64 with Debian's cross compiler, and test it under qemu-user.

Checked are that the compiler makes vector code of the loops, without calls to the mathematical
library; that the kernel's C++ tests pass; and that the elements have the same bits as on this
machine's instruction sets with a fused multiply-add.
"""

import re
import shutil

from _common import ROOT, Failure, output, program, run
from _kernel_tests import compile_tests
from _machine_code import check_loops
from exhaustive import FLAGS, KERNEL, compile_native_proof, compile_proof

TARGET = "aarch64-linux-gnu"
COMPILER = f"{TARGET}-g++"
EMULATOR = ["qemu-aarch64", "-L", f"/usr/{TARGET}"]
TESTS = ["", "_elements", "_pool"]
LEFT_OUT = [
    # These compare with long double, which is software here, and software is slow under an
    # emulator. What they would tell follows from the bits' being those of this machine.
    "*ErrorTest*",
    "*.TestWalk",
    "*.TestClimb",
    # In a forked process qemu-user ends with an error of its own at the first thread.
    "*.TestFork*",
]
# A prime that leaves a million scores; a larger one is hardly faster.
STRIDE = 4001
LINE = re.compile(r"^(float|double): |^  elements, (\w+): .*checksum (\w+)$", re.MULTILINE)


def compile_kernel(folder):
    """Return the object files."""
    objects = []
    for source in KERNEL:
        objects.append(folder / f"{source.stem}.o")
        run([COMPILER, *FLAGS, "-Werror", "-c", source, "-o", objects[-1]])
    return objects


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
    tests = folder / "tests"
    compile_tests(COMPILER, ["-O2"], TESTS, objects, tests)
    run([*EMULATOR, tests, f"--gtest_filter=-{':'.join(LEFT_OUT)}"])
    proof = folder / "exhaustive"
    compile_proof(COMPILER, objects, proof)
    compare(checksums([*EMULATOR, proof]), checksums([compile_native_proof(folder / "native")]))


if __name__ == "__main__":
    program(main)
