"""Muon for hidden matrices: PyTorch's numbers, member by member, masks kept; and it earns its place."""

import numpy as np
import pytest
import torch

import dfaccel as da
from dfaccel.flows.muon import Optimizer, orthogonalized

LAYOUT = da.FlowSpec(2, 16).layout(6)


def steps(optimizer, gradients):
    """Take a step for each gradient and return the parameters."""
    for gradient in gradients:
        optimizer.theta.grad = gradient.clone()
        optimizer.step(1.0)
    return optimizer.theta.detach().clone()


def optimizer(layout, matrix_rate=0.02):
    """The optimizer of two fresh flows."""
    return Optimizer(layout, layout.initial([1, 2]).requires_grad_(), 1e-3, matrix_rate)


def random_gradients(layout, n):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, layout.n_parameters, generator=generator) * layout.mask for _ in range(n)]


def test_orthogonalized_keeps_singular_vectors_and_levels_their_values():
    generator = torch.Generator().manual_seed(1)
    u, _, v = torch.linalg.svd(torch.randn(5, 24, 24, generator=generator, dtype=torch.float64))
    inside = u.mT @ orthogonalized(u * torch.logspace(0, -1, 24, dtype=torch.float64) @ v) @ v.mT
    diagonal = torch.diagonal(inside, dim1=-2, dim2=-1)
    assert (inside - torch.diag_embed(diagonal)).abs().max() < 1e-10
    assert diagonal.min() > 0.6
    assert diagonal.max() < 1.3
    assert not orthogonalized(torch.zeros(2, 3, 3)).any()


@pytest.mark.parametrize("n_steps", [1, 3])
def test_steps_are_those_of_pytorch(n_steps):
    """Which works in half precision, hence the tolerance; a member of the batch steps as it would alone."""
    gradients, before = random_gradients(LAYOUT, n_steps), LAYOUT.initial([1, 2])
    moved = steps(optimizer(LAYOUT), gradients) - before
    name = next(n for n, shape in LAYOUT.shapes.items() if shape == (16, 16))
    start, mask, ours = (LAYOUT.unpack(part)[name] for part in (before, LAYOUT.mask[None], moved))
    for k in range(2):
        matrix = start[k].clone().requires_grad_()
        muon = torch.optim.Muon([matrix], lr=0.02, weight_decay=0.0)
        for gradient in gradients:
            matrix.grad = LAYOUT.unpack(gradient)[name][k].clone()
            muon.step()
        theirs = (matrix.detach() - start[k]) * mask[0]
        assert (ours[k] - theirs).norm() < 0.03 * theirs.norm()
    assert (ours[0] - ours[1]).abs().max() > 1e-3


@pytest.mark.parametrize("hidden", [6, 12, 16])
def test_the_rest_is_adams_and_masked_weights_stay(hidden):
    """The matrices of the first and last layers too, which have the shape of hidden ones for 6 and 12 features."""
    layout = da.FlowSpec(2, hidden).layout(6)
    gradients, before, alone = random_gradients(layout, 3), layout.initial([1, 2]), optimizer(layout, 0.0)
    after, plain = steps(optimizer(layout), gradients), steps(alone, gradients)
    assert alone.momentum is None
    for name, array in layout.unpack(after).items():
        between = "linear_layers" in name and name.endswith("weight")
        assert torch.equal(array, layout.unpack(plain)[name]) != between, name
    assert torch.equal(after[:, layout.mask == 0], before[:, layout.mask == 0])
    adam = torch.optim.Adam([before.requires_grad_()], lr=1e-3)
    for gradient in gradients:
        before.grad = gradient.clone()
        adam.step()
    torch.testing.assert_close(plain, before.detach())


def test_state_restores_to_the_same_steps():
    gradients, first = random_gradients(LAYOUT, 5), optimizer(LAYOUT)
    theta = steps(first, gradients[:2]).requires_grad_()
    other = Optimizer(LAYOUT, theta, 1e-3, 0.02)
    other.restore({name: tensor.clone() for name, tensor in first.state().items()})
    assert torch.equal(steps(other, gradients[2:]), steps(optimizer(LAYOUT), gradients))


@pytest.mark.slow
def test_muon_learns_faster_than_adam():
    """The reason it is there, and the negative control of the sign of its steps."""
    stars, losses = da.Plummer().sample(20_000, rng=0), {}
    for rate in (0.02, 0.0):
        config = da.TrainConfig(n_epochs=2, batch_size=200, matrix_rate=rate)
        model = da.fit(stars, n_flows=2, spec=da.FlowSpec(4, 32), config=config, rng=1)
        losses[rate] = np.mean(model.metadata["held_out_loss"])
    assert losses[0.02] < losses[0.0] - 0.01
