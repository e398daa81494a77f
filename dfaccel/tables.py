"""Tables of stars in files: read by their contents, and their columns as quantities.

Anything that astropy's tables read (FITS, ECSV, VOTable, HDF5, Parquet, CSV), and NumPy's npz, goes in; whatever is
wrong with it is said in one sentence, a `SnapshotError`. Nothing here reads pickle.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .checks import COLUMNS

if TYPE_CHECKING:
    from astropy.table import Table
    from astropy.units import Quantity

_SIGNS = {
    b"SIMPLE  =": "fits",
    b"\x89HDF\r\n": "hdf5",
    b"PAR1": "parquet",
    b"PK\x03\x04": "npz",
    b"# %ECSV": "ascii.ecsv",
    b"<?xml": "votable",
    b"<VOTABLE": "votable",
    b"\x1f\x8b": "gzip",
}


class SnapshotError(ValueError):
    """What is wrong with a file of stars, in one sentence."""


def read_table(path: str | Path) -> Table:
    r"""Read a table, its format known by its contents.

    Parameters
    ----------
    path : str or Path
        FITS, ECSV, VOTable, HDF5, Parquet, CSV or npz. A column ``pos`` of vectors comes as ``pos[0]``, ``pos[1]``
        and so on.

    Raises
    ------
    SnapshotError
        If there is no such file, or it holds no table that can be read.

    Examples
    --------
    >>> _ = Path("two.csv").write_text("x,y\n1,2\n3,4\n")
    >>> len(read_table("two.csv"))
    2
    """
    from astropy.table import Table

    path = Path(str(path))
    try:
        if not path.is_file():
            raise SnapshotError(f"there is no file {str(path)!r}; give the path of a table of stars")
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise SnapshotError(f"{str(path)[:200]!r} cannot be opened: {error.strerror}") from None
    if not head.strip():
        raise SnapshotError(f"{path.name} is empty; it must hold a table of stars")
    kind = next((kind for sign, kind in _SIGNS.items() if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(sign)), None)
    if kind == "gzip":
        raise SnapshotError(f"{path.name} is compressed; unpack it first")
    if kind is None and b"\x00" in head:
        raise SnapshotError(
            f"{path.name} is of no format known here; write it as FITS, ECSV, HDF5, VOTable, Parquet, CSV or npz"
        )
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")  # of units that astropy does not know too: our error, if a column needs one
            if kind == "npz":
                with np.load(path, allow_pickle=False) as arrays:
                    table = Table({name: arrays[name] for name in arrays.files if arrays[name].ndim})
            elif kind == "parquet":
                table = _parquet(path)
            else:
                encoding = {"encoding": "utf-8-sig"} if kind in (None, "ascii.ecsv") else {}
                table = Table.read(path, format=kind or "ascii.csv", **encoding)
    except Exception as error:  # noqa: BLE001 - a dozen readers, each with errors of its own
        reason = " ".join(str(error).split()).rstrip(".")[:120] or type(error).__name__
        shown = "CSV" if kind is None else kind.removeprefix("ascii.").upper()
        raise SnapshotError(f"{path.name} cannot be read as {shown}, which it seems to be: {reason}") from None
    if any("multiple tables" in str(warning.message) for warning in caught):
        raise SnapshotError(f"{path.name} holds several tables; write that of the stars to a file of its own")
    return _flat(table)


def _flat(table: Table) -> Table:
    """Take each column of vectors (n, k) apart into k columns, named such as ``pos[0]``."""
    for name in [name for name in table.colnames if table[name].ndim == 2 and table[name].shape[1] <= len(COLUMNS)]:
        for k in range(table[name].shape[1]):
            table[f"{name}[{k}]"] = table[name][:, k]
        table.remove_column(name)
    return table


def _parquet(path: Path) -> Table:
    """Read Parquet, with the units that astropy writes into it, as astropy does but without pandas."""
    from astropy.table import Table, meta
    from pyarrow import parquet

    stored = parquet.read_table(path)
    table = Table({name: stored[name].to_numpy() for name in stored.column_names})
    for name in [name for name in table.colnames if f"{name}.mask" in table.colnames]:  # as astropy stores a mask
        table[name] = np.ma.array(table[name], mask=table[f"{name}.mask"])
    described = (stored.schema.metadata or {}).get(b"table_meta_yaml")
    if described:
        for column in meta.get_header_from_yaml(described.decode().splitlines())["datatype"]:
            table[column["name"]].unit = column.get("unit")
    return table


def mapping(given: Mapping[str, str] | str | None, name: str) -> dict[str, str]:
    """Return a mapping from some of the six names, also if written as a text.

    Parameters
    ----------
    given : mapping, str or None
        Mapping; or "x=X, vx=VX"; or six texts with commas between them; of units also "kpc, km/s".
    name : {"columns", "units"}
        What it is, for the message.

    Raises
    ------
    SnapshotError
        If it is nothing of the kind.

    Examples
    --------
    >>> mapping("x=X, vx=VX", "columns")
    {'x': 'X', 'vx': 'VX'}
    """
    if isinstance(given, str) or given == 1:
        given = str(given)
        parts = [part.strip() for part in given.split(",") if part.strip()]
        if all("=" in part for part in parts):
            given = dict([text.strip() for text in part.split("=", 1)] for part in parts)
        else:
            if name == "units" and (len(parts) == 2 or parts == ["1"]):
                parts = np.repeat(parts, 6 // len(parts)).tolist()
            given = dict(zip(COLUMNS, parts, strict=True)) if len(parts) == 6 else parts
    given = {} if given is None else given
    if not isinstance(given, Mapping) or not all(isinstance(value, str) for value in given.values()):
        raise SnapshotError(f"{name} must be a text such as 'x=..., vx=...', or such a mapping; got {given!r}")
    unknown = set(given) - set(COLUMNS)
    if unknown:
        raise SnapshotError(f"{name} may speak of {', '.join(COLUMNS)}; got {sorted(map(str, unknown))[0]!r}")
    return dict(given)


def vector(table: Table, names: tuple[str, ...], columns: Mapping[str, str], units: Mapping[str, str]) -> Quantity:
    """Return three columns as one quantity (n, 3) in the unit of the first; masked values are NaN.

    Raises
    ------
    SnapshotError
        If a column is missing, holds no numbers, or has no unit or one of another kind.
    """
    quantities = [_column(table, name, columns.get(name, name), units.get(name)) for name in names]
    for name, quantity in zip(names, quantities, strict=True):
        if not quantity.unit.is_equivalent(quantities[0].unit):
            raise SnapshotError(
                f"{name} is in {str(quantity.unit) or 'no unit'} and {names[0]} in "
                f"{str(quantities[0].unit) or 'no unit'}; they must be of one kind"
            )
    unit = quantities[0].unit
    return np.stack([quantity.to_value(unit) for quantity in quantities], axis=1) * unit


def _column(table: Table, name: str, wanted: str, stated: str | None) -> Quantity:
    """Return a column of one real number a row, float64, with the unit of the file or the one stated."""
    from astropy import units as u

    if wanted not in table.colnames:
        raise SnapshotError(
            f"there is no column {wanted!r} for {name} among {', '.join(table.colnames)[:200]}; say which "
            f"it is with columns, '{name}=...'"
        )
    column = table[wanted]
    if column.ndim != 1 or column.dtype.kind not in "iuf":
        raise SnapshotError(
            f"column {wanted!r} must hold one real number a row; it holds {column.dtype.name} of shape "
            f"{column.shape[1:]}"
        )
    try:
        unit = None if stated is None else u.dimensionless_unscaled if stated == "1" else u.Unit(stated)
    except ValueError:
        raise SnapshotError(f"units has {stated!r} for {name}, which astropy does not know") from None
    own, unknown = column.unit, isinstance(column.unit, u.UnrecognizedUnit)
    if unit is None and (own is None or unknown):
        what = f"the unit {str(own)!r}, which astropy does not know," if unknown else "no unit"
        raise SnapshotError(
            f"column {wanted!r} has {what} in the file; give it with units, such as "
            f"'{name}={'km/s' if name.startswith('v') else 'kpc'}'"
        )
    if unit is not None and own is not None and not unknown and unit != own:
        raise SnapshotError(
            f"column {wanted!r} is in {own} according to the file and in {stated} according to units; leave that out"
        )
    unit = own if unit is None else unit
    if isinstance(unit, u.function.FunctionUnitBase):
        raise SnapshotError(f"column {wanted!r} is in {unit}, a logarithm; turn it into a plain number with a unit")
    return np.ma.filled(np.ma.asarray(getattr(column, "value", column)).astype(np.float64), np.nan) * unit


def check_kinds(x: Quantity, v: Quantity) -> None:
    """Check that there are lengths and velocities, or neither.

    Raises
    ------
    SnapshotError
        If a unit is of another kind.
    """
    from astropy import units as u

    without = [q.unit.is_equivalent(u.dimensionless_unscaled) for q in (x, v)]
    for quantity, kind, like, first in ((x, "length", u.m, "x"), (v, "velocity", u.m / u.s, "vx")):
        if not quantity.unit.is_equivalent(like) and not all(without):
            raise SnapshotError(
                f"{first} is in {str(quantity.unit) or 'no unit'}, which is no unit of {kind}; right ascension, "
                "distance and the like must be turned into Cartesian coordinates first"
            )
