"""The notebooks' kit: results that the prose prints, the style of the figures, and their explorers."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, SupportsFloat

import numpy as np

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parents[1]
"""Folder of the repository, where models and tables of results are, for a package installed from a clone."""

MIME_TYPE = "application/papermill.record/text/plain"

GREY = "#767676"
"""Colour of text, axes and reference lines: contrast 4.5:1 against white; the dark page brightens its figures."""

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999")
"""Okabe and Ito's colour-blind-safe palette, in the order of the style's colour cycle."""


def record(**results: SupportsFloat) -> None:
    """Record results of a notebook, each under its name.

    The book's prose prints a result with ``{glue:text}`name:.2f` ``, and ``book/check.py`` compares it with
    ``notebooks/expected.yml``. In JupyterLab the names and values are printed.

    Parameters
    ----------
    **results
        One number each; the names are lower-case letters, digits and underscores.

    Raises
    ------
    TypeError, ValueError
        If a name is none, or a value is not one number.

    Examples
    --------
    >>> record(median_error=0.25)
    """
    from IPython import display, get_ipython

    numbers = {name: _number(name, value) for name, value in results.items()}
    if get_ipython() is None:
        return
    for name, number in numbers.items():
        scrap = {"name": name, "mime_prefix": "application/papermill.record/"}
        display.display({MIME_TYPE: repr(number)}, metadata={"scrapbook": scrap}, raw=True)
    print("\n".join(f"{name} = {number:.6g}" for name, number in numbers.items()))


def _number(name: str, value: SupportsFloat) -> float:
    """Return a result as a plain float, or say what is wrong with it."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"name must be lower-case letters, digits and underscores; got {name!r}; rename the record")
    array = np.asarray(value)
    if array.size != 1:
        raise ValueError(f"value of record {name!r} must be one number; got {array.size}; record a summary of it")
    try:
        return float(array.item())
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise TypeError(f"value of record {name!r} must be a number; got {kind}; convert it with float()") from None


def use_style() -> None:
    """Draw in the book's style from now on: transparent, mid-grey, colour-blind safe, sharp in a notebook."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from IPython import get_ipython

    plt.style.use("dfaccel.chapter")
    if get_ipython() is not None and "inline" in mpl.get_backend():
        from matplotlib_inline.config import InlineBackend

        inline = InlineBackend.instance(parent=get_ipython())
        inline.print_figure_kwargs = {"bbox_inches": "tight", "facecolor": "none", "dpi": 170}


def reference_line(ax: Axes, y: float, label: str | None = None) -> None:
    """Draw a thin dashed grey horizontal line at `y`, for a target, a truth or a zero."""
    ax.axhline(y, color=GREY, lw=1.0, ls="--", zorder=0.5, label=label)


def explorer(name: str, data: dict, label: str, *, digits: int = 4) -> HTML:
    """Put the data of an interactive figure into the page; ``book/_static/explorers.js`` draws the one of that name."""
    from IPython.display import HTML

    def rounded(number: str) -> float:
        value = float(f"{float(number):.{digits}g}")
        return int(value) if value.is_integer() else value

    exact = json.dumps(data, default=lambda array: array.tolist())
    plain = json.loads(exact, parse_float=rounded, parse_constant=lambda _: None)  # NaN is none
    text = json.dumps(plain, separators=(",", ":")).replace("<", "\\u003c")
    if len(text) > 500_000:
        raise ValueError(f"data must take at most 500,000 bytes as JSON; got {len(text):,}: coarsen the grid")
    attributes = {"data-name": name, "data-colours": " ".join(COLOURS), "role": "group", "aria-label": label}
    written = " ".join(f'{key}="{html.escape(value)}"' for key, value in attributes.items())
    script = f'<script type="application/json">{text}</script>'
    elsewhere = '<p class="explorer-elsewhere">The interactive figure is part of the built page.</p>'
    return HTML(f'<div class="explorer" {written} hidden>{script}</div>{elsewhere}')
