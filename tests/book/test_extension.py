"""What the book says about its own making, what the environment switches on, and what is left out of a page."""

from __future__ import annotations

import copy
import json
import math
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from bs4 import BeautifulSoup
from IPython.core.inputtransformer2 import TransformerManager
from sphinx.errors import ExtensionError

import extension
from check import Outcome


def test_how_to_make_a_figure_again_stands_under_it(notebook):
    before = copy.deepcopy(notebook)
    cells = extension.chapter("99_example", notebook)["cells"]
    assert notebook == before  # which is what a reader downloads
    boxes = [i for i, cell in enumerate(cells) if 'class="reproduce"' in cell["source"]]
    assert [cells[i - 1]["metadata"]["mystnb"]["figure"]["name"] for i in boxes] == ["fig-99-a", "fig-99-b"]
    assert len({cells[i]["id"] for i in boxes}) == 2
    first, second = (BeautifulSoup(cells[i]["source"], "html.parser") for i in boxes)
    assert first.details.find(recursive=False).name == "summary"
    assert "\n\n" not in str(first)  # a blank line would end the HTML for Markdown
    text = " ".join(first.get_text().split())
    assert "code cell 3 of 5" in text
    assert "code cell 5 of 5" in second.get_text()
    assert "at commit abc1234567" in text
    written = [tag.get_text() for tag in first.find_all("code")]
    assert written == ["n_stars = 500", "name = '<b>'", "seed = 1", "models/disc/ensemble.safetensors"]
    assert "models/disc/ensemble.safetensors e3b0c44298fc." in text
    assert first.a["href"] == "../_sources/notebooks/99_example.ipynb"
    assert first.a.has_attr("download")


def test_a_figure_that_reads_no_data_says_so(notebook):
    notebook["metadata"]["dfaccel"]["reads"] = {}
    text = "".join(cell["source"] for cell in extension.chapter("99_example", notebook)["cells"])
    assert "It reads no data." in text
    assert "SHA-256" not in text


def test_the_injected_parameters_are_left_out_and_the_time_is_filled_in(notebook):
    cells = extension.chapter("99_example", notebook)["cells"]
    assert not [cell for cell in cells if "# Parameters" in cell["source"]]
    assert "**Time to run**: 1 min 2 s on One, 2 cores" in cells[0]["source"]


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.9, 1.1, "1 ± 0.1"),
        (-0.5, 0.5, "0 ± 0.5"),
        (3.5, 56, "3.5 to 56"),
        (-math.inf, 2, "at most 2"),
        (2, math.inf, "at least 2"),
        (-math.inf, math.inf, "none"),
    ],
)
def test_the_ledger_writes_a_value_with_its_tolerance_or_a_range(low, high, says):
    assert extension.reference(low, high) == says


@pytest.fixture
def page(monkeypatch, root):
    """Read a page of the book as Sphinx would, with these executed notebooks and results."""

    def read(name, notebooks, outcomes=()):
        monkeypatch.setattr(extension, "notebooks", lambda _: notebooks)
        monkeypatch.setattr(extension, "check", lambda *_: list(outcomes))
        source = [(root / f"{name}.md").read_text(encoding="utf-8")]
        extension.read(None, name, source)
        return source[0]

    return read


def test_the_ledger_says_what_was_found_expected_and_when(page, notebook):
    outcomes = [
        Outcome("99_example", "error", 0.25, 0.2, 0.3, "exact"),
        Outcome("99_example", "late", 2.0, -math.inf, 1.0, "a | bound"),
        Outcome("99_example", "lost", None, 0.0, math.inf, "exact"),
    ]
    text = page("book/ledger", {"99_example": notebook}, outcomes)
    assert "Of 3 results, 1 are within their bounds." in text
    assert "profile `quick` at commit abc1234567" in text
    assert "| `error` | 0.25 | 0.25 ± 0.05 | exact | yes | 2026-03-01 11:59 |\n" in text
    assert "| `late` | 2 | at most 1 | a \\| bound | no | 2026-03-01 12:00 |\n" in text
    assert "| `lost` | missing | at least 0 | exact | no | never |\n" in text


def test_the_run_times_name_machine_versions_and_commit(page, notebook):
    other = copy.deepcopy(notebook)
    other["metadata"]["dfaccel"] |= {"processor": "Another, 8 cores", "threads": "", "commit": ""}
    text = page("book/run_times", {"98_one": notebook, "99_two": other, "99_three": notebook})
    row = "| [A title](../notebooks/{}.ipynb) | 62 | quick | {} | {} | 2026-03-01 12:01 | {} |\n"
    assert row.format("98_one", 1, 1, "abc1234567") in text
    assert row.format("99_two", "all", 2, "none") in text
    assert row.format("99_three", 1, 1, "abc1234567") in text
    assert "| All: 3 min 7 s | 187 |" in text
    assert "1. One, 2 cores; python 3.11.7, torch 2.3.0.\n2. Another, 8 cores; python" in text


def test_a_benchmark_shows_its_command_and_its_rows(page):
    text = page("book/benchmarks", {})
    pattern = r"\n## Orbits\n\nBy `python benchmarks/orbits.py[^`]*`\.[^|]*\n\n\| [^_\n]+ \|\n(\| --- )+\|\n\| "
    assert re.search(pattern, text)


