"""What this book adds to Jupyter Book: executed chapters, tables about their making, addresses, light pages.

Sphinx reads the committed pages. When it reads a chapter, it is given the one that was executed with the profile named
in ``BOOK_PROFILE``. The source does not know where the site will be; the environment may say so: ``BOOK_BASE_URL``,
where it will be served, switches on the social cards; ``BOOK_REPOSITORY``, the address of the repository, the buttons
that lead there; ``BOOK_LAUNCH``, a branch of it that the workflow ``pages.yml`` made, those for Binder and Colab.
"""

from __future__ import annotations

import csv
import functools
import json
import math
import os
import re
import shutil
import subprocess
import time
import tomllib
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

import jinja2
from fontTools import subset
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

from check import MIME_TYPE, check

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = {"book/ledger", "book/run_times", "book/benchmarks", "book/scale_out"}
TIME_LINE = re.compile(r"^\*\*Time to run\*\*:.*$", re.MULTILINE)
UNUSED = (
    re.compile(r'<script src="[^"]*searchindex\.js[^"]*"></script>\s*()'),  # book.js loads it with the first search
    re.compile(r"<(?:script|link)[^>]*scripts/fontawesome\.js[^>]*>(?:</script>)?\s*()"),  # its fonts do the same
    re.compile(r'<span class="(?:n|nn|p|w)">([^<]*)</span>'),  # code in the colour of the code around it
    re.compile(r'(?<=<div )role="list" ()(?=class="citation-list">)'),  # holds no items
)
FILES = jinja2.FileSystemLoader(ROOT / "book" / "templates")
PAGES = jinja2.Environment(loader=FILES, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)


def executed() -> Path:
    """Return the folder of the executed notebooks that the book shows."""
    return ROOT / "_build" / "executed" / os.environ.get("BOOK_PROFILE", "book")


@functools.cache
def notebooks(folder: Path) -> dict[str, dict]:
    """Read every executed notebook of a folder, by stem."""
    paths = [path for path in sorted(folder.glob("*.ipynb")) if "." not in path.stem]
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def duration(seconds: float) -> str:
    """Write a duration as a reader would say it."""
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def moment(iso: str) -> str:
    """Write a time as the tables do, in UTC."""
    return datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def reference(low: float, high: float) -> str:
    """Write the bounds of a record as a reader would."""
    if math.isinf(low) or math.isinf(high):
        return f"at most {high:.4g}" if high < math.inf else f"at least {low:.4g}" if low > -math.inf else "none"
    middle, half = (low + high) / 2, (high - low) / 2
    return f"{low:.4g} to {high:.4g}" if half > abs(middle) / 4 and middle else f"{middle:.5g} ± {half:.2g}"


def facts(stem: str, notebook: dict) -> dict:
    """Return what the pages say about an executed notebook: its title, where, when and how long it ran, its results."""
    made, ran, cells = notebook["metadata"]["dfaccel"], notebook["metadata"]["papermill"], notebook["cells"]
    machine = f"{made['processor']}; {', '.join(map(' '.join, made['versions'].items()))}"
    recorded = {
        output["metadata"]["scrapbook"]["name"]: moment(cell["metadata"]["papermill"]["end_time"])
        for cell in cells
        for output in cell.get("outputs", ())
        if MIME_TYPE in output.get("data", {})
    }
    facts = {"stem": stem, "title": "".join(cells[0]["source"]).splitlines()[0].strip("# "), "recorded": recorded}
    made = made | {"commit": made["commit"] or "none", "threads": made["threads"] or "all"}
    return made | facts | {"machine": machine, "seconds": ran["duration"], "finished": moment(ran["end_time"])}


