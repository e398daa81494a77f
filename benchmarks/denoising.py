"""How much of the bias that noise gives to an acceleration do the possible truths of the stars take away?

    python benchmarks/denoising.py --output notebooks/results/denoising.csv

Isotropic Hernquist stars have 10 % noise. Flows learn them as they are ("naive"), from sixteen possible truths each
("aware"), and without the noise ("exact"). The set "shipped" is the ensembles of models/, of a million stars, of which
only "aware" has the equilibrium in the loss; the others are smaller, and all have it. "plain" is "aware" without it.
The columns are the median and the 90th percentile of the vector error; the median over all points of the signed error
of the inward acceleration, and its standard deviation over members; the divergence from the true distribution
function with its standard error.
A line is added when it is done; started again, the script does only what is missing.
Numbers to expect: with a million stars the bias falls from -1.5 % to some tenths of a per cent.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from table import MODELS, Lines, parser

import dfaccel as da

sys.path.insert(0, str(MODELS))
from train import RECIPES

COLUMNS = ("set", "n_stars", "stars", "median", "p90", "bias", "bias_scatter", "kl", "kl_error")
GALAXY, NOISE, N_TRUTHS, N_CARDS, N_VELOCITIES, N_SHIPPED = da.Hernquist(), 0.1, 16, 2, 300, 1_000_000
SHIPPED = {"exact": "hernquist_iso", "naive": "hernquist_iso_10pct_naive", "aware": "hernquist_iso_10pct"}
SMALL = {
    "n_flows": 4,
    "spec": da.FlowSpec(n_transforms=4, hidden_features=32),
    "config": da.TrainConfig(n_epochs=10, batch_size=500, bootstrap=True),
    "coordinates": "spherical",
    "equilibrium": 0.1,
}


def score(model: da.FlowEnsemble, seed: int) -> list[str]:
    """Return the measures of one model, but for the names of the line."""
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


def learned(name: str, n: int, kind: str, seed: int) -> da.FlowEnsemble:
    """Return the model of one data set."""
    options = {**SMALL, "equilibrium": 0.0} if kind == "plain" else SMALL
    if name == "shipped":
        if kind in SHIPPED:
            return da.load(MODELS / SHIPPED[kind])
        recipe = RECIPES[SHIPPED["aware"]]
        options = {key: recipe[key] for key in ("n_flows", "spec", "config", "coordinates")}
        stars = da.add_noise(GALAXY.sample(n, rng=recipe["seed"]), NOISE, rng=[recipe["seed"], 1])
        truths = da.possible_truths(stars, NOISE, n_truths=N_TRUTHS, rng=[recipe["seed"], 2])
        return da.fit(truths, rng=recipe["seed"], **options)
    key = [seed, int(name)]
    stars = GALAXY.sample(n, rng=[*key, 0])
    if kind != "exact":
        stars = da.add_noise(stars, NOISE, rng=[*key, 1])
    if kind in ("aware", "plain"):
        stars = da.possible_truths(stars, NOISE, n_truths=N_TRUTHS, rng=[*key, 2])
    return da.fit(stars, rng=[*key, 3], **options)


def main() -> None:
    """Do what is missing and print the table."""
    command = parser(__doc__)
    command.add_argument("--output", type=Path, required=True)
    command.add_argument("--seed", type=int, default=31)
    command.add_argument("--sets", nargs="+", default=["shipped", "0", "1", "2", "3"])
    command.add_argument("--stars", type=int, default=100_000, help="of the small sets")
    arguments = command.parse_args()
    torch.set_num_threads(1)
    table = Lines(arguments.output, f"# python benchmarks/denoising.py --seed {arguments.seed}", COLUMNS)
    for name in arguments.sets:
        n = N_SHIPPED if name == "shipped" else arguments.stars
        for kind in (*SHIPPED, "plain"):
            if (name, n, kind) not in table:
                table.add([[name, n, kind, *score(learned(name, n, kind, arguments.seed), arguments.seed)]])
    print("\n".join(table.lines))


if __name__ == "__main__":
    main()
