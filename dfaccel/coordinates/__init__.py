"""The registry of the coordinates a flow learns in; a new symmetry is one class in one file."""

import numpy as np

from dfaccel.coordinates.base import CoordinateMap
from dfaccel.coordinates.free import Bisymmetric, Flat, Linear, Radial
from dfaccel.coordinates.local import Local, Mirrored
from dfaccel.coordinates.symmetric import Axisymmetric, Spherical

COORDINATES = {m.name: m for m in (Spherical, Axisymmetric, Radial, Linear, Flat, Bisymmetric, Local, Mirrored)}
_NAMES = f"coordinates must be one of {', '.join(COORDINATES)}"


def coordinate_map(
    w: np.ndarray, coordinates: str | CoordinateMap = "radial", *, time_reversal: bool = False
) -> CoordinateMap:
    """Return the coordinate map of that name, with scales learned from the stars ``w`` (n, 6), or a map as it is."""
    if isinstance(coordinates, CoordinateMap):
        return coordinates
    if coordinates not in COORDINATES:
        raise ValueError(f"{_NAMES}, or a CoordinateMap; got {coordinates!r}")
    return COORDINATES[coordinates].from_stars(w, time_reversal=time_reversal)


def map_from_dict(values: dict) -> CoordinateMap:
    """Return the map that `CoordinateMap.to_dict` described, of today or of the first format."""
    values = {k: v for k, v in values.items() if k != "symmetry"}
    name = values.pop("name", None) or str(values.pop("kind", None)).lower()
    if name not in COORDINATES:
        raise ValueError(f"{_NAMES}; got {name!r}")
    return COORDINATES[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
