r"""Mass from accelerations: the density by Poisson's equation, the mass within a radius by Gauss's law."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from . import checks
from .boltzmann import (
    _FEW,
    DistributionFunction,
    _training_stars_near,
    _velocity_chunks,
    _warn_unsupported,
    accelerations,
)
from .ensemble import FlowEnsemble

_CHUNK = 100_000  # second derivatives set up at a time
_UNDETERMINED = 1e12  # condition of a normal matrix whose solution is rounding error in some direction


@dataclass(frozen=True)
class Mass:
    """A density or an enclosed mass, with its scatter over members.

    Parameters
    ----------
    value : ndarray, shape (m,)
        Mean over the members.
    members : ndarray, shape (n_flows, m)
        What each member gives.
    supported : ndarray, shape (m,)
        Whether enough training stars lie near, as for accelerations.
    """

    value: np.ndarray
    members: np.ndarray
    supported: np.ndarray

    @property
    def standard_error(self) -> np.ndarray:
        """Sample standard deviation over the K members, (m,), not divided by sqrt(K); NaN for a single one.

        It holds the noise of the data only where each member learned its own bootstrap (`TrainConfig`), and never what
        all members share: the velocities, the limits of the flow and its training, a system out of equilibrium.
        `dfaccel.calibrate` finds, for accelerations, by what factor it falls short.
        """
        if len(self.members) == 1:
            return np.full_like(self.value, np.nan)
        return self.members.std(axis=0, ddof=1)


def _derivatives(df: DistributionFunction | FlowEnsemble, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ln f (K, n), its gradient (K, n, 6) and that gradient's derivatives by position (K, n, 3, 6)."""
    if isinstance(df, FlowEnsemble):
        return df.members_hessian(w)
    points = torch.from_numpy(w).requires_grad_()
    log_f = df.log_df(points)
    (score,) = torch.autograd.grad(log_f.sum(), points, create_graph=True)
    rows = [torch.autograd.grad(score[:, i].sum(), points, retain_graph=True)[0] for i in range(3)]
    arrays = log_f.detach(), score.detach(), torch.stack(rows, dim=1)
    return tuple(a.numpy()[None] for a in arrays)


def mass_density(
    df: DistributionFunction | FlowEnsemble,
    points: np.ndarray,
    *,
    G: float = 1.0,
    n_velocities: int = 1000,
    velocities: np.ndarray | None = None,
    rng: np.random.Generator | int = 0,
) -> Mass:
    r"""Return the mass density that the accelerations imply, all of it, seen or not.

    .. math:: \rho = -\frac{\nabla\cdot a}{4\pi G}

    The acceleration at x solves :math:`\sum_k w_k g_k e_k = 0`, with :math:`e_k = v_k\cdot\nabla_x\ln f + a\cdot g_k`
    and :math:`g_k = \nabla_v \ln f`; differentiating that equation gives the derivatives of a from second derivatives
    of ln f, without differences between neighbouring points. The velocities stay where they are and count as f does
    at the neighbouring point: :math:`\nabla_x w_k = w_k \nabla_x \ln f`. At x itself
    :math:`w_k = 1/(1 + |\nabla_x g_k|^2 / \mathrm{median}\,|\nabla_x g|^2)`: second derivatives are known the worse the
    larger they are, and Huber's weights, which look at first derivatives, let a few velocities spoil the rest.

    Parameters
    ----------
    df : FlowEnsemble or system
        Learned or exact distribution function.
    points : ndarray, shape (m, 3)
        Positions, length.
    G : float
        Gravitational constant in the units of the stars.
    n_velocities : int
        Velocities a point.
    velocities : ndarray, shape (m, V, 3), optional
        Velocities to use instead of draws from f.
    rng : Generator or int
        Random generator, or its seed, for the velocities.

    Returns
    -------
    Mass
        Density, mass / length^3, of each member and their mean; NaN where f vanishes or a component is undetermined.

    Raises
    ------
    TypeError
        If a number is of the wrong type.
    ValueError
        If the points have the wrong shape or are not finite, or a number is out of range.

    Warns
    -----
    UserWarning
        If points lie where training stars are too few (``supported``).

    Examples
    --------
    >>> import dfaccel as da
    >>> galaxy, x = da.Plummer(), np.array([[0.5, 0.0, 0.0]])
    >>> bool(abs(mass_density(galaxy, x).value / galaxy.density(x) - 1) < 1e-6)
    True
    """
    points = checks.points(points)
    checks.positive(G, "G")
    parts = []
    for v, w in _velocity_chunks(df, points, n_velocities, velocities, rng, _CHUNK):
        shape = (-1, *v.shape[:2])
        log_f, score, hessian = _derivatives(df, w)
        log_f, score, hessian = log_f.reshape(shape), score.reshape(*shape, 6), hessian.reshape(*shape, 3, 6)
        parts.append(-_divergence(v, log_f, score, hessian) / (4 * math.pi * G))
    members = np.concatenate(parts, axis=1)
    supported = _training_stars_near(df, points) >= _FEW
    _warn_unsupported(supported)
    return Mass(members.mean(axis=0), members, supported)


