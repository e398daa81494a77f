"""How well do flows that assume no symmetry at all recover a flattened and a triaxial galaxy?

    python benchmarks/shapes.py --sets 4     # two galaxies, four data sets each; an hour of one core

The galaxies are Hernquist spheres of which places and velocities are squashed, to 1 : 1 : 0.5 and 1 : 0.8 : 0.6. Their
true acceleration is squashed alike; it has a curl, so no potential is fitted. Four flows learn 500,000 stars from
scratch, in coordinates "radial" as they are ("measured axes") and without the axes that these measure ("no axes").
Errors are those of the whole vector at the squashed points of the score card, place by place. Writes
`notebooks/results/shapes.ecsv`; started again, it does only what is missing.
Number to expect: 3 per cent with the measured axes.
"""

from dataclasses import replace

import numpy as np
import torch
from table import RESULTS, ROOT, Rows, parser

import dfaccel as da
from dfaccel.coordinates import coordinate_map
from dfaccel.gravity.scorecard import score_points

KEYS = ("galaxy", "number", "method")
GALAXIES = {"squashed": (1.0, 1.0, 0.5), "triaxial": (1.0, 0.8, 0.6)}
METHODS = ("measured axes", "no axes")
N_STARS, N_VELOCITIES = 500_000, 500


def measure(galaxy: str, number: int, method: str) -> dict:
    """Return the row of one data set."""
    system, squash = da.Hernquist(), np.array(GALAXIES[galaxy])
    stars = system.sample(N_STARS, rng=[21, number]) * np.tile(squash, 2)
    points = score_points(rng=[22, number])
    coordinates = coordinate_map(stars, "radial")
    if method == "no axes":
        coordinates = replace(coordinates, axes=(1.0,) * 6)
    folder = ROOT / f"_build/training/shapes_{galaxy}_{method.split()[0]}_{number}"
    config = da.TrainConfig(n_epochs=8, bootstrap=True)
    model = da.fit(stars, n_flows=4, config=config, coordinates=coordinates, rng=[23, number], checkpoint=folder)
    found = da.accelerations(model, points * squash, n_velocities=N_VELOCITIES, rng=number, warn=False)
    error = found.error(system.acceleration(points) * squash)
    return dict(zip(KEYS, (galaxy, number, method), strict=True)) | {
        "median": np.median(error), "p90": np.quantile(error, 0.9), "seconds": model.metadata["seconds"],
    }  # fmt: skip


def main() -> None:
    """Measure what is missing."""
    command = parser(__doc__)
    command.add_argument("--sets", type=int, default=4)
    command.add_argument("--methods", nargs="*", default=["measured axes"], choices=METHODS)
    arguments = command.parse_args()
    torch.set_num_threads(1)
    rows = Rows(RESULTS / "shapes.ecsv", KEYS, {"command": "python benchmarks/shapes.py"})
    for number in range(1, arguments.sets + 1):
        for method in arguments.methods:
            for galaxy in GALAXIES:
                if (galaxy, number, method) not in rows:
                    rows.add(measure(galaxy, number, method))
    print(rows.means("number"))


if __name__ == "__main__":
    main()
