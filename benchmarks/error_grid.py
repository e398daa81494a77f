"""How large will the error be? Number of stars, noise of the stars and members of the ensemble, all against all.

    python benchmarks/error_grid.py --output notebooks/results/error_grid.csv

Ten thousand to three hundred thousand stars of an isotropic Hernquist sphere are learned by eight small spherical
flows, noisy stars denoised with a first fit, and learned again. Each seed is a draw of its own of stars, noise and
trainings (the book has three, but one for some cells of many stars). A million stars are those of the shipped
ensembles, one draw each, which learned from possible truths of noisy stars. Errors are of the score card, each number
of members averaged over all subsets of an ensemble. Rows are added as soon as they are known; started again, the
script does only what is missing.
"""

from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from table import MODELS, Lines, parser

import dfaccel as da

COLUMNS = ("n_stars", "noise", "seed", "members", "median", "p90")
SHIPPED = {0.0: "hernquist_iso", 0.01: "hernquist_iso_1pct", 0.1: "hernquist_iso_10pct"}
N_SHIPPED, N_FLOWS, N_CARDS, N_CANDIDATES = 1_000_000, 8, 2, 16
SPEC = da.FlowSpec(n_transforms=4, hidden_features=32)
N_EPOCHS, BATCH_SIZE, N_STEPS = 10, 500, 600  # few stars are seen more often, for as many steps
GALAXY = da.Hernquist()


def learn(n_stars: int, noise: float, seed: int) -> da.FlowEnsemble:
    """Train the ensemble of one cell."""
    n_epochs = max(N_EPOCHS, -(-N_STEPS * BATCH_SIZE // n_stars))
    config = da.TrainConfig(n_epochs=n_epochs, batch_size=BATCH_SIZE, bootstrap=True)
    key, options = [seed, n_stars, round(1000 * noise)], {"spec": SPEC, "config": config, "coordinates": "spherical"}
    stars = da.add_noise(GALAXY.sample(n_stars, rng=[*key, 0]), noise, rng=[*key, 1])
    if noise:
        naive = da.fit(stars, n_flows=4, rng=[*key, 2], **options)
        stars = da.denoise(stars, noise, naive, n_candidates=N_CANDIDATES, rng=[*key, 3])
    return da.fit(stars, n_flows=N_FLOWS, rng=[*key, 4], **options)


def score(model: da.FlowEnsemble, seed: int) -> dict[int, tuple[float, float]]:
    """Return median and 90th percentile of the vector error for 1, 2, 4, ... members."""
    cards = [da.score_card(model, GALAXY, rng=[seed, i], n_velocities=500) for i in range(N_CARDS)]
    miss = np.concatenate(
        [(card.result.members - card.truth) / np.linalg.norm(card.truth, axis=1)[:, None] for card in cards], axis=1
    )
    found = {}
    for k in (1, 2, 4, 8):
        errors = [np.linalg.norm(miss[list(c)].mean(axis=0), axis=1) for c in combinations(range(len(miss)), k)]
        if errors:
            found[k] = np.mean(np.median(errors, axis=1)), np.mean(np.quantile(errors, 0.9, axis=1))
    return found


def main() -> None:
    """Do what is missing and print the table."""
    command = parser(__doc__)
    command.add_argument("--output", type=Path, required=True)
    command.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23])
    command.add_argument("--stars", type=int, nargs="+", default=[10_000, 30_000, 100_000, 300_000])
    arguments = command.parse_args()
    torch.set_num_threads(1)
    table = Lines(arguments.output, f"# python benchmarks/error_grid.py; {N_CARDS} score cards", COLUMNS)
    cells = [(n, noise, seed) for n in arguments.stars for noise in SHIPPED for seed in arguments.seeds]
    cells += [(N_SHIPPED, noise, arguments.seeds[0]) for noise in SHIPPED]
    for n_stars, noise, seed in cells:
        if (n_stars, noise, seed) not in table:
            model = da.load(MODELS / SHIPPED[noise]) if n_stars == N_SHIPPED else learn(n_stars, noise, seed)
            found = score(model, seed).items()
            table.add([n_stars, noise, seed, k, f"{median:.4g}", f"{p90:.4g}"] for k, (median, p90) in found)
    print("\n".join(table.lines))


if __name__ == "__main__":
    main()
