"""Calibrated error bars: how far the scatter over members falls short, found without knowing the truth.

Members that differ in bootstrap and initialization scatter by the error of one member. The error of the ensemble also
has a part that all members share: what a flow of this size, trained for this long, cannot follow. So we draw stars from
the learned distribution function, learn them again in the same way, and compare the new accelerations with those of the
distribution function that the stars came from (a parametric bootstrap; Efron & Tibshirani 1993, chapter 6).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Self

import numpy as np
import torch
from scipy import stats
from scipy.special import softmax
from tqdm.auto import tqdm

from dfaccel import _check as check
from dfaccel.flows.ensemble import FlowEnsemble
from dfaccel.flows.fit import fit
from dfaccel.gravity.accelerations import Accelerations, accelerations

_NEAR, _WIDE, _PLACES = 0.4, 0.8, 3  # widths in ln r to average bias, variance; independent places in the latter
_DOUBT = 0.5  # error of the bias, relative to it: it was measured in the learned galaxy, not in the true one


def error_and_scatter(result: Accelerations, truth: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return recovered - true acceleration and scatter over members, (2, m, d), along ``directions`` (m, d, 3)."""
    error = np.einsum("mdi,mi->md", directions, result.value - truth)
    return np.stack([error, np.sqrt(np.einsum("mdi,mij,mdj->md", directions, result.covariance, directions))])


@dataclass(frozen=True)
class Calibration:
    """Errors of the repetitions and scatter over members; made by `calibrate`, kept by `fit_calibrated`.

    Parameters
    ----------
    points, error : ndarray, shapes (m, 3), (n_repeats, m, d)
        Positions, length, and recovered minus true acceleration of each repetition along d unit vectors: outwards
        under spherical symmetry, else x, y and z; velocity^2 / length.
    scatter : ndarray, shape (1 + n_repeats, m, d)
        Scatter over members along the same vectors, of the model itself and then of each repetition.
    """

    points: np.ndarray
    error: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, model: FlowEnsemble) -> Self:
        """Return the calibration that `fit_calibrated` left in the metadata of an ensemble."""
        return cls(**{name: np.array(value) for name, value in model.metadata["calibration"].items()})

    @property
    def standardized(self) -> np.ndarray:
        """Errors in units of the scatter of their own repetition, (n_repeats, m, d)."""
        return self.error / self.scatter[1:]

    def factor(self, level: float) -> float:
        """Return the multiple of the scatter that held the truth of the repetitions with probability ``level``."""
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1; got {level!r}")
        return float(np.quantile(np.abs(self.standardized), level))

    def interval(self, radius: np.ndarray, level: float = 0.68) -> tuple[np.ndarray, np.ndarray]:
        """Return bias and half width, each (n,), of intervals of the outward acceleration at radii (n,).

        The intervals are centred on the acceleration minus the bias. Mean and variance over repetitions, in units of
        the common scatter of the ensembles, are averaged over neighbouring radii. The variance includes that of the
        mean, and half the bias as a further standard error.
        """
        if self.error.shape[2] > 1:
            raise ValueError("an interval along the radius needs a model with spherical symmetry; use factor")
        here, there = np.log(radius), np.log(np.linalg.norm(self.points, axis=1))
        near, wide = (softmax(-0.5 * ((here[:, None] - there) / width) ** 2, axis=1) for width in (_NEAR, _WIDE))
        common, order = np.sqrt((self.scatter[..., 0] ** 2).mean(axis=0)), there.argsort()
        ratio, n = self.error[..., 0] / common, len(self.error)
        mean, variance = ratio.mean(axis=0), ratio.var(axis=0, ddof=1) * (1 + 1 / n)
        unit = np.exp(np.interp(here, there[order], np.log(common[order])))
        sigma = unit * np.sqrt(wide @ (variance + (_DOUBT * mean) ** 2))
        return unit * (near @ mean), sigma * student(level, _PLACES * (n - 1))

    def apply(self, result: Accelerations, level: float = 0.68) -> Accelerations:
        """Return accelerations whose roots of the covariance are calibrated intervals of probability ``level``.

        Under spherical symmetry they are those of `interval`, without the bias. Otherwise `factor` multiplies them.
        """
        if self.error.shape[2] > 1:
            return replace(result, covariance=result.covariance * self.factor(level) ** 2)
        radius = np.linalg.norm(result.points, axis=1)
        outward = result.points / radius[:, None]
        bias, half = self.interval(radius, level)
        shift, line = bias[:, None] * outward, half[:, None] * outward
        covariance = line[:, :, None] * line[:, None]
        return replace(result, value=result.value - shift, members=result.members - shift, covariance=covariance)


