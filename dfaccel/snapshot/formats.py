"""A table from any file: its contents say what it is, and a library that knows this format parses it."""

import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from astropy.io import fits, votable
from astropy.table import Column, Table, meta
from astropy.utils.data import get_readable_fileobj

from dfaccel.snapshot.columns import SnapshotError, refuse
from dfaccel.snapshot.text import read_text

_OTHERS = {b"<!DOCTYPE": "a page of HTML", b"<HTML": "a page of HTML", b"#ASDF": "an ASDF file", b"%PDF": "a PDF",
           b"VERSION HTTPS://GIT-LFS": "a pointer of Git LFS, to be replaced by the file with 'git lfs pull'",
           b"\x1f\x8b": "compressed and damaged",
           b"{": "JSON", b"[": "JSON", b"\x80": "a pickle, which may run code and is not read",
           b"\x00\x01\x00\x00": "a binary Gadget snapshot", b"\x08\x00\x00\x00HEAD": "a binary Gadget snapshot"}
_KNOWN = "write the stars as FITS, ECSV, HDF5, VOTable, Parquet, CSV or npz"
_SIZES = {"kpc": 3.0856775814913673e21, "km s**-1": 1e5}  # in cgs
# attributes of a column in an HDF5 file: its unit in cgs, and the exponents of scale factor and little h
_CGS = (("to_cgs", "a_scaling", "h_scaling"), ("CGSConversionFactor", "aexp-scale-exponent", "h-scale-exponent"),
        ("Conversion factor to CGS (not including cosmological corrections)", "a-scale exponent", "h-scale exponent"))


def read_table(path: str | Path, particles: str = "") -> Table:
    """Read a table; of several, that of the ``particles``; a column ``pos`` of vectors comes as ``pos[0]``..."""
    kind = "compressed"
    try:
        path = Path(str(path)).expanduser()
        refuse(not path.is_file(), f"there is no file {str(path)!r}; give the path of a table of stars")
        opened = path.open("rb")
    except (OSError, RuntimeError) as error:  # RuntimeError: no home of that name
        raise SnapshotError(f"{str(path)[:200]!r} cannot be opened: {getattr(error, 'strerror', error)}") from None
    try:
        with opened as packed, get_readable_fileobj(packed, "binary") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # also of units that astropy does not know: our error, if one is needed
            kind, source = "zip", _member(file)
            head = source.read(512)
            source.seek(0)
            start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
            other = next((other for sign, other in _OTHERS.items() if start.upper().startswith(sign)), None)
            refuse(other is not None, f"is {other}; {_KNOWN}")
            kind, reader = next((found for sign, found in _READERS.items() if start.startswith(sign)), ("text", _text))
            table = reader(source, str(particles or ""))
    except SnapshotError as error:
        raise SnapshotError(f"{path.name} {error}") from None
    except Exception as error:  # noqa: BLE001 - a dozen readers, each with errors of its own
        reason = " ".join(str(error).split()).rstrip(".")[:120] or type(error).__name__
        raise SnapshotError(f"{path.name} cannot be read as {kind}, which it seems to be: {reason}") from None
    table.meta["dfaccel"]["format"] = kind
    return table


def _member(file: IO) -> IO:
    """Return a file, or the only member of a zip archive that does not hold arrays of NumPy."""
    names = zipfile.ZipFile(file).namelist() if zipfile.is_zipfile(file) else []
    file.seek(0)
    if not names or any(name.endswith(".npy") for name in names):
        return file
    refuse("xl/workbook.xml" in names, "is a workbook of Excel; save the sheet of the stars as CSV")
    refuse(len(names) > 1, f"holds {len(names)} files, {', '.join(names)[:80]}; unpack it, and give that of the stars")
    return zipfile.ZipFile(file).open(names[0])


