"""What can be seen in one snapshot that the method does not allow: each symptom is one number with a limit.

A deviation that chance produces once in two million times, 5 standard errors, is a *flag*: it is real, and the reader
must decide whether it matters. One that is moreover so large that the result would be wrong is a reason to *refuse*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from .checks import COLUMNS

SIGMA = 5.0
CHI2 = {d: float(stats.chi2.isf(2 * stats.norm.sf(SIGMA), d)) for d in (2, 5)}  # as improbable, d degrees of freedom
DIPOLE, STREAMING, ROTATION, DRIFT, ROUND, BAR, TILT = 0.1, 0.2, 0.5, 0.1, 0.8, 0.1, 20.0  # beyond them: refuse
SAME, FASTEST, DEPENDENT = 0.01, 10.0, 1e-6  # share of one value; median speeds; least eigenvalue of correlations
_END = 0.05  # width of the last shell before an edge, relative


@dataclass(frozen=True)
class Check:
    """One number, its limit, and what follows.

    Parameters
    ----------
    name : str
        What is checked.
    value, limit : float
        The number, and the value it should keep to.
    verdict : {"ok", "flag", "refuse"}
        Whether it does, does not, or by so much that the method must not be used.
    sentence : str
        What it means, in words.
    """

    name: str
    value: float
    limit: float
    verdict: str
    sentence: str


def graded(
    name: str, value: float, limit: float, good: str, bad: str, *, refuse: bool = False, least: bool = False
) -> Check:
    """Return a check that is ok while the value is at most (at least) the limit, and else flagged, or refused."""
    ok = value >= limit if least else value <= limit
    return Check(name, float(value), limit, "ok" if ok else "refuse" if refuse else "flag", good if ok else bad)


def shells(r: np.ndarray, n: int) -> list[np.ndarray]:
    """Return the indices of n shells of equal numbers of stars."""
    return np.array_split(np.argsort(r, kind="stable"), n)


def _significance(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and mean / standard error of the columns of ``values`` (n, d)."""
    mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return mean, np.divide(mean, error, out=np.zeros_like(mean), where=error > 0)


def columns(w: np.ndarray) -> list[Check]:
    """Ask whether the six columns are numbers of their own, as measured: not copies, not rounded, not placeholders."""
    counts = [np.unique(column, return_counts=True)[1] for column in w.T]
    same, few = np.array([(n.max() / len(w), 1 - len(n) / len(w)) for n in counts]).T
    scaled = w - np.median(w, axis=0)
    scaled = np.clip(scaled / np.maximum(np.median(np.abs(scaled), axis=0), 1e-300), -5, 5)  # not the outermost alone
    least = float(np.linalg.eigvalsh(np.corrcoef(scaled.T))[0])
    speed = np.linalg.norm(w[:, 3:], axis=1)
    fastest = float(speed.max() / np.median(speed))
    return [
        graded("one value", same.max(), max(SAME, 5 / len(w)), "No value is repeated throughout a column.",
               f"{same.max():.0%} of the stars have the same {COLUMNS[same.argmax()]}, as if it stood for 'unknown'."),
        graded("rounding", few.max(), 0.5, "The columns are as fine as need be.",
               f"{COLUMNS[few.argmax()]} has {counts[few.argmax()].size} values only: too coarse for slopes."),
        graded("independence", least, DEPENDENT, "The six columns are independent.",
               "A column follows from others: these are not six coordinates.", least=True, refuse=least < DEPENDENT),
        graded("fastest star", fastest, FASTEST, "The fastest star is one of many.",
               f"The fastest star moves {fastest:.0f} times faster than half of them, or more: an error, or unbound."),
    ]


