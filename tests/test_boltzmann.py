"""The Boltzmann inversion: exact DF in, exact acceleration out; and honest about where it cannot know."""

import math
import warnings

import numpy as np
import pytest
import torch

import dfaccel as da
from dfaccel import boltzmann

EXACT = [
    da.Hernquist(),
    da.Hernquist(beta=0.5),
    da.Plummer(),
    da.Hernquist(mass=3.0, scale=2.0, G=0.7),
    da.Hernquist(mass=0.2, scale=5.0, beta=0.5, G=43.0),
    da.Plummer(mass=3.0, scale=0.5, G=2.0),
]


def error(value, truth):
    """Length of the error vector relative to the truth."""
    return np.linalg.norm(value - truth, axis=1) / np.linalg.norm(truth, axis=1)


class DensityOnly:
    """A distribution function and nothing else: no potential, no acceleration, no scale to peep at."""

    def __init__(self, system):
        self.__system = system

    def log_df(self, w):
        return self.__system.log_df(w)

    def sample(self, n, *, rng):
        return self.__system.sample(n, rng=rng)


class Mixed(DensityOnly):
    """Half the stars of one system and half of another: a DF that is in equilibrium in no potential."""

    def __init__(self, one, other):
        super().__init__(one)
        self.systems = one, other

    def log_df(self, w):
        return torch.logsumexp(torch.stack([s.log_df(w) for s in self.systems]), 0) - math.log(2)


# ---- exact in, exact out ----


@pytest.mark.parametrize("system", EXACT, ids=repr)
@pytest.mark.parametrize("given", [False, True], ids=["drawn", "given"])
def test_exact_df_gives_the_exact_acceleration(system, given, places, bound_velocities):
    points = places(scale=system.scale)
    options = {"velocities": bound_velocities(system, points)} if given else {"n_velocities": 300}
    result = da.accelerations(DensityOnly(system), points, rng=2, **options)
    assert error(result.value, system.acceleration(points)).max() <= 1e-8
    assert result.residual.max() < 1e-8
    assert result.supported.all()
    np.testing.assert_array_equal(result.members[0], result.value)
    assert np.isnan(result.covariance).all()
    other = da.Plummer(mass=1.1 * system.mass, scale=system.scale, G=system.G)  # negative control
    assert error(result.value, other.acceleration(points)).min() > 1e-3


@pytest.mark.parametrize("huber", [None, 1.345, 0.5])
def test_weights_do_not_matter_for_an_exact_df(huber, places):
    points = places(30)
    result = da.accelerations(da.Plummer(), points, n_velocities=100, huber=huber)
    assert error(result.value, da.Plummer().acceleration(points)).max() <= 1e-8


def test_truncated_system_keeps_the_gravity_of_the_whole(places):
    system = da.Hernquist().truncated(30.0)
    points = places(20)
    result = da.accelerations(DensityOnly(system), points, n_velocities=100)
    assert error(result.value, da.Hernquist().acceleration(points)).max() <= 1e-8


def test_at_the_centre_there_is_no_pull():
    result = da.accelerations(da.Plummer(), [[0.0, 0, 0]], n_velocities=100)
    np.testing.assert_allclose(result.value, 0, atol=1e-10)


def test_a_df_out_of_equilibrium_leaves_a_residual(places):
    points = places(20)
    mixed = da.accelerations(Mixed(da.Plummer(), da.Plummer(G=0.5)), points, n_velocities=300)
    assert mixed.residual.min() > 1e-3
    assert (mixed.residual <= 1).all()
    assert da.accelerations(da.Plummer(), points, n_velocities=300).residual.max() < 1e-8


def test_velocities_beyond_escape_are_no_equations(places, bound_velocities):
    """Where f = 0 there is nothing to learn: 20, 60 or 95 % of such velocities do not spoil the others."""
    system, points = da.Plummer(), places(15)
    good = bound_velocities(system, points, n=200)
    truth = system.acceleration(points)
    for share in (0.2, 0.6, 0.95):
        velocities = good.copy()
        velocities[:, : int(200 * share)] *= 30
        assert error(da.accelerations(system, points, velocities=velocities).value, truth).max() <= 1e-8


# ---- where the answer is not determined ----


