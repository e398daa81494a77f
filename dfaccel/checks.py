"""Input checks: every error says which argument, what was expected, and what came."""

import math
import operator
import warnings

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

__all__ = ["count", "finite_coordinates", "finite_rows", "phase_space", "points", "positive", "training_stars"]

MIN_STARS = 1000
COLUMNS = ("x", "y", "z", "vx", "vy", "vz")


def positive(value: float, name: str, *, infinite: bool = False) -> float:
    """Return `value` as a float, or raise if it is not a positive number.

    Parameters
    ----------
    value
        The number to check.
    name
        Name of the argument, for the message.
    infinite
        Whether infinity is accepted.

    Raises
    ------
    TypeError
        If `value` is not a number.
    ValueError
        If it is zero, negative, NaN or (unless `infinite`) infinite.

    Examples
    --------
    >>> positive(2, "mass")
    2.0
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a positive number; got {value!r}") from None
    if not number > 0 or (math.isinf(number) and not infinite):
        raise ValueError(f"{name} must be a positive {'' if infinite else 'finite '}number; got {value!r}")
    return number


def count(n: int, name: str) -> int:
    """Return `n` as an int, or raise if it is not a whole number of at least one.

    Raises
    ------
    TypeError
        If `n` is not an integer (``1e6`` is a float: write ``1_000_000``).
    ValueError
        If ``n < 1``.

    Examples
    --------
    >>> count(3, "n")
    3
    """
    try:
        if isinstance(n, bool | np.bool_):
            raise TypeError
        number = operator.index(n)
    except TypeError:
        raise TypeError(f"{name} must be a positive integer; got {n!r}") from None
    if number < 1:
        raise ValueError(f"{name} must be a positive integer; got {n!r}")
    return number


def phase_space(w: ArrayLike | torch.Tensor, name: str = "w") -> NDArray[np.float64]:
    """Return phase-space coordinates as a finite float64 array of shape (n, 6).

    Parameters
    ----------
    w
        Positions and velocities x y z vx vy vz, shape (n, 6).
    name
        Name of the argument, for the message.

    Raises
    ------
    ValueError
        If the shape is not (n, 6), if there are no rows, or if a row holds NaN or infinity.

    Examples
    --------
    >>> phase_space([[1, 0, 0, 0, 1, 0]]).shape
    (1, 6)
    """
    if isinstance(w, torch.Tensor):
        w = w.detach().cpu().numpy()
    array = np.asarray(w, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 6:
        raise ValueError(f"{name} must have shape (n, 6); got {array.shape}")
    if not len(array):
        raise ValueError(f"{name} must have at least one row; got shape {array.shape}")
    return finite_rows(array, name)


def finite_rows(array: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Return an array (n, d), or raise if a row holds NaN or infinity.

    Raises
    ------
    ValueError
        If a row is not finite.

    Examples
    --------
    >>> finite_rows(np.zeros((2, 3)), "x").shape
    (2, 3)
    """
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        number = int(bad.sum())
        raise ValueError(
            f"{name} has {number} non-finite row{'s' if number > 1 else ''}, first at index {int(bad.argmax())}"
        )
    return array


def points(x: ArrayLike, name: str = "points") -> NDArray[np.float64]:
    """Return positions as a finite float64 array of shape (m, 3).

    Raises
    ------
    ValueError
        If the shape is not (m, 3), if there are no rows, or if a row holds NaN or infinity.

    Examples
    --------
    >>> points([[1, 0, 0]]).shape
    (1, 3)
    """
    array = np.asarray(x, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 3 or not len(array):
        raise ValueError(f"{name} must have shape (m, 3), m >= 1; got {array.shape}")
    return finite_rows(array, name)


def training_stars(w: NDArray[np.float64]) -> None:
    """Check that stars can be learned from; warn if more than 1 % of them are repeated.

    Raises
    ------
    ValueError
        If there are fewer than 1,000 stars or a column is constant.

    Examples
    --------
    >>> training_stars(np.random.default_rng(0).normal(size=(1000, 6)))
    """
    if len(w) < MIN_STARS:
        raise ValueError(f"stars must have at least {MIN_STARS} rows to learn from; got {len(w)}")
    constant = np.flatnonzero(np.ptp(w, axis=0) == 0)
    if len(constant):
        raise ValueError(f"stars has a constant column: {COLUMNS[constant[0]]}; every one must vary")
    key = (w * [1.0, 2**0.5, 3**0.5, 5**0.5, 7**0.5, 11**0.5]).cumsum(axis=1)[:, -1]
    repeats = len(w) - len(np.unique(key))
    if repeats > 0.01 * len(w):
        warnings.warn(f"{repeats / len(w):.1%} of the stars repeat another one; a flow takes them for clumps",
                      stacklevel=3)


def finite_coordinates(y: NDArray[np.float64], symmetry: str) -> None:
    """Check that stars have finite coordinates under a symmetry.

    Raises
    ------
    ValueError
        If some lie where the coordinates are singular (the centre, the axis, an exactly radial orbit).

    Examples
    --------
    >>> finite_coordinates(np.zeros((5, 3)), "spherical")
    """
    bad = ~np.isfinite(y).all(axis=1)
    if bad.any():
        number = int(bad.sum())
        raise ValueError(
            f"stars has {number} row{'s' if number > 1 else ''} where {symmetry} coordinates are singular (the centre, "
            f"the axis or a purely radial orbit), first at index {int(bad.argmax())}; remove them"
        )
