"""Accelerations from stars of which an unknown share is seen: over and over again.

    python benchmarks/selection.py --sets 4     # three galaxies, four data sets each; about two hours of one core

Each data set is 500,000 seen stars of its own. "fading 0" and "fading 1/2" are Hernquist spheres of that anisotropy
with S = e^(-r/2), "dusty" is a disc behind a lane of dust, with three holes where no star is seen. The first of each
are those of `models/train.py faded` and `dusty`. Points are those of the score card, of a sphere those within 8 scale
radii: hardly any star is seen beyond. Methods:

    forgotten   S is taken for 1, place by place (`dfaccel.accelerations`)
    jeans       the same, by moments of the seen stars; of a disc axisymmetric ones
    weighted    the same, each star with the weight 1 / S, the true one (that of the lane alone)
    known       the true S is divided out of the learned f, place by place
    apart       an acceleration and a gradient of ln S, place by place (`dfaccel.solve`)
    field       S is taken for 1, one potential for all places (`dfaccel.potential`)
    unknown     that potential and a smooth S together; of a sphere both are round, of a disc neither is
    free        of a sphere: flows that start from the round ones and are free of symmetry; the field is free too

Errors are those of the whole vector ("apart" where it returns numbers); of a disc also inside the lane (closer than
two standard widths), outside (farther than three), and at 60 further points inside the holes. `share_miss` is the
largest error of ln S between 0.3 and 8 scale radii, up to a constant. Writes `notebooks/results/selection.ecsv`;
started again, it does only what is missing.
Number to expect: 2 per cent.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from table import RESULTS, ROOT, Rows, parser

import dfaccel as da
from dfaccel.gravity.scorecard import score_points
from dfaccel.gravity.unknowns import Acceleration, Selection, SmoothSelection

sys.path.insert(0, str(ROOT / "models"))
from train import FREE, HOLE, HOLES, LANE, RECIPES, draw, dusty, fading, system, train

KEYS = ("case", "number", "method")
CASES = {
    "fading 0": {**RECIPES["faded"], "beta": 0.0},
    "fading 1/2": RECIPES["faded"],
    "dusty": RECIPES["dusty"],
}
R_MOST, N_VELOCITIES, N_HOLES = 8.0, 500, 60
SEEN = (0.05, 12.0), (0.1, 5.0)  # radii within which S may bend: of a sphere, of a disc
PLACES = {"n_places": 2000, "n_velocities": 125}
NOTHING = dict.fromkeys(("share_miss", "seconds_learn", "seconds_solve"), np.nan)


class Whole(da.DistributionFunction):
    """A learned distribution function divided by a known completeness; its velocities are those of seen stars."""

    def __init__(self, seen: da.FlowEnsemble, log_share: Callable) -> None:
        self.seen, self.log_share = seen, log_share
        self.lenders, self.neighbourhood = seen.lenders, seen.neighbourhood

    def sample(self, n: int, *, rng: np.random.Generator | int) -> np.ndarray:
        """Draw seen stars (n, 6): their velocities are those of all stars."""
        return self.seen.sample(n, rng=rng)

    def log_df(self, w: np.ndarray) -> np.ndarray:
        """Return ln f (n,) of stars (n, 6)."""
        return self.seen.log_df(w) - self.log_share(w[:, :3])

    def members_score(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ln f (K, n) of each flow and its gradient (K, n, 6)."""
        (log_f, score), x = self.seen.members_score(w), torch.tensor(w[:, :3], requires_grad=True)
        log_share = self.log_share(x)
        score[..., :3] -= torch.autograd.grad(log_share.sum(), x)[0].numpy()
        return log_f - log_share.detach().numpy(), score


def unknown(model: da.FlowEnsemble, flat: bool, shape: str, rng: int) -> tuple[da.Potential, SmoothSelection]:
    """Return the field, with the completeness beside it, and the function that the completeness is made of."""
    x = model.sample(50_000, rng=[rng, 1])[:, :3]
    r, (low, high) = np.linalg.norm(x[:, : 2 if flat else 3], axis=1), SEEN[flat]
    x = x[(r > low) & (r < high)][:5000]
    smooth = SmoothSelection(x, lambda x: x[:, :2], 300) if flat else SmoothSelection(x, "spherical", 12)
    return da.potential(model, besides=[smooth], shape=shape, **PLACES, rng=rng), smooth


