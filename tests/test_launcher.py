"""build/cpu/install/bin/weighted-loss: it runs on its own Python and pycaffe from anywhere."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in_program import shell

from weighted_loss_tools import __main__

ARTICLE = Path(__file__).parent / "data" / "article.prototxt"
TYPE = "SigmoidCrossEntropyWeightLoss"


@pytest.fixture(scope="module")
def launcher(caffe_install):
    return caffe_install / "bin" / "weighted-loss"


def migrated(program, cwd, **environment):
    """Have it migrate the article's prototxt, of which it prints the change."""
    done = subprocess.run(
        [program, "migrate", "--check", ARTICLE],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.returncode == 1 and f'+    type: "{TYPE}"\n' in done.stdout


def test_empty_environment(launcher, tmp_path):
    assert migrated(launcher, tmp_path)


def test_other_pythons_and_their_modules(launcher, tmp_path):
    """pyenv or conda first on PATH, and variables that lead Python elsewhere."""
    for name in ("python", "python3", "python3.12"):
        shell(tmp_path / name, "exit 3")
    for name in ("caffe", "numpy", "weighted_loss_tools", "weighted_sigmoid_loss", "argparse"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the wrong {name}')\n")
    assert migrated(
        launcher,
        tmp_path,
        PATH=f"{tmp_path}:/usr/bin:/bin",
        PYTHONPATH=str(tmp_path),
        PYTHONHOME=str(tmp_path),
        PYTHONSTARTUP=str(tmp_path / "caffe.py"),
        VIRTUAL_ENV=str(tmp_path),
    )


def test_symbolic_links(launcher, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "loss").symlink_to(launcher)
    (tmp_path / "caffe").symlink_to(launcher.parent.parent)
    assert migrated(tmp_path / "bin" / "loss", tmp_path)
    assert migrated(tmp_path / "caffe" / "bin" / "weighted-loss", "/")


def test_moved_installation_runs_on_its_own_pycaffe(launcher, tmp_path):
    moved = shutil.copytree(launcher.parent.parent, tmp_path / "moved", symlinks=True)
    program = moved / "bin" / "weighted-loss"
    assert migrated(program, tmp_path)
    (moved / "python" / "caffe" / "__init__.py").write_text("raise ImportError('the moved one')\n")
    done = subprocess.run([program, "migrate", ARTICLE], env={}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "pycaffe is needed and cannot be imported (the moved one)" in done.stderr


def test_help_has_the_name_and_the_commands(launcher):
    done = subprocess.run([launcher, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: weighted-loss ")
    words = " ".join(done.stdout.split())
    for name, module in __main__.COMMANDS.items():
        assert name in words and module.__doc__.splitlines()[0] in words


def test_package_says_where_its_commands_are():
    package = Path(__main__.__file__).parent.parent
    argv = [sys.executable, "-m", "weighted_sigmoid_loss", "migrate", "net.prototxt"]
    done = subprocess.run(argv, cwd=package, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "build/cpu/install/bin/weighted-loss" in done.stderr and done.stderr.count("\n") == 1
