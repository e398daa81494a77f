r"""What data, initialization and the order of the batches each add to the variance among trained flows.

A table ``y`` (n_data, n_initializations) or (n_data, n_initializations, n_batches) holds what was measured of each
flow, such as an array of `dfaccel.study.run.cells`. NaN marks a pair of draw and initialization that has no flow, so
that a table is *complete* or *sparse*. (Training stops with an error where a loss is NaN. A finished flow is therefore
never taken for a missing one.) The model has two crossed random factors,

.. math::
    y_{dib} = \mu + \alpha_d + \beta_i + \gamma_{di} + \epsilon_{dib} .

The terms are independent and have mean zero and variances :math:`\sigma_\alpha^2, \sigma_\beta^2, \sigma_\gamma^2,
\sigma_\epsilon^2`.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats

from dfaccel import _check as check
from dfaccel.study.reml import LEVEL, Likelihood


@dataclass(frozen=True)
class Components:
    """What `components` and `pigeonhole` return; arrays have one entry per term, intervals (n_terms, 2) hold 95 %.

    The ``terms`` are "data", "initialization", then "interaction" and "batch" or, without repetitions, their sum
    "rest". Each ``share`` is a part of the sum of the variances. The ``ratio`` is the variance of data over that of
    initialization. It is infinite if only the second one is zero, and NaN if both are.
    """

    terms: tuple[str, ...]
    variance: np.ndarray
    interval: np.ndarray
    share: np.ndarray
    share_interval: np.ndarray
    ratio: float
    ratio_interval: np.ndarray


@dataclass(frozen=True)
class OneAtATime:
    """What `one_at_a_time` returns: the two sample variances, their ratio, and its 95 % interval (2,)."""

    data: float
    initialization: float
    ratio: float
    ratio_interval: np.ndarray


def components(y: np.ndarray) -> Components:
    r"""Estimate the variances due to data, initialization, their interaction and the order of the batches.

    The estimates maximize the restricted likelihood of Gaussian terms, with no variance below zero (REML; Searle,
    Casella & McCulloch, Variance Components, 1992). The 95 % interval of a quantity is its range over all variances
    whose restricted likelihood is at least :math:`e^{-1.92}` of the maximum. Heavy tails of the effects of data or
    initialization make it too narrow: compare with `pigeonhole`. Use ``np.log(y)`` if y varies by factors.
    """
    likelihood = Likelihood(_table(y))
    return _result(likelihood.maximum(), likelihood.surface())


def one_at_a_time(y: np.ndarray, *, whole: bool = False) -> OneAtATime:
    r"""Compare data and initialization in the usual design: vary one, with the other held fixed.

    As in the public code normalising_flow_uncertainties (github.com/roy-physics), only the first row, the first column
    and the first order of the batches of a complete table count; with ``whole`` all of any table do. The ratio and its
    interval are those of :math:`(\sigma_\alpha^2 + s^2) / (\sigma_\beta^2 + s^2)`, which the rest :math:`s^2 =
    \sigma_\gamma^2 + \sigma_\epsilon^2` pulls towards one.
    """
    y = _table(y)
    if not whole and np.isnan(y).any():
        raise ValueError(f"y must be complete unless whole is True; {np.isnan(y).sum()} of {y.size} flows are missing")
    data, initialization = _variance(y if whole else y[:, :1, :1], 0), _variance(y if whole else y[:1, :, :1], 1)
    ratio = data / initialization if initialization else np.inf
    if whole:
        points = Likelihood(y).surface()
        total = points.sum(1)
        return OneAtATime(data, initialization, ratio, _interval((total - points[:, 1]) / (total - points[:, 0])))
    low, high = stats.f.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2], len(y) - 1, y.shape[1] - 1)
    return OneAtATime(data, initialization, ratio, np.array([ratio / high, ratio / low]))


def pigeonhole(y: np.ndarray, *, n_draws: int = 2000, rng: np.random.Generator | int) -> Components:
    r"""Estimate the variances of data, initialization and rest, with intervals from resampled rows and columns.

    It checks `components` without assuming Gaussian terms. Rows and columns have independent multinomial weights, and a
    pair has the product of its two (Owen, Ann. Appl. Stat. 1, 386, 2007; Owen & Eckles, Ann. Appl. Stat. 6, 895, 2012).
    At the maximum of the restricted likelihood the sums of `Likelihood.quadratic_forms` equal their expectations, which
    are linear in the variances. Each draw weights the three sums and solves for the variances. The intervals are
    expanded percentiles (Hesterberg, Am. Stat. 69, 371, 2015). See ``benchmarks/variance_intervals.py``.
    """
    y, n_draws, rng = _table(y).mean(2, keepdims=True), check.count(n_draws, "n_draws"), np.random.default_rng(rng)
    likelihood = Likelihood(y)
    variance, (row, column), n = likelihood.maximum(), likelihood.there.nonzero(), min(y.shape[:2])
    squares, expected = likelihood.quadratic_forms(variance)
    weights = [rng.multinomial(k, np.full(k, 1 / k), n_draws) * 1.0 for k in y.shape[:2]]
    pairs = weights[0][:, row] * weights[1][:, column]
    weights.append(pairs * len(row) / np.maximum(pairs.sum(1, keepdims=True), 1))
    off = np.stack([weight @ v - v.sum() for weight, v in zip(weights, squares, strict=True)], 1)
    draws = variance + np.linalg.solve(expected, off.T).T  # about the estimates, also where one of them is zero
    tail = stats.norm.sf(stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.sqrt(n / (n - 1)))
    return _result(variance, draws.clip(0), tail)


def _result(variance: np.ndarray, draws: np.ndarray, tail: float = 0.0) -> Components:
    """Return estimates with the intervals that draws (n, n_terms) of the variances span."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share, shares = (v / v.sum(-1, keepdims=True) for v in (variance, draws))
        ratio, ratios = (v[..., 0] / v[..., 1] for v in (variance, draws))
    lower, upper = (_interval(np.where(np.isnan(ratios), worst, ratios), tail) for worst in (0.0, np.inf))
    terms = ("data", "initialization", *(("interaction", "batch") if len(variance) == 4 else ("rest",)))
    intervals = _interval(draws, tail), share, _interval(shares, tail)
    return Components(terms, variance, *intervals, float(ratio), np.array([lower[0], upper[1]]))


