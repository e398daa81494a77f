"""How fast are stars drawn from a Hernquist sphere, by us, by galpy and by emcee, and are they drawn without bias?

    python benchmarks/sampling.py --output sampling.csv

Every sampler draws from the isotropic and the radially biased (beta = 1/2) galaxy in turn, in this process. Time is per
million effective stars: all of them for ours and galpy's, whose draws are independent, and steps times walkers over the
longest autocorrelation time for emcee. emcee runs twice: as `dfaccel.sample_mcmc`, which walks in the coordinates of
the galaxy and evaluates all walkers at once, and the way it is commonly used and was in An et al. (2021), 100 walkers,
Cartesian, stretch moves, one star a call. galpy's set-up is not timed.
The bias is that of the radial velocity dispersion, sampled / exact - 1, where exact is that of the radii drawn, so
that a bin may be wide: the mean over bins of radius with its standard error, and the chi^2 of no bias. emcee's stars,
one an autocorrelation time, count as independent.
The numbers to expect: ours unbiased (to 0.02 % in 3e7 stars, chi^2 about the number of bins), at least as fast as
galpy (1.0-1.2 times for beta = 0, five times for 1/2), at least 10,000 times as fast as emcee one star a call, and some
hundred times as fast as emcee at its best. galpy 1.12.1 is unbiased too; before, it was 0.6-0.8 % low (its issue 1343).
All takes a quarter of an hour on one core; --sampler galpy, for ours and galpy alone, seconds.
"""

import time
from collections.abc import Callable
from pathlib import Path

import emcee
import numpy as np
from galpy.df import constantbetaHernquistdf, isotropicHernquistdf
from galpy.potential import HernquistPotential
from table import parser, write_table

import dfaccel as da

EDGES = np.geomspace(0.1, 10, 13)  # of the bins of radius, scale radii
FEWEST = 30  # stars a bin must hold to count


def ours(galaxy: da.Hernquist) -> Callable:
    """Return a function of n and seed that returns stars and how many of them are independent."""
    return lambda n, seed: (galaxy.sample(n, rng=seed), n)


def galpy(galaxy: da.Hernquist) -> Callable:
    """Return the same for galpy, its interpolation tables made."""
    potential = HernquistPotential(amp=2.0, a=1.0)
    beta = galaxy.beta
    df = constantbetaHernquistdf(pot=potential, beta=beta) if beta else isotropicHernquistdf(pot=potential)
    df.sample(n=10, return_orbit=False)

    def draw(n: int, seed: int) -> tuple[np.ndarray, float]:
        np.random.seed(seed)  # noqa: NPY002 -- galpy takes no generator
        big_r, v_r, v_t, z, v_z, _ = df.sample(n=n, return_orbit=False)
        zero = np.zeros(n)
        return np.stack([big_r, zero, z, v_r, v_t, v_z], axis=1), n  # turned to azimuth zero

    return draw


def _mcmc(target: object, n_walkers: int, **options: object) -> Callable:
    def draw(n: int, seed: int) -> tuple[np.ndarray, float]:  # noqa: ARG001 -- as many as the shortest chain gives
        drawn = da.sample_mcmc(target, 45 * n_walkers, rng=seed, n_walkers=n_walkers, **options)
        return drawn.stars, drawn.n_effective

    return draw


def emcee_ours(galaxy: da.Hernquist) -> Callable:
    """Return the same for emcee as this package runs it."""
    return _mcmc(galaxy, 500)


def emcee_common(galaxy: da.Hernquist) -> Callable:
    """Return the same for emcee as it is commonly run."""
    options = {"coordinates": "cartesian", "moves": [(emcee.moves.StretchMove(), 1.0)], "max_steps": 200_000}
    return _mcmc(lambda w: np.array([galaxy.log_df(star) for star in w]), 100, **options)


SAMPLERS = {"ours": ours, "galpy": galpy, "emcee": emcee_ours, "emcee, one star a call": emcee_common}


def moments(galaxy: da.Hernquist, w: np.ndarray) -> np.ndarray:
    """Return sums (6, bins) of 1, v_r^2, sigma^2, v_r^4, v_r^2 sigma^2 and sigma^4."""
    r, v_r, _ = da.spherical(w)
    v2, s2 = v_r**2, galaxy.velocity_dispersion(r) ** 2
    return np.array([np.histogram(r, EDGES, weights=q)[0] for q in (np.ones(len(r)), v2, s2, v2**2, v2 * s2, s2**2)])


def bias(sums: np.ndarray) -> tuple[float, float, float, int]:
    """Return the mean bias of the dispersion, its standard error, chi^2 and the number of bins, from `moments`."""
    n, v2, s2, v4, v2s2, s4 = sums[:, sums[0] >= FEWEST]
    if not len(n):
        return np.nan, np.nan, np.nan, 0
    square = v2 / s2
    error = np.sqrt(v4 - 2 * square * v2s2 + square**2 * s4) / s2 / (2 * np.sqrt(square))
    off = np.sqrt(square) - 1
    return off.mean(), np.sqrt((error**2).sum()) / len(n), ((off / error) ** 2).sum(), len(n)


def main() -> None:
    """Time and test all samplers in turn, print one line each, and write the table if asked to."""
    command = parser(__doc__)
    command.add_argument("--stars", type=int, default=1_000_000, help="stars a round, of ours and of galpy")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--sampler", choices=SAMPLERS, action="append", help="all if not given; ours is always run")
    command.add_argument("--output", type=Path, help="CSV file")
    arguments = command.parse_args()
    names = [name for name in SAMPLERS if name == "ours" or name in (arguments.sampler or SAMPLERS)]
    cases = {(beta, name): da.Hernquist(beta=beta) for beta in (0.0, 0.5) for name in names}
    draws = {case: SAMPLERS[case[1]](galaxy) for case, galaxy in cases.items()}
    seconds, sums, numbers = ({case: [] for case in cases} for _ in range(3))
    for repeat in range(arguments.rounds):
        for case, draw in draws.items():
            start = time.perf_counter()
            w, n_effective = draw(arguments.stars, arguments.seed + repeat)
            seconds[case].append(1e6 * (time.perf_counter() - start) / n_effective)
            sums[case].append(moments(cases[case], w))
            numbers[case].append(len(w))

    rows = []
    for (beta, name), times in seconds.items():
        off, error, chi2, n_bins = bias(np.sum(sums[beta, name], axis=0))
        ratio = np.array(times) / seconds[beta, "ours"]
        rows.append({
            "beta": beta, "sampler": name, "stars": sum(numbers[beta, name]),
            "seconds": np.median(times), "least": min(times), "most": max(times),
            "ratio": np.median(ratio), "least_ratio": ratio.min(), "most_ratio": ratio.max(),
            "bias": off, "error": error, "chi2": chi2, "bins": n_bins,
        })
        print("beta {beta}, {sampler}: {seconds:.3g} s ({least:.3g}-{most:.3g}) per 1e6 effective stars, "
              "{ratio:.3g} ({least_ratio:.3g}-{most_ratio:.3g}) times ours; sigma_r off by {bias:+.3%} +- {error:.3%}, "
              "chi^2 {chi2:.1f} of {bins} bins, {stars} stars".format(**rows[-1]))
    if arguments.output:
        write_table(arguments.output, rows)


if __name__ == "__main__":
    main()