def middle(w: np.ndarray, r: np.ndarray, symmetry: str) -> list[Check]:
    """Ask whether all shells have the same centre, and move together."""
    found = []
    for name, values, limit, unit in (
        ("centre", w[:, :3] / r[:, None], DIPOLE, "of their radius"),
        ("bulk motion", w[:, 3:], STREAMING, "velocity dispersions"),
    ):
        means, z = np.array([_significance(values[shell]) for shell in shells(r, 4)]).transpose(1, 0, 2)
        size, worst = np.linalg.norm(means, axis=1).max(), np.abs(z).max()
        bad = f"A quarter of the stars is off by {size:.2f} {unit}: no single settled system, or not well centred."
        good = "Every quarter of the stars, from the inside out, has the same one."
        found.append(graded(name, worst, SIGMA, good, bad, refuse=size > limit and symmetry != "none"))
    return found


def rotation(w: np.ndarray, r: np.ndarray, symmetry: str) -> Check:
    """Ask whether the stars rotate, and about which axis."""
    mean, z = _significance(np.cross(w[:, :3] / r[:, None], w[:, 3:]))
    speed, z = float(np.linalg.norm(mean)), np.abs(z)
    moving = f"The stars rotate at {speed:.2f} velocity dispersions"
    if symmetry == "none":
        return Check("rotation", z.max(), np.inf, "ok", f"{moving}; if a bar does too, nothing is at rest.")
    if symmetry == "spherical":
        bad = f"{moving}: a sphere need not be still, but look at its shape, or assume 'axisymmetric'."
        return graded("rotation", z.max(), SIGMA, "No rotation is seen.", bad, refuse=speed > ROTATION)
    tilt = float(np.degrees(np.arctan2(np.hypot(mean[0], mean[1]), abs(mean[2]))))
    bad = f"{moving} about an axis {tilt:.0f} degrees from z: turn the coordinates."
    return graded("rotation", z[:2].max(), SIGMA, f"{moving} about z, or not at all.", bad, refuse=tilt > TILT)


def stationarity(w: np.ndarray, r: np.ndarray) -> list[Check]:
    """Ask whether anything flows in or out: in a stationary system nothing does, through any shell."""
    v_r = (w[:, :3] * w[:, 3:]).sum(axis=1) / r
    parts = shells(r, 10)
    flow, z = np.array([_significance(v_r[part, None]) for part in parts])[..., 0].T
    drift = float(np.max(np.abs(flow) / [v_r[part].std() for part in parts]))
    skewed = np.abs([_significance(v_r[part, None] ** 3)[1][0] for part in parts]).max()
    _, change = _significance((r * v_r)[:, None])
    growth = float((r * v_r).mean() / np.sqrt((r**2).mean() * (w[:, 3:] ** 2).sum(axis=1).mean()))
    way = "expands" if growth > 0 else "contracts"
    return [
        graded("inflow, outflow", np.abs(z).max(), SIGMA, "In every tenth of the stars as much goes in as out.",
               f"Stars stream in or out by {drift:.2f} radial dispersions: the system is not stationary.",
               refuse=drift > DRIFT),
        graded("growth", abs(change[0]), SIGMA, "The mean of x.v vanishes: the mean squared radius stays.",
               f"The system {way}, with a correlation of {growth:.3f} of x and v: it is not stationary.",
               refuse=abs(growth) > DRIFT),
        graded("in as out", skewed, SIGMA, "Stars go in and out at the same speeds.",
               "Stars moving in differ from those moving out: not yet mixed, as after a merger."),
    ]


def _sharp(values: np.ndarray) -> float:
    """Return by how many standard errors the last 5 % before the largest value hold more than half the 5 % before.

    There are equal numbers at a wall, a third of them where a density falls linearly to zero, and fewer otherwise.
    """
    last = (1 - _END) * values.max()
    n1, n2 = (values > last).sum(), ((values > (1 - _END) * last) & (values <= last)).sum()
    return float((n1 - n2 / 2) / np.sqrt(max(n1 + n2 / 4, 1)))


