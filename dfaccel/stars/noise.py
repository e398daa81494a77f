r"""Observational noise on stars: putting it on, what stars may truly be given their errors, and a draw of that."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from dfaccel import _check as check
from dfaccel.systems.base import DistributionFunction

_CHUNK = 20_000  # stars whose candidates are weighed at a time
_WIDE = 2.0  # spread of the draws over that of the stars, where errors are larger
_MANY, _FAR = 100, 1e6  # stars from which on their spread is known, and its square, over what is seen, before
_STEP = 1e-5  # of the numerical Jacobian, over the spread of the stars


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


@dataclass(frozen=True)
class PossibleTruths:
    """Draws of what stars may truly be: ``w`` (n, T, 6), and the log of what each counts for, ``log_weight`` (n, T)."""

    w: np.ndarray
    log_weight: np.ndarray


def possible_truths(
    w: np.ndarray, errors: float | np.ndarray, *, n_truths: int = 16,
    to_phase_space: Callable[[np.ndarray], np.ndarray] | None = None,
    log_volume: Callable[[np.ndarray], np.ndarray] | None = None, rng: np.random.Generator | int,
) -> PossibleTruths:
    r"""Draw what each star may truly be, given its errors, for `dfaccel.fit`; nothing is assumed of the stars.

    The likelihood of a star under f, :math:`\int f(w)\, p(w^\mathrm{o} \mid w)\, \mathrm{d}^6 w`, is the mean over its
    draws of f times their weights. Draws come from a normal density about what was measured; where an error is larger
    than the spread of all stars, they come from where they are, and the weights undo that.

    Parameters
    ----------
    w : ndarray, shape (n, 6)
        Stars as they were measured: x y z vx vy vz, or what ``to_phase_space`` takes.
    errors : float or ndarray, shape (6,), (n, 6) or (n, 6, 6)
        Standard deviations of Gaussian errors, of all stars or star by star, or covariances, in the units of ``w``. A
        number is an error relative to the true value of each coordinate, as in `add_noise`.
    n_truths : int
        Draws a star, a multiple of four.
    to_phase_space : callable, optional
        Turns measured coordinates (m, 6), for example sky position, distance, proper motions and radial velocity, into
        x y z vx vy vz (m, 6). It may return NaN for what cannot be.
    log_volume : callable, optional
        Log of the volume in phase space (m,) of a unit of volume at measured coordinates (m, 6), up to a constant: with
        a distance d, 4 ln d + ln cos b. Found numerically, in twelve calls of ``to_phase_space``, if it is not given.
    rng : Generator or int
        Random generator or its seed.

    Raises
    ------
    TypeError, ValueError
        If an array has a wrong shape or a non-finite value, if an error is negative or a covariance is not positive,
        or if no draw of a star can be.

    Examples
    --------
    >>> import dfaccel as da
    >>> possible_truths(da.Plummer().sample(1000, rng=0), 0.1, rng=1).w.shape
    (1000, 16, 6)
    """
    n = check.count(n_truths, "n_truths")
    draw, rng = _Draw(w, errors, to_phase_space, log_volume), np.random.default_rng(rng)
    parts = [draw(part, n, rng) for part in _chunks(len(draw.w))]
    return PossibleTruths(*map(np.concatenate, zip(*parts, strict=True)))


def denoise(
    w: np.ndarray, errors: float | np.ndarray, model: DistributionFunction, *, n_candidates: int = 16,
    to_phase_space: Callable[[np.ndarray], np.ndarray] | None = None,
    log_volume: Callable[[np.ndarray], np.ndarray] | None = None, rng: np.random.Generator | int,
) -> np.ndarray:
    r"""Draw for each noisy star one possible truth, given its errors and a distribution function; return them (n, 6).

    The posterior density is :math:`\propto f(w)\, p(w^\mathrm{o} \mid w)`. Candidates replace one another with the
    ratio of their weights (Hastings 1970); one of m chosen by weight would be biased as 1/m. To learn f from noisy
    stars, give their `possible_truths` to `dfaccel.fit`.

    Parameters
    ----------
    w, errors, to_phase_space, log_volume, rng
        As in `possible_truths`.
    model, n_candidates : DistributionFunction, int
        Distribution function of the stars without noise, such as a `FlowEnsemble`, and candidates per star.

    Raises
    ------
    TypeError, ValueError
        As in `possible_truths`.

    Examples
    --------
    >>> import dfaccel as da
    >>> denoise(da.Plummer().sample(1000, rng=0), 0.1, da.Plummer(), rng=1).shape
    (1000, 6)
    """
    draw, rng = _Draw(w, errors, to_phase_space, log_volume), np.random.default_rng(rng)
    check.count(n_candidates, "n_candidates")
    truth = np.empty_like(draw.w)
    for part in _chunks(len(truth)):
        candidates, log_weight = draw(part, n_candidates, rng)
        log_weight = log_weight + model.log_df(candidates.reshape(-1, 6)).reshape(log_weight.shape)
        log_uniform = -rng.exponential(size=log_weight.shape)
        chosen, each = np.zeros(len(candidates), dtype=int), np.arange(len(candidates))
        for k in range(1, n_candidates):
            taken = log_uniform[:, k] + log_weight[each, chosen] < log_weight[:, k]  # also where the last was -inf
            chosen[taken] = k
        truth[part] = candidates[each, chosen]
    return truth


class _Draw:
    """Measured stars ``w`` (n, 6) with the square roots of their covariances, and candidates for their true places."""

    def __init__(
        self, w: np.ndarray, errors: float | np.ndarray, to_phase_space: Callable | None, log_volume: Callable | None
    ) -> None:
        self.log_volume = log_volume or self._log_volume
        self.w, self.to_phase_space, self.relative = check.phase_space(w), to_phase_space, np.ndim(errors) == 0
        n = len(self.w)
        if self.relative:
            self.size = check.positive(errors, "errors", zero=True)
            return
        errors = check.numbers(errors, "errors")
        if errors.shape not in ((6,), (n, 6), (n, 6, 6)):
            raise ValueError(f"errors must be a number or have shape (6,), ({n}, 6) or ({n}, 6, 6); got {errors.shape}")
        check.finite_rows(errors.reshape(len(errors), -1), "errors")
        covariance = errors if errors.ndim == 3 else np.square(errors)[..., None] * np.eye(6)
        scale = np.sqrt(np.maximum(np.einsum("...ii->...i", covariance), np.finfo(float).tiny))
        size, turn = np.linalg.eigh(covariance / scale[..., None] / scale[..., None, :])
        bad = np.atleast_1d((errors < 0).any(-1))
        if errors.ndim == 3:
            bad = (size < -1e-9).any(-1) | ~np.isclose(errors, errors.mT, rtol=1e-6, atol=0).all((1, 2))
        if bad.any():
            raise ValueError(f"errors must not be negative, and covariances symmetric and positive; {bad.sum()} are "
                             f"not, first at index {bad.argmax()}")
        covariance = np.broadcast_to(covariance, (n, 6, 6))
        # the normal density of the noise times a wide one of all stars, with its covariance among the stars
        noise, self.centre = covariance.mean(0), self.w.mean(0)
        seen = np.maximum(self.w.std(0), np.sqrt(np.diag(noise))) + np.finfo(float).tiny ** 0.25
        spread = np.cov(self.w.T) - (1 - 3 * np.sqrt(2 / n)) * noise if n > _MANY else np.diag(_FAR * seen**2)
        size, axes = np.linalg.eigh(spread / seen / seen[:, None])
        wide = _WIDE * seen[:, None] * axes * np.sqrt(size.clip(1e-6))
        self.inverse = np.linalg.inv(wide @ wide.T)
        gain = covariance @ np.linalg.inv(covariance + wide @ wide.T)
        self.middle = self.w + np.einsum("nij,nj->ni", gain, self.centre - self.w)
        left = covariance - gain @ covariance
        size, turn = np.linalg.eigh((left + left.mT) / 2)
        self.root = turn * np.sqrt(size.clip(0))[:, None]

    def __call__(self, part: slice, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return n candidates (m, n, 6) for each star of a part, in phase space, and the logs of their weights."""
        seen = self.w[part, None]
        xi = rng.standard_normal((len(seen), n, 6))
        if self.relative:
            truths = seen / (1 + self.size * xi)
            log_weight = np.log(np.abs(truths / np.where(seen == 0, 1.0, seen)) + (seen == 0)).sum(-1)
        else:
            truths = self.middle[part, None] + np.einsum("mij,mnj->mni", self.root[part], xi)
            away = truths - self.centre
            log_weight = 0.5 * np.einsum("mni,ij,mnj->mn", away, self.inverse, away)
        if self.to_phase_space is not None:
            flat = truths.reshape(-1, 6)
            with np.errstate(all="ignore"):
                volume = np.asarray(self.log_volume(flat), dtype=float)
                if volume.shape != flat.shape[:1]:
                    raise ValueError(f"log_volume must return shape {flat.shape[:1]}; got {volume.shape}")
                log_weight = log_weight + volume.reshape(log_weight.shape)
                truths = self._places(flat).reshape(truths.shape)
        possible = np.isfinite(truths).all(-1) & np.isfinite(log_weight)
        lost = ~possible.any(1)
        if lost.any():
            raise ValueError(f"w and errors must leave each star a possible truth; {lost.sum()} have none, first at "
                             f"index {part.start + lost.argmax()}")
        star, _ = np.nonzero(~possible)  # what cannot be stands for nothing, at a place that is possible
        truths[~possible] = truths[star, possible.argmax(1)[star]]
        log_weight = np.where(possible, log_weight, -np.inf)
        return truths, log_weight - log_weight.max(1, keepdims=True)

    def _places(self, measured: np.ndarray) -> np.ndarray:
        """Return stars in phase space (m, 6)."""
        w = np.asarray(self.to_phase_space(measured), dtype=float)
        if w.shape != measured.shape:
            raise ValueError(f"to_phase_space must return shape {measured.shape}; got {w.shape}")
        return w

    def _log_volume(self, measured: np.ndarray) -> np.ndarray:
        """Return what ``log_volume`` does, from differences."""
        steps = _STEP * np.maximum(self.w.std(0), np.finfo(float).tiny) * np.eye(6)
        rows = [(self._places(measured + step) - self._places(measured - step)) / (2 * step.sum()) for step in steps]
        return np.linalg.slogdet(np.stack(rows, axis=-1))[1]


def _chunks(n: int) -> list[slice]:
    """Return the parts of n stars that are weighed at a time, with a bar of progress."""
    return tqdm([slice(i, min(i + _CHUNK, n)) for i in range(0, n, _CHUNK)], unit="chunk", leave=False)
