"""How far apart two distributions are: from densities, from one density and stars, or from stars alone."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from . import checks
from .boltzmann import DistributionFunction


class Estimate(NamedTuple):
    """A Monte Carlo estimate and its standard error."""

    value: float
    standard_error: float


class Density(Protocol):
    """A density in closed form or a learned one: anything with ``log_prob``, or a system with ``log_df``."""

    def log_prob(self, w: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the natural log of the density (n,) at ``w`` (n, 6)."""


def _mean(values: NDArray[np.float64]) -> Estimate:
    if not np.isfinite(values).all():
        return Estimate(float(values.mean()), np.inf)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def kl_divergence(
    truth: DistributionFunction, model: Density, *, n: int = 100_000, rng: np.random.Generator | int
) -> Estimate:
    r"""Estimate :math:`\mathrm{KL}(f\,\|\,\hat f) = \langle \ln f - \ln \hat f\rangle_f`, in nats, with a known truth.

    Parameters
    ----------
    truth : system
        System, alone or with a stream, whose DF is known in closed form.
    model : FlowEnsemble or system
        What has a ``log_prob`` or a ``log_df``.
    n : int
        Number of fresh stars drawn from the truth.
    rng : Generator or int
        Random generator or its seed.

    Returns
    -------
    Estimate
        Value and standard error; both are infinite if the model excludes a star.

    Raises
    ------
    TypeError
        If the truth or the model has no density in closed form.
    ValueError
        If ``n`` is not at least 2.

    Examples
    --------
    >>> import dfaccel as da
    >>> truth = da.Plummer()
    >>> model = da.fit(truth.sample(2000, rng=1), spec=da.FlowSpec(2, 8), symmetry="spherical",
    ...                config=da.TrainConfig(n_epochs=1, batch_size=500), rng=0)
    >>> kl_divergence(truth, model, n=1000, rng=2).value > 0
    True
    """
    if checks.count(n, "n") < 2:
        raise ValueError("n must be at least 2 for a standard error; got 1")
    for density in (truth, model):  # before stars are drawn, which may take long
        _log_density(density, np.array([[1.0, 0, 0, 0, 0.1, 0]]))
    w = truth.sample(n, rng=rng)
    return _mean(_log_density(truth, w) - _log_density(model, w))


def cross_entropy(model: Density, stars: ArrayLike, *, other: Density | None = None) -> Estimate:
    r"""Estimate the cross-entropy :math:`H = -\langle \ln \hat f \rangle`, in nats, or the difference of two.

    The cross-entropy of stars drawn from `f` is :math:`H(f, \hat f) = S(f) + \mathrm{KL}(f\,\|\,\hat f)`. The entropy
    `S` of the stars is unknown, but the same for every model, so that

    .. math:: H(f, \hat f_1) - H(f, \hat f_2) = \langle \ln \hat f_2 - \ln \hat f_1 \rangle
              = \mathrm{KL}(f\,\|\,\hat f_1) - \mathrm{KL}(f\,\|\,\hat f_2)

    needs no density of the truth; star by star, its standard error is that of the difference.

    Parameters
    ----------
    model : FlowEnsemble or system
        What has a ``log_prob`` or a ``log_df``.
    stars : array (n, 6)
        Stars that the model has not been learned from.
    other : FlowEnsemble or system, optional
        If given, its cross-entropy on the same stars is subtracted: a negative value says that `model` is closer.

    Returns
    -------
    Estimate
        Value and standard error; both are infinite if one of the models excludes a star, NaN if both do.

    Raises
    ------
    TypeError
        If a model has no density in closed form.
    ValueError
        If the stars are not finite, of shape (n, 6), at least two.

    Examples
    --------
    >>> import dfaccel as da
    >>> stars = da.Plummer().sample(1000, rng=1)
    >>> cross_entropy(da.Plummer(), stars, other=da.Plummer(G=1.5)).value < 0
    True
    """
    w = checks.phase_space(stars, "stars")
    if len(w) < 2:
        raise ValueError("stars must have at least 2 rows for a standard error; got 1")
    surprise = -_log_density(model, w)
    return _mean(surprise if other is None else surprise + _log_density(other, w))


def _log_density(model: Density, w: NDArray[np.float64]) -> NDArray[np.float64]:
    density = getattr(model, "log_prob", None) or getattr(model, "log_df", None)
    if density is None:
        raise TypeError(f"{type(model).__name__} has no density in closed form; compare models of its stars with "
                        "cross_entropy, or two samples with knn_divergence")
    return np.asarray(density(w))


