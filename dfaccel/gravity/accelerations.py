r"""Accelerations from a distribution function: the collisionless Boltzmann equation, solved for the acceleration.

In equilibrium :math:`v\cdot\nabla_x \ln f + a(x)\cdot\nabla_v \ln f = 0` at every velocity. At one point x each
velocity gives one linear equation for the three components of a, so many velocities determine a by least squares
(An et al. 2021, section 2). Only f enters, never a potential.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dfaccel import _check as check
from dfaccel.gravity.velocities import FEW, velocity_chunks, warn_of
from dfaccel.systems.base import DistributionFunction

HUBER = 1.345  # keeps 95 % of the efficiency on Gaussian errors
_ITERATIONS = 10  # of the weights; the solution then moves by less than the noise of the velocities
_CONDITION_LIMIT = 100.0  # beyond it one direction of a is known 100 times worse than another
_TINY = np.finfo(float).tiny
_STEEP = 1e6  # |grad_v ln f| times the typical speed at which a number is no slope, but an overflow


@dataclass(frozen=True)
class Accelerations:
    """Accelerations with their covariance over members and their diagnostics; made by `accelerations`.

    Parameters
    ----------
    points, value : ndarray, shape (m, 3)
        Positions, length, and accelerations there, velocity^2 / length; NaN where f vanishes at every
        velocity, and in the centre or on the axis of a model with that symmetry.
    members, covariance : ndarray, shapes (n_flows, m, 3), (m, 3, 3)
        Accelerations of each member, and their covariance; NaN for a single member.
    condition : ndarray, shape (m,)
        Condition number of the directions of the velocity gradients: 1 if they determine all components equally well.
    residual : ndarray, shape (m,)
        Root mean square of the Boltzmann equation's misfit relative to that of its first term: 0 in perfect
        equilibrium, 1 if no acceleration explains the distribution function.
    n_near : ndarray, shape (m,)
        Estimated number of training stars near the point; infinite for an exact distribution function.

    Examples
    --------
    >>> import dfaccel as da
    >>> result = accelerations(da.Plummer(), [[1.0, 0, 0]])
    >>> bool(result.supported.all() and result.error(da.Plummer().acceleration(result.points))[0] < 1e-8)
    True
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
        return self.n_near >= FEW

    def error(self, truth: np.ndarray) -> np.ndarray:
        """Return the length of the error vector over that of the true acceleration, (m,), for ``truth`` (m, 3)."""
        return np.linalg.norm(self.value - truth, axis=1) / np.linalg.norm(truth, axis=1)

    def member_errors(self, truth: np.ndarray) -> np.ndarray:
        """Return the same for each member alone, (n_flows, m)."""
        return np.linalg.norm(self.members - truth, axis=2) / np.linalg.norm(truth, axis=1)

    def misfit(self, df: DistributionFunction, velocities: np.ndarray) -> np.ndarray:
        r"""Return how far the acceleration is from suiting each of ``velocities`` (m, V, 3), as a share of it, (m, V).

        .. math:: \frac{v\cdot\nabla_x \ln f + a\cdot\nabla_v \ln f}{|a|\, |\nabla_v \ln f|}

        The equation at one velocity holds for a plane of accelerations; this is the distance from that plane. A map of
        it shows, without a truth, which velocities disagree with the others (``leave_out`` of `accelerations`). It is
        NaN where f vanishes or has no gradient.
        """
        chunks, a = velocity_chunks(df, self.points, 3, velocities, 0), self.value[:, None]
        score = np.concatenate([score[0] for *_, score in chunks])
        left = (np.asarray(velocities) * score[..., :3]).sum(-1) + (a * score[..., 3:]).sum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return left / np.linalg.norm(a, axis=-1) / np.linalg.norm(score[..., 3:], axis=-1)


