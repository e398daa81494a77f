r"""One potential behind all accelerations: a sum of atoms of mass, none of them negative.

An acceleration solved for at each place alone may have a curl, or need a density below zero. Here
:math:`a = -\nabla\Phi` with :math:`\Phi = -\sum_j G m_j / \sqrt{R_j^2 + (a_j + \sqrt{z_j^2 + b_j^2})^2}` and
:math:`m_j \ge 0`: Plummer spheres (a = 0) and Miyamoto-Nagai discs, anywhere. All places together decide the masses.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from dfaccel import _check as check
from dfaccel.axes import lattice
from dfaccel.gravity.accelerations import HUBER
from dfaccel.gravity.solve import Equations, together
from dfaccel.gravity.unknowns import Acceleration, Estimate, Unknown, estimates, ridges
from dfaccel.gravity.velocities import N_LENDERS, warn_of
from dfaccel.systems.base import DistributionFunction, real
from dfaccel.systems.disc import disc_acceleration, disc_density, disc_potential

SHAPES = ("spherical", "axisymmetric", "free")
_TAIL = 0.003  # share of the stars beyond the outermost place, and of those within the innermost
_FLAT = 0.3  # median height over median radius below which atoms are flattened too
_NOWHERE = 1e100  # where a poorly trained flow throws some stars
_ANYWHERE = 500  # atoms that are not at the centre
_ZOOMS, _STEP = 6, 0.3  # times that the sizes of the atoms in use are refined, and the first step of their logarithms
_LEAST, _MOST = 1e-4, 60  # share in the pull somewhere that an atom must have to be kept; atoms that are refined
_ROUNDS = 5  # of the weights of the places
_GUESS = 2.0  # times the radius of the outermost place beyond which there is a warning
_PRICE = 3.6  # standard deviations of noise that an atom off the centre must be worth: sqrt(2 ln J)


@dataclass(frozen=True)
class Potential:
    """A potential of J atoms with its members; made by `potential`. Methods take positions (..., 3) in user units.

    Parameters
    ----------
    centres : ndarray, shape (J, 3)
        Where the atoms are, length.
    a, b : ndarray, shape (J,)
        Their scale lengths (Miyamoto & Nagai 1975); a Plummer sphere has a = 0.
    masses : ndarray, shape (J,)
        Their masses.
    members : tuple of Potential
        The potential of each member of the ensemble alone: their scatter is the error of anything computed from it.
    places : ndarray, shape (m, 3)
        Where accelerations were solved for. Farther out than twice the last of them the potential is a guess, and a
        warning says so.
    G : float
        Gravitational constant in the units of the stars.
    besides : dict of Estimate
        Other unknowns that were solved for, by name.

    Examples
    --------
    >>> phi = Potential(np.zeros((1, 3)), np.array([0.0]), np.array([1.0]), np.array([1.0]), (), np.zeros((0, 3)))
    >>> float(phi.potential([0.0, 0, 0])), float(phi.density([0.0, 0, 0]) * 4 * np.pi / 3)
    (-1.0, 1.0)
    """

    centres: np.ndarray
    a: np.ndarray
    b: np.ndarray
    masses: np.ndarray
    members: tuple[Self, ...]
    places: np.ndarray
    G: float = 1.0
    besides: dict[str, Estimate] = field(default_factory=dict)

    def _away(self, x: np.ndarray) -> np.ndarray:
        """Return positions (..., J, 3) relative to each atom; warn of those where the potential is a guess."""
        x, most = real(x, "x", 3), _GUESS * np.linalg.norm(self.places, axis=1).max(initial=0)
        if most:
            sentence = "are more than twice as far out as any place that was solved for; the potential is a guess there"
            warn_of(np.atleast_1d(np.linalg.norm(x, axis=-1) > most).ravel(), sentence)
        return x[..., None, :] - self.centres

    def potential(self, x: np.ndarray) -> np.ndarray:
        """Return the potential (...), zero at infinity."""
        return disc_potential(self._away(x), self.G, self.a, self.b) @ self.masses

    def acceleration(self, x: np.ndarray) -> np.ndarray:
        """Return the acceleration (..., 3)."""
        return self._pulls(x) @ self.masses

    def _pulls(self, x: np.ndarray) -> np.ndarray:
        """Return the acceleration (..., 3, J) by each atom of unit mass."""
        return np.swapaxes(disc_acceleration(self._away(x), self.G, self.a, self.b), -1, -2)

    def density(self, x: np.ndarray) -> np.ndarray:
        """Return the mass density (...), that of Poisson's equation: positive everywhere."""
        return disc_density(self._away(x), 1.0, self.a, self.b) @ self.masses

    def enclosed_mass(self, r: np.ndarray, n_directions: int = 256) -> np.ndarray:
        """Return the mass (...) within spheres of radius ``r`` (...) around the origin, by Gauss's law."""
        r, u = check.numbers(r, "r")[..., None], lattice(n_directions)
        return -((self.acceleration(r[..., None] * u) * u).sum(-1) * r**2).mean(-1) / self.G

    def circular_speed(self, R: np.ndarray, n_angles: int = 64) -> np.ndarray:
        """Return the circular speed (...) in the plane z = 0 at ``R`` (...), of the azimuthal mean of the pull."""
        phi = 2 * np.pi * np.arange(n_angles) / n_angles
        u, R = np.stack([np.cos(phi), np.sin(phi), 0 * phi], axis=-1), check.numbers(R, "R")[..., None]
        pull = -(self.acceleration(R[..., None] * u) * u).sum(-1).mean(-1)
        return np.sqrt(R[..., 0] * np.maximum(pull, 0))

    def standard_error(self, quantity: Callable[[Self], np.ndarray]) -> np.ndarray:
        """Return the standard deviation over members of what ``quantity`` makes of a potential; NaN for a single one.

        For example ``phi.standard_error(lambda member: member.density(x))``.
        """
        values = [quantity(member) for member in self.members]
        return np.std(values, axis=0, ddof=1) if len(values) > 1 else np.full_like(quantity(self), np.nan)

    def to_galpy(self) -> Any:
        """Return the sum of galpy potentials, one an atom, in the units of the stars (``ro``, ``vo`` are not set)."""
        from galpy.potential import MiyamotoNagaiPotential, RotateAndTiltWrapperPotential  # slow to import

        atoms = []
        for centre, a, b, m in zip(self.centres, self.a, self.b, self.masses, strict=True):
            atom = MiyamotoNagaiPotential(amp=self.G * m, a=a, b=b)
            atoms.append(RotateAndTiltWrapperPotential(pot=atom, offset=-centre) if centre.any() else atom)
        return sum(atoms[1:], atoms[0])

    def to_gala(self, units: Any = None) -> Any:
        """Return a gala potential of all atoms, in ``units`` of gala, or dimensionless with G = 1."""
        if units is None and self.G != 1:
            raise ValueError(f"gala's dimensionless units have G = 1; got G = {self.G!r}: give units")
        try:
            from gala import potential as gp  # an optional dependency
        except ImportError:
            raise ImportError("to_gala needs gala, which is not installed: pip install gala") from None
        atoms = gp.CCompositePotential()
        for j, (c, a, b, m) in enumerate(zip(self.centres, self.a, self.b, self.masses, strict=True)):
            atoms[f"atom{j}"] = gp.MiyamotoNagaiPotential(m=m, a=a, b=b, origin=c, units=units)
        return atoms

    def _chosen(self, chosen: np.ndarray, masses: np.ndarray) -> Self:
        """Return the atoms chosen, with other masses."""
        return replace(self, centres=self.centres[chosen], a=self.a[chosen], b=self.b[chosen], masses=masses[chosen])


