"""What does a stream do to the gravity of a disc, and what if its velocities are left out? Over and over again.

    python benchmarks/substructure.py          # 4 discs, 20 ensembles of two flows; 15 minutes on one core

For each of four discs of 100,000 stars: no stream; streams of 1 % and of 10 % of the stars on a circular orbit at
R = 1.5; one of 10 % that is a quarter faster than that; and the same with its phases mixed. Two flows learn each. A
region of velocity space is chosen without the truth, at R = 1.5: of the boxes of 0.2 x 0.2 in v_R and v_phi the one
without which the equations of the other velocities, one for each occupied cell, suit one acceleration best. Velocities
beyond those of all but a thousandth of the stars, where a flow extrapolates, are left out with it. The size of a box
and this limit were chosen with the discs 0 to 3 in view; the others were not looked at.

Writes `notebooks/results/substructure.ecsv`, a line for each disc, case and method; started again, it does only what
is missing. Columns: the box; the median misfit of the velocities outside it, if it is used and if it is left out; the
reduced chi-squared of the counts of stars by azimuth in the ring of the stream; along the radii of meta["radii"], in
the plane, the radial acceleration over the true one, the residual, and the median misfit over velocities of which each
cell has one; median and 90th percentile of the score card. What ends with "_without" leaves the box out (of the disc
without a stream that of the fast one). Moments (`dfaccel.jeans`, axisymmetric) cannot leave velocities out: there the
stars in the box are cut out.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from astropy.table import Table
from table import RESULTS, parser

import dfaccel as da
from dfaccel._files import write_files
from dfaccel.gravity.scorecard import score_points
from dfaccel.gravity.velocities import VelocitySource
from dfaccel.systems.orbits import integrate

DISCS = (0, 1, 4, 5)  # seeds; those of which all cases are done
N_STARS, MIXING_TIME, FACTOR, RADIUS = 100_000, 300.0, 1.25, 1.5
SPEC = da.FlowSpec(n_transforms=6, hidden_features=32)
CONFIG = da.TrainConfig(n_epochs=4, batch_size=500, bootstrap=True)
RADII = np.concatenate([np.linspace(0.7, 1.35, 10), np.linspace(1.38, 1.62, 25), np.linspace(1.65, 2.6, 12)]).round(3)
CASES = ("fast", "none", "1 %", "10 %", "mixed")  # the fast one first, whose box serves where there is no stream
CELL, STEP, HALF = 0.02, 0.05, 0.1  # in velocity: width of a cell, distance of neighbouring boxes, half of a box


def cases(number: int) -> Iterator[tuple[str, np.ndarray, da.Disc]]:
    """Yield the stars of each case on one disc."""
    disc, rng = da.Disc(time=MIXING_TIME), np.random.default_rng([13, number])
    base, n = disc.sample(N_STARS, rng=rng), N_STARS // 10
    stream = da.mix(disc, da.Stream(radius=RADIUS), 0.1).stream
    draw = int(rng.integers(2**31))
    fast = replace(stream, speed=FACTOR * stream.speed).sample(n, rng=draw)
    added = {
        "fast": lambda: fast, "none": lambda: fast[:0], "1 %": lambda: stream.sample(n // 10, rng=draw),
        "10 %": lambda: stream.sample(n, rng=draw), "mixed": lambda: integrate(fast, disc.field, 10 * MIXING_TIME),
    }  # fmt: skip
    for case in CASES:
        stars = added[case]()
        yield case, np.concatenate([base[len(stars) :], stars]), disc


def box(centre: tuple[float, float], frame: np.ndarray | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Return the region that is a box in v_R and v_phi, with what is outside the frame if there is one."""

    def inside(w: np.ndarray) -> np.ndarray:
        star = da.cylindrical(w)
        v = np.stack([star.v_R, star.v_phi, star.v_z], axis=1)
        region = (np.abs(v[:, :2] - centre) < HALF).all(axis=1)
        return region if frame is None else region | ((v < frame[0]) | (v > frame[1])).any(axis=1)

    return inside


def frame_of(stars: np.ndarray) -> np.ndarray:
    """Return the limits (2, 3) between which all but a thousandth of the stars have v_R, v_phi, v_z, at either end."""
    star = da.cylindrical(stars)
    return np.quantile(np.stack([star.v_R, star.v_phi, star.v_z], axis=1), (0.001, 0.999), axis=0)


def occupied(stars: np.ndarray, radius: float) -> np.ndarray:
    """Return velocities (V, 3) at azimuth zero, one for each cell of v_R and v_phi that holds stars nearby."""
    star = da.cylindrical(stars)
    near = (np.abs(star.R - radius) < 0.1) & (np.abs(star.z) < 0.1)
    cells = np.unique((np.stack([star.v_R, star.v_phi], axis=1)[near] / CELL).round(), axis=0) * CELL
    return np.column_stack([cells, np.zeros(len(cells))])


def choose(model: da.FlowEnsemble, stars: np.ndarray, rng: np.random.Generator) -> tuple[tuple, float, float]:
    """Return the box to leave out, and the median misfit of the other velocities with and without it."""
    point, v, frame = np.array([[RADIUS, 0.0, 0.0]]), occupied(stars, RADIUS), frame_of(stars)
    w = np.column_stack([np.broadcast_to(point, v.shape), v])
    options = {"velocities": VelocitySource(model, rng)(point, 1000), "warn": False}

    def misfit(centre: tuple[float, float], others: tuple[float, float]) -> float:
        result = da.accelerations(model, point, leave_out=box(centre, frame), **options)
        return np.nanmedian(np.abs(result.misfit(model, v[None])[0, ~box(others)(w)]))

    centres = [(v_r, v_phi) for v_r in np.arange(-2, 3) * STEP for v_phi in np.arange(9, 17) * STEP]
    misfits = {centre: misfit(centre, centre) for centre in centres}
    best = min(misfits, key=misfits.get)
    return best, misfit((np.inf, np.inf), best), misfits[best]


