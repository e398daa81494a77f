"""More unknowns: exact distribution functions in, exact numbers out; noise taken off; what is confused is named."""

import warnings

import numpy as np
import pytest
import torch

import dfaccel as da
from dfaccel.gravity import solve as module
from dfaccel.gravity.unknowns import (
    Acceleration,
    Expansion,
    PatternSpeed,
    Selection,
    SmoothAcceleration,
    SmoothSelection,
)
from dfaccel.systems.bar import Bar

OMEGA, H = 0.4, 0.1
POINTS = 0.7 * np.random.default_rng(0).normal(size=(12, 3))
VELOCITIES = 0.3 * np.random.default_rng(1).normal(size=(12, 200, 3))


class Given(da.DistributionFunction):
    """A DF by its formula; its velocities are given, so its sample need not be its own."""

    def sample(self, n, *, rng):
        return np.random.default_rng(rng).normal(size=(n, 6))


class Turning(Given):
    """A function of the Jacobi integral alone: steady in a triaxial potential that turns (Jeans's theorem)."""

    def __init__(self, maxwellian=False):
        self.parts, self.maxwellian = [Bar(mass=0.6, a=0.7, b=0.4, c=0.3), da.MiyamotoNagai(a=0.0, b=1.0)], maxwellian

    def acceleration(self, x):
        return sum(part.acceleration(x) for part in self.parts)

    def log_df(self, w):
        x, v = w[..., :3], w[..., 3:]
        energy = (v * v).sum(-1) / 2 + sum(part.potential(x) for part in self.parts)
        jacobi = energy - OMEGA * (x[..., 0] * v[..., 1] - x[..., 1] * v[..., 0])
        return -jacobi / 0.3 if self.maxwellian else 3.5 * torch.log(1 - jacobi)


class Selected(Given):
    """Another DF of which a share S(x) is seen."""

    def __init__(self, df, log_share):
        self.df, self.log_share = df, log_share

    def log_df(self, w):
        return self.df.log_df(w) + self.log_share(w[..., :3])


class Expanding(Given):
    """F(x, v - H x): at this moment a system that is steady in coordinates which expand."""

    def log_df(self, w):
        return da.Hernquist().log_df(torch.cat([w[..., :3], w[..., 3:] - H * w[..., :3]], dim=-1))


def by_radius(x):
    return -torch.linalg.vector_norm(x, dim=-1) / 2


def flattened(x):
    return -(x[..., 0] ** 2 + x[..., 1] ** 2) / 3 - x[..., 2] ** 2


def off(found, truth):
    return np.abs(found - truth).max() / np.abs(truth).max()


def test_pattern_speed_of_a_turning_galaxy():
    galaxy = Turning()
    found = da.solve(galaxy, POINTS, [Acceleration(), PatternSpeed()], velocities=VELOCITIES)
    assert abs(found["pattern_speed"].value - OMEGA) < 1e-9
    assert off(found["acceleration"].value, galaxy.acceleration(POINTS)) < 1e-9
    assert np.isnan(found["pattern_speed"].standard_error)  # one member has no scatter
    # negative control: who forgets that it turns is wrong
    assert off(da.accelerations(galaxy, POINTS, velocities=VELOCITIES).value, galaxy.acceleration(POINTS)) > 0.02


@pytest.mark.parametrize("galaxy", [da.Plummer(), da.Hernquist(), da.Hernquist(beta=0.5)], ids=repr)
def test_selection_by_place(galaxy):
    found = da.solve(Selected(galaxy, by_radius), POINTS, [Acceleration(), Selection()], velocities=VELOCITIES)
    assert off(found["acceleration"].value, galaxy.acceleration(POINTS)) < 1e-7
    assert off(found["selection"].value, -POINTS / np.linalg.norm(POINTS, axis=1)[:, None] / 2) < 1e-7
    plain = da.accelerations(Selected(galaxy, by_radius), POINTS, velocities=VELOCITIES).value
    assert off(plain, galaxy.acceleration(POINTS)) > 0.01  # negative control


def test_expansion():
    found = da.solve(Expanding(), POINTS, [Acceleration(), Expansion()], velocities=VELOCITIES)
    assert abs(found["expansion"].value - H) < 1e-9
    assert off(found["acceleration"].value, da.Hernquist().acceleration(POINTS) - H**2 * POINTS) < 1e-9


