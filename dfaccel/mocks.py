"""What observing does to stars."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfaccel.checks import phase_space

__all__ = ["add_noise"]


def add_noise(w: ArrayLike, fraction: float, rng: np.random.Generator | int) -> NDArray[np.float64]:
    r"""Add Gaussian noise in proportion to each coordinate.

    .. math:: w_i \to w_i\,(1 + \epsilon\,\xi_i), \qquad \xi_i \sim \mathcal{N}(0, 1),

    independently for every coordinate of every star. Stars on a coordinate plane stay on it.

    Parameters
    ----------
    w
        Phase-space coordinates x y z vx vy vz, shape (n, 6).
    fraction
        The relative error, for example 0.01 for 1 %; 0 returns a copy.
    rng
        Random generator or seed.

    Returns
    -------
    ndarray
        Noisy coordinates, shape (n, 6), in the units of `w`.

    Raises
    ------
    TypeError
        If `fraction` is not a number.
    ValueError
        If `w` does not have the shape (n, 6) or holds a non-finite row, or `fraction` is negative or not finite.

    Examples
    --------
    >>> add_noise([[1.0, 2.0, 3.0, 0.0, 0.1, 0.2]], 0.0, rng=1)
    array([[1. , 2. , 3. , 0. , 0.1, 0.2]])
    """
    w = phase_space(w)
    try:
        size = float(fraction)
    except (TypeError, ValueError):
        raise TypeError(f"fraction must be a number, zero or positive; got {fraction!r}") from None
    if not 0 <= size < np.inf:
        raise ValueError(f"fraction must be finite, zero or positive; got {fraction!r}")
    return w * (1 + size * np.random.default_rng(rng).standard_normal(w.shape))
