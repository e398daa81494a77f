"""Noise on stars, and taking it away."""

import numpy as np
import pytest
from scipy import stats

from dfaccel import FlowSpec, Plummer, TrainConfig, add_noise, denoise, fit, possible_truths, spherical
from dfaccel.stars.noise import PossibleTruths

GALAXY = Plummer()


@pytest.mark.parametrize("fraction", [0.01, 0.1])
def test_noise_is_gaussian_and_proportional(fraction):
    w = GALAXY.sample(20_000, rng=1)
    relative = (add_noise(w, fraction, rng=2) / w - 1) / fraction
    assert stats.kstest(relative.ravel(), "norm").pvalue > 1e-3
    # independent from coordinate to coordinate and of the coordinate itself
    assert abs(np.corrcoef(relative.T) - np.eye(6)).max() < 5 / np.sqrt(len(w))
    assert abs(np.corrcoef(relative[:, 0], abs(w[:, 0]))[0, 1]) < 5 / np.sqrt(len(w))


def test_noise_repeats_with_the_seed_and_leaves_its_input_alone():
    w = GALAXY.sample(100, rng=1)
    before = w.copy()
    np.testing.assert_array_equal(add_noise(w, 0.1, rng=3), add_noise(w, 0.1, rng=np.random.default_rng(3)))
    np.testing.assert_array_equal(w, before)
    copy = add_noise(w, 0, rng=3)
    np.testing.assert_array_equal(copy, w)
    assert not np.shares_memory(copy, w)


def test_denoised_with_the_truth_stars_are_as_they_were():
    """A draw from the posterior, over all stars, is a draw from the prior: moments and radii are noiseless."""
    n, fraction = 60_000, 0.2
    noisy = add_noise(GALAXY.sample(n, rng=1), fraction, rng=2)
    again, fresh = denoise(noisy, fraction, GALAXY, n_candidates=32, rng=3), GALAXY.sample(n, rng=4)
    seen, found, true = ((w[:, 3:] ** 2).sum(axis=1) for w in (noisy, again, fresh))
    error = true.std() * np.sqrt(2 / n)
    assert abs(found.mean() - true.mean()) < 5 * error
    assert stats.ks_2samp(spherical(again).r, spherical(fresh).r).pvalue > 1e-4
    assert abs(seen.mean() - true.mean()) > 5 * error  # negative control


def test_denoised_stars_lie_within_the_noise_of_what_was_seen():
    noisy = add_noise(GALAXY.sample(25_000, rng=1), 0.01, rng=2)  # more than a chunk
    noisy[7, 4] = 0.0
    again = denoise(noisy, 0.01, GALAXY, n_candidates=4, rng=3)
    seen = noisy != 0
    xi = (noisy[seen] / again[seen] - 1) / 0.01
    assert abs(xi.std() - 1) < 0.05
    assert abs(xi).max() < 7
    assert again[7, 4] == 0
    np.testing.assert_array_equal(again, denoise(noisy, 0.01, GALAXY, n_candidates=4, rng=np.random.default_rng(3)))
    np.testing.assert_array_equal(denoise(noisy, 0.0, GALAXY, rng=3), noisy)


@pytest.mark.parametrize("use", [add_noise, lambda w, size, rng: denoise(w, size, GALAXY, rng=rng)])
@pytest.mark.parametrize(("w", "message"), [
    (np.ones((4, 5)), r"w must have shape \(n, 6\), n >= 1; got \(4, 5\)"),
    (np.ones((0, 6)), r"w must have shape \(n, 6\), n >= 1; got \(0, 6\)"),
    (np.where(np.arange(4)[:, None] < 2, 1.0, np.nan * np.ones(6)), "w has 2 non-finite rows, first at index 2"),
])
def test_bad_stars(use, w, message):
    with pytest.raises(ValueError, match=message):
        use(w, 0.1, rng=1)


W = np.ones((4, 6))


@pytest.mark.parametrize(("name", "use"), [
    ("fraction", lambda size: add_noise(W, size, rng=1)), ("errors", lambda size: denoise(W, size, GALAXY, rng=1)),
])
@pytest.mark.parametrize(("fraction", "error", "message"), [
    *[(bad, ValueError, "must be zero or a positive finite number; got") for bad in (-0.1, np.nan, np.inf)],
    *[(bad, TypeError, f"must be zero or a positive number; got {bad!r}") for bad in (None, "ten")],
])
def test_bad_fraction(name, use, fraction, error, message):
    with pytest.raises(error, match=f"{name} {message}"):
        use(fraction)


@pytest.mark.parametrize(("errors", "message"), [
    (np.ones(5), r"errors must be a number or have shape \(6,\), \(40, 6\) or \(40, 6, 6\); got \(5,\)"),
    (np.full(6, np.nan), "errors has 6 non-finite rows, first at index 0"),
    (np.where(np.arange(40)[:, None] == 7, -1.0, np.ones(6)), "and positive; 1 are not, first at index 7"),
    (np.eye(6) * np.where(np.arange(40) == 9, -1.0, 1.0)[:, None, None], "1 are not, first at index 9"),
    (np.tile(np.eye(6) + 0.1 * np.eye(6, k=1), (40, 1, 1)), "symmetric and positive; 40 are not"),
    (np.eye(6) + np.where(np.arange(40) == 3, 2.0, 0.0)[:, None, None] * np.eye(6)[::-1], "first at index 3"),
])
def test_bad_errors(errors, message):
    with pytest.raises(ValueError, match=message):
        possible_truths(GALAXY.sample(40, rng=1), errors, rng=1)


