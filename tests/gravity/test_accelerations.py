"""The Boltzmann inversion: exact DF in, exact acceleration out; and honest about where it cannot know."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import dfaccel as da

PLUMMER = da.Plummer()


class Mixed(da.DistributionFunction):
    """Half the stars of one system and half of another: a DF that is in equilibrium in no potential."""

    def __init__(self, *systems):
        self.systems = systems

    def log_df(self, w):
        return torch.logsumexp(torch.stack([s.log_df(w) for s in self.systems]), 0) - math.log(2)

    def sample(self, n, *, rng):
        return self.systems[0].sample(n, rng=rng)


def within(points, r):
    """Points drawn in to a radius."""
    return points * np.minimum(1, r / np.linalg.norm(points, axis=1))[:, None]


# ---- exact in, exact out ----


@pytest.mark.parametrize("huber", [None, 1.345, 0.5])
def test_weights_do_not_matter_for_an_exact_df(huber, places):
    result = da.accelerations(PLUMMER, places(30), n_velocities=100, huber=huber)
    assert result.error(PLUMMER.acceleration(places(30))).max() <= 1e-8


def test_at_the_centre_there_is_no_pull():
    np.testing.assert_allclose(da.accelerations(PLUMMER, [[0.0, 0, 0]], n_velocities=100).value, 0, atol=1e-10)


def test_a_df_out_of_equilibrium_leaves_a_residual(places):
    """And one in equilibrium none, nor any warning."""
    mixed, settled = (da.accelerations(df, places(20), n_velocities=300) for df in
                      (Mixed(PLUMMER, da.Plummer(G=0.5)), PLUMMER))
    assert mixed.residual.min() > 1e-3
    assert (mixed.residual <= 1).all()
    assert settled.residual.max() < 1e-8
    assert settled.condition.max() < 10


# ---- where the answer is not determined ----


@pytest.mark.parametrize("thickness", [0, 1e-4])
def test_velocities_near_a_plane_leave_one_component_uncertain(thickness, places, bound_velocities):
    """In the plane the component across is unknown; near it, all is warned of and still answered."""
    points, normal = places(5), np.array([0.6, 0.0, 0.8])
    velocities = bound_velocities(PLUMMER, points)
    velocities -= (1 - thickness) * (velocities @ normal)[..., None] * normal
    with pytest.warns(UserWarning, match=r"5 of 5 points .* poorly .* \(see .condition\), first at index 0") as caught:
        result = da.accelerations(PLUMMER, points, velocities=velocities)
    assert caught[0].filename == __file__
    assert (result.condition > (1e3 if thickness else 1e6)).all()
    known = np.eye(3) - (not thickness) * np.outer(normal, normal)
    np.testing.assert_allclose(result.value @ known, PLUMMER.acceleration(points) @ known, rtol=1e-6, atol=1e-9)


def test_a_point_without_equations_has_no_answer(places, bound_velocities):
    """All velocities beyond escape: NaN, an infinite condition and a warning rather than a made-up zero."""
    points = places(3)
    velocities = bound_velocities(PLUMMER, points)
    velocities[1] *= 100
    with pytest.warns(UserWarning, match="1 of 3 points have a poorly conditioned solution.*index 1"):
        result = da.accelerations(PLUMMER, points, velocities=velocities)
    assert np.isnan(result.value[1]).all()
    assert np.isinf(result.condition[1])
    assert result.error(PLUMMER.acceleration(points))[[0, 2]].max() <= 1e-8


# ---- a region of velocity space left out ----


def outwards(w):
    """Whether a star moves outwards."""
    return (w[:, :3] * w[:, 3:]).sum(1) > 0


def fast(w):
    """Whether a star is faster than 0.6."""
    return np.linalg.norm(w[:, 3:], axis=1) > 0.6


@pytest.mark.parametrize("region", [outwards, fast])
def test_any_region_may_be_left_out_of_an_exact_df(region, places):
    result = da.accelerations(PLUMMER, places(10), leave_out=region)
    assert result.error(PLUMMER.acceleration(places(10))).max() <= 1e-8


def test_left_out_equations_are_as_if_they_had_not_been_written(learned, places, bound_velocities):
    """In the mixture and in each member."""
    points = within(places(5), 3)
    velocities = bound_velocities(PLUMMER, points)
    doubled = np.concatenate([velocities, 1.3 * velocities[:, ::-1]], axis=1)
    kept = len(velocities[0])
    known = {tuple(v) for v in velocities.reshape(-1, 3)}
    result = da.accelerations(
        learned, points, velocities=doubled, leave_out=lambda w: np.array([tuple(v) not in known for v in w[:, 3:]])
    )
    plain = da.accelerations(learned, points, velocities=doubled[:, :kept])
    np.testing.assert_allclose(result.members, plain.members, rtol=1e-6)
    np.testing.assert_allclose(result.value, plain.value, rtol=1e-6)
    np.testing.assert_allclose(result.residual, plain.residual, rtol=1e-6)
    np.testing.assert_allclose(result.condition, plain.condition, rtol=1e-6)


def stars_at(points, velocities):
    """Phase-space points (m, V, 6)."""
    return np.concatenate([np.broadcast_to(points[:, None], velocities.shape), velocities], axis=2)


def test_without_the_stream_a_disturbed_system_is_the_undisturbed_one(bound_velocities):
    """A cold stream that outnumbers the others asks for its own pull; the others disagree, and the misfit shows it."""
    point, stream = np.array([[1.5, 0.0, 0.0]]), da.Stream(radius=1.5, arc=2 * math.pi, speed=1.0)
    star = da.cylindrical(stream.sample(400, rng=0))
    own = np.stack([star.v_R, star.v_phi, star.v_z], axis=1)[None]
    velocities = np.concatenate([own, bound_velocities(PLUMMER, point)], axis=1)
    mixed, truth = Mixed(PLUMMER, stream), PLUMMER.acceleration(point)

    def near(w):
        return np.linalg.norm(w[:, 3:] - [0, 1.0, 0], axis=1) < 0.1

    everything, without = (da.accelerations(mixed, point, velocities=velocities, leave_out=r) for r in (None, near))
    assert everything.error(truth)[0] > 0.5
    assert without.error(truth)[0] < 1e-6
    rest = ~near(stars_at(point, velocities)[0])
    before, after = (np.abs(result.misfit(mixed, velocities)[0]) for result in (everything, without))
    assert np.median(before[rest]) > 0.1
    assert after[rest].max() < 1e-6
    assert np.median(after[~rest]) > 0.1  # what was left out does not suit the others


def test_misfit_is_a_distance_from_the_plane_of_a_velocity(learned, places, bound_velocities):
    """Its change with the acceleration is the cosine of the angle to the velocity gradient of ln f."""
    points = within(places(4), 3)
    velocities = bound_velocities(PLUMMER, points)
    result = da.accelerations(learned, points, velocities=velocities)
    misfit, doubled = (r.misfit(learned, velocities) for r in (result, replace(result, value=2 * result.value)))
    g = learned.score(stars_at(points, velocities).reshape(-1, 6))[:, 3:].reshape(velocities.shape)
    cosine = (result.value[:, None] * g).sum(-1) / np.linalg.norm(result.value[:, None], axis=-1)
    np.testing.assert_allclose(2 * doubled - misfit, cosine / np.linalg.norm(g, axis=-1), rtol=1e-4, atol=1e-5)


def test_where_f_vanishes_there_is_no_misfit(places, bound_velocities):
    points = places(2)
    velocities = bound_velocities(PLUMMER, points)
    velocities[1, :4] *= 100
    misfit = da.accelerations(PLUMMER, points).misfit(PLUMMER, velocities)
    np.testing.assert_array_equal(np.isnan(misfit).sum(1), [0, 4])
    assert np.nanmax(np.abs(misfit)) < 1e-6


@pytest.mark.parametrize(("region", "error", "message"), [
    (lambda w: w[:, 0], ValueError, r"leave_out must return bool, shape \(60,\); got float64, shape \(60,\)"),
    (lambda w: w > 0, ValueError, r"leave_out must return bool, shape \(60,\); got bool, shape \(60, 6\)"),
    (True, TypeError, r"leave_out must be callable, .*; got bool"),
])
def test_a_region_that_is_none_is_refused(region, error, message, places):
    with pytest.raises(error, match=message):
        da.accelerations(PLUMMER, places(3), n_velocities=20, leave_out=region)


def test_a_point_of_which_all_is_left_out_has_no_answer(places):
    with pytest.warns(UserWarning, match="1 of 3 points have a poorly conditioned solution.*index 1"):
        result = da.accelerations(PLUMMER, places(3), n_velocities=20, leave_out=lambda w: w[:, 0] == places(3)[1, 0])
    assert np.isnan(result.value[1]).all()


# ---- learned distribution functions ----


def test_learned_accelerations_and_their_covariance(learned, places):
    points = within(places(40, seed=3), 4)
    result, truth = da.accelerations(learned, points), PLUMMER.acceleration(points)
    assert (result.value.shape, result.members.shape) == (truth.shape, (3, 40, 3))
    assert np.median(result.error(truth)) < 0.1
    assert np.median(result.error(truth / 1.3)) > 0.1  # negative control
    np.testing.assert_allclose(result.covariance, [np.cov(m.T) for m in result.members.transpose(1, 0, 2)], rtol=1e-10)
    assert (np.linalg.eigvalsh(result.covariance) > -1e-12).all()
    assert (result.residual > 1e-6).all()
    extent = np.ptp(result.members, axis=0).max()
    assert np.abs(result.value - result.members.mean(0)).max() < extent  # the mixture lies among its members


def test_symmetry_of_the_flow_is_that_of_its_accelerations(learned, places, bound_velocities):
    """Point and velocities turned, the acceleration turns with them, and it is central: the flow knows no direction."""
    points = within(places(10), 3)
    velocities = bound_velocities(PLUMMER, points)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    value = da.accelerations(learned, points, velocities=velocities).value
    turned = da.accelerations(learned, points @ turn, velocities=velocities @ turn).value
    np.testing.assert_allclose(turned, value @ turn, rtol=1e-3, atol=1e-4)
    assert np.abs(turned - value).max() > 1e-2  # negative control
    full = da.accelerations(learned, points, n_velocities=2000).value
    across = full - (full * points).sum(1, keepdims=True) * points / (points**2).sum(1, keepdims=True)
    assert (np.linalg.norm(across, axis=1) < 0.1 * np.linalg.norm(full, axis=1)).all()


@pytest.mark.parametrize("coordinates", ["radial", "linear"])
def test_units_rescale_accelerations(coordinates, places, bound_velocities):
    """The same stars in other units give the same acceleration in those units, flags and diagnostics included."""
    stars, points, length, speed = PLUMMER.sample(3000, rng=0), places(8), 5.0, 7.0
    velocities = bound_velocities(PLUMMER, points)
    options = {"spec": da.FlowSpec(2, 8), "config": da.TrainConfig(n_epochs=1, batch_size=100), "rng": 0}
    plain = da.fit(stars, coordinates=coordinates, **options)
    scaled = da.fit(stars * np.repeat([length, speed], 3), coordinates=coordinates, **options)
    a = da.accelerations(plain, points, velocities=velocities, warn=False)  # few stars: some points are not supported
    b = da.accelerations(scaled, length * points, velocities=speed * velocities, warn=False)
    np.testing.assert_allclose(b.value / (speed**2 / length), a.value, rtol=2e-2, atol=2e-3)
    np.testing.assert_allclose(b.n_near, a.n_near, rtol=1e-3)
    np.testing.assert_allclose(b.residual, a.residual, rtol=2e-2)


def test_a_flow_that_was_hardly_trained_still_answers(ensemble, bound_velocities):
    """Some of its stars lie so far out that their coordinates overflow: they lend no velocities, and that is all."""
    model, point = ensemble("radial"), np.array([[1.0, 2, 3]])
    model.std[:3] = 60.0
    stars = torch.from_numpy(model.sample(20_000, rng=np.random.default_rng(0)))
    assert not torch.isfinite(model.coordinates.forward(stars)[0]).all()
    velocities = bound_velocities(PLUMMER, point)
    beyond = np.concatenate([velocities, np.full((1, 20, 3), 1e200)], axis=1)  # more than single precision holds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isfinite(da.accelerations(model, point, n_velocities=50).value).all()
        expected, found = (da.accelerations(model, point, velocities=v).value for v in (velocities, beyond))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


class Spiked(da.DistributionFunction):
    """A Plummer sphere whose gradient by velocity overflows, nearly, at every 97th point."""

    def __init__(self, size):
        self.size = size

    def sample(self, n, *, rng):
        return PLUMMER.sample(n, rng=rng)

    def log_df(self, w):
        return PLUMMER.log_df(w)

    def members_score(self, w):
        log_f, score = PLUMMER.members_score(w)
        score[:, ::97, 3:] = self.size
        return log_f, score


def test_where_a_flow_nearly_overflows_there_is_no_equation(places):
    points = places(8)
    found = da.accelerations(Spiked(1e13), points, n_velocities=200, huber=None)
    np.testing.assert_allclose(found.value, PLUMMER.acceleration(points), rtol=1e-8, atol=1e-12)
    kept = da.accelerations(Spiked(1e3), points, n_velocities=200, huber=None)  # negative control
    assert np.median(kept.error(PLUMMER.acceleration(points))) > 0.1


def test_the_seed_decides(places):
    points, seeds = places(3), (1, 1, np.random.default_rng(1), 2)
    one, *same, other = (da.accelerations(PLUMMER, points, n_velocities=50, rng=rng).condition for rng in seeds)
    np.testing.assert_array_equal(same, [one, one])
    assert (one != other).all()


@pytest.mark.parametrize(("coordinates", "lost"), [("spherical", [1]), ("axisymmetric", [1, 2]), ("radial", [])])
def test_a_singular_place_among_others_has_no_answer(ensemble, coordinates, lost):
    """The centre of a sphere, the axis of a disc: NaN and a warning with the index; the others are answered."""
    model, points = ensemble(coordinates), np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1.5], [0.3, 1, 0.5]])
    velocities = np.random.default_rng(0).normal(size=(4, 20, 3))
    for options in ({"n_velocities": 20}, {"velocities": velocities}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = da.accelerations(model, points, **options)
        assert np.flatnonzero(np.isnan(result.value).any(axis=1)).tolist() == lost
        assert np.isfinite(np.delete(result.value, lost, axis=0)).all()
        sentences = [str(warning.message) for warning in caught]
        assert not lost or any("poorly conditioned" in text and "first at index 1" in text for text in sentences)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_computed_where_torch_computes_none(mode, ensemble):
    x = np.array([[1.0, 0, 0]])
    for df in (ensemble("spherical"), PLUMMER):
        expected = da.accelerations(df, x, n_velocities=20, warn=False).value
        with mode():
            found = da.accelerations(df, x, n_velocities=20, warn=False)
        np.testing.assert_array_equal(found.value, expected)
    with mode():
        model = da.fit(PLUMMER.sample(1000, rng=1), spec=da.FlowSpec(1, 4), config=da.TrainConfig(1, 500), rng=0)
        model.log_df(np.ones((1, 6)))
    assert np.isfinite(model.score(np.ones((1, 6)))).all()
