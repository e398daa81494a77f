"""Masked autoregressive flows (MAF) and ensembles of them.

nflows defines the flow (layers, masks, initialization, names of its arrays). An ensemble keeps the parameters of its K
flows as one (K, n_parameters) matrix ``theta`` and evaluates all of them with batched matrix products: the same
numbers as nflows, tested, at a fraction of the overhead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms import CompositeTransform, MaskedAffineAutoregressiveTransform, ReversePermutation
from torch import Tensor

from . import checks
from .coordinates import CoordinateMap

ACTIVATIONS = {"gelu": F.gelu, "silu": F.silu, "softplus": F.softplus, "tanh": torch.tanh, "relu": F.relu}
_SCALE_FLOOR = 1e-3  # the constant nflows adds to every scale
N_REPRESENTATIVE = 100_000  # stars an ensemble draws of itself to lend their velocities
_CHUNK = 8192  # phase-space points evaluated at a time: what fits the cache


@dataclass(frozen=True)
class FlowSpec:
    """Architecture of one flow.

    Parameters
    ----------
    n_transforms : int
        Number of autoregressive transforms, the order of the features reversed before each.
    hidden_features : int
        Width of the hidden layers of each transform's network.
    n_blocks : int
        Residual blocks (two layers each) per network.
    activation : {"gelu", "silu", "softplus", "tanh", "relu"}
        Activation. Accelerations need gradients of f, hence a smooth one; relu is there to show why.
    position_map : {"radial", "linear"}
        How positions enter where no symmetry is assumed; see `dfaccel.coordinates`.

    Raises
    ------
    ValueError
        If a size is not a positive integer or a name is unknown.

    Examples
    --------
    >>> FlowSpec(n_transforms=4).n_parameters(features=3) > 0
    True
    """

    n_transforms: int = 8
    hidden_features: int = 64
    n_blocks: int = 2
    activation: str = "gelu"
    position_map: str = "radial"

    def __post_init__(self) -> None:
        for name in ("n_transforms", "hidden_features", "n_blocks"):
            checks.count(getattr(self, name), name)
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {self.activation!r}")
        if self.position_map not in ("radial", "linear"):
            raise ValueError(f"position_map must be radial or linear; got {self.position_map!r}")

    def build(self, features: int, seed: int = 0) -> Flow:
        """Return a freshly initialized nflows flow; the global random state is left as it was.

        Parameters
        ----------
        features : int
            Dimension of the density.
        seed : int
            Seed of the initialization.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU's alone: torch.manual_seed would reach the GPU's too
            steps = []
            for _ in range(self.n_transforms):
                steps += [
                    ReversePermutation(features),
                    MaskedAffineAutoregressiveTransform(
                        features,
                        self.hidden_features,
                        num_blocks=self.n_blocks,
                        activation=ACTIVATIONS[self.activation],
                    ),
                ]
            return Flow(CompositeTransform(steps), StandardNormal([features]))

    def n_parameters(self, features: int) -> int:
        """Return the number of parameters of one flow."""
        return Layout(self, features).n_parameters

    def to_dict(self) -> dict:
        """Return the specification as plain values, for the store."""
        return asdict(self)


