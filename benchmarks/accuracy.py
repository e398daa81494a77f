"""How accurate are the accelerations of an ensemble, and of one flow trained afresh, and how long does that take?

    python benchmarks/accuracy.py                                       # every ensemble in models/
    python benchmarks/accuracy.py --model PATH/hq_iso_orig --beta 0     # a published one; a folder of ours; safetensors
    python benchmarks/accuracy.py --case all --seed 7                   # one flow a case, trained on a million stars

Prints a table, and writes it with --output. In per cent: the score card (200 points, log-uniform in r over 0.2-20 scale
radii, error of the whole vector), median with half its range over cards of fresh points and velocities, and 90th
percentile; the x-component on the x-axis, 0.4-20 scale radii, as in An et al. (2021), Fig. 3; and the share of true
components within one standard deviation over members. Then KL(true || flow) with its standard error, for a published
ensemble inside the 200 scale radii of its stars, and minutes of training. Thirty flows take about a minute a card.
The numbers to expect: the published isotropic ensemble, median 3.0 %, 90th percentile 4.0 %, on the x-axis median
1.9 %, largest 3.2 %; the anisotropic one 6.1 % and 11.6 %. Trained afresh, on 2 cores: spherical, median at most 1.0 %
within 5 minutes; none, median at most 2.5 % and KL at most 0.006 within 15 minutes.
"""

from pathlib import Path

import numpy as np
import torch
from hernquistflows import load_hernquistflows
from table import MODELS, parser, write_table

import dfaccel as da

CASES = {  # beta, coordinates, FlowSpec, TrainConfig
    "isotropic, spherical": (0.0, "spherical", da.FlowSpec(n_transforms=6), da.TrainConfig(n_epochs=4)),
    "anisotropic, spherical": (0.5, "spherical", da.FlowSpec(n_transforms=6), da.TrainConfig(n_epochs=4)),
    "isotropic, none": (0.0, "radial", da.FlowSpec(), da.TrainConfig(n_epochs=6)),
}


def load(path: Path) -> da.FlowEnsemble:
    """Return an ensemble of ours from its folder, or a published one."""
    return da.load(path) if (path / "ensemble.safetensors").exists() else load_hernquistflows(path)


def measure(model: da.FlowEnsemble, beta: float, n_cards: int, n_velocities: int, n_stars: int, seed: int) -> dict:
    """Return what there is to say of an ensemble, errors in per cent."""
    galaxy, options = da.Hernquist(beta=beta), {"n_velocities": n_velocities, "warn": False}
    x = np.zeros((50, 3))
    x[:, 0] = np.linspace(0.4, 20, 50)
    cards = [da.score_card(model, galaxy, rng=[seed, 2, card], **options) for card in range(n_cards)]
    axis = da.accelerations(model, x, rng=[seed, 4], **options)
    seen = da.Hernquist(beta=beta, r_max=model.metadata.get("r_max", np.inf))
    kl = da.kl_divergence(seen, model, n=n_stars, rng=[seed, 3])
    errors = np.abs(axis.value[:, 0] / galaxy.acceleration(x)[:, 0] - 1)
    median, p90, inside = (np.array([getattr(card, name) for card in cards]) for name in ("median", "p90", "inside_68"))
    return {
        "flows": model.n_flows, "cards": n_cards, "median": 100 * median.mean(), "scatter": 100 * np.ptp(median) / 2,
        "p90": 100 * p90.mean(), "axis_median": 100 * np.median(errors), "axis_largest": 100 * errors.max(),
        "kl": kl.value, "kl_error": kl.standard_error, "inside_68": 100 * inside.mean(),
        "minutes": sum(m.metadata.get("seconds", np.nan) for m in (model, model.prior) if m) / 60,
    }  # fmt: skip


def main() -> None:
    """Score ensembles, or train and score one flow a case, one line each."""
    command = parser(__doc__)
    command.add_argument("--model", type=Path, action="append", help="ensemble to score; all in models/ if not given")
    command.add_argument("--beta", type=float, help="anisotropy of the galaxy, where the ensemble does not record it")
    command.add_argument("--cards", type=int, default=3)
    command.add_argument("--velocities", type=int, default=1000, help="a point")
    command.add_argument("--kl-stars", type=int, default=200_000)
    command.add_argument("--case", choices=[*CASES, "all"], action="append", help="train instead of loading")
    command.add_argument("--stars", type=int, default=1_000_000, help="to train on")
    command.add_argument("--seed", type=int, default=7)
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--output", type=Path, help="table (CSV) to write")
    arguments = command.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []

    def report(name: str, model: da.FlowEnsemble, beta: float) -> None:
        rows.append({"name": name, "beta": beta, **measure(model, beta, *sizes)})
        if len(rows) == 1:
            print(*rows[0], sep=",")
        print(*(f"{v:.3g}" if isinstance(v, float) else v for v in rows[-1].values()), sep=",", flush=True)

    sizes = arguments.cards, arguments.velocities, arguments.kl_stars, arguments.seed
    if arguments.case:
        for name in CASES if "all" in arguments.case else arguments.case:
            beta, coordinates, spec, config = CASES[name]
            stars = da.Hernquist(beta=beta).sample(arguments.stars, rng=[arguments.seed, 1])
            model = da.fit(stars, spec=spec, config=config, coordinates=coordinates, rng=arguments.seed)
            report(name, model, beta)
    for path in arguments.model or ([] if arguments.case else sorted(f.parent for f in MODELS.glob("*/ensemble.json"))):
        model = load(path)
        beta = model.metadata.get("system", {}).get("beta") if arguments.beta is None else arguments.beta
        if beta is None and arguments.model:
            command.error(f"{path} does not record the beta of its Hernquist galaxy: give --beta")
        if beta is None:
            print(f"{path.name}: left out, not of a Hernquist galaxy")
            continue
        report(path.stem, model, beta)
    if arguments.output:
        write_table(arguments.output, rows, digits=3)


if __name__ == "__main__":
    main()
