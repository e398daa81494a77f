"""Build the site, strictly: stage the pages and the executed notebooks, render them, and miss no page.

    python book/build.py --profile book --output _build/html

The source of the site is staged under _build/; the site appears at its place only when it is complete. Environment:
``BOOK_BASE_URL`` (where it will be served) and ``BOOK_REPOSITORY`` (address of the repository), both optional.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from generate import generate

ROOT = Path(__file__).resolve().parent.parent


def pages(toc: dict) -> list[str]:
    """List every page of a table of contents, without suffix."""
    found = [toc["root"]] if "root" in toc else [toc["file"]] if "file" in toc else []
    for key in ("parts", "chapters", "sections"):
        for entry in toc.get(key, ()):
            found += pages(entry)
    return found


def configuration() -> dict:
    """Read ``_config.yml`` and add the addresses the environment gives."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    if base_url := os.environ.get("BOOK_BASE_URL", "").rstrip("/"):
        config["html"]["baseurl"] = base_url + "/"
        config["sphinx"]["config"]["ogp_site_url"] = base_url + "/"
        config["sphinx"]["config"]["notfound_urls_prefix"] = urlsplit(base_url).path.rstrip("/") + "/"
    if repository := os.environ.get("BOOK_REPOSITORY", ""):
        config["repository"] = {"url": repository, "branch": "main"}
        config["html"] |= {"use_repository_button": True, "use_issues_button": True}
    return config


def stage_sources(stage: Path, profile: str) -> None:
    """Write everything the site is rendered from into `stage`."""
    shutil.rmtree(stage, ignore_errors=True)
    shutil.copytree(ROOT / "book", stage / "book", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copy2(ROOT / "_toc.yml", stage)
    (stage / "_config.yml").write_text(yaml.safe_dump(configuration(), sort_keys=False), encoding="utf-8")
    generate(ROOT / "_build" / "executed" / profile, ROOT / "notebooks" / "expected.yml", profile, stage)


def render(stage: Path, work: Path) -> Path:
    """Render the staged book with every warning an error; return the folder of the site."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    jupyter_book = Path(sysconfig.get_path("scripts")) / "jupyter-book"
    command = [str(jupyter_book), "build", str(stage), "--path-output", str(work), "-W", "-n", "--keep-going", "-q"]
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if result.returncode:
        print(result.stdout + result.stderr, file=sys.stderr)
        sys.exit("the site has warnings or errors: see above")
    return work / "_build" / "html"


def build(profile: str, output: Path) -> None:
    """Build the site of `profile` and put it at `output`."""
    work = output.with_name(output.name + ".work")
    stage = ROOT / "_build" / ("source" if profile == "book" else f"source-{profile}")
    stage_sources(stage, profile)
    site = render(stage, work)
    wanted = ["index", *pages(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))]
    if missing := [page for page in wanted if not (site / f"{page}.html").is_file()]:
        sys.exit(f"the site lacks pages of _toc.yml: {', '.join(missing)}")
    shutil.rmtree(output, ignore_errors=True)
    site.replace(output)
    shutil.rmtree(work)
    print(f"{len(wanted)} pages: {os.path.relpath(output / 'index.html')}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Build the site from the executed notebooks of a profile.")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    build(options.profile, options.output.resolve())


if __name__ == "__main__":
    main()
