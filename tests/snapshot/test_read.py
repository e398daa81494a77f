"""Files of stars, whole and broken: the right answer, or one clear sentence."""

from __future__ import annotations

import hashlib

import h5py
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
FORMATS = ("fits", "ascii.ecsv", "votable", "hdf5", "parquet", "h5py", "ascii.csv", "npz", "npy", "savetxt")
UNITLESS = ("ascii.csv", "npz", "npy", "savetxt")  # which keep no units
N, SEEDS = 1010, 4
ALL, LOST = slice(None), np.arange(100, 600, 100)  # rows
KEPT = np.setdiff1d(np.arange(N), LOST)


def stars(seed=0, n=N):
    return da.Plummer().sample(n, rng=seed) * np.repeat([3.0, 150.0], 3) + [8.0, 1.0, -2.0, 10.0, 220.0, 5.0]


def table(w, units=UNITS):
    made = Table(w, names=NAMES)
    for name, unit in units.items():
        made[name].unit = unit
    return made


def write(made, path, kind):
    plain = {name: np.ma.filled(made[name], np.nan) for name in made.colnames}
    if kind == "npz":
        with path.open("wb") as file:
            np.savez(file, **plain)
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.rec.fromarrays([*plain.values()], names=[*plain]))
    elif kind == "savetxt":
        rows = np.column_stack([column.astype(str) for column in plain.values()])
        np.savetxt(path, rows, fmt="%s", header=" ".join(plain))
    elif kind == "h5py":
        with h5py.File(path, "w") as file:
            for name, column in plain.items():
                file[name] = column.astype("S") if column.dtype.kind == "U" else column
                file[name].attrs.update({"unit": str(made[name].unit)} if made[name].unit else {})
    else:
        made.write(path, format=kind, **({"path": "stars", "serialize_meta": True} if kind == "hdf5" else {}))


def put(made, name, values, unit=None):
    made[name] = values
    made[name].unit = unit
    return made


def one(rng):
    return NAMES[rng.integers(6)]


def spoiled(made, rng):
    made[one(rng)][LOST] = rng.choice([np.nan, np.inf, -np.inf], 5)
    return made


def huge(made, rng):
    made[one(rng)][rng.integers(N)] = 10.0 ** rng.integers(12, 300)
    return made


# What is done to a table, what to read it with, and what to expect: the rows of the stars that must come out, or what
# the sentence holds.
TABLES = {
    "shuffled": (lambda made, rng: made[[made.colnames[i] for i in rng.permutation(6)]], {}, ALL),
    "more columns": (lambda made, _: put(put(made, "name", ["star"] * N), "id", np.arange(N)), {}, ALL),
    "renamed": (lambda made, _: Table(made, names=[*NAMES[:3], "u", "vy", "vz"]), {"columns": "vx=u"}, ALL),
    "missing column": (lambda made, rng: made[np.delete(NAMES, rng.integers(6)).tolist()], {}, "there is no column"),
    "missing unit": (lambda made, rng: put(made, n := one(rng), np.asarray(made[n])), {}, "' has no unit"),
    "wrong unit": (lambda made, rng: put(made, n := one(rng), np.asarray(made[n]), "kg"), {}, " kg"),
    "unknown unit": (lambda made, _: made, {"units": UNITS | {"x": "furlongs"}}, "astropy does not know"),
    "other unit": (lambda made, _: put(made, "y", np.asarray(made["y"]) * 1000, "pc"), {}, ALL),
    "contradiction": (lambda made, _: made, {"units": UNITS | {"x": "pc"}}, "according to"),
    "not finite": (spoiled, {}, KEPT),
    "masked": (lambda made, _: put(made, "z", MaskedColumn(made["z"], mask=np.isin(range(N), LOST)), "kpc"), {}, KEPT),
    "repeated": (lambda made, rng: made[[*range(N), *rng.choice(N, 7, replace=False)]], {}, ALL),
    "integers": (lambda made, _: table(np.rint(np.array(made.as_array().tolist()) * 1e6).astype(np.int64)), {}, ALL),
    "words": (lambda made, rng: put(made, one(rng), ["unknown"] * N), {}, "must hold one real number"),
    "huge": (huge, {}, "stand for 'unknown'"),
    "no rows": (lambda made, _: made[:0], {}, ""),
    "few rows": (lambda made, rng: made[: rng.integers(1, 999)], {}, "at least 1000"),
    "constant": (lambda made, _: put(made, "z", np.ones(N), "kpc"), {}, "same value"),
}


def scribbled(content, rng):
    content = np.frombuffer(content, np.uint8).copy()
    content[rng.integers(len(content), size=20)] = rng.integers(256, size=20)
    return content.tobytes()


CONTENTS = {
    "truncated": lambda content, rng: content[: int(len(content) * rng.uniform(0, 0.98))],
    "scribbled": scribbled,
    "beheaded": lambda content, rng: bytes(rng.integers(256, size=64, dtype=np.uint8)) + content[64:],
}
assert len(FORMATS) * SEEDS * (len(TABLES) + len(CONTENTS)) >= 800
some_or_all = pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, SEEDS), marks=pytest.mark.slow)])


