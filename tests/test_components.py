"""Components of variance: unbiased, in intervals that hold the truth, and what the usual design makes of them."""

import math

import numpy as np
import pytest

from dfaccel import components as module
from dfaccel.components import components, one_at_a_time, pigeonhole

N_TABLES = 500
CASES = {  # variances of data, initialization, interaction and batch order
    "equal": (1, 1, 0.5, 0.5),
    "data": (4, 1, 0.3, 0.2),
    "initialization": (0.1, 1, 0.3, 0.2),
    "small": (0.1, 0.1, 0.5, 0.5),
}


def tables(variances, shape=(8, 8, 1), n=N_TABLES, rng=0, draw="standard_normal"):
    """Synthetic tables (n, D, I, B) of independent terms with these variances."""
    rng = np.random.default_rng(rng)
    d, i, b = shape
    sizes = [(n, d, 1, 1), (n, 1, i, 1), (n, d, i, 1), (n, d, i, b)]
    return 3 + sum(math.sqrt(v) * getattr(rng, draw)(size=size) for v, size in zip(variances, sizes, strict=True))


def truth(variances, b):
    """Variances of the terms that a table with b orders of the batches tells apart."""
    return np.array(variances if b > 1 else [*variances[:2], variances[2] + variances[3]], float)


def estimates(y):
    """Estimates (n, n_terms) of a stack of tables."""
    return module._mean_squares(y)[0] @ module._solution(*y.shape[1:]).T


# ---- estimates ----


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 2), (3, 7, 4)], ids=str)
@pytest.mark.parametrize("draw", ["standard_normal", "standard_exponential"])
@pytest.mark.parametrize("name", CASES)
def test_estimates_are_unbiased(name, shape, draw):
    """Within 5 standard errors of the mean of 4,000 tables, whatever the distribution of the terms."""
    got = estimates(tables(CASES[name], shape, 4000, draw=draw))
    sigma = got.std(axis=0) / math.sqrt(len(got))
    assert (abs(got.mean(axis=0) - truth(CASES[name], shape[2])) < 5 * sigma).all()


def test_the_unbiased_would_notice():
    """Negative control: mean squares taken for variances, without solving for them, are far off."""
    squares = module._mean_squares(tables(CASES["equal"], n=4000))[0] / [8, 8, 1]
    sigma = squares.std(axis=0) / math.sqrt(len(squares))
    assert (abs(squares.mean(axis=0) - truth(CASES["equal"], 1)) > 5 * sigma)[:2].all()


def test_a_table_by_hand():
    """Effects of rows +-2, of columns +-1 and interaction +-0.5: mean squares are 4 times 4, 1 and 1/4."""
    y = 7 + np.array([[2, 2], [-2, -2]]) + [[1, -1], [1, -1]] + 0.5 * np.array([[1, -1], [-1, 1]])
    result = components(y, rng=0)
    np.testing.assert_allclose(result.mean_squares, [16, 4, 1])
    np.testing.assert_allclose(result.variance, [7.5, 1.5, 1])
    np.testing.assert_allclose(result.share, [0.75, 0.15, 0.1])
    assert result.degrees.tolist() == [1, 1, 1]
    assert result.ratio == pytest.approx(5)
    assert result.terms == ("data", "initialization", "rest")


def test_repetitions_tell_interaction_and_batches_apart():
    y = np.random.default_rng(0).normal(size=(5, 4, 3))
    result = components(y, rng=0)
    assert result.terms == ("data", "initialization", "interaction", "batch")
    assert result.degrees.tolist() == [4, 3, 12, 40]
    assert result.mean_squares[3] == pytest.approx(y.var(axis=2, ddof=1).mean())
    total = ((result.mean_squares * result.degrees).sum())
    assert total == pytest.approx(((y - y.mean()) ** 2).sum())  # the sums of squares add up
    np.testing.assert_allclose(components(y[..., :1], rng=0).variance, components(y[..., 0], rng=0).variance)


