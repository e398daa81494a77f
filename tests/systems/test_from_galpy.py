"""The two systems from galpy: the stars are those of its distribution function, and the table is the same stars."""

import numpy as np
import pytest
from astropy import units as u
from scipy import stats

import dfaccel as da
from dfaccel.systems.from_galpy import SolarNeighbourhood, Unseen

N_STARS = 20_000
unseen = pytest.mark.parametrize("system", [Unseen("king"), Unseen("nfw")], ids=repr)


@unseen
@pytest.mark.usefixtures("global_random_state")
def test_stars_follow_the_distribution_function_of_galpy(system):
    """Of energies at one radius, and of radii: the number of stars is 4 pi r^2 times the integral of 4 pi v^2 f."""
    w = system.sample(N_STARS, rng=3)
    _, df, r_edge = system._galpy
    r = r_edge * np.geomspace(1e-4, 1 - 1e-6, 400)
    edge = float(system.potential(np.array([r_edge]))[0])
    q, weight = np.polynomial.legendre.leggauss(200)
    q, weight = (q + 1) / 2, weight / 2
    depth = edge - system.potential(r)
    energy = edge - depth[:, None] * (1 - q**2)
    density = (df.fE(energy.ravel()).reshape(energy.shape) * q**2 * weight).sum(1) * depth**1.5
    total = np.concatenate([[0], np.cumsum(np.diff(np.log(r)) * (density * r**3)[1:])])
    parts = da.spherical(w)
    assert stats.kstest(parts.r, lambda s: np.interp(s, r, total / total[-1])).statistic < 0.02
    # isotropic, and nobody leaves
    assert abs((2 * parts.v_r**2).mean() / (parts.v_t**2).mean() - 1) < 5 * np.sqrt(6 / N_STARS)
    assert ((w[:, 3:] ** 2).sum(1) / 2 + system.potential(parts.r) <= edge).all()
    np.testing.assert_array_equal(w, system.sample(N_STARS, rng=np.random.default_rng(3)))


@unseen
def test_acceleration_is_the_slope_of_the_potential(system):
    x = 0.3 * da.directions(20, 1)
    slope = (system.potential([0.3 + 1e-4]) - system.potential([0.3 - 1e-4])) / 2e-4
    np.testing.assert_allclose(system.acceleration(x), -slope * x / 0.3, rtol=1e-5)


@unseen
def test_the_table_has_the_same_stars_with_units_elsewhere(system):
    table, w, frame = system.table(50, rng=1), system.sample(50, rng=1), system.frame
    mass_msun, length_kpc = {"king": (2e5, 0.06), "nfw": (1e12, 20.0)}[system.name]
    gm = 4.300917e-6 * mass_msun  # kpc (km/s)^2
    x = np.stack([table[name] for name in "xyz"], axis=1)
    v = np.stack([table[name].to_value("km/s") for name in ("vx", "vy", "vz")], axis=1)
    np.testing.assert_allclose((x - frame.centre).to_value("kpc"), w[:, :3] * length_kpc, atol=1e-9)
    moved = np.diff(w[:, 3:] * np.sqrt(gm / length_kpc), axis=0)
    np.testing.assert_allclose(np.diff(v, axis=0), moved, rtol=1e-6)
    there = system.acceleration_at(x).to_value(u.km**2 / u.s**2 / u.kpc)
    np.testing.assert_allclose(there, system.acceleration(w[:, :3]) * gm / length_kpc**2, rtol=2e-6)


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="name must be 'king' or 'nfw'; got 'hernquist'"):
        Unseen("hernquist")


def test_the_disc_around_the_sun_is_in_equilibrium_and_its_stars_are_those_of_f():
    disc = SolarNeighbourhood()
    w = disc.sample(5000, rng=1)
    away = np.linalg.norm(w[:, :3] - disc.sun, axis=1)
    assert away.max() < 1 / 8.2
    points = w[:20, :3]
    nearest = np.argsort(np.linalg.norm(points[:, None] - w[None, :, :3], axis=-1), axis=1)[:, :200]
    found = da.accelerations(disc, points, velocities=w[nearest, 3:])
    error = np.abs(found.value - disc.acceleration(points)) / np.abs(disc.acceleration(points)).mean(0)[[0, 0, 2]]
    assert np.median(error) < 1e-3  # what the actions of galpy are good for
    # the mean of (f of another model) / f over stars of f is the same wherever the ball is cut: weights by f alone
    inner, outer = w[away < 0.06], w[away > 0.06]
    assert len(inner) > 500
    assert np.abs(inner[:, 5].mean()) < 5 * inner[:, 5].std() / np.sqrt(len(inner))
    assert outer[:, 4].mean() == pytest.approx(0.93, abs=0.03)
    np.testing.assert_array_equal(w, disc.sample(5000, rng=np.random.default_rng(1)))
