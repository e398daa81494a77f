"""Files of stars, whole and broken: the right answer, or one clear sentence."""
# ruff: noqa: ARG001 -- all changes take the same arguments

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import MaskedColumn, Table

import dfaccel as da
from dfaccel.snapshot import SnapshotError, read, take
from dfaccel.snapshot.read import mapping

NAMES = ("x", "y", "z", "vx", "vy", "vz")
UNITS = dict(zip(NAMES, ["kpc"] * 3 + ["km/s"] * 3, strict=True))
FORMATS = ("fits", "ascii.ecsv", "votable", "hdf5", "parquet", "ascii.csv", "npz")
UNITLESS = ("ascii.csv", "npz")  # which keep no units
N, SEEDS = 1010, 4


def stars(seed=0, n=N):
    return da.Plummer().sample(n, rng=seed) * np.repeat([3.0, 150.0], 3) + [8.0, 1.0, -2.0, 10.0, 220.0, 5.0]


def table(w, units=UNITS):
    made = Table(w, names=NAMES)
    for name, unit in units.items():
        made[name].unit = unit
    return made


def write(made, path, kind):
    if kind == "npz":
        with path.open("wb") as file:
            np.savez(file, **{name: np.asarray(made[name]) for name in made.colnames})
    else:
        extra = {"hdf5": {"path": "stars", "serialize_meta": True}}.get(kind, {})
        made.write(path, format=kind, **extra)


# What is done to a table or to its file; each returns what to read it with, and what to expect: the rows of the stars
# that must come out, "error", or None for either of the two.
def shuffled(made, rng, kind):
    return made[[made.colnames[i] for i in rng.permutation(6)]], {}, slice(None)


def more_columns(made, rng, kind):
    made["name"], made["id"] = np.array(["star"] * len(made)), np.arange(len(made))
    return made, {}, slice(None)


def renamed(made, rng, kind):
    made.rename_column("vx", "velocity")
    return made, {"columns": "vx=velocity"}, slice(None)


def missing_column(made, rng, kind):
    made.remove_column(NAMES[rng.integers(6)])
    return made, {}, "there is no column"


def missing_unit(made, rng, kind):
    name = NAMES[rng.integers(6)]
    made[name].unit = None
    left = {other: unit for other, unit in UNITS.items() if other != name}
    return made, {"units": left} if kind in UNITLESS else {}, f"{name!r} has no unit"


def wrong_unit(made, rng, kind):
    name = NAMES[rng.integers(6)]
    made[name].unit = "kg"
    return made, {"units": UNITS | {name: "kg"}} if kind in UNITLESS else {}, " kg"


def unknown_unit(made, rng, kind):
    return made, {"units": UNITS | {"x": "furlongs"}}, "astropy does not know"


def other_unit(made, rng, kind):
    made["y"] = (np.asarray(made["y"]) * 1000).astype(float)
    made["y"].unit = "pc"
    return made, {"units": UNITS | {"y": "pc"}} if kind in UNITLESS else {}, slice(None)


def contradiction(made, rng, kind):
    return made, {"units": UNITS | {"x": "pc"}}, None if kind in UNITLESS else "according to"


def not_finite(made, rng, kind):
    rows = rng.choice(N, 5, replace=False)
    made[NAMES[rng.integers(6)]][rows] = rng.choice([np.nan, np.inf, -np.inf], 5)
    return made, {}, np.setdiff1d(np.arange(N), rows)


def masked(made, rng, kind):
    rows = rng.choice(N, 5, replace=False)
    if kind == "npz":
        return not_finite(made, rng, kind)
    made["z"] = MaskedColumn(made["z"], mask=np.isin(np.arange(N), rows))
    return made, {}, np.setdiff1d(np.arange(N), rows)


def repeated(made, rng, kind):
    rows = np.concatenate([np.arange(N), rng.choice(N, 7, replace=False)])
    return made[rows], {}, slice(None)


def integers(made, rng, kind):
    for name in NAMES:
        made[name] = np.rint(np.asarray(made[name]) * 1e6).astype(np.int64)
        made[name].unit = UNITS[name]
    return made, {}, slice(None)


def words(made, rng, kind):
    made[NAMES[rng.integers(6)]] = np.array(["unknown"] * len(made))
    return made, {"units": UNITS} if kind in UNITLESS else {}, "must hold one real number"


def huge(made, rng, kind):
    made[NAMES[rng.integers(6)]][rng.integers(N)] = 10.0 ** rng.integers(12, 300)
    return made, {}, "stand for 'unknown'"


def no_rows(made, rng, kind):
    return made[:0], {}, "error"


def few_rows(made, rng, kind):
    return made[: rng.integers(1, 999)], {}, "at least 1000"


def constant(made, rng, kind):
    made["z"] = 1.0
    made["z"].unit = "kpc"
    return made, {}, "same value"


def truncated(content, rng):
    return content[: int(len(content) * rng.uniform(0, 0.98))]


def scribbled(content, rng):
    content = bytearray(content)
    for i in rng.integers(len(content), size=20):
        content[i] = rng.integers(256)
    return bytes(content)


