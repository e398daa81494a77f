r"""What data, initialization and the order of the batches each add to the variance among trained flows.

A table ``y`` (n_data, n_initializations) or (n_data, n_initializations, n_batches), finite, holds what was measured of
each flow, such as an array of `dfaccel.study.run.cells`. The model is that of two crossed random factors,

.. math::
    y_{dib} = \mu + \alpha_d + \beta_i + \gamma_{di} + \epsilon_{dib},

all terms independent, with mean zero and variances :math:`\sigma_\alpha^2, \sigma_\beta^2, \sigma_\gamma^2,
\sigma_\epsilon^2`. The mean squares of a table of D draws of the data, I initializations and B orders of the batches
have the expectations (Searle, Casella & McCulloch, Variance Components, 1992)

.. math::
    \theta_\alpha = I B \sigma_\alpha^2 + \theta_\gamma, \quad
    \theta_\beta = D B \sigma_\beta^2 + \theta_\gamma, \quad
    \theta_\gamma = B \sigma_\gamma^2 + \theta_\epsilon, \quad
    \theta_\epsilon = \sigma_\epsilon^2 .
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from dfaccel import _check as check

LEVEL = 0.95  # of every interval


@dataclass(frozen=True)
class Components:
    """What `components` returns; arrays have one entry per term, intervals (n_terms, 2) hold 95 % and stop at zero.

    The ``terms`` are "data", "initialization", then "interaction" and "batch" or, without repetitions, their sum
    "rest". Each ``share`` is part of the sum of the estimates above zero. The ``ratio`` is the variance of data over
    that of initialization, NaN if neither estimate is above zero; the ratio of standard deviations is its root.
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


def components(y: ArrayLike, *, n_draws: int = 20_000, rng: np.random.Generator | int) -> Components:
    r"""Estimate the variances due to data, initialization, their interaction and the order of the batches.

    The estimates solve the expectations of the mean squares for the variances. They are unbiased whatever the
    distributions, and negative now and then if a variance is small. An interval is made of ``n_draws`` draws of the
    expectations, :math:`\theta = SS / \chi^2_\nu` with the sum of squares SS and its degrees of freedom :math:`\nu`;
    every draw is solved in the same way and stopped at zero (Weerahandi, J. Am. Stat. Assoc. 88, 899, 1993; Burdick,
    Borror & Montgomery, Design and Analysis of Gauge R&R Studies, 2005). The intervals assume Gaussian terms. With
    heavier tails they are too narrow, so look at the table first; use ``np.log(y)`` of a positive quantity that varies
    by factors; and compare with `pigeonhole`. A draw in which both variances vanish says nothing about their ratio: it
    counts as zero for the lower end of the interval and as infinite for the upper one.
    """
    y, n_draws = _table(y), check.count(n_draws, "n_draws")
    mean_squares, degrees = _mean_squares(y)
    solve = _solution(*y.shape)
    variance = solve @ mean_squares
    chi2 = np.random.default_rng(rng).chisquare(degrees, (n_draws, len(degrees)))
    draws = (degrees * mean_squares / chi2 @ solve.T).clip(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = draws[:, 0] / draws[:, 1]
        ratio = float(np.divide(*variance[:2].clip(0)))
    lower, upper = (_interval(np.where(np.isnan(ratios), worst, ratios)) for worst in (0.0, np.inf))
    share, shares = (v / v.sum(-1, keepdims=True) for v in (variance.clip(0), draws))
    terms = ("data", "initialization", *(("interaction", "batch") if len(degrees) == 4 else ("rest",)))
    ends = np.array([lower[0], upper[1]])
    return Components(terms, variance, _interval(draws), share, _interval(shares), ratio, ends)


def one_at_a_time(y: ArrayLike) -> OneAtATime:
    r"""Compare data and initialization in the usual design: vary one, with the other fixed at its first level.

    Only the first row, the first column and the first order of the batches count, as in the public code
    normalising_flow_uncertainties (github.com/roy-physics). Both sample variances contain the interaction and the
    order of the batches in full, however many flows there are. Apart from the noise of its denominator, their ratio has
    the expectation :math:`(\sigma_\alpha^2 + s^2) / (\sigma_\beta^2 + s^2)` with :math:`s^2 = \sigma_\gamma^2 +
    \sigma_\epsilon^2`, which lies between :math:`\sigma_\alpha^2 / \sigma_\beta^2` and one. Its interval, from the F
    distribution, is right for Gaussian terms about that expectation. (The flow that both share is neglected.)
    """
    y = _table(y)
    data, initialization = float(y[:, 0, 0].var(ddof=1)), float(y[0, :, 0].var(ddof=1))
    ratio = float(np.divide(data, initialization)) if initialization else np.inf
    low, high = stats.f.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2], len(y) - 1, y.shape[1] - 1)
    return OneAtATime(data, initialization, ratio, np.array([ratio / high, ratio / low]))


