"""How fast does a bar turn, and what are the accelerations beside it? Over and over again.

    python benchmarks/unknowns.py --sets 10     # ten galaxies of 500,000 stars; ten minutes of one core each

Each data set is a `dfaccel.BarredDisc` of its own, learned by four flows with the symmetries of a bar (`models/train.py
bar` is the first of them). The equations are those of 300 points, log-uniform in R between 0.6 and 2.5 half lengths of
the bar, within 0.2 of the plane. Methods: "moments" (`dfaccel.jeans`, axisymmetric), "at rest" (the rotation is
forgotten), "turning" (solved for the pattern speed as well). Moments see 100,000 stars, the flows all of them. Errors
are those of the whole vector at the points with R between 1 and 2. Writes `notebooks/results/unknowns.ecsv`; started
again, it does only what is missing.
Number to expect: the pattern speed within 1 %.
"""

import sys
import time

import numpy as np
import torch
from table import RESULTS, ROOT, Rows, parser

import dfaccel as da
from dfaccel.gravity.unknowns import Acceleration, PatternSpeed

sys.path.insert(0, str(ROOT / "models"))
from train import RECIPES, draw, train

KEYS = ("number", "method")
RANGE, HEIGHT, JUDGED = (0.6, 2.5), 0.2, (1.0, 2.0)
N_POINTS, N_VELOCITIES = 300, 500


def places(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw points (n, 3) beside the bar."""
    R, phi, z = np.exp(rng.uniform(*np.log(RANGE), n)), rng.uniform(0, 2 * np.pi, n), rng.uniform(-HEIGHT, HEIGHT, n)
    return np.stack([R * np.cos(phi), R * np.sin(phi), z], axis=1)


def measure(number: int) -> list[dict]:
    """Return the rows of one data set."""
    recipe = RECIPES["bar"] | {"seed": number}
    galaxy, points = recipe["system"], places(N_POINTS, np.random.default_rng([16, number]))
    stars = draw(recipe, recipe["n_stars"])
    model = train(recipe, stars, ROOT / f"_build/training/bar_{number}")
    started = time.process_time()
    turning = da.solve(model, points, [Acceleration(), PatternSpeed()], n_velocities=N_VELOCITIES, rng=number)
    omega, seconds = turning["pattern_speed"], time.process_time() - started
    stars = recipe["cut"](galaxy.sample(recipe["n_stars"] // 5, rng=number))
    values = {
        "moments": da.jeans(stars, points, coordinates="axisymmetric", rng=number).value,
        "at rest": da.accelerations(model, points, n_velocities=N_VELOCITIES, rng=number, warn=False).value,
        "turning": turning["acceleration"].value,
    }
    R, truth = np.hypot(points[:, 0], points[:, 1]), galaxy.acceleration(points)
    judged, rows = (JUDGED[0] < R) & (JUDGED[1] > R), []
    for method, value in values.items():
        error = (np.linalg.norm(value - truth, axis=1) / np.linalg.norm(truth, axis=1))[judged]
        known = method == "turning"
        rows.append({
            "number": number, "method": method, "median": np.median(error), "p90": np.quantile(error, 0.9),
            "omega": omega.value if known else np.nan, "omega_error": omega.standard_error if known else np.nan,
            "omega_true": galaxy.pattern_speed, "seconds_learn": model.metadata["seconds"], "seconds_solve": seconds,
        })  # fmt: skip
    return rows


def main() -> None:
    """Measure what is missing."""
    command = parser(__doc__)
    command.add_argument("--sets", type=int, default=10)
    arguments = command.parse_args()
    torch.set_num_threads(1)
    rows = Rows(RESULTS / "unknowns.ecsv", KEYS, {"command": "python benchmarks/unknowns.py"})
    for number in range(1, arguments.sets + 1):
        if (number, "turning") not in rows:
            rows.add(*measure(number))
    print(rows.means("number"))


if __name__ == "__main__":
    main()
