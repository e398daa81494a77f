"""Coordinates of a local volume: opened walls, no edge for the flow, and exact where a centre is not known."""

import warnings

import numpy as np
import pytest
import torch
from scipy import stats

import dfaccel as da
from dfaccel.coordinates import Local, Mirrored, coordinate_map, map_from_dict

RNG = np.random.default_rng(1)
N = 20_000
MOTION = RNG.normal(size=(3, 3))
EVEN = MOTION * [[1, 1, 0], [1, 1, 0], [0, 0, 1]]  # also in z


def volume(box, n=N, seed=2, motion=EVEN):
    """Stars that fill a ball or a box evenly, streaming."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, 3)) * [1, 2, 0.5] if box else da.directions(n, rng) * rng.random((n, 1)) ** (1 / 3)
    return np.hstack([x + np.array([8, 1, 0]), rng.normal([5, 5, 0], 1, (n, 3)) + x @ motion])


@pytest.mark.parametrize("name", ["local", "mirrored"])
@pytest.mark.parametrize("box", [False, True])
def test_a_ball_and_a_box_are_told_apart_and_opened(box, name):
    w = volume(box)
    found = coordinate_map(w, name)
    assert found.box == box
    np.testing.assert_allclose(found.middle, [8, 1, 0], atol=0.02)
    np.testing.assert_allclose(found.walls, [1, 2, 0.5] if box else [1, 1, 1], rtol=0.03)
    y, _ = found.forward(torch.from_numpy(w))
    assert torch.isfinite(y).all()
    back = found.inverse(y, np.random.default_rng(0)).numpy()
    np.testing.assert_allclose(back, w, atol=1e-9)
    again = map_from_dict(found.to_dict())
    assert again == found
    if box:  # evenly filled means Gaussian; 5 sigma of the Kolmogorov-Smirnov statistic
        for column in y[:, :3].T:
            assert stats.kstest(column.numpy(), "norm").pvalue > 5.7e-7
    # a mean motion that is linear in place is taken off
    assert np.abs(np.polyfit(w[:, 0], y[:, 3].numpy(), 1)[0]) < 5 / np.sqrt(N) / w[:, 0].std()


@pytest.mark.parametrize("kind", [Local, Mirrored])
@pytest.mark.parametrize("box", [False, True])
def test_jacobian(box, kind):
    w = torch.from_numpy(volume(box, 30)[:20])
    found = coordinate_map(volume(box), kind.name)
    for star, value in zip(w, found.forward(w)[1], strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda one: found.forward(one)[0], star)
        assert abs(torch.linalg.slogdet(jacobian).logabsdet - value) < 1e-9


def test_beyond_the_walls_f_vanishes_and_nothing_is_supported():
    w = volume(False, 5000)
    model = da.fit(w, spec=da.FlowSpec(2, 8), config=da.TrainConfig(1, 500), coordinates="local", rng=0)
    inside = model.sample(2000, rng=1)
    assert (np.linalg.norm(inside[:, :3] - model.coordinates.middle, axis=1) <= model.coordinates.walls[0]).all()
    out = inside[:5] + np.array([3, 0, 0, 0, 0, 0])
    assert np.isneginf(model.log_df(out)).all()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = da.accelerations(model, out[:, :3], n_velocities=20)
    assert "training stars are too few" in str(caught[0].message)
    assert not found.supported.any()
    assert np.isnan(found.value).all()
    assert da.accelerations(model, [[8.0, 1, 0]], n_velocities=20).supported.all()


def test_the_mirror_is_exact():
    model = da.fit(volume(False, 5000), spec=da.FlowSpec(2, 8), config=da.TrainConfig(1, 500),
                   coordinates="mirrored", rng=0)
    w, mirror = model.sample(50, rng=1), [1, 1, -1, 1, 1, -1]
    np.testing.assert_allclose(model.log_df(w), model.log_df(w * mirror), rtol=1e-5)
    free = da.fit(volume(False, 5000), spec=da.FlowSpec(2, 8), config=da.TrainConfig(1, 500), coordinates="local",
                  rng=0)
    assert np.abs(free.log_df(w) - free.log_df(w * mirror)).max() > 0.01  # negative control
