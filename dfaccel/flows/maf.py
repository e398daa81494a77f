"""Masked autoregressive flows (MAF), K of them at a time.

nflows defines the flow: layers, masks, initialization, names of its arrays. Here the parameters of K flows are the
rows of one matrix ``theta``, and batched matrix products give the numbers of nflows (tested), but faster.
A new architecture is one file like this one: a frozen dataclass with ``layout(features)``, and a layout with
``n_parameters``, ``mask``, ``hidden`` and the methods below. `dfaccel.load` must then know both files.
"""

import math
import threading
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms import CompositeTransform, MaskedAffineAutoregressiveTransform, Permutation
from torch import Tensor

from dfaccel import _check as check

ACTIVATIONS = {"gelu": F.gelu, "silu": F.silu, "softplus": F.softplus, "tanh": torch.tanh, "relu": F.relu}
_SCALE_FLOOR = 1e-3  # the constant nflows adds to every scale
_BUILDING = threading.Lock()  # nflows draws from torch's generator, which all threads share


@dataclass(frozen=True)
class FlowSpec:
    """Architecture of one masked autoregressive flow (Papamakarios, Pavlakou & Murray 2017, arXiv:1705.07057).

    Parameters
    ----------
    n_transforms, hidden_features, n_blocks : int
        Number of autoregressive transforms, width of the hidden layers, and residual blocks of two such layers in each.
    activation : {"gelu", "silu", "softplus", "tanh", "relu"}
        Activation: a smooth one, because accelerations need gradients of f. With relu the gradient has steps.
    permutation : {"reverse", "rotate"}
        How the features are reordered before each transform: reversed, or the last becomes the first.

    Raises
    ------
    TypeError, ValueError
        If a size is not a positive integer or a name is unknown.

    Examples
    --------
    >>> FlowSpec(n_transforms=4, hidden_features=16).layout(features=3).n_parameters
    5016
    """

    n_transforms: int = 8
    hidden_features: int = 64
    n_blocks: int = 2
    activation: str = "gelu"
    permutation: str = "reverse"

    def __post_init__(self) -> None:
        for name in ("n_transforms", "hidden_features", "n_blocks"):
            check.count(getattr(self, name), name)
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {self.activation!r}")
        if self.permutation not in ("reverse", "rotate"):
            raise ValueError(f"permutation must be reverse or rotate; got {self.permutation!r}")

    def layout(self, features: int) -> "Layout":
        """Return the layout of the parameters of such flows in ``features`` dimensions."""
        return Layout(self, features)

    def order(self, features: int) -> Tensor:
        """Return the old place (features,) of each feature after the permutation."""
        places = torch.arange(features)
        return places.flip(0) if self.permutation == "reverse" else places.roll(1)

    def build(self, features: int, seed: int = 0) -> Flow:
        """Return a freshly initialized nflows flow and leave the global random state as it was."""
        steps, activation = [], ACTIVATIONS[self.activation]
        with _BUILDING, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # of the CPU only: torch.manual_seed would reach the GPU's too
            for _ in range(self.n_transforms):
                steps += [Permutation(self.order(features)), MaskedAffineAutoregressiveTransform(
                    features, self.hidden_features, num_blocks=self.n_blocks, activation=activation)]
            return Flow(CompositeTransform(steps), StandardNormal([features]))


