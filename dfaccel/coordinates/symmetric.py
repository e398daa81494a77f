"""Coordinates that impose a symmetry about an axis or a centre."""
# ruff: noqa: D102 -- CoordinateMap says once what the methods of every map do

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dfaccel.coordinates.base import CoordinateMap, length


@dataclass(frozen=True)
class Axisymmetric(CoordinateMap):
    """Symmetry about z and under z -> -z: (ln R/s, asinh z/h, and v_R, v_phi, v_z stretched); phi is uniform."""

    height: float = 1.0  # length h that separates the plane from the space above it: the stars' median abs(z)

    name, features, n_positions, reversed_by_time = "axisymmetric", 5, 2, (2, 3, 4)
    axial, reflections = True, ((1, 4),)

    @classmethod
    def from_stars(cls, w: np.ndarray, *, time_reversal: bool = False) -> Axisymmetric:
        scale = float(np.median(np.hypot(w[:, 0], w[:, 1])))
        return cls(scale=scale, height=float(np.median(np.abs(w[:, 2]))), time_reversal=time_reversal)

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        x, v, big_r = w[..., :3], w[..., 3:], length(w[..., :2])
        across = x[..., :2] / big_r
        v_radial = (across * v[..., :2]).sum(-1, keepdim=True)
        v_azimuthal = across[..., :1] * v[..., 1:2] - across[..., 1:] * v[..., :1]
        stretch, z = self._stretch(length(x)), w[..., 2:3]
        u = [part * stretch for part in (v_radial, v_azimuthal, v[..., 2:])]
        y = torch.cat([torch.log(big_r / self.scale), torch.asinh(z / self.height), *u], dim=-1)
        log_jacobian = 3 * torch.log(stretch) - 2 * torch.log(big_r) - 0.5 * torch.log(z**2 + self.height**2)
        return y, (log_jacobian - math.log(2 * math.pi))[..., 0]

    def positions(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        phi = torch.as_tensor(rng.uniform(0, 2 * math.pi, len(y))).to(y)
        big_r = self.scale * torch.exp(y[..., 0])
        return torch.stack([big_r * phi.cos(), big_r * phi.sin(), self.height * torch.sinh(y[..., 1])], dim=-1)

    def velocities(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        u = y[..., 2:] / self._stretch(length(x))
        across = x[..., :2] / length(x[..., :2])
        v_x = across[..., 0] * u[..., 0] - across[..., 1] * u[..., 1]
        v_y = across[..., 1] * u[..., 0] + across[..., 0] * u[..., 1]
        return torch.stack([v_x, v_y, u[..., 2]], dim=-1)


@dataclass(frozen=True)
class Spherical(CoordinateMap):
    """Symmetry under rotations: (ln r/s, v_r and ln v_t, both stretched); the angles of x and of v_t are uniform."""

    name, features, n_positions, reversed_by_time = "spherical", 3, 1, (1,)
    round = True

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:  # f = p(r, v_r, v_t) / (8 pi^2 r^2 v_t)
        x, v, r = w[..., :3], w[..., 3:], length(w[..., :3])
        v_radial = (x * v).sum(-1, keepdim=True) / r
        v_tangential = length(torch.linalg.cross(x, v)) / r
        stretch = self._stretch(r)
        y = torch.cat([torch.log(r / self.scale), v_radial * stretch, torch.log(v_tangential * stretch)], dim=-1)
        log_jacobian = torch.log(stretch) - 3 * torch.log(r) - 2 * torch.log(v_tangential)
        return y, (log_jacobian - math.log(8 * math.pi**2))[..., 0]

    def positions(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        direction = torch.as_tensor(rng.standard_normal((len(y), 3))).to(y)
        return direction / length(direction) * (self.scale * torch.exp(y[..., :1]))

    def velocities(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        radial = x / length(x)
        smallest = torch.nn.functional.one_hot(radial.abs().argmin(-1), 3).to(x)
        first = torch.linalg.cross(radial, smallest)  # any direction across x will do: the angle about x is ignorable
        first = first / length(first)
        second = torch.linalg.cross(radial, first)
        psi = torch.as_tensor(rng.uniform(0, 2 * math.pi, (len(y), 1))).to(y)
        along, across = y[..., 1:2], torch.exp(y[..., 2:3])
        return (along * radial + across * (psi.cos() * first + psi.sin() * second)) / self._stretch(length(x))
