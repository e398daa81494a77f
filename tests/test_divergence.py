"""KL divergence against a value known by quadrature, and its standard error against the scatter of repetitions."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

import dfaccel as da


class Faster:
    """A Plummer sphere whose stars are faster, as a density to be compared with the plain one."""

    def __init__(self, factor):
        self.system = da.Plummer(G=factor)

    def log_prob(self, w):
        return self.system.log_df(w)


def exact(factor):
    """KL of the plain sphere from the faster one, by quadrature.

    ln f = const + 7/2 ln(-E / G) - 3/2 ln G, and (v / v_esc)^2 = u follows Beta(3/2, 9/2) at every radius.
    """

    def integrand(u):
        difference = 3.5 * (math.log1p(-u) - math.log(factor - u) + math.log(factor)) + 1.5 * math.log(factor)
        return stats.beta.pdf(u, 1.5, 4.5) * difference

    return integrate.quad(integrand, 0, 1, epsabs=1e-12)[0]


@pytest.mark.parametrize("factor", [1.01, 1.3, 4.0])
def test_value_is_the_exact_one(factor):
    estimate = da.kl_divergence(da.Plummer(), Faster(factor), n=50_000, rng=0)
    assert abs(estimate.value - exact(factor)) < 5 * estimate.standard_error
    assert estimate.standard_error < 0.02 * max(1, exact(factor))
    assert abs(estimate.value + 0.2 - exact(factor)) > 5 * estimate.standard_error  # negative control
    value, standard_error = estimate
    assert (value, standard_error) == (estimate.value, estimate.standard_error)


def test_of_a_density_from_itself_is_zero():
    assert da.kl_divergence(da.Plummer(), Faster(1.0), n=100, rng=0) == (0, 0)


def test_standard_error_is_the_scatter_of_repetitions():
    """The standard deviation of 100 repetitions has a relative error of 1/sqrt(200): 5 of them are allowed."""
    estimates = np.array([da.kl_divergence(da.Plummer(), Faster(1.3), n=1000, rng=seed) for seed in range(100)])
    ratio = estimates[:, 0].std(ddof=1) / estimates[:, 1].mean()
    assert abs(ratio - 1) < 5 / math.sqrt(200)
    deviation = (estimates[:, 0] - exact(1.3)) / estimates[:, 1]
    assert abs(deviation.mean()) < 5 / math.sqrt(100)


def test_infinite_where_the_model_excludes_a_star():
    with np.errstate(invalid="ignore"):
        assert da.kl_divergence(da.Plummer(), Faster(0.5), n=1000, rng=0).value == math.inf


def test_of_a_flow_is_positive_and_fixed_by_the_seed(ensemble):
    model = ensemble("spherical")
    one = da.kl_divergence(da.Plummer(), model, n=2000, rng=1)
    assert one.value > 5 * one.standard_error
    assert one == da.kl_divergence(da.Plummer(), model, n=2000, rng=np.random.default_rng(1))
    assert one != da.kl_divergence(da.Plummer(), model, n=2000, rng=2)


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [(0, ValueError, "n must be a positive integer; got 0"), (-4, ValueError, "n must be a positive integer; got -4"),
     (1, ValueError, "n must be at least 2 for a standard error; got 1"),
     (1e4, TypeError, "n must be a positive integer; got 10000.0")],
)
def test_bad_numbers(n, error, message):
    with pytest.raises(error, match=message):
        da.kl_divergence(da.Plummer(), Faster(2.0), n=n, rng=0)
