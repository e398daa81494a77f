"""One potential behind all accelerations: consistent with itself, galpy and gala, and with the truth if f is exact."""

import builtins
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy import constants, units
from gala.units import galactic
from galpy.potential import evaluatephitorques, evaluatePotentials, evaluateRforces, evaluatezforces

import dfaccel as da
from dfaccel.axes import lattice
from dfaccel.gravity.potential import Potential

ATOMS = Potential(
    np.array([[0.0, 0, 0], [0.3, -0.2, 0.1], [0, 0, 0]]), np.array([0.0, 0.0, 1.2]), np.array([0.8, 0.5, 0.2]),
    np.array([1.0, 0.4, 2.0]), (), np.zeros((0, 3)), 1.7,
)
X = np.random.default_rng(0).normal(size=(20, 3))


def slope(function, x, h=1e-5):
    return np.stack([(function(x + h * e) - function(x - h * e)) / (2 * h) for e in np.eye(3)], axis=-1)


def test_acceleration_and_density_are_derivatives_of_the_potential():
    np.testing.assert_allclose(ATOMS.acceleration(X), -slope(ATOMS.potential, X), atol=1e-8)
    divergence = np.trace(slope(ATOMS.acceleration, X), axis1=1, axis2=2)
    np.testing.assert_allclose(ATOMS.density(X), -divergence / (4 * np.pi * ATOMS.G), atol=1e-7)
    assert (ATOMS.density(30 * X) > 0).all()
    assert ATOMS.potential(X[0]).shape == ()


def test_mass_and_circular_speed():
    assert ATOMS.enclosed_mass(1e4) == pytest.approx(3.4, rel=1e-3)
    plummer = Potential(np.zeros((1, 3)), np.zeros(1), np.ones(1), np.ones(1), (), np.zeros((0, 3)))
    r = np.array([[0.3, 1.0], [2.0, 5.0]])
    np.testing.assert_allclose(plummer.enclosed_mass(r), da.Plummer().enclosed_mass(r), rtol=1e-12)
    np.testing.assert_allclose(plummer.circular_speed(r), np.sqrt(da.Plummer().enclosed_mass(r) / r), rtol=1e-12)
    np.testing.assert_allclose(lattice(1000).T @ lattice(1000) / 1000, np.eye(3) / 3, atol=1e-3)


def test_galpy_has_the_same_potential():
    theirs, value, pull = ATOMS.to_galpy(), ATOMS.potential(X), ATOMS.acceleration(X)
    for i, (x, y, z) in enumerate(X):
        R, at = np.hypot(x, y), {"phi": np.arctan2(y, x), "use_physical": False}
        assert evaluatePotentials(theirs, R, z, **at) == pytest.approx(value[i], rel=1e-12)
        radial, torque, up = (f(theirs, R, z, **at) for f in (evaluateRforces, evaluatephitorques, evaluatezforces))
        found = [radial * x / R - torque * y / R**2, radial * y / R + torque * x / R**2, up]
        np.testing.assert_allclose(found, pull[i], atol=1e-12)


def test_gala_has_the_same_potential():
    one = replace(ATOMS, G=1.0)
    theirs = one.to_gala()
    np.testing.assert_allclose(theirs.energy(X.T).value, one.potential(X), rtol=1e-12)
    np.testing.assert_allclose(theirs.acceleration(X.T).value.T, one.acceleration(X), atol=1e-12)
    np.testing.assert_allclose(theirs.density(X.T).value, one.density(X), rtol=1e-12)
    field = units.km**2 / units.s**2 / units.kpc
    G = constants.G.to_value(field * units.kpc**2 / units.Msun)
    heavy = replace(one, G=G, masses=1e10 * one.masses)
    theirs = heavy.to_gala(galactic).acceleration(X.T * units.kpc).to_value(field).T
    np.testing.assert_allclose(theirs, heavy.acceleration(X), rtol=1e-8)


