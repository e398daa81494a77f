"""MCMC stars: their distribution against the exact sampler, and the diagnostics."""

import emcee
import numpy as np
import pytest
import torch
from scipy import stats

from dfaccel import Hernquist, Plummer
from dfaccel.stars.mcmc import ShortChainError, _ball, _Walk, sample_mcmc


def draw(system, n=1000, rng=1, **options):
    """Draw stars with a small ensemble and no progress bar."""
    return sample_mcmc(system, n, rng, **{"n_walkers": 40, "progress": False, **options})


def p_values(w, system):
    """KS p-values of radius, speed and one coordinate of w against exact stars of a system."""
    exact = system.sample(200_000, rng=8)
    return [
        stats.ks_2samp(measure(w), measure(exact)).pvalue
        for measure in (
            lambda w: np.linalg.norm(w[:, :3], axis=1),
            lambda w: np.linalg.norm(w[:, 3:], axis=1),
            lambda w: w[:, 2],
        )
    ]


@pytest.fixture(scope="module")
def drawn():
    """Stars of the truncated sphere, drawn once."""
    return draw(Hernquist().truncated(10.0), n=4000)


def test_stars_follow_the_truncated_hernquist_sphere(drawn):
    system = Hernquist().truncated(10.0)
    assert min(p_values(drawn.stars, system)) > 1e-4
    assert np.isfinite(system.log_df(drawn.stars)).all()
    # negative control: the same number of stars tells the sphere from its anisotropic sister and from a wider one
    assert min(p_values(drawn.stars, Hernquist(beta=0.5).truncated(10.0))) < 1e-4
    assert min(p_values(drawn.stars, Hernquist(scale=1.2).truncated(10.0))) < 1e-4


@pytest.mark.parametrize("system", [Hernquist(beta=0.5), Plummer(mass=3.0, scale=2.0, G=0.5)], ids=repr)
def test_stars_follow_other_systems_in_their_units(system):
    assert min(p_values(draw(system, rng=3).stars, system)) > 1e-4


def test_diagnostics_are_consistent(drawn):
    longest = drawn.tau.max()
    assert drawn.stars.shape == (4000, 6)
    assert drawn.tau.shape == (8,)
    assert 10 < longest < 60
    assert drawn.thin == np.ceil(longest)
    assert drawn.n_steps >= 50 * longest
    assert drawn.burn_in > 5 * longest
    assert drawn.n_effective == pytest.approx(drawn.n_steps * drawn.n_walkers / longest)
    assert drawn.n_effective > 4000
    assert 0.2 < drawn.acceptance < 0.6
    assert len(np.unique(drawn.stars, axis=0)) > 3900


@pytest.mark.slow
def test_cartesian_walk_needs_longer_chains():
    system = Plummer()
    cartesian = draw(system, coordinates="cartesian", moves=[emcee.moves.StretchMove()])
    assert min(p_values(cartesian.stars, system)) > 1e-4
    assert cartesian.tau.max() > 1.5 * draw(system).tau.max()


def test_a_function_will_do():
    """A unit Gaussian: |w|^2 follows chi-squared with six degrees of freedom."""
    w = draw(lambda w: -0.5 * (w**2).sum(axis=1), rng=5).stars
    assert stats.kstest((w**2).sum(axis=1), stats.chi2(6).cdf).pvalue > 1e-4


def test_the_seed_decides_and_global_state_is_left_alone():
    state, before = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    first = draw(Plummer(), n=100, rng=np.random.default_rng(4)).stars
    np.testing.assert_array_equal(state[1], np.random.get_state()[1])  # noqa: NPY002
    assert state[2:] == np.random.get_state()[2:]  # noqa: NPY002
    assert torch.equal(before, torch.get_rng_state())
    np.random.seed(99)  # noqa: NPY002
    try:
        np.testing.assert_array_equal(first, draw(Plummer(), n=100, rng=4).stars)
    finally:
        np.random.set_state(state)  # noqa: NPY002


def test_short_chain_is_refused_with_its_tau():
    with pytest.raises(ShortChainError, match="at least 50 are needed: raise max_steps to") as caught:
        draw(Plummer(), max_steps=400)
    assert caught.value.n_steps == 300
    assert caught.value.tau.shape == (8,)
    assert caught.value.tau.max() * 50 > 300


@pytest.mark.parametrize("radial", [True, False])
def test_coordinates_of_the_walk_invert_and_keep_the_volume(radial):
    system = Hernquist(mass=2.0, scale=3.0)
    w = system.sample(20, rng=1)
    walk = _Walk(system.log_df, np.repeat([3.0, 0.8], 3), radial=radial)
    back, growth = walk.backward(walk.forward(w))
    np.testing.assert_allclose(back, w, rtol=1e-12)
    for i, p in enumerate(walk.forward(w)):
        steps = 1e-5 * np.eye(6)
        jacobian = (walk.backward(p + steps)[0] - walk.backward(p - steps)[0]) / 2e-5
        expected = np.log(abs(np.linalg.det(jacobian))) - np.log(walk.unit).sum()
        assert growth[i] == pytest.approx(expected, abs=1e-5)


def test_walkers_start_inside_a_tiny_sphere():
    system = Hernquist().truncated(1e-3)
    assert np.isfinite(system.log_df(_ball(system.log_df, 60, np.ones(6), np.random.default_rng(1)))).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n": 0}, ValueError, "n must be a positive integer; got 0"),
        ({"n": 10.0}, TypeError, "n must be a positive integer; got 10.0"),
        ({"n_walkers": 8}, ValueError, "n_walkers must be at least 12"),
        ({"max_steps": -1}, ValueError, "max_steps must be a positive integer; got -1"),
        ({"coordinates": "polar"}, ValueError, "coordinates must be"),
        ({"length": 0.0}, ValueError, "length must be a positive finite number; got 0.0"),
        ({"start": np.zeros((5, 6))}, ValueError, r"start must have shape \(n_walkers, 6\) = \(40, 6\); got \(5, 6\)"),
        ({"start": np.full((40, 6), 9.0)}, ValueError, "log f must be finite wherever the walkers start"),
        ({"system": 3.0}, TypeError, "target must be a system or a function of w; got float"),
        ({"system": lambda w: w}, ValueError, r"target must return log f of shape \(40,\)"),
        ({"system": lambda w: np.full(len(w), -np.inf)}, ValueError, "log f is not finite anywhere near the centre"),
    ],
)
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        draw(**{"system": Plummer(), **options})
