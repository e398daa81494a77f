"""The book on paper."""

from __future__ import annotations

import pytest
from pypdf import PdfReader

import pdf


@pytest.mark.browser
def test_the_book_is_printed_into_one_file_with_bookmarks_and_inner_links(tmp_path, chromium):  # noqa: ARG001
    (tmp_path / "book").mkdir()
    page = "<!DOCTYPE html><html lang='en'><title>x</title><main><article class='bd-article'>{}</article></main></html>"
    page = page.format("<h1>{} page</h1>{}")
    links = "<a href='two.html#part'>two</a> <a href='two.html'>2</a> <a href='../_sources/x.ipynb'>x</a>"
    part = "<p id='part' style='break-before: page'>more</p><a href='#part'>up</a>"  # the same name on both
    outside = " <a href='https://example.org/'>out</a>"
    (tmp_path / "book" / "one.html").write_text(page.format("First", links + outside + part))
    (tmp_path / "book" / "two.html").write_text(page.format("Second", part))
    pdf.print_book(tmp_path, tmp_path / "out.pdf", ["book/one", "book/two"])
    book = PdfReader(tmp_path / "out.pdf")
    bookmarks = {mark.title.split("\u2005")[0]: book.get_destination_page_number(mark) for mark in book.outline}
    assert bookmarks == {"First": 0, "Second": 2}
    assert [sheet.extract_text().split()[-1] for sheet in book.pages] == ["1", "2", "3", "4"]
    found = [[link.get_object() for link in sheet.get("/Annots", ())] for sheet in book.pages]
    assert [link["/A"]["/URI"] for link in found[0] if "/URI" in link.get("/A", {})] == ["https://example.org/"]
    places = {name: book.get_destination_page_number(place) for name, place in book.named_destinations.items()}
    led = [[places[link["/Dest"]] for link in links if "/Dest" in link] for links in found]
    assert led == [[3, 2], [1], [], [3]]
    assert b"book.invalid" not in (tmp_path / "out.pdf").read_bytes()
    assert not (tmp_path / "out.part").exists()
