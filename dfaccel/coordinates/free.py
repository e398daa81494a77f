"""Coordinates without a symmetry, and those of a bar: for systems with a centre."""
# ruff: noqa: D102 -- CoordinateMap says once what the methods of every map do

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dfaccel.coordinates.base import CoordinateMap, length


@dataclass(frozen=True)
class Linear(CoordinateMap):
    """No symmetry: positions in units of the scale, velocities as they are."""

    name = "linear"

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.cat([w[..., :3] / self.scale, w[..., 3:]], dim=-1)
        return y, torch.full_like(w[..., 0], -3 * math.log(self.scale))

    def positions(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        return y[..., :3] * self.scale

    def velocities(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        return y[..., 3:]


@dataclass(frozen=True)
class Radial(CoordinateMap):
    r"""No symmetry: :math:`y = x \ln(1 + r/s) / r`, velocities stretched by :math:`\sqrt{1 + r/s}`, v_t to a power.

    Equal steps of ``y`` are equal ratios of radius outside the scale s, so that a few stars far out do not set the
    units for the many inside. For constant anisotropy :math:`f \propto L^{-2\beta}` (Binney & Tremaine 2008, eq. 4.66),
    a cusp at zero angular momentum where orbits are radial; in :math:`v_t |v_t|^{-\beta}` the density is flat there.
    A flattened system is first made about as long as wide: lengths and speeds along x, y, z are divided by ``axes``.
    """

    axes: tuple[float, ...] = (1.0,) * 6  # median |x|, |y|, |z| over their geometric mean, and the same of velocities
    anisotropy: float = 0.0  # beta = 1 - <v_t^2> / 2 <v_r^2> of the stretched velocities, learned from the stars
    velocity_scale: float = 1.0  # v_t that the power leaves as it is: rms component of the stars' stretched velocities

    name = "radial"

    @classmethod
    def from_stars(cls, w: np.ndarray, *, time_reversal: bool = False) -> Radial:
        spread = np.median(np.abs(w), axis=0).reshape(2, 3)
        spread = np.maximum(spread, 0.01 * spread.max(1, keepdims=True) + np.finfo(float).tiny)
        axes = (spread / np.exp(np.log(spread).mean(1, keepdims=True))).ravel()
        w = w / axes
        r = np.linalg.norm(w[:, :3], axis=1)
        scale = float(np.median(r))
        v_radial = np.einsum("ni,ni->n", w[:, :3], w[:, 3:]) / np.maximum(r, np.finfo(float).tiny)
        stretch = 1 + r / scale
        radial = np.mean(stretch * v_radial**2)
        total = np.mean(stretch * np.einsum("ni,ni->n", w[:, 3:], w[:, 3:]))
        anisotropy = float(np.clip(1.5 - 0.5 * total / max(radial, np.finfo(float).tiny), -1.0, 0.9))
        return cls(scale, time_reversal, tuple(axes.tolist()), anisotropy, float(np.sqrt(total / 3)) or 1.0)

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        w = w / w.new_tensor(self.axes)
        x, v, r = w[..., :3], w[..., 3:], length(w[..., :3]).clamp_min(1e-12 * self.scale)
        shrink = torch.log1p(r / self.scale) / r
        stretch = self._stretch(r)
        u, ratio = self._across(x / r, v * stretch, -self.anisotropy)
        log_jacobian = 2 * torch.log(shrink) - torch.log(self.scale + r) + 3 * torch.log(stretch)
        log_jacobian = log_jacobian + math.log(1 - self.anisotropy) - 2 * self.anisotropy * torch.log(ratio)
        return torch.cat([x * shrink, u], dim=-1), log_jacobian[..., 0]

    def _across(self, direction: Tensor, u: Tensor, power: float) -> tuple[Tensor, Tensor]:
        """Multiply the part of u across a direction by its length (in velocity scales) to a power; and that length."""
        along = (u * direction).sum(-1, keepdim=True) * direction
        ratio = (length(u - along) / self.velocity_scale).clamp_min(1e-12)
        return along + (u - along) * ratio**power, ratio

    def positions(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        size = length(y[..., :3]).clamp_min(1e-12)
        return y[..., :3] * (self.scale * torch.expm1(size) / size) * y.new_tensor(self.axes[:3])

    def velocities(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        x = x / x.new_tensor(self.axes[:3])
        r, power = length(x), self.anisotropy / (1 - self.anisotropy)
        v = self._across(x / r.clamp_min(1e-12 * self.scale), y[..., 3:], power)[0] / self._stretch(r)
        return v * v.new_tensor(self.axes[3:])


@dataclass(frozen=True)
class Flat(CoordinateMap):
    r"""No symmetry, for discs: :math:`(x, y) \ln(1 + R/s)/R`, asinh z/h, velocities from a mean rotation, stretched.

    The rotation :math:`v_\phi = \omega R / \sqrt{1 + (R/c)^2}` is taken off: what is left varies less with place.
    """

    height: float = 1.0  # length h that separates the plane from the space above it: the stars' median abs(z)
    omega: float = 0.0  # angular speed of the mean rotation at the centre, learned from the stars
    core: float = 1.0  # radius c beyond which the mean rotation is flat

    name = "flat"

    @classmethod
    def from_stars(cls, w: np.ndarray, *, time_reversal: bool = False) -> Flat:
        R = np.hypot(w[:, 0], w[:, 1])
        spin, scale = w[:, 0] * w[:, 4] - w[:, 1] * w[:, 3], float(np.median(R))
        cores = scale * np.geomspace(0.05, 5, 25)
        shapes = R**2 / np.sqrt(1 + (R / cores[:, None]) ** 2)
        omegas = (shapes * spin).sum(1) / np.maximum((shapes**2).sum(1), np.finfo(float).tiny)
        best = (omegas * (shapes * spin).sum(1)).argmax()  # the least squares of R v_phi
        omega = 0.0 if time_reversal else float(omegas[best])
        return cls(scale, time_reversal, float(np.median(np.abs(w[:, 2]))), omega, float(cores[best]))

    def _rotation(self, x: Tensor) -> Tensor:
        rate = self.omega / torch.sqrt(1 + (x[..., :2] ** 2).sum(-1, keepdim=True) / self.core**2)
        return rate * torch.stack([-x[..., 1], x[..., 0], 0 * x[..., 2]], dim=-1)

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        x, big_r = w[..., :3], length(w[..., :2]).clamp_min(1e-12 * self.scale)
        shrink, stretch = torch.log1p(big_r / self.scale) / big_r, self._stretch(big_r)
        y = torch.cat([x[..., :2] * shrink, torch.asinh(x[..., 2:] / self.height)], dim=-1)
        log_jacobian = torch.log(shrink) - torch.log(self.scale + big_r) + 3 * torch.log(stretch)
        log_jacobian = log_jacobian - 0.5 * torch.log(x[..., 2:] ** 2 + self.height**2)
        return torch.cat([y, (w[..., 3:] - self._rotation(x)) * stretch], dim=-1), log_jacobian[..., 0]

    def positions(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        size = length(y[..., :2]).clamp_min(1e-12)
        flat = y[..., :2] * (self.scale * torch.expm1(size) / size)
        return torch.cat([flat, self.height * torch.sinh(y[..., 2:3])], dim=-1)

    def velocities(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        return y[..., 3:] / self._stretch(length(x[..., :2])) + self._rotation(x)


@dataclass(frozen=True)
class Bisymmetric(Flat):
    """The same with the symmetries of a bar: half a turn about z, and z -> -z."""

    name, reflections = "bisymmetric", ((0, 1, 3, 4), (2, 5))
