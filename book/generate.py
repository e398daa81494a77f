"""What the book says about its own making: run times, benchmarks and the ledger of results."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

from dfaccel.records import Outcome, check

BENCHMARKS = ("accuracy", "sampling", "study", "throughput")
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


def prepare(notebook: dict) -> dict:
    """Return an executed notebook as the site shows it: its measured time in place, the injected parameters hidden."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            source = "".join(cell["source"])
            cell["source"] = TIME_LINE.sub(lambda _: time_to_run(notebook), source)
        if "injected-parameters" in cell["metadata"].get("tags", ()):
            cell["metadata"]["tags"].append("remove-cell")
    return notebook


def title(notebook: dict) -> str:
    """Return the notebook's level-one heading."""
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    return re.search(r"^# (.+)$", text, re.MULTILINE).group(1).strip()


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(entry).replace("|", "\\|") for entry in line) + " |" for line in lines)


def run_times(notebooks: dict[str, dict]) -> str:
    """Return the tables of the run-time page: a row a notebook, then the versions they ran with."""
    rows = []
    machines: dict[tuple[str, str], None] = {}
    total = 0.0
    for stem, notebook in notebooks.items():
        seconds = notebook["metadata"]["papermill"]["duration"]
        made = notebook["metadata"]["dfaccel"]
        total += seconds
        link = f"[{title(notebook)}](../notebooks/{stem}.ipynb)"
        rows.append([link, duration(seconds), made["profile"], made["threads"] or "all", made["commit"] or "none"])
        versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
        machines[made["processor"], versions] = None
    rows.append(["All", duration(total), "", "", ""])
    text = table(["Notebook", "Time", "Profile", "Threads", "Commit"], rows)
    for cpu, versions in machines:
        text += f"\n\nProcessor: {cpu}. Versions: {versions}."
    return text


def reference(outcome: Outcome) -> str:
    """Write the bounds of a record as a reader would."""
    low, high = outcome.low, outcome.high
    if math.isinf(low) and math.isinf(high):
        return "none"
    if math.isinf(low):
        return f"at most {high:.4g}"
    if math.isinf(high):
        return f"at least {low:.4g}"
    return f"{(low + high) / 2:.5g} ± {(high - low) / 2:.2g}"


def ledger_row(outcome: Outcome) -> list[str]:
    """Return one row of the ledger: name, value, bounds, source, whether it passes."""
    value = "missing" if outcome.value is None else f"{outcome.value:.5g}"
    passes = "no" if outcome.problem() else "yes"
    return [f"`{outcome.name}`", value, reference(outcome), outcome.source or "none", passes]


def ledger(notebooks: dict[str, dict], outcomes: list[Outcome]) -> str:
    """Return the tables of the ledger page: every recorded result beside its reference, a table a chapter."""
    parts = []
    for stem, notebook in notebooks.items():
        rows = [ledger_row(outcome) for outcome in outcomes if outcome.notebook == stem]
        if rows:
            heading = f"## {title(notebook)}\n\nFrom [the chapter](../notebooks/{stem}.ipynb).\n\n"
            parts.append(heading + table(["Result", "Value", "Expected", "Reference", "Passes"], rows))
    return "\n\n".join(parts) or "No results are recorded yet."


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
        (stage / "notebooks" / f"{stem}.ipynb").write_text(json.dumps(prepare(notebook), indent=1), encoding="utf-8")
