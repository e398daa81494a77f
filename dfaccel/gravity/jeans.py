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
    w: np.ndarray, points: np.ndarray, *, coordinates: str = "spherical",
    weights: np.ndarray | None = None, n_bootstrap: int = 20, rng: np.random.Generator | int = 0,
) -> Accelerations:
    r"""Recover the acceleration at points from the moments of stars in equilibrium, without a distribution function.

    The logarithm of the squared circular speed is a spline in ln r. An axisymmetric force has a potential, which is a
    spline in ln r and height, and a part without potential, which fades unless the stars demand it. Restricted maximum
    likelihood chooses the smoothness of each part. A warning says if the stars miss the equations by more than noise.

    Parameters
    ----------
    w, points : ndarray, shapes (n, 6), (m, 3)
        Stars x y z vx vy vz relative to the centre, at least 1000, in any units, and positions. Beyond the stars the
        circular speed continues as a power of r between r^-1 and r^2.
    coordinates : str
        Symmetry: "spherical" with any anisotropy, or "axisymmetric" about z and mirrored at z = 0.
    weights : ndarray, shape (n,), optional
        For how much each star counts: its mass, or one over the known share of stars that are seen at its place.
    n_bootstrap, rng : int, Generator or int
        Bootstrap replicates, the ``members`` of the result, or 0, and the random generator for them, or its seed. Each
        replicate also draws an error of smoothing. ``condition`` is 1 and ``residual`` NaN: neither is defined here.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or range, or if the stars do not determine the acceleration.

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
    weights = np.ones(len(w)) if weights is None else check.weights(weights, len(w))
    system = _Jeans(w[:, :3], w[:, 3:], weights, coordinates == "axisymmetric", *_GRID[coordinates])
    try:
        coefficients = system.solve(draws, np.random.default_rng(rng))
    except np.linalg.LinAlgError:
        raise ValueError("w must determine its moments; too few of its stars differ in position and velocity") from None
    axes, u, cosine = system.split(points)
    model, r = system.model(u, cosine), np.exp(u)[:, None]
    value, *members = (sum(f[:, None] * axis for f, axis in zip(system.force(c, model)[0], axes, strict=True)) / r
                       for c in coefficients)
    members = np.reshape(members, (draws, *points.shape))
    deviation = members - members.sum(0) / max(draws, 1)
    covariance = np.einsum("kmi,kmj->mij", deviation, deviation) / (draws - 1 if draws > 1 else np.nan)
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


def _products(in_u: list, in_t: list, X: np.ndarray, T: np.ndarray) -> tuple[sparse.csr_array, list[sparse.csr_array]]:
    """Return products of splines in u with those in t, and r times their gradient, from both and their derivatives."""
    value, by_u, by_t = (sparse.csr_array(np.einsum("ni,nj->nij", a, b).reshape(len(a), -1))
                         for a, b in ((in_u[0], in_t[0]), (in_u[1], in_t[0]), (in_u[0], in_t[1])))
    return value, [_by(x) @ by_u + _by(t) @ by_t for x, t in zip(X, T, strict=True)]


def _natural(values: np.ndarray, bends: np.ndarray, free: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the penalties, the first ones zero, of the combinations of splines that diagonalize them, and those."""
    penalty, turn = eigh(bends.T @ bends / len(bends), values.T @ values / len(values))
    return np.r_[np.zeros(free), penalty[free:].clip(0)], turn


