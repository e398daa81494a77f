"""Copy the README's figure out of an executed chapter: the cell tagged ``readme-figure``.

python book/readme_figure.py _build/executed/book/05_recovering_accelerations.ipynb book/_static/readme_figure.png
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

TAG = "readme-figure"


def main() -> None:
    """Run the command line."""
    source, target = map(Path, sys.argv[1:])
    for cell in json.loads(source.read_text(encoding="utf-8"))["cells"]:
        if TAG in cell["metadata"].get("tags", ()):
            image = next((o["data"]["image/png"] for o in cell["outputs"] if "image/png" in o.get("data", {})), None)
            if image is not None:
                target.write_bytes(base64.b64decode("".join(image)))
                return
    sys.exit(f"{source.name} has no figure in a cell tagged {TAG!r}")


if __name__ == "__main__":
    main()
