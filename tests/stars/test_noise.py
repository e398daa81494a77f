"""Noise on stars, and taking it away."""

import numpy as np
import pytest
from scipy import stats

from dfaccel import Plummer, add_noise, denoise


@pytest.mark.parametrize("fraction", [0.01, 0.1])
def test_noise_is_gaussian_and_proportional(fraction):
    w = Plummer().sample(20_000, rng=1)
    relative = (add_noise(w, fraction, rng=2) / w - 1) / fraction
    assert stats.kstest(relative.ravel(), "norm").pvalue > 1e-3
    # independent from coordinate to coordinate and of the coordinate itself
    assert abs(np.corrcoef(relative.T) - np.eye(6)).max() < 5 / np.sqrt(len(w))
    assert abs(np.corrcoef(relative[:, 0], abs(w[:, 0]))[0, 1]) < 5 / np.sqrt(len(w))


def test_noise_repeats_with_the_seed_and_leaves_its_input_alone():
    w = Plummer().sample(100, rng=1)
    before = w.copy()
    noisy = add_noise(w, 0.1, rng=3)
    np.testing.assert_array_equal(noisy, add_noise(w, 0.1, rng=np.random.default_rng(3)))
    np.testing.assert_array_equal(w, before)
    copy = add_noise(w, 0, rng=3)
    np.testing.assert_array_equal(copy, w)
    assert not np.shares_memory(copy, w)


def test_bad_input():
    w = np.ones((4, 6))
    for fraction in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match="fraction must be finite, zero or positive; got"):
            add_noise(w, fraction, rng=1)
    with pytest.raises(TypeError, match="fraction must be a number, zero or positive; got None"):
        add_noise(w, None, rng=1)
    with pytest.raises(ValueError, match=r"w must have shape \(n, 6\); got \(4, 5\)"):
        add_noise(w[:, :5], 0.1, rng=1)
    with pytest.raises(ValueError, match="w must have at least one row"):
        add_noise(w[:0], 0.1, rng=1)
    w[2:] = np.nan
    with pytest.raises(ValueError, match="w has 2 non-finite rows, first at index 2"):
        add_noise(w, 0.1, rng=1)


def test_denoised_with_the_truth_stars_are_as_they_were():
    """A draw from the posterior, over all stars, is a draw from the prior: moments and radii are noiseless."""
    n, fraction = 60_000, 0.2
    galaxy = Plummer()
    noisy = add_noise(galaxy.sample(n, rng=1), fraction, rng=2)
    again, fresh = denoise(noisy, fraction, galaxy, n_candidates=32, rng=3), galaxy.sample(n, rng=4)

    def square_speed(w):
        return (w[:, 3:] ** 2).sum(axis=1)

    def radius(w):
        return np.linalg.norm(w[:, :3], axis=1)

    error = square_speed(fresh).std() * np.sqrt(2 / n)
    assert abs(square_speed(again).mean() - square_speed(fresh).mean()) < 5 * error
    assert stats.ks_2samp(radius(again), radius(fresh)).pvalue > 1e-4
    assert abs(square_speed(noisy).mean() - square_speed(fresh).mean()) > 5 * error  # negative control


def test_denoised_stars_lie_within_the_noise_of_what_was_seen():
    galaxy = Plummer()
    noisy = add_noise(galaxy.sample(25_000, rng=1), 0.01, rng=2)  # more than a chunk
    noisy[7, 4] = 0.0
    again = denoise(noisy, 0.01, galaxy, n_candidates=4, rng=3)
    seen = noisy != 0
    xi = (noisy[seen] / again[seen] - 1) / 0.01
    assert abs(xi.std() - 1) < 0.05
    assert abs(xi).max() < 7
    assert again[7, 4] == 0
    np.testing.assert_array_equal(again, denoise(noisy, 0.01, galaxy, n_candidates=4, rng=np.random.default_rng(3)))
    np.testing.assert_array_equal(denoise(noisy, 0.0, galaxy, rng=3), noisy)


def test_denoise_refuses_bad_input():
    w = np.ones((4, 6))
    with pytest.raises(ValueError, match="fraction must be finite, zero or positive; got -1"):
        denoise(w, -1, Plummer(), rng=1)
    with pytest.raises(TypeError, match="fraction must be a number"):
        denoise(w, "ten percent", Plummer(), rng=1)
    with pytest.raises(ValueError, match="n_candidates must be a positive integer; got 0"):
        denoise(w, 0.1, Plummer(), n_candidates=0, rng=1)
    with pytest.raises(ValueError, match=r"w must have shape \(n, 6\); got \(4, 5\)"):
        denoise(w[:, :5], 0.1, Plummer(), rng=1)
