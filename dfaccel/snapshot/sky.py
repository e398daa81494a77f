"""Stars as a survey measures them: sky position, parallax or distance, proper motions and radial velocity."""

import numpy as np
from astropy import units as u
from astropy.coordinates import (
    CartesianDifferential,
    CartesianRepresentation,
    SkyCoord,
    SphericalCosLatDifferential,
    SphericalRepresentation,
)

from dfaccel import _check as check

_UNITS = (u.deg, u.deg, u.mas, u.mas / u.yr, u.mas / u.yr, u.km / u.s)


def from_sky(
    measured: np.ndarray, *, distance: str = "parallax", frame: str = "icrs", motion: tuple[float, ...] = (0, 0, 0)
) -> np.ndarray:
    """Return stars (n, 6) about the Sun, x to the Galactic centre and z to the north pole, in kpc and km/s.

    Parameters
    ----------
    measured : ndarray, shape (n, 6)
        Longitude and latitude (ra and dec) in degrees; parallax in mas, or distance in kpc; proper motions, the first
        times the cosine of the latitude, in mas/yr; radial velocity in km/s.
    distance, frame : str
        "parallax" or "distance": what the third column is; and "icrs", "galactic" or another frame of astropy.
    motion : tuple of float
        Velocity of the Sun in km/s, in the same axes, which is added: the Galaxy is then at rest.

    Raises
    ------
    TypeError, ValueError
        If ``measured`` has a wrong shape. Where it is not finite or a parallax is not positive, the star is NaN.

    Examples
    --------
    >>> from_sky([[0.0, 0.0, 0.5, 0.0, 0.0, 10.0]], frame="galactic").round(6)
    array([[ 2.,  0.,  0., 10.,  0.,  0.]])
    """
    longitude, latitude, far, *moving = _columns(measured)
    far = _distance(far, distance)
    good = np.isfinite([longitude, latitude, far, *moving]).all(0) & (np.abs(latitude) <= 90)
    values = [np.where(good, part, 1.0) for part in (longitude, latitude, far, *moving)]
    lon, lat, _, pm_lon, pm_lat, radial = (v * unit for v, unit in zip(values, _UNITS, strict=True))
    names = ("pm_l_cosb", "pm_b") if frame == "galactic" else ("pm_ra_cosdec", "pm_dec")
    proper = dict(zip(names, (pm_lon, pm_lat), strict=True))
    seen = SkyCoord(lon, lat, distance=values[2] * u.kpc, radial_velocity=radial, frame=frame, **proper).galactic
    x = seen.cartesian.xyz.to_value(u.kpc)
    v = seen.velocity.d_xyz.to_value(u.km / u.s) + np.array(motion)[:, None]
    return np.where(good, np.concatenate([x, v]), np.nan).T


def to_sky(
    w: np.ndarray, *, distance: str = "parallax", frame: str = "icrs", motion: tuple[float, ...] = (0, 0, 0)
) -> np.ndarray:
    """Return what a survey without errors would measure of stars (n, 6); the inverse of `from_sky`.

    Parameters
    ----------
    w : ndarray, shape (n, 6)
        Stars about the Sun, in kpc and km/s (TypeError or ValueError if they are not finite or of another shape).
    distance, frame, motion
        As in `from_sky`.

    Examples
    --------
    >>> to_sky([[2.0, 0.0, 0.0, 10.0, 0.0, 0.0]], frame="galactic").round(6)
    array([[ 0. ,  0. ,  0.5,  0. ,  0. , 10. ]])
    """
    w = check.phase_space(w) - np.concatenate([np.zeros(3), motion])
    differential = CartesianDifferential(*(w[:, 3:].T * u.km / u.s))
    cartesian = CartesianRepresentation(*(w[:, :3].T * u.kpc), differentials=differential)
    seen = SkyCoord(cartesian, frame="galactic").transform_to(frame)
    seen = seen.represent_as(SphericalRepresentation, s=SphericalCosLatDifferential)
    proper = seen.differentials["s"]
    moving = proper.d_lon_coslat.to_value(_UNITS[3]), proper.d_lat.to_value(_UNITS[4])
    columns = seen.lon.to_value(u.deg), seen.lat.to_value(u.deg), _distance(seen.distance.to_value(u.kpc), distance)
    return np.column_stack([*columns, *moving, proper.d_distance.to_value(_UNITS[5])])


def log_volume(measured: np.ndarray, *, distance: str = "parallax") -> np.ndarray:
    """Return the log of the volume in phase space (n,) of a unit of volume of measured coordinates, up to a constant.

    Parameters
    ----------
    measured, distance : ndarray, shape (n, 6), str
        As in `from_sky`; NaN where a parallax is not positive.

    Examples
    --------
    >>> log_volume([[0.0, 0.0, 2.0, 0.0, 0.0, 0.0]], distance="distance").round(3)
    array([2.773])
    """
    _, latitude, far, *_ = _columns(measured)
    power = 6 if distance == "parallax" else 4  # a unit of parallax is d^2 units of distance
    return power * np.log(_distance(far, distance)) + np.log(np.cos(np.radians(latitude)))


def _columns(measured: np.ndarray) -> np.ndarray:
    """Return the six columns (6, n)."""
    array = check.numbers(measured, "measured")
    if array.ndim != 2 or array.shape[1] != 6:
        raise ValueError(f"measured must have shape (n, 6); got {array.shape}")
    return array.T


def _distance(value: np.ndarray, kind: str) -> np.ndarray:
    """Return distances of parallaxes, or parallaxes of distances; NaN where they are not positive."""
    if kind not in ("parallax", "distance"):
        raise ValueError(f"distance must be 'parallax' or 'distance'; got {kind!r}")
    positive = np.where(value > 0, value, np.nan)
    return 1 / positive if kind == "parallax" else positive
