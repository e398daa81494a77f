"""Components of variance: unbiased, in intervals that hold the truth, and what the usual design makes of them."""

import math

import numpy as np
import pytest

from dfaccel.study import components as module
from dfaccel.study.components import components, one_at_a_time, pigeonhole

CASES = {"equal": (1, 1, 0.5, 0.5), "data": (4, 1, 0.3, 0.2), "initialization": (0.1, 1, 0.3, 0.2),
         "small": (0.1, 0.1, 0.5, 0.5)}  # variances of data, initialization, interaction and batch order


def tables(variances, shape=(8, 8, 1), n=500, rng=0, draw="standard_normal"):
    """Synthetic tables (n, D, I, B) of independent terms with these variances."""
    rng, (d, i, b) = np.random.default_rng(rng), shape
    sizes = [(n, d, 1, 1), (n, 1, i, 1), (n, d, i, 1), (n, d, i, b)]
    return 3 + sum(math.sqrt(v) * getattr(rng, draw)(size=size) for v, size in zip(variances, sizes, strict=True))


def truth(variances, b):
    """Variances of the terms that a table with b orders of the batches tells apart."""
    return np.array(variances if b > 1 else [*variances[:2], variances[2] + variances[3]], float)


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 2), (3, 7, 4)], ids=str)
@pytest.mark.parametrize("draw", ["standard_normal", "standard_exponential"])
@pytest.mark.parametrize("name", CASES)
def test_estimates_are_unbiased(name, shape, draw):
    """Within 5 standard errors of the mean of 4,000 tables, whatever the distribution of the terms."""
    y, expected = tables(CASES[name], shape, 4000, draw=draw), truth(CASES[name], shape[2])
    squares = module._mean_squares(y)[0]
    got = squares @ module._solution(*shape).T
    assert (abs(got.mean(axis=0) - expected) < 5 * got.std(axis=0) / math.sqrt(4000)).all()
    naive = squares[:, 0] / (shape[1] * shape[2])  # negative control: mean squares taken for variances
    if name == "equal" and shape == (8, 8, 1):
        assert abs(naive.mean() - expected[0]) > 5 * naive.std() / math.sqrt(4000)


def test_a_table_by_hand():
    """Effects of rows +-2, of columns +-1 and interaction +-0.5: mean squares are 4 times 4, 1 and 1/4."""
    y = 7 + np.array([[2, 2], [-2, -2]]) + [[1, -1], [1, -1]] + 0.5 * np.array([[1, -1], [-1, 1]])
    result = components(y, rng=0)
    np.testing.assert_allclose(module._mean_squares(y[..., None])[0], [16, 4, 1])
    np.testing.assert_allclose(result.variance, [7.5, 1.5, 1])
    np.testing.assert_allclose(result.share, [0.75, 0.15, 0.1])
    assert result.ratio == pytest.approx(5)
    assert result.terms == ("data", "initialization", "rest")


def test_repetitions_tell_interaction_and_batches_apart():
    y = np.random.default_rng(0).normal(size=(5, 4, 3))
    result, (mean_squares, degrees) = components(y, rng=0), module._mean_squares(y)
    assert result.terms == ("data", "initialization", "interaction", "batch")
    assert degrees.tolist() == [4, 3, 12, 40]
    assert result.variance[3] == pytest.approx(y.var(axis=2, ddof=1).mean())
    assert (mean_squares * degrees).sum() == pytest.approx(((y - y.mean()) ** 2).sum())  # the sums of squares add up
    np.testing.assert_allclose(components(y[..., :1], rng=0).variance, components(y[..., 0], rng=0).variance)


def test_units_and_the_role_of_the_factors():
    y = tables(CASES["data"], n=1)[0, :, :, 0]
    base, scaled, turned = (components(table, rng=0) for table in (y, 100 - 3 * y, y.T))
    np.testing.assert_allclose(scaled.interval, 9 * base.interval)
    np.testing.assert_allclose(scaled.share_interval, base.share_interval)
    np.testing.assert_allclose(scaled.ratio_interval, base.ratio_interval)
    np.testing.assert_allclose(turned.variance, base.variance[[1, 0, 2]])
    assert turned.ratio == pytest.approx(1 / base.ratio)


def test_an_estimate_may_be_negative_but_no_share_or_bound_is():
    y = next(y for y in tables((0, 1, 1, 0)) if components(y, n_draws=10, rng=0).variance[0] < 0)
    result = components(y, rng=0)
    assert result.share[0] == result.interval[0, 0] == result.ratio == result.ratio_interval[0] == 0
    assert result.share.sum() == pytest.approx(1)
    assert math.isfinite(result.ratio_interval[1])
    # where neither factor has an effect nothing is known of the ratio, and the interval says so
    y = next(y for y in tables((0, 0, 1, 0)) if (components(y, n_draws=10, rng=0).variance[:2] < 0).all())
    result = components(y, rng=0)
    assert math.isnan(result.ratio)
    assert result.ratio_interval.tolist() == [0, math.inf]


