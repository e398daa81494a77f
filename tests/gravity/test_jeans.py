"""Jeans equations: moments alone give the acceleration where the assumed symmetry holds, with errors that are right."""

import numpy as np
import pytest

import dfaccel as da

SQUASH = np.array([1, 1, 0.5])


def relative(system, n, seed, coordinates, places, squash=1.0, **options):
    """Median relative error at score-card radii of a system multiplied along its axes."""
    x = places(60, system.scale, seed)
    stars = system.sample(n, rng=seed) * np.tile(squash * np.ones(3), 2)
    result = da.jeans(stars, squash * x, coordinates=coordinates, **options)
    return np.median(result.error(squash * system.acceleration(x)))


@pytest.mark.parametrize(("system", "n", "coordinates", "squash", "most"), [
    (da.Hernquist(), 20_000, "spherical", 1.0, 0.04),
    (da.Hernquist(mass=0.2, scale=5.0, beta=0.5, G=43.0), 20_000, "spherical", 1.0, 0.04),
    (da.Hernquist(), 20_000, "axisymmetric", 1.0, 0.06),
    (da.Hernquist(), 20_000, "axisymmetric", SQUASH, 0.08),
    pytest.param(da.Hernquist(), 1_000_000, "spherical", 1.0, 0.004, marks=pytest.mark.slow),
    pytest.param(da.Hernquist(beta=0.5), 1_000_000, "spherical", 1.0, 0.006, marks=pytest.mark.slow),
])
def test_accelerations_are_those_of_the_system(system, n, coordinates, squash, most, places):
    """Limits are twice the median error of six other data sets, 0.4 % / sqrt(n / 1e5) to 4 % with the symmetry."""
    assert relative(system, n, 11, coordinates, places, squash, n_bootstrap=0) < most


@pytest.mark.parametrize(("coordinates", "most"), [("spherical", 0.014), ("axisymmetric", 0.026)])
def test_weights_undo_a_known_selection(coordinates, most, places):
    """A share 1 / (1 + r) of the stars is seen; limits are twice the largest median error of six other data sets."""
    galaxy, x = da.Hernquist(), places(60, 1.0, 7)
    stars = galaxy.sample(300_000, rng=7)
    r = np.linalg.norm(stars[:, :3], axis=1)
    kept = np.random.default_rng(5).random(len(r)) < 1 / (1 + r)
    errors = {}
    for name, weights in {"known": 1 + r[kept], "forgotten": None, "scaled": 3 + 3 * r[kept]}.items():
        result = da.jeans(stars[kept], x, coordinates=coordinates, weights=weights)
        errors[name] = np.median(result.error(galaxy.acceleration(x)))
    assert errors["known"] < most
    assert errors["scaled"] == pytest.approx(errors["known"], rel=1e-9)
    assert errors["forgotten"] > 0.1  # negative control
    bar = np.sqrt(np.trace(result.covariance, axis1=1, axis2=2))
    truth = np.linalg.norm(result.value - galaxy.acceleration(x), axis=1)
    assert 0.3 < np.median(truth) / np.median(bar) < 3  # the errors know of the weights, too


def test_a_false_symmetry_gives_a_large_error(places):
    assert relative(da.Hernquist(), 20_000, 12, "spherical", places, SQUASH, n_bootstrap=0) > 0.15


@pytest.mark.parametrize("coordinates", ["spherical", "axisymmetric"])
def test_turned_mirrored_and_in_other_units(coordinates, places):
    stars, x, length, speed = da.Plummer().sample(5000, rng=1), places(20, r_max=3.0), 1e20, 1e-6
    plain = da.jeans(stars, x, coordinates=coordinates, n_bootstrap=3)
    scaled = da.jeans(stars * np.repeat([length, speed], 3), length * x, coordinates=coordinates, n_bootstrap=3)
    np.testing.assert_allclose(scaled.value / (speed**2 / length), plain.value, rtol=1e-5)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    if coordinates == "axisymmetric":  # about z, and a mirror
        turn = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, -1]])
    turned = da.jeans(stars @ np.kron(np.eye(2), turn), x @ turn, coordinates=coordinates, n_bootstrap=0)
    np.testing.assert_allclose(turned.value, plain.value @ turn, rtol=1e-5, atol=1e-8)
    assert (plain.covariance.shape, plain.n_near.shape) == ((20, 3, 3), (20,))
    assert np.isnan(plain.residual).all()
    assert (plain.condition == 1).all()
    assert np.isnan(turned.covariance).all()


