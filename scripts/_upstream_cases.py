"""Upstream's C++ test cases on a CPU, from its sources: what gtest is to list, no build needed."""

import re

from _common import Failure

# What a CPU build defines of what upstream's tests ask for.
DEFINED = {"CPU_ONLY", "USE_HDF5", "USE_LEVELDB", "USE_LMDB", "USE_OPENCV"}
CONDITION = re.compile(r"\s*#\s*(ifdef|ifndef|if|elif|else|endif)\b(.*)")
CASE = re.compile(r"^\s*(TEST|TEST_F|TYPED_TEST)\(\s*(\w+)\s*,\s*(\w+)\s*\)", re.MULTILINE)
# Every list of types in upstream's tests has two entries on a CPU: float and double, or two
# databases. `suite/0` and `suite/1` are gtest's names of the two.
TYPES = 2
# What gtest itself lists of upstream's last commit, so that no case is lost to a fault in here.
TOTAL = 1162


def upstream_cases(tree):
    """The names, suite.case, without those that need a GPU."""
    names = set()
    for source in sorted((tree / "src" / "caffe" / "test").glob("test_*.cpp")):
        for macro, suite, case in CASE.findall(active(source.read_text(encoding="utf-8"))):
            typed = macro == "TYPED_TEST"
            suites = [f"{suite}/{i}" for i in range(TYPES)] if typed else [suite]
            names.update(f"{name}.{case}" for name in suites)
    names = {name for name in names if "GPU" not in name}
    if len(names) != TOTAL:
        raise Failure(f"{len(names)} of upstream's test cases are in {tree}, not {TOTAL}")
    return names


def active(text):
    """The lines that the preprocessor keeps."""
    kept = []
    taken = []
    for line in re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).splitlines():
        condition = CONDITION.match(line)
        if not condition:
            if all(taken):
                kept.append(line)
        elif condition[1] == "endif":
            taken.pop()
        elif condition[1] == "else":
            taken[-1] = not taken[-1]
        else:
            names = re.findall(r"[A-Z]\w+", condition[2].split("//")[0])
            taken.append(all(name in DEFINED for name in names) == (condition[1] != "ifndef"))
    return "\n".join(kept)
