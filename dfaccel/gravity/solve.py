r"""The regression for all unknowns, at one place or at all together.

A place's equations are reduced to a normal matrix N and the numbers u that solve them. Numbers that are the same, or
smooth, from place to place follow from parameters :math:`\theta` by a design D, and :math:`\theta` minimizes
:math:`\sum_i (u_i - D_i\theta)^T N_i (u_i - D_i\theta) / q_i`, where q is the scatter of members in that metric.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import block_diag
from scipy.optimize import nnls
from scipy.spatial import cKDTree

from dfaccel import _check as check
from dfaccel.gravity.accelerations import HUBER, regress, usable
from dfaccel.gravity.unknowns import Estimate, Unknown, estimates, ridges
from dfaccel.gravity.velocities import velocity_chunks
from dfaccel.systems.base import DistributionFunction

_NEAR = 10  # places over which the members' scatter is averaged
_SHARED = 0.5  # of the variance of members with bootstraps of their own, what is the data's, and the same for all
_NOTHING = 1e-12  # squared size of a column, in natural units, that is rounding error
_RELIABLE = 0.5  # part of the difference of columns that must not be noise for unknowns to be told apart
_STRENGTHS = np.geomspace(1e-6, 1e4, 31)  # of smoothing, among which the evidence decides
_FLOOR = 1e-11  # eigenvalue of a scaled normal matrix, over the largest, that is rounding error


class Equations:
    """Normal matrices (m, p, p) of the p numbers of all unknowns at m places, and ``local`` solutions (1 + K, m, p).

    The first of the local solutions is that of all members together, extrapolated to scores without noise: noise in
    the scores is noise in the columns, which biases a solution in proportion to its variance. ``signal`` (m, p, p) is
    the normal matrix without that noise.
    """

    def __init__(
        self, df: DistributionFunction, points: np.ndarray, unknowns: Sequence[Unknown], n_velocities: int,
        velocities: np.ndarray | None, rng: np.random.Generator | int, huber: float | None,
    ) -> None:
        place, parts = df.neighbourhood(np.concatenate([points, points], axis=1)).position_coordinates, []
        y = place(torch.from_numpy(points)).numpy()
        singular = ~np.isfinite(y).all(1) | ~points.any(1)
        if singular.any():
            raise ValueError(f"points must not lie in the centre, or on the axis of an axisymmetric model; "
                             f"{singular.sum()} of them do, first at index {singular.argmax()}; move them a little")
        for v, w, log_f, score in velocity_chunks(df, points, n_velocities, velocities, rng):
            score, outside = usable(log_f, score, v)
            x = w.reshape(*v.shape[:2], 6)[:, :1, :3]
            columns = [u.columns(x, v, score) for u in unknowns]
            # a column that is no score, such as a velocity, has no equation there either
            matrix = np.where(outside[..., None], 0.0, np.concatenate(columns, axis=-1))
            right = -(v * score[..., :3]).sum(-1)
            local, weight, _ = regress(matrix, right, outside, huber)
            normal = (matrix[0] * weight[0, ..., None]).mT @ matrix[0]
            size = np.sqrt((weight[0] * right[0] ** 2).sum(-1))
            speed, r = np.sqrt((v**2).sum(-1).mean(-1)), np.linalg.norm(x[:, 0], axis=-1)
            unit = [np.repeat((speed**u.speeds / r / size)[:, None], c.shape[-1], axis=1)
                    for u, c in zip(unknowns, columns, strict=True)]
            across = _across(matrix, weight[0], log_f)
            parts.append((normal[None], local, normal[None] - across, np.concatenate(unit, axis=1)[None]))
        normal, self.local, noise, unit = (np.concatenate(p, axis=1) for p in zip(*parts, strict=True))
        self.sizes, self.names = [c.shape[-1] for c in columns], [u.name for u in unknowns]
        self.owner = np.repeat(self.names, self.sizes)
        self.normal, self.unit, K = normal[0], unit[0], len(self.local) - 1
        shared = _SHARED * getattr(df, "metadata", {}).get("config", {}).get("bootstrap", False)
        self.signal = self.normal - (1 + shared * K) * noise[0]
        self.away = self.local[1:] - self.local[0] if K > 1 else self.local
        if K > 1:
            self.local[0] += (self.local[0] - self.local[1:].mean(0)) * (1 + shared * K) / (K - 1)
        self.near = cKDTree(y).query(y, min(_NEAR, len(y)))[1]

    def shared(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return normal matrices of the numbers that are not ``free`` (p,), and the weight (m,) of each place."""
        normal = without(self.normal, free)
        away = np.nan_to_num(self.away[..., ~free])
        spread = np.median(np.einsum("...i,...ij,...j->...", away, normal, away), axis=0)
        if len(away) > 1:
            spread = spread[self.near].reshape(len(spread), -1).mean(1)
        return normal, 1 / np.maximum(spread, 1e-12 * np.median(spread) + 1e-300)

    def told_apart(self, smooth: bool) -> tuple[dict[str, np.ndarray], np.ndarray, tuple[str, ...]]:
        """Return where (m,) each unknown is not determined, the condition (m,) of each place, and what is confused.

        If one of the unknowns is ``smooth``, places help each other: all are lost if in most of them more than one
        direction is.
        """
        own, signal = (part * self.unit[:, None] * self.unit[..., None] for part in (self.normal, self.signal))
        vectors, nowhere = np.repeat(self.sizes, self.sizes) > 1, np.zeros(len(own), bool)
        gone, confused = dict.fromkeys(self.names, nowhere), []
        size, turn = np.linalg.eigh(without(own, ~vectors))
        k = 1 if smooth else 0  # the combination of numbers that the place knows least, or second least
        weak = turn[..., k : k + 1]
        left = (weak.mT @ without(signal, ~vectors) @ weak)[:, 0, 0]
        lost = (size[:, k] < _NOTHING) | (left < _RELIABLE * size[:, k])
        lost = np.full(len(lost), 2 * lost.sum() > len(lost)) if smooth else lost
        if len(several := list(dict.fromkeys(self.owner[vectors]))) > 1 and lost.any():
            gone |= dict.fromkeys(several, lost)
            confused.append(f"{' and '.join(several)} cannot be told apart at {lost.sum()} of {len(lost)} points: "
                            "their columns differ by no more than noise")
        for i in np.flatnonzero(~vectors):
            alone, left = (without(part, np.arange(len(vectors)) != i).mean() for part in (own, signal))
            if alone < _NOTHING or left < _RELIABLE * alone:
                gone[self.owner[i]] = ~nowhere
                confused.append(f"{self.owner[i]} leaves no trace in f that the other unknowns do not leave")
        return gone, np.sqrt(size[:, -1] / np.maximum(size[:, 0], 1e-300)), tuple(confused)


