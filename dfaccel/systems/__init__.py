"""Stellar systems in equilibrium: distribution function, gravity, and exact samples."""

from dfaccel.systems.base import SphericalSystem
from dfaccel.systems.disc import Disc, MiyamotoNagai
from dfaccel.systems.hernquist import Hernquist
from dfaccel.systems.plummer import Plummer

__all__ = ["Disc", "Hernquist", "MiyamotoNagai", "Plummer", "SphericalSystem"]
