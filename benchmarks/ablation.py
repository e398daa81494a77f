"""What buys accuracy? One flow a line, one change a line.

    python benchmarks/ablation.py --output notebooks/results/ablation.csv

Starts from a set-up as published (coordinates scaled linearly, ReLU, Adam, batches of 10,000 stars), adds our choices
one by one, and then takes some of them away again; each flow sees a million stars three times. A line is added to the
table as each flow is finished; started again, the script does only what is missing.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from table import begun, write_lines

import dfaccel as da
from dfaccel import training
from dfaccel.coordinates import coordinate_map

N_STARS, N_CARDS = 1_000_000, 4
R_MAX = 200.0  # scale radii, as published: linear coordinates do not train on the few stars beyond
COLUMNS = "group,name,beta,seed,epochs,kl,kl_error,median,p90,minutes"
ADAM, MUON = {"matrix_rate": 0.0}, {}
PUBLISHED = {"activation": "relu", "position_map": "linear"}

# (group, name): beta, symmetry, FlowSpec, TrainConfig, whether the anisotropy may shape the coordinates
CASES = {
    ("ladder", "as published"): (0.0, "none", PUBLISHED, {**ADAM, "batch_size": 10_000}, True),
    ("ladder", "radial map"): (0.0, "none", {"activation": "relu"}, {**ADAM, "batch_size": 10_000}, True),
    ("ladder", "GELU"): (0.0, "none", {}, {**ADAM, "batch_size": 10_000}, True),
    ("ladder", "batch 1000"): (0.0, "none", {}, ADAM, True),
    ("ladder", "Muon"): (0.0, "none", {}, MUON, True),
    ("ladder", "spherical symmetry"): (0.0, "spherical", {}, MUON, True),
    ("size", "half the width"): (0.0, "none", {"hidden_features": 32}, MUON, True),
    ("size", "half the depth"): (0.0, "none", {"n_transforms": 4}, MUON, True),
    ("anisotropic", "radial map alone"): (0.5, "none", {}, MUON, False),
    ("anisotropic", "and anisotropy from the data"): (0.5, "none", {}, MUON, True),
    ("anisotropic", "spherical symmetry"): (0.5, "spherical", {}, MUON, True),
}


def without_anisotropy(*arguments: object, **options: object) -> object:
    """Choose coordinates as the package does, but leave the tangential velocity as it is."""
    return replace(coordinate_map(*arguments, **options), anisotropy=0.0)


def run(case: tuple[str, str], seed: int, n_epochs: int) -> str:
    """Train and score one flow; return its line."""
    beta, symmetry, spec, config, shaped = CASES[case]
    galaxy = da.Hernquist(beta=beta).truncated(R_MAX)
    stars = galaxy.sample(N_STARS, rng=[seed, 1])
    training.coordinate_map = coordinate_map if shaped else without_anisotropy
    start = time.perf_counter()
    config = da.TrainConfig(n_epochs=n_epochs, **config)
    model = da.fit(stars, spec=da.FlowSpec(**spec), config=config, symmetry=symmetry, rng=seed)
    minutes = (time.perf_counter() - start) / 60
    cards = [da.score_card(model, galaxy, rng=[seed, 2, i]) for i in range(N_CARDS)]
    kl = da.kl_divergence(galaxy, model, n=200_000, rng=[seed, 3])
    errors = np.concatenate([card.errors for card in cards])
    values = kl.value, kl.standard_error, np.median(errors), np.quantile(errors, 0.9), minutes
    return f'{case[0]},"{case[1]}",{beta},{seed},{n_epochs},' + ",".join(f"{value:.4g}" for value in values)


def main() -> None:
    """Do what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    header = f"# python benchmarks/ablation.py --seed {arguments.seed} --epochs {arguments.epochs}; {N_STARS} stars"
    lines = begun(arguments.output, header, COLUMNS)
    for case in CASES:
        if not any(line.startswith(f'{case[0]},"{case[1]}",') for line in lines):
            lines.append(run(case, arguments.seed, arguments.epochs))
            write_lines(arguments.output, lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
