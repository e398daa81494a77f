"""Train the ensembles the book loads: ``python models/train.py hernquist_iso``, or ``make models`` for all.

Each recipe is complete: its stars are drawn from a seed, its training resumes from ``_build/training/NAME`` if it was
interrupted, and the finished ensemble is written to ``models/NAME``.
"""

import argparse
from pathlib import Path

import dfaccel as da

ROOT = Path(__file__).parent.parent
SPHERICAL = {"spec": da.FlowSpec(n_transforms=6), "config": da.TrainConfig(n_epochs=8, bootstrap=True)}
FREE = {"spec": da.FlowSpec(), "config": da.TrainConfig(n_epochs=16, bootstrap=True)}

RECIPES = {
    "hernquist_iso": {"beta": 0.0, "symmetry": "spherical", "n_flows": 4, "seed": 101, **SPHERICAL},
    "hernquist_aniso": {"beta": 0.5, "symmetry": "spherical", "n_flows": 4, "seed": 102, **SPHERICAL},
    "hernquist_iso_free": {"beta": 0.0, "symmetry": "none", "n_flows": 3, "seed": 103, **FREE},
}


def train(name: str, n_stars: int = 1_000_000) -> None:
    """Train one ensemble and write it to ``models/NAME``.

    Parameters
    ----------
    name : str
        Recipe.
    n_stars : int
        Stars of the mock data set.
    """
    recipe = RECIPES[name]
    stars = da.Hernquist(beta=recipe["beta"]).sample(n_stars, rng=recipe["seed"])
    model = da.fit(
        stars,
        n_flows=recipe["n_flows"],
        spec=recipe["spec"],
        config=recipe["config"],
        symmetry=recipe["symmetry"],
        rng=recipe["seed"],
        checkpoint=ROOT / "_build/training" / name,
    )
    model.metadata |= {
        "command": f"python models/train.py {name}",
        "system": {"name": "Hernquist", "beta": recipe["beta"], "seed": recipe["seed"]},
        "units": "G = mass = scale radius = 1",
    }
    da.save(model, ROOT / "models" / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="+", choices=RECIPES)
    for chosen in parser.parse_args().name:
        train(chosen)
