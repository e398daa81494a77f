"""The border of units: plain numbers inside, the quantities of observers outside."""

import re
from dataclasses import dataclass

import numpy as np
from astropy.units import Quantity, Unit, UnitBase, UnrecognizedUnit, annum, hour

from dfaccel import _check as check


def unit_of(given: str | UnitBase) -> UnitBase:
    """Return a unit, also one written as simulations do (ckpc/h, km a**1/2 s**-1); one that nobody knows stays so."""
    unit = Unit(given, parse_strict="silent")
    if isinstance(unit, UnrecognizedUnit):
        text = re.sub(r"\bc([kMG]?pc)\b|\b([kMG]?pc)cm\b|comoving\s+([kMG]?pc)\b", r"a \1\2\3", str(given))
        return Unit(re.sub(r"(\*\*|\^)\s*(-?[\d.]+(?:/\d+)?)", r"**(\2)", text), parse_strict="silent")
    return unit


def without_cosmology(unit: UnitBase) -> tuple[UnitBase, float, float]:
    """Return a unit without scale factor a and little h (to astropy a year and an hour), and their powers."""
    powers = {base.name: float(power) for base, power in zip(unit.bases, unit.powers, strict=True)}
    of_a, of_h = powers.get("a", 0.0), powers.get("h", 0.0)
    return unit / annum**of_a / hour**of_h, of_a, of_h


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

    def positions(self, x: Quantity) -> np.ndarray:
        """Return positions (m, 3) in the frame, as plain numbers in units of ``length``."""
        return ((x - self.centre) / self.length).to_value("")

    def places(self, x: np.ndarray) -> Quantity:
        """Return where plain positions (m, 3) of the frame are, in the coordinates of the observer."""
        return check.numbers(x, "x") * self.length + self.centre

    def accelerations(self, a: np.ndarray) -> Quantity:
        """Return plain accelerations, of any shape, as quantities; the frame itself is taken not to accelerate."""
        return check.numbers(a, "a") * self.acceleration

    def to_dict(self) -> dict:
        """Return the frame as plain values and the names of their units."""
        return {name: {"value": np.asarray(q.value).tolist(), "unit": str(q.unit)} for name, q in vars(self).items()}