def student(level: float, n_degrees: int) -> float:
    """Return the multiple of a standard deviation, known to so many degrees of freedom, of a central interval."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level!r}")
    return float(stats.t.ppf(0.5 + level / 2, n_degrees))


def coverage(inside: np.ndarray) -> tuple[float, float, float]:
    """Return the share of ``inside`` (n_sets, m), its standard error, and the independent trials of one data set."""
    share = np.mean(inside, axis=1)  # neighbours err together; only data sets are independent
    p, variance = share.mean(), share.var(ddof=1)
    trials = p * (1 - p) / variance if variance > 0 else np.inf  # m, were the places independent
    return float(p), float(np.sqrt(variance / len(share))), float(trials)


def calibrate(
    model: FlowEnsemble, refit: Callable[[np.ndarray, np.random.Generator], FlowEnsemble], points: np.ndarray, *,
    n_stars: int, n_repeats: int = 4, n_velocities: int = 1000, rng: np.random.Generator | int,
) -> Calibration:
    """Measure bias and error of accelerations by learning again from stars that the model has drawn.

    ``apply(result, level)`` of the `Calibration` calibrates accelerations of the model; ``interval(radius, level)`` has
    bias and half width along the radius, ``factor(level)`` the multiple of the scatter over members.

    Parameters
    ----------
    model, refit : FlowEnsemble, callable
        Ensemble whose error bars are in question, and ``refit(stars, rng)``, which learns one in the same way.
    points : ndarray, shape (m, 3)
        Positions at which to compare, length, distributed like those of interest.
    n_stars, n_repeats : int
        Number of stars that ``model`` was learned from, and times to draw stars and learn again, at least 2.
    n_velocities, rng : int, Generator or int
        Velocities per point, and random generator or its seed, as in `accelerations`.

    Raises
    ------
    TypeError, ValueError
        If ``refit`` is not callable or returns one flow, a count is no positive integer, ``n_repeats`` is 1, or
        ``points`` has the wrong shape.

    Examples
    --------
    >>> import dfaccel as da
    >>> def refit(stars, rng):
    ...     return da.fit(stars, n_flows=2, spec=da.FlowSpec(2, 8), config=da.TrainConfig(n_epochs=1, batch_size=200),
    ...                   coordinates="spherical", rng=rng)
    >>> model = refit(da.Plummer().sample(2000, rng=0), 1)
    >>> calibration = calibrate(model, refit, np.eye(3), n_stars=2000, n_repeats=2, n_velocities=50, rng=2)
    >>> calibrated = calibration.apply(da.accelerations(model, 2 * np.eye(3), n_velocities=50, rng=3), level=0.95)
    >>> calibrated.covariance.shape
    (3, 3, 3)
    """
    points = check.points(points)
    if not callable(refit):
        raise TypeError(f"refit must be a function of stars and rng; got {refit!r}")
    check.count(n_stars, "n_stars")
    if check.count(n_repeats, "n_repeats") < 2:
        raise ValueError(f"n_repeats must be at least 2, to have a spread; got {n_repeats}")
    rng = np.random.default_rng(rng)
    directions = model.coordinates.determined(points)
    own = accelerations(model, points, n_velocities=n_velocities, rng=rng)
    found = [error_and_scatter(own, own.value, directions)]
    for child in tqdm(rng.spawn(n_repeats), unit="repeat", leave=False):
        draw, learn = child.spawn(2)
        again = refit(redraw(model, n_stars, draw), learn)
        result = accelerations(again, points, n_velocities=n_velocities, rng=child, warn=False)
        if again.n_flows < 2:
            raise ValueError(f"refit must return an ensemble of two members or more; got {again.n_flows}")
        found.append(error_and_scatter(result, own.value, directions))
    error, scatter = map(np.stack, zip(*found, strict=True))
    return Calibration(points, error[1:], scatter)


def redraw(model: FlowEnsemble, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n stars, without any beyond ten standard deviations that makes up a hundredth of a coordinate's variance."""
    w = model.sample(n, rng=rng)  # where a flow had no stars to learn from it may draw one at a million deviations
    y = (model.coordinates.forward(torch.from_numpy(w))[0] - model.mean) / model.std
    far = ~(y.abs().amax(dim=1) < max(10.0, 0.1 * n**0.5)).numpy()
    w[far] = rng.choice(w[~far], far.sum())
    return w


def fit_calibrated(
    stars: np.ndarray, points: np.ndarray, *, weights: np.ndarray | None = None, n_repeats: int = 4,
    n_velocities: int = 1000, rng: np.random.Generator | int, checkpoint: str | Path | None = None, **options: object,
) -> FlowEnsemble:
    """Fit an ensemble (with ``options`` of `fit`), calibrate it, and put the calibration in its metadata.

    Stars with weights are calibrated by their effective number of stars that are drawn from the model.
    """
    points = check.points(points)
    check.count(n_repeats, "n_repeats")
    learn, judge = np.random.default_rng(rng).spawn(2)
    numbers = count()

    def refit(w: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None = None) -> FlowEnsemble:
        number = next(numbers)  # a folder of its own for every fit: a run that is killed goes on from there
        folder = None if checkpoint is None else Path(checkpoint) / (f"repeat_{number}" if number else "")
        return fit(w, rng=rng, weights=weights, checkpoint=folder, **options)

    model, started = refit(stars, learn, weights), time.perf_counter()
    calibration = calibrate(model, refit, points, n_stars=round(model.metadata["n_effective"]), n_repeats=n_repeats,
                            n_velocities=n_velocities, rng=judge)
    model.metadata |= {
        "n_repeats": n_repeats,
        "calibration_seconds": round(time.perf_counter() - started, 1),
        "factors": {str(level): calibration.factor(level) for level in (0.68, 0.95)},
        "calibration": {name: value.tolist() for name, value in vars(calibration).items()},
    }
    return model