def within_holes(rng: np.random.Generator) -> np.ndarray:
    """Return points (60, 3), evenly within the holes, and as high as those of the score card."""
    R, phi = HOLE * np.sqrt(rng.random(N_HOLES)), rng.uniform(0, 2 * np.pi, N_HOLES)
    x, y = HOLES[np.arange(N_HOLES) % len(HOLES)].T + R * [np.cos(phi), np.sin(phi)]
    return np.stack([x, y, rng.uniform(-0.3, 0.3, N_HOLES)], axis=1)


def measure(case: str, number: int) -> list[dict]:
    """Return the rows of one data set."""
    recipe, flat = CASES[case] | {"seed": [17, number]}, case == "dusty"
    folder = ROOT / f"_build/training/selection_{case.replace('/', '_').replace(' ', '_')}_{number}"
    galaxy, points = system(recipe), score_points(flat=flat, rng=[18, number])
    points = points[np.linalg.norm(points, axis=1) < R_MOST]
    if flat:
        points = np.concatenate([points, within_holes(np.random.default_rng([20, number]))])
    n = len(points) - N_HOLES * flat
    truth, log_share = (galaxy.field if flat else galaxy).acceleration(points), dusty if flat else fading
    stars = draw(recipe, recipe["n_stars"])
    model = train(recipe, stars, folder)
    models = {"unknown": model}
    if not flat:
        options = {key: FREE[key] for key in ("coordinates", "n_flows", "spec", "config")}
        models["free"] = da.fit(stars, prior=model, rng=[17, number, 1], checkpoint=folder / "free", **options)
    options = {"n_velocities": N_VELOCITIES, "rng": number, "warn": False}
    near = stars[np.linalg.norm(stars[:, :3], axis=1) < SEEN[flat][1]]  # beyond, a few stars would count for all

    def moments(w: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        coordinates = "axisymmetric" if flat else "spherical"
        return da.jeans(w, points, coordinates=coordinates, weights=weights, n_bootstrap=0, rng=1).value

    values = {
        "forgotten": da.accelerations(model, points, **options).value,
        "jeans": moments(stars),
        "weighted": moments(near, np.exp(-log_share(near[:, :3]))),
        "known": da.accelerations(Whole(model, log_share), points, **options).value,
        "apart": da.solve(model, points, [Acceleration(), Selection()], **options)["acceleration"].value,
    }
    shape = "free" if flat else "spherical"
    values["field"] = da.potential(model, shape=shape, **PLACES, rng=number).acceleration(points)
    extra = {}
    for method, learned in models.items():
        started = time.process_time()
        field, smooth = unknown(learned, flat, "free" if method == "free" else shape, number)
        values[method] = field.acceleration(points)
        r = np.geomspace(0.3, R_MOST, 100)[:, None] * [[1.0, 0, 0]]
        miss = np.nan if flat else np.ptp(smooth.log_share(r, field.besides["selection"].parameters[0]) - fading(r)) / 2
        extra[method] = {
            "share_miss": miss, "seconds_learn": learned.metadata["seconds"],
            "seconds_solve": time.process_time() - started,
        }  # fmt: skip
    away = points[:, 1] * np.cos(LANE["angle"]) - points[:, 0] * np.sin(LANE["angle"]) - LANE["offset"]
    away, rows = np.abs(away) / LANE["width"], []
    for method, value in values.items():
        error = np.linalg.norm(value - truth, axis=1) / np.linalg.norm(truth, axis=1)
        parts = (np.arange(len(points)) >= n, *(side[:n] for side in (away < 2, away > 3)))
        hole, inside, outside = (np.nanmedian(error[: len(part)][part]) if flat else np.nan for part in parts)
        rows.append({
            "case": case, "number": number, "method": method, "median": np.nanmedian(error[:n]),
            "p90": np.nanquantile(error[:n], 0.9), "inside": inside, "outside": outside, "hole": hole,
            **extra.get(method, NOTHING),
        })  # fmt: skip
    return rows


def main() -> None:
    """Measure what is missing."""
    command = parser(__doc__)
    command.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))
    command.add_argument("--sets", type=int, default=4)
    arguments = command.parse_args()
    torch.set_num_threads(1)
    rows = Rows(RESULTS / "selection.ecsv", KEYS, {"command": "python benchmarks/selection.py"})
    for number in range(1, arguments.sets + 1):
        for case in arguments.cases:
            if (case, number, "unknown") not in rows:
                rows.add(*measure(case, number))
    print(rows.means("number"))


if __name__ == "__main__":
    main()
