"""The Miyamoto-Nagai potential against galpy, and the disc: at the beginning, and in equilibrium."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

import dfaccel as da
from dfaccel.systems.orbits import integrate

FIELDS = [da.MiyamotoNagai(), da.MiyamotoNagai(mass=3.0, a=2.0, b=0.5, G=0.7), da.MiyamotoNagai(mass=0.2, a=0.0, b=5.0)]
N_STARS = 4000
N_BINS = 4


@pytest.fixture(params=FIELDS, ids=repr)
def field(request):
    return request.param


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


def points(field, n=40, seed=1):
    rng = np.random.default_rng(seed)
    size = (field.a + field.b) * np.geomspace(0.01, 30, n)[:, None]
    return size * rng.normal(size=(n, 3)) * [1, 1, 0.3]


# ---- the potential ----


@pytest.mark.filterwarnings("ignore")
def test_galpy_agrees(field):
    from galpy.potential import MiyamotoNagaiPotential

    theirs = MiyamotoNagaiPotential(amp=field.G * field.mass, a=field.a, b=field.b)
    x = points(field)
    big_r, z = np.hypot(x[:, 0], x[:, 1]), x[:, 2]
    np.testing.assert_allclose(field.potential(x), theirs(big_r, z), rtol=1e-10)
    force = theirs.Rforce(big_r, z)
    expected = np.stack([force * x[:, 0] / big_r, force * x[:, 1] / big_r, theirs.zforce(big_r, z)], axis=1)
    np.testing.assert_allclose(field.acceleration(x), expected, rtol=1e-10)
    np.testing.assert_allclose(field.density(x), theirs.dens(big_r, z) / field.G, rtol=1e-10)
    np.testing.assert_allclose(field.circular_speed(big_r), theirs.vcirc(big_r), rtol=1e-10)
    np.testing.assert_allclose(field.escape_speed(x * [1, 1, 0]), theirs.vesc(big_r), rtol=1e-10)


def test_mass_is_the_integral_of_the_density(field):
    t, weight = np.polynomial.legendre.leggauss(400)
    u, weight = (t + 1) / 2, weight / 2
    big_r, z = (field.a + field.b) * u / (1 - u), field.b * u / (1 - u)
    x = np.stack(np.broadcast_arrays(big_r[:, None], 0.0, z), axis=-1)
    shell = 2 * np.pi * big_r[:, None] * 2 * field.density(x)
    jacobian = np.outer((field.a + field.b) / (1 - u) ** 2 * weight, field.b / (1 - u) ** 2 * weight)
    assert (shell * jacobian).sum() == pytest.approx(field.mass, rel=1e-3)


def test_without_a_it_is_a_plummer_sphere():
    field, sphere = da.MiyamotoNagai(mass=3.0, a=0.0, b=2.0, G=0.7), da.Plummer(mass=3.0, scale=2.0, G=0.7)
    x = points(field)
    for name in ("potential", "acceleration", "density"):
        np.testing.assert_allclose(getattr(field, name)(x), getattr(sphere, name)(x), rtol=1e-12)
    np.testing.assert_allclose(field.escape_speed(x), sphere.escape_speed(np.linalg.norm(x, axis=1)), rtol=1e-12)


def test_units_are_scalings():
    natural, scaled = da.MiyamotoNagai(), da.MiyamotoNagai(mass=3.0, a=2.0, b=0.2, G=0.7)
    x, speed = points(natural), np.sqrt(0.7 * 3.0 / 2.0)
    np.testing.assert_allclose(scaled.potential(2 * x), speed**2 * natural.potential(x), rtol=1e-13)
    np.testing.assert_allclose(scaled.acceleration(2 * x), speed**2 / 2 * natural.acceleration(x), rtol=1e-12)
    np.testing.assert_allclose(scaled.density(2 * x), 3 / 8 * natural.density(x), rtol=1e-12)
    np.testing.assert_allclose(scaled.escape_speed(2 * x), speed * natural.escape_speed(x), rtol=1e-13)
    np.testing.assert_allclose(scaled.circular_speed(3.0), speed * natural.circular_speed(1.5), rtol=1e-13)
    w = np.hstack([x, x])
    unit = np.repeat([2.0, speed], 3)
    np.testing.assert_allclose(scaled.rate(w * unit), speed / 2 * natural.rate(w), rtol=1e-12)
    disc = da.Disc(field=scaled, scale=2.0, r_max=10.0, height=0.2)
    np.testing.assert_allclose(disc.initial(100, rng=1), da.Disc().initial(100, rng=1) * unit, rtol=1e-12)


def test_circular_speed_balances_gravity(field):
    x = points(field) * [1, 1, 0]
    big_r = np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(field.circular_speed(big_r) ** 2 / big_r, np.linalg.norm(field.acceleration(x), axis=1),
                               rtol=1e-12)


def test_rate_bounds_how_fast_the_force_changes(disc):
    """Along the orbits of a disc, |da/dt| is at most the rate times the largest force nearby."""
    field, w = da.MiyamotoNagai(), disc(0.0)
    dt = 1e-5
    later = integrate(w, field, dt)
    change = np.linalg.norm(field.acceleration(later[:, :3]) - field.acceleration(w[:, :3]), axis=1) / dt
    rate = field.rate(w)
    # the vertical force changes by at most nu^2 |v_z|, the horizontal one by less than its own rotation
    bound = rate * np.maximum(np.linalg.norm(field.acceleration(w[:, :3]), axis=1), rate * np.abs(w[:, 5]))
    assert (change < 2 * bound).all()


@pytest.mark.parametrize("name", ["mass", "a", "b", "G"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_parameters_must_be_positive(name, value):
    if (name, value) == ("a", 0.0):
        assert da.MiyamotoNagai(a=0).a == 0
        return
    with pytest.raises(ValueError, match=f"{name} must be a positive finite number; got"):
        da.MiyamotoNagai(**{name: value})


def test_other_bad_input():
    with pytest.raises(TypeError, match="b must be a positive number; got 'thin'"):
        da.MiyamotoNagai(b="thin")
    with pytest.raises(ValueError, match=r"x must have shape \(..., 3\); got \(6,\)"):
        da.MiyamotoNagai().acceleration(np.zeros(6))
    with pytest.raises(ValueError, match=r"w must have shape \(..., 6\); got \(3,\)"):
        da.MiyamotoNagai().rate(np.zeros(3))
    for name in ("scale", "r_max", "height", "dispersion", "lag", "time"):
        with pytest.raises(ValueError, match=f"{name} must be a positive finite number; got -1"):
            da.Disc(**{name: -1})
    with pytest.raises(TypeError, match="n must be a positive integer; got 10000.0"):
        da.Disc().sample(1e4, rng=1)
    with pytest.raises(ValueError, match="n must be a positive integer; got 0"):
        da.Disc().sample(0, rng=1)


# ---- the disc at the beginning ----


def test_initial_positions():
    """Surface density exp(-R / s) to r_max, any azimuth, exponential heights; one in three million fails by chance."""
    disc, n = da.Disc(scale=1.3, r_max=4.0, height=0.2), 100_000
    x, y, z = disc.initial(n, rng=2)[:, :3].T
    big_r, chance = np.hypot(x, y), 2 * stats.norm.sf(5)
    assert big_r.max() < 4.0
    enclosed = stats.gamma(2, scale=1.3)
    assert stats.kstest(big_r, lambda r: enclosed.cdf(r) / enclosed.cdf(4.0)).pvalue > chance
    assert stats.kstest(np.arctan2(y, x), stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > chance
    assert stats.kstest(z, stats.laplace(0, 0.2).cdf).pvalue > chance
    assert abs(np.abs(z).mean() - 0.2) < 5 * 0.2 / np.sqrt(n)
    # negative controls: a disc that falls as exp(-R) / R, and one whose heights are one part in twenty too large
    assert stats.kstest(big_r, lambda r: (1 - np.exp(-r / 1.3)) / (1 - np.exp(-4.0 / 1.3))).pvalue < chance
    assert stats.kstest(1.05 * z, stats.laplace(0, 0.2).cdf).pvalue < chance


def test_initial_velocities():
    disc, n = da.Disc(dispersion=0.07, lag=0.2), 100_000
    w = disc.initial(n, rng=2)
    big_r, _, _, v_r, v_phi, v_z = da.cylindrical(w)
    pull = disc.acceleration(w[:, :3])
    circular = np.sqrt(-(w[:, :2] * pull[:, :2]).sum(1))
    chance = 2 * stats.norm.sf(5)
    assert stats.kstest(v_r / circular / 0.07, stats.norm.cdf).pvalue > chance
    assert stats.kstest(v_z / circular / 0.07, stats.norm.cdf).pvalue > chance
    assert stats.kstest((1 - v_phi / circular) / 0.2, stats.halfnorm.cdf).pvalue > chance
    for v in (v_r, v_z):  # standard error of a standard deviation: 1 / sqrt(2 n)
        assert abs(np.std(v / circular) / 0.07 - 1) < 5 / np.sqrt(2 * n)
    quantities = np.stack([big_r, v_r / circular, v_phi / circular, v_z / circular])
    correlation = stats.spearmanr(quantities, axis=1).statistic
    assert abs(correlation - np.eye(4)).max() < 5 / np.sqrt(n)


@pytest.mark.usefixtures("global_random_state")
def test_the_stars_repeat_with_the_seed():
    disc = da.Disc(time=2.0)
    w = disc.sample(200, rng=5)
    assert w.shape == (200, 6)
    assert w.dtype == np.float64
    np.testing.assert_array_equal(w, disc.sample(200, rng=np.random.default_rng(5)))
    assert not np.array_equal(w, disc.sample(200, rng=6))
    np.testing.assert_array_equal(w, integrate(disc.initial(200, 5), disc.field, 2.0, step=0.3))


@pytest.mark.slow
def test_all_stars_are_bound(disc):
    for time in (0.0, 600.0):
        w = disc(time)
        assert (np.linalg.norm(w[:, 3:], axis=1) < da.MiyamotoNagai().escape_speed(w[:, :3])).all()
    hot = da.Disc(dispersion=0.6)  # one star in thirty would be unbound
    w = hot.initial(20_000, rng=1)
    assert (np.linalg.norm(w[:, 3:], axis=1) < hot.field.escape_speed(w[:, :3])).all()


def test_a_larger_or_lighter_disc_is_followed_for_as_many_orbits():
    assert da.Disc().time == 600.0
    for field in (da.MiyamotoNagai(a=10.0, b=1.0), da.MiyamotoNagai(mass=1e-3), da.MiyamotoNagai(a=2.0, G=4.3e-6)):
        orbits = da.Disc(field=field).time * field.circular_speed(field.a + field.b) / (field.a + field.b)
        assert orbits == pytest.approx(600 * da.MiyamotoNagai().circular_speed(1.1) / 1.1)
    assert da.Disc(field=field, time=3).time == 3


def test_a_cold_disc_is_a_disc_and_a_wrong_field_is_none():
    disc = da.Disc(dispersion=0, lag=0)
    _, _, _, v_r, v_phi, v_z = da.cylindrical(disc.initial(100, rng=1))
    np.testing.assert_allclose([v_r, v_z], 0, atol=1e-15)
    assert (v_phi > 0).all()
    for name in ("dispersion", "lag"):
        with pytest.raises(ValueError, match=f"{name} must be below one, in units of the circular speed; got 1.5"):
            da.Disc(**{name: 1.5})
    with pytest.raises(TypeError, match="field must be a MiyamotoNagai potential; got Plummer"):
        da.Disc(field=da.Plummer())
    with pytest.raises(TypeError, match="field must have acceleration and rate"):
        integrate(np.ones((1, 6)), da.Plummer(), 1.0)


# ---- the disc in equilibrium ----


def deviations(first, second):
    """Differences of moments in bins of radius, over their standard errors, of two sets of stars.

    The sets are the same stars at two times, whose moments agree better than those of independent stars would: the
    limit errs on the side of leniency.
    """
    edges = np.quantile(da.cylindrical(first).R, np.linspace(0, 1, N_BINS + 1))
    edges[0], edges[-1] = 0, np.inf
    moments = []
    for w in (first, second):
        big_r, _, z, v_r, v_phi, v_z = da.cylindrical(w)
        rows = []
        for low, high in pairwise(edges):
            inside = (big_r >= low) & (big_r < high)
            share = inside.mean()
            rows.append((share, share * (1 - share) / len(w)))
            values = np.stack([big_r, np.abs(z), v_r**2, v_phi, v_z**2])[:, inside]
            rows += zip(values.mean(1), values.var(1) / inside.sum(), strict=True)
        moments.append(np.array(rows))
    (a, error_a), (b, error_b) = moments[0].T, moments[1].T
    return (a - b) / np.sqrt(error_a + error_b)


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
