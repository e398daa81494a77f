r"""The restricted likelihood of a crossed table, complete or sparse, and the variances that it leaves possible.

Averages of a table over its B orders of the batches have the covariance

.. math::
    V = s^2 \left[ (1 - h)\, I + h \left( \rho\, Z Z^T + (1 - \rho)\, W W^T \right) \right] .

Z and W (n_pairs, n_levels) say which draw and which initialization a pair has. The variances of the model in
`dfaccel.study.components` are :math:`\sigma_\alpha^2 = s^2 h \rho`, :math:`\sigma_\beta^2 = s^2 h (1 - \rho)` and
:math:`\sigma_\gamma^2 + \sigma_\epsilon^2 / B = s^2 (1 - h)`. At a fixed :math:`\rho` the eigenvalues of one matrix,
with as many rows as there are levels, give the restricted likelihood (Patterson & Thompson, Biometrika 58, 545, 1971)
for every h and s. The search therefore goes along lines of constant :math:`\rho`.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from scipy import optimize, sparse, special, stats

LEVEL = 0.95  # of every interval
_LINES, _PLACES = 41, 33  # nodes on the surface of a likelihood region: lines, and places along each other axis
_NONE = 1e-12  # part of a sum of squares that is rounding
_ALLOWED = stats.chi2.ppf(LEVEL, 1)  # above the least deviance


def _part(x: np.ndarray) -> np.ndarray:
    """Return [0, 1] mapped on [0, 1] by a squared sine: fine near both ends, exact at both."""
    return np.sin(np.pi / 2 * x) ** 2


def _nodes(ends: np.ndarray, n: int) -> np.ndarray:
    """Return n nodes between ends (..., 2), dense near both."""
    return ends[..., :1] + np.diff(ends) * _part(np.linspace(0, 1, n))


def _reach(holds: Callable[[np.ndarray], np.ndarray], inside: np.ndarray) -> np.ndarray:
    """Return from where to where in [0, 1] a condition holds (n, 2) that holds inside (n, 1), by bisection."""
    end = outside = np.broadcast_to([0.0, 1.0], (len(inside), 2))
    whole = holds(end)
    for _ in range(32):
        middle = (inside + outside) / 2
        held = holds(middle)
        inside, outside = np.where(held, middle, inside), np.where(held, outside, middle)
    return np.where(whole, end, inside)


class Likelihood:
    """Restricted likelihood of a table (D, I, B), on lines of constant rho = part(x) with places h = part(z)."""

    def __init__(self, y: np.ndarray) -> None:
        there, mean, self.repeats = np.isfinite(y[..., 0]), y.mean(2), y.shape[2]
        self.there, self.cell = there, np.where(there, mean - mean[there].mean(), 0.0)
        self.splits = (None, 1.0) if self.repeats > 1 else (1.0,)  # batches' part of the rest: the best, and all
        self.degrees = there.sum() - 1, there.sum() * (self.repeats - 1)
        self.squares = (self.cell**2).sum(), ((y - mean[..., None])[there] ** 2).sum()  # among pairs, and within them
        (d, i), flows, sums = there.shape, (there.sum(1), there.sum(0)), (self.cell.sum(1), self.cell.sum(0))
        if np.ptp(flows[0]) == np.ptp(flows[1]) == 0:  # singular vectors leave blocks of two, and the mean
            left, values, right = np.linalg.svd(there.astype(float))
            parts = *flows, values, left.T @ sums[0], right @ sums[1]
            of_draws, of_starts, shared, *along = (np.pad(v, (0, max(d, i) - len(v)))[1:] for v in parts)
            self.blocks = np.array([[of_draws, shared], [shared, of_starts]]).T
            self.sums, self.of_data = np.stack(along, 1), np.array([True, False])
        else:
            count = np.concatenate(flows)
            overlap = np.block([[np.diag(flows[0]), there], [there.T, np.diag(flows[1])]])
            self.blocks, self.sums = (overlap - np.outer(count, count) / there.sum())[None], np.concatenate(sums)[None]
            self.of_data = np.arange(d + i) < d
        left = self.squares[1] if self.repeats > 1 else self.lines(np.array([0.5]))[2].item()
        if left <= _NONE * sum(self.squares):
            what = "repetitions that differ" if self.repeats > 1 else "a rest besides the effects of its levels"
            raise ValueError(f"y must have {what}; there is none, and the likelihood has no maximum")

    def lines(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return of lines x (n,): eigenvalues (n, 1, m), squares of the table along their vectors, and what is left."""
        scale = np.sqrt(np.where(self.of_data, _part(x)[:, None], _part(1 - x)[:, None]))[:, None]
        values, vectors = np.linalg.eigh(self.blocks * scale[..., None] * scale[..., None, :])
        along = np.einsum("lbij,lbi->lbj", vectors, self.sums * scale).reshape(len(x), 1, -1)
        values = values.reshape(along.shape)
        seen = values > _NONE * values.max()
        squares = np.divide(along**2, values, out=np.zeros_like(along), where=seen)
        return np.where(seen, values, 0.0), squares, self.squares[0] - squares.sum(-1)

    def deviance(self, lines: tuple, z: np.ndarray, split: np.ndarray | None) -> tuple:
        """Return -2 ln of the likelihood at the best s^2, that s^2, and the batches' part of the rest (None: best)."""
        (values, squares, left), (pairs, repeats), h, rest = lines, self.degrees, _part(z), _part(1 - z)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            v = h[..., None] * values + rest[..., None]
            quadratic = (squares / v).sum(-1) + left / rest
            logs = np.log(v).sum(-1) + (pairs - values.shape[-1]) * np.log(rest)
            if split is None:
                split = np.minimum(1, self.squares[1] * pairs / (repeats * self.repeats * quadratic * rest))
            if repeats:
                quadratic = quadratic + self.squares[1] / (self.repeats * split * rest)
                logs = logs + repeats * np.log(split * rest)
            deviance = sum(self.degrees) * np.log(quadratic) + logs
        return np.where(np.isnan(deviance), np.inf, deviance), quadratic / sum(self.degrees), split

    def best(self, lines: tuple, split: float | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the least deviance (n,) of each line, and its place, by grids that narrow."""
        n, steps = np.arange(len(lines[2])), np.linspace(0, 1, 33)
        low, high = np.zeros(len(n)), np.ones(len(n))
        for _ in range(6):
            z = low[:, None] + (high - low)[:, None] * steps
            deviance = self.deviance(lines, z, split)[0]
            k = deviance.argmin(1)
            low, high = z[n, np.maximum(k - 1, 0)], z[n, np.minimum(k + 1, 32)]
        return deviance[n, k], z[n, k]

    def quadratic_forms(self, variance: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Return (Z^T P y)^2, (W^T P y)^2 and (P y)^2, and the matrix that turns variances into their mean sums."""
        pairs = np.arange(self.there.sum())
        levels = [sparse.csr_array((pairs * 0 + 1.0, (pairs, k))) for k in (*self.there.nonzero(), pairs)]  # Z, W and I
        effects = sparse.hstack([z * np.sqrt(v) for v, z in zip(variance[:2], levels[:2], strict=True)])
        inner = np.linalg.inv((effects.T @ effects).toarray() + variance[2] * np.eye(effects.shape[1]))
        inverse = (np.eye(len(pairs)) - effects @ inner @ effects.T) / variance[2]  # Woodbury's identity
        projection = inverse - np.outer(inverse.sum(0), inverse.sum(1)) / inverse.sum()  # P, without the mean
        residual = projection @ self.cell[self.there]
        expected = [[(part**2).sum() for part in (a.T @ projection @ b for b in levels)] for a in levels]
        return [(z.T @ residual) ** 2 for z in levels], np.array(expected)

    @cached_property
    def search(self) -> tuple[float, float, float, float]:
        """The best line x, its deviance, and the first and the last line with variances that are possible."""
        grid = np.linspace(0, 1, 17)

        def profile(x: np.ndarray) -> np.ndarray:
            return self.best(self.lines(x.ravel()), self.splits[0])[0].reshape(x.shape)

        values = profile(grid)
        k = values.argmin()
        near = grid[max(k - 1, 0)], grid[min(k + 1, 16)]
        found = optimize.minimize_scalar(lambda x: profile(np.array(x)).item(), bounds=near, options={"xatol": 1e-9})
        x, least = (found.x, found.fun) if found.fun < values[k] - 1e-9 else (grid[k], values[k])
        return x, least, *_reach(lambda x: profile(x) <= least + _ALLOWED, np.array([[x]]))[0]

    def variances(self, x: np.ndarray, z: np.ndarray, scale: np.ndarray, split: np.ndarray) -> np.ndarray:
        """Return the variances (..., n_terms) at s^2 = scale; one for the rest where there are no repetitions."""
        rest = scale * _part(1 - z)
        effects = [scale * _part(z) * _part(x), scale * _part(z) * _part(1 - x)]
        parts = [rest * (1 - split), rest * split * self.repeats] if self.repeats > 1 else [rest]
        return np.stack(np.broadcast_arrays(*effects, *parts), -1)

    def maximum(self) -> np.ndarray:
        """Return the variances (n_terms,) at the maximum of the likelihood."""
        x = np.array([self.search[0]])
        lines = self.lines(x)
        z = self.best(lines, self.splits[0])[1][:, None]
        _, scale, split = self.deviance(lines, z, self.splits[0])
        return self.variances(x[:, None], z, scale, split)[0, 0]

    def surface(self) -> np.ndarray:
        """Return variances (n, n_terms) all over the surface of the region of the likelihood that LEVEL allows."""
        _, least, *ends = self.search
        limit, x = least + _ALLOWED, _nodes(np.array(ends), _LINES)
        lines, places = self.lines(x), []
        for split in self.splits:  # with repetitions also the places without interaction, a face with edges of its own
            z = self.best(lines, split)[1][:, None]
            ends = _reach(lambda z, split=split: self.deviance(lines, z, split)[0] <= limit, z)
            places.append(_nodes(ends, _PLACES))
        z = np.concatenate(places, axis=1)
        split = 1.0
        if self.repeats > 1:
            lines, x = tuple(np.repeat(v, z.shape[1], axis=0) for v in lines), np.repeat(x, z.shape[1])
            z = z.reshape(-1, 1)
            best = self.deviance(lines, z, None)[2]
            split = _nodes(_reach(lambda split: self.deviance(lines, z, split)[0] <= limit, best), _PLACES)
        deviance, scale, _ = self.deviance(lines, z, split)
        excess = (limit - deviance).clip(0) / sum(self.degrees)  # log(s^2) + 1 / s^2 may be larger by so much
        roots = (np.nan_to_num(-special.lambertw(-np.exp(-1 - excess), k).real, nan=1.0) for k in (0, -1))
        points = np.stack([self.variances(x[:, None], z, scale / root, split) for root in roots])
        return points[:, deviance < limit + 1e-6].reshape(-1, points.shape[-1])
