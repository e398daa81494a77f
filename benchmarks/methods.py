"""Which method when: errors of accelerations by moments, by flows with a symmetry and by flows without, against stars.

    python benchmarks/methods.py                                    # everything to 200,000 stars; many core hours
    python benchmarks/methods.py --methods jeans --stars 1000000 --sets 3
    python benchmarks/methods.py --systems disc --methods symmetric --stars 10000

The table of the book holds moments everywhere (to a million stars of the two Hernquist spheres and the disc),
flows with a symmetry to 100,000 stars, and flows without to 10,000, with one data set (`--sets 1`) of 100,000.

Six systems: Hernquist spheres of anisotropy 0 and 1/2, the King model and the NFW halo of chapter 14, the Hernquist
sphere squashed to half its height of chapter 7, and the disc of chapter 10. Each data set is seen by every method. The
score card's points (King and NFW: log-uniform between the radii of 1 % and 99 % of the stars); error of the whole
vector; CPU seconds of one thread for everything from stars to accelerations with their errors. A row is added as each
result is known; started again, the script does only what is missing.
Numbers to expect: a sphere of a million stars, moments 0.1-0.3 %; a disc of as many 0.6 %.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from table import RESULTS, Rows, parser

import dfaccel as da
from dfaccel.gravity.scorecard import score_points
from dfaccel.systems.from_galpy import Unseen

KEYS = ("system", "n_stars", "number", "method")
N_VELOCITIES = 500
MANY = 50_000  # stars from which on flows are larger, and the likelihood alone is their loss
METHODS = ("jeans", "symmetric", "free")
SQUASH = (1.0, 1.0, 0.5)


@dataclass(frozen=True)
class Case:
    """A system, the symmetry that may be assumed, where it is judged, and by how much its z is squeezed."""

    system: da.DistributionFunction
    coordinates: str
    points: Callable[[np.random.Generator], np.ndarray]
    squash: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw stars (n, 6)."""
        return self.system.sample(n, rng=rng) * np.tile(self.squash, 2)

    def acceleration(self, x: np.ndarray) -> np.ndarray:
        """Return the true acceleration (m, 3): a linear map of phase space maps the accelerations as the positions."""
        return self.squash * self.system.acceleration(x / np.array(self.squash))


def between(system: Unseen) -> Callable[[np.random.Generator], np.ndarray]:
    """Return a function that draws points (200, 3), log-uniform between the radii of 1 % and 99 % of the stars."""

    def points(rng: np.random.Generator) -> np.ndarray:
        r = np.linalg.norm(system.sample(100_000, rng=0)[:, :3], axis=1)
        return np.exp(rng.uniform(*np.log(np.quantile(r, (0.01, 0.99))), 200))[:, None] * da.directions(200, rng)

    return points


CASES = {
    "hernquist_0": Case(da.Hernquist(), "spherical", lambda rng: score_points(rng=rng)),
    "hernquist_half": Case(da.Hernquist(beta=0.5), "spherical", lambda rng: score_points(rng=rng)),
    "king": Case(Unseen("king"), "spherical", between(Unseen("king"))),
    "nfw": Case(Unseen("nfw"), "spherical", between(Unseen("nfw"))),
    "squashed": Case(da.Hernquist(), "axisymmetric", lambda rng: score_points(rng=rng) * SQUASH, SQUASH),
    "disc": Case(da.Disc(), "axisymmetric", lambda rng: score_points(flat=True, rng=rng)),
}


def jeans(stars: np.ndarray, points: np.ndarray, coordinates: str, rng: np.random.Generator) -> da.Accelerations:
    """Return accelerations by moments."""
    return da.jeans(stars, points, coordinates=coordinates, rng=rng)


def flows(stars: np.ndarray, points: np.ndarray, coordinates: str, rng: np.random.Generator) -> da.Accelerations:
    """Return accelerations by an ensemble of flows."""
    learn, velocities = rng.spawn(2)
    model = da.fit(stars, rng=learn, **recipe(len(stars), coordinates))
    return da.accelerations(model, points, n_velocities=N_VELOCITIES, rng=velocities, warn=False)


def recipe(n: int, coordinates: str) -> dict:
    """Return the size of an ensemble and its schedule for n stars: few stars are seen more often, by smaller flows."""
    free, round_ = coordinates == "radial", coordinates == "spherical"
    shared = {"coordinates": coordinates, "time_reversal": round_}
    if n >= MANY:
        config = da.TrainConfig(n_epochs=max(1, 16 * 100_000 // n), batch_size=500)
        return shared | {"n_flows": 2, "spec": da.FlowSpec(8 if free else 6), "config": config}
    n_epochs = {"spherical": 32, "axisymmetric": 48, "radial": 24}[coordinates]
    config = da.TrainConfig(n_epochs=n_epochs, batch_size=int(np.clip(n // 25, 100, 400)))
    spec = da.FlowSpec(8 if free else 4, 32)
    return shared | {"n_flows": 4, "spec": spec, "config": config, "equilibrium": 0.1 * round_}


def measure(name: str, n_stars: int, number: int, method: str, seed: int) -> dict:
    """Return the row of one method on one data set."""
    case = CASES[name]
    key = [seed, list(CASES).index(name), n_stars, number]
    draw, where, *learn = np.random.default_rng(key).spawn(2 + len(METHODS))
    stars, points = case.sample(n_stars, draw), case.points(where)
    solve = jeans if method == "jeans" else flows
    coordinates = "radial" if method == "free" else case.coordinates
    started = time.process_time()
    result = solve(stars, points, coordinates, learn[METHODS.index(method)])
    seconds, truth = time.process_time() - started, case.acceleration(points)
    error = result.error(truth)
    size = np.linalg.norm(truth, axis=1)
    bar = np.sqrt(np.trace(result.covariance, axis1=1, axis2=2)) / size
    return dict(zip(KEYS, (name, n_stars, number, method), strict=True)) | {
        "median": np.median(error), "p90": np.quantile(error, 0.9), "error_bar": np.median(bar),
        "members": len(result.members), "seconds": seconds,
    }  # fmt: skip


def main() -> None:
    """Do what is missing, and print the means over data sets."""
    command = parser(__doc__)
    command.add_argument("--output", type=Path, default=RESULTS / "methods.ecsv")
    command.add_argument("--systems", nargs="+", choices=CASES, default=list(CASES))
    command.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    command.add_argument("--stars", type=int, nargs="+", default=[1000, 10_000, 100_000, 200_000])
    command.add_argument("--sets", type=int, default=6)
    command.add_argument("--seed", type=int, default=2028)
    arguments = command.parse_args()
    torch.set_num_threads(1)
    table = Rows(arguments.output, KEYS, {"command": f"python benchmarks/methods.py --seed {arguments.seed}"})
    for number in range(arguments.sets):
        for n_stars in arguments.stars:
            for name in arguments.systems:
                for method in arguments.methods:
                    if (name, n_stars, number, method) not in table:
                        table.add(measure(name, n_stars, number, method, arguments.seed))
    print(table.means("number"))


if __name__ == "__main__":
    main()
