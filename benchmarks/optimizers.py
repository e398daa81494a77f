"""Muon against Adam, each at its best rate: divergence against peak rate, over several data sets.

    python benchmarks/optimizers.py --output notebooks/results/optimizers.csv

Two flows without symmetry see 60,000 isotropic Hernquist stars four times, in batches of 500. Adam trains all
parameters at the rate of the line, or Muon trains the hidden matrices at the rate of the line and Adam the rest at its
default. A line is the mean over the two flows of one data set: least held-out loss, which chooses a rate without the
truth; divergence from the true distribution function; seconds. Started again, the script does only what is missing.
Numbers to expect: a best rate within each range (Muon's loss is not finite at 0.32), a smaller divergence with Muon.
"""

from pathlib import Path

import numpy as np
import torch
from table import Lines, parser

import dfaccel as da

COLUMNS = ("optimizer", "rate", "set", "held_out", "kl", "kl_error", "seconds")
GALAXY, SPEC, BATCH_SIZE, N_FLOWS = da.Hernquist(), da.FlowSpec(n_transforms=6, hidden_features=32), 500, 2
RATES = {
    "Adam": (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064),
    "Muon": (0.005, 0.01, 0.02, 0.04, 0.08, 0.16),
}
N_EPOCHS = 4


def run(optimizer: str, rate: float, number: int, seed: int, n_stars: int) -> list:
    """Train two flows on one data set; return their line."""
    rates = {"learning_rate": rate, "matrix_rate": 0.0} if optimizer == "Adam" else {"matrix_rate": rate}
    config = da.TrainConfig(n_epochs=N_EPOCHS, batch_size=BATCH_SIZE, **rates)
    stars = GALAXY.sample(n_stars, rng=[seed, number, 0])
    model = da.fit(stars, n_flows=N_FLOWS, spec=SPEC, config=config, rng=[seed, number, 1])
    kl = [da.kl_divergence(GALAXY, model.member(k), n=50_000, rng=[seed, number, 2]) for k in range(N_FLOWS)]
    held_out = np.mean(model.metadata["held_out_loss"])
    value, error = (np.mean([getattr(one, name) for one in kl]) for name in ("value", "standard_error"))
    return [optimizer, rate, number, *(f"{x:.5g}" for x in (held_out, value, error, model.metadata["seconds"]))]


def main() -> None:
    """Do what is missing and print the table."""
    command = parser(__doc__)
    command.add_argument("--output", type=Path, required=True)
    command.add_argument("--seed", type=int, default=71)
    command.add_argument("--sets", type=int, default=3)
    command.add_argument("--stars", type=int, default=60_000)
    arguments = command.parse_args()
    torch.set_num_threads(1)
    header = f"# python benchmarks/optimizers.py --seed {arguments.seed}; {arguments.stars} stars"
    table = Lines(arguments.output, header, COLUMNS)
    cases = [(name, rate, number) for number in range(arguments.sets) for name in RATES for rate in RATES[name]]
    for case in cases:
        if case not in table:
            table.add([run(*case, arguments.seed, arguments.stars)])
    print("\n".join(table.lines))


if __name__ == "__main__":
    main()
