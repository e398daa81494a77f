"""Records: one number, published, read back, compared."""

from __future__ import annotations

import json
import math

import nbformat
import numpy as np
import pytest

from dfaccel.records import MIME_TYPE, compare, main, read_records, record


def executed(path, **records):
    """Write a notebook as papermill leaves it, with these records."""
    outputs = [
        nbformat.v4.new_output(
            "display_data", data={MIME_TYPE: repr(value)}, metadata={"scrapbook": {"name": name}}
        )
        for name, value in records.items()
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=outputs)])
    nbformat.write(notebook, path)
    return path


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.array(2.0), np.array([2.0])])
def test_record_returns_a_plain_float(value):
    result = record("two", value)
    assert type(result) is float
    assert result == 2.0


@pytest.mark.parametrize("name", ["", "Two", "two words", "2", None])
def test_record_refuses_a_bad_name(name):
    with pytest.raises(ValueError, match="name must be lower-case"):
        record(name, 1.0)


def test_record_refuses_many_numbers_and_no_number():
    with pytest.raises(ValueError, match="must be one number; got 3"):
        record("three", np.zeros(3))
    with pytest.raises(TypeError, match="got str"):
        record("text", "one")


def test_record_is_published_inside_ipython(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda *args, **kwargs: shown.append((args, kwargs)))
    record("third", 1 / 3)
    ((data,), keywords), = shown
    assert float(data[MIME_TYPE]) == 1 / 3
    assert keywords["metadata"]["scrapbook"]["name"] == "third"


def test_records_are_read_back_exactly(tmp_path):
    values = {"third": 1 / 3, "tiny": 1e-300}
    assert read_records(executed(tmp_path / "a.ipynb", **values)) == values


def test_a_name_recorded_twice_is_refused(tmp_path):
    path = executed(tmp_path / "a.ipynb", x=1.0)
    notebook = json.loads(path.read_text())
    notebook["cells"] *= 2
    path.write_text(json.dumps(notebook))
    with pytest.raises(ValueError, match="'x' is made twice in a.ipynb"):
        read_records(path)


EXPECTED = """
a:
  bounded: {source: theory, quick: {max: 2}, book: {max: 1}}
  close: {source: exact, value: 1, tolerance: 0.1}
"""


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
def test_check_names_what_is_off_missing_or_unexpected(tmp_path, capsys, records, profile, problem):
    executed(tmp_path / "a.ipynb", **records)
    (tmp_path / "expected.yml").write_text(EXPECTED)
    status = main(["check", str(tmp_path), str(tmp_path / "expected.yml"), "--profile", profile])
    assert status == (problem is not None)
    assert (problem or "2 records, all as expected") in capsys.readouterr().out


def test_check_names_a_notebook_that_was_not_executed(tmp_path, capsys):
    (tmp_path / "expected.yml").write_text(EXPECTED)
    assert main(["check", str(tmp_path), str(tmp_path / "expected.yml"), "--profile", "quick"]) == 1
    assert "lacks notebooks" in capsys.readouterr().err


@pytest.mark.parametrize(
    "reference",
    [{"value": 1}, {"source": "x"}, {"source": "x", "value": 1}, {"source": "x", "book": {"max": 1}}],
)
def test_a_malformed_reference_is_refused(reference):
    with pytest.raises(ValueError, match="needs"):
        compare({"a": {"x": 1.0}}, {"a": {"x": reference}}, "quick")