def beheaded(content, rng):
    return bytes(rng.integers(256, size=64, dtype=np.uint8)) + content[64:]


TABLES = (shuffled, more_columns, renamed, missing_column, missing_unit, wrong_unit, unknown_unit, other_unit,
          contradiction, not_finite, masked, repeated, integers, words, huge, no_rows, few_rows, constant)
CONTENTS = (truncated, scribbled, beheaded)
assert len(FORMATS) * SEEDS * (len(TABLES) + len(CONTENTS)) >= 500


def attempt(path, options):
    """Read, or return the one sentence; the file and its folder stay as they were."""
    before = hashlib.sha256(path.read_bytes()).digest(), sorted(path.parent.iterdir())
    try:
        outcome = read(path, **options)
    except SnapshotError as error:
        outcome = str(error)
        assert "\n" not in outcome
        assert 10 < len(outcome) < 600
        assert "Traceback" not in outcome
    assert before == (hashlib.sha256(path.read_bytes()).digest(), sorted(path.parent.iterdir()))
    return outcome


def physical(snapshot):
    return np.hstack([
        snapshot.frame.places(snapshot.w[:, :3]).to_value("kpc"),
        (snapshot.w[:, 3:] * snapshot.frame.velocity + snapshot.frame.motion).to_value("km/s"),
    ])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("change", TABLES, ids=lambda change: change.__name__)
@pytest.mark.filterwarnings("ignore")
def test_changed_tables_give_the_right_answer_or_one_sentence(change, kind, tmp_path):
    for seed in range(SEEDS):
        rng, w = np.random.default_rng([seed, 7]), stars(seed)
        made, options, expected = change(table(w), rng, kind)
        if kind in UNITLESS:
            options = {"units": UNITS} | options
        path = tmp_path / f"{seed}.{rng.choice(['dat', 'fits', 'csv'])}"  # the name says nothing
        write(made, path, kind)
        outcome = attempt(path, options)
        if isinstance(expected, str):
            assert isinstance(outcome, str), "it was read"
            assert expected == "error" or expected in outcome, outcome
        elif expected is not None:
            assert not isinstance(outcome, str), outcome
            right = w[expected] * (1e6 if change is integers else 1)
            np.testing.assert_allclose(physical(outcome), right, rtol=1e-9, atol=1.0 if change is integers else 1e-9)
            assert outcome.n_repeated == (7 if change is repeated else 0)
            assert outcome.n_missing == (5 if change in (not_finite, masked) else 0)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("change", CONTENTS, ids=lambda change: change.__name__)
@pytest.mark.filterwarnings("ignore")
def test_broken_files_give_one_sentence_or_are_read(change, kind, tmp_path):
    for seed in range(SEEDS):
        rng, path = np.random.default_rng([seed, 8]), tmp_path / f"{seed}.dat"
        write(table(stars(seed, 1500)), path, kind)
        path.write_bytes(change(path.read_bytes(), rng))
        outcome = attempt(path, {"units": UNITS if kind in UNITLESS else {}})
        if change is truncated and kind not in ("ascii.csv", "ascii.ecsv"):  # text may end at the end of a row
            assert isinstance(outcome, str)


def test_what_is_no_file_or_empty_is_said(tmp_path):
    with pytest.raises(SnapshotError, match="there is no file"):
        read(tmp_path / "none.fits")
    with pytest.raises(SnapshotError, match="there is no file"):
        read(tmp_path)
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(SnapshotError, match="is empty"):
        read(tmp_path / "empty.csv")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d")
    with pytest.raises(SnapshotError, match="of no format known here"):
        read(tmp_path / "picture.png")


