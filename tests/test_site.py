"""The built site: complete, linked, described, and clean in a real browser."""

from __future__ import annotations

import functools
import os
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pages_of_the_book():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


PAGES = pages_of_the_book()
pytestmark = pytest.mark.site


@functools.cache
def parse(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@functools.cache
def anchors(path):
    return {tag["id"] for tag in parse(path).find_all(id=True)}


@pytest.fixture(params=PAGES)
def page(request, site):
    path = site / f"{request.param}.html"
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


def chromium():
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return os.environ.get("CHROMIUM") or next((path for name in names if (path := shutil.which(name))), None)


class Quiet(SimpleHTTPRequestHandler):
    """A file server that prints nothing."""

    def log_message(self, *args):
        """Print nothing."""


@pytest.fixture(scope="module")
def address(site):
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser():
    if chromium() is None:
        pytest.skip("there is no Chromium or Chrome on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_clean_in_a_browser(browser, address, name, scheme):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    try:
        view = context.new_page()
        problems = []
        listen(view, address, problems)
        view.goto(f"{address}/{name}.html", wait_until="networkidle")
        formulas = view.locator("span.math, div.math").count()
        if formulas:
            view.wait_for_function("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
            view.evaluate("() => MathJax.startup.promise")
            assert view.locator("mjx-container").count() >= formulas
            assert view.locator("mjx-merror").count() == 0
        assert not problems
        assert view.evaluate("document.documentElement.scrollWidth") <= 390
        assert view.evaluate("document.documentElement.dataset.theme") == scheme
        broken = "() => [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        assert view.evaluate(broken) == []
        tiles = (
            "() => [...document.querySelectorAll('main div.cell_output img')]"
            ".map(i => getComputedStyle(i).backgroundColor).filter(c => c !== 'rgba(0, 0, 0, 0)')"
        )
        assert view.evaluate(tiles) == []
    finally:
        context.close()


def listen(view, address, problems):
    """Write down whatever goes wrong while `view` loads, and whatever it asks of another address."""

    def console(message):
        if message.type in {"error", "warning"}:
            problems.append(message.text)

    def request(asked):
        if not asked.url.startswith((address, "data:", "blob:")):
            problems.append(f"not local: {asked.url}")

    def response(answer):
        if answer.status >= 400:
            problems.append(f"{answer.status}: {answer.url}")

    view.on("console", console)
    view.on("request", request)
    view.on("response", response)
    view.on("pageerror", lambda error: problems.append(str(error)))
    view.on("requestfailed", lambda asked: problems.append(f"failed: {asked.url}"))
