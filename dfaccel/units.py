"""The border of units: plain numbers inside, the quantities of observers outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dfaccel import _check as check

if TYPE_CHECKING:
    from astropy.units import Quantity


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