class _Jeans:
    """The equations in u = ln r and t, which runs from 0 in the plane to 1 on the axis; pairs are along R and z.

    The force is r a = -(f_u r grad u + f_t r grad t), f_u = Q (1 + psi_u + eta_u psi + chi), f_t = Q psi_t, where
    Q = exp(eta(u)). Without chi(u, t) it has a potential, the integral of Q plus Q psi(u, t).
    """

    def __init__(
        self, x: np.ndarray, v: np.ndarray, weights: np.ndarray, axial: bool, n_u: int, n_t: int, n_psi: int, n_a: int
    ) -> None:
        self.axial, self.line = axial, np.zeros(2)
        (across, up), u, cosine = self.split(x)
        self.lo, self.hi = lo, hi = np.sort(u)[[_EDGE, -_EDGE - 1]]
        if hi - lo < 0.1:
            raise ValueError(f"w must spread in radius; all but 20 stars lie at {np.exp(lo):.6g} to {np.exp(hi):.6g}")
        kept = (u >= lo) & (u < hi) & ((cosine != 0) | (not axial))
        if kept.sum() < check.MIN_STARS / 2 or not v[kept].any():
            raise ValueError(f"w must have {check.MIN_STARS // 2} or more stars{' off the plane z = 0' * axial}, not "
                             f"all at rest; got {kept.sum()} and a largest speed of {np.abs(v).max():.3g}")
        for block in np.array_split(u.argsort(), len(u) // 500):
            speed = np.linalg.norm(v[block], axis=1) * kept[block]
            if speed.max() > _FAST * np.median(speed) > 0:
                raise ValueError(f"w must be without unbound stars; got one {speed.max() / np.median(speed):.0f} times "
                                 f"as fast as others at its radius, at index {block[speed.argmax()]}")
        u, cosine, v = u[kept], cosine[kept], v[kept]
        self.line = np.polyfit(u, np.log(cosine), 1) if axial else self.line
        v_R, v_z = ((v * axis[kept]).sum(1) for axis in (across, up))
        moments = [v_R**2, v_R * v_z, v_z**2, (v**2).sum(1) - v_R**2 - v_z**2]
        self.moments = [weights[kept] * moment for moment in (np.ones(len(u)), *moments[:: 1 if axial else 3])]
        t = self.height(u, cosine)[0]
        self.cell = ((u - lo) / (hi - lo) * n_u).astype(int) * n_t + (t * n_t).astype(int).clip(0, n_t - 1)
        grid = (np.indices((n_u, n_t)).reshape(2, -1) + 0.5) / [[n_u], [n_t]]
        self.knots, u, t = np.linspace(lo, hi, n_a), lo + (hi - lo) * grid[0], axial * grid[1]
        _, e, whole = self.height(u, 0 * t)
        *_, X, T, _ = self.grid = self.model(u, e * np.sinh(t * whole))
        products = np.array([[np.bincount(self.cell, a * b, n_u * n_t) for b in self.moments] for a in self.moments])
        self.sums = np.array([np.bincount(self.cell, a, n_u * n_t) for a in self.moments])
        # products of moments are smoothed: a bin with few or slow stars by chance would have too much weight
        width = 0, 0, 0.25 * n_u / (hi - lo), 0.1 * n_t * axial
        smooth = gaussian_filter(products.reshape(*products.shape[:2], n_u, n_t), width, mode="nearest", truncate=3)
        share = products[0, 0] / np.maximum(smooth[0, 0].ravel(), _TINY)
        self.products = sparse.block_array([[_by(share * part.ravel()) for part in row] for row in smooth]).tocsr()
        # fields (R B, 0) and (0, z B), and the factor of each moment in their equations
        in_u = [_spline(u, np.linspace(lo, hi, n_psi), d, 3)[:, 1:-1] for d in (0, 1)]
        B, slopes = _products(in_u, [_even(t, d, 3)[:, : None if axial else 1] for d in (0, 1)], X, T)
        some = np.flatnonzero(B.T @ self.sums[0] > _FEW * B.max(axis=0).toarray().ravel())
        B = B[:, some]
        (RR, Rz), (zR, zz) = ([_by(x) @ slope[:, some] for slope in slopes] for x in X)
        pairs = [(_by(X[0]) @ B, 0 * B), (0 * B, _by(X[1]) @ B), (B + RR, 0 * B), (Rz, zR), (0 * B, B + zz), (B, 0 * B)]
        pairs = [sparse.hstack(pair[: 1 + axial], format="csr") for pair in pairs]
        self.fields, self.factors = pairs[: 1 + axial], pairs[2 :: 1 if axial else 3]
        # combinations of coefficients whose penalties are diagonal, one row for each strength of smoothing
        fine, rows, turns = np.linspace(0, 1, 400), [], []
        for order in _ORDERS[: 1 + 2 * axial]:
            p, turn = _natural(*(_spline(lo + (hi - lo) * fine, self.knots, d) for d in (0, order)), order)
            p_t, turn_t = _natural(_rise(fine, 1), _rise(fine, order), order - 2) if turns else (np.zeros(1), np.eye(1))
            rows.append(np.array([np.repeat(p, len(p_t)), np.tile(p_t, len(p))])[: 2 if turns else 1])
            turns.append(np.kron(turn, turn_t))
        self.turn, self.penalties = block_diag(*turns), block_diag(*rows)

    def split(self, x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Return unit vectors along R and z, away from axis and plane, ln r and |z| / r; a sphere has R = r."""
        parts = x * [1, 1, not self.axial], x * [0, 0, self.axial]
        sizes = [np.linalg.norm(part, axis=1) for part in parts]
        axes = [part / np.maximum(size, _TINY)[:, None] for part, size in zip(parts, sizes, strict=True)]
        r = np.maximum(np.hypot(*sizes), _TINY)
        return axes, np.log(r), sizes[1] / r

    def height(self, u: np.ndarray, cosine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return t = asinh(|z| / r e) / asinh(1 / e), the power e of r, four times typical z / r, and asinh(1 / e)."""
        e = 4 * np.exp(np.polyval(self.line, u.clip(self.lo, self.hi)))
        whole = np.arcsinh(1 / e)
        return (np.arcsinh(cosine / e) / whole).clip(0, 1), e, whole

    def model(self, u: np.ndarray, cosine: np.ndarray) -> tuple:
        """Return splines of eta, eta_u and psi, r grad psi; r grad u, which is x / r, r grad t, u beyond the stars."""
        at, c, (t, e, whole) = u.clip(self.lo, self.hi), cosine.clip(0, 1), self.height(u, cosine)
        X, by_c = np.array([np.sqrt(1 - c * c), c]), 1 / np.hypot(c, e) / whole
        T = by_c * X[0] * np.array([-c, X[0]]) + self.line[0] * (t / np.hypot(1, e) / whole - c * by_c) * X
        E, E_u = _spline(at, self.knots), _spline(at, self.knots, 1)
        rise = [_rise(t, d)[:, : None if self.axial else 0] for d in (0, 1)]
        F, slopes = _products([E, E_u * (u == at)[:, None]], rise, X, T)
        return sparse.csr_array(E), sparse.csr_array(E_u), F, slopes, X, T, u - at

    def force(self, c: np.ndarray, model: tuple) -> tuple[list, list]:
        """Return r a along R and z, and its derivatives by the coefficients."""
        E, E_u, F, slopes, X, _, beyond = model
        eta, psi, chi = np.split(c, [E.shape[1], E.shape[1] + F.shape[1]])
        slope = np.where(beyond == 0, E_u @ eta, (E_u @ eta).clip(-1, 2))  # a point mass, a homogeneous core
        Q, height, values, derivatives = np.exp(E @ eta + slope * beyond.clip(-60, 60)), F @ psi, [], []
        for x, grad in zip(X, slopes, strict=True):
            values.append(-Q * (x * (1 + slope * height + F @ chi) + grad @ psi))
            by_psi, by_chi = _by(Q) @ (_by(x * slope) @ F + grad), _by(Q * x) @ F
            derivatives.append(sparse.hstack([_by(values[-1]) @ E - _by(Q * x * height) @ E_u, -by_psi, -by_chi]))
        return values, derivatives

    def solve(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Return the coefficients and their replicates (1 + draws, K)."""

        def equations(b: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
            """Return the factors of the moments, the first one a times the fields, and the derivatives of the sums."""
            force, J = self.force(self.turn @ b, self.grid)
            pull = sum(_by(f) @ p for f, p in zip(force, self.fields, strict=False))
            slopes = sum(p.T @ _by(self.sums[0]) @ j for p, j in zip(self.fields, J, strict=False))
            return sparse.vstack([pull, *self.factors], format="csr"), slopes.toarray() @ self.turn

        n, K = self.sums.sum(1), self.grid[0].shape[1]
        b = np.linalg.solve(self.turn, np.log((n[1] + n[-1]) / n[0]) * (np.arange(len(self.turn)) < K))
        strengths = np.full(len(self.penalties), 100.0)
        for _ in range(_ITERATIONS):  # Gauss-Newton steps
            factors, A = equations(b)
            S = (factors.T @ (self.products @ factors)).toarray()
            L = np.linalg.cholesky(S + 1e-9 * np.diag(np.diag(S)))
            G = solve_triangular(L, -A, lower=True)
            y = solve_triangular(L, factors.T @ self.sums.ravel(), lower=True) + G @ b
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
            b = b + step / max(1, np.abs(self.grid[0] @ (self.turn @ step)[:K]).max())
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
        counts = np.array([np.bincount(group, m, self.sums.shape[1] * _GROUPS) for m in self.moments])
        error = G.T @ solve_triangular(L, equations(b)[0].T @ (counts.reshape(-1, _GROUPS) @ weight), lower=True)
        error += np.sqrt(P)[:, None] * rng.standard_normal(error.shape)
        return (self.turn @ np.column_stack([b, b[:, None] + inverse @ error])).T
