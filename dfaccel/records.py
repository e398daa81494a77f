"""Results of the book: recorded once in a notebook, printed in its prose, compared with a reference.

`record` publishes one number from a notebook as a MyST-NB glue record, which survives execution by papermill: the prose
prints it with ``{glue:text}`name:.2f` ``, and ``python -m dfaccel.records check`` compares it with
``notebooks/expected.yml``::

    04_learning_a_galaxy:                # stem of the notebook
      kl_divergence:                     # name of the record
        source: DESIGN score card        # where the reference comes from
        book: {max: 0.006}               # bounds of one profile: min and/or max ...
        quick: {value: 0.02, tolerance: 0.02}   # ... or a value and an absolute tolerance
      total_mass: {source: "exact", value: 1.0, tolerance: 1.0e-6}      # the same in every profile
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsFloat

MIME_TYPE = "application/papermill.record/text/plain"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_BOUNDS = ("min", "max", "value", "tolerance")


def record(name: str, value: SupportsFloat) -> float:
    """Record one result of a notebook under `name`, and return it as a float.

    Inside IPython the number is published as a glue record, invisible on the page; outside it is only returned.

    Parameters
    ----------
    name : str
        Name of the result: lower-case letters, digits and underscores; unique within its notebook.
    value : float
        The result, a single number.

    Returns
    -------
    float
        `value` as a plain float.

    Raises
    ------
    ValueError
        If `name` is not lower_case_with_underscores, or `value` holds more than one number.
    TypeError
        If `value` is not a number.

    Examples
    --------
    >>> record("median_error", 0.25)
    0.25
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        message = f"name must be lower-case letters, digits and underscores; got {name!r}; rename the record"
        raise ValueError(message)
    size = math.prod(getattr(value, "shape", ()))
    if size != 1:
        message = f"value of record {name!r} must be one number; got {size}; record a summary of it"
        raise ValueError(message)
    try:
        number = float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError) as error:
        message = f"value of record {name!r} must be a number; got {type(value).__name__}; convert it with float()"
        raise TypeError(message) from error
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return number
    if get_ipython() is not None:
        scrap = {"name": name, "mime_prefix": "application/papermill.record/"}
        display({MIME_TYPE: repr(number)}, metadata={"scrapbook": scrap}, raw=True)
    return number


def read_records(notebook: str | Path) -> dict[str, float]:
    """Read the records of an executed notebook, in the order in which they were made.

    Parameters
    ----------
    notebook : path
        An executed ``.ipynb`` file.

    Returns
    -------
    dict of str to float
        Value of each record.

    Raises
    ------
    ValueError
        If a name is recorded twice.

    Examples
    --------
    >>> read_records("_build/executed/book/04_learning_a_galaxy.ipynb")  # doctest: +SKIP
    {'kl_divergence': 0.0004}
    """
    records: dict[str, float] = {}
    for cell in json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", ()):
            text = output.get("data", {}).get(MIME_TYPE)
            if text is None:
                continue
            name = output["metadata"]["scrapbook"]["name"]
            if name in records:
                message = f"record {name!r} is made twice in {Path(notebook).name}; give each its own name"
                raise ValueError(message)
            records[name] = float("".join(text))
    return records


@dataclass(frozen=True)
class Outcome:
    """One recorded result beside its reference.

    Attributes
    ----------
    notebook, name : str
        Stem of the notebook and name of the record.
    value : float or None
        The recorded number; None if the notebook made no such record.
    low, high : float
        Bounds within which it passes; infinite where there is none.
    source : str
        Where the reference comes from; empty if there is no reference.

    Examples
    --------
    >>> Outcome("a", "x", 1.0, 0.5, 1.5, "exact").problem()
    >>> Outcome("a", "x", 2.0, 0.5, 1.5, "exact").problem()
    'a: x = 2 is not within [0.5, 1.5] (exact)'
    """

    notebook: str
    name: str
    value: float | None
    low: float
    high: float
    source: str

    def problem(self) -> str | None:
        """Say in one line what is wrong, or None if the record is as expected."""
        if self.value is None:
            return f"{self.notebook}: {self.name} is expected, but was not recorded"
        found = f"{self.notebook}: {self.name} = {self.value:.6g}"
        if not self.source:
            return f"{found} is recorded, but has no reference in expected.yml"
        if not self.low <= self.value <= self.high:  # also catches NaN
            return f"{found} is not within [{self.low:.6g}, {self.high:.6g}] ({self.source})"
        return None