def _chosen(tables: Mapping[str, Mapping[str, Any]], particles: str) -> tuple[str, Mapping[str, Any]]:
    """Return the name and the columns of the one of some tables that holds the stars, or of all together."""
    refuse(not tables, "holds no table")
    shapes = {name: [sorted(np.shape(column)) for column in columns.values()] for name, columns in tables.items()}
    rows = {name: max((shape[-1] for shape in own if shape), default=0) for name, own in shapes.items()}
    listed = ", ".join(f"{name or 'a table'} ({n:,} rows)" for name, n in rows.items())[:300]
    if particles:
        asked = [name for name in tables if particles in (name, name.rpartition("/")[2], name.removeprefix("PartType"))]
        asked = asked or [name for name in tables if name.startswith(f"{particles}/")]
        refuse(not asked, f"has no {particles!r}, for particles, but {listed}")
    else:
        asked = [name for name, own in shapes.items() if sum(shape[0] if shape[1:] else 1 for shape in own) >= 6]
        refuse(len(asked) > 1, f"holds {listed}; say which are the stars, such as particles={''.join(asked[-1:])!r}")
    asked = asked or list(tables)
    if len(asked) == 1:
        return asked[0], tables[asked[0]]
    return particles, {f"{name}/{key}": column for name in asked for key, column in tables[name].items()}


def _even(part: str, columns: Mapping[str, Any], **known: float | None) -> Table:
    """Return a table of one number a row: vectors taken apart, and what has another length left out."""
    arrays = {}
    for name, column in columns.items():
        if isinstance(column, np.ndarray) and column.dtype.kind == "O":
            width = next((len(row) for row in column if np.ndim(row)), 0)
            column = np.stack([[np.nan] * width if row is None else row for row in column]) if width else column
        if np.ndim(column) > 1 and len(column) == 1 and column.size > 6:  # one row that holds whole columns
            column = column.reshape(column.shape[1:])
        if np.ndim(column) == 2 and len(column) <= 6 < column.shape[1]:  # components first
            column = column.T
        if np.ndim(column) == 2 and column.shape[1] == 1:
            arrays[name] = column[:, 0]
        elif np.ndim(column) == 2 and column.shape[1] <= 6:
            arrays |= {f"{name}[{k}]": column[:, k] for k in range(column.shape[1])}
        elif np.ndim(column):
            arrays[name] = column
    lengths = Counter(map(len, arrays.values()))
    many = [n for n, columns in lengths.items() if columns >= 6]
    refuse(len(many) > 1, f"holds columns of {' and of '.join(map(str, many))} rows; write those of the stars alone")
    n = max(lengths, key=lambda n: (lengths[n], n), default=0)
    table = Table({name: array for name, array in arrays.items() if len(array) == n})
    table.meta["dfaccel"] = {"part": part, **known}
    return table


