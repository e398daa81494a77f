"""Components of positions and velocities along the axes of a sphere or a cylinder, and isotropic directions."""

from collections import namedtuple

import numpy as np

from dfaccel import _check as check

SphericalParts = namedtuple("SphericalParts", "r v_r v_t")
CylindricalParts = namedtuple("CylindricalParts", "R phi z v_R v_phi v_z")


def spherical(w: np.ndarray) -> SphericalParts:
    """Return radius, radial velocity and tangential speed of stars, a named tuple ``r, v_r, v_t`` of arrays (n,).

    Parameters
    ----------
    w : ndarray, shape (n, 6)
        Stars, x y z vx vy vz, finite (else a ValueError), none of them at the origin.

    Examples
    --------
    >>> spherical([[3.0, 0, 0, 1, 2, 0]]).v_t
    array([2.])
    """
    w = check.phase_space(w)
    x, v = w[:, :3], w[:, 3:]
    r = np.linalg.norm(x, axis=1)
    return SphericalParts(r, (x * v).sum(axis=1) / r, np.linalg.norm(np.cross(x, v), axis=1) / r)


def cylindrical(w: np.ndarray) -> CylindricalParts:
    """Return ``R, phi, z, v_R, v_phi, v_z`` of stars, a named tuple of arrays (n,); phi is in radians.

    Parameters
    ----------
    w : ndarray, shape (n, 6)
        Stars, x y z vx vy vz, finite (else a ValueError), none of them on the z axis.

    Examples
    --------
    >>> cylindrical([[2.0, 0, 1, 0, 3, 0]]).v_phi
    array([3.])
    """
    x, y, z, v_x, v_y, v_z = check.phase_space(w).T
    R = np.hypot(x, y)
    return CylindricalParts(R, np.arctan2(y, x), z, (x * v_x + y * v_y) / R, (x * v_y - y * v_x) / R, v_z)


def directions(n: int, rng: np.random.Generator | int) -> np.ndarray:
    """Draw isotropic unit vectors, shape (n, 3).

    Parameters
    ----------
    n, rng : int, Generator or int
        Number of vectors, at least one (else a ValueError), and random generator or its seed.

    Examples
    --------
    >>> directions(5, 0).shape
    (5, 3)
    """
    x = np.random.default_rng(rng).standard_normal((check.count(n, "n"), 3))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def lattice(n: int) -> np.ndarray:
    """Return n unit vectors (n, 3) spread evenly: a Fibonacci lattice."""
    i = np.arange(check.count(n, "n_directions")) + 0.5
    cosine, phi = 1 - 2 * i / n, np.pi * (1 + 5**0.5) * i
    sine = np.sqrt(1 - cosine**2)
    return np.stack([sine * np.cos(phi), sine * np.sin(phi), cosine], axis=1)
