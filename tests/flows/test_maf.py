"""The architecture: the same numbers as nflows, arrays by name, and nothing from what is masked."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import dfaccel as da
from dfaccel.flows.maf import ACTIVATIONS

SHAPES = [(1, 4, 1, 3), (3, 8, 2, 5), (5, 16, 1, 6), (2, 33, 3, 2)]


@pytest.fixture
def layout():
    """A small flow in three dimensions."""
    return da.FlowSpec(2, 8).layout(3)


def build(shape, activation, dtype=torch.float64):
    """A layout, the parameters of two flows, and the same two as nflows modules."""
    n_transforms, hidden, blocks, features = shape
    spec = da.FlowSpec(n_transforms, hidden, n_blocks=blocks, activation=activation)
    layout = spec.layout(features)
    theta = layout.initial([1, 2]).to(dtype)
    theta = theta + 0.1 * torch.from_numpy(np.random.default_rng(0).standard_normal(theta.shape)).to(dtype)
    flows = []
    for k in range(2):
        flow = spec.build(features).to(dtype)
        flow.load_state_dict({n: a[k] for n, a in layout.unpack(theta).items()}, strict=False)
        flows.append(flow.eval())
    return layout, theta, flows


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_density_and_inverse_are_those_of_nflows(shape, activation):
    layout, theta, flows = build(shape, activation)
    networks = layout.networks(theta)
    y = torch.from_numpy(np.random.default_rng(1).normal(0, 1.5, (2, 50, shape[-1])))
    with torch.no_grad():
        log_prob = layout.log_prob(networks, y.mT)
        inverse = layout.inverse(networks, y.mT).mT
        for k, flow in enumerate(flows):
            torch.testing.assert_close(log_prob[k], flow.log_prob(y[k]), rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(inverse[k], flow._transform.inverse(y[k])[0], rtol=1e-9, atol=1e-9)
            other = flows[1 - k].log_prob(y[k])  # negative control: the other flow is another density
            assert (log_prob[k] - other).abs().max() > 1e-2
    single = layout.log_prob(layout.networks(theta.float()), y.mT.float())
    assert (single - log_prob).abs().max() <= 1e-5 * max(1, log_prob.abs().max())


def test_initialization_is_that_of_nflows_and_differs_by_seed(layout):
    theta = layout.initial([4, 5, 4])
    assert torch.equal(theta[0], theta[2])
    assert (theta[0] != theta[1]).any()
    flow = layout.spec.build(3, seed=4)
    assert all(torch.equal(a[0], p) for a, p in zip(layout.unpack(theta).values(), flow.parameters(), strict=True))
    assert layout.n_parameters == sum(p.numel() for p in flow.parameters())


def test_pack_undoes_unpack_and_refuses_what_does_not_fit(layout):
    theta = layout.initial([0, 1, 2])
    arrays = layout.unpack(theta)
    assert torch.equal(layout.pack(dict(reversed(arrays.items()))), theta)
    first = next(iter(arrays))
    with pytest.raises(ValueError, match="arrays do not fit the flow specification: 1 names differ, first"):
        layout.pack({n: a for n, a in arrays.items() if n != first})
    with pytest.raises(ValueError, match=r"must have shape \(K, 8, 3\)|must have shape \(K, 8\)"):
        layout.pack(arrays | {first: arrays[first][:, :-1]})


@pytest.mark.parametrize("hidden", [5, 6, 12, 16])
def test_hidden_matrices_are_those_between_hidden_layers(hidden):
    """Also where the first or the last layer's matrix has their shape, for 6 and 12 hidden features in 6 dimensions."""
    layout = da.FlowSpec(3, hidden, n_blocks=2).layout(6)
    assert layout.hidden.shape == (3 * 4, hidden, hidden)
    numbers = torch.arange(layout.n_parameters)[None]
    inside = {n: a[0] for n, a in layout.unpack(numbers).items() if "linear_layers" in n and n.endswith("weight")}
    assert torch.equal(layout.hidden, torch.stack(list(inside.values())))


def test_identity_flows_do_nothing(layout):
    theta = layout.identity(layout.initial([0, 1]))
    y = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0))
    z, log_scale = layout.transform(layout.networks(theta), y)
    torch.testing.assert_close(z, y)
    assert log_scale.abs().max() < 1e-5
    assert (layout.transform(layout.networks(layout.initial([0, 1])), y)[0] - y).abs().max() > 1e-2  # negative control


def test_masked_weights_do_not_matter():
    layout = da.FlowSpec(2, 8).layout(4)
    theta = layout.initial([0])
    y = torch.randn(1, 4, 20, generator=torch.Generator().manual_seed(0))
    value = layout.log_prob(layout.networks(theta), y)
    masked = torch.where(layout.mask.bool(), theta, theta + 100)
    assert torch.equal(layout.log_prob(layout.networks(masked), y), value)
    assert not layout.mask.all()


@pytest.mark.parametrize(
    ("name", "value", "must"),
    [("n_transforms", 0, "a positive integer"), ("hidden_features", -1, "a positive integer"),
     ("n_blocks", 0, "a positive integer"), ("activation", "sine", "one of gelu.*"),
     ("permutation", "swap", "reverse or rotate")],
)
def test_bad_specification(name, value, must):
    with pytest.raises(ValueError, match=f"{name} must be {must}; got {value!r}"):
        da.FlowSpec(**{name: value})


class Gaussian:
    """An architecture with no more than what the module's docstring asks for: z = exp(a) y + b, and a spare matrix."""

    def __init__(self, features):
        self.n_parameters, self.features = 2 * features + 4, features
        self.mask = torch.ones(self.n_parameters)
        self.hidden = torch.arange(2 * features, self.n_parameters).reshape(1, 2, 2)

    def initial(self, seeds):
        return torch.tensor(seeds)[:, None] % 97 / 97 * torch.ones(self.n_parameters)

    def networks(self, theta):
        return [part[..., None] for part in theta.split([self.features, self.features, 4], dim=1)]

    def log_prob(self, networks, y):
        a, b, spare = networks
        z = a.exp() * y + b
        return a.sum(1) - 0.5 * (z**2 + np.log(2 * np.pi)).sum(1) - (spare**2).sum(1)

    def inverse(self, networks, z):
        return (z - networks[1]) / networks[0].exp()


@dataclass(frozen=True)
class GaussianSpec:
    """Its specification."""

    def layout(self, features):
        return Gaussian(features)


def test_another_architecture_is_trained_and_evaluated():
    """The maximum-likelihood Gaussian has z of mean 0 and variance 1 for every standardized coordinate: a = b = 0."""
    w, config = da.Plummer().sample(5000, rng=0), da.TrainConfig(8, 100, learning_rate=0.05)
    model = da.fit(w, n_flows=2, spec=GaussianSpec(), config=config, coordinates="spherical", rng=0)
    assert model.theta[:, :6].abs().max() < 0.1
    assert np.isfinite(model.score(model.sample(100, rng=1))).all()