def without(normal: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Return normal matrices (m, p, p) of the numbers not in ``some`` (p,), those being solved for at each place."""
    across = normal[:, ~some][..., some]
    return normal[:, ~some][..., ~some] - across @ np.linalg.pinv(normal[:, some][..., some], rcond=1e-12) @ across.mT


def _across(matrix: np.ndarray, weight: np.ndarray, log_f: np.ndarray) -> np.ndarray:
    """Return the normal matrix (m, p, p) of the columns of even members times those of odd ones."""
    if len(matrix) < 3:
        return (matrix[0] * weight[..., None]).mT @ matrix[0]
    halves = []
    for k in (1, 2):
        total = np.logaddexp.reduce(log_f[k::2], axis=0)
        share = np.exp(log_f[k::2] - np.where(np.isfinite(total), total, 0.0))
        halves.append(np.einsum("kmv,kmvp->mvp", share, matrix[k::2]))
    product = (halves[0] * weight[..., None]).mT @ halves[1]
    return (product + product.mT) / 2


def together(
    equations: Equations, designs: Sequence[np.ndarray | None], *, ridge: np.ndarray, strength: float | None = None,
    price: np.ndarray | None = None, rounds: int = 5,
) -> tuple[np.ndarray, float | None]:
    """Return the parameters (1 + K, J) that suit all places, and the strength of smoothing.

    ``designs`` (m, p, J), one an unknown, turn parameters into numbers; None is for numbers that are free. The squares
    of parameters are held down by ``ridge`` (J,) times a strength, that of the largest evidence unless it is given. If
    there is a ``price`` (J,) of finite entries these parameters are not negative, and must each be worth as many
    standard deviations of noise. A place whose misfit is larger than that of others counts less (Huber).
    """
    free = np.repeat([d is None for d in designs], equations.sizes)
    D, (normal, weight) = joined(designs), equations.shared(free)
    m, p, J = D.shape
    price = np.full(J, np.nan) if price is None else price
    positive, flat, factor, noise = np.isfinite(price), D.reshape(m * p, J), np.ones(m), 1.0
    local = np.nan_to_num(equations.local[..., ~free])

    def sums(k: int) -> tuple[np.ndarray, np.ndarray]:
        weighted = (weight * factor / noise**2)[:, None, None] * normal
        return flat.T @ (weighted @ D).reshape(m * p, J), flat.T @ (weighted @ local[k, ..., None]).ravel()

    def solved(k: int) -> np.ndarray:
        A, c = sums(k)
        toll = np.sqrt(np.diag(A)) * np.where(positive, price, 0.0)
        return _minimum(A + (strength or 0.0) * np.diag(ridge), c - toll, positive)

    chosen = strength is None and ridge.any()
    for _ in range(rounds):
        if chosen:
            A, c = sums(0)
            strength = max(_STRENGTHS, key=lambda s, A=A, c=c: _evidence(A, c, s * ridge))
        left = local[0] - (D @ solved(0)[:, None])[..., 0]
        miss = np.sqrt(np.maximum(np.einsum("mi,mij,mj->m", left, normal, left) * weight / p, 0.0))
        noise = max(float(np.median(miss)), 1e-12)
        factor = np.minimum(1, HUBER * noise / np.maximum(miss, 1e-300))
    return np.stack([solved(k) for k in range(len(local))]), strength


def joined(designs: Sequence[np.ndarray | None]) -> np.ndarray:
    """Return the design (m, p, J) of several unknowns together."""
    return np.stack([block_diag(*parts) for parts in zip(*(d for d in designs if d is not None), strict=True)])


def _evidence(A: np.ndarray, c: np.ndarray, ridge: np.ndarray) -> float:
    """Return the log evidence of a ridge, up to a constant."""
    B = A + np.diag(ridge)
    return 0.5 * (c @ np.linalg.lstsq(B, c, rcond=1e-14)[0] - np.linalg.slogdet(B)[1] + np.log(ridge[ridge > 0]).sum())


def _minimum(A: np.ndarray, c: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return the minimum (J,) of t A t / 2 - c t, with t not negative where ``positive`` (Lawson & Hanson 1974)."""
    scale = 1 / np.sqrt(np.maximum(np.diag(A), 1e-300))
    A, c = A * scale * scale[:, None], c * scale
    if not positive.any():
        return scale * np.linalg.lstsq(A, c, rcond=1e-13)[0]
    signs = np.concatenate([np.eye(len(c)), -np.eye(len(c))[:, ~positive]], axis=1)  # a free one is a difference of two
    size, turn = np.linalg.eigh(A)
    root = np.sqrt(np.maximum(size, _FLOOR * size[-1]))
    return scale * (signs @ nnls(root[:, None] * (turn.T @ signs), (turn.T @ c) / root, maxiter=100 * len(c))[0])


@dataclass(frozen=True)
class Solution:
    """What `solve` found: ``solution["acceleration"].value`` (m, 3), ``solution["pattern_speed"].value`` and so on.

    Parameters
    ----------
    points : ndarray, shape (m, 3)
        Positions, length.
    estimates : dict of Estimate
        By the name of the unknown; NaN where the data cannot tell it from another one.
    condition : ndarray, shape (m,)
        Condition number of the columns of each place.
    confused : tuple of str
        Sentences that name unknowns which the data cannot tell apart.

    Examples
    --------
    >>> import dfaccel as da
    >>> found = da.solve(da.Plummer(), [[1.0, 0, 0]], [da.unknowns.Acceleration()])
    >>> found["acceleration"].value.shape
    (1, 3)
    """

    points: np.ndarray
    estimates: dict[str, Estimate]
    condition: np.ndarray
    confused: tuple[str, ...]

    def __getitem__(self, name: str) -> Estimate:
        """Return the estimate of an unknown; raise KeyError if it was not asked for."""
        return self.estimates[name]


def solve(
    df: DistributionFunction, points: np.ndarray, unknowns: Sequence[Unknown], *, n_velocities: int = 1000,
    velocities: np.ndarray | None = None, huber: float | None = HUBER, rng: np.random.Generator | int = 0,
    warn: bool = True,
) -> Solution:
    """Solve the Boltzmann equation at all points for the acceleration and for more.

    Noise in the scores is noise in the columns and makes the numbers too small; what the members' scatter shows of it
    is taken off by extrapolation, unlike in `accelerations`, which leaves its value as it is.

    Parameters
    ----------
    df : DistributionFunction
        Learned or exact distribution function.
    points : ndarray, shape (m, 3)
        Positions, length.
    unknowns : list of Unknown
        `Acceleration` and any of `Selection`, `PatternSpeed`, `Expansion`.
    n_velocities, velocities, huber, rng, warn
        As in `accelerations`.

    Raises
    ------
    TypeError, ValueError
        As in `accelerations`, and if an unknown is asked for twice.

    Warns
    -----
    UserWarning
        If the data cannot tell unknowns apart. They are NaN then.

    Examples
    --------
    >>> import dfaccel as da
    >>> galaxy, x = da.Hernquist(), da.directions(4, 1)
    >>> found = solve(galaxy, x, [da.unknowns.Acceleration(), da.unknowns.Expansion()], n_velocities=50)
    >>> bool(abs(found["expansion"].value) < 1e-9)
    True
    """
    points, names = check.points(points), [u.name for u in unknowns]
    if not names:
        raise ValueError("unknowns must hold at least one, for example dfaccel.unknowns.Acceleration()")
    if len(set(names)) < len(names):
        raise ValueError(f"each unknown can be asked for once; got {', '.join(names)}")
    equations = Equations(df, points, unknowns, n_velocities, velocities, rng, huber)
    designs = [u.design(points) for u in unknowns]
    free = np.repeat([d is None for d in designs], equations.sizes)
    found, local = {}, equations.local
    if blocks := [d for d in designs if d is not None]:
        shared = [u for u, d in zip(unknowns, designs, strict=True) if d is not None]
        theta, _ = together(equations, designs, ridge=ridges(shared, blocks))
        found = estimates([u.name for u in shared], blocks, theta)
        change = local[..., ~free, None] - joined(blocks) @ theta[:, None, :, None]  # the free numbers respond to it
        normal = equations.normal[:, free]
        local = local[..., free] + (np.linalg.pinv(normal[..., free]) @ (normal[..., ~free] @ change))[..., 0]
    gone, condition, confused = equations.told_apart(any(d is not None and d.shape[1] > 1 for d in designs))
    numbers = {name: local[..., equations.owner[free] == name] for name in names if name not in found}
    found |= {name: Estimate(both[0], both[1:]) for name, both in numbers.items()}
    for sentence in confused if warn else ():
        warnings.warn(f"{sentence}: NaN", stacklevel=2)
    return Solution(points, {name: found[name].without(gone[name]) for name in names}, condition, confused)
