"""Designs of studies: their groups, their flows, and what cannot be one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms import CompositeTransform, MaskedAffineAutoregressiveTransform, Permutation

import dfaccel as da
from dfaccel.study.design import Design, cyclic

DESIGN = Design(da.Plummer(), fractions=(0.0, 0.1), n_stars=(1000,), n_data=2, config=da.TrainConfig(batch_size=250),
                n_held_out=300, n_test=300, seed=3)


def test_groups_are_in_order_and_complete():
    design = Design(da.Plummer(), n_stars=(10_000, 20_000), n_data=2, n_initializations=4, n_batches=3)
    groups = list(design.groups())
    assert groups[:4] == [(0.0, 10_000, 0, 0), (0.0, 10_000, 0, 1), (0.0, 10_000, 0, 2), (0.0, 10_000, 1, 0)]
    assert (groups[6], groups[30]) == ((1e-4, 10_000, 0, 0), (0.0, 20_000, 0, 0))
    assert len(groups) == len(set(groups)) == design.n_flows / 4 == 5 * 2 * 2 * 3


def test_pairs_say_what_is_learned_from_what():
    design = replace(DESIGN, n_data=5, n_initializations=5, pairs=cyclic(5, 2), n_batches=3)
    assert [design.partners(d) for d in range(5)] == [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)]
    assert design.n_flows == len(list(design.groups())) * 2 == 2 * 5 * 3 * 2
    assert replace(design, pairs=[*reversed(cyclic(5, 2))]) == design
    assert design.to_dict()["pairs"][4] == [0, 4]


def test_equal_designs_are_equal_however_their_numbers_are_written():
    same = replace(DESIGN, fractions=[0, np.float64(0.1)], n_stars=np.array([1000]), n_data=np.int64(2),
                   seed=np.int64(3))
    assert same == DESIGN
    assert same.to_dict() == DESIGN.to_dict()
    clocks = replace(DESIGN, config=replace(DESIGN.config, checkpoint_seconds=1.0, held_out=0.3))
    assert clocks.to_dict() == DESIGN.to_dict()  # neither changes the result
    assert Design(da.Plummer(mass=1234567.8)).to_dict() != Design(da.Plummer(mass=1234567.9)).to_dict()


def test_streams_of_randomness_are_apart():
    """Whatever their names and keys, no two begin alike."""
    keys = ((), (0,), (0, 0), (0, 0, 1), (1,))
    assert len({DESIGN.rng(stream, *key).integers(2**63) for stream in range(5) for key in keys}) == 25


def test_the_published_structure():
    """Six rows back by one before each transform: the last feature first, in nflows' own words."""
    spec, steps = replace(Design(da.Plummer()).spec, n_transforms=3, hidden_features=8), []
    torch.manual_seed(5)
    for _ in range(3):
        steps += [Permutation(torch.tensor([5, 0, 1, 2, 3, 4])),
                  MaskedAffineAutoregressiveTransform(6, 8, num_blocks=2, activation=torch.nn.functional.gelu)]
    peer, layout = Flow(CompositeTransform(steps), StandardNormal([6])), spec.layout(6)
    theta, y = layout.initial([5]), torch.randn(50, 6)
    assert torch.equal(theta[0], torch.cat([p.detach().reshape(-1) for p in peer.parameters()]))
    ours = layout.log_prob(layout.networks(theta), y.T[None])[0]
    torch.testing.assert_close(ours, peer.log_prob(y).detach(), rtol=1e-5, atol=1e-5)
    reverse = replace(spec, permutation="reverse").layout(6)
    assert (reverse.log_prob(reverse.networks(theta), y.T[None])[0] - ours).abs().max() > 1e-3  # negative control


@pytest.mark.parametrize(("change", "error", "message"), [
    *(({name: n}, TypeError if n in (1.5, None) else ValueError, f"{name} must be a positive integer; got {n}")
      for name, n in {"n_data": 0, "n_initializations": 1.5, "n_batches": -1, "n_held_out": 0, "n_test": None}.items()),
    ({"fractions": (0.1, 0.1)}, ValueError, r"fractions must differ from one another; got \(0.1, 0.1\)"),
    ({"fractions": 0.1}, TypeError, r"fractions must be a tuple of numbers; got 0\.1"),
    ({"n_stars": (1000, 1000)}, ValueError, "n_stars must differ"),
    *(({key: ()}, ValueError, "fractions and n_stars must name at least one cell") for key in ("fractions", "n_stars")),
    ({"fractions": (1.1,)}, ValueError, "fraction must be at most 1; got 1.1"),
    ({"fractions": ("many",)}, TypeError, "fraction must be zero or a positive number; got 'many'"),
    ({"n_stars": (1e3,)}, TypeError, "n_stars must be a positive integer; got 1000.0"),
    ({"n_stars": (249,)}, ValueError, "n_stars must be at least one batch of 250; got 249"),
    ({"fractions": (5e-4,)}, ValueError, "n_stars is too small: n must be at least 2000 for a fraction of 0.0005"),
    ({"fractions": (1e-3,)}, ValueError, r"n_held_out \+ n_test is too small: n must be at least 1000.*got 600"),
    ({"radii": (0.0,)}, ValueError, "radii must be a positive finite number; got 0"),
    ({"radii": (1, 1.0)}, ValueError, "radii must differ"),
    ({"radii": (1.0, 1.0000001)}, ValueError, "radii must differ in their first six digits"),
    ({"coordinates": "round"}, ValueError, "radial, linear, flat, bisymmetric, local, mirrored; got 'round'"),
    *(({"seed": seed}, ValueError, f"seed must be an integer, zero or positive; got {seed}") for seed in (-1, None)),
    ({"stream": da.Stream(speed=3.0)}, ValueError, "the stream is not bound"),
    ({"system": object()}, TypeError, "hashable and have a repr that says all about it, .*; got a object"),
    ({"system": []}, TypeError, "system must be hashable .*; got a list"),
    ({"pairs": ((0, 0), (0, 1), (1, 1)), "n_initializations": 3}, ValueError, r"none of initializations \[2\]"),
    ({"pairs": ((1, 0), (1, 1)), "n_initializations": 2}, ValueError, r"pairs must have .* none of draws \[0\]"),
    ({"pairs": ((0, 0), (1, 1), (2, 0), (2, 2)), "n_data": 3, "n_initializations": 3}, ValueError,
     r"pairs must connect all .* into 2 blocks, the first with draws \[0, 2\]"),
    ({"pairs": ((0, 8), (1, 1))}, ValueError, r"pairs must lie below \(2, 8\); got \(0, 8\)"),
    ({"pairs": (*cyclic(2, 2), (0, 0)), "n_initializations": 2}, ValueError, "pairs must differ .*; 1 are repeated"),
    *(({"pairs": pairs}, ValueError, "pairs must be pairs of integers") for pairs in ((0, 1), ((0.5, 1.0),), "ab")),
])
def test_bad_designs(change, error, message):
    with pytest.raises(error, match=message):
        replace(DESIGN, **change)


@pytest.mark.parametrize(("levels", "partners", "message"), [
    (3, 4, "n_partners must be at most n_levels, 3; got 4"), (0, 1, "n_levels must be a positive integer; got 0")
])
def test_bad_circles(levels, partners, message):
    with pytest.raises(ValueError, match=message):
        cyclic(levels, partners)
