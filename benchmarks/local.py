"""The acceleration inside a ball around the Sun, without a centre: how well is it found, also with a survey's errors?

    python benchmarks/local.py --output notebooks/results/local.ecsv     # an hour and a half of one core

Stars of a quasi-isothermal disc in the field of a disc and a halo, from galpy, that are seen within 1 kpc of the Sun.
"free" assumes nothing about f, "mirrored" that it is even about the plane. Catalogues: "exact"; "errors" of 0.03 mas in
parallax, of 0.03 mas/yr in proper motions and of 1 km/s in radial velocity; "forgotten" has the same errors, but they
are not used; "fading" holds a star with the chance exp(-d / 0.7 kpc), which is known ("weights") or unknown
("selection", a smooth function of the distance d).
Columns: medians and 90th percentiles of the error of the radial and the vertical component at 200 places inside
0.8 kpc, over the mean size of that component; the mean error of the vertical one, positive if the pull is too weak; the
surface density within 0.5 kpc of the plane over the true one; CPU seconds of the training.
A row is added when it is done; started again, the script does what is missing.
Numbers to expect: 1 % of the radial and 5 % of the vertical component, from 500,000 stars without errors.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from table import MODELS, ROOT, Rows, parser

import dfaccel as da
from dfaccel.snapshot.sky import from_sky
from dfaccel.stars.noise import PossibleTruths

sys.path.insert(0, str(MODELS))
from train import BALL, SKY, SUN, possible, survey

KEYS = ("catalogue", "assumed", "n_stars", "number")
SYSTEM = SUN["system"]
REACH, TESTED = 0.9, 0.8  # kpc: places that share the smooth field, and those of the score
FADING, N_PLACES, HEIGHT = 0.7, 400, 0.5
UP = np.array([0, 0, SYSTEM.sun[2] * SYSTEM.length])  # of the Sun above the plane
RECIPE = {key: SUN[key] for key in ("n_flows", "spec", "config", "equilibrium")}


def catalogue(kind: str, n: int, number: int) -> dict:
    """Return what `dfaccel.fit` needs of a catalogue: its stars, and weights if they are known."""
    rng = np.random.default_rng([61, number])
    if kind in ("errors", "forgotten"):
        seen = survey(n, rng)
        return {"stars": possible(seen, rng) if kind == "errors" else from_sky(seen, **SKY)}
    w = SYSTEM.around_sun(SYSTEM.sample((1 if kind == "exact" else 3) * n, rng=rng, radius=BALL / SYSTEM.length))
    seen = rng.random(len(w)) < np.exp(-np.linalg.norm(w[:, :3], axis=1) / FADING)
    return {"stars": w if kind == "exact" else w[seen][:n]}


def raised(stars: np.ndarray | PossibleTruths) -> np.ndarray | PossibleTruths:
    """Return stars whose z is the height above the plane."""
    up = np.concatenate([UP, np.zeros(3)])
    return replace(stars, w=stars.w + up) if hasattr(stars, "log_weight") else stars + up


def places(n: int, reach: float, number: int) -> np.ndarray:
    """Return n places (n, 3) that fill a ball evenly."""
    rng = np.random.default_rng([62, number])
    return reach * da.directions(n, rng) * rng.random((n, 1)) ** (1 / 3)


def measure(kind: str, assumed: str, n: int, number: int) -> dict:
    """Return the row of one data set."""
    parts = catalogue(kind, n, number)
    unknown, known = "selection" in assumed, "weights" in assumed
    if known:
        parts["weights"] = np.exp(np.linalg.norm(parts["stars"][:, :3], axis=1) / FADING)
    folder = ROOT / f"_build/training/local_{kind}_{assumed.replace(' ', '_')}_{n}_{number}"
    coordinates = "mirrored" if "mirrored" in assumed else "local"
    if coordinates == "mirrored":
        parts["stars"] = raised(parts["stars"])
    start = time.process_time()
    options = {"selection": unknown, "checkpoint": folder, **RECIPE}
    model = da.fit(coordinates=coordinates, rng=[61, number], **options, **parts)
    seconds = time.process_time() - start
    up = UP * (coordinates == "mirrored")
    stars = model.sample(20_000, rng=[64, number])[:, :3]
    some = stars[np.linalg.norm(stars - up, axis=1) < REACH][:N_PLACES]
    unknowns = [da.unknowns.SmoothAcceleration(some, lambda x: x, 80)]
    if unknown:
        unknowns.append(da.unknowns.SmoothSelection(some, lambda x: torch.linalg.norm(x, dim=1, keepdim=True), 6))
    found = da.solve(model, some, unknowns, n_velocities=500, rng=number)["acceleration"].parameters[0]
    x = places(200, TESTED, number)
    truth, value = SYSTEM.acceleration_around_sun(x), unknowns[0].at(x + up, found)
    error, size = value - truth, np.abs(truth).mean(0)
    ends = np.array([[0, 0, HEIGHT], [0, 0, -HEIGHT]]) - UP
    column = np.subtract(*unknowns[0].at(ends + up, found)[:, 2])
    column /= np.subtract(*SYSTEM.acceleration_around_sun(ends)[:, 2])
    radial, vertical = np.abs(error[:, 0]) / size[0], np.abs(error[:, 2]) / size[2]
    return dict(zip(KEYS, (kind, assumed, n, number), strict=True)) | {
        "radial": np.median(radial), "radial_p90": np.quantile(radial, 0.9), "vertical": np.median(vertical),
        "vertical_p90": np.quantile(vertical, 0.9), "column": column,
        "weakness": (error[:, 2] * np.sign(truth[:, 2])).mean() / -size[2], "seconds": seconds,
    }  # fmt: skip


def main() -> None:
    """Measure what is missing."""
    command = parser(__doc__)
    command.add_argument("--output", type=Path, required=True)
    command.add_argument("--sets", type=int, default=2)
    command.add_argument("--stars", type=int, default=500_000)
    command.add_argument("--only", nargs="*", default=[], help="words: of the catalogue and of what is assumed")
    arguments = command.parse_args()
    torch.set_num_threads(1)
    rows = Rows(arguments.output, KEYS, {"command": "python benchmarks/local.py"})
    studies = [("errors", "free"), ("exact", "free"), ("exact", "mirrored"), ("fading", "weights"),
               ("fading", "selection"), ("forgotten", "free"), ("errors", "mirrored"), ("fading", "forgotten")]
    for number in range(1, arguments.sets + 1):
        for study in studies:
            wanted = not arguments.only or {*" ".join(study).split()} <= {*arguments.only}
            if wanted and (*study, arguments.stars, number) not in rows:
                rows.add(measure(*study, arguments.stars, number))
                print(rows.rows[-1], flush=True)
    print(rows.means("number"))


if __name__ == "__main__":
    main()