def test_units_and_the_role_of_the_factors():
    y = tables(CASES["data"], n=1)[0, :, :, 0]
    base, scaled, turned = components(y, rng=0), components(100 - 3 * y, rng=0), components(y.T, rng=0)
    np.testing.assert_allclose(scaled.interval, 9 * base.interval)
    np.testing.assert_allclose(scaled.share_interval, base.share_interval)
    np.testing.assert_allclose(scaled.ratio_interval, base.ratio_interval)
    np.testing.assert_allclose(turned.variance, base.variance[[1, 0, 2]])
    assert turned.ratio == pytest.approx(1 / base.ratio)


def test_an_estimate_may_be_negative_but_no_share_or_bound_is():
    y = next(y for y in tables((0, 1, 1, 0)) if components(y, n_draws=10, rng=0).variance[0] < 0)
    result = components(y, rng=0)
    assert result.variance[0] < 0
    assert result.share[0] == result.interval[0, 0] == result.ratio == result.ratio_interval[0] == 0
    assert result.share.sum() == pytest.approx(1)
    assert math.isfinite(result.ratio_interval[1])


def test_a_ratio_that_nothing_is_known_of():
    """Where neither factor has an effect the interval says so: from zero to infinity."""
    y = next(y for y in tables((0, 0, 1, 0)) if (components(y, n_draws=10, rng=0).variance[:2] < 0).all())
    result = components(y, rng=0)
    assert math.isnan(result.ratio)
    assert result.ratio_interval.tolist() == [0, math.inf]


# ---- intervals ----


@pytest.fixture(scope="module", params=[(name, b) for name in CASES for b in (1, 2)], ids=str)
def coverage(request):
    """Shares of 500 tables whose intervals hold the truth: of components, shares, ratio, and one-at-a-time ratio."""
    name, b = request.param
    variances = truth(CASES[name], b)
    ratio = variances[0] / variances[1]
    holds = {"interval": [], "share": [], "ratio": [], "one": []}
    for seed, y in enumerate(tables(CASES[name], (8, 8, b), rng=7)):
        result = components(y, n_draws=1000, rng=seed)
        for kind, interval, value in (
            ("interval", result.interval, variances), ("share", result.share_interval, variances / variances.sum()),
            ("ratio", result.ratio_interval, ratio), ("one", one_at_a_time(y).ratio_interval, ratio),
        ):
            holds[kind].append((interval[..., 0] <= value) & (value <= interval[..., 1]))
    return name, {kind: np.mean(value, axis=0) for kind, value in holds.items()}


def test_intervals_hold_the_truth(coverage):
    """95 % of them, give or take 3: three standard errors of 500 tables."""
    name, shares = coverage
    for kind in ("interval", "share", "ratio"):
        assert (shares[kind] >= 0.92).all(), (name, kind, shares[kind])
        assert (shares[kind] <= 0.98).all(), (name, kind, shares[kind])


def test_one_at_a_time_does_not(coverage):
    """Negative control: where the ratio is far from one, the usual design's interval misses it every other time."""
    name, shares = coverage
    if name == "initialization":
        assert shares["one"] < 0.7


def test_one_at_a_time_is_about_another_ratio():
    """Its variances contain the interaction and the batches: expectations within 5 sigma, the ratio pulled to one."""
    a, b, g, e = CASES["initialization"]
    y = tables(CASES["initialization"], (8, 8, 2), 4000)
    results = [one_at_a_time(table) for table in y]
    for name, value in (("data", a), ("initialization", b)):
        got = np.array([getattr(result, name) for result in results])
        assert abs(got.mean() - (value + g + e)) < 5 * got.std() / math.sqrt(len(got))
    pulled = (a + g + e) / (b + g + e)
    held = np.mean([r.ratio_interval[0] <= pulled <= r.ratio_interval[1] for r in results])
    assert held == pytest.approx(0.95, abs=0.015)  # about that ratio the interval is right
    assert a / b < 0.25 * pulled


