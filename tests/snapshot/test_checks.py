"""The checks of the stars: nothing is raised where nothing is wrong, and damage is noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table
from scipy import stats

import dfaccel as da
from dfaccel._check import COLUMNS
from dfaccel.coordinates import COORDINATES, Axisymmetric, Spherical
from dfaccel.gravity.accelerations import Accelerations
from dfaccel.snapshot import SnapshotError, inspect, inspect_fit, require_counts, take, tensors
from dfaccel.snapshot.checks import AMONG, CLOSER, _copies, shells
from dfaccel.systems.from_galpy import Unseen


def plain(w, **options):
    """A snapshot of stars without units."""
    return take(Table(w, names=COLUMNS), units="1", **options)


ROUND = plain(da.Plummer().sample(40_000, rng=11))
W = ROUND.w
R, SPEED = np.linalg.norm(W[:, :3], axis=1), np.linalg.norm(W[:, 3:], axis=1)
SPIN = np.where(np.cross(W[:, :3], W[:, 3:])[:, 2] < 0, -1, 1)[:, None]
AZIMUTH = np.arctan2(W[:, 1], W[:, 0])
CLUMP = np.vstack([W, W[::5] + np.array([3, 0, 0, 1, 0, 0])])
INFLOW, GROWTH = (np.hstack([W[:, :3], W[:, 3:] + rate * W[:, :3]]) for rate in (-0.1, 0.3))
FLAT = W * [1, 1, 0.6, 1, 1, 0.6]
TURN = np.array([[np.sqrt(3) / 2, 0, -0.5], [0, 1, 0], [0.5, 0, np.sqrt(3) / 2]])  # by 30 degrees about y
DAMAGE = {
    "centre": (CLUMP, "spherical", "refuse"), "bulk motion": (CLUMP, "radial", "flag"),
    "rotation": (np.hstack([W[:, :3], SPIN * W[:, 3:]]), "spherical", "refuse"),
    "inflow, outflow": (INFLOW, "radial", "refuse"),
    "second moments": (GROWTH, "spherical", "refuse"), "in as out": (INFLOW, "radial", "flag"),
    "outer edge": (W[R < 1.5], "spherical", "flag"), "hole": (W[R > 0.6], "spherical", "flag"),
    "box": (W[W[:, 1] < 0.7], "radial", "flag"), "speed limit": (W[SPEED < 1.5], "spherical", "flag"),
    "footprint": (W[np.abs(AZIMUTH) > 0.3], "axisymmetric", "flag"),
    "shape": (FLAT, "spherical", "refuse"), "velocity shape": (W * [1, 1, 1, 1, 1, 0.8], "spherical", "flag"),
    "shape, tilt": (W @ np.kron(np.eye(2), TURN.T @ np.diag([1, 1, 0.6]) @ TURN), "axisymmetric", "flag"),
    "copies": (np.vstack([W, W[::50] + 1e-3]), "spherical", "flag"),
    "stars per octave": (W[:2000], "radial", "flag"), "number of stars": (W[:2000], "radial", "flag"),
}


@pytest.mark.parametrize("coordinates", ["spherical", "axisymmetric", "radial"])
def test_nothing_is_raised_where_nothing_is_wrong(coordinates):
    """Negative control of all checks; 5 standard errors: a false alarm once in 10,000 such tests."""
    assert inspect(ROUND, coordinates).raised == []


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_noticed(name):
    w, coordinates, verdict = DAMAGE[name]
    found = {check.name: check for check in inspect(replace(ROUND, w=w), coordinates).checks}
    assert found[name].verdict == verdict, found[name]
    assert found[name].sentence.endswith(".")


LEFT, SWAP = [-1, 1, 1, 1, 1, 1], [0, 1, 2, 4, 3, 5]


@pytest.fixture(scope="module")
def disc():
    """A disc that rotates, in equilibrium, as ``d00`` of the collection of bad files."""
    field = da.MiyamotoNagai(a=4.0, b=0.5)
    return da.Disc(field, scale=3.0, r_max=15.0, height=0.4, dispersion=0.15, time=2000.0).sample(3000, rng=3)


@pytest.mark.parametrize("coordinates", ["axisymmetric", "radial"])
def test_a_rotating_disc_of_the_wrong_handedness_is_refused_and_its_cure_named(disc, coordinates):
    """Positions alone, or velocities alone, mirrored; a frame that is left-handed throughout is harmless."""
    def found(w):
        return {check.name: check for check in inspect(plain(w), coordinates).checks}

    noticed = {"second moments", "alignment"} if coordinates == "axisymmetric" else {"second moments"}
    for w, cure in ((disc * LEFT, "vx, -vy"), (disc * np.roll(LEFT, 3), "vx, -vy"), (disc[:, SWAP], "vy, vx")):
        checks = found(w)
        assert {name for name, check in checks.items() if check.verdict == "refuse"} == noticed
        assert f"columns are swapped, since with {cure}, vz for" in checks["second moments"].sentence
    for w in (disc, disc * [1, -1, 1, 1, -1, 1]):
        assert {name for name, check in found(w).items() if check.verdict != "ok"} <= {"number of stars",
                                                                                      "stars per octave"}


def test_a_mirrored_sphere_is_noticed_if_it_is_anisotropic_and_the_same_if_it_is_not():
    w = da.Hernquist(beta=0.5, r_max=100.0).sample(10_000, rng=1)
    for other, cure in ((w * LEFT, "-vx, vy"), (w[:, SWAP], "vy, vx"), (w[:, [0, 1, 2, 4, 5, 3]], "vz, vx")):
        inspection = inspect(plain(other), "spherical")
        assert [check.name for check in inspection.checks if check.verdict == "refuse"] == ["alignment"]
        assert cure in str(inspection)
    assert inspect(replace(ROUND, w=W * LEFT), "spherical").raised == []


def test_the_tensors_are_distributed_as_t_squared_and_their_limits_are_five_sigma():
    """Kolmogorov and Smirnov's test of 100 Plummer spheres of 1,000 stars; of alignment the larger of two halves."""
    chi2 = {"growth": [], "misalignment": []}
    for w in da.Plummer().sample(100_000, rng=5).reshape(100, 1000, 6):
        for name, kind in (("growth", (Spherical,)[:0]), ("misalignment", (Spherical,))):
            _, value, limit = getattr(tensors, name)(w, *kind)
            chi2[name].append(value)
    for name, d, n, halves in (("growth", 6, 1000, 1), ("misalignment", 24, 500, 2)):
        share = stats.f(d, n - d, scale=d * (n - 1) / (n - d))
        assert stats.kstest(chi2[name], lambda x, share=share, halves=halves: share.cdf(x) ** halves).pvalue > 1e-6
    assert share.sf(limit) == pytest.approx(2 * stats.norm.sf(5), rel=1e-6)