def test_the_seed_decides_replicates_alone():
    stars, x = da.Plummer().sample(2000, rng=1), np.eye(3)
    one, same, other = (da.jeans(stars, x, rng=rng) for rng in (1, np.random.default_rng(1), 2))
    np.testing.assert_array_equal(one.members, same.members)
    np.testing.assert_array_equal(one.value, other.value)
    assert (one.members != other.members).any()


@pytest.mark.parametrize("coordinates", ["spherical", pytest.param("axisymmetric", marks=pytest.mark.slow)])
def test_centre_axis_and_far_stars(coordinates):
    """No pull at the centre, none across the axis, and stars far out change nothing near the centre."""
    x = np.array([[0.0, 0, 0], [0, 0, 1], [0.5, 0.5, 0.3]])
    stars = da.Plummer().sample(20_000, rng=3)
    far = stars.copy()
    far[:5, :3] *= 1e6
    value = da.jeans(stars, x, coordinates=coordinates, n_bootstrap=0).value
    assert (value[0] == 0).all()
    assert (value[1, :2] == 0).all()
    assert value[1, 2] < 0
    moved = da.jeans(far, np.vstack([x, 1e4 * x[2:]]), coordinates=coordinates, n_bootstrap=0)
    assert np.linalg.norm(moved.value[:3] - value, axis=1).max() < 0.01
    assert not moved.supported[3]


@pytest.mark.slow
@pytest.mark.parametrize("system", [da.Hernquist(), da.Hernquist(beta=0.5)])
def test_intervals_hold_as_often_as_they_say(system):
    """200 data sets, one radius each, are independent trials: 68 % within 5 binomial errors; half the bars fail."""
    errors, rng = [], np.random.default_rng(5)
    for seed in range(200):
        x = np.array([[np.exp(rng.uniform(np.log(0.3), np.log(5))), 0, 0]])
        result = da.jeans(system.sample(5000, rng=1000 + seed), x, rng=seed, n_bootstrap=50)
        errors.append(abs(result.value - system.acceleration(x))[0, 0] / np.sqrt(result.covariance[0, 0, 0]))
    share, within = 0.683, 5 * np.sqrt(0.683 * 0.317 / len(errors))
    held = [np.mean(np.array(errors) < bars) for bars in (1, 0.5)]
    assert abs(held[0] - share) < within, held
    assert held[1] < share - within, held


def bad(change):
    stars = da.Plummer().sample(2000, rng=2)
    change(stars)
    return stars


def at_one_radius(w):
    w[:, :3] /= np.linalg.norm(w[:, :3], axis=1, keepdims=True)


@pytest.mark.parametrize(("stars", "options", "error", "message"), [
    (da.Plummer().sample(999, rng=0), {}, ValueError, "w must have at least 1000 stars for its moments; got 999"),
    (bad(at_one_radius), {}, ValueError, "w must spread in radius; all but 20 stars lie at 1 to 1"),
    (bad(lambda w: w.__setitem__((7, 3), np.nan)), {}, ValueError, "w has 1 non-finite row, first at index 7"),
    (bad(lambda w: w.__setitem__((7, 3), 1e3)), {}, ValueError, "w must be without unbound stars.*at index 7"),
    (bad(lambda w: w.__setitem__((slice(None), slice(3, 6)), 0)), {}, ValueError, "not all at rest.*speed of 0"),
    (bad(lambda w: w.__setitem__((slice(None), 2), 0)), {"coordinates": "axisymmetric"}, ValueError,
     "off the plane z = 0"),
    (bad(lambda w: None), {"coordinates": "linear"}, ValueError, "one of spherical, axisymmetric; got 'linear'"),
    (bad(lambda w: None), {"n_bootstrap": -1}, ValueError, "n_bootstrap must be a positive integer; got -1"),
])
def test_bad_input(stars, options, error, message):
    with pytest.raises(error, match=message):
        da.jeans(stars, np.eye(3), **options)


def test_repeated_stars_are_noticed():
    with pytest.warns(UserWarning, match="miss the Jeans equations by .* not independent"):
        da.jeans(np.repeat(da.Plummer().sample(1000, rng=1), 20, axis=0), np.eye(3), n_bootstrap=0)