def _fits(source: IO, particles: str) -> Table:
    with fits.open(source, memmap=False) as file:
        found = [(k, hdu) for k, hdu in enumerate(file) if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
        tables = {hdu.name or f"table {k}": Table.read(hdu) for k, hdu in found}
    return _even(*_chosen(tables, particles))


def _votable(source: IO, particles: str) -> Table:
    found = enumerate(votable.parse(source).iter_tables())
    return _even(*_chosen({table.name or table.ID or f"table {k}": table.to_table() for k, table in found}, particles))


def _arrow(source: IO, particles: str) -> Table:
    from pyarrow import feather, parquet

    stored = (parquet if source.read(4) == b"PAR1" else feather).read_table(source).flatten()
    columns = {name: stored[name].to_numpy() for name in stored.column_names}
    for name in [name for name in columns if f"{name}.mask" in columns]:  # as astropy stores a mask
        columns[name] = np.ma.array(columns[name], mask=columns.pop(f"{name}.mask"))
    described = (stored.schema.metadata or {}).get(b"table_meta_yaml")
    table = _even(*_chosen({"": columns}, particles))
    for column in meta.get_header_from_yaml(described.decode().splitlines())["datatype"] if described else ():
        for name in table.colnames:
            table[name].unit = column.get("unit") if name.partition("[")[0] == column["name"] else table[name].unit
    return table


def _numpy(source: IO, particles: str) -> Table:
    loaded, arrays = np.load(source, allow_pickle=False), {}
    for name in getattr(loaded, "files", [""]):
        try:
            arrays[name] = loaded[name] if name else loaded
        except ValueError as error:  # a pickled object beside arrays
            if "pickle" not in str(error) or loaded.files == [name]:
                raise
    tables = {name: {key: a[key] for key in a.dtype.names} for name, a in arrays.items() if a.dtype.names}
    plain = {name or "array": a for name, a in arrays.items() if name not in tables}
    return _even(*_chosen(tables | ({"": plain} if plain else {}), particles))


def _hdf5(source: IO, particles: str) -> Table:
    import h5py

    header, tables = {}, {}

    def visit(path: str, node: h5py.Group | h5py.Dataset) -> None:
        group, _, name = path.rpartition("/")
        if isinstance(node, h5py.Group):
            header.update(node.attrs)
        elif node.dtype.names:
            tables[path] = Table.read(file, path=path)
        elif node.ndim and not name.endswith("__table_column_meta__"):
            tables.setdefault(group, {})[name] = node

    def number(*names: str) -> float | None:
        return next((float(np.ravel(header[name])[0]) for name in names if name in header), None)

    with h5py.File(source) as file:
        header.update(file.attrs)
        file.visititems(visit)
        part, columns = _chosen(tables, particles)
        refuse((number("NumFilesPerSnapshot") or 1) > 1, "is a part of a snapshot in several files; join them first")
        z, hubble = number("Redshift"), number("HubbleParam", *["h"] * ("Scale-factor" in header))  # h in SWIFT
        a = 1 / (1 + z) if z is not None else number("ExpansionFactor", "Time")
        cosmic = z is not None
        stated = {"Coordinates": (number("UnitLength_in_cm", "UnitLength_In_CGS"), cosmic, -bool(hubble)),
                  "Velocities": (number("UnitVelocity_in_cm_per_s", "UnitVelocity_In_CGS"), cosmic / 2, 0)}
        columns = {name: _physical(name, node, stated.get(name, [None])) if isinstance(node, h5py.Dataset) else node
                   for name, node in columns.items()}
    return _even(part, columns, hubble=hubble, scale_factor=a)


def _physical(name: str, node: Any, stated: tuple) -> Column:
    """Return a column of an HDF5 file with its unit, if it has one or the header states it."""
    own = [node.attrs[key] for key in ("unit", "units", "Unit", "Units") if key in node.attrs]
    unit = str(np.ravel(own[0]).astype(str)[0]) if own else None  # of bytes, too
    stated = next(([node.attrs[key] for key in keys] for keys in _CGS if keys[0] in node.attrs), stated)
    if unit or stated[0] is None or name not in ("Coordinates", "Velocities"):
        return Column(node[()], unit=unit)
    cgs, of_a, of_h = (float(np.ravel(value)[0]) for value in stated)
    unit = "kpc" if name == "Coordinates" else "km s**-1"
    return Column(node[()] * (cgs / _SIZES[unit]), unit=f"{unit} a**({of_a:g}) h**({of_h:g})")


def _text(source: IO, particles: str) -> Table:
    content = source.read()
    binary = b"\x00" in content[:512] and not content.startswith((b"\xff\xfe", b"\xfe\xff"))
    refuse(binary, f"is of no format known here; {_KNOWN}")
    return _even(*_chosen({"": read_text(content)}, particles))


_READERS = {b"# %ECSV": ("ECSV", _text), b"SIMPLE  =": ("FITS", _fits),
            b"\x89HDF\r\n": ("HDF5", _hdf5), b"PAR1": ("Parquet", _arrow),
            b"ARROW1": ("Feather", _arrow), b"PK\x03\x04": ("npz", _numpy), b"\x93NUMPY": ("npy", _numpy),
            b"<?xml": ("VOTable", _votable), b"<VOTABLE": ("VOTable", _votable)}
