"""Suites that every potential, every distribution function and every spherical system must pass."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats

import dfaccel as da
from dfaccel.coordinates import Radial

NATURAL = [da.Hernquist(), da.Hernquist(beta=0.5), da.Plummer()]
SCALED = [
    da.Hernquist(mass=3.0, scale=2.0, G=0.7),
    da.Hernquist(mass=0.2, scale=5.0, beta=0.5, G=43.0),
    da.Plummer(mass=3.0, scale=0.5, G=2.0),
]
SPHERES = NATURAL + SCALED + [system.truncated(3.0) for system in NATURAL + SCALED[:1]]
DISCS = [da.MiyamotoNagai(), da.MiyamotoNagai(mass=3.0, a=2.0, b=0.5, G=0.7), da.MiyamotoNagai(mass=0.2, a=0.0, b=5.0)]
WIDE = da.Stream(radius=1.0, arc=0.4, dispersions=(0.06, 0.1, 0.2), speed=0.7)
STREAMS = [da.Stream(radius=10.0, speed=0.3), WIDE]
MIXTURES = [da.mix(da.Plummer(), da.Stream(), 0.3), da.mix(da.Hernquist(2.0, beta=0.5), replace(WIDE, speed=None), 0.2)]
RADII = np.array([1e-3, 0.1, 0.7, 1.0, 2.9, 30.0])
N_STARS = 200_000

spheres = pytest.mark.parametrize("system", SPHERES, ids=repr)
natural = pytest.mark.parametrize("system", NATURAL, ids=repr)
potentials = pytest.mark.parametrize("field", SPHERES + DISCS, ids=repr)
densities = pytest.mark.parametrize("df", SPHERES + STREAMS + MIXTURES, ids=repr)


@pytest.fixture(scope="module")
def stars():
    """Stars of a system, drawn once."""
    drawn = {}

    def draw(system):
        if system not in drawn:
            drawn[system] = system.sample(N_STARS, rng=7)
        return drawn[system]

    return draw


def radii(w):
    """Distance of each star from the centre."""
    return np.linalg.norm(w[:, :3], axis=1)


def points(system, n=20, seed=3):
    """Bound phase-space points inside a spherical system, away from its singular places."""
    rng = np.random.default_rng(seed)
    x, v = rng.normal(size=(2, n, 3))
    r = system.scale * np.geomspace(0.05, min(20, 0.9 * system.r_max / system.scale), n)
    x *= (r / np.linalg.norm(x, axis=1))[:, None]
    v *= (system.escape_speed(r) * rng.uniform(0.2, 0.95, n) / np.linalg.norm(v, axis=1))[:, None]
    return np.hstack([x, v])


def places(field, n=40):
    """Positions at which the gravity of a field is worth a look."""
    if field in SPHERES:
        return points(field)[:, :3]
    return (field.a + field.b) * np.geomspace(0.01, 30, n)[:, None] * da.directions(n, 1) * [1, 1, 0.3]


def inhabited(df, n=20):
    """Phase-space points with f > 0."""
    return points(df) if df in SPHERES else df.sample(n, rng=4)


# ---- every potential ----


@potentials
def test_gravity_is_the_gradient_of_the_potential_and_its_divergence_the_density(field):
    """To rounding, by automatic differentiation; a disc's divergence is a small difference of large terms."""
    x = torch.tensor(places(field), requires_grad=True)
    acceleration = field.acceleration(x)
    (slope,) = torch.autograd.grad(field.potential(x).sum(), x)
    size = torch.linalg.vector_norm(slope, dim=1, keepdim=True)
    assert ((acceleration + slope) / size).abs().max() < 1e-12
    rows = [torch.autograd.grad(acceleration[:, i].sum(), x, retain_graph=True)[0] for i in range(3)]
    jacobian = torch.stack(rows, dim=1)
    divergence, terms = jacobian.diagonal(dim1=1, dim2=2).sum(1), jacobian.abs().sum((1, 2))
    assert ((divergence + 4 * np.pi * field.G * field.density(x)) / terms).abs().max() < 1e-13


