"""Train the ensembles the book loads: ``python models/train.py hernquist_iso``, or ``make models`` for all.

Each recipe is complete: its stars are drawn from a seed, its training resumes from ``_build/training/NAME`` if it was
interrupted, and the finished ensemble is written to ``models/NAME``. A recipe with ``n_truths`` learns from so many
possible truths of each noisy star, one with ``survey`` from those of a catalogue. One with ``start`` first learns its
stars that way, and goes on from there. One with ``n_repeats`` learns a table of stars with units, as chapter 14 does,
and is calibrated by as many repetitions.
To try a recipe, give ``--stars`` and ``--output``: fewer stars, another folder, no checkpoints.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

import dfaccel as da
from dfaccel.gravity.calibration import fit_calibrated
from dfaccel.snapshot.sky import from_sky, log_volume, to_sky
from dfaccel.stars.noise import PossibleTruths
from dfaccel.systems.base import namespace
from dfaccel.systems.from_galpy import SolarNeighbourhood, Unseen

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
N_STARS = 1_000_000
NATURAL = "G = mass = scale radius = 1"
SPHERICAL = {
    "coordinates": "spherical",
    "n_flows": 4,
    "spec": da.FlowSpec(n_transforms=6),
    "config": da.TrainConfig(n_epochs=4, bootstrap=True),
}
AWARE = {**SPHERICAL, "n_truths": 16, "equilibrium": 0.1}  # of the noise
ADAM = {**SPHERICAL, "config": da.TrainConfig(n_epochs=8, bootstrap=True, matrix_rate=0.0)}  # before there was Muon
SCRATCH = {
    "coordinates": "radial",
    "n_flows": 6,
    "spec": da.FlowSpec(),
    "config": da.TrainConfig(n_epochs=8, bootstrap=True),
}
FREE = {  # a small correction of a spherical fit to the same stars
    "coordinates": "radial",
    "n_flows": 4,
    "spec": da.FlowSpec(n_transforms=4, hidden_features=32),
    "config": da.TrainConfig(n_epochs=2, bootstrap=True, learning_rate=1e-3, matrix_rate=5e-3),
    "start": SPHERICAL,
}
DISC = {
    "system": da.Disc(),
    "coordinates": "axisymmetric",
    "n_flows": 4,
    "spec": da.FlowSpec(),
    "config": da.TrainConfig(n_epochs=4, bootstrap=True),
}
BAR = {
    "system": da.BarredDisc(),
    "cut": lambda w: w[(np.hypot(w[:, 0], w[:, 1]) < 6) & (np.abs(w[:, 2]) < 3)],  # without a few stars far out
    "coordinates": "bisymmetric",
    "n_flows": 4,
    "spec": da.FlowSpec(),
    "config": da.TrainConfig(n_epochs=8, bootstrap=True),
    "n_stars": 500_000,
}


def seen(log_share: Callable, n: int, hidden: Callable = lambda x: np.False_) -> Callable:
    """Return what keeps each of the stars (N, 6) with the chance S(x), unless hidden, and the first n of those."""
    return lambda w: w[(np.log(np.random.default_rng(17).random(len(w))) < log_share(w[:, :3])) & ~hidden(w[:, :3])][:n]


def fading(x: np.ndarray) -> np.ndarray:
    """Return ln S (...) at positions (..., 3), arrays or tensors: seen from the centre, stars fade out."""
    return -((x**2).sum(-1) ** 0.5) / 2


def dusty(x: np.ndarray) -> np.ndarray:
    """Return ln S (...) at the same: a lane of dust hides up to 80 % of the stars of a disc."""
    across = (x[..., 1] * np.cos(LANE["angle"]) - x[..., 0] * np.sin(LANE["angle"]) - LANE["offset"]) / LANE["width"]
    xp = namespace(x)
    return xp.log(1 - 0.8 * xp.exp(-(across**2) / 2))


def in_hole(x: np.ndarray) -> np.ndarray:
    """Return whether positions (..., 3) lie in one of the holes of the footprint, where no star is seen."""
    return (np.linalg.norm(x[..., None, :2] - HOLES, axis=-1) < HOLE).any(-1)


HOLES, HOLE = np.array([[-1.2, -0.6], [0.9, -1.1], [-0.4, 1.9]]), 0.25  # centres and radius
LANE = {"angle": np.pi / 7, "offset": 0.5, "width": 0.3}
FADED = {
    "coordinates": "spherical",
    "time_reversal": True,  # as any round galaxy in equilibrium has it
    "n_flows": 4,
    "spec": da.FlowSpec(n_transforms=4, hidden_features=48),
    "config": da.TrainConfig(n_epochs=5, bootstrap=True),
    "equilibrium": 0.1,
    "selection": True,
    "n_stars": 1_500_000,
    "cut": seen(fading, 500_000),
}
DUSTY = {
    "system": da.Disc(),
    "coordinates": "flat",
    "n_flows": 4,
    "spec": da.FlowSpec(n_transforms=6, hidden_features=48),
    "config": da.TrainConfig(n_epochs=8, bootstrap=True),
    "n_stars": 640_000,
    "cut": seen(dusty, 500_000, in_hole),
}
SURVEY = np.array([0, 0, 0.03, 0.03, 0.03, 1.0])  # errors: mas, mas/yr, km/s; positions on the sky are exact
SKY = {"frame": "galactic", "motion": (0.0, 230.0, 0.0)}
BALL = 1.0  # kpc
SUN = {
    "system": SolarNeighbourhood(),
    "coordinates": "local",
    "n_flows": 4,
    "spec": da.FlowSpec(4, 32),
    "config": da.TrainConfig(n_epochs=5, bootstrap=True),
    "equilibrium": 0.3,
    "n_stars": 500_000,
    "survey": True,
}
SNAPSHOT = {  # the settings of chapter 14
    "coordinates": "spherical",
    "n_flows": 8,
    "spec": da.FlowSpec(n_transforms=4, hidden_features=32),
    "config": da.TrainConfig(n_epochs=12, batch_size=500, bootstrap=True),
    "n_stars": 200_000,
    "n_repeats": 4,
    "n_velocities": 500,
}

RECIPES = {
    "hernquist_iso": {"beta": 0.0, "seed": 101, **ADAM},
    "hernquist_aniso": {"beta": 0.5, "seed": 102, **ADAM},
    "hernquist_iso_free": {"beta": 0.0, "seed": 103, **FREE},
    "hernquist_aniso_free": {"beta": 0.5, "seed": 104, **SCRATCH},
    "hernquist_iso_1pct_naive": {"beta": 0.0, "seed": 105, "noise": 0.01, **SPHERICAL},
    "hernquist_iso_1pct": {"beta": 0.0, "seed": 105, "noise": 0.01, **AWARE, "spec": da.FlowSpec(4, 48)},
    "hernquist_iso_10pct_naive": {"beta": 0.0, "seed": 106, "noise": 0.1, **SPHERICAL},
    "hernquist_iso_10pct": {"beta": 0.0, "seed": 106, "noise": 0.1, **AWARE},
    "disc": {"seed": 91, **DISC},
    "bar": {"seed": 1, **BAR},
    "faded": {"beta": 0.5, "seed": [17, 1], **FADED},
    "dusty": {"seed": [17, 1], **DUSTY},
    "sun": {"seed": [61, 1], **SUN},
    "king": {"system": Unseen("king"), "seed": 14, **SNAPSHOT},
    "nfw": {"system": Unseen("nfw"), "seed": 15, **SNAPSHOT},
}


def system(recipe: dict) -> da.DistributionFunction:
    """Return the system of a recipe."""
    return recipe.get("system") or da.Hernquist(beta=recipe["beta"])


def draw(recipe: dict, n_stars: int) -> np.ndarray | PossibleTruths:
    """Draw the stars (n, 6) of a recipe, those that are seen, or what they may be if a survey measured them."""
    if "survey" in recipe:
        rng = np.random.default_rng(recipe["seed"])
        return possible(survey(n_stars, rng), rng)
    return recipe.get("cut", np.asarray)(system(recipe).sample(n_stars, rng=recipe["seed"]))


def survey(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n stars (n, 6) as a survey measures them that reaches BALL kpc, in galactic coordinates."""
    disc = SolarNeighbourhood()
    w = disc.around_sun(disc.sample(2 * n, rng=rng, radius=1.2 * BALL / disc.length))
    seen = to_sky(w, **SKY)
    seen += SURVEY * rng.standard_normal(seen.shape)
    return seen[seen[:, 2] > 1 / BALL][:n]


