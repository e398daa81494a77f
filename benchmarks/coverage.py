"""How often do error bars hold the truth? Many galaxies, an ensemble for each.

    python benchmarks/coverage.py --output notebooks/results/coverage.csv

For each of many independent mock data sets of 100,000 stars: an ensemble whose members differ in bootstrap and
initialization, for every fourth one also an ensemble whose members differ in initialization alone, and the radial
acceleration of each at radii log-uniform over 0.2-20 scale radii. Then, for one further data set, `dfaccel.calibrate`:
stars drawn from the learned distribution function, learned again, to find what the scatter over members must be
multiplied by, without the truth.
One line a radius is added to the table as each data set is finished; started again, it does only what is missing.
Numbers to expect: calibrated 68 % intervals hold the truth 62-74 % of the time, 95 % intervals 91-98 %.
"""

from pathlib import Path

import numpy as np
import torch
from table import Lines, parser

import dfaccel as da

COLUMNS = ("beta", "kind", "number", "r", "error", "scatter", "error_init", "scatter_init")
N_RADII, N_FLOWS = 25, 4
SPEC = da.FlowSpec(n_transforms=4, hidden_features=32)
INIT_EVERY = 4  # data sets of which one is also learned by members that differ in initialization alone
LEVELS = {0.68: 1.0, 0.95: 1.96}  # and how many standard deviations of a Gaussian they are


def refit(stars: np.ndarray, rng: np.random.Generator, *, bootstrap: bool = True) -> da.FlowEnsemble:
    """Learn an ensemble; the recipe whose error bars are tested."""
    config = da.TrainConfig(n_epochs=3, batch_size=500, bootstrap=bootstrap)
    return da.fit(stars, n_flows=N_FLOWS, spec=SPEC, config=config, coordinates="spherical", rng=rng)


def radial_points(rng: np.random.Generator) -> np.ndarray:
    """Return points (N_RADII, 3), one in each of as many equal steps of log radius, in any direction."""
    r = np.exp(np.log(0.2) + np.log(100) * (np.arange(N_RADII) + rng.random(N_RADII)) / N_RADII)
    return r[:, None] * da.directions(N_RADII, rng)


def radial(model: da.FlowEnsemble, galaxy: da.Hernquist, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return error and scatter over members of the radial acceleration, relative to the true one."""
    result, truth = da.accelerations(model, points), galaxy.acceleration(points)
    size = np.linalg.norm(truth, axis=1)
    inward = truth / size[:, None]
    error = ((result.value - truth) * inward).sum(axis=1) / size
    scatter = np.sqrt(np.einsum("mi,mij,mj->m", inward, result.covariance, inward)) / size
    return error, scatter


def mock(beta: float, number: int, seed: int, n_stars: int) -> list[list]:
    """Return the rows of one data set."""
    galaxy = da.Hernquist(beta=beta)
    draw, learn, learn_init, where = np.random.default_rng([seed, int(10 * beta), number]).spawn(4)
    stars, points = galaxy.sample(n_stars, rng=draw), radial_points(where)
    error, scatter = radial(refit(stars, learn), galaxy, points)
    error_init = scatter_init = np.full(N_RADII, np.nan)
    if number % INIT_EVERY == 0:
        error_init, scatter_init = radial(refit(stars, learn_init, bootstrap=False), galaxy, points)
    return rows(beta, "mock", number, points, error, scatter, error_init, scatter_init)


def calibration(beta: float, number: int, seed: int, n_stars: int, n_repeats: int) -> list[list]:
    """Return the rows of a calibration on a data set of its own: errors in units of the scatter."""
    galaxy = da.Hernquist(beta=beta)
    draw, learn, again, where = np.random.default_rng([seed, int(10 * beta), 10_000 + number]).spawn(4)
    points = radial_points(where)
    model = refit(galaxy.sample(n_stars, rng=draw), learn)
    result = da.calibrate(model, refit, points, n_stars=n_stars, n_repeats=n_repeats, rng=again)
    one, none = np.ones(N_RADII), np.full(N_RADII, np.nan)
    columns = [(z[:, 0], one, none, none) for z in result.standardized]
    return [row for c in columns for row in rows(beta, "calibration", number, points, *c)]


def rows(beta: float, kind: str, number: int, points: np.ndarray, *columns: np.ndarray) -> list[list]:
    """Return lines of the table."""
    r = np.linalg.norm(points, axis=1)
    return [[beta, kind, number, *(f"{value:.5g}" for value in line)] for line in zip(r, *columns, strict=True)]


def report(beta: float, chosen: list[dict[str, str]]) -> None:
    """Print how often the truth lies within the error bars, as they are and calibrated."""
    z = np.array([abs(float(row["error"])) for row in chosen if row["kind"] == "calibration"])
    factors = {level: np.quantile(z, level) for level in LEVELS}
    mocks = [row for row in chosen if row["kind"] == "mock"]
    for name, suffix in {"bootstrap and initialization": "", "initialization alone": "_init"}.items():
        ratio = np.array([abs(float(row["error" + suffix])) / float(row["scatter" + suffix]) for row in mocks])
        ratio = ratio[np.isfinite(ratio)].reshape(-1, N_RADII)
        for level, factor in factors.items():
            text = []
            for label, limit in {"raw": LEVELS[level], "calibrated": factor}.items():
                share = (ratio <= limit).mean(axis=1)
                error = share.std(ddof=1) / len(share) ** 0.5 if len(share) > 1 else np.nan
                text.append(f"{label} {share.mean():.1%} +- {error:.1%}")
            sets = f"factor {factor:.2f}, {len(ratio)} data sets"
            print(f"beta {beta}, {name}, {level:.0%}: {', '.join(text)} ({sets})")


def main() -> None:
    """Do what is missing, then print the coverage."""
    command = parser(__doc__)
    command.add_argument("--output", type=Path, required=True)
    command.add_argument("--beta", type=float, action="append", help="0 and 0.5 unless given")
    command.add_argument("--mocks", type=int, default=20)
    command.add_argument("--stars", type=int, default=100_000)
    command.add_argument("--repeats", type=int, default=6, help="of the calibration")
    command.add_argument("--seed", type=int, default=2026)
    arguments = command.parse_args()
    torch.set_num_threads(1)
    betas, seed, n_stars = arguments.beta or [0.0, 0.5], arguments.seed, arguments.stars
    size = f"{SPEC.n_transforms} x {SPEC.hidden_features}"
    header = f"# python benchmarks/coverage.py --seed {seed}; {n_stars} stars, {N_FLOWS} flows {size}"
    table = Lines(arguments.output, header, COLUMNS)
    for number in range(arguments.mocks):
        for beta in betas:
            if (beta, "mock", number) not in table:
                table.add(mock(beta, number, seed, n_stars))
            if number == 0 and (beta, "calibration", 0) not in table:
                table.add(calibration(beta, 0, seed, n_stars, arguments.repeats))
    for beta in betas:
        report(beta, [row for row in table.rows() if float(row["beta"]) == beta])


if __name__ == "__main__":
    main()
