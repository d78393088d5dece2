"""What the documents say of the package: their scripts, their output, their tables."""

import inspect
import re
import subprocess
import sys

import pytest

from weighted_sigmoid_loss import loss_and_grad

MANUALS = ["docs/python.md", "docs/python.zh-CN.md"]
DOCUMENTS = ["README.md", "README.zh-CN.md", *MANUALS]
ROW = re.compile(r"^(\S.*?) +(loss|gradient) +(\S+) +(\S+) +(\S+) +(\S+) +(\S+)$", re.MULTILINE)


def fenced(root, document, language):
    text = (root / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def script(root, document, with_torch):
    """The one that uses PyTorch, or the one that does not."""
    ours = [s for s in fenced(root, document, "python") if "weighted_sigmoid_loss" in s]
    (wanted,) = [s for s in ours if ("import torch" in s) == with_torch]
    return wanted


def output(*arguments, cwd=None):
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("document", DOCUMENTS)
def test_numpy_script_prints_what_the_manual_says(root, document):
    shown = fenced(root, MANUALS[0], "text")[0]
    assert output("-c", script(root, document, with_torch=False)) == shown


@pytest.mark.parametrize("document", MANUALS)
def test_torch_script_gives_the_same_gradient(root, document):
    import pytorch  # noqa: F401

    numbers = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
    shown = fenced(root, MANUALS[0], "text")[0]
    # The mean is over 4 elements, and the normalizer of the other is 2.
    of_numpy = [float(number) / 2 for number in numbers.findall(shown)[1:]]
    of_torch = [
        float(n) for n in numbers.findall(output("-c", script(root, document, with_torch=True)))
    ]
    assert of_torch == pytest.approx(of_numpy, rel=1e-4)


@pytest.mark.parametrize("document", MANUALS)
def test_table_of_parameters_is_the_signature(root, document):
    text = (root / document).read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", text, re.MULTILINE)
    of_none = {"none": "None", "\u65e0": "None"}
    given = {name: of_none.get(default, default.strip("`")) for name, default in rows}
    parameters = inspect.signature(loss_and_grad).parameters.values()
    taken = {
        p.name: f'"{p.default}"' if isinstance(p.default, str) else f"{p.default}".replace(".0", "")
        for p in parameters
        if p.default is not p.empty
    }
    assert given == taken


@pytest.fixture(scope="module")
def digits(root):
    """(scores, loss or gradient): true value, PyTorch's and its right digits, ours and its."""
    import pytorch  # noqa: F401

    return rows_of(output("-m", "benchmarks.digits", cwd=root))


def rows_of(text):
    return {(name, what): list(map(float, cells)) for name, what, *cells in ROW.findall(text)}


def test_package_keeps_the_digits_that_torch_loses(digits):
    assert len(digits) == 12
    assert all(ours >= 6.5 for *_, ours in digits.values())  # 4 ulp
    assert sum(torch < 6 for _, _, torch, _, _ in digits.values()) >= 6
    assert digits["a negative at -20", "loss"][1] == 0
    assert digits["a positive at 20", "gradient"][1] == 0


@pytest.mark.parametrize("document", MANUALS)
def test_documents_show_these_digits(root, document, digits):
    text = (root / document).read_text(encoding="utf-8")
    shown = rows_of(re.search(r"<!-- digits -->(.*?)<!-- /digits -->", text, re.DOTALL)[1])
    assert {row: (c[0], c[3], c[4]) for row, c in shown.items()} == {
        row: (c[0], c[3], c[4]) for row, c in digits.items()
    }
