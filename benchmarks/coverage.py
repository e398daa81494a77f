"""How often do error bars hold the truth? Four systems, many data sets of each, and an ensemble for each data set.

    python benchmarks/coverage.py --sets 16 --output notebooks/results/coverage.csv
    python benchmarks/coverage.py --method jeans --output notebooks/results/coverage_jeans.csv

For each data set of 20,000 stars: an ensemble whose members differ in bootstrap and initialization, and its radial
acceleration at one radius in each of 12 equal steps of ln r. Then stars are drawn from the ensemble, learned again in
the same way, and compared with the ensemble they came from, four times (`dfaccel.calibrate`, which does not know the
truth). For every fourth data set also an ensemble whose members differ in initialization alone. The table has errors
and scatters, not intervals, so that recipes for intervals can be compared without training anything again.
The radii of the two Hernquist galaxies are those of the score card, 0.2-20 scale radii. King and NFW are read as a
file of a user is (chapter 14), and their radii are those between which 98 % of the stars lie.
Errors are relative to the true acceleration (of a repetition: to that of the ensemble), positive if the pull is too
strong. The second table has the Jeans equation on the same stars, with the scatter over its bootstrap.
Lines are added as each data set is finished; started again, the script does only what is missing. A data set takes half
a minute of one core, with the Jeans equation less than a second.
Numbers to expect: calibrated 68 % intervals hold the truth 65-68 % of the time, 95 % intervals 91-97 %.
"""

from pathlib import Path

import numpy as np
import torch
from table import Lines, parser

import dfaccel as da
from dfaccel.gravity.calibration import error_and_scatter
from dfaccel.systems.from_galpy import Unseen

SYSTEMS = ("hernquist_aniso", "hernquist_iso", "king", "nfw")  # settings were chosen on the first alone
BETA = {"hernquist_iso": 0.0, "hernquist_aniso": 0.5}
N_RADII, N_FLOWS, N_REPEATS = 12, 4, 4
INIT_EVERY = 4  # data sets of which one is also learned by members that differ in initialization alone
REPEATS = [f"{name}_{k}" for k in range(1, N_REPEATS + 1) for name in ("error", "scatter")]
COLUMNS = ("system", "number", "r", "error", "scatter", "error_init", "scatter_init", *REPEATS)
SPEC = da.FlowSpec(n_transforms=4, hidden_features=32, n_blocks=1)
OPTIONS = {"n_velocities": 500, "warn": False}


def refit(stars: np.ndarray, rng: np.random.Generator, *, bootstrap: bool = True) -> da.FlowEnsemble:
    """Learn an ensemble; the recipe whose error bars are tested, that of the small galaxy of chapter 8."""
    config = da.TrainConfig(n_epochs=6, batch_size=200, bootstrap=bootstrap)
    return da.fit(stars, n_flows=N_FLOWS, spec=SPEC, config=config, coordinates="spherical", rng=rng)


def data_set(
    system: str, number: int, seed: int, n_stars: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """Return stars (n, 6), places (N_RADII, 3), the true acceleration there, and a generator for what follows."""
    draw, where, after = np.random.default_rng([seed, SYSTEMS.index(system), number]).spawn(3)
    u = (np.arange(N_RADII) + where.random(N_RADII)) / N_RADII
    if system in BETA:
        galaxy = da.Hernquist(beta=BETA[system])
        x = np.exp(np.log(0.2) + np.log(100) * u)[:, None] * da.directions(N_RADII, where)
        return galaxy.sample(n_stars, rng=draw), x, galaxy.acceleration(x), after
    taken = da.snapshot.take(Unseen(system).table(n_stars, rng=draw))
    inner, outer = np.quantile(np.linalg.norm(taken.w[:, :3], axis=1), [0.01, 0.99])
    x = inner * ((outer / inner) ** u)[:, None] * da.directions(N_RADII, where)
    truth = (Unseen(system).acceleration_at(taken.frame.places(x)) / taken.frame.acceleration).to_value("")
    return taken.w, x, truth, after


def radial(result: da.Accelerations, truth: np.ndarray) -> list[np.ndarray]:
    """Return error and scatter over members of the pull, relative to the true one."""
    size = np.linalg.norm(truth, axis=1)
    inward = -result.points / np.linalg.norm(result.points, axis=1)[:, None]
    error, scatter = error_and_scatter(result, truth, inward[:, None])
    return [error[:, 0] / size, scatter[:, 0] / size]


def flows(stars: np.ndarray, x: np.ndarray, truth: np.ndarray, rng: np.random.Generator, with_init: bool) -> list:
    """Return the columns of one data set, from the errors of the flows on."""
    learn, learn_init, again = rng.spawn(3)
    model = refit(stars, learn)
    own = da.accelerations(model, x, **OPTIONS)
    columns = radial(own, truth)
    if with_init:
        columns += radial(da.accelerations(refit(stars, learn_init, bootstrap=False), x, **OPTIONS), truth)
    else:
        columns += [[None] * N_RADII] * 2
    found = da.calibrate(model, refit, x, n_stars=len(stars), n_repeats=N_REPEATS, n_velocities=500, rng=again)
    pull = np.linalg.norm(own.value, axis=1)
    for error, scatter in zip(found.error[..., 0], found.scatter[1:, :, 0], strict=True):
        columns += [-error / pull, scatter / pull]  # the package counts outwards
    return columns


def measure(method: str, system: str, number: int, seed: int, n_stars: int) -> list[list]:
    """Return the lines of one data set."""
    stars, x, truth, after = data_set(system, number, seed, n_stars)
    if method == "flows":
        columns = flows(stars, x, truth, after, number % INIT_EVERY == 0)
    else:
        columns = radial(da.jeans(stars, x, rng=after), truth)
    lines = zip(np.linalg.norm(x, axis=1), *columns, strict=True)
    return [[system, number, *("" if value is None else f"{value:.4g}" for value in line)] for line in lines]


def main() -> None:
    """Do what is missing."""
    command = parser(__doc__)
    command.add_argument("--output", type=Path, required=True)
    command.add_argument("--method", choices=("flows", "jeans"), default="flows")
    command.add_argument("--system", choices=SYSTEMS, action="append", help="all four unless given")
    command.add_argument("--sets", type=int, default=40, help="of each system")
    command.add_argument("--stars", type=int, default=20_000)
    command.add_argument("--seed", type=int, default=2028)
    arguments = command.parse_args()
    torch.set_num_threads(1)
    size = f"{SPEC.n_transforms} x {SPEC.hidden_features}"
    told = f"{N_FLOWS} flows {size}" if arguments.method == "flows" else "the Jeans equation"
    header = f"# python benchmarks/coverage.py --seed {arguments.seed}; {arguments.stars} stars, {told}"
    table = Lines(arguments.output, header, COLUMNS if arguments.method == "flows" else COLUMNS[:5])
    for number in range(arguments.sets):
        for system in arguments.system or SYSTEMS:
            if (system, number) not in table:
                table.add(measure(arguments.method, system, number, arguments.seed, arguments.stars))


if __name__ == "__main__":
    main()
