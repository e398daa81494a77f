"""The skeleton that every chapter shares; CONTRIBUTING.md says how to write one."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
EXPECTED = yaml.safe_load((ROOT / "notebooks" / "expected.yml").read_text(encoding="utf-8"))
TIME_LINE = "**Time to run**: see [the run times](../book/run_times.md)."
HEADINGS = [
    "## You will learn",
    "## You need",
    "## What breaks if",
    "## Score card",
    "## Summary",
    "## Exercises",
    "## References",
    "## Next",
]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    content = json.loads(request.param.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        cell["source"] = "".join(cell["source"])
    content["stem"] = request.param.stem
    return content


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def prose(notebook):
    return "\n\n".join(cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "markdown")


def tags(cell):
    return cell["metadata"].get("tags", [])


def test_the_chapters_of_the_book_are_the_notebooks():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert [file for file in files if file.startswith("notebooks/")] == [f"notebooks/{path.stem}" for path in NOTEBOOKS]


def test_the_first_cell_is_a_title_and_a_promise(notebook):
    first = notebook["cells"][0]
    assert first["cell_type"] == "markdown"
    title, promise = [block for block in first["source"].split("\n\n") if block.strip()][:2]
    assert re.fullmatch(r"# .+", title.strip())
    assert not promise.startswith("#")
    assert len(promise.split()) > 20


def test_the_headings_are_there_in_order(notebook):
    headings = re.findall(r"^##? .*$", prose(notebook), re.MULTILINE)
    assert sum(heading.startswith("# ") for heading in headings) == 1
    found = [wanted for heading in headings for wanted in HEADINGS if heading.startswith(wanted)]
    assert found == HEADINGS


def test_the_time_to_run_can_be_filled_in(notebook):
    assert prose(notebook).count(TIME_LINE) == 1


def test_there_is_one_parameters_cell_of_plain_values_and_the_profiles_set_only_those(notebook):
    (cell,) = [cell for cell in code(notebook) if "parameters" in tags(cell)]
    assert cell is code(notebook)[0]
    values = {}
    exec(cell["source"], {}, values)  # noqa: S102 - our own notebook
    assert values
    assert all(isinstance(value, (int, float, str, bool, list)) for value in values.values())
    profiles = yaml.safe_load((ROOT / "notebooks" / "parameters.yml").read_text(encoding="utf-8"))
    assert {"quick", "book", "paper"} <= set(profiles)
    for profile, chapters in profiles.items():
        unknown = set((chapters or {}).get(notebook["stem"]) or {}) - set(values)
        assert not unknown, f"{profile} sets {unknown}"


def test_a_cell_is_short_and_its_lines_fit_the_page(notebook):
    for cell in code(notebook):
        lines = [line for line in cell["source"].splitlines() if line.strip()]
        assert max(map(len, lines)) <= 84, cell["source"]
        assert len(lines) <= 25, cell["source"]


def test_records_have_cells_of_their_own_that_the_page_does_not_show(notebook):
    for cell in code(notebook):
        if re.search(r"\bda\.record\(", cell["source"]):
            assert "remove-cell" in tags(cell), cell["source"]
            assert not {"mystnb", "hide-cell"} & {*cell["metadata"], *tags(cell)}
            assert "plt." not in cell["source"]


def test_imports_stand_once_near_the_top(notebook):
    importing = [cell for cell in code(notebook) if re.search(r"^(import|from) ", cell["source"], re.MULTILINE)]
    assert importing == [code(notebook)[1]]
    assert "use_style()" in importing[0]["source"]


def test_nothing_was_executed_before_it_was_committed(notebook):
    assert not [cell for cell in code(notebook) if cell["outputs"] or cell["execution_count"] is not None]
    assert not {"papermill", "dfaccel", "widgets"} & set(notebook["metadata"])


def test_every_figure_has_a_name_a_caption_and_alternative_text(notebook):
    number = notebook["stem"][:2]
    figures = [cell for cell in code(notebook) if "plt.show()" in cell["source"]]
    assert figures
    for cell in figures:
        where = f"cell starting {cell['source'][:60]!r}"
        assert cell["source"].count("plt.show()") == 1, where
        mystnb = cell["metadata"].get("mystnb", {})
        figure = mystnb.get("figure", {})
        name = figure.get("name", "")
        assert name.startswith(f"fig-{number}-"), where
        assert len(figure.get("caption", "").split()) >= 4, where
        assert len(mystnb.get("image", {}).get("alt", "").split()) >= 6, where
        assert f"{{numref}}`{name}`" in prose(notebook), f"{name} is not referred to"


def test_exercises_have_solutions_and_their_code_is_folded(notebook):
    exercises = re.findall(r"\{exercise\}[^\n]*\n:label: (\S+)", prose(notebook))
    solutions = re.findall(r"\{solution\} (\S+)\n:label: \S+\n:class: dropdown", prose(notebook))
    assert exercises
    assert sorted(solutions) == sorted(exercises)
    last = max(i for i, cell in enumerate(notebook["cells"]) if "## Exercises" in cell["source"])
    for cell in notebook["cells"][last:]:
        if cell["cell_type"] == "code":
            assert "hide-cell" in tags(cell)
            assert cell["metadata"].get("jupyter", {}).get("source_hidden") is True


def test_what_the_prose_glues_is_a_record(notebook):
    """Of which expected.yml lists all: a record without an entry there is a failure of its own."""
    glued = set(re.findall(r"\{glue:(?:text)?\}`([a-z0-9_]+)(?::[^`]*)?`", prose(notebook)))
    expected = EXPECTED[notebook["stem"]]
    printed = {name for name in glued if any(fnmatch(name, pattern) for pattern in expected.get("printed", ()))}
    assert glued <= set(expected) | printed


def test_nothing_names_an_absolute_path(notebook):
    assert not re.search(r"(?<![\w:/.])/(?:home|root|tmp|work|Users|mnt)/", json.dumps(notebook["cells"]))


def test_no_widget_prints_before_it_is_asked(notebook):
    """Nbclient can wait for ever for a cell that writes into an Output widget (its issue 312); so can papermill."""
    for cell in code(notebook):
        assert not re.search(r"\binteract(ive|ive_output)?\(|@interact\b|\bOutput\(", cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_file_is_named_relative_to_the_folder(path):
    """So that papermill runs a chapter from any folder."""
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    code = "\n".join("".join(cell["source"]) for cell in cells)
    assert not re.findall(r"""(?:read|load|loadtxt|genfromtxt|open|Path)\(\s*f?["'].*""", code)
    assert not re.findall(r"""(?<!/ )(?<!/ f)["'](?:models|notebooks|results)/.*""", code)
