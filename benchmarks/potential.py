"""One potential for all places against accelerations solved place by place, on the ensembles the book ships.

    python benchmarks/potential.py            # five ensembles, three draws of places each; a quarter of an hour

Errors of the whole vector at the score card's points, and of the density between 0.5 and 10 scale radii (of the disc:
at the score card's points). "pointwise" is `dfaccel.accelerations`, "round" and "free" are `dfaccel.potential` with
that shape, "own" that in which f was learned; "galpy" is the strong prior: galpy's own family (a Hernquist sphere or a
Miyamoto-Nagai disc) fitted to the pointwise accelerations. Writes `notebooks/results/potential.ecsv`; started again, it
does only what is missing. The score card's points differ from draw to draw, the ensembles do not.

Then orbits in the potentials of the ensembles without symmetry, into `notebooks/results/orbits_potential.ecsv`: 50
stars of the galaxy that are now between 1 and 5 scale radii ("any"), and 50 whose whole orbit lies there ("between"),
in the recovered and in the true potential, both integrated by gala over ten circular periods. The separation is the
distance between the two places of a star at the same time, over its true radius: the median over the ten periods, and
the median and the 90th percentile of that over orbits; "last" is the median over the last period; "range" is the
relative error of the largest radius.
"""

import time

import gala.dynamics as gd
import gala.potential as gp
import numpy as np
import torch
from galpy.potential import HernquistPotential, MiyamotoNagaiPotential, evaluateRforces, evaluatezforces
from scipy.optimize import least_squares
from table import MODELS, RESULTS, Rows, parser

import dfaccel as da
from dfaccel.gravity.scorecard import score_points

KEYS, ORBITS = ("ensemble", "number", "method"), ("ensemble", "number", "orbits")
ENSEMBLES = {
    "hernquist_iso": (da.Hernquist(), ("own",)), "hernquist_aniso": (da.Hernquist(beta=0.5), ("own",)),
    "hernquist_iso_free": (da.Hernquist(), ("round", "free")),
    "hernquist_aniso_free": (da.Hernquist(beta=0.5), ("round", "free")), "disc": (da.MiyamotoNagai(), ("own",)),
}  # fmt: skip
SHAPES = {"own": None, "round": "spherical", "free": "free"}


def parametric(points: np.ndarray, value: np.ndarray, flat: bool) -> np.ndarray:
    """Return the accelerations (m, 3) of galpy's family that suits those given best."""
    R, size = np.hypot(points[:, 0], points[:, 1]), np.linalg.norm(value, axis=1)[:, None]

    def pull(logs: np.ndarray) -> np.ndarray:
        m, *lengths = np.exp(logs)
        galaxy = MiyamotoNagaiPotential(amp=m, a=lengths[0], b=lengths[1]) if flat else \
            HernquistPotential(amp=2 * m, a=lengths[0])
        radial, up = (f(galaxy, R, points[:, 2], use_physical=False) for f in (evaluateRforces, evaluatezforces))
        return np.column_stack([radial[:, None] * points[:, :2] / R[:, None], up])

    start = np.log([0.5, 2.0, 0.3] if flat else [0.5, 2.0])
    fit = least_squares(lambda logs: ((pull(logs) - value) / size).ravel(), start, loss="soft_l1", f_scale=0.02)
    return pull(fit.x)


def measure(name: str, number: int, methods: set[str]) -> list[dict]:
    """Return the rows of some methods on one ensemble."""
    model, (galaxy, shapes) = da.load(MODELS / name), ENSEMBLES[name]
    flat, rng = name == "disc", np.random.default_rng([17, number])
    points, rows = score_points(flat=flat, rng=rng), []
    truth = galaxy.acceleration(points)
    x = points if flat else np.geomspace(0.5, 10, 200)[:, None] * da.directions(200, rng)

    def add(method: str, value: np.ndarray, density: np.ndarray | None, seconds: float) -> None:
        error = np.linalg.norm(value - truth, axis=1) / np.linalg.norm(truth, axis=1)
        off = np.nan if density is None else np.median(np.abs(density / galaxy.density(x) - 1))
        rows.append(dict(zip(KEYS, (name, number, method), strict=True)) | {
            "median": np.median(error), "p90": np.quantile(error, 0.9), "density": off, "seconds": seconds,
        })  # fmt: skip

    started = time.process_time()
    value = da.accelerations(model, points, rng=number, warn=False).value
    add("pointwise", value, None, time.process_time() - started)
    add("galpy", parametric(points, value, flat), None, np.nan)
    for shape in shapes:
        started = time.process_time()
        phi = da.potential(model, shape=SHAPES[shape], rng=number)
        add(shape, phi.acceleration(points), phi.density(x), time.process_time() - started)
    return [row for row in rows if row["method"] in methods]


