"""Mass from accelerations: exact DF in, exact mass out; learned, the exact derivative of the solution it comes from."""


import numpy as np
import pytest
import torch
from scipy import stats

import dfaccel as da


def off(value, truth):
    """Largest relative error."""
    return np.abs(value / truth - 1).max()


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


@pytest.mark.parametrize("given", [False, True], ids=["drawn", "given"])
def test_exact_df_gives_the_exact_density(system, shifted, given, places, bound_velocities):
    points = places(40, scale=system.scale)
    options = {"velocities": bound_velocities(system, points)} if given else {"n_velocities": 100}
    result = da.mass_density(shifted(system), points, G=system.G, rng=2, **options)
    truth = system.density(points)
    assert off(result.value, truth) <= 1e-8
    assert result.supported.all()
    np.testing.assert_array_equal(result.members, result.value[None])
    assert np.isnan(result.standard_error).all()
    assert np.abs(result.value / (1.1 * truth) - 1).min() > 1e-3  # negative control: another mass


def test_exact_df_gives_the_exact_enclosed_mass(system, shifted):
    radii = system.scale * np.geomspace(0.2, 20, 12)
    result = da.enclosed_mass(shifted(system), radii, G=system.G, n_directions=3, n_velocities=60, rng=2)
    assert off(result.value, system.enclosed_mass(radii)) <= 1e-8
    assert result.members.shape == (1, 12)
    assert np.isnan(result.standard_error).all()
    assert result.supported.all()
    assert np.abs(result.value / system.enclosed_mass(1.1 * radii) - 1).min() > 1e-4  # negative control: another radius


def test_a_flat_core_has_a_density_at_its_centre():
    np.testing.assert_allclose(da.mass_density(da.Plummer(), np.zeros((1, 3)), n_velocities=50).value, 0.75 / np.pi)


@pytest.mark.parametrize(("method", "where"), [(da.mass_density, [[1.0, 2, 3]]), (da.enclosed_mass, [1.0, 2.0])])
def test_only_g_times_the_mass_is_measured(method, where):
    one, two = (method(da.Plummer(), where, G=G, n_velocities=50).value for G in (1.0, 2.0))
    np.testing.assert_allclose(one, 2 * two)


def test_truncated_stars_weigh_all_of_the_mass_and_none_beyond_the_last(places):
    """Where f vanishes there is no density; the other points keep theirs."""
    points = np.concatenate([places(10, r_max=9), [[0, 20.0, 0]]])
    density = da.mass_density(da.Hernquist().truncated(10.0), points, n_velocities=60).value
    assert off(density[:-1], da.Hernquist().density(points[:-1])) <= 1e-8
    assert np.isnan(density[-1])


def test_tracers_weigh_what_they_move_in(places):
    """Stars of one density in the gravity of another."""
    points, radii, tracers = places(20, r_max=5), np.array([0.5, 2.0]), PushedTracers(0.0)
    r2 = (points**2).sum(axis=1)
    halo = (3 + r2) / (4 * np.pi * (1 + r2) ** 2)
    assert off(da.mass_density(tracers, points, n_velocities=60).value, halo) <= 1e-8
    mass = da.enclosed_mass(tracers, radii, n_directions=3, n_velocities=60).value
    assert off(mass, radii**3 / (1 + radii**2)) <= 1e-8
    assert np.abs(halo / da.Plummer().density(points) - 1).min() > 1e-3  # negative control: not the stars' own


@pytest.mark.parametrize(("r", "shift"), [(0.5, 0.6), (1.0, 0.6), (3.0, 0.6), (1.0, 3.0), (30.0, 3.0)])
def test_gauss_law_needs_no_symmetry(r, shift, shifted):
    """A sphere around another point than the centre; the reference is the flux of the exact acceleration."""
    node, weight = np.polynomial.legendre.leggauss(200)
    unit = np.stack([node, np.sqrt(1 - node**2), 0 * node], axis=1)
    flux = (da.Plummer().acceleration(r * unit - [shift, 0, 0]) * unit).sum(axis=1)
    inside = -(r**2) * (weight * flux).sum() / 2
    system = shifted(da.Plummer(), (0.0, 0.0, shift))
    found = da.enclosed_mass(system, np.array([r]), n_directions=1000, n_velocities=20).value
    np.testing.assert_allclose(found, inside, rtol=1e-3)
    one = da.enclosed_mass(system, np.array([r]), n_directions=1, n_velocities=20).value
    assert abs(one / inside - 1) > 1e-3  # negative control: one direction is no mean


