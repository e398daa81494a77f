"""Calibrated error bars: how far the scatter over members falls short, found without knowing the truth.

Members that differ in bootstrap and initialization scatter by the error of one member. The error of the ensemble also
has a part that all members share: what a flow of this size, trained for this long, cannot follow. So we repeat the
whole exercise where the answer is known. We draw stars from the learned distribution function, learn them again in the
same way, and compare the new accelerations with those of the distribution function that the stars came from (a
parametric bootstrap; Efron & Tibshirani 1993, chapter 6).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from dfaccel import _check as check
from dfaccel.flows.ensemble import FlowEnsemble
from dfaccel.flows.fit import fit
from dfaccel.gravity.accelerations import Accelerations, accelerations


def standardized_errors(
    result: Accelerations, truth: np.ndarray, *, directions: np.ndarray | None = None
) -> np.ndarray:
    """Return (recovered - true) / scatter over members (m, d) along unit vectors ``directions`` (m, d, 3), or x y z."""
    if len(result.members) < 2:
        raise ValueError(f"result must have two members or more to have a scatter; got {len(result.members)}")
    if directions is None:
        directions = np.broadcast_to(np.eye(3), (len(truth), 3, 3))
    error = np.einsum("mdi,mi->md", directions, result.value - truth)
    return error / np.sqrt(np.einsum("mdi,mij,mdj->md", directions, result.covariance, directions))


@dataclass(frozen=True)
class Calibration:
    """Errors of the repetitions in units of their own scatter, ``standardized`` (n_repeats, m, d)."""

    standardized: np.ndarray

    def factor(self, level: float) -> float:
        """Return the multiple of the scatter that holds the truth with probability ``level``, between 0 and 1."""
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1; got {level!r}")
        return float(np.quantile(np.abs(self.standardized), level))


def calibrate(
    model: FlowEnsemble, refit: Callable[[np.ndarray, np.random.Generator], FlowEnsemble], points: np.ndarray, *,
    n_stars: int, n_repeats: int = 4, n_velocities: int = 1000, rng: np.random.Generator | int,
) -> Calibration:
    """Find the factor by which the scatter over members understates, or overstates, the error of accelerations.

    Parameters
    ----------
    model : FlowEnsemble
        Ensemble whose error bars are in question.
    refit : callable
        ``refit(stars, rng)`` learns an ensemble in the way that ``model`` was learned.
    points : ndarray, shape (m, 3)
        Positions at which to compare, length, distributed like those of interest.
    n_stars : int
        Number of stars that ``model`` was learned from.
    n_repeats : int
        Times to draw stars and learn again. The points of one repetition are correlated, so the number of independent
        trials is closer to this than to the number of points.
    n_velocities : int
        Velocities per point.
    rng : Generator or int
        Random generator or its seed.

    Returns
    -------
    Calibration
        ``factor(level)`` is the multiple of the scatter for a confidence level.

    Raises
    ------
    TypeError
        If ``refit`` is not callable or a count is not an integer.
    ValueError
        If a count is not positive, ``points`` has the wrong shape, or ``refit`` returns a single flow.

    Examples
    --------
    >>> import dfaccel as da
    >>> def refit(stars, rng):
    ...     return da.fit(stars, n_flows=2, spec=da.FlowSpec(2, 8), config=da.TrainConfig(n_epochs=1, batch_size=200),
    ...                   coordinates="spherical", rng=rng)
    >>> model = refit(da.Plummer().sample(2000, rng=0), 1)
    >>> calibration = calibrate(model, refit, np.eye(3), n_stars=2000, n_repeats=2, n_velocities=50, rng=2)
    >>> calibration.factor(0.95) > calibration.factor(0.68) > 0
    True
    """
    points = check.points(points)
    if not callable(refit):
        raise TypeError(f"refit must be a function of stars and rng; got {refit!r}")
    check.count(n_stars, "n_stars")
    rng = np.random.default_rng(rng)
    directions = model.coordinates.determined(points)
    truth = accelerations(model, points, n_velocities=n_velocities, rng=rng).value
    errors = []
    for child in tqdm(rng.spawn(check.count(n_repeats, "n_repeats")), unit="repeat", leave=False):
        draw, learn = child.spawn(2)
        again = refit(model.sample(n_stars, rng=draw), learn)
        result = accelerations(again, points, n_velocities=n_velocities, rng=child)
        errors.append(standardized_errors(result, truth, directions=directions))
    return Calibration(np.stack(errors))


def fit_calibrated(
    stars: np.ndarray, points: np.ndarray, *, n_repeats: int = 4, n_velocities: int = 1000,
    rng: np.random.Generator | int, checkpoint: str | Path | None = None, **options: object,
) -> FlowEnsemble:
    """Fit an ensemble (with ``options`` of `fit`), calibrate it, and put the 68 and 95 % factors in its metadata."""
    points = check.points(points)
    check.count(n_repeats, "n_repeats")
    learn, judge = np.random.default_rng(rng).spawn(2)
    numbers = count()

    def refit(w: np.ndarray, rng: np.random.Generator) -> FlowEnsemble:
        number = next(numbers)  # a folder of its own for every fit: a run that is killed goes on from there
        folder = None if checkpoint is None else Path(checkpoint) / (f"repeat_{number}" if number else "")
        return fit(w, rng=rng, checkpoint=folder, **options)

    model, started = refit(stars, learn), time.perf_counter()
    calibration = calibrate(model, refit, points, n_stars=len(stars), n_repeats=n_repeats, n_velocities=n_velocities,
                            rng=judge)
    model.metadata |= {
        "n_repeats": n_repeats,
        "calibration_seconds": round(time.perf_counter() - started, 1),
        "factors": {str(level): calibration.factor(level) for level in (0.68, 0.95)},
    }
    return model