def test_a_star_without_a_possible_truth_is_named():
    w = GALAXY.sample(40, rng=1)
    w[5, 0] = 1000.0

    def near(m):
        return np.where(np.abs(m[:, :1]) > 500, np.nan, m)

    with pytest.raises(ValueError, match="possible truth; 1 have none, first at index 5"):
        possible_truths(w, np.full(6, 1e-3), to_phase_space=near, rng=1)
    with pytest.raises(ValueError, match=r"to_phase_space must return shape \(640, 6\); got \(640, 3\)"):
        possible_truths(w, np.full(6, 1e-3), to_phase_space=lambda m: m[:, :3], rng=1)
    with pytest.raises(ValueError, match=r"log_volume must return shape \(640,\); got \(640, 6\)"):
        possible_truths(w, np.full(6, 1e-3), to_phase_space=np.copy, log_volume=np.copy, rng=1)


@pytest.mark.parametrize("n", [1, 40])
def test_few_stars_and_columns_that_do_not_vary(n):
    """Then the draws are those of the noise: mean and width at 5 sigma."""
    w = GALAXY.sample(n, rng=1)
    w[:, 2] = 3.0
    found = possible_truths(w, np.array([0.1, 0.2, 0.0, 0.1, 0.1, 0.1]), n_truths=4000, rng=1)
    z = (found.w - w[:, None])[..., 1] / 0.2
    assert np.abs(z.mean()) < 5 / np.sqrt(z.size)
    assert np.abs(z.std() - 1) < 5 / np.sqrt(2 * z.size)
    assert (found.w[..., 2] == 3).all()
    assert np.ptp(found.log_weight) < 1e-2


def test_at_least_one_candidate():
    with pytest.raises(ValueError, match="n_candidates must be a positive integer; got 0"):
        denoise(W, 0.1, GALAXY, n_candidates=0, rng=1)


@pytest.mark.parametrize("size", [0.05, 3.0])
def test_weighted_draws_give_the_posterior_of_a_gaussian(size):
    """With small errors and with two larger than the spread of the stars, correlated: its mean, at 5 sigma."""
    rng, n = np.random.default_rng(1), 2000
    covariance = 0.05**2 * np.eye(6)
    covariance[np.ix_([0, 3], [0, 3])] = size**2 * np.array([[1.0, 0.5], [0.5, 2.0]])
    w = rng.normal(size=(500, 6)) + rng.multivariate_normal(np.zeros(6), covariance, size=500)
    found = possible_truths(w, np.broadcast_to(covariance, (500, 6, 6)), n_truths=n, rng=3)
    log_share = found.log_weight - 0.5 * (found.w**2).sum(-1)
    share = np.exp(log_share - log_share.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    expected = w @ np.linalg.inv(np.eye(6) + covariance)
    mean = np.einsum("mn,mni->mi", share, found.w)
    left = np.sqrt(np.einsum("mn,mni->mi", share**2, (found.w - mean[:, None]) ** 2))
    good = 1 / (share**2).sum(1) > 100  # a few stars lie so far out that few draws suit them
    z = ((mean - expected) / left)[good]
    assert good.mean() > 0.8
    assert np.abs(z.mean()) < 5 / np.sqrt(z.size)
    assert np.abs(np.median(np.abs(z)) - 0.674) < 5 * 0.79 / np.sqrt(z.size) + 0.02
    if size > 1:  # negative control: draws about what was measured would hardly meet the stars
        assert np.abs(found.w.mean(1) - w).max() > size


def test_measured_coordinates_bring_their_volume_element():
    """Draws in ln x, with and without the element given: the same density in x, that of the errors."""
    w = np.abs(np.random.default_rng(1).normal(size=(100, 6))) + 0.5
    rules = {"errors": np.full(6, 0.2), "to_phase_space": np.exp, "rng": 4, "n_truths": 64}
    numerical = possible_truths(np.log(w), **rules)
    given = possible_truths(np.log(w), **rules, log_volume=lambda m: m.sum(1))
    np.testing.assert_array_equal(numerical.w, given.w)
    np.testing.assert_allclose(numerical.log_weight, given.log_weight, atol=1e-6)
    assert np.ptp(given.log_weight, axis=1).min() > 0.1  # negative control: it matters


def test_flows_learn_noiseless_stars_from_their_possible_truths():
    """A Gaussian seen with an error of half its width: its variance, at 5 sigma of that of n noisy stars."""
    n, rng = 20_000, np.random.default_rng(5)
    true = rng.normal(size=(n, 6))
    seen = true + 0.5 * rng.normal(size=(n, 6))
    truths = possible_truths(seen, np.full(6, 0.5), n_truths=32, rng=6)
    rules = {"spec": FlowSpec(2, 8), "config": TrainConfig(6, 200), "coordinates": "linear", "rng": 7}
    width = fit(truths, **rules).sample(50_000, rng=8).var()
    error = 1.25 * np.sqrt(2 / (6 * n))  # of the variance of what is seen, which is 1.25
    assert abs(width - 1) < 5 * error + 0.02  # and the leak of a small flow
    assert fit(seen, **rules).sample(50_000, rng=8).var() > 1.2  # negative control
    with pytest.raises(ValueError, match=r"stars must have a multiple of 4 possible truths each; got shape \(20000, 6"):
        fit(PossibleTruths(truths.w[:, :6], truths.log_weight[:, :6]), **rules)
