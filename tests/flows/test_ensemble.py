"""Ensembles: a normalized density in the user's units, exact symmetries, samples that follow it."""

import math

import numpy as np
import pytest
import torch

import dfaccel as da
from dfaccel.flows.ensemble import in_threads

KINDS = ["linear", *(name + end for name in ("radial", "axisymmetric", "spherical") for end in ("", "-reversal"))]


@pytest.fixture(params=KINDS, scope="module")
def model(request, ensemble):
    """An ensemble of two flows in each kind of coordinates."""
    return ensemble(request.param.removesuffix("-reversal"), time_reversal=request.param.endswith("-reversal"))


@pytest.fixture(scope="module")
def stars():
    """Stars of a Plummer sphere."""
    return da.Plummer().sample(300, rng=11)


def test_density_is_normalized(model, proposal):
    """Importance sampling with N = 100,000: the mean weight is one within 5 standard errors, each below 6 %."""
    w, log_q = proposal(100_000, rng=5)
    for log_f in (model.log_df(w), *model.members_log_df(w)):
        weight = np.exp(log_f - log_q)
        error = weight.std() / math.sqrt(len(w))
        assert error < 0.06
        assert abs(weight.mean() - 1) < 5 * error
        assert abs(np.exp(0.4) * weight.mean() - 1) > 5 * error  # negative control: ln f off by 0.4


def test_samples_follow_the_density(model, ensemble, proposal):
    """Means of bounded features over samples and by importance sampling agree within 5 sigma of both together."""
    drawn, (w, log_q) = model.sample(40_000, rng=1), proposal(100_000, rng=2)
    other = ensemble(model.coordinates.name, time_reversal=model.coordinates.time_reversal, seed=7)

    def features(w):
        (r, v_r, v_t), x, v = da.spherical(w), w[:, :3], w[:, 3:]
        return np.column_stack([np.tanh(w), np.tanh(np.log(r)), np.tanh(v_r), v_t < 0.3, r < 0.5, x[:, 2] > 0,
                                np.tanh(x[:, 0] * v[:, 1]), np.abs(w) < 0.4])

    def sigmas(model):
        weight = np.exp(model.log_df(w) - log_q)[:, None]
        expected, got = (weight * features(w)).mean(0), features(drawn).mean(0)
        variance = (weight * features(w)).var(0) / len(w) + features(drawn).var(0) / len(drawn)
        return np.abs(got - expected) / np.sqrt(variance)

    assert sigmas(model).max() < 5
    assert sigmas(other).max() > 5  # negative control: another ensemble's density


def in_float64(model):
    """The members' ln f computed without single precision, from the definition of the density."""
    networks = model.layout.networks(model.theta.double())

    def log_f(w):
        y, log_jacobian = model.coordinates.forward(torch.from_numpy(w))
        y = ((y - model.mean) / model.std).expand(model.n_flows, -1, -1)
        flipped = torch.stack([model.layout.log_prob(networks, (y * sign).mT) for sign in model.coordinates.flips])
        mean = torch.logsumexp(flipped, 0) - math.log(len(flipped))
        return (mean - model.std.log().sum() + log_jacobian).numpy()

    return log_f


def test_score_is_the_gradient(model, stars):
    """Central differences of the members' ln f in float64, so that their step can be small."""
    w, step = stars[:60], 1e-5
    log_f, score = model.members_score(w)
    np.testing.assert_allclose(log_f, model.members_log_df(w), rtol=1e-6, atol=1e-5)
    double = in_float64(model)
    numerical = np.stack([(double(w + step * e) - double(w - step * e)) / (2 * step) for e in np.eye(6)], axis=-1)
    scale = np.linalg.norm(numerical, axis=-1, keepdims=True)
    assert (np.abs(score - numerical) / (1 + scale)).max() < 2e-4


