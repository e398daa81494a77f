"""Stars of which a known share is seen: weights of one over that share, with flows and with moments.

    python benchmarks/weights.py --sets 2     # two galaxies, two data sets each; about half an hour of one core

Each data set is 200,000 seen stars of a Hernquist sphere, of which the share S = 1 / (1 + r) is seen at radius r.
`jeans` and `flows` take all seen stars as alike, "weighted" gives each the weight 1 / S. Errors are those of the
acceleration vector on the score card. `n_effective` is what the stars are worth, (sum w)^2 / sum w^2. Writes
`notebooks/results/weights.ecsv`; started again, it does only what is missing.
Number to expect: with weights at most 1.5 per cent; without about 25.
"""

from pathlib import Path

import numpy as np
import torch
from table import RESULTS, Rows, parser

import dfaccel as da
from dfaccel.gravity.scorecard import score_points

KEYS = ("case", "number", "method")
CASES = {"beta 1/2": 0.5, "beta 0": 0.0}
N_STARS, N_VELOCITIES = 200_000, 500
RECIPE = {
    "coordinates": "spherical",
    "n_flows": 4,
    "spec": da.FlowSpec(n_transforms=4, hidden_features=32),
    "config": da.TrainConfig(n_epochs=10, batch_size=500, bootstrap=True),
    "equilibrium": 0.1,
}


def measure(case: str, number: int) -> list[dict]:
    """Return the rows of one data set."""
    galaxy = da.Hernquist(beta=CASES[case])
    draw, hide, learn, where = np.random.default_rng([31, [*CASES].index(case), number]).spawn(4)
    w = galaxy.sample(6 * N_STARS, rng=draw)
    w = w[hide.random(len(w)) < 1 / (1 + np.linalg.norm(w[:, :3], axis=1))][:N_STARS]
    points = score_points(rng=where)
    truth, rows = galaxy.acceleration(points), []
    for kind, weights in (("", None), (", weighted", 1 + np.linalg.norm(w[:, :3], axis=1))):
        model = da.fit(w, weights=weights, rng=learn, **RECIPE)
        found = {
            "jeans": da.jeans(w, points, weights=weights, n_bootstrap=0),
            "flows": da.accelerations(model, points, n_velocities=N_VELOCITIES, rng=number, warn=False),
        }
        for method, result in found.items():
            error = result.error(truth)
            rows.append({
                "case": case, "number": number, "method": method + kind, "median": float(np.median(error)),
                "p90": float(np.quantile(error, 0.9)), "n_effective": float(model.metadata["n_effective"]),
                "seconds_learn": model.metadata["seconds"] if method == "flows" else np.nan,
            })  # fmt: skip
    return rows


def main() -> None:
    """Measure what is missing."""
    command = parser(__doc__)
    command.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))
    command.add_argument("--sets", type=int, default=2)
    command.add_argument("--output", type=Path, default=RESULTS / "weights.ecsv")
    arguments = command.parse_args()
    torch.set_num_threads(1)
    rows = Rows(arguments.output, KEYS, {"command": "python benchmarks/weights.py"})
    for number in range(1, arguments.sets + 1):
        for case in arguments.cases:
            if (case, number, "flows") not in rows:
                rows.add(*measure(case, number))
    print(rows.means("number"))


if __name__ == "__main__":
    main()
