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
    da.Hernquist(mass=3.0, scale=2.0, G=0.7), da.Hernquist(mass=0.2, scale=5.0, beta=0.5, G=43.0),
    da.Plummer(mass=3.0, scale=0.5, G=2.0),
]
SPHERES = NATURAL + SCALED + [replace(system, r_max=3.0) for system in NATURAL + SCALED[:1]]
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
def test_gradients_of_the_profiles_match_finite_differences(field):
    x = torch.tensor(places(field))
    r = torch.linalg.vector_norm(x, dim=1)
    radial = [(field.enclosed_mass, r), (field.velocity_dispersion, r)] if field in SPHERES else []
    for function, where in ((field.potential, x), (field.density, x), *radial):
        assert torch.autograd.gradcheck(function, where.clone().requires_grad_(), eps=1e-7, rtol=1e-4)


@potentials
def test_numpy_lists_and_torch_agree_on_gravity(field):
    x = places(field)
    r, w = np.linalg.norm(x, axis=1), np.hstack([x, x[::-1]])
    arguments = {"potential": x, "acceleration": x, "density": x}
    if field in DISCS:
        arguments |= {"escape_speed": x, "circular_speed": r, "rate": w}
    else:
        arguments |= {"escape_speed": r, "enclosed_mass": r, "velocity_dispersion": r}
    for name, argument in arguments.items():
        from_numpy, from_torch = (getattr(field, name)(kind) for kind in (argument, torch.from_numpy(argument)))
        assert isinstance(from_numpy, np.ndarray)
        assert isinstance(from_torch, torch.Tensor)
        np.testing.assert_allclose(from_torch.numpy(), from_numpy, rtol=1e-12)
        np.testing.assert_allclose(getattr(field, name)(argument[0].tolist()), from_numpy[0], rtol=1e-13)
    energy = field.escape_speed(arguments["escape_speed"]) ** 2 / 2 + field.potential(x)
    assert abs(energy / field.potential(x)).max() < 1e-13


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
    """One member and its score; neighbours in no symmetry, as many as you like."""
    w = inhabited(df)
    log_f, score = df.members_score(w)
    assert (log_f.shape, score.shape) == ((1, 20), (1, 20, 6))
    np.testing.assert_array_equal(log_f[0], df.log_df(torch.from_numpy(w)).numpy())
    np.testing.assert_array_equal(df.score(w), score[0])
    assert np.isposinf(df.stars_near(w[:, :3])).all()
    assert isinstance(df.neighbourhood(w), Radial)
    np.testing.assert_array_equal(df.lenders(50, np.random.default_rng(1)), df.sample(50, rng=1))


@densities
@pytest.mark.usefixtures("global_random_state")
def test_stars_lie_in_the_support_and_repeat_with_the_seed(df):
    n = 20_000
    w = df.sample(n, rng=5)
    assert (w.shape, w.dtype, w.flags.c_contiguous) == ((n, 6), np.float64, True)
    assert np.isfinite(df.log_df(w)).all()
    np.testing.assert_array_equal(w, df.sample(n, rng=np.random.default_rng(5)))
    assert not np.array_equal(w, df.sample(n, rng=6))
    assert len(np.unique(w[:, 0])) == n


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda df: df.log_df(np.zeros((4, 5))), ValueError, r"w must have shape \(..., 6\); got \(4, 5\)"),
    (lambda df: df.score(np.zeros((4, 5))), ValueError, r"w must have shape \(n, 6\), n >= 1; got \(4, 5\)"),
    (lambda df: df.sample(1000, 1), TypeError, "takes 2 positional arguments but 3 were given"),
    (lambda df: df.sample(0, rng=1), ValueError, "n must be a positive integer; got 0"),
    (lambda df: df.sample(-3, rng=1), ValueError, "n must be a positive integer; got -3"),
    (lambda df: df.sample(1e6, rng=1), TypeError, "n must be a positive integer; got 1000000.0"),
])
@densities
def test_bad_arguments_are_refused(df, call, error, message):
    with pytest.raises(error, match=message):
        call(df)


# ---- every sphere: gravity ----


@spheres
def test_enclosed_mass_is_the_integral_of_the_density(system):
    for r in system.scale * RADII:
        shells = integrate.quad(lambda s: s**2 * system.density([0, s, 0]), 0, r, epsrel=1e-10, epsabs=0, limit=200)[0]
        assert system.enclosed_mass(r) == pytest.approx(4 * np.pi * shells, rel=1e-9)


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


