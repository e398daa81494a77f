"""What every distribution function offers, and what the spherical systems share: units, truncation, drawing stars."""

from dataclasses import fields
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch

from dfaccel import _check as check
from dfaccel.coordinates import CoordinateMap, coordinate_map

Array = Any  # a NumPy array or a torch tensor; the same type comes out
CHUNK = 16_384  # stars drawn at a time: the work arrays stay in the cache


def namespace(array: Array) -> ModuleType:
    """Return the module, NumPy or torch, whose functions apply to ``array``."""
    return torch if isinstance(array, torch.Tensor) else np


def real(value: np.ndarray | torch.Tensor, name: str, size: int | None = None) -> Array:
    """Return ``value`` as a float array or tensor, or raise if its last axis does not have ``size`` entries."""
    if isinstance(value, torch.Tensor):
        array = value if value.is_floating_point() else value.double()
    else:
        array = check.numbers(value, name)
    if size is not None and (array.ndim == 0 or array.shape[-1] != size):
        raise ValueError(f"{name} must have shape (..., {size}); got {tuple(array.shape)}")
    return array


class DistributionFunction(Protocol):
    """A distribution function: a system, a `FlowEnsemble`, or a class of your own that inherits from this one.

    Your class gives ``log_df``, for NumPy arrays and torch tensors, and ``sample``; it inherits the other methods. A
    learned distribution function has K members; every other has K = 1.

    Examples
    --------
    >>> class Gaussian(DistributionFunction):
    ...     def log_df(self, w):
    ...         return -0.5 * (w**2).sum(-1) - 3 * np.log(2 * np.pi)
    ...
    ...     def sample(self, n, *, rng):
    ...         return np.random.default_rng(rng).standard_normal((n, 6))
    >>> Gaussian().score([[1.0, 0, 0, 0, 2, 0]])
    array([[-1., -0., -0., -0., -2., -0.]])
    """

    def log_df(self, w: Array) -> Array:
        """Return ln f (n,), per length^3 velocity^3, at phase-space points ``w`` (n, 6); -inf where f vanishes."""

    def sample(self, n: int, *, rng: np.random.Generator | int) -> np.ndarray:
        """Draw stars (n, 6)."""

    def score(self, w: np.ndarray) -> np.ndarray:
        """Return the gradient (n, 6) of ln f at ``w`` (n, 6)."""
        return self.members_score(w)[1][0]

    @torch.inference_mode(False)
    @torch.enable_grad()
    def members_score(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ln f (K, n) and its gradient (K, n, 6) at ``w`` (n, 6)."""
        points = torch.from_numpy(check.phase_space(w)).requires_grad_()
        log_f = self.log_df(points)
        (score,) = torch.autograd.grad(log_f.sum(), points)
        return log_f.detach().numpy()[None], score.numpy()[None]

    def neighbourhood(self, stars: np.ndarray) -> CoordinateMap:
        """Return the coordinates in which neighbours of ``stars`` (n, 6) are sought: those of no symmetry."""
        return coordinate_map(stars)

    def lenders(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return stars (n, 6) that lend their velocities."""
        return self.sample(n, rng=rng)

    def stars_near(self, points: np.ndarray) -> np.ndarray:
        """Return how many training stars lie near each of ``points`` (m, 3): infinitely many if nothing was learned."""
        return np.full(len(points), np.inf)


class SphericalSystem(DistributionFunction):
    """A spherical stellar system in equilibrium in the gravity of its own mass.

    A subclass is a frozen dataclass that gives the formulas below in natural units, G = mass = scale = 1; this class
    supplies the user's units, the truncation and the stars. Methods take NumPy arrays (or lists) and torch tensors of
    any shape (..., 3), (..., 6) or, for radii, (...). They return the same type; torch results can be differentiated.
    """

    mass: float
    scale: float
    G: float
    r_max: float

    # r2 is the squared radius, which is smooth at the centre; the radius is not
    def _potential(self, r2: Array) -> Array: ...
    def _pull(self, r2: Array) -> Array: ...  # M(<r) / r^3
    def _density(self, r2: Array) -> Array: ...
    def _enclosed(self, r: Array) -> Array: ...
    def _dispersion2(self, r: Array) -> Array: ...
    def _log_df(self, x: Array, v: Array, outside: Array) -> Array: ...  # -inf where unbound or `outside`
    def _radius(self, u: np.ndarray) -> np.ndarray: ...  # that encloses the mass u, 0 < u < 1
    def _velocity(self, r: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]: ...  # speed, cos(v, x)

    def __post_init__(self) -> None:
        check.settle(self, "mass", "scale", "G")
        check.settle(self, "r_max", infinite=True)

    @property
    def velocity_unit(self) -> float:
        """Natural unit of velocity, sqrt(G mass / scale)."""
        return float(np.sqrt(self.G * self.mass / self.scale))

    def _r2(self, x: Array) -> Array:
        x = real(x, "x", 3) / self.scale
        return (x * x).sum(-1)

    def potential(self, x: Array) -> Array:
        """Return the gravitational potential (...) at positions ``x`` (..., 3), zero at infinity."""
        return self.velocity_unit**2 * self._potential(self._r2(x))

    def acceleration(self, x: Array) -> Array:
        """Return the acceleration (..., 3) at positions ``x`` (..., 3), minus the potential's gradient; 0 at x = 0."""
        x = real(x, "x", 3) / self.scale
        return -(self.velocity_unit**2) / self.scale * self._pull((x * x).sum(-1))[..., None] * x

    def density(self, x: Array) -> Array:
        """Return the mass density (...) at ``x`` (..., 3) that makes the potential: the whole, untruncated system's."""
        with np.errstate(divide="ignore"):  # infinite at the centre of a cusp
            return self.mass / self.scale**3 * self._density(self._r2(x))

    def enclosed_mass(self, r: Array) -> Array:
        """Return the mass inside the radius r, also (...); the whole, untruncated system's."""
        return self.mass * self._enclosed(real(r, "r") / self.scale)

    def escape_speed(self, r: Array) -> Array:
        """Return the escape speed, the square root of minus twice the potential, at radius r, also (...)."""
        r = real(r, "r") / self.scale
        return self.velocity_unit * (-2 * self._potential(r * r)) ** 0.5

    def velocity_dispersion(self, r: Array) -> Array:
        """Return the radial velocity dispersion at radius r, also (...)."""
        return self.velocity_unit * self._dispersion2(real(r, "r") / self.scale) ** 0.5

    def log_df(self, w: Array) -> Array:
        """Return ln f (...) at ``w`` (..., 6), per length^3 velocity^3; f integrates to one within ``r_max``."""
        w = real(w, "w", 6)
        x, v = w[..., :3] / self.scale, w[..., 3:] / self.velocity_unit
        outside = (x * x).sum(-1) >= (self.r_max / self.scale) ** 2
        with np.errstate(divide="ignore"):  # infinite at the centre of a cusp, and on radial orbits for beta > 0
            log_f = self._log_df(x, v, outside)
        return log_f - np.log(self._kept) - 3 * np.log(self.scale * self.velocity_unit)

    @property
    def _kept(self) -> float:
        """Share of the mass inside r_max."""
        return 1.0 if np.isinf(self.r_max) else float(self._enclosed(np.float64(self.r_max / self.scale)))

    def sample(self, n: int, *, rng: np.random.Generator | int) -> np.ndarray:
        """Draw independent stars (n, 6) from the distribution function, exactly."""
        n, rng = check.count(n, "n"), np.random.default_rng(rng)
        w = np.empty((n, 6))
        edge = np.nextafter(self.r_max / self.scale, 0)
        for start in range(0, n, CHUNK):
            rows = w[start : start + CHUNK]
            u = np.maximum(rng.random(len(rows)), 2.0**-54) * self._kept
            r = np.minimum(self._radius(u), edge)
            _place(rows, r, *self._velocity(r, rng), rng)
        w[:, :3] *= self.scale
        w[:, 3:] *= self.velocity_unit
        return w

    def __repr__(self) -> str:
        """Show the parameters that differ from their defaults."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        shown = [f"{name}={value!r}".removesuffix(".0") for name, value in values.items()]
        return f"{type(self).__name__}({', '.join(shown)})"


def _place(w: np.ndarray, r: np.ndarray, speed: np.ndarray, cosine: np.ndarray, rng: np.random.Generator) -> None:
    """Write stars into the rows of w: isotropic positions, velocities turned at random about the radial direction."""
    mu, phi, psi = rng.random((3, len(r)))
    mu = 2 * mu - 1  # cosine of the polar angle
    nu = np.sqrt((1 - mu) * (1 + mu))
    phi *= 2 * np.pi
    psi *= 2 * np.pi
    cos, sin = np.cos(phi), np.sin(phi)
    radial = speed * cosine
    tangential = speed * np.sqrt((1 - cosine) * (1 + cosine))
    polar, azimuthal = tangential * np.cos(psi), tangential * np.sin(psi)
    planar = radial * nu + polar * mu
    w[:, 0] = r * nu * cos
    w[:, 1] = r * nu * sin
    w[:, 2] = r * mu
    w[:, 3] = planar * cos - azimuthal * sin
    w[:, 4] = planar * sin + azimuthal * cos
    w[:, 5] = radial * mu - polar * nu