def pigeonhole(y: ArrayLike, *, n_draws: int = 2000, rng: np.random.Generator | int) -> np.ndarray:
    r"""Return the variances (n_draws, 3) of data, initialization and rest, from resampled rows and columns of ``y``.

    It checks `components` without assuming Gaussian terms (Owen, Ann. Appl. Stat. 1, 386, 2007). Orders of the batches
    are averaged over first. A table of repeated rows and columns scatters less than the original: its mean squares
    :math:`M^*` have, given ``y``, the expectations

    .. math::
        E M^*_\gamma = \frac{(D - 1)(I - 1)}{D I} M_\gamma, \qquad
        E (M^*_\alpha - M^*_\gamma) = \frac{D - 1}{D} M_\alpha ,

    and likewise for :math:`\beta`. With these we scale the estimates so that they average to those of ``y``. With few
    rows and columns the spread of the draws is too small, because a resampling cannot contain an outlier that did not
    happen: compare it with the interval of `components`, do not use it instead.
    """
    y, n_draws, rng = _table(y).mean(2), check.count(n_draws, "n_draws"), np.random.default_rng(rng)
    d, i = y.shape
    rows, columns = rng.integers(d, size=(n_draws, d, 1)), rng.integers(i, size=(n_draws, 1, i))
    drawn = _mean_squares(y[rows, columns][..., None])[0]
    rest = drawn[:, 2] * d * i / ((d - 1) * (i - 1))
    data, initialization = ((drawn[:, k] - drawn[:, 2]) * n / (n - 1) for k, n in enumerate((d, i)))
    return np.stack([(data - rest) / i, (initialization - rest) / d, rest], axis=1)


def _table(y: ArrayLike) -> np.ndarray:
    """Return y as (n_data, n_initializations, n_batches), or raise ValueError."""
    y = np.asarray(y, dtype=np.float64)
    y = y[..., None] if y.ndim == 2 else y
    if y.ndim != 3 or min(y.shape[:2]) < 2 or not y.shape[2]:
        shape = y.shape[:2] if y.ndim == 3 and y.shape[2] == 1 else y.shape
        raise ValueError("y must have shape (n_data, n_initializations) or (n_data, n_initializations, n_batches), "
                         f"with at least two draws of the data and two initializations; got {shape}")
    if not np.isfinite(y).all():
        raise ValueError(f"y has {(~np.isfinite(y)).sum()} values that are not finite")
    if np.ptp(y) == 0:
        raise ValueError("y must vary; all its values are equal")
    return y


def _mean_squares(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean squares (..., n_terms) of tables (..., D, I, B), and degrees of freedom (n_terms,)."""
    d, i, b = y.shape[-3:]
    cell = y.mean(-1)
    cell = cell - cell.mean((-2, -1), keepdims=True)
    row, column = cell.mean(-1, keepdims=True), cell.mean(-2, keepdims=True)
    parts = [i * b * row**2, d * b * column**2, b * (cell - row - column) ** 2]
    degrees = [d - 1, i - 1, (d - 1) * (i - 1)]
    if b > 1:
        parts.append(((y - y.mean(-1, keepdims=True)) ** 2).sum(-1))
        degrees.append(d * i * (b - 1))
    return np.stack([part.sum((-2, -1)) for part in parts], -1) / degrees, np.array(degrees)


def _solution(d: int, i: int, b: int) -> np.ndarray:
    """Return the matrix that makes variances of expected mean squares."""
    rows = [1 / (i * b), 0, -1 / (i * b), 0], [0, 1 / (d * b), -1 / (d * b), 0], [0, 0, 1 / b, -1 / b], [0, 0, 0, 1]
    return np.array(rows) if b > 1 else np.array(rows)[:3, :3]


def _interval(draws: np.ndarray) -> np.ndarray:
    """Return the central interval (..., 2) of draws (n, ...), by order so that infinities are allowed."""
    tail = int((1 - LEVEL) / 2 * len(draws))
    return np.moveaxis(np.sort(draws, axis=0)[[tail, -1 - tail]], 0, -1)
