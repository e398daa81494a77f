"""Streams: the density is that of the stars, and a mixture is what it says."""

import numpy as np
import pytest
import torch
from scipy import stats

import dfaccel as da

STREAM = da.Stream(radius=10.0, speed=0.3)
WIDE = da.Stream(radius=1.0, arc=0.4, dispersions=(0.06, 0.1, 0.2), speed=0.7)
N_STARS = 100_000
CHANCE = 2 * stats.norm.sf(5)  # as rarely as one beyond five standard deviations


def in_spherical(w):
    """r, theta, phi from zero to two pi, v_r, v_theta, v_phi."""
    x, y, z, v_x, v_y, v_z = w.T
    r, big_r = np.sqrt(x * x + y * y + z * z), np.hypot(x, y)
    v_r = (x * v_x + y * v_y + z * v_z) / r
    v_theta = (z * (x * v_x + y * v_y) / big_r - big_r * v_z) / r
    return r, np.arccos(z / r), np.arctan2(y, x) % (2 * np.pi), v_r, v_theta, (x * v_y - y * v_x) / big_r


def laws(stream):
    """The distribution of each of the six coordinates."""
    spread_r, spread_theta, spread_v = stream.dispersions
    across = stats.norm(0, spread_v)
    return (stats.norm(stream.radius, spread_r), stats.norm(np.pi / 2, spread_theta), stats.uniform(0, stream.arc),
            across, across, stats.norm(stream.speed, spread_v))


# ---- the density ----


@pytest.mark.parametrize("stream", [STREAM, WIDE], ids=repr)
def test_every_coordinate_follows_its_law(stream):
    coordinates = in_spherical(stream.sample(N_STARS, rng=1))
    for value, law in zip(coordinates, laws(stream), strict=True):
        assert stats.kstest(value, law.cdf).pvalue > CHANCE / 6
        assert abs(value.mean() - law.mean()) < 5 * law.std() / np.sqrt(N_STARS)
        fourth = ((value - law.mean()) ** 4).mean()
        assert abs(value.var() - law.var()) < 5 * np.sqrt((fourth - law.var() ** 2) / N_STARS)
        # negative control: the test sees a spread that is 5 % too large
        wrong = law.mean() + 1.05 * (value - law.mean())
        assert stats.kstest(wrong, law.cdf).pvalue < CHANCE / 6
    assert abs(stats.spearmanr(np.stack(coordinates), axis=1).statistic - np.eye(6)).max() < 5 / np.sqrt(N_STARS)


def test_density_integrates_to_one():
    """By stars of a Gaussian in Cartesian coordinates, which knows nothing of spherical ones."""
    rng, n, middle = np.random.default_rng(3), 400_000, WIDE.arc / 2
    mean = np.array([np.cos(middle), np.sin(middle), 0, -0.7 * np.sin(middle), 0.7 * np.cos(middle), 0])
    width = np.array([0.09, 0.16, 0.14, 0.3, 0.28, 0.27])
    w = mean + width * rng.standard_normal((n, 6))
    log_q = stats.norm.logpdf(w, mean, width).sum(1)
    weight = np.exp(WIDE.log_df(w) - log_q)
    error = weight.std() / np.sqrt(n)
    assert error < 0.01
    assert abs(weight.mean() - 1) < 5 * error
    # the same stars, weighted, have the moments of the drawn ones
    drawn = WIDE.sample(N_STARS, rng=1)
    for power in (1, 2):
        value, expected = w**power * weight[:, None], drawn**power
        noise = np.sqrt(value.var(0) / n + expected.var(0) / N_STARS)
        assert (abs(value.mean(0) - expected.mean(0)) < 5 * noise).all()


@pytest.mark.parametrize("stream", [STREAM, WIDE], ids=repr)
def test_entropy_is_that_of_its_parts(stream):
    """-<log f> is the sum of the entropies of six distributions and of <log(r^2 sin theta)>, here by quadrature."""
    node, weight = np.polynomial.hermite_e.hermegauss(40)
    weight = weight / weight.sum()
    spread_r, spread_theta, spread_v = stream.dispersions
    exact = np.log(stream.arc) + np.log(spread_r * spread_theta * spread_v**3) + 2.5 * np.log(2 * np.pi * np.e)
    exact += weight @ np.log((stream.radius + spread_r * node) ** 2) + weight @ np.log(np.cos(spread_theta * node))
    found = -stream.log_df(stream.sample(N_STARS, rng=2))
    assert abs(found.mean() - exact) < 5 * found.std() / np.sqrt(N_STARS)