def knn_divergence(
    x: ArrayLike, y: ArrayLike, k: int = 8, *, extrapolate: bool = True, scale: ArrayLike | None = None
) -> Estimate:
    r"""Estimate KL(p || q), in nats, from stars of `p` and of `q` alone, by distances to nearest neighbours.

    With :math:`\rho_j(i)` the distance of :math:`x_i` to the j-th nearest of the *other* `x`, and :math:`\nu_j(i)` to
    the j-th nearest `y`,

    .. math::
        D_j = \frac dn \sum_{i=1}^n \ln \frac{\nu_j(i)}{\rho_j(i)} + \ln \frac{m}{n - 1} .

    Each :math:`D_j` is consistent, but where the density changes across a ball its bias falls only as
    :math:`(j / n)^{2/d}`, in six dimensions as the cube root. So a straight line in :math:`j^{2/d}` is fitted to
    :math:`D_1 \dots D_k` and read off at zero.

    Parameters
    ----------
    x : array (n, d)
        Draws from `p`.
    y : array (m, d)
        Draws from `q`, independent of `x`.
    k : int
        Number of neighbours.
    extrapolate : bool
        Whether to extrapolate to a ball of no size; if not, the result is :math:`D_k`, with less noise and more bias.
    scale : array (d,), optional
        What both samples are divided by before distances are taken: half of the range that holds the central 68 % of
        `y`, if not given. One scale for both leaves the divergence as it is; a scale for each would not.

    Returns
    -------
    Estimate
        Value and standard error. The error is that of the draws (infinitesimal jackknife over both samples). It does
        not know of the bias that is left, and is too small by up to a factor of 2 where many `x` crowd around the
        same few `y`.

    Raises
    ------
    TypeError
        If `k` is not a whole number.
    ValueError
        If a sample is not a finite array of the same number of columns as the other, has too few rows for `k`, or a
        column without spread; if `extrapolate` and `k` is 1; or if a row occurs twice, in one sample or in both, which
        no draw from a density does.

    Notes
    -----
    Source of :math:`D_j`: Wang, Kulkarni and Verdu (2009), IEEE Trans. Inf. Theory 55, 2392, eq. 5. To count a point
    as its own neighbour puts :math:`\rho_{k-1}` in the place of :math:`\rho_k` and adds
    :math:`\psi(k) - \psi(k - 1) = 1 / (k - 1)`. For the extrapolation compare Sricharan, Wei and Hero (2013), IEEE
    Trans. Inf. Theory 59, 4374.

    What is left of the bias, with 100,000 draws each in six dimensions: below 0.01 or 4 % for a Plummer sphere with a
    stream; -5 % (:math:`D_8`: -13 %) for unit Gaussians one apart; +0.02 (+0.04) of 0.08 for the stars of two Plummer
    spheres whose masses differ by 30 %; -24 % (-75 %) where `q` is a Gaussian narrower than `p` by a fifth, so that
    `p` has stars where there are hardly any of `q`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(4000, 2)), rng.normal(1.0, 1.0, size=(4000, 2))
    >>> estimate = knn_divergence(x, y)
    >>> abs(estimate.value - 1) < 5 * estimate.standard_error
    True
    """
    k = checks.count(k, "k")
    x, y = _sample(x, "x"), _sample(y, "y")
    (n, d), m = x.shape, len(y)
    if y.shape[1] != d:
        raise ValueError(f"x and y must have the same number of columns; got {d} and {y.shape[1]}")
    if extrapolate and k < 2:
        raise ValueError("k must be at least 2 to extrapolate; got 1; ask for more or set extrapolate=False")
    if k > min(n - 1, m):
        raise ValueError(f"k must be at most {min(n - 1, m)} for samples of {n} and {m} rows; got {k}")
    repeats = n + m - len(np.unique(np.concatenate([x, y]), axis=0))
    if repeats:
        raise ValueError(f"x and y must not repeat a row, in one sample or in both; got {repeats} repeats, which no "
                         "draw from a density has; remove them")
    if scale is None:
        low, high = np.percentile(y, [15.865, 84.135], axis=0)
        divisor = (high - low) / 2
        if not (divisor > 0).all():
            raise ValueError(f"y must have a spread in every column; got none in column {int((divisor <= 0).argmax())}")
    else:
        divisor = np.asarray(scale, dtype=np.float64)
        if divisor.shape != (d,) or not (np.isfinite(divisor) & (divisor > 0)).all():
            raise ValueError(f"scale must be {d} positive finite numbers, one for each column; got {scale}")
    x, y = x / divisor, y / divisor
    rho, of_x = cKDTree(x).query(x, k=np.arange(2, k + 2))  # the nearest, at distance zero, is the point itself
    nu, of_y = cKDTree(y).query(x, k=np.arange(1, k + 1))
    weight = _intercept(np.arange(1, k + 1) ** (2 / d)) if extrapolate else np.eye(k)[-1]
    each = d * np.log(nu / rho) @ weight + np.log(m / (n - 1))
    # what one more draw would change: its own term, and through the balls of others that it lies in
    within = np.cumsum((weight / np.arange(1, k + 1))[::-1])[::-1]  # of the j-th neighbour: all balls from j on
    from_x = each + np.bincount(of_x.ravel(), np.tile(within, n), minlength=n)
    from_y = np.bincount(of_y.ravel(), np.tile(within, n), minlength=m) * (m / n)
    variance = from_x.var(ddof=1) / n + from_y.var(ddof=1) / m
    return Estimate(float(each.mean()), float(np.sqrt(variance)))


def _sample(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must have shape (n, d) and hold at least one number; got {array.shape}")
    return checks.finite_rows(array, name)


def _intercept(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of ordinates whose sum is the value at zero of the straight line that fits them at `u`."""
    return np.linalg.pinv(np.column_stack([np.ones_like(u), u]))[0]
