"""The book's style: transparent, grey, colour-blind safe."""

from __future__ import annotations

import io
import json

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from bs4 import BeautifulSoup

from dfaccel import plots


def luminance(colour):
    """Relative luminance of WCAG 2."""
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(colour)]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


def contrast(first, second):
    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.fixture(autouse=True)
def _style():
    with mpl.rc_context():
        mpl.use("agg")
        plots.use_style()
        yield
        plt.close("all")


def test_figures_are_saved_transparent():
    fig, ax = plt.subplots()
    assert ax.get_facecolor()[3] == 0
    file = io.BytesIO()
    fig.savefig(file, format="png")
    assert plt.imread(io.BytesIO(file.getvalue()))[0, 0, 3] == 0


@pytest.mark.parametrize("page", ["#ffffff", "#14181e"])
def test_text_can_be_read_on_a_light_and_on_a_dark_page(page):
    assert contrast(plots.GREY, page) > 3.5
    assert all(contrast(colour, page) > 1.8 for colour in plots.COLOURS)


def test_the_cycle_of_the_style_is_the_palette():
    cycle = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    assert tuple(f"#{colour.lstrip('#')}".upper() for colour in cycle) == tuple(c.upper() for c in plots.COLOURS)


def test_helpers_return_what_they_draw():
    ax = plt.figure().add_subplot()
    plots.reference_line(ax, 1.0, "target")
    assert [text.get_text() for text in plots.legend(ax).get_texts()] == ["target"]


def test_an_explorer_holds_its_data_and_nothing_that_a_page_without_scripts_would_show():
    grid = np.array([[1.0, 0.123456], [np.nan, 3.0]])
    data = {"grid": grid, "name": "</script> & co", "n": np.int64(7), "none": None}
    shown = plots.explorer("errors", data, 'Error "bars"')
    box = BeautifulSoup(shown._repr_html_(), "html.parser").find("div", class_="explorer")
    assert box.has_attr("hidden")
    assert (box["data-name"], box["role"], box["aria-label"]) == ("errors", "group", 'Error "bars"')
    assert box["data-colours"].split() == list(plots.COLOURS)
    read = json.loads(box.script.string)
    assert read == {"grid": [[1, 0.1235], [None, 3]], "name": "</script> & co", "n": 7, "none": None}
    assert "errors" in repr(shown)


def test_too_much_data_for_a_page_is_refused():
    with pytest.raises(ValueError, match="coarsen"):
        plots.explorer("errors", {"grid": np.random.default_rng(0).random(100_000)}, "Errors")
