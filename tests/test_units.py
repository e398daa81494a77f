"""The frame in which quantities become plain numbers."""

import json

import numpy as np
from astropy import units as u

from dfaccel.units import Frame


def test_a_frame_takes_the_units_away_and_gives_them_back():
    frame = Frame(2 * u.kpc, 100 * u.km / u.s, [8, 0, 0] * u.kpc, [0, 200, 0] * u.km / u.s)
    np.testing.assert_allclose(frame.positions([[10_000, 0, 0]] * u.pc), [[1, 0, 0]])
    np.testing.assert_allclose(frame.places([[1, 0, 0]]).to_value("kpc"), [[10, 0, 0]])
    np.testing.assert_allclose(frame.accelerations([[-1.0, 0, 0]]).to_value("km2 s-2 kpc-1"), [[-5000, 0, 0]])
    plain = json.loads(json.dumps(frame.to_dict()))
    assert plain["length"] == {"value": 2.0, "unit": "kpc"}
    assert plain["motion"] == {"value": [0.0, 200.0, 0.0], "unit": "km / s"}
