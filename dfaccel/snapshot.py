"""Your own stars: a table of positions and velocities with units, taken into plain numbers of order one and centred.

>>> from dfaccel.demonstration import Unseen
>>> taken = take(Unseen("king").table(2000, rng=0))
>>> taken.w.shape, taken.frame.length.unit.to_string()
((2000, 6), 'pc')
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .checks import COLUMNS, MIN_STARS, count
from .coordinates import coordinate_map
from .tables import SnapshotError, check_kinds, mapping, read_table, vector
from .units import Frame

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["Snapshot", "SnapshotError", "read", "read_table", "take"]

_FAR, _FAST = 1e8, 100.0  # median radii, median speeds: no star, but a number that stands for "unknown"
_CORE = 0.03  # share of the stars that the core of the centre's weights holds
_ITERATIONS = 20  # of the centre, which then moves by far less than its error

@dataclass(frozen=True)
class Snapshot:
    """Stars in natural units, centred, and where they came from.

    Parameters
    ----------
    w : ndarray, shape (n, 6)
        x y z vx vy vz in units of the frame's length and velocity: the median radius, and the root mean square of
        one component of the velocity.
    frame : Frame
        Units, centre and motion.
    n_rows, n_missing, n_repeated : int
        Rows of the file, and how many were left out for a missing or infinite value or as copies of another row.
    name, sha256 : str
        Name of the file and the checksum of its contents.
    """

    w: np.ndarray
    frame: Frame
    n_rows: int
    n_missing: int
    n_repeated: int
    name: str
    sha256: str

    def points(
        self, table: Table, columns: Mapping[str, str] | str | None = None, symmetry: str = "none"
    ) -> np.ndarray:
        """Return the positions (m, 3), in the frame, of a table of points in the coordinates of the file.

        Parameters
        ----------
        table : Table
            Points. A column without a unit is in that of the stars.
        columns : mapping or str, optional
            Names of its columns for x, y and z, where it has such; else they are x, y and z.
        symmetry : {"none", "axisymmetric", "spherical"}
            Symmetry that is going to be assumed.

        Raises
        ------
        SnapshotError
            If a column is missing or has no unit of length, or a place is not finite or where the coordinates of the
            symmetry are singular.
        """
        columns = {key: name for key, name in mapping(columns, "columns").items() if name in table.colnames}
        unit, names = str(self.frame.length.unit) or "1", [columns.get(key, key) for key in COLUMNS[:3]]
        without = {key: unit for key, name in zip(COLUMNS, names, strict=False)
                   if name in table.colnames and table[name].unit is None}
        x = vector(table, COLUMNS[:3], columns, without)
        if not x.unit.is_equivalent(self.frame.length.unit):
            raise SnapshotError(f"the points are in {x.unit}, the stars in {self.frame.length.unit}; give both alike")
        points = self.frame.positions(x)
        if not len(points) or not np.isfinite(points).all():
            raise SnapshotError(
                f"the table of points must have finite x, y and z in every row; of its {len(points)} "
                f"rows {int((~np.isfinite(points)).any(axis=1).sum())} have not"
            )
        singular = ~torch.isfinite(coordinate_map(self.w, symmetry).position_coordinates(torch.from_numpy(points)))
        if singular.any():
            raise SnapshotError(f"row {int(singular.any(1).int().argmax())} of the points is exactly in the centre, or "
                                "on the axis, where no direction is defined; move it a little")
        return points

    def spread(self, n: int, rng: np.random.Generator | int) -> np.ndarray:
        """Return places where there are stars: log-uniform between the radii of 1 % and 99 % of them, any direction.

        Parameters
        ----------
        n : int
            Number of places.
        rng : Generator or int
            Random generator or its seed.

        Returns
        -------
        ndarray, shape (n, 3)
            Positions in the frame.
        """
        rng = np.random.default_rng(rng)
        span = np.quantile(np.linalg.norm(self.w[:, :3], axis=1), [0.01, 0.99])
        r = np.exp(rng.uniform(*np.log(span), count(n, "n")))
        x = rng.standard_normal((n, 3))
        return x * (r / np.linalg.norm(x, axis=1))[:, None]


def read(
    path: str | Path,
    columns: Mapping[str, str] | str | None = None,
    units: Mapping[str, str] | str | None = None,
    *,
    centre: str = "stars",
) -> Snapshot:
    """Read stars from a file into plain numbers of order one, centred.

    Parameters
    ----------
    path : str or Path
        File that `read_table` reads.
    columns : mapping or str, optional
        The file's names of x, y, z, vx, vy and vz, where they are others: ``{"vx": "v_x"}``, or ``"vx=v_x"``.
    units : mapping or str, optional
        Units that the file does not give, ``{"x": "kpc", ...}`` or ``"kpc, km/s"``; "1" for all six if the stars have
        none, as those of a simulation.
    centre : {"stars", "origin"}
        Whether position and motion of the centre are found from the stars or are those of the file's origin.

    Returns
    -------
    Snapshot
        The stars whose six numbers are finite, each once.

    Raises
    ------
    SnapshotError
        In one sentence, if there is nothing to be read, a column or a unit is missing or makes no sense, or the rows
        that remain are too few.

    Examples
    --------
    >>> from dfaccel.demonstration import Unseen
    >>> Unseen("king").table(2000, rng=0).write("king.fits")
    >>> read("king.fits").w.shape
    (2000, 6)
    """
    table = read_table(path)
    path = Path(str(path))
    digest = sha256(path.read_bytes()).hexdigest()
    return take(table, columns, units, centre=centre, name=path.name, digest=digest)


def take(
    table: Table,
    columns: Mapping[str, str] | str | None = None,
    units: Mapping[str, str] | str | None = None,
    *,
    centre: str = "stars",
    name: str = "the table",
    digest: str = "",
) -> Snapshot:
    """Take stars from a table of astropy, as `read` does from a file.

    Parameters
    ----------
    table : Table
        Stars.
    columns, units, centre
        As for `read`.
    name, digest : str
        What to call the table, and the checksum of the file it came from.

    Raises
    ------
    SnapshotError
        As `read`.
    """
    columns, units = mapping(columns, "columns"), mapping(units, "units")
    if centre not in ("stars", "origin"):
        raise SnapshotError(f"centre must be 'stars' or 'origin'; got {centre!r}")
    used = [columns.get(key, key) for key in COLUMNS]
    twice = next((name for name in used if used.count(name) > 1), None)
    if twice is not None:
        raise SnapshotError(f"column {twice!r} cannot stand for two of {', '.join(COLUMNS)}; mend columns")
    x, v = (vector(table, names, columns, units) for names in (COLUMNS[:3], COLUMNS[3:]))
    check_kinds(x, v)
    w = np.hstack([x.value, v.value])
    finite = np.isfinite(w).all(axis=1)
    rows = np.flatnonzero(finite)[np.sort(np.unique(w[finite], axis=0, return_index=True)[1])]
    if len(rows) < MIN_STARS:
        raise SnapshotError(
            f"{name} has {len(rows)} different rows with six finite numbers; at least {MIN_STARS} stars are needed"
        )
    w = w[rows]
    constant = np.flatnonzero((w == w[0]).all(axis=0))
    if len(constant):
        column = COLUMNS[constant[0]]
        raise SnapshotError(
            f"column {columns.get(column, column)!r} has the same value in every row; it cannot be {column}"
        )
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        middle = np.concatenate([_middle(w[:, :3]), _middle(w[:, 3:])]) if centre == "stars" else np.zeros(6)
        w = w - middle
        r, speed = np.linalg.norm(w[:, :3], axis=1), np.linalg.norm(w[:, 3:], axis=1)
        far, fast = ~(r < _FAR * np.median(r)), ~(speed < _FAST * np.median(speed))
    for odd, limit, what in ((far, _FAR, "lies {:.0e} times farther"), (fast, _FAST, "moves {:.0f} times faster")):
        if odd.any():
            raise SnapshotError(
                f"row {rows[odd.argmax()]} of {name} {what.format(limit)} from the middle than half of the stars, or "
                f"more, as {int(odd.sum())} of them do; take out numbers that stand for 'unknown'"
            )
    length, velocity = float(np.median(r)), float(np.sqrt((speed**2).mean() / 3))
    frame = Frame(length * x.unit, velocity * v.unit, middle[:3] * x.unit, middle[3:] * v.unit)
    n_finite = int(finite.sum())
    w = w / np.repeat([length, velocity], 3)
    return Snapshot(w, frame, len(table), len(table) - n_finite, n_finite - len(rows), name, digest)


def _middle(x: np.ndarray) -> np.ndarray:
    """Return where points (n, 3) crowd, the mean with weights 1 / (r^2 + b^2) about itself, b holding 3 % of them.

    This is the likeliest centre of a system whose density falls as a power beyond a core; distant interlopers do not
    count, and its error is that of a large share of the stars, not of the few in the core.
    """
    middle = np.median(x, axis=0)
    scale = np.median(np.abs(x - middle)) or 1.0
    x = (x - middle) / scale  # so that squares of huge numbers do not overflow before they are noticed
    place = np.zeros(3)
    for _ in range(_ITERATIONS):
        r2 = ((x - place) ** 2).sum(axis=1)
        weight = 1 / (r2 + np.quantile(r2, _CORE))
        place = (x * weight[:, None]).sum(axis=0) / weight.sum()
    return middle + scale * place