def potential(
    df: DistributionFunction, *, besides: Sequence[Unknown] = (), shape: str | None = None, G: float = 1.0,
    n_places: int = 1000, n_velocities: int = 250, places: np.ndarray | None = None,
    rng: np.random.Generator | int = 0,
) -> Potential:
    r"""Recover the gravitational potential of a distribution function in equilibrium, all places together.

    The accelerations of many places, with the weights that the members' scatter gives them, are fitted by masses that
    are not negative (Lawson & Hanson 1974). Atoms of many sizes at the centre come first; atoms elsewhere must be worth
    3.6 standard deviations of noise each. The sizes of the atoms in use are then refined.

    Parameters
    ----------
    df : DistributionFunction
        Learned or exact distribution function.
    besides : list of Unknown
        More that is not known, and solved for at the same time: `PatternSpeed`, `SmoothSelection`, `Expansion`.
    shape : {"spherical", "axisymmetric", "free"}, optional
        Shape of the potential; by default the symmetry in which f was learned.
    G : float
        Gravitational constant in the units of the stars.
    n_places, n_velocities : int
        Places, spread evenly in the logarithm of the radius, and velocities at each.
    places : ndarray, shape (m, 3), optional
        Places to use instead.
    rng : Generator or int
        Random generator, or its seed.

    Returns
    -------
    Potential
        With ``members``, one of each member of the ensemble, and ``besides``, the estimates of the other unknowns.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type or value; if no masses that are not negative pull as the stars demand.

    Warns
    -----
    UserWarning
        If the data cannot tell unknowns apart. Those of ``besides`` are NaN then.

    Notes
    -----
    The atoms of a "free" potential suit a bar in a thin disc poorly, and a pattern speed beside them is then wrong too:
    use `solve`, place by place. Another ``rng`` draws other places; the difference shows what the draw is worth.

    Examples
    --------
    >>> import dfaccel as da
    >>> galaxy = da.Plummer()
    >>> phi = potential(galaxy, shape="spherical", n_places=100, n_velocities=50)
    >>> bool(abs(phi.density([0.5, 0, 0]) / galaxy.density(np.array([0.5, 0, 0])) - 1) < 1e-3)
    True
    """
    check.positive(G, "G")
    rng = np.random.default_rng(rng)
    stars = df.lenders(N_LENDERS, rng)
    coordinates = df.neighbourhood(stars)
    if shape is None:
        shape = "spherical" if coordinates.round else "axisymmetric" if coordinates.axial else "free"
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}; got {shape!r}")
    x = stars[(np.abs(stars[:, :3]) < _NOWHERE).all(1), :3]
    if places is None:
        flat = np.median(np.abs(x[:, 2])) < _FLAT * np.median(np.linalg.norm(x, axis=1))
        places = spread_places(x, check.count(n_places, "n_places"), shape != "spherical" and flat, rng)
    places = check.points(places)
    equations = Equations(df, places, [Acceleration(), *besides], n_velocities, None, rng, HUBER)
    others = [u.design(places) for u in besides]
    for unknown, design in zip(besides, others, strict=True):
        if design is None:
            raise ValueError(f"besides must hold unknowns that all places share; {unknown.name} is free at each "
                             "(SmoothSelection is the shared form of Selection)")
    ridge = ridges(besides, others)
    strength = together(equations, [None, *others], ridge=ridge)[1] if ridge.any() else None

    def masses(atoms: Potential, priced: np.ndarray, rounds: int) -> np.ndarray:
        """Return the parameters (S, J) of atoms and of the other unknowns."""
        prices, held = np.r_[_PRICE * priced, np.full(len(ridge), np.nan)], np.r_[0 * priced, ridge]
        designs = [atoms._pulls(places), *others]
        return together(equations, designs, ridge=held, strength=strength, price=prices, rounds=rounds)[0]

    centres, a, b, priced = _family(x, shape, rng)
    atoms = Potential(centres, a, b, np.ones(len(b)), (), places, G)
    found = masses(atoms, priced, _ROUNDS)
    for k in range(_ZOOMS):
        pulls, m = atoms._pulls(places), found[0, : len(priced)]
        whole = np.linalg.norm(pulls @ m, axis=1, keepdims=True).clip(1e-300)
        share = (np.linalg.norm(pulls, axis=1) * m / whole).max(0)
        used = share > _LEAST
        if used.sum() > _MOST:  # f is exact or nearly so, and many sizes describe it well enough as they are
            break
        if not used.any():
            raise ValueError("no masses that are not negative pull as these stars demand: are they in equilibrium, and "
                             "about the origin? Use dfaccel.accelerations, which solves each place alone")
        atoms = _finer(atoms._chosen(used, np.ones(len(used))), _STEP * 2.0**-k, bool(atoms.a.any()))
        priced = np.zeros(len(atoms.b))
        found = masses(atoms, priced, 2)
    n = len(priced)
    members = tuple(atoms._chosen(m > 0, m) for m in found[1:, :n])
    extra, (gone, _, confused) = estimates([u.name for u in besides], others, found[:, n:]), equations.told_apart(True)
    extra = {name: estimate.without(gone[name]) for name, estimate in extra.items()}
    for sentence in confused:
        warnings.warn(sentence, stacklevel=2)
    return replace(atoms._chosen(found[0, :n] > 0, found[0, :n]), members=members, besides=extra)


