"""The score card: one fixed test of how wrong recovered accelerations are."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dfaccel.axes import directions
from dfaccel.gravity.accelerations import Accelerations, accelerations
from dfaccel.systems.base import DistributionFunction

N_POINTS = 200
R_RANGE = (0.2, 20.0)  # scale radii
FLAT_R_RANGE, FLAT_Z_RANGE = (0.5, 3.0), (-0.3, 0.3)  # scale lengths


@dataclass(frozen=True)
class ScoreCard:
    """Errors of accelerations at the points of the score card; made by `score_card`.

    Parameters
    ----------
    result, truth : Accelerations, ndarray, shape (200, 3)
        What was recovered at the 200 points, and the true accelerations there, velocity^2 / length.

    Examples
    --------
    >>> import dfaccel as da
    >>> score_card(da.Plummer(), da.Plummer(), rng=0).errors.shape
    (200,)
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
        return self.result.error(self.truth)

    @property
    def member_errors(self) -> np.ndarray:
        """The same for each member alone, (n_flows, 200)."""
        return self.result.member_errors(self.truth)

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
        return float(np.where(np.isnan(sigma), np.nan, np.abs(self.result.value - self.truth) <= sigma).mean())


def score_points(scale: float = 1.0, *, flat: bool = False, rng: np.random.Generator | int) -> np.ndarray:
    """Draw points (200, 3), log-uniform in r and isotropic; those of a flat system are uniform in R, z and azimuth."""
    rng = np.random.default_rng(rng)
    if flat:
        big_r, z = rng.uniform(*FLAT_R_RANGE, N_POINTS), rng.uniform(*FLAT_Z_RANGE, N_POINTS)
        phi = rng.uniform(0, 2 * np.pi, N_POINTS)
        return scale * np.column_stack([big_r * np.cos(phi), big_r * np.sin(phi), z])
    r = scale * np.exp(rng.uniform(*np.log(R_RANGE), N_POINTS))
    return r[:, None] * directions(N_POINTS, rng)


def score_card(df: DistributionFunction, truth: Any, *, rng: np.random.Generator | int, **options: int) -> ScoreCard:
    """Recover accelerations at the points of the score card and compare them with the truth, in a `ScoreCard`.

    The points are log-uniform in r over 0.2-20 scale radii and isotropic. Those of a flat system, such as `Disc`, are
    uniform in R over 0.5-3 and in z over -0.3-0.3 scale lengths.

    Parameters
    ----------
    df, truth : DistributionFunction, system
        What is judged, as in `accelerations`, and the system with the true ``acceleration`` and ``scale``. It is flat
        if it has an attribute ``flat`` that is true.
    rng, **options : Generator or int, and options of `accelerations`
        Random generator or its seed, for points and velocities: a fresh one for every claim.

    Raises
    ------
    TypeError, ValueError
        Those of `accelerations`.

    Examples
    --------
    >>> import dfaccel as da
    >>> score_card(da.Plummer(), da.Plummer(), rng=0).median < 1e-8
    True
    """
    where, velocities = np.random.default_rng(rng).spawn(2)
    points = score_points(truth.scale, flat=getattr(truth, "flat", False), rng=where)
    return ScoreCard(accelerations(df, points, rng=velocities, **options), truth.acceleration(points))