@potentials
def test_potential_from_numerical_derivatives(field):
    """The same by differences of NumPy results, which automatic differentiation has not seen."""
    x = places(field)
    height = np.hypot(x[:, 2], field.b) if field in DISCS else np.inf
    step = 1e-3 * np.minimum(np.linalg.norm(x, axis=1), 10 * height)
    for axis in range(3):
        d = step[:, None] * np.eye(3)[axis]
        near, far = (field.potential(x + k * d) - field.potential(x - k * d) for k in (1, 2))
        slope = (8 * near - far) / (12 * step)
        pull = field.acceleration(x)
        assert abs(pull[:, axis] + slope).max() <= 2e-6 * np.linalg.norm(pull, axis=1).max()


@potentials
def test_numpy_lists_and_torch_agree_on_gravity(field):
    x = places(field)
    r, w = np.linalg.norm(x, axis=1), np.hstack([x, x[::-1]])
    names = {"potential": x, "acceleration": x, "density": x, "escape_speed": r}
    names |= {"enclosed_mass": r, "velocity_dispersion": r} if field in SPHERES else {"circular_speed": r, "rate": w}
    if field in DISCS:
        names["escape_speed"] = x
    for name, argument in names.items():
        from_numpy = getattr(field, name)(argument)
        from_torch = getattr(field, name)(torch.from_numpy(argument))
        assert isinstance(from_numpy, np.ndarray)
        assert isinstance(from_torch, torch.Tensor)
        np.testing.assert_allclose(from_torch.numpy(), from_numpy, rtol=1e-12)
        np.testing.assert_allclose(getattr(field, name)(argument[0].tolist()), from_numpy[0], rtol=1e-13)


@potentials
def test_escape_speed_is_where_the_energy_is_zero(field):
    x = places(field)
    escape = field.escape_speed(x if field in DISCS else np.linalg.norm(x, axis=1))
    np.testing.assert_allclose(escape**2 / 2, -field.potential(x), rtol=1e-13)


# ---- every distribution function ----


@densities
def test_numpy_lists_and_torch_agree_on_the_density(df):
    w = inhabited(df)
    w[::5] = [0, 0, 1, 1, 1, 1]  # on the axis, where a stream has no stars
    from_numpy, from_torch = df.log_df(w), df.log_df(torch.from_numpy(w))
    assert isinstance(from_numpy, np.ndarray)
    assert isinstance(from_torch, torch.Tensor)
    np.testing.assert_allclose(from_torch.numpy(), from_numpy, rtol=1e-11)
    np.testing.assert_array_equal(df.log_df(w.reshape(4, 5, 6)), from_numpy.reshape(4, 5))
    assert df.log_df(w[1].tolist()) == pytest.approx(from_numpy[1], rel=1e-12)


@densities
def test_gradients_match_finite_differences(df):
    w = torch.tensor(inhabited(df), requires_grad=True)
    assert torch.autograd.gradcheck(df.log_df, w, eps=1e-6, rtol=1e-4, atol=1e-3 if df in STREAMS + MIXTURES else 1e-5)


@densities
def test_what_a_distribution_function_inherits(df):
    """One member, its score and the derivatives of the score; neighbours in no symmetry, as many as you like."""
    w = inhabited(df)
    log_f, score, hessian = df.members_hessian(w)
    assert (log_f.shape, score.shape, hessian.shape) == ((1, 20), (1, 20, 6), (1, 20, 3, 6))
    np.testing.assert_array_equal(log_f[0], df.log_df(torch.from_numpy(w)).numpy())
    np.testing.assert_array_equal(df.score(w), score[0])
    for got, expected in zip(df.members_score(w), (log_f, score), strict=True):
        np.testing.assert_array_equal(got, expected)
    tensor = torch.from_numpy(w)
    exact = torch.stack([torch.autograd.functional.hessian(lambda p: df.log_df(p[None])[0], one)[:3] for one in tensor])
    exists = torch.isfinite(exact).all(2).all(1)  # torch.logaddexp has no second derivative where a term underflows
    assert exists.all() or (exists.any() and df in MIXTURES)
    exact = exact[exists].numpy()
    np.testing.assert_allclose(hessian[0][exists], exact, rtol=1e-9, atol=1e-9 * abs(exact).max())
    assert np.isposinf(df.stars_near(w[:, :3])).all()
    assert isinstance(df.neighbourhood(w), Radial)
    np.testing.assert_array_equal(df.lenders(50, np.random.default_rng(1)), df.sample(50, rng=1))
    with pytest.raises(ValueError, match=r"w must have shape \(n, 6\); got \(20, 5\)"):
        df.score(w[:, :5])


