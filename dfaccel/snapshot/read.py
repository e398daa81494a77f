"""Your own stars: a table in a file, taken into plain numbers of order one and centred.

Whatever is wrong with a file is said in one sentence, a `SnapshotError`. Nothing here reads pickle.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from dfaccel import _check as check
from dfaccel.axes import directions
from dfaccel.coordinates import coordinate_map
from dfaccel.units import Frame

if TYPE_CHECKING:
    from astropy.table import Table
    from astropy.units import Quantity

_SIGNS = {b"SIMPLE  =": "fits", b"\x89HDF\r\n": "hdf5", b"PAR1": "parquet", b"PK\x03\x04": "npz", b"\x1f\x8b": "gzip",
          b"# %ECSV": "ascii.ecsv", b"<?xml": "votable", b"<VOTABLE": "votable"}
_FAR, _FAST = 1e8, 100.0  # median radii, median speeds: no star, but a number that stands for "unknown"
_CORE, _ITERATIONS = 0.03, 20  # share of the stars in the core of the centre's weights; steps to the centre


class SnapshotError(ValueError):
    """What is wrong with a file of stars, in one sentence."""


def refuse(when: bool, sentence: str) -> None:
    """Raise SnapshotError with this sentence in this case."""
    if when:
        raise SnapshotError(sentence)


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

    def points(self, table: Table, columns: Mapping | str | None = None, coordinates: str = "radial") -> np.ndarray:
        """Return the positions (m, 3), in the frame, of a table of points; columns without units are as the stars."""
        columns = {key: name for key, name in mapping(columns, "columns").items() if name in table.colnames}
        length, names = self.frame.length.unit, {key: columns.get(key, key) for key in check.COLUMNS[:3]}
        plain = [key for key, name in names.items() if name in table.colnames and table[name].unit is None]
        x = _vector(table, check.COLUMNS[:3], columns, dict.fromkeys(plain, str(length) or "1"))
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
         centre: str = "stars") -> Snapshot:
    """Read stars from a file, as `take` does from a table."""
    table, path = read_table(path), Path(str(path)).expanduser()
    return take(table, columns, units, centre=centre, name=path.name, digest=sha256(path.read_bytes()).hexdigest())


def read_table(path: str | Path) -> Table:
    """Read a table, its format known by its contents; a column ``pos`` of vectors comes as ``pos[0]``, ``pos[1]``..."""
    try:
        path = Path(str(path)).expanduser()
        refuse(not path.is_file(), f"there is no file {str(path)!r}; give the path of a table of stars")
        with path.open("rb") as file:
            head = file.read(64)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home of that name
        raise SnapshotError(f"{str(path)[:200]!r} cannot be opened: {getattr(error, 'strerror', error)}") from None
    kind = next((kind for sign, kind in _SIGNS.items() if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(sign)), None)
    refuse(not head.strip(), f"{path.name} is empty; it must hold a table of stars")
    refuse(kind == "gzip", f"{path.name} is compressed; unpack it first")
    refuse(kind is None and b"\x00" in head, f"{path.name} is of no format known here; write it as FITS, ECSV, HDF5, "
           "VOTable, Parquet, CSV or npz")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")  # of units that astropy does not know too: our error, if a column needs one
            table = _loaded(path, kind or "ascii.csv")
    except Exception as error:  # noqa: BLE001 - a dozen readers, each with errors of its own
        reason = " ".join(str(error).split()).rstrip(".")[:120] or type(error).__name__
        shown = (kind or "csv").removeprefix("ascii.").upper()
        raise SnapshotError(f"{path.name} cannot be read as {shown}, which it seems to be: {reason}") from None
    refuse(any("multiple tables" in str(warning.message) for warning in caught),
           f"{path.name} holds several tables; write that of the stars to a file of its own")
    for name in [name for name in table.colnames if table[name].ndim == 2 and table[name].shape[1] <= 6]:
        for k in range(table[name].shape[1]):
            table[f"{name}[{k}]"] = table[name][:, k]
        table.remove_column(name)
    return table


def _loaded(path: Path, kind: str) -> Table:
    """Return the table that a file of this kind holds."""
    from astropy.table import Table, meta

    if kind == "npz":
        with np.load(path, allow_pickle=False) as arrays:
            return Table({name: arrays[name] for name in arrays.files if arrays[name].ndim})
    if kind != "parquet":
        return Table.read(path, format=kind, **({"encoding": "utf-8-sig"} if kind.startswith("ascii") else {}))
    from pyarrow import parquet  # astropy's own reader of Parquet needs pandas as well

    stored = parquet.read_table(path)
    table = Table({name: stored[name].to_numpy() for name in stored.column_names})
    for name in [name for name in table.colnames if f"{name}.mask" in table.colnames]:  # as astropy stores a mask
        table[name] = np.ma.array(table[name], mask=table[f"{name}.mask"])
    described = (stored.schema.metadata or {}).get(b"table_meta_yaml")
    for column in meta.get_header_from_yaml(described.decode().splitlines())["datatype"] if described else ():
        table[column["name"]].unit = column.get("unit")
    return table


def take(table: Table, columns: Mapping | str | None = None, units: Mapping | str | None = None, *,
         centre: str = "stars", name: str = "the table", digest: str = "") -> Snapshot:
    """Take stars from a table: each row of six finite numbers once, about the ``centre`` of the "stars" or "origin"."""
    columns, units = mapping(columns, "columns"), mapping(units, "units")
    refuse(centre not in ("stars", "origin"), f"centre must be 'stars' or 'origin'; got {centre!r}")
    used = {key: columns.get(key, key) for key in check.COLUMNS}
    twice = next((column for column in used.values() if [*used.values()].count(column) > 1), None)
    refuse(twice is not None, f"column {twice!r} cannot stand for two of {', '.join(check.COLUMNS)}; mend columns")
    x, v = (_vector(table, names, columns, units) for names in (check.COLUMNS[:3], check.COLUMNS[3:]))
    plain = all(q.unit.physical_type == "dimensionless" for q in (x, v))
    for q, kind, first in ((x, "length", "x"), (v, "velocity", "vx")):
        refuse(not plain and q.unit.physical_type != kind, f"{first} is in {str(q.unit) or 'no unit'}, which is no "
               f"unit of {kind}; turn right ascension, distance and the like into Cartesian coordinates first")
    w = np.hstack([x.value, v.value])
    finite = np.isfinite(w).all(axis=1)
    rows = np.flatnonzero(finite)[np.sort(np.unique(w[finite], axis=0, return_index=True)[1])]
    refuse(len(rows) < check.MIN_STARS, f"{name} has {len(rows)} different rows with six finite numbers; at least "
           f"{check.MIN_STARS} stars are needed")
    w = w[rows]
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
    unused = tuple(column for column in table.colnames if column not in used.values())
    return Snapshot(w, frame, len(table), len(table) - n_finite, n_finite - len(rows), name, digest, unused)


def mapping(given: Mapping | str | None, name: str) -> dict[str, str]:
    """Return a mapping from some of the six names, also of "x=X, vx=VX", of six texts, or of units "kpc, km/s"."""
    if isinstance(given, str) or given == 1:
        parts = [part.strip() for part in str(given).split(",") if part.strip()]
        if name == "units" and (len(parts) == 2 or parts == ["1"]) and "=" not in str(given):
            parts = np.repeat(parts, 6 // len(parts)).tolist()
        if all("=" in part for part in parts):
            given = dict([text.strip() for text in part.split("=", 1)] for part in parts)
        else:
            given = dict(zip(check.COLUMNS, parts, strict=True)) if len(parts) == 6 else parts
    given = {} if given is None else given
    refuse(not isinstance(given, Mapping) or not all(isinstance(value, str) for value in given.values()),
           f"{name} must be a text such as 'x=..., vx=...', or such a mapping; got {given!r}")
    for key in sorted(map(str, given)):
        refuse(key not in check.COLUMNS, f"{name} accepts only the keys {', '.join(check.COLUMNS)}; got {key!r}")
    return dict(given)


def _vector(table: Table, names: tuple[str, ...], columns: Mapping[str, str], units: Mapping[str, str]) -> Quantity:
    """Return three columns as one quantity (n, 3) in the unit of the first; masked values are NaN."""
    quantities = [_column(table, name, columns.get(name, name), units.get(name)) for name in names]
    unit = quantities[0].unit
    for name, q in zip(names, quantities, strict=True):
        refuse(not q.unit.is_equivalent(unit), f"{name} is in {str(q.unit) or 'no unit'} and {names[0]} in "
               f"{str(unit) or 'no unit'}; they must be of one kind")
    return np.stack([quantity.to_value(unit) for quantity in quantities], axis=1) * unit


def _column(table: Table, name: str, wanted: str, stated: str | None) -> Quantity:
    """Return a column of one real number a row, float64, with the unit of the file or the one stated."""
    from astropy import units as u

    refuse(wanted not in table.colnames, f"there is no column {wanted!r} for {name} among "
           f"{', '.join(table.colnames)[:200]}; say which it is with columns, '{name}=...'")
    column = table[wanted]
    refuse(column.ndim != 1 or column.dtype.kind not in "iuf", f"column {wanted!r} must hold one real number a row; "
           f"it holds {column.dtype.name} of shape {column.shape[1:]}")
    unit = None if stated is None else u.Unit(stated, parse_strict="silent")
    refuse(isinstance(unit, u.UnrecognizedUnit), f"units has {stated!r} for {name}, which astropy does not know")
    own, what = column.unit, "no unit"
    if isinstance(own, u.UnrecognizedUnit):
        own, what = None, f"the unit {str(own)!r}, which astropy does not know,"
    refuse(unit is None and own is None, f"column {wanted!r} has {what} in the file; give it with units, such as "
           f"'{name}={'km/s' if name.startswith('v') else 'kpc'}'")
    refuse(unit is not None and own is not None and unit != own, f"column {wanted!r} is in {own} according to the "
           f"file and in {stated} according to units; leave that out")
    unit = own if unit is None else unit
    refuse(isinstance(unit, u.function.FunctionUnitBase), f"column {wanted!r} is in {unit}, a logarithm; turn it into "
           "a plain number with a unit")
    return np.ma.filled(np.ma.asarray(getattr(column, "value", column)).astype(np.float64), np.nan) * unit


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
