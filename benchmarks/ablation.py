"""What buys accuracy? One flow a line, one change a line.

    python benchmarks/ablation.py --output notebooks/results/ablation.csv

Starts from a set-up as published (coordinates scaled linearly, ReLU, Adam, batches of 10,000 stars), adds our choices
one by one, and then takes some of them away again; each flow sees a million stars three times. The group "rate" has
Adam at higher peak rates than the 0.002 of the ladder. A line is added to the table as each flow is finished; started
again, the script does only what is missing.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from table import Lines, parser

import dfaccel as da
from dfaccel.coordinates import CoordinateMap, coordinate_map

N_CARDS = 4
R_MAX = 200.0  # scale radii, as published: linear coordinates do not train on the few stars beyond
COLUMNS = ("group", "name", "beta", "seed", "epochs", "kl", "kl_error", "median", "p90", "minutes")
RELU, GELU = {"activation": "relu"}, {}
LARGE = {"matrix_rate": 0.0, "batch_size": 10_000}
ADAM, MUON = {"matrix_rate": 0.0}, {}


def radial_alone(stars: np.ndarray) -> CoordinateMap:
    """Choose radial coordinates as the package does, but leave the tangential velocity as it is."""
    return replace(coordinate_map(stars, "radial"), anisotropy=0.0)


# (group, name): beta, coordinates, FlowSpec, TrainConfig
CASES = {
    ("ladder", "as published"): (0.0, "linear", RELU, LARGE),
    ("ladder", "radial map"): (0.0, "radial", RELU, LARGE),
    ("ladder", "GELU"): (0.0, "radial", GELU, LARGE),
    ("ladder", "batch 1000"): (0.0, "radial", GELU, ADAM),
    ("ladder", "Muon"): (0.0, "radial", GELU, MUON),
    ("ladder", "spherical symmetry"): (0.0, "spherical", GELU, MUON),
    ("size", "half the width"): (0.0, "radial", {"hidden_features": 32}, MUON),
    ("size", "half the depth"): (0.0, "radial", {"n_transforms": 4}, MUON),
    **{("rate", f"Adam {r}"): (0.0, "radial", GELU, {**ADAM, "learning_rate": r}) for r in (0.008, 0.016, 0.032)},
    ("anisotropic", "radial map alone"): (0.5, radial_alone, GELU, MUON),
    ("anisotropic", "and anisotropy from the data"): (0.5, "radial", GELU, MUON),
    ("anisotropic", "spherical symmetry"): (0.5, "spherical", GELU, MUON),
}


def run(case: tuple[str, str], seed: int, n_epochs: int, n_stars: int) -> list:
    """Train and score one flow; return its line."""
    beta, coordinates, spec, config = CASES[case]
    galaxy = da.Hernquist(beta=beta, r_max=R_MAX)
    stars = galaxy.sample(n_stars, rng=[seed, 1])
    start = time.perf_counter()
    model = da.fit(
        stars, spec=da.FlowSpec(**spec), config=da.TrainConfig(n_epochs=n_epochs, **config), rng=seed,
        coordinates=coordinates(stars) if callable(coordinates) else coordinates,
    )  # fmt: skip
    minutes = (time.perf_counter() - start) / 60
    cards = [da.score_card(model, galaxy, rng=[seed, 2, i]) for i in range(N_CARDS)]
    kl = da.kl_divergence(galaxy, model, n=200_000, rng=[seed, 3])
    errors = np.concatenate([card.errors for card in cards])
    values = kl.value, kl.standard_error, np.median(errors), np.quantile(errors, 0.9), minutes
    return [*case, beta, seed, n_epochs, *(f"{value:.4g}" for value in values)]


def main() -> None:
    """Do what is missing and print the table."""
    command = parser(__doc__)
    command.add_argument("--output", type=Path, required=True)
    command.add_argument("--seed", type=int, default=11)
    command.add_argument("--epochs", type=int, default=3)
    command.add_argument("--stars", type=int, default=1_000_000)
    arguments = command.parse_args()
    torch.set_num_threads(1)
    header = f"# python benchmarks/ablation.py --seed {arguments.seed} --epochs {arguments.epochs}; "
    table = Lines(arguments.output, f"{header}{arguments.stars} stars", COLUMNS)
    for case in CASES:
        if case not in table:
            table.add([run(case, arguments.seed, arguments.epochs, arguments.stars)])
    print("\n".join(table.lines))


if __name__ == "__main__":
    main()
