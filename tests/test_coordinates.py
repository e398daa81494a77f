"""Coordinate maps: invertible, with the right Jacobian, exactly symmetric, and sound over twelve decades of radius."""

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.transform import Rotation

import dfaccel as da
from dfaccel.coordinates import (
    COORDINATES,
    Axisymmetric,
    Bisymmetric,
    Flat,
    Linear,
    Radial,
    Spherical,
    coordinate_map,
    map_from_dict,
)

MAPS = [Linear(1.7), Radial(1.7), Axisymmetric(1.7, height=0.2), Spherical(1.7)]
MAPS += [Linear(0.6, True), Radial(0.6, True), Axisymmetric(0.6, True, height=3.0), Spherical(0.6, True)]
MAPS += [Flat(1.7, height=0.4, omega=0.7, core=0.6), Flat(1.7, True), Bisymmetric(0.6, height=0.2, omega=-0.3)]
MAPS += [Radial(1.7, anisotropy=0.5), Radial(0.6, True, anisotropy=-0.4, velocity_scale=3.0)]
MAPS += [Radial(1.7, axes=(1.25, 1.0, 0.8, 0.5, 1.0, 2.0))]


every_map = pytest.mark.parametrize("coordinates", MAPS, ids=repr)


def phase_space(n=200, r=None, seed=0):
    """Points whose radii span 1e-6 to 1e6 unless given, velocities falling as they do in a system."""
    rng = np.random.default_rng(seed)
    x, v = rng.normal(size=(2, n, 3))
    r = np.geomspace(1e-6, 1e6, n) if r is None else np.full(n, r)
    x *= (r / np.linalg.norm(x, axis=1))[:, None]
    return torch.from_numpy(np.hstack([x, v / np.sqrt(1 + r)[:, None]]))


def rotation(seed, about_z=False):
    """A rotation matrix, about the axis or about any."""
    vector = [0, 0, seed + 0.5] if about_z else np.random.default_rng(seed).normal(size=3)
    return torch.from_numpy(Rotation.from_rotvec(vector).as_matrix())


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


@every_map
def test_inverse_returns_the_invariants_and_gradients_are_finite(coordinates):
    w = phase_space().requires_grad_()
    y, log_jacobian = coordinates.forward(w)
    assert (y.shape, log_jacobian.shape) == ((len(w), coordinates.features), (len(w),))
    assert y.dtype == log_jacobian.dtype == torch.float64
    assert torch.isfinite(y).all()
    (gradient,) = torch.autograd.grad(y.sum() + log_jacobian.sum(), w)
    assert torch.isfinite(gradient).all()
    w, y = w.detach(), y.detach()
    back = coordinates.inverse(y, np.random.default_rng(1))
    assert back.shape == w.shape
    torch.testing.assert_close(coordinates.forward(back)[0], y, rtol=1e-9, atol=1e-9)
    if coordinates.features == 6:  # nothing is ignored: the very points come back
        rounding = 1e-14 if isinstance(coordinates, Flat) else 0  # of a velocity after a rotation was taken off it
        torch.testing.assert_close(back, w, rtol=1e-12, atol=rounding)
    torch.testing.assert_close(coordinates.position_coordinates(w[:, :3]), y[:, : coordinates.n_positions])
    x = coordinates.positions(y, np.random.default_rng(2))  # velocities drawn for these positions keep them
    again = coordinates.forward(torch.cat([x, coordinates.velocities(x, y, np.random.default_rng(3))], dim=1))[0]
    torch.testing.assert_close(again, y, rtol=1e-9, atol=1e-9)


@every_map
def test_jacobian_is_the_determinant_of_the_completed_map(coordinates):
    for w in phase_space(40):
        jacobian = torch.autograd.functional.jacobian(lambda p: completed(coordinates, p)[0], w)
        expected = torch.linalg.slogdet(jacobian).logabsdet + completed(coordinates, w)[1]
        value = coordinates.forward(w[None])[1][0]
        assert abs(value - expected) < 1e-9 * max(1, abs(expected))


