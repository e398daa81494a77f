"""How the book's figures look: thin Matplotlib, readable on light and dark pages."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

GREY = "#808080"
"""Colour of text, axes and reference lines: contrast near 4:1 against both white and near-black."""

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
    '#808080'
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
