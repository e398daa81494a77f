"""Divergences against exact values, and their standard errors against the scatter of repetitions."""

import math

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.spatial import cKDTree

import dfaccel as da
from dfaccel.flows.divergence import cross_entropy

PLUMMER = da.Plummer()
MIXTURE = da.mix(PLUMMER, da.Stream(), 0.1)


def exact(factor):
    """KL of a plain Plummer sphere from one with faster stars, by quadrature.

    ln f = const + 7/2 ln(-E / G) - 3/2 ln G, and (v / v_esc)^2 = u follows Beta(3/2, 9/2) at every radius.
    """

    def integrand(u):
        difference = 3.5 * (math.log1p(-u) - math.log(factor - u) + math.log(factor)) + 1.5 * math.log(factor)
        return stats.beta.pdf(u, 1.5, 4.5) * difference

    return integrate.quad(integrand, 0, 1, epsabs=1e-12)[0]


@pytest.mark.parametrize("factor", [1.01, 1.3, 4.0])
def test_value_is_the_exact_one(factor):
    value, error = estimate = da.kl_divergence(PLUMMER, da.Plummer(G=factor), n=50_000, rng=0)
    assert (value, error) == (estimate.value, estimate.standard_error)
    assert abs(value - exact(factor)) < 5 * error
    assert error < 0.02 * max(1, exact(factor))
    assert abs(value + 0.2 - exact(factor)) > 5 * error  # negative control


def test_of_a_density_from_itself_is_zero_and_infinite_where_a_star_is_excluded():
    assert da.kl_divergence(PLUMMER, da.Plummer(G=1.0), n=100, rng=0) == (0, 0)
    with np.errstate(invalid="ignore"):
        assert da.kl_divergence(PLUMMER, da.Plummer(G=0.5), n=1000, rng=0) == (math.inf, math.inf)


def test_two_closed_forms_are_compared():
    """The sphere with a stream against the sphere, by 5 standard errors; the other way round it is another number."""
    one = da.kl_divergence(MIXTURE, PLUMMER, n=20_000, rng=0)
    w = MIXTURE.sample(20_000, rng=1)
    other = (MIXTURE.log_df(w) - PLUMMER.log_df(w)).mean()
    assert abs(one.value - other) < 5 * one.standard_error * 2**0.5
    assert abs(da.kl_divergence(PLUMMER, MIXTURE, n=20_000, rng=0).value - other) > 10 * one.standard_error


def test_standard_error_is_the_scatter_of_repetitions():
    """The standard deviation of 100 repetitions has a relative error of 1/sqrt(200): 5 of them are allowed."""
    values, errors = np.transpose([da.kl_divergence(PLUMMER, da.Plummer(G=1.3), n=1000, rng=s) for s in range(100)])
    assert abs(values.std(ddof=1) / errors.mean() - 1) < 5 / math.sqrt(200)
    assert abs(((values - exact(1.3)) / errors).mean()) < 5 / math.sqrt(100)


def test_of_a_flow_is_positive_and_fixed_by_the_seed(ensemble):
    model = ensemble("spherical")
    one = da.kl_divergence(PLUMMER, model, n=2000, rng=1)
    assert one.value > 5 * one.standard_error
    assert one == da.kl_divergence(PLUMMER, model, n=2000, rng=np.random.default_rng(1))
    assert one != da.kl_divergence(PLUMMER, model, n=2000, rng=2)


# ---- from one density and stars ----


class Gauss:
    """A round Gaussian in phase space."""

    def __init__(self, width):
        self.width = width

    def log_df(self, w):
        return stats.norm.logpdf(w, scale=self.width).sum(axis=1)


