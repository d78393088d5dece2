"""`make sanitize`: what it finds, on which instruction sets, and that what it finds counts."""

import os
import re
import subprocess
import sys

import pytest
from stand_in_program import shell

import build
import sanitize
from _common import Failure

# The compiler does not know what two is.
PROGRAM = """\
#include <cstdlib>
#include <vector>

int main(int argc, char** argv) {
  const int two = argc > 1 ? std::atoi(argv[1]) : 2;
  int* numbers = new int[two]();
  %s
  delete[] numbers;
  return numbers != nullptr ? 0 : 1;
}
"""
FAULTS = {
    # UndefinedBehaviorSanitizer's, with GCC 16, or AddressSanitizer's
    "return numbers[two];": "with insufficient space|heap-buffer-overflow",
    "return two + 0x7fffffff;": "signed integer overflow",
    "numbers[0] = static_cast<int>(2e9f * two);": "outside the range of representable values",
    "std::vector<int> one(two); one.reserve(9); numbers[0] = one[two];": "Assertion",
    "numbers = new int[two]();": "LeakSanitizer",
}


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_fault_is_found(fault, tmp_path):
    source, program = tmp_path / "fault.cpp", tmp_path / "fault"
    source.write_text(PROGRAM % fault)
    compiler = ["g++", "-O1", "-g1", *sanitize.SANITIZERS, source, "-o", program]
    subprocess.run(compiler, env=build.build_environment(), check=True)
    environment = {**os.environ, **sanitize.OPTIONS}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run([program], env=environment, **piped)
    if fault:
        assert done.returncode != 0
        if "Assertion" in FAULTS[fault] and not done.stdout:
            pytest.skip("this GCC, as 10, prints failed assertions to where abort() loses them")
        (found, *_) = filter(sanitize.FOUND.search, done.stdout.splitlines())
        assert re.search(FAULTS[fault], done.stdout[done.stdout.index(found) :])
    else:
        assert (done.returncode, done.stdout) == (0, "")


RACE = """\
#include <thread>

int main() {
  int number = 0;
  std::thread other([&] { ++number; });
  ++number;
  other.join();
}
"""


def test_race_is_found(tmp_path):
    source, program = tmp_path / "race.cpp", tmp_path / "race"
    source.write_text(RACE)
    compiler = ["g++", *sanitize.THREAD_SANITIZER, "-pthread", source, "-o", program]
    subprocess.run(compiler, env=build.build_environment(), check=True)
    environment = {**os.environ, **sanitize.OPTIONS}
    done = subprocess.run([program], env=environment, stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0
    assert "ThreadSanitizer: data race" in next(
        filter(sanitize.FOUND.search, done.stderr.splitlines())
    )


PASSED = """\
echo "[ RUN      ] ATest.Passes"
echo "[       OK ] ATest.Passes (3 ms)"
"""
SETS = (
    '[ "$WEIGHTED_SIGMOID_LOSS_ISA" != best ] || '
    'echo "WEIGHTED_SIGMOID_LOSS_ISA=best is not used: this machine has new old; new is." >&2\n'
)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs sanitize.py on a shell script instead of the tests; returns status and output."""
    monkeypatch.setattr("sys.argv", ["sanitize.py"])
    one = build.Build("cpu", 1, tmp_path / "sanitize")
    one.tree.mkdir(parents=True)
    monkeypatch.setattr(sanitize, "build_tests", lambda jobs: one)
    monkeypatch.setattr(sanitize, "run_threads", lambda folder: print("sanitize: threads"))

    def run(text):
        shell(one.tests, text)
        try:
            sanitize.main()
        except Failure as failure:
            print(failure, file=sys.stderr)
            return failure.status, capsys.readouterr()
        return 0, capsys.readouterr()

    return run


def test_every_instruction_set_is_run(run, tmp_path):
    status, printed = run(f'echo "$WEIGHTED_SIGMOID_LOSS_ISA" >> sets\n{SETS}{PASSED}')
    assert status == 0
    assert (tmp_path / "sanitize" / "caffe" / "sets").read_text().split() == ["best", "old"]
    assert "best was new" in printed.out
    assert "old: 1 tests passed, nothing found" in printed.out
    assert "sanitize: threads" in printed.out


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ('echo "==1==ERROR: LeakSanitizer: detected memory leaks" >&2; exit 23', "memory leaks"),
        ('echo "a.cpp:1:2: runtime error: overflow" >&2; exit 1', "runtime error"),
        ('echo "[ RUN      ] ATest.Ends"', "ATest.Ends"),
        ('[ "$WEIGHTED_SIGMOID_LOSS_ISA" != old ] || { echo killed; exit 9; }', "killed"),
    ],
)
def test_what_is_found_fails(run, tmp_path, ending, said):
    status, printed = run(f"{SETS}{PASSED}{ending}\n")
    *excerpt, last = printed.err.splitlines()
    assert status == 1
    assert said in "\n".join(excerpt)
    assert f"see {tmp_path / 'sanitize' / 'tests.'}" in last


@pytest.mark.parametrize("text", ["exit 0\n", PASSED])
def test_nothing_run_is_no_success(run, text):
    status, _ = run(text)
    assert status == 1