def test_log_df_is_the_formula():
    r, theta, phi, v_r, v_theta, v_phi = point = (10.01, 1.55, 0.3, 0.012, -0.004, 0.31)
    sin, cos = np.sin(theta), np.cos(theta)
    radial = np.array([sin * np.cos(phi), sin * np.sin(phi), cos])
    polar = np.array([cos * np.cos(phi), cos * np.sin(phi), -sin])
    azimuthal = np.array([-np.sin(phi), np.cos(phi), 0])
    w = np.concatenate([r * radial, v_r * radial + v_theta * polar + v_phi * azimuthal])
    expected = sum(law.logpdf(value) for law, value in zip(laws(STREAM), point, strict=True)) - np.log(r**2 * sin)
    assert STREAM.log_df(w) == pytest.approx(expected, rel=1e-12)


def test_stars_move_along_the_arc():
    """What the published stream does not: its velocity turns away from the arc by twice the azimuth."""
    w = STREAM.sample(1000, rng=1)
    _, _, _, v_r, _, v_phi = in_spherical(w)
    assert (np.abs(np.arctan2(v_r, v_phi)) < 6 * 0.01 / 0.3).all()


def test_edges_of_the_arc():
    def at(phi, stream=STREAM):
        x = stream.radius * np.array([np.cos(phi), np.sin(phi), 0])
        return stream.log_df([*x, *(stream.speed * np.array([-np.sin(phi), np.cos(phi), 0]))])

    inside = at(0.3)
    for phi in (1e-9, np.pi / 4 - 1e-9):
        assert at(phi) == pytest.approx(inside, rel=1e-9)
    for phi in (-1e-9, np.pi / 4 + 1e-9, np.pi, -np.pi / 2):
        assert np.isneginf(at(phi))
    circle = da.Stream(arc=2 * np.pi, speed=0.3)
    for phi in (0.0, 1.0, np.pi, -1e-9, -2.0):
        assert at(phi, circle) == pytest.approx(inside - np.log(8), rel=1e-9)
    azimuth = in_spherical(circle.sample(10_000, rng=1))[2]
    assert stats.kstest(azimuth, stats.uniform(0, 2 * np.pi).cdf).pvalue > CHANCE
    half = da.Stream(arc=1.5 * np.pi, speed=0.3)  # beyond pi, where the arctangent jumps
    assert np.isfinite(half.log_df(half.sample(1000, rng=1))).all()


def test_where_there_are_no_stars():
    assert np.isneginf(STREAM.log_df([0.0, 0, 0, 0, 0, 0]))
    assert np.isneginf(STREAM.log_df([0.0, 0, 10.0, 0, 0.3, 0]))
    assert STREAM.log_df([5.0, 1, 0, 0, 0.3, 0]) < -1e4
    for column in range(6):
        w = np.array([9.0, 3, 0, 0, 0.3, 0])
        w[column] = np.nan
        assert np.isnan(STREAM.log_df(w))


# ---- mixtures ----


@pytest.mark.parametrize(("fraction", "n", "of_stream"), [(0.01, 1000, 10), (0.0, 50, 0), (1.0, 50, 50),
                                                          (1e-4, 10_000, 1), (0.0015, 1000, 2), (0.3, 10, 3)])
def test_counts(fraction, n, of_stream):
    mixture = da.mix(da.Plummer(), da.Stream(), fraction)
    assert mixture.n_stream(n) == of_stream
    w = mixture.sample(n, rng=1)
    assert w.shape == (n, 6)
    r, _, phi, _, _, _ = in_spherical(w)
    assert ((abs(r - 10) < 0.08) & (phi < np.pi / 4)).sum() >= of_stream
    assert (mixture.stream.log_df(w) > -20).sum() == of_stream  # a Plummer star so near in all six would be a wonder


