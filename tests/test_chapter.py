"""The notebooks' kit: records of one number each, figures in the book's style, explorers that hold their data."""

from __future__ import annotations

import io
import json

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from bs4 import BeautifulSoup

from dfaccel import chapter
from dfaccel.chapter import MIME_TYPE, record


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, inside a pretended IPython."""
    calls = []
    monkeypatch.setattr("IPython.get_ipython", object)
    monkeypatch.setattr("IPython.display.display", lambda *args, **kwargs: calls.append((args, kwargs)))
    return calls


def test_records_are_published_inside_ipython_and_printed(request, capsys):
    assert record(two=2) is None
    assert capsys.readouterr().out == ""  # outside
    shown = request.getfixturevalue("shown")
    assert record(third=1 / 3, tiny=np.float32(2)) is None
    assert [float(data[MIME_TYPE]) for (data,), _ in shown] == [1 / 3, 2.0]
    assert [keywords["metadata"]["scrapbook"]["name"] for _, keywords in shown] == ["third", "tiny"]
    assert capsys.readouterr().out == "third = 0.333333\ntiny = 2\n"


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.array(2.0), np.array([2.0])])
def test_one_number_of_any_kind_is_recorded_as_a_plain_float(value, shown):
    record(two=value)
    (((data,), _),) = shown
    assert data[MIME_TYPE] == "2.0"


@pytest.mark.parametrize(("records", "error", "sentence"), [
    *(({name: 1.0}, ValueError, "name must be lower-case") for name in ("", "Two", "two words", "2")),
    ({"good": 1.0, "three": np.zeros(3)}, ValueError, "must be one number; got 3"),
    ({"text": "one"}, TypeError, "got str"),
])
def test_record_refuses_bad_names_and_what_is_not_one_number_and_then_shows_none(records, error, sentence, shown):
    with pytest.raises(error, match=sentence):
        record(**records)
    assert shown == []


def contrast(*colours):
    """Contrast of WCAG 2: the ratio of relative luminances."""
    c = np.array([mpl.colors.to_rgb(colour) for colour in colours])
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    dark, bright = np.sort(linear @ [0.2126, 0.7152, 0.0722])
    return (bright + 0.05) / (dark + 0.05)


@pytest.fixture
def _style():
    with mpl.rc_context():
        mpl.use("agg")
        chapter.use_style()
        yield
        plt.close("all")


@pytest.mark.usefixtures("_style")
def test_figures_are_saved_transparent_in_the_colours_of_the_palette():
    fig, ax = plt.subplots()
    assert ax.get_facecolor()[3] == 0
    file = io.BytesIO()
    fig.savefig(file, format="png")
    assert plt.imread(io.BytesIO(file.getvalue()))[0, 0, 3] == 0
    cycle = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    assert [mpl.colors.to_rgb(f"#{c.lstrip('#')}") for c in cycle] == [*map(mpl.colors.to_rgb, chapter.COLOURS)]


@pytest.mark.parametrize("page", ["#ffffff", "#14181e"])
def test_text_can_be_read_on_a_light_and_on_a_dark_page(page):
    assert contrast(chapter.GREY, page) > 3.5
    assert all(contrast(colour, page) > 1.8 for colour in chapter.COLOURS)


@pytest.mark.usefixtures("_style")
def test_reference_lines_have_labels_and_legends_no_frame():
    ax = plt.figure().add_subplot()
    chapter.reference_line(ax, 1.0, "target")
    legend = ax.legend()
    assert [text.get_text() for text in legend.get_texts()] == ["target"]
    assert not legend.get_frame_on()


def test_an_explorer_holds_its_data_and_nothing_that_a_page_without_scripts_would_show():
    data = {"grid": np.array([[1, 0.123456], [np.nan, 3]]), "name": "</script> & co", "n": np.int64(7), "none": None}
    explorer, said = chapter.explorer("errors", data, 'Error "bars"'), ["errors", "group", 'Error "bars"']
    box = BeautifulSoup(explorer._repr_html_(), "html.parser").find("div", class_="explorer")
    assert [box[name] for name in ("hidden", "data-name", "role", "aria-label")] == ["", *said]
    assert box["data-colours"].split() == list(chapter.COLOURS)
    assert json.loads(box.script.string) == data | {"grid": [[1, 0.1235], [None, 3]]}


def test_too_much_data_for_a_page_is_refused():
    with pytest.raises(ValueError, match="coarsen"):
        chapter.explorer("errors", {"grid": np.random.default_rng(0).random(100_000)}, "Errors")


def test_the_root_has_the_models_and_tables_that_chapters_read():
    assert all((chapter.ROOT / folder).is_dir() for folder in ("models", "notebooks/results"))
