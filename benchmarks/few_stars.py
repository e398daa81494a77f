"""Few stars: do flows of chapter 14's recipe err more than moments?

    python benchmarks/few_stars.py --sets 8     # three systems, four numbers of stars; about an hour of one core

Each data set is drawn and learned anew, with four flows, spherical coordinates and `dfaccel.recipe`. The systems are
the Hernquist spheres of anisotropy 0 and 1/2, and a King model. `jeans` and `flows` are medians over 200 places of the
relative error of the acceleration vector, by `dfaccel.jeans` and by `dfaccel.accelerations`. The places lie
log-uniformly between the radii that hold 3 % and 90 % of the stars, which of a Hernquist sphere are about those of the
score card. `jeans_wide` and `flows_wide` are the same between 1 % and 99 %, as in chapter 14. Time reversal is not
assumed. Writes `notebooks/results/few_stars.ecsv`; started again, it does only what is missing.
Number to expect: ratios of `flows` to `jeans` between about 0.8 and 2; a single data set may be far off.
"""

from pathlib import Path

import numpy as np
import torch
from table import RESULTS, Rows, parser

import dfaccel as da
from dfaccel.systems.from_galpy import Unseen

KEYS = ("system", "n", "number")
SYSTEMS = {"Hernquist, beta 0": da.Hernquist(), "Hernquist, beta 1/2": da.Hernquist(beta=0.5), "King": Unseen("king")}
NUMBERS = (1000, 3000, 10_000, 20_000)
PLACES = {"": (0.03, 0.9), "_wide": (0.01, 0.99)}  # shares of the stars within the first and the last
N_PLACES, N_VELOCITIES = 200, 500


def measure(name: str, n: int, number: int) -> dict:
    """Return the row of one data set."""
    system = SYSTEMS[name]
    draw, learn, where = np.random.default_rng([29, [*SYSTEMS].index(name), n, number]).spawn(3)
    stars = system.sample(n, rng=draw)
    model = da.fit(stars, n_flows=4, coordinates="spherical", rng=learn, **da.recipe(n))
    radii = np.linalg.norm(system.sample(100_000, rng=29)[:, :3], axis=1)
    row = {"system": name, "n": n, "number": number}
    for kind, shares in PLACES.items():
        r = np.exp(where.uniform(*np.log(np.quantile(radii, shares)), N_PLACES))
        x = r[:, None] * da.directions(N_PLACES, where)
        truth = system.acceleration(x)
        found = da.accelerations(model, x, n_velocities=N_VELOCITIES, rng=number, warn=False)
        row[f"flows{kind}"] = float(np.median(found.error(truth)))
        row[f"jeans{kind}"] = float(np.median(da.jeans(stars, x, n_bootstrap=0).error(truth)))
    return row


def main() -> None:
    """Measure what is missing, then print medians over data sets."""
    command = parser(__doc__)
    command.add_argument("stars", nargs="*", type=int, default=NUMBERS, help="how many, of those above")
    command.add_argument("--sets", type=int, default=8)
    command.add_argument("--output", type=Path, default=RESULTS / "few_stars.ecsv")
    arguments = command.parse_args()
    torch.set_num_threads(1)
    table = Rows(arguments.output, KEYS, {"command": "python benchmarks/few_stars.py"})
    for number in range(1, arguments.sets + 1):
        for n in arguments.stars:
            for name in SYSTEMS:
                if (name, n, number) not in table:
                    table.add(measure(name, n, number))
    for name in SYSTEMS:
        for n in NUMBERS:
            rows = [row for row in table.rows if (row["system"], row["n"]) == (name, n)]
            flows, jeans = (np.median([row[method] for row in rows]) for method in ("flows", "jeans"))
            print(f"{name}, {n} stars, {len(rows)} sets: flows {flows:.4f}, jeans {jeans:.4f}, {flows / jeans:.2f}")


if __name__ == "__main__":
    main()