def attempt(path, options):
    """Read, or return the one sentence; the file and its folder stay as they were."""
    before = hashlib.sha256(path.read_bytes()).digest(), sorted(path.parent.iterdir())
    try:
        outcome = read(path, **options)
    except SnapshotError as error:
        outcome = str(error)
        assert "\n" not in outcome
        assert 10 < len(outcome) < 600
    assert before == (hashlib.sha256(path.read_bytes()).digest(), sorted(path.parent.iterdir()))
    return outcome


def physical(snapshot):
    v = snapshot.w[:, 3:] * snapshot.frame.velocity + snapshot.frame.motion
    return np.hstack([snapshot.frame.places(snapshot.w[:, :3]).to_value("kpc"), v.to_value("km/s")])


@some_or_all
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.filterwarnings("ignore")
def test_changed_tables_give_the_right_answer_or_one_sentence(name, kind, seeds, tmp_path):
    change, options, expected = TABLES[name]
    for seed in seeds:
        rng, w = np.random.default_rng([seed, 7]), stars(seed)
        made = change(table(w), rng)
        if kind in UNITLESS:
            units = {key: made[key].unit if key in made.colnames else unit for key, unit in UNITS.items()}
            options = {"units": {key: str(unit) for key, unit in units.items() if unit}} | options
        path = tmp_path / f"{seed}.{rng.choice(['dat', 'fits', 'csv'])}"  # the name says nothing
        write(made, path, kind)
        outcome = attempt(path, options)
        if name == "contradiction" and kind in UNITLESS:
            continue  # there is none
        if isinstance(expected, str):
            assert isinstance(outcome, str), "it was read"
            assert expected in outcome
        else:
            assert not isinstance(outcome, str), outcome
            factor, atol = (1e6, 1.0) if name == "integers" else (1, 1e-9)
            np.testing.assert_allclose(physical(outcome), w[expected] * factor, rtol=1e-9, atol=atol)
            assert outcome.n_repeated == (7 if name == "repeated" else 0)
            assert outcome.n_missing == (5 if expected is KEPT else 0)


@some_or_all
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.filterwarnings("ignore")
def test_broken_files_give_one_sentence_or_are_read(name, kind, seeds, tmp_path):
    for seed in seeds:
        rng, path = np.random.default_rng([seed, 8]), tmp_path / f"{seed}.dat"
        write(table(stars(seed, 1500)), path, kind)
        path.write_bytes(CONTENTS[name](path.read_bytes(), rng))
        outcome = attempt(path, {"units": UNITS if kind in UNITLESS else {}})
        text = kind in ("ascii.csv", "ascii.ecsv", "savetxt")  # which may end at the end of a row
        if name == "truncated" and not text:
            assert isinstance(outcome, str)


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("none.fits", None, "there is no file"),
    (".", None, "there is no file"),
    ("long" * 100, None, "cannot be opened"),
    ("~nobody-of-that-name/my.fits", None, r"'~nobody-of-that-name/my.fits' cannot be opened"),
    ("empty.csv", b"", "is empty"),
    ("picture.png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d", "of no format known here"),
    ("a.gz", b"\x1f\x8b\x08\x00", r"a\.gz is compressed and damaged"),
])
def test_what_is_no_table_is_said(name, content, sentence, tmp_path):
    path = name if name.startswith("~") else tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SnapshotError, match=sentence):
        read(path)


