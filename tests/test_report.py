"""What a run on your own stars leaves behind; and the template through papermill, with good stars and with bad ones."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from astropy.table import QTable

import dfaccel as da
from dfaccel import report
from dfaccel.demonstration import Unseen
from dfaccel.snapshot import SnapshotError, take
from dfaccel.symptoms import Check

mpl.use("agg")
TINY = {"n_flows": 2, "n_transforms": 2, "hidden_features": 8, "n_epochs": 1, "batch_size": 200, "n_repeats": 1,
        "n_places": 10, "n_velocities": 20}


def test_a_folder_is_claimed_once_and_never_overwritten(tmp_path):
    folder = report.claim(tmp_path / "new", {"seed": 1})
    assert report.claim(folder, {"seed": 1}) == folder  # the same run goes on
    with pytest.raises(SnapshotError, match="another run"):
        report.claim(folder, {"seed": 2})
    (folder / report.TABLE).write_text("done")
    with pytest.raises(SnapshotError, match="already holds results"):
        report.claim(folder, {"seed": 1})
    assert (folder / report.TABLE).read_text() == "done"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("!")
    with pytest.raises(SnapshotError, match="is not empty"):
        report.claim(tmp_path / "other", {})
    with pytest.raises(SnapshotError, match="is a file"):
        report.claim(tmp_path / "other" / "thesis.tex", {})
    with pytest.raises(SnapshotError, match="must name a new folder"):
        report.claim("", {})
    with pytest.raises(SnapshotError, match="cannot be used"):
        report.claim(tmp_path / "other" / "thesis.tex" / "results", {})


def test_the_table_has_units_errors_and_flags_and_survives_its_file(tmp_path, ensemble):
    model = ensemble("spherical", n_flows=3)
    taken = take(Unseen("king").table(2000, rng=3))
    places = np.vstack([taken.spread(4, rng=0), [[50.0, 0, 0]]])
    with pytest.warns(UserWarning, match="too few"):
        result = da.accelerations(model, places, n_velocities=50)
    table = report.accelerations_table(taken, result, 2.0)
    assert table["ax"].unit == "km2 / (pc s2)"
    assert table["flag"][-1] == "few stars"
    expected = 2 * np.sqrt(result.covariance[:, 1, 1]) * taken.frame.acceleration
    np.testing.assert_allclose(table["ay_error"].value, expected.value)
    np.testing.assert_allclose(taken.frame.positions(np.stack([table[c] for c in "xyz"], axis=1)), places, atol=1e-9)
    report.deliver(tmp_path, table, model, "<!DOCTYPE html>")
    again = QTable.read(tmp_path / report.TABLE)
    assert again["ax"].unit == table["ax"].unit
    np.testing.assert_array_equal(again["ax"].value, table["ax"].value)
    np.testing.assert_array_equal(da.load(tmp_path / "model").theta, model.theta)


class Page(HTMLParser):
    """Collect what an assistive device needs, and what would leave the page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.alts, self.lang = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.links += [given[key] for key in ("src", "href") if key in given]
        self.alts += [given["alt"]] if tag == "img" else []
        self.lang = given.get("lang", self.lang)


def test_the_page_stands_alone_and_escapes_what_it_is_given():
    checks = [Check("centre", 7.0, 5.0, "flag", "Off <centre> & more.")]
    text = report.page("My <stars>", ["One & two."], checks, plt.figure(), "A \"figure\" of it", {"file": "<script>"})
    seen = Page(text)
    assert "1 of 1 checks ask for your judgement" in text
    assert "script" not in seen.tags
    assert "<centre>" not in text
    assert seen.lang == "en"
    assert seen.alts == ['A "figure" of it']
    assert all(link.startswith("data:") for link in seen.links)
    assert seen.tags.count("h1") == seen.tags.count("main") == seen.tags.count("title") == 1
    assert "All checks are passed" in report.page("T", [], [], plt.figure(), "A", {})
    plt.close("all")


def papermill(root, tmp_path, **parameters):
    arguments = [part for name, value in parameters.items() for part in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(root / "notebooks/14_your_own_stars.ipynb"),
               str(tmp_path / "out.ipynb"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)


def test_the_template_takes_a_file_and_leaves_results(root, tmp_path):
    Unseen("king").table(2000, rng=5).write(tmp_path / "my.fits")
    before = (tmp_path / "my.fits").read_bytes()
    done = papermill(root, tmp_path, snapshot="my.fits", output="results", **TINY)
    assert done.returncode == 0, done.stderr[-2000:]
    left = {path.name for path in (tmp_path / "results").iterdir()}
    assert {"accelerations.ecsv", "model", "report.html", "run.json"} <= left
    assert len(QTable.read(tmp_path / "results" / "accelerations.ecsv")) == TINY["n_places"]
    assert (tmp_path / "my.fits").read_bytes() == before
    again = papermill(root, tmp_path, snapshot="my.fits", output="more", **TINY | {"n_flows": 1})
    assert again.stderr.strip().endswith("SnapshotError: n_flows must be a whole number from 2 to 1000; got 1")
    assert not (tmp_path / "more").exists()


def test_an_interrupted_run_repeats_nothing_that_is_trained(root, tmp_path):
    """The results go, as if the run had died before writing them; the checkpoints of fit and calibration are left."""
    Unseen("king").table(2000, rng=5).write(tmp_path / "my.fits")
    assert papermill(root, tmp_path, snapshot="my.fits", output="results", **TINY).returncode == 0
    folder = tmp_path / "results"
    first = (folder / "accelerations.ecsv").read_bytes()
    kept = sorted(folder.rglob("checkpoint.safetensors"))
    assert len(kept) == 1 + TINY["n_repeats"]
    times = [path.stat().st_mtime_ns for path in kept]
    (folder / "accelerations.ecsv").unlink()
    done = papermill(root, tmp_path, snapshot="my.fits", output="results", **TINY)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (folder / "accelerations.ecsv").read_bytes() == first
    assert sorted(folder.rglob("checkpoint.safetensors")) == kept
    assert [path.stat().st_mtime_ns for path in kept] == times


def test_the_template_refuses_in_one_sentence(root, tmp_path):
    moving = Unseen("king").table(2000, rng=5)
    for name in "xyz":
        moving[f"v{name}"] -= (moving[name] - moving[name].mean()) * 0.5 * moving["vx"].unit / moving["x"].unit
    moving.write(tmp_path / "falling.fits")
    done = papermill(root, tmp_path, snapshot="falling.fits", output="results", **TINY)
    assert done.returncode != 0
    assert "not stationary" in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "results").exists()
    shown = [output for cell in json.loads((tmp_path / "out.ipynb").read_text())["cells"]
             for output in cell.get("outputs", []) if output["output_type"] == "error"]
    assert len(shown) == 1
    assert len(shown[0]["traceback"]) == 1
    assert shown[0]["traceback"][0].startswith("SnapshotError: these stars are refused")
