r"""The Jeans equations, solved for the acceleration: the simplest method, beside which a learned f has to stand.

In equilibrium the mean of :math:`v\cdot\psi(x)` is constant for every field :math:`\psi` that vanishes at the edge, so
:math:`\langle v_i v_j\,\partial_i\psi_j + a\cdot\psi\rangle = 0`: the Jeans equations in weak form, which need sums
over stars and no derivative of a density. Many narrow fields give many equations for one smooth a. The fourth moments
of the velocities give the covariance of their errors.
"""

import math
import warnings

import numpy as np
import torch
from scipy import sparse
from scipy.interpolate import BSpline
from scipy.linalg import block_diag, eigh, solve_triangular
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from dfaccel import _check as check
from dfaccel.coordinates import coordinate_map
from dfaccel.gravity.accelerations import Accelerations

_GRID = {"spherical": (1000, 1, 40, 30), "axisymmetric": (120, 60, 16, 16)}  # bins in u, in t; knots of fields, of a
_EDGE, _FEW = 10, 10  # stars left out at either end; in a field that counts
_FAST, _MISFIT = 30.0, 4.0  # speed over the median one that is refused; mean square misfit that is warned of
_ORDERS, _GROUPS, _ITERATIONS, _TINY = (3, 3, 2), 200, 30, 1e-300  # orders of the penalties of eta, psi and chi
_by = sparse.diags_array


