"""Natural units, in which G = M = a = 1, and the kiloparsecs and kilometres a second of the observers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import constants

from dfaccel.checks import phase_space, positive

__all__ = ["GRAVITY", "Units"]

_GM_SUN = 1.3271244e20  # m^3 s^-2, nominal solar mass parameter, IAU 2015 resolution B3
_KPC = 1000 * constants.parsec  # m
_GYR = 1e9 * constants.Julian_year  # s

#: Gravitational constant in kpc (km/s)^2 / Msun.
GRAVITY = _GM_SUN / _KPC / constants.kilo**2


@dataclass(frozen=True)
class Units:
    """Natural units of a system of a given mass and length, expressed in kpc, km/s, Msun and Gyr.

    Parameters
    ----------
    mass_msun
        Mass that becomes 1, in solar masses.
    length_kpc
        Length that becomes 1, in kiloparsecs.

    Raises
    ------
    TypeError
        If a parameter is not a number.
    ValueError
        If a parameter is not positive and finite.

    Notes
    -----
    Only the product G Msun is known well; its nominal value is that of IAU 2015 resolution B3 (Prsa et al. 2016,
    AJ 152, 41).

    Examples
    --------
    >>> units = Units(mass_msun=1e12, length_kpc=30.0)
    >>> round(units.velocity_kms, 1), round(units.time_gyr, 4)
    (378.6, 0.0775)
    """

    mass_msun: float
    length_kpc: float

    def __post_init__(self) -> None:
        """Check the parameters."""
        for name in ("mass_msun", "length_kpc"):
            object.__setattr__(self, name, positive(getattr(self, name), name))

    @property
    def velocity_kms(self) -> float:
        """Natural unit of velocity, sqrt(G M / a), in km/s."""
        return float(np.sqrt(GRAVITY * self.mass_msun / self.length_kpc))

    @property
    def time_gyr(self) -> float:
        """Natural unit of time, sqrt(a^3 / (G M)), in Gyr."""
        return self.length_kpc * _KPC / (self.velocity_kms * constants.kilo) / _GYR

    @property
    def acceleration(self) -> float:
        """Natural unit of acceleration, G M / a^2, in (km/s)^2 / kpc."""
        return self.velocity_kms**2 / self.length_kpc

    @property
    def _phase_space(self) -> NDArray[np.float64]:
        return np.repeat([self.length_kpc, self.velocity_kms], 3)

    def to_natural(self, w: ArrayLike) -> NDArray[np.float64]:
        """Return x y z in kpc and vx vy vz in km/s, shape (n, 6), in natural units."""
        return phase_space(w) / self._phase_space

    def to_physical(self, w: ArrayLike) -> NDArray[np.float64]:
        """Return phase-space coordinates in natural units, shape (n, 6), in kpc and km/s."""
        return phase_space(w) * self._phase_space