@every_map
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
    def fits(value, half_range=1.0):
        return stats.kstest(value, stats.uniform(-half_range, 2 * half_range).cdf).pvalue > 5.7e-7

    one = phase_space(1, r=2.0).expand(20_000, -1)
    for coordinates in (Spherical(1.0), Axisymmetric(1.0, height=0.3)):
        w = coordinates.inverse(coordinates.forward(one)[0], np.random.default_rng(5)).numpy()
        assert fits(np.arctan2(w[:, 1], w[:, 0]), np.pi)
        if isinstance(coordinates, Spherical):
            spin = np.cross(w[:, :3], w[:, 3:])  # perpendicular to x, in a direction uniform about it
            assert fits(w[:, 2] / np.linalg.norm(w[:, :3], axis=1))
            assert fits(spin[:, 2] / np.linalg.norm(spin, axis=1))
            tilted = w[:, :3] @ rotation(1).numpy().T * [1, 1, 0.9]
            assert not fits(tilted[:, 2] / np.linalg.norm(tilted, axis=1))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("coordinates", [Spherical(1.7), Axisymmetric(1.7, height=0.2)], ids=repr)
def test_rotations_leave_the_coordinates_alone(coordinates, seed):
    w = phase_space()
    y, log_jacobian = coordinates.forward(w)
    again = coordinates.forward(turned(w, rotation(seed, about_z=isinstance(coordinates, Axisymmetric))))
    torch.testing.assert_close(again, (y, log_jacobian), rtol=1e-10, atol=1e-11)
    if isinstance(coordinates, Spherical):  # mirrors too
        mirrored = coordinates.forward(w * torch.tensor([1, -1, 1, 1, -1, 1]))[0]
        torch.testing.assert_close(mirrored, y, rtol=1e-12, atol=1e-13)
    else:  # negative control: a rotation about another axis is no symmetry of a disc
        assert (coordinates.forward(turned(w, rotation(seed)))[0] - y).abs().max() > 0.1


@every_map
def test_time_reversal_and_reflection_are_sign_flips_that_form_a_group(coordinates):
    w = phase_space()
    y, log_jacobian = coordinates.forward(w)
    elements = {tuple(row.tolist()) for row in coordinates.flips}
    sign = torch.ones(coordinates.features)
    sign[list(coordinates.reversed_by_time)] = -1
    reversed_y, reversed_jacobian = coordinates.forward(w * torch.tensor([1.0, 1, 1, -1, -1, -1]))
    if not getattr(coordinates, "omega", 0.0):  # a rotation taken off has a sense of its own
        assert torch.equal(reversed_y, y * sign)
        assert torch.equal(reversed_jacobian, log_jacobian)
    assert coordinates.time_reversal == (tuple(sign.tolist()) in elements)
    if isinstance(coordinates, Axisymmetric):
        sign = torch.tensor([1.0, -1, 1, 1, -1])
        assert torch.equal(coordinates.forward(w * torch.tensor([1, 1, -1, 1, 1, -1]))[0], y * sign)
        assert tuple(sign.tolist()) in elements
    if isinstance(coordinates, Bisymmetric):
        for turn in ([-1.0, -1, 1, -1, -1, 1], [1.0, 1, -1, 1, 1, -1]):  # half a turn about z, the mirror
            assert torch.equal(coordinates.forward(w * torch.tensor(turn))[0], y * torch.tensor(turn))
            assert tuple(turn) in elements
    assert coordinates.flips[0].eq(1).all()
    assert {tuple(a * b for a, b in zip(p, q, strict=True)) for p in elements for q in elements} == elements
    expected = (1 + coordinates.time_reversal) * 2 ** len(coordinates.reflections)
    assert len(elements) == len(coordinates.flips) == expected


@pytest.mark.parametrize("chosen", [Linear(1.3), Radial(1.3), Flat(1.3, omega=0.4)], ids=repr)
def test_maps_without_symmetry_are_sound_at_the_centre(chosen):
    w = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    y, log_jacobian = chosen.forward(w)
    (gradient,) = torch.autograd.grad(y.sum() + log_jacobian.sum(), w)
    assert torch.isfinite(gradient).all()
    assert not y.any()
    assert not chosen.inverse(y, np.random.default_rng(0)).any()


@pytest.mark.parametrize(("name", "kind"), COORDINATES.items())
def test_scales_come_from_the_stars(name, kind):
    w = np.random.default_rng(0).normal(size=(1000, 6))
    chosen, larger = coordinate_map(w, name, time_reversal=True), coordinate_map(w * 7, name)
    assert type(chosen) is kind
    assert (chosen.time_reversal, larger.time_reversal) == (True, False)
    for size in ("scale", "height") if kind is Axisymmetric else ("scale",):
        assert getattr(larger, size) == pytest.approx(7 * getattr(chosen, size), rel=1e-14)
    assert coordinate_map(w, chosen) is chosen
    assert type(coordinate_map(w)) is Radial  # the default


