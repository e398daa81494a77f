"""Streams: the density is that of the stars, and a mixture is what it says."""

import numpy as np
import pytest
from scipy import stats

import dfaccel as da

STREAM = da.Stream(radius=10.0, speed=0.3)
WIDE = da.Stream(radius=1.0, arc=0.4, dispersions=(0.06, 0.1, 0.2), speed=0.7)
N_STARS = 100_000
CHANCE = 2 * stats.norm.sf(5)  # as rarely as one beyond five standard deviations


def in_spherical(w):
    """r, theta, phi from zero to two pi, v_r, v_theta, v_phi."""
    big_r, phi, z, v_big_r, v_phi, v_z = da.cylindrical(w)
    r = np.hypot(big_r, z)
    v_r, v_theta = (big_r * v_big_r + z * v_z) / r, (z * v_big_r - big_r * v_z) / r
    return r, np.arccos(z / r), phi % (2 * np.pi), v_r, v_theta, v_phi


def laws(stream):
    """The distribution of each of the six coordinates."""
    spread_r, spread_theta, spread_v = stream.dispersions
    across = stats.norm(0, spread_v)
    return (stats.norm(stream.radius, spread_r), stats.norm(np.pi / 2, spread_theta), stats.uniform(0, stream.arc),
            across, across, stats.norm(stream.speed, spread_v))


# ---- the density ----


@pytest.mark.parametrize("stream", [STREAM, WIDE], ids=repr)
def test_coordinates_follow_their_laws_and_the_entropy_is_theirs(stream):
    """-<log f> is the sum of the entropies of six distributions and of <log(r^2 sin theta)>, here by quadrature."""
    w = stream.sample(N_STARS, rng=1)
    coordinates = in_spherical(w)
    for value, law in zip(coordinates, laws(stream), strict=True):
        assert stats.kstest(value, law.cdf).pvalue > CHANCE / 6
        assert abs(value.mean() - law.mean()) < 5 * law.std() / np.sqrt(N_STARS)
        fourth = ((value - law.mean()) ** 4).mean()
        assert abs(value.var() - law.var()) < 5 * np.sqrt((fourth - law.var() ** 2) / N_STARS)
        # negative control: the test sees a spread that is 5 % too large
        assert stats.kstest(law.mean() + 1.05 * (value - law.mean()), law.cdf).pvalue < CHANCE / 6
    assert abs(stats.spearmanr(np.stack(coordinates), axis=1).statistic - np.eye(6)).max() < 5 / np.sqrt(N_STARS)
    node, weight = np.polynomial.hermite_e.hermegauss(40)
    spread_r, spread_theta, _ = stream.dispersions
    volume = np.log((stream.radius + spread_r * node) ** 2) + np.log(np.cos(spread_theta * node))
    exact = sum(law.entropy() for law in laws(stream)) + weight @ volume / weight.sum()
    found = -stream.log_df(w)
    assert abs(found.mean() - exact) < 5 * found.std() / np.sqrt(N_STARS)


def test_density_integrates_to_one():
    """By stars of a Gaussian in Cartesian coordinates, which knows nothing of spherical ones."""
    rng, n, middle = np.random.default_rng(3), 400_000, WIDE.arc / 2
    mean = np.array([np.cos(middle), np.sin(middle), 0, -0.7 * np.sin(middle), 0.7 * np.cos(middle), 0])
    width = np.array([0.09, 0.16, 0.14, 0.3, 0.28, 0.27])
    w = mean + width * rng.standard_normal((n, 6))
    weight = np.exp(WIDE.log_df(w) - stats.norm.logpdf(w, mean, width).sum(1))
    error = weight.std() / np.sqrt(n)
    assert error < 0.01
    assert abs(weight.mean() - 1) < 5 * error


def test_log_df_is_the_formula():
    w = STREAM.sample(20, rng=4)
    r, theta, *_ = coordinates = in_spherical(w)
    expected = sum(law.logpdf(value) for law, value in zip(laws(STREAM), coordinates, strict=True))
    np.testing.assert_allclose(STREAM.log_df(w), expected - np.log(r**2 * np.sin(theta)), rtol=1e-12)


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
    assert stats.kstest(in_spherical(circle.sample(10_000, rng=1))[2], laws(circle)[2].cdf).pvalue > CHANCE
    half = da.Stream(arc=1.5 * np.pi, speed=0.3)  # beyond pi, where the arctangent jumps
    assert np.isfinite(half.log_df(half.sample(1000, rng=1))).all()