def test_cross_entropy_is_entropy_plus_divergence():
    """Of N(0, 1) in 6-D: 3 ln(2 pi e) + KL; 5 standard errors; negative control: the divergence alone."""
    w = np.random.default_rng(1).normal(size=(20_000, 6))
    entropy, kl = 3 * math.log(2 * math.pi * math.e), 6 * (math.log(1.2) + 0.5 / 1.44 - 0.5)
    value, error = cross_entropy(Gauss(1.2), w)
    assert error == pytest.approx(math.sqrt(3) / 1.44 / math.sqrt(20_000), rel=0.1)
    assert abs(value - entropy - kl) < 5 * error
    assert abs(value - kl) > 5 * error
    # the difference of two is that of the divergences, and paired
    paired, small = cross_entropy(Gauss(1.2), w, other=Gauss(1.1))
    true = 6 * (math.log(1.2 / 1.1) + 0.5 / 1.44 - 0.5 / 1.21)
    assert abs(paired - true) < 5 * small
    assert abs(paired + true) > 5 * small  # negative control: the sign
    assert small < error / 5
    assert cross_entropy(Gauss(1.1), w, other=Gauss(1.2)) == pytest.approx((-paired, small), rel=1e-9)
    assert cross_entropy(PLUMMER, PLUMMER.sample(100, rng=0), other=PLUMMER) == (0, 0)


# ---- from stars alone ----


