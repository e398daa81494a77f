"""The built site: complete, linked, described, and reproducible from what it holds."""

from __future__ import annotations

import functools
import json
import re
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

pytestmark = pytest.mark.site


@functools.cache
def parse(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@functools.cache
def anchors(path):
    return {tag["id"] for tag in parse(path).find_all(id=True)}


@pytest.fixture
def page(page_name, site):
    path = site / f"{page_name}.html"
    assert path.is_file()
    return path


def test_the_index_leads_to_the_book(site):
    assert "book/intro.html" in (site / "index.html").read_text(encoding="utf-8")


def test_links_and_images_inside_the_site_resolve(page):
    broken = []
    for tag in parse(page).find_all(["a", "img", "script", "link"]):
        address = tag.get("href") or tag.get("src")
        if not address or urlsplit(address).scheme or address.startswith("//"):
            continue
        parts = urlsplit(address)
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        anchored = parts.fragment and target.suffix == ".html"
        if not target.is_file() or (anchored and unquote(parts.fragment) not in anchors(target)):
            broken.append(address)
    assert not broken


def test_nothing_of_the_source_shows(page):
    main = parse(page).find("main")
    assert not [text for tag in main.find_all("p") if (text := tag.get_text()).lstrip().startswith("|")]
    assert not re.search(r"\{\{|\{%|see the run times|# Parameters|\bda\.record\(", main.get_text())


def test_nothing_is_loaded_from_elsewhere(page):
    tags = [tag for tag in parse(page).find_all(["script", "img", "link", "iframe"]) if tag.get("rel") != ["canonical"]]
    loaded = [tag.get("src") or tag.get("href") or "" for tag in tags]
    assert not [address for address in loaded if address.startswith(("http://", "https://", "//"))]


def test_every_image_says_what_it_shows(page):
    images = parse(page).find("main").find_all("img")
    assert not [image.get("src") for image in images if len(image.get("alt", "").split()) < 3]


def test_every_page_says_its_version(page, site):
    for path in (page, *(site / f"{name}.html" for name in ("404", "search", "genindex"))):
        made = parse(path).select_one("p.made").get_text()
        assert re.search(r"^dfaccel [\d.]+, commit \S+, built on [\d-]{10}$", made), path


def test_a_chapter_has_its_time_a_short_address_and_a_row_in_the_tables(page, site):
    if page.parent.name == "notebooks":
        assert "Time to run" in parse(page).find("main").get_text()
        short = parse(site / f"{page.stem[:2]}.html")
        assert short.a["href"] == f"notebooks/{page.name}"
        assert short.find("meta", attrs={"http-equiv": "refresh"})["content"] == f"0; url=notebooks/{page.name}"
        for name in ("run_times", "ledger"):
            assert parse(site / "book" / f"{name}.html").find("main").find("a", href=f"../notebooks/{page.name}"), name


def test_its_figures_can_be_made_again_from_the_notebook_beside_them(page, site):
    if page.parent.name == "notebooks":
        boxes = parse(page).select("details.reproduce")
        downloaded = json.loads((site / "_sources" / "notebooks" / f"{page.stem}.ipynb").read_text(encoding="utf-8"))
        cells = [cell for cell in downloaded["cells"] if cell["cell_type"] == "code"]
        figures = {n: c for n, c in enumerate(cells, 1) if "figure" in c["metadata"].get("mystnb", {})}
        numbers = [int(re.search(r"code cell (\d+) of (\d+)", box.get_text())[1]) for box in boxes]
        assert numbers == list(figures)
        for box, number in zip(boxes, numbers, strict=True):
            assert cells[number - 1]["execution_count"] == number  # which is what Jupyter prints beside it
            assert cells[number - 1]["outputs"]
            assert box.find_previous("figure")["id"] == figures[number]["metadata"]["mystnb"]["figure"]["name"]
            assert (page.parent / box.a["href"]).is_file()
