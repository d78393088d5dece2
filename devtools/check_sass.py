#!/usr/bin/python3
"""Read the machine code of our CUDA kernels, and fail where it is not as fast code is.

What is looked at, for each GPU that we compile for: no kernel keeps values in local memory (a
stack, or registers that are spilled); those that walk through the elements read and write them
16 bytes at a time, and their loops stay within a bound of instructions per element; the float
gradient has none for units of double. And the kernels' reciprocal is CUDA's own, which is correctly
rounded, but for a branch: so it is, too. --use_fast_math, which flushes subnormal floats, changes
no instruction.

The table that is printed has the registers, the 16-byte reads and writes of the kernel's loop, and
the loop's instructions per element, those for rare elements among them.

It takes nvdisasm, the toolkit's own or NVIDIA's package on PyPI; no GPU.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import cuda_toolkit
from _common import ROOT, Failure, output, program
from _sass import read_ptxas, read_sass
from make_venv import make_site

SOURCES = sorted((ROOT / "src" / "caffe" / "util").glob("weighted_sigmoid_loss*.cu"))
DISASSEMBLER = ROOT / "build" / "cuda" / "nvdisasm"
# Older ones are not on PyPI; a disassembler reads the code of older compilers.
OLDEST_DISASSEMBLER = (13, 2)

# Kernels by their demangled names, and how many 16-byte reads and writes their loops have at
# least. PassKernel's arguments: type, pass (1 loss, 2 gradient), values per vector, periodic.
EXPECTED = [
    (r"PassKernel<float, \d, 4, \w+>", "LDG", 4),
    (r"PassKernel<float, 2, 4, \w+>", "STG", 2),
    (r"PassKernel<double, \d, 2, \w+>", "LDG", 2),
    (r"PassKernel<double, 2, 2, \w+>", "STG", 1),
    (r"TargetSumsKernel<\w+>", "LDG", 1),
]
# Those that are meant to be fast: how many instructions per element their loops have at most. That
# is a tenth more than with CUDA 13.0, which has nearly as many for each GPU.
PER_ELEMENT = {
    "PassKernel<float, 1, 4, true>": 61,
    "PassKernel<float, 2, 4, true>": 39,
}
# Many GPUs have few units of double, which also convert; only sums are meant for them.
NO_DOUBLE = "PassKernel<float, 2, 4, true>"
DOUBLE = ["DADD", "DMUL", "DFMA", "DSETP", "F2F"]
FAST_MATH = "--use_fast_math"
RECIPROCAL = """\
#include "caffe/util/weighted_sigmoid_loss_math.hpp"
__global__ void Ours(float* a) { *a = caffe::weighted_sigmoid_loss::Reciprocal(*a); }
__global__ void Cuda(float* a) { *a = __frcp_rn(*a); }
"""
# An approximation, its error and the correction. CUDA's also turns the error's sign, by an FADD.
RECIPROCAL_STEPS = ["MUFU.RCP", "FFMA", "FFMA"]


def findings(kernels):
    """What is wrong, a line each."""
    for kernel in kernels:
        local = sum(kernel.count(range(len(kernel.code)), word) for word in ("LDL", "STL"))
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
            number = kernel.count(kernel.loop(), opcode, "128")
            if number < least:
                yield f"{kernel.name} has {number} {opcode}.128 in its loop, not {least} or more"
    by_name = {kernel.name: kernel for kernel in kernels}
    for name, most in PER_ELEMENT.items():
        if name not in by_name or not by_name[name].loop():
            yield f"there is no kernel {name} with a loop of 16-byte reads"
        elif (number := per_element(by_name[name])) > most:
            yield f"{name} has {number:.1f} instructions per element, not {most} or fewer"
    if NO_DOUBLE in by_name:
        kernel = by_name[NO_DOUBLE]
        if of_double := sum(kernel.count(kernel.loop(), opcode) for opcode in DOUBLE):
            yield f"{kernel.name} has {of_double} instructions of double in its loop"


def per_element(kernel):
    """The instructions in a float kernel's loop, without NOPs, for each element that it reads."""
    loop = kernel.loop()
    elements = kernel.count(loop, "LDG", "128") * 4 / 2  # a score and a target
    return (len(loop) - kernel.count(loop, "NOP")) / elements


def reciprocal_findings(kernels):
    """Where the kernels' reciprocal is not what CUDA's own one does for such numbers."""
    code_by_name = {kernel.name: kernel.code for kernel in kernels}
    for name in ("Ours", "Cuda"):
        code = [op for op in code_by_name.get(name, []) if op.startswith(("MUFU", "FFMA", "FMUL"))]
        if code[: len(RECIPROCAL_STEPS)] != RECIPROCAL_STEPS:
            yield f"the reciprocal of {name} is {' '.join(code)}, not {' '.join(RECIPROCAL_STEPS)}"


