"""What a run on your own stars leaves: a folder that is never overwritten, a trained ensemble, a table with units."""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from traceback import walk_tb
from typing import Any

import numpy as np
from astropy.table import QTable

from dfaccel._files import write_files
from dfaccel.flows.ensemble import FlowEnsemble
from dfaccel.flows.store import save
from dfaccel.gravity.accelerations import Accelerations
from dfaccel.snapshot.read import Snapshot, SnapshotError, refuse

SIGMA_APART = 3  # errors between two methods from which on the flag is "differs"
TABLE, RUN, PACKAGES = "accelerations.ecsv", "run.json", ("dfaccel", "torch", "numpy", "astropy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def claim(folder: str | Path, identity: Mapping) -> Path:
    """Take a new folder for the results of one run, or go on in that of the same run: the plain values ``identity``."""
    refuse(not str(folder), "output must name a new folder for the results; got nothing")
    text, said = json.dumps(identity, indent=1, sort_keys=True).encode(), f"output {str(folder)[:200]!r}"
    try:
        folder = Path(str(folder)).expanduser()
        refuse(folder.exists() and not folder.is_dir(), f"{said} is a file; name a new folder")
        refuse((folder / TABLE).exists(), f"{said} already holds results; name a new folder, none is overwritten")
        begun, used = (folder / RUN).exists(), folder.is_dir() and any(folder.iterdir())
        refuse(begun and (folder / RUN).read_bytes() != text, f"{said} holds the beginnings of another run; name a new "
               f"folder, or repeat that run with the parameters in its {RUN}")
        refuse(used and not begun, f"{said} is not empty; name a new folder, nothing is overwritten")
        if not begun:
            write_files({folder / RUN: text})
    except (OSError, RuntimeError) as error:  # RuntimeError: no home of that name
        raise SnapshotError(f"{said} cannot be used: {getattr(error, 'strerror', error)}; name another") from None
    return folder


def disagreement(result: Accelerations, moments: Accelerations, factor: float) -> np.ndarray:
    """Return the distance (m,) between two results in units of their errors, ``factor`` times the first's scatter."""
    traces = [np.trace(one.covariance, axis1=1, axis2=2) for one in (result, moments)]
    return np.linalg.norm(result.value - moments.value, axis=1) / np.sqrt(factor**2 * traces[0] + traces[1])


def accelerations_table(
    snapshot: Snapshot, result: Accelerations, factor: float, moments: Accelerations | None = None, *, verdict: str = ""
) -> QTable:
    """Return places, accelerations, errors (``factor`` times the scatter over members), those of moments, and flags."""
    # The verdict of the checks comes first in the metadata.
    frame = snapshot.frame
    inner, outer = np.quantile(np.linalg.norm(snapshot.w[:, :3], axis=1), [0.01, 0.99])
    r = np.linalg.norm(result.points, axis=1)
    undetermined = (result.condition > 100) | ~np.isfinite(result.value).all(axis=1)
    apart = np.zeros(len(r), bool) if moments is None else ~(disagreement(result, moments, factor) <= SIGMA_APART)
    flag = np.select([undetermined, ~result.supported, (r < inner) | (r > outer), apart],
                     ["undetermined", "few stars", "outside", "differs"], "ok")
    columns = dict(zip("xyz", frame.places(result.points).T, strict=True))
    for end, times, found in (("", factor, result), ("_jeans", 1.0, moments)):
        if found is not None:
            error = times * np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
            columns |= {f"a{c}{end}": a for c, a in zip("xyz", frame.accelerations(found.value).T, strict=True)}
            columns |= {f"a{c}{end}_error": a for c, a in zip("xyz", frame.accelerations(error).T, strict=True)}
    columns |= {name: getattr(result, name) for name in ("n_near", "condition", "residual")} | {"flag": flag}
    meta = {"verdict": verdict} if verdict else {}
    meta |= {"stars": snapshot.name, "sha256": snapshot.sha256, "frame": frame.to_dict(),
             "scatter_times": float(factor), "dfaccel": version("dfaccel")}
    return QTable(columns, meta=meta)


def deliver(folder: Path, table: QTable, model: FlowEnsemble, **more: QTable) -> None:
    """Write ``more`` tables, the ensemble and last the table of accelerations to a folder that `claim` gave."""
    save(model, folder / "model")
    for path, one in {**{f"{name}.ecsv": one for name, one in more.items()}, TABLE: table}.items():
        text = StringIO()
        one.write(text, format="ascii.ecsv")
        write_files({folder / path: text.getvalue().encode()})


def short_errors() -> None:
    """Show what this package says of an input, in this notebook, as its one sentence, without a traceback."""
    from IPython import get_ipython

    shell, package = get_ipython(), Path(__file__).resolve().parents[1]

    def show(shell: Any, kind: type, error: Exception, trace: Any, tb_offset: int | None = None) -> None:
        *_, (frame, _) = walk_tb(trace)
        if Path(frame.f_code.co_filename).resolve().is_relative_to(package):
            shell._showtraceback(kind, error, [f"{kind.__name__}: {error}"])
        else:  # a mistake in a cell
            shell.showtraceback((kind, error, trace), tb_offset=tb_offset)

    if shell is not None:
        shell.set_custom_exc((Exception,), show)
