"""The potential of a run on your own stars, as tables with units: profiles against radius, and its atoms."""

import astropy.units as u
import numpy as np
from astropy.constants import G
from astropy.table import QTable

from dfaccel.gravity.potential import Potential
from dfaccel.snapshot.read import Snapshot

_N_RADII = 30


def _mass_unit(snapshot: Snapshot) -> u.Quantity:
    """Return the mass that is one in the frame: length velocity^2 / G, or without G if the file has no units."""
    frame = snapshot.frame
    mass = frame.length * frame.velocity**2
    return mass if mass.unit == u.one else (mass / G).to(u.Msun)


def profile_table(snapshot: Snapshot, phi: Potential, factor: float = 1.0) -> QTable:
    """Return the mass within a radius, circular speed and density of a potential, with errors, against radius.

    Parameters
    ----------
    snapshot, phi : Snapshot, Potential
        Stars that were read, and the potential that was recovered from them, in their frame.
    factor : float
        What the scatter over members is multiplied by for an error of 68 %.

    Returns
    -------
    QTable
        30 radii between those of 1 % and 99 % of the stars; mass and density of all that pulls, stars and dark matter.
        The circular speed and the density are those on the x axis of the frame.

    Examples
    --------
    >>> import dfaccel as da
    >>> from dfaccel.systems.from_galpy import Unseen
    >>> stars = da.snapshot.take(Unseen("king").table(2000, rng=0))
    >>> atom = da.Potential(np.zeros((1, 3)), np.zeros(1), np.ones(1), np.ones(1), (), np.zeros((0, 3)))
    >>> profile_table(stars, atom).colnames[:3]
    ['r', 'enclosed_mass', 'enclosed_mass_error']
    """
    frame, mass = snapshot.frame, _mass_unit(snapshot)
    r = np.geomspace(*np.quantile(np.linalg.norm(snapshot.w[:, :3], axis=1), [0.01, 0.99]), _N_RADII)
    quantities = {
        "enclosed_mass": (lambda one: one.enclosed_mass(r), mass),
        "circular_speed": (lambda one: one.circular_speed(r), frame.velocity),
        "density": (lambda one: one.density(r[:, None] * [1.0, 0.0, 0.0]), mass / frame.length**3),
    }
    columns = {"r": r * frame.length}
    for name, (quantity, unit) in quantities.items():
        columns |= {name: quantity(phi) * unit, f"{name}_error": factor * phi.standard_error(quantity) * unit}
    return QTable(columns, meta={"scatter_times": float(factor)})


def potential_table(snapshot: Snapshot, phi: Potential) -> QTable:
    """Return the atoms of a potential: place in the file's coordinates, scale lengths a and b, and mass.

    Parameters
    ----------
    snapshot, phi : Snapshot, Potential
        As in `profile_table`.

    Examples
    --------
    >>> import dfaccel as da
    >>> from dfaccel.systems.from_galpy import Unseen
    >>> stars = da.snapshot.take(Unseen("king").table(2000, rng=0))
    >>> atom = da.Potential(np.zeros((1, 3)), np.zeros(1), np.ones(1), np.ones(1), (), np.zeros((0, 3)))
    >>> potential_table(stars, atom).colnames
    ['x', 'y', 'z', 'a', 'b', 'mass']
    """
    frame = snapshot.frame
    columns = dict(zip("xyz", frame.places(phi.centres).T, strict=True))
    columns |= {"a": phi.a * frame.length, "b": phi.b * frame.length, "mass": phi.masses * _mass_unit(snapshot)}
    return QTable(columns, meta={"each row": "Miyamoto & Nagai (1975); with a = 0 a Plummer sphere"})