def edges(w: np.ndarray, r: np.ndarray) -> list[Check]:
    """Ask whether the stars, or their speeds, end at a wall."""
    walls = {f"{sign}{name}": _sharp(np.maximum(factor * w[:, i], 0))
             for i, name in enumerate(COLUMNS[:3]) for sign, factor in (("+", 1), ("-", -1))}
    worst = max(walls, key=lambda name: walls[name])
    advice = "believe nothing within a fifth of it."
    return [
        graded("outer edge", _sharp(r), SIGMA, "The density falls smoothly to its end.",
               f"The stars are cut off at radius {r.max():.3g}, in units of the median: {advice}"),
        graded("hole", _sharp(1 / r), SIGMA, "Stars are found as near to the centre as can be expected.",
               f"The stars leave a hole of radius {r.min():.3g}, in units of the median: {advice}"),
        graded("box", walls[worst], SIGMA, "No wall is seen in x, y or z.",
               f"The stars are cut off by a plane on the side of {worst}: {advice}"),
        graded("speed limit", _sharp(np.linalg.norm(w[:, 3:], axis=1)), SIGMA, "No limit of the speeds is seen.",
               "Stars were selected by speed, and the method, which compares speeds, cannot undo that."),
    ]


def footprint(w: np.ndarray, r: np.ndarray, symmetry: str) -> Check:
    """Ask whether a part of the sky is missing: counts in cells of equal size against equal numbers."""
    phi = np.minimum((np.arctan2(w[:, 1], w[:, 0]) / (2 * np.pi) + 0.5) * 12, 11).astype(int)
    height = np.minimum((w[:, 2] / r + 1) * 3, 5).astype(int)
    cells = (phi, 12) if symmetry == "axisymmetric" else (12 * height + phi, 72)
    counts = np.bincount(cells[0], minlength=cells[1])
    mean = counts.mean()
    excess = counts - mean if symmetry != "none" else np.where(counts == 0, mean, 0)  # any shape, but not emptiness
    value = np.abs(excess).max() / np.sqrt(mean * (1 - 1 / len(counts)))
    return graded("footprint", value, SIGMA, "No direction is missing.",
                  f"Directions from the centre hold {counts.min() / mean:.2f} to {counts.max() / mean:.2f} of the mean "
                  "number of stars: some are missing, hidden, or the symmetry is not there.")


def shape(w: np.ndarray, r: np.ndarray, symmetry: str) -> list[Check]:
    """Ask whether the second moments of directions, of positions and of velocities, allow the symmetry."""
    if symmetry == "none":
        return [Check("shape", 0.0, np.inf, "ok", "No symmetry is assumed.")]
    found, halves = [], shells(r, 2)
    for name, vectors in (("shape", w[:, :3]), ("velocity shape", w[:, 3:])):
        n = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(float).tiny)
        if symmetry == "spherical":
            tensors = [n[half].T @ n[half] / len(half) for half in halves]
            chi2 = max(7.5 * len(n) / 2 * ((tensor - np.eye(3) / 3) ** 2).sum() for tensor in tensors)
            least, _, most = np.linalg.eigvalsh(tensors).T
            ratio = float(np.sqrt(least / most).min())
            found.append(graded(name, chi2, CHI2[5], "The second moments of directions are those of a sphere.",
                                f"Directions are not those of a sphere: axis ratio {ratio:.3f}.", refuse=ratio < ROUND))
            continue
        phi = np.arctan2(n[:, 1], n[:, 0])
        wave = max(float(abs(np.exp(2j * phi[half]).mean())) for half in halves)
        found.append(graded(name, wave**2 * len(n), CHI2[2], "No bar or ellipse is seen in the plane.",
                            f"A bar or ellipse is seen in the plane: second harmonic of the azimuth {wave:.3f}.",
                            refuse=wave > BAR))
        tilt = np.abs(_significance(n[:, :2] * n[:, 2:])[1]).max()
        found.append(graded(f"{name}, tilt", tilt, SIGMA, "The z-axis is an axis of symmetry.",
                            "The z-axis is not the axis of symmetry: turn the coordinates."))
    return found
