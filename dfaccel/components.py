r"""What data, initialization and the order of the batches each add to the scatter of trained flows.

`components` takes a crossed design apart, `one_at_a_time` is the usual design beside it, `pigeonhole` a check.

>>> rng = np.random.default_rng(0)
>>> y = 2 * rng.standard_normal((8, 1)) + rng.standard_normal((1, 8)) + 0.5 * rng.standard_normal((8, 8))
>>> result = components(y, rng=1)
>>> bool(result.ratio_interval[0] < 4 < result.ratio_interval[1])
True
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from .checks import count

LEVEL = 0.95  # of every interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Components:
    """What `components` returns; arrays have an entry a term.

    Parameters
    ----------
    terms
        "data", "initialization", then "interaction" and "batch" or, without repetitions, their sum "rest".
    degrees, mean_squares
        Degrees of freedom and mean squares.
    variance, interval
        Unbiased estimates, which may be negative, and 95 % intervals (n_terms, 2), which stop at zero.
    share, share_interval
        Shares of the total variance, of estimates not below zero, and their intervals.
    ratio, ratio_interval
        Variance of data over that of initialization; NaN if neither is estimated above zero.
    """

    terms: tuple[str, ...]
    degrees: NDArray[np.int64]
    mean_squares: Floats
    variance: Floats
    interval: Floats
    share: Floats
    share_interval: Floats
    ratio: float
    ratio_interval: Floats


@dataclass(frozen=True)
class OneAtATime:
    """What `one_at_a_time` returns: the two sample variances, their ratio, and its 95 % interval (2,)."""

    data: float
    initialization: float
    ratio: float
    ratio_interval: Floats


def components(y: ArrayLike, *, n_draws: int = 20_000, rng: np.random.Generator | int) -> Components:
    r"""Estimate the variances due to data, to initialization, to their interaction and to the order of the batches.

    The model is that of two crossed random factors with interaction,

    .. math::
        y_{dib} = \mu + \alpha_d + \beta_i + \gamma_{di} + \epsilon_{dib},

    all terms independent, with mean zero and variances :math:`\sigma_\alpha^2, \sigma_\beta^2, \sigma_\gamma^2,
    \sigma_\epsilon^2`. The mean squares of a table of D data draws, I initializations and B orders of the batches have
    the expectations

    .. math::
        \theta_\alpha = I B \sigma_\alpha^2 + \theta_\gamma, \quad
        \theta_\beta = D B \sigma_\beta^2 + \theta_\gamma, \quad
        \theta_\gamma = B \sigma_\gamma^2 + \theta_\epsilon, \quad
        \theta_\epsilon = \sigma_\epsilon^2 ,

    and the estimates solve these for the variances: unbiased, and negative now and then where a variance is small.
    An interval is made of draws of the expectations, :math:`\theta = SS / \chi^2_\nu` with the sum of squares SS and
    its degrees of freedom :math:`\nu`; every draw is solved in the same way and stopped at zero.
    With B = 1 interaction and batch order cannot be told apart: they are one term, "rest".

    Parameters
    ----------
    y : array_like, shape (n_data, n_initializations) or (n_data, n_initializations, n_batches)
        What was measured of each flow, in any unit, such as an array of `dfaccel.variance.cells`.
    n_draws : int
        Draws of the mean squares' expectations.
    rng : Generator or int
        Random generator or its seed.

    Returns
    -------
    Components
        Estimates and intervals, variances in the unit of `y` squared. The ratio of standard deviations is the root of
        ``ratio``, and so are its bounds.

    Raises
    ------
    ValueError
        If the shape is wrong, a factor has fewer than two levels, or the values are not finite or all equal.

    Notes
    -----
    The estimates are unbiased whatever the distributions; the intervals take every term for Gaussian, and a factor of
    few levels says little about its variance however often it is repeated. Losses have outliers (a flow that stopped
    early, a star in the far tail of the test set); with tails heavier than a Gaussian's the intervals are too narrow.
    Look at the table first; analyse ``np.log(y)`` of a positive quantity that varies by factors, such as a divergence
    or an error; and see whether `pigeonhole` tells another story.
    A draw in which both variances vanish says nothing about their ratio: it counts as zero for the lower end of the
    interval and as infinite for the upper one, which may then be infinite.

    Weerahandi, J. Am. Stat. Assoc. 88, 899 (1993), generalized confidence intervals; Burdick, Borror & Montgomery,
    Design and Analysis of Gauge R&R Studies (2005), for this design; Searle, Casella & McCulloch, Variance Components
    (1992), the expectations.

    Examples
    --------
    >>> y = [[1.0, 1.2, 1.1], [2.0, 2.1, 2.3], [3.1, 3.0, 3.2]]
    >>> result = components(y, rng=0)
    >>> [f"{name} {value:.3f}" for name, value in zip(result.terms, result.variance)]
    ['data 0.997', 'initialization 0.003', 'rest 0.011']
    """
    y, n_draws = _table(y), count(n_draws, "n_draws")
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
    return Components(terms, degrees, mean_squares, variance, _interval(draws), share, _interval(shares), ratio,
                      np.array([lower[0], upper[1]]))


def one_at_a_time(y: ArrayLike) -> OneAtATime:
    r"""Compare data and initialization as is usual: vary one, with the other fixed at its first level.

    The ratio of the two sample variances has the expectation, but for the noise of its denominator,

    .. math::
        \frac{\sigma_\alpha^2 + \sigma_\gamma^2 + \sigma_\epsilon^2}
             {\sigma_\beta^2 + \sigma_\gamma^2 + \sigma_\epsilon^2} ,

    which is pulled from :math:`\sigma_\alpha^2 / \sigma_\beta^2` towards one: either variance contains the interaction
    and the order of the batches whole, and no number of flows takes them out. That holds for its interval as well,

    .. math::
        \left[ r / F_{0.975}, \; r / F_{0.025} \right], \qquad F \text{ with } n_d - 1,\, n_i - 1
        \text{ degrees of freedom},

    which is right for Gaussian terms, about the ratio above. (The flow that both variances share is neglected.)

    Parameters
    ----------
    y : array_like, shape (n_data, n_initializations) or (n_data, n_initializations, n_batches)
        What was measured of each flow; only the first row, the first column and the first order of the batches count.

    Returns
    -------
    OneAtATime
        Variances in the unit of `y` squared, their ratio and its interval.

    Raises
    ------
    ValueError
        If the shape is wrong, a factor has fewer than two levels, or the values are not finite or all equal.

    Notes
    -----
    The design of the public code normalising_flow_uncertainties (github.com/roy-physics), with as many flows as
    `y` has rows and columns.

    Examples
    --------
    >>> one_at_a_time([[1.0, 1.2, 1.1], [2.0, 2.1, 2.3], [3.1, 3.0, 3.2]]).ratio
    110.33...
    """
    y = _table(y)
    data, initialization = float(y[:, 0, 0].var(ddof=1)), float(y[0, :, 0].var(ddof=1))
    ratio = float(np.divide(data, initialization)) if initialization else np.inf
    low, high = stats.f.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2], len(y) - 1, y.shape[1] - 1)
    return OneAtATime(data, initialization, ratio, np.array([ratio / high, ratio / low]))


def pigeonhole(y: ArrayLike, *, n_draws: int = 2000, rng: np.random.Generator | int) -> Floats:
    r"""Estimate the variances anew from tables whose rows and columns are drawn, with replacement, from those of `y`.

    A check of `components` that takes nothing for Gaussian. A table of repeated rows and columns scatters less than the
    original: its mean squares :math:`M^*` have, given `y`, the expectations

    .. math::
        E M^*_\gamma = \frac{(D - 1)(I - 1)}{D I} M_\gamma, \qquad
        E (M^*_\alpha - M^*_\gamma) = \frac{D - 1}{D} M_\alpha ,

    and likewise for :math:`\beta`; with these the estimates are scaled so that they average to those of `y`.
    With few rows and columns the spread of the draws is too small: a resampling cannot know of an outlier that did not
    happen. Compare it with the interval of `components`, do not put it in its place.

    Parameters
    ----------
    y : array_like, shape (n_data, n_initializations) or (n_data, n_initializations, n_batches)
        What was measured of each flow; orders of the batches are averaged over first.
    n_draws : int
        Number of tables drawn.
    rng : Generator or int
        Random generator or its seed.

    Returns
    -------
    ndarray, shape (n_draws, 3)
        Variances of data, initialization and the rest, which may be negative.

    Raises
    ------
    ValueError
        If the shape is wrong, a factor has fewer than two levels, or the values are not finite or all equal.

    Notes
    -----
    Owen, Ann. Appl. Stat. 1, 386 (2007), the resampling.

    Examples
    --------
    >>> y = np.random.default_rng(0).standard_normal((8, 8))
    >>> low, high = np.quantile(pigeonhole(y, rng=1), [0.025, 0.975], axis=0)
    >>> low.shape
    (3,)
    """
    y, n_draws, rng = _table(y).mean(2), count(n_draws, "n_draws"), np.random.default_rng(rng)
    d, i = y.shape
    rows, columns = rng.integers(d, size=(n_draws, d, 1)), rng.integers(i, size=(n_draws, 1, i))
    drawn = _mean_squares(y[rows, columns][..., None])[0]
    rest = drawn[:, 2] * d * i / ((d - 1) * (i - 1))
    data, initialization = ((drawn[:, k] - drawn[:, 2]) * n / (n - 1) for k, n in enumerate((d, i)))
    return np.stack([(data - rest) / i, (initialization - rest) / d, rest], axis=1)


def _table(y: ArrayLike) -> Floats:
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


def _mean_squares(y: Floats) -> tuple[Floats, NDArray[np.int64]]:
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


def _solution(d: int, i: int, b: int) -> Floats:
    """Return the matrix that makes variances of expected mean squares."""
    solve = np.array([[1 / (i * b), 0, -1 / (i * b), 0], [0, 1 / (d * b), -1 / (d * b), 0], [0, 0, 1 / b, -1 / b],
                      [0, 0, 0, 1]])
    return solve if b > 1 else solve[:3, :3]


def _interval(draws: Floats) -> Floats:
    """Return the central interval (..., 2) of draws (n, ...), by order so that infinities are allowed."""
    n = len(draws)
    tail = int((1 - LEVEL) / 2 * n)
    return np.moveaxis(np.sort(draws, axis=0)[[tail, n - 1 - tail]], 0, -1)
