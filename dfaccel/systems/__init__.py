"""Stellar systems in equilibrium: distribution function, gravity, and exact samples."""

from dfaccel.systems.base import SphericalSystem
from dfaccel.systems.hernquist import Hernquist
from dfaccel.systems.plummer import Plummer

__all__ = ["Hernquist", "Plummer", "SphericalSystem"]
