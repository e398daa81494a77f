"""Muon for hidden matrices: PyTorch's numbers, member by member, masks kept; and it earns its place."""

import numpy as np
import pytest
import torch

import dfaccel as da
from dfaccel.flows.muon import Optimizer, orthogonalized


@pytest.fixture
def layout():
    """A small flow in six dimensions."""
    return da.FlowSpec(2, 16).layout(6)


def stepped(layout, gradients, learning_rate=1e-3, matrix_rate=0.02):
    """Parameters before and after a step for each gradient."""
    theta = layout.initial([1, 2]).requires_grad_()
    before = theta.detach().clone()
    optimizer = Optimizer(layout, theta, learning_rate, matrix_rate)
    for gradient in gradients:
        theta.grad = gradient.clone()
        optimizer.step(1.0)
    return before, theta.detach(), optimizer


def random_gradients(layout, n):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, layout.n_parameters, generator=generator) * layout.mask for _ in range(n)]


def test_orthogonalized_keeps_singular_vectors_and_levels_their_values():
    generator = torch.Generator().manual_seed(1)
    u, _, v = torch.linalg.svd(torch.randn(5, 24, 24, generator=generator, dtype=torch.float64))
    values = torch.logspace(0, -1, 24, dtype=torch.float64)
    result = orthogonalized(u * values @ v)
    inside = u.mT @ result @ v.mT
    diagonal = torch.diagonal(inside, dim1=-2, dim2=-1)
    assert (inside - torch.diag_embed(diagonal)).abs().max() < 1e-10
    assert diagonal.min() > 0.6
    assert diagonal.max() < 1.3
    assert not orthogonalized(torch.zeros(2, 3, 3)).any()


@pytest.mark.parametrize("n_steps", [1, 3])
def test_steps_are_those_of_pytorch(layout, n_steps):
    """Which works in half precision, hence the tolerance; a member of the batch steps as it would alone."""
    gradients = random_gradients(layout, n_steps)
    before, after, _ = stepped(layout, gradients)
    name = next(n for n, shape in layout.shapes.items() if shape == (16, 16))
    mask = layout.unpack(layout.mask[None])[name][0]
    for k in range(2):
        matrix = layout.unpack(before)[name][k].clone().requires_grad_()
        muon = torch.optim.Muon([matrix], lr=0.02, weight_decay=0.0)
        for gradient in gradients:
            matrix.grad = layout.unpack(gradient)[name][k].clone()
            muon.step()
        ours = layout.unpack(after)[name][k] - layout.unpack(before)[name][k]
        theirs = (matrix.detach() - layout.unpack(before)[name][k]) * mask
        assert (ours - theirs).norm() < 0.03 * theirs.norm()
    assert (layout.unpack(after - before)[name][0] - layout.unpack(after - before)[name][1]).abs().max() > 1e-3


@pytest.mark.parametrize("hidden", [6, 12, 16])
def test_the_rest_is_adams_and_masked_weights_stay(hidden):
    """The matrices of the first and last layers too, which have the shape of hidden ones for 6 and 12 features."""
    layout = da.FlowSpec(2, hidden).layout(6)
    gradients = random_gradients(layout, 3)
    before, after, _ = stepped(layout, gradients)
    _, plain, alone = stepped(layout, gradients, matrix_rate=0.0)
    assert alone.momentum is None
    for name, array in layout.unpack(after).items():
        between = "linear_layers" in name and name.endswith("weight")
        assert torch.equal(array, layout.unpack(plain)[name]) != between, name
    masked = layout.mask == 0
    assert torch.equal(after[:, masked], before[:, masked])
    reference = layout.initial([1, 2]).requires_grad_()
    adam = torch.optim.Adam([reference], lr=1e-3)
    for gradient in gradients:
        reference.grad = gradient.clone()
        adam.step()
    torch.testing.assert_close(plain, reference.detach())


def test_state_restores_to_the_same_steps(layout):
    gradients = random_gradients(layout, 5)
    _, unbroken, _ = stepped(layout, gradients)
    _, half, optimizer = stepped(layout, gradients[:2])
    theta = half.clone().requires_grad_()
    other = Optimizer(layout, theta, 1e-3, 0.02)
    other.restore({name: tensor.clone() for name, tensor in optimizer.state().items()})
    for gradient in gradients[2:]:
        theta.grad = gradient.clone()
        other.step(1.0)
    assert torch.equal(theta.detach(), unbroken)


@pytest.mark.slow
def test_muon_learns_faster_than_adam():
    """The reason it is there, and the negative control of the sign of its steps."""
    stars = da.Plummer().sample(20_000, rng=0)
    losses = {}
    for rate in (0.02, 0.0):
        config = da.TrainConfig(n_epochs=2, batch_size=200, matrix_rate=rate)
        model = da.fit(stars, n_flows=2, spec=da.FlowSpec(4, 32), config=config, rng=1)
        losses[rate] = np.mean(model.metadata["held_out_loss"])
    assert losses[0.02] < losses[0.0] - 0.01
