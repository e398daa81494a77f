"""Components of variance: the maximum of the likelihood, intervals that hold the truth, and the usual design."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import optimize, stats

from dfaccel.study.components import components, one_at_a_time, pigeonhole
from dfaccel.study.reml import Likelihood

CASES = {"equal": (1, 1, 0.5, 0.5), "data": (4, 1, 0.3, 0.2), "initialization": (0.1, 1, 0.3, 0.2),
         "small": (0.1, 0.1, 0.5, 0.5)}  # variances of data, initialization, interaction and batch order
ALLOWED = stats.chi2.ppf(0.95, 1)


def tables(variances, shape=(8, 8, 1), n=500, rng=0, draw=np.random.Generator.standard_normal):
    """Synthetic tables (n, D, I, B) of independent terms with these variances."""
    rng, (d, i, b) = np.random.default_rng(rng), shape
    sizes = [(n, d, 1, 1), (n, 1, i, 1), (n, d, i, 1), (n, d, i, b)]
    return 3 + sum(math.sqrt(v) * draw(rng, size=size) for v, size in zip(variances, sizes, strict=True))


def t3(rng, size):
    """Student's t with three degrees of freedom, of unit variance."""
    return rng.standard_t(3, size) / math.sqrt(3)


def sparse(y, k):
    """Leave draw d the initializations d, ..., d + k - 1, cyclic; of tables (n, D, I, B)."""
    d, i = y.shape[1:3]
    there = (np.arange(i) - np.arange(d)[:, None]) % i < k
    return np.where(there[..., None], y, np.nan)


def truth(variances, b=1):
    """Variances of the terms that a table with b orders of the batches tells apart."""
    return np.array(variances if b > 1 else [*variances[:2], variances[2] + variances[3]], float)


def mean_squares(y):
    """Estimates from the mean squares of a complete table (D, I, B), as textbooks have them."""
    d, i, b = y.shape
    cell, row, column = y.mean(2), y.mean((1, 2)), y.mean((0, 2))
    within = ((y - cell[..., None]) ** 2).sum() / (d * i * (b - 1)) if b > 1 else 0
    both = b * ((cell - row[:, None] - column + y.mean()) ** 2).sum() / ((d - 1) * (i - 1))
    effects = [(i * b * row.var(ddof=1) - both) / (i * b), (d * b * column.var(ddof=1) - both) / (d * b)]
    return np.array([*effects, (both - within) / b, within] if b > 1 else [*effects, both])


def dense(y):
    """Restricted -2 ln likelihood of the variances, from the covariance matrix of all flows, and its derivatives."""
    y = y[..., None] if y.ndim == 2 else y
    d, i, _ = np.nonzero(np.isfinite(y))
    values, same = y[np.isfinite(y)], [np.equal.outer(d, d), np.equal.outer(i, i)]
    if y.shape[2] > 1:
        same.append(same[0] & same[1])
    parts = [part.astype(float) for part in (*same, np.eye(len(d)))]

    def deviance(variances):
        inverse = np.linalg.inv(sum(v * part for v, part in zip(variances, parts, strict=True)))
        weights = inverse.sum(1)
        projection = inverse - np.outer(weights, weights) / weights.sum()
        residual = projection @ values
        gradient = [(projection * part).sum() - residual @ part @ residual for part in parts]
        return values @ residual - np.linalg.slogdet(inverse)[1] + math.log(weights.sum()), np.array(gradient)

    return deviance


def least(deviance, start, held=None, level=0.0):
    """Least deviance, and where, over variances zero or positive, with a linear combination of them held."""
    scale = start.sum()

    def scaled(v):
        value, gradient = deviance(v * scale)
        return value, gradient * scale

    equal = {"type": "eq", "fun": lambda v: held @ v - level / scale, "jac": lambda v: held}
    bounds = [(0, None)] * (len(start) - 1) + [(1e-6, None)]
    found = optimize.minimize(scaled, np.maximum(start / scale, 0.01), jac=True, method="SLSQP", bounds=bounds,
                              options={"maxiter": 1000, "ftol": 1e-12}, constraints=() if held is None else equal)
    assert found.success
    assert held is None or abs(held @ found.x - level / scale) < 1e-6
    return found.fun, found.x * scale


