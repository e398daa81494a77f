r"""The coordinates a flow learns in: fixed, invertible maps of phase space, one per symmetry.

A symmetry is a coordinate map with ignorable angles. A flow learns the density :math:`p(y)` of the invariants ``y``;
the angles are uniform; and the distribution function follows as :math:`\ln f(w) = \ln p(y(w)) + \ln J(w)`, where
:math:`J` collects the Jacobian and the density of the angles. Discrete symmetries (reflection in the plane of a disc,
reversal of time) are sign flips of some components of ``y``; averaging over them makes them exact.
"""
# ruff: noqa: D102 -- what the methods of every map do is said once, in CoordinateMap

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import product
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

SYMMETRIES = ("none", "axisymmetric", "spherical")


def _radius(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True)


def _tangent_frame(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return unit vectors along x and two across it (any two: the angle about x is ignorable)."""
    radial = x / _radius(x)
    smallest = torch.nn.functional.one_hot(radial.abs().argmin(-1), 3).to(x)
    first = torch.linalg.cross(radial, smallest)
    first = first / _radius(first)
    return radial, first, torch.linalg.cross(radial, first)


@dataclass(frozen=True)
class CoordinateMap:
    r"""Base of the maps ``w -> y``; see the module docstring.

    Parameters
    ----------
    scale : float
        Length that separates the inner from the outer system, learned from the stars (their median radius).
    time_reversal : bool
        Whether f(x, v) = f(x, -v) is imposed.
    """

    scale: float
    time_reversal: bool = False

    symmetry: ClassVar[str]
    features: ClassVar[int]
    n_positions: ClassVar[int]
    reversed_by_time: ClassVar[tuple[int, ...]]
    reflections: ClassVar[tuple[tuple[int, ...], ...]] = ()

    @classmethod
    def from_stars(cls, w: np.ndarray, *, time_reversal: bool = False) -> CoordinateMap:
        """Choose the map's scales from the stars alone.

        Parameters
        ----------
        w : ndarray, shape (n, 6)
            Stars.
        time_reversal : bool
            Whether f(x, v) = f(x, -v) is imposed.
        """
        return cls(scale=float(np.median(np.linalg.norm(w[:, :3], axis=1))), time_reversal=time_reversal)

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return ``y`` (n, features) and :math:`\ln J` (n,) of phase-space points ``w`` (n, 6)."""
        raise NotImplementedError

    def positions(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        """Return positions (n, 3) of invariants ``y`` (n, features), the ignorable angles drawn from ``rng``."""
        raise NotImplementedError

    def velocities(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        """Return velocities (n, 3) at positions ``x`` (n, 3) from the velocity components of ``y`` (n, features)."""
        raise NotImplementedError

    def position_coordinates(self, x: Tensor) -> Tensor:
        """Return the components of ``y`` that depend on position only, (n, n_positions), of ``x`` (n, 3)."""
        return self.forward(torch.cat([x, torch.ones_like(x)], dim=-1))[0][:, : self.n_positions]

    def inverse(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        """Return phase-space points (n, 6) of invariants ``y``, the ignorable angles drawn from ``rng``."""
        x = self.positions(y, rng)
        return torch.cat([x, self.velocities(x, y, rng)], dim=-1)

    @property
    def flips(self) -> Tensor:
        """Signs (n_elements, features) of the discrete symmetries, the identity first."""
        generators = [*self.reflections, *([self.reversed_by_time] if self.time_reversal else [])]
        rows = []
        for switches in product([False, True], repeat=len(generators)):
            sign = torch.ones(self.features)
            for on, columns in zip(switches, generators, strict=True):
                if on:
                    sign[list(columns)] *= -1
            rows.append(sign)
        return torch.stack(rows)

    def _stretch(self, r: Tensor) -> Tensor:
        """Factor by which velocities are stretched, since speeds fall as r^(-1/2) outside the system."""
        return torch.sqrt(1 + r / self.scale)

    def to_dict(self) -> dict:
        """Return the map as plain values, for the store."""
        return {"symmetry": self.symmetry, "kind": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class Linear(CoordinateMap):
    """No symmetry: positions in units of the scale, velocities as they are."""

    symmetry = "none"
    features = 6
    n_positions = 3
    reversed_by_time = (3, 4, 5)

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.cat([w[..., :3] / self.scale, w[..., 3:]], dim=-1)
        return y, torch.full_like(w[..., 0], -3 * math.log(self.scale))

    def positions(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        return y[..., :3] * self.scale

    def velocities(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        return y[..., 3:]


@dataclass(frozen=True)
class Radial(CoordinateMap):
    r"""No symmetry: :math:`y = x \ln(1 + r/s) / r`, velocities stretched by :math:`\sqrt{1 + r/s}`.

    Equal steps of ``y`` are equal ratios of radius outside the scale s, so that a few stars far out no longer set the
    units in which the many inside are seen. Where orbits are radial, f has a cusp at zero angular momentum (it is
    :math:`f \propto L^{-2\beta}` for constant anisotropy, Binney & Tremaine 2008, eq. 4.66), which in the plane across
    the radius becomes flat when the tangential velocity is replaced by :math:`v_t |v_t|^{-\beta}`.

    Parameters
    ----------
    scale, time_reversal
        See `CoordinateMap`.
    anisotropy : float
        :math:`\beta = 1 - \langle v_t^2\rangle / 2\langle v_r^2\rangle` of the stretched velocities, learned from the
        stars.
    velocity_scale : float
        Velocity at which the power leaves things as they are, learned from the stars (the rms of a component of their
        stretched velocities), so that no unit of velocity is special.
    """

    anisotropy: float = 0.0
    velocity_scale: float = 1.0

    symmetry = "none"
    features = 6
    n_positions = 3
    reversed_by_time = (3, 4, 5)

    @classmethod
    def from_stars(cls, w: np.ndarray, *, time_reversal: bool = False) -> Radial:
        r = np.linalg.norm(w[:, :3], axis=1)
        scale = float(np.median(r))
        v_radial = np.einsum("ni,ni->n", w[:, :3], w[:, 3:]) / np.maximum(r, np.finfo(float).tiny)
        stretch = 1 + r / scale
        radial = np.mean(stretch * v_radial**2)
        total = np.mean(stretch * np.einsum("ni,ni->n", w[:, 3:], w[:, 3:]))
        anisotropy = float(np.clip(1.5 - 0.5 * total / max(radial, np.finfo(float).tiny), -1.0, 0.9))
        velocity_scale = float(np.sqrt(total / 3)) or 1.0
        return cls(scale, time_reversal, anisotropy, velocity_scale)

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        x, v = w[..., :3], w[..., 3:]
        r = _radius(x).clamp_min(1e-12 * self.scale)
        shrink = torch.log1p(r / self.scale) / r
        stretch = self._stretch(r)
        u, ratio = self._across(x / r, v * stretch, -self.anisotropy)
        log_jacobian = (
            2 * torch.log(shrink) - torch.log(self.scale + r) + 3 * torch.log(stretch)
            + math.log(1 - self.anisotropy) - 2 * self.anisotropy * torch.log(ratio)
        )
        return torch.cat([x * shrink, u], dim=-1), log_jacobian[..., 0]

    def _across(self, direction: Tensor, u: Tensor, power: float) -> tuple[Tensor, Tensor]:
        """Multiply the part of u across a direction by its length (in velocity scales) to a power; and that length."""
        along = (u * direction).sum(-1, keepdim=True) * direction
        ratio = (_radius(u - along) / self.velocity_scale).clamp_min(1e-12)
        return along + (u - along) * ratio**power, ratio

    def positions(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        length = _radius(y[..., :3]).clamp_min(1e-12)
        return y[..., :3] * (self.scale * torch.expm1(length) / length)

    def velocities(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        r = _radius(x)
        power = self.anisotropy / (1 - self.anisotropy)
        return self._across(x / r.clamp_min(1e-12 * self.scale), y[..., 3:], power)[0] / self._stretch(r)


@dataclass(frozen=True)
class Axisymmetric(CoordinateMap):
    r"""Symmetry about z and under z -> -z: (ln R/s, asinh z/h, and v_R, v_phi, v_z stretched); phi is uniform.

    Parameters
    ----------
    scale, time_reversal
        See `CoordinateMap`.
    height : float
        Length h that separates the plane from what lies above it, learned from the stars (their median abs(z)).
    """

    height: float = 1.0

    symmetry = "axisymmetric"
    features = 5
    n_positions = 2
    reversed_by_time = (2, 3, 4)
    reflections = ((1, 4),)

    @classmethod
    def from_stars(cls, w: np.ndarray, *, time_reversal: bool = False) -> Axisymmetric:
        scale = float(np.median(np.hypot(w[:, 0], w[:, 1])))
        return cls(scale=scale, height=float(np.median(np.abs(w[:, 2]))), time_reversal=time_reversal)

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        x, v = w[..., :3], w[..., 3:]
        big_r = _radius(x[..., :2])
        across = x[..., :2] / big_r
        v_radial = (across * v[..., :2]).sum(-1, keepdim=True)
        v_azimuthal = across[..., :1] * v[..., 1:2] - across[..., 1:] * v[..., :1]
        stretch = self._stretch(_radius(x))
        z = x[..., 2:]
        y = torch.cat(
            [
                torch.log(big_r / self.scale),
                torch.asinh(z / self.height),
                v_radial * stretch,
                v_azimuthal * stretch,
                v[..., 2:] * stretch,
            ],
            dim=-1,
        )
        log_jacobian = (
            3 * torch.log(stretch)
            - 2 * torch.log(big_r)
            - 0.5 * torch.log(z**2 + self.height**2)
            - math.log(2 * math.pi)
        )
        return y, log_jacobian[..., 0]

    def positions(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        phi = torch.as_tensor(rng.uniform(0, 2 * math.pi, len(y))).to(y)
        big_r = self.scale * torch.exp(y[..., 0])
        return torch.stack([big_r * phi.cos(), big_r * phi.sin(), self.height * torch.sinh(y[..., 1])], dim=-1)

    def velocities(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        u = y[..., 2:] / self._stretch(_radius(x))
        across = x[..., :2] / _radius(x[..., :2])
        v_x = across[..., 0] * u[..., 0] - across[..., 1] * u[..., 1]
        v_y = across[..., 1] * u[..., 0] + across[..., 0] * u[..., 1]
        return torch.stack([v_x, v_y, u[..., 2]], dim=-1)


@dataclass(frozen=True)
class Spherical(CoordinateMap):
    r"""Symmetry under rotations: (ln r/s, v_r and ln v_t, both stretched); three angles are uniform.

    The angles are those of position and the direction of the tangential velocity, hence
    :math:`f = p(r, v_r, v_t) / (8 \pi^2 r^2 v_t)`.
    """

    symmetry = "spherical"
    features = 3
    n_positions = 1
    reversed_by_time = (1,)

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor]:
        x, v = w[..., :3], w[..., 3:]
        r = _radius(x)
        v_radial = (x * v).sum(-1, keepdim=True) / r
        v_tangential = _radius(torch.linalg.cross(x, v)) / r
        stretch = self._stretch(r)
        y = torch.cat([torch.log(r / self.scale), v_radial * stretch, torch.log(v_tangential * stretch)], dim=-1)
        log_jacobian = (
            torch.log(stretch) - 3 * torch.log(r) - 2 * torch.log(v_tangential) - math.log(8 * math.pi**2)
        )
        return y, log_jacobian[..., 0]

    def positions(self, y: Tensor, rng: np.random.Generator) -> Tensor:
        direction = torch.as_tensor(rng.standard_normal((len(y), 3))).to(y)
        return direction / _radius(direction) * (self.scale * torch.exp(y[..., :1]))

    def velocities(self, x: Tensor, y: Tensor, rng: np.random.Generator) -> Tensor:
        radial, first, second = _tangent_frame(x)
        psi = torch.as_tensor(rng.uniform(0, 2 * math.pi, (len(y), 1))).to(y)
        along, across = y[..., 1:2], torch.exp(y[..., 2:3])
        return (along * radial + across * (psi.cos() * first + psi.sin() * second)) / self._stretch(_radius(x))


MAPS = {m.__name__: m for m in (Linear, Radial, Axisymmetric, Spherical)}


def coordinate_map(
    w: np.ndarray, symmetry: str = "none", *, position_map: str = "radial", time_reversal: bool = False
) -> CoordinateMap:
    """Choose the coordinate map of a symmetry, its scales learned from the stars.

    Parameters
    ----------
    w : ndarray, shape (n, 6)
        Stars.
    symmetry : {"none", "axisymmetric", "spherical"}
        Assumed symmetry.
    position_map : {"radial", "linear"}
        Map of positions where no symmetry is assumed.
    time_reversal : bool
        Whether f(x, v) = f(x, -v) is imposed too.

    Raises
    ------
    ValueError
        If the symmetry or the position map is unknown.

    Examples
    --------
    >>> import dfaccel as da
    >>> coordinate_map(da.Plummer().sample(2000, rng=0), "spherical").features
    3
    """
    if symmetry not in SYMMETRIES:
        raise ValueError(f"symmetry must be one of {', '.join(SYMMETRIES)}; got {symmetry!r}")
    if position_map not in ("radial", "linear"):
        raise ValueError(f"position_map must be radial or linear; got {position_map!r}")
    kind = {"axisymmetric": Axisymmetric, "spherical": Spherical}.get(symmetry, MAPS[position_map.capitalize()])
    return kind.from_stars(w, time_reversal=time_reversal)


def map_from_dict(values: dict) -> CoordinateMap:
    """Return the map that `CoordinateMap.to_dict` described.

    Raises
    ------
    ValueError
        If the description names no known map.
    """
    values = {k: v for k, v in values.items() if k != "symmetry"}
    kind = values.pop("kind", None)
    if kind not in MAPS:
        raise ValueError(f"coordinate map must be one of {', '.join(MAPS)}; got {kind!r}")
    return MAPS[kind](**values)
