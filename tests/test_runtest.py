"""`make runtest` itself: that no case of upstream's can get lost, and that failures count."""

import re
import sys

import pytest

import _upstream_cases
import runtest
from _common import Failure
from _upstream_cases import active, upstream_cases


def test_cases_of_the_unpatched_tree(pristine):
    names = upstream_cases(pristine)
    assert {"SyncedMemoryTest.TestInitialization", "LRNLayerTest/1.TestSetupAcrossChannels"} < names
    assert not [name for name in names if "GPU" in name]


def test_parser_that_loses_a_case_is_refused(pristine, monkeypatch):
    one_less = re.compile(_upstream_cases.CASE.pattern.replace("TEST_F", "TEST_G"), re.MULTILINE)
    monkeypatch.setattr(_upstream_cases, "CASE", one_less)
    with pytest.raises(Failure, match=r"\d+ of upstream's test cases are in .*, not 1162$"):
        upstream_cases(pristine)


def test_preprocessor():
    text = "#ifndef CPU_ONLY\na\n#ifdef USE_LMDB\nb\n#endif\n#else  // no GPU\nc\n#endif\n/*d*/e\n"
    assert active(text).split() == ["c", "e"]


def test_lost_case_is_missed(capsys):
    upstream = {"ATest/0.Passes", "BTest.Dies"}
    results = {"ATest/0.Passes": True, "OurTest.Passes": True}
    assert runtest.missing_cases(upstream, results) == ["BTest.Dies"]
    assert "BTest.Dies" in capsys.readouterr().out
    assert runtest.missing_cases(upstream, {**results, "BTest.Dies": False}) == []


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


def test_settings_of_python_stay_out_of_the_tests(tmp_path, monkeypatch):
    """With PYTHONOPTIMIZE no assert would fail."""
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    test = tmp_path / "test_it.py"
    test.write_text("def test_it():\n    assert not __debug__\n")
    assert runtest.python_tests(tmp_path, "failing", test, python=sys.executable) == {0: False}
