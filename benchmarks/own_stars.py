"""Does what chapter 14 promises of one snapshot hold over many? Further data sets of its two systems.

    python benchmarks/own_stars.py --output notebooks/results/own_stars.csv

Each data set of 200,000 stars is learned as the shipped ensemble of its system was, and its error bars are multiplied
by the factors shipped with that ensemble, which none of these stars had a part in. A line is added as each data set is
finished; started again, it does only what is missing.
Numbers to expect: 68 % intervals hold the truth in 40 to 90 % of the places of one data set, 60 to 81 % over all.
"""

from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch
from table import MODELS, Lines, parser

import dfaccel as da
from dfaccel.gravity.calibration import error_and_scatter
from dfaccel.systems.from_galpy import Unseen

SYSTEMS = ("king", "nfw")
COLUMNS = ("system", "number", "median", "p90", "inside_68", "inside_95")
N_PLACES, N_VELOCITIES = 200, 500


def one(name: str, number: int, seed: int, n_stars: int | None) -> list:
    """Return the line of one data set."""
    torch.set_num_threads(1)
    shipped, system = da.load(MODELS / name), Unseen(name)
    draw, learn, where = np.random.default_rng([seed, SYSTEMS.index(name), number]).spawn(3)
    stars = da.snapshot.take(system.table(n_stars or shipped.metadata["n_stars"], rng=draw))
    model = da.fit(stars.w, n_flows=shipped.n_flows, spec=shipped.spec, coordinates="spherical", rng=learn,
                   config=da.TrainConfig(**shipped.metadata["config"]))
    x = stars.spread(N_PLACES, rng=where)
    result = da.accelerations(model, x, n_velocities=N_VELOCITIES, warn=False)
    truth = (system.acceleration_at(stars.frame.places(x)) / stars.frame.acceleration).to_value("")
    card = da.ScoreCard(result, truth)
    z = np.abs(np.divide(*error_and_scatter(result, truth, model.coordinates.determined(x))))
    inside = [(z <= factor).mean() for factor in shipped.metadata["factors"].values()]
    return [name, number, *(f"{value:.4g}" for value in (card.median, card.p90, *inside))]


def main() -> None:
    """Do what is missing, then print the means over data sets."""
    command = parser(__doc__)
    command.add_argument("--output", type=Path, required=True)
    command.add_argument("--sets", type=int, default=8, help="of each system")
    command.add_argument("--stars", type=int, help="of a data set, as many as the shipped ensemble's if not given")
    command.add_argument("--seed", type=int, default=2027)
    command.add_argument("--jobs", type=int, default=2)
    arguments = command.parse_args()
    factors = {name: da.load(MODELS / name).metadata["factors"] for name in SYSTEMS}
    told = ", ".join(f"{name} {' '.join(f'{factor:.4f}' for factor in factors[name].values())}" for name in SYSTEMS)
    size = f"{arguments.stars} stars, " if arguments.stars else ""
    header = f"# python benchmarks/own_stars.py --seed {arguments.seed}; {size}{N_PLACES} places; factors {told}"
    table = Lines(arguments.output, header, COLUMNS)
    missing = [(name, number) for number in range(arguments.sets) for name in SYSTEMS if (name, number) not in table]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for row in as_completed([pool.submit(one, *task, arguments.seed, arguments.stars) for task in missing]):
            table.add([row.result()], in_order=True)
            print(*row.result(), flush=True)
    for name in SYSTEMS:
        values = np.array([[float(row[c]) for c in COLUMNS[2:]] for row in table.rows() if row["system"] == name])
        error = values.std(axis=0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.full(4, np.nan)
        columns = zip(COLUMNS[2:], values.mean(axis=0), error, strict=True)
        print(name, ", ".join(f"{column} {value:.4f} +- {e:.4f}" for column, value, e in columns))


if __name__ == "__main__":
    main()
