"""Mass from accelerations: the density by Poisson's equation, the mass within a radius by Gauss's law."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dfaccel import _check as check
from dfaccel.axes import lattice
from dfaccel.gravity.accelerations import accelerations
from dfaccel.gravity.velocities import FEW, TOO_FEW, velocity_chunks, warn_of
from dfaccel.systems.base import DistributionFunction

_CHUNK = 100_000  # second derivatives set up at a time
_UNDETERMINED = 1e12  # condition of a normal matrix whose solution is rounding error in some direction


@dataclass(frozen=True)
class Mass:
    """Density or enclosed mass: ``members`` (n_flows, m), their mean ``value`` (m,), and whether ``supported`` (m,)."""

    value: np.ndarray
    members: np.ndarray
    supported: np.ndarray

    @property
    def standard_error(self) -> np.ndarray:
        """Sample standard deviation over the K members, (m,), not divided by sqrt(K); NaN for a single one.

        It contains the noise of the data only if each member learned its own bootstrap (`TrainConfig`), and never what
        all members share: the velocities, the limits of the flow and its training, a system out of equilibrium.
        `dfaccel.calibrate` finds, for accelerations, by what factor it falls short.
        """
        if len(self.members) == 1:
            return np.full_like(self.value, np.nan)
        return self.members.std(axis=0, ddof=1)


def mass_density(
    df: DistributionFunction, points: np.ndarray, *, G: float = 1.0, n_velocities: int = 1000,
    velocities: np.ndarray | None = None, rng: np.random.Generator | int = 0, warn: bool = True,
) -> Mass:
    r"""Return the total mass density that the accelerations imply, of dark matter as well as stars.

    .. math:: \rho = -\frac{\nabla\cdot a}{4\pi G}

    The acceleration at x solves :math:`\sum_k w_k g_k e_k = 0`, with :math:`e_k = v_k\cdot\nabla_x\ln f + a\cdot g_k`
    and :math:`g_k = \nabla_v \ln f`. The derivative of that equation gives the derivatives of a from second derivatives
    of ln f, without differences between neighbouring points. The velocities stay fixed and are weighted by f at the
    neighbouring point: :math:`\nabla_x w_k = w_k \nabla_x \ln f`. At x itself
    :math:`w_k = 1/(1 + |\nabla_x g_k|^2 / \mathrm{median}\,|\nabla_x g|^2)`, because large second derivatives are
    poorly known. Huber's weights look at first derivatives only, and a few velocities would spoil the result.

    Parameters
    ----------
    df : DistributionFunction
        Learned or exact distribution function: a `FlowEnsemble`, a system, or an object of your own class.
    points : ndarray, shape (m, 3)
        Positions, length.
    G : float
        Gravitational constant in the units of the stars.
    n_velocities : int
        Velocities per point.
    velocities : ndarray, shape (m, V, 3), optional
        Velocities to use instead of draws from f.
    rng : Generator or int
        Random generator, or its seed, for the velocities.
    warn : bool
        Whether to warn of points where training stars are too few.

    Returns
    -------
    Mass
        ``value`` (m,) is the mean density over members, mass / length^3, NaN where f vanishes or a component of the
        acceleration is undetermined; ``members`` (n_flows, m); ``standard_error`` (m,); ``supported`` (m,).

    Raises
    ------
    TypeError
        If ``df`` is not a distribution function or a number has the wrong type.
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
    points = check.points(points)
    check.positive(G, "G")
    parts = []
    for v, w in velocity_chunks(df, points, n_velocities, velocities, rng, _CHUNK):
        shape = (-1, *v.shape[:2])
        log_f, score, hessian = df.members_hessian(w)
        log_f, score, hessian = log_f.reshape(shape), score.reshape(*shape, 6), hessian.reshape(*shape, 3, 6)
        parts.append(-_divergence(v, log_f, score, hessian) / (4 * math.pi * G))
    members = np.concatenate(parts, axis=1)
    supported = df.stars_near(points) >= FEW
    if warn:
        warn_of(~supported, TOO_FEW)
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
    df: DistributionFunction, radii: np.ndarray, *, G: float = 1.0, n_directions: int = 32, n_velocities: int = 1000,
    rng: np.random.Generator | int = 0, warn: bool = True,
) -> Mass:
    r"""Return the mass within spheres around the origin, from the accelerations on them.

    .. math:: M(<r) = -\frac{r^2}{4\pi G} \int a\cdot\hat r\, \mathrm{d}\Omega

    (Gauss's law, for a mass distribution of any shape), the integral as a mean over evenly spread directions.

    Parameters
    ----------
    df : DistributionFunction
        Learned or exact distribution function: a `FlowEnsemble`, a system, or an object of your own class.
    radii : ndarray, shape (m,)
        Radii, length.
    G : float
        Gravitational constant in the units of the stars.
    n_directions : int
        Points on each sphere; if spherical symmetry is imposed they differ only in their velocities.
    n_velocities : int
        Velocities per point.
    rng : Generator or int
        Random generator, or its seed, for the velocities.
    warn : bool
        Whether to warn of points where training stars are too few.

    Returns
    -------
    Mass
        ``value`` (m,) is the mean enclosed mass over members; ``members`` (n_flows, m); ``standard_error`` (m,);
        ``supported`` (m,) tells whether all points of a sphere are.

    Raises
    ------
    TypeError
        If ``df`` is not a distribution function or a number has the wrong type.
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
    check.positive(G, "G")
    direction = lattice(n_directions)
    points = (radii[:, None, None] * direction).reshape(-1, 3)
    result = accelerations(df, points, n_velocities=n_velocities, rng=rng, warn=warn)
    inward = -(result.members.reshape(-1, len(radii), n_directions, 3) * direction).sum(-1).mean(-1)
    members = inward * radii**2 / G
    return Mass(members.mean(axis=0), members, result.supported.reshape(-1, n_directions).all(axis=1))