def test_velocities_in_a_plane_leave_one_component_unknown(places, bound_velocities):
    system, points = da.Plummer(), places(5)
    velocities = bound_velocities(system, points)
    normal = np.array([0.6, 0.0, 0.8])
    velocities -= (velocities @ normal)[..., None] * normal
    with pytest.warns(UserWarning, match="5 of 5 points have a poorly conditioned solution"):
        result = da.accelerations(system, points, velocities=velocities)
    assert (result.condition > 1e6).all()
    known = np.eye(3) - np.outer(normal, normal)
    np.testing.assert_allclose(result.value @ known, system.acceleration(points) @ known, rtol=1e-6, atol=1e-9)


def test_nearly_planar_velocities_are_warned_of_and_still_answered(places, bound_velocities):
    system, points = da.Plummer(), places(5)
    velocities = bound_velocities(system, points) * [1, 1, 1e-4]
    with pytest.warns(UserWarning, match=r"5 of 5 points have a poorly .* \(see .condition\), first at index 0"):
        result = da.accelerations(system, points, velocities=velocities)
    assert (result.condition > 1e3).all()
    assert error(result.value, system.acceleration(points)).max() < 1e-6


def test_a_point_without_equations_has_no_answer(places, bound_velocities):
    """All velocities beyond escape: NaN, an infinite condition and a warning rather than a made-up zero."""
    system, points = da.Plummer(), places(3)
    velocities = bound_velocities(system, points)
    velocities[1] *= 100
    with pytest.warns(UserWarning, match="1 of 3 points have a poorly conditioned solution.*index 1"):
        result = da.accelerations(system, points, velocities=velocities)
    assert np.isnan(result.value[1]).all()
    assert np.isinf(result.condition[1])
    assert error(result.value[[0, 2]], system.acceleration(points)[[0, 2]]).max() <= 1e-8


def test_good_velocities_raise_no_warning(places):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = da.accelerations(da.Plummer(), places(50), n_velocities=300)
    assert result.condition.max() < 10


# ---- learned distribution functions ----


@pytest.fixture(scope="module")
def learned():
    """Three small flows of a Plummer sphere."""
    stars = da.Plummer().sample(20_000, rng=0)
    config = da.TrainConfig(n_epochs=5, batch_size=200, learning_rate=5e-3)
    return da.fit(stars, n_flows=3, spec=da.FlowSpec(3, 16, n_blocks=1), config=config, symmetry="spherical", rng=1)


def test_learned_accelerations_and_their_covariance(learned, places):
    points = places(40, seed=3)
    points *= np.minimum(1, 4 / np.linalg.norm(points, axis=1))[:, None]
    result = da.accelerations(learned, points)
    truth = da.Plummer().acceleration(points)
    assert result.value.shape == truth.shape
    assert result.members.shape == (3, 40, 3)
    assert np.median(error(result.value, truth)) < 0.1
    assert np.median(error(result.value * 1.3, truth)) > 0.1  # negative control
    for point in range(40):
        np.testing.assert_allclose(result.covariance[point], np.cov(result.members[:, point].T), rtol=1e-10)
    assert (np.linalg.eigvalsh(result.covariance) > -1e-12).all()
    assert (result.residual > 1e-6).all()
    middle, extent = result.members.mean(0), np.ptp(result.members, axis=0).max()
    assert np.abs(result.value - middle).max() < extent  # the mixture lies among its members


def test_a_member_alone_gives_its_own_acceleration(learned, places, bound_velocities):
    """With the velocities given, so that nothing else differs."""
    points = places(5)
    points *= np.minimum(1, 3 / np.linalg.norm(points, axis=1))[:, None]
    velocities = bound_velocities(da.Plummer(), points)
    together = da.accelerations(learned, points, velocities=velocities)
    for k in range(3):
        alone = da.accelerations(learned.member(k), points, velocities=velocities)
        np.testing.assert_allclose(alone.value, together.members[k], rtol=2e-3, atol=2e-4)
        np.testing.assert_array_equal(alone.value, alone.members[0])


