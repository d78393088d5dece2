"""Run a program of GoogleTest's, and read what it prints."""

import re
import subprocess
from dataclasses import dataclass

from _common import Failure, run

TIMEOUT = 3600  # seconds, which is several times what any program takes
EXCERPT = 30  # lines
CASE_START = re.compile(r"\[ RUN      \] (\S+)")
CASE_END = re.compile(r"\[ +(OK|FAILED) +\] ([^\s,]+)")


@dataclass(frozen=True)
class Outcome:
    text: str  # all that it printed
    results: dict  # {case: passed}; one that never ended has not passed
    excerpts: dict  # {case that failed: its last lines}
    problem: str  # a line where not all is well, else empty

    def show_failures(self):
        for name, lines in self.excerpts.items():
            print(f"--- {name}", *lines, sep="\n")


def run_gtest(program, log, only="*", **keywords):
    """Run the cases that gtest's filter ONLY takes; what they print is kept in LOG.

    The keywords are subprocess.run()'s.
    """
    argv = [program, "--gtest_color=no", f"--gtest_filter={only}"]
    problem = ""
    with log.open("wb") as stream:
        keywords.update(stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
        try:
            run(argv, remedy=f"see {log}", timeout=TIMEOUT, **keywords)
        except Failure as failure:
            problem = str(failure)
    text = log.read_text(encoding="utf-8", errors="replace")
    results, excerpts = read_gtest(text)
    if not problem and (excerpts or not results):
        problem = f"{program} succeeded without running and passing all its tests; see {log}"
    return Outcome(text, results, excerpts, problem)


def read_gtest(text):
    """The results and excerpts of an Outcome, from what a program printed."""
    results = {}
    excerpts = {}
    case, lines = None, []
    for line in text.splitlines():
        start, end = CASE_START.search(line), CASE_END.search(line)
        if start:
            case, lines = start[1], []
            results[case] = False
        elif end and case:
            results[case] = end[1] == "OK"
            if not results[case]:
                excerpts[case] = lines[-EXCERPT:]
            case = None
        else:
            lines.append(line)
    if case:
        excerpts[case] = [*lines[-EXCERPT:], "(the program ended here)"]
    return results, excerpts