def test_unknown_names_are_refused_with_those_known():
    names = "coordinates must be one of spherical, axisymmetric, radial, linear, flat, bisymmetric, local, mirrored"
    with pytest.raises(ValueError, match=f"{names}, or a CoordinateMap; got 'cubic'"):
        coordinate_map(np.ones((5, 6)), "cubic")
    with pytest.raises(ValueError, match=f"{names}; got 'cubic'"):
        map_from_dict({"kind": "Cubic"})


@every_map
def test_directions_in_which_an_acceleration_is_determined(coordinates):
    x = phase_space()[:, :3].numpy()
    along = coordinates.determined(x)
    if coordinates.round:
        np.testing.assert_allclose(along[:, 0], x / np.linalg.norm(x, axis=1, keepdims=True), rtol=1e-14)
    assert along.shape == (len(x), 1 if coordinates.round else 3, 3)
    np.testing.assert_allclose(along @ along.swapaxes(1, 2) - np.eye(along.shape[1]), 0, atol=1e-14)
    assert (coordinates.round, coordinates.axial) == tuple(type(coordinates) is k for k in (Spherical, Axisymmetric))


@every_map
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

    def near(chosen):
        u = chosen.forward(torch.from_numpy(w))[0][:, 3:].numpy()
        across = np.linalg.norm(np.cross(w[:, :3], u), axis=1) / np.linalg.norm(w[:, :3], axis=1)
        return [(across < limit * coordinates.velocity_scale).sum() for limit in (0.2, 0.4)]

    inner, outer = near(coordinates)  # flat: as the area
    assert abs(inner - outer / 4) < 5 * np.sqrt(outer * 0.25 * 0.75) + 0.06 * outer
    inner, outer = near(Radial(coordinates.scale))
    assert not beta or inner > 0.4 * outer  # negative control: untouched velocities are crowded


def test_a_flattened_system_is_made_as_long_as_wide():
    w = da.Hernquist().sample(10_000, rng=0) * np.tile([1, 0.8, 0.6], 2)
    axes = np.array(Radial.from_stars(w).axes)
    spread = np.median(np.abs(w), axis=0).reshape(2, 3)
    assert np.ptp(spread[0]) > 0.3 * spread[0].max()  # negative control
    made_round = spread.ravel() / axes
    np.testing.assert_allclose(made_round, np.repeat(made_round[[0, 3]], 3), rtol=1e-12)
    np.testing.assert_allclose(axes.reshape(2, 3).prod(1), 1, rtol=1e-12)  # so that it needs no Jacobian
    plane = w * [1, 1, 0, 1, 1, 0]
    assert np.all(np.isfinite(Radial.from_stars(plane).axes))


def test_anisotropy_of_odd_stars_is_bounded():
    x = np.random.default_rng(0).normal(size=(1000, 3))
    assert Radial.from_stars(np.hstack([x, x])).anisotropy == 0.9
    assert Radial.from_stars(np.hstack([x, np.cross(x, [0.0, 0, 1])])).anisotropy == -1.0


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
    tilted, turned_about_z = (turned(torch.from_numpy(w), rotation(3, about_z)) for about_z in (False, True))
    np.testing.assert_allclose(np.stack(da.spherical(tilted)), np.stack(parts), atol=1e-13)
    np.testing.assert_allclose(da.cylindrical(turned_about_z).v_phi, v_phi, atol=1e-13)
    for function in (da.spherical, da.cylindrical):
        with pytest.raises(ValueError, match=r"w must have shape \(n, 6\), n >= 1; got \(6,\)"):
            function(w[0])


def test_directions_are_isotropic_unit_vectors():
    n, x = 100_000, da.directions(100_000, 1)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-14)
    assert (stats.kstest(x, stats.uniform(-1, 2).cdf, axis=0).pvalue > 1e-4).all()
    assert abs(x.T @ x / n - np.eye(3) / 3).max() < 5 * np.sqrt(4 / 45 / n)
    np.testing.assert_array_equal(x, da.directions(n, np.random.default_rng(1)))
    with pytest.raises(ValueError, match="n must be a positive integer; got 0"):
        da.directions(0, 1)