def test_gala_is_optional(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name.startswith("gala"):
            raise ImportError(name)
        return real(name, *rest)

    with pytest.raises(ValueError, match="have G = 1; got G = 1.7: give units"):
        ATOMS.to_gala()
    one = replace(ATOMS, G=1.0)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match="to_gala needs gala, which is not installed: pip install gala"):
        one.to_gala()


SPHERES = [da.Plummer(), da.Hernquist(beta=0.5), da.Plummer(mass=3.0, scale=0.5, G=2.0)]


@pytest.mark.parametrize("galaxy", SPHERES, ids=repr)
def test_exact_sphere(galaxy):
    phi = da.potential(galaxy, shape="spherical", G=galaxy.G, n_places=100, n_velocities=60, rng=1)
    x = galaxy.scale * np.geomspace(0.3, 5, 20)[:, None] * da.directions(20, 3)
    truth = galaxy.acceleration(x)
    assert (np.linalg.norm(phi.acceleration(x) - truth, axis=1) / np.linalg.norm(truth, axis=1)).max() < 1e-4
    assert np.abs(phi.density(x) / galaxy.density(x) - 1).max() < 1e-3
    assert (phi.masses > 0).all()
    assert not phi.centres.any()


def test_masses_of_known_atoms_are_exact():
    """Atoms of the right size among others: their masses come out to 1e-7, the others' are nothing."""
    from dfaccel.gravity.accelerations import HUBER
    from dfaccel.gravity.solve import Equations, together
    from dfaccel.gravity.unknowns import Acceleration

    galaxy, x = da.Plummer(), da.directions(40, 1) * np.geomspace(0.2, 5, 40)[:, None]
    equations = Equations(galaxy, x, [Acceleration()], 50, None, 2, HUBER)
    atoms = Potential(np.zeros((3, 3)), np.zeros(3), np.array([0.5, 1.0, 2.0]), np.ones(3), (), x)
    masses = together(equations, [atoms._pulls(x)], ridge=np.zeros(3), price=np.zeros(3))[0][0]
    np.testing.assert_allclose(masses, [0, 1, 0], atol=1e-7)


class Tracers(da.DistributionFunction):
    """Stars with Plummer's density and Gaussian velocities, steady in a halo whose mass grows as r^3 / (1 + r^2)."""

    def log_df(self, w):
        x2, v2 = (w[..., :3] ** 2).sum(-1), (w[..., 3:] ** 2).sum(-1)
        return -2.5 * torch.log1p(x2) - 2.5 * v2

    def sample(self, n, *, rng):
        rng = np.random.default_rng(rng)
        return np.hstack([da.Plummer().sample(n, rng=rng)[:, :3], 0.2**0.5 * rng.standard_normal((n, 3))])


def test_tracers_weigh_what_they_move_in():
    phi, r = da.potential(Tracers(), shape="spherical", n_places=200, n_velocities=60, rng=1), np.geomspace(0.3, 3, 9)
    np.testing.assert_allclose(phi.enclosed_mass(r), r**3 / (1 + r**2), rtol=1e-4)
    x = r[:, None] * da.directions(9, 1)
    np.testing.assert_allclose(phi.density(x), (3 + r**2) / (4 * np.pi * (1 + r**2) ** 2), rtol=1e-3)
    assert np.abs(da.Plummer().enclosed_mass(r) / phi.enclosed_mass(r) - 1).max() > 0.5  # negative control: the stars'