def test_a_unit_unknown_to_astropy_is_said_and_can_be_given(tmp_path):
    table(stars()).write(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", mode="update") as file:
        file[1].header["TUNIT4"] = "KM/S"
    with pytest.raises(SnapshotError, match="column 'vx' has the unit 'KM/S', which astropy does not know"):
        read(tmp_path / "a.fits")
    np.testing.assert_allclose(physical(read(tmp_path / "a.fits", units="vx=km/s")), stars(), rtol=1e-9)


PLAIN = Table(stars(), names=NAMES)


@pytest.mark.parametrize(("given", "options", "sentence"), [
    (PLAIN, {"units": UNITS | {"x": "dex(kpc)"}}, "a logarithm"),
    (table(stars(), {key: unit for key, unit in UNITS.items() if key != "y"}), {}, "y=kpc"),
    (PLAIN, {"units": "kpc, 1"}, "no unit of velocity"),
    (table(stars()), {"columns": "y=x"}, "column 'x' cannot stand for two"),
    (table(stars()), {"centre": "middle"}, "centre must be"),
    *((PLAIN, {"columns": bad}, r"columns (must|accepts only)") for bad in ("a, b, c", 3, {"x": 3}, {"radius": "r"})),
])
def test_what_cannot_be_taken_is_said(given, options, sentence):
    with pytest.raises(SnapshotError, match=sentence):
        take(given, **options)


def test_what_files_may_hide(tmp_path, monkeypatch):
    made = table(stars())
    for name in ("dark", "stars"):
        made.write(tmp_path / "two.hdf5", path=name, serialize_meta=True, append=name == "stars")
    with pytest.raises(SnapshotError, match=r"holds dark \(1,010 rows\), stars \(1,010 rows\); say which"):
        read(tmp_path / "two.hdf5")
    assert read(tmp_path / "two.hdf5", particles="dark").taken.startswith("HDF5 dark; x, y, z from x, y, z in kpc; ")
    np.savez(tmp_path / "pickled.npz", x=np.array([object()] * 10))
    with pytest.raises(SnapshotError, match=r"pickled\.npz cannot be read as npz"):
        read(tmp_path / "pickled.npz")
    made.write(tmp_path / "a.csv", format="ascii.csv")
    (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.csv").read_bytes())
    np.testing.assert_array_equal(read(tmp_path / "excel.csv", units=UNITS).w, read(tmp_path / "a.csv", units=UNITS).w)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read("~/a.csv", units=UNITS).name == "a.csv"


def test_mappings_may_be_texts():
    assert mapping("kpc, km/s", "units") == UNITS
    assert mapping("1", "units") == mapping(1, "units") == dict.fromkeys(NAMES, "1")
    assert mapping("a,b,c,d,e,f", "columns") == dict(zip(NAMES, "abcdef", strict=True))
    assert mapping(None, "columns") == mapping("", "columns") == {}
    assert take(PLAIN, units="1, 1").frame.acceleration.unit == u.dimensionless_unscaled


@pytest.mark.parametrize("end", ["npz", "fits", "ecsv", "hdf5"])
def test_columns_may_hold_vectors(end, tmp_path):
    w, path = stars(), tmp_path / f"vectors.{end}"
    made = Table({"pos": w[:, :3] * u.kpc, "vel": w[:, 3:] * u.km / u.s, "id": np.arange(len(w))})
    write(made, path, {"ecsv": "ascii.ecsv"}.get(end, end))
    names = "pos[0], pos[1], pos[2], vel[0], vel[1], vel[2]"
    taken = read(path, names, "kpc, km/s" if end == "npz" else None)
    assert np.allclose(taken.w, take(table(w, UNITS)).w, rtol=1e-12, atol=1e-12)
    found = read(path, None, "kpc, km/s" if end == "npz" else None)
    np.testing.assert_array_equal(found.w, taken.w)
    assert "x, y, z from pos[0], pos[1], pos[2] in kpc" in found.taken


def test_centre_and_motion_are_found_within_their_errors_even_beside_interlopers():
    """Error of the centre below 5 median radii / sqrt(N), of the motion below 5 dispersions / sqrt(N / 2)."""
    w = stars(3, 20_000)
    stray = np.vstack([w, w[:1000] + np.array([200.0, 0, 0, 500.0, 0, 0])])
    for seen, n_sigma in ((w, 5), (stray, 10)):
        frame = take(table(seen)).frame
        assert np.abs(frame.positions([[8, 1, -2]] * u.kpc)).max() < n_sigma / np.sqrt(len(w))
        moved = ([[10, 220, 5]] * u.km / u.s - frame.motion) / frame.velocity
        assert np.abs(moved.to_value("")).max() < n_sigma / np.sqrt(len(w) / 2)
    np.testing.assert_array_equal(take(table(w), centre="origin").frame.centre.value, 0)


def test_points_are_read_in_the_frame():
    taken = take(table(stars()))
    places = Table([[8000.0] * u.pc, [1000.0] * u.pc, [-2000.0] * u.pc], names=NAMES[:3])
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


def test_weights_are_a_column(tmp_path):
    """Of mean one over the stars kept; a star whose weight is missing is left out; nothing is ignored in silence."""
    n = 1500
    made, mass, kept = table(stars(n=n)), np.linspace(1, 3, n), np.setdiff1d(np.arange(n), LOST)
    put(made, "mass", MaskedColumn(mass, mask=np.isin(np.arange(n), LOST)), "Msun")
    write(made, tmp_path / "stars.fits", "fits")
    taken = read(tmp_path / "stars.fits", weights="mass")
    np.testing.assert_allclose(taken.weights, mass[kept] / mass[kept].mean())
    assert (len(taken.w), taken.n_missing, taken.unused) == (len(kept), len(LOST), ())
    alike = read(tmp_path / "stars.fits")
    assert alike.weights is None
    assert alike.unused == ("mass",)
    for values, sentence in (
        (-mass, "column 'mass', for weights: weights must be finite and not negative; 1500 are not, first at index 0"),
        (np.where(np.arange(n) == 3, 1.0, 0.0), "must spread over 1000 stars; their effective number is 1"),
        (np.full(n, "heavy"), "column 'mass' must hold one real number a row"),
    ):
        made.replace_column("mass", values)
        with pytest.raises(SnapshotError, match=sentence):
            take(made, weights="mass")
    with pytest.raises(SnapshotError, match="there is no column 'weight' for weights among x, y, z, vx, vy, vz, mass"):
        take(made, weights="weight")