def benchmark(name: str) -> dict:
    """Read a table in notebooks/results: the command that made it, remarks (other lines of comment), header, rows."""
    lines = (ROOT / "notebooks" / "results" / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    command, *remarks = [line.lstrip("# ") for line in lines if line.startswith("#")]
    header, *rows = csv.reader(line for line in lines if not line.startswith("#"))
    return {"command": command, "remarks": " ".join(remarks), "rows": [[c.replace("_", " ") for c in header], *rows]}


def shipped() -> list[dict]:
    """Return what training the ensembles in models/ took, calibration and the fit each started from included."""
    rows = []
    for path in sorted((ROOT / "models").glob("*/ensemble.json")):
        model = json.loads(path.read_text(encoding="utf-8"))
        made = [model["metadata"], (model.get("prior") or {}).get("metadata", {})]
        seconds = sum(one.get(key, 0) for one in made for key in ("seconds", "calibration_seconds"))
        rows.append({"name": path.parent.name, "flows": model["n_flows"], "seconds": seconds})
    return rows


def filled(template: str) -> str:
    """Return a page whose tables are written by the build."""
    chapters = [facts(stem, notebook) for stem, notebook in notebooks(executed()).items()]
    outcomes = functools.partial(check, executed(), ROOT / "notebooks" / "expected.yml", executed().name)
    given = {"benchmark": benchmark, "duration": duration, "reference": reference, "shipped": shipped()}
    return PAGES.from_string(template).render(given, chapters=chapters, outcomes=outcomes)


def chapter(stem: str, notebook: dict) -> dict:
    """Return an executed notebook with its measured time, no injected parameters, and a fold under each figure."""
    made, seconds = notebook["metadata"]["dfaccel"], notebook["metadata"]["papermill"]["duration"]
    took = f"**Time to run**: {duration(seconds)} on {made['processor']} ([all run times](../book/run_times.md))."
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    cells = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cells.append({**cell, "source": TIME_LINE.sub(lambda _: took, "".join(cell["source"]))})
        elif "injected-parameters" not in cell["metadata"].get("tags", ()):
            cells.append(cell)
        if "figure" in cell["metadata"].get("mystnb", {}):
            where = {"stem": stem, "number": code.index(cell) + 1, "count": len(code)}
            fold = PAGES.get_template("reproduce.html").render(where | made)
            cells.append({"cell_type": "markdown", "id": f"fold-{len(cells)}", "metadata": {}, "source": fold})
    return {**notebook, "cells": cells, "metadata": {**notebook["metadata"], "widgets": {}}}


def read(_: Sphinx, docname: str, source: list[str]) -> None:
    """Give Sphinx the executed chapter instead of the committed one, and the pages with their tables filled in."""
    folder, _, stem = docname.partition("/")
    if docname in TEMPLATES:
        source[0] = filled(source[0])
    elif folder == "notebooks" and stem not in notebooks(executed()):
        raise ExtensionError(f"{docname}.ipynb was not executed; make executed-{executed().name} does that")
    elif folder == "notebooks":
        source[0] = json.dumps(chapter(stem, notebooks(executed())[stem]))


def version() -> str:
    """Say which version of the book this is, from which commit, and when it was built; for the foot of every page."""
    number = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    command = "git describe --always --dirty --abbrev=10 --exclude='*'"
    commit = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    day = time.strftime("%Y-%m-%d", time.gmtime(float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    return f"dfaccel {number}, commit {commit or 'none'}, built on {day}"


def configure(_: Sphinx, config: Config) -> None:
    """Add the version, and what the addresses in the environment make possible."""
    theme = config.html_theme_options
    theme["extra_footer"] = f'<p class="made">{escape(version())}</p>'
    if base_url := os.environ.get("BOOK_BASE_URL", "").rstrip("/"):
        config.html_baseurl = config.ogp_site_url = base_url + "/"
        config.ogp_social_cards = {**config.ogp_social_cards, "enable": True}
        config.notfound_urls_prefix = urlsplit(base_url).path.rstrip("/") + "/"
    if repository := os.environ.get("BOOK_REPOSITORY", ""):
        branch = os.environ.get("BOOK_LAUNCH", "")
        theme |= {"repository_url": repository, "repository_branch": branch or "main"}
        theme |= {"use_repository_button": True, "use_issues_button": True}
        services = {"binderhub_url": "https://mybinder.org", "colab_url": "https://colab.research.google.com"}
        theme["launch_buttons"] = {"notebook_interface": "jupyterlab", **services} if branch else {}


def lazy(app: Sphinx) -> None:
    """Let figures be loaded as the reader comes near."""
    app.env.settings["image_loading"] = "lazy"


def used_rules(css: str, words: set[str]) -> str:
    """Return a style sheet without the rules all of whose selectors name a class or an id that is not among `words`."""

    def keep(rule: re.Match) -> str:
        selectors = re.split(r",(?![^(]*\))", re.sub(r"(?<=\()[^()]*(?=\))", "", rule[1]))  # less what :not() holds
        used = (words.issuperset(re.findall(r"[.#]((?:\\.|[\w-])+)", selector)) for selector in selectors)
        return rule[0] if rule[1].lstrip().startswith("@") or any(used) else ""

    return re.sub(r"([^{};]+)\{[^{}]*\}", keep, re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL))


def slim_page(page: Path) -> str:
    """Take out of a page what has no effect, and return what is left."""
    text = page.read_text(encoding="utf-8")
    for pattern in UNUSED if page.name != "search.html" else UNUSED[1:]:
        text = pattern.sub(r"\1", text)
    page.write_text(text, encoding="utf-8")
    return text


def slim(site: Path) -> None:
    """Rewrite every page; drop the rules of style sheets that match nothing, and the icons that none of them names."""
    static, text = site / "_static", "".join(map(slim_page, site.rglob("*.html")))
    scripts = [path for path in static.rglob("*.js") if not {"mathjax", "vendor", "fontawesome.js"} & set(path.parts)]
    words = {word for path in scripts for word in re.findall(r"[\w-]+", path.read_text(encoding="utf-8"))}
    words.update(word for value in re.findall(r'\b(?:class|id)="([^"]*)"', text) for word in value.split())
    for path in static.rglob("*.css"):
        css = used_rules(path.read_text(encoding="utf-8"), words)
        path.write_text(re.sub(r'url\([^)]*\.woff2\) ?format\("woff2"\),', "", css), encoding="utf-8")  # but the .ttf
        for font in static.glob("vendor/fontawesome/webfonts/*.ttf") if "fontawesome/webfonts" in css else ():
            named = re.findall(r'"\\([0-9a-f]{4})"', css)
            codes = [*named, *(f"{ord(icon):x}" for icon in set(css) if icon > "\ue000")]
            subset.main([str(font), f"--unicodes={','.join(codes)}", f"--output-file={font}"])
    for unused in {*static.rglob("*.map"), *static.rglob("fontawesome.js*"), *static.rglob("*.woff2")}:
        unused.unlink()


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Add the short addresses and the executed notebooks themselves; make the site light. Or name the dead links."""
    out = Path(app.outdir)
    if exception is None and app.builder.name == "html":
        for stem in notebooks(executed()):
            short = PAGES.get_template("redirect.html").render(address=f"notebooks/{stem}.html")
            (out / f"{stem[:2]}.html").write_text(short, encoding="utf-8")
            shutil.copyfile(executed() / f"{stem}.ipynb", out / "_sources" / "notebooks" / f"{stem}.ipynb")
        slim(out)
    elif exception is None and app.builder.name == "linkcheck":
        lines = map(json.loads, (out / "output.json").read_text(encoding="utf-8").splitlines())
        found = {link["uri"]: link for link in lines if link["uri"].startswith("http")}
        failed = [link for link in found.values() if link["status"] in {"broken", "timeout"}]
        refusals = ("401", "403", "429")  # from sites that are there, and turn robots away
        said = {f"{link['filename']}: {link['uri']}: {link['info']}": link["info"][:3] for link in failed}
        dead = [line for line, code in said.items() if code not in refusals]
        app.statuscode = int(bool(dead) or not found)
        print(*dead, f"{len(dead)} of {len(found)} addresses are dead", sep="\n")


def setup(app: Sphinx) -> dict:
    """Connect everything to Sphinx."""
    app.connect("config-inited", configure, priority=0)
    app.connect("builder-inited", lazy)
    app.connect("source-read", read, priority=0)
    app.connect("build-finished", finish, priority=900)  # when every other extension has written its files
    return {"parallel_read_safe": True, "parallel_write_safe": True}
