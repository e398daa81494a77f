"""The potential of a run on your own stars, as tables with units: profiles against radius, and its atoms."""

import astropy.units as u
import numpy as np
from astropy.constants import G
from astropy.table import QTable

from dfaccel.gravity.potential import Potential
from dfaccel.snapshot.read import Snapshot

_N_RADII = 30


def potential_tables(snapshot: Snapshot, phi: Potential, factor: float = 1.0) -> dict[str, QTable]:
    """Return the ``profile`` of a potential against radius and the atoms that are the ``potential``, with units.

    Parameters
    ----------
    snapshot, phi : Snapshot, Potential
        Stars that were read, and the potential that was recovered from them, in their frame.
    factor : float
        What the scatter over members is multiplied by for an error of 68 %.

    Returns
    -------
    dict of QTable
        "profile": mass within a radius, circular speed and density, with errors, at 30 radii between those of 1 % and
        99 % of the stars; of all that pulls, stars and dark matter. Circular speed and density are those on the x axis.
        "potential": place of each atom in the file's coordinates, scale lengths a and b, and mass.

    Examples
    --------
    >>> import dfaccel as da
    >>> from dfaccel.systems.from_galpy import Unseen
    >>> stars = da.snapshot.take(Unseen("king").table(2000, rng=0))
    >>> atom = da.Potential(np.zeros((1, 3)), np.zeros(1), np.ones(1), np.ones(1), (), np.zeros((0, 3)))
    >>> tables = potential_tables(stars, atom)
    >>> tables["profile"].colnames[:3], tables["potential"].colnames[3:]
    (['r', 'enclosed_mass', 'enclosed_mass_error'], ['a', 'b', 'mass'])
    """
    frame = snapshot.frame
    mass = frame.length * frame.velocity**2  # that is one in the frame, times G
    mass = mass if mass.unit == u.one else (mass / G).to(u.Msun)
    r = np.geomspace(*np.quantile(np.linalg.norm(snapshot.w[:, :3], axis=1), [0.01, 0.99]), _N_RADII)
    quantities = {
        "enclosed_mass": (lambda one: one.enclosed_mass(r), mass),
        "circular_speed": (lambda one: one.circular_speed(r), frame.velocity),
        "density": (lambda one: one.density(r[:, None] * [1.0, 0.0, 0.0]), mass / frame.length**3),
    }
    columns = {"r": r * frame.length}
    for name, (quantity, unit) in quantities.items():
        columns |= {name: quantity(phi) * unit, f"{name}_error": factor * phi.standard_error(quantity) * unit}
    atoms = dict(zip("xyz", frame.places(phi.centres).T, strict=True))
    atoms |= {"a": phi.a * frame.length, "b": phi.b * frame.length, "mass": phi.masses * mass}
    return {
        "profile": QTable(columns, meta={"scatter_times": float(factor)}),
        "potential": QTable(atoms, meta={"each row": "Miyamoto & Nagai (1975); with a = 0 a Plummer sphere"}),
    }
