"""Masked autoregressive flows (MAF), K of them at a time.

nflows defines the flow (layers, masks, initialization, names of its arrays). Here the parameters of K flows are one
(K, n_parameters) matrix ``theta``, and all of them are evaluated with batched matrix products: the same numbers as
nflows, tested, at a fraction of the overhead.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms import CompositeTransform, MaskedAffineAutoregressiveTransform, Permutation
from torch import Tensor

from . import checks

ACTIVATIONS = {"gelu": F.gelu, "silu": F.silu, "softplus": F.softplus, "tanh": torch.tanh, "relu": F.relu}
_SCALE_FLOOR = 1e-3  # the constant nflows adds to every scale
_BUILDING = threading.Lock()  # nflows draws from torch's generator, which all threads share


@dataclass(frozen=True)
class FlowSpec:
    """Architecture of one flow.

    Parameters
    ----------
    n_transforms : int
        Number of autoregressive transforms.
    hidden_features : int
        Width of the hidden layers of each transform's network.
    n_blocks : int
        Residual blocks (two layers each) per network.
    activation : {"gelu", "silu", "softplus", "tanh", "relu"}
        Activation. Accelerations need gradients of f, hence a smooth one; relu is there to show why.
    position_map : {"radial", "linear"}
        How positions enter where no symmetry is assumed; see `dfaccel.coordinates`.
    permutation : {"reverse", "rotate"}
        What happens to the order of the features before each transform: reversed, or the last becomes the first.

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
    permutation: str = "reverse"

    def __post_init__(self) -> None:
        for name in ("n_transforms", "hidden_features", "n_blocks"):
            checks.count(getattr(self, name), name)
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {self.activation!r}")
        if self.position_map not in ("radial", "linear"):
            raise ValueError(f"position_map must be radial or linear; got {self.position_map!r}")
        if self.permutation not in ("reverse", "rotate"):
            raise ValueError(f"permutation must be reverse or rotate; got {self.permutation!r}")

    def order(self, features: int) -> Tensor:
        """Return the old place of each feature after the permutation."""
        places = torch.arange(features)
        return places.flip(0) if self.permutation == "reverse" else places.roll(1)

    def build(self, features: int, seed: int = 0) -> Flow:
        """Return a freshly initialized nflows flow; the global random state is left as it was.

        Parameters
        ----------
        features : int
            Dimension of the density.
        seed : int
            Seed of the initialization.
        """
        with _BUILDING, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU's alone: torch.manual_seed would reach the GPU's too
            steps = []
            for _ in range(self.n_transforms):
                steps += [
                    Permutation(self.order(features)),
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
        self.order = spec.order(features)
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

    def identity(self, theta: Tensor) -> Tensor:
        """Return ``theta`` (K, n_parameters) with last layers that make every transform the identity.

        Raises
        ------
        ValueError
            If the permutations do not add up to the original order.
        """
        order = torch.arange(self.features)
        for _ in range(self.spec.n_transforms):
            order = order[self.order]
        if not torch.equal(order, torch.arange(self.features)):
            raise ValueError(f"n_transforms must bring the features back to their order, for example be even; "
                             f"got {self.spec.n_transforms}")
        arrays = self.unpack(theta.clone())
        for name in arrays:
            if "final_layer" in name:
                arrays[name] = torch.zeros_like(arrays[name])
                if name.endswith("bias"):  # softplus of it and the floor make a scale of one
                    arrays[name][:, ::2] = math.log(math.expm1(1 - _SCALE_FLOOR))
        return self.pack(arrays)

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

    def transform(self, networks: list, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the flows map ``y`` (K, features, n) to, and the log of the Jacobian's determinant (K, n)."""
        log_scale = torch.zeros(())
        for network in networks:
            y = y.index_select(1, self.order.to(y.device))
            scale, shift = self._conditioner(network, y)
            y = scale * y + shift
            log_scale = log_scale + torch.log(scale).sum(1)
        return y, log_scale

    def log_prob(self, networks: list, y: Tensor) -> Tensor:
        """Return the log density (K, n) at ``y`` (K, features, n) in standardized coordinates."""
        z, log_scale = self.transform(networks, y)
        return log_scale - 0.5 * (z * z).sum(1) - 0.5 * self.features * math.log(2 * math.pi)

    def inverse(self, networks: list, z: Tensor) -> Tensor:
        """Return the ``y`` (K, features, n) that the flows map to ``z`` (K, features, n)."""
        for network in reversed(networks):
            y = torch.zeros_like(z)
            for i in range(self.features):
                scale, shift = self._conditioner(network, y)
                y = torch.cat([y[:, :i], ((z - shift) / scale)[:, i : i + 1], y[:, i + 1 :]], dim=1)
            z = y.index_select(1, self.order.argsort().to(y.device))
        return z
