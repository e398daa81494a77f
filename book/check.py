"""Compare the records of executed notebooks with what notebooks/expected.yml expects of them.

    python book/check.py _build/executed/book notebooks/expected.yml --profile book

An entry of expected.yml::

    04_learning_a_galaxy:                        # stem of the notebook
      kl_divergence:                             # name of the record
        source: DESIGN score card                # where the reference comes from
        book: {max: 0.006}                       # bounds of one profile: min and/or max ...
        quick: {value: 0.02, tolerance: 0.02}    # ... or a value and an absolute tolerance
      total_mass: {source: "exact", value: 1.0, tolerance: 1.0e-6}    # the same in every profile
      printed: [n_stars, "ratio_*"]              # settings and arithmetic of shipped tables, which cannot be wrong
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import sys
from pathlib import Path
from typing import NamedTuple

import yaml

MIME_TYPE = "application/papermill.record/text/plain"
BOUNDS = ("min", "max", "value", "tolerance")


def read_records(notebook: Path) -> dict[str, float]:
    """Read the records of an executed notebook, in the order in which they were made."""
    records: dict[str, float] = {}
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    for output in (output for cell in cells for output in cell.get("outputs", ())):
        if (text := output.get("data", {}).get(MIME_TYPE)) is not None:
            name = output["metadata"]["scrapbook"]["name"]
            if name in records:
                raise ValueError(f"record {name!r} is made twice in {notebook.name}; give each its own name")
            records[name] = float("".join(text))
    return records


class Outcome(NamedTuple):
    """One record, None if it was not made, with the bounds within which it passes and where they come from."""

    notebook: str
    name: str
    value: float | None
    low: float
    high: float
    source: str

    @property
    def problem(self) -> str | None:
        """Say in one line what is wrong, or None if the record is as expected."""
        if self.value is None:
            return f"{self.notebook}: {self.name} is expected, but was not recorded"
        found = f"{self.notebook}: {self.name} = {self.value:.6g}"
        if not self.source:
            return f"{found} is recorded, but has no reference in expected.yml"
        held = self.low <= self.value <= self.high  # which NaN is not
        return None if held else f"{found} is not within [{self.low:.6g}, {self.high:.6g}] ({self.source})"


def bounds(label: str, reference: dict, profile: str) -> tuple[float, float]:
    """Return the lowest and the highest value that pass in `profile`."""
    if not isinstance(reference, dict) or not reference.get("source"):
        raise ValueError(f"{label} in expected.yml needs a source: where does the reference come from?")
    given = reference.get(profile)
    given = given if isinstance(given, dict) else {key: reference[key] for key in BOUNDS if key in reference}
    if set(given) == {"value", "tolerance"}:
        value, tolerance = float(given["value"]), float(given["tolerance"])
        return value - tolerance, value + tolerance
    if given and set(given) <= {"min", "max"}:
        return float(given.get("min", -math.inf)), float(given.get("max", math.inf))
    wanted = f"for profile {profile!r}, min and/or max, or value and tolerance"
    raise ValueError(f"{label} in expected.yml needs, {wanted}; got {sorted(given)}")


def compare(records: dict[str, dict[str, float]], expected: dict[str, dict[str, dict]], profile: str) -> list[Outcome]:
    """Set every record that was made or is expected, of the notebooks in `records`, beside its reference."""
    outcomes = []
    for stem, found in records.items():
        references = dict(expected.get(stem) or {})
        for pattern in references.pop("printed", ()):  # no records
            if not (shown := fnmatch.filter(found, pattern)):
                raise ValueError(f"{stem}: printed in expected.yml has {pattern!r}, which no record matches")
            found = {name: value for name, value in found.items() if name not in shown}
        for name in found | references:
            low, high, source = -math.inf, math.inf, ""
            if name in references:
                low, high = bounds(f"{stem}: {name}", references[name], profile)
                source = references[name]["source"]
            outcomes.append(Outcome(stem, name, found.get(name), low, high, source))
    return outcomes


def check(executed: Path, expected: Path, profile: str) -> list[Outcome]:
    """Set the records of every notebook in the folder `executed` beside the references in the file `expected`."""
    references = yaml.safe_load(expected.read_text(encoding="utf-8")) or {}
    records = {path.stem: read_records(path) for path in sorted(executed.glob("*.ipynb")) if "." not in path.stem}
    if missing := sorted(set(references) - set(records)):
        raise ValueError(f"{executed} lacks notebooks named in {expected}: {', '.join(missing)}; execute them first")
    return compare(records, references, profile)


def main(arguments: list[str] | None = None) -> str | None:
    """Run the command line; return what is wrong, naming every record that is off, missing or unexpected."""
    parser = argparse.ArgumentParser(description="Compare the records of executed notebooks with their references.")
    parser.add_argument("executed", type=Path, help="folder of executed notebooks")
    parser.add_argument("expected", type=Path, help="YAML file of references")
    parser.add_argument("--profile", required=True, help="profile the notebooks were executed with")
    try:
        outcomes = check(**vars(parser.parse_args(arguments)))
    except (OSError, ValueError) as error:
        return str(error)
    if not (problems := [outcome.problem for outcome in outcomes if outcome.problem]):
        print(f"{len(outcomes)} records, all as expected")
    return "\n".join(problems) or None


if __name__ == "__main__":
    sys.exit(main())
