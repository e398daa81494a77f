"""How accurate are accelerations from one flow, and how long does it train?

    python benchmarks/accuracy.py --seed 7

Trains one flow on a fresh million stars of each galaxy, with spherical symmetry and without, and prints the score
card: 200 points, log-uniform in r over 0.2-20 scale radii, error of the whole vector. Numbers to expect on 2 cores:
spherical, median at most 1.0 % within 5 minutes; none, median at most 2.5 % and KL at most 0.006 within 15 minutes.
"""

import argparse
import time

import torch

import dfaccel as da

CASES = {
    "isotropic, spherical": (0.0, "spherical", da.FlowSpec(n_transforms=6), da.TrainConfig(n_epochs=5)),
    "anisotropic, spherical": (0.5, "spherical", da.FlowSpec(n_transforms=6), da.TrainConfig(n_epochs=5)),
    "isotropic, none": (0.0, "none", da.FlowSpec(), da.TrainConfig(n_epochs=16)),
}


def main() -> None:
    """Train and print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stars", type=int, default=1_000_000)
    parser.add_argument("--case", choices=CASES, action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.case or CASES:
        beta, symmetry, spec, config = CASES[name]
        galaxy = da.Hernquist(beta=beta)
        stars = galaxy.sample(arguments.stars, rng=[arguments.seed, 1])
        start = time.perf_counter()
        model = da.fit(stars, spec=spec, config=config, symmetry=symmetry, rng=arguments.seed)
        minutes = (time.perf_counter() - start) / 60
        card = da.score_card(model, galaxy, rng=[arguments.seed, 2])
        kl = da.kl_divergence(galaxy, model, n=200_000, rng=[arguments.seed, 3])
        print(
            f"{name}: median {card.median:.2%}, 90th percentile {card.p90:.2%}, "
            f"KL {kl.value:.5f} +- {kl.standard_error:.5f}, {minutes:.1f} min on {arguments.threads} threads",
            flush=True,
        )


if __name__ == "__main__":
    main()