@natural
def test_extreme_radii_are_finite(system):
    for r in (1e-8, 1e8):
        assert np.isfinite(system.log_df([r, 0, 0, 0, 0.5 * system.escape_speed(r), 0]))
        assert np.isfinite(system.velocity_dispersion(r))
        assert np.isfinite(system.acceleration([r, 0, 0])).all()
    u = np.array([2.0**-54, 1e-12, 0.5, 1 - 2.0**-53])
    r = system._radius(u)
    assert np.isfinite(r).all()
    np.testing.assert_allclose(system.enclosed_mass(r), u, rtol=1e-9)
    assert np.isfinite(system._velocity(r, np.random.default_rng(1))[0]).all()


# ---- every sphere: distribution function ----


def velocity_quadrature(system, r, n_speed=200, n_angle=60):
    """Speeds, angles and weights such that sum(weight * f) is the integral of f over the velocities at radius r."""
    t, weight_t = np.polynomial.legendre.leggauss(n_speed)
    t, weight_t = np.pi / 4 * (t + 1), np.pi / 4 * weight_t
    angle, weight_angle = np.polynomial.legendre.leggauss(n_angle)
    angle, weight_angle = np.pi / 2 * (angle + 1), np.pi / 2 * weight_angle
    escape = system.escape_speed(r)
    speed, angle = np.meshgrid(escape * np.sin(t), angle, indexing="ij")
    return speed, angle, 2 * np.pi * speed**2 * np.sin(angle) * np.outer(escape * np.cos(t) * weight_t, weight_angle)


def df_at(system, r, speed, angle):
    """Distribution function at radius r, for a speed and an angle from the radial direction."""
    w = np.zeros((*speed.shape, 6))
    w[..., 0], w[..., 3], w[..., 4] = r, speed * np.cos(angle), speed * np.sin(angle)
    return np.exp(system.log_df(w))


@spheres
def test_moments_of_the_df_are_the_density_and_the_dispersion(system):
    mass = system.mass if np.isinf(system.r_max) else system.enclosed_mass(system.r_max)
    for r in system.scale * RADII:
        speed, angle, weight = velocity_quadrature(system, r)
        weight *= df_at(system, r, speed, angle)
        if r >= system.r_max:
            assert weight.sum() == 0
            continue
        assert weight.sum() == pytest.approx(system.density([r, 0, 0]) / mass, rel=1e-7)
        variance = (weight * (speed * np.cos(angle)) ** 2).sum() / weight.sum()
        assert system.velocity_dispersion(r) == pytest.approx(np.sqrt(variance), rel=1e-7)


@spheres
def test_outside_the_support_the_density_is_zero_and_its_gradient_finite(system):
    w = points(system)
    assert np.isfinite(system.log_df(w)).all()
    escape = system.escape_speed(np.linalg.norm(w[:, :3], axis=1))
    w[::2, 3:] *= 1.001 * (escape / np.linalg.norm(w[:, 3:], axis=1))[::2, None]
    assert np.isneginf(system.log_df(w[::2])).all()
    slope = system.score(w)
    assert np.isfinite(slope).all()
    assert not slope[::2].any()
    if np.isfinite(system.r_max):
        assert np.isneginf(system.log_df([system.r_max, 0, 0, 0, 1e-3, 0]))
    assert np.isnan(system.log_df([np.nan, 0, 0, 0, 0, 0]))


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
    inner = replace(system, r_max=2.0)
    w, share = points(inner), system.enclosed_mass(2.0)
    np.testing.assert_allclose(inner.log_df(w), system.log_df(w) - np.log(share), rtol=1e-13)
    np.testing.assert_array_equal(inner.acceleration(w[:, :3]), system.acceleration(w[:, :3]))
    assert replace(inner, r_max=np.inf) == system


@pytest.mark.parametrize(("whole", "scaled"), list(zip(NATURAL, SCALED, strict=True)), ids=repr)
def test_units_are_scalings(whole, scaled):
    unit = np.repeat([scaled.scale, np.sqrt(scaled.G * scaled.mass / scaled.scale)], 3)
    w = whole.sample(1000, rng=4)
    np.testing.assert_allclose(scaled.sample(1000, rng=4), w * unit, rtol=1e-14)
    np.testing.assert_allclose(scaled.log_df(w * unit), whole.log_df(w) - np.log(unit).sum(), rtol=1e-9)


# ---- every sphere: stars ----


