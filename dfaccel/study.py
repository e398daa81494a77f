"""The table of a study: a line says what the design was, then there is one for every flow."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from pathlib import Path

import numpy as np

from .design import KEYS, Design
from .files import difference, write_files

_INTEGERS = (*KEYS[1:], "epochs")


def read(store: str | Path) -> dict[str, np.ndarray]:
    """Return the columns of a table that `run` wrote.

    Parameters
    ----------
    store : str or Path
        Table.

    Raises
    ------
    FileNotFoundError
        If there is no such table.
    ValueError
        If it is not the table of a study.

    Warns
    -----
    UserWarning
        If rows are damaged; they are left out.
    """
    _, names, rows, damaged = _parse(Path(store))
    if damaged:
        warnings.warn(f"{store} has damaged rows ({damaged}), left out here: run the study again", stacklevel=2)
    return {name: np.array([row[name] for row in rows], int if name in _INTEGERS else float) for name in names}


def cells(table: dict[str, np.ndarray], column: str) -> dict[tuple[float, int], np.ndarray]:
    """Arrange a column of a table by its crossed factors.

    Parameters
    ----------
    table : dict of ndarray
        What `run` or `read` returned.
    column : str
        Column, such as ``"cross_entropy"``.

    Returns
    -------
    dict of ndarray
        For each fraction and number of stars the values (n_data, n_initializations, n_batches).

    Raises
    ------
    ValueError
        If the table is not complete.
    """
    arranged = {}
    for key in sorted(set(zip(table["fraction"].tolist(), table["n_stars"].tolist(), strict=True))):
        here = (table["fraction"] == key[0]) & (table["n_stars"] == key[1])
        places = tuple(table[name][here] for name in ("data", "initialization", "batch"))
        values = np.full([table[name].max() + 1 for name in ("data", "initialization", "batch")], np.nan)
        filled = np.zeros(values.shape, dtype=bool)
        values[places], filled[places] = table[column][here], True
        if not filled.all():
            raise ValueError(f"the cell {key} lacks {(~filled).sum()} of {filled.size} flows: finish the study first")
        arranged[key] = values
    return arranged


def write_rows(store: Path, design: Design, rows: dict[tuple, dict]) -> None:
    """Write the table of a study anew, whole or not at all.

    Parameters
    ----------
    store : Path
        Table.
    design : Design
        Study; its first line.
    rows : dict
        Rows by their `design.KEYS`, in any order.

    Raises
    ------
    OSError
        If it cannot be written; what it held is still there.
    """
    text = io.StringIO()
    text.write(f"# {json.dumps(design.to_dict(), sort_keys=True)}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(design.columns)
    order = {group: place for place, group in enumerate(design.groups())}
    for key in sorted(rows, key=lambda k: (order[k[:4]], k[4])):
        writer.writerow([rows[key][name] for name in design.columns])
    write_files({store: text.getvalue().encode()})


def _parse(store: Path) -> tuple[dict, list[str], list[dict], int]:
    """Return design, column names and rows; leave out rows that are not whole, and return how many."""
    if not store.exists():
        raise FileNotFoundError(f"{store} does not exist")
    lines = store.read_text(errors="replace").split("\n")
    whole = lines[:-1]  # a line without its end was cut off, even if it reads well
    try:
        if not whole[0].startswith("# "):
            raise ValueError
        design, names = json.loads(whole[0][2:]), whole[1].split(",")
        if names[: len(KEYS)] != list(KEYS) or not isinstance(design, dict):
            raise ValueError
    except (IndexError, ValueError):
        raise ValueError(f"{store} is not the table of a study; name another file or delete it") from None
    kinds = [int if name in _INTEGERS else float for name in names]
    rows = []
    for line in whole[2:]:
        try:
            row = {name: kind(item) for name, kind, item in zip(names, kinds, line.split(","), strict=True)}
        except ValueError:
            continue
        if math.isfinite(row.get("held_out", 0.0)):
            rows.append(row)
    return design, names, rows, len(lines) - 3 - len(rows) + bool(lines[-1])


def read_rows(store: Path, design: Design) -> dict[tuple, dict]:
    """Return the finished rows of a table by their keys.

    Parameters
    ----------
    store : Path
        Table.
    design : Design
        Study that it must be of.

    Raises
    ------
    FileNotFoundError
        If there is no such table.
    ValueError
        If it is that of another design, or no table of a study.

    Warns
    -----
    UserWarning
        If rows are damaged; they are left out.
    """
    there, names, rows, damaged = _parse(store)
    here, there = design.to_dict() | {"columns": list(design.columns)}, there | {"columns": names}
    for name in {**here, **there}:
        if here.get(name) != there.get(name):
            raise ValueError(f"{store} is of another study: {difference(name, there.get(name), here.get(name))}; name "
                             "another file or delete it")
    groups, found = set(design.groups()), {}
    for row in rows:
        key = tuple(row[name] for name in KEYS)
        if key[:4] in groups and 0 <= key[4] < design.n_initializations and key not in found:
            found[key] = row
        else:
            damaged += 1
    if damaged:
        warnings.warn(f"{store} has damaged rows ({damaged}): these flows are trained again", stacklevel=3)
    return found
