"""The Miyamoto-Nagai potential against galpy, and the disc: at the beginning, and in equilibrium."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

import dfaccel as da
from dfaccel.systems.orbits import integrate

FIELDS = [da.MiyamotoNagai(), da.MiyamotoNagai(mass=3.0, a=2.0, b=0.5, G=0.7), da.MiyamotoNagai(mass=0.2, a=0.0, b=5.0)]
N_STARS = 4000


fields = pytest.mark.parametrize("field", FIELDS, ids=repr)


@pytest.fixture(scope="module")
def disc():
    """The stars of a disc at some times, each followed from the one before, with twice the default step."""
    kept, times = {0.0: da.Disc().initial(N_STARS, rng=5)}, (0.0, 12.0, 24.0, 600.0, 1200.0)

    def at(time):
        if time not in kept:
            before = times[times.index(time) - 1]
            kept[time] = integrate(at(before), da.MiyamotoNagai(), time - before, step=0.6)
        return kept[time]

    return at


def points(field, n=40):
    size = (field.a + field.b) * np.geomspace(0.01, 30, n)[:, None]
    return size * np.random.default_rng(1).normal(size=(n, 3)) * [1, 1, 0.3]


@fields
@pytest.mark.filterwarnings("ignore")
def test_galpy_agrees_and_the_mass_is_the_integral_of_the_density(field):
    from galpy.potential import MiyamotoNagaiPotential

    theirs = MiyamotoNagaiPotential(amp=field.G * field.mass, a=field.a, b=field.b)
    x = points(field)
    big_r, z = np.hypot(x[:, 0], x[:, 1]), x[:, 2]
    force = theirs.Rforce(big_r, z)
    expected = np.stack([force * x[:, 0] / big_r, force * x[:, 1] / big_r, theirs.zforce(big_r, z)], axis=1)
    for ours, value in ((field.potential(x), theirs(big_r, z)), (field.acceleration(x), expected),
                        (field.density(x), theirs.dens(big_r, z) / field.G),
                        (field.circular_speed(big_r), theirs.vcirc(big_r)),
                        (field.escape_speed(x * [1, 1, 0]), theirs.vesc(big_r))):
        np.testing.assert_allclose(ours, value, rtol=1e-10)
    t, weight = np.polynomial.legendre.leggauss(400)
    u, weight = (t + 1) / 2, weight / 2
    big_r, z = (field.a + field.b) * u / (1 - u), field.b * u / (1 - u)
    x = np.stack(np.broadcast_arrays(big_r[:, None], 0.0, z), axis=-1)
    shell = 2 * np.pi * big_r[:, None] * 2 * field.density(x)
    jacobian = np.outer((field.a + field.b) / (1 - u) ** 2 * weight, field.b / (1 - u) ** 2 * weight)
    assert (shell * jacobian).sum() == pytest.approx(field.mass, rel=1e-3)


def test_units_are_scalings():
    natural, scaled = da.MiyamotoNagai(), da.MiyamotoNagai(mass=3.0, a=2.0, b=0.2, G=0.7)
    x, speed = points(natural), np.sqrt(0.7 * 3.0 / 2.0)
    unit, w = np.repeat([2.0, speed], 3), np.hstack([x, x])
    factors = {"potential": speed**2, "acceleration": speed**2 / 2, "density": 3 / 8, "escape_speed": speed}
    for name, factor in factors.items():
        np.testing.assert_allclose(getattr(scaled, name)(2 * x), factor * getattr(natural, name)(x), rtol=1e-12)
    np.testing.assert_allclose(scaled.circular_speed(3.0), speed * natural.circular_speed(1.5), rtol=1e-13)
    np.testing.assert_allclose(scaled.rate(w * unit), speed / 2 * natural.rate(w), rtol=1e-12)
    disc = da.Disc(field=scaled, scale=2.0, r_max=10.0, height=0.2)
    np.testing.assert_allclose(disc.initial(100, rng=1), da.Disc().initial(100, rng=1) * unit, rtol=1e-12)


def test_rate_bounds_how_fast_the_force_changes(disc):
    """Along the orbits of a disc, |da/dt| is at most the rate times the largest force nearby."""
    field, w, dt = da.MiyamotoNagai(), disc(0.0), 1e-5
    pull, later = (field.acceleration(stars[:, :3]) for stars in (w, integrate(w, field, dt)))
    rate = field.rate(w)
    # the vertical force changes by at most nu^2 |v_z|, the horizontal one by less than its own rotation
    bound = rate * np.maximum(np.linalg.norm(pull, axis=1), rate * np.abs(w[:, 5]))
    assert (np.linalg.norm(later - pull, axis=1) / dt < 2 * bound).all()


@pytest.mark.parametrize(("call", "error", "message"), [
    *[(lambda name=name: da.Disc(**{name: -1}), ValueError, f"{name} must be (zero or )?a positive .*; got -1")
      for name in ("scale", "r_max", "height", "dispersion", "lag", "time")],
    *[(lambda name=name: da.Disc(**{name: 1.5}), ValueError, f"{name} must be below one, in units .* speed; got 1.5")
      for name in ("dispersion", "lag")],
    (lambda: da.Disc().sample(1e4, rng=1), TypeError, "n must be a positive integer; got 10000.0"),
    (lambda: da.Disc().sample(0, rng=1), ValueError, "n must be a positive integer; got 0"),
    (lambda: da.Disc(field=da.Plummer()), TypeError, "field must be a MiyamotoNagai potential; got Plummer"),
    (lambda: integrate(np.ones((1, 6)), da.Plummer(), 1.0), TypeError, "field must have acceleration and rate"),
])
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- the disc at the beginning ----


def test_the_disc_at_the_beginning():
    """Surface density exp(-R / s) to r_max, any azimuth, exponential heights, velocities near those of circles."""
    disc, n, chance = da.Disc(scale=1.3, r_max=4.0, height=0.2, dispersion=0.07, lag=0.2), 100_000, 2 * stats.norm.sf(5)
    w = disc.initial(n, rng=2)
    big_r, phi, z, v_r, v_phi, v_z = da.cylindrical(w)
    pull = disc.acceleration(w[:, :3])
    circular = np.sqrt(-(w[:, :2] * pull[:, :2]).sum(1))
    assert big_r.max() < 4.0
    enclosed = stats.gamma(2, scale=1.3)
    for value, law in ((big_r, lambda r: enclosed.cdf(r) / enclosed.cdf(4.0)), (z, stats.laplace(0, 0.2).cdf),
                       (phi, stats.uniform(-np.pi, 2 * np.pi).cdf), (v_r / circular / 0.07, stats.norm.cdf),
                       (v_z / circular / 0.07, stats.norm.cdf), ((1 - v_phi / circular) / 0.2, stats.halfnorm.cdf)):
        assert stats.kstest(value, law).pvalue > chance
    # negative controls: a disc that falls as exp(-R) / R, and one whose heights are one part in twenty too large
    assert stats.kstest(big_r, lambda r: (1 - np.exp(-r / 1.3)) / (1 - np.exp(-4.0 / 1.3))).pvalue < chance
    assert stats.kstest(1.05 * z, stats.laplace(0, 0.2).cdf).pvalue < chance
    assert abs(np.abs(z).mean() - 0.2) < 5 * 0.2 / np.sqrt(n)
    for v in (v_r, v_z):  # standard error of a standard deviation: 1 / sqrt(2 n)
        assert abs(np.std(v / circular) / 0.07 - 1) < 5 / np.sqrt(2 * n)
    correlation = stats.spearmanr(np.stack([big_r, v_r / circular, v_phi / circular, v_z / circular]), axis=1).statistic
    assert abs(correlation - np.eye(4)).max() < 5 / np.sqrt(n)


@pytest.mark.usefixtures("global_random_state")
def test_the_stars_repeat_with_the_seed():
    disc = da.Disc(time=2.0)
    w = disc.sample(200, rng=5)
    assert (w.shape, w.dtype) == ((200, 6), np.float64)
    assert not np.array_equal(w, disc.sample(200, rng=6))
    again = integrate(disc.initial(200, np.random.default_rng(5)), disc.field, 2.0, step=0.3)
    np.testing.assert_array_equal(w, again)


@pytest.mark.slow
def test_all_stars_are_bound(disc):
    hot = da.Disc(dispersion=0.6).initial(20_000, rng=1)  # one star in thirty would be unbound
    for w in (disc(0.0), disc(600.0), hot):
        assert (np.linalg.norm(w[:, 3:], axis=1) < da.MiyamotoNagai().escape_speed(w[:, :3])).all()


def test_a_larger_or_lighter_disc_is_followed_for_as_many_orbits():
    assert da.Disc().time == 600.0
    for field in (da.MiyamotoNagai(a=10.0, b=1.0), da.MiyamotoNagai(mass=1e-3), da.MiyamotoNagai(a=2.0, G=4.3e-6)):
        orbits = da.Disc(field=field).time * field.circular_speed(field.a + field.b) / (field.a + field.b)
        assert orbits == pytest.approx(600 * da.MiyamotoNagai().circular_speed(1.1) / 1.1)
    assert da.Disc(field=field, time=3).time == 3


def test_a_cold_disc_is_a_disc():
    _, _, _, v_r, v_phi, v_z = da.cylindrical(da.Disc(dispersion=0, lag=0).initial(100, rng=1))
    np.testing.assert_allclose([v_r, v_z], 0, atol=1e-15)
    assert (v_phi > 0).all()


# ---- the disc in equilibrium ----


def deviations(first, second):
    """Differences of moments in bins of radius, over their standard errors, of two sets of stars.

    They are the same stars at two times, whose moments agree better than those of independent stars: a lenient limit.
    """
    edges = np.concatenate([[0], np.quantile(da.cylindrical(first).R, [0.25, 0.5, 0.75]), [np.inf]])
    moments = []
    for w in (first, second):
        big_r, _, z, v_r, v_phi, v_z = da.cylindrical(w)
        for low, high in pairwise(edges):
            inside = (big_r >= low) & (big_r < high)
            values = np.stack([big_r, np.abs(z), v_r**2, v_phi, v_z**2])[:, inside]
            mean, variance = [inside.mean(), *values.mean(1)], [inside.var() / len(w), *values.var(1) / inside.sum()]
            moments.append((mean, variance))
    first, second = np.split(np.array(moments), 2)
    return ((first - second)[:, 0] / np.sqrt((first + second)[:, 1])).ravel()


@pytest.mark.slow
def test_the_disc_is_in_equilibrium(disc):
    time = da.Disc().time
    z = deviations(disc(time), disc(2 * time))
    limit = stats.norm.isf(stats.norm.sf(5) / len(z))  # the largest of so many is beyond it as rarely as one beyond 5
    assert abs(z).max() < limit
    # negative control: the same stars see that it was not at 12, nor at the beginning
    assert abs(deviations(disc(12.0), disc(24.0))).max() > limit
    assert abs(deviations(disc(0.0), disc(time))).max() > limit


@pytest.mark.slow
def test_the_disc_is_axisymmetric_and_symmetric_about_its_plane(disc):
    """Means that vanish in equilibrium, over their standard errors."""
    w = disc(da.Disc().time)
    _, _, z, v_r, _, v_z = da.cylindrical(w)
    for value in (w[:, 0], w[:, 1], z, v_r, v_z, z * v_z, v_r * v_z, v_r * z):
        assert abs(value.mean()) < 5 * value.std() / np.sqrt(len(value))
