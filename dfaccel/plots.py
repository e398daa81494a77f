"""How the book's figures look: thin Matplotlib, readable on light and dark pages."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

GREY = "#767676"
"""Colour of text, axes and reference lines: contrast 4.5:1 against white; the dark page brightens its figures."""

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999999")
"""Okabe and Ito's colour-blind-safe palette, in the order of the style's colour cycle."""


def use_style() -> None:
    """Use the book's Matplotlib style in this session.

    Transparent background, mid-grey axes and text, a colour-blind-safe colour cycle. Inside IPython the inline figures
    keep their transparency and are drawn at 170 dots per inch.

    Examples
    --------
    >>> import matplotlib as mpl
    >>> use_style()
    >>> mpl.rcParams["axes.edgecolor"]
    '#767676'
    """
    with as_file(files("dfaccel") / "dfaccel.mplstyle") as path:
        plt.style.use(path)
    _configure_inline()


def reference_line(ax: Axes, y: float, label: str | None = None) -> None:
    """Draw a thin dashed grey horizontal line at `y`, for a target, a truth or a zero.

    Parameters
    ----------
    ax : Axes
        Axes to draw into.
    y : float
        Height of the line, in data coordinates.
    label : str, optional
        Text of the legend entry; none by default.

    Examples
    --------
    >>> ax = plt.figure().add_subplot()
    >>> reference_line(ax, 0.0, "truth")
    >>> len(ax.lines)
    1
    """
    ax.axhline(y, color=GREY, lw=1.0, ls="--", zorder=0.5, label=label)


def legend(ax: Axes, **kwargs: object) -> Legend:
    """Add a frameless legend, in the page's grey.

    Parameters
    ----------
    ax : Axes
        Axes whose labelled artists are listed.
    **kwargs
        Passed to `matplotlib.axes.Axes.legend`.

    Returns
    -------
    Legend
        The legend.

    Examples
    --------
    >>> ax = plt.figure().add_subplot()
    >>> _ = ax.plot([0, 1], label="line")
    >>> legend(ax).get_frame_on()
    False
    """
    return ax.legend(**{"frameon": False, "labelcolor": GREY, **kwargs})


EXPLORER_LIMIT = 500_000
"""Bytes that the data of one explorer may take on the page."""


@dataclass(frozen=True)
class Explorer:
    """What `explorer` returns: shown as HTML by Jupyter, and made live by the script of the book's pages.

    Parameters
    ----------
    name : str
        Which of the explorers.
    html : str
        Hidden container with the data; JupyterLab, a page without scripts and a printer show nothing of it.
    """

    name: str
    html: str

    def __repr__(self) -> str:
        return f"explorer {self.name!r}, live on the pages of the book"

    def _repr_html_(self) -> str:
        return self.html


def explorer(name: str, data: dict, label: str, *, digits: int = 4) -> Explorer:
    """Put the data of an interactive figure into the page.

    The static page holds them as JSON, and ``book/_static/explorers.js`` builds the figure and its controls from them.

    Parameters
    ----------
    name : str
        Which explorer of the script draws them: "galaxy", "errors" or "shares".
    data : dict
        Numbers, strings, None, and arrays or lists and dicts of them; NaN becomes None.
    label : str
        What the figure is about, for those who do not see it.
    digits : int
        Significant digits kept.

    Returns
    -------
    Explorer
        To be left as the last expression of a cell.

    Raises
    ------
    ValueError
        If the data take more than `EXPLORER_LIMIT` bytes.

    Examples
    --------
    >>> shown = explorer("errors", {"median": np.array([0.0123456, np.nan])}, "Errors")
    >>> '{"median":[0.01235,null]}' in shown.html
    True
    """
    text = json.dumps(_plain(data, digits), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    if len(text) > EXPLORER_LIMIT:
        raise ValueError(f"data must take at most {EXPLORER_LIMIT} bytes as JSON; got {len(text)}: coarsen the grid")
    attributes = {"data-name": name, "data-colours": " ".join(COLOURS), "role": "group", "aria-label": label}
    written = " ".join(f'{key}="{html.escape(value)}"' for key, value in attributes.items())
    script = f'<script type="application/json">{text}</script>'
    elsewhere = '<p class="explorer-elsewhere">The interactive figure is part of the built page.</p>'
    return Explorer(name, f'<div class="explorer" {written} hidden>{script}</div>{elsewhere}')


def _plain(data: object, digits: int) -> object:
    """Return data of any nesting as what JSON knows, floats rounded to that many significant digits."""
    if isinstance(data, dict):
        return {str(key): _plain(value, digits) for key, value in data.items()}
    if isinstance(data, np.ndarray | list | tuple):
        return [_plain(value, digits) for value in (data.tolist() if isinstance(data, np.ndarray) else data)]
    if isinstance(data, float | np.floating):
        rounded = float(f"{data:.{digits}g}")
        return (int(rounded) if rounded.is_integer() else rounded) if np.isfinite(data) else None
    return data.item() if isinstance(data, np.generic) else data


def _configure_inline() -> None:
    """Tell the inline backend, if there is one, not to paint a background and not to reset the style."""
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is None or "inline" not in mpl.get_backend():
        return
    from matplotlib_inline.config import InlineBackend

    config = InlineBackend.instance(parent=shell)
    config.print_figure_kwargs = {"bbox_inches": "tight", "facecolor": "none", "dpi": 170}
