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
# A loop over two vectors of 4 scores and targets: the second may be missing, and there is a branch
# for what is rare in the first.
WAYS = """\
.text._Z6KernelPf:
.L_x_1:
        /*0000*/                   LDG.E.128 R16, desc[UR8][R44.64] ;
        /*0010*/                   LDG.E.128 R20, desc[UR8][R48.64] ;
        /*0020*/                   FFMA R42, R42, R10, R44 ;
        /*0030*/                   DFMA R42, R42, R10, R44 ;
        /*0040*/               @P0 BRA P2, `(.L_x_2) ;
        /*0050*/                   DMUL R42, R42, R10 ;
        /*0060*/               @P1 BRA `(.L_x_3) ;
        /*0070*/                   DADD R42, R42, R10 ;
.L_x_3:
        /*0080*/                   DADD R42, R42, R10 ;
.L_x_2:
        /*0090*/                   NOP ;
        /*00a0*/              @!P3 BRA `(.L_x_4) ;
        /*00b0*/                   BRA `(.L_x_5) ;
.L_x_5:
        /*00c0*/                   FFMA R42, R42, R10, R44 ;
        /*00d0*/                   F2F.F64.F32 R44, R28 ;
.L_x_4:
        /*00e0*/               @P0 BRA `(.L_x_1) ;
"""
WAY = [*range(5), *range(9, 15)]
SPILL = """
__global__ void Kernel(float* values, const int* order) {
  float local[64];
  for (int i = 0; i < 64; ++i) local[i] = values[i];
  for (int i = 0; i < 64; ++i) values[i] = local[order[i]];
}
"""


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    module = importlib.import_module("check_sass")
    monkeypatch.setattr(module, "EXPECTED", [("_Z6Kernel.*", "LDG", 2), ("_Z.*", "STG", 1)])
    monkeypatch.setattr(module, "PER_ELEMENT", {})
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


def test_the_common_path_leaves_out_what_is_rare(check):
    (kernel,) = read(check, WAYS)
    assert kernel.common_path() == WAY
    # Of four elements; NOPs do not count, conversions do.
    assert check.per_element(kernel) == ((len(WAY) - 1) / 4, 2 / 4)


def test_a_kernel_without_a_loop_has_no_common_path(check):
    (kernel,) = read(check, SASS.replace("LDG.E.128", "LDG.E.64"))
    assert list(kernel.loop()) == kernel.common_path() == []


@pytest.mark.parametrize(
    ("most", "messages"),
    [
        ((2.5, 0.5), []),
        ((2.4, 0.5), [f"{NAME} takes 2.5 instructions an element, not 2.4 or less"]),
        ((2.5, 0.4), [f"{NAME} takes 0.5 instructions of double an element, not 0.4 or less"]),
    ],
)
def test_many_instructions_are_refused(check, monkeypatch, most, messages):
    monkeypatch.setattr(check, "EXPECTED", [])
    monkeypatch.setattr(check, "READS_AT_ONCE", 2)
    monkeypatch.setattr(check, "PER_ELEMENT", {NAME: most})
    assert list(check.findings(read(check, WAYS))) == messages


def test_reads_after_the_first_computation_are_refused(check, monkeypatch):
    monkeypatch.setattr(check, "EXPECTED", [])
    monkeypatch.setattr(check, "READS_AT_ONCE", 2)
    monkeypatch.setattr(check, "PER_ELEMENT", {NAME: (9, 9)})
    ldg = "/*0010*/                   LDG.E.128 R20"
    assert ldg in WAYS
    late = WAYS.replace(ldg, "/*0010*/  MOV R20").replace("NOP ;", "LDG.E.128 R20, [R48] ;")
    assert list(check.findings(read(check, WAYS))) == []
    assert list(check.findings(read(check, late))) == [
        f"{NAME} computes before it has begun 2 reads"
    ]


@pytest.mark.parametrize("sass", [WAYS.replace("_Z6K", "_Z6L"), WAYS.replace("E.128", "E.64")])
def test_a_fast_kernel_that_is_not_there_is_refused(check, monkeypatch, sass):
    monkeypatch.setattr(check, "EXPECTED", [])
    monkeypatch.setattr(check, "PER_ELEMENT", {NAME: (9, 9)})
    kernels = {}
    check.read_sass(sass, kernels)
    (finding,) = check.findings(list(kernels.values()))
    assert finding == f"there is no kernel {NAME} with a loop of 16-byte reads"


@pytest.mark.parametrize(
    ("name", "code", "is_right"),
    [
        ("Ours", "LDG MUFU.RCP FFMA FFMA STG", True),
        ("Ours", "LDG MUFU.RCP FFMA.FTZ FFMA STG", False),
        ("Cuda", "VIADD MUFU.RCP FFMA FADD.FTZ FFMA BRA FFMA MUFU.RCP", True),
        ("Cuda", "VIADD MUFU.RCP FFMA FADD.FTZ FFMA FFMA", True),
        ("Cuda", "FMUL MUFU.RCP FFMA FADD.FTZ FFMA", False),
        ("Other", "MUFU.RCP FFMA FFMA", False),
    ],
)
def test_another_reciprocal_is_refused(check, name, code, is_right):
    right = {"Ours": "MUFU.RCP FFMA FFMA", "Cuda": "MUFU.RCP FFMA FADD.FTZ FFMA", name: code}
    if name == "Other":
        del right["Ours"]
    kernels = [Kernel(name, code=code.split()) for name, code in right.items()]
    assert (not list(check.reciprocal_findings(kernels))) == is_right


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
        ("LDG.E.128.CONSTANT", "LDG.E.64", f"{NAME} has 1 LDG.128 in its loop, not 2 or more"),
        ("STG.E.128", "STG.E", "has 0 STG.128 in its loop, not 1 or more"),
        ("_Z6KernelPf", "_Z6RenamedPf", "there is no kernel _Z6Kernel.*"),
    ],
)
def test_slow_code_is_refused(check, old, new, message):
    sass = SASS.replace(old, new)
    kernels = {}
    check.read_sass(sass, kernels)
    assert message in "\n".join(check.findings(kernels.values()))


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

    monkeypatch.setattr(check, "make_venv", make_venv)
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


def test_the_document_has_what_an_element_takes(check, tmp_path):
    """With the compiler that the figures are from."""
    nvcc = shutil.which("nvcc") or "nvcc"
    if check.cuda_toolkit.machine_nvcc() != (Path(nvcc), "13.0") or not check.DISASSEMBLER.exists():
        pytest.skip("needs CUDA 13.0 and `make cuda-check`")
    toolkit = check.cuda_toolkit.Toolkit(Path(nvcc), "13.0", [])
    names = {"loss": 1, "gradient": 2, "one pass": 3}
    kernels = {k.name: k for k in check.read_kernels(toolkit, check.SOURCE, 90, tmp_path)}
    lines = [f"{'kernel':14}{'instructions':>12}{'of double':>11}"]
    for name, number in names.items():
        all_of_it, of_double = check.per_element(kernels[f"PassKernel<float, {number}, 4, true>"])
        lines.append(f"{name:14}{all_of_it:12.1f}{of_double:11.1f}")
    for document in ("gpu.md", "gpu.zh-CN.md"):
        text = (ROOT / "docs" / document).read_text(encoding="utf-8")
        assert "```text\n" + "\n".join(lines) + "\n```" in text