@densities
@pytest.mark.usefixtures("global_random_state")
def test_stars_lie_in_the_support_and_repeat_with_the_seed(df):
    n = 20_000
    w = df.sample(n, rng=5)
    assert (w.shape, w.dtype) == ((n, 6), np.float64)
    assert w.flags.c_contiguous
    assert np.isfinite(df.log_df(w)).all()
    np.testing.assert_array_equal(w, df.sample(n, rng=np.random.default_rng(5)))
    assert not np.array_equal(w, df.sample(n, rng=6))
    assert len(np.unique(w[:, 0])) == n


@densities
def test_bad_arguments_are_refused(df):
    with pytest.raises(ValueError, match=r"w must have shape \(..., 6\); got \(4, 5\)"):
        df.log_df(np.zeros((4, 5)))
    with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
        df.sample(1000, 1)
    for n, error in ((0, ValueError), (-3, ValueError), (1e6, TypeError)):
        with pytest.raises(error, match=f"n must be a positive integer; got {n}"):
            df.sample(n, rng=1)


# ---- every sphere: gravity ----


@spheres
def test_enclosed_mass_is_the_integral_of_the_density(system):
    for r in system.scale * RADII:
        mass, _ = integrate.quad(
            lambda s: 4 * np.pi * s**2 * system.density([0, s, 0]), 0, r, epsrel=1e-10, epsabs=0, limit=200
        )
        assert system.enclosed_mass(r) == pytest.approx(mass, rel=1e-9)


@pytest.mark.parametrize("whole", NATURAL + SCALED, ids=repr)
def test_the_centre_is_finite_where_it_should_be(whole):
    x = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    assert whole.potential(x).item() == pytest.approx(-(whole.escape_speed(0.0) ** 2) / 2)
    assert whole.acceleration(np.zeros(3)).tolist() == [0, 0, 0]
    if isinstance(whole, da.Plummer):
        (slope,) = torch.autograd.grad(whole.potential(x).sum(), x)
        assert slope.tolist() == [[0, 0, 0]]
    else:
        assert np.isposinf(whole.density(np.zeros(3)))


@pytest.mark.parametrize("r", [1e-8, 1e8])
@natural
def test_no_overflow_at_extreme_radii(system, r):
    assert np.isfinite(system.log_df([r, 0, 0, 0, 0.5 * system.escape_speed(r), 0]))
    assert np.isfinite(system.velocity_dispersion(r))
    assert np.isfinite(system.acceleration([r, 0, 0])).all()


# ---- every sphere: distribution function ----


def velocity_quadrature(system, r, n_speed=200, n_angle=60):
    """Speeds, angles and weights such that sum(weight * f) is the integral of f over the velocities at radius r."""
    t, weight_t = np.polynomial.legendre.leggauss(n_speed)
    t, weight_t = np.pi / 4 * (t + 1), np.pi / 4 * weight_t
    angle, weight_angle = np.polynomial.legendre.leggauss(n_angle)
    angle, weight_angle = np.pi / 2 * (angle + 1), np.pi / 2 * weight_angle
    escape = system.escape_speed(r)
    speed, weight_speed = escape * np.sin(t), escape * np.cos(t) * weight_t
    speed, angle = np.meshgrid(speed, angle, indexing="ij")
    return speed, angle, 2 * np.pi * speed**2 * np.sin(angle) * np.outer(weight_speed, weight_angle)


