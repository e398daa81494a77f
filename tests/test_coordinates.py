"""Coordinate maps: invertible, with the right Jacobian, exactly symmetric, and sound over twelve decades of radius."""

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from scipy import stats

import dfaccel as da
from dfaccel.coordinates import COORDINATES, Axisymmetric, Linear, Radial, Spherical, coordinate_map, map_from_dict

MAPS = [Linear(1.7), Radial(1.7), Axisymmetric(1.7, height=0.2), Spherical(1.7)]
MAPS += [Linear(0.6, True), Radial(0.6, True), Axisymmetric(0.6, True, height=3.0), Spherical(0.6, True)]
MAPS += [Radial(1.7, anisotropy=0.5), Radial(0.6, True, anisotropy=-0.4, velocity_scale=3.0)]


@pytest.fixture(params=MAPS, ids=lambda m: f"{type(m).__name__}-{m.scale}-{getattr(m, 'anisotropy', 0)}")
def coordinates(request):
    """Every map, with and without time reversal."""
    return request.param


def phase_space(n=200, r=None, seed=0):
    """Points whose radii span 1e-6 to 1e6 unless given, velocities falling as they do in a system."""
    rng = np.random.default_rng(seed)
    x, v = rng.normal(size=(2, n, 3))
    r = np.geomspace(1e-6, 1e6, n) if r is None else np.full(n, r)
    x *= (r / np.linalg.norm(x, axis=1))[:, None]
    return torch.from_numpy(np.hstack([x, v / np.sqrt(1 + r)[:, None]]))


def rotation(seed, about_z=False):
    """A random rotation matrix."""
    if about_z:
        c, s = np.cos(seed + 0.5), np.sin(seed + 0.5)
        return torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1.0]], dtype=torch.float64)
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return torch.from_numpy(q * np.linalg.det(q))


def turned(w, matrix):
    """Points with positions and velocities turned by a matrix."""
    return torch.cat([w[:, :3] @ matrix.T, w[:, 3:] @ matrix.T], dim=1)


def completed(coordinates, w):
    """All six coordinates of one point, the ignorable angles included, and the log of the angles' density.

    Written out here from the definitions, so that the determinant below owes nothing to the module's Jacobian.
    """
    y, _ = coordinates.forward(w[None])
    x, v = w[:3], w[3:]
    azimuth = torch.atan2(x[1], x[0])
    if isinstance(coordinates, Axisymmetric):
        return torch.cat([y[0], azimuth[None]]), -math.log(2 * math.pi)
    if isinstance(coordinates, Spherical):
        big_r, r = torch.hypot(x[0], x[1]), torch.linalg.vector_norm(x)
        e_phi = torch.stack([-x[1] / big_r, x[0] / big_r, 0 * r])
        e_theta = torch.linalg.cross(e_phi, x / r)
        turn = torch.atan2(v @ e_phi, v @ e_theta)
        return torch.cat([y[0], torch.stack([x[2] / r, azimuth, turn])]), -math.log(2 * 2 * math.pi * 2 * math.pi)
    return y[0], 0.0


def test_inverse_returns_the_invariants(coordinates):
    w = phase_space()
    y, log_jacobian = coordinates.forward(w)
    assert y.shape == (len(w), coordinates.features)
    assert log_jacobian.shape == (len(w),)
    assert y.dtype == log_jacobian.dtype == torch.float64
    back = coordinates.inverse(y, np.random.default_rng(1))
    assert back.shape == w.shape
    torch.testing.assert_close(coordinates.forward(back)[0], y, rtol=1e-9, atol=1e-9)
    if coordinates.features == 6:  # nothing is ignored: the very points come back
        torch.testing.assert_close(back, w, rtol=1e-12, atol=0)


def test_jacobian_is_the_determinant_of_the_completed_map(coordinates):
    for w in phase_space(40):
        jacobian = torch.autograd.functional.jacobian(lambda p: completed(coordinates, p)[0], w)
        expected = torch.linalg.slogdet(jacobian).logabsdet + completed(coordinates, w)[1]
        value = coordinates.forward(w[None])[1][0]
        assert abs(value - expected) < 1e-9 * max(1, abs(expected))


