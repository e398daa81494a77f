"""Calibrated error bars: the arithmetic, and that they widen when the model is blind to something."""

import numpy as np
import pytest

import dfaccel as da
from dfaccel.gravity.calibration import Calibration, coverage, error_and_scatter, fit_calibrated, redraw, student


def test_error_and_scatter_along_any_directions():
    """Of accelerations around zero whose members scatter by one in each component."""
    rng, one = np.random.default_rng(0), np.ones(500)
    points, members = rng.normal(size=(500, 3)), rng.normal(size=(3, 500, 3))
    covariance = np.stack([np.cov(m.T) for m in members.transpose(1, 0, 2)])
    result = da.Accelerations(points, members.mean(axis=0), members, covariance, one, one, one)
    z = np.divide(*error_and_scatter(result, np.zeros((500, 3)), np.broadcast_to(np.eye(3), (500, 3, 3))))
    np.testing.assert_allclose(z, result.value / result.members.std(axis=0, ddof=1))
    direction = points / np.linalg.norm(points, axis=1, keepdims=True)
    along = np.einsum("kmi,mi->km", members, direction)
    radial = np.divide(*error_and_scatter(result, np.zeros((500, 3)), direction[:, None]))
    assert radial.shape == (500, 1)
    np.testing.assert_allclose(radial[:, 0], along.mean(axis=0) / along.std(axis=0, ddof=1))


def made_up(rng, n_sets, n_repeats=4, bias=1.5, m=12, repeated=1.0):
    """Errors (n_sets, m) of made-up data sets, and their calibrations: noise smooth in ln r, and a bias, repeated."""
    radius = np.exp(np.log(100) * (np.arange(m) + 0.5) / m)
    smooth = np.linalg.cholesky(np.exp(-0.5 * (np.log(radius[:, None] / radius) / 0.4) ** 2) + 1e-9 * np.eye(m))
    size = radius**-0.5
    mean = bias * size * np.sin(np.log(radius))
    stars, members = rng.normal(size=(n_sets, 1 + n_repeats, 1, m)), rng.normal(size=(n_sets, 1 + n_repeats, 4, m))
    values = size * ((stars + members) @ smooth.T)  # the members' part is a bootstrap's: of the same variance
    scatter = (size * (members @ smooth.T)).std(axis=2, ddof=1)[..., None]
    share = np.where(np.arange(1 + n_repeats) > 0, repeated, 1.0)[:, None]  # of the bias that repetitions show
    errors = (share * mean + values.mean(axis=2))[..., None]
    x = radius[:, None] * [1.0, 0, 0]
    return radius, errors[:, 0, :, 0], [Calibration(x, e[1:], s) for e, s in zip(errors, scatter, strict=True)]


@pytest.mark.parametrize(("bias", "repeated"), [(0.0, 1.0), (1.5, 2 / 3)])  # the latter wrong by half of what is shown
def test_intervals_hold_the_truth_as_often_as_they_say_at_every_radius(bias, repeated):
    radius, errors, calibrations = made_up(np.random.default_rng(1), 400, bias=bias, repeated=repeated)
    for level, allowed in ((0.68, 0.06), (0.95, 0.025)):
        shift, half = np.array([c.interval(radius, level) for c in calibrations]).transpose(1, 0, 2)
        inside = np.abs(errors - shift) <= half
        share, error, _ = coverage(inside)
        assert abs(share - level) < allowed + 3 * error
        for third in np.split(inside, 3, axis=1):
            assert abs(coverage(third)[0] - level) < 1.5 * allowed + 3 * coverage(third)[1]


def test_an_interval_doubts_half_of_the_bias_and_stays_finite_far_away():
    x, one = np.arange(1.0, 5)[:, None] * [1.0, 0, 0], np.ones((2, 4, 1))
    bias, half = Calibration(x, 3 * one, np.ones((3, 4, 1))).interval([2.0, 1e40], 0.95)  # no variance at all
    np.testing.assert_allclose(bias, 3)
    np.testing.assert_allclose(half, 1.5 * student(0.95, 3))


