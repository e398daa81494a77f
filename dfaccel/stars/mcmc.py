"""Stars drawn with emcee from any distribution function, with the diagnostics that say whether to believe them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import emcee
import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from dfaccel._check import count, phase_space, positive
from dfaccel.systems.base import SphericalSystem

__all__ = ["MCMCSample", "ShortChainError", "sample_mcmc"]

ENOUGH = 50  # autocorrelation times in a chain that can be trusted (Foreman-Mackey et al. 2013)
BURN_IN = 0.25  # share of the first chain that is thrown away
FIRST_LOOK = 1000  # steps before the first estimate of tau


class ShortChainError(RuntimeError):
    """The chain is shorter than 50 autocorrelation times, so neither it nor `tau` can be trusted.

    Attributes
    ----------
    tau : ndarray
        Estimated autocorrelation times in steps, shape (8,); an underestimate, if anything.
    n_steps : int
        Steps in the chain after the burn-in.
    """

    def __init__(self, tau: NDArray[np.float64], n_steps: int) -> None:
        self.tau, self.n_steps = tau, n_steps
        super().__init__(
            f"the chain has {n_steps} steps after burn-in, {n_steps / tau.max():.0f} autocorrelation times (tau = "
            f"{tau.max():.0f}); at least {ENOUGH} are needed: raise max_steps to {1.5 * ENOUGH * tau.max():.0f} or more"
        )


@dataclass(frozen=True, eq=False)
class MCMCSample:
    """Stars drawn by Markov chain Monte Carlo.

    Attributes
    ----------
    stars : ndarray
        Phase-space coordinates x y z vx vy vz, shape (n, 6), thinned and in random order.
    tau : ndarray
        Integrated autocorrelation times in steps of x y z vx vy vz |x| |v| (in the coordinates of the walk), shape
        (8,). The last two matter: a walk can change the sign of x often and still crawl in radius.
    n_effective : float
        Effective number of independent stars in the whole chain after burn-in, n_steps n_walkers / max(tau).
    acceptance : float
        Share of the proposals that were accepted.
    thin : int
        Every `thin`-th step was kept: max(tau), rounded up.
    n_steps : int
        Steps after the burn-in.
    burn_in : int
        Steps thrown away at the start.
    n_walkers : int
        Number of walkers.
    """

    stars: NDArray[np.float64]
    tau: NDArray[np.float64]
    n_effective: float
    acceptance: float
    thin: int
    n_steps: int
    burn_in: int
    n_walkers: int


def sample_mcmc(
    target: SphericalSystem | Callable[[NDArray], NDArray],
    n: int,
    rng: np.random.Generator | int,
    *,
    n_walkers: int = 500,
    max_steps: int = 10_000,
    coordinates: Literal["radial", "cartesian"] = "radial",
    moves: Sequence[Any] | None = None,
    start: NDArray | None = None,
    length: float | None = None,
    speed: float | None = None,
    progress: bool = True,
) -> MCMCSample:
    r"""Draw stars from a distribution function with emcee, thinned by the autocorrelation time.

    The chain grows until, after a burn-in of a quarter, it is at least 50 autocorrelation times long. It is then
    thinned by the longest of them, and continued if that leaves fewer than `n` stars.

    Parameters
    ----------
    target
        A system, or a function that takes w of shape (m, 6) and returns log f, shape (m,), up to a constant.
    n
        Number of stars.
    rng
        Random generator or seed; the same seed gives the same stars.
    n_walkers
        Walkers in the ensemble; each step is two calls of `target`, for half of them each.
    max_steps
        Longest chain, burn-in included, on which tau may be estimated.
    coordinates
        Where the walkers walk. ``"radial"``: in :math:`y = x \log(1+r)/r`, :math:`u = v \sqrt{1+r}`, in which a
        stellar system is compact (the Jacobian is included). ``"cartesian"``: in x and v.
    moves
        emcee moves. By default half stretch moves, half differential evolution, one in ten of the steps a long one.
    start
        First positions of the walkers, shape (n_walkers, 6). By default a small ball about the centre.
    length, speed
        Units of r and v in the radial coordinates and of the first ball. By default the scale and the velocity unit
        of a system, and 1 for a function.
    progress
        Whether to show a progress bar.

    Returns
    -------
    MCMCSample
        Stars, shape (n, 6), and diagnostics.

    Raises
    ------
    ShortChainError
        If `max_steps` are fewer than 50 autocorrelation times after burn-in. The error carries `tau` and `n_steps`.
    TypeError
        If `target` is neither a system nor a function, or a count is not an integer.
    ValueError
        If a count is too small, `start` has the wrong shape, or log f is not finite where the walkers start.

    Notes
    -----
    Sources: Goodman and Weare (2010), CAMCoS 5, 65; Foreman-Mackey et al. (2013), PASP 125, 306; differential
    evolution after ter Braak (2006), Statistics and Computing 16, 239. emcee's snooker move is left out on purpose:
    in emcee 3.1.6 it gives a unit Gaussian in six dimensions a standard deviation of 0.81.

    Examples
    --------
    >>> from dfaccel.systems.plummer import Plummer
    >>> drawn = sample_mcmc(Plummer(), 1000, rng=1, n_walkers=100, progress=False)
    >>> drawn.stars.shape, bool(drawn.n_steps >= 50 * drawn.tau.max())
    ((1000, 6), True)
    """
    n, n_walkers, max_steps = count(n, "n"), count(n_walkers, "n_walkers"), count(max_steps, "max_steps")
    if n_walkers < 12:
        raise ValueError(f"n_walkers must be at least 12, twice the number of dimensions; got {n_walkers}")
    if coordinates not in ("radial", "cartesian"):
        raise ValueError(f'coordinates must be "radial" or "cartesian"; got {coordinates!r}')
    log_df = getattr(target, "log_df", target)
    if not callable(log_df):
        raise TypeError(f"target must be a system or a function of w; got {type(target).__name__}")
    unit = np.repeat(
        [
            positive(getattr(target, "scale", 1.0) if length is None else length, "length"),
            positive(getattr(target, "velocity_unit", 1.0) if speed is None else speed, "speed"),
        ],
        3,
    )
    rng = np.random.default_rng(rng)
    start = _ball(log_df, n_walkers, unit, rng) if start is None else phase_space(start, "start")
    if start.shape != (n_walkers, 6):
        raise ValueError(f"start must have shape (n_walkers, 6) = ({n_walkers}, 6); got {start.shape}")
    if not np.isfinite(log_df(start)).all():
        raise ValueError("log f must be finite wherever the walkers start; give other positions as start")

    walk = _Walk(log_df, unit, radial=coordinates == "radial")
    sampler = emcee.EnsembleSampler(n_walkers, 6, walk.log_density, moves=moves or _moves(), vectorize=True)
    # emcee copies NumPy's global state when made; the state given here replaces it before the first step
    legacy = np.random.RandomState(np.random.MT19937(int(rng.integers(2**63))))
    state = emcee.State(walk.forward(start), random_state=legacy.get_state())
    with tqdm(unit="step", desc="emcee", leave=False, disable=not progress) as bar:
        goal = min(FIRST_LOOK, max_steps)
        while True:
            steps = sampler.sample(state, iterations=goal - sampler.iteration)
            for state in steps:  # noqa: B007
                bar.update()
            burn_in = int(BURN_IN * sampler.iteration)
            chain = sampler.get_chain(discard=burn_in)
            tau = _autocorrelation(chain)
            longest = float(tau.max())
            if len(chain) >= ENOUGH * longest:
                break
            if sampler.iteration == max_steps:
                raise ShortChainError(tau, len(chain))
            needed = 1.1 * ENOUGH * longest / (1 - BURN_IN)
            goal = min(max_steps, max(int(1.3 * sampler.iteration), int(needed)))
        thin = int(np.ceil(longest))
        kept = list(chain[::-1][::thin][: len(chain) // thin])  # from the end: the next kept step is thin steps on
        n_steps = len(chain)
        accepted = sampler.backend.accepted.sum() / (sampler.iteration * n_walkers)
        missing = -(-n // n_walkers) - len(kept)
        if missing > 0:
            bar.reset(total=missing * thin)
            for later in sampler.sample(state, iterations=missing, thin_by=thin, store=False):
                kept.append(later.coords.copy())
                bar.update(thin)
            n_steps += missing * thin
    stars = walk.backward(np.concatenate(kept))[0]
    return MCMCSample(
        stars=stars[rng.permutation(len(stars))[:n]],
        tau=tau,
        n_effective=n_steps * n_walkers / longest,
        acceptance=float(accepted),
        thin=thin,
        n_steps=n_steps,
        burn_in=burn_in,
        n_walkers=n_walkers,
    )


def _moves() -> list[tuple[emcee.moves.Move, float]]:
    """Return the default moves and their weights."""
    return [(emcee.moves.StretchMove(), 0.5), (emcee.moves.DEMove(), 0.4), (emcee.moves.DEMove(gamma0=1.0), 0.1)]


def _autocorrelation(chain: NDArray) -> NDArray:
    """Integrated autocorrelation times of the coordinates, the radius and the speed, shape (8,)."""
    size = [np.linalg.norm(chain[..., part], axis=-1, keepdims=True) for part in (slice(3), slice(3, 6))]
    return np.maximum(emcee.autocorr.integrated_time(np.concatenate([chain, *size], axis=-1), tol=0), 1.0)


def _ball(log_df: Callable, n_walkers: int, unit: NDArray, rng: np.random.Generator) -> NDArray:
    """Return positions in a ball about the centre, drawn again from ever smaller balls where f = 0."""
    w = np.empty((n_walkers, 6))
    empty = np.ones(n_walkers, dtype=bool)
    for shrink in 0.5 ** np.arange(40):
        w[empty] = rng.normal(size=(empty.sum(), 6)) * unit * shrink * np.repeat([0.5, 0.3], 3)
        log_f = np.asarray(log_df(w))
        if log_f.shape != (n_walkers,):
            raise ValueError(f"target must return log f of shape ({n_walkers},) for that many stars; got {log_f.shape}")
        empty = ~np.isfinite(log_f)
        if not empty.any():
            return w
    raise ValueError("log f is not finite anywhere near the centre; give the walkers' first positions as start")


@dataclass(frozen=True)
class _Walk:
    """The coordinates in which the walkers walk, and the density there."""

    log_df: Callable[[NDArray], NDArray]
    unit: NDArray
    radial: bool

    def forward(self, w: NDArray) -> NDArray:
        """Phase space to the coordinates of the walk."""
        p = w / self.unit
        if self.radial:
            r = np.linalg.norm(p[:, :3], axis=1, keepdims=True)
            p[:, :3] *= np.log1p(r) / np.maximum(r, 1e-300)
            p[:, 3:] *= np.sqrt(1 + r)
        return p

    def backward(self, p: NDArray) -> tuple[NDArray, NDArray]:
        """Coordinates of the walk to phase space, and the log of the volume element's growth."""
        if not self.radial:
            return p * self.unit, np.zeros(len(p))
        shrunk = np.linalg.norm(p[:, :3], axis=1, keepdims=True)
        shrunk = np.clip(shrunk, 1e-300, 300.0)
        stretch = np.expm1(shrunk) / shrunk  # r / |y|
        w = np.hstack([p[:, :3] * stretch, p[:, 3:] * np.exp(-shrunk / 2)]) * self.unit
        # |dx/dy| = (r/|y|)^2 dr/d|y| with dr/d|y| = 1 + r = exp |y|, and |dv/du| = (1 + r)^(-3/2)
        return w, (2 * np.log(stretch) - shrunk / 2)[:, 0]

    def log_density(self, p: NDArray) -> NDArray:
        """Log of the target density per volume of the coordinates of the walk, up to a constant."""
        w, growth = self.backward(p)
        return self.log_df(w) + growth
