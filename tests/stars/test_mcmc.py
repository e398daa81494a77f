"""MCMC stars: their distribution against the exact sampler, and the diagnostics."""

import emcee
import numpy as np
import pytest
from scipy import stats

from dfaccel import Hernquist, Plummer
from dfaccel.stars.mcmc import ShortChainError, _ball, _compact, _spread, sample_mcmc


def draw(target, n=1000, rng=1, **options):
    """Draw stars with a small ensemble."""
    return sample_mcmc(target, n, rng, **{"n_walkers": 40, **options})


def p_value(w, system):
    """Least KS p-value of radius, speed and one coordinate of w against exact stars of a system."""
    pairs = [(np.linalg.norm(v[:, :3], axis=1), np.linalg.norm(v[:, 3:], axis=1), v[:, 2])
             for v in (w, system.sample(200_000, rng=8))]
    return min(stats.ks_2samp(*pair).pvalue for pair in zip(*pairs, strict=True))


def test_stars_follow_the_truncated_hernquist_sphere_and_the_diagnostics_are_consistent():
    system = Hernquist(r_max=10.0)
    drawn = draw(system, n=4000)
    assert p_value(drawn.stars, system) > 1e-4
    assert np.isfinite(system.log_df(drawn.stars)).all()
    # negative control: the same number of stars tells the sphere from its anisotropic sister and from a wider one
    assert p_value(drawn.stars, Hernquist(beta=0.5, r_max=10.0)) < 1e-4
    assert p_value(drawn.stars, Hernquist(scale=1.2, r_max=10.0)) < 1e-4
    longest = drawn.tau.max()
    assert (drawn.stars.shape, drawn.tau.shape) == ((4000, 6), (8,))
    assert 10 < longest < 60
    assert drawn.thin == np.ceil(longest)
    assert drawn.n_steps >= 50 * longest
    assert drawn.burn_in > 5 * longest
    assert drawn.n_effective == pytest.approx(drawn.n_steps * drawn.n_walkers / longest)
    assert drawn.n_effective > 4000
    assert 0.2 < drawn.acceptance < 0.6
    assert len(np.unique(drawn.stars, axis=0)) > 3900


@pytest.mark.parametrize("system", [Hernquist(beta=0.5), Plummer(mass=3.0, scale=2.0, G=0.5)], ids=repr)
def test_stars_follow_other_systems_in_their_units(system):
    assert p_value(draw(system, rng=3).stars, system) > 1e-4


@pytest.mark.slow
def test_cartesian_walk_needs_longer_chains():
    cartesian = draw(Plummer(), coordinates="cartesian", moves=[emcee.moves.StretchMove()])
    assert p_value(cartesian.stars, Plummer()) > 1e-4
    assert cartesian.tau.max() > 1.5 * draw(Plummer()).tau.max()


def test_a_function_will_do():
    """A unit Gaussian: |w|^2 follows chi-squared with six degrees of freedom."""
    w = draw(lambda w: -0.5 * (w**2).sum(axis=1), rng=5).stars
    assert stats.kstest((w**2).sum(axis=1), stats.chi2(6).cdf).pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.usefixtures("global_random_state")
def test_the_seed_decides_and_the_global_state_does_not():
    first = draw(Plummer(), n=100, rng=np.random.default_rng(4)).stars
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(99)  # noqa: NPY002
    try:
        np.testing.assert_array_equal(first, draw(Plummer(), n=100, rng=4).stars)
    finally:
        np.random.set_state(state)  # noqa: NPY002


def test_short_chain_is_refused_with_its_tau():
    with pytest.raises(ShortChainError, match="at least 50 are needed: raise max_steps to") as caught:
        draw(Plummer(), max_steps=400)
    assert (caught.value.n_steps, caught.value.tau.shape) == (300, (8,))
    assert caught.value.tau.max() * 50 > 300


def test_radial_coordinates_invert_and_keep_the_volume():
    w, steps = Hernquist().sample(20, rng=1), 1e-5 * np.eye(6)
    back, growth = _spread(_compact(w))
    np.testing.assert_allclose(back, w, rtol=1e-12)
    for p, expected in zip(_compact(w), growth, strict=True):
        jacobian = (_spread(p + steps)[0] - _spread(p - steps)[0]) / 2e-5
        assert np.log(abs(np.linalg.det(jacobian))) == pytest.approx(expected, abs=1e-5)


def test_walkers_start_inside_a_tiny_sphere():
    system = Hernquist(r_max=1e-3)
    assert np.isfinite(system.log_df(_ball(system.log_df, 60, np.ones(6), np.random.default_rng(1)))).all()


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"n": 0}, ValueError, "n must be a positive integer; got 0"),
    ({"n": 10.0}, TypeError, "n must be a positive integer; got 10.0"),
    ({"n_walkers": 8}, ValueError, "n_walkers must be at least 12"),
    ({"max_steps": -1}, ValueError, "max_steps must be a positive integer; got -1"),
    ({"coordinates": "polar"}, ValueError, "coordinates must be"),
    ({"target": 3.0}, TypeError, "target must be a system or a function of w; got float"),
    ({"target": lambda w: w}, ValueError, r"target must return log f of shape \(40,\)"),
    ({"target": lambda w: np.full(len(w), -np.inf)}, ValueError, "log f is not finite anywhere near zero"),
])
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        draw(**{"target": Plummer(), **options})


def test_nan_where_f_vanishes_is_named():
    def log_f(w):
        return np.where((w**2).sum(axis=1) < 4, 0.0, np.nan)

    with pytest.raises(ValueError, match="^target must return -inf where f vanishes, as for unbound stars; got NaN$"):
        sample_mcmc(log_f, 100, rng=1, n_walkers=50)