def spread_places(x: np.ndarray, n: int, axial: bool, rng: np.random.Generator) -> np.ndarray:
    """Return n of the positions (N, 3), spread evenly in the logarithm of the radius (of R if axial)."""
    size = np.log(np.linalg.norm(x[:, : 2 if axial else 3], axis=1))
    order = size.argsort()
    lo, hi = np.quantile(size, (_TAIL, 1 - _TAIL))
    return x[order[np.searchsorted(size[order], rng.uniform(lo, hi, n))]]


def _family(x: np.ndarray, shape: str, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return centres (J, 3), a, b (J,) of atoms to choose from, and which of them have a price (J,)."""
    r, height = np.linalg.norm(x, axis=1), np.quantile(np.abs(x[:, 2]), 0.1)
    lo, hi = np.quantile(r, (_TAIL, 1 - _TAIL))
    flat = shape == "axisymmetric" or np.median(np.abs(x[:, 2])) < _FLAT * np.median(r)
    spheres, n_a, n_b = np.geomspace(lo / 4, 8 * hi, 60), *((30, 24) if shape == "axisymmetric" else (16, 14))
    sizes = np.r_[0, np.geomspace(lo / 2, 4 * hi, n_a)], np.geomspace(min(height, lo) / 2, hi, n_b)
    a, b = (size.ravel() for size in np.meshgrid(*sizes)) if flat else (0 * spheres, spheres)
    centres, priced = np.zeros((len(b), 3)), np.zeros(len(b))
    if shape == "free":
        some = spread_places(x, _ANYWHERE, flat, rng)
        size = 0.45 * np.linalg.norm(some, axis=1)
        thin = flat * (np.arange(len(some)) % 2)  # every other one is a small disc
        centres, priced = np.concatenate([centres, some]), np.r_[priced, np.ones(len(some))]
        a, b = np.r_[a, thin * size], np.r_[b, np.where(thin, 2 * height, size)]
    return centres, a, b, priced


def _finer(atoms: Potential, step: float, axial: bool) -> Potential:
    """Return the atoms and their neighbours a step away in ln b and, if axial, in ln a."""
    a, b = np.meshgrid([-step, 0.0, step] if axial else [0.0], [-step, 0.0, step])
    a, b = ((size[:, None] * np.exp(change.ravel())).ravel() for size, change in ((atoms.a, a), (atoms.b, b)))
    where = np.column_stack([np.repeat(atoms.centres, len(b) // len(atoms.b), axis=0), a, b])
    where = np.unique(where.round(12), axis=0)
    return replace(atoms, centres=where[:, :3], a=where[:, 3], b=where[:, 4], masses=np.ones(len(where)))
