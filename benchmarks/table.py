"""What measurements share: the command line, and the table they leave, at once or line by line as lines are known."""

import argparse
import csv
import io
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from astropy.table import Table

from dfaccel._files import write_files

ROOT = Path(__file__).resolve().parent.parent
MODELS, RESULTS = ROOT / "models", ROOT / "notebooks" / "results"


def parser(text: str) -> argparse.ArgumentParser:
    """Return a command line whose help is the text of the script."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


def write_table(path: Path, rows: list[dict], digits: int = 5) -> None:
    """Write the command that was run, then rows of equal keys, floats to that many significant digits."""
    text = io.StringIO()
    text.write(f"# {shlex.join(['python', f'benchmarks/{Path(sys.argv[0]).name}', *sys.argv[1:]])}\n")
    table = csv.DictWriter(text, rows[0], lineterminator="\n")
    table.writeheader()
    table.writerows({k: f"{v:.{digits}g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_files({path: text.getvalue().encode()})


class Lines:
    """A table under way: a header that says of which study it is, the columns, and the lines known so far."""

    def __init__(self, path: Path, header: str, columns: Iterable[str]) -> None:
        self.path, self.start = path, [header, ",".join(columns)]
        there = path.read_text().splitlines() if path.exists() else self.start
        if there[0] != header:
            sys.exit(f"{path} is of another study: {there[0]}")
        self.lines = there[2:]

    def __contains__(self, key: tuple) -> bool:
        """Say whether a line begins with these values."""
        return any(line[: len(key)] == [str(value) for value in key] for line in csv.reader(self.lines))

    def add(self, rows: Iterable[list], *, in_order: bool = False) -> None:
        """Add rows, put all lines in order if asked to, and write the table anew."""
        self.lines += [",".join(map(str, row)) for row in rows]
        if in_order:
            self.lines.sort()
        write_files({self.path: ("\n".join([*self.start, *self.lines]) + "\n").encode()})

    def rows(self) -> list[dict[str, str]]:
        """Return what the table holds."""
        return list(csv.DictReader([self.start[1], *self.lines]))


class Rows:
    """A table under way (ECSV): what it is of, in its metadata, and rows known by the values of their ``keys``."""

    def __init__(self, path: Path, keys: tuple[str, ...], meta: dict) -> None:
        self.path, self.keys, self.meta = path, keys, meta
        there = Table.read(path, format="ascii.ecsv") if path.exists() else None
        if there is not None and dict(there.meta) != meta:
            sys.exit(f"{path} is of another study: {dict(there.meta)}")
        self.rows = [dict(zip(row.colnames, row.as_void().item(), strict=True)) for row in there or ()]

    def __contains__(self, key: tuple) -> bool:
        """Say whether there is a row of these keys."""
        return any(tuple(row[name] for name in self.keys) == key for row in self.rows)

    def add(self, *rows: dict, digits: int = 5) -> None:
        """Add rows, numbers to that many significant digits, and write the table anew, sorted by the keys."""
        self.rows += [{k: float(f"{v:.{digits}g}") if isinstance(v, float) else v for k, v in r.items()} for r in rows]
        self.rows.sort(key=lambda row: tuple(row[name] for name in self.keys))
        text = io.StringIO()
        Table(self.rows, meta=self.meta).write(text, format="ascii.ecsv", delimiter=",")
        write_files({self.path: text.getvalue().encode()})

    def means(self, over: str) -> Table:
        """Return means over one of the keys, with their standard errors and the number of rows."""
        names = [name for name in self.keys if name != over]
        table = Table(self.rows)
        found = []
        for group in table.group_by(names).groups:
            row = {name: group[name][0] for name in names} | {"n": len(group)}
            for name in set(table.colnames) - set(self.keys):
                row[name] = np.mean(group[name])
                row[f"{name}_error"] = np.std(group[name], ddof=1) / len(group) ** 0.5 if len(group) > 1 else np.nan
            found.append(row)
        return Table(found)