def test_symmetry_of_the_flow_is_that_of_its_accelerations(learned, places, bound_velocities):
    """Point and velocities turned, the acceleration turns with them, and it is central: the flow knows no direction."""
    points = places(10)
    points *= np.minimum(1, 3 / np.linalg.norm(points, axis=1))[:, None]
    velocities = bound_velocities(da.Plummer(), points)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    value = da.accelerations(learned, points, velocities=velocities).value
    turned = da.accelerations(learned, points @ turn, velocities=velocities @ turn).value
    np.testing.assert_allclose(turned, value @ turn, rtol=1e-3, atol=1e-4)
    assert np.abs(turned - value).max() > 1e-2  # negative control
    full = da.accelerations(learned, points, n_velocities=2000).value
    across = full - (full * points).sum(1, keepdims=True) * points / (points**2).sum(1, keepdims=True)
    assert (np.linalg.norm(across, axis=1) < 0.1 * np.linalg.norm(full, axis=1)).all()


def test_units_rescale_accelerations(places, bound_velocities):
    """The same stars in other units give the same acceleration in those units, flags and diagnostics included."""
    stars, points = da.Plummer().sample(3000, rng=0), places(8)
    velocities = bound_velocities(da.Plummer(), points)
    length, speed = 5.0, 7.0
    config = da.TrainConfig(n_epochs=1, batch_size=100)
    for position_map in ("radial", "linear"):
        spec = da.FlowSpec(2, 8, position_map=position_map)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few stars: some points are not supported
            plain = da.fit(stars, spec=spec, config=config, rng=0)
            scaled = da.fit(stars * np.repeat([length, speed], 3), spec=spec, config=config, rng=0)
            a = da.accelerations(plain, points, velocities=velocities)
            b = da.accelerations(scaled, length * points, velocities=speed * velocities)
        np.testing.assert_allclose(b.value / (speed**2 / length), a.value, rtol=2e-2, atol=2e-3)
        np.testing.assert_allclose(b.n_near, a.n_near, rtol=1e-3)
        np.testing.assert_allclose(b.residual, a.residual, rtol=2e-2)


def test_points_outside_the_training_volume_are_flagged(learned):
    points = np.array([[1.0, 0, 0], [0, 3e4, 0], [0, 0, 1e-7]])
    with pytest.warns(UserWarning, match=r"2 of 3 points lie where training stars are too few \(see .supported\).*1$"):
        result = da.accelerations(learned, points)
    assert result.supported.tolist() == [True, False, False]
    assert np.isfinite(result.value).all()


@pytest.mark.parametrize("symmetry", ["none", "axisymmetric", "spherical"])
def test_number_of_stars_nearby_is_estimated(symmetry, places):
    """The 8th neighbour among 20,000 reference stars against a count of all 50,000 in a ball: 5 sigma of both."""
    stars = da.Plummer().sample(50_000, rng=0)
    config = da.TrainConfig(n_epochs=1, batch_size=1000)
    model = da.fit(stars, spec=da.FlowSpec(1, 4), config=config, symmetry=symmetry, rng=0)
    points = places(40)
    points *= (np.geomspace(0.3, 3, 40) / np.linalg.norm(points, axis=1))[:, None]
    y = model.coordinates.forward(torch.from_numpy(stars))[0][:, : model.coordinates.n_positions].numpy()
    where = model.coordinates.position_coordinates(torch.from_numpy(points)).numpy()
    reach = 0.1  # a ball small enough to have one density
    counted = np.array([(np.linalg.norm(y - place, axis=1) < reach).sum() for place in where])
    enough = counted >= 25
    assert enough.sum() >= 5
    estimated = boltzmann._training_stars_near(model, points) * (reach / boltzmann._REACH) ** y.shape[1]
    sigma = np.sqrt(1 / 8 + 1 / counted[enough])
    ratio = np.log(estimated[enough] / counted[enough])
    assert (np.abs(ratio) < 5 * sigma).all()
    bias = 5 * math.sqrt((sigma**2).mean() / enough.sum()) + 1 / 16  # ln of a gamma of 8 is 1/16 below that of its mean
    assert abs(ratio.mean()) < bias
    assert abs(ratio.mean() + math.log(3)) > bias  # negative control: off by a factor of three


