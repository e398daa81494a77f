"""Files as people have them: each is read as what it is, or one sentence says what would help.

The numbers in brackets are those of the cases that this book once refused or, worse, read wrongly.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile

import h5py
import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import CartesianDifferential, CartesianRepresentation, Galactocentric, SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Table
from pyarrow import feather, parquet

import dfaccel as da
from dfaccel.snapshot import SnapshotError, read, read_table, take

NAMES = ["x", "y", "z", "vx", "vy", "vz"]
UNITS = ["pc"] * 3 + ["km/s"] * 3
N = 1100
W = da.Plummer(mass=1e5, scale=3.0, G=4.3e-3).sample(N, rng=1).round(6)  # as texts have them
PLAIN = "pc, km/s"


def physical(snapshot):
    """Return the stars in the units of the frame, as they were in the file."""
    v = snapshot.w[:, 3:] * snapshot.frame.velocity + snapshot.frame.motion
    return np.hstack([snapshot.frame.places(snapshot.w[:, :3]).value, v.value])


def same(snapshot, expected=W):
    np.testing.assert_allclose(physical(snapshot), expected, rtol=2e-6, atol=2e-6)


def table(names=NAMES, units=UNITS):
    made = Table(W, names=names)
    for name, unit in zip(names, units, strict=True):
        made[name].unit = unit
    return made


def lines(head, sep=" ", tail="", foot="", fmt="%.6f", w=W):
    return "\n".join([*head, *(sep.join(fmt % value for value in row) + tail for row in w)]) + "\n" + foot


COMMA = ",".join(NAMES)
TEXTS = {  # with the units that the text itself gives, or None
    "blanks, header after # [7]": (lines(["# x y z vx vy vz"]), None),
    "commas, header after # [7]": (lines(["# " + COMMA], ","), None),
    "comments, then the header [14]": (lines(["# by me", "#", "# x y z vx vy vz"]), None),
    "a comment of as many words as columns": (lines(["# six words in this first line", "# vx vy vz x y z"],
                                                    w=W[:, [3, 4, 5, 0, 1, 2]]), None),
    "header after a colon": (lines(["# columns: x y z vx vy vz"]), None),
    "other marks of comments": (lines(["% made by Matlab", "! x y z vx vy vz"]), None),
    "no header": (lines([]), None),
    "blanks that line up": (lines(["     x   y  z  vx vy     vz"], fmt="%14.6f"), None),
    "units below the header after #": (lines(["# x y z vx vy vz", "# pc pc pc km/s km/s km/s"]), UNITS),
    "units in a header after #": (lines(["# x [pc] y [pc] z [pc] vx [km/s] vy [km/s] vz [km/s]"]), UNITS),
    "semicolons [14]": (lines([COMMA.replace(",", ";")], ";"), None),
    "decimal commas": (lines(["x;y;z;vx;vy;vz"], ";").replace(".", ","), None),
    "tabs [14]": (lines(["\t".join(NAMES)], "\t"), None),
    "a comment first [14]": (lines(["# drawn from a Plummer sphere, pc and km/s", COMMA], ","), None),
    "a trailing comma [14]": (lines([COMMA], ",", ","), None),
    "a trailing comma everywhere [14]": (lines([COMMA + ","], ",", ","), None),
    "a footer [14]": (lines([COMMA], ",", foot="# 1100 rows\n"), None),
    "a line of units [12]": (lines([COMMA, "pc,pc,pc,km/s,km/s,km/s"], ","), UNITS),
    "units in brackets below": (lines([COMMA, "[pc],[pc],[pc],[km s-1],[km s-1],[km s-1]"], ","), UNITS),
    "a rule, as of VizieR": (lines(["\t".join(NAMES), "\t".join(UNITS), "\t".join(["--"] * 6)], "\t"), UNITS),
    "units in the names": (lines(["x (pc),y (pc),z (pc),vx (km/s),vy (km/s),vz (km/s)"], ","), UNITS),
    "blank lines first [16]": ("\n" * 600 + lines([COMMA], ","), None),
    "an index without a name": (lines(["," + COMMA], ",", w=np.column_stack([np.arange(N), W])), None),
    "quotes": (lines(['"x","y","z","vx","vy","vz"'], ","), None),
    "other names": (lines(["X,Y_kpc,pos_z,v_x,VY,vel_z"], ","), None),
    "of a database": (lines([" x | y | z | vx | vy | vz ", "---+---+---+----+----+----"], " | "), None),
    "Markdown": (lines(["| x | y | z | vx | vy | vz |", "|---|---|---|---|---|---|"], " | ", " |"), None),
    "RDB": (lines(["\t".join(NAMES), "\t".join(["10N"] * 6)], "\t"), None),
    "SExtractor": (lines([f"# {k + 1:3} {name} a column [{unit}]"
                          for k, (name, unit) in enumerate(zip(NAMES, UNITS, strict=True))]), UNITS),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_read_whatever_is_between_the_columns_and_above_them(name, tmp_path):
    text, units = TEXTS[name]
    path = tmp_path / "stars.txt"
    path.write_text(text, encoding="utf-8")
    if units is None:
        with pytest.raises(SnapshotError, match=r"column '.*' has no unit in the file; give it with units, such as "):
            read(path)
    found = read(path, units=None if units else PLAIN)
    same(found)
    assert (found.n_rows, found.n_missing) == (N, 0)


@pytest.mark.parametrize("form", ["ipac", "latex", "aastex", "rst", "mrt", "fixed_width", "fixed_width_two_line",
                                  "commented_header", "tab", "rdb", "ecsv"])
def test_texts_of_astropy_are_read(form, tmp_path):
    """[8]."""
    own = form in ("ipac", "mrt", "ecsv")
    table(units=UNITS if own else [None] * 6).write(tmp_path / "stars", format=f"ascii.{form}")
    same(read(tmp_path / "stars", units=None if own else PLAIN))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "latin-1"])
def test_texts_may_be_encoded_otherwise(encoding, tmp_path):
    start = "\ufeff" * (encoding == "utf-16-be")
    rows = lines([start + "name," + COMMA], ",").replace("\n", "\r\n\u00e9,").removesuffix("\u00e9,")
    (tmp_path / "stars.csv").write_bytes(rows.encode(encoding))
    same(read(tmp_path / "stars.csv", units=PLAIN))


@pytest.mark.parametrize("word", ["null", "NULL", "", "NaN", "--", "N/A"])
def test_missing_values_have_many_names(word, tmp_path):
    """[11]."""
    table().write(tmp_path / "a.ecsv", delimiter=",")
    *rows, last = (tmp_path / "a.ecsv").read_text().splitlines()
    (tmp_path / "a.ecsv").write_text("\n".join([*rows, last.rsplit(",", 1)[0] + "," + word]) + "\n")
    (tmp_path / "a.csv").write_text(lines([COMMA], ",", w=W[:-1]) + f"1,2,3,4,{word},6\n")
    (tmp_path / "a.psv").write_text(lines(["x|y|z|vx|vy|vz"], "|", w=W[:-1]) + f"{word}|2|3|4|5|6\n")
    for name, units in (("a.ecsv", None), ("a.csv", PLAIN), ("a.psv", PLAIN)):
        found = read(tmp_path / name, units=units)
        assert (found.n_rows, found.n_missing) == (N, 1), name
        same(found, W[:-1])


SENTENCES = {
    "page.fits": (b"<!doctype html><html><body>Please log in</body></html>", "is a page of HTML"),  # [17]
    "lfs.fits": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "pointer of Git LFS"),
    "asdf.fits": (b"#ASDF 1.0.0\n%YAML 1.1\n", "is an ASDF file"),
    "frame.json": (b'{"x": [1]}', "is JSON"),
    "frame.pkl": (b"\x80\x04\x95", "is a pickle"),
    "gadget.dat": (b"\x00\x01\x00\x00" + bytes(300), "is a binary Gadget snapshot"),
    "comment.txt": (b"# nothing\n", "has no rows"),
    "footer.csv": (lines([COMMA], ",", foot="Total,1100\n").encode(), "row 1100 holds 'Total'"),
    "twice.csv": (lines([COMMA], ",", foot=COMMA + "\n").encode(), "row 1100 holds 'x'"),
    "fortran.txt": (lines(["x y z vx vy vz"], fmt="%.6e").replace("e", "D").encode(), r"row 0 holds '.*D\+00'"),
    "long.csv": (lines([COMMA], ",", foot="1,2,3,4,5,6,7\n").encode(), "cannot be read as text"),
    "wide.csv": (lines([COMMA], ",", ",1.0").encode(), "has 6 names for 7 columns"),
    "seven.txt": (lines([], tail=" 1.0").encode(), "no column 'x' for x among col1, col2, .*say which it is with"),
    "double.csv": (lines(["x,y,z,vx,vy,vz,x"], ",", ",1").encode(), "x may be any of the columns x, x_1; say"),  # [18]
    "uvw.csv": (lines(["x,y,z,U,V,W"], ",").encode(), "no column 'vx' for vx among x, y, z, U, V, W"),
    "sky.csv": (lines(["ra,dec,parallax,pmra,pmdec,radial_velocity"], ",").encode(), "SkyCoord"),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_what_cannot_be_read_is_said(name, tmp_path):
    content, sentence = SENTENCES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SnapshotError, match=sentence) as caught:
        read(tmp_path / name, units=PLAIN)
    assert len(str(caught.value)) < 500


def test_one_of_two_equal_names_can_be_stated(tmp_path):
    (tmp_path / "double.csv").write_bytes(SENTENCES["double.csv"][0])
    same(read(tmp_path / "double.csv", "x=x", PLAIN))


def test_compressed_files_are_read(tmp_path):
    """[15]."""
    content = lines([COMMA], ",").encode()
    for end, pack in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        (tmp_path / f"stars.{end}").write_bytes(pack(content))
    with zipfile.ZipFile(tmp_path / "stars.zip", "w") as archive:
        archive.writestr("stars.csv", content)
    table().write(tmp_path / "stars.fits")
    (tmp_path / "stars.fits.gz").write_bytes(gzip.compress((tmp_path / "stars.fits").read_bytes()))
    for end in ("gz", "bz2", "xz", "zip", "fits.gz"):
        same(read(tmp_path / f"stars.{end}", units=PLAIN))
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", content)
        archive.writestr("b.csv", content)
    with pytest.raises(SnapshotError, match=r"two\.zip holds 2 files, a\.csv, b\.csv; unpack it"):
        read(tmp_path / "two.zip")
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "")
        archive.writestr("xl/workbook.xml", "")
    with pytest.raises(SnapshotError, match=r"a\.xlsx is a workbook of Excel; save the sheet"):
        read(tmp_path / "a.xlsx")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(content)[:5000])
    with pytest.raises(SnapshotError, match="cannot be read as"):
        read(tmp_path / "cut.gz")


TNG = {"Coordinates": {"a_scaling": 1.0, "h_scaling": -1.0, "to_cgs": 3.0856775814913673e21},
       "Velocities": {"a_scaling": 0.5, "h_scaling": 0.0, "to_cgs": 1e5}}
EAGLE = {"Coordinates": {"CGSConversionFactor": 3.0856775814913673e24, "aexp-scale-exponent": 1.0,
                         "h-scale-exponent": -1.0},
         "Velocities": {"CGSConversionFactor": 1e5, "aexp-scale-exponent": 0.5, "h-scale-exponent": 0.0}}
_SWIFT = "Conversion factor to CGS (not including cosmological corrections)"
SWIFT = {"Coordinates": {_SWIFT: [3.0856775814913673e24], "a-scale exponent": [1.0], "h-scale exponent": [0.0]},
         "Velocities": {_SWIFT: [1e5], "a-scale exponent": [0.0], "h-scale exponent": [0.0]}}
WORDS = {"Coordinates": {"units": "ckpc/h"}, "Velocities": {"units": b"km sqrt(a)/s"}}
COSMIC = {"Time": 0.25, "Redshift": 3.0, "HubbleParam": 0.5}
CGS = {"UnitLength_in_cm": 3.0856775814913673e21, "UnitVelocity_in_cm_per_s": 1e5}


def gadget(path, parts, header, attributes=None, masses=True, group="Header"):
    with h5py.File(path, "w") as file:
        for name, values in ({"Header": header} if group == "Header" else {"Header": COSMIC, group: header}).items():
            file.create_group(name).attrs.update(values)
        for name, w in parts.items():
            part = file.create_group(name)
            part["Coordinates"], part["Velocities"], part["ParticleIDs"] = w[:, :3], w[:, 3:], np.arange(len(w))
            part["Chemistry"] = np.zeros((len(w), 10))
            if masses:
                part["Masses"] = np.ones(len(w))
            for column, values in (attributes or {}).items():
                part[column].attrs.update(values)
    return path


@pytest.mark.parametrize(("header", "attributes", "length", "speed"), [
    (COSMIC, TNG, 0.25 / 0.5, 0.5), (COSMIC | {"ExpansionFactor": 0.25, "Time": 0.01}, EAGLE, 1000 * 0.25 / 0.5, 0.5),
    ({"Redshift": [3.0], "Scale-factor": [0.25]}, SWIFT, 1000 * 0.25, 1.0), (COSMIC, WORDS, 0.25 / 0.5, 0.5),
    (COSMIC | CGS, None, 0.25 / 0.5, 0.5), ({"Time": 3.7, "Redshift": 0.0, "HubbleParam": 1.0} | CGS, None, 1.0, 1.0),
    (CGS | {"Time": 3.7}, None, 1.0, 1.0),
], ids=["TNG", "EAGLE", "SWIFT", "words", "AREPO", "not cosmological", "no little h"])
def test_simulations_that_state_their_units_are_read(header, attributes, length, speed, tmp_path):
    """[5]: from comoving positions over h, and velocities over the square root of the scale factor."""
    found = read(gadget(tmp_path / "snap.hdf5", {"PartType4": W}, header, attributes, masses=attributes is None))
    assert str(found.frame.length.unit) == "kpc"
    same(found, W * np.repeat([length, speed], 3))
    assert found.taken.startswith("HDF5 PartType4; x, y, z from Coordinates[0], Coordinates[1], Coordinates[2] in ")


def test_the_units_may_stand_in_another_group(tmp_path):
    found = read(gadget(tmp_path / "snap.hdf5", {"PartType4": W}, CGS, group="Parameters"))
    same(found, W * np.repeat([0.5, 0.5], 3))


def test_a_simulation_without_units_asks_for_them(tmp_path):
    path = gadget(tmp_path / "snap.hdf5", {"PartType1": W}, {"Time": 1.0, "HubbleParam": 1.0, "MassTable": [0.0, 1.0]})
    with pytest.raises(SnapshotError, match=r"'Coordinates\[0\]' has no unit in the file; .* such as 'kpc, km/s'$"):
        read(path)
    same(read(path, units="kpc, km/s"))
    path = gadget(tmp_path / "cosmic.hdf5", {"PartType1": W}, COSMIC)
    with pytest.raises(SnapshotError, match=r"\(hubble = 0.5, scale_factor = 0.25\), 'kpc a/h, km sqrt\(a\)/s'$"):
        read(path)
    found = read(path, units="kpc a/h, km sqrt(a)/s")
    same(found, W * np.repeat([0.5, 0.5], 3))
    assert found.taken.endswith("; a = 0.25; h = 0.5")
    same(read(path, units="kpc a/h, km sqrt(a)/s", scale_factor=1, hubble=1))  # what is given counts


def test_of_several_types_one_must_be_chosen(tmp_path):
    path = gadget(tmp_path / "snap.hdf5", {"PartType1": W[:1050], "PartType4": W}, {})
    with pytest.raises(SnapshotError, match=r"holds PartType1 \(1,050 rows\), PartType4 \(1,100 rows\); say which are "
                                            r"the stars, such as particles='PartType4'"):
        read(path)
    for name in ("PartType4", "4", 4):
        same(read(path, units="kpc, km/s", particles=name))
    with pytest.raises(SnapshotError, match="has no 'stars', for particles, but PartType1"):
        read(path, particles="stars")


def test_a_part_of_a_snapshot_is_refused(tmp_path):
    path = gadget(tmp_path / "snap_099.0.hdf5", {"PartType4": W}, COSMIC | {"NumFilesPerSnapshot": 8}, TNG)
    with pytest.raises(SnapshotError, match=r"snap_099\.0\.hdf5 is a part of a snapshot in several files; join them"):
        read(path)


X, V = W[:, :3], W[:, 3:]
ONE_EACH = dict(zip(NAMES, W.T, strict=True))
ARRAYS = {  # as h5py and NumPy write them [6, 13]
    "one column each": ONE_EACH, "one array": {"w": W}, "one array, upright": {"w": W.T, "ids": np.arange(N)},
    "positions, velocities, more": {"pos": X, "vel": V, "mass": np.ones(N), "params": np.arange(2.0), "time": 0.0},
    "upright vectors": {"pos": X.T, "vel": V.T}, "x and v": {"x": X, "v": V}, "capitals": {"Pos": X, "Vel": V},
    "single precision, big-endian": {name: value.astype(">f4") for name, value in ONE_EACH.items()},
    "structured": {"stars": np.rec.fromarrays(W.T, names=NAMES)},
    "upright columns": {name: value[:, None] for name, value in ONE_EACH.items()},
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_read_as_they_were_written(name, tmp_path):
    np.savez(tmp_path / "stars.npz", **ARRAYS[name])
    with h5py.File(tmp_path / "stars.h5", "w") as file:
        for key, value in ARRAYS[name].items():
            file[key] = value
    for end in ("npz", "h5"):
        same(read(tmp_path / f"stars.{end}", units=PLAIN))


@pytest.mark.parametrize("name", ["one array", "one array, upright", "structured"])
def test_a_file_of_one_array_is_read(name, tmp_path):
    np.save(tmp_path / "stars.npy", next(iter(ARRAYS[name].values())))
    same(read(tmp_path / "stars.npy", units=PLAIN))


def test_groups_and_attributes_of_h5py(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, unit in zip(NAMES, UNITS, strict=True):
            path = f"snap/{'velocity' if name.startswith('v') else 'position'}/{name[-1]}"
            file[path] = ONE_EACH[name]
            file[path].attrs["unit"] = unit
        file["snap/count"] = [N]
    same(read(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        for group, w in (("disc", W), ("halo", W[::-1])):
            file[f"{group}/now/pos"], file[f"{group}/now/vel"] = w[:, :3], w[:, 3:]
    with pytest.raises(SnapshotError, match=r"holds disc/now \(1,100 rows\), halo/now \(1,100 rows\); say which"):
        read(tmp_path / "b.h5", units=PLAIN)
    same(read(tmp_path / "b.h5", units=PLAIN, particles="disc"))
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["density"] = np.zeros((50, 50))
    with pytest.raises(SnapshotError, match="no column 'x' for x among density; say which it is with columns"):
        read(tmp_path / "c.h5")
    with h5py.File(tmp_path / "pandas.h5", "w") as file:  # a table of which only pickles know the names
        rows = np.zeros(N, dtype=[("index", "i8"), ("values_block_0", "f8", (6,))])
        rows["values_block_0"] = W
        file["stars/table"] = rows
    with pytest.raises(SnapshotError, match=r"no column 'x' for x among index, values_block_0\[0\]"):
        read(tmp_path / "pandas.h5")


def test_objects_beside_arrays_are_left_out_and_two_kinds_of_stars_are_not_mixed(tmp_path):
    np.savez(tmp_path / "a.npz", pos=X, vel=V, settings=np.array({"n": 3}, dtype=object))
    same(read(tmp_path / "a.npz", units=PLAIN))
    np.savez(tmp_path / "b.npz", pos=X, vel=V, dark_pos=X[:900], dark_vel=V[:900])
    with pytest.raises(SnapshotError, match="holds columns of 1100 and of 900 rows"):
        read(tmp_path / "b.npz", units=PLAIN)


def test_parquet_and_feather_as_they_are_written(tmp_path):
    """[13]."""
    lists = {"pos": pa.array([None, *X[1:]]), "vel": pa.array(list(V))}
    fixed = {name: pa.FixedSizeListArray.from_arrays(pa.array(a.ravel()), 3) for name, a in (("pos", X), ("vel", V))}
    structures = {k: pa.StructArray.from_arrays(list(a.T), names=list("xyz")) for k, a in (("pos", X), ("vel", V))}
    for name, columns, expected in (("lists", lists, W[1:]), ("fixed", fixed, W), ("structures", structures, W)):
        parquet.write_table(pa.table(columns), tmp_path / name)
        same(read(tmp_path / name, units=PLAIN), expected)
    feather.write_feather(pa.table(ONE_EACH), tmp_path / "a.feather")
    same(read(tmp_path / "a.feather", units=PLAIN))


def test_fits_with_several_tables_one_row_or_vectors(tmp_path):
    small = fits.BinTableHDU(Table({"mass": [1e5], "scale": [3.0]}), name="MODEL")
    stars = fits.BinTableHDU(table(), name="STARS")
    fits.HDUList([fits.PrimaryHDU(), small, stars]).writeto(tmp_path / "a.fits")
    same(read(tmp_path / "a.fits"))
    fits.HDUList([fits.PrimaryHDU(), stars, fits.BinTableHDU(table()[::-1], name="DARK")]).writeto(tmp_path / "b.fits")
    with pytest.raises(SnapshotError, match=r"holds STARS \(1,100 rows\), DARK \(1,100 rows\); say which"):
        read(tmp_path / "b.fits")
    same(read(tmp_path / "b.fits", particles="STARS"))
    row = [fits.Column(NAMES[k], f"{N}D", UNITS[k], array=W.T[[k]]) for k in range(6)]
    fits.BinTableHDU.from_columns(row).writeto(tmp_path / "idl.fits")
    same(read(tmp_path / "idl.fits"))
    mask = np.zeros((N, 3), bool)
    mask[0, 1] = True
    Table({"pos": X * u.pc, "vel": MaskedColumn(V, unit="km/s", mask=mask)}).write(tmp_path / "vectors.fits")
    same(read(tmp_path / "vectors.fits"), W[1:])
    fits.PrimaryHDU(W.T).writeto(tmp_path / "image.fits")
    with pytest.raises(SnapshotError, match=r"image\.fits holds no table"):
        read(tmp_path / "image.fits")


COSMOLOGY = [("kpc a h**-1", "km a**1/2 s**-1", 0.25 / 0.5, 0.5), ("kpc/h", "km/s", 1 / 0.5, 1.0),
             ("ckpc/h", "km/s", 0.25 / 0.5, 1.0), ("kpccm / h", "km a^0.5 s^-1", 0.25 / 0.5, 0.5),
             ("comoving kpc", "km s**-1", 0.25, 1.0), ("1000 kpc a/h", "10^5 km/s", 500 / 1000, 1.0)]


@pytest.mark.parametrize(("length", "speed", "x", "v"), COSMOLOGY)
@pytest.mark.parametrize("stated", [False, True])
def test_units_with_scale_factor_and_little_h_are_resolved_or_asked_for(length, speed, x, v, stated, tmp_path):
    """[2, 3]: also through units."""
    units = f"{length}, {speed}" if stated else None
    table(units=[None if stated else length] * 3 + [None if stated else speed] * 3).write(tmp_path / "a.ecsv")
    with pytest.raises(SnapshotError, match=r"column 'x' is in .*, where a is the scale factor and h the Hubble "
                                            r"constant .*; give both, such as hubble=0.7, scale_factor=1"):
        read(tmp_path / "a.ecsv", units=units)
    given = {"hubble": 0.5 if "h" in length else 0, "scale_factor": 0.25 if x != 1 / 0.5 else 1}
    found = read(tmp_path / "a.ecsv", units=units, **given)
    same(found, W * np.repeat([x, v], 3))
    for name, value in given.items():
        if value:
            same(take(table(units=[length] * 3 + [speed] * 3), **given), physical(found))
            assert (f"{'h' if name == 'hubble' else 'a'} = {value}" in found.taken) == (value != 1)


@pytest.mark.parametrize(("units", "given", "sentence"), [
    ("kpc, km/s", {"hubble": 0.7}, "hubble is 0.7, but no unit has h"),
    ("kpc/h, km/s", {"hubble": 0.7, "scale_factor": 0.5}, "scale_factor is 0.5, but no unit has a"),
    ("kpc/h, km/s", {"hubble": -0.7}, "hubble must be zero or a positive finite number; got -0.7"),
    ("kpc/h, km/s", {"hubble": "small"}, "hubble must be zero or a positive number; got 'small'"),
    ("kpc, km/s a**0.5", {"scale_factor": 0.5}, "write a above and h below the bar"),
    ("kpc h^{-1}, km/s", {}, "units has 'kpc h\\^{-1}' for x, which astropy does not know"),
])
def test_what_is_wrong_with_scale_factor_and_little_h_is_said(units, given, sentence):
    with pytest.raises((SnapshotError, ValueError, TypeError), match=sentence):
        take(Table(W, names=NAMES), units=units, **given)


def test_units_may_add_what_the_file_leaves_out_and_do_not_contradict_it():
    made = table(units=["kpc/h"] * 3 + ["km/s"] * 3)
    same(take(made, units="kpc a/h, km/s", hubble=0.5, scale_factor=0.25), W * np.repeat([0.5, 1], 3))
    for wrong in ("kpc, km/s", "kpc a, km/s", "Mpc/h, km/s"):
        with pytest.raises(SnapshotError, match="column 'x' is in kpc / h according to the file and in "):
            take(made, units=wrong, hubble=0.5, scale_factor=0.25)


def test_places_are_in_the_units_of_the_stars():
    found = take(table(units=["kpc a/h"] * 3 + ["km/s"] * 3), centre="origin", hubble=0.5, scale_factor=0.25)
    places = Table({"x": [3.0], "y": [1.0], "z": [2.0]})
    for unit, factor in (("kpc", 1.0), ("kpc a/h", 0.5), (None, 1.0)):
        for name in "xyz":
            places[name].unit = unit
        expected = np.array([[3.0, 1.0, 2.0]]) * factor / found.frame.length.value
        np.testing.assert_allclose(found.points(places), expected)


def test_places_may_come_in_any_file(tmp_path):
    (tmp_path / "places.csv").write_text("# places\nx,y,z\n3,0,0\n1,2,3\n")
    (tmp_path / "plain.txt").write_text("3 0 0\n1 2 3\n")
    found = take(table())
    points = [found.points(read_table(tmp_path / name)) for name in ("places.csv", "plain.txt")]
    np.testing.assert_array_equal(*points)


def test_sky_coordinates_are_not_taken_for_cartesian_ones(tmp_path):
    representation = CartesianRepresentation(X.T * u.pc, differentials=CartesianDifferential(V.T * u.km / u.s))
    QTable({"star": SkyCoord(Galactocentric(representation))}).write(tmp_path / "a.ecsv")
    with pytest.raises(SnapshotError, match="Cartesian coordinates first, with astropy's SkyCoord"):
        read(tmp_path / "a.ecsv")


def test_home_is_expanded(tmp_path, monkeypatch):
    """[19]."""
    monkeypatch.setenv("HOME", str(tmp_path))
    table().write(tmp_path / "a.fits")
    same(read("~/a.fits"))
    assert len(read_table("~/a.fits")) == N
    assert da.snapshot.claim("~/out", {}) == tmp_path / "out"
