r"""The coordinates a flow learns in: fixed, invertible maps of phase space, one per symmetry.

A symmetry is a coordinate map with ignorable angles. A flow learns the density :math:`p(y)` of the invariants ``y``;
the angles are uniform; and the distribution function follows as :math:`\ln f(w) = \ln p(y(w)) + \ln J(w)`, where
:math:`J` collects the Jacobian and the density of the angles. Discrete symmetries (reflection in the plane of a disc,
reversal of time) are sign flips of some components of ``y``; averaging over them makes them exact.
"""
# ruff: noqa: D102 -- CoordinateMap says once what the methods of every map do

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor


def _length(x: Tensor) -> Tensor:
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
        x, v, r = w[..., :3], w[..., 3:], _length(w[..., :3]).clamp_min(1e-12 * self.scale)
        shrink = torch.log1p(r / self.scale) / r
        stretch = self._stretch(r)
        u, ratio = self._across(x / r, v * stretch, -self.anisotropy)
        log_jacobian = 2 * torch.log(shrink) - torch.log(self.scale + r) + 3 * torch.log(stretch)
        log_jacobian = log_jacobian + math.log(1 - self.anisotropy) - 2 * self.anisotropy * torch.log(ratio)
        return torch.cat([x * shrink, u], dim=-1), log_jacobian[..., 0]

    def _across(self, direction: Tensor, u: Tensor, power: float) -> tuple[Tensor, Tensor]:
        """Multiply the part of u across a direction by its length (in velocity scales) to a power; and that length."""
        along = (u * direction).sum(-1, keepdim=True) * direction
        ratio = (_length(u - along) / self.velocity_scale).clamp_min(1e-12)
        return along + (u - along) * ratio**power, ratio

    def positions(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        length = _length(y[..., :3]).clamp_min(1e-12)
        return y[..., :3] * (self.scale * torch.expm1(length) / length) * y.new_tensor(self.axes[:3])

    def velocities(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        x = x / x.new_tensor(self.axes[:3])
        r, power = _length(x), self.anisotropy / (1 - self.anisotropy)
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
        x, big_r = w[..., :3], _length(w[..., :2]).clamp_min(1e-12 * self.scale)
        shrink, stretch = torch.log1p(big_r / self.scale) / big_r, self._stretch(big_r)
        y = torch.cat([x[..., :2] * shrink, torch.asinh(x[..., 2:] / self.height)], dim=-1)
        log_jacobian = torch.log(shrink) - torch.log(self.scale + big_r) + 3 * torch.log(stretch)
        log_jacobian = log_jacobian - 0.5 * torch.log(x[..., 2:] ** 2 + self.height**2)
        return torch.cat([y, (w[..., 3:] - self._rotation(x)) * stretch], dim=-1), log_jacobian[..., 0]

    def positions(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        length = _length(y[..., :2]).clamp_min(1e-12)
        flat = y[..., :2] * (self.scale * torch.expm1(length) / length)
        return torch.cat([flat, self.height * torch.sinh(y[..., 2:3])], dim=-1)

    def velocities(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        return y[..., 3:] / self._stretch(_length(x[..., :2])) + self._rotation(x)


@dataclass(frozen=True)
class Bisymmetric(Flat):
    """The same with the symmetries of a bar: half a turn about z, and z -> -z."""

    name, reflections = "bisymmetric", ((0, 1, 3, 4), (2, 5))


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
        x, v, big_r = w[..., :3], w[..., 3:], _length(w[..., :2])
        across = x[..., :2] / big_r
        v_radial = (across * v[..., :2]).sum(-1, keepdim=True)
        v_azimuthal = across[..., :1] * v[..., 1:2] - across[..., 1:] * v[..., :1]
        stretch, z = self._stretch(_length(x)), w[..., 2:3]
        u = [part * stretch for part in (v_radial, v_azimuthal, v[..., 2:])]
        y = torch.cat([torch.log(big_r / self.scale), torch.asinh(z / self.height), *u], dim=-1)
        log_jacobian = 3 * torch.log(stretch) - 2 * torch.log(big_r) - 0.5 * torch.log(z**2 + self.height**2)
        return y, (log_jacobian - math.log(2 * math.pi))[..., 0]

    def positions(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        phi = torch.as_tensor(rng.uniform(0, 2 * math.pi, len(y))).to(y)
        big_r = self.scale * torch.exp(y[..., 0])
        return torch.stack([big_r * phi.cos(), big_r * phi.sin(), self.height * torch.sinh(y[..., 1])], dim=-1)

    def velocities(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        u = y[..., 2:] / self._stretch(_length(x))
        across = x[..., :2] / _length(x[..., :2])
        v_x = across[..., 0] * u[..., 0] - across[..., 1] * u[..., 1]
        v_y = across[..., 1] * u[..., 0] + across[..., 0] * u[..., 1]
        return torch.stack([v_x, v_y, u[..., 2]], dim=-1)


@dataclass(frozen=True)
class Spherical(CoordinateMap):
    """Symmetry under rotations: (ln r/s, v_r and ln v_t, both stretched); the angles of x and of v_t are uniform."""

    name, features, n_positions, reversed_by_time = "spherical", 3, 1, (1,)
    round = True

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:  # f = p(r, v_r, v_t) / (8 pi^2 r^2 v_t)
        x, v, r = w[..., :3], w[..., 3:], _length(w[..., :3])
        v_radial = (x * v).sum(-1, keepdim=True) / r
        v_tangential = _length(torch.linalg.cross(x, v)) / r
        stretch = self._stretch(r)
        y = torch.cat([torch.log(r / self.scale), v_radial * stretch, torch.log(v_tangential * stretch)], dim=-1)
        log_jacobian = torch.log(stretch) - 3 * torch.log(r) - 2 * torch.log(v_tangential)
        return y, (log_jacobian - math.log(8 * math.pi**2))[..., 0]

    def positions(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        direction = torch.as_tensor(rng.standard_normal((len(y), 3))).to(y)
        return direction / _length(direction) * (self.scale * torch.exp(y[..., :1]))

    def velocities(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        radial = x / _length(x)
        smallest = torch.nn.functional.one_hot(radial.abs().argmin(-1), 3).to(x)
        first = torch.linalg.cross(radial, smallest)  # any direction across x will do: the angle about x is ignorable
        first = first / _length(first)
        second = torch.linalg.cross(radial, first)
        psi = torch.as_tensor(rng.uniform(0, 2 * math.pi, (len(y), 1))).to(y)
        along, across = y[..., 1:2], torch.exp(y[..., 2:3])
        return (along * radial + across * (psi.cos() * first + psi.sin() * second)) / self._stretch(_length(x))


COORDINATES = {m.name: m for m in (Spherical, Axisymmetric, Radial, Linear, Flat, Bisymmetric)}
_NAMES = f"coordinates must be one of {', '.join(COORDINATES)}"


def coordinate_map(
    w: np.ndarray, coordinates: str | CoordinateMap = "radial", *, time_reversal: bool = False
) -> CoordinateMap:
    """Return the coordinate map of that name, with scales learned from the stars ``w`` (n, 6), or a map as it is."""
    if isinstance(coordinates, CoordinateMap):
        return coordinates
    if coordinates not in COORDINATES:
        raise ValueError(f"{_NAMES}, or a CoordinateMap; got {coordinates!r}")
    return COORDINATES[coordinates].from_stars(w, time_reversal=time_reversal)


def map_from_dict(values: dict) -> CoordinateMap:
    """Return the map that `CoordinateMap.to_dict` described, of today or of the first format."""
    values = {k: v for k, v in values.items() if k != "symmetry"}
    name = values.pop("name", None) or str(values.pop("kind", None)).lower()
    if name not in COORDINATES:
        raise ValueError(f"{_NAMES}; got {name!r}")
    return COORDINATES[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
