"""The weighting of velocity space: velocities at any point, drawn from the distribution function itself."""

import math
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from scipy.spatial import cKDTree

from dfaccel import _check as check
from dfaccel.systems.base import DistributionFunction

_CHUNK = 400_000  # equations set up at a time
N_LENDERS = 100_000  # stars that lend their velocities
FEW = 100  # training stars near a point: fewer are too few


class VelocitySource:
    """Velocities at any point, borrowed from the stars of f that lie nearest in the coordinates of its symmetry."""

    def __init__(self, df: DistributionFunction, rng: np.random.Generator) -> None:
        stars = df.lenders(N_LENDERS, rng)
        self.coordinates = df.neighbourhood(stars)
        y, _ = self.coordinates.forward(torch.from_numpy(stars))
        self.y = y[torch.isfinite(y).all(1)]  # a poorly trained flow throws some stars out of all bounds
        self.tree = cKDTree(self.y[:, : self.coordinates.n_positions].numpy())
        self.rng = rng

    def __call__(self, points: np.ndarray, n: int) -> np.ndarray:
        """Return velocities (m, n, 3) at ``points`` (m, 3)."""
        x = torch.from_numpy(points)
        pool = min(2 * n, len(self.y))  # twice as many as needed, so that another rng takes other velocities
        where = np.nan_to_num(self.coordinates.position_coordinates(x).numpy(), neginf=-1e9)  # singular, no equation
        _, nearest = self.tree.query(where, k=pool)
        chosen = self.rng.random(nearest.shape).argsort(axis=1)[:, :n]
        y = self.y[torch.from_numpy(np.take_along_axis(nearest, chosen, axis=1).ravel())]
        v = self.coordinates.velocities(x.repeat_interleave(n, dim=0), y, self.rng)
        return np.nan_to_num(v.numpy()).reshape(len(points), n, 3)


def velocity_chunks(
    df: DistributionFunction, points: np.ndarray, n_velocities: int, velocities: np.ndarray | None,
    rng: np.random.Generator | int,
) -> Iterator[tuple[np.ndarray, ...]]:
    """Check or draw velocities; yield those of a few points (m, V, 3) and the stars they make (m V, 6), with scores.

    These are ln f (1 + K, m, V) and its gradient (1 + K, m, V, 6): first those of the mixture, then of each member.
    """
    needed = ("log_df", "members_score", "sample") if velocities is None else ("log_df", "members_score")
    own = {name: getattr(type(df), name, None) for name in needed}
    if None in own.values() or any(own[name] is getattr(DistributionFunction, name) for name in needed[::2]):
        raise TypeError("df must inherit from dfaccel.DistributionFunction and have log_df and sample of its own; got "
                        f"{type(df).__name__}")
    if velocities is None:
        if not 3 <= check.count(n_velocities, "n_velocities") <= N_LENDERS:
            raise ValueError(f"n_velocities must lie between 3 and {N_LENDERS}; got {n_velocities}")
        source = VelocitySource(df, np.random.default_rng(rng))
    else:
        velocities = check.numbers(velocities, "velocities")
        if velocities.ndim != 3 or velocities.shape[::2] != (len(points), 3) or velocities.shape[1] < 3:
            raise ValueError(f"velocities must have shape ({len(points)}, V, 3), V >= 3; got {velocities.shape}")
        if not np.isfinite(velocities).all():
            raise ValueError(f"velocities has {(~np.isfinite(velocities)).sum()} non-finite values; remove them")
        n_velocities = velocities.shape[1]
    for chunk in np.array_split(np.arange(len(points)), math.ceil(len(points) * n_velocities / _CHUNK)):
        v = source(points[chunk], n_velocities) if velocities is None else velocities[chunk]
        w = np.concatenate([np.broadcast_to(points[chunk, None], v.shape), v], axis=-1).reshape(-1, 6)
        log_f, score = df.members_score(w)
        total = np.logaddexp.reduce(log_f, axis=0)
        share = np.exp(log_f - np.where(np.isneginf(total), 0.0, total))
        score = np.concatenate([np.einsum("kn,kni->ni", share, score)[None], score])
        yield v, w, np.concatenate([total[None], log_f]).reshape(-1, *v.shape[:2]), score.reshape(-1, *v.shape[:2], 6)


def warn_of(points: np.ndarray, what: str) -> None:
    """Warn the caller's caller if any of ``points`` (m,) bool is true, and say which is the first."""
    if points.any():
        warnings.warn(f"{points.sum()} of {len(points)} points {what}, first at index {points.argmax()}", stacklevel=3)
