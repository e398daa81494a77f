"""A galaxy with a bar that turns: the potential of Long & Murali, and a disc of stars in equilibrium with it."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from dfaccel import _check as check
from dfaccel.systems.base import Array, namespace, real
from dfaccel.systems.disc import MiyamotoNagai, unmixed
from dfaccel.systems.orbits import integrate

_GROUPS = 10  # of stars that are followed for different times


@dataclass(frozen=True)
class Bar:
    r"""The softened needle of Long & Murali (1992) along x, which turns about z with a speed of its own.

    .. math:: \Phi = \frac{GM}{2a} \ln\frac{x - a + T_-}{x + a + T_+}, \quad
        T_\pm = \sqrt{(a \pm x)^2 + y^2 + (b + \sqrt{c^2 + z^2})^2}

    Parameters
    ----------
    mass, a, b, c, G : float
        Mass, half length of the needle, softening along y and z, softening along z alone, gravitational constant.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a positive number.

    Notes
    -----
    Source: Long & Murali (1992), ApJ 397, 44, eqs 6-8.

    Examples
    --------
    >>> float(Bar(mass=1.0, a=1e-3, b=0.5, c=0.5).potential([0.0, 0, 0]).round(6))
    -1.0
    """

    mass: float = 0.3
    a: float = 1.0
    b: float = 0.2
    c: float = 0.15
    G: float = 1.0

    def __post_init__(self) -> None:
        check.settle(self, "mass", "a", "b", "c", "G")

    def _parts(self, x: Array) -> tuple[Array, ...]:
        """Return x, y, z, h = b + sqrt(z^2 + c^2), sqrt(z^2 + c^2), T- and T+."""
        xp = namespace(x)
        x0, x1, x2 = xp.moveaxis(x, -1, 0)
        s = xp.sqrt(x2 * x2 + self.c**2)
        h = self.b + s
        across = x1 * x1 + h * h
        return x0, x1, x2, h, s, xp.sqrt((self.a - x0) ** 2 + across), xp.sqrt((self.a + x0) ** 2 + across)

    def potential(self, x: Array) -> Array:
        """Return the potential (...) at positions ``x`` (..., 3), zero at infinity."""
        x0, _, _, _, _, minus, plus = self._parts(real(x, "x", 3))
        return self.G * self.mass / (2 * self.a) * namespace(x0).log((x0 - self.a + minus) / (x0 + self.a + plus))

    def acceleration(self, x: Array) -> Array:
        """Return the acceleration (..., 3) at positions ``x`` (..., 3)."""
        x0, x1, x2, h, s, minus, plus = self._parts(real(x, "x", 3))
        both, product = minus + plus, minus * plus
        pull = self.G * self.mass / (2 * product)
        across = pull * (both - 4 * x0 * x0 / both) / (x1 * x1 + h * h)
        return namespace(x0).stack([-4 * pull * x0 / both, -across * x1, -across * x2 * h / s], -1)


@dataclass(frozen=True)
class BarredDisc:
    r"""A disc of stars in equilibrium in a turning bar, a `MiyamotoNagai` disc and a halo (a Plummer sphere).

    Stars begin as those of a warm `Disc` in the same potential. Each tenth of them is followed for another time between
    ``time`` and twice that, in the frame of the bar: the mean over time of a distribution function approaches a steady
    one. Positions and velocities are given along the bar's axes; the velocities are those of a frame at rest.

    Parameters
    ----------
    pattern_speed : float
        Angular speed of the bar, anticlockwise. The default one puts corotation at 1.2 half lengths of the bar.
    bar, disc, halo : Bar, MiyamotoNagai, MiyamotoNagai
        Parts of the potential; the stars have no mass. A halo has a = 0.
    scale, height, dispersion, time : float
        As in `Disc`, of the stars as they begin; and the shortest time for which orbits are followed.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a positive number, or the pattern speed not finite.

    Examples
    --------
    >>> BarredDisc(time=0.5).sample(100, rng=1).shape
    (100, 6)
    """

    pattern_speed: float | None = None
    bar: Bar = field(default_factory=Bar)
    disc: MiyamotoNagai = field(default_factory=lambda: MiyamotoNagai(mass=0.7, a=0.8, b=0.2))
    halo: MiyamotoNagai = field(default_factory=lambda: MiyamotoNagai(mass=3.0, a=0.0, b=3.0))
    scale: float = 1.0
    height: float = 0.15
    dispersion: float = 0.25
    time: float = 80.0

    def __post_init__(self) -> None:
        check.settle(self, "scale", "height", "dispersion", "time")
        if self.pattern_speed is not None:
            if not (isinstance(self.pattern_speed, (int, float)) and math.isfinite(self.pattern_speed)):
                raise ValueError(f"pattern_speed must be a finite number; got {self.pattern_speed!r}")
        else:
            radius = 1.2 * self.bar.a
            object.__setattr__(self, "pattern_speed", float(self.circular_speed(radius) / radius))

    def acceleration(self, x: Array) -> Array:
        """Return the acceleration (..., 3) at positions ``x`` (..., 3) along the bar's axes."""
        return sum(part.acceleration(x) for part in (self.bar, self.disc, self.halo))

    def potential(self, x: Array) -> Array:
        """Return the potential (...) at positions ``x`` (..., 3) along the bar's axes."""
        return sum(part.potential(x) for part in (self.bar, self.disc, self.halo))

    def circular_speed(self, R: Array) -> Array:
        """Return the circular speed (...) at ``R`` (...) in the plane, of the azimuthal mean of the pull."""
        phi, R = np.linspace(0, 2 * np.pi, 64, endpoint=False), np.asarray(R, dtype=np.float64)[..., None]
        u = np.stack([np.cos(phi), np.sin(phi), 0 * phi], axis=-1)
        return np.sqrt(-(R[..., 0]) * (self.acceleration(R[..., None] * u) * u).sum(-1).mean(-1))

    def rate(self, w: torch.Tensor) -> torch.Tensor:
        """Return an upper bound (n,) of the rate at which the force on stars ``w`` (n, 6) changes."""
        # the frequency of the fastest small oscillation, along z at the centre
        return torch.full_like(w[:, 0], math.sqrt(-float(self.acceleration(np.array([0.0, 0.0, 1e-4]))[2]) / 1e-4))

    def sample(self, n: int, *, rng: np.random.Generator | int) -> np.ndarray:
        """Draw independent stars (n, 6)."""
        w = unmixed(self, n, rng, self.scale, 5 * self.scale, self.height, self.dispersion)
        for k in range(_GROUPS):
            w[k::_GROUPS] = integrate(w[k::_GROUPS], self, self.time * (1 + k / _GROUPS), step=0.3)
        return w
