"""One suite that every stellar system must pass, and the checks particular to each."""

from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from scipy import integrate, stats

from dfaccel.systems import Hernquist, Plummer
from dfaccel.systems.hernquist import _shape

NATURAL = [Hernquist(), Hernquist(beta=0.5), Plummer()]
SCALED = [
    Hernquist(mass=3.0, scale=2.0, G=0.7),
    Hernquist(mass=0.2, scale=5.0, beta=0.5, G=43.0),
    Plummer(mass=3.0, scale=0.5, G=2.0),
]
TRUNCATED = [system.truncated(3.0) for system in NATURAL + SCALED[:1]]
RADII = np.array([1e-3, 0.1, 0.7, 1.0, 2.9, 30.0])
N_STARS = 200_000


@pytest.fixture(params=NATURAL + SCALED + TRUNCATED, ids=repr)
def system(request):
    """Every system in every guise."""
    return request.param


@pytest.fixture(scope="module")
def stars():
    """Stars of a system, drawn once."""
    drawn = {}

    def draw(system):
        if system not in drawn:
            drawn[system] = system.sample(N_STARS, rng=7)
        return drawn[system]

    return draw


def points(system, n=20, seed=3):
    """Bound phase-space points inside the system, away from its singular places."""
    rng = np.random.default_rng(seed)
    x, v = rng.normal(size=(2, n, 3))
    r = system.scale * np.geomspace(0.05, min(20, 0.9 * system.r_max / system.scale), n)
    x *= (r / np.linalg.norm(x, axis=1))[:, None]
    v *= (system.escape_speed(r) * rng.uniform(0.2, 0.95, n) / np.linalg.norm(v, axis=1))[:, None]
    return np.hstack([x, v])


def velocity_quadrature(system, r, n_speed=200, n_angle=60):
    """Nodes (v_r, v_t) and weights such that sum(weight * f) is the integral of f over the velocities at radius r."""
    t, weight_t = np.polynomial.legendre.leggauss(n_speed)
    t, weight_t = np.pi / 4 * (t + 1), np.pi / 4 * weight_t
    angle, weight_angle = np.polynomial.legendre.leggauss(n_angle)
    angle, weight_angle = np.pi / 2 * (angle + 1), np.pi / 2 * weight_angle
    escape = system.escape_speed(r)
    speed, weight_speed = escape * np.sin(t), escape * np.cos(t) * weight_t
    speed, angle = np.meshgrid(speed, angle, indexing="ij")
    weight = 2 * np.pi * speed**2 * np.sin(angle) * np.outer(weight_speed, weight_angle)
    return speed, angle, weight


def df_at(system, r, speed, angle):
    """Distribution function at radius r, for a speed and an angle from the radial direction."""
    w = np.zeros((*speed.shape, 6))
    w[..., 0], w[..., 3], w[..., 4] = r, speed * np.cos(angle), speed * np.sin(angle)
    return np.exp(system.log_df(w))


def radii(w):
    """Distance of each star from the centre."""
    return np.linalg.norm(w[:, :3], axis=1)


# ---- gravity ----


def test_acceleration_is_minus_the_gradient_of_the_potential(system):
    x, step = points(system)[:, :3], 1e-3 * system.scale
    for axis in range(3):
        d = step * np.linalg.norm(x, axis=1, keepdims=True) / system.scale * np.eye(3)[axis]
        slope = 8 * (system.potential(x + d) - system.potential(x - d))
        slope -= system.potential(x + 2 * d) - system.potential(x - 2 * d)
        slope /= 12 * d[:, axis]
        np.testing.assert_allclose(system.acceleration(x)[:, axis], -slope, rtol=1e-7, atol=1e-9 * abs(slope).max())


