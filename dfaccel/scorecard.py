"""The score card: one fixed way to say how wrong recovered accelerations are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .boltzmann import Accelerations, DistributionFunction, accelerations
from .ensemble import FlowEnsemble
from .systems import Disc

N_POINTS = 200
R_RANGE = (0.2, 20.0)  # scale radii
DISC_R_RANGE, DISC_Z_RANGE = (0.5, 3.0), (-0.3, 0.3)  # scale lengths


class Gravity(Protocol):
    """A system whose acceleration is known, with a length scale."""

    scale: float

    def acceleration(self, x: np.ndarray) -> np.ndarray:
        """Return the acceleration (m, 3) at ``x`` (m, 3)."""


@dataclass(frozen=True)
class ScoreCard:
    """Errors of accelerations at the points of the score card.

    Parameters
    ----------
    result : Accelerations
        What was recovered, at 200 points.
    truth : ndarray, shape (200, 3)
        True accelerations there.
    """

    result: Accelerations
    truth: np.ndarray

    @property
    def points(self) -> np.ndarray:
        """Positions of the score card, (200, 3)."""
        return self.result.points

    @property
    def errors(self) -> np.ndarray:
        """Length of the error vector relative to the true acceleration, (200,)."""
        return np.linalg.norm(self.result.value - self.truth, axis=1) / np.linalg.norm(self.truth, axis=1)

    @property
    def member_errors(self) -> np.ndarray:
        """The same for each member alone, (n_flows, 200)."""
        return np.linalg.norm(self.result.members - self.truth, axis=2) / np.linalg.norm(self.truth, axis=1)

    @property
    def median(self) -> float:
        """Median error."""
        return float(np.median(self.errors))

    @property
    def p90(self) -> float:
        """90th percentile of the errors."""
        return float(np.quantile(self.errors, 0.9))

    @property
    def inside_68(self) -> float:
        """Share of true components within one standard deviation over members; NaN for a single member."""
        sigma = np.sqrt(np.diagonal(self.result.covariance, axis1=1, axis2=2))
        if np.isnan(sigma).any():
            return float("nan")
        return float((np.abs(self.result.value - self.truth) <= sigma).mean())


def score_points(scale: float = 1.0, *, disc: bool = False, rng: np.random.Generator | int) -> np.ndarray:
    """Draw the points of the score card: log-uniform in r over 0.2-20 scale radii, isotropic directions.

    Of a disc: uniform in R over 0.5-3, in z over -0.3-0.3 scale lengths, and in azimuth.

    Parameters
    ----------
    scale : float
        Scale radius, or scale length of a disc.
    disc : bool
        Whether to draw those of a disc.
    rng : Generator or int
        Random generator or its seed: a fresh one for every claim.

    Returns
    -------
    ndarray, shape (200, 3)
        Positions.

    Examples
    --------
    >>> score_points(rng=0).shape
    (200, 3)
    """
    rng = np.random.default_rng(rng)
    if disc:
        big_r, z = rng.uniform(*DISC_R_RANGE, N_POINTS), rng.uniform(*DISC_Z_RANGE, N_POINTS)
        phi = rng.uniform(0, 2 * np.pi, N_POINTS)
        return scale * np.column_stack([big_r * np.cos(phi), big_r * np.sin(phi), z])
    r = scale * np.exp(rng.uniform(*np.log(R_RANGE), N_POINTS))
    direction = rng.standard_normal((N_POINTS, 3))
    return direction * (r / np.linalg.norm(direction, axis=1))[:, None]


def score_card(
    df: FlowEnsemble | DistributionFunction, truth: Gravity, *, rng: np.random.Generator | int, **options: int
) -> ScoreCard:
    """Recover accelerations at the points of the score card and compare them with the truth.

    Parameters
    ----------
    df : FlowEnsemble or system
        Learned or exact distribution function.
    truth : system
        System with the true ``acceleration`` and ``scale``; a `Disc` has points of its own.
    rng : Generator or int
        Random generator or its seed, for points and velocities.
    **options
        Passed to `dfaccel.accelerations`.

    Returns
    -------
    ScoreCard
        Errors point by point, and their summaries.

    Examples
    --------
    >>> import dfaccel as da
    >>> score_card(da.Plummer(), da.Plummer(), rng=0).median < 1e-8
    True
    """
    where, velocities = np.random.default_rng(rng).spawn(2)
    points = score_points(truth.scale, disc=isinstance(truth, Disc), rng=where)
    return ScoreCard(accelerations(df, points, rng=velocities, **options), truth.acceleration(points))