def test_ensemble_is_the_mean_density_of_its_members(model, stars):
    members = model.members_log_df(stars)
    np.testing.assert_allclose(np.exp(model.log_df(stars)), np.exp(members).mean(0), rtol=1e-10)
    np.testing.assert_allclose(members, in_float64(model)(stars), rtol=1e-5, atol=1e-4)
    _, scores = model.members_score(stars)
    share = np.exp(members) / np.exp(members).sum(0)
    np.testing.assert_allclose(model.score(stars), (share[..., None] * scores).sum(0), rtol=1e-5, atol=1e-5)
    assert np.abs(model.score(stars) - scores.mean(0)).max() > 1e-3  # negative control: not the mean of the scores
    for k in (0, 1, -1):
        one = model.member(k)
        assert one.n_flows == 1
        np.testing.assert_allclose(one.log_df(stars), members[k], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(one.score(stars), scores[k], rtol=1e-4, atol=1e-4)


def test_symmetry_is_exact(model, stars):
    """To rounding in single precision, the flow's own; a symmetry not imposed does not hold."""
    matrix, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    about_z = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    name = model.coordinates.name
    for element, imposed in (
        (np.kron(np.eye(2), matrix), name == "spherical"),
        (np.kron(np.eye(2), about_z), name in ("spherical", "axisymmetric")),
        (np.diag([1, 1, -1, 1, 1, -1]), name in ("spherical", "axisymmetric")),
        (np.diag([1, 1, 1, -1, -1, -1]), model.coordinates.time_reversal),
    ):
        difference = np.abs(model.log_df(stars @ element) - model.log_df(stars)).max()
        assert difference < 2e-4 if imposed else difference > 1e-2, element


@pytest.mark.parametrize("coordinates", ["radial", "axisymmetric", "spherical"])
def test_singular_points_have_density_zero_or_a_finite_one(ensemble, coordinates):
    """Where the coordinates of a symmetry are singular ln f is its limit -inf, never NaN; elsewhere it is finite."""
    model = ensemble(coordinates)
    at_rest, radial = [1.0, 0, 0, 0, 0, 0], [1.0, 0, 0, 0.3, 0, 0]
    on_axis, centre = [0, 0, 1.0, 0.1, 0, 0.2], [0, 0, 0, 0.1, 0.2, 0.3]
    singular = {"radial": [], "axisymmetric": [on_axis, centre], "spherical": [at_rest, radial, centre]}[coordinates]
    for w in (at_rest, radial, on_axis, centre):
        value, score = model.log_df(np.array([w])), model.score(np.array([w]))
        assert np.isneginf(value).all() if w in singular else np.isfinite(value).all(), w
        assert np.isnan(score).all() if w in singular else np.isfinite(score).all(), w


def test_results_are_numpy_float64_and_repeatable(model, stars):
    for result, shape in (
        (model.log_df(stars), (300,)), (model.score(stars), (300, 6)), (model.sample(7, rng=0), (7, 6))
    ):
        assert (result.shape, result.dtype) == (shape, np.float64)
    np.testing.assert_array_equal(model.sample(7, rng=3), model.sample(7, rng=np.random.default_rng(3)))
    assert (model.sample(7, rng=3) != model.sample(7, rng=4)).all()


def test_a_long_table_is_evaluated_as_its_rows_are(ensemble):
    model, w, rows = ensemble(n_flows=3), da.Plummer().sample(9001, rng=0), np.array([0, 2729, 2730, 2731, 9000])
    np.testing.assert_allclose(model.log_df(w)[rows], model.log_df(w[rows]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.score(w)[rows], model.score(w[rows]), rtol=1e-4, atol=1e-4)


POINTS = [
    (np.ones((1000, 5)), r"w must have shape \(n, 6\), n >= 1; got \(1000, 5\)"),
    (np.ones(6), r"w must have shape \(n, 6\), n >= 1; got \(6,\)"),
    (np.ones((0, 6)), r"w must have shape \(n, 6\), n >= 1; got \(0, 6\)"),
    (np.where(np.arange(120).reshape(20, 6) == 103, np.nan, 1.0), "w has 1 non-finite row, first at index 17"),
    (np.full((4, 6), np.inf), "w has 4 non-finite rows, first at index 0"),
]
METHODS = ("log_df", "score", "members_log_df", "members_score")


@pytest.mark.parametrize(
    ("method", "argument", "error", "sentence"),
    [*((method, w, ValueError, sentence) for method in METHODS for w, sentence in POINTS),
     *(("sample", n, ValueError, f"n must be a positive integer; got {n}") for n in (0, -3)),
     *(("sample", n, TypeError, f"n must be a positive integer; got {n}") for n in (1e3, True)),
     *(("member", k, IndexError, f"k must lie in -2..1; got {k}") for k in (2, -3))],
)
def test_what_is_refused(ensemble, method, argument, error, sentence):
    with pytest.raises(error, match=sentence):
        getattr(ensemble(), method)(argument, **({"rng": 0} if method == "sample" else {}))


def test_stars_lost_to_overflow_are_drawn_again(ensemble):
    wild = ensemble("spherical")
    wild.std[0] = 150.0  # ln r of most stars is then beyond what exp can hold
    stars = wild.sample(500, rng=0)
    assert np.isfinite(stars).all()
    assert len(np.unique(stars[:, 0])) < 500
    wild.mean[0] = 1e6
    with pytest.raises(ValueError, match="none of the 10 stars drawn is finite"):
        wild.sample(10, rng=0)


def test_training_stars_near_a_point_are_counted(ensemble):
    """Within half a scale of the Plummer sphere's centre and far outside, against a count, to a factor of two."""
    model = ensemble("linear")
    stars = da.Plummer().sample(2000, rng=0)[:, :3] / model.coordinates.scale
    points = np.array([[0.0, 0, 0], [0.8, 0, 0], [30.0, 0, 0]])
    near = model.stars_near(points * model.coordinates.scale)
    counted = (np.linalg.norm(stars[None] - points[:, None], axis=2) < 0.5).sum(1)
    assert (np.abs(np.log2(near[:2] / counted[:2])) < 1).all()
    assert near[2] < 1


def test_threads_change_no_bit_and_are_left_as_they_were(ensemble):
    model, w = ensemble("radial"), da.Plummer().sample(9000, rng=1)
    before = torch.get_num_threads()
    try:
        found = []
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append((*model.members_score(w), model.members_log_df(w)))
            with pytest.raises(ZeroDivisionError):
                in_threads(lambda chunk: 1 / 0, (torch.zeros(1), torch.zeros(1)))
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
