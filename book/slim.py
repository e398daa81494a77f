"""Make a built site light: what no page uses is taken out, what a page may need later is loaded later.

Nothing is lost to the reader: the theme's icons come from its font, subset to those in use, instead of from a script of
1.5 MB; rules of the theme's style sheets that match nothing are dropped; words of code that have the colour of plain
text are not marked up; figures become lossless WebP, with their size stated, and are loaded as the reader comes near;
the search index is loaded with the first search (``book.js``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from PIL import Image

SHEETS = ("basic.css", "mystnb.*.css", "sphinx-design.min.css", "styles/*.css")
ICONS = "vendor/fontawesome/webfonts"
UNUSED = re.compile(
    r"<script[^>]*scripts/fontawesome\.js[^>]*></script>\s*|<link[^>]*scripts/fontawesome\.js[^>]*>\s*"
    r'|<script type="application/vnd\.jupyter\.widget-(?:state|view)\+json">.*?</script>\s*',
    re.DOTALL,
)
INDEX = re.compile(r'<script src="[^"]*searchindex\.js[^"]*"></script>\s*')
IMAGE = re.compile(r'<img\b[^>]*\bsrc="([^"]*_images/[^"]+)"[^>]*>')
BOOTSTRAP = {"show", "showing", "fade", "tooltip", "tooltip-arrow", "tooltip-inner", "bs-tooltip-auto"}  # it adds these
TOKEN = re.compile(r'<span class="(\w{1,3})">([^<]*)</span>')
CSS = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|url\([^)"\']*\)|[{};]|[^{};"\'/u]+|.', re.DOTALL)


def statements(css: str) -> Iterator[tuple[str, str | None]]:
    """Split a style sheet into its statements: what stands before the braces, and the block or None.

    >>> list(statements('@import "a;b"; p, a { color: red } @media print { p { margin: 0 } }'))
    [('@import "a;b"', None), ('p, a', ' color: red '), ('@media print', ' p { margin: 0 } ')]
    """
    head, block, depth = "", "", 0
    for token in CSS.findall(css):
        depth += (token == "{") - (token == "}")
        if token.startswith("/*"):
            continue
        if depth == 0 and token == "}":
            yield head.strip(), block[1:]
            head, block = "", ""
        elif depth:
            block += token
        elif token == ";":
            yield head.strip(), None
            head = ""
        else:
            head += token


def used_rules(css: str, words: set[str]) -> str:
    """Return a style sheet without the rules whose classes and ids are not among `words`.

    >>> used_rules(".a, .b > p { margin: 0 } @media print { .b { top: 0 } } :root { --c: 1 }", {"a"})
    '.a{ margin: 0 }:root{ --c: 1 }'
    """

    def matches(selector: str) -> bool:
        plain = re.sub(r"\([^()]*\)", "", selector)  # what :not() or :is() holds need not be there
        return all(re.sub(r"\\(.)", r"\1", name) in words for name in re.findall(r"[.#]((?:\\.|[\w-])+)", plain))

    kept = []
    for head, block in statements(css):
        if block is None:
            kept.append(f"{head};")
        elif head.startswith(("@media", "@supports", "@layer", "@container")):
            inner = used_rules(block, words)
            kept.append(f"{head}{{{inner}}}" if inner else "")
        elif head.startswith("@"):
            kept.append(f"{head}{{{block}}}")
        else:
            selectors = [selector.strip() for selector in re.split(r",(?![^(]*\))", head)]
            kept_selectors = ",".join(selector for selector in selectors if matches(selector))
            kept.append(f"{kept_selectors}{{{block}}}" if kept_selectors else "")
    return "".join(kept)


def names(site: Path) -> set[str]:
    """Return the classes and ids on the site's pages, and the words of the scripts that may add some."""
    scripts = [path for path in site.glob("_static/**/*.js") if path.name != "bootstrap.js"]
    scripts = [path for path in scripts if not {"mathjax", "vendor"} & set(path.parts)]
    found = {name for path in scripts for name in re.findall(r"[\w-]+", path.read_text(encoding="utf-8"))}
    for page in site.rglob("*.html"):
        for value in re.findall(r'\b(?:class|id)="([^"]*)"', page.read_text(encoding="utf-8")):
            found.update(value.split())
    return found | BOOTSTRAP