def _divergence(v: np.ndarray, log_f: np.ndarray, score: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Return div a (K, m) from derivatives of ln f at velocities v (m, V, 3)."""
    outside = ~(np.isfinite(log_f) & np.isfinite(score).all(-1) & np.isfinite(hessian).all((-2, -1)))
    empty = outside.all(-1, keepdims=True)
    score = np.where(outside[..., None], 0.0, score)
    hessian = np.where(outside[..., None, None], 0.0, hessian)
    g, dg = score[..., 3:], hessian[..., 3:]
    size = (dg**2).sum((-2, -1))
    typical = np.nanmedian(np.where(outside & ~empty, np.nan, size), axis=-1, keepdims=True)
    weight = 1 / (1 + size / np.where(typical > 0, typical, 1.0))
    streaming = (v * score[..., :3]).sum(-1)
    weighted = weight[..., None] * g
    normal = weighted.mT @ g
    unknown = ~(np.linalg.cond(normal) < _UNDETERMINED)
    normal[unknown] = np.eye(3)
    a = -np.linalg.solve(normal, weighted.mT @ streaming[..., None])[..., None, :, 0]
    left = streaming + (a * g).sum(-1)
    change = np.einsum("mvj,kmvij->kmvi", v, hessian[..., :3]) + np.einsum("kmaj,kmvij->kmvi", a, dg)
    change += left[..., None] * score[..., :3]  # of the weights, which follow f
    right = change.mT @ weighted + np.einsum("kmv,kmvij->kmij", weight * left, dg)
    gradient = -np.linalg.solve(normal, right.mT)
    return np.where(unknown, np.nan, np.trace(gradient, axis1=-2, axis2=-1))


def enclosed_mass(
    df: DistributionFunction | FlowEnsemble,
    radii: np.ndarray,
    *,
    G: float = 1.0,
    n_directions: int = 32,
    n_velocities: int = 1000,
    rng: np.random.Generator | int = 0,
) -> Mass:
    r"""Return the mass within spheres around the origin, from the accelerations on them.

    .. math:: M(<r) = -\frac{r^2}{4\pi G} \int a\cdot\hat r\, \mathrm{d}\Omega

    (Gauss's law, for a mass distribution of any shape), the integral as a mean over evenly spread directions.

    Parameters
    ----------
    df : FlowEnsemble or system
        Learned or exact distribution function.
    radii : ndarray, shape (m,)
        Radii, length.
    G : float
        Gravitational constant in the units of the stars.
    n_directions : int
        Points on each sphere; where spherical symmetry is imposed they differ only in their velocities.
    n_velocities : int
        Velocities a point.
    rng : Generator or int
        Random generator, or its seed, for the velocities.

    Returns
    -------
    Mass
        Enclosed mass of each member and their mean; supported where all of the sphere is.

    Raises
    ------
    TypeError
        If a number is of the wrong type.
    ValueError
        If the radii are not a list of positive numbers, or a number is out of range.

    Warns
    -----
    UserWarning
        If points of a sphere lie where training stars are too few (``supported``).

    Examples
    --------
    >>> import dfaccel as da
    >>> galaxy = da.Plummer()
    >>> bool(abs(enclosed_mass(galaxy, np.array([1.0])).value / galaxy.enclosed_mass(1.0) - 1) < 1e-6)
    True
    """
    radii = np.asarray(radii, dtype=np.float64)
    if radii.ndim != 1 or not len(radii):
        raise ValueError(f"radii must have shape (m,), m >= 1; got {radii.shape}")
    if not (good := np.isfinite(radii) & (radii > 0)).all():
        raise ValueError(f"radii must be positive and finite; got {radii[good.argmin()]} at index {good.argmin()}")
    checks.positive(G, "G")
    checks.count(n_directions, "n_directions")
    i = np.arange(n_directions) + 0.5
    cosine, phi = 1 - 2 * i / n_directions, math.pi * (1 + math.sqrt(5)) * i  # a Fibonacci lattice
    sine = np.sqrt(1 - cosine**2)
    direction = np.stack([sine * np.cos(phi), sine * np.sin(phi), cosine], axis=1)
    points = (radii[:, None, None] * direction).reshape(-1, 3)
    result = accelerations(df, points, n_velocities=n_velocities, rng=rng)
    inward = -(result.members.reshape(-1, len(radii), n_directions, 3) * direction).sum(-1).mean(-1)
    members = inward * radii**2 / G
    return Mass(members.mean(axis=0), members, result.supported.reshape(-1, n_directions).all(axis=1))
