"""Does what chapter 14 promises of one snapshot hold over many? Further data sets of its two systems.

    python benchmarks/own_stars.py --output notebooks/results/own_stars.csv

Each data set of 200,000 stars is learned as the shipped ensemble of its system was, and its error bars are multiplied
by the factors shipped with that ensemble, which none of these stars had a part in. A line is added as each data set is
finished; started again, it does only what is missing.
Numbers to expect: 68 % intervals hold the truth in 40 to 90 % of the places of one data set, 60 to 81 % over all.
"""

import argparse
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch
from table import begun, write_lines

import dfaccel as da
from dfaccel import snapshot
from dfaccel.calibration import standardized_errors
from dfaccel.demonstration import Unseen

MODELS = Path(__file__).parent.parent / "models"
SYSTEMS = ("king", "nfw")
COLUMNS = ("system", "number", "median", "p90", "inside_68", "inside_95")
N_PLACES, N_VELOCITIES = 200, 500


def one(name: str, number: int, seed: int) -> list:
    """Return the line of one data set."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # of places with few stars
    shipped, system = da.load(MODELS / name), Unseen(name)
    draw, learn, where = np.random.default_rng([seed, SYSTEMS.index(name), number]).spawn(3)
    stars = snapshot.take(system.table(shipped.metadata["n_stars"], rng=draw))
    model = da.fit(stars.w, n_flows=shipped.n_flows, spec=shipped.spec, symmetry="spherical", rng=learn,
                   config=da.TrainConfig(**shipped.metadata["config"]))
    x = stars.spread(N_PLACES, rng=where)
    result = da.accelerations(model, x, n_velocities=N_VELOCITIES)
    truth = (system.acceleration_at(stars.frame.places(x)) / stars.frame.acceleration).to_value("")
    card = da.ScoreCard(result, truth)
    z = np.abs(standardized_errors(result, truth, radial=True))
    inside = [(z <= factor).mean() for factor in shipped.metadata["factors"].values()]
    return [name, number, *(f"{value:.4g}" for value in (card.median, card.p90, *inside))]


def main() -> None:
    """Do what is missing, then print the means over data sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sets", type=int, default=8, help="of each system")
    parser.add_argument("--seed", type=int, default=2027)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    factors = {name: da.load(MODELS / name).metadata["factors"] for name in SYSTEMS}
    told = ", ".join(f"{name} {' '.join(f'{factor:.4f}' for factor in factors[name].values())}" for name in SYSTEMS)
    header = f"# python benchmarks/own_stars.py --seed {arguments.seed}; {N_PLACES} places; factors {told}"
    lines = begun(arguments.output, header, ",".join(COLUMNS))
    done = {tuple(line.split(",")[:2]) for line in lines[2:]}
    missing = [(name, number) for number in range(arguments.sets) for name in SYSTEMS
               if (name, str(number)) not in done]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for row in as_completed([pool.submit(one, *task, arguments.seed) for task in missing]):
            lines = [*lines[:2], *sorted([*lines[2:], ",".join(map(str, row.result()))])]
            write_lines(arguments.output, lines)
            print(*row.result(), flush=True)
    table = [line.split(",") for line in lines[2:]]
    for name in SYSTEMS:
        values = np.array([row[2:] for row in table if row[0] == name], dtype=float)
        error = values.std(axis=0, ddof=1) / len(values) ** 0.5
        columns = zip(COLUMNS[2:], values.mean(axis=0), error, strict=True)
        print(name, ", ".join(f"{column} {value:.4f} +- {e:.4f}" for column, value, e in columns))


if __name__ == "__main__":
    main()
