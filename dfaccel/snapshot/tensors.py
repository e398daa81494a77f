"""Two tensors that vanish in a steady system: they show axes of the wrong handedness and columns that were mixed.

In a steady system d<F>/dt = <v . grad F> = 0 for every function F of the positions, whatever the gravity. With
F_ij = x_i x_j / s and s^2 = 1 + r^2 the rate is bounded by the speed, so that no star far out decides.
Under an assumed symmetry, products of quadrupoles of the positions and of the velocities have equal or no means.
"""

from itertools import permutations, product

import numpy as np
from scipy import stats

from dfaccel._check import COLUMNS
from dfaccel.coordinates import CoordinateMap

SIGMA = 5.0
CHANCE = 2 * stats.norm.sf(SIGMA)
MOST, FEWER = 500_000, 20_000  # stars that are looked at; in the search for a cure


def growth(w: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return the rate of change of <F_ij> (3, 3) as a correlation of x and v, its chi-squared, and the limit."""
    w = w[:: 1 + len(w) // MOST]
    x, v, s = w[:, :3, None], w[:, None, 3:], np.sqrt(1 + (w[:, :3] ** 2).sum(axis=1))[:, None, None]
    xv = x * v
    outwards = np.trace(xv, axis1=1, axis2=2)[:, None, None]
    rate = (xv + xv.swapaxes(1, 2) - x * x.swapaxes(1, 2) * outwards / s**2) / s
    return rate.mean(axis=0) / np.sqrt((rate**2).sum(axis=(1, 2)).mean()), *_hotelling(rate.reshape(-1, 9), 6)


def misalignment(w: np.ndarray, kind: type[CoordinateMap]) -> tuple[float, float, float]:
    """Return the part of <Y_m(x) Y_m'(v)> that the symmetry forbids, its chi-squared and the limit: the worse half."""
    if not (kind.round or kind.axial):
        return 0.0, 0.0, np.inf
    w = w[:: 1 + len(w) // MOST]
    equal = [[0, 1, 2, 3, 4]] if kind.round else [[0], [1, 2], [3, 4]]  # means for m = m'; all others vanish
    found = []
    for half in np.array_split(np.argsort((w[:, :3] ** 2).sum(axis=1)), 2):
        y = _quadrupole(w[half, :3])[:, :, None] * _quadrupole(w[half, 3:])[:, None, :]
        for m in equal:
            y[:, m, m] -= y[:, m, m].mean(axis=1, keepdims=True)
        found.append((float(np.linalg.norm(y.mean(axis=0))), *_hotelling(y.reshape(-1, 25), 25 - len(equal))))
    return max(found, key=lambda one: one[1])


def cure(w: np.ndarray, kind: type[CoordinateMap]) -> str:
    """Return as what vx, vy, vz must be read for both tensors to vanish, with the fewest changes; or nothing."""
    w = w[:: 1 + len(w) // FEWER]
    changes = product(permutations(range(3)), product((1, -1), repeat=3))
    for order, signs in sorted(changes, key=lambda one: sum(np.not_equal(one[0], range(3))) + one[1].count(-1)):
        other = np.hstack([w[:, :3], w[:, 3:][:, order] * signs])
        if all(chi2 <= limit for _, chi2, limit in (growth(other), misalignment(other, kind))):
            names = ["-" * (sign < 0) + COLUMNS[3 + k] for k, sign in zip(order, signs, strict=True)]
            return ", ".join(names) if names != [*COLUMNS[3:]] else ""
    return ""


def _quadrupole(x: np.ndarray) -> np.ndarray:
    """Return the real spherical harmonics (n, 5) of degree 2 of the directions of vectors, each of mean square 1."""
    a, b, c = x.T / np.maximum(np.linalg.norm(x, axis=1), np.finfo(float).tiny)
    harmonics = [(3 * c**2 - 1) / np.sqrt(3), 2 * a * c, 2 * b * c, 2 * a * b, a**2 - b**2]
    return np.sqrt(15) / 2 * np.stack(harmonics, axis=1)


def _hotelling(values: np.ndarray, d: int) -> tuple[float, float]:
    """Return T squared of the mean of values (n, m) of rank d, a chi-squared for many stars, and its limit."""
    n, z = len(values), values / np.maximum(values.std(axis=0), np.finfo(float).tiny)
    mean = z.mean(axis=0)
    chi2 = n * mean @ np.linalg.lstsq(np.cov(z.T), mean, rcond=1e-10)[0]
    return float(chi2), float(d * (n - 1) / (n - d) * stats.f.isf(CHANCE, d, n - d))