def test_one_at_a_time_by_hand():
    y = np.array([[1.0, 3.0, 5.0], [2.0, 99, -99], [3.0, 99, 99]])
    result = one_at_a_time(y)
    assert (result.data, result.initialization, result.ratio) == (1, 4, 0.25)
    np.testing.assert_allclose(result.ratio_interval, [0.25 / 39, 0.25 * 39])  # F(2, 2) at 0.975 is 39
    assert one_at_a_time([[1.0, 1.0], [2.0, 3.0]]).ratio == math.inf


def test_tails_heavier_than_gaussian_make_the_intervals_too_narrow():
    """What the docstring warns of: exponential terms; the logarithm of a quantity that varies by factors repairs it."""
    variances = np.array(CASES["data"])
    held = {"exponential": [], "log": []}
    for seed, (skewed, y) in enumerate(zip(tables(variances, draw="standard_exponential", n=300),
                                           np.exp(tables(variances, n=300)), strict=True)):
        for kind, table in (("exponential", skewed), ("log", np.log(y))):
            low, high = components(table, n_draws=1000, rng=seed).interval[0]
            held[kind].append(low <= variances[0] <= high)
    assert np.mean(held["exponential"]) < 0.88
    assert np.mean(held["log"]) > 0.91


# ---- resampling ----


def test_resampling_is_about_the_estimates():
    """Its mean is the estimate itself, within 5 standard errors of 20,000 draws."""
    y = tables(CASES["equal"], (6, 9, 1), 1)[0]
    draws = pigeonhole(y, n_draws=20_000, rng=0)
    sigma = draws.std(axis=0) / math.sqrt(len(draws))
    assert (abs(draws.mean(axis=0) - components(y, rng=0).variance) < 5 * sigma).all()
    np.testing.assert_array_equal(pigeonhole(y, n_draws=100, rng=1), pigeonhole(y[..., 0], n_draws=100, rng=1))


def test_resampling_and_intervals_agree_where_the_terms_are_gaussian():
    """On 40 x 40 tables, enough levels for either: bounds of the data's variance within a factor of 1.5."""
    for y in tables(CASES["equal"], (40, 40, 1), 3):
        low, high = np.quantile(pigeonhole(y, n_draws=1000, rng=0)[:, 0], [0.025, 0.975])
        bounds = components(y, rng=0).interval[0]
        assert 1 / 1.5 < low / bounds[0] < 1.5
        assert 1 / 1.5 < high / bounds[1] < 1.5


# ---- randomness and input ----


@pytest.mark.usefixtures("global_random_state")
def test_same_seed_same_result():
    y = tables(CASES["equal"], n=1)[0]
    first, again, other = (components(y, rng=seed) for seed in (0, np.random.default_rng(0), 1))
    np.testing.assert_array_equal(first.interval, again.interval)
    assert (first.interval != other.interval).any()
    np.testing.assert_allclose(first.interval, other.interval, rtol=0.1)
    np.testing.assert_array_equal(pigeonhole(y, rng=3), pigeonhole(y, rng=3))


@pytest.mark.parametrize("function", [components, one_at_a_time, pigeonhole])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(5), r"y must have shape \(n_data, n_initializations\).*; got \(5,\)"),
        (np.zeros((1, 5)), r"at least two draws of the data and two initializations; got \(1, 5\)"),
        (np.zeros((5, 1, 3)), r"got \(5, 1, 3\)"),
        (np.zeros((5, 5, 0)), r"got \(5, 5, 0\)"),
        ([[1, 2], [3, math.nan]], "y has 1 values that are not finite"),
        (np.ones((3, 3)), "y must vary; all its values are equal"),
    ],
    ids=str,
)
def test_bad_tables(function, y, message):
    with pytest.raises(ValueError, match=message):
        function(y, **({} if function is one_at_a_time else {"rng": 0}))


@pytest.mark.parametrize("function", [components, pigeonhole])
def test_bad_number_of_draws(function):
    with pytest.raises(ValueError, match="n_draws must be a positive integer; got 0"):
        function([[1, 2], [3, 5]], n_draws=0, rng=0)
