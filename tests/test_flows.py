"""Flows: the same numbers as nflows, a normalized density in user units, exact symmetries, samples that follow it."""

import math

import numpy as np
import pytest
import torch

import dfaccel as da
from dfaccel.flows import ACTIVATIONS, Layout

SHAPES = [(1, 4, 1, 3), (3, 8, 2, 5), (5, 16, 1, 6), (2, 33, 3, 2)]
KINDS = {
    "linear": {"position_map": "linear"},
    "radial": {},
    "radial-reversal": {"time_reversal": True},
    "disc": {"symmetry": "axisymmetric"},
    "disc-reversal": {"symmetry": "axisymmetric", "time_reversal": True},
    "sphere": {"symmetry": "spherical"},
    "sphere-reversal": {"symmetry": "spherical", "time_reversal": True},
}


@pytest.fixture(params=KINDS, scope="module")
def model(request, ensemble):
    """An ensemble of two flows in each kind of coordinates."""
    return ensemble(**KINDS[request.param])


@pytest.fixture(scope="module")
def stars():
    """Stars of a Plummer sphere."""
    return da.Plummer().sample(300, rng=11)


def build(shape, activation, dtype=torch.float64):
    """A layout, the parameters of two flows, and the same two as nflows modules."""
    n_transforms, hidden, blocks, features = shape
    spec = da.FlowSpec(n_transforms, hidden, n_blocks=blocks, activation=activation)
    layout = Layout(spec, features)
    theta = layout.initial([1, 2]).to(dtype)
    theta = theta + 0.1 * torch.from_numpy(np.random.default_rng(0).standard_normal(theta.shape)).to(dtype)
    flows = []
    for k in range(2):
        flow = spec.build(features).to(dtype)
        flow.load_state_dict({n: a[k] for n, a in layout.unpack(theta).items()}, strict=False)
        flows.append(flow.eval())
    return layout, theta, flows


