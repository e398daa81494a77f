"""What the book says about its own making: how to make a figure again, run times, benchmarks, the ledger of results."""

from __future__ import annotations

import ast
import csv
import json
import math
import re
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from dfaccel.records import MIME_TYPE, Outcome, check

BENCHMARKS = ("accuracy", "sampling", "orbits", "study", "throughput")
TIME_LINE = re.compile(r"^\*\*Time to run\*\*:.*$", re.MULTILINE)


def read_notebooks(executed: Path) -> dict[str, dict]:
    """Read every executed notebook of a folder, by stem."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(executed.glob("*.ipynb"))
        if "." not in path.stem
    }


def duration(seconds: float) -> str:
    """Write a duration as a reader would say it.

    >>> duration(7.6), duration(200)
    ('8 s', '3 min 20 s')
    """
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def time_to_run(notebook: dict) -> str:
    """Return the line that replaces a chapter's "Time to run" line."""
    made = notebook["metadata"]["dfaccel"]
    seconds = notebook["metadata"]["papermill"]["duration"]
    return f"**Time to run**: {duration(seconds)} on {made['processor']} ([all run times](../book/run_times.md))."


def parameters(notebook: dict) -> dict[str, str]:
    """Return the parameters an executed notebook ran with, as they are written: its own, or those put in their place.

    >>> cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": ["n_stars = 1_000_000; seed = 1"]}
    >>> parameters({"cells": [cell], "metadata": {"papermill": {"parameters": {"n_stars": 500}}}})
    {'n_stars': '500', 'seed': '1'}
    """
    values = {}
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            source = "".join(cell["source"])
            for node in ast.parse(source).body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    values[node.targets[0].id] = ast.get_source_segment(source, node.value)
    return values | {name: repr(value) for name, value in notebook["metadata"]["papermill"]["parameters"].items()}


def reproduce(notebook: dict, stem: str, number: int) -> dict:
    """Return the cell that says, folded, how the figure of code cell `number` (from 1) came about."""
    made = notebook["metadata"]["dfaccel"]
    count = sum(cell["cell_type"] == "code" for cell in notebook["cells"])
    values = ", ".join(f"<code>{name} = {escape(value)}</code>" for name, value in parameters(notebook).items())
    reads = "; ".join(f"<code>{escape(name)}</code> {sha256[:12]}" for name, sha256 in made.get("reads", {}).items())
    link = f'<a href="../_sources/notebooks/{stem}.ipynb" download>{stem}.ipynb</a>'
    lines = [
        '<details class="reproduce">',
        "<summary>Reproduce this figure</summary>",
        f"<p>Drawn by code cell {number} of {count} in {link}, at commit {made['commit'] or 'none'}, with {values}.",
        f"It reads, with the first digits of the SHA-256 checksum: {reads}.</p>" if reads else "It reads no data.</p>",
        "</details>",
    ]
    return {"cell_type": "markdown", "id": f"reproduce-{number}", "metadata": {}, "source": "\n".join(lines)}


def prepare(notebook: dict, stem: str) -> dict:
    """Return an executed notebook as the site shows it.

    Its measured time is in place, the injected parameters are hidden, and how to make it again is under each figure.
    """
    cells = []
    number = 0
    for cell in notebook["cells"]:
        shown = {**cell, "metadata": {**cell["metadata"]}}
        cells.append(shown)
        if cell["cell_type"] == "markdown":
            shown["source"] = TIME_LINE.sub(lambda _: time_to_run(notebook), "".join(cell["source"]))
        if "injected-parameters" in cell["metadata"].get("tags", ()):
            shown["metadata"]["tags"] = [*cell["metadata"]["tags"], "remove-cell"]
        if cell["cell_type"] == "code":
            number += 1
            if "figure" in cell["metadata"].get("mystnb", {}):
                cells.append(reproduce(notebook, stem, number))
    return {**notebook, "cells": cells}


def title(notebook: dict) -> str:
    """Return the notebook's level-one heading."""
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    return re.search(r"^# (.+)$", text, re.MULTILINE).group(1).strip()


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(entry).replace("|", "\\|") for entry in line) + " |" for line in lines)


def small(text: str) -> str:
    """Return a table that has many columns, to be set in small letters."""
    return f":::{{div}} small-table\n{text}\n:::"


def moment(iso: str) -> str:
    """Write a time as the tables do, in UTC.

    >>> moment("2026-05-04T03:02:01.5+01:00")
    '2026-05-04 02:02'
    """
    return datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def run_times(notebooks: dict[str, dict]) -> str:
    """Return the table of the run-time page, a row a notebook, and what its machines and versions were."""
    rows = []
    machines: dict[tuple[str, str], int] = {}
    total = 0.0
    for stem, notebook in notebooks.items():
        ran, made = notebook["metadata"]["papermill"], notebook["metadata"]["dfaccel"]
        seconds = ran["duration"]
        total += seconds
        versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
        machine = machines.setdefault((made["processor"], versions), len(machines) + 1)
        link = f"[{title(notebook)}](../notebooks/{stem}.ipynb)"
        threads = made["threads"] or "all"
        when, commit = moment(ran["end_time"]), made["commit"] or "none"
        rows.append([link, f"{seconds:.0f}", made["profile"], threads, machine, when, commit])
    rows.append([f"All: {duration(total)}", f"{total:.0f}", "", "", "", "", ""])
    header = ["Notebook", "Seconds", "Profile", "Threads", "Machine", "Finished (UTC)", "Commit"]
    listed = [f"{number}. {cpu}; {versions}." for (cpu, versions), number in machines.items()]
    return f"{small(table(header, rows))}\n\nThe machines, and the versions that ran on them:\n\n" + "\n".join(listed)


