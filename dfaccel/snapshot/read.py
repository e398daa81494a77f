"""Your own stars: a table in a file, taken into plain numbers of order one and centred.

Whatever is wrong with a file is said in one sentence, a `SnapshotError`. Nothing here reads pickle.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import numpy as np
import torch
from astropy.table import Table

from dfaccel import _check as check
from dfaccel.axes import directions
from dfaccel.coordinates import coordinate_map
from dfaccel.snapshot.columns import SKY, SnapshotError, mapping, numbers, refuse, unit_in, used_columns, vector
from dfaccel.snapshot.formats import read_table
from dfaccel.units import Frame, without_cosmology

_FAR, _FAST = 1e8, 100.0  # median radii, median speeds: no star, but a number that stands for "unknown"
_CORE, _ITERATIONS = 0.03, 20  # share of the stars in the core of the centre's weights; steps to the centre


@dataclass(frozen=True)
class Snapshot:
    """Stars ``w`` (n, 6) in units of the frame, and where they came from: rows of the file; rows, columns left out."""

    w: np.ndarray
    frame: Frame
    n_rows: int
    n_missing: int
    n_repeated: int
    name: str
    sha256: str
    unused: tuple[str, ...] = ()
    taken: str = ""  # what was taken for what, in one line
    factors: tuple[float, float] = (0.0, 0.0)  # scale factor and little h, zero if they are not known
    weights: np.ndarray | None = None  # (n,), of mean one, for how much each star counts; None: all alike

    def points(self, table: Table, columns: Mapping | str | None = None, coordinates: str = "radial") -> np.ndarray:
        """Return the positions (m, 3), in the frame, of a table of points; columns without units are as the stars."""
        columns = {key: name for key, name in mapping(columns, "columns").items() if name in table.colnames}
        used, length = used_columns(table, check.COLUMNS[:3], columns), self.frame.length.unit
        plain = [key for key, name in used.items() if name in table.colnames and table[name].unit is None]
        stated = dict.fromkeys(plain, str(length) or "1")
        units = {key: unit_in(table, key, name, stated.get(key)) for key, name in used.items()}
        x = vector(table, used, units, self.factors)
        refuse(not x.unit.is_equivalent(length), f"the points are in {x.unit}, the stars in {length}; give both alike")
        points = self.frame.positions(x)
        bad = int((~np.isfinite(points)).any(axis=1).sum())
        refuse(bad or not len(points), "the table of points must have finite x, y and z in every row; of its "
               f"{len(points)} rows {bad} have not")
        singular = ~torch.isfinite(coordinate_map(self.w, coordinates).position_coordinates(torch.from_numpy(points)))
        refuse(singular.any(), f"row {int(singular.any(1).int().argmax())} of the points is exactly in the centre, or "
               "on the axis, where no direction is defined; move it a little")
        return points

    def spread(self, n: int, rng: np.random.Generator | int) -> np.ndarray:
        """Return positions (n, 3), log-uniform between the radii of 1 % and 99 % of the stars, in any direction."""
        rng = np.random.default_rng(rng)
        span = np.quantile(np.linalg.norm(self.w[:, :3], axis=1), [0.01, 0.99])
        r = np.exp(rng.uniform(*np.log(span), check.count(n, "n")))
        return r[:, None] * directions(n, rng)


def read(path: str | Path, columns: Mapping | str | None = None, units: Mapping | str | None = None, *,
         particles: str = "", **options: object) -> Snapshot:
    """Read stars from a file, of several tables in it those of the ``particles``, as `take` does from a table."""
    table, path = read_table(path, particles), Path(str(path)).expanduser()
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    return take(table, columns, units, name=path.name, digest=digest, **options)


def take(table: Table, columns: Mapping | str | None = None, units: Mapping | str | None = None, *,
         centre: str = "stars", weights: str = "", hubble: float = 0, scale_factor: float = 0,
         name: str = "the table", digest: str = "") -> Snapshot:
    """Take stars from a table: each row of six finite numbers once, about the ``centre`` of the "stars" or "origin".

    The column ``weights`` says for how much each counts, such as its mass. Units with scale factor a and little h, such
    as kpc a/h, need ``scale_factor`` and ``hubble`` (0: not given).
    """
    columns, units = mapping(columns, "columns"), mapping(units, "units")
    refuse(centre not in ("stars", "origin"), f"centre must be 'stars' or 'origin'; got {centre!r}")
    used = used_columns(table, check.COLUMNS, columns)
    twice = next((column for column in used.values() if [*used.values()].count(column) > 1), None)
    refuse(twice is not None, f"column {twice!r} cannot stand for two of {', '.join(check.COLUMNS)}; mend columns")
    units = {key: unit_in(table, key, column, units.get(key)) for key, column in used.items()}
    factors = _factors(table, units, scale_factor, hubble)
    x, v = (vector(table, dict([*used.items()][part]), units, factors) for part in (slice(3), slice(3, 6)))
    plain = all(q.unit.physical_type == "dimensionless" for q in (x, v))
    for q, kind, first in ((x, "length", "x"), (v, "velocity", "vx")):
        refuse(not plain and q.unit.physical_type != kind, f"{first} is in {str(q.unit) or 'no unit'}, which is no "
               f"unit of {kind}; {SKY}")
    w, weight = np.hstack([x.value, v.value]), numbers(table, weights, "weights") if weights else np.ones(len(table))
    finite = np.isfinite(w).all(axis=1) & np.isfinite(weight)
    rows = np.flatnonzero(finite)[np.sort(np.unique(w[finite], axis=0, return_index=True)[1])]
    refuse(len(rows) < check.MIN_STARS, f"{name} has {len(rows)} different rows with six finite numbers; at least "
           f"{check.MIN_STARS} stars are needed")
    try:
        w, weight = w[rows], check.weights(weight[rows], len(rows)) if weights else None
    except ValueError as error:
        raise SnapshotError(f"column {weights!r}, for weights: {error}") from None
    for key, column in zip(check.COLUMNS, w.T, strict=True):
        refuse((column == column[0]).all(), f"column {used[key]!r} has the same value in every row; it cannot be {key}")
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        middle = np.concatenate([_middle(w[:, :3]), _middle(w[:, 3:])]) if centre == "stars" else np.zeros(6)
        w = w - middle
        r, speed = np.linalg.norm(w[:, :3], axis=1), np.linalg.norm(w[:, 3:], axis=1)
        far, fast = ~(r < _FAR * np.median(r)), ~(speed < _FAST * np.median(speed))
    for odd, what in ((far, f"lies {_FAR:.0e} times farther"), (fast, f"moves {_FAST:.0f} times faster")):
        refuse(odd.any(), f"row {rows[odd.argmax()]} of {name} {what} from the middle than half of the stars, or "
               f"more, as {int(odd.sum())} of them do; take out numbers that stand for 'unknown'")
    length, velocity = float(np.median(r)), float(np.sqrt((speed**2).mean() / 3))
    frame = Frame(length * x.unit, velocity * v.unit, middle[:3] * x.unit, middle[3:] * v.unit)
    n_finite, w = int(finite.sum()), w / np.repeat([length, velocity], 3)
    unused = tuple(column for column in table.colnames if column not in (weights, *used.values()))
    return Snapshot(w, frame, len(table), len(table) - n_finite, n_finite - len(rows), name, digest, unused,
                    _told(table, used, units, factors), factors, weight)


def _factors(table: Table, units: Mapping, scale_factor: float, hubble: float) -> tuple[float, float]:
    """Return scale factor and little h: as given, or of the file, or zero."""
    found = []
    for k, (name, given) in enumerate((("scale_factor", scale_factor), ("hubble", hubble))):
        number = check.positive(given or 0, name, zero=True)
        refuse(number not in (0, 1) and not any(without_cosmology(unit)[k + 1] for unit in units.values()),
               f"{name} is {number}, but no unit has {'ah'[k]}; leave it out, or give units such as 'kpc a/h, km/s'")
        found.append(number or table.meta.get("dfaccel", {}).get(name) or 0.0)
    return found[0], found[1]


def _told(table: Table, used: Mapping[str, str], units: Mapping, factors: tuple[float, float]) -> str:
    """Say in one line which columns of which part of a file were taken for what."""
    said = table.meta.get("dfaccel", {})
    parts = [" ".join(filter(None, (said.get("format", "table"), said.get("part"))))]
    for keys in (check.COLUMNS[:3], check.COLUMNS[3:]):
        own = ", ".join(dict.fromkeys(str(units[key]) or "no unit" for key in keys))
        parts.append(f"{', '.join(keys)} from {', '.join(used[key] for key in keys)} in {own}")
    powers = [without_cosmology(unit)[1:] for unit in units.values()]
    parts += [f"{'ah'[k]} = {factor:.6g}" for k, factor in enumerate(factors) if any(power[k] for power in powers)]
    return "; ".join(parts)


def _middle(x: np.ndarray) -> np.ndarray:
    """Return where points (n, 3) crowd, the mean with weights 1 / (r^2 + b^2) about itself, b holding 3 % of them."""
    # The likeliest centre of a density that falls as a power beyond a core; distant interlopers do not count.
    middle = np.median(x, axis=0)
    scale = np.median(np.abs(x - middle)) or 1.0
    x = (x - middle) / scale  # so that squares of huge numbers do not overflow before they are noticed
    place = np.zeros(3)
    for _ in range(_ITERATIONS):
        r2 = ((x - place) ** 2).sum(axis=1)
        weight = 1 / (r2 + np.quantile(r2, _CORE))
        place = (x * weight[:, None]).sum(axis=0) / weight.sum()
    return middle + scale * place
