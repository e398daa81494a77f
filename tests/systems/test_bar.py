"""The bar: its force is that of its potential, orbits keep the Jacobi integral, stars are steady in its frame."""

import numpy as np
import pytest
import torch
from galpy.potential import SoftenedNeedleBarPotential, evaluatePotentials
from scipy import stats

from dfaccel.systems.bar import Bar, BarredDisc
from dfaccel.systems.orbits import integrate

GALAXY = BarredDisc()


@pytest.fixture(scope="module")
def stars():
    return BarredDisc(time=40.0).sample(20_000, rng=1)


def jacobi(w):
    spin = w[:, 0] * w[:, 4] - w[:, 1] * w[:, 3]
    return (w[:, 3:] ** 2).sum(1) / 2 + GALAXY.potential(w[:, :3]) - GALAXY.pattern_speed * spin


def test_force_is_the_gradient_of_the_potential_and_galpy_agrees():
    bar, x = Bar(), np.random.default_rng(0).normal(size=(30, 3))
    numerical = -np.stack([(bar.potential(x + h) - bar.potential(x - h)) / 2e-5 for h in 1e-5 * np.eye(3)], axis=1)
    np.testing.assert_allclose(bar.acceleration(x), numerical, atol=1e-9)
    np.testing.assert_allclose(bar.acceleration(torch.from_numpy(x)).numpy(), bar.acceleration(x), rtol=1e-13)
    theirs = SoftenedNeedleBarPotential(amp=bar.mass, a=bar.a, b=bar.b, c=bar.c, normalize=False, omegab=0.0, pa=0.0)
    R, phi = np.hypot(x[:, 0], x[:, 1]), np.arctan2(x[:, 1], x[:, 0])
    values = [evaluatePotentials(theirs, R[i], x[i, 2], phi=phi[i], t=0.0, use_physical=False) for i in range(30)]
    np.testing.assert_allclose(values, bar.potential(x), rtol=1e-9)


def test_orbits_keep_the_jacobi_integral(stars):
    some = stars[:300]
    end = integrate(some, GALAXY, 20.0)
    assert np.abs(jacobi(end) - jacobi(some)).max() < 2e-3
    assert np.quantile(np.abs(jacobi(end) - jacobi(some)), 0.9) < 1e-4
    energy = [(w[:, 3:] ** 2).sum(1) / 2 + GALAXY.potential(w[:, :3]) for w in (some, end)]
    assert np.quantile(np.abs(energy[1] - energy[0]), 0.9) > 0.01  # negative control: energy alone is not kept


def test_a_turning_frame_is_the_frame_at_rest_turned():
    """Without any force a star goes straight on, and the axes turn under it."""
    class Nothing:
        pattern_speed = 0.7

        def acceleration(self, x):
            return 0 * x

        def rate(self, w):
            return torch.ones_like(w[:, 0])

    w = np.random.default_rng(2).normal(size=(5, 6))
    x, v, angle = w[:, :3] + 3 * w[:, 3:], w[:, 3:], -0.7 * 3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    np.testing.assert_allclose(integrate(w, Nothing(), 3.0), np.hstack([x @ turn.T, v @ turn.T]), atol=1e-12)


def test_stars_are_steady_in_the_frame_of_the_bar(stars):
    """Kolmogorov-Smirnov against twice the time at 5 sigma (p > 5.7e-7); stars that have hardly moved are not."""
    later = BarredDisc(time=80.0).sample(20_000, rng=2)

    def features(w):
        R, phi = np.hypot(w[:, 0], w[:, 1]), np.arctan2(w[:, 1], w[:, 0])
        return R, np.abs(w[:, 2]), np.cos(2 * phi)[R < 1], (w[:, 0] * w[:, 4] - w[:, 1] * w[:, 3])

    assert min(stats.ks_2samp(a, b).pvalue for a, b in zip(features(stars), features(later), strict=True)) > 5.7e-7
    begin = BarredDisc(time=0.5).sample(20_000, rng=3)  # negative control: stars that have hardly moved
    assert min(stats.ks_2samp(a, b).pvalue for a, b in zip(features(begin), features(later), strict=True)) < 5.7e-7
    angle = np.arctan2(later[:, 1], later[:, 0])[np.hypot(later[:, 0], later[:, 1]) < 1]
    assert np.cos(2 * angle).mean() > 0.1  # the bar's own stars are elongated with it


def test_default_pattern_speed_is_that_of_corotation():
    assert GALAXY.pattern_speed == pytest.approx(float(GALAXY.circular_speed(1.2)) / 1.2)
    assert BarredDisc(pattern_speed=0.3).pattern_speed == 0.3
    with pytest.raises(ValueError, match="pattern_speed must be a finite number; got nan"):
        BarredDisc(pattern_speed=float("nan"))
    with pytest.raises(ValueError, match="time must be"):
        BarredDisc(time=0.0)
    with pytest.raises(ValueError, match="mass must be"):
        Bar(mass=-1.0)
