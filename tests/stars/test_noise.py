"""Noise on stars, and taking it away."""

import numpy as np
import pytest
from scipy import stats

from dfaccel import Plummer, add_noise, denoise, spherical

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


W = np.ones((4, 6))
BROKEN = np.where(np.arange(4)[:, None] < 2, W, np.nan)


@pytest.mark.parametrize("use", [add_noise, lambda w, size, rng: denoise(w, size, GALAXY, rng=rng)])
@pytest.mark.parametrize(("w", "fraction", "error", "message"), [
    *[(W, bad, ValueError, "fraction must be zero or a positive finite number; got") for bad in (-0.1, np.nan, np.inf)],
    *[(W, bad, TypeError, f"fraction must be zero or a positive number; got {bad!r}") for bad in (None, "ten")],
    (W[:, :5], 0.1, ValueError, r"w must have shape \(n, 6\), n >= 1; got \(4, 5\)"),
    (W[:0], 0.1, ValueError, r"w must have shape \(n, 6\), n >= 1; got \(0, 6\)"),
    (BROKEN, 0.1, ValueError, "w has 2 non-finite rows, first at index 2"),
])
def test_bad_input(use, w, fraction, error, message):
    with pytest.raises(error, match=message):
        use(w, fraction, rng=1)


def test_at_least_one_candidate():
    with pytest.raises(ValueError, match="n_candidates must be a positive integer; got 0"):
        denoise(W, 0.1, GALAXY, n_candidates=0, rng=1)