def test_all_together():
    galaxy = Turning()
    unknowns = [Acceleration(), Selection(), PatternSpeed(), Expansion()]
    found = da.solve(Selected(galaxy, flattened), POINTS, unknowns, velocities=VELOCITIES)
    assert list(found.estimates) == ["acceleration", "selection", "pattern_speed", "expansion"]
    assert off(found["acceleration"].value, galaxy.acceleration(POINTS)) < 1e-7
    assert off(found["selection"].value, -2 * POINTS * [1 / 3, 1 / 3, 1]) < 1e-7
    assert abs(found["pattern_speed"].value - OMEGA) < 1e-7
    assert abs(found["expansion"].value) < 1e-7


def test_a_smooth_selection_is_its_own_gradient():
    """ln S that is linear in the position coordinates is held down by nothing, hence exact."""
    galaxy = da.Hernquist()
    smooth = SmoothSelection(POINTS, n_bends=5)

    def log_share(x):
        return smooth._functions(x)[..., :3] @ torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)

    found = da.solve(Selected(galaxy, log_share), POINTS, [Acceleration(), smooth], velocities=VELOCITIES)
    assert off(found["acceleration"].value, galaxy.acceleration(POINTS)) < 1e-6
    parameters = found["selection"].parameters[0]
    shares = smooth.log_share(POINTS, parameters), log_share(torch.from_numpy(POINTS)).numpy()
    np.testing.assert_allclose(shares[0] - shares[0][0], shares[1] - shares[1][0], atol=1e-6)
    step = 1e-5 * np.eye(3)[0]
    slope = (smooth.log_share(POINTS + step, parameters) - smooth.log_share(POINTS - step, parameters)) / 2e-5
    np.testing.assert_allclose(found["selection"].value[:, 0], slope, atol=1e-7)


def test_odd_coordinates_of_a_selection():
    with pytest.raises(ValueError, match=r"coordinates must return .* got Tensor, shape \(12,\)"):
        SmoothSelection(POINTS, lambda x: x[:, 0])
    twice = SmoothSelection(np.tile(POINTS * [1, 1, 0], (2, 1)), lambda x: x)  # a column that is constant; copies
    assert np.isfinite(twice.design(POINTS)).all()


def test_a_maxwellian_cannot_tell_a_selection_from_a_pull():
    seen = Selected(Turning(maxwellian=True), by_radius)
    with pytest.warns(UserWarning, match="acceleration and selection cannot be told apart at 12 of 12 points"):
        found = da.solve(seen, POINTS, [Acceleration(), Selection()], velocities=VELOCITIES)
    assert np.isnan(found["acceleration"].value).all()
    assert np.isnan(found["selection"].members).all()
    assert found.condition.min() > 1e5
    assert len(found.confused) == 1
    with pytest.warns(UserWarning, match="acceleration and selection cannot be told apart at 12 of 12 points"):
        found = da.solve(seen, POINTS, [Acceleration(), SmoothSelection(POINTS, n_bends=5)], velocities=VELOCITIES)
    assert np.isnan(found["acceleration"].value).all()


def test_a_round_galaxy_turns_unseen():
    galaxy = da.Hernquist()
    with pytest.warns(UserWarning, match="pattern_speed leaves no trace in f"):
        found = da.solve(galaxy, POINTS, [Acceleration(), PatternSpeed()], velocities=VELOCITIES)
    assert np.isnan(found["pattern_speed"].value)
    assert off(found["acceleration"].value, galaxy.acceleration(POINTS)) < 1e-9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        da.solve(galaxy, POINTS, [Acceleration(), PatternSpeed()], velocities=VELOCITIES, warn=False)


class Noisy(Turning):
    """Members whose scores are the true ones and noise, independent between members, smooth in nothing."""

    def __init__(self, n_flows, sigma, seed):
        super().__init__()
        self.n_flows, self.sigma, self.seed = n_flows, sigma, seed

    def members_score(self, w):
        log_f, score = super().members_score(w)
        noise = np.random.default_rng(self.seed).normal(size=(self.n_flows, *score.shape[1:]))
        noise *= self.sigma * np.abs(score).mean()
        return np.repeat(log_f, self.n_flows, 0), score + noise


