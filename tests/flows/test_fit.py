"""From stars to an ensemble: the preparation, what is learned, priors, and clear refusals."""

import math
import warnings

import numpy as np
import pytest
import torch

import dfaccel as da
from dfaccel.flows.fit import prepare

SMALL = da.FlowSpec(2, 16)
CONFIG = da.TrainConfig(n_epochs=3, batch_size=250, learning_rate=2e-3, matrix_rate=0.01)


# ---- preparation ----


@pytest.mark.parametrize("coordinates", ["spherical", "axisymmetric", "radial", "linear"])
def test_stars_are_standardized(few_stars, coordinates):
    ready = prepare(few_stars, coordinates, time_reversal=True)
    mirrored = (ready.coordinates.flips < 0).any(0)
    assert ready.y.dtype == ready.positions.dtype == torch.float32
    torch.testing.assert_close(ready.y.square().mean(0), torch.ones(ready.coordinates.features), rtol=1e-5, atol=0)
    assert ready.y.mean(0)[~mirrored].abs().max() < 1e-5
    assert not ready.mean[mirrored].any()
    back = ready.y.double() * ready.std + ready.mean
    torch.testing.assert_close(back, ready.coordinates.forward(torch.from_numpy(few_stars))[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ready.positions.double(), back[:, : ready.coordinates.n_positions], rtol=1e-5, atol=1e-5)
    half = ready.apply(few_stars[:600])  # other stars, the same coordinates and standardization
    assert torch.equal(half.y, ready.y[:600])
    assert half.coordinates == ready.coordinates
    assert (prepare(few_stars[:600], coordinates).std != ready.std).any()  # negative control


def test_best_state_is_kept_and_its_loss_is_a_cross_entropy(few_stars, small_fit):
    """A rate and a length at which small data are overfitted: the last epoch is not the best one."""
    config = da.TrainConfig(n_epochs=25, batch_size=100, learning_rate=0.03, held_out=0.3)
    model = small_fit(few_stars, spec=da.FlowSpec(2, 32), config=config)
    held_out = np.array([epoch["held_out"] for epoch in model.metadata["history"]])
    best = np.array(model.metadata["held_out_loss"])
    np.testing.assert_array_equal(best, held_out.min(axis=0))
    assert (held_out[-1] > best).all()
    rows = np.random.default_rng(model.metadata["seeds"]["data"]).permutation(1200)[:360]
    offset = prepare(few_stars).offset(torch.from_numpy(rows))
    np.testing.assert_allclose(-model.members_log_df(few_stars[rows]).mean(axis=1), best + offset, rtol=1e-5)


# ---- what is learned ----


def test_weighted_stars_are_those_of_a_galaxy_that_is_seen_in_part():
    """Half of the stars are seen for vx > 0, all others: with the weight of two their mean loss is that of all."""
    rng = np.random.default_rng(1)
    stars = da.Plummer().sample(20_000, rng=2)
    seen = stars[(stars[:, 3] < 0) | (rng.random(20_000) < 0.5)]
    weights = np.where(seen[:, 3] > 0, 2.0, 1.0)
    shares = {}
    for name, values in {"weights": weights, "none": None, "the same weights": 7 * weights}.items():
        model = da.fit(seen, spec=SMALL, config=CONFIG, coordinates="linear", weights=values, rng=0)
        shares[name] = (model.sample(40_000, rng=3)[:, 3] > 0).mean()
    # 5 standard deviations: of the share among 14,250 weighted stars, and among those drawn from the flow
    assert abs(shares["weights"] - 0.5) < 5 * (0.3 / 14_250 + 0.25 / 40_000) ** 0.5
    assert shares["none"] < 0.4  # negative control: a third
    assert shares["the same weights"] == shares["weights"]


def test_the_metadata_know_the_effective_number(few_stars, small_fit):
    weights = np.r_[np.zeros(100), np.full(1000, 3.0), np.ones(100)]
    model = small_fit(few_stars, weights=weights)
    assert model.metadata["n_effective"] == pytest.approx(3100**2 / 9100)
    assert model.metadata["n_stars"] == 1200
    assert small_fit(few_stars).metadata["n_effective"] == 1200


@pytest.mark.parametrize("coordinates", ["radial", "axisymmetric", "spherical"])
def test_units_only_rescale_the_density(coordinates):
    """The same flow in other units: 5 times the length and 7 times the speed, hence a density 35^3 times smaller."""
    stars = da.Plummer().sample(2000, rng=0)
    w = stars * np.repeat([5.0, 7.0], 3)
    options = {"spec": da.FlowSpec(1, 4), "config": da.TrainConfig(n_epochs=1), "coordinates": coordinates, "rng": 0}
    rescaled, plain = da.fit(w, **options), da.fit(stars, **options)
    np.testing.assert_allclose(rescaled.log_df(w), plain.log_df(stars) - 3 * np.log(35), rtol=0, atol=5e-3)


@pytest.mark.slow
def test_a_false_symmetry_is_paid_for():
    """A Plummer sphere flattened to q = 0.25, learned with and without assuming that it is round.

    A spherical model makes every direction equally likely, but mu = z/r has the density below. A joint density is never
    nearer than its marginal, so KL(true || spherical) is at least the KL of the directions alone, 0.62 nats. Without
    the assumption not even half of that remains.
    """
    q, sphere = 0.25, da.Plummer()
    mu = np.linspace(-1, 1, 200_001)
    density = 0.5 * q**2 / (mu**2 + q**2 * (1 - mu**2)) ** 1.5
    assert np.trapezoid(density, mu) == pytest.approx(1, abs=1e-6)
    bound = np.trapezoid(density * np.log(2 * density), mu)

    def kl(q, coordinates):
        """The divergence less and plus five standard errors."""
        config = da.TrainConfig(n_epochs=4, batch_size=400, learning_rate=5e-3)
        stars, fresh = (sphere.sample(20_000, rng=rng) * [1, 1, q, 1, 1, 1] for rng in (1, 2))
        model = da.fit(stars, spec=da.FlowSpec(3, 32), config=config, coordinates=coordinates, rng=0)
        difference = sphere.log_df(fresh / [1, 1, q, 1, 1, 1]) - math.log(q) - model.log_df(fresh)
        return difference.mean() + np.array([-5, 5]) * difference.std() / math.sqrt(len(fresh))

    assert kl(q, "spherical")[1] > bound
    assert kl(q, "radial")[1] < bound / 2
    assert kl(1.0, "spherical")[1] < 0.05  # control: where the symmetry holds it costs nothing


# ---- from a prior: the symmetric fit itself at first, and whatever the stars make of it then ----


def spherical(stars):
    config = da.TrainConfig(n_epochs=6, batch_size=250)
    return da.fit(stars, n_flows=2, spec=da.FlowSpec(4, 16), config=config, coordinates="spherical", rng=2)


def correct(stars, prior, config=CONFIG, **options):
    """A fit without symmetry that starts from a prior."""
    return da.fit(stars, n_flows=2, spec=SMALL, config=config, prior=prior, rng=3, **options)


@pytest.fixture(scope="module")
def fitted():
    """Stars of a Hernquist sphere, a spherical fit to them, and one that starts from it."""
    stars = da.Hernquist().sample(20_000, rng=1)
    prior = spherical(stars)
    return stars, prior, correct(stars, prior)


def gain(model, prior, stars):
    """Mean gain in log-likelihood of a model over its prior, and its standard error."""
    difference = model.log_df(stars) - prior.log_df(stars)
    return difference.mean(), difference.std(ddof=1) / np.sqrt(len(stars))


@pytest.mark.slow
def test_it_starts_as_the_prior_and_hardly_learns_what_is_not_there(fitted):
    """Negative control of the next: a sphere stays one but for noise, the number of parameters over that of stars."""
    stars, prior, corrected = fitted
    model = correct(stars, prior, da.TrainConfig(n_epochs=1, batch_size=1000, learning_rate=1e-9, matrix_rate=0.0))
    assert np.abs(model.members_log_df(stars[:500]) - prior.members_log_df(stars[:500])).max() < 0.01  # float32
    value, error = gain(corrected, prior, da.Hernquist().sample(50_000, rng=5))
    assert abs(value) < 5 * error + corrected.theta.shape[1] / 20_000 / 2


@pytest.mark.slow
def test_what_is_there_is_learned():
    squash = [1, 1, 0.6, 1, 1, 0.6]
    flattened, fresh = (da.Hernquist().sample(n, rng=seed) * squash for n, seed in ((20_000, 1), (50_000, 6)))
    prior = spherical(flattened)
    value, error = gain(correct(flattened, prior), prior, fresh)
    assert value > max(5 * error, 0.05)


def test_its_stars_have_its_density(fitted):
    """The entropy from its own stars against that from stars of the other member's: KL is positive both ways."""
    for k in range(2):
        own, other = (fitted[2].member(i) for i in (k, 1 - k))
        w = own.sample(50_000, rng=k)
        ratio = own.log_df(w) - other.log_df(w)
        assert ratio.mean() > -5 * ratio.std() / np.sqrt(len(ratio))
        assert abs(np.exp(-ratio).mean() - 1) < 5 * np.exp(-ratio).std() / np.sqrt(len(ratio))


def test_its_gradients(fitted):
    stars, _, corrected = fitted
    w, step = stars[:20], 1e-3
    log_f, score = corrected.members_score(w)
    for i, e in enumerate(step * np.eye(6)):
        difference = (corrected.members_log_df(w + e) - corrected.members_log_df(w - e)) / (2 * step)
        scale = np.abs(difference) + np.abs(log_f) * 1e-6 / step  # rounding of float32
        assert np.median(np.abs(score[..., i] - difference) / scale) < 0.05


def test_saved_and_loaded_with_its_prior(fitted, tmp_path):
    w, corrected = fitted[0][:100], fitted[2]
    da.save(corrected, tmp_path)
    loaded = da.load(tmp_path)
    assert np.array_equal(loaded.members_log_df(w), corrected.members_log_df(w))
    assert np.array_equal(loaded.member(1).log_df(w), corrected.members_log_df(w)[1])
    assert np.array_equal(loaded.sample(50, rng=1), corrected.sample(50, rng=1))


@pytest.mark.slow
def test_resumed_alike(fitted, tmp_path, interrupted_at):
    stars, prior, corrected = fitted
    with interrupted_at(40), pytest.raises(KeyboardInterrupt):
        correct(stars, prior, checkpoint=tmp_path)
    other = da.fit(stars, n_flows=2, spec=da.FlowSpec(2, 8), config=CONFIG, coordinates="spherical", rng=9)
    with pytest.raises(ValueError, match="of another training: its prior is"):
        correct(stars, other, checkpoint=tmp_path)
    assert np.array_equal(correct(stars, prior, checkpoint=tmp_path).theta, corrected.theta)


# ---- what goes wrong ----


@pytest.mark.usefixtures("global_random_state")
def test_global_random_states_are_left_alone(ensemble):
    stars = da.Plummer().sample(1000, rng=0)
    config = da.TrainConfig(n_epochs=1, batch_size=100, bootstrap=True)
    model = da.fit(stars, n_flows=2, spec=da.FlowSpec(1, 4), config=config, time_reversal=True, rng=1)
    model.score(model.sample(5, rng=2))
    da.accelerations(ensemble("spherical"), stars[:2, :3], rng=3)
    da.score_card(da.Plummer(), da.Plummer(), rng=4, n_velocities=10)
    da.kl_divergence(da.Plummer(), model, n=10, rng=5)


def test_repeated_stars_are_reported_with_their_share(few_stars):
    config = da.TrainConfig(n_epochs=1, batch_size=100)

    def repeated(n):
        da.fit(np.vstack([few_stars[n:], few_stars[-n:]]), spec=da.FlowSpec(1, 4), config=config, rng=0)

    with pytest.warns(UserWarning, match=r"3\.0% of the stars repeat another one") as caught:
        repeated(36)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        repeated(6)


ROWS, EVERY = np.arange(1200)[:, None], "n_flows must be a positive integer; got"


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        (lambda w: w[:, :5], {}, r"stars must have shape \(n, 6\), n >= 1; got \(1200, 5\)"),
        (lambda w: w[:999], {}, "stars must have at least 1000 rows to learn from; got 999"),
        (lambda w: w[:0], {}, r"stars must have shape \(n, 6\), n >= 1; got \(0, 6\)"),
        (lambda w: np.where(ROWS % 400 == 17, np.nan, w), {}, "stars has 3 non-finite rows, first at index 17"),
        (lambda w: np.where(ROWS == 5, np.inf, w), {}, "stars has 1 non-finite row, first at index 5"),
        (lambda w: w * [1, 1, 0, 1, 1, 1], {}, "stars has a constant column: z;"),
        (lambda w: w * [1, 1, 1, 0, 1, 1] + 3, {}, "stars has a constant column: vx;"),
        *((lambda w: np.where((ROWS == 4) | (ROWS == 9), w * [0, 0, 0, 1, 1, 1], w), {"coordinates": name},
           f"{name} coordinates are singular.*2 do, first at index 4;") for name in ("spherical", "axisymmetric")),
        (None, {"n_flows": 0}, f"{EVERY} 0"),
        (None, {"n_flows": 1.5}, f"{EVERY} 1.5"),
        (None, {"coordinates": "cubic"}, "flat, bisymmetric, local, mirrored, or a CoordinateMap; got 'cubic'"),
        (None, {"config": da.TrainConfig(batch_size=1141)}, "must be at most the 1140 training stars; got 1141"),
        (None, {"weights": np.ones(1199)}, r"weights must have shape \(1200,\), one for each.*got \(1199,\)"),
        (None, {"weights": np.r_[np.ones(1199), -1]}, "weights must be finite and not negative; 1 are not"),
        (None, {"weights": np.r_[np.ones(1198), np.nan, np.inf]}, "negative; 2 are not, first at index 1198"),
        (None, {"weights": np.r_[np.zeros(1199), 1]}, "spread over 1000 stars; their effective number is 1"),
        (None, {"weights": np.ma.masked_less(np.arange(1200.0), 3)}, "weights has masked values in 3 rows, first at"),
        (None, {"weights": np.zeros(1200)}, "their effective number is 0"),
        (None, {"equilibrium": -0.1}, "equilibrium must be a positive finite number; got -0.1"),
        (None, {"prior": 2, "n_flows": 3}, "as many members as .*, and coordinates without symmetry; it has 2 for 3"),
        (None, {"prior": 2, "coordinates": "spherical"}, "coordinates is 'spherical'"),
        (None, {"prior": 2, "spec": da.FlowSpec(3, 8)}, "n_transforms must bring the features back to their order"),
    ],
)
def test_what_is_refused(few_stars, small_fit, ensemble, tmp_path, change, options, sentence):
    if "prior" in options:
        options = options | {"prior": ensemble("spherical", n_flows=options["prior"])}
    with pytest.raises((TypeError, ValueError), match=sentence):
        small_fit(change(few_stars) if change else few_stars, checkpoint=tmp_path, **options)
    assert not list(tmp_path.iterdir())
