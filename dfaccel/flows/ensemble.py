"""An ensemble of flows as a distribution function in the user's units: log f, its gradient, and new stars."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from dfaccel import _check as check
from dfaccel.coordinates import CoordinateMap
from dfaccel.flows.maf import FlowSpec, Layout
from dfaccel.systems.base import DistributionFunction

_REACH = 0.5  # neighbourhood, in position coordinates, in which training stars are counted
_CHUNK = 4096  # phase-space points evaluated at a time: what fits the cache


def in_threads(function: Callable[[Tensor], Any], chunks: tuple[Tensor, ...]) -> list:
    """Apply a function to each chunk, a chunk a thread: more threads for one product of small matrices gain less."""
    n = torch.get_num_threads()
    if min(n, len(chunks)) == 1:
        return [function(chunk) for chunk in chunks]
    try:
        with ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, chunks))
    finally:
        torch.set_num_threads(n)  # what the workers set is also what later threads begin with


@dataclass(eq=False)
class FlowEnsemble(DistributionFunction):
    """K flows that share one architecture, one coordinate map and one standardization.

    Its density is the mean of the members' densities. `dfaccel.fit` and `dfaccel.load` make it. A flow maps its
    coordinates to those of a standard normal density or, if there is a prior, of the density of the prior's member.

    Parameters
    ----------
    spec, coordinates : FlowSpec, CoordinateMap
        Architecture of each member, and map from phase space to the coordinates in which the flows learned.
    mean, std, theta, reference : Tensor
        Standardization of those coordinates, each (features,), float64; parameters of the members (n_flows,
        n_parameters), and position coordinates (n, n_positions) of some training stars, float32.
    metadata, prior : dict, FlowEnsemble, optional
        Provenance (seeds, versions, history, checksum of the data), and the ensemble from which this one was started.

    Raises
    ------
    ValueError
        If points ``w`` are not a finite array (n, 6), in the units of the training stars; if no star drawn is finite.

    Examples
    --------
    >>> import dfaccel as da
    >>> model = da.fit(da.Plummer().sample(1000, rng=1), spec=da.FlowSpec(1, 4), config=da.TrainConfig(1, 500), rng=0)
    >>> model.score(model.sample(5, rng=2)).shape
    (5, 6)
    """

    spec: FlowSpec
    coordinates: CoordinateMap
    mean: Tensor
    std: Tensor
    theta: Tensor
    reference: Tensor
    metadata: dict = field(default_factory=dict)
    prior: "FlowEnsemble | None" = None

    @property
    def n_flows(self) -> int:
        """Number of members."""
        return len(self.theta)

    @cached_property
    def layout(self) -> Layout:
        """Layout of ``theta``."""
        return self.spec.layout(self.coordinates.features)

    @cached_property
    def representative_stars(self) -> np.ndarray:
        """Stars (100000, 6) drawn from the ensemble once and kept; always the same ones."""
        return self.sample(100_000, rng=0)

    @cached_property
    @torch.inference_mode(False)
    def _networks(self) -> list:
        return self.layout.networks(self.theta.detach())

    def member(self, k: int) -> Self:
        """Return the ensemble of member ``k`` alone (-1 is the last); raise IndexError if there is no such member."""
        if not -self.n_flows <= k < self.n_flows:
            raise IndexError(f"k must lie in {-self.n_flows}..{self.n_flows - 1}; got {k}")
        return replace(self, theta=self.theta[[k]], prior=self.prior and self.prior.member(k))

    def to(self, device: str) -> Self:
        """Return the ensemble on a torch device."""
        moved = {name: getattr(self, name).to(device) for name in ("mean", "std", "theta")}
        return replace(self, **moved, prior=self.prior and self.prior.to(device))

    def density(self, networks: list, y: Tensor) -> Tensor:
        """Return the log density (n_flows, n) at standardized coordinates ``y`` (n_flows, features, n)."""
        if self.prior is None:
            return self.layout.log_prob(networks, y)
        z, log_scale = self.layout.transform(networks, y)
        w = self.coordinates.inverse(z.mT.double() * self.std + self.mean, np.random.default_rng())
        return log_scale + self.prior._log_df(w) - self.coordinates.forward(w)[1] + self.std.log().sum()

    def _log_df(self, w: Tensor) -> Tensor:
        """Return ln f (n_flows, n), float64, of each member at its own points ``w`` (n_flows, n, 6)."""
        y, log_jacobian = self.coordinates.forward(w)
        singular = ~torch.isfinite(y).all(-1)
        y = ((y - self.mean) / self.std).float()
        flips = self.coordinates.flips.to(y)
        y = torch.cat([y * sign for sign in flips], dim=1).mT
        log_p = self.density(self._networks, y).double().unflatten(1, (len(flips), -1))
        log_f = torch.logsumexp(log_p, 1) - math.log(len(flips)) - self.std.log().sum() + log_jacobian
        return torch.where(singular | torch.isnan(log_f), -torch.inf, log_f)  # the limit, also if a network overflows

    @torch.inference_mode(False)
    @torch.enable_grad()
    def _with_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return ln f of the members and its gradient at points (n_flows, n, 6) of their own."""
        points = points.clone().requires_grad_()
        log_f = self._log_df(points)
        (score,) = torch.autograd.grad(log_f.sum(), points)  # no cross terms between members
        return log_f.detach(), score

    def _in_chunks(self, function: Callable[[Tensor], tuple[Tensor, ...]], w: np.ndarray) -> tuple[np.ndarray, ...]:
        """Apply a function to points ``w`` (n, 6), a copy for each member, a chunk at a time."""
        chunks = torch.from_numpy(check.phase_space(w)).to(self.theta.device).split(max(1, _CHUNK // self.n_flows))
        parts = in_threads(lambda chunk: function(chunk.expand(self.n_flows, -1, -1)), chunks)
        return tuple(torch.cat(part, dim=1).cpu().numpy() for part in zip(*parts, strict=True))

    def members_log_df(self, w: np.ndarray) -> np.ndarray:
        """Return ln f (n_flows, n) of each member at ``w`` (n, 6); see `log_df`."""
        return self._in_chunks(torch.no_grad()(lambda points: (self._log_df(points),)), w)[0]

    def log_df(self, w: np.ndarray) -> np.ndarray:
        """Return ln f (n,) at ``w`` (n, 6), per unit length^3 velocity^3; -inf where f vanishes."""
        return np.logaddexp.reduce(self.members_log_df(w), axis=0) - math.log(self.n_flows)

    def members_score(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ln f (n_flows, n) and its gradient (n_flows, n, 6) of each member at ``w`` (n, 6)."""
        return self._in_chunks(self._with_gradient, w)

    def score(self, w: np.ndarray) -> np.ndarray:
        """Return the gradient (n, 6) of ln f at ``w`` (n, 6), per unit length or velocity; NaN where ln f is -inf."""
        log_f, score = self.members_score(w)
        total = np.logaddexp.reduce(log_f, axis=0)
        share = np.exp(log_f - np.where(np.isneginf(total), 0.0, total))
        return np.einsum("kn,kni->ni", share, score)

    def sample(self, n: int, *, rng: np.random.Generator | int) -> np.ndarray:
        """Draw stars (n, 6), each from a member chosen at random."""
        check.count(n, "n")
        rng = np.random.default_rng(rng)
        per_member = -(-n // self.n_flows)
        if self.prior is None:
            z = torch.from_numpy(rng.standard_normal((self.n_flows, self.coordinates.features, per_member))).float()
        else:
            w = np.stack([self.prior.member(k).sample(per_member, rng=rng) for k in range(self.n_flows)])
            z = ((self.coordinates.forward(torch.from_numpy(w))[0] - self.mean) / self.std).float().mT
        inverse = torch.no_grad()(lambda chunk: self.layout.inverse(self._networks, chunk))
        y = torch.cat(in_threads(inverse, z.split(_CHUNK, dim=2)), dim=2).double()
        y = y.transpose(1, 2).flatten(0, 1)
        y = y[torch.from_numpy(rng.permutation(len(y))[:n])]
        flips = self.coordinates.flips.double()
        y = y * flips[torch.from_numpy(rng.integers(len(flips), size=n))] * self.std + self.mean
        w = self.coordinates.inverse(y, rng).numpy()
        lost = np.flatnonzero(~np.isfinite(w).all(axis=1))  # overflow of exp, far in the tail of a poorly trained flow
        if len(lost) == n:
            raise ValueError(f"none of the {n} stars drawn is finite: this flow is too poorly trained to draw from")
        w[lost] = np.delete(w, lost, axis=0)[rng.integers(n - len(lost), size=len(lost))]
        return w

    def neighbourhood(self, stars: np.ndarray) -> CoordinateMap:
        """Return the coordinates in which the flows learned."""
        return self.coordinates

    def lenders(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return the stars (100000, 6) that lend their velocities, always the same ones."""
        return self.representative_stars

    def stars_near(self, points: np.ndarray) -> np.ndarray:
        """Estimate how many training stars lie within `_REACH` of ``points`` (m, 3), in position coordinates."""
        k, where = 8, self.coordinates.position_coordinates(torch.from_numpy(points)).numpy()
        distance = cKDTree(self.reference.numpy()).query(np.nan_to_num(where, neginf=-1e9), k=k)[0][:, -1]
        per_reference = self.metadata.get("n_stars", len(self.reference)) / len(self.reference)
        return k * per_reference * (_REACH / distance) ** self.coordinates.n_positions
