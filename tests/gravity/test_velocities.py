"""Velocities at a point: those of its stars, as many as asked for; and what may stand for a distribution function."""

import math

import numpy as np
import pytest
import torch

import dfaccel as da
from dfaccel.flows import ensemble as module
from dfaccel.gravity.velocities import VelocitySource

PLUMMER = da.Plummer()


def test_velocities_borrowed_are_those_of_the_place():
    """Velocity dispersion of the drawn velocities against the Jeans one: 5 sigma for 4,000 draws, 3 % for the width."""
    system, source = PLUMMER, VelocitySource(PLUMMER, np.random.default_rng(0))
    for r in (0.3, 1.0, 3.0):
        v = source(np.array([[0, r, 0.0]]), 4000)[0]
        expected = system.velocity_dispersion(np.array(r))
        np.testing.assert_allclose(v.std(axis=0), expected, rtol=5 / math.sqrt(2 * 4000) + 0.03)
        assert np.abs(v.mean(axis=0)).max() < 5 * expected / math.sqrt(4000)
    assert abs(v.std() / system.velocity_dispersion(np.array(0.3)) - 1) > 0.2  # negative control: another place


@pytest.mark.parametrize("coordinates", ["radial", "axisymmetric", "spherical"])
def test_number_of_stars_nearby_is_estimated(coordinates, places):
    """The 8th neighbour among 20,000 reference stars against a count of all 50,000 in a ball: 5 sigma of both."""
    stars = PLUMMER.sample(50_000, rng=0)
    config = da.TrainConfig(n_epochs=1, batch_size=1000)
    model = da.fit(stars, spec=da.FlowSpec(1, 4), config=config, coordinates=coordinates, rng=0)
    points = places(40)
    points *= (np.geomspace(0.3, 3, 40) / np.linalg.norm(points, axis=1))[:, None]
    y = model.coordinates.forward(torch.from_numpy(stars))[0][:, : model.coordinates.n_positions].numpy()
    where = model.coordinates.position_coordinates(torch.from_numpy(points)).numpy()
    reach = 0.1  # a ball small enough to have one density
    counted = np.array([(np.linalg.norm(y - place, axis=1) < reach).sum() for place in where])
    enough = counted >= 25
    assert enough.sum() >= 5
    ratio = np.log(model.stars_near(points) * (reach / module._REACH) ** y.shape[1] / counted)[enough]
    sigma = np.sqrt(1 / 8 + 1 / counted[enough])
    assert (np.abs(ratio) < 5 * sigma).all()
    bias = 5 * math.sqrt((sigma**2).mean() / enough.sum()) + 1 / 16  # ln of a gamma of 8 is 1/16 below that of its mean
    assert abs(ratio.mean()) < bias
    assert abs(ratio.mean() + math.log(3)) > bias  # negative control: off by a factor of three


# ---- what accelerations make of them ----


def off(result, points, system=PLUMMER, mass=1.0):
    """Errors relative to what is true of a system, or would be if it had that many times the mass."""
    return result.error(mass * system.acceleration(points))


@pytest.mark.parametrize("given", [False, True], ids=["drawn", "given"])
def test_exact_df_gives_the_exact_answer(system, shifted, given, places, bound_velocities):
    points = places(100, scale=system.scale)
    options = {"velocities": bound_velocities(system, points)} if given else {"n_velocities": 300}
    result = da.accelerations(shifted(system), points, rng=2, **options)
    assert off(result, points, system).max() <= 1e-8
    assert result.supported.all()
    np.testing.assert_array_equal(result.members, result.value[None])
    assert result.residual.max() < 1e-8
    assert np.isnan(result.covariance).all()
    assert off(result, points, system, mass=1.1).min() > 1e-3  # negative control


def test_truncated_stars_weigh_all_of_the_mass_and_none_beyond_the_last(places, shifted):
    """Where f vanishes there is no answer; the other points keep theirs."""
    points = np.concatenate([places(20, r_max=9), [[0, 20.0, 0]]])
    result = da.accelerations(shifted(da.Hernquist(r_max=10.0)), points, n_velocities=100, warn=False)
    assert off(result, points, da.Hernquist())[:-1].max() <= 1e-8
    assert np.isnan(result.value[-1]).all()