def holey(shape, missing, rng=0, variances=(1, 0.5, 0.5, 0.5)):
    """One table with pairs missing."""
    y = tables(variances, shape, 1, rng)[0]
    y[tuple(np.transpose(missing))] = np.nan
    return y


TABLES = {
    "complete": tables(CASES["equal"], n=1)[0],
    "oblong": tables(CASES["data"], (4, 7, 1), n=1, rng=1)[0],
    "cyclic": sparse(tables(CASES["equal"], (7, 7, 1), 1, rng=2), 3)[0],
    "irregular": holey((6, 5, 1), [(0, 1), (2, 2), (2, 3), (5, 0), (4, 4)]),
    "a single flow of a level": holey((4, 4, 1), [(0, 1), (0, 2), (0, 3)], rng=4),
    "repeated": tables(CASES["equal"], (5, 6, 3), n=1, rng=3)[0],
    "repeated and irregular": holey((5, 4, 2), [(0, 1), (3, 3)], rng=7),
    "no effect of data": holey((6, 6, 1), [(0, 0)], rng=11, variances=(0, 1, 1, 0)),
    "no interaction": holey((5, 5, 2), [(0, 0)], rng=11, variances=(1, 1, 0, 2)),
}


@pytest.mark.parametrize("name", TABLES)
def test_likelihood_is_that_of_the_dense_covariance_matrix(name):
    """The maximum, and the excess of 3.84 where a quantity is held at an end of its interval, by another optimizer."""
    y = TABLES[name]
    result, deviance = components(y), dense(y)
    lowest, variance = least(deviance, result.variance)
    np.testing.assert_allclose(result.variance, variance, rtol=2e-4, atol=2e-4 * variance.sum())
    assert deviance(np.maximum(result.variance, 1e-12))[0] == pytest.approx(lowest, abs=1e-5)
    unit, held = np.eye(len(variance)), []
    for k, row in enumerate(unit):
        held += [(row, value, value) for value in result.interval[k]]
        held += [(row - share, 0, share) for share in result.share_interval[k]]
    held += [(unit[0] - r * unit[1] if r < np.inf else unit[1], 0, r) for r in result.ratio_interval]
    held += [(1 - unit[1] - r * (1 - unit[0]), 0, r) for r in one_at_a_time(y, whole=True).ratio_interval]
    for combination, level, end in held:
        excess = least(deviance, result.variance, combination, level)[0] - lowest
        assert (-1e-6 if end in (0, 1, np.inf) else ALLOWED - 0.06) < excess < ALLOWED + 0.06, (combination, end)


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 2), (3, 7, 4)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_estimates_are_those_of_mean_squares_where_these_are_positive(name, shape):
    found = tables(CASES[name], shape, 30)
    expected = np.array([mean_squares(y) for y in found])
    positive = (expected > 0).all(1)
    assert positive.sum() > 3
    for y, variance in zip(found[positive], expected[positive], strict=True):
        np.testing.assert_allclose(Likelihood(y).maximum(), variance, rtol=1e-5, atol=1e-6 * variance.sum())


def test_a_table_by_hand():
    """Effects of rows +-2, of columns +-1 and interaction +-0.5: mean squares are 4 times 4, 1 and 1/4."""
    y = 7 + np.array([[2, 2], [-2, -2]]) + [[1, -1], [1, -1]] + 0.5 * np.array([[1, -1], [-1, 1]])
    result = components(y)
    np.testing.assert_allclose(result.variance, [7.5, 1.5, 1], rtol=1e-5)
    np.testing.assert_allclose(result.share, [0.75, 0.15, 0.1], rtol=1e-5)
    assert result.ratio == pytest.approx(5, rel=1e-5)
    assert result.terms == ("data", "initialization", "rest")
    assert components(TABLES["repeated"]).terms == ("data", "initialization", "interaction", "batch")
    once = TABLES["repeated"][..., :1]
    np.testing.assert_array_equal(components(once).interval, components(once[..., 0]).interval)