def test_error_of_a_shipped_ensemble_is_that_of_its_members(root):
    """Within 5 sigma, sigma the scatter of members that each saw a bootstrap of their own, rms over the radii."""
    model, galaxy, r = da.load(root / "models/hernquist_iso"), da.Hernquist(), np.geomspace(0.3, 8, 8)
    phi, x = da.potential(model, n_places=100, n_velocities=60, rng=1), r[:, None] * da.directions(8, 3)
    assert len(phi.members) == model.n_flows
    assert not phi.centres.any()  # f was learned round
    other = da.Hernquist(mass=1.1)
    for quantity, where in (("density", x), ("enclosed_mass", r)):
        scatter = phi.standard_error(lambda one, name=quantity, at=where: getattr(one, name)(at))
        ratio, wrong = (getattr(phi, quantity)(where) / getattr(system, quantity)(where) for system in (galaxy, other))
        sigma = np.sqrt(np.mean((scatter / getattr(phi, quantity)(where)) ** 2))
        assert np.abs(ratio - 1).max() < 5 * sigma
        assert np.abs(wrong - 1).max() > 5 * sigma  # negative control: a tenth more mass
    assert np.isnan(phi.members[0].standard_error(lambda one: one.density(x))).all()


def test_repeats_with_the_seed_and_atoms_off_the_centre_must_be_worth_their_price(learned):
    phi, again, other = (da.potential(learned, n_places=80, n_velocities=60, rng=rng) for rng in (1, 1, 2))
    np.testing.assert_array_equal(again.masses, phi.masses)
    assert not np.array_equal(again.masses, other.masses)
    free = da.potential(learned, shape="free", n_places=80, n_velocities=60, rng=1)
    x = da.directions(10, 2)
    scatter = phi.standard_error(lambda member: member.acceleration(x))
    limit = 5 * np.linalg.norm(scatter, axis=1).mean()
    same, wrong = (field.acceleration(x) - phi.acceleration(x) for field in (free, da.Hernquist()))
    assert np.linalg.norm(same, axis=1).max() < limit
    assert np.linalg.norm(wrong, axis=1).max() > limit  # negative control: another galaxy


def test_far_outside_the_potential_is_a_guess_and_says_so():
    phi = da.potential(da.Plummer(), n_places=100, n_velocities=50)
    outermost = np.linalg.norm(phi.places, axis=1).max()
    for method in (phi.potential, phi.acceleration, phi.density):
        with pytest.warns(UserWarning, match="1 of 2 points are more than twice as far out as any place.*at index 1"):
            method([[1.0, 0, 0], [0, 2.1 * outermost, 0]])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            method([[1.0, 0, 0], [0, 1.9 * outermost, 0]])


def test_an_outward_pull_has_no_mass():
    class Outward(da.DistributionFunction):
        def log_df(self, w):
            return -(w[..., 3:] ** 2).sum(-1) / 2 + (w[..., :3] ** 2).sum(-1) / 2

        def sample(self, n, *, rng):
            return np.random.default_rng(rng).normal(size=(n, 6))

    with pytest.raises(ValueError, match="no masses that are not negative pull as these stars demand"):
        da.potential(Outward(), shape="spherical", n_places=50, n_velocities=30)


@pytest.mark.parametrize(("options", "message"), [
    ({"shape": "triaxial"}, "shape must be one of spherical, axisymmetric, free; got 'triaxial'"),
    ({"G": 0.0}, "G must be"),
    ({"n_places": 0}, "n_places must be"),
    ({"places": [[np.nan, 0, 0]]}, "non-finite"),
])
def test_bad_input(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        da.potential(da.Plummer(), **options)
    with pytest.raises(ValueError, match="besides must hold unknowns that all places share; acceleration is free"):
        da.potential(da.Plummer(), besides=[da.unknowns.Acceleration()], n_places=50, n_velocities=30)
    with pytest.raises(ValueError, match=r"x must have shape \(..., 3\); got \(2,\)"):
        ATOMS.potential([1.0, 2.0])


def test_what_cannot_be_told_apart_is_said():
    """A round galaxy has no pattern speed; its potential is found all the same."""
    options = {"shape": "spherical", "n_places": 60, "n_velocities": 50}
    with pytest.warns(UserWarning, match="pattern_speed leaves no trace in f"):
        phi = da.potential(da.Hernquist(), besides=[da.unknowns.PatternSpeed()], **options)
    assert np.isnan(phi.besides["pattern_speed"].value)
    assert phi.enclosed_mass(1.0) == pytest.approx(0.25, rel=0.01)
