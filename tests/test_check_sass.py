"""What check_sass.py reads in the words of ptxas and nvdisasm, and what it refuses."""

import importlib
import shutil
from pathlib import Path

import pytest

from _sass import Kernel

ROOT = Path(__file__).resolve().parent.parent
NAME = "_Z6KernelPf"
PTXAS = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z6KernelPf' for 'sm_90'
ptxas info    : Function properties for _Z6KernelPf
    {stack} bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas info    : Used 62 registers, used 1 barriers, 192 bytes smem
ptxas info    : Compile time = 210.5 ms
"""
# A loop of 16-byte accesses, and its twin for pointers that are not aligned to them; then the
# endless one after the last instruction, which every kernel has.
SASS = """\
\t.section\t.text._Z6KernelPf,"ax",@progbits
.text._Z6KernelPf:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/              @!P1 LDG.E.128.CONSTANT R16, desc[UR8][R44.64] ;
        /*0020*/              @!P1 LDG.E.128 R20, desc[UR8][R48.64] ;
        /*0030*/                   DFMA R42, R42, R10, R44 ;
        /*0040*/                   F2F.F64.F32 R44, R28 ;
        /*0050*/              @UP0 STG.E.128 desc[UR8][R38.64], R24 ;
        /*0060*/               @P0 BRA `(.L_x_1) ;
.L_x_2:
        /*0070*/                   LDG.E.128 R16, desc[UR8][R44.64] ;
        /*0080*/                   STG.E desc[UR8][R38.64], R24 ;
        /*0090*/               @P0 BRA `(.L_x_2) ;
        /*00a0*/                   LDG.E.64 R16, desc[UR8][R44.64] ;
        /*00b0*/                   EXIT ;
