"""May the method be trusted with these stars? Checks of a snapshot before the fit, and of the fit after it.

What no check of one snapshot can see is said in chapter 14 of the book.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from . import symptoms
from .boltzmann import Accelerations
from .coordinates import SYMMETRIES, coordinate_map
from .snapshot import Snapshot, SnapshotError
from .symptoms import SIGMA, Check, graded

__all__ = ["Inspection", "inspect", "inspect_fit", "require_counts"]

FEW_STARS = 10_000  # the 1 % radius then holds 100 stars, and the slope of the density there is known to 10 %
FEW_IN_OCTAVE = 400  # the slope of the density over a factor of two in radius is then known to 5 %
LEFT_OUT = 0.01  # largest share of the rows that may be missing or repeated
RESIDUAL, VIRIAL, VIRIAL_MOST = 0.2, 0.05, 0.3


@dataclass(frozen=True)
class Inspection:
    """Checks in order, and where the stars are.

    Parameters
    ----------
    checks : tuple of Check
        The checks.
    edges : ndarray, shape (n + 1,)
        Radii of shells a factor of two apart, natural units.
    counts : ndarray, shape (n,)
        Stars between them.
    """

    checks: tuple[Check, ...]
    edges: np.ndarray
    counts: np.ndarray

    @property
    def verdict(self) -> str:
        """The worst of the verdicts."""
        return max((check.verdict for check in self.checks), key=("ok", "flag", "refuse").index)

    @property
    def raised(self) -> list[str]:
        """Names of the checks that are not ok."""
        return [check.name for check in self.checks if check.verdict != "ok"]

    def require(self) -> None:
        """Raise SnapshotError with the reasons to refuse, if there are any."""
        reasons = [check.sentence.rstrip(".") for check in self.checks if check.verdict == "refuse"]
        if reasons:
            raise SnapshotError(f"these stars are refused: {'; '.join(reasons)}")

    def __str__(self) -> str:
        """Return a table of the checks."""
        rows = (f"{c.verdict:7}{c.name:18}{c.value:9.3g} (limit {c.limit:.3g})  {c.sentence}" for c in self.checks)
        return "\n".join(rows)


def require_counts(**given: tuple[int, int, int]) -> None:
    """Check settings before long work begins.

    Parameters
    ----------
    **given
        Value, least and most of each.

    Raises
    ------
    SnapshotError
        If one is not a whole number between them.

    Examples
    --------
    >>> require_counts(n_flows=(4, 2, 100))
    """
    for name, (value, least, most) in given.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
            raise SnapshotError(f"{name} must be a whole number from {least} to {most}; got {value!r}")


def inspect(snapshot: Snapshot, symmetry: str = "none") -> Inspection:
    """Check stars before anything is learned from them.

    Parameters
    ----------
    snapshot : Snapshot
        Stars, read and centred.
    symmetry : {"none", "axisymmetric", "spherical"}
        Symmetry that is going to be assumed.

    Returns
    -------
    Inspection
        Every check, whatever its outcome.

    Raises
    ------
    SnapshotError
        If the symmetry is unknown.

    Examples
    --------
    >>> from dfaccel import snapshot
    >>> from dfaccel.demonstration import Unseen
    >>> inspect(snapshot.take(Unseen("king").table(20_000, rng=0)), "spherical").verdict
    'ok'
    """
    if symmetry not in SYMMETRIES:
        raise SnapshotError(f"symmetry must be one of {', '.join(SYMMETRIES)}; got {symmetry!r}")
    w = snapshot.w
    r = np.maximum(np.linalg.norm(w[:, :3], axis=1), np.finfo(float).tiny)
    inner, outer = np.quantile(r, [0.01, 0.99])
    edges = np.geomspace(inner, outer, max(2, round(float(np.log2(outer / inner))) + 1))
    counts = np.histogram(r, edges)[0]
    rows = (("missing values", snapshot.n_missing), ("repeated rows", snapshot.n_repeated))
    checks = [
        graded("number of stars", len(w), FEW_STARS, f"{len(w):,} stars are enough to go on.",
               f"{len(w):,} stars are few: expect errors beyond 10 % near the centre and far out.", least=True),
        graded("stars per octave", counts.min(), FEW_IN_OCTAVE, "Every factor of two in radius is well filled.",
               f"A factor of two in radius holds {counts.min()} stars, too few for a slope.", least=True),
        *(_rows(name, n, snapshot.n_rows) for name, n in rows),
        *symptoms.columns(w),
        _singular(w, symmetry),
        *symptoms.middle(w, r, symmetry),
        symptoms.rotation(w, r, symmetry),
        *symptoms.stationarity(w, r),
        *symptoms.edges(w, r),
        symptoms.footprint(w, r, symmetry),
        *symptoms.shape(w, r, symmetry),
    ]
    return Inspection(tuple(checks), edges, counts)


def _rows(name: str, n: int, n_rows: int) -> Check:
    """Return the check of rows that were left out."""
    bad = f"{n} of {n_rows} rows were left out for {name}; more than {LEFT_OUT:.0%} would be a selection of its own."
    return graded(name, n / n_rows, 0.0, f"There are no {name}.", bad, refuse=n / n_rows > LEFT_OUT)


def _singular(w: np.ndarray, symmetry: str) -> Check:
    """Return the check of stars for which the coordinates of the symmetry are not defined."""
    y, _ = coordinate_map(w[np.linalg.norm(w[:, :3], axis=1) > 0], symmetry).forward(torch.from_numpy(w))
    n = int((~torch.isfinite(y)).any(1).sum())
    return graded("coordinates", n, 0, "Every star has a place and a direction of motion.",
                  f"{n} stars are exactly in the centre, on the axis or at rest, as a central mass may be: remove it.",
                  refuse=n > 0)


def inspect_fit(snapshot: Snapshot, result: Accelerations, at_stars: Accelerations, stars: np.ndarray) -> list[Check]:
    """Check accelerations against the stars they came from.

    Parameters
    ----------
    snapshot : Snapshot
        The stars.
    result : Accelerations
        Recovered at the points asked for.
    at_stars : Accelerations
        Recovered at the positions of some stars, taken at random.
    stars : ndarray of int
        Which ones.

    Returns
    -------
    list of Check
        Attraction, the virial theorem, and the residual of the Boltzmann equation.
    """
    outward = float(((result.value * result.points).sum(axis=1) >= 0).mean())
    pull = -(at_stars.value * snapshot.w[stars, :3]).sum(axis=1)
    motion = (snapshot.w[:, 3:] ** 2).sum(axis=1)
    ratio = float(pull.mean() / motion.mean())
    error = np.hypot(pull.std() / pull.mean() / np.sqrt(len(pull)), motion.std() / motion.mean() / np.sqrt(len(motion)))
    left = float(np.median(result.residual))
    return [
        graded("attraction", outward, 0.0, "Every acceleration points inwards.",
               f"{outward:.0%} of the accelerations point outwards, as no mass about the centre pulls."),
        graded("virial theorem", abs(ratio - 1), min(max(SIGMA * float(error), VIRIAL), VIRIAL_MOST),
               f"The ratio of -x.a to v squared is {ratio:.3f}, near the 1 of a settled and complete system.",
               f"The ratio of -x.a to v squared is {ratio:.3f}, not 1: stars are missing, or the system is not "
               "settled, not bound, or seen with noise."),
        graded("residual", left, RESIDUAL, "The learned distribution function is stationary, as far as can be told.",
               f"No acceleration explains the distribution function: {left:.2f} of its change is left."),
    ]
