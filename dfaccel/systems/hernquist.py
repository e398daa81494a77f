"""The Hernquist sphere, with isotropic or with radially biased velocities."""

from dataclasses import dataclass, field

import numpy as np
from numpy.polynomial.polynomial import polyval  # for torch tensors, too

from dfaccel.systems.base import Array, SphericalSystem, namespace

# arcsin(sqrt B) / sqrt(B (1 - B)) = sum_k c_k B^k with c_0 = 1, c_k = c_{k-1} 2k / (2k + 1); in the bracket of the
# isotropic DF, (1 - 2B)(8B^2 - 8B - 3) = -3 - 2B + 24B^2 - 16B^3 removes the first two terms. Here: bracket / B^2.
_ARCSIN = np.cumprod([1.0] + [2 * k / (2 * k + 1) for k in range(1, 24)])
_BRACKET = 3 * _ARCSIN[2:] + np.pad([24.0, -16.0], (0, len(_ARCSIN) - 4))
_SMALL = 0.15  # binding energy below which the series is used


def _shape(b: Array, c: Array) -> Array:
    """Return K(B), which falls from 25.6 at B = 0 to 3 pi / 2 at B = 1, for 0 < b and c = 1 - b."""
    xp = namespace(b)
    small = b < _SMALL
    series = polyval(xp.where(small, b, 0.0), _BRACKET) * c**0.5
    b, c = xp.where(small, 0.5, b), xp.where(small, 0.5, c)
    root = b**0.5
    closed = ((1 - 2 * b) * (8 * b * b - 8 * b - 3) * c**0.5 + 3 * xp.arctan2(root, c**0.5) / root) / (b * b)
    return xp.where(small, series, closed)