def stars_of(galaxy: da.Hernquist, kind: str, rng: np.random.Generator, n: int = 50) -> np.ndarray:
    """Draw stars (n, 6) that are between 1 and 5 scale radii, if "between" for ever."""
    w = galaxy.sample(100_000, rng=rng)
    r, _, v_t = da.spherical(w)
    chosen = (r > 1) & (r < 5)
    if kind == "between":
        energy, spin2 = (w[:, 3:] ** 2).sum(1) / 2 + galaxy.potential(w[:, :3]), (r * v_t) ** 2
        for edge in (1.0, 5.0):  # no star of that energy and angular momentum reaches it
            chosen &= 2 * (energy + 1 / (1 + edge)) < spin2 / edge**2
    return w[chosen][:n]


def drift(phi: da.Potential, stars: np.ndarray) -> dict[str, float]:
    """Return how far the orbits of stars (n, 6) in the recovered potential are from those in a Hernquist sphere."""
    fields, rows = (phi.to_gala(), gp.HernquistPotential(m=1, c=1)), []
    for w in stars:
        r = np.linalg.norm(w[:3])
        t = np.linspace(0, 10 * 2 * np.pi * np.sqrt(r) * (1 + r), 2001)
        start = gd.PhaseSpacePosition(pos=w[:3], vel=w[3:])
        ours, true = (f.integrate_orbit(start, t=t, Integrator="dopri853").xyz.value for f in fields)
        radii = np.linalg.norm(ours, axis=0), np.linalg.norm(true, axis=0)
        apart = np.linalg.norm(ours - true, axis=0) / radii[1]
        rows.append((np.median(apart), np.median(apart[-200:]), abs(radii[0].max() / radii[1].max() - 1)))
    median, last, reach = np.median(rows, axis=0)
    p90 = np.quantile([row[0] for row in rows], 0.9)
    return {"separation": median, "p90": p90, "last": last, "range": reach}


def follow(name: str, number: int) -> list[dict]:
    """Return the rows of orbits in the potential of one ensemble."""
    galaxy, shapes = ENSEMBLES[name]
    phi = da.potential(da.load(MODELS / name), shape=SHAPES[shapes[-1]], rng=number)
    kinds = {kind: stars_of(galaxy, kind, np.random.default_rng([18, number])) for kind in ("any", "between")}
    return [dict(zip(ORBITS, (name, number, kind), strict=True)) | drift(phi, w) for kind, w in kinds.items()]


def main() -> None:
    """Measure what is missing."""
    command = parser(__doc__)
    command.add_argument("--sets", type=int, default=3)
    arguments = command.parse_args()
    torch.set_num_threads(1)
    table = Rows(RESULTS / "potential.ecsv", KEYS, {"command": "python benchmarks/potential.py"})
    for number in range(arguments.sets):
        for name, (_, shapes) in ENSEMBLES.items():
            missing = {m for m in ("pointwise", "galpy", *shapes) if (name, number, m) not in table}
            if missing:
                table.add(*measure(name, number, missing))
    print(table.means("number"))
    table = Rows(RESULTS / "orbits_potential.ecsv", ORBITS, {"command": "python benchmarks/potential.py"})
    for number in range(arguments.sets):
        for name in ENSEMBLES:
            if name.endswith("free") and (name, number, "any") not in table:
                table.add(*follow(name, number))
    print(table.means("number"))


if __name__ == "__main__":
    main()