def test_density_is_minus_the_divergence_of_the_fitted_field():
    """Out of equilibrium, a bulk motion u of part of the stars: the field is a + (u . grad) u, in closed form."""
    system = PushedTracers(0.5)
    x = np.zeros((12, 3))
    x[:, 0], x[:, 2] = np.linspace(-0.3, 0.3, 12), np.linspace(0.8, 2.4, 12)
    r2, dz = (x**2).sum(axis=1), x[:, 2] - system.centre
    bell2 = np.exp(-(x[:, 0] ** 2 + dz**2) / system.size**2)
    halo = (3 + r2) / (4 * np.pi * (1 + r2) ** 2)
    spurious = (system.speed / system.size) ** 2 * bell2 * (1 - 2 * dz**2 / system.size**2) / (4 * np.pi)
    found = da.mass_density(system, x, velocities=system.velocities(x, 4000)).value
    np.testing.assert_allclose(found, halo + spurious, atol=0.04 * np.abs(spurious).max())
    assert (found < 0).any()
    assert np.abs(spurious).max() > 0.1 * halo.max()  # negative control: a term to be seen


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
        numerical, fixed = (
            np.array([-divergence(x, v, k, following=f) for x, v in zip(points, velocities, strict=True)]) / (4 * np.pi)
            for f in (True, False)
        )
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


def test_too_few_training_stars_are_flagged_and_warned_about(learned):
    points, radii = np.array([[1.0, 0, 0], [0, 3e4, 0], [0, 0, 1.5]]), [1.0, 3e4]
    with pytest.warns(UserWarning, match=r"1 of 3 points lie where training stars are too few \(see .supported\).*1$"):
        density = da.mass_density(learned, points, n_velocities=50)
    assert density.supported.tolist() == [True, False, True]
    with pytest.warns(UserWarning, match="4 of 8 points lie where training stars are too few"):
        mass = da.enclosed_mass(learned, radii, n_directions=4, n_velocities=50)
    assert mass.supported.tolist() == [True, False]
    da.mass_density(learned, points, n_velocities=50, warn=False)  # warnings are errors in these tests
    da.enclosed_mass(learned, radii, n_directions=4, n_velocities=50, warn=False)


def test_no_density_from_velocities_that_leave_a_component_open(places, bound_velocities):
    system, points = da.Plummer(), places(3)
    velocities = bound_velocities(system, points)
    velocities[0] *= 100  # all beyond escape
    velocities[1] *= [1, 1, 0]  # all in a plane
    velocities[2, 2:] *= 100  # all but two
    assert np.isnan(da.mass_density(system, points, velocities=velocities).value).all()


@pytest.mark.parametrize(("G", "error"), [(0, ValueError), ("one", TypeError)])
def test_bad_input_of_mass_density(G, error):
    with pytest.raises(error, match=f"G must be a positive (finite )?number; got {G!r}"):
        da.mass_density(da.Plummer(), np.eye(3), G=G)


@pytest.mark.parametrize(
    ("radii", "options", "error", "message"),
    [
        (1.0, {}, ValueError, r"radii must have shape \(m,\), m >= 1; got \(\)"),
        ([], {}, ValueError, r"radii must have shape \(m,\), m >= 1; got \(0,\)"),
        ([[1.0]], {}, ValueError, r"radii must have shape \(m,\), m >= 1; got \(1, 1\)"),
        ([1.0, 0.0], {}, ValueError, "radii must be positive and finite; got 0.0 at index 1"),
        ([1.0, np.nan], {}, ValueError, "radii must be positive and finite; got nan at index 1"),
        ([np.inf], {}, ValueError, "radii must be positive and finite; got inf at index 0"),
        ([1.0], {"G": -1}, ValueError, "G must be a positive finite number; got -1"),
        ([1.0], {"n_directions": 0}, ValueError, "n_directions must be a positive integer; got 0"),
        ([1.0], {"n_directions": 2.0}, TypeError, "n_directions must be a positive integer; got 2.0"),
        ([1.0], {"n_velocities": 2}, ValueError, "n_velocities must be at least 3.*got 2"),
    ],
)
def test_bad_input_of_enclosed_mass(radii, options, error, message):
    with pytest.raises(error, match=message):
        da.enclosed_mass(da.Plummer(), radii, **options)
