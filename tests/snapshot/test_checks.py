"""The checks of the stars: nothing is raised where nothing is wrong, and damage is noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy import units as u
from astropy.table import Table

import dfaccel as da
from dfaccel.coordinates import COORDINATES, Axisymmetric, Spherical
from dfaccel.gravity.accelerations import Accelerations
from dfaccel.snapshot import SnapshotError, inspect, inspect_fit, require_counts, take
from dfaccel.snapshot.checks import shells
from dfaccel.systems.from_galpy import Unseen


def plain(w, **options):
    """A snapshot of stars without units."""
    return take(Table(w, names=("x", "y", "z", "vx", "vy", "vz")), units="1", **options)


ROUND = plain(da.Plummer().sample(40_000, rng=11))
W = ROUND.w
R, SPEED = np.linalg.norm(W[:, :3], axis=1), np.linalg.norm(W[:, 3:], axis=1)
SPIN = np.where(np.cross(W[:, :3], W[:, 3:])[:, 2] < 0, -1, 1)[:, None]
AZIMUTH = np.arctan2(W[:, 1], W[:, 0])
CLUMP = np.vstack([W, W[::5] + np.array([3, 0, 0, 1, 0, 0])])
TURN = np.array([[np.sqrt(3) / 2, 0, -0.5], [0, 1, 0], [0.5, 0, np.sqrt(3) / 2]])  # by 30 degrees about y
DAMAGE = {
    "centre": (CLUMP, "spherical", "refuse"),
    "bulk motion": (CLUMP, "radial", "flag"),
    "rotation": (np.hstack([W[:, :3], SPIN * W[:, 3:]]), "spherical", "refuse"),
    "inflow, outflow": (np.hstack([W[:, :3], W[:, 3:] - 0.1 * W[:, :3]]), "radial", "refuse"),
    "growth": (np.hstack([W[:, :3], W[:, 3:] + 0.3 * W[:, :3]]), "spherical", "refuse"),
    "in as out": (np.hstack([W[:, :3], W[:, 3:] - 0.1 * W[:, :3]]), "radial", "flag"),
    "outer edge": (W[R < 1.5], "spherical", "flag"),
    "hole": (W[R > 0.6], "spherical", "flag"),
    "box": (W[W[:, 1] < 0.7], "radial", "flag"),
    "speed limit": (W[SPEED < 1.5], "spherical", "flag"),
    "footprint": (W[np.abs(AZIMUTH) > 0.3], "axisymmetric", "flag"),
    "shape": (W * [1, 1, 0.6, 1, 1, 0.6], "spherical", "refuse"),
    "velocity shape": (W * [1, 1, 1, 1, 1, 0.8], "spherical", "flag"),
    "shape, tilt": (W @ np.kron(np.eye(2), TURN.T @ np.diag([1, 1, 0.6]) @ TURN), "axisymmetric", "flag"),
    "stars per octave": (W[:2000], "radial", "flag"),
    "number of stars": (W[:2000], "radial", "flag"),
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


def test_an_axisymmetric_system_may_be_flat_and_rotate_but_not_have_a_bar():
    flat = W * [1, 1, 0.6, 1, 1, 0.6]
    rotating = np.hstack([flat[:, :3], SPIN * flat[:, 3:]])
    assert inspect(replace(ROUND, w=rotating), "axisymmetric").raised == []
    lying = rotating[:, [2, 0, 1, 5, 3, 4]]
    assert "rotation" in inspect(replace(ROUND, w=lying), "axisymmetric").raised
    bar = inspect(replace(ROUND, w=W * [0.6, 1, 1, 0.6, 1, 1]), "axisymmetric")
    assert bar.verdict == "refuse"
    with pytest.raises(SnapshotError, match=r"refused: .*bar"):
        bar.require()


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
        assert next(check for check in found.checks if check.name == "missing values").verdict == verdict
    with pytest.raises(SnapshotError, match="coordinates must be one of"):
        inspect(ROUND, "cubic")


def test_the_fit_is_held_against_the_stars():
    """The exact acceleration passes; half of it fails the virial theorem, and its negative attracts nothing."""
    some = np.random.default_rng(0).choice(len(W), 500, replace=False)
    x, m = W[some, :3], 500
    frame = ROUND.frame
    exact = da.Plummer().acceleration(x * frame.length.value) * frame.length.value / frame.velocity.value**2

    def result(value, residual=0.0):
        covariance, near = np.zeros((m, 3, 3)), np.full(m, 1e4)
        return Accelerations(x, value, value[None], covariance, np.ones(m), np.full(m, residual), near)

    def raised(value, residual=0.0):
        given = result(value, residual)
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
    place = system.centre[None] + [[1, 0, 0]] * u.kpc * system.units.length_kpc
    there = system.acceleration_at(place).to_value("km2 s-2 kpc-1") / system.units.acceleration
    np.testing.assert_allclose(there, system.acceleration(np.array([[1.0, 0, 0]])), rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="must be 'king' or 'nfw'"):
        Unseen("hernquist")


def test_placeholders_copies_and_rounding_are_noticed():
    w = da.Plummer().sample(20_000, rng=1)
    for value, sentence in ((-9999.0, "stand for 'unknown'"), (-20.0, None)):
        odd = w.copy()
        odd[:20, 5] = value
        if sentence:
            with pytest.raises(SnapshotError, match=sentence):
                plain(odd)
        else:
            assert "fastest star" in inspect(plain(odd)).raised
    cases = {
        "one value": np.where(np.arange(len(w)) % 5 == 0, 0.0, w[:, 5]),
        "rounding": np.round(w[:, 5], 1),
        "independence": w[:, 4] + 1e-9 * w[:, 5],
    }
    for name, column in cases.items():
        assert name in inspect(plain(np.column_stack([w[:, :5], column]))).raised
    still = np.vstack([w, np.zeros((1, 6))])
    found = inspect(plain(still, centre="origin"), "spherical")
    assert found.verdict == "refuse"
    assert found.raised == ["coordinates"]


def test_settings_are_checked_before_long_work():
    require_counts(n_flows=(4, 2, 100))
    for value in (1, 101, 2.0, True, "4"):
        with pytest.raises(SnapshotError, match="n_flows must be a whole number from 2 to 100"):
            require_counts(n_flows=(value, 2, 100))


def test_a_new_symmetry_is_asked_what_it_assumes_not_how_it_is_called(monkeypatch):
    flat = replace(ROUND, w=W * [1, 1, 0.6, 1, 1, 0.6])
    for kind in (Spherical, Axisymmetric):
        monkeypatch.setitem(COORDINATES, "new", type("New", (kind,), {"name": "new"}))
        assert inspect(flat, "new") == inspect(flat, kind.name)