# ---- against nflows ----


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_density_and_inverse_are_those_of_nflows(shape, activation):
    layout, theta, flows = build(shape, activation)
    networks = layout.networks(theta)
    y = torch.from_numpy(np.random.default_rng(1).normal(0, 1.5, (2, 50, shape[-1])))
    with torch.no_grad():
        log_prob = layout.log_prob(networks, y.mT)
        inverse = layout.inverse(networks, y.mT).mT
        for k, flow in enumerate(flows):
            torch.testing.assert_close(log_prob[k], flow.log_prob(y[k]), rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(inverse[k], flow._transform.inverse(y[k])[0], rtol=1e-9, atol=1e-9)
            other = flows[1 - k].log_prob(y[k])  # negative control: the other flow is another density
            assert (log_prob[k] - other).abs().max() > 1e-2
    single = layout.log_prob(layout.networks(theta.float()), y.mT.float())
    assert (single - log_prob).abs().max() <= 1e-5 * max(1, log_prob.abs().max())


def test_initialization_is_that_of_nflows_and_differs_by_seed():
    layout = Layout(da.FlowSpec(2, 8), 3)
    theta = layout.initial([4, 5, 4])
    assert torch.equal(theta[0], theta[2])
    assert (theta[0] != theta[1]).any()
    flow = layout.spec.build(3, seed=4)
    assert all(torch.equal(a[0], p) for a, p in zip(layout.unpack(theta).values(), flow.parameters(), strict=True))
    assert layout.n_parameters == layout.spec.n_parameters(3) == sum(p.numel() for p in flow.parameters())


def test_pack_undoes_unpack_and_refuses_what_does_not_fit():
    layout = Layout(da.FlowSpec(2, 8), 3)
    theta = layout.initial([0, 1, 2])
    arrays = layout.unpack(theta)
    assert torch.equal(layout.pack(dict(reversed(arrays.items()))), theta)
    first = next(iter(arrays))
    with pytest.raises(ValueError, match="arrays do not fit the flow specification: 1 names differ, first"):
        layout.pack({n: a for n, a in arrays.items() if n != first})
    with pytest.raises(ValueError, match=r"must have shape \(K, 8, 3\)|must have shape \(K, 8\)"):
        layout.pack(arrays | {first: arrays[first][:, :-1]})


def test_masked_weights_do_not_matter():
    layout = Layout(da.FlowSpec(2, 8), 4)
    theta = layout.initial([0])
    y = torch.randn(1, 4, 20, generator=torch.Generator().manual_seed(0))
    value = layout.log_prob(layout.networks(theta), y)
    masked = torch.where(layout.mask.bool(), theta, theta + 100)
    assert torch.equal(layout.log_prob(layout.networks(masked), y), value)
    assert not layout.mask.all()


# ---- a density in the user's units ----


def test_density_is_normalized(model, proposal):
    """Importance sampling with N = 100,000: the mean weight is one within 5 standard errors, each below 6 %."""
    w, log_q = proposal(100_000, rng=5)
    for log_f in (model.log_prob(w), *model.members_log_prob(w)):
        weight = np.exp(log_f - log_q)
        error = weight.std() / math.sqrt(len(w))
        assert error < 0.06
        assert abs(weight.mean() - 1) < 5 * error
        assert abs(np.exp(0.4) * weight.mean() - 1) > 5 * error  # negative control: ln f off by 0.4


def test_samples_follow_the_density(model, ensemble, proposal):
    """Means of bounded features over samples and by importance sampling agree within 5 sigma of both together."""
    drawn, (w, log_q) = model.sample(40_000, rng=1), proposal(100_000, rng=2)

    def features(w):
        x, v = w[:, :3], w[:, 3:]
        r = np.linalg.norm(x, axis=1)
        across = np.linalg.norm(np.cross(x, v), axis=1) / r
        return np.column_stack([np.tanh(w), np.tanh(np.log(r)), np.tanh((x * v).sum(1) / r), across < 0.3, r < 0.5,
                                x[:, 2] > 0, np.tanh(x[:, 0] * v[:, 1]), np.abs(w) < 0.4])

    def sigmas(model):
        weight = np.exp(model.log_prob(w) - log_q)[:, None]
        expected, got = (weight * features(w)).mean(0), features(drawn).mean(0)
        variance = (weight * features(w)).var(0) / len(w) + features(drawn).var(0) / len(drawn)
        return np.abs(got - expected) / np.sqrt(variance)

    assert sigmas(model).max() < 5
    kind = {"symmetry": model.coordinates.symmetry, "time_reversal": model.coordinates.time_reversal}
    kind |= {"position_map": model.spec.position_map}
    assert sigmas(ensemble(**kind, seed=7)).max() > 5  # negative control: another ensemble's density


def test_score_is_the_gradient(model, stars):
    """Central differences of the members' ln f, in float64 so that their step can be small."""
    w, step = stars[:60], 1e-5
    log_f, score = model.members_score(w)
    np.testing.assert_allclose(log_f, model.members_log_prob(w), rtol=1e-6, atol=1e-5)
    double = ensemble_in_float64(model)
    numerical = np.stack([(double(w + step * e) - double(w - step * e)) / (2 * step) for e in np.eye(6)], axis=-1)
    scale = np.linalg.norm(numerical, axis=-1, keepdims=True)
    assert (np.abs(score - numerical) / (1 + scale)).max() < 2e-4


def ensemble_in_float64(model):
    """The members' ln f computed without single precision, from the definition of the density."""
    networks = model.layout.networks(model.theta.double())

    def log_f(w):
        y, log_jacobian = model.coordinates.forward(torch.from_numpy(w))
        y = ((y - model.mean) / model.std).expand(model.n_flows, -1, -1)
        flipped = torch.stack([model.layout.log_prob(networks, (y * sign).mT) for sign in model.coordinates.flips])
        mean = torch.logsumexp(flipped, 0) - math.log(len(flipped))
        return (mean - model.std.log().sum() + log_jacobian).numpy()

    return log_f


def test_ensemble_is_the_mean_density_of_its_members(model, stars):
    members = model.members_log_prob(stars)
    np.testing.assert_allclose(np.exp(model.log_prob(stars)), np.exp(members).mean(0), rtol=1e-10)
    np.testing.assert_allclose(members, ensemble_in_float64(model)(stars), rtol=1e-5, atol=1e-4)
    _, scores = model.members_score(stars)
    share = np.exp(members) / np.exp(members).sum(0)
    np.testing.assert_allclose(model.score(stars), (share[..., None] * scores).sum(0), rtol=1e-5, atol=1e-5)
    assert np.abs(model.score(stars) - scores.mean(0)).max() > 1e-3  # negative control: not the mean of the scores
    for k in (0, 1, -1):
        one = model.member(k)
        assert one.n_flows == 1
        np.testing.assert_allclose(one.log_prob(stars), members[k], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(one.score(stars), scores[k], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [2, -3])
def test_unknown_member(ensemble, k):
    with pytest.raises(IndexError, match=f"k must lie in -2..1; got {k}"):
        ensemble().member(k)


def test_symmetry_is_exact(model, stars):
    """To rounding in single precision, the flow's own; a symmetry not imposed does not hold."""
    matrix, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    about_z = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    elements = {
        "sphere": lambda w: np.hstack([w[:, :3] @ matrix, w[:, 3:] @ matrix]),
        "disc": lambda w: np.hstack([w[:, :3] @ about_z, w[:, 3:] @ about_z]),
        "reflection": lambda w: w * [1, 1, -1, 1, 1, -1],
        "reversal": lambda w: w * [1, 1, 1, -1, -1, -1],
    }
    symmetry = model.coordinates.symmetry
    imposed = {"spherical": {"sphere", "disc", "reflection"}, "axisymmetric": {"disc", "reflection"}, "none": set()}
    imposed = imposed[symmetry] | ({"reversal"} if model.coordinates.time_reversal else set())
    for name, act in elements.items():
        difference = np.abs(model.log_prob(act(stars)) - model.log_prob(stars)).max()
        assert difference < 2e-4 if name in imposed else difference > 1e-2, name


@pytest.mark.parametrize("symmetry", ["none", "axisymmetric", "spherical"])
def test_units_only_rescale_the_density(ensemble, symmetry):
    """The same flow in other units: 5 times the length and 7 times the speed, hence a density 35^3 times smaller."""
    model = ensemble(symmetry)
    stars = da.Plummer().sample(2000, rng=0)
    units = np.repeat([5.0, 7.0], 3)
    w = stars * units
    rescaled = da.fit(w, spec=da.FlowSpec(1, 4), config=da.TrainConfig(n_epochs=1), symmetry=symmetry, rng=0)
    plain = da.fit(stars, spec=da.FlowSpec(1, 4), config=da.TrainConfig(n_epochs=1), symmetry=symmetry, rng=0)
    np.testing.assert_allclose(rescaled.log_prob(w), plain.log_prob(stars) - 3 * np.log(35), rtol=0, atol=5e-3)
    assert model.coordinates.symmetry == rescaled.coordinates.symmetry


# ---- the outside of it ----


def test_results_are_numpy_float64_and_repeatable(model, stars):
    assert model.log_prob(stars).dtype == model.score(stars).dtype == model.sample(3, rng=0).dtype == np.float64
    assert model.log_prob(stars).shape == (300,)
    assert model.score(stars).shape == (300, 6)
    assert model.sample(7, rng=0).shape == (7, 6)
    np.testing.assert_array_equal(model.sample(7, rng=3), model.sample(7, rng=np.random.default_rng(3)))
    assert (model.sample(7, rng=3) != model.sample(7, rng=4)).all()


def test_a_long_table_is_evaluated_as_its_rows_are(ensemble):
    model = ensemble(n_flows=3)
    w = da.Plummer().sample(9001, rng=0)
    rows = np.array([0, 2729, 2730, 2731, 9000])
    np.testing.assert_allclose(model.log_prob(w)[rows], model.log_prob(w[rows]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.score(w)[rows], model.score(w[rows]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("symmetry", ["none", "axisymmetric", "spherical"])
def test_singular_points_have_density_zero_or_a_finite_one(ensemble, symmetry):
    """Where the coordinates of a symmetry are singular ln f is its limit -inf, never NaN; elsewhere it is finite."""
    model = ensemble(symmetry)
    at_rest, radial = [1.0, 0, 0, 0, 0, 0], [1.0, 0, 0, 0.3, 0, 0]
    on_axis, centre = [0, 0, 1.0, 0.1, 0, 0.2], [0, 0, 0, 0.1, 0.2, 0.3]
    singular = {"none": [], "axisymmetric": [on_axis, centre], "spherical": [at_rest, radial, centre]}[symmetry]
    for w in (at_rest, radial, on_axis, centre):
        value, score = model.log_prob(np.array([w])), model.score(np.array([w]))
        assert np.isneginf(value).all() if w in singular else np.isfinite(value).all(), w
        assert np.isnan(score).all() if w in singular else np.isfinite(score).all(), w


@pytest.mark.usefixtures("global_random_state")
def test_global_random_states_are_left_alone(ensemble):
    stars = da.Plummer().sample(1000, rng=0)
    config = da.TrainConfig(n_epochs=1, batch_size=100, bootstrap=True)
    model = da.fit(stars, n_flows=2, spec=da.FlowSpec(1, 4), config=config, time_reversal=True, rng=1)
    model.sample(5, rng=2)
    model.log_prob(stars)
    model.score(stars)
    da.accelerations(ensemble("spherical"), stars[:2, :3], rng=3)
    da.score_card(da.Plummer(), da.Plummer(), rng=4, n_velocities=10)
    da.kl_divergence(da.Plummer(), model, n=10, rng=5)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"n_transforms": 0}, "n_transforms must be a positive integer; got 0"),
     ({"hidden_features": -1}, "hidden_features must be a positive integer; got -1"),
     ({"n_blocks": 0}, "n_blocks must be a positive integer; got 0"),
     ({"activation": "sine"}, "activation must be one of gelu.*got 'sine'"),
     ({"position_map": "log"}, "position_map must be radial or linear; got 'log'")],
)
def test_bad_specification(values, message):
    with pytest.raises(ValueError, match=message):
        da.FlowSpec(**values)


@pytest.mark.parametrize("method", ["log_prob", "score", "members_log_prob", "members_score"])
@pytest.mark.parametrize(
    ("w", "message"),
    [(np.ones((1000, 5)), r"w must have shape \(n, 6\); got \(1000, 5\)"),
     (np.ones(6), r"w must have shape \(n, 6\); got \(6,\)"),
     (np.ones((0, 6)), "w must have at least one row"),
     (np.where(np.arange(120).reshape(20, 6) == 103, np.nan, 1.0), "w has 1 non-finite row, first at index 17"),
     (np.full((4, 6), np.inf), "w has 4 non-finite rows, first at index 0")],
)
def test_bad_points(ensemble, method, w, message):
    with pytest.raises(ValueError, match=message):
        getattr(ensemble(), method)(w)


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-3, ValueError), (1e3, TypeError), (True, TypeError)])
def test_bad_sample_sizes(ensemble, n, error):
    with pytest.raises(error, match=f"n must be a positive integer; got {n}"):
        ensemble().sample(n, rng=0)


def test_stars_lost_to_overflow_are_drawn_again(ensemble):
    wild = ensemble("spherical")
    wild.std[0] = 150.0  # ln r of most stars is then beyond what exp can hold
    stars = wild.sample(500, rng=0)
    assert np.isfinite(stars).all()
    assert len(np.unique(stars[:, 0])) < 500
    wild.mean[0] = 1e6
    with pytest.raises(ValueError, match="none of the 10 stars drawn is finite"):
        wild.sample(10, rng=0)
