"""One potential behind all accelerations: consistent with itself, with galpy, and with the truth if f is exact."""

import builtins
from dataclasses import replace

import numpy as np
import pytest
from galpy.potential import evaluatePotentials, evaluateRforces

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
    R, phi = np.hypot(X[:, 0], X[:, 1]), np.arctan2(X[:, 1], X[:, 0])
    pull = (ATOMS.acceleration(X)[:, :2] * X[:, :2]).sum(1) / R
    theirs = ATOMS.to_galpy()
    for i in range(len(X)):
        at = {"phi": phi[i], "use_physical": False}
        assert evaluatePotentials(theirs, R[i], X[i, 2], **at) == pytest.approx(ATOMS.potential(X[i]), rel=1e-8)
        assert evaluateRforces(theirs, R[i], X[i, 2], **at) == pytest.approx(pull[i], rel=1e-7)


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
    assert np.median(np.linalg.norm(phi.acceleration(x) - truth, axis=1) / np.linalg.norm(truth, axis=1)) < 2e-3
    assert np.median(np.abs(phi.density(x) / galaxy.density(x) - 1)) < 0.02
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


def test_learned(learned):
    phi = da.potential(learned, n_places=80, n_velocities=60, rng=1)
    x = da.directions(10, 2)
    assert len(phi.members) == 3
    assert not phi.centres.any()  # f was learned round
    assert np.abs(phi.density(x) / da.Plummer().density(x) - 1).max() < 0.5
    scatter = np.std([member.density(x) for member in phi.members], axis=0)
    assert (scatter > 0).all()
    again = da.potential(learned, n_places=80, n_velocities=60, rng=1)
    np.testing.assert_array_equal(again.masses, phi.masses)
    free = da.potential(learned, shape="free", n_places=80, n_velocities=60, rng=1)
    np.testing.assert_allclose(free.potential(x) - phi.potential(x), 0, atol=0.1)


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
