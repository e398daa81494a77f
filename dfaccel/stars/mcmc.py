"""Stars drawn with emcee from any distribution function, and the diagnostics that say whether to believe them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import emcee
import numpy as np

from dfaccel import _check as check
from dfaccel.systems.base import DistributionFunction

ENOUGH = 50  # autocorrelation times in a chain that can be trusted (Foreman-Mackey et al. 2013)
BURN_IN = 0.25  # share of the first chain that is thrown away


class ShortChainError(RuntimeError):
    """The chain is shorter than 50 autocorrelation times; ``tau`` (8,) is then an underestimate, if anything."""

    def __init__(self, tau: np.ndarray, n_steps: int) -> None:
        self.tau, self.n_steps = tau, n_steps
        super().__init__(
            f"the chain has {n_steps} steps after burn-in, {n_steps / tau.max():.0f} autocorrelation times (tau = "
            f"{tau.max():.0f}); at least {ENOUGH} are needed: raise max_steps to {1.5 * ENOUGH * tau.max():.0f} or more"
        )


@dataclass(frozen=True, eq=False)
class MCMCSample:
    """Stars drawn by Markov chain Monte Carlo, and the diagnostics of the chain."""

    stars: np.ndarray  # (n, 6), x y z vx vy vz, thinned and in random order
    tau: np.ndarray  # (8,), autocorrelation times in steps of x y z vx vy vz |x| |v| where the walkers walk
    n_effective: float  # independent stars in the whole chain after burn-in, n_steps n_walkers / max(tau)
    acceptance: float  # share of the proposals that were accepted
    thin: int  # every so many steps one was kept: max(tau), rounded up
    n_steps: int  # steps after the burn-in
    burn_in: int  # steps thrown away at the start
    n_walkers: int


def sample_mcmc(
    target: DistributionFunction | Callable[[np.ndarray], np.ndarray], n: int, rng: np.random.Generator | int, *,
    n_walkers: int = 500, max_steps: int = 10_000, coordinates: Literal["radial", "cartesian"] = "radial",
    moves: Sequence[Any] | None = None,
) -> MCMCSample:
    r"""Draw stars from a distribution function with emcee, thinned by the autocorrelation time.

    The chain grows until, after burn-in, it is 50 autocorrelation times long and, thinned by them, has ``n`` stars.
    The result has ``stars`` (n, 6), ``tau`` (8,), ``n_effective``, ``acceptance``, ``thin``, ``n_steps``, ``burn_in``.

    Parameters
    ----------
    target : DistributionFunction or callable
        A system, or a function that takes w of shape (m, 6) and returns log f, shape (m,), up to a constant. Its units
        of r and v are its attributes ``scale`` and ``velocity_unit``, or 1. Walkers start in a small ball about zero.
    n, n_walkers, max_steps, rng : int, and int or Generator
        Numbers of stars, of walkers and of steps, burn-in included, before tau must be known; and random generator.
    coordinates : {"radial", "cartesian"}
        Walk in :math:`y = x \log(1+r)/r`, :math:`u = v \sqrt{1+r}`, where a system is compact, or in x and v.
    moves : sequence, optional
        emcee moves, by default half stretch moves, half differential evolution.

    Raises
    ------
    ShortChainError, TypeError, ValueError
        If tau asks for more than ``max_steps``, an argument is bad, or log f is not finite about zero.

    Notes
    -----
    Sources: Goodman & Weare (2010), CAMCoS 5, 65; Foreman-Mackey et al. (2013), PASP 125, 306; ter Braak (2006),
    Stat. Comput. 16, 239. In emcee 3.1.6 the snooker move gives a 6-d unit Gaussian a standard deviation of 0.81.

    Examples
    --------
    >>> sample_mcmc(lambda w: -(w**2).sum(axis=1), 1000, rng=1, n_walkers=100).stars.shape
    (1000, 6)
    """
    check.count(n, "n")
    check.count(max_steps, "max_steps")
    if check.count(n_walkers, "n_walkers") < 12:
        raise ValueError(f"n_walkers must be at least 12, twice the number of dimensions; got {n_walkers}")
    if coordinates not in ("radial", "cartesian"):
        raise ValueError(f'coordinates must be "radial" or "cartesian"; got {coordinates!r}')
    log_df = getattr(target, "log_df", target)
    if not callable(log_df):
        raise TypeError(f"target must be a system or a function of w; got {type(target).__name__}")
    rng = np.random.default_rng(rng)
    unit = np.repeat([getattr(target, name, 1.0) for name in ("scale", "velocity_unit")], 3)
    start = _ball(log_df, n_walkers, unit, rng)
    forward, backward = (_compact, _spread) if coordinates == "radial" else (np.copy, lambda p: (p, 0.0))

    def log_density(p: np.ndarray) -> np.ndarray:
        w, growth = backward(p)
        return log_df(w * unit) + growth

    stretch, mixed, long = emcee.moves.StretchMove(), emcee.moves.DEMove(), emcee.moves.DEMove(gamma0=1.0)
    moves = moves or [(stretch, 0.5), (mixed, 0.4), (long, 0.1)]
    sampler = emcee.EnsembleSampler(n_walkers, 6, log_density, moves=moves, vectorize=True)
    # emcee copies NumPy's global state when made; the state given here replaces it before the first step
    legacy = np.random.RandomState(np.random.MT19937(int(rng.integers(2**63))))
    state = emcee.State(forward(start / unit), random_state=legacy.get_state())
    goal = min(1000, max_steps)  # the first look at tau
    while True:
        try:
            state = sampler.run_mcmc(state, goal - sampler.iteration, progress=True)
        except ValueError as error:
            if "NaN" not in str(error):
                raise
            raise ValueError("target must return -inf where f vanishes, as for unbound stars; got NaN") from None
        burn_in = int(BURN_IN * sampler.iteration)
        chain = sampler.get_chain(discard=burn_in)
        sizes = [np.linalg.norm(chain[..., part], axis=-1, keepdims=True) for part in (slice(3), slice(3, 6))]
        tau = np.maximum(emcee.autocorr.integrated_time(np.concatenate([chain, *sizes], axis=-1), tol=0), 1.0)
        longest = float(tau.max())
        if len(chain) >= ENOUGH * longest:
            break
        if sampler.iteration == max_steps:
            raise ShortChainError(tau, len(chain))
        goal = min(max_steps, max(int(1.3 * sampler.iteration), int(1.1 * ENOUGH * longest / (1 - BURN_IN))))
    thin, n_steps = int(np.ceil(longest)), len(chain)
    kept = list(chain[::-1][::thin][: n_steps // thin])  # from the end: the next kept step is thin steps on
    accepted = sampler.backend.accepted.sum() / (sampler.iteration * n_walkers)
    missing = max(0, -(-n // n_walkers) - len(kept))
    more = sampler.sample(state, iterations=missing, thin_by=thin, store=False, progress=missing > 0)
    kept += [state.coords.copy() for state in more]
    n_steps += missing * thin
    stars = backward(np.concatenate(kept))[0] * unit
    stars = stars[rng.permutation(len(stars))[:n]]
    return MCMCSample(stars, tau, n_steps * n_walkers / longest, float(accepted), thin, n_steps, burn_in, n_walkers)


def _ball(log_df: Callable, n_walkers: int, unit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return positions in a ball about zero, drawn again from ever smaller balls where f = 0."""
    w, empty = np.empty((n_walkers, 6)), np.ones(n_walkers, dtype=bool)
    for shrink in 0.5 ** np.arange(40):
        w[empty] = rng.normal(size=(empty.sum(), 6)) * unit * shrink * np.repeat([0.5, 0.3], 3)
        log_f = np.asarray(log_df(w))
        if log_f.shape != (n_walkers,):
            raise ValueError(f"target must return log f of shape ({n_walkers},) for that many stars; got {log_f.shape}")
        empty = ~np.isfinite(log_f)
        if not empty.any():
            return w
    raise ValueError("log f is not finite anywhere near zero, where the walkers start; shift the coordinates")


def _compact(w: np.ndarray) -> np.ndarray:
    """Return where phase-space points (m, 6) in natural units are in the radial coordinates of the walk."""
    r = np.linalg.norm(w[:, :3], axis=1, keepdims=True)
    return np.hstack([w[:, :3] * (np.log1p(r) / np.maximum(r, 1e-300)), w[:, 3:] * np.sqrt(1 + r)])


def _spread(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the phase-space points (m, 6) of radial coordinates of the walk, and the log of the volume's growth."""
    shrunk = np.clip(np.linalg.norm(p[:, :3], axis=1, keepdims=True), 1e-300, 300.0)
    stretch = np.expm1(shrunk) / shrunk  # r / |y|
    # |dx/dy| = (r/|y|)^2 dr/d|y| with dr/d|y| = 1 + r = exp |y|, and |dv/du| = (1 + r)^(-3/2)
    return np.hstack([p[:, :3] * stretch, p[:, 3:] * np.exp(-shrunk / 2)]), (2 * np.log(stretch) - shrunk / 2)[:, 0]
