"""The CPU kernel's pool of threads in all that may happen to a process. What the pool does within
one is tested in C++, src/caffe/test/test_weighted_sigmoid_loss_pool.cpp."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [
    ROOT / "src" / "caffe" / "util" / "weighted_sigmoid_loss_pool.cpp",
    ROOT / "tests" / "pool.cpp",
]
# What each program begins with: the library, and how many threads the process has.
BEGINNING = """
import ctypes, os, resource, signal, sys, time, _ctypes

signal.alarm(60)
pool = ctypes.CDLL(sys.argv[1])
pool.Threads.argtypes = [ctypes.c_int64]

def threads():
    return len(os.listdir("/proc/self/task"))

def succeeds(function):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if function() else 1)
    return os.waitpid(child, 0)[1] == 0
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("pool") / "pool.so"
    compiler = ["g++", "-std=c++11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-pthread"]
    argv = [*compiler, f"-I{ROOT / 'include'}", *SOURCES, "-shared", "-o", path]
    subprocess.run(argv, check=True)
    return path


@pytest.fixture
def run(library):
    """Runs a program in a process of its own; returns what it printed."""

    def run(program, **environment):
        kept = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        # Python warns of forks beside threads, which are what is tested.
        argv = [sys.executable, "-Wignore::DeprecationWarning", "-c", BEGINNING + program, library]
        done = subprocess.run(
            argv, env={**kept, **environment}, text=True, capture_output=True, timeout=120
        )
        if done.returncode == 77:
            pytest.skip(done.stdout.strip())
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


def test_threads_are_the_processors_that_the_process_may_use(run):
    """Those of a container's cpuset are such. They are found at the first need."""
    one = "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    program = "print(pool.Threads(1 << 30))"
    assert int(run(program)) == len(os.sched_getaffinity(0))
    assert int(run(one + program)) == 1


@pytest.mark.parametrize(
    ("chosen", "threads"),
    [("3", 3), ("3,2", 3), ("0", None), ("-1", None), ("", None), ("a", None)],
)
def test_omp_num_threads(run, chosen, threads):
    program = "print(pool.Threads(1 << 30))"
    expected = threads or len(os.sched_getaffinity(0))
    assert int(run(program, OMP_NUM_THREADS=chosen)) == expected
    at_first_need = f"os.environ['OMP_NUM_THREADS'] = {chosen!r}\n"
    assert int(run(at_first_need + program)) == expected


def test_large_input_takes_a_thread_for_65536_elements(run):
    program = "print(*[pool.Threads(count << 16) for count in (1, 2, 3, 8, 9)])"
    assert run(program, OMP_NUM_THREADS="8").split() == ["1", "2", "3", "8", "8"]


def test_threads_come_with_the_first_call_and_stay(run):
    program = "print([(pool.Call(3), threads()) for _ in range(3)], pool.Call(5), threads())"
    assert run(f"print(threads())\n{program}").split("\n", 1) == [
        "1",
        "[(64, 3), (64, 3), (64, 3)] 64 5\n",
    ]


def test_threads_that_the_system_does_not_give(run):
    """Some, and later all, when there is room again."""
    program = """
stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 5 * stack // 2, resource.RLIM_INFINITY))
print(pool.Call(8), threads() < 8)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(pool.Call(8), threads())
"""
    assert run(program) == "64 True\n64 8\n"


@pytest.mark.parametrize("before", ["", "pool.Call(4)"], ids=["first call there", "called before"])
def test_pid_namespace(run, before):
    """After unshare() the process gets no new threads; its child is number 1."""
    program = f"""
{before}
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x20000000):  # CLONE_NEWPID
    print("no PID namespace:", os.strerror(ctypes.get_errno()))
    sys.exit(77)
print(pool.Call(4))
print(succeeds(lambda: os.getpid() == 1 and pool.Call(4) == 64 and threads() == 4))
print(pool.Call(4))
"""
    assert run(program) == "64\nTrue\n64\n"


@pytest.mark.parametrize("ends", ["sys.exit()", "os._exit(0)"])
@pytest.mark.parametrize("before", ["pool.Call(4)", "time.sleep(0.1)"], ids=["asleep", "at work"])
def test_program_ends(run, before, ends):
    """While helpers sleep, or look for work, or do it for calls that never end."""
    at_work = "pool.CallOnAndOn(); pool.CallOnAndOn()\n" if "sleep" in before else ""
    run(f"{at_work}{before}\n{ends}")


def test_threads_may_use_all_processors_in_the_end(run):
    """For a moment they may not use the caller's, where they were woken on it."""
    program = """
for _ in range(200):
    pool.Call(8)
time.sleep(0.1)
print(*{os.sched_getaffinity(int(task)) == os.sched_getaffinity(0)
        for task in os.listdir("/proc/self/task")}, threads())
"""
    assert run(program) == "True 8\n"


def test_signals_are_left_to_the_programs_threads(run):
    program = """
pool.Call(4)
masks = [line for task in os.listdir("/proc/self/task")
         for line in open(f"/proc/self/task/{task}/status") if line.startswith("SigBlk")]
print(sum(int(mask.split()[1], 16) >> (signal.SIGINT - 1) & 1 for mask in masks))
"""
    assert int(run(program)) == 3


def test_library_is_unloaded(run):
    """And loaded again; a forked process calls nothing of what is no longer there."""
    program = """
def unload():
    global pool
    handle, pool = pool._handle, None
    _ctypes.dlclose(handle)

for _ in range(3):
    print(pool.Call(4), threads())
    unload()
    print(threads(), sys.argv[1] in open("/proc/self/maps").read())
    print(succeeds(lambda: True))
    pool = ctypes.CDLL(sys.argv[1])
print(succeeds(lambda: pool.Call(4) == 64 and not unload() and threads() == 1))
"""
    assert run(program) == "64 4\n1 False\nTrue\n" * 3 + "True\n"