def jeans(
    w: np.ndarray, points: np.ndarray, *, coordinates: str = "spherical", n_bootstrap: int = 20,
    rng: np.random.Generator | int = 0,
) -> Accelerations:
    r"""Recover the acceleration at points from the moments of stars in equilibrium, without a distribution function.

    The logarithm of the squared circular speed is a spline in ln r. An axisymmetric force has a potential, which is a
    spline in ln r and height, and a part without potential, which fades unless the stars demand it. Restricted maximum
    likelihood chooses the smoothness of each part.

    Parameters
    ----------
    w : ndarray, shape (n, 6)
        Stars x y z vx vy vz relative to the centre, at least 1000, in any units.
    points : ndarray, shape (m, 3)
        Positions, length. Beyond the stars the circular speed continues as a power of r between r^-1 and r^2.
    coordinates : str
        Symmetry: "spherical" with any anisotropy, or "axisymmetric" about z and mirrored at z = 0.
    n_bootstrap : int
        Bootstrap replicates, or 0. Each one also draws an error of smoothing from the distribution that was chosen.
    rng : Generator or int
        Random generator, or its seed, for the bootstrap.

    Returns
    -------
    Accelerations
        ``members`` are the replicates. ``condition`` is 1 and ``residual`` NaN, since neither is defined here.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or range, or if the stars do not determine the acceleration.

    Warns
    -----
    UserWarning
        If the stars miss the equations by more than their noise.

    Examples
    --------
    >>> import dfaccel as da
    >>> galaxy, x = da.Plummer(), np.array([[1.0, 0, 0]])
    >>> bool(jeans(galaxy.sample(20_000, rng=1), x).error(galaxy.acceleration(x)) < 0.05)
    True
    """
    w, points = check.phase_space(w), check.points(points)
    if coordinates not in _GRID:
        raise ValueError(f"coordinates must be one of {', '.join(_GRID)}; got {coordinates!r}")
    draws = 0 if n_bootstrap == 0 else check.count(n_bootstrap, "n_bootstrap")
    if len(w) < check.MIN_STARS:
        raise ValueError(f"w must have at least {check.MIN_STARS} stars for its moments; got {len(w)}")
    system = _Jeans(w[:, :3], w[:, 3:], coordinates == "axisymmetric", *_GRID[coordinates])
    try:
        coefficients = system.solve(draws, np.random.default_rng(rng))
    except np.linalg.LinAlgError:
        raise ValueError("w must determine its moments; too few of its stars differ in position and velocity") from None
    across, u, cosine = system.split(points)
    model = system.model(u, system.height(u, cosine))
    sides, r = [across, np.sign(cosine)[:, None]], np.exp(u)[:, None]
    value, *members = (np.hstack([f[:, None] * s for f, s in zip(system.force(c, *model)[0], sides, strict=False)]) / r
                       for c in coefficients)
    members = np.reshape(members, (draws, *points.shape))
    deviation = members - members.mean(0) if draws else members
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = np.einsum("kmi,kmj->mij", deviation, deviation) / np.float64(max(draws - 1, 0))
    place, some = coordinate_map(w, coordinates).position_coordinates, w[:: len(w) // 100_000 + 1, :3]
    near, where = (np.nan_to_num(place(torch.from_numpy(x)).numpy(), neginf=-1e9) for x in (some, points))
    n_near = cKDTree(near).query_ball_point(where, 0.5, return_length=True) * (len(w) / len(some))
    return Accelerations(points, value, members, covariance, 0 * n_near + 1, 0 * n_near + np.nan, n_near)


def _spline(x: np.ndarray, knots: np.ndarray, d: int = 0, k: int = 4) -> np.ndarray:
    """Return the B-splines of degree k at x (n,), or their d-th derivatives, (n, K)."""
    return BSpline(np.pad(knots, k, mode="edge"), np.eye(len(knots) + k - 1), k)(x, nu=d)


def _even(t: np.ndarray, d: int = 0, k: int = 4) -> np.ndarray:
    """Return the same for splines that are even about t = 0."""
    left, right = (_spline(s, np.linspace(-1, 1, 19), d, k) for s in (-t, t))
    return (right + (-1) ** d * left)[:, right.shape[1] // 2 :]


def _rise(t: np.ndarray, d: int = 0) -> np.ndarray:
    """Return the same for even splines that vanish at t = 0."""
    return (_even(t, d) - (d == 0) * _even(np.zeros(1)))[:, 1:]


def _times(a: np.ndarray, b: np.ndarray) -> sparse.csr_array:
    """Return each column of a times each of b."""
    return sparse.csr_array((a[:, :, None] * b[:, None]).reshape(len(a), -1))


def _natural(values: np.ndarray, bends: np.ndarray, free: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the penalties, the first ones zero, of the combinations of splines that diagonalize them, and those."""
    penalty, turn = eigh(bends.T @ bends / len(bends), values.T @ values / len(values))
    return np.r_[np.zeros(free), penalty[free:].clip(0)], turn


class _Jeans:
    """The equations in u = ln r and t, which runs from 0 in the plane to 1 on the axis; pairs are along R and z.

    The force is r a = -(f_u r grad u + f_t r grad t), f_u = Q (1 + psi_u + eta_u psi + chi), f_t = Q psi_t, where
    Q = exp(eta(u)). Without chi(u, t) it has a potential, the integral of Q plus Q psi(u, t).
    """

    def __init__(self, x: np.ndarray, v: np.ndarray, axial: bool, n_u: int, n_t: int, n_psi: int, n_a: int) -> None:
        self.axial, self.line = axial, np.zeros(2)
        across, u, cosine = self.split(x)
        self.lo, self.hi = lo, hi = np.sort(u)[[_EDGE, -_EDGE - 1]]
        if hi - lo < 0.1:
            raise ValueError(f"w must spread in radius; all but 20 stars lie at {np.exp(lo):.6g} to {np.exp(hi):.6g}")
        kept = (u >= lo) & (u < hi) & ((cosine != 0) | (not axial))
        if kept.sum() < check.MIN_STARS / 2 or not v[kept].any():
            where = " off the plane z = 0" * axial
            raise ValueError(f"w must have {check.MIN_STARS // 2} or more stars{where}, not all at rest; got "
                             f"{kept.sum()} and a largest speed of {np.abs(v).max():.3g}")
        for block in np.array_split(u.argsort(), len(u) // 500):
            speed = np.linalg.norm(v[block], axis=1) * kept[block]
            if speed.max() > _FAST * np.median(speed) > 0:
                raise ValueError(f"w must be without unbound stars; got one {speed.max() / np.median(speed):.0f} times "
                                 f"as fast as others at its radius, at index {block[speed.argmax()]}")
        across, u, cosine, v = across[kept], u[kept], cosine[kept], v[kept]
        self.line = np.polyfit(u, np.log(np.abs(cosine)), 1) if axial else self.line
        v_R, v_z = (across * v[:, : 3 - axial]).sum(1), axial * v[:, 2] * np.sign(cosine)
        moments = [v_R**2, v_R * v_z, v_z**2, (v**2).sum(1) - v_R**2 - v_z**2]
        self.moments, self.bins = [np.ones(len(u)), *moments[:: 1 if axial else 3]], n_u * n_t
        self.cell = ((u - lo) / (hi - lo) * n_u).astype(int) * n_t
        self.cell += (self.height(u, cosine) * n_t).astype(int).clip(0, n_t - 1)
        grid = np.indices((n_u, n_t)).reshape(2, -1) + 0.5
        self.knots, u, t = np.linspace(lo, hi, n_a), lo + (hi - lo) * grid[0] / n_u, axial * grid[1] / n_t
        self.grid = self.model(u, t)

        def smooth(a: np.ndarray) -> np.ndarray:
            width = 0.25 * n_u / (hi - lo), 0.1 * n_t * axial
            return gaussian_filter(a.reshape(n_u, n_t), width, mode="nearest", truncate=3).ravel()

        # products of moments are smoothed: a bin with few or slow stars by chance would have too much weight
        n, *_ = self.sums = [np.bincount(self.cell, m, self.bins) for m in self.moments]
        share = n / np.maximum(smooth(n), _TINY)
        self.products = [[_by(share * smooth(np.bincount(self.cell, a * b, self.bins))) for b in self.moments]
                         for a in self.moments]
        # fields (R B, 0) and (0, z B), and the factor of each moment in their equations
        (X, T, _), in_u = self.grid[1], [_spline(u, np.linspace(lo, hi, n_psi), d, 3)[:, 1:-1] for d in (0, 1)]
        in_t = [_even(t, d, 3) if axial else np.full((len(t), 1), 1.0 - d) for d in (0, 1)]
        B, B_u, B_t = (_times(in_u[i], in_t[j]) for i, j in ((0, 0), (1, 0), (0, 1)))
        some = np.flatnonzero(B.T @ n > _FEW * B.max(axis=0).toarray().ravel())
        B, B_u, B_t = B[:, some], B_u[:, some], B_t[:, some]
        (RR, Rz), (zR, zz) = ([_by(X[i] * X[j]) @ B_u + _by(X[i] * T[j]) @ B_t for j in (0, 1)] for i in (0, 1))
        pairs = [(_by(X[0]) @ B, 0 * B), (0 * B, _by(X[1]) @ B), (B + RR, 0 * B), (Rz, zR), (0 * B, B + zz), (B, 0 * B)]
        pairs = [sparse.hstack(pair[: 1 + axial], format="csr") for pair in pairs]
        self.fields, self.factors = pairs[:2], pairs[2 :: 1 if axial else 3]
        # combinations of coefficients whose penalties are diagonal, one row for each strength of smoothing
        fine, rows, turns = np.linspace(0, 1, 400), [], []
        for order in _ORDERS[: 1 + 2 * axial]:
            p, turn = _natural(*(_spline(lo + (hi - lo) * fine, self.knots, d) for d in (0, order)), order)
            p_t, turn_t = _natural(_rise(fine, 1), _rise(fine, order), order - 2) if turns else (np.zeros(1), np.eye(1))
            rows.append(np.array([np.repeat(p, len(p_t)), np.tile(p_t, len(p))])[: 2 if turns else 1])
            turns.append(np.kron(turn, turn_t))
        self.turn, self.penalties = block_diag(*turns), block_diag(*rows)
        self.parts = np.cumsum([len(turn) for turn in turns])

    def split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the direction away from the axis (the centre, if spherical), ln r and z / r."""
        z, R = self.axial * x[:, 2], np.linalg.norm(x[:, : 3 - self.axial], axis=1)
        r = np.maximum(np.hypot(R, z), _TINY)
        return x[:, : 3 - self.axial] / np.maximum(R, _TINY)[:, None], np.log(r), z / r

    def typical(self, u: np.ndarray) -> np.ndarray:
        """Return four times the typical z / r of stars, a power of r."""
        return 4 * np.exp(np.polyval(self.line, u.clip(self.lo, self.hi)))

    def height(self, u: np.ndarray, cosine: np.ndarray) -> np.ndarray:
        """Return t."""
        e = self.typical(u)
        return self.axial * (np.arcsinh(np.abs(cosine) / e) / np.arcsinh(1 / e)).clip(0, 1)

    def model(self, u: np.ndarray, t: np.ndarray) -> tuple[list, tuple]:
        """Return splines of eta, eta_u, psi, psi_u, psi_t; r grad u, which is x / r, r grad t, u beyond the stars."""
        at, e = u.clip(self.lo, self.hi), self.typical(u)
        E, E_u = _spline(at, self.knots), _spline(at, self.knots, 1)
        if not self.axial:
            flat = np.zeros((2, len(u)))
            return [sparse.csr_array(E), sparse.csr_array(E_u)], (flat + np.eye(2)[:, :1], flat, u - at)
        whole = np.arcsinh(1 / e)
        c = (e * np.sinh(t * whole)).clip(0, 1)
        X, by_c = np.array([np.sqrt(1 - c * c), c]), 1 / np.hypot(c, e) / whole
        T = by_c * X[0] * np.array([-c, X[0]]) + self.line[0] * (t / np.hypot(1, e) / whole - c * by_c) * X
        psi = _times(E, _rise(t)), _times(E_u * (u == at)[:, None], _rise(t)), _times(E, _rise(t, 1))
        return [sparse.csr_array(E), sparse.csr_array(E_u), *psi], (X, T, u - at)

    def force(self, c: np.ndarray, basis: list, place: tuple) -> tuple[np.ndarray, list[sparse.csr_array]]:
        """Return r a along R and, if axisymmetric, z, and its derivatives by the coefficients."""
        (E, E_u, *rest), (eta, *more), (X, T, beyond) = basis, np.split(c, self.parts[:-1]), place
        slope = np.where(beyond == 0, E_u @ eta, (E_u @ eta).clip(-1, 2))  # a point mass, a homogeneous core
        Q = np.exp(E @ eta + slope * beyond.clip(-60, 60))
        f_u, f_t, by_u, by_t = Q, 0 * Q, [_by(Q) @ E], [0 * E]
        if self.axial:
            F, F_u, F_t = (_by(Q) @ f for f in rest)
            F_u, psi = F_u + _by(slope) @ F, F @ more[0]
            f_u, f_t = Q + F_u @ more[0] + F @ more[1], F_t @ more[0]
            by_u, by_t = [_by(f_u) @ E + _by(psi) @ E_u, F_u, F], [_by(f_t) @ E, F_t, 0 * F]
        J_u, J_t, axes = sparse.hstack(by_u), sparse.hstack(by_t), range(1 + self.axial)
        return -np.array([f_u * X[i] + f_t * T[i] for i in axes]), [-(_by(X[i]) @ J_u + _by(T[i]) @ J_t) for i in axes]

    def solve(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Return the coefficients and their replicates (1 + draws, K)."""
        n, K, square = self.sums[0], self.parts[0], self.products
        measured = sum(f.T @ m for f, m in zip(self.factors, self.sums[1:], strict=True))
        among = sum(f.T @ part @ g for f, row in zip(self.factors, square[1:], strict=True)
                    for part, g in zip(row[1:], self.factors, strict=True))
        mixed = sum(square[0][i] @ f for i, f in enumerate(self.factors, 1))

        def equations(b: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
            """Return the factor of the number of stars, which is a times the fields, and its derivatives times n."""
            force, J = self.force(self.turn @ b, *self.grid)
            pull = sum(_by(f) @ p for f, p in zip(force, self.fields, strict=False))
            return pull, sum(p.T @ _by(n) @ j for p, j in zip(self.fields, J, strict=False)).toarray() @ self.turn

        speed2 = sum(self.sums[i].sum() for i in (1, -1)) / n.sum()
        b = np.linalg.solve(self.turn, np.r_[np.full(K, np.log(speed2)), np.zeros(self.parts[-1] - K)])
        strengths = np.full(len(self.penalties), 100.0)
        for _ in range(_ITERATIONS):  # Gauss-Newton steps
            pull, A = equations(b)
            S = (among + pull.T @ mixed + mixed.T @ pull + pull.T @ square[0][0] @ pull).toarray()
            scale = 1 / np.sqrt(np.diag(S))
            L = np.linalg.cholesky(S * scale[:, None] * scale + 1e-9 * np.eye(len(S)))
            G = solve_triangular(L, -scale[:, None] * A, lower=True)
            y = solve_triangular(L, scale * (measured + pull.T @ n), lower=True) + G @ b
            H = G.T @ G
            for _ in range(2):  # steps to the maximum of the restricted likelihood (Wood & Fasiolo 2017)
                P, before = strengths @ self.penalties, strengths
                inverse = np.linalg.inv(H + np.diag(P))
                new = inverse @ (G.T @ y)
                left = np.divide(1, P, where=P > 0, out=np.zeros_like(P)) - np.diag(inverse)
                gain = np.maximum(self.penalties @ left, 1e-12) / np.maximum(self.penalties @ new**2, _TINY)
                strengths = (strengths * gain.clip(0.02, 50)).clip(1e-6, 1e10)
            step = new - b
            moved = np.sqrt((step @ H @ step + P @ step**2) / np.trace(inverse @ H))  # in standard deviations
            b = b + step / max(1, np.abs(self.grid[0][0] @ (self.turn @ step)[:K]).max())
            if moved < 0.03 and np.abs(np.log(strengths / before)).max() < 0.1:
                break
        if not moved < 1:
            raise ValueError("w must be in equilibrium with the symmetry assumed; its equations have no solution")
        misfit = np.mean((y - G @ new) ** 2)
        if misfit > _MISFIT:
            warnings.warn(f"the stars miss the Jeans equations by {math.sqrt(misfit):.1f} standard deviations; they "
                          "are not independent or not in equilibrium", stacklevel=3)
        # bootstrap of groups of stars, linear in the errors of the equations
        group = self.cell * _GROUPS + rng.integers(_GROUPS, size=len(self.cell))
        weight = rng.multinomial(_GROUPS, np.full(_GROUPS, 1 / _GROUPS), size=draws).T - 1.0
        error = np.zeros((len(y), draws))
        for f, m in zip([equations(b)[0], *self.factors] if draws else (), self.moments, strict=bool(draws)):
            error += f.T @ (np.bincount(group, m, self.bins * _GROUPS).reshape(-1, _GROUPS) @ weight)
        error = G.T @ solve_triangular(L, scale[:, None] * error, lower=True)
        error += np.sqrt(P)[:, None] * rng.standard_normal(error.shape)
        return (self.turn @ np.column_stack([b, b[:, None] + inverse @ error])).T
