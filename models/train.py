"""Train the ensembles the book loads: ``python models/train.py hernquist_iso``, or ``make models`` for all.

Each recipe is complete: its stars are drawn from a seed, its training resumes from ``_build/training/NAME`` if it was
interrupted, and the finished ensemble is written to ``models/NAME``. A recipe with ``prior`` learns from noisy stars
that were denoised with that ensemble. One with ``start`` first learns its stars that way, and goes on from there. One
with ``n_repeats`` learns a table of stars with units, as chapter 14 does, and is calibrated by as many repetitions.
"""

import argparse
from pathlib import Path

import numpy as np

import dfaccel as da
from dfaccel import snapshot
from dfaccel.calibration import fit_calibrated
from dfaccel.demonstration import Unseen

ROOT = Path(__file__).parent.parent
N_STARS = 1_000_000
SPHERICAL = {
    "symmetry": "spherical",
    "n_flows": 4,
    "spec": da.FlowSpec(n_transforms=6),
    "config": da.TrainConfig(n_epochs=4, bootstrap=True),
}
ADAM = {**SPHERICAL, "config": da.TrainConfig(n_epochs=8, bootstrap=True, matrix_rate=0.0)}  # before there was Muon
SCRATCH = {
    "symmetry": "none",
    "n_flows": 6,
    "spec": da.FlowSpec(),
    "config": da.TrainConfig(n_epochs=8, bootstrap=True),
}
FREE = {  # a small correction of a spherical fit to the same stars
    "symmetry": "none",
    "n_flows": 4,
    "spec": da.FlowSpec(n_transforms=4, hidden_features=32),
    "config": da.TrainConfig(n_epochs=2, bootstrap=True, learning_rate=1e-3, matrix_rate=5e-3),
    "start": SPHERICAL,
}
DISC = {
    "system": da.Disc(),
    "symmetry": "axisymmetric",
    "n_flows": 4,
    "spec": da.FlowSpec(),
    "config": da.TrainConfig(n_epochs=4, bootstrap=True),
}
SNAPSHOT = {  # the settings of chapter 14
    "symmetry": "spherical",
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
    "hernquist_iso_1pct": {"beta": 0.0, "seed": 105, "noise": 0.01, "prior": "hernquist_iso_1pct_naive", **SPHERICAL},
    "hernquist_iso_10pct_naive": {"beta": 0.0, "seed": 106, "noise": 0.1, **SPHERICAL},
    "hernquist_iso_10pct": {"beta": 0.0, "seed": 106, "noise": 0.1, "prior": "hernquist_iso_10pct_naive", **SPHERICAL},
    "disc": {"seed": 91, **DISC},
    "king": {"system": Unseen("king"), "seed": 14, **SNAPSHOT},
    "nfw": {"system": Unseen("nfw"), "seed": 15, **SNAPSHOT},
}
N_CANDIDATES = 16  # truths proposed for a noisy star


def observed(recipe: dict) -> np.ndarray:
    """Return the stars (1000000, 6) of a recipe as they are seen."""
    stars = system(recipe).sample(N_STARS, rng=recipe["seed"])
    return da.add_noise(stars, recipe.get("noise", 0.0), rng=[recipe["seed"], 1])


def system(recipe: dict) -> da.Hernquist | da.Disc:
    """Return the system of a recipe."""
    return recipe.get("system") or da.Hernquist(beta=recipe["beta"])


def train(name: str) -> None:
    """Train one ensemble and write it to ``models/NAME``.

    Parameters
    ----------
    name : str
        Recipe.
    """
    recipe = RECIPES[name]
    stars, seed = observed(recipe), recipe["seed"]
    if "prior" in recipe:
        prior = da.load(ROOT / "models" / recipe["prior"])
        stars = da.denoise(stars, recipe["noise"], prior, n_candidates=N_CANDIDATES, rng=[seed, 2, 0])
        seed = [seed, 3, 0]
    names = ("n_flows", "spec", "config", "symmetry")
    options, folder = {key: recipe[key] for key in names}, ROOT / "_build/training" / name
    if "start" in recipe:
        options["prior"] = da.fit(stars, rng=[*np.atleast_1d(seed), 4], checkpoint=folder / "start", **recipe["start"])
    model = da.fit(stars, rng=seed, checkpoint=folder, **options)
    described = {"name": repr(system(recipe)), **{key: recipe.get(key) for key in ("beta", "seed", "noise", "prior")}}
    model.metadata |= {
        "command": f"python models/train.py {name}",
        "system": described,
        "units": "G = mass = scale radius = 1",
    }
    da.save(model, ROOT / "models" / name)


def learn_snapshot(name: str) -> None:
    """Train the ensemble of a table of stars, calibrate its errors and write it to ``models/NAME``.

    Parameters
    ----------
    name : str
        Recipe.
    """
    recipe = RECIPES[name]
    options = {key: recipe[key] for key in ("n_flows", "spec", "config", "symmetry", "n_repeats", "n_velocities")}
    stars = snapshot.take(recipe["system"].table(recipe["n_stars"], rng=recipe["seed"]))
    points = stars.spread(50, rng=[recipe["seed"], 1])
    model = fit_calibrated(stars.w, points, rng=recipe["seed"], checkpoint=ROOT / "_build/training" / name, **options)
    model.metadata |= {
        "command": f"python models/train.py {name}",
        "system": {"name": repr(recipe["system"]), "seed": recipe["seed"]},
        "units": "those of the frame: the median radius, and the root mean square of a velocity component",
        "frame": stars.frame.to_dict(),
    }
    da.save(model, ROOT / "models" / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="+", choices=RECIPES)
    for chosen in parser.parse_args().name:
        (learn_snapshot if "n_repeats" in RECIPES[chosen] else train)(chosen)
