"""What the three tools share: odd files and names, and outputs that take nothing."""

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from weighted_loss_tools import __main__, files, prototxt
from weighted_sigmoid_loss.errors import Failure, Refused

ARTICLE = Path(__file__).parent / "data" / "article.prototxt"


def start(*arguments, **keywords):
    """One of the tools as a program of its own."""
    path = [Path(__main__.__file__).parent.parent, *sys.path]
    environment = {"PYTHONPATH": os.pathsep.join(map(str, path)), **keywords.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", "weighted_loss_tools", *map(str, arguments)],
        env={**os.environ, **environment},
        timeout=60,
        **keywords,
    )


@pytest.fixture
def broken_pipe():
    """The end of a pipe that nobody reads."""
    reads, writes = os.pipe()
    os.close(reads)
    yield writes
    os.close(writes)


# What the output is


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def buffering(request, monkeypatch):
    """How the tools' Python writes its output: a caller's environment may set either."""
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


@pytest.mark.parametrize("arguments", [["migrate", "--check", ARTICLE], ["migrate", "--help"]])
def test_reader_that_has_read_enough(arguments, broken_pipe, buffering):
    done = start(*arguments, stdout=broken_pipe, stderr=subprocess.PIPE)
    # argparse passes over what it cannot print at once, as of Python 3.14.
    passed_over = "--help" in arguments and os.environ["PYTHONUNBUFFERED"] and done.returncode == 0
    assert (passed_over or done.returncode == 2) and done.stderr == b""


def test_errors_that_nobody_reads(broken_pipe):
    done = start("migrate", "missing", stdout=subprocess.PIPE, stderr=broken_pipe)
    assert (done.returncode, done.stdout) == (2, b"")


def test_output_that_is_full(tmp_path, buffering):
    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    with open(tmp_path / "out", "wb") as out:
        done = start(
            "migrate", "--check", ARTICLE, stdout=out, stderr=subprocess.PIPE, preexec_fn=no_room
        )
    assert done.returncode == 2
    assert done.stderr.decode() == "migrate: the output: File too large\n"


@pytest.mark.parametrize("closed", [1, 2])
def test_output_that_is_closed(closed, buffering):
    done = start(
        "migrate", "--check", ARTICLE, capture_output=True, preexec_fn=lambda: os.close(closed)
    )
    assert done.returncode == 1 and b"Traceback" not in done.stderr


def test_terminal_of_ascii(tmp_path):
    net = tmp_path / "net.prototxt"
    net.write_bytes(ARTICLE.read_bytes().replace(b'name: "loss"', 'name: "损失"'.encode()))
    done = start("migrate", net, env={"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert done.returncode == 0
    assert rb"layer '\u635f\u5931': becomes" in done.stderr


# What names are


def test_control_characters_are_shown(tmp_path, tools_command):
    """Not obeyed: these would color a terminal and write over the line."""
    net = tmp_path / "net\x1b[31m\n.prototxt"
    net.write_bytes(ARTICLE.read_bytes().replace(b'"loss"', rb'"a\033[31m\r\n\177b"'))
    status, _, err = tools_command("migrate", net)
    assert status == 0 and err.count("\n") == 1
    assert r"net\x1b[31m .prototxt: layer 'a\x1b[31m\r \x7fb': becomes" in err


@pytest.mark.parametrize("name", ["no\0name", "n" * 300, "n/" * 3000])
@pytest.mark.parametrize(
    "command", [["migrate"], ["calibrate", ARTICLE], ["class-weights", "--net"]]
)
def test_names_that_no_file_has(command, name, tools_command):
    status, out, err = tools_command(*command, name)
    assert (status, out) == (2, "") and err.count("\n") == 1


# What files are


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    "command",
    [["migrate"], ["calibrate", ARTICLE], ["class-weights", "--net"]],
)
def test_pipe_is_not_waited_for(command, fifo, tools_command):
    status, out, err = tools_command(*command, fifo)
    assert (status, out) == (2, "")
    assert f"{fifo}: not a regular file" in err and err.count("\n") == 1
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_special_file_is_never_replaced(tmp_path, fifo):
    link = tmp_path / "link"
    link.symlink_to(fifo)
    for path in (fifo, link):
        with pytest.raises(Refused, match="not a regular file"):
            files.write_atomic(path, b"new")
    assert link.is_symlink() and stat.S_ISFIFO(fifo.stat().st_mode)
    assert sorted(tmp_path.iterdir()) == [fifo, link]


def test_longest_name_is_rewritten(tmp_path):
    path = tmp_path / ("n" * 255)
    path.write_bytes(b"old")
    files.write_atomic(path, b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_owner_is_kept(tmp_path, monkeypatch):
    """The mode is given after the owner, whose change takes set-user-ID away."""
    path = tmp_path / "net.prototxt"
    path.write_bytes(b"old")
    path.chmod(0o4640)
    given = []

    def chown(temporary, *owner):
        given.append(owner)
        os.chmod(temporary, 0o600)

    monkeypatch.setattr(os, "chown", chown)
    files.write_atomic(path, b"new")
    assert given == [(os.getuid(), os.getgid())] and path.stat().st_mode & 0o7777 == 0o4640


def test_nothing_is_left_of_a_rewriting_that_is_stopped(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    path = tmp_path / "net.prototxt"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_folder_that_takes_no_file(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "net.prototxt"
    path.write_bytes(b"old")
    monkeypatch.setattr(files.tempfile, "mkstemp", fail)
    with pytest.raises(Failure, match="cannot be written: Permission denied"):
        files.write_atomic(path, b"new")


# What protobuf calls damaged


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\x05abc",  # a string longer than the file
        b"\x0c",  # the end of a group that has no start
        b"\x0a\x01a\x0c\x0a\x01b",  # and fields behind it, which protobuf would leave out
        b"\x00\x01",  # field number 0
        b"\x0f",  # a type of field that there is not
        b"\xff" * 11,  # a number of more than 10 bytes
    ],
)
def test_damaged_model(data):
    with pytest.raises(Refused, match="truncated or damaged"):
        prototxt.parse_binary(data)


def test_protobuf_is_silent(tmp_path, tools_command):
    """It prints a line of its own about names that are not UTF-8."""
    net, model = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    net.write_text("name: 'net'")
    model.write_bytes(b"\xa2\x06\x03\x0a\x01\xff")  # a layer of that name
    status, out, err = tools_command("calibrate", net, model)
    assert (status, out) == (2, "") and err.count("\n") == 1


def test_net_nested_too_deep():
    with pytest.raises(Refused, match="not a net's prototxt"):
        prototxt.parse("layer { " * 100_000)