def test_poisson_equation(system):
    x = torch.tensor(points(system)[:, :3], requires_grad=True)
    acceleration = system.acceleration(x)
    divergence = sum(torch.autograd.grad(acceleration[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(3))
    expected = -4 * np.pi * system.G * system.density(x)
    torch.testing.assert_close(divergence, expected, rtol=1e-9, atol=0)


def test_enclosed_mass_is_the_integral_of_the_density(system):
    for r in system.scale * RADII:
        mass, _ = integrate.quad(
            lambda s: 4 * np.pi * s**2 * system.density([0, s, 0]), 0, r, epsrel=1e-10, epsabs=0, limit=200
        )
        assert system.enclosed_mass(r) == pytest.approx(mass, rel=1e-9)


def test_escape_speed_is_where_the_energy_is_zero(system):
    x = points(system)[:, :3]
    np.testing.assert_allclose(
        system.escape_speed(np.linalg.norm(x, axis=1)) ** 2 / 2, -system.potential(x), rtol=1e-13
    )


@pytest.mark.parametrize("whole", NATURAL + SCALED, ids=repr)
def test_the_centre_is_finite_where_it_should_be(whole):
    x = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    assert whole.potential(x).item() == pytest.approx(-(whole.escape_speed(0.0) ** 2) / 2)
    assert whole.acceleration(np.zeros(3)).tolist() == [0, 0, 0]
    if isinstance(whole, Plummer):
        (slope,) = torch.autograd.grad(whole.potential(x).sum(), x)
        assert slope.tolist() == [[0, 0, 0]]
    else:
        assert np.isposinf(whole.density(np.zeros(3)))


# ---- distribution function ----


def test_df_integrates_over_velocities_to_the_density(system):
    kept = 1.0 if np.isinf(system.r_max) else system.enclosed_mass(system.r_max)
    for r in system.scale * RADII:
        speed, angle, weight = velocity_quadrature(system, r)
        inside = (weight * df_at(system, r, speed, angle)).sum()
        mass = kept if np.isfinite(system.r_max) else system.mass
        expected = system.density([r, 0, 0]) / mass if r < system.r_max else 0.0
        assert inside == pytest.approx(expected, rel=1e-7)


def test_velocity_dispersion_is_the_second_moment_of_the_df(system):
    for r in system.scale * RADII:
        if r < system.r_max:
            speed, angle, weight = velocity_quadrature(system, r)
            weight *= df_at(system, r, speed, angle)
            variance = (weight * (speed * np.cos(angle)) ** 2).sum() / weight.sum()
            assert system.velocity_dispersion(r) == pytest.approx(np.sqrt(variance), rel=1e-7)


def test_support(system):
    w = points(system)
    assert np.isfinite(system.log_df(w)).all()
    unbound = w.copy()
    unbound[:, 3:] *= 1.001 * system.escape_speed(radii(w))[:, None] / np.linalg.norm(w[:, 3:], axis=1)[:, None]
    assert np.isneginf(system.log_df(unbound)).all()
    if np.isfinite(system.r_max):
        assert np.isneginf(system.log_df([system.r_max, 0, 0, 0, 1e-3, 0]))
    assert np.isnan(system.log_df([np.nan, 0, 0, 0, 0, 0]))


def test_numpy_and_torch_agree(system):
    w = points(system)
    r = radii(w)
    for name, argument in [
        ("potential", w[:, :3]),
        ("acceleration", w[:, :3]),
        ("density", w[:, :3]),
        ("enclosed_mass", r),
        ("escape_speed", r),
        ("velocity_dispersion", r),
        ("log_df", w),
    ]:
        from_numpy = getattr(system, name)(argument)
        from_torch = getattr(system, name)(torch.from_numpy(argument))
        assert isinstance(from_numpy, np.ndarray)
        assert isinstance(from_torch, torch.Tensor)
        np.testing.assert_allclose(from_torch.numpy(), from_numpy, rtol=1e-12)


def test_torch_gradients_match_finite_differences(system):
    w = torch.tensor(points(system), requires_grad=True)
    assert torch.autograd.gradcheck(system.log_df, w, eps=1e-6, rtol=1e-4)
    for function in (system.potential, system.density):
        assert torch.autograd.gradcheck(function, w[:, :3].detach().requires_grad_(), eps=1e-7, rtol=1e-4)
    for function in (system.enclosed_mass, system.velocity_dispersion):
        r = torch.tensor(radii(w.detach().numpy()), requires_grad=True)
        assert torch.autograd.gradcheck(function, r, eps=1e-7, rtol=1e-4)


def test_gradients_are_finite_outside_the_support(system):
    w = points(system)
    w[::2, 3:] *= 10
    w = torch.tensor(w, requires_grad=True)
    (slope,) = torch.autograd.grad(system.log_df(w).sum(), w)
    assert slope.isfinite().all()
    assert not slope[::2].any()


def test_collisionless_boltzmann_equation(system):
    """The DF is stationary in its own gravity: v . df/dx + a . df/dv = 0, term by term large."""
    w = torch.tensor(points(system), requires_grad=True)
    (slope,) = torch.autograd.grad(system.log_df(w).sum(), w)
    streaming = (w[:, 3:] * slope[:, :3]).sum(1)
    forcing = (system.acceleration(w[:, :3]) * slope[:, 3:]).sum(1)
    torch.testing.assert_close(streaming, -forcing, rtol=1e-8, atol=1e-9 * streaming.abs().max().item())


# ---- stars ----


def test_radii_follow_the_mass(system, stars):
    r = radii(stars(system))
    total = system.enclosed_mass(system.r_max) if np.isfinite(system.r_max) else system.mass
    assert r.max() < system.r_max
    assert stats.kstest(r, lambda s: system.enclosed_mass(s) / total).pvalue > 1e-4


def test_positions_are_isotropic(system, stars):
    x = stars(system)[:, :3]
    direction = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert abs(direction.mean(0)).max() < 5 / np.sqrt(3 * N_STARS)
    # the nine second moments: variance of n_i^2 is 4/45, of n_i n_j 1/15
    assert abs(direction.T @ direction / N_STARS - np.eye(3) / 3).max() < 5 * np.sqrt(4 / 45 / N_STARS)


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
    for direction, expected in [
        (radial, 1.0),
        (azimuthal, 1 - beta),
        (np.cross(radial, azimuthal), 1 - beta),
    ]:
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


@pytest.mark.parametrize("system", NATURAL, ids=repr)
@pytest.mark.parametrize("r", [1e-4, 0.05, 0.3, 0.95, 1.05, 4.0, 100.0])
def test_velocities_at_a_radius_follow_the_df(system, r):
    rng = np.random.default_rng(11)
    speed, cosine = system._velocity(np.full(N_STARS, r), rng)
    q = speed / system.escape_speed(r)
    assert stats.kstest(q, cumulative(system, r, 0)).pvalue > 1e-4
    assert stats.kstest(np.arccos(cosine), cumulative(system, r, 1)).pvalue > 1e-4
    # speed and direction are independent in all three systems
    assert abs(stats.spearmanr(q, abs(cosine)).statistic) < 5 / np.sqrt(N_STARS)
    # negative control: the same test sees speeds one per cent too high
    assert stats.kstest(1.01 * q, cumulative(system, r, 0)).pvalue < 1e-6


def test_negative_controls():
    """The statistical tests above do fail for the wrong system."""
    isotropic, radial = Hernquist(), Hernquist(beta=0.5)
    speed, cosine = isotropic._velocity(np.full(N_STARS, 1.0), np.random.default_rng(1))
    assert stats.kstest(speed / isotropic.escape_speed(1.0), cumulative(radial, 1.0, 0)).pvalue < 1e-6
    assert stats.kstest(np.arccos(cosine), cumulative(radial, 1.0, 1)).pvalue < 1e-6
    r = radii(isotropic.sample(N_STARS, rng=2))
    assert stats.kstest(1.02 * r, isotropic.enclosed_mass).pvalue < 1e-6
    assert stats.kstest(r, Plummer().enclosed_mass).pvalue < 1e-6


def test_stars_lie_in_the_support_and_repeat_with_the_seed(system):
    w = system.sample(20_000, rng=5)
    assert w.shape == (20_000, 6)
    assert w.dtype == np.float64
    assert w.flags.c_contiguous
    assert np.isfinite(system.log_df(w)).all()
    np.testing.assert_array_equal(w, system.sample(20_000, rng=np.random.default_rng(5)))
    assert not np.array_equal(w, system.sample(20_000, rng=6))
    assert len(np.unique(w[:, 0])) == len(w)


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    Hernquist().sample(100, rng=1)
    np.testing.assert_array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())


@pytest.mark.parametrize("system", NATURAL, ids=repr)
def test_extreme_uniforms_give_finite_radii(system):
    u = np.array([2.0**-54, 1e-12, 0.5, 1 - 2.0**-53])
    r = system._radius(u)
    assert np.isfinite(r).all()
    np.testing.assert_allclose(system.enclosed_mass(r), u, rtol=1e-9)
    assert np.isfinite(system._velocity(r, np.random.default_rng(1))[0]).all()


@pytest.mark.parametrize("system", NATURAL, ids=repr)
def test_truncation(system):
    inner = system.truncated(2.0)
    w = points(inner)
    share = system.enclosed_mass(2.0)
    np.testing.assert_allclose(inner.log_df(w), system.log_df(w) - np.log(share), rtol=1e-13)
    np.testing.assert_array_equal(inner.acceleration(w[:, :3]), system.acceleration(w[:, :3]))
    assert inner.truncated(np.inf) == system


@pytest.mark.parametrize("pair", list(zip(NATURAL, SCALED, strict=True)), ids=lambda pair: repr(pair[1]))
def test_units_are_scalings(pair):
    natural, scaled = pair
    unit = np.repeat([scaled.scale, np.sqrt(scaled.G * scaled.mass / scaled.scale)], 3)
    w = natural.sample(1000, rng=4)
    np.testing.assert_allclose(scaled.sample(1000, rng=4), w * unit, rtol=1e-14)
    np.testing.assert_allclose(scaled.log_df(w * unit), natural.log_df(w) - np.log(unit).sum(), rtol=1e-9)


# ---- accuracy ----


def exact_log_df(r, v):
    """Hernquist's equation 17, as printed, with 60 digits."""
    with mpmath.workdps(60):
        r, v = mpmath.mpf(float(r)), mpmath.mpf(float(v))
        b = 1 / (1 + r) - v * v / 2
        bracket = (1 - 2 * b) * (8 * b * b - 8 * b - 3)
        bracket += 3 * mpmath.asin(mpmath.sqrt(b)) / mpmath.sqrt(b * (1 - b))
        return mpmath.log(mpmath.sqrt(b) / (1 - b) ** 2 * bracket / (mpmath.sqrt(2) * (2 * mpmath.pi) ** 3))


@pytest.mark.parametrize("kinetic", [0.0, 0.3, 0.9])
def test_isotropic_hernquist_is_accurate_at_all_energies(kinetic):
    b = np.concatenate([np.geomspace(1e-8, 0.3, 100), 1 - np.geomspace(1e-8, 0.7, 100), np.linspace(0.14, 0.16, 50)])
    c = np.concatenate(
        [1 - np.geomspace(1e-8, 0.3, 100), np.geomspace(1e-8, 0.7, 100), 1 - np.linspace(0.14, 0.16, 50)]
    )
    w = np.zeros((len(b), 6))
    w[:, 1] = (1 - kinetic) * c / (b + kinetic * c)
    w[:, 5] = np.sqrt(2 * kinetic * c)
    exact = [exact_log_df(r, v) for r, v in zip(w[:, 1], w[:, 5], strict=True)]
    error = np.array([float(abs(got / want - 1)) for got, want in zip(Hernquist().log_df(w), exact, strict=True)])
    # with v > 0, B itself is a difference of rounded numbers: an error of 1e-16 / B is in the input
    assert error.max() < (1e-12 if kinetic == 0 else 1e-8)
    assert error[b > 1e-3].max() < 1e-12


def test_the_envelope_of_the_isotropic_speeds_bounds_the_df():
    """K(B) falls from 25.6 to 3 pi / 2 everywhere, also where the series hands over to the closed form."""
    b = np.concatenate([np.geomspace(1e-9, 0.1, 500, endpoint=False), np.linspace(0.1, 1, 5000)])
    k = _shape(b, 1 - b)
    assert (np.diff(k) < 0).all()
    assert k[0] == pytest.approx(25.6, rel=1e-8)
    assert k[-1] == pytest.approx(1.5 * np.pi, rel=1e-9)


@pytest.mark.parametrize("r", [1e-8, 1e8])
def test_no_overflow_at_extreme_radii(r):
    for system in NATURAL:
        w = [r, 0, 0, 0, 0.5 * system.escape_speed(r), 0]
        assert np.isfinite(system.log_df(w))
        assert np.isfinite(system.velocity_dispersion(r))
        assert np.isfinite(system.acceleration([r, 0, 0])).all()


def test_dispersion_of_the_isotropic_hernquist_sphere_is_accurate():
    r = np.geomspace(1e-6, 1e8, 40)
    with mpmath.workdps(60):
        t = [1 / (1 + mpmath.mpf(s)) for s in r]
        exact = [float(mpmath.sqrt((1 / s - 1) * s**2 / 5 * mpmath.hyp2f1(1, 5, 6, s))) for s in t]
    np.testing.assert_allclose(Hernquist().velocity_dispersion(r), exact, rtol=1e-13)
    assert Hernquist().velocity_dispersion(0.0) == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("beta", [0.0, 0.5, None])
def test_galpy_agrees(beta):
    galpy_df = pytest.importorskip("galpy.df")
    galpy_potential = pytest.importorskip("galpy.potential")
    mass, scale = 3.0, 2.0
    if beta is None:
        system, potential = Plummer(mass, scale), galpy_potential.PlummerPotential(amp=mass, b=scale)
        df = galpy_df.isotropicPlummerdf(pot=potential)
    else:
        system, potential = Hernquist(mass, scale, beta), galpy_potential.HernquistPotential(amp=2 * mass, a=scale)
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


# ---- bad input ----


@pytest.mark.parametrize("kind", [Hernquist, Plummer])
@pytest.mark.parametrize("name", ["mass", "scale", "G", "r_max"])
@pytest.mark.parametrize("value", [0, -1.0, np.nan])
def test_parameters_must_be_positive(kind, name, value):
    with pytest.raises(ValueError, match=f"{name} must be a positive .*got"):
        kind(**{name: value})


def test_other_bad_input():
    with pytest.raises(ValueError, match="mass must be a positive finite number; got inf"):
        Hernquist(mass=np.inf)
    with pytest.raises(TypeError, match="mass must be a positive number; got 'heavy'"):
        Hernquist(mass="heavy")
    with pytest.raises(ValueError, match=r"beta must be 0 or 0.5; got 0.3"):
        Hernquist(beta=0.3)
    with pytest.raises(ValueError, match=r"r_max must be a positive number; got -2"):
        Hernquist().truncated(-2)
    with pytest.raises(ValueError, match=r"w must have shape \(..., 6\); got \(4, 5\)"):
        Hernquist().log_df(np.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"x must have shape \(..., 3\); got \(6,\)"):
        Plummer().acceleration(torch.zeros(6))
    for n in (0, -3):
        with pytest.raises(ValueError, match=f"n must be a positive integer; got {n}"):
            Plummer().sample(n, rng=1)
    with pytest.raises(TypeError, match="n must be a positive integer; got 1000000.0"):
        Plummer().sample(1e6, rng=1)