def possible(seen: np.ndarray, rng: np.random.Generator) -> PossibleTruths:
    """Return what those stars may truly be, in kpc and km/s about the Sun."""
    rules = {"to_phase_space": lambda m: from_sky(m, **SKY), "log_volume": log_volume}
    return da.possible_truths(seen, SURVEY, n_truths=8, rng=rng, **rules)


def train(recipe: dict, stars: np.ndarray, folder: Path | None) -> da.FlowEnsemble:
    """Train the ensemble of a recipe from its stars (n, 6), with checkpoints in a folder."""
    seed, noise = recipe["seed"], recipe.get("noise", 0.0)
    stars = da.add_noise(stars, noise, rng=[seed, 1]) if "noise" in recipe else stars
    if "n_truths" in recipe:
        stars = da.possible_truths(stars, noise, n_truths=recipe["n_truths"], rng=[seed, 2])
    names = ("n_flows", "spec", "config", "coordinates", "time_reversal", "equilibrium", "selection")
    options = {key: recipe[key] for key in names if key in recipe}
    if "start" in recipe:
        start = folder and folder / "start"
        options["prior"] = da.fit(stars, rng=[*np.atleast_1d(seed), 4], checkpoint=start, **recipe["start"])
    model = da.fit(stars, rng=seed, checkpoint=folder, **options)
    described = {"name": repr(system(recipe)), **{key: recipe.get(key) for key in ("beta", "seed", "noise")}}
    model.metadata |= {"system": described, "units": "kpc, km/s" if "survey" in recipe else NATURAL}
    return model


