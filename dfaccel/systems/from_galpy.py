"""Two systems that the book did not make: galpy (Bovy 2015, ApJS 216, 29) gives their f(E) and their potential.

"king" is a King model of central depth W0 = 6, as a globular cluster is; its length a is the tidal radius. "nfw"
is stars with the isotropic distribution function of an NFW halo; a is the scale radius, and no star has the energy to
go beyond 50 a. We draw the stars here by rejection: galpy's own table of speeds is too coarse (chapter 2 of the book).
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from astropy import units as u
from astropy.constants import GM_sun
from astropy.table import QTable

from dfaccel import _check as check
from dfaccel.units import Frame

_N_GRID = 2000
_MARGIN = 1.1  # of the rejection envelope above its tabulated maximum
_PHYSICAL = {  # unit of length, mass and natural length in pc; centre in that unit, motion in km/s
    "king": ("pc", 2e5, 60.0, (1200.0, -340.0, 87.0), (35.0, -12.0, 160.0)),
    "nfw": ("kpc", 1e12, 20_000.0, (1.5, -0.7, 0.4), (-110.0, 40.0, 65.0)),
}


@dataclass(frozen=True)
class Unseen:
    """A spherical system, "king" or "nfw", whose f(E) and potential are galpy's, in units G = M = a = 1."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in _PHYSICAL:
            raise ValueError(f"name must be 'king' or 'nfw'; got {self.name!r}")

    @cached_property
    def _galpy(self) -> tuple[Any, Any, float]:
        """Potential, distribution function and the radius that no star leaves."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of compiled parts of galpy that are not used here
            from galpy import df, potential  # slow to import

        if self.name == "king":
            return potential.KingPotential(W0=6.0, M=1.0, rt=1.0), df.kingdf(W0=6.0, M=1.0, rt=1.0), 1.0
        halo = potential.NFWPotential(amp=1.0, a=1.0)
        return halo, df.isotropicNFWdf(pot=halo, rmax=50.0), 50.0

    def potential(self, r: np.ndarray) -> np.ndarray:
        """Return the potential at radii ``r`` (m,)."""
        return np.asarray(self._galpy[0](np.asarray(r), 0.0, use_physical=False))

    def acceleration(self, x: np.ndarray) -> np.ndarray:
        """Return the acceleration (m, 3) at ``x`` (m, 3)."""
        r = np.linalg.norm(x, axis=1)
        return self._galpy[0].Rforce(r, 0.0, use_physical=False)[:, None] * x / r[:, None]

    def _weight(self, q: np.ndarray, depth: np.ndarray, edge: float) -> np.ndarray:
        """Return q^2 f at speeds q sqrt(2 depth) where the potential lies ``depth`` below its value at the edge."""
        energy = edge - depth * (1 - q**2)
        return q**2 * self._galpy[1].fE(energy.ravel()).reshape(energy.shape)

    def sample(self, n: int, *, rng: np.random.Generator | int) -> np.ndarray:
        """Draw stars (n, 6): radii from the density that f implies, speeds from f at each radius, by rejection."""
        n, rng = check.count(n, "n"), np.random.default_rng(rng)
        r_edge = self._galpy[2]
        edge = float(self.potential(np.array([r_edge]))[0])
        r = r_edge * np.geomspace(1e-5, 1 - 1e-9, _N_GRID)
        depth = edge - self.potential(r)
        q = (np.arange(_N_GRID) + 0.5) / _N_GRID
        weight = self._weight(q[None], depth[:, None], edge)
        shell = r**3 * depth**1.5 * weight.mean(axis=1)  # stars per ln r
        enclosed = np.concatenate([[0.0], np.cumsum((shell[1:] + shell[:-1]) / 2)])
        radius = np.interp(rng.random(n) * enclosed[-1], enclosed, r)
        depths, envelope = edge - self.potential(radius), _MARGIN * np.interp(radius, r, weight.max(axis=1))
        speed, left = np.empty(n), np.arange(n)
        while len(left):
            trial = rng.random(len(left))
            accepted = rng.random(len(left)) * envelope[left] < self._weight(trial, depths[left], edge)
            speed[left[accepted]] = trial[accepted] * np.sqrt(2 * depths[left[accepted]])
            left = left[~accepted]
        w = rng.standard_normal((n, 2, 3))
        w *= (np.stack([radius, speed], axis=1) / np.linalg.norm(w, axis=2))[..., None]
        return w.reshape(n, 6)

    @property
    def frame(self) -> Frame:
        """Where the system is and moves in the table, and the length and the velocity that are 1."""
        unit, mass, length, centre, motion = _PHYSICAL[self.name]
        velocity = np.sqrt(mass * GM_sun / (length * u.pc)).to("km/s")
        return Frame((length * u.pc).to(unit), velocity, centre * u.Unit(unit), motion * velocity.unit)

    def table(self, n: int, *, rng: np.random.Generator | int) -> QTable:
        """Draw n stars as an observer has them: a table with units, away from its origin and in motion."""
        w, frame = self.sample(n, rng=rng), self.frame
        v = w[:, 3:] * frame.velocity + frame.motion
        return QTable([*frame.places(w[:, :3]).T, *v.T], names=check.COLUMNS)

    def acceleration_at(self, places: u.Quantity) -> u.Quantity:
        """Return the true acceleration (m, 3) at ``places`` (m, 3) of the table."""
        return self.frame.accelerations(self.acceleration(self.frame.positions(places)))
