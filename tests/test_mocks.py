"""Noise on stars."""

import numpy as np
import pytest
from scipy import stats

from dfaccel.mocks import add_noise
from dfaccel.systems import Plummer


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