def _interval(draws: np.ndarray, tail: float = 0.0) -> np.ndarray:
    """Return the interval (..., 2) of draws (n, ...) between two tails, by order so that infinities are allowed."""
    k = int(tail * len(draws))
    return np.moveaxis(np.sort(draws, axis=0)[[k, -1 - k]], 0, -1)


def _variance(y: np.ndarray, axis: int) -> float:
    """Return the variance along an axis, averaged over the others with degrees of freedom as weights."""
    deviations = y - np.nanmean(y, axis, keepdims=True)
    return float(np.nansum(deviations**2) / (np.isfinite(y).sum() - y.size // y.shape[axis]))


def _table(y: np.ndarray) -> np.ndarray:
    """Return y as (n_data, n_initializations, n_batches), or raise ValueError if its components are not identified."""
    given = np.asarray(y, dtype=np.float64)
    y = given[..., None] if given.ndim == 2 else given
    if y.ndim != 3 or min(y.shape[:2]) < 2 or not y.shape[2]:
        raise ValueError("y must have shape (n_data, n_initializations) or (n_data, n_initializations, n_batches), "
                         f"with at least two draws of the data and two initializations; got {given.shape}")
    b, finite = y.shape[2], np.isfinite(y).sum(2)
    if bad := np.argwhere(np.isinf(y)).tolist():
        raise ValueError(f"y must be finite, or NaN where there is no flow; got an infinite value at {tuple(bad[0])}")
    if partly := np.argwhere((finite > 0) & (finite < b)).tolist():
        raise ValueError(f"y must have all {b} flows of a pair or none; the pair {tuple(partly[0])} lacks some")
    check_pairs(finite > 0, "y")
    if (n_pairs := np.count_nonzero(finite)) < (n_levels := sum(finite.shape)):
        raise ValueError(f"y must have as many pairs with flows as levels, {n_levels}, to tell a rest from effects; "
                         f"it has {n_pairs}")
    if np.nanmax(y) == np.nanmin(y):
        raise ValueError("y must vary; all its values are equal")
    return y


def check_pairs(there: np.ndarray, name: str) -> None:
    """Raise ValueError if pairs with flows (D, I) leave a level alone or fall apart into blocks."""
    if alone := _levels(~there.any(1), ~there.any(0)):
        raise ValueError(f"{name} must have a flow of every draw and every initialization; there is none of {alone}")
    d = len(there)
    blocks, block = sparse.csgraph.connected_components(sparse.block_array([[None, there], [there.T, None]]))
    if blocks > 1:
        raise ValueError(f"{name} must connect all levels; they fall into {blocks} blocks, the first with "
                         f"{_levels(block[:d] == 0, block[d:] == 0)}")


def _levels(draws: np.ndarray, initializations: np.ndarray) -> str:
    """Return in words which levels two masks choose; an empty string if none."""
    masks = {"draws": draws, "initializations": initializations}
    lists = {name: np.array2string(np.flatnonzero(mask), separator=", ", threshold=8) for name, mask in masks.items()}
    return " and ".join(f"{name} {text}" for name, text in lists.items() if text != "[]")