def accelerations(
    df: DistributionFunction, points: np.ndarray, *, n_velocities: int = 1000, velocities: np.ndarray | None = None,
    leave_out: Callable[[np.ndarray], np.ndarray] | None = None, huber: float | None = HUBER,
    rng: np.random.Generator | int = 0, warn: bool = True,
) -> Accelerations:
    r"""Recover the acceleration at points from a distribution function in equilibrium, with errors over members.

    Solves :math:`v\cdot\nabla_x \ln f + a\cdot\nabla_v \ln f = 0` for a by weighted least squares over velocities drawn
    from f itself (An et al. 2021, section 2.2, without weights, for velocities below a given speed).

    Parameters
    ----------
    df, points : DistributionFunction, ndarray, shape (m, 3)
        Learned or exact distribution function (a `FlowEnsemble`, a system, your own class), and positions, length.
    n_velocities, velocities : int, ndarray, shape (m, V, 3), optional
        Number of velocities per point, or the velocities themselves in place of draws from f.
    leave_out : callable, optional
        Region of phase space whose equations are not used, for all members alike: takes points (n, 6) and returns
        whether each lies in it, (n,) bool. The others must still span all directions (``condition``).
    huber : float or None
        Robust standard deviations beyond which an equation's weight falls (Huber 1964; 1.345 keeps 95 % of the
        efficiency on Gaussian errors); None for plain least squares.
    rng, warn : Generator or int, bool
        Random generator, or its seed, for the velocities, and whether to warn of points where training stars are too
        few (``supported``) or the velocities hardly determine a component (``condition``).

    Raises
    ------
    TypeError, ValueError
        If ``df`` is no distribution function, an array has a wrong shape or a non-finite value, ``leave_out`` does not
        return a bool for each point, or a number is of a wrong type or out of range.

    Examples
    --------
    >>> import dfaccel as da
    >>> truth = da.Hernquist()
    >>> bool(np.allclose(accelerations(truth, [[1.0, 0, 0]]).value, truth.acceleration([[1.0, 0, 0]])))
    True
    """
    points = check.points(points)
    if not (leave_out is None or callable(leave_out)):
        raise TypeError(f"leave_out must be callable, points (n, 6) -> (n,) bool; got {type(leave_out).__name__}")
    parts = []
    for v, w, log_f, score in velocity_chunks(df, points, n_velocities, velocities, rng):
        if leave_out is not None:
            out = np.asarray(leave_out(w))
            if out.shape != w.shape[:1] or out.dtype != bool:
                raise ValueError(f"leave_out must return bool, shape {w.shape[:1]}; got {out.dtype}, shape {out.shape}")
            log_f[:, out.reshape(v.shape[:2])] = -np.inf
        score, outside = usable(log_f, score, v)
        streaming = (v * score[..., :3]).sum(-1)
        value, _, left = regress(score[..., 3:], -streaming, outside, huber)
        before = (streaming**2).mean(-1)
        residual = np.sqrt(np.divide((left**2).mean(-1), before, out=np.zeros_like(before), where=before > 0))
        direction = score[..., 3:] / np.maximum(np.linalg.norm(score[..., 3:], axis=-1, keepdims=True), _TINY)
        parts.append((value, np.sqrt(np.linalg.cond(direction.mT @ direction)), residual))
    value, condition, residual = (np.concatenate(p, axis=1) for p in zip(*parts, strict=True))
    members, condition, n_near = value[1:], condition[0], df.stars_near(points)
    deviation = members - members.mean(0)
    covariance = np.einsum("kmi,kmj->mij", deviation, deviation) / (len(members) - 1 or np.nan)
    if warn:
        warn_of(n_near < FEW, "lie where training stars are too few (see .supported)")
        warn_of(condition > _CONDITION_LIMIT, "have a poorly conditioned solution (see .condition)")
    return Accelerations(points, value[0], members, covariance, condition, residual[0], n_near)


def usable(log_f: np.ndarray, score: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores at velocities (m, V, 3), zero where there is no equation, and where that is (..., m, V)."""
    # where an exact distribution function vanishes, beyond the escape speed, or where a flow overflows, or nearly so
    speed = np.median(np.abs(v), axis=(-2, -1))[:, None]
    outside = ~(np.isfinite(log_f) & np.isfinite(score).all(-1) & (np.abs(score[..., 3:]).max(-1) * speed < _STEEP))
    return np.where(outside[..., None], 0.0, score), outside


def regress(
    matrix: np.ndarray, right: np.ndarray, outside: np.ndarray, huber: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve a regression a place: matrix (..., m, V, p), right (..., m, V) -> unknowns (..., m, p), weights, misfits.

    Where f is small its learned score is poor in a way that no formula predicts. Huber's weights therefore let an
    equation that misses by more than ``huber`` robust standard deviations count by its miss rather than its square.
    """
    if huber is not None:
        check.positive(huber, "huber")
    right, outside = right[..., None], outside[..., None]
    root = np.ones_like(right)  # of an equation's weight
    median = np.nanmedian if outside.any() else np.median  # the latter is faster
    for _ in range(1 if huber is None else _ITERATIONS):
        q, r = np.linalg.qr(root * matrix)
        value = np.linalg.pinv(r, rcond=1e-12) @ (q.mT @ (root * right))  # least norm where undetermined
        left = right - matrix @ value
        if huber is not None:
            miss = np.where(outside & ~outside.all(-2, keepdims=True), np.nan, np.abs(left))
            spread = 1.4826 * median(miss, axis=-2, keepdims=True)  # standard deviation of a Gaussian of that median
            limit = huber * spread
            miss = np.maximum(np.abs(left), limit)
            root = np.sqrt(np.divide(limit, miss, out=np.ones_like(miss), where=miss > 0))
    return np.where(outside.all(-2), np.nan, value[..., 0]), root[..., 0] ** 2, left[..., 0]