def test_student_is_a_gaussian_for_many_and_wider_for_few():
    assert abs(student(0.95, 10**6) - 1.95996) < 1e-4
    assert abs(student(0.95, 3) - 3.18245) < 1e-4  # a table of 1908
    calibration = made_up(np.random.default_rng(2), 1)[2][0]
    assert calibration.factor(0.95) > calibration.factor(0.68) > 0
    for ask in (calibration.factor, lambda level: student(level, 3), lambda level: calibration.interval([1.0], level)):
        for level in (0.0, 1.0, -1, np.nan):
            with pytest.raises(ValueError, match="level must lie between 0 and 1"):
                ask(level)


@pytest.mark.parametrize("trials", [25, 5, 1])
def test_trials_are_those_that_are_independent(trials):
    """Of 25 places: all of them, blocks of five that err together, and all together."""
    rng = np.random.default_rng(3)
    inside = np.repeat(rng.random((4000, trials)) < 0.68, 25 // trials, axis=1)
    share, error, found = coverage(inside)
    assert abs(share - 0.68) < 5 * error
    assert abs(error / (0.68 * 0.32 / trials / 4000) ** 0.5 - 1) < 0.06  # a variance of 4000: to 2.2 %
    assert abs(found / trials - 1) < 0.12
    assert coverage(np.ones((3, 5), bool)) == (1.0, 0.0, np.inf)


def test_apply_moves_the_value_by_the_bias_and_sets_the_covariance():
    rng = np.random.default_rng(4)
    radius, _, (calibration,) = made_up(rng, 1)
    x = radius[:, None] * da.directions(len(radius), rng)
    one, value = np.ones(len(x)), rng.normal(size=x.shape)
    result = da.Accelerations(x, value, value[None] + rng.normal(size=(4, *x.shape)), np.tile(np.eye(3), (12, 1, 1)),
                              one, one, one)
    bias, half = calibration.interval(radius, 0.95)
    found, outward = calibration.apply(result, 0.95), x / radius[:, None]
    np.testing.assert_allclose(found.value, value - bias[:, None] * outward)
    np.testing.assert_allclose(found.members, result.members + found.value - value)
    along = np.einsum("mi,mij,mj->m", outward, found.covariance, outward)
    np.testing.assert_allclose(along, half**2)
    np.testing.assert_allclose(np.trace(found.covariance, axis1=1, axis2=2), half**2)  # and none across
    free = Calibration(x, np.tile(calibration.error, 3), np.tile(calibration.scatter, 3))  # x, y, z: no symmetry
    np.testing.assert_allclose(free.apply(result).covariance, result.covariance * free.factor(0.68) ** 2)
    with pytest.raises(ValueError, match="needs a model with spherical symmetry; use factor"):
        free.interval(radius)


RECIPE = {"n_flows": 3, "spec": da.FlowSpec(2, 16), "coordinates": "spherical",
          "config": da.TrainConfig(n_epochs=2, batch_size=200, bootstrap=True)}


class Learner:
    """A recipe of a fraction of a second, and what it was given."""

    def __init__(self, blind=False):
        self.blind, self.calls = blind, []

    def __call__(self, stars, rng):
        self.calls.append((stars, rng))
        stars = stars * np.repeat([1, 2.5 if self.blind else 1], 3)  # an error that every member shares
        return da.fit(stars, rng=rng, **RECIPE)


def test_no_star_is_learned_from_that_alone_would_set_the_scale():
    model = da.fit(da.Plummer().sample(2000, rng=0), rng=1, **RECIPE)
    plain = redraw(model, 2000, np.random.default_rng(2))
    wild = plain.copy()
    wild[7, :3] *= 1e30
    wild[8, 3:] *= 1e30

    class Wild:
        coordinates, mean, std = model.coordinates, model.mean, model.std

        def sample(self, n, rng):
            return wild.copy()

    drawn = redraw(Wild(), 2000, np.random.default_rng(3))
    assert (drawn != wild).any(axis=1).nonzero()[0].tolist() == [7, 8]
    assert np.isin(drawn[[7, 8], 0], plain[:, 0]).all()


@pytest.mark.slow
def test_calibrate_draws_from_the_model_and_learns_again():
    learner, points = Learner(), np.diag([0.5, 1.0, 2.0])
    model = learner(da.Plummer().sample(4000, rng=0), 1)

    def calibrate(refit):
        return da.calibrate(model, refit, points, n_stars=4000, n_repeats=2, n_velocities=100, rng=5)

    first = calibrate(learner)
    assert first.standardized.shape == (2, 3, 1)  # under spherical symmetry only the radial component can err
    (one, _), (two, _) = learner.calls[1:]
    assert one.shape == (4000, 6)
    assert (one != two).any()
    np.testing.assert_array_equal(first.standardized, calibrate(learner).standardized)
    blind = calibrate(Learner(blind=True))
    assert blind.factor(0.68) > 2 * first.factor(0.68)  # negative control: an error that no scatter shows
    assert np.abs(blind.interval([1.0])[0]) > 2 * np.abs(first.interval([1.0])[0])


def test_bad_input():
    learner = Learner()
    model = learner(da.Plummer().sample(1000, rng=0), 1)
    for change, error, message in (
        ({"refit": 3}, TypeError, "refit must be a function of stars and rng; got 3"),
        ({"n_repeats": 0}, ValueError, "n_repeats must be a positive integer; got 0"),
        ({"n_stars": 1e4}, TypeError, "n_stars must be a positive integer"),
        ({"points": np.eye(2)}, ValueError, r"points must have shape \(m, 3\)"),
        ({"refit": lambda *given: learner(*given).member(0)}, ValueError, "refit must return .* or more; got 1"),
        ({"n_repeats": 1}, ValueError, "n_repeats must be at least 2, to have a spread; got 1"),
    ):
        options = {"refit": learner, "points": np.eye(3), "n_stars": 1000, "n_repeats": 2, "n_velocities": 50, "rng": 0}
        with pytest.raises(error, match=message):
            da.calibrate(model, **options | change)


@pytest.mark.slow
def test_weighted_stars_are_judged_by_their_effective_number(monkeypatch):
    stars, drawn = da.Plummer().sample(3000, rng=0), []
    monkeypatch.setattr("dfaccel.gravity.calibration.redraw", lambda model, n, rng: drawn.append(n) or stars[:n])
    weights = np.repeat([0.0, 1.0, 3.0], 1000)
    model = fit_calibrated(stars, np.eye(3), weights=weights, n_repeats=2, n_velocities=50, rng=7, **RECIPE)
    assert drawn == [1600, 1600]  # 4000^2 / 10,000
    by_hand = da.fit(stars, weights=weights, rng=np.random.default_rng(7).spawn(2)[0], **RECIPE)
    assert (model.theta == by_hand.theta).all()


def test_fit_calibrated_is_a_fit_and_its_calibration(tmp_path, monkeypatch):
    stars, points = da.Plummer().sample(3000, rng=0), np.eye(3)
    once = {"n_repeats": 2, "n_velocities": 100, "rng": 7, "checkpoint": tmp_path, **RECIPE}
    model = fit_calibrated(stars, points, **once)
    fit_rng, judge = np.random.default_rng(7).spawn(2)
    by_hand = da.fit(stars, rng=fit_rng, **RECIPE)
    assert (model.theta == by_hand.theta).all()
    calibration = da.calibrate(by_hand, lambda w, rng: da.fit(w, rng=rng, **RECIPE), points, n_stars=3000, n_repeats=2,
                               n_velocities=100, rng=judge)
    assert model.metadata["factors"] == {str(level): calibration.factor(level) for level in (0.68, 0.95)}
    assert {p.parent.name for p in tmp_path.rglob("*.safetensors")} == {tmp_path.name, "repeat_1", "repeat_2"}
    np.testing.assert_array_equal(Calibration.of(model).error, calibration.error)
    monkeypatch.setattr("dfaccel.flows.training.Run.step", None)  # what is finished is not trained again
    assert fit_calibrated(stars, points, **once).metadata["factors"] == model.metadata["factors"]
    with pytest.raises(ValueError, match="n_repeats must be a positive integer; got 0"):  # before anything takes long
        fit_calibrated(stars, points, **once | {"n_repeats": 0})