def df_at(system, r, speed, angle):
    """Distribution function at radius r, for a speed and an angle from the radial direction."""
    w = np.zeros((*speed.shape, 6))
    w[..., 0], w[..., 3], w[..., 4] = r, speed * np.cos(angle), speed * np.sin(angle)
    return np.exp(system.log_df(w))


@spheres
def test_df_integrates_over_velocities_to_the_density(system):
    mass = system.mass if np.isinf(system.r_max) else system.enclosed_mass(system.r_max)
    for r in system.scale * RADII:
        speed, angle, weight = velocity_quadrature(system, r)
        inside = (weight * df_at(system, r, speed, angle)).sum()
        expected = system.density([r, 0, 0]) / mass if r < system.r_max else 0.0
        assert inside == pytest.approx(expected, rel=1e-7)


@spheres
def test_velocity_dispersion_is_the_second_moment_of_the_df(system):
    for r in system.scale * RADII:
        if r < system.r_max:
            speed, angle, weight = velocity_quadrature(system, r)
            weight *= df_at(system, r, speed, angle)
            variance = (weight * (speed * np.cos(angle)) ** 2).sum() / weight.sum()
            assert system.velocity_dispersion(r) == pytest.approx(np.sqrt(variance), rel=1e-7)


@spheres
def test_support(system):
    w = points(system)
    assert np.isfinite(system.log_df(w)).all()
    unbound = w.copy()
    unbound[:, 3:] *= 1.001 * system.escape_speed(radii(w))[:, None] / np.linalg.norm(w[:, 3:], axis=1)[:, None]
    assert np.isneginf(system.log_df(unbound)).all()
    if np.isfinite(system.r_max):
        assert np.isneginf(system.log_df([system.r_max, 0, 0, 0, 1e-3, 0]))
    assert np.isnan(system.log_df([np.nan, 0, 0, 0, 0, 0]))


@spheres
def test_gradients_of_profiles_match_finite_differences(system):
    x = places(system)
    for function in (system.potential, system.density):
        assert torch.autograd.gradcheck(function, torch.tensor(x, requires_grad=True), eps=1e-7, rtol=1e-4)
    for function in (system.enclosed_mass, system.velocity_dispersion):
        r = torch.tensor(radii(x), requires_grad=True)
        assert torch.autograd.gradcheck(function, r, eps=1e-7, rtol=1e-4)


@spheres
def test_gradients_are_finite_outside_the_support(system):
    w = points(system)
    w[::2, 3:] *= 10
    slope = system.score(w)
    assert np.isfinite(slope).all()
    assert not slope[::2].any()


@spheres
def test_collisionless_boltzmann_equation(system):
    """The DF is stationary in its own gravity: v . df/dx + a . df/dv = 0, term by term large."""
    w = points(system)
    slope = system.score(w)
    streaming = (w[:, 3:] * slope[:, :3]).sum(1)
    forcing = (system.acceleration(w[:, :3]) * slope[:, 3:]).sum(1)
    np.testing.assert_allclose(streaming, -forcing, rtol=1e-8, atol=1e-9 * abs(streaming).max())


@natural
def test_truncation(system):
    inner = system.truncated(2.0)
    w = points(inner)
    share = system.enclosed_mass(2.0)
    np.testing.assert_allclose(inner.log_df(w), system.log_df(w) - np.log(share), rtol=1e-13)
    np.testing.assert_array_equal(inner.acceleration(w[:, :3]), system.acceleration(w[:, :3]))
    assert inner.truncated(np.inf) == system


@pytest.mark.parametrize("pair", list(zip(NATURAL, SCALED, strict=True)), ids=lambda pair: repr(pair[1]))
def test_units_are_scalings(pair):
    whole, scaled = pair
    unit = np.repeat([scaled.scale, np.sqrt(scaled.G * scaled.mass / scaled.scale)], 3)
    w = whole.sample(1000, rng=4)
    np.testing.assert_allclose(scaled.sample(1000, rng=4), w * unit, rtol=1e-14)
    np.testing.assert_allclose(scaled.log_df(w * unit), whole.log_df(w) - np.log(unit).sum(), rtol=1e-9)