@pytest.mark.usefixtures("global_random_state")
def test_order_is_random_and_repeats_with_the_seed():
    mixture, n = da.mix(da.Plummer(), da.Stream(), 0.1), 20_000
    w = mixture.sample(n, rng=3)
    where = np.flatnonzero(mixture.stream.log_df(w) > -20)
    assert len(where) == 2000
    assert stats.kstest(where / n, "uniform").pvalue > CHANCE
    np.testing.assert_array_equal(w, mixture.sample(n, rng=np.random.default_rng(3)))
    assert not np.array_equal(w, mixture.sample(n, rng=4))
    assert len(np.unique(w[:, 0])) == n


@pytest.mark.parametrize("system", [da.Plummer(), da.Hernquist(), da.Hernquist(beta=0.5, mass=2.0)], ids=repr)
@pytest.mark.parametrize("fraction", [0.0, 1e-3, 0.4, 1.0])
def test_log_df_of_a_mixture(system, fraction):
    mixture = da.mix(system, da.Stream(), fraction)
    w = np.concatenate([mixture.stream.sample(20, rng=1), system.sample(20, rng=2), [[0, 0, 50.0, 0, 0, 5.0]]])
    with np.errstate(divide="ignore"):
        expected = np.log((1 - fraction) * np.exp(system.log_df(w)) + fraction * np.exp(mixture.stream.log_df(w)))
    found = mixture.log_df(w)
    reached = np.isfinite(expected)  # exp does not underflow where log f may still be a number
    np.testing.assert_allclose(found[reached], expected[reached], rtol=1e-10)
    assert (found[~reached] < -700).all()
    np.testing.assert_allclose(mixture.log_df(torch.from_numpy(w)).numpy(), found, rtol=1e-12)
    np.testing.assert_array_equal(mixture.acceleration(w[:, :3]), system.acceleration(w[:, :3]))
    np.testing.assert_array_equal(mixture.potential(w[:, :3]), system.potential(w[:, :3]))


def test_density_of_a_mixture_integrates_to_one(proposal):
    """Part of it by stars that cover the sphere, part by stars that cover the stream."""
    mixture = da.mix(da.Plummer(), da.Stream(radius=1.0, arc=0.4, dispersions=(0.06, 0.1, 0.2)), 0.2)
    w, log_q = proposal(400_000, 3)
    weight = np.exp(mixture.log_df(w) - log_q)
    assert abs(weight.mean() - 1) < 5 * weight.std() / np.sqrt(len(w))
    assert weight.std() / np.sqrt(len(w)) < 0.03


def test_speed_is_that_of_a_circular_orbit():
    assert da.mix(da.Plummer(), da.Stream(), 0.1).stream.speed == pytest.approx(10 / 101**0.75)
    stream = da.mix(da.Disc(), da.Stream(radius=1.5), 0.1).stream
    assert stream.speed == pytest.approx(float(da.MiyamotoNagai().circular_speed(1.5)))
    assert da.mix(da.Plummer(), da.Stream(speed=0.2), 0.1).stream.speed == 0.2
    disc = da.Disc(field=da.MiyamotoNagai(mass=3.0, G=2.0))
    assert da.mix(disc, da.Stream(radius=1.5), 0.1).stream.speed == pytest.approx(stream.speed * np.sqrt(6))


