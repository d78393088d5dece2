"""Running a program of GoogleTest's: what counts as passed, and what is told of the rest."""

import pytest
from stand_in_program import shell

import _gtest

PASSES = """\
[ RUN      ] ATest/0.Passes
[       OK ] ATest/0.Passes (3 ms)
"""
FAILS = """\
[ RUN      ] ATest/0.Fails
a.cpp:3: Failure
printed without a newline[  FAILED  ] ATest/0.Fails, where TypeParam = float (1 ms)
"""
DIES = """\
[ RUN      ] BTest.Dies
F0101 Check failed
"""


@pytest.fixture
def run(tmp_path):
    """Runs a program that prints this and ends so."""

    def run(text, ending="exit 0"):
        program = tmp_path / "tests"
        shell(program, f"cat <<'END'\n{text}END\n{ending}")
        return _gtest.run_gtest(program, tmp_path / "log")

    return run


def test_what_a_program_prints(run, tmp_path, capsys):
    done = run(PASSES + FAILS + DIES, "kill -SEGV $$")
    assert done.results == {"ATest/0.Passes": True, "ATest/0.Fails": False, "BTest.Dies": False}
    assert done.excerpts["ATest/0.Fails"] == ["a.cpp:3: Failure"]
    assert done.excerpts["BTest.Dies"][0] == "F0101 Check failed"
    assert f"failed with status -11; see {tmp_path / 'log'}" in done.problem
    done.show_failures()
    assert "--- BTest.Dies\nF0101 Check failed\n(the program ended here)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "ending", "problem"),
    [
        (PASSES, "exit 0", None),
        (PASSES, "exit 23", "failed with status 23"),
        (PASSES + FAILS, "exit 0", "without running and passing"),
        (PASSES + DIES, "exit 0", "without running and passing"),
        ("", "exit 0", "without running and passing"),
    ],
)
def test_problem(run, text, ending, problem):
    said = run(text, ending).problem
    assert problem in said if problem else not said


def test_case_that_hangs_is_named(run, monkeypatch):
    monkeypatch.setattr(_gtest, "TIMEOUT", 1)
    done = run(DIES, "exec sleep 60")
    assert "was not done after 1 s" in done.problem
    assert list(done.excerpts) == ["BTest.Dies"]


def test_program_that_is_not_there(tmp_path):
    assert "cannot run" in _gtest.run_gtest(tmp_path / "none", tmp_path / "log").problem