@pytest.mark.parametrize("b", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_intervals_hold_the_truth(name, b):
    """95 % of them, give or take 3: three standard errors of 500 tables."""
    variances = truth(CASES[name], b)
    values, holds = [variances, variances / variances.sum(), *[variances[0] / variances[1]] * 2], []
    for seed, y in enumerate(tables(CASES[name], (8, 8, b), rng=7)):
        result = components(y, n_draws=1000, rng=seed)
        intervals = result.interval, result.share_interval, result.ratio_interval, one_at_a_time(y).ratio_interval
        holds.append(np.hstack([(bounds[..., 0] <= value) & (value <= bounds[..., 1])
                                for bounds, value in zip(intervals, values, strict=True)]))
    *shares, usual = np.mean(holds, axis=0)
    assert 0.92 <= min(shares) <= max(shares) <= 0.98
    if name == "initialization":  # negative control: far from one the usual design's misses the ratio every other time
        assert usual < 0.7


def test_one_at_a_time_is_about_another_ratio():
    """Its variances contain the interaction and the batches: expectations within 5 sigma, the ratio pulled to one."""
    a, b, g, e = CASES["initialization"]
    results = [one_at_a_time(table) for table in tables(CASES["initialization"], (8, 8, 2), 4000)]
    got = np.array([(result.data, result.initialization) for result in results])
    assert (abs(got.mean(axis=0) - [a + g + e, b + g + e]) < 5 * got.std(axis=0) / math.sqrt(len(got))).all()
    pulled = (a + g + e) / (b + g + e)
    held = np.mean([r.ratio_interval[0] <= pulled <= r.ratio_interval[1] for r in results])
    assert held == pytest.approx(0.95, abs=0.015)  # about that ratio the interval is right
    assert a / b < 0.25 * pulled


def test_one_at_a_time_by_hand():
    result = one_at_a_time([[1.0, 3.0, 5.0], [2.0, 99, -99], [3.0, 99, 99]])
    assert (result.data, result.initialization, result.ratio) == (1, 4, 0.25)
    np.testing.assert_allclose(result.ratio_interval, [0.25 / 39, 0.25 * 39])  # F(2, 2) at 0.975 is 39
    assert one_at_a_time([[1.0, 1.0], [2.0, 3.0]]).ratio == math.inf


def test_tails_heavier_than_gaussian_make_the_intervals_too_narrow():
    """What the docstring warns of: exponential terms; the logarithm of a quantity that varies by factors repairs it."""
    case = CASES["data"]
    for draw, change, low, high in (("standard_exponential", np.array, 0, 0.88), ("standard_normal", np.log, 0.91, 1)):
        found = tables(case, draw=draw, n=300) if change is np.array else np.exp(tables(case, draw=draw, n=300))
        bounds = np.array([components(change(y), n_draws=1000, rng=k).interval[0] for k, y in enumerate(found)])
        assert low < np.mean((bounds[:, 0] <= case[0]) & (case[0] <= bounds[:, 1])) < high


def test_resampling_is_about_the_estimates_and_agrees_with_the_intervals():
    """Its mean is the estimate, within 5 standard errors; on 40 x 40 Gaussian tables bounds within a factor of 1.5."""
    y = tables(CASES["equal"], (6, 9, 1), 1)[0]
    draws = pigeonhole(y, n_draws=20_000, rng=0)
    sigma = draws.std(axis=0) / math.sqrt(len(draws))
    assert (abs(draws.mean(axis=0) - components(y, rng=0).variance) < 5 * sigma).all()
    np.testing.assert_array_equal(pigeonhole(y, n_draws=100, rng=1), pigeonhole(y[..., 0], n_draws=100, rng=1))

    for y in tables(CASES["equal"], (40, 40, 1), 3):
        ratio = np.quantile(pigeonhole(y, n_draws=1000, rng=0)[:, 0], [0.025, 0.975]) / components(y, rng=0).interval[0]
        assert ((ratio > 1 / 1.5) & (ratio < 1.5)).all()


@pytest.mark.usefixtures("global_random_state")
def test_same_seed_same_result():
    y = tables(CASES["equal"], n=1)[0]
    first, again, other = (components(y, rng=seed) for seed in (0, np.random.default_rng(0), 1))
    np.testing.assert_array_equal(first.interval, again.interval)
    assert (first.interval != other.interval).any()
    np.testing.assert_allclose(first.interval, other.interval, rtol=0.1)
    np.testing.assert_array_equal(pigeonhole(y, rng=3), pigeonhole(y, rng=3))


@pytest.mark.parametrize(("y", "message"), [
    (np.zeros(5), r"y must have shape \(n_data, n_initializations\).*; got \(5,\)"),
    (np.zeros((1, 5)), r"at least two draws of the data and two initializations; got \(1, 5\)"),
    (np.zeros((5, 1, 3)), r"got \(5, 1, 3\)"),
    (np.zeros((5, 5, 0)), r"got \(5, 5, 0\)"),
    ([[1, 2], [3, math.nan]], "y has 1 values that are not finite"),
    (np.ones((3, 3)), "y must vary; all its values are equal"),
], ids=str)
def test_bad_input(y, message):
    for function in (components, pigeonhole):
        with pytest.raises(ValueError, match=message):
            function(y, rng=0)
        with pytest.raises(ValueError, match="n_draws must be a positive integer; got 0"):
            function([[1, 2], [3, 5]], n_draws=0, rng=0)
    with pytest.raises(ValueError, match=message):
        one_at_a_time(y)
