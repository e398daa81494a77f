"""What a run on your own stars leaves: a folder that is never overwritten, a table with units, a page to read."""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Iterable, Mapping
from html import escape
from importlib.metadata import version
from io import BytesIO, StringIO
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

import numpy as np

from .boltzmann import Accelerations
from .ensemble import FlowEnsemble
from .files import write_files
from .snapshot import Snapshot, SnapshotError
from .store import save
from .symptoms import Check

if TYPE_CHECKING:
    from astropy.table import QTable
    from matplotlib.figure import Figure

__all__ = ["TABLE", "accelerations_table", "claim", "deliver", "page", "short_errors", "versions"]

TABLE, PAGE, RUN = "accelerations.ecsv", "report.html", "run.json"
_STYLE = """:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid #808080; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
img { max-width: min(100%, 32rem); height: auto; background: #fff; }
caption { text-align: left; font-weight: bold; }
.flag, .refuse { font-weight: bold; }
@media print { body { margin: 0; font-size: 9pt; } }"""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the numbers depend on."""
    names = ("dfaccel", "torch", "numpy", "astropy")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def claim(folder: str | Path, identity: Mapping) -> Path:
    """Take a folder for the results of one run, or go on in that of the same run.

    Parameters
    ----------
    folder : str or Path
        Folder, made if need be.
    identity : mapping
        Plain values that make the run what it is.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    SnapshotError
        If it holds results, the beginnings of another run, or anything else.

    Examples
    --------
    >>> claim("results", {"seed": 1}).name
    'results'
    """
    if not str(folder):
        raise SnapshotError("output must name a new folder for the results; got nothing")
    folder, text = Path(str(folder)), json.dumps(identity, indent=1, sort_keys=True)
    try:
        if folder.exists() and not folder.is_dir():
            raise SnapshotError(f"output {str(folder)!r} is a file; name a new folder")
        if (folder / TABLE).exists():
            raise SnapshotError(f"output {str(folder)!r} already holds results; name a new folder, none is overwritten")
        if (folder / RUN).exists():
            if (folder / RUN).read_bytes() != text.encode():
                raise SnapshotError(
                    f"output {str(folder)!r} holds the beginnings of another run; name a new folder, or "
                    "repeat that run with the parameters in its run.json"
                )
        elif folder.is_dir() and any(folder.iterdir()):
            raise SnapshotError(f"output {str(folder)!r} is not empty; name a new folder, nothing is overwritten")
        else:
            write_files({folder / RUN: text.encode()})
    except OSError as error:
        raise SnapshotError(f"output {str(folder)[:200]!r} cannot be used: {error.strerror}; name another") from None
    return folder


def accelerations_table(snapshot: Snapshot, result: Accelerations, factor: float) -> QTable:
    """Return places, accelerations and their errors with units, and a word on each.

    Parameters
    ----------
    snapshot : Snapshot
        The stars, whose frame gives the units.
    result : Accelerations
        Recovered accelerations.
    factor : float
        What the scatter over members is multiplied by to be an error of 68 % (`dfaccel.calibrate`).

    Returns
    -------
    QTable
        Columns x, y, z, ax, ay, az, ax_error, ay_error, az_error, n_near, condition, residual and flag: "ok", "few
        stars" where they are too few, "outside" where 1 % of the stars or fewer lie further in or further out, or
        "undetermined". What they were made from is in ``meta``.
    """
    from astropy.table import QTable

    frame = snapshot.frame
    inner, outer = np.quantile(np.linalg.norm(snapshot.w[:, :3], axis=1), [0.01, 0.99])
    r = np.linalg.norm(result.points, axis=1)
    flag = np.full(len(r), "ok", dtype="U12")
    flag[(r < inner) | (r > outer)] = "outside"
    flag[~result.supported] = "few stars"
    flag[(result.condition > 100) | ~np.isfinite(result.value).all(axis=1)] = "undetermined"
    error = factor * np.sqrt(np.diagonal(result.covariance, axis1=1, axis2=2))
    table = QTable([*frame.places(result.points).T], names=["x", "y", "z"])
    for names, values in ((("ax", "ay", "az"), result.value), (("ax_error", "ay_error", "az_error"), error)):
        for name, column in zip(names, frame.accelerations(values).T, strict=True):
            table[name] = column
    for name in ("n_near", "condition", "residual"):
        table[name] = getattr(result, name)
    table["flag"] = flag
    table.meta = {"stars": snapshot.name, "sha256": snapshot.sha256, "frame": frame.to_dict(),
                  "scatter_times": float(factor), "dfaccel": version("dfaccel")}
    return table


def page(
    title: str, summary: Iterable[str], checks: Iterable[Check], figure: Figure, alt: str, facts: Mapping[str, object]
) -> str:
    """Return one self-contained page of HTML: verdict, figure, checks and parameters.

    Parameters
    ----------
    title : str
        Its title.
    summary : iterable of str
        Paragraphs.
    checks : iterable of Check
        Rows of the table of checks, and what the verdict is made of.
    figure : Figure
        A figure, embedded as an image.
    alt : str
        What the figure shows.
    facts : mapping
        Parameters, units and versions.
    """
    checks, picture = list(checks), BytesIO()
    figure.savefig(picture, format="png", dpi=150, bbox_inches="tight", facecolor="white")
    flagged = [check for check in checks if check.verdict != "ok"]
    verdict = f"{len(flagged)} of {len(checks)} checks ask for your judgement." if flagged else "All checks are passed."
    rows = "".join(
        f'<tr><th scope="row">{escape(c.name)}</th><td class="number">{c.value:.3g}</td>'
        f'<td class="number">{c.limit:.3g}</td><td class="{c.verdict}">{c.verdict}</td>'
        f"<td>{escape(c.sentence)}</td></tr>"
        for c in checks
    )
    given = "".join(
        f'<tr><th scope="row">{escape(str(k))}</th><td>{escape(str(v))}</td></tr>' for k, v in facts.items()
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{_STYLE}</style></head>
<body><main>
<h1>{escape(title)}</h1>
<p><strong>{verdict}</strong></p>
{"".join(f"<p>{escape(text)}</p>" for text in summary)}
<img src="data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}" alt="{escape(alt)}">
<table><caption>Checks</caption><thead><tr><th scope="col">check</th><th scope="col">value</th>
<th scope="col">limit</th><th scope="col">verdict</th><th scope="col">meaning</th></tr></thead>
<tbody>{rows}</tbody></table>
<table><caption>Parameters, units and versions</caption><tbody>{given}</tbody></table>
</main></body>
</html>
"""


def deliver(folder: Path, table: QTable, model: FlowEnsemble, html: str) -> None:
    """Write the ensemble, the page and, last, the table of accelerations to a folder that `claim` gave.

    Parameters
    ----------
    folder : Path
        Folder.
    table : QTable
        Accelerations.
    model : FlowEnsemble
        The ensemble, written to its folder ``model``.
    html : str
        The page.
    """
    text = StringIO()
    table.write(text, format="ascii.ecsv")
    save(model, folder / "model")
    write_files({folder / PAGE: html.encode(), folder / TABLE: text.getvalue().encode()})


def short_errors() -> None:
    """Show what this package says of an input, in this notebook, as its one sentence, without a traceback."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return

    def show(shell: Any, kind: type, error: Exception, trace: Any, tb_offset: int | None = None) -> None:
        *_, last = walk_tb(trace)
        if Path(last[0].f_code.co_filename).parent == Path(__file__).parent:
            shell._showtraceback(kind, error, [f"{kind.__name__}: {error}"])
        else:  # a mistake in a cell
            shell.showtraceback((kind, error, trace), tb_offset=tb_offset)

    shell.set_custom_exc((ValueError, TypeError, FloatingPointError), show)
