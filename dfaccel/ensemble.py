"""An ensemble of flows as a distribution function in the user's units: log f, its gradient, and new stars."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from . import checks
from .coordinates import CoordinateMap
from .flows import FlowSpec, Layout

N_REPRESENTATIVE = 100_000  # stars an ensemble draws of itself to lend their velocities
_CHUNK = 8192  # phase-space points evaluated at a time: what fits the cache


@dataclass(eq=False)
class FlowEnsemble:
    """K flows that share one architecture, one coordinate map and one standardization.

    As a density it is the mean of its members' densities. Made by `dfaccel.fit` or `dfaccel.load`. A flow maps its
    coordinates to those of a standard normal density or, if there is a prior, of the density of the prior's member.

    Parameters
    ----------
    spec : FlowSpec
        Architecture of each member.
    coordinates : CoordinateMap
        Map from phase space to the coordinates the flows learned in.
    mean, std : Tensor, shape (features,)
        Standardization of those coordinates, float64.
    theta : Tensor, shape (n_flows, n_parameters)
        Parameters of the members, float32.
    reference : Tensor, shape (n, n_positions)
        Position coordinates of some training stars, float32: where the model has seen data.
    metadata : dict
        Provenance: seeds, sizes, versions, training history, data checksum.
    prior : FlowEnsemble, optional
        Ensemble of as many members from which these were started.
    """

    spec: FlowSpec
    coordinates: CoordinateMap
    mean: Tensor
    std: Tensor
    theta: Tensor
    reference: Tensor
    metadata: dict = field(default_factory=dict)
    prior: FlowEnsemble | None = None

    @property
    def n_flows(self) -> int:
        """Number of members."""
        return len(self.theta)

    @cached_property
    def layout(self) -> Layout:
        """Layout of ``theta``."""
        return Layout(self.spec, self.coordinates.features)

    @cached_property
    def representative_stars(self) -> np.ndarray:
        """Stars (100000, 6) drawn from the ensemble once and kept; always the same ones."""
        return self.sample(N_REPRESENTATIVE, rng=0)

    @cached_property
    def _networks(self) -> list:
        return self.layout.networks(self.theta.detach())

    def member(self, k: int) -> FlowEnsemble:
        """Return the ensemble of member ``k`` alone; raise IndexError if there is none such (-1 is the last)."""
        if not -self.n_flows <= k < self.n_flows:
            raise IndexError(f"k must lie in {-self.n_flows}..{self.n_flows - 1}; got {k}")
        k %= self.n_flows
        prior = None if self.prior is None else self.prior.member(k)
        return replace(self, theta=self.theta[k : k + 1], prior=prior)

    def to(self, device: str) -> FlowEnsemble:
        """Return the ensemble on a torch device."""
        prior = None if self.prior is None else self.prior.to(device)
        moved = {name: getattr(self, name).to(device) for name in ("mean", "std", "theta")}
        return replace(self, **moved, prior=prior)

    def _log_prob(self, w: Tensor) -> Tensor:
        """Return the log density (n_flows, n), float64, of each member at its own points ``w`` (n_flows, n, 6).

        Where a coordinate is singular (the centre, the axis, a purely radial orbit), or so large that the network
        overflows, it is the limit, minus infinity.
        """
        y, log_jacobian = self.coordinates.forward(w)
        singular = ~torch.isfinite(y).all(-1)
        y = ((y - self.mean) / self.std).float()
        flips = self.coordinates.flips.to(y)
        y = torch.cat([y * sign for sign in flips], dim=1).mT
        log_p = self.density(self._networks, y).double().unflatten(1, (len(flips), -1))
        log_f = torch.logsumexp(log_p, 1) - math.log(len(flips)) - self.std.log().sum() + log_jacobian
        return torch.where(singular | torch.isnan(log_f), -torch.inf, log_f)

    def density(self, networks: list, y: Tensor) -> Tensor:
        """Return the log density (n_flows, n) at standardized coordinates ``y`` (n_flows, features, n)."""
        if self.prior is None:
            return self.layout.log_prob(networks, y)
        z, log_scale = self.layout.transform(networks, y)
        w = self.coordinates.inverse(z.mT.double() * self.std + self.mean, np.random.default_rng())
        return log_scale + self.prior._log_prob(w) - self.coordinates.forward(w)[1] + self.std.log().sum()

    def _chunks(self, w: np.ndarray) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of the points and a copy (n_flows, n, 6) of them for each member."""
        w = torch.from_numpy(checks.phase_space(w)).to(self.theta.device)
        size = max(1, _CHUNK // self.n_flows)
        for start in range(0, len(w), size):
            part = slice(start, min(start + size, len(w)))
            yield part, w[part].expand(self.n_flows, -1, -1)

    def members_log_prob(self, w: np.ndarray) -> np.ndarray:
        """Return ln f of each member.

        Parameters
        ----------
        w : ndarray, shape (n, 6)
            Phase-space points.

        Returns
        -------
        ndarray, shape (n_flows, n)
            Natural log of the probability density per unit length^3 velocity^3; -inf where it vanishes.

        Raises
        ------
        ValueError
            If ``w`` has the wrong shape, is empty or holds a non-finite value.
        """
        with torch.no_grad():
            return torch.cat([self._log_prob(points) for _, points in self._chunks(w)], dim=1).cpu().numpy()

    def log_prob(self, w: np.ndarray) -> np.ndarray:
        """Return ln f of the ensemble, the mean density of its members.

        Parameters
        ----------
        w : ndarray, shape (n, 6)
            Phase-space points.

        Returns
        -------
        ndarray, shape (n,)
            Natural log of the probability density per unit length^3 velocity^3; -inf where it vanishes.

        Raises
        ------
        ValueError
            If ``w`` has the wrong shape, is empty or holds a non-finite value.
        """
        return np.logaddexp.reduce(self.members_log_prob(w), axis=0) - math.log(self.n_flows)

    def members_score(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ln f and its gradient for each member.

        Parameters
        ----------
        w : ndarray, shape (n, 6)
            Phase-space points.

        Returns
        -------
        log_f : ndarray, shape (n_flows, n)
            Natural log of the density.
        score : ndarray, shape (n_flows, n, 6)
            Its gradient, per unit length (first three) and velocity (last three).

        Raises
        ------
        ValueError
            If ``w`` has the wrong shape, is empty or holds a non-finite value.
        """
        log_f, score = np.empty((self.n_flows, len(w))), np.empty((self.n_flows, len(w), 6))
        for part, points in self._chunks(w):
            points = points.clone().requires_grad_()
            members = self._log_prob(points)
            (gradient,) = torch.autograd.grad(members.sum(), points)  # a member's points are its own: no cross terms
            log_f[:, part], score[:, part] = members.detach().cpu().numpy(), gradient.cpu().numpy()
        return log_f, score

    def members_hessian(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ln f, its gradient and how that gradient changes with position, for each member.

        Parameters
        ----------
        w : ndarray, shape (n, 6)
            Phase-space points.

        Returns
        -------
        log_f : ndarray, shape (n_flows, n)
            Natural log of the density.
        score : ndarray, shape (n_flows, n, 6)
            Its gradient.
        hessian : ndarray, shape (n_flows, n, 3, 6)
            Derivatives of the gradient with respect to x, y and z.

        Raises
        ------
        ValueError
            If ``w`` has the wrong shape, is empty or holds a non-finite value.
        """
        shape = (self.n_flows, len(w))
        log_f, score, hessian = np.empty(shape), np.empty((*shape, 6)), np.empty((*shape, 3, 6))
        for part, points in self._chunks(w):
            points = points.clone().requires_grad_()
            members = self._log_prob(points)
            (gradient,) = torch.autograd.grad(members.sum(), points, create_graph=True)
            log_f[:, part], score[:, part] = members.detach().cpu().numpy(), gradient.detach().cpu().numpy()
            for i in range(3):
                (row,) = torch.autograd.grad(gradient[..., i].sum(), points, retain_graph=i < 2)
                hessian[:, part, i] = row.cpu().numpy()
        return log_f, score, hessian

    def score(self, w: np.ndarray) -> np.ndarray:
        """Return the gradient of the ensemble's ln f.

        Parameters
        ----------
        w : ndarray, shape (n, 6)
            Phase-space points.

        Returns
        -------
        ndarray, shape (n, 6)
            Gradient of ln f, per unit length (first three) and velocity (last three); NaN where ln f is -inf.

        Raises
        ------
        ValueError
            If ``w`` has the wrong shape, is empty or holds a non-finite value.
        """
        log_f, score = self.members_score(w)
        total = np.logaddexp.reduce(log_f, axis=0)
        share = np.exp(log_f - np.where(np.isneginf(total), 0.0, total))
        return np.einsum("kn,kni->ni", share, score)

    def sample(self, n: int, *, rng: np.random.Generator | int) -> np.ndarray:
        """Draw new stars from the ensemble, each from a member chosen at random.

        Parameters
        ----------
        n : int
            Number of stars.
        rng : Generator or int
            Random generator or its seed.

        Returns
        -------
        ndarray, shape (n, 6)
            Stars.

        Raises
        ------
        ValueError
            If ``n`` is not a positive integer, or no star drawn is finite.
        """
        checks.count(n, "n")
        rng = np.random.default_rng(rng)
        w = self.coordinates.inverse(self.sample_coordinates(n, rng), rng).numpy()
        lost = np.flatnonzero(~np.isfinite(w).all(axis=1))  # overflow of exp, far in the tail of a poorly trained flow
        if len(lost) == n:
            raise ValueError(f"none of the {n} stars drawn is finite: this flow is too poorly trained to draw from")
        w[lost] = np.delete(w, lost, axis=0)[rng.integers(n - len(lost), size=len(lost))]
        return w

    def sample_coordinates(self, n: int, rng: np.random.Generator) -> Tensor:
        """Draw n points in the flow's coordinates (n, features), float64, not standardized."""
        per_member = -(-n // self.n_flows)
        if self.prior is None:
            z = torch.from_numpy(rng.standard_normal((self.n_flows, self.coordinates.features, per_member))).float()
        else:
            w = np.stack([self.prior.member(k).sample(per_member, rng=rng) for k in range(self.n_flows)])
            z = ((self.coordinates.forward(torch.from_numpy(w))[0] - self.mean) / self.std).float().mT
        with torch.no_grad():
            y = torch.cat([self.layout.inverse(self._networks, c) for c in z.split(_CHUNK, dim=2)], dim=2).double()
        y = y.transpose(1, 2).flatten(0, 1)
        y = y[torch.from_numpy(rng.permutation(len(y))[:n])]
        flips = self.coordinates.flips.double()
        return y * flips[torch.from_numpy(rng.integers(len(flips), size=n))] * self.std + self.mean