class Layout:
    """Where each array of a flow lies in a row of ``theta``, and which of its weights are masked away.

    Parameters
    ----------
    spec : FlowSpec
        Architecture.
    features : int
        Dimension of the density.
    """

    def __init__(self, spec: FlowSpec, features: int) -> None:
        flow = spec.build(features)
        self.spec, self.features = spec, features
        self.shapes = {name: p.shape for name, p in flow.named_parameters()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.n_parameters = sum(self.sizes)
        buffers = dict(flow.named_buffers())
        masks = [buffers.get(name.replace("weight", "mask"), torch.ones(())) for name in self.shapes]
        self.mask = torch.cat([m.expand(s).reshape(-1) for m, s in zip(masks, self.shapes.values(), strict=True)])

    def initial(self, seeds: list[int]) -> Tensor:
        """Return ``theta`` (K, n_parameters) of freshly initialized flows, one a seed."""
        flows = [self.spec.build(self.features, seed) for seed in seeds]
        return torch.stack([torch.cat([p.detach().reshape(-1) for p in f.parameters()]) for f in flows])

    def unpack(self, theta: Tensor) -> dict[str, Tensor]:
        """Return the named arrays (K, ...) that make up ``theta`` (K, n_parameters)."""
        pieces = theta.split(self.sizes, dim=1)
        return {n: p.unflatten(1, s) for (n, s), p in zip(self.shapes.items(), pieces, strict=True)}

    def pack(self, arrays: dict[str, Tensor]) -> Tensor:
        """Return ``theta`` (K, n_parameters) from named arrays (K, ...); raise ValueError if any is amiss."""
        if set(arrays) != set(self.shapes):
            odd = sorted(set(arrays) ^ set(self.shapes))
            raise ValueError(f"arrays do not fit the flow specification: {len(odd)} names differ, first {odd[0]!r}")
        for name, shape in self.shapes.items():
            if arrays[name].shape[1:] != shape:
                raise ValueError(f"array {name!r} must have shape (K, {', '.join(map(str, shape))}); "
                                 f"got {tuple(arrays[name].shape)}")
        return torch.cat([arrays[name].flatten(1) for name in self.shapes], dim=1)

    def _layers(self, theta: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (weight (K, out, in), bias (K, out, 1)) in the order in which they are used."""
        arrays = iter(self.unpack(theta * self.mask).values())
        for weight, bias in zip(arrays, arrays, strict=True):
            yield weight, bias.unsqueeze(-1)

    def networks(self, theta: Tensor) -> list[list[tuple[Tensor, Tensor]]]:
        """Return the layers of each transform's network, ready for `transform` and `inverse`."""
        layers, n = list(self._layers(theta)), 2 * self.spec.n_blocks + 2
        return [layers[i : i + n] for i in range(0, len(layers), n)]

    def _conditioner(self, network: list[tuple[Tensor, Tensor]], y: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and shift (K, features, n) of one transform at ``y`` (K, features, n)."""
        activation = ACTIVATIONS[self.spec.activation]
        (weight, bias), *hidden, (weight_out, bias_out) = network
        h = torch.baddbmm(bias, weight, y)
        for (w0, b0), (w1, b1) in zip(hidden[::2], hidden[1::2], strict=True):
            h = h + torch.baddbmm(b1, w1, activation(torch.baddbmm(b0, w0, activation(h))))
        out = torch.baddbmm(bias_out, weight_out, h).unflatten(1, (self.features, 2))
        return F.softplus(out[:, :, 0]) + _SCALE_FLOOR, out[:, :, 1]

    def log_prob(self, networks: list, y: Tensor) -> Tensor:
        """Return the log density (K, n) at ``y`` (K, features, n) in standardized coordinates."""
        log_scale = torch.zeros(())
        for network in networks:
            y = y.flip(1)
            scale, shift = self._conditioner(network, y)
            y = scale * y + shift
            log_scale = log_scale + torch.log(scale).sum(1)
        return log_scale - 0.5 * (y * y).sum(1) - 0.5 * self.features * math.log(2 * math.pi)

    def inverse(self, networks: list, z: Tensor) -> Tensor:
        """Return the ``y`` (K, features, n) that the flows map to ``z`` (K, features, n)."""
        for network in reversed(networks):
            y = torch.zeros_like(z)
            for i in range(self.features):
                scale, shift = self._conditioner(network, y)
                y = torch.cat([y[:, :i], ((z - shift) / scale)[:, i : i + 1], y[:, i + 1 :]], dim=1)
            z = y.flip(1)
        return z


@dataclass(eq=False)
class FlowEnsemble:
    """K flows that share one architecture, one coordinate map and one standardization.

    As a density it is the mean of its members' densities. Made by `dfaccel.fit` or `dfaccel.load`.

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
    """

    spec: FlowSpec
    coordinates: CoordinateMap
    mean: Tensor
    std: Tensor
    theta: Tensor
    reference: Tensor
    metadata: dict = field(default_factory=dict)

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
        return FlowEnsemble(
            self.spec, self.coordinates, self.mean, self.std, self.theta[k : k + 1], self.reference, self.metadata
        )

    def _log_prob(self, w: Tensor) -> Tensor:
        """Return the log density (n_flows, n), float64, of each member at its own points ``w`` (n_flows, n, 6).

        Where a coordinate is singular (the centre, the axis, a purely radial orbit) it is the limit, minus infinity.
        """
        y, log_jacobian = self.coordinates.forward(w)
        singular = ~torch.isfinite(y).all(-1)
        y = ((y - self.mean) / self.std).float()
        flips = self.coordinates.flips.to(y)
        y = torch.cat([y * sign for sign in flips], dim=1).mT
        log_p = self.layout.log_prob(self._networks, y).double().unflatten(1, (len(flips), -1))
        log_f = torch.logsumexp(log_p, 1) - math.log(len(flips)) - self.std.log().sum() + log_jacobian
        return torch.where(singular, -torch.inf, log_f)

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
        z = torch.from_numpy(rng.standard_normal((self.n_flows, self.coordinates.features, per_member))).float()
        with torch.no_grad():
            y = torch.cat([self.layout.inverse(self._networks, c) for c in z.split(_CHUNK, dim=2)], dim=2).double()
        y = y.transpose(1, 2).flatten(0, 1)
        y = y[torch.from_numpy(rng.permutation(len(y))[:n])]
        flips = self.coordinates.flips.double()
        return y * flips[torch.from_numpy(rng.integers(len(flips), size=n))] * self.std + self.mean
