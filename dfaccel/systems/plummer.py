"""The Plummer sphere."""

from dataclasses import dataclass, field

import numpy as np

from dfaccel.systems.base import Array, SphericalSystem, namespace


@dataclass(frozen=True, repr=False)
class Plummer(SphericalSystem):
    r"""The Plummer (1911) sphere with isotropic velocities.

    In natural units, with the energy per mass :math:`E = v^2/2 + \Phi < 0`,

    .. math:: \Phi = -\frac{1}{\sqrt{1 + r^2}}, \qquad f = \frac{24\sqrt{2}}{7\pi^3}\,(-E)^{7/2}.

    Parameters
    ----------
    mass, scale, G, r_max : float
        Total mass, scale radius, gravitational constant in the user's units, and radius beyond which no stars are.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a positive number.

    Notes
    -----
    Sources: Dejonghe (1987), MNRAS 224, 13; for the sampling, Aarseth, Henon and Wielen (1974), A&A 37, 183.

    Examples
    --------
    >>> Plummer().sample(1000, rng=1).shape
    (1000, 6)
    """

    mass: float = 1.0
    scale: float = 1.0
    G: float = 1.0
    r_max: float = field(default=np.inf, kw_only=True)

    def _potential(self, r2: Array) -> Array:
        return -((1 + r2) ** -0.5)

    def _pull(self, r2: Array) -> Array:
        return (1 + r2) ** -1.5

    def _density(self, r2: Array) -> Array:
        return 3 / (4 * np.pi) * (1 + r2) ** -2.5

    def _enclosed(self, r: Array) -> Array:
        return (r / (1 + r * r) ** 0.5) ** 3

    def _dispersion2(self, r: Array) -> Array:
        return (1 + r * r) ** -0.5 / 6

    def _log_df(self, x: Array, v: Array, outside: Array) -> Array:
        xp = namespace(x)
        binding = (1 + (x * x).sum(-1)) ** -0.5 - (v * v).sum(-1) / 2
        outside = outside | (binding <= 0)
        log_f = 3.5 * xp.log(xp.where(outside, 1.0, binding)) + np.log(24 * np.sqrt(2) / (7 * np.pi**3))
        return xp.where(outside, -np.inf, log_f)

    def _radius(self, u: np.ndarray) -> np.ndarray:
        t = 2 / 3 * np.log(u)
        return np.sqrt(np.exp(t) / -np.expm1(t))

    def _velocity(self, r: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        q2 = rng.beta(1.5, 4.5, len(r))  # (v / v_esc)^2
        return np.sqrt(2 * q2 / np.sqrt(1 + r * r)), 2 * rng.random(len(r)) - 1