@pytest.mark.parametrize("name", ["oblong", "cyclic", "irregular", "repeated and irregular", "no effect of data"])
def test_units_order_and_the_role_of_the_factors(name):
    """Another unit and origin, levels in another order, and data exchanged with initialization."""
    y, order = TABLES[name], np.random.default_rng(0)
    base, swap = components(y), [1, 0, *range(2, len(components(y).terms))]
    other = y[order.permutation(len(y))][:, order.permutation(y.shape[1])]
    tolerance = {"rtol": 1e-4, "atol": 1e-6}
    for table, factor in ((100 - 3 * y, 9), (other, 1), (1e6 + 1e-3 * y, 1e-6)):
        result = components(table)
        np.testing.assert_allclose(result.variance / factor, base.variance, **tolerance)
        np.testing.assert_allclose(result.interval / factor, base.interval, **tolerance)
        np.testing.assert_allclose(result.share_interval, base.share_interval, **tolerance)
        np.testing.assert_allclose(result.ratio_interval, base.ratio_interval, **tolerance)
    turned = components(y.swapaxes(0, 1))
    np.testing.assert_allclose(turned.variance, base.variance[swap], **tolerance)
    np.testing.assert_allclose(turned.share_interval, base.share_interval[swap], **tolerance)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(turned.ratio_interval, 1 / base.ratio_interval[::-1], **tolerance)


def test_at_the_boundary():
    """A variance of zero has a ratio of zero or infinity; where both vanish nothing is known of it."""
    found, seen = [components(y) for y in tables((0, 0, 1, 0), n=60)], set()
    for result in found:
        data, initialization = (result.variance[:2] == 0).tolist()
        seen.add((data, initialization))
        assert math.isnan(result.ratio) == (data and initialization)
        assert math.isinf(result.ratio) == (initialization and not data)
        assert (result.ratio == 0) == (data and not initialization)
        assert (result.interval >= 0).all()
        assert result.share.sum() == pytest.approx(1)
        if data and initialization:
            assert result.ratio_interval.tolist() == [0, math.inf]
            assert result.share.tolist() == [0, 0, 1]
    assert len(seen) == 4
    result = components(sparse(tables((0, 1, 0.2, 0), (12, 12, 1), 1), 5)[0])
    assert result.ratio_interval[0] == result.interval[0, 0] == result.share_interval[0, 0] == 0
    assert result.ratio_interval[1] < 1
    tiny = components(tables((1, 2, 1e-8, 0), n=1)[0])  # a rest of a part in 1e8 is found
    assert tiny.interval[2, 0] < 1e-8 < tiny.interval[2, 1] < 2e-8