def fast_math_findings(kernels, fast_kernels):
    """Which kernels have other instructions under --use_fast_math."""
    fast_code = {kernel.name: kernel.code for kernel in fast_kernels}
    for kernel in kernels:
        if kernel.code != fast_code.get(kernel.name):
            yield f"{kernel.name} has other instructions under {FAST_MATH}"


def compile_kernels(nvcc, source, architecture, cubin, *flags):
    """Compile SOURCE for one GPU; return what ptxas says."""
    argv = [nvcc, "-std=c++11", "-O3", f"-I{ROOT / 'include'}", "-Xptxas", "-v", "-cubin"]
    argv += [f"-arch=sm_{architecture}", *flags, source, "-o", cubin]
    return output(argv, stderr=subprocess.STDOUT)


def disassembler(toolkit):
    """nvdisasm, after installing it where the toolkit has none."""
    own = toolkit.nvcc.with_name("nvdisasm")
    found = shutil.which(own) or shutil.which("nvdisasm")
    if found:
        return found
    version = max(OLDEST_DISASSEMBLER, tuple(map(int, toolkit.version.split("."))))
    package = f"nvidia-cuda-nvdisasm=={'.'.join(map(str, version))}.*"
    nvdisasm = next(make_site(DISASSEMBLER, [package]).glob("nvidia/*/bin/nvdisasm"))
    nvdisasm.chmod(0o755)
    return nvdisasm


def demangle(kernels):
    """Name kernels as the source does, without namespaces and parameters."""
    names = "\n".join(kernel.name for kernel in kernels)
    said = output(["c++filt"], input=names)
    for kernel, name in zip(kernels, said.splitlines()):
        if found := re.search(r"(\w+(?:<[^()]*>)?)\(", name.replace("(anonymous namespace)", "")):
            kernel.name = found[1]


def read_all_kernels(toolkit, sources, architecture, scratch, *flags):
    return [
        kernel
        for source in sources
        for kernel in read_kernels(toolkit, source, architecture, scratch, *flags)
    ]


def read_kernels(toolkit, source, architecture, scratch, *flags):
    cubin = scratch / f"sm_{architecture}.cubin"
    kernels = {}
    read_ptxas(compile_kernels(toolkit.nvcc, source, architecture, cubin, *flags), kernels)
    sass = output([disassembler(toolkit), "-c", cubin])
    read_sass(sass, kernels)
    kernels = list(kernels.values())
    demangle(kernels)
    return sorted(kernels, key=lambda kernel: kernel.name)


COLUMNS = ["registers", "LDG.128", "STG.128", "per element"]
HEAD = f"{'GPU':8}{'kernel':36}" + "".join(f"{word:>12}" for word in COLUMNS)


def table(architecture, kernels):
    for kernel in kernels:
        loop = kernel.loop()
        numbers = [kernel.registers, *(kernel.count(loop, word, "128") for word in ("LDG", "STG"))]
        cells = [f"{number:12}" for number in numbers]
        if kernel.name in PER_ELEMENT and loop:
            cells.append(f"{per_element(kernel):12.1f}")
        yield f"sm_{architecture:<5}{kernel.name:36}" + "".join(cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--arch", action="append", metavar="N", help="a GPU to compile for, 75 is sm_75 (all)"
    )
    parser.add_argument("sources", type=Path, nargs="*", default=SOURCES, metavar="FILE.cu")
    arguments = parser.parse_args()
    toolkit = cuda_toolkit.find()
    known = cuda_toolkit.known_architectures(toolkit.nvcc)
    chosen = cuda_toolkit.architectures(",".join(arguments.arch or []), known)
    architectures = re.findall(r"\d+[af]?", chosen)
    print(HEAD)
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        reciprocal = scratch / "reciprocal.cu"
        reciprocal.write_text(RECIPROCAL)
        for architecture in architectures:
            kernels = read_all_kernels(toolkit, arguments.sources, architecture, scratch)
            print("\n".join(table(architecture, kernels)), flush=True)
            found = [*findings(kernels)]
            found += reciprocal_findings(read_kernels(toolkit, reciprocal, architecture, scratch))
            fast = read_all_kernels(toolkit, arguments.sources, architecture, scratch, FAST_MATH)
            found += fast_math_findings(kernels, fast)
            wrong += [f"sm_{architecture}: {finding}" for finding in found]
    if wrong:
        print(*wrong, sep="\n")
        raise Failure(f"{len(wrong)} findings in the machine code of the kernels")
    print(f"check_sass: CUDA {toolkit.version}, {len(architectures)} GPUs, nothing found")


if __name__ == "__main__":
    program(main)
