"""What the book says about its own making, and what the build adds to the site."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from bs4 import BeautifulSoup
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "book"), str(ROOT / "notebooks")]

import execute  # noqa: E402

import build  # noqa: E402
import generate  # noqa: E402
import launch  # noqa: E402
from dfaccel.records import MIME_TYPE, Outcome  # noqa: E402

NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
HASH = hashlib.sha256(b"").hexdigest()


def code(source, tags=(), figure=None, outputs=(), end="2026-03-01T11:59:59.9+00:00"):
    metadata = {"tags": list(tags), "papermill": {"end_time": end}}
    if figure:
        metadata["mystnb"] = {"figure": {"name": figure, "caption": "A figure."}}
    return {"cell_type": "code", "metadata": metadata, "source": source, "outputs": list(outputs)}


def made_record(name, value):
    scrap = {"name": name, "mime_prefix": "application/papermill.record/"}
    return {"output_type": "display_data", "data": {MIME_TYPE: repr(value)}, "metadata": {"scrapbook": scrap}}


@pytest.fixture
def notebook():
    return {
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": "# A title\n\n**Time to run**: see [x](y).\n"},
            code("n_stars = 1_000_000  # stars\nname = 'a'\nseed = 1", tags=["parameters"]),
            code("# Parameters\nn_stars = 500\nname = '<b>'", tags=["injected-parameters"]),
            code("draw()", figure="fig-99-a", outputs=[made_record("error", 0.25)]),
            code("draw()", outputs=[made_record("late", 2.0)], end="2026-03-01T13:00:30+01:00"),
            code("draw()", figure="fig-99-b"),
        ],
        "metadata": {
            "dfaccel": {
                "profile": "quick",
                "processor": "One, 2 cores",
                "threads": "1",
                "commit": "abc1234567",
                "reads": {"models/disc/ensemble.safetensors": HASH},
                "versions": {"python": "3.11.7", "torch": "2.3.0"},
            },
            "papermill": {
                "duration": 62.4,
                "end_time": "2026-03-01T12:01:02.5+00:00",
                "parameters": {"n_stars": 500, "name": "<b>"},
            },
        },
    }


def test_how_to_make_a_figure_again_stands_under_it(notebook):
    before = copy.deepcopy(notebook)
    cells = generate.prepare(notebook, "99_example")["cells"]
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
    assert [tag.get_text() for tag in first.find_all("code")] == [
        "n_stars = 500",
        "name = '<b>'",
        "seed = 1",
        "models/disc/ensemble.safetensors",
    ]
    assert f"models/disc/ensemble.safetensors {HASH[:12]}." in text
    link = first.find("a")
    assert link["href"] == "../_sources/notebooks/99_example.ipynb"
    assert link.has_attr("download")


def test_a_figure_that_reads_no_data_says_so(notebook):
    notebook["metadata"]["dfaccel"]["reads"] = {}
    text = generate.reproduce(notebook, "99_example", 3)["source"]
    assert "It reads no data." in text
    assert "SHA-256" not in text


def test_the_injected_parameters_are_hidden_and_the_time_is_filled_in(notebook):
    cells = generate.prepare(notebook, "99_example")["cells"]
    assert "remove-cell" in cells[2]["metadata"]["tags"]
    assert "**Time to run**: 1 min 2 s on One, 2 cores" in cells[0]["source"]


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [(0.9, 1.1, "1 ± 0.1"), (-0.5, 0.5, "0 ± 0.5"), (3.5, 56, "3.5 to 56"), (-math.inf, 2, "at most 2")],
)
def test_the_ledger_writes_a_value_with_its_tolerance_or_a_range(low, high, says):
    assert generate.reference(Outcome("99_example", "error", 1.0, low, high, "exact")) == says


def test_the_ledger_says_what_was_found_expected_and_when(notebook):
    outcomes = [
        Outcome("99_example", "error", 0.25, 0.2, 0.3, "exact"),
        Outcome("99_example", "late", 2.0, -math.inf, 1.0, "a | bound"),
        Outcome("99_example", "lost", None, 0.0, math.inf, "exact"),
    ]
    text = generate.ledger({"99_example": notebook}, outcomes)
    assert text.startswith("Of 3 results, 1 are within their bounds.")
    assert "profile `quick` at commit abc1234567" in text
    assert "| `error` | 0.25 | 0.25 ± 0.05 | exact | yes | 2026-03-01 11:59 |" in text
    assert "| `late` | 2 | at most 1 | a \\| bound | no | 2026-03-01 12:00 |" in text
    assert "| `lost` | missing | at least 0 | exact | no | never |" in text


def test_the_run_times_name_machine_versions_and_commit(notebook):
    other = copy.deepcopy(notebook)
    other["metadata"]["dfaccel"] |= {"processor": "Another, 8 cores", "threads": "", "commit": ""}
    text = generate.run_times({"98_one": notebook, "99_two": other, "99_three": notebook})
    row = "| [A title](../notebooks/{}.ipynb) | 62 | quick | {} | {} | 2026-03-01 12:01 | {} |"
    assert row.format("98_one", 1, 1, "abc1234567") in text
    assert row.format("99_two", "all", 2, "none") in text
    assert row.format("99_three", 1, 1, "abc1234567") in text
    assert "| All: 3 min 7 s | 187 |" in text
    assert "1. One, 2 cores; python 3.11.7, torch 2.3.0.\n2. Another, 8 cores; python" in text


def test_only_models_and_tables_count_as_data(tmp_path):
    opened = []
    for name in ("models/a/ensemble.json", "models/a/ensemble.safetensors", "notebooks/results/t.csv", "dfaccel/x.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        opened.append(str(path))
    opened.remove(str(tmp_path / "models/a/ensemble.safetensors"))  # compiled code opens it, unseen
    opened += [str(tmp_path / "notebooks" / "gone.csv"), "/etc/hostname", str(tmp_path / "notebooks")]
    names = ("models/a/ensemble.safetensors", "notebooks/results/t.csv")
    assert execute.data_read(opened, tmp_path) == {n: hashlib.sha256(n.encode()).hexdigest() for n in names}


def test_an_executed_notebook_remembers_what_it_read_and_no_folder(tmp_path, monkeypatch):
    for name in ("PYTHONPATH", execute.OPENED):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    table = next((ROOT / "notebooks" / "results").glob("*.csv"))
    source = f"from pathlib import Path\n_ = Path({str(table)!r}).read_text()\nPath('written.csv').write_text('')"
    cells = [{"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": source}]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    content = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "a.ipynb").write_text(json.dumps(content))
    execute.execute(tmp_path / "a.ipynb", tmp_path / "out" / "b.ipynb", "quick")
    metadata = json.loads((tmp_path / "out" / "b.ipynb").read_text())["metadata"]
    checksum = hashlib.sha256(table.read_bytes()).hexdigest()
    assert metadata["dfaccel"]["reads"] == {table.relative_to(ROOT).as_posix(): checksum}
    assert str(tmp_path) not in json.dumps(metadata)
    assert os.listdir(tmp_path / "out") == ["b.ipynb"]  # noqa: PTH208


@pytest.fixture
def nowhere(monkeypatch):
    for name in ("BOOK_BASE_URL", "BOOK_REPOSITORY", "BOOK_LAUNCH", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("nowhere")
def test_without_an_address_nothing_leads_out_of_the_site():
    config = build.configuration()
    assert "repository" not in config
    assert "launch_buttons" not in config
    assert "baseurl" not in config["html"]
    assert config["sphinx"]["config"]["ogp_social_cards"]["enable"] is False


@pytest.mark.usefixtures("nowhere")
def test_each_address_switches_on_what_it_makes_possible(monkeypatch):
    monkeypatch.setenv("BOOK_REPOSITORY", "https://github.com/someone/dfaccel")
    config = build.configuration()
    assert config["repository"] == {"url": "https://github.com/someone/dfaccel", "branch": "main"}
    assert "launch_buttons" not in config  # Colab would open notebooks that cannot find the package
    monkeypatch.setenv("BOOK_LAUNCH", "launch")
    config = build.configuration()
    assert config["repository"]["branch"] == "launch"
    assert {"binderhub_url", "colab_url"} < set(config["launch_buttons"])
    monkeypatch.setenv("BOOK_BASE_URL", "https://example.org/book")
    config = build.configuration()
    assert config["html"]["baseurl"] == "https://example.org/book/"
    assert config["sphinx"]["config"]["ogp_social_cards"]["enable"] is True
    assert (ROOT / config["sphinx"]["config"]["ogp_social_cards"]["image_mini"]).is_file()


@pytest.mark.usefixtures("nowhere")
def test_the_foot_of_a_page_says_version_commit_and_day(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86399")
    commit = r"[0-9a-f]{10,}(-dirty)?|none"
    assert re.fullmatch(rf"dfaccel \d+\.\d+\.\d+, commit ({commit}), built on 1970-01-01", build.made())
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError("git")))
    assert "commit none" in build.made()


def test_short_addresses_and_executed_notebooks_are_added_to_the_site(tmp_path):
    (tmp_path / "_sources" / "notebooks").mkdir(parents=True)
    (tmp_path / "executed").mkdir()
    (tmp_path / "executed" / "05_x.ipynb").write_text("executed")
    build.complete(tmp_path, ["index", "book/intro", "notebooks/05_x"], tmp_path / "executed")
    page = BeautifulSoup((tmp_path / "05.html").read_text(), "html.parser")
    assert page.find("meta", attrs={"http-equiv": "refresh"})["content"] == "0; url=notebooks/05_x.html"
    assert page.a["href"] == "notebooks/05_x.html"
    assert not (tmp_path / "in.html").exists()
    assert (tmp_path / "_sources" / "notebooks" / "05_x.ipynb").read_text() == "executed"


@pytest.mark.parametrize("status", ["working", "broken", "timeout", "refused"])
def test_dead_addresses_are_named(tmp_path, monkeypatch, capsys, status):
    info = {"working": "", "broken": "404 Client Error", "timeout": "", "refused": "403 Client Error"}[status]
    link = {"uri": "https://example.org", "filename": "book/a.md", "info": info}
    link["status"] = "broken" if status == "refused" else status

    def check(_, work, *options):
        assert options == ("--builder", "linkcheck")
        (work / "_build" / "linkcheck").mkdir(parents=True)
        (work / "_build" / "linkcheck" / "output.json").write_text(json.dumps(link) + "\n")

    monkeypatch.setattr(build, "staged", lambda _: tmp_path)
    monkeypatch.setattr(build, "jupyter_book", check)
    if status in {"working", "refused"}:
        build.links("quick", tmp_path)
    else:
        with pytest.raises(SystemExit, match="1 of 1 addresses are dead"):
            build.links("quick", tmp_path)
        assert "book/a.md: https://example.org: " in capsys.readouterr().out


@pytest.mark.parametrize("colab", [False, True])
def test_the_first_cell_for_colab_does_nothing_elsewhere(monkeypatch, colab):
    notebook = {"cells": [code("seed = 1", tags=["parameters"])]}
    address = "https://github.com/someone/dfaccel"
    first, second = launch.launchable(notebook, address, "abc123")["cells"]
    assert second == notebook["cells"][0]
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace())
    monkeypatch.setattr(sys, "path", list(sys.path))
    asked = []
    shell = SimpleNamespace(system=asked.append, run_line_magic=lambda name, line: asked.append(f"%{name} {line}"))
    exec(TransformerManager().transform_cell(first["source"]), {"get_ipython": lambda: shell})  # noqa: S102 - our own
    wanted = [
        f"git clone --quiet {address} dfaccel",
        "git -C dfaccel checkout --quiet abc123",
        "%pip install --quiet --editable ./dfaccel",
        "%cd dfaccel/notebooks",
    ]
    assert asked == (wanted if colab else [])


@pytest.mark.site
@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_the_figures_of_the_site_can_be_made_again_from_the_notebook_beside_them(site, stem):
    page = BeautifulSoup((site / "notebooks" / f"{stem}.html").read_text(encoding="utf-8"), "html.parser")
    boxes = page.select("details.reproduce")
    downloaded = json.loads((site / "_sources" / "notebooks" / f"{stem}.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in downloaded["cells"] if cell["cell_type"] == "code"]
    figures = {n: c for n, c in enumerate(cells, 1) if "figure" in c["metadata"].get("mystnb", {})}
    numbers = [int(re.search(r"code cell (\d+) of (\d+)", box.get_text())[1]) for box in boxes]
    assert numbers == list(figures)
    for box, number in zip(boxes, numbers, strict=True):
        assert cells[number - 1]["execution_count"] == number  # which is what Jupyter prints beside it
        assert cells[number - 1]["outputs"]
        assert box.find_previous("figure")["id"] == figures[number]["metadata"]["mystnb"]["figure"]["name"]
        assert (site / "notebooks" / box.a["href"]).is_file()


@pytest.mark.site
@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_a_chapter_has_a_short_address(site, stem):
    page = BeautifulSoup((site / f"{stem[:2]}.html").read_text(encoding="utf-8"), "html.parser")
    assert page.a["href"] == f"notebooks/{stem}.html"
    assert (site / page.a["href"]).is_file()


@pytest.mark.site
def test_every_page_of_the_site_says_its_version(site):
    pages = build.pages(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    for name in [*pages, "404", "search", "genindex"]:
        page = BeautifulSoup((site / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
        assert re.search(r"^dfaccel [\d.]+, commit \S+, built on [\d-]{10}$", page.select_one("p.made").get_text())


@pytest.mark.browser
def test_the_book_is_printed_into_one_file_with_bookmarks_and_inner_links(tmp_path):
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    if not (os.environ.get("CHROMIUM") or any(map(shutil.which, names))):
        pytest.skip("there is no Chromium or Chrome on this machine")
    from pypdf import PdfReader

    import pdf

    (tmp_path / "book").mkdir()
    page = "<!DOCTYPE html><html lang='en'><title>x</title><main><div class='bd-article'>{}</div></main></html>"
    page = page.format("<h1>{}<a href='#h'>#</a></h1>{}")
    links = "<a href='two.html#part'>two</a> <a href='../_sources/x.ipynb'>x</a> <a href='https://example.org/'>out</a>"
    part = "<p id='part' style='break-before: page'>more</p><a href='#part'>up</a>"  # the same name on both
    (tmp_path / "book" / "one.html").write_text(page.format("First", links + part))
    (tmp_path / "book" / "two.html").write_text(page.format("Second", part))
    assert pdf.print_book(tmp_path, tmp_path / "out.pdf", ["book/one", "book/two"]) == 4
    book = PdfReader(tmp_path / "out.pdf")
    bookmarks = {mark.title: book.get_destination_page_number(mark) for mark in book.outline}
    assert bookmarks == {"First": 0, "Second": 2}
    assert [sheet.extract_text().split()[-1] for sheet in book.pages] == ["1", "2", "3", "4"]
    found = [[link.get_object() for link in sheet.get("/Annots", ())] for sheet in book.pages]
    assert [link["/A"]["/URI"] for link in found[0] if "/URI" in link.get("/A", {})] == ["https://example.org/"]
    led = [[link["/Dest"][0].get_object() for link in links if "/Dest" in link] for links in found]
    assert [[book.get_page_number(sheet) for sheet in sheets] for sheets in led] == [[3], [1], [], [3]]
    assert b"127.0.0.1" not in (tmp_path / "out.pdf").read_bytes()
    assert not (tmp_path / "out.part").exists()