def test_a_chapter_that_was_not_executed_is_named():
    with pytest.raises(ExtensionError, match=r"notebooks/99_x.ipynb was not executed; make executed-book does that"):
        extension.read(None, "notebooks/99_x", [""])


@pytest.fixture
def configured(monkeypatch, root):
    """Return the configuration of Sphinx under these variables of the environment."""
    for name in ("BOOK_BASE_URL", "BOOK_REPOSITORY", "BOOK_LAUNCH"):
        monkeypatch.delenv(name, raising=False)
    given = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]

    def configure(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(f"BOOK_{name}", value)
        config = SimpleNamespace(**copy.deepcopy(given), html_baseurl="")
        extension.configure(None, config)
        return config

    return configure


def test_without_an_address_nothing_leads_out_of_the_site(configured):
    config = configured()
    assert not {"repository_url", "launch_buttons", "use_repository_button"} & set(config.html_theme_options)
    assert config.html_baseurl == config.ogp_site_url == ""
    assert config.ogp_social_cards["enable"] is False


def test_each_address_switches_on_what_it_makes_possible(configured, root):
    theme = configured(REPOSITORY="https://github.com/someone/dfaccel").html_theme_options
    assert theme["repository_url"] == "https://github.com/someone/dfaccel"
    assert theme["repository_branch"] == "main"
    assert theme["use_repository_button"]
    assert not theme["launch_buttons"]  # Colab would open notebooks that cannot find the package
    theme = configured(LAUNCH="launch").html_theme_options
    assert theme["repository_branch"] == "launch"
    assert {"binderhub_url", "colab_url"} < set(theme["launch_buttons"])
    config = configured(BASE_URL="https://example.org/book")
    assert config.html_baseurl == config.ogp_site_url == "https://example.org/book/"
    assert config.notfound_urls_prefix == "/book/"
    assert config.ogp_social_cards["enable"] is True
    assert (root / config.ogp_social_cards["image_mini"]).is_file()


def test_the_foot_of_a_page_says_version_commit_and_day(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86399")
    commit = r"[0-9a-f]{10,}(-dirty)?|none"
    assert re.fullmatch(rf"dfaccel \d+\.\d+\.\d+, commit ({commit}), built on 1970-01-01", extension.version())
    monkeypatch.setenv("PATH", "")  # no git
    assert "commit none" in extension.version()


@pytest.mark.parametrize("status", ["working", "broken", "timeout", "refused"])
def test_dead_addresses_are_named(tmp_path, capsys, status):
    info = {"working": "", "broken": "404 Client Error", "timeout": "", "refused": "403 Client Error"}[status]
    link = {"uri": "https://example.org", "filename": "book/a.md", "info": info}
    link["status"] = "broken" if status == "refused" else status
    (tmp_path / "output.json").write_text(json.dumps(link) + "\n")
    app = SimpleNamespace(outdir=tmp_path, builder=SimpleNamespace(name="linkcheck"), statuscode=1)
    extension.finish(app, None)
    said = capsys.readouterr().out
    assert app.statuscode == (status in {"broken", "timeout"})
    assert ("book/a.md: https://example.org: " in said) == app.statuscode
    assert f"{app.statuscode} of 1 addresses are dead" in said


def test_rules_that_match_nothing_are_dropped():
    css = "/* x */ .a, .b > p { margin: 0 } .a:not(.c) { top: 0 } .b { top: 1 } @media print { .b { top: 0 } }"
    kept = extension.used_rules(css + " :root { --c: 1 } @font-face { src: url(x.ttf) }", {"a"})
    assert re.sub(r"\s+", " ", kept).split("}") == [
        " .a, .b > p { margin: 0 ",
        " .a:not(.c) { top: 0 ",
        " @media print { ",
        " :root { --c: 1 ",
        " @font-face { src: url(x.ttf) ",
        "",
    ]


@pytest.mark.parametrize("colab", [False, True])
def test_the_first_cell_for_colab_does_nothing_elsewhere(root, tmp_path, monkeypatch, notebook, colab):
    workflow = yaml.safe_load((root / ".github" / "workflows" / "pages.yml").read_text(encoding="utf-8"))
    (step,) = [step for step in workflow["jobs"]["launch"]["steps"] if step.get("shell") == "python"]
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "99_x.ipynb").write_text(json.dumps(notebook))
    for name, value in {"SERVER_URL": "https://github.com", "REPOSITORY": "someone/dfaccel", "SHA": "abc123"}.items():
        monkeypatch.setenv(f"GITHUB_{name}", value)
    subprocess.run([sys.executable, "-c", step["run"]], cwd=tmp_path, check=True)
    first, *others = json.loads((tmp_path / "notebooks" / "99_x.ipynb").read_text(encoding="utf-8"))["cells"]
    assert others == notebook["cells"]
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    monkeypatch.setattr(sys, "path", list(sys.path))
    asked = []
    shell = SimpleNamespace(system=asked.append, run_line_magic=lambda name, line: asked.append(f"%{name} {line}"))
    exec(TransformerManager().transform_cell(first["source"]), {"get_ipython": lambda: shell})  # noqa: S102 - our own
    wanted = [
        "git clone --quiet https://github.com/someone/dfaccel dfaccel",
        "git -C dfaccel checkout --quiet abc123",
        "%pip install --quiet --editable ./dfaccel",
        "%cd dfaccel/notebooks",
    ]
    assert asked == (wanted if colab else [])
