"""The Miyamoto-Nagai potential, and a disc of stars in equilibrium in it."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.special import gammainc, gammaincinv

from dfaccel import _check as check
from dfaccel.systems.base import Array, namespace, real
from dfaccel.systems.orbits import integrate


def _parts(x: Array, a: Array, b: Array) -> tuple[Array, Array, Array]:
    """Return R^2, s = sqrt(z^2 + b^2) and D^2 = R^2 + (a + s)^2."""
    xp = namespace(x)
    x0, x1, x2 = xp.moveaxis(x, -1, 0)
    big_r2 = x0 * x0 + x1 * x1
    s = xp.sqrt(x2 * x2 + b**2)
    q = s + a
    return big_r2, s, big_r2 + q * q


def disc_potential(x: Array, strength: Array, a: Array, b: Array) -> Array:
    """Return the potential (...) at ``x`` (..., 3) of discs of strength G M; their parameters may be arrays (...)."""
    return -strength / _parts(x, a, b)[2] ** 0.5


def disc_acceleration(x: Array, strength: Array, a: Array, b: Array) -> Array:
    """Return their acceleration (..., 3)."""
    _, s, d2 = _parts(x, a, b)
    xp = namespace(x)
    inverse = xp.rsqrt(d2) if xp is torch else d2**-0.5
    pull = -strength * inverse * inverse * inverse
    parts = xp.moveaxis(x, -1, 0) * pull
    parts[2] = pull * (1 + a / s) * x[..., 2]
    return xp.moveaxis(parts, 0, -1)


def disc_density(x: Array, mass: Array, a: Array, b: Array) -> Array:
    """Return their mass density (...)."""
    big_r2, s, d2 = _parts(x, a, b)
    shape = a * big_r2 + (a + 3 * s) * (a + s) ** 2
    return b**2 * mass / (4 * np.pi) * shape / (d2**2.5 * s**3)


@dataclass(frozen=True)
class MiyamotoNagai:
    r"""The Miyamoto & Nagai (1975) potential; its methods take NumPy arrays or torch tensors and return the same.

    .. math:: \Phi = -\frac{GM}{\sqrt{R^2 + (a + \sqrt{z^2 + b^2})^2}}

    Parameters
    ----------
    mass, a, b, G : float
        Total mass, scale lengths along and across the plane, and gravitational constant in the user's units.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a positive number; only ``a`` may be zero, which makes a Plummer sphere.

    Notes
    -----
    Source: Miyamoto & Nagai (1975), PASJ 27, 533; Binney & Tremaine (2008), eq. 2.69.

    Examples
    --------
    >>> float(MiyamotoNagai(a=0.0, b=1.0).potential([0.0, 0.0, 0.0]))
    -1.0
    """

    mass: float = 1.0
    a: float = 1.0
    b: float = 0.1
    G: float = 1.0

    def __post_init__(self) -> None:
        check.settle(self, "mass", "b", "G")
        check.settle(self, "a", zero=True)

    def potential(self, x: Array) -> Array:
        """Return the potential (...) at positions ``x`` (..., 3), zero at infinity."""
        return disc_potential(real(x, "x", 3), self.G * self.mass, self.a, self.b)

    def acceleration(self, x: Array) -> Array:
        """Return the acceleration (..., 3) at positions ``x`` (..., 3), minus the gradient of the potential."""
        return disc_acceleration(real(x, "x", 3), self.G * self.mass, self.a, self.b)

    def density(self, x: Array) -> Array:
        """Return the mass density (...) at positions ``x`` (..., 3), that of Poisson's equation."""
        return disc_density(real(x, "x", 3), self.mass, self.a, self.b)

    def escape_speed(self, x: Array) -> Array:
        """Return the escape speed (...) at positions ``x`` (..., 3)."""
        return (-2 * self.potential(x)) ** 0.5

    def circular_speed(self, radius: Array) -> Array:
        """Return the speed (...) of the circular orbit in the plane at ``radius`` (...)."""
        radius = real(radius, "radius")
        return (self.G * self.mass) ** 0.5 * radius / (radius * radius + (self.a + self.b) ** 2) ** 0.75

    def rate(self, w: Array) -> Array:
        """Return an upper bound (...) of the rate at which the force on a star ``w`` (..., 6) changes on its orbit."""
        w = real(w, "w", 6)
        x = w[..., :3]
        flat = namespace(x).stack([x[..., 0], x[..., 1], 0 * x[..., 2]], -1)
        _, s, d2 = _parts(flat, self.a, self.b)
        vertical = (self.G * self.mass * (1 + self.a / s)) ** 0.5 / d2**0.75  # frequency of small oscillations in z
        crossing = w[..., 5] ** 2 + 2 * (self.potential(x) - self.potential(flat))  # squared v_z in the plane
        return vertical + crossing**0.5 / self.b