def gaussians(n, shift, *, width=1.0, d=6, seed=0):
    """Two samples and the exact divergence of the second density from the first."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), width * rng.normal(size=(n, d))
    y[:, 0] += shift
    return x, y, d * (math.log(width) + 0.5 / width**2 - 0.5) + shift**2 / (2 * width**2)


@pytest.mark.parametrize("extrapolate", [False, True])
@pytest.mark.parametrize("k", [4, 8])
def test_neighbours_of_one_distribution_give_zero(k, extrapolate):
    """Exact for any density, by exchange of x and y, but for 1/n. Negative control: a point is its own neighbour."""
    x, y, _ = gaussians(5000, 0.0)
    value, error = da.knn_divergence(x, y, k, extrapolate=extrapolate)
    assert abs(value) < 5 * error
    x, y = (sample / np.diff(np.percentile(y, [15.865, 84.135], axis=0), axis=0) * 2 for sample in (x, y))
    rho, nu = cKDTree(x).query(x, k=[k])[0], cKDTree(y).query(x, k=[k])[0]
    wrong = 6 * np.log(nu / rho).mean()
    plain = da.knn_divergence(x, y, k, extrapolate=False)
    assert abs(wrong - plain.value - 1 / (k - 1)) < 5 / (k - 1) * 2 / math.sqrt(5000) + 0.02 / (k - 1)
    assert abs(wrong) > 5 * plain.standard_error


@pytest.mark.parametrize(("shift", "width"), [(1.0, 1.0), (0.0, 1.5), (0.5, 1.2)])
def test_neighbours_in_two_dimensions_are_exact(shift, width):
    """In 2-D the bias is of order k / n: 5 standard errors, and a hundredth nat."""
    x, y, true = gaussians(5000, shift, width=width, d=2)
    value, error = da.knn_divergence(x, y)
    assert error < 0.06
    assert abs(value - true) < 5 * error + 0.01
    assert abs(value - true - 1 / 7) > abs(value - true)  # negative control
    value, error = da.knn_divergence((x - x.mean(axis=0)) / x.std(axis=0), (y - y.mean(axis=0)) / y.std(axis=0))
    assert abs(value) < 5 * error + 0.01  # each with a scale of its own: nothing is left


def test_extrapolation_removes_most_of_the_bias_in_six_dimensions():
    """Means of 10 pairs, so that the noise is below half of the bias of D_8, about 0.12 for 3,000 stars."""
    pairs = [gaussians(3000, 1.0, seed=seed)[:2] for seed in range(10)]
    estimates = [[da.knn_divergence(*pair, extrapolate=e).value for e in (False, True)] for pair in pairs]
    plain, extrapolated = np.abs(np.mean(estimates, axis=0) - 0.5)
    assert plain > 0.05
    assert extrapolated < 0.6 * plain


@pytest.mark.parametrize(("shift", "extrapolate"), [(0.0, False), (1.0, True), (1.0, False)])
def test_standard_error_of_neighbours_is_the_scatter_of_repetitions(shift, extrapolate):
    """Of 60, to 5 times 1/sqrt(120); the jackknife of a nearest-neighbour mean is high by a quarter at most."""
    pairs = (gaussians(500, shift, d=3, seed=seed)[:2] for seed in range(60))
    values, errors = np.transpose([da.knn_divergence(*pair, extrapolate=extrapolate) for pair in pairs])
    assert 0.75 * (1 - 5 / math.sqrt(120)) < values.std(ddof=1) / errors.mean() < 1 + 5 / math.sqrt(120)


def test_neighbours_see_a_stream():
    """Exact value by Monte Carlo of the closed forms; 10,000 stars: 5 standard errors and 5 %."""
    mixture = da.mix(PLUMMER, da.Stream(radius=10.0), 0.1)
    w = mixture.sample(50_000, rng=0)
    true = (mixture.log_df(w) - PLUMMER.log_df(w)).mean()
    value, error = da.knn_divergence(mixture.sample(10_000, rng=1), PLUMMER.sample(10_000, rng=2))
    assert abs(value - true) < 5 * error + 0.05 * true
    assert value > 5 * error  # negative control: not nothing


def test_neighbours_do_not_depend_on_units_or_order():
    x, y, _ = gaussians(500, 1.0)
    one, units = da.knn_divergence(x, y), np.array([1, 10, 100, 1e-3, 5, 1e6])
    np.testing.assert_allclose(da.knn_divergence(x * units, y * units), one, rtol=1e-6)
    np.testing.assert_allclose(da.knn_divergence(x[::-1], y[::-1]), one, rtol=1e-9)


# ---- what is refused ----

X, Y, _ = gaussians(20, 1.0)
Y = np.vstack([Y, Y[:10] + 0.5])
W = PLUMMER.sample(100, rng=0)
NO_DENSITY = "Disc has no density in closed form"


@pytest.mark.parametrize(
    ("function", "arguments", "error", "sentence"),
    [
        (da.kl_divergence, {"n": 0}, ValueError, "n must be a positive integer; got 0"),
        (da.kl_divergence, {"n": -4}, ValueError, "n must be a positive integer; got -4"),
        (da.kl_divergence, {"n": 1}, ValueError, "n must be at least 2 for a standard error; got 1"),
        (da.kl_divergence, {"n": 1e4}, TypeError, "n must be a positive integer; got 10000.0"),
        # before stars are drawn
        (da.kl_divergence, {"truth": da.Disc()}, TypeError, NO_DENSITY),
        (da.kl_divergence, {"model": da.Disc()}, TypeError, NO_DENSITY),
        (da.kl_divergence, {"truth": da.mix(da.Disc(), da.Stream(radius=1.5), 0.1)}, TypeError,
         "Disc has no distribution function in closed form"),
        (cross_entropy, {"model": da.Disc()}, TypeError, NO_DENSITY),
        (cross_entropy, {"stars": W[:, :3]}, ValueError, r"stars must have shape \(n, 6\), n >= 1; got \(100, 3\)"),
        (cross_entropy, {"stars": W[:1]}, ValueError, "stars must have at least 2 rows for a standard error; got 1"),
        (da.knn_divergence, {"x": np.zeros(5)}, ValueError, r"x must have shape \(n, d\)"),
        (da.knn_divergence, {"y": np.zeros((0, 6))}, ValueError, r"y must have shape \(n, d\)"),
        (da.knn_divergence, {"x": X * np.nan}, ValueError, "x has 20 non-finite rows, first at index 0"),
        (da.knn_divergence, {"y": Y[:, :5]}, ValueError, "the same number of columns; got 6 and 5"),
        (da.knn_divergence, {"k": 20}, ValueError, "k must be at most 19 for samples of 20 and 30 rows; got 20"),
        (da.knn_divergence, {"k": 1}, ValueError, "k must be at least 2 to extrapolate; got 1"),
        (da.knn_divergence, {"k": 0}, ValueError, "k must be a positive integer; got 0"),
        (da.knn_divergence, {"k": 2.0}, TypeError, "k must be a positive integer; got 2.0"),
        (da.knn_divergence, {"x": np.vstack([X, X[:1]])}, ValueError, "must not repeat a row.*got 1 repeats"),
        (da.knn_divergence, {"y": X}, ValueError, "must not repeat a row.*got 20 repeats"),
        (da.knn_divergence, {"y": Y * [1, 1, 1, 0, 1, 1]}, ValueError, "spread in every column; got none in column 3"),
    ],
)
def test_what_is_refused(function, arguments, error, sentence):
    usual = {da.kl_divergence: {"truth": PLUMMER, "model": MIXTURE, "n": 10**9, "rng": 0},
             cross_entropy: {"model": PLUMMER, "stars": W}, da.knn_divergence: {"x": X, "y": Y, "k": 4}}
    with pytest.raises(error, match=sentence):
        function(**usual[function] | arguments)
