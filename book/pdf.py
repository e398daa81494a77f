"""Print the built site into one PDF: every page in the order of the book, with bookmarks, page numbers and inner links.

    python book/pdf.py _build/html _build/dfaccel.pdf

Chromium prints each page with the styles the site has for paper; the sheets are joined afterwards. A link to another
page of the book leads to the sheet that page begins on; a link to a file of the site that is no page leads nowhere and
is taken away. ``CHROMIUM`` may name the browser.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from playwright.sync_api import Browser, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, Fit, NameObject

from build import ROOT, pages

PAPER = {"format": "A4", "margin": {"top": "18mm", "bottom": "20mm", "left": "16mm", "right": "16mm"}}
NUMBER = '<div style="width: 100%; font-size: 8px; text-align: center"><span class="pageNumber"></span></div>'


class Quiet(SimpleHTTPRequestHandler):
    """A file server that prints nothing."""

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; give its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser without a window."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    path = os.environ.get("CHROMIUM") or next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        sys.exit("printing needs Chromium or Chrome, and none was found; install one, or name it in CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def printed(browser: Browser, address: str) -> tuple[str, PdfReader]:
    """Print one page, its mathematics and pictures complete; return its title and its sheets."""
    page = browser.new_page(color_scheme="light")
    page.set_default_timeout(120_000)
    page.goto(address, wait_until="networkidle")
    page.evaluate("() => window.MathJax?.startup?.promise")
    page.evaluate("() => { for (const image of document.images) image.loading = 'eager'; }")
    page.wait_for_function("() => [...document.images].every(image => image.complete)")
    title = page.locator("main .bd-article h1").first.inner_text().removesuffix("#").strip()
    sheets = PdfReader(io.BytesIO(page.pdf(**PAPER, tagged=True)))
    page.close()
    return title, sheets


def numbers(browser: Browser, count: int) -> PdfReader:
    """Print that many sheets with nothing on them but their number."""
    page = browser.new_page()
    page.set_content("<div style='break-after: page'>&nbsp;</div>" * (count - 1) + "&nbsp;")
    options = {"display_header_footer": True, "header_template": "<span></span>", "footer_template": NUMBER}
    return PdfReader(io.BytesIO(page.pdf(**PAPER, **options)))


def anchors(sheets: PdfReader) -> dict[str, tuple[int, list]]:
    """Return the places inside one printed page that its links name: number of the sheet, and where on it."""
    return {
        name.lstrip("/"): (sheets.get_destination_page_number(place), place.dest_array[1:])
        for name, place in sheets.named_destinations.items()
    }


def redirect_links(book: PdfWriter, address: str, starts: dict[str, int], named: dict[str, dict]) -> None:
    """Make links between pages of the site links between sheets; take links to its other files away.

    An anchor has a name that is its own only within one page (every chapter has a summary), so names become places.
    """
    for number, sheet in enumerate(book.pages):
        here = max((name for name in starts if starts[name] <= number), key=starts.get)
        kept = ArrayObject()
        for reference in sheet.get("/Annots", ()):
            link = reference.get_object()
            target = urlsplit(link.get("/A", {}).get("/URI", ""))
            name, fragment = target.path.lstrip("/").removesuffix(".html"), target.fragment
            if isinstance(link.get("/Dest"), str):
                name, fragment = here, str(link["/Dest"]).lstrip("/")
            elif not target.geturl().startswith(address):
                kept.append(reference)
                continue
            if name in starts:
                offset, place = named[name].get(fragment, (0, [NameObject("/Fit")]))
                link.pop("/A", None)
                link[NameObject("/Dest")] = ArrayObject([book.pages[starts[name] + offset].indirect_reference, *place])
                kept.append(reference)
        if "/Annots" in sheet:
            sheet[NameObject("/Annots")] = kept
    for names in ("/Dests", "/Names"):
        book.root_object.pop(names, None)


def print_book(site: Path, output: Path, names: list[str]) -> int:
    """Print the pages `names` of a site into one PDF file, and return the number of its sheets."""
    book = PdfWriter()
    starts: dict[str, int] = {}
    named: dict[str, dict] = {}
    with served(site) as address, chromium() as browser:
        for name in names:
            title, sheets = printed(browser, f"{address}/{name}.html")
            starts[name], named[name] = len(book.pages), anchors(sheets)
            book.append(sheets, import_outline=False)
            book.add_outline_item(title=title, page_number=starts[name], fit=Fit.fit())
        for sheet, number in zip(book.pages, numbers(browser, len(book.pages)).pages, strict=True):
            sheet.merge_page(number)
    redirect_links(book, address, starts, named)
    book.add_metadata({"/Title": "Stars, flows and gravity", "/Author": "The dfaccel developers"})
    book.page_mode = "/UseOutlines"
    book.compress_identical_objects()
    unfinished = output.with_suffix(".part")
    book.write(unfinished)
    unfinished.replace(output)
    return len(book.pages)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Print the built site into one PDF.")
    parser.add_argument("site", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    if not (options.site / "index.html").is_file():
        sys.exit(f"{options.site} is not a built site; make book builds one")
    names = pages(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    count = print_book(options.site.resolve(), options.output.resolve(), names)
    print(f"{count} sheets: {os.path.relpath(options.output)}")


if __name__ == "__main__":
    main()
