"""The table that a measurement leaves: the command that made it, then CSV; written at once, or as lines are known."""

import csv
import io
import shlex
import sys
from pathlib import Path

from dfaccel.files import write_files


def write_table(path: Path, rows: list[dict], digits: int = 5) -> None:
    """Write rows of equal keys, floats to that many significant digits."""
    text = io.StringIO()
    text.write(f"# {shlex.join(['python', f'benchmarks/{Path(sys.argv[0]).name}', *sys.argv[1:]])}\n")
    table = csv.DictWriter(text, rows[0], lineterminator="\n")
    table.writeheader()
    table.writerows({k: f"{v:.{digits}g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_files({path: text.getvalue().encode()})


def begun(path: Path, header: str, columns: str) -> list[str]:
    """Return the lines of a table under way, its header and columns if there are none; exit if it is another's."""
    lines = path.read_text().splitlines() if path.exists() else [header, columns]
    if lines[0] != header:
        sys.exit(f"{path} is of another study: {lines[0]}")
    return lines


def write_lines(path: Path, lines: list[str]) -> None:
    """Write what `begun` returned and what was added."""
    write_files({path: ("\n".join(lines) + "\n").encode()})
