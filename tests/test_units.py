"""Natural and physical units, and the frame in which quantities become plain numbers."""

import json

import numpy as np
import pytest
from astropy import units as u
from scipy import constants

from dfaccel import Hernquist
from dfaccel.units import GRAVITY, Frame, Units


def test_gravitational_constant():
    assert pytest.approx(4.30091e-6, rel=2e-6) == GRAVITY
    # Newton's constant times the solar mass: known to four digits only
    assert pytest.approx(constants.G * 1.98841e30 / (1000 * constants.parsec) / 1e6, rel=1e-4) == GRAVITY


def test_units_agree_with_a_system_in_physical_units():
    units = Units(mass_msun=1e12, length_kpc=30.0)
    natural, physical = Hernquist(), Hernquist(mass=1e12, scale=30.0, G=GRAVITY)
    w = natural.sample(100, rng=1)
    there = w * np.repeat([units.length_kpc, units.velocity_kms], 3)
    np.testing.assert_allclose(there, physical.sample(100, rng=1), rtol=1e-13)
    expected = physical.acceleration(there[:, :3])
    np.testing.assert_allclose(units.acceleration * natural.acceleration(w[:, :3]), expected, rtol=1e-12)
    assert units.acceleration == pytest.approx(GRAVITY * 1e12 / 30.0**2)
    assert units.time_gyr == pytest.approx(30.0 / units.velocity_kms * 0.9777922, rel=1e-6)


def test_a_frame_takes_the_units_away_and_gives_them_back():
    frame = Frame(2 * u.kpc, 100 * u.km / u.s, [8, 0, 0] * u.kpc, [0, 200, 0] * u.km / u.s)
    np.testing.assert_allclose(frame.positions([[10_000, 0, 0]] * u.pc), [[1, 0, 0]])
    np.testing.assert_allclose(frame.places([[1, 0, 0]]).to_value("kpc"), [[10, 0, 0]])
    np.testing.assert_allclose(frame.accelerations([[-1.0, 0, 0]]).to_value("km2 s-2 kpc-1"), [[-5000, 0, 0]])
    plain = json.loads(json.dumps(frame.to_dict()))
    assert plain["length"] == {"value": 2.0, "unit": "kpc"}
    assert plain["motion"] == {"value": [0.0, 200.0, 0.0], "unit": "km / s"}


@pytest.mark.parametrize(("values", "error", "message"), [
    ((0, 1.0), ValueError, "mass_msun must be a positive finite number; got 0"),
    ((1.0, -1), ValueError, "length_kpc must be a positive finite number; got -1"),
    (("heavy", 1.0), TypeError, "mass_msun must be a positive number; got 'heavy'"),
])
def test_bad_input(values, error, message):
    with pytest.raises(error, match=message):
        Units(*values)
