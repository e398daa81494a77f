"""A flow that starts from a symmetric fit: the fit itself at first, and whatever the stars make of it then."""

import numpy as np
import pytest

import dfaccel as da
from dfaccel import training

SMALL = da.FlowSpec(2, 16)
CONFIG = da.TrainConfig(n_epochs=3, batch_size=250, learning_rate=2e-3, matrix_rate=0.01)


@pytest.fixture(scope="module")
def stars():
    return da.Hernquist().sample(20_000, rng=1)


@pytest.fixture(scope="module")
def prior(stars):
    return spherical(stars)


@pytest.fixture(scope="module")
def corrected(stars, prior):
    return da.fit(stars, n_flows=2, spec=SMALL, config=CONFIG, prior=prior, rng=3)


def spherical(stars):
    config = da.TrainConfig(n_epochs=6, batch_size=250)
    return da.fit(stars, n_flows=2, spec=da.FlowSpec(4, 16), config=config, symmetry="spherical", rng=2)


def gain(model, prior, stars):
    """Mean gain in log-likelihood of a model over its prior, and its standard error."""
    difference = model.log_prob(stars) - prior.log_prob(stars)
    return difference.mean(), difference.std(ddof=1) / np.sqrt(len(stars))


def test_it_starts_as_the_prior(stars, prior):
    config = da.TrainConfig(n_epochs=1, batch_size=1000, learning_rate=1e-9, matrix_rate=0.0)
    model = da.fit(stars, n_flows=2, spec=SMALL, config=config, prior=prior, rng=3)
    assert np.abs(model.members_log_prob(stars[:500]) - prior.members_log_prob(stars[:500])).max() < 0.01  # float32


def test_what_is_not_there_is_hardly_learned(prior, corrected):
    """Negative control of the next: a sphere stays one but for noise, the number of parameters over that of stars."""
    value, error = gain(corrected, prior, da.Hernquist().sample(50_000, rng=5))
    assert abs(value) < 5 * error + corrected.theta.shape[1] / 20_000 / 2


def test_what_is_there_is_learned():
    squash = [1, 1, 0.6, 1, 1, 0.6]
    flattened, fresh = (da.Hernquist().sample(n, rng=seed) * squash for n, seed in ((20_000, 1), (50_000, 6)))
    prior = spherical(flattened)
    value, error = gain(da.fit(flattened, n_flows=2, spec=SMALL, config=CONFIG, prior=prior, rng=3), prior, fresh)
    assert value > 5 * error
    assert value > 0.05


def test_its_stars_have_its_density(corrected):
    """The entropy from its own stars against that from stars of the other member's: KL is positive both ways."""
    own = [corrected.member(k).sample(50_000, rng=k) for k in range(2)]
    for k in range(2):
        ratio = corrected.member(k).log_prob(own[k]) - corrected.member(1 - k).log_prob(own[k])
        assert ratio.mean() > -5 * ratio.std() / np.sqrt(len(ratio))
        assert abs(np.exp(-ratio).mean() - 1) < 5 * np.exp(-ratio).std() / np.sqrt(len(ratio))


def test_gradients(corrected, stars):
    w, step = stars[:20], 1e-3
    log_f, score = corrected.members_score(w)
    shift = step * np.eye(6)
    for i in range(6):
        difference = (corrected.members_log_prob(w + shift[i]) - corrected.members_log_prob(w - shift[i])) / (2 * step)
        scale = np.abs(difference) + np.abs(log_f) * 1e-6 / step  # rounding of float32
        assert np.median(np.abs(score[..., i] - difference) / scale) < 0.05


def test_saved_and_loaded(corrected, stars, tmp_path):
    da.save(corrected, tmp_path)
    loaded = da.load(tmp_path)
    assert np.array_equal(loaded.members_log_prob(stars[:100]), corrected.members_log_prob(stars[:100]))
    assert np.array_equal(loaded.member(1).log_prob(stars[:100]), corrected.members_log_prob(stars[:100])[1])
    assert np.array_equal(loaded.sample(50, rng=1), corrected.sample(50, rng=1))


def test_resumed_alike(corrected, stars, prior, tmp_path, monkeypatch):
    original, taken = training.Run.step, []

    def interrupted(self, batch):
        taken.append(1)
        if len(taken) == 40:
            raise KeyboardInterrupt
        return original(self, batch)

    monkeypatch.setattr(training.Run, "step", interrupted)
    config = da.TrainConfig(**{**vars(CONFIG), "checkpoint_seconds": 1e-9})
    options = {"n_flows": 2, "spec": SMALL, "rng": 3, "checkpoint": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        da.fit(stars, config=config, prior=prior, **options)
    monkeypatch.undo()
    other = da.fit(stars, n_flows=2, spec=da.FlowSpec(2, 8), config=CONFIG, symmetry="spherical", rng=9)
    with pytest.raises(ValueError, match="of another training: its prior is"):
        da.fit(stars, config=CONFIG, prior=other, **options)
    resumed = da.fit(stars, config=CONFIG, prior=prior, **options)
    assert np.array_equal(resumed.theta, corrected.theta)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_flows": 3}, "a prior needs as many members as are trained, and symmetry 'none'; it has 2 for 3"),
        ({"n_flows": 2, "symmetry": "spherical"}, "symmetry is 'spherical'"),
        ({"n_flows": 2, "spec": da.FlowSpec(3, 8)}, "n_transforms must bring the features back to their order"),
    ],
)
def test_bad_input(stars, prior, options, message):
    with pytest.raises(ValueError, match=message):
        da.fit(stars, prior=prior, rng=0, **{"spec": SMALL, **options})
