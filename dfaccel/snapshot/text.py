"""A table from a text: how its columns are delimited and named is found out here, and astropy parses it."""

import csv
import re
from collections.abc import Callable
from itertools import takewhile, zip_longest

from astropy.io import ascii as text
from astropy.table import Column, Table
from astropy.units import UnrecognizedUnit

from dfaccel.snapshot.columns import NUMBER, refuse
from dfaccel.units import unit_of

_MISSING = [(word, "0") for word in ("", "null", "NULL", "None", "NA", "N/A", "-", "--", "...")]
_SPECIAL = re.compile(r"\\|Title:|#\s+1\s+[A-Za-z]|#[NKU] ")  # beginnings of what astropy recognizes: IPAC, CDS...
_RULE = re.compile(r"[-+=|:;,\s]+|(\d*[NSM]\s*){2,}")  # a line between parts of a table, or of types as in RDB
_NAME = re.compile(r"""[^\s,;|"'(\[]+(?:\s*[\[(][^\])]*[\])])?""")  # of a column, with its unit in brackets


def read_text(content: bytes) -> Table | dict[str, Column]:
    """Return the columns of a text."""
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        lines = content.decode("utf-16" if wide else "utf-8-sig").splitlines()
    except UnicodeDecodeError:
        lines = content.decode("latin-1").splitlines()
    lines = [line for line in lines if line.strip()]
    refuse(not lines, "is empty; it must hold a table of stars")
    if lines[0].startswith("# %ECSV"):
        return text.read(lines, format="ecsv", fill_values=_MISSING)
    if _SPECIAL.match(lines[0]) or (lines[0].startswith("|") and "|" not in lines[-1]):
        return text.read(lines)
    return _delimited(lines)


def _delimited(lines: list[str]) -> dict[str, Column]:
    """Return the columns of rows of text, whatever is between them and however their names and units are given."""
    marks = [line.lstrip().startswith(("#", "%", "!", "//")) for line in lines]
    rows = [line.strip(" ") for line, mark in zip(lines, marks, strict=True) if not (mark or _RULE.fullmatch(line))]
    refuse(not rows, "has no rows; it must hold a table of stars")
    if rows[0].startswith("|"):  # also around each row
        rows = [row.removeprefix("|").removesuffix("|") for row in rows]
    comments = [line.strip("#%!/ \t") for line, mark in takewhile(lambda pair: pair[1], zip(lines, marks, strict=True))]
    mark = next((mark for mark in "\t;|," if mark in rows[0]), " ")
    if mark in "\t;" and re.search(r"\d,\d", rows[-1]):
        rows = [row.replace(",", ".") for row in rows]  # decimal commas

    def fields(row: str) -> list[str]:
        return [field.strip() for field in next(csv.reader([row], delimiter=mark, skipinitialspace=True))]

    units, first = [], fields(rows[0])
    if any(map(NUMBER.fullmatch, first)):
        found = [_NAME.findall(re.split(r":\s", line)[-1]) for line in comments]
        found = [words for words in found if len(words) == len(first)]
        units = found.pop() if found and _are_units(found[-1], all) else units
        names = found[-1] if found else [f"col{k + 1}" for k in range(len(first))]
    else:
        names, header = first, rows.pop(0)
        units = fields(rows.pop(0)) if rows and _are_units(fields(rows[0]), any) else units
        first = fields(rows[0]) if rows else names
        names = _NAME.findall(header) if mark == " " and len(names) != len(first) else names
        names += [""] * (len(first) == len(names) + 1 and not first[-1])  # where rows end in a delimiter
        refuse(len(first) > len(names), f"has {len(names)} names for {len(first)} columns in its first row")
    unnamed = mark.join(f"c{k}" for k in range(len(names)))
    form = {"format": "basic", "delimiter": " "} if mark == " " else {"format": "csv", "delimiter": mark}
    table, columns = text.read([unnamed, *rows], guess=False, fill_values=_MISSING, **form), {}
    for column, name, unit in zip_longest(table.itercols(), names, units):
        if name in columns:
            name = f"{name}_{sum(other.startswith(name) for other in columns)}"
        column.unit = (unit or "").strip("[]()-") or None
        columns |= {name: column} if name else {}
    return columns


def _are_units(words: list[str], some: Callable[[list[bool]], bool]) -> bool:
    """Tell whether a line of words has no number and ``some`` of the words, any or all, are units that are known."""
    known = [not isinstance(unit_of(word.strip("[]()")), UnrecognizedUnit) for word in words if word.strip("-")]
    return bool(known) and some(known) and not any(map(NUMBER.fullmatch, words))
