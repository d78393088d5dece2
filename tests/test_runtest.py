"""`make runtest` itself: that no case of upstream's can get lost, and that failures count."""

import pytest

import runtest
from _upstream_cases import active, upstream_cases

GTEST = """\
[ RUN      ] ATest/0.Passes
[       OK ] ATest/0.Passes (3 ms)
[ RUN      ] ATest/0.Fails
a.cpp:3: Failure
printed without a newline[  FAILED  ] ATest/0.Fails, where TypeParam = float (1 ms)
[ RUN      ] BTest.Dies
F0101 Check failed
"""


def test_list_is_that_of_the_unpatched_tree(pristine):
    assert runtest.LIST.read_text().split() == upstream_cases(pristine)


def test_preprocessor():
    text = "#ifndef CPU_ONLY\na\n#ifdef USE_LMDB\nb\n#endif\n#else  // no GPU\nc\n#endif\n/*d*/e\n"
    assert active(text).split() == ["c", "e"]


def test_lost_case_is_missed(capsys):
    names = runtest.LIST.read_text().split()
    assert runtest.missing_upstream_cases(dict.fromkeys(names, True)) == []
    assert runtest.missing_upstream_cases(dict.fromkeys(names[1:], True)) == [names[0]]
    assert names[0] in capsys.readouterr().out


def test_gtest_output():
    results, excerpts = runtest.read_gtest(GTEST)
    assert results == {"ATest/0.Passes": True, "ATest/0.Fails": False, "BTest.Dies": False}
    assert excerpts["ATest/0.Fails"] == ["a.cpp:3: Failure"]
    assert excerpts["BTest.Dies"][0] == "F0101 Check failed"


@pytest.mark.parametrize(
    ("results", "line"),
    [
        ([True, True], "2 passed, 0 failed"),
        ([True, False], "1 passed, 1 failed"),
        ([True, None], "1 passed, 0 failed, 1 skipped"),
    ],
)
def test_last_line_has_the_totals(capsys, results, line):
    good = runtest.table({"a suite": dict(enumerate(results))})
    assert capsys.readouterr().out.splitlines()[-1] == line
    assert good == (False not in results)