def slim_sheets(static: Path, words: set[str]) -> None:
    """Drop unused rules from the theme's style sheets."""
    for pattern in SHEETS:
        for path in static.glob(pattern):
            text = re.sub(r"/\*# sourceMappingURL=.*?\*/", "", path.read_text(encoding="utf-8"))
            path.write_text(used_rules(text, words), encoding="utf-8")


def slim_icons(static: Path) -> None:
    """Subset the icon fonts to the characters that the style sheets still name."""
    sheets = [path for path in static.glob("styles/*.css") if ICONS in path.read_text(encoding="utf-8")]
    named = "".join(path.read_text(encoding="utf-8") for path in sheets)
    characters = {int(code, 16) for code in re.findall(r'"\\([0-9a-f]{4,5})"', named)}
    for path in (static / ICONS).glob("*.ttf"):
        font = TTFont(path)
        options = subset.Options(flavor="woff", layout_features=[])
        chosen = subset.Subsetter(options)
        there = set(font.getBestCmap())
        chosen.populate(unicodes=characters & there or {min(there)})  # a font without any character is none
        chosen.subset(font)
        subset.save_font(font, path.with_suffix(".woff"), options)
        path.with_suffix(".woff2").unlink(missing_ok=True)
        path.unlink()
    for path in sheets:
        text = re.sub(r',\s*url\([^)]*\.ttf\) format\("truetype"\)', "", path.read_text(encoding="utf-8"))
        text = re.sub(r'\.woff2\) format\("woff2"\)', '.woff) format("woff")', text)
        path.write_text(text, encoding="utf-8")


def slim_image(path: Path) -> tuple[Path, int, int]:
    """Make a PNG a lossless WebP if that is smaller; return what to show, its width and its height."""
    if path.suffix != ".png":
        return path, 0, 0
    light = path.with_suffix(".webp")
    with Image.open(path) as image:
        image.save(light, lossless=True, exact=True, method=2)
        width, height = image.size
    return (light if light.stat().st_size < path.stat().st_size else path), width, height


def plain_tokens(css: str) -> set[str]:
    """Return the classes of code that a Pygments style sheet gives the colour of the code around them.

    >>> plain_tokens(".highlight { color: #111 } .highlight .n { color: #111 } .highlight .k { color: #222 }")
    {'n'}
    """
    rules = [(head.rpartition(".highlight"), block.strip()) for head, block in statements(css) if block]
    plain = {head[0]: re.search(r"(?<!-)color: [^;]+", block)[0] for head, block in rules if head[1] and not head[2]}
    tokens = {(head[2].strip(" ."), block == plain.get(head[0])) for head, block in rules if head[2].startswith(" .")}
    return {name for name, same in tokens if same} - {name for name, same in tokens if not same}


def slim_page(page: Path, images: dict[Path, tuple[Path, int, int]], plain: set[str]) -> None:
    """Rewrite one page: no unused scripts, no markup without effect or meaning, figures that load as they come near."""

    def figure(match: re.Match) -> str:
        path = (page.parent / match[1]).resolve()
        if path not in images:
            images[path] = slim_image(path)
        light, width, height = images[path]
        sized = not width or re.search(r"\b(width|height)[=:]", match[0])
        size = "" if sized else f' width="{width}" height="{height}"'
        return match[0].replace(path.name, light.name).replace("<img", f'<img loading="lazy" decoding="async"{size}', 1)

    text = UNUSED.sub("", page.read_text(encoding="utf-8"))
    if page.name != "search.html":
        text = INDEX.sub("", text)
    text = TOKEN.sub(lambda match: match[2] if match[1] in plain else match[0], text)
    text = text.replace('<div role="list" class="citation-list">', '<div class="citation-list">')  # holds no items
    page.write_text(IMAGE.sub(figure, text), encoding="utf-8")


def slim(site: Path) -> None:
    """Make the site in this folder light."""
    static, images = site / "_static", {}
    plain = plain_tokens((static / "pygments.css").read_text(encoding="utf-8"))
    pages = list(site.rglob("*.html"))
    for page in pages:
        slim_page(page, images, plain)
    (static / "scripts" / "fontawesome.js").unlink(missing_ok=True)
    for source_map in static.rglob("*.map"):
        source_map.unlink()
    slim_sheets(static, names(site))
    slim_icons(static)
