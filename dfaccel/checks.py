"""Input checks: every error says which argument, what was expected, and what came."""

import math
import operator

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

__all__ = ["count", "phase_space", "positive"]


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
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        number = int(bad.sum())
        raise ValueError(
            f"{name} has {number} non-finite row{'s' if number > 1 else ''}, first at index {int(bad.argmax())}"
        )
    return array
