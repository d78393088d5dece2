#!/usr/bin/python3
"""Read the machine code of our CUDA kernels, and fail where it is not as fast code is.

What is looked at, for each GPU that we compile for: no kernel keeps values in local memory (a
stack, or registers that are spilled), and those that walk through the elements read and write them
16 bytes at a time. The table that is printed has the registers, the 16-byte reads and writes, and
the instructions of the kernel's loop, as they stand in the code.

It takes nvdisasm, the toolkit's own or NVIDIA's package on PyPI; no GPU.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cuda_toolkit
from _common import ROOT, fail, run
from make_venv import make_venv

SOURCE = ROOT / "src" / "caffe" / "util" / "weighted_sigmoid_loss.cu"
DISASSEMBLER = ROOT / "build" / "cuda" / "nvdisasm"
# Older ones are not on PyPI; a disassembler reads the code of older compilers.
OLDEST_DISASSEMBLER = (13, 2)

# Kernels by their demangled names, and how many 16-byte reads and writes their loops have at
# least. PassKernel's arguments: type, pass (1 loss, 2 gradient, 3 both), values a vector, periodic.
EXPECTED = [
    (r"PassKernel<float, \d, 4, \w+>", "LDG", 4),
    (r"PassKernel<float, [23], 4, \w+>", "STG", 2),
    (r"PassKernel<double, \d, 2, \w+>", "LDG", 2),
    (r"PassKernel<double, [23], 2, \w+>", "STG", 1),
    (r"TargetSumsKernel<\w+>", "LDG", 1),
]
DOUBLE = {"DADD", "DMUL", "DFMA", "DSETP"}

ENTRY = re.compile(r"Compiling entry function '(\w+)'")
PROPERTIES = re.compile(r"Function properties for (\w+)")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
TEXT = re.compile(r"\.text\.(\w+):")
LABEL = re.compile(r"(\.L\w+):")
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")
BRANCH_TARGET = re.compile(r"`\((\.L\w+)\)")


@dataclass
class Kernel:
    name: str
    registers: int = 0
    stack: int = 0
    spills: int = 0
    code: list = field(default_factory=list)  # opcodes
    loops: list = field(default_factory=list)  # of (first, last) in code

    def loop(self):
        """The opcodes of the loop with 16-byte reads; none without one.

        nvcc makes two of a loop, one for each answer to what its threads all ask; that with more
        16-byte accesses is meant, and the inner one of two that have the same.
        """
        bodies = [self.code[first : last + 1] for first, last in self.loops]
        return min(
            (body for body in bodies if count(body, "LDG", "128")),
            key=lambda body: (-count(body, "LDG", "128") - count(body, "STG", "128"), len(body)),
            default=[],
        )


def count(code, opcode, modifier=None):
    words = (instruction.split(".") for instruction in code)
    return sum(w[0] == opcode and (modifier is None or modifier in w) for w in words)


def read_ptxas(text, kernels):
    """From what `ptxas -v` prints: registers, stack and spills."""
    kernel = function = None
    for line in text.splitlines():
        if found := ENTRY.search(line):
            kernel = kernels.setdefault(found[1], Kernel(found[1]))
        elif found := PROPERTIES.search(line):
            function = kernels.setdefault(found[1], Kernel(found[1]))
        elif found := STACK.search(line):
            function.stack = int(found[1])
            function.spills = int(found[2]) + int(found[3])
        elif found := REGISTERS.search(line):
            kernel.registers = int(found[1])


def read_sass(text, kernels):
    """From what `nvdisasm -c` prints: the instructions, and between which of them loops go."""
    kernel = None
    labels = {}
    for line in text.splitlines():
        if found := TEXT.match(line):
            kernel = kernels.setdefault(found[1], Kernel(found[1]))
            labels = {}
        elif found := LABEL.match(line):
            labels[found[1]] = len(kernel.code) if kernel else 0
        elif kernel and (found := INSTRUCTION.search(line)):
            target = BRANCH_TARGET.search(found[2])
            if found[1].startswith("BRA") and target and target[1] in labels:
                kernel.loops.append((labels[target[1]], len(kernel.code)))
            kernel.code.append(found[1])


def findings(kernels):
    """What is wrong, a line each."""
    for kernel in kernels:
        local = count(kernel.code, "LDL") + count(kernel.code, "STL")
        if kernel.stack or kernel.spills or local:
            yield (
                f"{kernel.name} has {kernel.stack} bytes of stack, {kernel.spills} bytes of "
                f"spills and {local} accesses to local memory"
            )
    for pattern, opcode, least in EXPECTED:
        matching = [kernel for kernel in kernels if re.fullmatch(pattern, kernel.name)]
        if not matching:
            yield f"there is no kernel {pattern}"
        for kernel in matching:
            number = count(kernel.loop(), opcode, "128")
            if number < least:
                yield f"{kernel.name} has {number} {opcode}.128 in its loop, not {least} or more"


def compile_kernels(nvcc, source, architecture, cubin):
    """Compile SOURCE for one GPU; return what ptxas says."""
    argv = [nvcc, "-std=c++11", "-O3", f"-I{ROOT / 'include'}", "-Xptxas", "-v", "-cubin"]
    argv += [f"-arch=sm_{architecture}", source, "-o", cubin]
    return run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def disassembler(toolkit):
    """nvdisasm, after installing it where the toolkit has none."""
    own = toolkit.nvcc.with_name("nvdisasm")
    found = shutil.which(own) or shutil.which("nvdisasm")
    if found:
        return found
    version = max(OLDEST_DISASSEMBLER, tuple(map(int, toolkit.version.split("."))))
    DISASSEMBLER.parent.mkdir(parents=True, exist_ok=True)
    requirements = DISASSEMBLER.with_suffix(".txt")
    requirements.write_text(f"nvidia-cuda-nvdisasm=={'.'.join(map(str, version))}.*\n")
    make_venv(DISASSEMBLER, requirements)
    program = next(DISASSEMBLER.glob("lib/python3*/site-packages/nvidia/*/bin/nvdisasm"))
    program.chmod(0o755)
    return program


def demangle(kernels):
    """Name kernels as the source does, without namespaces and parameters."""
    names = "\n".join(kernel.name for kernel in kernels)
    said = run(["c++filt"], input=names, stdout=subprocess.PIPE, text=True).stdout
    for kernel, name in zip(kernels, said.splitlines()):
        if found := re.search(r"(\w+(?:<[^()]*>)?)\(", name.replace("(anonymous namespace)", "")):
            kernel.name = found[1]


def read_kernels(toolkit, source, architecture, scratch):
    cubin = scratch / f"sm_{architecture}.cubin"
    kernels = {}
    read_ptxas(compile_kernels(toolkit.nvcc, source, architecture, cubin), kernels)
    sass = run([disassembler(toolkit), "-c", cubin], stdout=subprocess.PIPE, text=True).stdout
    read_sass(sass, kernels)
    kernels = list(kernels.values())
    demangle(kernels)
    return sorted(kernels, key=lambda kernel: kernel.name)


def table(architecture, kernels):
    for kernel in kernels:
        loop = kernel.loop()
        opcodes = Counter(instruction.split(".")[0] for instruction in loop)
        numbers = [
            kernel.registers,
            count(loop, "LDG", "128"),
            count(loop, "STG", "128"),
            len(loop),
            sum(opcodes[opcode] for opcode in DOUBLE),
        ]
        yield f"sm_{architecture:<5}{kernel.name:36}" + "".join(f"{n:10}" for n in numbers)


HEAD = f"{'GPU':8}{'kernel':36}" + "".join(
    f"{word:>10}" for word in ["registers", "LDG.128", "STG.128", "in loop", "of double"]
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--arch", action="append", metavar="N", help="a GPU to compile for, 75 is sm_75 (all)"
    )
    parser.add_argument("source", type=Path, nargs="?", default=SOURCE, metavar="FILE.cu")
    arguments = parser.parse_args()
    toolkit = cuda_toolkit.find()
    known = cuda_toolkit.known_architectures(toolkit.nvcc)
    chosen = cuda_toolkit.architectures(",".join(arguments.arch or []), known)
    architectures = re.findall(r"\d+[af]?", chosen)
    print(HEAD)
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for architecture in architectures:
            kernels = read_kernels(toolkit, arguments.source, architecture, Path(folder))
            print("\n".join(table(architecture, kernels)), flush=True)
            wrong += [f"sm_{architecture}: {finding}" for finding in findings(kernels)]
    if wrong:
        print(*wrong, sep="\n")
        fail(f"{len(wrong)} findings in the machine code of {arguments.source.name}")
    print(f"check_sass: CUDA {toolkit.version}, {len(architectures)} GPUs, nothing found")


if __name__ == "__main__":
    main()
