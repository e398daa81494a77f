"""The frame in which quantities become plain numbers."""

import json

import numpy as np
import pytest
from astropy import units as u

from dfaccel.units import Frame, unit_of, without_cosmology


def test_a_frame_takes_the_units_away_and_gives_them_back():
    frame = Frame(2 * u.kpc, 100 * u.km / u.s, [8, 0, 0] * u.kpc, [0, 200, 0] * u.km / u.s)
    np.testing.assert_allclose(frame.positions([[10_000, 0, 0]] * u.pc), [[1, 0, 0]])
    np.testing.assert_allclose(frame.places([[1, 0, 0]]).to_value("kpc"), [[10, 0, 0]])
    np.testing.assert_allclose(frame.accelerations([[-1.0, 0, 0]]).to_value("km2 s-2 kpc-1"), [[-5000, 0, 0]])
    plain = json.loads(json.dumps(frame.to_dict()))
    assert plain["length"] == {"value": 2.0, "unit": "kpc"}
    assert plain["motion"] == {"value": [0.0, 200.0, 0.0], "unit": "km / s"}


def test_plain_numbers_of_a_frame_are_no_quantities():
    frame = Frame(2 * u.kpc, 100 * u.km / u.s, [8, 0, 0] * u.kpc, [0, 200, 0] * u.km / u.s)
    for use in (frame.places, frame.accelerations):
        with pytest.raises(TypeError, match="must be an array of plain numbers; got a Quantity in kpc"):
            use([[1.0, 0, 0]] * u.kpc)


@pytest.mark.parametrize(("text", "plain", "of_a", "of_h"), [
    ("kpc", "kpc", 0, 0), ("kpc a h**-1", "kpc", 1, -1), ("km a**1/2 s**-1", "km/s", 0.5, 0), ("ckpc/h", "kpc", 1, -1),
    ("Mpccm/h", "Mpc", 1, -1), ("comoving kpc", "kpc", 1, 0), ("h^-1 kpc", "kpc", 0, -1), ("kpc/Gyr", "kpc/Gyr", 0, 0),
    ("10 km sqrt(a)/s", "10 km/s", 0.5, 0), ("AU/yr", "AU/yr", 0, 0), ("", "", 0, 0),
])
def test_scale_factor_and_little_h_of_a_unit(text, plain, of_a, of_h):
    assert without_cosmology(unit_of(text)) == (u.Unit(plain), of_a, of_h)