def test_a_unit_unknown_to_astropy_is_said_and_can_be_given(tmp_path):
    table(stars()).write(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", mode="update") as file:
        file[1].header["TUNIT4"] = "KM/S"
    with pytest.raises(SnapshotError, match="column 'vx' has the unit 'KM/S', which astropy does not know"):
        read(tmp_path / "a.fits")
    np.testing.assert_allclose(physical(read(tmp_path / "a.fits", units="vx=km/s")), stars(), rtol=1e-9)
    logarithmic = table(stars(), UNITS | {"x": "kpc"})
    with pytest.raises(SnapshotError, match="a logarithm"):
        take(table(stars(), {}), units=UNITS | {"x": "dex(kpc)"})
    logarithmic["y"].unit = None
    with pytest.raises(SnapshotError, match="y=kpc"):
        take(logarithmic)


def test_what_files_may_hide(tmp_path):
    made = table(stars())
    made.write(tmp_path / "two.hdf5", path="dark", serialize_meta=True)
    made.write(tmp_path / "two.hdf5", path="stars", serialize_meta=True, append=True)
    with pytest.raises(SnapshotError, match="several tables"):
        read(tmp_path / "two.hdf5")
    (tmp_path / "a.gz").write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(SnapshotError, match="is compressed; unpack it"):
        read(tmp_path / "a.gz")
    made.write(tmp_path / "a.csv", format="ascii.csv")
    (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.csv").read_bytes())
    np.testing.assert_array_equal(read(tmp_path / "excel.csv", units=UNITS).w, read(tmp_path / "a.csv", units=UNITS).w)
    with pytest.raises(SnapshotError, match="cannot be opened"):
        read(tmp_path / ("long" * 100))
    with pytest.raises(SnapshotError, match="column 'x' cannot stand for two"):
        take(made, columns="y=x")


def test_mappings_may_be_texts():
    assert mapping("kpc, km/s", "units") == UNITS
    assert mapping("1", "units") == mapping(1, "units") == dict.fromkeys(NAMES, "1")
    assert mapping("a,b,c,d,e,f", "columns") == dict(zip(NAMES, "abcdef", strict=True))
    assert mapping(None, "columns") == mapping("", "columns") == {}
    for wrong in ("a, b, c", 3, {"x": 3}, {"radius": "r"}):
        with pytest.raises(SnapshotError, match=r"columns (must|accepts only)"):
            mapping(wrong, "columns")


@pytest.mark.parametrize("end", ["npz", "fits", "ecsv", "hdf5"])
def test_columns_may_hold_vectors(end, tmp_path):
    w, path = stars(), tmp_path / f"vectors.{end}"
    made = Table({"pos": w[:, :3] * u.kpc, "vel": w[:, 3:] * u.km / u.s, "id": np.arange(len(w))})
    if end == "npz":
        np.savez(path, pos=w[:, :3], vel=w[:, 3:])
    else:
        made.write(path, **({"path": "stars", "serialize_meta": True} if end == "hdf5" else {}))
    names = "pos[0], pos[1], pos[2], vel[0], vel[1], vel[2]"
    taken = read(path, names, "kpc, km/s" if end == "npz" else None)
    assert np.allclose(taken.w, take(table(w, UNITS)).w, rtol=1e-12, atol=1e-12)
    with pytest.raises(SnapshotError, match=r"no column 'x' for x among .*pos\[0\]"):
        read(path)


def test_simulations_without_units_keep_none():
    taken = take(table(stars(), {}), units="1, 1")
    assert taken.frame.acceleration.unit == u.dimensionless_unscaled
    with pytest.raises(SnapshotError, match="no unit of velocity"):
        take(table(stars(), {}), units="kpc, 1")


def test_centre_and_motion_are_found_within_their_errors_even_beside_interlopers():
    """Error of the centre below 5 median radii / sqrt(N), of the motion below 5 dispersions / sqrt(N / 2)."""
    w = stars(3, 20_000)
    stray = np.vstack([w, w[:1000] + np.array([200.0, 0, 0, 500.0, 0, 0])])
    for seen, n_sigma in ((w, 5), (stray, 10)):
        frame = take(table(seen)).frame
        assert np.abs(frame.positions([[8, 1, -2]] * u.kpc)).max() < n_sigma / np.sqrt(len(w))
        assert np.abs(frame.velocities([[10, 220, 5]] * u.km / u.s)).max() < n_sigma / np.sqrt(len(w) / 2)
    np.testing.assert_array_equal(take(table(w), centre="origin").frame.centre.value, 0)
    with pytest.raises(SnapshotError, match="centre must be"):
        take(table(w), centre="middle")


def test_points_are_read_in_the_frame():
    taken = take(table(stars()))
    places = Table([[8000.0], [1000.0], [-2000.0]], names=NAMES[:3])
    for name in NAMES[:3]:
        places[name].unit = "pc"
    np.testing.assert_allclose(taken.points(places), taken.frame.positions([[8, 1, -2]] * u.kpc))
    places["x"].unit = "km/s"
    with pytest.raises(SnapshotError, match="of one kind"):
        taken.points(places)
    plain = Table([[8.0, 9.0], [1.0, 1.0], [-2.0, -2.0]], names=("X", "y", "z"))  # in the unit of the stars
    expected = taken.frame.positions([[8, 1, -2], [9, 1, -2]] * u.kpc)
    np.testing.assert_allclose(taken.points(plain, "x=X, vx=U"), expected)
    at_origin = take(table(stars()), centre="origin")
    for coordinates, place in (("spherical", [0, 0, 0]), ("axisymmetric", [0, 0, 3])):
        with pytest.raises(SnapshotError, match="row 0 of the points is exactly in the centre, or on the axis"):
            at_origin.points(Table([[float(number)] for number in place], names=NAMES[:3]), None, coordinates)


def test_an_npz_file_with_pickled_objects_is_refused(tmp_path):
    path = tmp_path / "stars.npz"
    np.savez(path, x=np.array([object()] * 10))
    with pytest.raises(SnapshotError, match=r"stars\.npz cannot be read as NPZ"):
        read(path)


def test_the_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    table(stars()).write(tmp_path / "my.fits")
    assert read("~/my.fits").name == "my.fits"
    with pytest.raises(SnapshotError, match=r"'~nobody-of-that-name/my.fits' cannot be opened"):
        read("~nobody-of-that-name/my.fits")
