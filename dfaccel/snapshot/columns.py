"""Which columns of a table are positions and velocities, and their units; what is unclear is said in one sentence."""

import re
from collections.abc import Mapping

import numpy as np
from astropy.table import Table
from astropy.units import Quantity, UnitBase, UnrecognizedUnit, function

from dfaccel import _check as check
from dfaccel.units import unit_of, without_cosmology

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+|nan|inf)(e[-+]?\d+)?", re.IGNORECASE)
SKY = "turn right ascension, distance and the like into Cartesian coordinates first, with astropy's SkyCoord"
_POSITION, _VELOCITY = "pos|positions?|coords?|coordinates", "v|vels?|velocity|velocities"
_BESIDE = re.compile(r"(particle_?)?(ids?|index)|m|mass(es)?|weights?", re.IGNORECASE)  # columns beside one array


class SnapshotError(ValueError):
    """What is wrong with a file of stars, in one sentence."""


def refuse(when: bool, sentence: str) -> None:
    """Raise SnapshotError with this sentence in this case."""
    if when:
        raise SnapshotError(sentence)


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


def meaning(column: str) -> str | None:
    """Return which of the six a column means by its name, such as X, v_x [km/s], pos[0] or stars/velocity/x."""
    for text in (column.split("/", k)[-1] for k in range(1 + column.count("/"))):
        word, index = re.sub(r"[\[(].*|[^a-z]", "", text.lower()), re.search(r"\[([012])\]$", text)
        for first, array, one in (("", f"x|r|xyz|{_POSITION}", f"({_POSITION})?([xyz])"),
                                  ("v", f"vxyz|{_VELOCITY}", f"({_VELOCITY})([xyz])")):
            if index and re.fullmatch(array, word):
                return first + "xyz"[int(index[1])]
            if not index and (found := re.fullmatch(one + "([kmg]?pc|kms)?", word)):
                return first + found[2]
    return None


def used_columns(table: Table, keys: tuple[str, ...], columns: Mapping[str, str]) -> dict[str, str]:
    """Return the column for each key: as stated, of its name, of one that means it, or of the only array in order."""
    named = {column: meaning(column) for column in table.colnames}
    stems = {column: re.sub(r"\[\d\]$|(?<=^col)\d+$", "", column) for column in named if not _BESIDE.fullmatch(column)}
    hidden = any(column.startswith("values_block") for column in named)  # the names, by pandas
    if not (hidden or any(named.values())) and len(stems) == len(keys) and len(set(stems.values())) == 1:
        return dict(zip(keys, stems, strict=True)) | columns
    used = {}
    for key in keys:
        found = [column for column, meant in named.items() if meant == key]
        twins = [column for column in found if column == key or re.fullmatch(rf"{key}_\d", column)]
        found = twins if key in found else found
        refuse(key not in columns and len(found) > 1, f"{key} may be any of the columns {', '.join(found)}; say which "
               f"it is with columns, '{key}=...'")
        used[key] = columns.get(key) or next(iter(found), key)
    return used


def unit_in(table: Table, key: str, wanted: str, stated: str | None) -> UnitBase:
    """Return the unit of a column of one real number a row, that of the file or the one stated."""
    numbers(table, wanted, key)  # says what is wrong with the column, if it is no column of numbers
    column, unit, said = table[wanted], None if stated is None else unit_of(stated), table.meta.get("dfaccel", {})
    refuse(isinstance(unit, UnrecognizedUnit), f"units has {stated!r} for {key}, which astropy does not know")
    own = column.unit or "".join(re.findall(r"[\[(](.*[^\d\W].*)[\])]$", wanted)) or None
    own, what = None if own is None else unit_of(own), "no unit"
    if isinstance(own, UnrecognizedUnit):
        own, what = None, f"the unit {str(own)!r}, which astropy does not know,"
    example = "kpc, km/s" if what == "no unit" and key == "x" else f"{key}={'km/s' if key[0] == 'v' else 'kpc'}"
    known = [f"{name} = {said[name]:.4g}" for name in ("hubble", "scale_factor") if said.get(name) not in (None, 1)]
    if known or re.search(r"(?<![A-Za-z])[ah](?![a-z])", what):
        example += f"' or, with scale factor and little h ({', '.join(known) or 'to be given'}), 'kpc a/h, km sqrt(a)/s"
    refuse(unit is None and own is None, f"column {wanted!r} has {what} in the file; give it with units, such as "
           f"'{example}'")
    unit, both = own if unit is None else unit, unit is not None and str(own or "")
    refuse(isinstance(unit, function.FunctionUnitBase), f"column {wanted!r} is in {unit}, a logarithm; turn it into "
           "a plain number with a unit")
    if both:  # units may add a scale factor or little h that the file leaves out, and nothing else
        (bare, *powers), (own_bare, *own_powers) = without_cosmology(unit), without_cosmology(own)
        wrong = bare != own_bare or any(p not in (0, q) for p, q in zip(own_powers, powers, strict=True))
        refuse(wrong, f"column {wanted!r} is in {own} according to the file and in {stated} according to units; leave "
               "that out")
    return unit


def vector(table: Table, used: Mapping[str, str], units: Mapping, factors: tuple[float, float]) -> Quantity:
    """Return three columns as one quantity (n, 3) in the unit of the first; masked values are NaN."""
    first, values = next(iter(used)), []
    target = without_cosmology(units[first])[0]
    for key, name in used.items():
        unit, of_a, of_h = without_cosmology(units[key])
        refuse((of_a and not factors[0]) or (of_h and not factors[1]), f"column {name!r} is in {units[key]}, where a "
               "is the scale factor and h the Hubble constant over 100 km/s/Mpc; give both, such as hubble=0.7, "
               "scale_factor=1")
        refuse(of_a < 0 or of_h > 0, f"column {name!r} is in {units[key]}; write a above and h below the bar, such as "
               "'kpc a/h' and 'km sqrt(a)/s'")
        refuse(not unit.is_equivalent(target), f"{key} is in {str(unit) or 'no unit'} and {first} in "
               f"{str(target) or 'no unit'}; they must be of one kind")
        factor = (factors[0] or 1) ** of_a * (factors[1] or 1) ** of_h * unit.to(target)
        values.append(numbers(table, name, key) * factor)
    return np.stack(values, axis=1) * target


def numbers(table: Table, name: str, key: str) -> np.ndarray:
    """Return the column for ``key``, float64, without its unit; masked values are NaN."""
    sky = any(other.lower() in ("ra", "dec", "parallax") or hasattr(table[other], "frame") for other in table.colnames)
    with_columns = " with columns" * (key in check.COLUMNS)
    refuse(name not in table.colnames, f"there is no column {name!r} for {key} among "
           f"{', '.join(table.colnames)[:200]}; {SKY if sky else f'say which it is{with_columns}, {key}=...'}")
    column = table[name]
    if column.ndim != 1 or column.dtype.kind not in "iuf":
        what = f"it holds {column.dtype.name} of shape {column.shape[1:]}"
        odd = (f"row {k} holds {str(v)[:40]!r}" for k, v in enumerate(column) if not NUMBER.fullmatch(str(v)))
        refuse(True, f"column {name!r} must hold one real number a row; {next(odd, what)}")
    return np.ma.filled(np.ma.asarray(getattr(column, "value", column)).astype(np.float64), np.nan)
