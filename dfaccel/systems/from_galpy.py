"""Systems that the book did not make: galpy (Bovy 2015, ApJS 216, 29) gives their f and their potential.

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
from dfaccel.axes import directions
from dfaccel.systems.base import DistributionFunction
from dfaccel.units import Frame

_N_GRID = 2000
_TRIALS = 400_000  # stars proposed at a time
_HEADROOM = 0.3  # of the log of the envelope above its largest value at so many stars
_STEP = 1e-4  # of differences
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


class SolarNeighbourhood(DistributionFunction):
    """Stars around the Sun of a quasi-isothermal disc (Binney & McMillan 2011) in the field of a disc and a halo.

    Units: 8.2 kpc and 230 km/s, the distance of the Sun from the centre and the circular speed there. The potential is
    a Miyamoto-Nagai disc and an NFW halo. The Sun is at (1, 0, 20.8 pc); the disc turns anticlockwise.
    """

    length, velocity = 8.2, 230.0  # kpc, km/s
    sun = np.array([1.0, 0.0, 0.0208 / 8.2])

    @cached_property
    def _galpy(self) -> tuple[Any, Any]:
        """Potential and distribution function."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from galpy import actionAngle, df, potential

        disc = potential.MiyamotoNagaiPotential(a=3 / 8.2, b=0.28 / 8.2, normalize=0.55)
        field = disc + potential.NFWPotential(a=16 / 8.2, normalize=0.45)
        actions = actionAngle.actionAngleStaeckel(pot=field, delta=0.45, c=True)
        return field, df.quasiisothermaldf(2.6 / 8.2, 38 / 230, 20 / 230, 1.0, 1.0, pot=field, aA=actions)

    def log_df(self, w: np.ndarray) -> np.ndarray:
        """Return ln f (n,), up to a constant, at stars ``w`` (n, 6)."""
        (x, y, z, v_x, v_y, v_z), R = w.T, np.hypot(w[:, 0], w[:, 1])
        return self._galpy[1](R, (x * v_x + y * v_y) / R, (x * v_y - y * v_x) / R, z, v_z, log=True)

    def members_score(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ln f (1, n) and its gradient (1, n, 6), by differences, at stars ``w`` (n, 6)."""
        slopes = [(self.log_df(w + step) - self.log_df(w - step)) / (2 * _STEP) for step in _STEP * np.eye(6)]
        return self.log_df(w)[None], np.stack(slopes, axis=-1)[None]

    def acceleration(self, x: np.ndarray) -> np.ndarray:
        """Return the acceleration (m, 3) at ``x`` (m, 3)."""
        R = np.hypot(x[:, 0], x[:, 1])
        a_R, a_z = (pull(R, x[:, 2], use_physical=False) for pull in (self._galpy[0].Rforce, self._galpy[0].zforce))
        return np.column_stack([a_R * x[:, 0] / R, a_R * x[:, 1] / R, a_z])

    def around_sun(self, w: np.ndarray) -> np.ndarray:
        """Return stars (n, 6) in kpc and km/s about the Sun, x to the centre and y along the rotation."""
        return np.hstack([(w[:, :3] - self.sun) * self.length, w[:, 3:] * self.velocity]) * [-1, 1, 1, -1, 1, 1]

    def acceleration_around_sun(self, x: np.ndarray) -> np.ndarray:
        """Return the acceleration (m, 3), in km^2 / s^2 / kpc, at places (m, 3) about the Sun in kpc."""
        turn = np.array([-1, 1, 1])
        return self.acceleration(self.sun + x * turn / self.length) * turn * self.velocity**2 / self.length

    def sample(self, n: int, *, rng: np.random.Generator | int, radius: float = 1 / 8.2) -> np.ndarray:
        """Draw stars (n, 6) within a distance of the Sun, by rejection."""
        n, rng, stars = check.count(n, "n"), np.random.default_rng(rng), []
        spread, envelope = np.array([0.22, 0.16, 0.13]), -np.inf
        while sum(map(len, stars)) < n:
            x = self.sun + radius * directions(_TRIALS, rng) * rng.random((_TRIALS, 1)) ** (1 / 3)
            R = np.hypot(x[:, 0], x[:, 1])
            log_density = -np.abs(x[:, 2]) / 0.043 - (R - 1) / 0.25
            kept = np.log(rng.random(_TRIALS)) < log_density - log_density.max()
            x, R, log_density = x[kept], R[kept, None], log_density[kept]
            xi = rng.standard_normal(x.shape)
            v = spread * np.exp(1 - R) * xi + [0.0, 0.93, 0.0]  # along R, phi and z
            across = np.column_stack([-x[:, 1], x[:, 0]]) / R
            v[:, :2] = v[:, :1] * x[:, :2] / R + v[:, 1:2] * across
            w = np.hstack([x, v])
            log_ratio = self.log_df(w) + 0.5 * (xi**2).sum(1) + 3 * (1 - R[:, 0]) - log_density
            if log_ratio.max() > envelope:  # begin again with a higher one
                stars, envelope = [], log_ratio.max() + _HEADROOM
            stars.append(w[np.log(rng.random(len(w))) < log_ratio - envelope])
        return np.concatenate(stars)[:n]
