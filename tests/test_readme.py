"""What README, the landing page and chapter 14 tell a reader to type: it works, letter by letter."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from fnmatch import fnmatch
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.table import QTable, Table
from bs4 import BeautifulSoup

import dfaccel as da
from dfaccel.snapshot import versions
from dfaccel.systems.from_galpy import Unseen

ROOT = Path(__file__).resolve().parent.parent
CHAPTER = "notebooks/14_your_own_stars.ipynb"
WHERE = {"README.md": ".", "book/how_to_use.md": "notebooks", CHAPTER: "notebooks"}  # the folder that the text names
TINY = {"n_flows": 2, "n_transforms": 2, "hidden_features": 8, "n_epochs": 1, "batch_size": 200, "n_repeats": 2,
        "n_places": 10, "n_velocities": 20}


def text_of(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".ipynb"):
        text = "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    return text


def commands(name):
    """The commands of a page that make results of one's own stars, and then a page of them."""
    found = re.findall(r"^\S*\.venv/bin/(?:papermill|jupyter) .*(?:my_stars).*$", text_of(name), re.MULTILINE)
    assert ["papermill" in line for line in found] == [True, False], found
    return found


def check_report(path):
    """Check that a page made of the executed template has results alone, in order, and nothing of the book."""
    page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    assert page.html["lang"] == "en"
    headings = [heading.get_text().rstrip("¶") for heading in page.main.find_all(["h1", "h2"])]
    assert headings == ["Accelerations from the stars of my.fits", "Checks before the fit", "Moments first",
                        "Accelerations, with units", "What to make of it", "Parameters, units and versions"]
    images = [image["src"] for image in page.main.find_all("img")]
    assert len(images) == 2
    assert all(image.startswith("data:") for image in images)
    text = page.main.get_text()
    assert re.search(r"Raised, for your judgement: \d+ of 27 checks|No check is raised", text)
    assert all(word in text for word in ("SHA-256", "ratio of -x.a", *versions().values()))
    for word in ("{glue", "{term}", "Exercises", "import ", "Score card", "clump"):
        assert word not in text, word


def as_gadget(stars, path):
    """Write a snapshot as IllustrisTNG does, at redshift one, in comoving kpc/h and km sqrt(a)/s."""
    x, v = (np.stack([stars[c].to_value(unit) for c in names], 1) for names, unit in
            ((("x", "y", "z"), "kpc"), (("vx", "vy", "vz"), "km/s")))
    with h5py.File(path, "w") as file:
        file.create_group("Header").attrs.update({"Time": 0.5, "Redshift": 1.0, "HubbleParam": 0.7})
        for name, values, of_a, of_h, cgs in (("Coordinates", x, 1.0, -1.0, 3.0856775814913673e21),
                                              ("Velocities", v, 0.5, 0.0, 1e5)):
            file[f"PartType4/{name}"] = values / 0.5**of_a / 0.7**of_h
            file[f"PartType4/{name}"].attrs.update({"a_scaling": of_a, "h_scaling": of_h, "to_cgs": cgs})


def as_ecsv(stars, path):
    """Write a table as Gaia's bulk files are: with further columns, and null where a value is missing."""
    stars = Table({"source_id": 10**18 + np.arange(len(stars)), **{name: stars[name] for name in stars.colnames}})
    text = StringIO()
    stars.write(text, format="ascii.ecsv", delimiter=",")
    *rows, last = text.getvalue().splitlines()
    path.write_text("\n".join([*rows, last.rpartition(",")[0] + ",null"]) + "\n")


def as_text(stars, path):
    """Write a text as numpy.savetxt does."""
    head = " ".join(f"{name} [{stars[name].unit.to_string().replace(' ', '')}]" for name in stars.colnames)
    np.savetxt(path, np.stack([stars[name].value for name in stars.colnames], 1), header=head)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "write"), [("README.md", as_gadget), (CHAPTER, as_ecsv), ("README.md", as_text)])
def test_the_commands_for_your_own_stars_work_as_they_are_written(name, write, tmp_path):
    """In a folder like a fresh clone; the sizes alone are made small. What a file holds counts, not its name."""
    (tmp_path / "notebooks" / "results").mkdir(parents=True)
    (tmp_path / "notebooks" / "results" / "own_stars.csv").touch()
    (tmp_path / CHAPTER).write_bytes((ROOT / CHAPTER).read_bytes())
    (tmp_path / ".venv").symlink_to(sys.prefix)
    here = tmp_path / WHERE[name]
    write(Unseen("king").table(2000, rng=5), here / "my.fits")
    for command in commands(name):
        sizes = "".join(f" -p {key} {value}" for key, value in TINY.items()) if "papermill" in command else ""
        done = subprocess.run(command + sizes, shell=True, cwd=here, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    assert len(QTable.read(here / "my_results" / "accelerations.ecsv")) == TINY["n_places"]
    assert QTable.read(here / "my_results" / "profile.ecsv")["enclosed_mass"].unit is not None
    assert len(QTable.read(here / "my_results" / "potential.ecsv"))
    check_report(here / "my_stars.html")


def test_all_pages_tell_the_same_commands():
    plain = {name: [line.replace("../", "").replace("notebooks/", "") for line in commands(name)] for name in WHERE}
    assert len({tuple(lines) for lines in plain.values()}) == 1, plain


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # of places with few stars
@pytest.mark.parametrize("name", ["README.md", "book/intro.md"])
def test_the_lines_of_python_run(name):
    """As they are written, but for the sizes."""
    (code,) = re.findall(r"^```python\n(.*?)^```", text_of(name), re.DOTALL | re.MULTILINE)
    names = {}
    small = "n_flows=2, spec=da.FlowSpec(3, 16), config=da.TrainConfig(n_epochs=3, batch_size=200)"
    code = code.replace("1_000_000", "10_000").replace("n_flows=2", small)
    exec(code, names)  # noqa: S102 - our own page
    result = names.get("acc") or names["gravity"]
    assert np.median(result.error(da.Hernquist().acceleration(result.points))) < 0.3


@pytest.mark.parametrize("name", WHERE)
def test_the_output_of_the_commands_is_new_in_a_fresh_clone(name):
    """[1] of tests/snapshot/test_formats.py."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    for output in re.findall(r"-p output (\S+)|papermill \S+ (\S+)", "\n".join(commands(name))):
        assert any(fnmatch("".join(output), pattern) for pattern in ignored), output


def test_the_paths_that_readme_names_exist():
    for path in re.findall(r"\]\(([^):]+)\)", text_of("README.md")):
        assert (ROOT / path).is_file(), path