@dataclass(frozen=True, repr=False)
class Hernquist(SphericalSystem):
    r"""The Hernquist (1990) sphere with constant velocity anisotropy 0 or 1/2.

    In natural units, with :math:`B = -E = 1/(1+r) - v^2/2 > 0` and the angular momentum :math:`L`,

    .. math::
        \Phi &= -\frac{1}{1 + r}, \qquad \rho = \frac{1}{2\pi r (1 + r)^3},\\
        f_{\beta=0} &= \frac{\sqrt{B}}{\sqrt{2}\,(2\pi)^3 (1-B)^2}
            \left[(1-2B)(8B^2-8B-3) + \frac{3\arcsin\sqrt{B}}{\sqrt{B(1-B)}}\right],\\
        f_{\beta=1/2} &= \frac{3 E^2}{4\pi^3 L}.

    Parameters
    ----------
    mass, scale, G, r_max : float
        Total mass, scale radius, gravitational constant in the user's units, and radius beyond which no stars are.
    beta : float
        Velocity anisotropy, 1 - (tangential / radial one-dimensional velocity dispersion)^2: 0 or 0.5.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a positive number, or ``beta`` is neither 0 nor 0.5.

    Notes
    -----
    Sources: Hernquist (1990), ApJ 356, 359, equations 2, 5, 10 and 17; for the anisotropic DF, Baes & Dejonghe (2002),
    A&A 393, 485. We write :math:`f \propto K(B)\,[B/(1-B)]^{5/2}`, so that nothing cancels or overflows. Isotropic
    speeds are drawn by rejection under that power; for beta = 1/2, (v/v_esc)^2 = 1 - U^{1/3}, and the angle is uniform.

    Examples
    --------
    >>> Hernquist(beta=0.5).sample(1000, rng=1).shape
    (1000, 6)
    """

    mass: float = 1.0
    scale: float = 1.0
    beta: float = 0.0
    G: float = 1.0
    r_max: float = field(default=np.inf, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta not in (0.0, 0.5):
            raise ValueError(f"beta must be 0 or 0.5; got {self.beta!r}")
        object.__setattr__(self, "beta", float(self.beta))

    def _potential(self, r2: Array) -> Array:
        return -1 / (1 + r2**0.5)

    def _pull(self, r2: Array) -> Array:
        r = namespace(r2).where(r2 == 0, 1.0, r2) ** 0.5
        return 1 / (r * (1 + r) ** 2)

    def _density(self, r2: Array) -> Array:
        r = r2**0.5
        return 1 / (2 * np.pi * r * (1 + r) ** 3)

    def _enclosed(self, r: Array) -> Array:
        return (r / (1 + r)) ** 2

    def _dispersion2(self, r: Array) -> Array:
        if self.beta:
            return 1 / (4 * (1 + r))
        # r (1+r)^3 sum_{k>=5} t^k / k, where the sum is -log(1-t) less its first four terms
        xp = namespace(r)
        t = 1 / (1 + r)
        small = t < 0.25
        series = t**5 * polyval(xp.where(small, t, 0.0), 1 / np.arange(5, 33))
        safe = xp.where(small | (r == 0), 1.0, r)
        closed = xp.log1p(1 / safe) - t * polyval(t, [1, 1 / 2, 1 / 3, 1 / 4])
        return r * (1 + r) ** 3 * xp.where(small, series, closed)

    def _log_df(self, x: Array, v: Array, outside: Array) -> Array:
        xp = namespace(x)
        r, kinetic = (x * x).sum(-1) ** 0.5, (v * v).sum(-1) / 2
        b = 1 / (1 + r) - kinetic
        outside = outside | (b <= 0)
        b = xp.where(outside, 0.5, b)
        if self.beta:
            moment = xp.linalg.cross(x, v)
            l2 = xp.where(outside, 1.0, (moment * moment).sum(-1))
            log_f = 2 * xp.log(b) - xp.log(l2) / 2 + np.log(3 / (4 * np.pi**3))
        else:
            c = xp.where(outside, 0.5, r / (1 + r) + kinetic)
            log_f = 2.5 * xp.log(b / c) + xp.log(_shape(b, c)) - np.log(np.sqrt(2) * (2 * np.pi) ** 3)
        return xp.where(outside, -np.inf, log_f)

    def _radius(self, u: np.ndarray) -> np.ndarray:
        return (u + np.sqrt(u)) / (1 - u)

    def _velocity(self, r: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if self.beta:
            q2, cosine = 1 - np.cbrt(rng.random(len(r))), np.cos(np.pi * rng.random(len(r)))
        else:
            q2, cosine = np.empty(len(r)), 2 * rng.random(len(r)) - 1
            for near in (True, False):
                rows = np.flatnonzero((r < 1) == near)
                while len(rows):
                    drawn, accepted = _propose(r[rows], near, rng)
                    q2[rows[accepted]] = drawn[accepted]
                    rows = rows[~accepted]
        return np.sqrt(2 * q2 / (1 + r)), cosine


def _propose(r: np.ndarray, near: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Propose (v/v_esc)^2 at the radii r and say which to keep."""
    # With q = v/v_esc and u = q^2 (1+r) / (r+q^2), which runs from 0 to 1, B/(1-B) = (1-u)/r, and the envelope
    # q^2 [B/(1-B)]^{5/2} dq becomes u^{1/2} (1-u)^{5/2} (1+r-u)^{-5/2} du. Near the centre we propose u = U^{2/3},
    # far out from Beta(3/2, 7/2), and accept with `ratio` to the power 5/2, multiplied by K(B)/25.6.
    if near:
        u = np.cbrt(rng.random(len(r))) ** 2
        ratio = (1 - u) * (1 + r) / (1 + r - u)
    else:
        u = rng.beta(1.5, 3.5, len(r))
        ratio = r / (1 + r - u)
    q2 = r * u / (1 + r - u)
    b = (1 - q2) / (1 + r)
    chance = ratio**2 * np.sqrt(ratio) * _shape(b, (r + q2) / (1 + r)) / 25.6
    return q2, rng.random(len(r)) < chance
