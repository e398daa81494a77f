"""What every spherical equilibrium system shares: units, truncation, and stars from radii and speeds."""

from abc import ABC, abstractmethod
from dataclasses import fields, replace
from types import ModuleType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dfaccel.checks import count, positive

__all__ = ["SphericalSystem"]

Array = Any  # a NumPy array or a torch tensor; the same type comes out
CHUNK = 16_384  # stars drawn at a time: the work arrays stay in the cache


def namespace(array: Array) -> ModuleType:
    """Return the module, NumPy or torch, whose functions apply to `array`."""
    return torch if isinstance(array, torch.Tensor) else np


def horner(coefficients: list[float], t: Array) -> Array:
    """Return the polynomial c0 + c1 t + c2 t^2 + ... by Horner's rule."""
    total = coefficients[-1] + 0 * t
    for coefficient in reversed(coefficients[:-1]):
        total = total * t + coefficient
    return total


def real(value: ArrayLike | torch.Tensor, name: str, size: int | None = None) -> Array:
    """Return `value` as a float array or tensor whose last axis has `size` entries.

    Raises
    ------
    ValueError
        If it has not.
    """
    if isinstance(value, torch.Tensor):
        array = value if value.is_floating_point() else value.double()
    else:
        array = np.asarray(value, dtype=np.float64)
    if size is not None and (array.ndim == 0 or array.shape[-1] != size):
        raise ValueError(f"{name} must have shape (..., {size}); got {tuple(array.shape)}")
    return array