def uneven(stars: np.ndarray) -> float:
    """Return the reduced chi-squared of the counts in 16 sectors of the ring of the stream, against equal counts."""
    star = da.cylindrical(stars)
    phi = star.phi[np.abs(star.R - RADIUS) < 0.06]
    counts = np.histogram(phi, np.linspace(-np.pi, np.pi, 17))[0]
    return ((counts - counts.mean()) ** 2).sum() / counts.mean() / 15


def by_flows(stars: np.ndarray, disc: da.Disc, rng: np.random.Generator, given: tuple | None) -> dict:
    """Return the line of an ensemble."""
    model = da.fit(stars, n_flows=2, spec=SPEC, config=CONFIG, coordinates="axisymmetric", rng=rng)
    centre, used, left_out = choose(model, stars, rng)
    points = np.column_stack([RADII, np.zeros((len(RADII), 2))])
    few = np.array([rng.choice(occupied(stars, radius), 100) for radius in RADII])
    truth, seed = disc.acceleration(points)[:, 0], int(rng.integers(2**31))
    line = {"v_R": centre[0], "v_phi": centre[1], "used": used, "left_out": left_out, "uneven": uneven(stars)}
    for suffix, region in {"": None, "_without": box(given or centre, frame_of(stars))}.items():
        options = {"leave_out": region, "rng": seed, "warn": False}
        result, card = da.accelerations(model, points, **options), da.score_card(model, disc, **options)
        line |= {
            f"pull{suffix}": result.value[:, 0] / truth, f"residual{suffix}": result.residual,
            f"misfit{suffix}": np.nanmedian(np.abs(result.misfit(model, few)), axis=1),
            f"median{suffix}": card.median, f"p90{suffix}": card.p90,
        }  # fmt: skip
    return line


def by_moments(stars: np.ndarray, disc: da.Disc, rng: np.random.Generator, given: tuple) -> dict:
    """Return the line of the Jeans equations: with all stars, and without those in the box."""
    points, where = np.column_stack([RADII, np.zeros((len(RADII), 2))]), score_points(flat=True, rng=rng)
    truth, nowhere = disc.acceleration(points)[:, 0], np.full(len(RADII), np.nan)
    line = {"v_R": given[0], "v_phi": given[1], "used": np.nan, "left_out": np.nan, "uneven": uneven(stars)}
    for suffix, chosen in {"": stars, "_without": stars[~box(given)(stars)]}.items():
        pull, card = (da.jeans(chosen, x, coordinates="axisymmetric", n_bootstrap=0) for x in (points, where))
        errors = card.error(disc.acceleration(where))
        line |= {
            f"pull{suffix}": pull.value[:, 0] / truth, f"residual{suffix}": nowhere, f"misfit{suffix}": nowhere,
            f"median{suffix}": np.median(errors), f"p90{suffix}": np.quantile(errors, 0.9),
        }  # fmt: skip
    return line


METHODS = {"flows": by_flows, "moments": by_moments}


def read(path: Path) -> dict[tuple, dict]:
    """Return the lines of a table by disc, case and method."""
    table = Table.read(path, format="ascii.ecsv") if path.exists() else ()
    return {(row["disc"], row["case"], row["method"]): dict(row) for row in table}


def write(path: Path, rows: dict[tuple, dict]) -> None:
    """Write the table anew, whole, numbers to four digits."""
    order = sorted(rows, key=lambda key: (key[2], CASES.index(key[1]), key[0]))
    about = {"command": "python benchmarks/substructure.py", "radii": RADII.tolist(), "n_stars": N_STARS}
    table = Table([rows[key] for key in order], meta=about)
    for name in table.colnames[3:]:
        values = np.asarray(table[name], dtype=float)
        table[name] = np.vectorize(lambda x: float(f"{x:.4g}"))(values)
    text = io.StringIO()
    table.write(text, format="ascii.ecsv", delimiter=",")
    write_files({path: text.getvalue().encode()})


def main() -> None:
    """Do what is missing, disc after disc."""
    command = parser(__doc__)
    command.add_argument("--discs", type=int, nargs="+", default=DISCS, help="seeds of the discs")
    command.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    command.add_argument("--output", type=Path, default=RESULTS / "substructure.ecsv")
    arguments = command.parse_args()
    torch.set_num_threads(1)
    path, rows = arguments.output, read(arguments.output)
    for number in arguments.discs:
        if all((number, case, method) in rows for case in CASES for method in arguments.methods):
            continue
        for case, stars, disc in cases(number):
            for place, method in enumerate(arguments.methods):
                if (number, case, method) in rows:
                    continue
                rng = np.random.default_rng([131, number, CASES.index(case), place])
                known = rows.get((number, "fast" if case == "none" else case, "flows"))
                given = (known["v_R"], known["v_phi"]) if known else None
                line = METHODS[method](stars, disc, rng, given)
                rows[number, case, method] = {"disc": number, "case": case, "method": method, **line}
                write(path, rows)


if __name__ == "__main__":
    main()
