"""How programs end, and what scripts/ and devtools/ may import."""

import ast
import errno
import os
import re
import subprocess
import sys

import pytest

from _common import ROOT, Failure, program, run, write_atomic

SCRIPTS, DEVTOOLS = ROOT / "scripts", ROOT / "devtools"


def ending(error):
    def main():
        if error:
            raise error

    with pytest.raises(SystemExit) as stop:
        program(main)
    return stop.value.code or 0


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (None, 0, ""),
        (Failure("the disk of a is full"), 1, "the disk of a is full"),
        (Failure("b does not exist", 2), 2, "b does not exist"),
        (KeyboardInterrupt(), 130, "interrupted; run it again"),
        (FileNotFoundError(errno.ENOENT, "No such file", "c"), 1, "c: No such file"),
        (
            OSError(errno.ENOSPC, "No space left on device", "d"),
            1,
            "d: No space left on device: make room and run it again",
        ),
    ],
)
def test_a_program_ends_with_one_line(monkeypatch, capsys, error, status, message):
    monkeypatch.setattr(sys, "argv", ["/a/folder/name.py"])
    assert ending(error) == status
    assert capsys.readouterr().err == (f"name.py: {message}\n" if message else "")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["/none"], "cannot run /none: No such file or directory"),
        (["sh", "-c", "exit 3"], "sh -c exit 3 failed with status 3"),
    ],
)
def test_a_command_that_fails(argv, message):
    with pytest.raises(Failure) as stop:
        run(argv)
    assert str(stop.value) == message


def test_a_command_that_is_not_done_in_time():
    with pytest.raises(Failure, match=r"^sleep was not done after 0\.1 s; see a\.log$"):
        run(["sleep", "9"], timeout=0.1, remedy="see a.log")


@pytest.mark.parametrize(
    ("said", "remedy"), [("oops", "is it there?"), ("No space left on device", "the disk is full")]
)
def test_a_quiet_command_is_heard_where_it_fails(capfd, said, remedy):
    run(["echo", said], quiet=True)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(Failure, match=f"failed with status 1; {re.escape(remedy)}$"):
        run(["sh", "-c", f"echo {said}; exit 1"], quiet=True, remedy="is it there?")
    assert capfd.readouterr().err == f"{said}\n"


def test_a_file_is_replaced_whole(tmp_path, monkeypatch):
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to("file")
    write_atomic(link, b"new")
    assert link.is_symlink() and path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"newer")
    assert path.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_scripts_do_without_docstrings_and_their_folder_on_the_path(path, tmp_path):
    environment = {**os.environ, "PYTHONOPTIMIZE": "2", "PYTHONSAFEPATH": "1"}
    asked = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run(["/usr/bin/python3", path, "--help"], **asked)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {path.name}")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_scripts_never_import_devtools():
    """A user's command may not hang on what only maintainers have."""
    theirs = {path.stem for path in DEVTOOLS.glob("*.py")} | {"devtools"}
    assert "lint" in theirs
    for path in SCRIPTS.glob("*.py"):
        assert not theirs & set(imported(path)), path.name


def test_apply_and_what_it_imports_are_python_3_6():
    pending, seen = ["apply"], set()
    while pending:
        path = SCRIPTS / f"{pending.pop()}.py"
        if path.exists() and path not in seen:
            seen.add(path)
            ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 6))
            pending += imported(path)
    assert SCRIPTS / "_common.py" in seen