@dataclass(frozen=True)
class Disc:
    r"""A cool disc of stars in the gravity of a `MiyamotoNagai` potential, mixed along its orbits to equilibrium.

    It has no closed distribution function. Stars begin with a surface density :math:`\propto e^{-R/s}`, exponential
    heights, and :math:`v_\phi = v_c (1 - \lambda |\delta_1|)`, :math:`v_R = \sigma v_c \delta_2`,
    :math:`v_z = \sigma v_c \delta_3`, with standard normal :math:`\delta` and :math:`v_c^2 = -R a_R`.

    Parameters
    ----------
    field : MiyamotoNagai
        Potential; the stars have no mass.
    scale, r_max, height : float
        Scale length s, radius at which the initial disc ends, and mean distance of the initial stars from the plane.
    dispersion, lag : float
        :math:`\sigma` and :math:`\lambda`, how much hotter and slower than circular orbits the initial stars are.
    time : float, optional
        How long orbits are followed, a length over a velocity; by default :math:`600 [(a+b)/1.1]^{3/2} / \sqrt{GM}`.

    Raises
    ------
    TypeError, ValueError
        If the field is another one, a parameter is not a positive number, or ``dispersion`` or ``lag`` not in [0, 1).

    Notes
    -----
    Source: the public code normalising_flow_uncertainties (github.com/roy-physics), whose disc ends at one scale length
    and has a surface density that falls as exp(-R) / R.

    Examples
    --------
    >>> Disc(time=1.0).sample(1000, rng=1).shape
    (1000, 6)
    """

    flat = True  # the score card has points of its own for it

    field: MiyamotoNagai = field(default_factory=MiyamotoNagai)
    scale: float = 1.0
    r_max: float = 5.0
    height: float = 0.1
    dispersion: float = 0.05
    lag: float = 0.1
    time: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.field, MiyamotoNagai):
            raise TypeError(f"field must be a MiyamotoNagai potential; got {type(self.field).__name__}")
        if self.time is None:
            dynamical = ((self.field.a + self.field.b) / 1.1) ** 1.5 / math.sqrt(self.field.G * self.field.mass)
            object.__setattr__(self, "time", 600.0 * dynamical)
        check.settle(self, "scale", "r_max", "height", "time")
        check.settle(self, "dispersion", "lag", zero=True)
        for name in ("dispersion", "lag"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below one, in units of the circular speed; got {getattr(self, name)}")

    def initial(self, n: int, rng: np.random.Generator | int) -> np.ndarray:
        """Draw stars (n, 6) as they are before their orbits are followed."""
        return unmixed(self.field, n, rng, self.scale, self.r_max, self.height, self.dispersion, self.lag)

    def sample(self, n: int, *, rng: np.random.Generator | int, **options: Any) -> np.ndarray:
        """Draw stars (n, 6) of the disc in equilibrium; options are the checkpoint and device of `orbits.integrate`."""
        return integrate(self.initial(n, rng), self.field, self.time, step=0.3, **options)

    def potential(self, x: Array) -> Array:
        """Return the potential (...) at positions ``x`` (..., 3)."""
        return self.field.potential(x)

    def acceleration(self, x: Array) -> Array:
        """Return the acceleration (..., 3) at positions ``x`` (..., 3)."""
        return self.field.acceleration(x)


def unmixed(
    field: Any, n: int, rng: np.random.Generator | int, scale: float, r_max: float, height: float, dispersion: float,
    lag: float = Disc.lag,
) -> np.ndarray:
    """Draw stars (n, 6) as those of a `Disc` begin, in a field that has ``acceleration`` and ``potential``."""
    n, rng = check.count(n, "n"), np.random.default_rng(rng)
    u = np.maximum(rng.random(n), 2.0**-54)
    big_r = scale * gammaincinv(2, u * gammainc(2, r_max / scale))
    phi = rng.uniform(0, 2 * np.pi, n)
    cos, sin = np.cos(phi), np.sin(phi)
    x = np.stack([big_r * cos, big_r * sin, rng.laplace(0, height, n)], axis=-1)
    pull = field.acceleration(x)
    speed = np.sqrt(-(x[:, 0] * pull[:, 0] + x[:, 1] * pull[:, 1]))
    escape, deviates = (-2 * field.potential(x)) ** 0.5, rng.standard_normal((3, n))
    while True:
        v_phi = speed * (1 - lag * np.abs(deviates[0]))
        v_r, v_z = dispersion * speed * deviates[1:]
        unbound = v_phi**2 + v_r**2 + v_z**2 >= escape**2
        if not unbound.any():
            return np.column_stack([x, v_r * cos - v_phi * sin, v_r * sin + v_phi * cos, v_z])
        deviates[:, unbound] = rng.standard_normal((3, int(unbound.sum())))  # large dispersions need this
