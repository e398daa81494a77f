"""The Boltzmann equation in the loss: its terms against derivatives along orbits, and what it makes of a flow."""

import numpy as np
import pytest
import torch

import dfaccel as da
from dfaccel.flows.equilibrium import Equilibrium
from dfaccel.flows.fit import prepare

MAPS = [("spherical", False), ("spherical", True), ("axisymmetric", False), ("axisymmetric", True)]
MAPS += [("local", False), ("mirrored", False), ("radial", True)]
PLUMMER = da.Plummer()


@pytest.fixture(scope="module")
def stars():
    """Stars of a Plummer sphere."""
    return PLUMMER.sample(2000, rng=4)


def equation_of(stars, name, reversal=False, selection=False):
    """Prepared stars and their equation."""
    ready = prepare(stars, name, time_reversal=reversal)
    return ready, Equilibrium(1.0, ready.coordinates, ready.mean, ready.std, torch.from_numpy(stars), selection)


@pytest.mark.parametrize(("name", "reversal"), MAPS)
def test_terms_are_the_change_of_f_along_an_orbit(stars, ensemble, name, reversal):
    """Central differences of ln f along (v, 0) and (0, a) in float64, over those of y; in every mirror image."""
    ready, equation = equation_of(stars, name, reversal)
    layout, w = ensemble(name, n_flows=1).layout, torch.from_numpy(stars)
    networks, p = layout.networks(layout.initial([5]).double()), ready.coordinates.n_positions
    amplitude = torch.from_numpy(np.random.default_rng(2).normal(size=(round(len(equation.centres) ** (1 / p)),) * p))
    if ready.coordinates.reflections:  # the same on both sides of the plane
        amplitude += amplitude.flip(-1)
    amplitude = amplitude.flatten()

    def standardized(w):
        return (ready.coordinates.forward(w)[0] - ready.mean) / ready.std

    def log_f(w, sign):
        return layout.log_prob(networks, (standardized(w) * sign).T[None])[0] + ready.coordinates.forward(w)[1]

    def potential(w):
        away = (standardized(w)[:, None, :p] - equation.centres) / equation.spacing
        return equation.spacing * torch.exp(-0.5 * away.square().sum(-1)) @ amplitude

    x = w.clone().requires_grad_()
    pull = -torch.autograd.grad(potential(x).sum(), x)[0][:, :3]
    along, kick = torch.cat([w[:, 3:], 0 * pull], 1), torch.cat([0 * pull, pull], 1)
    rate = (standardized(w + 1e-6 * along) - standardized(w - 1e-6 * along)) / 2e-6
    time = equation.rates[:, : rate.shape[1]] / rate
    inside = (standardized(w)[:, :p].abs() < 2.5).all(1)
    one = torch.where(inside, time.median(1).values, 0.0)[:, None]  # the same for all coordinates of a star
    torch.testing.assert_close(time, one.expand_as(time), rtol=1e-3, atol=0)
    for sign, signs in zip(ready.coordinates.flips.double(), equation.flips.double(), strict=True):
        y = (standardized(w) * sign).T[None].requires_grad_()
        score = torch.autograd.grad(layout.log_prob(networks, y).sum(), y)[0]
        streaming, push = equation.terms(score, (equation.rates * signs).T[None])
        force = (equation.slopes(y[:, :p].detach().mT) @ amplitude).mT
        for term, way in ((streaming[0], along), (-(push * force).sum(1)[0], kick)):
            numerical = (log_f(w + 1e-6 * way, sign) - log_f(w - 1e-6 * way, sign)) / 2e-6 * time[:, 0]
            assert numerical.abs().mean() > 1e-3  # negative control: nothing to compare
            torch.testing.assert_close(term, numerical, rtol=1e-4, atol=1e-4 * float(numerical.abs().mean()))


def misfit_of(equation, ready, df):
    """Misfit of a distribution function at the stars, relative to the equation without force."""
    y = ready.y.double().requires_grad_()
    w = ready.coordinates.inverse(y * ready.std + ready.mean, np.random.default_rng(0))
    log_p = df.log_df(w) - ready.coordinates.forward(w)[1]
    score, good = torch.autograd.grad(log_p.sum(), y)[0], torch.isfinite(log_p)
    score, y, rates = (t[good].T[None].detach().float() for t in (score, y, equation.rates))
    j = equation.n_unknowns
    misfit, normal = equation.misfit(score, y, rates, torch.zeros(1, j, j + 1))
    assert normal.shape == (1, j, j + 1)
    return float(misfit / equation.terms(score, rates)[0].square().mean())


@pytest.mark.parametrize(("name", "limit"), [("spherical", 1e-3), ("local", 3e-3), ("radial", 3e-2)])
def test_a_system_in_equilibrium_fits_and_another_does_not(stars, name, limit):
    """The sum of Gaussians is no Plummer potential: 1e-4 of the square of the force, more with wide ones."""

    class Expanding:
        def log_df(self, w):
            return -0.5 * (w[:, :3].square() + (w[:, 3:] - 0.3 * w[:, :3]).square()).sum(1)

    if name == "local":  # beside the centre
        stars = PLUMMER.sample(100_000, rng=5)
        stars = stars[np.linalg.norm(stars[:, :3] - [0.6, 0, 0], axis=1) < 0.5]
    ready, equation = equation_of(stars, name)
    assert misfit_of(equation, ready, PLUMMER) < limit
    assert misfit_of(equation, ready, Expanding()) > 3 * limit  # negative control


@pytest.mark.parametrize("name", ["spherical", "axisymmetric"])
def test_stars_that_are_missing_by_place(stars, name):
    """The equation with a completeness holds for them, the equation without does not."""

    class Faded:
        def log_df(self, w):
            return PLUMMER.log_df(w) - 2 * torch.linalg.vector_norm(w[:, :3], dim=1)

    (ready, knowing), (_, ignorant) = (equation_of(stars, name, selection=known) for known in (True, False))
    assert misfit_of(knowing, ready, Faded()) < 1e-3
    assert misfit_of(ignorant, ready, Faded()) > 1e-2  # negative control


def test_a_selection_needs_an_equilibrium(stars):
    with pytest.raises(ValueError, match="selection needs an equilibrium"):
        da.fit(stars, coordinates="spherical", selection=True, rng=0)


def test_flows_obey_the_equation_that_is_in_their_loss_and_keep_their_last_state(stars):
    """Residual at points, that of `da.accelerations`, with and without the term."""
    options = {"spec": da.FlowSpec(2, 16), "config": da.TrainConfig(10, 100), "coordinates": "spherical", "rng": 3}
    points = np.outer(np.geomspace(0.4, 2, 8), [0.0, 0.6, 0.8])
    models = [da.fit(stars, equilibrium=weight, **options) for weight in (0.0, 0.3)]
    without, obeying = (np.median(da.accelerations(model, points, warn=False).residual) for model in models)
    assert obeying < 0.7 * without
    assert [model.metadata["equilibrium"] for model in models] == [0.0, 0.3]
    assert models[1].metadata["held_out_loss"] == models[1].metadata["history"][-1]["held_out"]