def test_points_outside_the_training_volume_are_flagged(learned):
    points = np.array([[1.0, 0, 0], [0, 3e4, 0], [0, 0, 1e-7]])
    with pytest.warns(UserWarning, match=r"2 of 3 points lie where training stars are too few \(see .supported\).*1$"):
        result = da.accelerations(learned, points)
    assert result.supported.tolist() == [True, False, False]
    assert np.isfinite(result.value).all()
    silent = da.accelerations(learned, points, warn=False)  # warnings are errors in these tests
    np.testing.assert_array_equal(silent.value, result.value)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_velocities_beyond_escape_are_no_equations(share, places, bound_velocities):
    """Where f = 0 there is nothing to learn, and such velocities do not spoil the others."""
    points = places(15)
    velocities = bound_velocities(PLUMMER, points, n=200)
    velocities[:, : int(200 * share)] *= 30
    assert off(da.accelerations(PLUMMER, points, velocities=velocities), points).max() <= 1e-8


def test_a_member_alone_gives_its_own_result(learned, places, bound_velocities):
    """With the velocities given, so that nothing else differs."""
    points = places(4, r_min=0.5, r_max=3)
    velocities = bound_velocities(PLUMMER, points)
    together = da.accelerations(learned, points, velocities=velocities)
    for k in range(3):
        alone = da.accelerations(learned.member(k), points, velocities=velocities)
        np.testing.assert_allclose(alone.value, together.members[k], rtol=2e-3, atol=2e-4)
        np.testing.assert_array_equal(alone.value, alone.members[0])


def test_points_do_not_depend_on_their_company(monkeypatch, places, bound_velocities):
    """Many points are solved in several batches; each has the answer it has alone."""
    points = places(20)
    velocities = bound_velocities(PLUMMER, points)
    together = da.accelerations(PLUMMER, points, velocities=velocities).value
    monkeypatch.setattr("dfaccel.gravity.velocities._CHUNK", 200)
    apart = da.accelerations(PLUMMER, points, velocities=velocities).value
    np.testing.assert_allclose(apart, together, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"points": [[1.0, 2]]}, ValueError, r"points must have shape \(m, 3\), m >= 1; got \(1, 2\)"),
    ({"points": [1.0, 2, 3]}, ValueError, r"points must have shape \(m, 3\).*got \(3,\)"),
    ({"points": np.ones((0, 3))}, ValueError, r"points must have shape \(m, 3\), m >= 1; got \(0, 3\)"),
    ({"points": [[1.0, 2, 3], [np.nan, 0, 0]]}, ValueError, "points has 1 non-finite row, first at index 1"),
    ({"n_velocities": 0}, ValueError, "n_velocities must be a positive integer; got 0"),
    ({"n_velocities": 2}, ValueError, "n_velocities must lie between 3 and 100000; got 2"),
    ({"n_velocities": 10**6}, ValueError, "n_velocities must lie between 3 and 100000; got 1000000"),
    ({"n_velocities": 1e3}, TypeError, "n_velocities must be a positive integer; got 1000.0"),
    ({"velocities": np.ones((2, 5, 3))}, ValueError, r"velocities must have shape \(1, V, 3\)"),
    ({"velocities": np.ones((1, 2, 3))}, ValueError, r"V >= 3; got \(1, 2, 3\)"),
    ({"velocities": np.full((1, 9, 3), np.inf)}, ValueError, "velocities has 27 non-finite values; remove them"),
    ({"huber": 0}, ValueError, "huber must be a positive finite number; got 0"),
])
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        da.accelerations(PLUMMER, **{"points": [[1.0, 2, 3]], **options})


class Barren(da.DistributionFunction):
    """A density without stars."""

    def log_df(self, w):
        return PLUMMER.log_df(w)


LONELY = type("Lonely", (), {"log_df": da.Plummer.log_df, "sample": da.Plummer.sample})  # inherits from nothing
SILENT = type("Silent", (da.DistributionFunction,), {"sample": da.Plummer.sample})


@pytest.mark.parametrize("df", [LONELY(), SILENT(), Barren(), da.Disc(), da.Plummer, None])
def test_what_is_no_distribution_function(df):
    with pytest.raises(TypeError, match=r"df must inherit from dfaccel\.DistributionFunction and have log_df and"):
        da.accelerations(df, np.eye(3))


def test_velocities_of_ones_own_need_no_stars(bound_velocities):
    point = np.array([[1.0, 2, 3]])
    velocities = bound_velocities(PLUMMER, point)
    found = da.accelerations(Barren(), point, velocities=velocities)
    assert found.error(PLUMMER.acceleration(point)) < 1e-8