# ---- every sphere: stars ----


@spheres
def test_radii_follow_the_mass(system, stars):
    r = radii(stars(system))
    total = system.enclosed_mass(system.r_max) if np.isfinite(system.r_max) else system.mass
    assert r.max() < system.r_max
    assert stats.kstest(r, lambda s: system.enclosed_mass(s) / total).pvalue > 1e-4


@spheres
def test_positions_are_isotropic(system, stars):
    x = stars(system)[:, :3]
    direction = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert abs(direction.mean(0)).max() < 5 / np.sqrt(3 * N_STARS)
    # the nine second moments: variance of n_i^2 is 4/45, of n_i n_j 1/15
    assert abs(direction.T @ direction / N_STARS - np.eye(3) / 3).max() < 5 * np.sqrt(4 / 45 / N_STARS)


@spheres
def test_velocity_moments_follow_the_dispersion(system, stars):
    """Radial, polar and azimuthal second moments, scaled by sigma_r(r), in bins of radius: 5 standard errors."""
    w = stars(system)
    x, v, r = w[:, :3], w[:, 3:], radii(w)
    radial = x / r[:, None]
    azimuthal = np.stack([-x[:, 1], x[:, 0], np.zeros(len(x))], axis=1)
    azimuthal /= np.linalg.norm(azimuthal, axis=1, keepdims=True)
    beta = getattr(system, "beta", 0.0)
    scaled = v / system.velocity_dispersion(r)[:, None]
    edges = np.quantile(r, np.linspace(0, 1, 11))
    for direction, expected in ((radial, 1.0), (azimuthal, 1 - beta), (np.cross(radial, azimuthal), 1 - beta)):
        component = (scaled * direction).sum(1)
        for low, high in pairwise(edges):
            inside = component[(r >= low) & (r < high)]
            assert abs(inside.mean()) < 5 * inside.std() / np.sqrt(len(inside))
            square = inside**2
            assert abs(square.mean() - expected) < 5 * square.std() / np.sqrt(len(square))


def cumulative(system, r, axis):
    """Cumulative distribution of v/v_esc (axis 0) or of the angle (axis 1) at radius r, integrated from the DF."""
    edges = np.linspace(0, 1, 2001) ** 3  # fine near zero: deep in the cusp all stars are slow
    middle, step = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    node, weight = np.polynomial.legendre.leggauss(80)
    node, weight = (node + 1) / 2, weight / 2
    if axis == 0:  # speed = sin t, which is smooth at the escape speed
        speed, angle = np.meshgrid(np.sin(np.pi / 2 * middle), np.pi * node, indexing="ij")
        jacobian, grid = np.cos(np.pi / 2 * middle)[:, None], np.sin(np.pi / 2 * edges)
    else:
        angle, speed = np.meshgrid(np.pi * middle, np.sin(np.pi / 2 * node), indexing="ij")
        jacobian, grid = np.cos(np.pi / 2 * node), np.pi * edges
    density = df_at(system, r, system.escape_speed(r) * speed, angle) * speed**2 * np.sin(angle) * jacobian
    total = np.concatenate([[0], np.cumsum(density @ weight * step)])
    return lambda value: np.interp(value, grid, total / total[-1])


@pytest.mark.parametrize("r", [1e-4, 0.05, 0.3, 0.95, 1.05, 4.0, 100.0])
@natural
def test_velocities_at_a_radius_follow_the_df(system, r):
    speed, cosine = system._velocity(np.full(N_STARS, r), np.random.default_rng(11))
    q = speed / system.escape_speed(r)
    assert stats.kstest(q, cumulative(system, r, 0)).pvalue > 1e-4
    assert stats.kstest(np.arccos(cosine), cumulative(system, r, 1)).pvalue > 1e-4
    # speed and direction are independent in all three systems
    assert abs(stats.spearmanr(q, abs(cosine)).statistic) < 5 / np.sqrt(N_STARS)
    # negative control: the same test sees speeds one per cent too high
    assert stats.kstest(1.01 * q, cumulative(system, r, 0)).pvalue < 1e-6