def reference(outcome: Outcome) -> str:
    """Write the bounds of a record as a reader would."""
    low, high = outcome.low, outcome.high
    if math.isinf(low) and math.isinf(high):
        return "none"
    if math.isinf(low):
        return f"at most {high:.4g}"
    if math.isinf(high):
        return f"at least {low:.4g}"
    middle, half = (low + high) / 2, (high - low) / 2
    return f"{low:.4g} to {high:.4g}" if half > abs(middle) / 4 and middle else f"{middle:.5g} ± {half:.2g}"


def recorded(notebook: dict) -> dict[str, str]:
    """Return when each record of an executed notebook was made: the end of its cell."""
    return {
        output["metadata"]["scrapbook"]["name"]: moment(cell["metadata"]["papermill"]["end_time"])
        for cell in notebook["cells"]
        for output in cell.get("outputs", ())
        if MIME_TYPE in output.get("data", {})
    }


def ledger_row(outcome: Outcome, when: dict[str, str]) -> list[str]:
    """Return one row of the ledger: name, value, bounds, source, whether it passes, when it was recorded."""
    value = "missing" if outcome.value is None else f"{outcome.value:.5g}"
    passes = "no" if outcome.problem() else "yes"
    source = outcome.source or "none"
    return [f"`{outcome.name}`", value, reference(outcome), source, passes, when.get(outcome.name, "never")]


def ledger(notebooks: dict[str, dict], outcomes: list[Outcome]) -> str:
    """Return the tables of the ledger page: every recorded result beside its reference, a table a chapter."""
    if not outcomes:
        return "No results are recorded yet."
    passed = sum(outcome.problem() is None for outcome in outcomes)
    parts = [f"Of {len(outcomes)} results, {passed} are within their bounds."]
    for stem, notebook in notebooks.items():
        when = recorded(notebook)
        rows = [ledger_row(outcome, when) for outcome in outcomes if outcome.notebook == stem]
        made = notebook["metadata"]["dfaccel"]
        if rows:
            heading = f"## {title(notebook)}\n\nFrom [the chapter](../notebooks/{stem}.ipynb), "
            heading += f"executed with the profile `{made['profile']}` at commit {made['commit'] or 'none'}.\n\n"
            header = ["Result", "Value", "Expected", "Reference", "Passes", "Recorded (UTC)"]
            parts.append(heading + small(table(header, rows)))
    return "\n\n".join(parts)


def benchmark(path: Path) -> str:
    """Return one benchmark's table: its command and remarks (the comment lines), then the rows."""
    lines = path.read_text(encoding="utf-8").splitlines()
    command, *remarks = [line.lstrip("# ") for line in lines if line.startswith("#")]
    header, *rows = csv.reader(line for line in lines if not line.startswith("#"))
    text = f"## {path.stem.capitalize()}\n\nBy `{command}`. {' '.join(remarks)}".rstrip()
    return f"{text}\n\n{table([name.replace('_', ' ') for name in header], rows)}"


def fill(page: Path, marker: str, text: str) -> None:
    """Replace the comment ``<!-- marker -->`` of a staged page by `text`."""
    source = page.read_text(encoding="utf-8")
    comment = f"<!-- {marker} -->"
    if comment not in source:
        message = f"{page} lacks the comment {comment}, where the generated table goes"
        raise ValueError(message)
    page.write_text(source.replace(comment, text), encoding="utf-8")


def generate(executed: Path, expected: Path, profile: str, stage: Path) -> None:
    """Write the executed notebooks, the run times, the benchmarks and the ledger into the staged source of the book."""
    notebooks = read_notebooks(executed)
    results = [expected.parent / "results" / f"{name}.csv" for name in BENCHMARKS]
    fill(stage / "book" / "benchmarks.md", "benchmarks", "\n\n".join(map(benchmark, results)))
    fill(stage / "book" / "scale_out.md", "projection", benchmark(expected.parent / "results" / "projection.csv"))
    (stage / "notebooks").mkdir(parents=True, exist_ok=True)
    fill(stage / "book" / "run_times.md", "run times", run_times(notebooks))
    fill(stage / "book" / "ledger.md", "ledger", ledger(notebooks, check(executed, expected, profile)))
    for stem, notebook in notebooks.items():
        shown = json.dumps(prepare(notebook, stem), indent=1)
        (stage / "notebooks" / f"{stem}.ipynb").write_text(shown, encoding="utf-8")
