r"""Accelerations from a distribution function: the collisionless Boltzmann equation, inverted.

In equilibrium :math:`v\cdot\nabla_x \ln f + a(x)\cdot\nabla_v \ln f = 0` at every velocity. At one point x that is one
linear equation in the three components of a for each velocity, so many velocities determine a by least squares (An et
al. 2021, section 2). Only f enters, never a potential.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.spatial import cKDTree

from . import checks
from .coordinates import CoordinateMap, coordinate_map
from .ensemble import N_REPRESENTATIVE, FlowEnsemble

_CHUNK = 400_000  # equations set up at a time
_ITERATIONS = 10  # of the weights; the solution then moves by less than the noise of the velocities
_CONDITION_LIMIT = 100.0  # beyond it one direction of a is known 100 times worse than another
_REACH = 0.5  # neighbourhood, in the flow's position coordinates, in which training stars are counted
_FEW = 100  # training stars


class DistributionFunction(Protocol):
    """What the inversion needs: a system of `dfaccel.systems`, a `FlowEnsemble`, or an object of your own."""

    def log_df(self, w: torch.Tensor) -> torch.Tensor:
        """Return ln f (n,) of w (n, 6), differentiable."""

    def sample(self, n: int, *, rng: np.random.Generator | int) -> np.ndarray:
        """Return stars (n, 6)."""


@dataclass(frozen=True)
class Accelerations:
    """Accelerations and how far to trust them.

    Parameters
    ----------
    points : ndarray, shape (m, 3)
        Positions.
    value : ndarray, shape (m, 3)
        Accelerations of the ensemble's distribution function, velocity^2 / length; NaN where f vanishes at every
        velocity.
    members : ndarray, shape (n_flows, m, 3)
        Accelerations of each member.
    covariance : ndarray, shape (m, 3, 3)
        Covariance over members; NaN for a single one.
    condition : ndarray, shape (m,)
        Condition number of the directions of the velocity gradients: 1 if they determine every component of a alike.
    residual : ndarray, shape (m,)
        What is left of the stationary Boltzmann equation, relative to its first term: 0 in perfect equilibrium, 1 if
        no acceleration explains the distribution function.
    n_near : ndarray, shape (m,)
        Estimated number of training stars near the point; infinite for an exact distribution function.
    """

    points: np.ndarray
    value: np.ndarray
    members: np.ndarray
    covariance: np.ndarray
    condition: np.ndarray
    residual: np.ndarray
    n_near: np.ndarray

    @property
    def supported(self) -> np.ndarray:
        """Whether enough training stars lie near each point, (m,) bool."""
        return self.n_near >= _FEW


def log_df_score(df: DistributionFunction, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ln f (K, n) and its gradient (K, n, 6) at ``w`` (n, 6); K is 1 for anything but an ensemble.

    Examples
    --------
    >>> import dfaccel as da
    >>> log_df_score(da.Plummer(), da.Plummer().sample(10, rng=0))[1].shape
    (1, 10, 6)
    """
    if isinstance(df, FlowEnsemble):
        return df.members_score(w)
    points = torch.from_numpy(checks.phase_space(w)).requires_grad_()
    log_f = df.log_df(points)
    (score,) = torch.autograd.grad(log_f.sum(), points)
    return log_f.detach().numpy()[None], score.numpy()[None]


class VelocitySource:
    """Velocities at any point, borrowed from the stars of f that lie nearest in the coordinates of its symmetry."""

    def __init__(self, df: DistributionFunction, rng: np.random.Generator) -> None:
        stars = df.representative_stars if isinstance(df, FlowEnsemble) else df.sample(N_REPRESENTATIVE, rng=rng)
        self.coordinates: CoordinateMap = getattr(df, "coordinates", None) or coordinate_map(stars)
        y, _ = self.coordinates.forward(torch.from_numpy(stars))
        self.y = y[torch.isfinite(y).all(1)]  # a poorly trained flow throws some stars out of all bounds
        self.tree = cKDTree(self.y[:, : self.coordinates.n_positions].numpy())
        self.rng = rng

    def __call__(self, points: np.ndarray, n: int) -> np.ndarray:
        """Return velocities (m, n, 3) at ``points`` (m, 3)."""
        x = torch.from_numpy(points)
        pool = min(2 * n, len(self.y))  # twice as many as needed, so that another rng takes other velocities
        _, nearest = self.tree.query(self.coordinates.position_coordinates(x).numpy(), k=pool)
        chosen = self.rng.random(nearest.shape).argsort(axis=1)[:, :n]
        y = self.y[torch.from_numpy(np.take_along_axis(nearest, chosen, axis=1).ravel())]
        v = self.coordinates.velocities(x.repeat_interleave(n, dim=0), y, self.rng)
        return v.numpy().reshape(len(points), n, 3)