def test_a_density_of_the_invariants_becomes_a_normalized_density_of_stars(coordinates, proposal):
    """Push a Gaussian in y through: its mean ratio to an unrelated sampler of known density is the integral, one."""
    w, log_q = proposal(200_000, rng=3)
    y, log_jacobian = coordinates.forward(torch.from_numpy(w))
    inner = y[: len(y) // 2]  # a Gaussian narrower than the proposal keeps the weights bounded
    gaussian = stats.multivariate_normal(inner.mean(0).numpy(), 0.3 * np.cov(inner.numpy().T))
    weight = np.exp(gaussian.logpdf(y.numpy()) + log_jacobian.numpy() - log_q)
    error = weight.std() / math.sqrt(len(w))
    assert error < 0.02
    assert abs(weight.mean() - 1) < 5 * error
    # negative control: the stretch of the velocities forgotten (for the linear map, which has none, a tenth added)
    stretch = torch.sqrt(1 + torch.linalg.vector_norm(torch.from_numpy(w[:, :3]), dim=1) / coordinates.scale).numpy()
    wrong = weight / stretch**3 if not isinstance(coordinates, Linear) else weight * 1.2
    assert abs(wrong.mean() - 1) > 5 * wrong.std() / math.sqrt(len(w))


def test_angles_drawn_by_the_inverse_are_uniform():
    """Kolmogorov-Smirnov at 5 sigma for n = 20,000: p > 5.7e-7; the tilted frame of the control is caught."""
    n, p_limit = 20_000, 5.7e-7
    one = phase_space(1, r=2.0).expand(n, -1)
    for coordinates in (Spherical(1.0), Axisymmetric(1.0, height=0.3)):
        w = coordinates.inverse(coordinates.forward(one)[0], np.random.default_rng(5)).numpy()
        azimuth = np.arctan2(w[:, 1], w[:, 0])
        assert stats.kstest(azimuth, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > p_limit
        if isinstance(coordinates, Spherical):
            polar = w[:, 2] / np.linalg.norm(w[:, :3], axis=1)
            spin = np.cross(w[:, :3], w[:, 3:])  # perpendicular to x, in a direction uniform about it
            assert stats.kstest(polar, stats.uniform(-1, 2).cdf).pvalue > p_limit
            assert stats.kstest(spin[:, 2] / np.linalg.norm(spin, axis=1), stats.uniform(-1, 2).cdf).pvalue > p_limit
            tilted = w[:, :3] @ rotation(1).numpy().T * [1, 1, 0.9]
            tilted = tilted[:, 2] / np.linalg.norm(tilted, axis=1)
            assert stats.kstest(tilted, stats.uniform(-1, 2).cdf).pvalue < p_limit


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("coordinates", [Spherical(1.7), Axisymmetric(1.7, height=0.2)], ids=["sphere", "disc"])
def test_rotations_leave_the_coordinates_alone(coordinates, seed):
    w = phase_space()
    y, log_jacobian = coordinates.forward(w)
    matrix = rotation(seed, about_z=isinstance(coordinates, Axisymmetric))
    y_turned, log_jacobian_turned = coordinates.forward(turned(w, matrix))
    torch.testing.assert_close(y_turned, y, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(log_jacobian_turned, log_jacobian, rtol=1e-10, atol=1e-11)
    if isinstance(coordinates, Spherical):  # mirrors too
        mirrored = coordinates.forward(w * torch.tensor([1, -1, 1, 1, -1, 1]))[0]
        torch.testing.assert_close(mirrored, y, rtol=1e-12, atol=1e-13)
    else:  # negative control: a rotation about another axis is no symmetry of a disc
        assert (coordinates.forward(turned(w, rotation(seed)))[0] - y).abs().max() > 0.1


def test_time_reversal_and_reflection_are_sign_flips(coordinates):
    w = phase_space()
    y, log_jacobian = coordinates.forward(w)
    reverse = torch.tensor([1.0, 1, 1, -1, -1, -1])
    sign = torch.ones(coordinates.features)
    sign[list(coordinates.reversed_by_time)] = -1
    y_reversed, log_jacobian_reversed = coordinates.forward(w * reverse)
    assert torch.equal(y_reversed, y * sign)
    assert torch.equal(log_jacobian_reversed, log_jacobian)
    assert coordinates.time_reversal == any(torch.equal(row, sign) for row in coordinates.flips)
    if isinstance(coordinates, Axisymmetric):
        sign = torch.tensor([1.0, -1, 1, 1, -1])
        assert torch.equal(coordinates.forward(w * torch.tensor([1, 1, -1, 1, 1, -1]))[0], y * sign)
        assert any(torch.equal(row, sign) for row in coordinates.flips)


def test_flips_form_a_group(coordinates):
    elements = {tuple(row.tolist()) for row in coordinates.flips}
    assert len(elements) == len(coordinates.flips)
    assert coordinates.flips[0].eq(1).all()
    assert {tuple(a * b for a, b in zip(p, q, strict=True)) for p in elements for q in elements} == elements
    expected = (2 if coordinates.time_reversal else 1) * (2 if isinstance(coordinates, Axisymmetric) else 1)
    assert len(elements) == expected


def test_positions_alone_give_the_position_coordinates(coordinates):
    w = phase_space()
    y, _ = coordinates.forward(w)
    torch.testing.assert_close(coordinates.position_coordinates(w[:, :3]), y[:, : coordinates.n_positions])
    x = coordinates.positions(y, np.random.default_rng(2))  # velocities drawn for these positions keep them
    again = coordinates.forward(torch.cat([x, coordinates.velocities(x, y, np.random.default_rng(3))], dim=1))[0]
    torch.testing.assert_close(again, y, rtol=1e-9, atol=1e-9)


def test_gradients_are_finite_over_twelve_decades(coordinates):
    w = phase_space().requires_grad_()
    y, log_jacobian = coordinates.forward(w)
    (gradient,) = torch.autograd.grad(y.sum() + log_jacobian.sum(), w)
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("kind", [Linear, Radial])
def test_maps_without_symmetry_are_sound_at_the_centre(kind):
    w = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    y, log_jacobian = kind(1.3).forward(w)
    (gradient,) = torch.autograd.grad(y.sum() + log_jacobian.sum(), w)
    assert torch.isfinite(gradient).all()
    assert torch.equal(y, torch.zeros_like(y))
    assert torch.equal(kind(1.3).inverse(y, np.random.default_rng(0)), torch.zeros_like(y))


@pytest.mark.parametrize(("name", "kind"), COORDINATES.items())
def test_scales_come_from_the_stars(name, kind):
    w = np.random.default_rng(0).normal(size=(1000, 6))
    chosen = coordinate_map(w, name, time_reversal=True)
    larger = coordinate_map(w * 7, name)
    assert type(chosen) is kind
    assert chosen.time_reversal
    assert not larger.time_reversal
    assert larger.scale == pytest.approx(7 * chosen.scale, rel=1e-14)
    if kind is Axisymmetric:
        assert larger.height == pytest.approx(7 * chosen.height, rel=1e-14)


def test_a_map_is_taken_as_it_is_and_the_default_is_radial():
    w, given = np.ones((5, 6)), Spherical(3.0)
    assert coordinate_map(w, given) is given
    assert type(coordinate_map(w)) is Radial


def test_unknown_names_are_refused_with_those_known():
    names = "coordinates must be one of spherical, axisymmetric, radial, linear"
    with pytest.raises(ValueError, match=f"{names}, or a CoordinateMap; got 'cubic'"):
        coordinate_map(np.ones((5, 6)), "cubic")
    with pytest.raises(ValueError, match=f"{names}; got 'cubic'"):
        map_from_dict({"kind": "Cubic"})


def test_directions_in_which_an_acceleration_is_determined(coordinates):
    x = phase_space()[:, :3].numpy()
    along = coordinates.determined(x)
    if coordinates.round:
        np.testing.assert_allclose(along[:, 0], x / np.linalg.norm(x, axis=1, keepdims=True), rtol=1e-14)
    assert along.shape == (len(x), 1 if coordinates.round else 3, 3)
    np.testing.assert_allclose(along @ along.swapaxes(1, 2) - np.eye(along.shape[1]), 0, atol=1e-14)
    assert (coordinates.round, coordinates.axial) == tuple(type(coordinates) is k for k in (Spherical, Axisymmetric))


def test_description_round_trip_and_immutability(coordinates):
    assert map_from_dict(coordinates.to_dict()) == coordinates
    first_format = {k: v for k, v in coordinates.to_dict().items() if k != "name"}
    first_format |= {"kind": type(coordinates).__name__, "symmetry": "any"}
    assert map_from_dict(first_format) == coordinates
    with pytest.raises(FrozenInstanceError):
        coordinates.scale = 2.0


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_anisotropy_is_that_of_the_stars(beta):
    """The standard error of beta is near 1.5 / sqrt(n); and the map makes the cusp at zero angular momentum flat."""
    n = 40_000
    w = da.Hernquist(beta=beta).sample(n, rng=0)
    coordinates = Radial.from_stars(w)
    assert abs(coordinates.anisotropy - beta) < 5 * 1.5 / np.sqrt(n)
    x, u = torch.from_numpy(w[:, :3]), coordinates.forward(torch.from_numpy(w))[0][:, 3:]
    across = torch.linalg.vector_norm(torch.linalg.cross(x, u), dim=1) / torch.linalg.vector_norm(x, dim=1)
    near = [(across < limit * coordinates.velocity_scale).sum().item() for limit in (0.2, 0.4)]  # flat: as the area
    assert abs(near[0] - near[1] / 4) < 5 * np.sqrt(near[1] * 0.25 * 0.75) + 0.06 * near[1]
    if beta:  # negative control: untouched velocities are crowded
        plain = Radial(coordinates.scale).forward(torch.from_numpy(w))[0][:, 3:]
        across = torch.linalg.vector_norm(torch.linalg.cross(x, plain), dim=1) / torch.linalg.vector_norm(x, dim=1)
        near = [(across < limit * coordinates.velocity_scale).sum().item() for limit in (0.2, 0.4)]
        assert near[0] > 0.4 * near[1]


def test_anisotropy_of_odd_stars_is_bounded():
    w = np.zeros((1000, 6))
    w[:, :3] = np.random.default_rng(0).normal(size=(1000, 3))
    w[:, 3:] = w[:, :3]
    assert Radial.from_stars(w).anisotropy == 0.9
    w[:, 3:] = np.cross(w[:, :3], [0.0, 0, 1])
    assert Radial.from_stars(w).anisotropy == -1.0


# ---- of stars, in NumPy ----


def test_spherical_and_cylindrical_coordinates_of_stars():
    """Put together again, they are the stars; and they know nothing of rotations about the centre or the axis."""
    w = phase_space(100, r=2.0).numpy()
    x, v = w[:, :3], w[:, 3:]
    R, phi, z, v_R, v_phi, v_z = da.cylindrical(w)
    cos, sin = np.cos(phi), np.sin(phi)
    back = [R * cos, R * sin, z, v_R * cos - v_phi * sin, v_R * sin + v_phi * cos, v_z]
    np.testing.assert_allclose(np.stack(back, axis=1), w, atol=1e-14)
    parts = da.spherical(w)
    np.testing.assert_allclose(parts.r, 2.0)
    np.testing.assert_allclose(parts.v_r, (x * v).sum(1) / 2.0, atol=1e-15)
    np.testing.assert_allclose(parts.v_r**2 + parts.v_t**2, (v * v).sum(1))
    assert (parts.v_t > 0).all()
    for about_z in (False, True):
        tilted = turned(torch.from_numpy(w), rotation(3, about_z))
        np.testing.assert_allclose(np.stack(da.spherical(tilted)), np.stack(parts), atol=1e-13)
        if about_z:
            np.testing.assert_allclose(da.cylindrical(tilted).v_phi, v_phi, atol=1e-13)
    for function in (da.spherical, da.cylindrical):
        with pytest.raises(ValueError, match=r"w must have shape \(n, 6\); got \(6,\)"):
            function(w[0])


def test_directions_are_isotropic_unit_vectors():
    n = 100_000
    x = da.directions(n, 1)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-14)
    for column in x.T:
        assert stats.kstest(column, stats.uniform(-1, 2).cdf).pvalue > 1e-4
    assert abs(x.T @ x / n - np.eye(3) / 3).max() < 5 * np.sqrt(4 / 45 / n)
    np.testing.assert_array_equal(x, da.directions(n, np.random.default_rng(1)))
    with pytest.raises(ValueError, match="n must be a positive integer; got 0"):
        da.directions(0, 1)