class SphericalSystem(ABC):
    """A spherical stellar system in equilibrium in the gravity of its own mass.

    A subclass is a frozen dataclass that gives the formulas in natural units, G = mass = scale = 1, as the methods
    with an underscore; this class supplies the user's units, the truncation and the stars. Every method takes NumPy
    arrays (or lists) and torch tensors and returns the same type; torch results can be differentiated.
    """

    mass: float
    scale: float
    G: float
    r_max: float

    def __post_init__(self) -> None:
        """Check the parameters."""
        for name in ("mass", "scale", "G", "r_max"):
            object.__setattr__(self, name, positive(getattr(self, name), name, infinite=name == "r_max"))

    # ---- formulas in natural units; r2 is the squared radius (smooth at the centre, which r is not) ----

    @abstractmethod
    def _potential(self, r2: Array) -> Array: ...

    @abstractmethod
    def _pull(self, r2: Array) -> Array:
        """M(<r) / r^3."""

    @abstractmethod
    def _density(self, r2: Array) -> Array: ...

    @abstractmethod
    def _enclosed(self, r: Array) -> Array: ...

    @abstractmethod
    def _dispersion2(self, r: Array) -> Array: ...

    @abstractmethod
    def _log_df(self, x: Array, v: Array, outside: Array) -> Array:
        """Log f of the untruncated system; -inf for unbound stars and where `outside` is true."""

    @abstractmethod
    def _radius(self, u: NDArray) -> NDArray:
        """Radius that encloses the mass u, 0 < u < 1."""

    @abstractmethod
    def _velocity(self, r: NDArray, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
        """Speeds at the radii r and the cosines of their angles from the radial direction."""

    # ---- the public face, in the user's units ----

    @property
    def velocity_unit(self) -> float:
        """Natural unit of velocity, sqrt(G mass / scale)."""
        return float(np.sqrt(self.G * self.mass / self.scale))

    def _r2(self, x: Array) -> Array:
        x = real(x, "x", 3) / self.scale
        return (x * x).sum(-1)

    def potential(self, x: Array) -> Array:
        """Return the gravitational potential, zero at infinity.

        Parameters
        ----------
        x
            Cartesian positions, shape (..., 3), in units of length.

        Returns
        -------
        Array
            Potential, shape (...), in units of velocity squared.

        Raises
        ------
        ValueError
            If the last axis of `x` does not have three entries.
        """
        return self.velocity_unit**2 * self._potential(self._r2(x))

    def acceleration(self, x: Array) -> Array:
        """Return the acceleration, minus the gradient of the potential.

        Parameters
        ----------
        x
            Cartesian positions, shape (..., 3), in units of length. At the exact centre the result is zero.

        Returns
        -------
        Array
            Acceleration, shape (..., 3), in units of velocity squared per length.

        Raises
        ------
        ValueError
            If the last axis of `x` does not have three entries.
        """
        x = real(x, "x", 3) / self.scale
        return -(self.velocity_unit**2) / self.scale * self._pull((x * x).sum(-1))[..., None] * x

    def density(self, x: Array) -> Array:
        """Return the mass density that makes the potential (the whole system's, also when it is truncated).

        Parameters
        ----------
        x
            Cartesian positions, shape (..., 3), in units of length.

        Returns
        -------
        Array
            Density, shape (...), in units of mass per length cubed.

        Raises
        ------
        ValueError
            If the last axis of `x` does not have three entries.
        """
        with np.errstate(divide="ignore"):  # infinite at the centre of a cusp
            return self.mass / self.scale**3 * self._density(self._r2(x))

    def enclosed_mass(self, r: Array) -> Array:
        """Return the mass inside the radius r, shape (...) as `r` (the whole system's, also when it is truncated)."""
        return self.mass * self._enclosed(real(r, "r") / self.scale)

    def escape_speed(self, r: Array) -> Array:
        """Return the escape speed, the square root of minus twice the potential, at radius r, shape (...) as `r`."""
        r = real(r, "r") / self.scale
        return self.velocity_unit * (-2 * self._potential(r * r)) ** 0.5

    def velocity_dispersion(self, r: Array) -> Array:
        """Return the radial velocity dispersion at radius r, shape (...) as `r`, in units of velocity."""
        return self.velocity_unit * self._dispersion2(real(r, "r") / self.scale) ** 0.5

    def log_df(self, w: Array) -> Array:
        """Return the natural logarithm of the distribution function.

        Parameters
        ----------
        w
            Phase-space coordinates x y z vx vy vz, shape (..., 6), in units of length and velocity.

        Returns
        -------
        Array
            Log of the probability density per (length velocity)^3, shape (...): its exponential integrates to one
            over phase space, inside `r_max` if the system is truncated. Minus infinity outside the support.

        Raises
        ------
        ValueError
            If the last axis of `w` does not have six entries.
        """
        w = real(w, "w", 6)
        x, v = w[..., :3] / self.scale, w[..., 3:] / self.velocity_unit
        outside = (x * x).sum(-1) >= (self.r_max / self.scale) ** 2
        with np.errstate(divide="ignore"):  # infinite at the centre of a cusp, and on radial orbits for beta > 0
            log_f = self._log_df(x, v, outside)
        return log_f - np.log(self._kept) - 3 * np.log(self.scale * self.velocity_unit)

    def truncated(self, r_max: float) -> Self:
        """Return the same system without the stars at r >= `r_max`.

        The potential stays that of the whole system; the distribution function is divided by the share of the mass
        that is kept.

        Raises
        ------
        ValueError
            If `r_max` is not positive.
        """
        return replace(self, r_max=positive(r_max, "r_max", infinite=True))

    @property
    def _kept(self) -> float:
        """Share of the mass inside r_max."""
        return 1.0 if np.isinf(self.r_max) else float(self._enclosed(np.float64(self.r_max / self.scale)))

    def sample(self, n: int, rng: np.random.Generator | int) -> NDArray[np.float64]:
        """Draw independent stars from the distribution function, exactly.

        Parameters
        ----------
        n
            Number of stars.
        rng
            Random generator or seed.

        Returns
        -------
        ndarray
            Phase-space coordinates x y z vx vy vz, shape (n, 6), in units of length and velocity.

        Raises
        ------
        TypeError
            If `n` is not an integer.
        ValueError
            If ``n < 1``.
        """
        n, rng = count(n, "n"), np.random.default_rng(rng)
        w = np.empty((n, 6))
        edge = np.nextafter(self.r_max / self.scale, 0)
        for start in range(0, n, CHUNK):
            rows = w[start : start + CHUNK]
            u = np.maximum(rng.random(len(rows)), 2.0**-54) * self._kept
            r = np.minimum(self._radius(u), edge)
            speed, cosine = self._velocity(r, rng)
            _place(rows, r, speed, cosine, rng)
        w[:, :3] *= self.scale
        w[:, 3:] *= self.velocity_unit
        return w

    def __repr__(self) -> str:
        """Show the parameters that differ from their defaults."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        shown = [f"{name}={value!r}".removesuffix(".0") for name, value in values.items()]
        return f"{type(self).__name__}({', '.join(shown)})"


def _place(w: NDArray, r: NDArray, speed: NDArray, cosine: NDArray, rng: np.random.Generator) -> None:
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
