"""Stellar streams, and a system with a stream in it."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dfaccel import _check as check
from dfaccel.systems.base import Array, DistributionFunction, namespace, real


@dataclass(frozen=True)
class Stream(DistributionFunction):
    r"""An arc of stars in the plane z = 0 that move along it: Gaussian but for the azimuth, which is uniform.

    .. math::
        f = \frac{\mathcal N(r;\, r_0, \sigma_r)\, \mathcal N(\theta;\, \pi/2, \sigma_\theta)}{\Delta\phi\; r^2
            \sin\theta}\; \mathcal N(v_r;\, 0, \sigma_v)\, \mathcal N(v_\theta;\, 0, \sigma_v)\,
            \mathcal N(v_\phi;\, v_0, \sigma_v), \qquad 0 < \phi < \Delta\phi .

    Parameters
    ----------
    radius, arc : float
        Mean radius :math:`r_0`, and angle :math:`\Delta\phi` that the stream spans, in radians, at most two pi.
    dispersions : tuple of three floats
        Spread in radius (a length), in polar angle (radians) and of each velocity component.
    speed : float, optional
        Mean speed :math:`v_0` along the arc; by default that of the circular orbit in the system it is mixed into.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a positive number, the arc exceeds a circle, or the stream reaches the centre or a pole.

    Notes
    -----
    Source: the public code normalising_flow_uncertainties (github.com/roy-physics), whose stream has no density, since
    its velocities have no dispersion in direction.

    Examples
    --------
    >>> Stream(speed=0.3).sample(100, rng=1).shape
    (100, 6)
    """

    radius: float = 10.0
    arc: float = math.pi / 4
    dispersions: tuple[float, float, float] = (0.01, 0.01, 0.01)
    speed: float | None = None

    def __post_init__(self) -> None:
        check.settle(self, "radius", "arc", *([] if self.speed is None else ["speed"]))
        if np.shape(self.dispersions) != (3,):
            raise ValueError(f"dispersions must be three: of radius, polar angle, velocity; got {self.dispersions}")
        object.__setattr__(self, "dispersions", tuple(check.positive(d, "dispersions") for d in self.dispersions))
        if self.arc > 2 * math.pi:
            raise ValueError(f"arc must be at most two pi; got {self.arc}")
        if self.radius < 8 * self.dispersions[0] or self.dispersions[1] > math.pi / 16:
            raise ValueError("dispersions must keep the stream away from the centre and the poles: the radius at least "
                             f"8 and pi/2 at least 8 of them; got radius {self.radius}, dispersions {self.dispersions}")

    def _known_speed(self) -> float:
        if self.speed is None:
            raise ValueError("the stream has no speed: give one, or mix it into a system for that of a circular orbit")
        return self.speed

    def sample(self, n: int, *, rng: np.random.Generator | int) -> np.ndarray:
        """Draw stars (n, 6)."""
        n, rng, speed = check.count(n, "n"), np.random.default_rng(rng), self._known_speed()
        spread_r, spread_theta, spread_v = self.dispersions
        phi = rng.uniform(0, self.arc, n)
        r = self.radius + spread_r * rng.standard_normal(n)
        theta = math.pi / 2 + spread_theta * rng.standard_normal(n)
        v = spread_v * rng.standard_normal((n, 3)) + [0, 0, speed]
        frame = _frame(np.sin(theta), np.cos(theta), np.sin(phi), np.cos(phi), np)
        return np.hstack([r[:, None] * frame[:, 0], np.einsum("ni,nij->nj", v, frame)])

    def log_df(self, w: Array) -> Array:
        """Return ln f (...) at ``w`` (..., 6), per length^3 velocity^3, minus infinity outside the arc."""
        w, speed = real(w, "w", 6), self._known_speed()
        xp = namespace(w)
        x, v = w[..., :3], w[..., 3:]
        big_r = (x[..., 0] ** 2 + x[..., 1] ** 2) ** 0.5
        axis = big_r == 0  # where there is no azimuth, and no star
        big_r = xp.where(axis, 1.0, big_r)
        r = (big_r**2 + x[..., 2] ** 2) ** 0.5
        sin, cos = big_r / r, x[..., 2] / r
        v = (_frame(sin, cos, x[..., 1] / big_r, x[..., 0] / big_r, xp) * v[..., None, :]).sum(-1)
        phi = xp.arctan2(x[..., 1], x[..., 0])
        phi = xp.where(phi < 0, phi + 2 * math.pi, phi)
        spread_r, spread_theta, spread_v = self.dispersions
        misfit = (
            ((r - self.radius) / spread_r) ** 2
            + ((xp.arctan2(big_r, x[..., 2]) - math.pi / 2) / spread_theta) ** 2
            + (v[..., 0] ** 2 + v[..., 1] ** 2 + (v[..., 2] - speed) ** 2) / spread_v**2
        )
        norm = 2.5 * math.log(2 * math.pi) + math.log(spread_r * spread_theta * spread_v**3 * self.arc)
        log_f = -0.5 * misfit - norm - xp.log(r * r * sin)
        return xp.where(axis | (phi > self.arc), -math.inf, log_f)


def _frame(sin_theta: Array, cos_theta: Array, sin_phi: Array, cos_phi: Array, xp: Any) -> Array:
    """Return the unit vectors along r, theta and phi, (..., 3, 3)."""
    along_r = (sin_theta * cos_phi, sin_theta * sin_phi, cos_theta)
    along_theta = (cos_theta * cos_phi, cos_theta * sin_phi, -sin_theta)
    along_phi = (-sin_phi, cos_phi, 0 * sin_phi)
    return xp.stack([xp.stack(row, -1) for row in (along_r, along_theta, along_phi)], -2)


@dataclass(frozen=True)
class Mixture(DistributionFunction):
    """A system with a fraction of its stars in a stream, made by `mix`; gravity is that of the system alone."""

    system: Any
    stream: Stream
    fraction: float

    def n_stream(self, n: int) -> int:
        """Return how many of n stars belong to the stream, or raise if none would although the fraction is not zero."""
        if self.fraction and self.fraction * n < 1 - 1e-9:
            raise ValueError(f"n must be at least {math.ceil(1 / self.fraction - 1e-9)} for a fraction of "
                             f"{self.fraction:g} to give one star of the stream; got {n}")
        return round(self.fraction * n)

    def sample(self, n: int, *, rng: np.random.Generator | int) -> np.ndarray:
        """Draw stars (n, 6) in random order, `n_stream` of them of the stream."""
        of_system, of_stream, order = np.random.default_rng(rng).spawn(3)
        n_stream = self.n_stream(check.count(n, "n"))
        parts = [self.system.sample(n - n_stream, rng=of_system)] if n > n_stream else []
        parts += [self.stream.sample(n_stream, rng=of_stream)] if n_stream else []
        return order.permutation(np.concatenate(parts), axis=0)

    def log_df(self, w: Array) -> Array:
        """Return ln f (...) at ``w`` (..., 6), or raise TypeError if the system has no ``log_df``."""
        w = real(w, "w", 6)
        if self.fraction == 1:
            return self.stream.log_df(w)
        if not hasattr(self.system, "log_df"):
            raise TypeError(f"{type(self.system).__name__} has no distribution function in closed form")
        if not self.fraction:
            return self.system.log_df(w)
        parts = self.system.log_df(w) + math.log1p(-self.fraction), self.stream.log_df(w) + math.log(self.fraction)
        return namespace(w).logaddexp(*parts)

    def acceleration(self, x: Array) -> Array:
        """Return the acceleration (..., 3) at ``x`` (..., 3)."""
        return self.system.acceleration(x)

    def potential(self, x: Array) -> Array:
        """Return the potential (...) at ``x`` (..., 3)."""
        return self.system.potential(x)


def mix(system: Any, stream: Stream, fraction: float) -> Mixture:
    """Put a stream into a system, so that it makes up a fraction of the stars.

    Parameters
    ----------
    system, stream, fraction : system, Stream, float
        Object with ``sample``, ``acceleration`` and ``potential`` (only with its ``log_df`` has the mixture one),
        stream, by default at the speed of a circular orbit, and its share of the stars, 0 to 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what is said above, or the stream, with two dispersions, is not bound at its radius.

    Examples
    --------
    >>> import dfaccel as da
    >>> mix(da.Plummer(), da.Stream(radius=10.0), 0.01).sample(1000, rng=1).shape
    (1000, 6)
    """
    fraction = check.positive(fraction, "fraction", zero=True)
    if fraction > 1:
        raise ValueError(f"fraction must be at most 1; got {fraction}")
    missing = [name for name in ("sample", "acceleration", "potential") if not hasattr(system, name)]
    if missing or not isinstance(stream, Stream):
        lacks = f" without {', '.join(missing)}" if missing else ""
        raise TypeError("mix needs a system with sample, acceleration and potential, and a Stream; got "
                        f"{type(system).__name__}{lacks} and {type(stream).__name__}")
    x = torch.tensor([stream.radius, 0.0, 0.0], dtype=torch.float64)
    if stream.speed is None:
        pull = float(system.acceleration(x)[0])
        if not pull < 0:
            raise ValueError(f"there is no circular orbit at radius {stream.radius:g}: gravity does not point inwards")
        stream = replace(stream, speed=math.sqrt(-pull * stream.radius))
    escape = math.sqrt(max(0.0, -2 * float(system.potential(x))))
    if stream.speed + 2 * stream.dispersions[2] >= escape:
        raise ValueError(f"the stream is not bound: its speed is {stream.speed:.4g}, the escape speed at radius "
                         f"{stream.radius:g} is {escape:.4g}, and two dispersions {2 * stream.dispersions[2]:.4g}")
    return Mixture(system, stream, fraction)
