"""Do further rounds of denoising take away the bias that noise gives to an acceleration?

    python benchmarks/denoising.py --output notebooks/results/denoising.csv

Isotropic Hernquist stars have 10 % noise. Round 0 learns the noisy stars as they are; each further round denoises them
with the model of the round before, and learns again. The round "exact" learns stars without noise. The set "shipped"
begins with the ensembles of models/, of a million stars, and goes on with their recipe; the others are smaller.
The columns are the median and the 90th percentile of the vector error; the median over all points of the signed error
of the inward acceleration, and its standard deviation over members; the divergence from the true distribution
function with its standard error.
A line is added as each round is finished; started again, the script does only what is missing. The table of the book
holds the sets 0 and 1, and of the shipped one the rounds that are in models/.
Numbers to expect: two rounds halve the divergence, which then stays; the bias differs between small sets by 0.4 %.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from table import MODELS, ROOT, Lines, parser

import dfaccel as da

sys.path.insert(0, str(MODELS))
from train import RECIPES

COLUMNS = ("set", "n_stars", "round", "median", "p90", "bias", "bias_scatter", "kl", "kl_error")
GALAXY, NOISE, N_CARDS, N_VELOCITIES, N_SHIPPED = da.Hernquist(), 0.1, 2, 300, 1_000_000
SHIPPED = {"exact": "hernquist_iso", 0: "hernquist_iso_10pct_naive", 1: "hernquist_iso_10pct"}
SMALL = {
    "n_flows": 4,
    "spec": da.FlowSpec(n_transforms=4, hidden_features=32),
    "config": da.TrainConfig(n_epochs=10, batch_size=500, bootstrap=True),
    "coordinates": "spherical",
}


def score(model: da.FlowEnsemble, seed: int) -> list[str]:
    """Return the measures of one round, but for the names of the line."""
    cards = [da.score_card(model, GALAXY, rng=[seed, i], n_velocities=N_VELOCITIES) for i in range(N_CARDS)]
    errors = np.concatenate([card.errors for card in cards])
    # signed error of the inward component: (1 + n_flows, points)
    bias = np.concatenate([
        (np.concatenate([card.result.value[None], card.result.members]) * card.truth).sum(-1) / (card.truth**2).sum(-1)
        for card in cards
    ], axis=1) - 1  # fmt: skip
    bias = np.median(bias, axis=1)
    kl = da.kl_divergence(GALAXY, model, n=200_000, rng=[seed, N_CARDS])
    found = np.median(errors), np.quantile(errors, 0.9), bias[0], bias[1:].std(ddof=1)
    return [f"{value:.4g}" for value in (*found, kl.value, kl.standard_error)]


def rounds(name: str, n: int, n_rounds: int, seed: int) -> Iterator[tuple[str, da.FlowEnsemble]]:
    """Learn one data set; yield the name and the model of each round. What was learned before is loaded."""
    shipped = name == "shipped"
    recipe = RECIPES[SHIPPED[1]]
    options = {key: recipe[key] for key in SMALL} if shipped else SMALL
    key = [recipe["seed"]] if shipped else [seed, int(name)]
    true = GALAXY.sample(n, rng=key[0] if shipped else [*key, 0])
    noisy = da.add_noise(true, NOISE, rng=[*key, 1])
    model = None
    for number in ("exact", *range(n_rounds + 1)):
        folder = ROOT / "_build" / "denoising" / f"{seed}-{name}-{number}"
        if shipped and number in SHIPPED:
            folder = MODELS / SHIPPED[number]
        last = number if number in ("exact", 0) else number - 1 if shipped else number
        if (folder / "ensemble.json").exists():
            model = da.load(folder)
        else:
            stars = true if number == "exact" else noisy
            if number not in ("exact", 0):
                stars = da.denoise(noisy, NOISE, model, rng=[*key, 2, last])
            model = da.fit(stars, rng=[*key, 3, 99 if number == "exact" else last], **options)
            da.save(model, folder)
        yield str(number), model


def main() -> None:
    """Do what is missing and print the table."""
    command = parser(__doc__)
    command.add_argument("--output", type=Path, required=True)
    command.add_argument("--seed", type=int, default=31)
    command.add_argument("--sets", nargs="+", default=["shipped", "0", "1", "2", "3"])
    command.add_argument("--rounds", type=int, default=4, help="of the small sets; one fewer of the shipped one")
    command.add_argument("--stars", type=int, default=100_000, help="of the small sets")
    arguments = command.parse_args()
    torch.set_num_threads(1)
    table = Lines(arguments.output, f"# python benchmarks/denoising.py --seed {arguments.seed}", COLUMNS)
    for name in arguments.sets:
        n = N_SHIPPED if name == "shipped" else arguments.stars
        for number, model in rounds(name, n, arguments.rounds - (name == "shipped"), arguments.seed):
            if (name, n, number) not in table:
                table.add([[name, n, number, *score(model, arguments.seed)]])
    print("\n".join(table.lines))


if __name__ == "__main__":
    main()
