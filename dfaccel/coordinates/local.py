"""Coordinates of a local volume: a ball or a box around the Sun, without a centre of the system."""
# ruff: noqa: D102 -- CoordinateMap says once what the methods of every map do

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dfaccel.coordinates.base import CoordinateMap, length

_ROUND = 1.05  # farthest star over the largest half width: in a ball it is 1, in a cube 1.7
_MARGIN = 1.0 + 1e-6  # of the walls, so that no star lies on one


@dataclass(frozen=True)
class Local(CoordinateMap):
    r"""A ball or a box whose walls are opened: :math:`s = \mathrm{erf}(|u| / \sqrt 2)` of the way to the wall.

    Stars that fill a box evenly have a Gaussian density in u, and those that fill a ball nearly so: a flow sees no
    edge. In a box the map acts on each axis, in a ball along the radius. From the velocities a mean motion is taken
    off that is quadratic in position, as the stars have it.
    """

    middle: tuple[float, ...] = (0.0, 0.0, 0.0)  # of the volume
    walls: tuple[float, ...] = (1.0, 1.0, 1.0)  # distance of the walls from it along the axes; three alike in a ball
    box: bool = False
    motion: tuple[float, ...] = (0.0,) * 30  # coefficients (10, 3) of the mean velocity

    name = "local"
    mirror: ClassVar[bool] = False  # whether f is even about the plane z = 0

    @classmethod
    def from_stars(cls, w: np.ndarray, *, time_reversal: bool = False) -> Local:
        if cls.mirror:
            w = np.concatenate([w, w * [1, 1, -1, 1, 1, -1]])
        low, high = w[:, :3].min(0), w[:, :3].max(0)
        middle, walls = (low + high) / 2, (high - low) / 2
        farthest = np.linalg.norm(w[:, :3] - middle, axis=1).max()
        box = farthest > _ROUND * walls.max()
        walls = _MARGIN * (walls if box else np.full(3, farthest))
        still = cls(float(walls.max()), time_reversal, tuple(middle.tolist()), tuple(walls.tolist()), bool(box))
        if time_reversal:
            return still
        quadratic = still._quadratic(torch.from_numpy(w[:, :3])).numpy()
        motion = np.linalg.lstsq(quadratic, w[:, 3:], rcond=None)[0]
        return replace(still, motion=tuple(motion.ravel().tolist()))

    def _share(self, x: Tensor) -> Tensor:
        """Return the way (..., 3) to the walls, as a share of it."""
        return (x - x.new_tensor(self.middle)) / x.new_tensor(self.walls)

    def _quadratic(self, x: Tensor) -> Tensor:
        """Return the products (..., 10) of up to two of its components."""
        s = self._share(x)
        first, second = torch.triu_indices(3, 3)
        return torch.cat([torch.ones_like(s[..., :1]), s, s[..., first] * s[..., second]], dim=-1)

    def _mean_velocity(self, x: Tensor) -> Tensor:
        """Return the mean velocity (..., 3) at x."""
        return self._quadratic(x) @ x.new_tensor(self.motion).reshape(10, 3)

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        s = self._share(w[..., :3])
        way = s if self.box else length(s).clamp_min(1e-12)
        u = math.sqrt(2) * torch.erfinv(way)
        log_jacobian = (0.5 * u**2 + 0.5 * math.log(math.pi / 2)).sum(-1)
        if not self.box:
            log_jacobian = log_jacobian + 2 * torch.log(u / way)[..., 0]
            u = s * (u / way)
        u = torch.where((way.abs() < 1).all(-1, keepdim=True), u, -torch.inf)  # beyond the walls
        y = torch.cat([u, w[..., 3:] - self._mean_velocity(w[..., :3])], dim=-1)
        return y, log_jacobian - math.log(math.prod(self.walls))

    def positions(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        u = y[..., :3]
        size = u if self.box else length(u).clamp_min(1e-12)
        way = torch.erf(size / math.sqrt(2)).clamp(-1 / _MARGIN, 1 / _MARGIN)
        return y.new_tensor(self.middle) + y.new_tensor(self.walls) * (way if self.box else u * (way / size))

    def velocities(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        return y[..., 3:] + self._mean_velocity(x)


@dataclass(frozen=True)
class Mirrored(Local):
    """The same with the symmetry z -> -z of a disc; the plane z = 0 must be its plane."""

    name, reflections, mirror = "mirrored", ((2, 5),), True
