"""Natural units, and the physical ones of the observers: plain numbers inside, quantities at the border."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import constants

from dfaccel import _check as check

if TYPE_CHECKING:
    from astropy.units import Quantity

_GM_SUN = 1.3271244e20  # m^3 s^-2, nominal (IAU 2015 resolution B3, Prsa et al. 2016); G and Msun alone are less known
_KPC = 1000 * constants.parsec  # m
_GYR = 1e9 * constants.Julian_year  # s

#: Gravitational constant in kpc (km/s)^2 / Msun.
GRAVITY = _GM_SUN / _KPC / constants.kilo**2


@dataclass(frozen=True)
class Units:
    """Natural units of a system of a given mass and length, in kpc, km/s, Msun and Gyr.

    Parameters
    ----------
    mass_msun, length_kpc : float
        Mass in solar masses and length in kiloparsecs that become 1.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a number, or not positive and finite.

    Examples
    --------
    >>> units = Units(mass_msun=1e12, length_kpc=30.0)
    >>> round(units.velocity_kms, 1), round(units.time_gyr, 4)
    (378.6, 0.0775)
    """

    mass_msun: float
    length_kpc: float

    def __post_init__(self) -> None:
        check.settle(self, "mass_msun", "length_kpc")

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


@dataclass(frozen=True)
class Frame:
    """Position and motion of a system, and the units in which it is of order one: where quantities become numbers."""

    length: Quantity  # what becomes 1, in units of length and velocity (or without unit, for stars that have none)
    velocity: Quantity
    centre: Quantity  # position (3,) and velocity (3,) that become 0
    motion: Quantity

    @property
    def acceleration(self) -> Quantity:
        """Natural unit of acceleration, velocity^2 / length."""
        return self.velocity**2 / self.length

    def positions(self, x: Quantity) -> NDArray[np.float64]:
        """Return positions (m, 3) in the frame, as plain numbers in units of ``length``."""
        return ((x - self.centre) / self.length).to_value("")

    def places(self, x: ArrayLike) -> Quantity:
        """Return where plain positions (m, 3) of the frame are, in the coordinates of the observer."""
        return np.asarray(x) * self.length + self.centre

    def accelerations(self, a: ArrayLike) -> Quantity:
        """Return plain accelerations, of any shape, as quantities; the frame itself is taken not to accelerate."""
        return np.asarray(a) * self.acceleration

    def to_dict(self) -> dict:
        """Return the frame as plain values and the names of their units."""
        return {name: {"value": np.asarray(q.value).tolist(), "unit": str(q.unit)} for name, q in vars(self).items()}
