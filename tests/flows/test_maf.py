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


def build(shape, activation):
    """A layout, the parameters of two flows, and the same two as nflows modules."""
    spec, features = da.FlowSpec(*shape[:3], activation=activation), shape[3]
    layout = spec.layout(features)
    theta = layout.initial([1, 2]).double()
    theta = theta + 0.1 * torch.from_numpy(np.random.default_rng(0).standard_normal(theta.shape))
    flows = [spec.build(features).double().eval() for _ in range(2)]
    for k, flow in enumerate(flows):
        flow.load_state_dict({n: a[k] for n, a in layout.unpack(theta).items()}, strict=False)
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


def test_initialization_is_that_of_nflows_and_pack_undoes_unpack(layout):
    theta, flow = layout.initial([4, 5, 4]), layout.spec.build(3, seed=4)
    assert torch.equal(theta[0], theta[2])
    assert (theta[0] != theta[1]).any()
    arrays = layout.unpack(theta)
    assert all(torch.equal(a[0], p) for a, p in zip(arrays.values(), flow.parameters(), strict=True))
    assert layout.n_parameters == sum(p.numel() for p in flow.parameters())
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


def test_identity_flows_do_nothing_and_masked_weights_do_not_matter(layout):
    theta, y = layout.initial([0, 1]), torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0))
    z, log_scale = layout.transform(layout.networks(layout.identity(theta)), y)
    torch.testing.assert_close(z, y)
    assert log_scale.abs().max() < 1e-5
    assert (layout.transform(layout.networks(theta), y)[0] - y).abs().max() > 1e-2  # negative control
    masked = torch.where(layout.mask.bool(), theta, theta + 100)
    assert torch.equal(*(layout.log_prob(layout.networks(t), y) for t in (theta, masked)))
    assert not layout.mask.all()


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