def _solve(
    v: np.ndarray, log_f: np.ndarray, score: np.ndarray, huber: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve one regression a point: v (m, V, 3), score (..., m, V, 6) -> acceleration (..., m, 3), condition, residual.

    The velocities are distributed as f, so that each stretch of velocity space counts by the stars in it. Where f is
    small its learned score is poor in a way no formula foretells; Huber's weights, found by iteration, let an equation
    that misses by more than ``huber`` robust standard deviations count by its miss rather than by its square.
    """
    # no equation where an exact distribution function vanishes, beyond the escape speed, or where a flow overflows
    outside = ~(np.isfinite(log_f) & np.isfinite(score).all(-1))[..., None]
    score = np.where(outside, 0.0, score)
    matrix = score[..., 3:]
    streaming = (v * score[..., :3]).sum(-1, keepdims=True)
    weight = np.ones_like(streaming)  # square root of an equation's weight
    for _ in range(1 if huber is None else _ITERATIONS):
        q, r = np.linalg.qr(weight * matrix)
        value = -np.linalg.pinv(r, rcond=1e-12) @ (q.mT @ (weight * streaming))  # least norm where undetermined
        left = streaming + matrix @ value
        if huber is not None:
            limit = huber * _robust_spread(left, outside)
            miss = np.maximum(np.abs(left), limit)
            weight = np.sqrt(np.divide(limit, miss, out=np.ones_like(miss), where=miss > 0))
    value = np.where(outside.all(-2), np.nan, value[..., 0])
    before = (streaming**2).mean((-2, -1))
    residual = np.sqrt(np.divide((left**2).mean((-2, -1)), before, out=np.zeros_like(before), where=before > 0))
    direction = matrix / np.maximum(np.linalg.norm(matrix, axis=-1, keepdims=True), np.finfo(float).tiny)
    condition = np.sqrt(np.linalg.cond(direction.mT @ direction))
    return value, condition, residual


def _robust_spread(left: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Return the standard deviation (..., m, 1, 1) of a Gaussian with the median miss of the equations there are."""
    miss = np.abs(left)
    if outside.any():
        miss = np.where(outside & ~outside.all(-2, keepdims=True), np.nan, miss)
        return 1.4826 * np.nanmedian(miss, axis=-2, keepdims=True)
    return 1.4826 * np.median(miss, axis=-2, keepdims=True)


def _training_stars_near(df: DistributionFunction, points: np.ndarray) -> np.ndarray:
    """Estimate how many training stars lie within `_REACH` of each point, in the flow's position coordinates."""
    if not isinstance(df, FlowEnsemble):
        return np.full(len(points), np.inf)
    k, dimension = 8, df.coordinates.n_positions
    where = df.coordinates.position_coordinates(torch.from_numpy(points)).numpy()
    distance = cKDTree(df.reference.numpy()).query(where, k=k)[0][:, -1]
    per_reference = df.metadata.get("n_stars", len(df.reference)) / len(df.reference)
    return k * per_reference * (_REACH / distance) ** dimension


def _velocity_chunks(
    df: DistributionFunction,
    points: np.ndarray,
    n_velocities: int,
    velocities: np.ndarray | None,
    rng: np.random.Generator | int,
    size: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Check or draw velocities; yield those of a few points (m, V, 3) and the stars they make (m V, 6), m V ~ size."""
    if velocities is None:
        if checks.count(n_velocities, "n_velocities") < 3:
            raise ValueError(f"n_velocities must be at least 3, the components of an acceleration; got {n_velocities}")
        if n_velocities > N_REPRESENTATIVE:
            raise ValueError(f"n_velocities must be at most {N_REPRESENTATIVE}; got {n_velocities}")
        source = VelocitySource(df, np.random.default_rng(rng))
    else:
        velocities = np.asarray(velocities, dtype=np.float64)
        if velocities.ndim != 3 or velocities.shape[::2] != (len(points), 3) or velocities.shape[1] < 3:
            raise ValueError(f"velocities must have shape ({len(points)}, V, 3), V >= 3; got {velocities.shape}")
        if not np.isfinite(velocities).all():
            raise ValueError(f"velocities has {(~np.isfinite(velocities)).sum()} non-finite values; remove them")
        n_velocities = velocities.shape[1]
    for chunk in np.array_split(np.arange(len(points)), math.ceil(len(points) * n_velocities / size)):
        v = source(points[chunk], n_velocities) if velocities is None else velocities[chunk]
        yield v, np.concatenate([np.broadcast_to(points[chunk, None], v.shape), v], axis=-1).reshape(-1, 6)


def _warn_unsupported(supported: np.ndarray) -> None:
    """Warn the caller's caller of points where training stars are too few."""
    if not supported.all():
        warnings.warn(f"{(~supported).sum()} of {len(supported)} points lie where training stars are too few "
                      f"(see .supported), first at index {supported.argmin()}", stacklevel=3)


def accelerations(
    df: DistributionFunction | FlowEnsemble,
    points: np.ndarray,
    *,
    n_velocities: int = 1000,
    velocities: np.ndarray | None = None,
    huber: float | None = 1.345,
    rng: np.random.Generator | int = 0,
) -> Accelerations:
    r"""Recover the acceleration at points from a distribution function in equilibrium.

    Solves :math:`v\cdot\nabla_x \ln f + a\cdot\nabla_v \ln f = 0` for a by weighted least squares over velocities
    drawn from f itself (An et al. 2021, section 2.2, there unweighted, for f and over velocities below a given speed).

    Parameters
    ----------
    df : FlowEnsemble or system
        Learned or exact distribution function.
    points : ndarray, shape (m, 3)
        Positions, length.
    n_velocities : int
        Velocities a point.
    velocities : ndarray, shape (m, V, 3), optional
        Velocities to use instead of draws from f.
    huber : float or None
        Robust standard deviations beyond which an equation's weight falls (Huber 1964; 1.345 keeps 95 % of the
        efficiency on Gaussian errors); None for plain least squares.
    rng : Generator or int
        Random generator, or its seed, for the velocities.

    Returns
    -------
    Accelerations
        Values with covariance over members and diagnostics.

    Raises
    ------
    ValueError
        If an array has a wrong shape or holds a non-finite value.

    Warns
    -----
    UserWarning
        If points lie where training stars are too few (``supported``), or the velocities hardly determine a component
        (``condition``).

    Examples
    --------
    >>> import dfaccel as da
    >>> truth = da.Hernquist()
    >>> bool(np.allclose(accelerations(truth, [[1.0, 0, 0]]).value, truth.acceleration(np.array([[1.0, 0, 0]]))))
    True
    """
    points = checks.points(points)
    if huber is not None:
        checks.positive(huber, "huber")
    parts = []
    for v, w in _velocity_chunks(df, points, n_velocities, velocities, rng, _CHUNK):
        log_f, score = log_df_score(df, w)
        total = np.logaddexp.reduce(log_f, axis=0)
        share = np.exp(log_f - np.where(np.isneginf(total), 0.0, total))
        mixture = np.einsum("kn,kni->ni", share, score)
        shape = (-1, *v.shape[:2])
        log_f = np.concatenate([total[None], log_f]).reshape(shape)
        score = np.concatenate([mixture[None], score]).reshape(*shape, 6)
        parts.append(_solve(v, log_f, score, huber))
    value, condition, residual = (np.concatenate(p, axis=1) for p in zip(*parts, strict=True))

    members = value[1:]
    deviation = members - members.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = np.einsum("kmi,kmj->mij", deviation, deviation) / np.float64(len(members) - 1)
    result = Accelerations(
        points, value[0], members, covariance, condition[0], residual[0], _training_stars_near(df, points)
    )
    _warn_unsupported(result.supported)
    poor = result.condition > _CONDITION_LIMIT
    if poor.any():
        warnings.warn(f"{poor.sum()} of {len(poor)} points have a poorly conditioned solution (see .condition), "
                      f"first at index {poor.argmax()}", stacklevel=2)
    return result