def test_near_neighbours_are_as_many_as_theory_says_and_copies_many_more():
    """P(d_1 / d_2 < q) = q^3 in three dimensions, of pairs: twice the variance; in six none are expected."""
    rng = np.random.default_rng(8)
    expected = 5 * AMONG * CLOSER**3
    by_chance = sum(_copies(rng.normal(size=(AMONG, 3))) for _ in range(5))
    assert abs(by_chance - expected) < 5 * np.sqrt(2 * expected)
    assert _copies(W) == 0
    for noise, least, most in ((1e-4, 790, 800), (1e-2, 100, 800), (0.3, 0, 20)):
        assert least <= _copies(np.vstack([W[:10_000], W[:400] + noise * rng.normal(size=(400, 6))])) <= most
    turned = replace(ROUND, w=np.vstack([W, W[::50] * [-1, -1, 1, -1, -1, 1]]))
    assert inspect(turned, "axisymmetric").raised == ["copies"]


def test_a_refusal_can_be_overridden_and_is_told_in_one_line():
    inspection = inspect(replace(ROUND, w=GROWTH), "spherical")
    inspection.require("false")
    for insist in (True, "True"):
        with pytest.raises(SnapshotError, match="these stars are refused: Stars stream"):
            inspection.require(insist)
    with pytest.raises(SnapshotError, match="refuse must be true or false; got 'no'"):
        inspection.require("no")
    assert inspection.line.startswith("Refused: do not trust a result. Raised, ")
    assert inspect(ROUND, "spherical").line == "No check is raised."
    flagged = inspect(replace(ROUND, n_missing=1), "spherical")
    assert flagged.line == "Raised, for your judgement: 1 of 24 checks (missing values)."


def test_an_axisymmetric_system_may_be_flat_and_rotate_but_not_have_a_bar():
    rotating = np.hstack([FLAT[:, :3], SPIN * FLAT[:, 3:]])
    assert inspect(replace(ROUND, w=rotating), "axisymmetric").raised == []
    assert "rotation" in inspect(replace(ROUND, w=rotating[:, [2, 0, 1, 5, 3, 4]]), "axisymmetric").raised
    with pytest.raises(SnapshotError, match=r"refused: .*bar"):
        inspect(replace(ROUND, w=W * [0.6, 1, 1, 0.6, 1, 1]), "axisymmetric").require()