def compare(records: dict[str, dict[str, float]], expected: dict[str, dict[str, dict]], profile: str) -> list[Outcome]:
    """Set every recorded result beside its reference.

    Parameters
    ----------
    records : dict
        Notebook stem -> record name -> value, as `read_records` gives them.
    expected : dict
        Contents of ``expected.yml``: notebook stem -> record name -> reference.
    profile : str
        Profile the notebooks were executed with.

    Returns
    -------
    list of Outcome
        One for each record that was made or is expected, of the notebooks in `records`.

    Raises
    ------
    ValueError
        If an entry of `expected` has no source, unknown keys, or no bounds for `profile`.

    Examples
    --------
    >>> expected = {"a": {"x": {"source": "exact", "value": 1.0, "tolerance": 0.5}}}
    >>> [outcome.problem() for outcome in compare({"a": {"x": 1.2}}, expected, "quick")]
    [None]
    """
    outcomes = []
    for stem, found in records.items():
        references = expected.get(stem) or {}
        for name in [*found, *(name for name in references if name not in found)]:
            if name in references:
                low, high = _bounds(f"{stem}: {name}", references[name], profile)
                outcomes.append(Outcome(stem, name, found.get(name), low, high, references[name]["source"]))
            else:
                outcomes.append(Outcome(stem, name, found[name], -math.inf, math.inf, ""))
    return outcomes


def _bounds(label: str, reference: dict, profile: str) -> tuple[float, float]:
    """Return the lowest and the highest value that pass in `profile`."""
    if not isinstance(reference, dict) or not reference.get("source"):
        message = f"{label} in expected.yml needs a source: where does the reference come from?"
        raise ValueError(message)
    if isinstance(reference.get(profile), dict):
        bounds = reference[profile]
    else:
        bounds = {key: value for key, value in reference.items() if key in _BOUNDS}
    keys = set(bounds)
    if keys == {"value", "tolerance"}:
        return float(bounds["value"]) - float(bounds["tolerance"]), float(bounds["value"]) + float(bounds["tolerance"])
    if keys and keys <= {"min", "max"}:
        return float(bounds.get("min", -math.inf)), float(bounds.get("max", math.inf))
    wanted = f"for profile {profile!r}, min and/or max, or value and tolerance"
    message = f"{label} in expected.yml needs, {wanted}; got {sorted(keys)}"
    raise ValueError(message)


def check(executed: str | Path, expected: str | Path, profile: str) -> list[Outcome]:
    """Set the records of every notebook in `executed` beside the references in `expected`.

    Parameters
    ----------
    executed : path
        Folder of executed notebooks.
    expected : path
        The YAML file of references.
    profile : str
        Profile the notebooks were executed with.

    Returns
    -------
    list of Outcome
        One for each record that was made or is expected.

    Raises
    ------
    ValueError
        If a notebook of `expected` is missing from `executed`, or an entry of `expected` is not well formed.

    Examples
    --------
    >>> check("_build/executed/quick", "notebooks/expected.yml", "quick")  # doctest: +SKIP
    """
    import yaml

    references = yaml.safe_load(Path(expected).read_text(encoding="utf-8")) or {}
    notebooks = {path.stem: path for path in sorted(Path(executed).glob("*.ipynb")) if "." not in path.stem}
    if missing := sorted(set(references) - set(notebooks)):
        message = f"{executed} lacks notebooks named in {expected}: {', '.join(missing)}; execute them first"
        raise ValueError(message)
    return compare({stem: read_records(path) for stem, path in notebooks.items()}, references, profile)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: ``python -m dfaccel.records check EXECUTED EXPECTED --profile NAME``."""
    parser = argparse.ArgumentParser(prog="python -m dfaccel.records", description="Compare results with references.")
    commands = parser.add_subparsers(dest="command", required=True)
    checker = commands.add_parser("check", help="exit with 1, naming every record that is off, missing or unexpected")
    checker.add_argument("executed", type=Path, help="folder of executed notebooks")
    checker.add_argument("expected", type=Path, help="YAML file of references")
    checker.add_argument("--profile", required=True, help="profile the notebooks were executed with")
    options = parser.parse_args(arguments)
    try:
        outcomes = check(options.executed, options.expected, options.profile)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    problems = [problem for outcome in outcomes if (problem := outcome.problem())]
    print("\n".join(problems) if problems else f"{len(outcomes)} records, all as expected")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
