"""Mass from accelerations: exact DF in, exact mass out; learned, the exact derivative of the solution it comes from."""

import numpy as np
import pytest
import torch
from scipy import stats

import dfaccel as da

PLUMMER = da.Plummer()


def off(value, truth):
    """Largest relative error."""
    return np.abs(value / truth - 1).max()


def halo(points):
    """Density of what moves the stars of `PushedTracers`."""
    r2 = (points**2).sum(axis=1)
    return (3 + r2) / (4 * np.pi * (1 + r2) ** 2)


class PushedTracers(da.DistributionFunction):
    """Stars with Plummer's density and Gaussian velocities in a halo's gravity, those around a point moving along z."""

    def __init__(self, speed, centre=1.5, size=0.5, sigma=0.2**0.5):
        self.speed, self.centre, self.size, self.sigma = speed, centre, size, sigma

    def drift(self, x):
        distance2 = ((x - torch.tensor([0, 0, self.centre], dtype=x.dtype)) ** 2).sum(-1, keepdim=True)
        return self.speed * torch.exp(-distance2 / (2 * self.size**2)) * torch.tensor([0, 0, 1], dtype=x.dtype)

    def log_df(self, w):
        x, v = w[..., :3], w[..., 3:]
        return -2.5 * torch.log1p((x**2).sum(-1)) - ((v - self.drift(x)) ** 2).sum(-1) / (2 * self.sigma**2)

    def sample(self, n, *, rng):
        rng = np.random.default_rng(rng)
        x = da.Plummer().sample(n, rng=rng)[:, :3]
        return np.hstack([x, self.drift(torch.from_numpy(x)).numpy() + self.sigma * rng.standard_normal((n, 3))])

    def velocities(self, x, n):
        """Evenly spread, and in opposite pairs about the mean: what is odd averages out."""
        c = self.sigma * stats.norm.ppf(stats.qmc.Halton(3, scramble=False).fast_forward(1).random(n // 2))
        return np.concatenate([c, -c]) + self.drift(torch.from_numpy(x)).numpy()[:, None]


def test_exact_df_gives_the_exact_enclosed_mass(system, shifted):
    radii = system.scale * np.geomspace(0.2, 20, 12)
    result = da.enclosed_mass(shifted(system), radii, G=system.G, n_directions=3, n_velocities=60, rng=2)
    assert off(result.value, system.enclosed_mass(radii)) <= 1e-8
    assert result.members.shape == (1, 12)
    assert np.isnan(result.standard_error).all()
    assert result.supported.all()
    assert np.abs(result.value / system.enclosed_mass(1.1 * radii) - 1).min() > 1e-4  # negative control: another radius


def test_a_flat_core_has_a_density_at_its_centre():
    np.testing.assert_allclose(da.mass_density(PLUMMER, np.zeros((1, 3)), n_velocities=50).value, 0.75 / np.pi)


@pytest.mark.parametrize(("method", "where"), [(da.mass_density, [[1.0, 2, 3]]), (da.enclosed_mass, [1.0, 2.0])])
def test_only_g_times_the_mass_is_measured(method, where):
    one, two = (method(PLUMMER, where, G=G, n_velocities=50).value for G in (1.0, 2.0))
    np.testing.assert_allclose(one, 2 * two)


def test_tracers_weigh_what_they_move_in(places):
    """Stars of one density in the gravity of another."""
    points, radii, tracers = places(20, r_max=5), np.array([0.5, 2.0]), PushedTracers(0.0)
    assert off(da.mass_density(tracers, points, n_velocities=60).value, halo(points)) <= 1e-8
    mass = da.enclosed_mass(tracers, radii, n_directions=3, n_velocities=60).value
    assert off(mass, radii**3 / (1 + radii**2)) <= 1e-8
    assert np.abs(halo(points) / PLUMMER.density(points) - 1).min() > 1e-3  # negative control: not the stars' own


@pytest.mark.parametrize(("r", "shift"), [(0.5, 0.6), (1.0, 0.6), (3.0, 0.6), (1.0, 3.0), (30.0, 3.0)])
def test_gauss_law_needs_no_symmetry(r, shift, shifted):
    """A sphere around another point than the centre; the reference is the flux of the exact acceleration."""
    node, weight = np.polynomial.legendre.leggauss(200)
    unit = np.stack([node, np.sqrt(1 - node**2), 0 * node], axis=1)
    flux = (da.Plummer().acceleration(r * unit - [shift, 0, 0]) * unit).sum(axis=1)
    inside = -(r**2) * (weight * flux).sum() / 2
    system = shifted(PLUMMER, (0.0, 0.0, shift))
    found, one = (da.enclosed_mass(system, [r], n_directions=n, n_velocities=20).value for n in (1000, 1))
    np.testing.assert_allclose(found, inside, rtol=1e-3)
    assert abs(one / inside - 1) > 1e-3  # negative control: one direction is no mean


def test_density_is_minus_the_divergence_of_the_fitted_field():
    """Out of equilibrium, a bulk motion u of part of the stars: the field is a + (u . grad) u, in closed form."""
    system = PushedTracers(0.5)
    x = np.zeros((12, 3))
    x[:, 0], x[:, 2] = np.linspace(-0.3, 0.3, 12), np.linspace(0.8, 2.4, 12)
    dz = x[:, 2] - system.centre
    bell2 = np.exp(-(x[:, 0] ** 2 + dz**2) / system.size**2)
    spurious = (system.speed / system.size) ** 2 * bell2 * (1 - 2 * dz**2 / system.size**2) / (4 * np.pi)
    found = da.mass_density(system, x, velocities=system.velocities(x, 4000)).value
    np.testing.assert_allclose(found, halo(x) + spurious, atol=0.04 * np.abs(spurious).max())
    assert (found < 0).any()
    assert np.abs(spurious).max() > 0.1 * halo(x).max()  # negative control: a term to be seen


def test_density_of_an_ensemble_is_the_derivative_of_its_weighted_solution(learned, places, bound_velocities):
    """Against central differences: velocities kept, weights chosen at the point and then following each member's f."""
    points = places(6, r_min=0.5, r_max=3)
    velocities = bound_velocities(da.Plummer(), points, n=200)
    density = da.mass_density(learned, points, velocities=velocities).members

    def phase_space(x, v):
        return np.hstack([np.broadcast_to(x, v.shape), v])

    def divergence(x, v, k, *, following):
        log_here, _, hessian = (a[k] for a in learned.members_hessian(phase_space(x, v)))
        size = (hessian[:, :, 3:] ** 2).sum(axis=(1, 2))
        weight = 1 / (1 + size / np.median(size))
        total, step = 0.0, 4e-3 * np.linalg.norm(x)
        for i in range(3):
            for sign in (1, -1):
                log_f, score = (a[k] for a in learned.members_score(phase_space(x + sign * step * np.eye(3)[i], v)))
                root = np.sqrt(weight * np.exp(log_f - log_here) if following else weight)[:, None]
                streaming = (v * score[:, :3]).sum(axis=1, keepdims=True)
                a = -np.linalg.lstsq(root * score[:, 3:], root * streaming, rcond=None)[0][:, 0]
                total += sign * a[i] / (2 * step)
        return total

    for k in range(2):
        pairs = list(zip(points, velocities, strict=True))
        numerical, fixed = np.array([[divergence(*pair, k, following=follow) / (-4 * np.pi) for pair in pairs]
                                     for follow in (True, False)])
        scale = np.abs(numerical).max()
        np.testing.assert_allclose(density[k], numerical, rtol=0.02, atol=2e-3 * scale)
        assert np.abs(fixed - numerical).max() > 0.05 * scale  # negative control: weights that do not follow f


@pytest.mark.parametrize(("method", "where"), [(da.mass_density, np.eye(3)), (da.enclosed_mass, [1.0, 2.0, 3.0])])
def test_mean_and_scatter_over_members_and_the_seed(learned, method, where):
    one, same, other = (method(learned, where, n_velocities=50, rng=rng) for rng in (1, 1, 2))
    assert one.members.shape == (3, 3)
    np.testing.assert_allclose(one.value, one.members.mean(axis=0))
    np.testing.assert_allclose(one.standard_error, np.sqrt(((one.members - one.value) ** 2).sum(axis=0) / 2))
    np.testing.assert_array_equal(one.value, same.value)
    assert (one.value != other.value).all()


def test_radii_without_training_stars_are_flagged_and_warned_about(learned):
    with pytest.warns(UserWarning, match="4 of 8 points lie where training stars are too few"):
        mass = da.enclosed_mass(learned, [1.0, 3e4], n_directions=4, n_velocities=50)
    assert mass.supported.tolist() == [True, False]
    da.enclosed_mass(learned, [1.0, 3e4], n_directions=4, n_velocities=50, warn=False)  # warnings are errors here


def test_no_density_from_velocities_that_leave_a_component_open(places, bound_velocities):
    system, points = da.Plummer(), places(3)
    velocities = bound_velocities(system, points)
    velocities[0] *= 100  # all beyond escape
    velocities[1] *= [1, 1, 0]  # all in a plane
    velocities[2, 2:] *= 100  # all but two
    assert np.isnan(da.mass_density(system, points, velocities=velocities).value).all()


DENSITY, MASS = (da.mass_density, np.eye(3)), (da.enclosed_mass, [1.0])


@pytest.mark.parametrize(("method", "where", "options", "error", "message"), [
    (*DENSITY, {"G": 0}, ValueError, "G must be a positive finite number; got 0"),
    (*DENSITY, {"G": "one"}, TypeError, "G must be a positive number; got 'one'"),
    (*MASS, {"G": -1}, ValueError, "G must be a positive finite number; got -1"),
    (*MASS, {"n_directions": 0}, ValueError, "n_directions must be a positive integer; got 0"),
    (*MASS, {"n_directions": 2.0}, TypeError, "n_directions must be a positive integer; got 2.0"),
    (*MASS, {"n_velocities": 2}, ValueError, "n_velocities must lie between 3 and 100000; got 2"),
    (da.enclosed_mass, 1.0, {}, ValueError, r"radii must have shape \(m,\), m >= 1; got \(\)"),
    (da.enclosed_mass, [], {}, ValueError, r"radii must have shape \(m,\), m >= 1; got \(0,\)"),
    (da.enclosed_mass, [[1.0]], {}, ValueError, r"radii must have shape \(m,\), m >= 1; got \(1, 1\)"),
    (da.enclosed_mass, [1.0, 0.0], {}, ValueError, "radii must be positive and finite; got 0.0 at index 1"),
    (da.enclosed_mass, [1.0, np.nan], {}, ValueError, "radii must be positive and finite; got nan at index 1"),
    (da.enclosed_mass, [np.inf], {}, ValueError, "radii must be positive and finite; got inf at index 0"),
    (da.accelerations, np.eye(3), {"huber": 0}, ValueError, "huber must be a positive finite number; got 0"),
])
def test_bad_input(method, where, options, error, message):
    with pytest.raises(error, match=message):
        method(PLUMMER, where, **options)