def test_negative_controls():
    """The statistical tests above do fail for the wrong system."""
    isotropic, radial = da.Hernquist(), da.Hernquist(beta=0.5)
    speed, cosine = isotropic._velocity(np.full(N_STARS, 1.0), np.random.default_rng(1))
    assert stats.kstest(speed / isotropic.escape_speed(1.0), cumulative(radial, 1.0, 0)).pvalue < 1e-6
    assert stats.kstest(np.arccos(cosine), cumulative(radial, 1.0, 1)).pvalue < 1e-6
    r = radii(isotropic.sample(N_STARS, rng=2))
    assert stats.kstest(1.02 * r, isotropic.enclosed_mass).pvalue < 1e-6
    assert stats.kstest(r, da.Plummer().enclosed_mass).pvalue < 1e-6


@natural
def test_extreme_uniforms_give_finite_radii(system):
    u = np.array([2.0**-54, 1e-12, 0.5, 1 - 2.0**-53])
    r = system._radius(u)
    assert np.isfinite(r).all()
    np.testing.assert_allclose(system.enclosed_mass(r), u, rtol=1e-9)
    assert np.isfinite(system._velocity(r, np.random.default_rng(1))[0]).all()


# ---- against galpy, and bad input ----


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("beta", [0.0, 0.5, None])
def test_galpy_agrees(beta):
    galpy_df = pytest.importorskip("galpy.df")
    galpy_potential = pytest.importorskip("galpy.potential")
    mass, scale = 3.0, 2.0
    if beta is None:
        system, potential = da.Plummer(mass, scale), galpy_potential.PlummerPotential(amp=mass, b=scale)
        df = galpy_df.isotropicPlummerdf(pot=potential)
    else:
        system, potential = da.Hernquist(mass, scale, beta), galpy_potential.HernquistPotential(amp=2 * mass, a=scale)
        df = galpy_df.constantbetaHernquistdf(pot=potential, beta=0.5) if beta else None
        df = df or galpy_df.isotropicHernquistdf(pot=potential)
    for w in points(system):
        x, v, cylindrical = w[:3], w[3:], np.hypot(w[0], w[1])
        r = np.linalg.norm(x)
        assert potential(cylindrical, x[2]) == pytest.approx(system.potential(x), rel=1e-12)
        assert potential.zforce(cylindrical, x[2]) == pytest.approx(system.acceleration(x)[2], rel=1e-12)
        assert potential.dens(cylindrical, x[2]) == pytest.approx(system.density(x), rel=1e-12)
        assert df.sigmar(r) == pytest.approx(system.velocity_dispersion(r), rel=1e-6)
        energy, momentum = v @ v / 2 + system.potential(x), np.linalg.norm(np.cross(x, v))
        # galpy's DF is a mass density, this one a probability density
        assert df((energy, momentum, momentum)) == pytest.approx(mass * np.exp(system.log_df(w)), rel=1e-8)


@pytest.mark.parametrize("kind", [da.Hernquist, da.Plummer])
@pytest.mark.parametrize("name", ["mass", "scale", "G", "r_max"])
@pytest.mark.parametrize("value", [0, -1.0, np.nan])
def test_parameters_must_be_positive(kind, name, value):
    with pytest.raises(ValueError, match=f"{name} must be a positive .*got"):
        kind(**{name: value})


def test_other_bad_input():
    with pytest.raises(ValueError, match="mass must be a positive finite number; got inf"):
        da.Hernquist(mass=np.inf)
    with pytest.raises(TypeError, match="mass must be a positive number; got 'heavy'"):
        da.Hernquist(mass="heavy")
    with pytest.raises(ValueError, match=r"r_max must be a positive number; got -2"):
        da.Hernquist().truncated(-2)
    with pytest.raises(ValueError, match=r"x must have shape \(..., 3\); got \(6,\)"):
        da.Plummer().acceleration(torch.zeros(6))
