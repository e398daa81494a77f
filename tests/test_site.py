"""The built site: complete, linked, described."""

from __future__ import annotations

import functools
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


def test_tables_are_tables(page):
    assert not [text for tag in parse(page).find_all("p") if (text := tag.get_text()).lstrip().startswith("|")]


def test_nothing_is_loaded_from_elsewhere(page):
    tags = [tag for tag in parse(page).find_all(["script", "img", "link", "iframe"]) if tag.get("rel") != ["canonical"]]
    loaded = [tag.get("src") or tag.get("href") or "" for tag in tags]
    assert not [address for address in loaded if address.startswith(("http://", "https://", "//"))]


def test_every_image_says_what_it_shows(page):
    images = parse(page).find("main").find_all("img")
    assert not [image.get("src") for image in images if len(image.get("alt", "").split()) < 3]


def test_every_chapter_shows_its_time_and_hides_the_injected_parameters(page):
    if page.parent.name == "notebooks":
        text = parse(page).find("main").get_text()
        assert "Time to run" in text
        assert "see the run times" not in text
        assert "# Parameters" not in text
