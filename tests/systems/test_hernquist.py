"""Accuracy of the isotropic Hernquist sphere, whose formulas cancel where they are written as in the paper."""

import mpmath
import numpy as np
import pytest

from dfaccel import Hernquist
from dfaccel.systems.hernquist import _shape


def exact_log_df(r, v):
    """Hernquist's equation 17, as printed, with 60 digits."""
    with mpmath.workdps(60):
        r, v = mpmath.mpf(float(r)), mpmath.mpf(float(v))
        b = 1 / (1 + r) - v * v / 2
        bracket = (1 - 2 * b) * (8 * b * b - 8 * b - 3) + 3 * mpmath.asin(mpmath.sqrt(b)) / mpmath.sqrt(b * (1 - b))
        return mpmath.log(mpmath.sqrt(b) / (1 - b) ** 2 * bracket / (mpmath.sqrt(2) * (2 * mpmath.pi) ** 3))


@pytest.mark.parametrize("kinetic", [0.0, 0.3, 0.9])
def test_isotropic_df_is_accurate_at_all_energies(kinetic):
    small, large, join = np.geomspace(1e-8, 0.3, 100), np.geomspace(1e-8, 0.7, 100), np.linspace(0.14, 0.16, 50)
    b, c = np.concatenate([small, 1 - large, join]), np.concatenate([1 - small, large, 1 - join])
    w = np.zeros((len(b), 6))
    w[:, 1] = (1 - kinetic) * c / (b + kinetic * c)
    w[:, 5] = np.sqrt(2 * kinetic * c)
    exact = [exact_log_df(r, v) for r, v in zip(w[:, 1], w[:, 5], strict=True)]
    error = np.array([float(abs(got / want - 1)) for got, want in zip(Hernquist().log_df(w), exact, strict=True)])
    # with v > 0, B itself is a difference of rounded numbers: an error of 1e-16 / B is in the input
    assert error.max() < (1e-12 if kinetic == 0 else 1e-8)
    assert error[b > 1e-3].max() < 1e-12


def test_the_rejection_envelope_of_the_isotropic_speeds_bounds_the_df():
    """K(B) falls from 25.6 to 3 pi / 2 everywhere, also where the series hands over to the closed form."""
    b = np.concatenate([np.geomspace(1e-9, 0.1, 500, endpoint=False), np.linspace(0.1, 1, 5000)])
    k = _shape(b, 1 - b)
    assert (np.diff(k) < 0).all()
    np.testing.assert_allclose(k[[0, -1]], [25.6, 1.5 * np.pi], rtol=1e-8)


def test_isotropic_dispersion_is_accurate():
    r = np.geomspace(1e-6, 1e8, 40)
    with mpmath.workdps(60):
        t = [1 / (1 + mpmath.mpf(s)) for s in r]
        exact = [float(mpmath.sqrt((1 / s - 1) * s**2 / 5 * mpmath.hyp2f1(1, 5, 6, s))) for s in t]
    np.testing.assert_allclose(Hernquist().velocity_dispersion(r), exact, rtol=1e-13)
    assert Hernquist().velocity_dispersion(0.0) == 0
