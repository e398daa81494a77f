"""Make the notebooks of a clone ready for Google Colab: put a cell first that fetches the repository and installs it.

    python book/launch.py https://github.com/OWNER/NAME COMMIT

Colab opens a notebook alone, without the package, the models and the tables beside it, and the source does not know
its own address. So the workflow ``pages.yml``, which does, runs this for a branch to which only the launch buttons of
the site lead. Outside Colab the cell does nothing; Binder and Codespaces bring the whole repository with them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CELL = """\
# In Google Colab: fetch the repository at the commit of the book and install its package. Elsewhere this does nothing.
import sys

if "google.colab" in sys.modules:
    !git clone --quiet {repository} dfaccel
    !git -C dfaccel checkout --quiet {commit}
    %pip install --quiet --editable ./dfaccel
    %cd dfaccel/notebooks
    sys.path.insert(0, "..")  # this kernel started before the package was there"""


def launchable(notebook: dict, repository: str, commit: str) -> dict:
    """Return a notebook with the cell for Colab before all others."""
    cell = {"cell_type": "code", "execution_count": None, "id": "colab", "metadata": {}, "outputs": []}
    cell["source"] = CELL.format(repository=repository, commit=commit)
    return {**notebook, "cells": [cell, *notebook["cells"]]}


def main() -> None:
    """Run the command line: change every notebook of the book in place."""
    if len(sys.argv) != 3:
        sys.exit("usage: python book/launch.py REPOSITORY COMMIT")
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        notebook = launchable(json.loads(path.read_text(encoding="utf-8")), *sys.argv[1:])
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