def test_velocities_borrowed_are_those_of_the_place():
    """Velocity dispersion of the drawn velocities against the Jeans one: 5 sigma for 4,000 draws, 3 % for the width."""
    system = da.Plummer()
    source = boltzmann.VelocitySource(system, np.random.default_rng(0))
    for r in (0.3, 1.0, 3.0):
        v = source(np.array([[0, r, 0.0]]), 4000)[0]
        expected = system.velocity_dispersion(np.array(r))
        np.testing.assert_allclose(v.std(axis=0), expected, rtol=5 / math.sqrt(2 * 4000) + 0.03)
        assert np.abs(v.mean(axis=0)).max() < 5 * expected / math.sqrt(4000)
    assert abs(v.std() / system.velocity_dispersion(np.array(0.3)) - 1) > 0.2  # negative control: another place


def test_the_seed_decides(places):
    points = places(3)
    one, same, other = (da.accelerations(da.Plummer(), points, n_velocities=50, rng=r).condition for r in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).all()
    np.testing.assert_array_equal(
        da.accelerations(da.Plummer(), points, n_velocities=50, rng=np.random.default_rng(1)).condition, one
    )


def test_points_do_not_depend_on_their_company(places, bound_velocities):
    """Many points are solved in several batches; each has the answer it has alone."""
    points = places(300)
    velocities = bound_velocities(da.Plummer(), points, n=20)
    together = da.accelerations(da.Plummer(), points, velocities=velocities)
    for i in (0, 150, 299):
        alone = da.accelerations(da.Plummer(), points[i : i + 1], velocities=velocities[i : i + 1])
        np.testing.assert_allclose(alone.value[0], together.value[i], rtol=1e-9, atol=1e-12)


# ---- bad input ----


@pytest.mark.parametrize(
    ("points", "options", "error", "message"),
    [
        ([[1.0, 2]], {}, ValueError, r"points must have shape \(m, 3\), m >= 1; got \(1, 2\)"),
        ([1.0, 2, 3], {}, ValueError, r"points must have shape \(m, 3\).*got \(3,\)"),
        (np.ones((0, 3)), {}, ValueError, r"points must have shape \(m, 3\), m >= 1; got \(0, 3\)"),
        ([[1.0, 2, 3], [np.nan, 0, 0]], {}, ValueError, "points has 1 non-finite rows?, first at index 1"),
        ([[1.0, 2, 3]], {"n_velocities": 0}, ValueError, "n_velocities must be a positive integer; got 0"),
        ([[1.0, 2, 3]], {"n_velocities": 2}, ValueError, "n_velocities must be at least 3.*got 2"),
        ([[1.0, 2, 3]], {"n_velocities": 10**6}, ValueError, "n_velocities must be at most 100000; got 1000000"),
        ([[1.0, 2, 3]], {"n_velocities": 1e3}, TypeError, "n_velocities must be a positive integer; got 1000.0"),
        ([[1.0, 2, 3]], {"velocities": np.ones((2, 5, 3))}, ValueError, r"velocities must have shape \(1, V, 3\)"),
        ([[1.0, 2, 3]], {"velocities": np.ones((1, 2, 3))}, ValueError, r"V >= 3; got \(1, 2, 3\)"),
        ([[1.0, 2, 3]], {"velocities": np.full((1, 9, 3), np.inf)}, ValueError, "velocities has .*non-finite"),
        ([[1.0, 2, 3]], {"huber": 0}, ValueError, "huber must be a positive finite number; got 0"),
    ],
)
def test_bad_input(points, options, error, message):
    with pytest.raises(error, match=message):
        da.accelerations(da.Plummer(), points, **options)


def test_a_flow_that_was_hardly_trained_still_answers(ensemble, bound_velocities):
    """Some of its stars lie so far out that their coordinates overflow: they lend no velocities, and that is all."""
    model = ensemble("none")
    model.std[:3] = 60.0
    stars = torch.from_numpy(model.sample(20_000, rng=np.random.default_rng(0)))
    assert not torch.isfinite(model.coordinates.forward(stars)[0]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isfinite(da.accelerations(model, [[1.0, 2, 3]], n_velocities=50).value).all()
        velocities = bound_velocities(da.Plummer(), np.array([[1.0, 2, 3]]))
        expected = da.accelerations(model, [[1.0, 2, 3]], velocities=velocities).value
        beyond = np.concatenate([velocities, np.full((1, 20, 3), 1e200)], axis=1)  # more than single precision holds
        np.testing.assert_allclose(da.accelerations(model, [[1.0, 2, 3]], velocities=beyond).value, expected, rtol=1e-6)
