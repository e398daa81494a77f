"""May the method be trusted with these stars? Checks before the fit, and of the fit after it.

A deviation that chance produces once in two million times, 5 standard errors, is a *flag*: it is real, and the reader
must decide whether it matters. One that is also so large that the result would be wrong is a reason to *refuse*.
What no check of one snapshot can see is said in chapter 14 of the book.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from scipy.spatial import cKDTree

from dfaccel._check import COLUMNS
from dfaccel.coordinates import COORDINATES, CoordinateMap
from dfaccel.gravity.accelerations import Accelerations
from dfaccel.snapshot.read import Snapshot, refuse
from dfaccel.snapshot.tensors import CHANCE, SIGMA, cure, growth, misalignment

CHI2 = {d: float(stats.chi2.isf(CHANCE, d)) for d in (2, 5)}  # as improbable, d degrees of freedom
DIPOLE, STREAMING, ROTATION, DRIFT, ALIGNED, ROUND, BAR, TILT = 0.1, 0.2, 0.5, 0.1, 0.2, 0.8, 0.1, 20.0  # then: refuse
CLOSER, COPIES, AMONG = 0.05, 4, 20_000  # a copy is 20 times nearer than the next star; copies of one; among so many
SAME, FASTEST, DEPENDENT = 0.01, 10.0, 1e-6  # share of one value; median speeds; least eigenvalue of correlations
FEW_STARS, IN_OCTAVE = 10_000, 400  # the slope of the density is then known to 10 % at the 1 % radius; to 5 %
LEFT_OUT = 0.01  # largest share of the rows that may be missing or repeated
RESIDUAL, VIRIAL, VIRIAL_MOST = 0.2, 0.05, 0.3
END = 0.05  # width of the last shell before an edge, relative


@dataclass(frozen=True)
class Check:
    """One number, the limit it should keep to, the verdict "ok", "flag" or "refuse", and what that means."""

    name: str
    value: float
    limit: float
    verdict: str
    sentence: str


@dataclass(frozen=True)
class Inspection:
    """Checks, in order."""

    checks: tuple[Check, ...]

    @property
    def verdict(self) -> str:
        """The worst of the verdicts."""
        return max((check.verdict for check in self.checks), key=("ok", "flag", "refuse").index)

    @property
    def raised(self) -> list[str]:
        """Names of the checks that are not ok."""
        return [check.name for check in self.checks if check.verdict != "ok"]

    @property
    def line(self) -> str:
        """The verdict in one line, for the head of everything that is made of these stars."""
        names, count = self.raised, f"{len(self.raised)} of {len(self.checks)} checks"
        line = f"Raised, for your judgement: {count} ({', '.join(names)})." if names else "No check is raised."
        return f"Refused: do not trust a result. {line}" if self.verdict == "refuse" else line

    def require(self, insist: bool | str = True) -> None:
        """Raise SnapshotError with the reasons to refuse, if there are any; "false", of a command line, overrides."""
        insist = str(insist).lower()
        refuse(insist not in ("true", "false"), f"refuse must be true or false; got {insist!r}")
        reasons = [check.sentence.rstrip(".") for check in self.checks if check.verdict == "refuse"]
        refuse(insist == "true" and bool(reasons), f"these stars are refused: {'; '.join(reasons)}")

    def __str__(self) -> str:
        """Return a table of the checks."""
        rows = (f"{c.verdict:7}{c.name:18}{c.value:9.3g} (limit {c.limit:.3g})  {c.sentence}" for c in self.checks)
        return "\n".join(rows)


def require_counts(**given: tuple[int, int, int]) -> None:
    """Check settings, each a value with the least and the most it may be, before long work begins."""
    for name, (value, least, most) in given.items():
        refuse(isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most,
               f"{name} must be a whole number from {least} to {most}; got {value!r}")


def inspect(snapshot: Snapshot, coordinates: str = "radial") -> Inspection:
    """Check stars before anything is learned from them in these coordinates, which may assume a symmetry."""
    refuse(coordinates not in COORDINATES, f"coordinates must be one of {', '.join(COORDINATES)}; got {coordinates!r}")
    kind, w = COORDINATES[coordinates], snapshot.w
    r = np.maximum(np.linalg.norm(w[:, :3], axis=1), np.finfo(float).tiny)
    return Inspection((*_rows(snapshot, r), *_columns(w, kind), *_at_rest(w, r, kind), *_stationarity(w, r),
                       *_tensors(w, kind), *_edges(w, r), *_shape(w, r, kind)))


def inspect_fit(snapshot: Snapshot, result: Accelerations, at_stars: Accelerations, stars: np.ndarray) -> list[Check]:
    """Check accelerations, those asked for and those at the places of some ``stars`` (indices), against the stars."""
    outward = float(((result.value * result.points).sum(axis=1) >= 0).mean())
    pull = -(at_stars.value * snapshot.w[stars, :3]).sum(axis=1)
    motion = (snapshot.w[:, 3:] ** 2).sum(axis=1)
    ratio, left = float(pull.mean() / motion.mean()), float(np.median(result.residual))
    error = float(np.hypot(*(q.std() / q.mean() / np.sqrt(len(q)) for q in (pull, motion))))
    says, most = f"The ratio of -x.a to v squared is {ratio:.3f},", min(max(SIGMA * error, VIRIAL), VIRIAL_MOST)
    return [
        _graded("attraction", outward, "Every acceleration points inwards.",
                f"{outward:.0%} of the accelerations point outwards, as no mass about the centre pulls.", 0.0),
        _graded("virial theorem", abs(ratio - 1), f"{says} near the 1 of a settled and complete system.",
                f"{says} not 1: stars are missing, or the system is not settled, not bound, or seen with noise.", most),
        _graded("residual", left, "The learned distribution function is stationary, as far as can be told.",
                f"No acceleration explains the distribution function: {left:.2f} of its change is left.", RESIDUAL),
    ]


def _graded(name: str, value: float, good: str, bad: str, limit: float = SIGMA, *, refuse: bool = False,
            least: bool = False) -> Check:
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


def _rows(snapshot: Snapshot, r: np.ndarray) -> Iterator[Check]:
    """Ask whether there are enough stars, at all radii, and whether rows were left out."""
    n, total, (inner, outer) = len(r), snapshot.n_rows, np.quantile(r, [0.01, 0.99])
    octaves = np.geomspace(inner, outer, max(2, round(float(np.log2(outer / inner))) + 1))
    few = np.histogram(r, octaves)[0].min()
    bad = f"{n:,} stars are few: expect errors beyond 10 % near the centre and far out."
    yield _graded("number of stars", n, f"{n:,} stars are enough to go on.", bad, FEW_STARS, least=True)
    bad = f"A factor of two in radius holds {few} stars, too few for a slope."
    yield _graded("stars per octave", few, "Every factor of two in radius is well filled.", bad, IN_OCTAVE, least=True)
    for name, k in (("missing values", snapshot.n_missing), ("repeated rows", snapshot.n_repeated)):
        bad = f"{k} of {total} rows were left out for {name}; more than {LEFT_OUT:.0%} would be a selection of its own."
        yield _graded(name, k / total, f"There are no {name}.", bad, limit=0.0, refuse=k / total > LEFT_OUT)


def _columns(w: np.ndarray, kind: type[CoordinateMap]) -> Iterator[Check]:
    """Ask whether the six columns are numbers as measured, not copies, rounded or placeholders, for every star."""
    counts = [np.unique(column, return_counts=True)[1] for column in w.T]
    same, few = np.array([(n.max() / len(w), 1 - len(n) / len(w)) for n in counts]).T
    bad = f"{same.max():.0%} of the stars have the same {COLUMNS[same.argmax()]}, as if it stood for 'unknown'."
    yield _graded("one value", same.max(), "No value is repeated throughout a column.", bad, max(SAME, 5 / len(w)))
    yield _graded("rounding", few.max(), "The columns are as fine as need be.", f"{COLUMNS[few.argmax()]} has "
                  f"{counts[few.argmax()].size} values only: too coarse for slopes.", limit=0.5)
    scaled = w - np.median(w, axis=0)
    scaled = np.clip(scaled / np.maximum(np.median(np.abs(scaled), axis=0), 1e-300), -5, 5)  # not the outermost alone
    least = float(np.linalg.eigvalsh(np.corrcoef(scaled.T))[0])
    yield _graded("independence", least, "The six columns are independent.", "A column follows from others: these are "
                  "not six coordinates.", limit=DEPENDENT, least=True, refuse=True)
    speed = np.linalg.norm(w[:, 3:], axis=1)
    fastest = float(speed.max() / np.median(speed))
    bad = f"The fastest star moves {fastest:.0f} times faster than half of them, or more: an error, or unbound."
    yield _graded("fastest star", fastest, "The fastest star is one of many.", bad, limit=FASTEST)
    y, _ = kind.from_stars(w[np.linalg.norm(w[:, :3], axis=1) > 0]).forward(torch.from_numpy(w))
    n = int((~torch.isfinite(y)).any(1).sum())
    bad = f"{n} stars are exactly in the centre, on the axis or at rest, as a central mass may be: remove it."
    yield _graded("coordinates", n, "Every star has a place and a direction of motion.", bad, limit=0, refuse=True)
    n, spaces = min(len(w), AMONG), [w, y[torch.isfinite(y).all(1)].numpy()]  # as they are; turned about an axis
    k, pairs = max(map(_copies, spaces)), n * CLOSER**3 / 2  # by chance, where stars fill three dimensions or more
    bad = f"{k} of {n:,} stars have others {1 / CLOSER:.0f} times nearer than the next: copies, jittered or turned."
    yield _graded("copies", k, "No more stars are near each other than by chance.", bad,
                  limit=float(2 * stats.poisson.isf(CHANCE, pairs)))


def _copies(y: np.ndarray) -> int:
    """Return how many of some points (n, d) have neighbours that are much nearer than the one after those."""
    y = np.random.default_rng(0).permutation(y - np.median(y, axis=0))[:AMONG]
    y = y / np.maximum(np.median(np.abs(y), axis=0), np.finfo(float).tiny)
    distance = cKDTree(y).query(y, COPIES + 2)[0][:, 1:]
    return int((distance[:, :-1] < CLOSER * distance[:, 1:]).any(axis=1).sum())


def _at_rest(w: np.ndarray, r: np.ndarray, kind: type[CoordinateMap]) -> Iterator[Check]:
    """Ask whether all shells have the same centre and motion; whether the stars rotate, and about which axis."""
    for name, values, limit, unit in (("centre", w[:, :3] / r[:, None], DIPOLE, "of their radius"),
                                      ("bulk motion", w[:, 3:], STREAMING, "velocity dispersions")):
        means, z = np.array([_significance(values[shell]) for shell in shells(r, 4)]).transpose(1, 0, 2)
        size = np.linalg.norm(means, axis=1).max()
        bad = f"A quarter of the stars is off by {size:.2f} {unit}: no single settled system, or not well centred."
        yield _graded(name, np.abs(z).max(), "Every quarter of the stars, from the inside out, has the same one.", bad,
                      refuse=size > limit and (kind.round or kind.axial))
    mean, z = _significance(np.cross(w[:, :3] / r[:, None], w[:, 3:]))
    speed, z = float(np.linalg.norm(mean)), np.abs(z)
    moving = f"The stars rotate at {speed:.2f} velocity dispersions"
    if kind.round:
        bad = f"{moving}: a sphere need not be still, but look at its shape, or assume 'axisymmetric'."
        yield _graded("rotation", z.max(), "No rotation is seen.", bad, refuse=speed > ROTATION)
    elif kind.axial:
        tilt = float(np.degrees(np.arctan2(np.hypot(mean[0], mean[1]), abs(mean[2]))))
        bad = f"{moving} about an axis {tilt:.0f} degrees from z: turn the coordinates."
        yield _graded("rotation", z[:2].max(), f"{moving} about z, or not at all.", bad, refuse=tilt > TILT)
    else:
        yield _graded("rotation", z.max(), f"{moving}; if a bar does too, nothing is at rest.", "", limit=np.inf)


def _stationarity(w: np.ndarray, r: np.ndarray) -> Iterator[Check]:
    """Ask whether anything flows in or out: in a stationary system nothing does, through any shell."""
    v_r = (w[:, :3] * w[:, 3:]).sum(axis=1) / r
    parts = [v_r[shell] for shell in shells(r, 10)]
    flow, z = np.array([_significance(part[:, None]) for part in parts])[..., 0].T
    drift = float(np.max(np.abs(flow) / [part.std() for part in parts]))
    bad = f"Stars stream in or out by {drift:.2f} radial dispersions: the system is not stationary."
    yield _graded("inflow, outflow", np.abs(z).max(), "In every tenth of the stars as much goes in as out.", bad,
                  refuse=drift > DRIFT)
    skewed = np.abs([_significance(part[:, None] ** 3)[1][0] for part in parts]).max()
    yield _graded("in as out", skewed, "Stars go in and out at the same speeds.",
                  "Stars moving in differ from those moving out: not yet mixed, as after a merger.")


def _tensors(w: np.ndarray, kind: type[CoordinateMap]) -> Iterator[Check]:
    """Ask whether second moments of the positions stay, and whether velocities point as the symmetry demands."""
    (change, chi2, limit), (turned, misfit, most) = growth(w), misalignment(w, kind)
    size, trace = float(np.linalg.norm(change)), float(np.trace(change))
    cause = "columns are mixed, a bar turns, or an assumed symmetry is not there"
    if chi2 > limit and trace**2 > 1.5 * size**2:  # most of it is the same in all directions
        cause = f"the stars {'expand' if trace > 0 else 'contract'}"
    elif (chi2 > limit or misfit > most) and (found := cure(w, kind)):
        cause = f"one axis is mirrored or columns are swapped, since with {found} for vx, vy, vz they would pass"
    yield _graded("second moments", chi2, "The second moments of the positions stay as they are.", "The second moments "
                  f"of the positions change, by a correlation of {size:.2f}: {cause}.", limit, refuse=size > DRIFT)
    good = "Velocities point as the symmetry demands." if most < np.inf else "No symmetry is assumed."
    yield _graded("alignment", misfit, good, f"Velocities do not point as the symmetry demands, by {turned:.2f}: "
                  f"{cause}.", most, refuse=turned > ALIGNED)


def _edges(w: np.ndarray, r: np.ndarray) -> Iterator[Check]:
    """Ask whether the stars, or their speeds, end at a wall."""
    sides = {f"{sign}{name}": np.maximum(factor * w[:, i], 0)
             for i, name in enumerate(COLUMNS[:3]) for sign, factor in (("+", 1), ("-", -1))}
    worst, wall = max(((side, _sharp(values)) for side, values in sides.items()), key=lambda pair: pair[1])
    advice = "believe nothing within a fifth of it."
    yield _graded("outer edge", _sharp(r), "The density falls smoothly to its end.",
                  f"The stars are cut off at radius {r.max():.3g}, in units of the median: {advice}")
    yield _graded("hole", _sharp(1 / r), "Stars are found as near to the centre as can be expected.",
                  f"The stars leave a hole of radius {r.min():.3g}, in units of the median: {advice}")
    yield _graded("box", wall, "No wall is seen in x, y or z.",
                  f"The stars are cut off by a plane on the side of {worst}: {advice}")
    yield _graded("speed limit", _sharp(np.linalg.norm(w[:, 3:], axis=1)), "No limit of the speeds is seen.",
                  "Stars were selected by speed, and the method, which compares speeds, cannot undo that.")


def _sharp(values: np.ndarray) -> float:
    """Return by how many standard errors the last 5 % before the largest value hold more than half the 5 % before."""
    # There are equal numbers at a wall, a third of them where a density falls linearly to zero, and fewer otherwise.
    last = (1 - END) * values.max()
    n1, n2 = (values > last).sum(), ((values > (1 - END) * last) & (values <= last)).sum()
    return float((n1 - n2 / 2) / np.sqrt(max(n1 + n2 / 4, 1)))


def _shape(w: np.ndarray, r: np.ndarray, kind: type[CoordinateMap]) -> Iterator[Check]:
    """Ask whether a part of the sky is missing, cell by cell, and whether second moments allow the symmetry."""
    cell = np.minimum((np.arctan2(w[:, 1], w[:, 0]) / (2 * np.pi) + 0.5) * 12, 11).astype(int)
    if not kind.axial:
        cell += 12 * np.minimum((w[:, 2] / r + 1) * 3, 5).astype(int)
    counts = np.bincount(cell, minlength=12 if kind.axial else 72)
    mean, symmetric = counts.mean(), kind.round or kind.axial
    if symmetric:
        excess = np.abs(counts - mean).max() / np.sqrt(mean * (1 - 1 / len(counts)))
    else:  # any shape, but no emptiness where there are stars elsewhere at the same latitude
        excess = np.sqrt(np.where(counts.reshape(-1, 12) == 0, counts.reshape(-1, 12).mean(1, keepdims=True), 0).max())
    yield _graded("footprint", excess, "No direction is missing.",
                  f"Directions from the centre hold {counts.min() / mean:.2f} to {counts.max() / mean:.2f} of the mean "
                  "number of stars: some are missing, hidden, or the symmetry is not there.")
    if not symmetric:
        yield _graded("shape", 0.0, "No symmetry is assumed.", "", limit=np.inf)
        return
    for name, vectors in (("shape", w[:, :3]), ("velocity shape", w[:, 3:])):
        n = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(float).tiny)
        halves = [n[half] for half in shells(r, 2)]
        if kind.round:
            tensors = [half.T @ half / len(half) for half in halves]
            chi2 = max(7.5 * len(n) / 2 * ((tensor - np.eye(3) / 3) ** 2).sum() for tensor in tensors)
            least, _, most = np.linalg.eigvalsh(tensors).T
            ratio = float(np.sqrt(least / most).min())
            yield _graded(name, chi2, "The second moments of directions are those of a sphere.", "Directions are not "
                          f"those of a sphere: axis ratio {ratio:.3f}.", limit=CHI2[5], refuse=ratio < ROUND)
            continue
        wave = max(float(abs(np.exp(2j * np.arctan2(half[:, 1], half[:, 0])).mean())) for half in halves)
        bad = f"A bar or ellipse is seen in the plane: second harmonic of the azimuth {wave:.3f}."
        yield _graded(name, wave**2 * len(n), "No bar or ellipse is seen in the plane.", bad, limit=CHI2[2],
                      refuse=wave > BAR)
        yield _graded(f"{name}, tilt", np.abs(_significance(n[:, :2] * n[:, 2:])[1]).max(), "The z-axis is an axis of "
                      "symmetry.", "The z-axis is not the axis of symmetry: turn the coordinates.")