class Layout:
    """Where each array of a flow is in a row of ``theta``, and how K flows are evaluated; see the module docstring."""

    def __init__(self, spec: FlowSpec, features: int) -> None:
        flow = spec.build(features)
        self.spec, self.features, self.order = spec, features, spec.order(features)
        self.shapes = {name: p.shape for name, p in flow.named_parameters()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.n_parameters = sum(self.sizes)
        buffers = dict(flow.named_buffers())
        masks = [buffers.get(name.replace("weight", "mask"), torch.ones(())) for name in self.shapes]
        # (n_parameters,): which of them matter; (n, h, h): places of the matrices between hidden layers
        self.mask = torch.cat([m.expand(s).reshape(-1) for m, s in zip(masks, self.shapes.values(), strict=True)])
        places = self.unpack(torch.arange(self.n_parameters)[None])
        self.hidden = torch.cat([p for name, p in places.items() if ".blocks." in name and name.endswith(".weight")])

    def initial(self, seeds: list[int]) -> Tensor:
        """Return ``theta`` (K, n_parameters) of freshly initialized flows, one per seed."""
        flows = [self.spec.build(self.features, seed) for seed in seeds]
        return torch.stack([torch.cat([p.detach().reshape(-1) for p in f.parameters()]) for f in flows])

    def identity(self, theta: Tensor) -> Tensor:
        """Return ``theta`` (K, n_parameters) with last layers that make every transform the identity."""
        n, places = self.spec.n_transforms, torch.arange(self.features)
        for _ in range(n):
            places = places[self.order]
        if not torch.equal(places, torch.arange(self.features)):
            raise ValueError(f"n_transforms must bring the features back to their order, for example be even; got {n}")
        theta = theta.clone()
        for name, array in self.unpack(theta).items():
            if "final_layer" in name:
                array.zero_()
                if name.endswith("bias"):  # softplus of it and the floor make a scale of one
                    array[:, ::2] = math.log(math.expm1(1 - _SCALE_FLOOR))
        return theta

    def unpack(self, theta: Tensor) -> dict[str, Tensor]:
        """Return the named arrays (K, ...) that make up ``theta`` (K, n_parameters), as views of it."""
        pieces = theta.split(self.sizes, dim=1)
        return {n: p.unflatten(1, s) for (n, s), p in zip(self.shapes.items(), pieces, strict=True)}

    def pack(self, arrays: dict[str, Tensor]) -> Tensor:
        """Return ``theta`` (K, n_parameters) from named arrays (K, ...); raise ValueError if they do not fit."""
        odd = sorted(set(arrays) ^ set(self.shapes))
        if odd:
            raise ValueError(f"arrays do not fit the flow specification: {len(odd)} names differ, first {odd[0]!r}")
        for name, shape in self.shapes.items():
            if arrays[name].shape[1:] != shape:
                sizes = ", ".join(map(str, shape))
                raise ValueError(f"array {name!r} must have shape (K, {sizes}); got {tuple(arrays[name].shape)}")
        return torch.cat([arrays[name].flatten(1) for name in self.shapes], dim=1)

    def networks(self, theta: Tensor) -> list[list[tuple[Tensor, Tensor]]]:
        """Return each transform's layers, weights (K, out, in) and biases (K, out, 1), in the order of their use."""
        self.mask = self.mask.to(theta.device)
        arrays = iter(self.unpack(theta * self.mask).values())
        layers = [(weight, bias.unsqueeze(-1)) for weight, bias in zip(arrays, arrays, strict=True)]
        n = 2 * self.spec.n_blocks + 2
        return [layers[i : i + n] for i in range(0, len(layers), n)]

    def _conditioner(self, network: list[tuple[Tensor, Tensor]], y: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and shift (K, features, n) of one transform at ``y`` (K, features, n)."""
        activation = ACTIVATIONS[self.spec.activation]
        (weight, bias), *hidden, (weight_out, bias_out) = network
        h = torch.baddbmm(bias, weight, y)
        for (w0, b0), (w1, b1) in zip(hidden[::2], hidden[1::2], strict=True):
            a = activation(torch.baddbmm(b0, w0, activation(h)))
            h = (h + b1).baddbmm_(w1, a)  # one pass over the memory less than adding a product and its bias
        out = torch.baddbmm(bias_out, weight_out, h).unflatten(1, (self.features, 2))
        return F.softplus(out[:, :, 0]) + _SCALE_FLOOR, out[:, :, 1]

    def transform(self, networks: list, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the flows' images of ``y`` (K, features, n), and the log of the Jacobian's determinant (K, n)."""
        log_scale = torch.zeros(())
        for network in networks:
            y = y.index_select(1, self.order.to(y.device))
            scale, shift = self._conditioner(network, y)
            y = scale * y + shift
            log_scale = log_scale + torch.log(scale).sum(1)
        return y, log_scale

    def log_prob(self, networks: list, y: Tensor) -> Tensor:
        """Return the log density (K, n) at standardized coordinates ``y`` (K, features, n)."""
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