def test_disc_has_no_density():
    mixture = da.mix(da.Disc(time=1.0), da.Stream(radius=1.5), 0.1)
    assert mixture.sample(1000, rng=1).shape == (1000, 6)
    with pytest.raises(TypeError, match="Disc has no distribution function in closed form"):
        mixture.log_df(np.zeros(6))
    stream = da.mix(da.Disc(time=1.0), da.Stream(radius=1.5), 1.0)  # nothing of the disc is left
    w = stream.sample(10, rng=1)
    np.testing.assert_array_equal(stream.log_df(w), stream.stream.log_df(w))


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"radius": 0.0}, ValueError, "radius must be a positive finite number; got 0"),
        ({"radius": np.nan}, ValueError, "radius must be a positive finite number; got nan"),
        ({"radius": "far"}, TypeError, "radius must be a positive number; got 'far'"),
        ({"arc": -1.0}, ValueError, "arc must be a positive finite number; got -1"),
        ({"arc": 7.0}, ValueError, "arc must be at most two pi; got 7"),
        ({"speed": 0.0}, ValueError, "speed must be a positive finite number; got 0"),
        ({"dispersions": (0.01, 0.01)}, ValueError, "dispersions must be three: of radius, polar angle, velocity; got"),
        ({"dispersions": 0.01}, ValueError, "dispersions must be three"),
        ({"dispersions": (0.01, 0.0, 0.01)}, ValueError, "dispersions must be a positive finite number; got 0"),
        ({"dispersions": (0.01, np.nan, 0.01)}, ValueError, "dispersions must be a positive finite number; got nan"),
        ({"dispersions": (2.0, 0.01, 0.01)}, ValueError, "dispersions must keep the stream away from the centre"),
        ({"dispersions": (0.01, 0.5, 0.01)}, ValueError, "dispersions must keep the stream away from the centre"),
    ],
)
def test_bad_stream(arguments, error, message):
    with pytest.raises(error, match=message):
        da.Stream(**arguments)


@pytest.mark.parametrize(
    ("fraction", "error"),
    [(-0.1, ValueError), (1.1, ValueError), (np.nan, ValueError), ("half", TypeError), (None, TypeError)],
)
def test_bad_fraction(fraction, error):
    with pytest.raises(error, match="fraction must "):
        da.mix(da.Plummer(), da.Stream(), fraction)


def test_what_is_no_system_or_no_stream_is_said_and_a_hot_stream_is_not_bound():
    with pytest.raises(TypeError, match="got ndarray without sample, acceleration, potential and Stream"):
        da.mix(np.zeros(3), da.Stream(), 0.1)
    with pytest.raises(TypeError, match="got Plummer and float"):
        da.mix(da.Plummer(), 0.1, 0.1)
    with pytest.raises(ValueError, match="the stream is not bound: its speed is 0.3139"):
        da.mix(da.Plummer(), da.Stream(dispersions=(0.01, 0.01, 0.3)), 0.1)


def test_unbound_stream_is_refused_with_both_speeds():
    """The speeds of the published streams."""
    with pytest.raises(ValueError, match=r"its speed is 0\.5602, the escape speed at radius 10 is 0\.4461"):
        da.mix(da.Plummer(), da.Stream(speed=float(np.sqrt(10 / 101**0.75))), 0.01)
    field = da.MiyamotoNagai()
    too_fast = float(field.circular_speed(1.5) / field.circular_speed(1.0))
    with pytest.raises(ValueError, match=r"its speed is 1\.072, the escape speed at radius 1\.5 is 1\.037"):
        da.mix(da.Disc(), da.Stream(radius=1.5, speed=too_fast), 0.01)


def test_other_bad_input():
    mixture = da.mix(da.Plummer(), da.Stream(), 1e-3)
    with pytest.raises(ValueError, match=r"n must be at least 1000 for a fraction of 0\.001 .* got 999"):
        mixture.sample(999, rng=1)
    with pytest.raises(ValueError, match="n must be a positive integer; got 0"):
        mixture.sample(0, rng=1)
    with pytest.raises(TypeError, match="n must be a positive integer; got 1000.0"):
        mixture.sample(1e3, rng=1)
    for use in (lambda: da.Stream().sample(10, rng=1), lambda: da.Stream().log_df(np.zeros(6))):
        with pytest.raises(ValueError, match="the stream has no speed: give one, or mix it into a system"):
            use()
    with pytest.raises(ValueError, match=r"w must have shape \(..., 6\); got \(3,\)"):
        STREAM.log_df(np.zeros(3))

    class Repulsive(da.Plummer):
        def acceleration(self, x):
            return -super().acceleration(x)

    with pytest.raises(ValueError, match="there is no circular orbit at radius 10: gravity does not point inwards"):
        da.mix(Repulsive(), da.Stream(), 0.1)
