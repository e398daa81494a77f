r"""Error bars that are true: calibrating the scatter of members without knowing the truth.

Members that differ in bootstrap and initialization scatter by the error of one member; the ensemble's own error also
has a part that they share: what a flow of this size, trained for this long, cannot follow. So the whole exercise is
repeated where the answer is known: stars are drawn from the learned distribution function, learned again in the same
way, and the new accelerations compared with those of the distribution function they came from (a parametric
bootstrap; Efron & Tibshirani 1993, chapter 6).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from . import checks
from .boltzmann import Accelerations, accelerations
from .ensemble import FlowEnsemble
from .training import fit


def standardized_errors(result: Accelerations, truth: np.ndarray, *, radial: bool = False) -> np.ndarray:
    """Return errors in units of the scatter over members.

    Parameters
    ----------
    result : Accelerations
        Recovered accelerations, of two members or more.
    truth : ndarray, shape (m, 3)
        True accelerations.
    radial : bool
        Whether only the component along the radius counts: where spherical symmetry is imposed there is no other.

    Returns
    -------
    ndarray, shape (m, 1) or (m, 3)
        (recovered - true) / scatter of the radial component, or of each.

    Raises
    ------
    ValueError
        If there is one member only, so no scatter.

    Examples
    --------
    >>> import dfaccel as da
    >>> exact = da.accelerations(da.Plummer(), np.eye(3), n_velocities=100)
    >>> standardized_errors(exact, exact.value)
    Traceback (most recent call last):
        ...
    ValueError: result must have two members or more to have a scatter; got 1
    """
    if len(result.members) < 2:
        raise ValueError(f"result must have two members or more to have a scatter; got {len(result.members)}")
    error = result.value - truth
    if not radial:
        return error / np.sqrt(np.diagonal(result.covariance, axis1=1, axis2=2))
    direction = result.points / np.linalg.norm(result.points, axis=1, keepdims=True)
    variance = np.einsum("mi,mij,mj->m", direction, result.covariance, direction)
    return ((error * direction).sum(axis=1) / np.sqrt(variance))[:, None]


@dataclass(frozen=True)
class Calibration:
    """What the scatter over members must be multiplied by.

    Parameters
    ----------
    standardized : ndarray, shape (n_repeats, m, 1 or 3)
        Errors of the repetitions in units of their own scatter.
    """

    standardized: np.ndarray

    def factor(self, level: float) -> float:
        """Return the multiple of the scatter that holds the truth with probability ``level``.

        Raises
        ------
        ValueError
            If ``level`` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1; got {level!r}")
        return float(np.quantile(np.abs(self.standardized), level))


def calibrate(
    model: FlowEnsemble,
    refit: Callable[[np.ndarray, np.random.Generator], FlowEnsemble],
    points: np.ndarray,
    *,
    n_stars: int,
    n_repeats: int = 4,
    n_velocities: int = 1000,
    rng: np.random.Generator | int,
) -> Calibration:
    """Find by how much the scatter over members understates, or overstates, the error.

    Parameters
    ----------
    model : FlowEnsemble
        Ensemble whose error bars are in question.
    refit : callable
        ``refit(stars, rng)`` learns an ensemble in the way that ``model`` was learned.
    points : ndarray, shape (m, 3)
        Positions at which to compare, spread as those of interest.
    n_stars : int
        Stars ``model`` was learned from.
    n_repeats : int
        Times to draw stars and learn again; their points are correlated, so that these count, not the points.
    n_velocities : int
        Velocities a point.
    rng : Generator or int
        Random generator or its seed.

    Returns
    -------
    Calibration
        Multiples of the scatter for any confidence level.

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
    ...                   symmetry="spherical", rng=rng)
    >>> model = refit(da.Plummer().sample(2000, rng=0), 1)
    >>> calibration = calibrate(model, refit, np.eye(3), n_stars=2000, n_repeats=2, n_velocities=50, rng=2)
    >>> calibration.factor(0.95) > calibration.factor(0.68) > 0
    True
    """
    points = checks.points(points)
    if not callable(refit):
        raise TypeError(f"refit must be a function of stars and rng; got {refit!r}")
    checks.count(n_stars, "n_stars")
    rng = np.random.default_rng(rng)
    radial = model.coordinates.symmetry == "spherical"
    truth = accelerations(model, points, n_velocities=n_velocities, rng=rng).value
    errors = []
    for child in tqdm(rng.spawn(checks.count(n_repeats, "n_repeats")), unit="repeat", leave=False):
        draw, learn = child.spawn(2)
        again = refit(model.sample(n_stars, rng=draw), learn)
        result = accelerations(again, points, n_velocities=n_velocities, rng=child)
        errors.append(standardized_errors(result, truth, radial=radial))
    return Calibration(np.stack(errors))


def fit_calibrated(
    stars: np.ndarray,
    points: np.ndarray,
    *,
    n_repeats: int = 4,
    n_velocities: int = 1000,
    rng: np.random.Generator | int,
    checkpoint: str | Path | None = None,
    **options: object,
) -> FlowEnsemble:
    """Learn an ensemble and by how much its scatter must be multiplied, which its metadata then say under "factors".

    Parameters
    ----------
    stars : ndarray, shape (n, 6)
        Stars, as of `fit`.
    points, n_repeats, n_velocities
        As of `calibrate`.
    rng : Generator or int
        Random generator or its seed.
    checkpoint : str or Path, optional
        Folder for checkpoints of the training and of every repetition. Killed or interrupted, all goes on from there.
    **options
        Of `fit`.

    Returns
    -------
    FlowEnsemble
        The ensemble; ``metadata["factors"]`` holds the factors of 68 and 95 %.

    Raises
    ------
    ValueError
        As of `fit` and of `calibrate`.

    Examples
    --------
    >>> import dfaccel as da
    >>> model = fit_calibrated(
    ...     da.Plummer().sample(2000, rng=0), np.eye(3), n_repeats=1, n_velocities=50, rng=1, symmetry="spherical",
    ...     n_flows=2, spec=da.FlowSpec(2, 8), config=da.TrainConfig(n_epochs=1, batch_size=200))
    >>> sorted(model.metadata["factors"])
    ['0.68', '0.95']
    """
    points = checks.points(points)
    checks.count(n_repeats, "n_repeats")
    learn, judge = np.random.default_rng(rng).spawn(2)
    numbers = count()

    def refit(w: np.ndarray, rng: np.random.Generator) -> FlowEnsemble:
        number = next(numbers)
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