def learn_snapshot(recipe: dict, n_stars: int, folder: Path | None) -> da.FlowEnsemble:
    """Train the ensemble of a table of stars, and calibrate its errors."""
    names = ("n_flows", "spec", "config", "coordinates", "n_repeats", "n_velocities")
    options = {key: recipe[key] for key in names}
    stars = da.snapshot.take(recipe["system"].table(n_stars, rng=recipe["seed"]))
    points = stars.spread(50, rng=[recipe["seed"], 1])
    model = fit_calibrated(stars.w, points, rng=recipe["seed"], checkpoint=folder, **options)
    model.metadata |= {
        "system": {"name": repr(recipe["system"]), "seed": recipe["seed"]},
        "units": "those of the frame: the median radius, and the root mean square of a velocity component",
        "frame": stars.frame.to_dict(),
    }
    return model


def main() -> None:
    """Train what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="+", choices=RECIPES)
    parser.add_argument("--stars", type=int, help="how many, those of the recipe if not given")
    parser.add_argument("--output", type=Path, default=MODELS, help="folder in which NAME is written")
    arguments = parser.parse_args()
    if arguments.stars and arguments.output.resolve() == MODELS:
        parser.error("give --output with --stars, so that the book's models stay as they are")
    for name in arguments.name:
        recipe, folder = RECIPES[name], None if arguments.stars else ROOT / "_build/training" / name
        n_stars = arguments.stars or recipe.get("n_stars", N_STARS)
        repeated = "n_repeats" in recipe
        model = learn_snapshot(recipe, n_stars, folder) if repeated else train(recipe, draw(recipe, n_stars), folder)
        model.metadata["command"] = f"python models/train.py {name}"
        da.save(model, arguments.output / name)


if __name__ == "__main__":
    main()
