"""Measured coordinates: against astropy's own frames, and their volume element against differences."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from dfaccel.snapshot.sky import from_sky, log_volume, to_sky
from dfaccel.stars.noise import _Draw

W = np.random.default_rng(0).normal(size=(50, 6)) * [3, 3, 3, 100, 100, 100]
MOTION = (11.1, 248.0, 7.3)


@pytest.mark.parametrize("distance", ["parallax", "distance"])
@pytest.mark.parametrize("frame", ["icrs", "galactic", "fk5"])
def test_there_and_back(frame, distance):
    rules = {"frame": frame, "distance": distance, "motion": MOTION}
    np.testing.assert_allclose(from_sky(to_sky(W, **rules), **rules), W, atol=1e-8)


def test_against_astropy():
    seen = to_sky(W, motion=MOTION)
    star = SkyCoord(seen[0, 0] * u.deg, seen[0, 1] * u.deg, distance=1 / seen[0, 2] * u.kpc,
                    pm_ra_cosdec=seen[0, 3] * u.mas / u.yr, pm_dec=seen[0, 4] * u.mas / u.yr,
                    radial_velocity=seen[0, 5] * u.km / u.s)
    np.testing.assert_allclose(star.galactic.cartesian.xyz.to_value("kpc"), W[0, :3], rtol=1e-9)
    np.testing.assert_allclose(star.galactic.velocity.d_xyz.to_value("km/s") + MOTION, W[0, 3:], rtol=1e-9)
    assert np.abs(to_sky(W)[:, 3:] - seen[:, 3:]).max() > 1  # negative control: the Sun moves


@pytest.mark.parametrize("distance", ["parallax", "distance"])
def test_volume(distance):
    seen = to_sky(W, distance=distance)
    numerical = _Draw(seen, np.ones(6), lambda m: from_sky(m, distance=distance), None).log_volume(seen)
    difference = numerical - log_volume(seen, distance=distance)
    assert np.ptp(difference) < 1e-5
    assert np.ptp(numerical) > 1  # negative control


def test_what_cannot_be_is_nan_and_what_is_wrong_is_said():
    seen = to_sky(W[:3])
    seen[1, 2] = -0.1
    seen[2, 5] = np.nan
    np.testing.assert_array_equal(np.isnan(from_sky(seen)).all(1), [False, True, True])
    with pytest.raises(ValueError, match=r"measured must have shape \(n, 6\); got \(3, 5\)"):
        from_sky(seen[:, :5])
    with pytest.raises(ValueError, match="distance must be 'parallax' or 'distance'; got 'modulus'"):
        from_sky(seen, distance="modulus")
