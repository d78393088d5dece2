"""docs/layer.md: its parameters are the message's, its tests exist, and both languages agree."""

import re

import pytest
import test_docs
from test_docs import NONE, PARAMETER, ROOT, code, default_text, table_with

CATALOGUES = ["docs/layer.md", "docs/layer.zh-CN.md"]


def names_of_tests():
    """Those of gtest, and pytest's."""
    kinds = {
        "src/caffe/test/*.cpp": r"^(?:TYPED_)?TEST(?:_[FP])?\(\w+,\s*(\w+)\)",
        "tests/test_*.py": r"^def (test_\w+)\(",
    }
    return {
        name
        for pattern, definition in kinds.items()
        for path in ROOT.glob(pattern)
        for name in re.findall(definition, path.read_text(encoding="utf-8"), re.MULTILINE)
    }


@pytest.mark.parametrize("document", CATALOGUES)
def test_tests_exist(document):
    named = {text for text in code(document) if re.fullmatch(r"[Tt]est\w+", text)}
    assert len(named) >= 15
    assert named <= names_of_tests()


@pytest.mark.parametrize("document", CATALOGUES)
@pytest.mark.parametrize(
    ("a_test", "column"), [("test_zero_weights_count", 2), ("test_any_combination", 1)]
)
def test_every_row_names_its_test(document, a_test, column):
    (rows,) = (t for t in test_docs.tables(document) if any(a_test in row for row in t))
    for row in rows:
        assert row[column] in names_of_tests(), row


@pytest.mark.parametrize("document", CATALOGUES)
def test_parameters_are_the_message(document):
    rows = {
        name: "none" if default in NONE else default
        for name, default, _ in table_with(document, "cls_weight")
    }
    assert rows == {field.name: default_text(field) for field in PARAMETER.fields}
    values = PARAMETER.fields_by_name["class_balance"].enum_type.values_by_name
    (meaning,) = (row[2] for row in table_with(document, "cls_weight") if "class_balance" in row)
    assert set(re.findall(r"`([A-Z_]+)`[:\uff1a]", meaning)) == set(values)


def test_languages_agree():
    test_docs.test_languages_have_the_same_parts(*CATALOGUES)
    test_docs.test_languages_have_the_same_formulas_and_figures(*CATALOGUES)
