"""Tables of a potential with units: against galpy's own mass, and without units."""

import astropy.units as u
import numpy as np
import pytest
from astropy.constants import G
from astropy.table import Table

import dfaccel as da
from dfaccel.snapshot.profile import potential_tables
from dfaccel.systems.from_galpy import Unseen

SYSTEM = Unseen("king")


def plummer(mass, members=()):
    return da.Potential(np.zeros((1, 3)), np.zeros(1), np.ones(1), np.array([mass]), members, np.zeros((0, 3)))


@pytest.fixture(scope="module")
def stars():
    return da.snapshot.take(SYSTEM.table(3000, rng=0))


def test_a_plummer_sphere_in_physical_units(stars):
    phi = plummer(2.0, tuple(plummer(mass) for mass in (1.9, 2.1)))
    tables = potential_tables(stars, phi, factor=2.0)
    table, atoms = tables["profile"], tables["potential"]
    frame = stars.frame
    r = (table["r"] / frame.length).to_value("")
    unit = (frame.length * frame.velocity**2 / G).to("Msun")
    np.testing.assert_allclose((table["enclosed_mass"] / unit).to_value(""), 2 * r**3 / (1 + r**2) ** 1.5, rtol=1e-9)
    ratio = table["circular_speed"] ** 2 * table["r"] / (G * table["enclosed_mass"])
    np.testing.assert_allclose(ratio.to_value(""), 1, rtol=1e-9)
    density = 2 * unit / frame.length**3 * 3 / (4 * np.pi) * (1 + r**2) ** -2.5
    np.testing.assert_allclose((table["density"] / density).to_value(""), 1, rtol=1e-9)
    # the scatter of 1.9 and 2.1 is 0.1 sqrt(2)
    np.testing.assert_allclose(table["enclosed_mass_error"] / table["enclosed_mass"], 2 * 0.1 * 2**0.5 / 2, rtol=1e-9)
    assert atoms["mass"][0] == 2 * unit
    np.testing.assert_allclose(atoms["x"][0].to_value("pc"), frame.centre[0].to_value("pc"))


def test_without_units():
    table = SYSTEM.table(3000, rng=0)
    found = da.snapshot.take(Table({name: table[name].value for name in table.colnames}), units="1, 1")
    profile = potential_tables(found, plummer(1.0))["profile"]
    assert profile["enclosed_mass"].unit == u.one
    assert np.isnan(profile["density_error"]).all()  # one potential has no scatter
