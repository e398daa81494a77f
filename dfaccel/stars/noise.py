"""Observational noise on stars, and how a model of the stars takes it away."""

import numpy as np
from tqdm.auto import tqdm

from dfaccel import _check as check
from dfaccel.systems.base import DistributionFunction

_CHUNK = 20_000  # stars whose candidates are weighed at a time


def add_noise(w: np.ndarray, fraction: float, rng: np.random.Generator | int) -> np.ndarray:
    r"""Return the stars (n, 6) with Gaussian noise in every coordinate, :math:`w_i (1 + \epsilon\,\xi_i)`.

    Parameters
    ----------
    w, fraction, rng : ndarray, shape (n, 6), float, Generator or int
        Stars x y z vx vy vz, in any units, relative error :math:`\epsilon`, for example 0.01, and random generator.

    Raises
    ------
    TypeError, ValueError
        If ``w`` has another shape or a non-finite row, or ``fraction`` is not a finite number of at least zero.

    Examples
    --------
    >>> add_noise([[1.0, 2.0, 3.0, 0.0, 0.1, 0.2]], 0.0, rng=1)
    array([[1. , 2. , 3. , 0. , 0.1, 0.2]])
    """
    w, size = check.phase_space(w), check.positive(fraction, "fraction", zero=True)
    return w * (1 + size * np.random.default_rng(rng).standard_normal(w.shape))


def denoise(
    w: np.ndarray, fraction: float, model: DistributionFunction, *, n_candidates: int = 16,
    rng: np.random.Generator | int,
) -> np.ndarray:
    r"""Draw for each noisy star one possible truth, given the noise and a distribution function; return them (n, 6).

    The posterior density is :math:`\propto f(w)\, p(w^\mathrm{o} \mid w)`. Candidates
    :math:`w^\mathrm{o}_i / (1 + \epsilon\,\xi_i)` replace one another with the ratio of their importance weights
    :math:`f(w) \prod_i |w_i|` (Hastings 1970); one of m chosen by weight would be biased as 1/m. To learn f, learn it
    from the noisy stars as they are, denoise them with it, and learn again (Celeux & Diebolt 1985).

    Parameters
    ----------
    w, fraction, rng : ndarray, shape (n, 6), float, Generator or int
        Noisy stars, relative error and random generator, as in `add_noise`.
    model, n_candidates : DistributionFunction, int
        Distribution function of the stars without noise, such as a `FlowEnsemble`, and candidates per star.

    Raises
    ------
    TypeError, ValueError
        If ``w`` or a number has a wrong type, shape or range.

    Examples
    --------
    >>> import dfaccel as da
    >>> denoise(da.Plummer().sample(1000, rng=0), 0.1, da.Plummer(), rng=1).shape
    (1000, 6)
    """
    w, rng = check.phase_space(w), np.random.default_rng(rng)
    size = check.positive(fraction, "fraction", zero=True)
    check.count(n_candidates, "n_candidates")
    truth = w.copy()
    if not size:
        return truth
    for start in tqdm(range(0, len(w), _CHUNK), unit="chunk", leave=False):
        seen = w[start : start + _CHUNK, None]
        candidates = seen / (1 + size * rng.standard_normal((len(seen), n_candidates, 6)))
        log_weight = model.log_df(candidates.reshape(-1, 6)).reshape(len(seen), n_candidates)
        log_weight += np.log(np.abs(candidates / np.where(seen == 0, 1.0, seen)) + (seen == 0)).sum(axis=-1)
        log_uniform = -rng.exponential(size=log_weight.shape)
        chosen, each = np.zeros(len(seen), dtype=int), np.arange(len(seen))
        for k in range(1, n_candidates):
            taken = log_uniform[:, k] + log_weight[each, chosen] < log_weight[:, k]  # also where the last was -inf
            chosen[taken] = k
        truth[start : start + _CHUNK] = candidates[each, chosen]
    return truth
