"""The score card: its points, its errors and their summaries."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import dfaccel as da
from dfaccel.gravity.scorecard import score_points

P_LIMIT = 5.7e-7  # 5 sigma, two-sided


def follows(values, low, high):
    """Whether values are uniform, by Kolmogorov and Smirnov."""
    return stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > P_LIMIT


@pytest.mark.parametrize("scale", [1.0, 0.03, 700.0])
def test_points_are_log_uniform_and_isotropic(scale):
    """In 20 score cards, N = 4,000."""
    x = np.concatenate([score_points(scale, rng=seed) for seed in range(20)])
    assert x.shape == (4000, 3)
    r = np.linalg.norm(x, axis=1)
    assert follows(np.log(r / scale), math.log(0.2), math.log(20))
    assert (0.2 * scale <= r.min()) & (r.max() <= 20 * scale)
    assert all(follows(direction, -1, 1) for direction in x.T / r)
    assert not follows(r / scale, 0.2, 20)  # negative control: uniform in r


def test_points_of_a_flat_system_lie_near_its_plane():
    disc, truth = da.Disc(scale=2.0), da.Plummer()
    x = np.concatenate([score_points(disc.scale, flat=True, rng=seed) for seed in range(20)]) / disc.scale
    assert follows(np.hypot(*x.T[:2]), 0.5, 3)
    assert follows(x[:, 2], -0.3, 0.3)
    assert follows(np.arctan2(x[:, 1], x[:, 0]), -np.pi, np.pi)
    points = da.score_card(truth, disc, rng=1, n_velocities=20).points  # any system that says that it is flat
    assert np.abs(points[:, 2]).max() <= 0.6
    assert np.abs(da.score_card(truth, truth, rng=1, n_velocities=20).points[:, 2]).max() > 0.6  # negative control


def test_points_are_fixed_by_the_seed():
    first = score_points(rng=1)
    np.testing.assert_array_equal(score_points(rng=np.random.default_rng(1)), first)
    np.testing.assert_allclose(score_points(3.0, rng=1), 3 * first, rtol=1e-14)
    assert (score_points(rng=2) != first).all()


def test_exact_df_scores_zero_without_a_warning(system):
    card = da.score_card(system, system, rng=4, n_velocities=200)
    assert card.errors.max() <= 1e-8
    assert card.median <= card.p90 <= card.errors.max()
    np.testing.assert_array_equal(card.points, da.score_card(system, system, rng=4, n_velocities=200).points)
    r = np.linalg.norm(card.points, axis=1) / system.scale
    assert (r.min() > 0.2) & (r.max() < 20)
    assert math.isnan(card.inside_68)


def test_wrong_gravity_is_scored_as_such():
    """Truth with 1.25 times the mass: the error vector is a fifth of it everywhere."""
    card = da.score_card(da.Plummer(), da.Plummer(mass=1.25), rng=0, n_velocities=50)
    np.testing.assert_allclose(card.errors, 0.2, rtol=1e-7)
    assert (card.median, card.p90) == pytest.approx((0.2, 0.2))


@pytest.fixture
def made_up():
    """Five members scattered about the truth by a known standard deviation."""
    rng, points, one = np.random.default_rng(0), score_points(rng=0), np.ones(200)
    truth = da.Plummer().acceleration(points)
    sigma = 0.1 * np.linalg.norm(truth, axis=1)[:, None]
    members, value = (truth + sigma * rng.normal(size=shape) for shape in ((5, 200, 3), (200, 3)))
    covariance = sigma[..., None] ** 2 * np.eye(3)
    return da.ScoreCard(da.Accelerations(points, value, members, covariance, one, one, one), truth)


def test_errors_are_those_of_the_whole_vector(made_up):
    """A vector error of three Gaussian components is Maxwell distributed: median and percentile at 5 sigma, N = 200."""
    maxwell = stats.maxwell(scale=0.1)
    for quantile, value in ((0.5, made_up.median), (0.9, made_up.p90)):
        expected = maxwell.ppf(quantile)
        sigma = math.sqrt(quantile * (1 - quantile) / 200) / maxwell.pdf(expected)
        assert abs(value - expected) < 5 * sigma
    along_x = np.abs(made_up.result.value - made_up.truth)[:, 0] / np.linalg.norm(made_up.truth, axis=1)
    assert np.median(along_x) < made_up.median - 5 * 0.1 / math.sqrt(200)  # negative control: one component alone
    assert made_up.member_errors.shape == (5, 200)
    assert stats.kstest(made_up.member_errors.ravel(), maxwell.cdf).pvalue > P_LIMIT


def test_share_inside_one_standard_deviation(made_up):
    """600 components, independent here: 68.3 % within 5 sigma of a binomial; half the error bar covers 38 %."""
    p, sigma = 0.6827, 0.019
    assert abs(made_up.inside_68 - p) < 5 * sigma
    short = replace(made_up.result, covariance=made_up.result.covariance / 4)
    assert da.ScoreCard(short, made_up.truth).inside_68 < p - 5 * sigma
