"""What a run on your own stars leaves behind; and the template through papermill, with good stars and with bad ones."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import QTable
from IPython.core.interactiveshell import InteractiveShell

import dfaccel as da
from dfaccel.snapshot import SnapshotError, accelerations_table, claim, deliver, disagreement, short_errors, take
from dfaccel.snapshot.results import TABLE
from dfaccel.systems.from_galpy import Unseen

TINY = {"n_flows": 2, "n_transforms": 2, "hidden_features": 8, "n_epochs": 1, "batch_size": 200, "n_repeats": 2,
        "n_places": 10, "n_velocities": 20}


def test_a_folder_is_claimed_once_and_never_overwritten(tmp_path):
    folder, done, other = claim(tmp_path / "new", {"seed": 1}), claim(tmp_path / "done", {}), tmp_path / "other"
    assert claim(folder, {"seed": 1}) == folder  # the same run goes on
    (done / TABLE).write_text("done")
    other.mkdir()
    (other / "thesis.tex").write_text("!")
    for place, sentence in (
        (folder, "another run"), (done, "already holds results"), (other, "is not empty"), ("", "must name a new"),
        (other / "thesis.tex", "is a file"), (other / "thesis.tex" / "results", "cannot be used"),
        ("~nobody-of-that-name/new", "'~nobody-of-that-name/new' cannot be used"),
    ):
        with pytest.raises(SnapshotError, match=sentence):
            claim(place, {})
    assert (done / TABLE).read_text() == "done"


def test_the_home_is_expanded_in_every_path_of_output(tmp_path, monkeypatch, ensemble):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert claim("~/new", {}) == tmp_path / "new"
    model = ensemble("spherical")
    da.save(model, "~/model")
    np.testing.assert_array_equal(da.load("~/model").theta, model.theta)


def test_the_table_has_units_errors_and_flags_and_survives_its_file(tmp_path, ensemble):
    model, taken = ensemble("spherical", n_flows=3), take(Unseen("king").table(2000, rng=3))
    places = np.vstack([taken.spread(4, rng=0), [[50.0, 0, 0]]])
    with pytest.warns(UserWarning, match="too few"):
        result = da.accelerations(model, places, n_velocities=50)
    table = accelerations_table(taken, result, 2.0, verdict="None of them is raised.")
    assert (table["ax"].unit, table["flag"][-1]) == ("km2 / (pc s2)", "few stars")
    np.testing.assert_allclose(table["ay_error"], 2 * np.sqrt(result.covariance[:, 1, 1]) * taken.frame.acceleration)
    np.testing.assert_allclose(taken.frame.positions(np.stack([table[c] for c in "xyz"], axis=1)), places, atol=1e-9)
    deliver(tmp_path, table, model)
    again = QTable.read(tmp_path / TABLE)
    assert again["ax"].unit == table["ax"].unit
    assert next(iter(again.meta.items())) == ("verdict", "None of them is raised.")
    np.testing.assert_array_equal(again["ax"], table["ax"])
    np.testing.assert_array_equal(da.load(tmp_path / "model").theta, model.theta)


def test_moments_stand_beside_and_a_disagreement_is_flagged(ensemble):
    model, taken = ensemble("spherical", n_flows=3), take(Unseen("king").table(2000, rng=3))
    result = da.accelerations(model, taken.spread(5, rng=0), n_velocities=50, warn=False)
    bar = np.sqrt(4 * np.trace(result.covariance, axis1=1, axis2=2))  # of twice the scatter; moments have none here
    away = np.array([0.0, 2.9, 3.1, np.nan, 0.0])[:, None] * bar[:, None] * [0.6, 0.0, 0.8]
    moments = replace(result, value=result.value + away, covariance=np.zeros((5, 3, 3)))
    np.testing.assert_allclose(disagreement(result, moments, 2.0), [0, 2.9, 3.1, np.nan, 0], atol=1e-6)
    table = accelerations_table(taken, result, 2.0, moments)
    plain = accelerations_table(taken, result, 2.0)
    assert (plain["flag"][2] == "differs", table["flag"][2] == "differs") == (False, plain["flag"][2] == "ok")
    assert table["flag"][3] != "ok"
    np.testing.assert_allclose(table["az_jeans"][1], moments.value[1, 2] * taken.frame.acceleration)
    assert set(table.colnames) - set(plain.colnames) == {f"a{c}_jeans{e}" for c in "xyz" for e in ("", "_error")}


@pytest.mark.parametrize(("code", "lines"), [
    ("da.snapshot.read('none.fits')", 1), ("da.fit([[1, 2]], rng=0)", 1), ("da.Hernquist(beta=7.0)", 1),
    ("da.load('none')", 1),
    ("[].index(3)", 5),  # a mistake in a cell keeps its traceback
])
def test_an_error_of_the_package_is_shown_as_one_sentence(code, lines, monkeypatch):
    shell, shown = InteractiveShell(), []
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr(shell, "_showtraceback", lambda kind, error, text: shown.extend(text))
    short_errors()
    shell.run_cell("import dfaccel as da\n" + code)
    written = "\n".join(shown).splitlines()
    assert len(written) == 1 if lines == 1 else len(written) >= lines, written
    assert "Error" in written[-1]


def papermill(root, tmp_path, **parameters):
    arguments = [part for name, value in parameters.items() for part in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(root / "notebooks/14_your_own_stars.ipynb"),
               str(tmp_path / "out.ipynb"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else "done"


@pytest.mark.slow
def test_the_template_takes_a_file_and_an_interrupted_run_repeats_nothing_that_is_trained(root, tmp_path):
    """The table goes, as if the run had died before writing it; the checkpoints of fit and calibration are left."""
    Unseen("king").table(2000, rng=5).write(tmp_path / "my.fits")
    before, folder = (tmp_path / "my.fits").read_bytes(), tmp_path / "results"
    assert papermill(root, tmp_path, snapshot="my.fits", output="results", **TINY) == "done"
    assert {TABLE, "model", "run.json"} <= {path.name for path in folder.iterdir()}
    assert len(QTable.read(folder / TABLE)) == TINY["n_places"]
    assert (tmp_path / "my.fits").read_bytes() == before
    first, kept = (folder / TABLE).read_bytes(), sorted(folder.rglob("checkpoint.safetensors"))
    assert len(kept) == 1 + TINY["n_repeats"]
    times = [path.stat().st_mtime_ns for path in kept]
    (folder / TABLE).unlink()
    assert papermill(root, tmp_path, snapshot="my.fits", output="results", **TINY) == "done"
    assert (folder / TABLE).read_bytes() == first
    assert sorted(folder.rglob("checkpoint.safetensors")) == kept
    assert [path.stat().st_mtime_ns for path in kept] == times
    said = papermill(root, tmp_path, snapshot="my.fits", output="more", **TINY | {"n_flows": 1})
    assert said.endswith("SnapshotError: n_flows must be a whole number from 2 to 1000; got 1")
    assert not (tmp_path / "more").exists()


@pytest.mark.slow
def test_the_template_refuses_in_one_sentence(root, tmp_path):
    moving = Unseen("king").table(2000, rng=5)
    for name in "xyz":
        moving[f"v{name}"] -= (moving[name] - moving[name].mean()) * 0.5 * moving["vx"].unit / moving["x"].unit
    moving.write(tmp_path / "falling.fits")
    assert "not stationary" in papermill(root, tmp_path, snapshot="falling.fits", output="results", **TINY)
    assert not (tmp_path / "results").exists()
    shown = [output for cell in json.loads((tmp_path / "out.ipynb").read_text())["cells"]
             for output in cell.get("outputs", []) if output["output_type"] == "error"]
    ((line,),) = (output["traceback"] for output in shown)
    assert line.startswith("SnapshotError: these stars are refused")
    assert papermill(root, tmp_path, snapshot="falling.fits", output="results", refuse="false", **TINY) == "done"
    cells = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    top = next(output for cell in cells for output in cell.get("outputs", []))
    assert "**Refused: do not trust a result." in "".join(top["data"]["text/markdown"])
    for said in (QTable.read(tmp_path / "results" / TABLE).meta, da.load(tmp_path / "results" / "model").metadata):
        assert said["verdict"].startswith("Refused: do not trust a result.")
