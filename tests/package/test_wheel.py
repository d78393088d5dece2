"""The wheel and the sdist as files, and as a user has them: installed, typed, quick to import."""

import re
import resource
import subprocess
import sys
import tarfile
import textwrap
import zipfile

import pytest

LIMIT = 1_100_000  # bytes; GCC 10's is the largest
CLIENT = """
import numpy as np
import numpy.typing as npt
import weighted_sigmoid_loss as wsl

scores: npt.NDArray[np.float32] = np.zeros((3, 2), np.float32)
loss, grad = wsl.loss_and_grad(scores, scores, cls_weight=[1.0, 2.5], out=scores)
other: float = wsl.loss(scores, scores, class_balance="batch") + loss
scalars: float = wsl.loss(scores, scores, cls_weight=np.float32(2), ignore_label=np.int8(-1))
same: npt.NDArray[np.float32] = grad
"""
TORCH_CLIENT = """
import torch
from weighted_sigmoid_loss.torch import BCEWithLogitsLoss, binary_cross_entropy_with_logits

scores = torch.zeros(3, 2)
loss: torch.Tensor = binary_cross_entropy_with_logits(scores, scores, reduction="sum")
module: torch.nn.Module = BCEWithLogitsLoss(pos_weight=torch.ones(2))
"""


@pytest.fixture(scope="module")
def wheel(root):
    (path,) = (root / "build" / "wheels").glob("*.whl")
    return path


def test_wheel_is_small_and_for_any_linux(wheel):
    assert wheel.stat().st_size < LIMIT
    assert re.search(r"-manylinux_2_\d+_\w+\.whl$", wheel.name)


def test_sdist_has_the_kernel_and_no_caffe(wheel, root):
    (path,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    kernel = [
        p.relative_to(root).as_posix()
        for folder in ("src", "include")
        for p in (root / folder).rglob("util/weighted_sigmoid_loss*.[ch]pp")
    ]
    assert len(kernel) >= 8 and names >= {*kernel, "LICENSE"}
    assert not [name for name in names if "layer" in name.lower() or name.startswith("caffe_patch")]


def check_types(root, arguments):
    mypy = [root / "build" / "wheel-venv" / "bin" / "python", "-m", "mypy", "--strict"]
    options = [
        "--python-executable",
        sys.executable,
        f"--cache-dir={root / 'build' / 'mypy_cache'}",
    ]
    done = subprocess.run(
        [*mypy, *options, *arguments], cwd="/", capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_types(root, tmp_path):
    """mypy --strict of the installed package, and of a program that uses it."""
    pytest.importorskip("numpy.typing")
    client = tmp_path / "client.py"
    client.write_text(CLIENT)
    check_types(root, ["-m", "weighted_sigmoid_loss"])
    check_types(root, [client])


def test_types_of_torch(root, tmp_path):
    import pytorch  # noqa: F401

    client = tmp_path / "client.py"
    client.write_text(TORCH_CLIENT)
    check_types(root, ["-m", "weighted_sigmoid_loss.torch"])
    check_types(root, [client])


def python(code, **environment):
    """Seconds of a processor that a new Python takes for it, started with an empty environment."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_import_needs_neither_torch_nor_a_compiler(tmp_path):
    python(
        """
        import sys
        from weighted_sigmoid_loss import loss, loss_and_grad
        assert not {"torch", "caffe", "h5py"} & set(sys.modules)
        """,
        PATH=str(tmp_path),
    )


def test_import_is_quick():
    """It adds little to NumPy's own import; the best of five, since others use the machine, too."""
    # OpenBLAS's threads wait for work with the processor, more or less of it by chance.
    alone = {"OPENBLAS_NUM_THREADS": "1"}
    turns = [
        (
            python("import numpy", **alone),
            python("import weighted_sigmoid_loss", **alone),
        )
        for _ in range(5)
    ]
    numpy, ours = map(min, zip(*turns))
    assert ours < 1.5 * numpy


def test_names_are_shown_before_first_use():
    python(
        """
        import weighted_sigmoid_loss as wsl
        assert {"loss", "loss_and_grad"} <= set(dir(wsl))
        assert "normalizer" in wsl.loss_and_grad.__doc__
        before = {*globals(), "before"}
        from weighted_sigmoid_loss import *
        assert {*globals()} - before == {"loss", "loss_and_grad"}
        """
    )


def test_version(wheel):
    argv = [sys.executable, "-m", "weighted_sigmoid_loss", "--version"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    name, version = said.split()
    assert wheel.name.startswith(f"{name.replace('-', '_')}-{version}-")


def test_description_has_no_link_that_an_index_cannot_follow(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        text = archive.read(metadata).decode()
    assert "Keywords:" in text and "Classifier: Intended Audience" in text
    assert not re.findall(r"\]\((?!#|https?:)", text)


def test_instruction_set_can_be_forced():
    code = """
    import sys
    from weighted_sigmoid_loss import _kernel
    sys.exit(_kernel.instruction_set() != "baseline")
    """
    python(code, WEIGHTED_SIGMOID_LOSS_ISA="baseline")
