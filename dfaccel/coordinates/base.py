r"""The coordinates a flow learns in: fixed, invertible maps of phase space, one per symmetry.

A symmetry is a coordinate map with ignorable angles. A flow learns the density :math:`p(y)` of the invariants ``y``;
the angles are uniform; and the distribution function follows as :math:`\ln f(w) = \ln p(y(w)) + \ln J(w)`, where
:math:`J` collects the Jacobian and the density of the angles. Discrete symmetries (reflection in the plane of a disc,
reversal of time) are sign flips of some components of ``y``; averaging over them makes them exact.
"""
from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor


def length(x: Tensor) -> Tensor:
    """Return the length (..., 1) of vectors (..., d)."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True)


@dataclass(frozen=True)
class CoordinateMap:
    r"""Base of the maps ``w -> y``; a new symmetry is one class with three methods of its own.

    ``forward(w)`` returns ``y`` (n, features) and :math:`\ln J` (n,) of points ``w`` (n, 6). ``positions(y, rng)``
    returns positions (n, 3) and draws the ignorable angles, ``velocities(x, y, rng)`` velocities (n, 3) at ``x``.
    """

    scale: float  # length that separates the inner from the outer system: the stars' median radius
    time_reversal: bool = False  # whether f(x, v) = f(x, -v) is imposed

    name: ClassVar[str]
    features: ClassVar[int] = 6  # components of y
    n_positions: ClassVar[int] = 3  # the first so many of them depend on position alone
    reversed_by_time: ClassVar[tuple[int, ...]] = (3, 4, 5)  # components whose sign time reversal flips
    reflections: ClassVar[tuple[tuple[int, ...], ...]] = ()  # the same for mirrors that are always symmetries
    round: ClassVar[bool] = False  # whether spherical symmetry is assumed
    axial: ClassVar[bool] = False  # whether symmetry about z is assumed, and no more

    @classmethod
    def from_stars(cls, w: np.ndarray, *, time_reversal: bool = False) -> CoordinateMap:
        """Choose the map's scales from the stars ``w`` (n, 6) alone."""
        return cls(scale=float(np.median(np.linalg.norm(w[:, :3], axis=1))), time_reversal=time_reversal)

    def position_coordinates(self, x: Tensor) -> Tensor:
        """Return the components of ``y`` that depend on position only, (n, n_positions), of ``x`` (n, 3)."""
        return self.forward(torch.cat([x, torch.ones_like(x)], dim=-1))[0][:, : self.n_positions]

    def inverse(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        """Return phase-space points (n, 6) of invariants ``y``, the ignorable angles drawn from ``rng``."""
        x = self.positions(y, rng)
        return torch.cat([x, self.velocities(x, y, rng)], dim=-1)

    def determined(self, points: np.ndarray) -> np.ndarray:
        """Return unit vectors (m, d, 3) along which an acceleration at ``points`` (m, 3) may point; else it is zero."""
        if self.round:
            return (points / np.linalg.norm(points, axis=1, keepdims=True))[:, None]
        return np.broadcast_to(np.eye(3), (len(points), 3, 3))

    @property
    def flips(self) -> Tensor:
        """Signs (n_elements, features) of the discrete symmetries, the identity first."""
        signs = torch.ones(1, self.features)
        for columns in (*[self.reversed_by_time] * self.time_reversal, *self.reflections):
            mirror = torch.ones(self.features).index_fill(0, torch.tensor(columns), -1.0)
            signs = torch.cat([signs, signs * mirror])
        return signs

    def _stretch(self, r: Tensor) -> Tensor:
        """Factor by which velocities are stretched, since speeds fall as r^(-1/2) outside the system."""
        return torch.sqrt(1 + r / self.scale)

    def to_dict(self) -> dict:
        """Return the map as plain values, for the store."""
        return {"name": self.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}}