@spheres
def test_stars_follow_the_mass_in_all_directions_at_the_dispersions(system):
    """To 5 standard errors; the second moments of the velocities over sigma_r(r), in bins of radius."""
    w = system.sample(N_STARS, rng=7)
    x, v, r = w[:, :3], w[:, 3:], np.linalg.norm(w[:, :3], axis=1)
    total = system.enclosed_mass(system.r_max) if np.isfinite(system.r_max) else system.mass
    assert r.max() < system.r_max
    assert stats.kstest(r, lambda s: system.enclosed_mass(s) / total).pvalue > 1e-4
    assert stats.kstest(1.02 * r, lambda s: system.enclosed_mass(s) / total).pvalue < 1e-6  # negative control
    radial = x / r[:, None]
    assert abs(radial.mean(0)).max() < 5 / np.sqrt(3 * N_STARS)
    # the nine second moments: variance of n_i^2 is 4/45, of n_i n_j 1/15
    assert abs(radial.T @ radial / N_STARS - np.eye(3) / 3).max() < 5 * np.sqrt(4 / 45 / N_STARS)
    azimuthal = np.cross([0, 0, 1], x)
    azimuthal /= np.linalg.norm(azimuthal, axis=1, keepdims=True)
    tangential = 1 - getattr(system, "beta", 0.0)
    scaled = v / system.velocity_dispersion(r)[:, None]
    edges = np.quantile(r, np.linspace(0, 1, 11))
    axes = ((radial, 1.0), (azimuthal, tangential), (np.cross(radial, azimuthal), tangential))
    for direction, expected in axes:
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


# ---- against galpy, and bad input ----


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("system", [da.Plummer(3, 2), da.Hernquist(3, 2), da.Hernquist(3, 2, 0.5)], ids=repr)
def test_galpy_agrees(system):
    theirs, potentials = pytest.importorskip("galpy.df"), pytest.importorskip("galpy.potential")
    if isinstance(system, da.Plummer):
        potential = potentials.PlummerPotential(amp=3.0, b=2.0)
        df = theirs.isotropicPlummerdf(pot=potential)
    else:
        potential = potentials.HernquistPotential(amp=2 * 3.0, a=2.0)
        df = theirs.constantbetaHernquistdf(pot=potential, beta=0.5) if system.beta else None
        df = df or theirs.isotropicHernquistdf(pot=potential)
    for w in points(system):
        x, v, place = w[:3], w[3:], (np.hypot(w[0], w[1]), w[2])
        assert potential(*place) == pytest.approx(system.potential(x), rel=1e-12)
        assert potential.zforce(*place) == pytest.approx(system.acceleration(x)[2], rel=1e-12)
        assert potential.dens(*place) == pytest.approx(system.density(x), rel=1e-12)
        assert df.sigmar(np.linalg.norm(x)) == pytest.approx(system.velocity_dispersion(np.linalg.norm(x)), rel=1e-6)
        energy, momentum = v @ v / 2 + system.potential(x), np.linalg.norm(np.cross(x, v))
        # galpy's DF is a mass density, this one a probability density
        assert df((energy, momentum, momentum)) == pytest.approx(3.0 * np.exp(system.log_df(w)), rel=1e-8)


@pytest.mark.parametrize("kind", [da.Hernquist, da.Plummer, da.MiyamotoNagai])
def test_parameters_must_be_positive(kind):
    for name in ("a", "b", "G", "mass") if kind is da.MiyamotoNagai else ("mass", "scale", "G", "r_max"):
        for value in (0, -1.0, np.nan, np.inf):
            if (name, value) in (("a", 0), ("r_max", np.inf)):
                assert getattr(kind(**{name: value}), name) == value
                continue
            with pytest.raises(ValueError, match=f"{name} must be .*a positive .*got"):
                kind(**{name: value})
        with pytest.raises(TypeError, match=f"{name} must be .*a positive number; got 'heavy'"):
            kind(**{name: "heavy"})


@pytest.mark.parametrize(("call", "message"), [
    (lambda: da.Hernquist(r_max=-2), "r_max must be a positive number; got -2"),
    (lambda: da.Hernquist(beta=0.3), "beta must be 0 or 0.5; got 0.3"),
    (lambda: da.Plummer().acceleration(torch.zeros(6)), r"x must have shape \(..., 3\); got \(6,\)"),
    (lambda: da.MiyamotoNagai().acceleration(np.zeros(6)), r"x must have shape \(..., 3\); got \(6,\)"),
    (lambda: da.MiyamotoNagai().rate(np.zeros(3)), r"w must have shape \(..., 6\); got \(3,\)"),
])
def test_other_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
