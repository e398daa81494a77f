"""Build the site, strictly: stage the pages and the executed notebooks, render them, and miss no page.

    python book/build.py --profile book --output _build/html

The source of the site is staged under _build/; the site appears at its place only when it is complete. Where it will be
is not known to the source; the environment may say so:

- ``BOOK_BASE_URL``, where the site will be served, switches on the social cards;
- ``BOOK_REPOSITORY``, the address of the repository, switches on the buttons that lead there;
- ``BOOK_LAUNCH``, a branch of it that ``book/launch.py`` made, switches on the launch buttons for Binder and Colab.

With ``--links`` nothing is built: every address outside the book is tried, and those that do not answer are listed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from generate import generate
from slim import slim

ROOT = Path(__file__).resolve().parent.parent


def pages(toc: dict) -> list[str]:
    """List every page of a table of contents, without suffix."""
    found = [toc["root"]] if "root" in toc else [toc["file"]] if "file" in toc else []
    for key in ("parts", "chapters", "sections"):
        for entry in toc.get(key, ()):
            found += pages(entry)
    return found


def made() -> str:
    """Say which version of the book this is, from which commit, and when it was built; for the foot of every page."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # not a clone
        commit = "none"
    day = time.strftime("%Y-%m-%d", time.gmtime(float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    return f"dfaccel {version}, commit {commit}, built on {day}"


def configuration() -> dict:
    """Read ``_config.yml`` and add the version, and the addresses the environment gives."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["html"]["extra_footer"] = f'<p class="made">{escape(made())}</p>'
    if base_url := os.environ.get("BOOK_BASE_URL", "").rstrip("/"):
        config["html"]["baseurl"] = base_url + "/"
        config["sphinx"]["config"]["ogp_site_url"] = base_url + "/"
        config["sphinx"]["config"]["ogp_social_cards"]["enable"] = True
        config["sphinx"]["config"]["notfound_urls_prefix"] = urlsplit(base_url).path.rstrip("/") + "/"
    if repository := os.environ.get("BOOK_REPOSITORY", ""):
        config["repository"] = {"url": repository, "branch": os.environ.get("BOOK_LAUNCH") or "main"}
        config["html"] |= {"use_repository_button": True, "use_issues_button": True}
        if os.environ.get("BOOK_LAUNCH"):
            config["launch_buttons"] = {
                "notebook_interface": "jupyterlab",
                "binderhub_url": "https://mybinder.org",
                "colab_url": "https://colab.research.google.com",
            }
    return config


def stage_sources(stage: Path, profile: str) -> None:
    """Write everything the site is rendered from into `stage`."""
    shutil.rmtree(stage, ignore_errors=True)
    shutil.copytree(ROOT / "book", stage / "book", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (stage / "book" / "genindex.md").replace(stage / "genindex.md")  # where Sphinx writes the index
    shutil.copy2(ROOT / "_toc.yml", stage)
    (stage / "_config.yml").write_text(yaml.safe_dump(configuration(), sort_keys=False), encoding="utf-8")
    generate(ROOT / "_build" / "executed" / profile, ROOT / "notebooks" / "expected.yml", profile, stage)


def jupyter_book(stage: Path, work: Path, *options: str) -> subprocess.CompletedProcess:
    """Run Jupyter Book on the staged book; `work`, emptied first, is where its folder _build goes."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    script = Path(sysconfig.get_path("scripts")) / "jupyter-book"
    command = [str(script), "build", str(stage), "--path-output", str(work), "--keep-going", "-q", *options]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def render(stage: Path, work: Path) -> Path:
    """Render the staged book with every warning an error; return the folder of the site."""
    result = jupyter_book(stage, work, "-W", "-n")
    if result.returncode:
        print(result.stdout + result.stderr, file=sys.stderr)
        sys.exit("the site has warnings or errors: see above")
    return work / "_build" / "html"


def redirects(names: list[str]) -> dict[str, str]:
    """Return the short addresses of the chapters: a page at the top of the site that leads on to each.

    >>> list(redirects(["book/intro", "notebooks/05_recovering_accelerations"]))
    ['05.html']
    """
    head = '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{0}</title>\n'
    text = head + (
        '<meta http-equiv="refresh" content="0; url={0}">\n<link rel="canonical" href="{0}">\n'
        '</head>\n<body>\n<p>The chapter is at <a href="{0}">{0}</a>.</p>\n</body>\n</html>\n'
    )
    chapters = [name for name in names if name.startswith("notebooks/")]
    return {f"{Path(name).name[:2]}.html": text.format(f"{name}.html") for name in chapters}


def complete(site: Path, names: list[str], executed: Path) -> None:
    """Add what Sphinx does not make: the short addresses, and the executed notebooks themselves for downloading."""
    for name, text in redirects(names).items():
        (site / name).write_text(text, encoding="utf-8")
    for name in names:
        if name.startswith("notebooks/"):
            notebook = f"{Path(name).name}.ipynb"
            shutil.copyfile(executed / notebook, site / "_sources" / "notebooks" / notebook)


def staged(profile: str) -> Path:
    """Stage the book of `profile` and return the folder."""
    stage = ROOT / "_build" / ("source" if profile == "book" else f"source-{profile}")
    stage_sources(stage, profile)
    return stage


def build(profile: str, output: Path) -> None:
    """Build the site of `profile` and put it at `output`."""
    work = output.with_name(output.name + ".work")
    site = render(staged(profile), work)
    wanted = ["index", *pages(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))]
    if missing := [page for page in wanted if not (site / f"{page}.html").is_file()]:
        sys.exit(f"the site lacks pages of _toc.yml: {', '.join(missing)}")
    complete(site, wanted, ROOT / "_build" / "executed" / profile)
    slim(site)
    shutil.rmtree(output, ignore_errors=True)
    site.replace(output)
    shutil.rmtree(work)
    print(f"{len(wanted)} pages: {os.path.relpath(output / 'index.html')}")


def links(profile: str, output: Path) -> None:
    """Try every address outside the book of `profile`; leave the full list in `output`, and exit with the dead ones."""
    jupyter_book(staged(profile), output, "--builder", "linkcheck")
    report = output / "_build" / "linkcheck" / "output.json"
    if not report.is_file():
        sys.exit("the addresses could not be tried: the book does not build")
    found = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    tried = {link["uri"]: link for link in found if link["uri"].startswith("http")}
    failed = [link for link in tried.values() if link["status"] in {"broken", "timeout"}]
    refusals = ("401", "403", "429")  # from sites that are there, and turn robots away
    dead = [link for link in failed if not link["info"].startswith(refusals)]
    for link in dead:
        print(f"{link['filename']}: {link['uri']}: {link['info'] or link['status']}")
    if dead or not tried:
        sys.exit(f"{len(dead)} of {len(tried)} addresses are dead")
    print(f"{len(tried)} addresses: {len(tried) - len(failed)} answer, {len(failed)} turn robots away")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Build the site from the executed notebooks of a profile.")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--links", action="store_true", help="try the addresses outside the book instead")
    options = parser.parse_args()
    (links if options.links else build)(options.profile, options.output.resolve())


if __name__ == "__main__":
    main()