def test_where_there_are_no_stars():
    assert np.isneginf(STREAM.log_df([[0.0, 0, 0, 0, 0, 0], [0.0, 0, 10.0, 0, 0.3, 0]])).all()
    assert STREAM.log_df([5.0, 1, 0, 0, 0.3, 0]) < -1e4
    assert np.isnan(STREAM.log_df(np.array([9.0, 3, 0, 0, 0.3, 0]) + np.diag(np.full(6, np.nan)))).all()


# ---- mixtures ----


@pytest.mark.parametrize(("fraction", "n", "of_stream"), [(0.01, 1000, 10), (0.0, 50, 0), (1.0, 50, 50),
                                                          (1e-4, 10_000, 1), (0.0015, 1000, 2), (0.1, 20_000, 2000)])
def test_stars_of_the_stream_are_so_many_and_in_random_order(fraction, n, of_stream):
    mixture = da.mix(da.Plummer(), da.Stream(), fraction)
    assert mixture.n_stream(n) == of_stream
    w = mixture.sample(n, rng=1)
    assert w.shape == (n, 6)
    where = np.flatnonzero(mixture.stream.log_df(w) > -20)  # a Plummer star so near in all six would be a wonder
    assert len(where) == of_stream
    assert of_stream < 100 or stats.kstest(where / n, "uniform").pvalue > CHANCE


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
    np.testing.assert_array_equal(mixture.acceleration(w[:, :3]), system.acceleration(w[:, :3]))
    np.testing.assert_array_equal(mixture.potential(w[:, :3]), system.potential(w[:, :3]))


def test_speed_is_that_of_a_circular_orbit():
    assert da.mix(da.Plummer(), da.Stream(), 0.1).stream.speed == pytest.approx(10 / 101**0.75)
    assert da.mix(da.Plummer(), da.Stream(speed=0.2), 0.1).stream.speed == 0.2
    for field in (da.MiyamotoNagai(), da.MiyamotoNagai(mass=3.0, G=2.0)):
        stream = da.mix(da.Disc(field=field), da.Stream(radius=1.5), 0.1).stream
        assert stream.speed == pytest.approx(float(field.circular_speed(1.5)))


def test_disc_has_no_density():
    mixture, stream = (da.mix(da.Disc(time=1.0), da.Stream(radius=1.5), fraction) for fraction in (0.1, 1.0))
    assert mixture.sample(1000, rng=1).shape == (1000, 6)
    with pytest.raises(TypeError, match="Disc has no distribution function in closed form"):
        mixture.log_df(np.zeros(6))
    w = stream.sample(10, rng=1)  # nothing of the disc is left
    np.testing.assert_array_equal(stream.log_df(w), stream.stream.log_df(w))


# ---- bad input ----


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"radius": 0.0}, ValueError, "radius must be a positive finite number; got 0"),
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
])
def test_bad_stream(arguments, error, message):
    with pytest.raises(error, match=message):
        da.Stream(**arguments)


class Repulsive(da.Plummer):
    def acceleration(self, x):
        return -super().acceleration(x)


def test_bad_mixtures():
    sphere, stream = da.Plummer(), da.Stream()
    fast, faster = da.Stream(speed=float(np.sqrt(10 / 101**0.75))), da.Stream(radius=1.5, speed=1.072)  # as published
    for arguments, error, message in (
        ((sphere, stream, 1.1), ValueError, "fraction must be at most 1; got 1.1"),
        *[((sphere, stream, bad), ValueError, "fraction must be zero or a positive finite") for bad in (-0.1, np.nan)],
        *[((sphere, stream, bad), TypeError, "fraction must be zero or a positive number") for bad in ("half", None)],
        ((np.zeros(3), stream, 0.1), TypeError, "got ndarray without sample, acceleration, potential and Stream"),
        ((sphere, 0.1, 0.1), TypeError, "got Plummer and float"),
        ((sphere, da.Stream(dispersions=(0.01, 0.01, 0.3)), 0.1), ValueError, "is not bound: its speed is 0.3139"),
        ((sphere, fast, 0.01), ValueError, r"its speed is 0\.5602, the escape speed at radius 10 is 0\.4461"),
        ((da.Disc(), faster, 0.01), ValueError, r"its speed is 1\.072, the escape speed at radius 1\.5 is 1\.037"),
        ((Repulsive(), stream, 0.1), ValueError, "no circular orbit at radius 10: gravity does not point inwards"),
    ):
        with pytest.raises(error, match=message):
            da.mix(*arguments)
    with pytest.raises(ValueError, match=r"n must be at least 1000 for a fraction of 0\.001 .* got 999"):
        da.mix(sphere, stream, 1e-3).sample(999, rng=1)
    for use in (lambda: stream.sample(10, rng=1), lambda: stream.log_df(np.zeros(6))):
        with pytest.raises(ValueError, match="the stream has no speed: give one, or mix it into a system"):
            use()
