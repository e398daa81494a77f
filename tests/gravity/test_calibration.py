"""Calibrated error bars: the arithmetic, and that they widen when the model is blind to something."""

import numpy as np
import pytest

import dfaccel as da
from dfaccel.gravity.calibration import Calibration, fit_calibrated, standardized_errors


def test_standardized_errors_are_errors_over_scatter():
    """Of accelerations around zero whose members scatter by one in each component."""
    rng, one = np.random.default_rng(0), np.ones(500)
    points, members = rng.normal(size=(500, 3)), rng.normal(size=(3, 500, 3))
    covariance = np.stack([np.cov(m.T) for m in members.transpose(1, 0, 2)])
    result = da.Accelerations(points, members.mean(axis=0), members, covariance, one, one, one)
    z = standardized_errors(result, np.zeros((500, 3)))
    np.testing.assert_allclose(z, result.value / result.members.std(axis=0, ddof=1))
    direction = points / np.linalg.norm(points, axis=1, keepdims=True)
    along = np.einsum("kmi,mi->km", members, direction)
    radial = standardized_errors(result, np.zeros((500, 3)), directions=direction[:, None])
    assert radial.shape == (500, 1)
    np.testing.assert_allclose(radial[:, 0], along.mean(axis=0) / along.std(axis=0, ddof=1))


def test_factors_hold_the_truth_as_often_as_they_say():
    calibration = Calibration(np.random.default_rng(1).normal(size=(10, 20_000, 1)))
    for level, quantile in ((0.68, 0.99446), (0.95, 1.95996)):  # of a Gaussian; 5 standard errors of a quantile
        assert abs(calibration.factor(level) - quantile) < 5 * 0.011
    for level in (0.0, 1.0, -1, np.nan):
        with pytest.raises(ValueError, match="level must lie between 0 and 1"):
            calibration.factor(level)


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


def test_bad_input():
    learner = Learner()
    model = learner(da.Plummer().sample(1000, rng=0), 1)
    for change, error, message in (
        ({"refit": 3}, TypeError, "refit must be a function of stars and rng; got 3"),
        ({"n_repeats": 0}, ValueError, "n_repeats must be a positive integer; got 0"),
        ({"n_stars": 1e4}, TypeError, "n_stars must be a positive integer"),
        ({"points": np.eye(2)}, ValueError, r"points must have shape \(m, 3\)"),
        ({"refit": lambda *given: learner(*given).member(0)}, ValueError, "must have two members or more .*; got 1"),
    ):
        options = {"refit": learner, "points": np.eye(3), "n_stars": 1000, "n_repeats": 1, "n_velocities": 50, "rng": 0}
        with pytest.raises(error, match=message):
            da.calibrate(model, **options | change)


@pytest.mark.slow
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
    monkeypatch.setattr("dfaccel.flows.training.Run.step", None)  # what is finished is not trained again
    assert fit_calibrated(stars, points, **once).metadata["factors"] == model.metadata["factors"]
    with pytest.raises(ValueError, match="n_repeats must be a positive integer; got 0"):  # before anything takes long
        fit_calibrated(stars, points, **once | {"n_repeats": 0})