.L_x_3:
        /*00c0*/                   BRA `(.L_x_3) ;
"""
MORE = "NOP ;\n/*0044*/ MOV R1 ;\n/*0048*/ MOV "
SPILL = """
__global__ void Kernel(float* values, const int* order) {
  float local[64];
  for (int i = 0; i < 64; ++i) local[i] = values[i];
  for (int i = 0; i < 64; ++i) values[i] = local[order[i]];
}
"""


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "devtools")
    module = importlib.import_module("check_sass")
    monkeypatch.setattr(module, "EXPECTED", [("_Z6Kernel.*", "LDG", 2), ("_Z.*", "STG", 1)])
    # Of the loop's six instructions, for two 16-byte reads: four scores and four targets.
    monkeypatch.setattr(module, "PER_ELEMENT", {NAME: 1.5})
    return module


def read(check, sass=SASS, **numbers):
    kernels = {}
    check.read_ptxas(PTXAS.format(**{"stack": 0, "stores": 0, "loads": 0, **numbers}), kernels)
    check.read_sass(sass, kernels)
    return list(kernels.values())


def test_reads_both_programs(check):
    (kernel,) = read(check, stack=8, stores=16, loads=12)
    assert (kernel.name, kernel.registers, kernel.stack, kernel.spills) == (NAME, 62, 8, 28)
    assert len(kernel.code) == 13
    assert kernel.code[1:3] == ["LDG.E.128.CONSTANT", "LDG.E.128"]
    assert [kernel.code[place].split(".")[0] for place in kernel.loop()] == [
        *["LDG", "LDG", "DFMA", "F2F", "STG", "BRA"]
    ]


@pytest.mark.parametrize(
    ("name", "code", "is_right"),
    [
        ("Ours", "LDG MUFU.RCP FFMA FFMA STG", True),
        ("Ours", "LDG MUFU.RCP FFMA.FTZ FFMA STG", False),
        ("Ours", "LDG MUFU.RCP STG", False),
        ("Cuda", "VIADD MUFU.RCP FFMA FADD.FTZ FFMA BRA FFMA MUFU.RCP", True),
        ("Cuda", "VIADD MUFU.RCP FFMA FADD.FTZ FFMA FFMA", True),
        ("Cuda", "FMUL MUFU.RCP FFMA FADD.FTZ FFMA", False),
        ("Other", "MUFU.RCP FFMA FFMA", False),
    ],
)
def test_another_reciprocal_is_refused(check, name, code, is_right):
    both = {"Ours": "MUFU.RCP FFMA FFMA", "Cuda": "MUFU.RCP FFMA FADD.FTZ FFMA", name: code}
    if name == "Other":
        del both["Ours"]
    kernels = [Kernel(name, code=code.split()) for name, code in both.items()]
    assert (not list(check.reciprocal_findings(kernels))) == is_right


@pytest.mark.parametrize(
    ("code", "is_same"), [("FADD FMUL", True), ("FADD.FTZ FMUL", False), ("FADD", False)]
)
def test_what_fast_math_changes_is_refused(check, code, is_same):
    kernels = [Kernel(NAME, code=["FADD", "FMUL"])]
    found = list(check.fast_math_findings(kernels, [Kernel(NAME, code=code.split())]))
    assert found == [f"{NAME} has other instructions under --use_fast_math"] * (not is_same)


def test_good_code_has_no_findings(check):
    assert list(check.findings(read(check))) == []


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"stack": 8}, f"{NAME} has 8 bytes of stack, 0 bytes of spills and 0 accesses"),
        ({"stores": 4, "loads": 12}, "0 bytes of stack, 16 bytes of spills"),
    ],
)
def test_stack_and_spills_are_refused(check, numbers, message):
    (finding,) = check.findings(read(check, **numbers))
    assert message in finding


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("F2F.F64.F32 R44", "LDL.LU R4", "1 accesses to local memory"),
        ("F2F.F64.F32 R44", f"{MORE}R44", f"{NAME} has 1.8 instructions per element, not 1.5 or"),
        ("LDG.E.128.CONSTANT", "LDG.E.64", f"{NAME} has 1 LDG.128 in its loop, not 2 or more"),
        ("STG.E.128", "STG.E", "has 0 STG.128 in its loop, not 1 or more"),
        ("_Z6KernelPf", "_Z6RenamedPf", "there is no kernel _Z6Kernel.*"),
        ("_Z6KernelPf", "_Z6KernelPd", f"there is no kernel {NAME} with a loop of 16-byte reads"),
        ("LDG.E.128", "LDG.E.64", f"there is no kernel {NAME} with a loop of 16-byte reads"),
    ],
)
def test_slow_code_is_refused(check, old, new, message):
    sass = SASS.replace(old, new)
    kernels = {}
    check.read_sass(sass, kernels)
    assert message in "\n".join(check.findings(kernels.values()))


def test_double_where_all_is_float_is_refused(check, monkeypatch):
    monkeypatch.setattr(check, "NO_DOUBLE", NAME)
    assert list(check.findings(read(check))) == [f"{NAME} has 2 instructions of double in its loop"]
    of_float = SASS.replace("DFMA", "FFMA").replace("F2F.F64.F32", "MOV")
    assert list(check.findings(read(check, of_float))) == []


def test_kernels_are_named_as_in_the_source(check):
    mangled = "_ZN5caffe12_GLOBAL__N_110PassKernelIfLi1ELi4ELb1EEEvNS0_5InputIT_EEPf"
    kernels = [Kernel(mangled), Kernel("_ZN5caffe12_GLOBAL__N_16FinishEj")]
    check.demangle(kernels)
    assert [kernel.name for kernel in kernels] == ["PassKernel<float, 1, 4, true>", "Finish"]


@pytest.mark.parametrize(("own", "version"), [("13.0", "13.2"), ("12.4", "13.2"), ("14.1", "14.1")])
def test_the_disassembler_is_no_older_than_the_compiler(check, monkeypatch, tmp_path, own, version):
    asked = []

    def make_venv(folder, requirements):
        asked.append(requirements.read_text())
        program = folder / "lib/python3.11/site-packages/nvidia/cu13/bin/nvdisasm"
        program.parent.mkdir(parents=True)
        program.touch()

    monkeypatch.setattr("make_venv.make_venv", make_venv)
    monkeypatch.setattr(check, "DISASSEMBLER", tmp_path / "nvdisasm")
    monkeypatch.setattr(check.shutil, "which", lambda name: None)
    toolkit = check.cuda_toolkit.Toolkit(tmp_path / "nvcc", own, [])
    assert check.disassembler(toolkit).name == "nvdisasm"
    assert asked == [f"nvidia-cuda-nvdisasm=={version}.*\n"]


@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
def test_a_kernel_with_local_memory_is_refused(check, tmp_path):
    source = tmp_path / "spill.cu"
    source.write_text(SPILL)
    kernels = {}
    said = check.compile_kernels(shutil.which("nvcc"), source, 90, tmp_path / "cubin")
    check.read_ptxas(said, kernels)
    assert "256 bytes of stack" in next(check.findings(kernels.values()))