def test_extrapolation_takes_off_what_the_noise_of_members_takes_away():
    """The mixture of four has a quarter of a member's attenuation; after extrapolation there is less, at 5 sigma."""
    rng = np.random.default_rng(2)
    points, velocities = 0.7 * rng.normal(size=(30, 3)), 0.3 * rng.normal(size=(30, 400, 3))
    found, before = [], []
    for seed in range(20):
        df, unknowns = Noisy(4, 0.01, seed), [Acceleration(), PatternSpeed()]
        result = da.solve(df, points, unknowns, velocities=velocities, huber=None)
        found.append(result["pattern_speed"].value)
        before.append(result["pattern_speed"].members.mean())
    error = np.std(found, ddof=1) / np.sqrt(20)
    assert abs(np.mean(found) - OMEGA) + 5 * error < (OMEGA - np.mean(before)) / 4
    assert OMEGA - np.mean(before) > 10 * error  # negative control: a member alone is attenuated


def test_noise_alone_is_no_pattern_speed():
    """A round galaxy with noisy scores: its column is nothing but noise, and that is said."""
    class Round(Noisy):
        def log_df(self, w):
            return da.Hernquist().log_df(w)

    found = da.solve(Round(4, 0.03, 3), POINTS, [Acceleration(), PatternSpeed()], velocities=VELOCITIES, warn=False)
    assert np.isnan(found["pattern_speed"].value)
    turning = da.solve(Noisy(4, 0.03, 3), POINTS, [Acceleration(), PatternSpeed()], velocities=VELOCITIES, warn=False)
    assert abs(turning["pattern_speed"].value - OMEGA) < 0.1  # negative control: a pattern that is there is found


def test_learned_members(learned):
    points = da.directions(15, 1)
    found = da.solve(learned, points, [Acceleration(), Expansion()], n_velocities=100, warn=False)
    assert found["acceleration"].members.shape == (3, 15, 3)
    assert found["acceleration"].standard_error.shape == (15, 3)
    assert found["expansion"].members.shape == (3,)
    assert abs(found["expansion"].value) < 0.1


@pytest.mark.parametrize(("coordinates", "where"), [("spherical", [0, 0, 0]), ("axisymmetric", [0, 0, 2])])
def test_singular_places_are_named(ensemble, coordinates, where):
    with pytest.raises(ValueError, match="in the centre, or on the axis .* 1 of them do, first at index 1; move them"):
        da.solve(ensemble(coordinates), [[1, 0, 0], where], [Acceleration()], n_velocities=20)


@pytest.mark.parametrize(("unknowns", "options", "message"), [
    ([Acceleration(), Acceleration()], {}, "each unknown can be asked for once; got acceleration, acceleration"),
    ([], {}, "unknowns must hold at least one"),
    ([Acceleration()], {"huber": 0.0}, "huber must be"),
    ([Acceleration()], {"n_velocities": 2}, "n_velocities must lie between 3 and 100000; got 2"),
])
def test_bad_input(unknowns, options, message):
    with pytest.raises(ValueError, match=message):
        da.solve(da.Plummer(), POINTS, unknowns, **options)


def test_the_smallest_matrix_left_is_that_of_schur():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(3, 20, 5))
    normal = matrix.mT @ matrix
    some = np.array([True, False, True, False, False])
    inverse = np.linalg.inv(normal)[:, ~some][..., ~some]
    np.testing.assert_allclose(module.without(normal, some), np.linalg.inv(inverse), rtol=1e-9)


def test_a_smooth_field_without_a_centre():
    """The field of a sphere beside its centre: what a hundred bells in three dimensions can do, and five cannot."""
    galaxy, rng = da.Plummer(), np.random.default_rng(4)
    points = np.array([1.0, 0.5, 0.2]) + 0.3 * rng.normal(size=(150, 3))
    velocities = 0.3 * rng.normal(size=(150, 60, 3))
    error = []
    for n_bends in (5, 100):
        field = SmoothAcceleration(points, lambda x: x, n_bends)
        found = da.solve(galaxy, points, [field], velocities=velocities)["acceleration"]
        np.testing.assert_allclose(field.at(points, found.parameters[0]), found.value, rtol=1e-9, atol=1e-12)
        error.append(np.median(np.linalg.norm(found.value - galaxy.acceleration(points), axis=1)))
    assert error[1] < 0.01 * np.linalg.norm(galaxy.acceleration(points), axis=1).mean()
    assert error[1] < 0.3 * error[0]