def held(bounds, value):
    """Share of intervals (n, ..., 2) that hold a value."""
    bounds = np.array(bounds)
    return ((bounds[..., 0] <= value) & (value <= bounds[..., 1])).mean(0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data", "initialization", "small"])
@pytest.mark.parametrize(("shape", "k", "n"), [((8, 8, 1), 8, 200), ((24, 24, 1), 6, 100), ((6, 6, 2), 6, 40)], ids=str)
def test_intervals_hold_the_truth(name, shape, k, n):
    """95 % of them within 5 standard deviations, or more where a variance may be zero; a naive interval does not."""
    variances, sigma = truth(CASES[name], shape[2]), math.sqrt(0.95 * 0.05 / n)
    found = sparse(tables(CASES[name], shape, n, rng=7), k)
    results, ratio = [components(y) for y in found], variances[0] / variances[1]
    least_held = min(held([result.ratio_interval for result in results], ratio),
                     *held([result.share_interval for result in results], variances / variances.sum()),
                     *held([result.interval for result in results], variances))  # fmt: skip
    assert least_held > 0.95 - 5 * sigma
    # negative control: every flow taken for a draw and an initialization of its own
    low, high = stats.f.ppf([0.025, 0.975], *[shape[0] * k - 1] * 2)
    assert held([(result.ratio / high, result.ratio / low) for result in results], ratio) < 0.95 - 5 * sigma
    if shape[2] == 1:
        pulled = (variances.sum() - variances[1]) / (variances.sum() - variances[0])
        assert held([one_at_a_time(y, whole=True).ratio_interval for y in found], pulled) > 0.95 - 5 * sigma


@pytest.mark.slow
def test_with_heavy_tails_resampling_holds_what_the_likelihood_does_not():
    """Student's t with three degrees of freedom for the effects of 32 draws and 32 initializations, 8 of each."""
    n, variances = 120, (1, 1, 0.5, 0)
    sigma = math.sqrt(0.95 * 0.05 / n)
    for draw in (t3, np.random.Generator.standard_normal):
        found = sparse(tables(variances, (32, 32, 1), n, draw=draw), 8)
        likelihood = held([components(y).ratio_interval for y in found], 1)
        assert (likelihood > 0.95 - 5 * sigma) == (draw is not t3)
        drawn = held([pigeonhole(y, n_draws=500, rng=k).ratio_interval for k, y in enumerate(found)], 1)
        assert drawn > 0.95 - 5 * sigma


def test_resampling_is_about_the_estimates_and_agrees_with_the_likelihood():
    """The same estimates, and on tables of many Gaussian levels ends within a factor of 1.5."""
    for y in sparse(tables(CASES["equal"], (60, 60, 1), 3), 20):
        result, drawn = components(y), pigeonhole(y, rng=0)
        np.testing.assert_array_equal(drawn.variance, result.variance)
        np.testing.assert_array_less(abs(np.log(drawn.interval / result.interval)), math.log(1.5))
        np.testing.assert_array_less(abs(np.log(drawn.ratio_interval / result.ratio_interval)), math.log(1.5))
    averaged = pigeonhole(TABLES["repeated"].mean(2), rng=1)
    np.testing.assert_array_equal(pigeonhole(TABLES["repeated"], rng=1).share_interval, averaged.share_interval)


@pytest.mark.parametrize("name", ["oblong", "cyclic", "irregular", "no effect of data"])
def test_sums_of_squares_of_the_resampling_are_those_of_the_dense_matrix(name):
    """Sums over rows, columns and pairs of what the projection leaves, and what they are on average."""
    y = TABLES[name]
    likelihood, (d, i, _) = Likelihood(y), np.nonzero(np.isfinite(y))
    variance = likelihood.maximum()
    parts = [np.equal.outer(d, d), np.equal.outer(i, i), np.eye(len(d))]
    inverse = np.linalg.inv(sum(v * part for v, part in zip(variance, parts, strict=True)))
    projection = inverse - np.outer(inverse.sum(1), inverse.sum(1)) / inverse.sum()
    residual = projection @ y[np.isfinite(y)]
    sums, expected = likelihood.quadratic_forms(variance)
    np.testing.assert_allclose([v.sum() for v in sums], [residual @ part @ residual for part in parts], rtol=1e-6)
    traces = [[np.trace(projection @ a @ projection @ b) for b in parts] for a in parts]
    np.testing.assert_allclose(expected, traces, rtol=1e-6, atol=1e-9)
    solved = np.linalg.solve(expected, [v.sum() for v in sums])
    if (variance > 0).all():
        np.testing.assert_allclose(solved, variance, rtol=1e-4)


def test_one_at_a_time_is_about_another_ratio():
    """Its variances contain the interaction and the batches: expectations within 5 sigma, the ratio pulled to one."""
    a, b, g, e = CASES["initialization"]
    found = tables(CASES["initialization"], (8, 8, 2), 4000)
    pulled = (a + g + e) / (b + g + e)
    results = [one_at_a_time(table) for table in found]
    got = np.array([(result.data, result.initialization) for result in results])
    assert (abs(got.mean(axis=0) - [a + g + e, b + g + e]) < 5 * got.std(axis=0) / math.sqrt(len(got))).all()
    about = held([r.ratio_interval for r in results], pulled)
    assert about == pytest.approx(0.95, abs=0.015)  # about that ratio the interval is right
    assert a / b < 0.25 * pulled


def test_one_at_a_time_by_hand():
    table = [[1.0, 3.0, 5.0], [2.0, 99, -99], [3.0, 99, 99]]
    result = one_at_a_time(table)
    assert (result.data, result.initialization, result.ratio) == (1, 4, 0.25)
    np.testing.assert_allclose(result.ratio_interval, [0.25 / 39, 0.25 * 39])  # F(2, 2) at 0.975 is 39
    assert one_at_a_time([[1.0, 1.0], [2.0, 3.0]]).ratio == math.inf
    result = one_at_a_time(table, whole=True)
    assert result.data == pytest.approx(np.var(table, axis=0, ddof=1).mean())
    assert result.initialization == pytest.approx(np.var(table, axis=1, ddof=1).mean())
    y = TABLES["a single flow of a level"][..., 0]
    rows = [row[np.isfinite(row)] for row in y]
    pooled = sum(((row - row.mean()) ** 2).sum() for row in rows) / sum(len(row) - 1 for row in rows)
    assert one_at_a_time(y, whole=True).initialization == pytest.approx(pooled)


@pytest.mark.usefixtures("global_random_state")
def test_same_seed_same_result():
    y = TABLES["cyclic"]
    first, again, other = (pigeonhole(y, rng=seed) for seed in (0, np.random.default_rng(0), 1))
    np.testing.assert_array_equal(first.interval, again.interval)
    assert (first.interval != other.interval).any()
    np.testing.assert_array_equal(components(y).interval, components(y).interval)


def test_a_thousand_flows_of_256_levels():
    """As many flows of every level; or one less, so that the table has no symmetry to make use of."""
    y = sparse(tables(CASES["initialization"], (128, 128, 1), 1), 8)[0]
    lacking = y.copy()
    lacking[3, 4] = np.nan
    results = components(y), components(lacking), pigeonhole(lacking, rng=0)
    for result in results:
        assert 0.02 < result.ratio_interval[0] < 0.1 < result.ratio_interval[1] < 0.3
    np.testing.assert_allclose(results[1].ratio_interval, results[0].ratio_interval, rtol=0.03)


def blocks(*pairs, shape=(4, 4)):
    """A table with flows of these pairs alone."""
    y = np.full(shape, np.nan)
    y[tuple(np.transpose(pairs))] = np.random.default_rng(0).normal(size=len(pairs))
    return y


TWO = [*product((0, 2), (1, 2)), *product((1, 3), (0, 3))]


@pytest.mark.parametrize(("y", "message"), [
    (np.zeros(5), r"y must have shape \(n_data, n_initializations\).*; got \(5,\)"),
    (np.zeros((1, 5)), r"at least two draws of the data and two initializations; got \(1, 5\)"),
    (np.zeros((5, 1, 3)), r"got \(5, 1, 3\)"),
    (np.zeros((5, 5, 0)), r"got \(5, 5, 0\)"),
    ([[1, 2], [3, math.inf]], r"NaN where there is no flow; got an infinite value at \(1, 1, 0\)"),
    ([[[1, 2], [3, 5]], [[7, 8], [1, math.nan]]], r"all 2 flows of a pair or none; the pair \(1, 1\) lacks some"),
    (np.full((3, 3), math.nan), r"there is none of draws \[0, 1, 2\] and initializations \[0, 1, 2\]"),
    ([[1, 2, math.nan], [3, 5, math.nan]], r"flow of every draw and every initialization; there is none of \w+ \[2\]$"),
    (blocks(*TWO), r"they fall into 2 blocks, the first with draws \[0, 2\] and ini\w+ \[1, 2\]$"),
    (np.where(np.eye(5), 1.0, math.nan), r"5 blocks, the first with draws \[0\] and initializations \[0\]$"),
    ([[1, 2], [3, math.nan]], r"as many pairs with flows as levels, 4, .*; it has 3$"),
    (np.ones((3, 3)), "y must vary; all its values are equal"),
    (np.add.outer([1.0, 2, 5], [0, 3, 1]), "y must have a rest besides the effects of its levels; there is none"),
    (np.repeat(np.random.default_rng(0).normal(size=(3, 3, 1)), 2, axis=2), "y must have repetitions that differ"),
], ids=str)
def test_bad_input(y, message):
    with pytest.raises(ValueError, match=message):
        components(y)
    with pytest.raises(ValueError, match=message):
        one_at_a_time(y, whole=True)
    if "repetitions" not in message:
        with pytest.raises(ValueError, match=message):
            pigeonhole(y, rng=0)


def test_bad_arguments():
    with pytest.raises(ValueError, match="n_draws must be a positive integer; got 0"):
        pigeonhole(TABLES["complete"], n_draws=0, rng=0)
    with pytest.raises(ValueError, match="y must be complete unless whole is True; 5 of 30 flows are missing"):
        one_at_a_time(TABLES["irregular"])
