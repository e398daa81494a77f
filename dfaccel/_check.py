"""Input checks: every error says which argument, what was expected, and what came."""

import math
import warnings

import numpy as np
import torch

MIN_STARS = 1000
COLUMNS = ("x", "y", "z", "vx", "vy", "vz")


def positive(value: float, name: str, *, zero: bool = False, infinite: bool = False) -> float:
    """Return ``value`` as a float, or raise if it is not positive and finite; zero and infinity may be allowed."""
    kind = f"{name} must be {'zero or ' if zero else ''}a positive"
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{kind} number; got {value!r}") from None
    if not (number > 0 or (zero and number == 0)) or (math.isinf(number) and not infinite):
        raise ValueError(f"{kind} {'' if infinite else 'finite '}number; got {value!r}")
    return number


def settle(instance: object, *names: str, **allowed: bool) -> None:
    """Check numbers of a frozen dataclass with `positive`, and keep them as floats."""
    for name in names:
        object.__setattr__(instance, name, positive(getattr(instance, name), name, **allowed))


def count(n: int, name: str) -> int:
    """Return ``n`` as an int, or raise if it is no whole number of at least one (1e6 is a float: write 1_000_000)."""
    whole = isinstance(n, int | np.integer) and not isinstance(n, bool)
    if not whole or n < 1:
        raise (ValueError if whole else TypeError)(f"{name} must be a positive integer; got {n!r}")
    return int(n)


def numbers(value: object, name: str) -> np.ndarray:
    """Return plain numbers as a float64 array, or raise if units, names of columns or a mask would be lost."""
    kind, unit = type(value).__name__, str(getattr(value, "unit", None) or "")
    named = hasattr(value, "columns") or getattr(getattr(value, "dtype", None), "names", None)
    if unit or named:
        what = f"{kind} in {unit}" if unit else f"{kind} of columns"
        raise TypeError(f"{name} must be an array of plain numbers; got a {what}; divide by a unit, stack columns, or "
                        "read a table with dfaccel.snapshot.take")
    mask = getattr(value, "mask", False)
    if np.any(mask):
        rows = np.unique(np.nonzero(np.atleast_1d(mask))[0])
        raise ValueError(f"{name} has masked values in {len(rows)} rows, first at index {rows[0]}; leave them out")
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
    return np.asarray(getattr(value, "unmasked", value), dtype=np.float64)


def phase_space(w: np.ndarray | torch.Tensor, name: str = "w") -> np.ndarray:
    """Return phase-space coordinates x y z vx vy vz as a float64 array (n, 6), n > 0, or raise if one is not finite."""
    array = numbers(w, name)
    if array.ndim != 2 or array.shape[1] != 6 or not len(array):
        raise ValueError(f"{name} must have shape (n, 6), n >= 1; got {array.shape}")
    return finite_rows(array, name)


def points(x: np.ndarray, name: str = "points") -> np.ndarray:
    """Return positions as a float64 array (m, 3), m > 0, or raise if one is not finite."""
    array = numbers(x, name)
    if array.ndim != 2 or array.shape[1] != 3 or not len(array):
        raise ValueError(f"{name} must have shape (m, 3), m >= 1; got {array.shape}")
    return finite_rows(array, name)


def finite_rows(array: np.ndarray, name: str) -> np.ndarray:
    """Return an array (n, d), or raise if a row holds NaN or infinity."""
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        rows = "row" if bad.sum() == 1 else "rows"
        raise ValueError(f"{name} has {bad.sum()} non-finite {rows}, first at index {bad.argmax()}")
    return array


def weights(values: np.ndarray, n: int) -> np.ndarray:
    """Return n weights of mean one, or raise if one is negative or not finite, or if they spread over few stars."""
    array = numbers(values, "weights")
    if array.shape != (n,):
        raise ValueError(f"weights must have shape ({n},), one for each star; got {array.shape}")
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        raise ValueError(f"weights must be finite and not negative; {bad.sum()} are not, first at index {bad.argmax()}")
    effective = array.sum() ** 2 / max((array**2).sum(), np.finfo(float).tiny)
    if effective < MIN_STARS:
        raise ValueError(f"weights must spread over {MIN_STARS} stars; their effective number is {effective:.0f}")
    return array / array.mean()


def training_stars(w: np.ndarray) -> None:
    """Raise if stars (n, 6) are too few or a column is constant; warn if more than 1 % of them are repeated."""
    if len(w) < MIN_STARS:
        raise ValueError(f"stars must have at least {MIN_STARS} rows to learn from; got {len(w)}")
    constant = np.flatnonzero(np.ptp(w, axis=0) == 0)
    if len(constant):
        raise ValueError(f"stars has a constant column: {COLUMNS[constant[0]]}; every one must vary")
    key = (w * np.sqrt([1, 2, 3, 5, 7, 11])).cumsum(axis=1)[:, -1]  # one number per star, so that sorting is fast
    repeats = len(w) - len(np.unique(key))
    if repeats > 0.01 * len(w):
        share = f"{repeats / len(w):.1%} of the stars"
        warnings.warn(f"{share} repeat another one; a flow takes them for clumps", stacklevel=5)  # of who calls fit
