"""Records of executed notebooks, compared with expected.yml."""

from __future__ import annotations

import math

import nbformat
import pytest

import check

EXPECTED = """
a:
  bounded: {source: theory, quick: {max: 2}, book: {max: 1}}
  close: {source: exact, value: 1, tolerance: 0.1}
"""


@pytest.fixture
def executed(tmp_path):
    """Write a notebook as papermill leaves it, with these records, and references beside it."""
    (tmp_path / "expected.yml").write_text(EXPECTED)

    def write(*records):
        outputs = [
            nbformat.v4.new_output(
                "display_data", data={check.MIME_TYPE: repr(value)}, metadata={"scrapbook": {"name": name}}
            )
            for name, value in records
        ]
        cells = [nbformat.v4.new_code_cell("", outputs=outputs[:1]), nbformat.v4.new_code_cell("", outputs=outputs[1:])]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
        return tmp_path / "a.ipynb"

    return write


def test_records_are_read_back_exactly_and_in_order(executed):
    values = {"third": 1 / 3, "tiny": 1e-300}
    assert list(check.read_records(executed(*values.items())).items()) == list(values.items())


def test_a_name_recorded_twice_is_refused(executed):
    with pytest.raises(ValueError, match="'x' is made twice in a.ipynb"):
        check.read_records(executed(("x", 1.0), ("x", 1.0)))


@pytest.mark.parametrize(
    ("records", "profile", "problem"),
    [
        ({"bounded": 1.5, "close": 1.05}, "quick", None),
        ({"bounded": 1.5, "close": 1.05}, "book", "a: bounded = 1.5 is not within [-inf, 1] (theory)"),
        ({"bounded": 1.5}, "quick", "a: close is expected, but was not recorded"),
        ({"bounded": math.nan, "close": 1.0}, "quick", "a: bounded = nan is not within"),
        ({"bounded": 1.5, "close": 1.0, "new": 1.0}, "quick", "a: new = 1 is recorded, but has no reference"),
    ],
)
def test_what_is_off_missing_or_unexpected_is_named(tmp_path, capsys, executed, records, profile, problem):
    executed(*records.items())
    found = check.main([str(tmp_path), str(tmp_path / "expected.yml"), "--profile", profile])
    assert problem in found if problem else found is None
    assert problem or "2 records, all as expected" in capsys.readouterr().out


def test_a_notebook_that_was_not_executed_is_named(tmp_path, executed):
    executed().unlink()
    found = check.main([str(tmp_path), str(tmp_path / "expected.yml"), "--profile", "quick"])
    assert found.endswith("lacks notebooks named in " + f"{tmp_path / 'expected.yml'}: a; execute them first")


@pytest.mark.parametrize(
    "reference",
    [{"value": 1}, {"source": "x"}, {"source": "x", "value": 1}, {"source": "x", "book": {"max": 1}}],
)
def test_a_malformed_reference_is_refused(reference):
    with pytest.raises(ValueError, match="needs"):
        check.compare({"a": {"x": 1.0}}, {"a": {"x": reference}}, "quick")


def test_what_is_only_printed_is_no_record():
    outcomes = check.compare({"a": {"n": 1.0, "r_0": 2.0, "x": 3.0}}, {"a": {"printed": ["n", "r_*"]}}, "quick")
    assert [outcome.name for outcome in outcomes] == ["x"]
    with pytest.raises(ValueError, match=r"a: printed in expected.yml has 'm', which no record matches"):
        check.compare({"a": {"n": 1.0}}, {"a": {"printed": ["m"]}}, "quick")
