"""Print the built site into one PDF, in the order of the book, with bookmarks, page numbers and inner links.

    python book/pdf.py _build/html _build/dfaccel.pdf

The articles of all pages are put into one, which Chromium prints with the styles that the site has for paper. A link to
a file of the site that is no page is taken away. ``CHROMIUM`` may name the browser.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import yaml
from bs4 import BeautifulSoup
from playwright.sync_api import Route, sync_playwright

BOOK = Path(__file__).resolve().parent
HOME = "http://book.invalid/"  # every request is answered from the folder of the site
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PAPER = {
    "format": "A4",
    "margin": {"top": "18mm", "bottom": "20mm", "left": "16mm", "right": "16mm"},
    "display_header_footer": True,
    "header_template": "<span></span>",
    "footer_template": '<div style="width: 100%; font-size: 8px; text-align: center" class="pageNumber"></div>',
    "outline": True,
    "tagged": True,
}


def parsed(page: Path) -> BeautifulSoup:
    """Read a page of the site."""
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def joined(site: Path, names: list[str]) -> str:
    """Return one page with the articles of the pages `names`; an anchor has the name of its page before its own."""
    book = parsed(site / f"{names[0]}.html")
    book.title.string = "Stars, flows and gravity"
    place = book.select_one("article.bd-article").parent
    place.clear()
    for name in names:
        article = parsed(site / f"{name}.html").select_one("article.bd-article")
        article["style"], article["id"] = "overflow-x: clip; break-after: page", ""
        for text in [text for heading in article.select("h1, h2, h3, h4") for text in heading.find_all(string=True)]:
            text.replace_with(text.replace(" ", "\u2005"))  # of a bookmark, Chromium drops spaces at line ends
        for tag in [article, *article.find_all(id=True)]:
            tag["id"] = f"{name}:{tag['id']}"
        for tag in article.select("[href], [src]"):
            key = "href" if "href" in tag.attrs else "src"
            address, fragment = urldefrag(tag[key])
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), address)) if address else f"{name}.html"
            if urlsplit(address).scheme:
                continue
            if key == "src":
                tag[key] = HOME + target
            elif target.removesuffix(".html") in names:
                tag[key] = f"#{target.removesuffix('.html')}:{fragment}"
            else:
                del tag[key]
        place.append(article)
    return str(book)


def print_book(site: Path, output: Path, names: list[str]) -> None:
    """Print the pages `names` of a site into one PDF file."""
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        sys.exit("printing needs Chromium or Chrome, and none was found; install one, or name it in CHROMIUM")
    first = f"{HOME}{names[0]}.html"
    book = {"body": joined(site, names), "content_type": "text/html; charset=utf-8"}

    def answer(route: Route) -> None:
        file = {"path": site / unquote(urlsplit(route.request.url).path).lstrip("/")}
        route.fulfill(**(book if route.request.url == first else file))

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(color_scheme="light", viewport={"width": 672, "height": 980})  # between the margins
        page.set_default_timeout(600_000)
        page.emulate_media(media="print")
        page.route(f"{HOME}**", answer)
        page.goto(first)
        page.evaluate((BOOK / "templates" / "print.js").read_text(encoding="utf-8"))
        page.pdf(path=output.with_suffix(".part"), **PAPER)
        browser.close()
    output.with_suffix(".part").replace(output)


if __name__ == "__main__":
    site, output = (Path(argument).resolve() for argument in sys.argv[1:])
    if not (site / "index.html").is_file():
        sys.exit(f"{site} is not a built site; make book builds one")
    toc = yaml.safe_load((BOOK.parent / "_toc.yml").read_text(encoding="utf-8"))
    print_book(site, output, [toc["root"], *(page["file"] for part in toc["parts"] for page in part["chapters"])])
    print(os.path.relpath(output))