def test_the_limit_of_the_inflow_is_five_standard_errors():
    """H = v_r / r in the outermost tenth: a third of 5 sigma_r / (r sqrt(n / 10)) passes, three times it does not."""
    outermost = shells(R, 10)[-1]
    v_r = (W[outermost, :3] * W[outermost, 3:]).sum(axis=1) / R[outermost]
    limit = 5 * v_r.std() / np.sqrt(len(outermost)) / R[outermost].mean()
    for share, raised in ((0.3, False), (3.0, True)):
        w = np.hstack([W[:, :3], W[:, 3:] - share * limit * W[:, :3]])
        assert ("inflow, outflow" in inspect(replace(ROUND, w=w), "radial").raised) is raised


def test_rows_left_out_are_flagged_and_too_many_refused():
    for n, verdict in ((0, "ok"), (3, "flag"), (1000, "refuse")):
        found = inspect(replace(ROUND, n_missing=n), "radial")
        assert {check.name: check.verdict for check in found.checks}["missing values"] == verdict


def test_the_fit_is_held_against_the_stars():
    """The exact acceleration passes; half of it fails the virial theorem, and its negative attracts nothing."""
    some = np.random.default_rng(0).choice(len(W), 500, replace=False)
    x, one = W[some, :3], np.ones(500)
    length, velocity = ROUND.frame.length.value, ROUND.frame.velocity.value
    exact = da.Plummer().acceleration(x * length) * length / velocity**2

    def raised(value, residual=0.0):
        given = Accelerations(x, value, value[None], np.zeros((500, 3, 3)), one, residual * one, 1e4 * one)
        return [check.name for check in inspect_fit(ROUND, given, given, some) if check.verdict != "ok"]

    assert raised(exact) == []
    assert raised(0.5 * exact) == ["virial theorem"]
    assert "attraction" in raised(-exact)
    assert raised(exact, 0.5) == ["residual"]


@pytest.mark.parametrize("name", ["king", "nfw"])
def test_the_unseen_systems_are_at_rest_in_the_gravity_they_claim(name):
    """Virial theorem, <v^2> = -<x.a>, within 5 standard errors at 20,000 stars."""
    system = Unseen(name)
    w = system.sample(20_000, rng=1)
    balance = (w[:, 3:] ** 2).sum(axis=1) + (w[:, :3] * system.acceleration(w[:, :3])).sum(axis=1)
    assert abs(balance.mean()) < 5 * balance.std() / np.sqrt(len(w))
    assert inspect(take(system.table(20_000, rng=2)), "spherical").raised in ([], ["stars per octave"])
    place = system.frame.centre[None] + [[1, 0, 0]] * system.frame.length
    there = (system.acceleration_at(place) / system.frame.acceleration).to_value("")
    np.testing.assert_allclose(there, system.acceleration(np.array([[1.0, 0, 0]])), rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="must be 'king' or 'nfw'"):
        Unseen("hernquist")


def test_placeholders_copies_and_rounding_are_noticed():
    w = da.Plummer().sample(20_000, rng=1)
    i, v_z = np.arange(len(w)), w[:, 5]
    with pytest.raises(SnapshotError, match="stand for 'unknown'"):
        plain(np.column_stack([w[:, :5], np.where(i < 20, -9999.0, v_z)]))
    for name, column in (("fastest star", np.where(i < 20, -20.0, v_z)), ("rounding", np.round(v_z, 1)),
                         ("one value", np.where(i % 5, v_z, 0.0)), ("independence", w[:, 4] + 1e-9 * v_z)):
        assert name in inspect(plain(np.column_stack([w[:, :5], column]))).raised
    found = inspect(plain(np.vstack([w, np.zeros((1, 6))]), centre="origin"), "spherical")
    assert (found.verdict, found.raised) == ("refuse", ["coordinates"])


def test_settings_are_checked_before_long_work():
    with pytest.raises(SnapshotError, match="coordinates must be one of"):
        inspect(ROUND, "cubic")
    require_counts(n_flows=(4, 2, 100))
    for value in (1, 101, 2.0, True, "4"):
        with pytest.raises(SnapshotError, match="n_flows must be a whole number from 2 to 100"):
            require_counts(n_flows=(value, 2, 100))


def test_a_new_symmetry_is_asked_what_it_assumes_not_how_it_is_called(monkeypatch):
    for kind in (Spherical, Axisymmetric):
        monkeypatch.setitem(COORDINATES, "new", type("New", (kind,), {"name": "new"}))
        assert inspect(replace(ROUND, w=FLAT), "new") == inspect(replace(ROUND, w=FLAT), kind.name)
