"""How often do the intervals of a crossed study hold the truth, and how often does its rule find it?

    OMP_NUM_THREADS=1 python benchmarks/variance_intervals.py     # a quarter of an hour on one core

Made-up tables of a complete and of three sparse designs (each of L draws with k of L initializations, cyclic), whose
variances are the estimates of four cells of `notebooks/results/variance_plummer.ecsv`. The terms are Gaussian; or the
rest has the tails of Student's t with three degrees of freedom; or the effects of data and initialization have them.
Both intervals of 95 % are measured: "likelihood" is `components`, "pigeonhole" is `pigeonhole`.

A row has the shares of tables whose interval holds the true ratio (with its binomial error), lies wholly below and
wholly above it, and holds the true shares; the median factor between the ends for the ratio; and the shares of tables
for which the rule says *initialization* (the upper end is below one), *data* (the lower end is above one), *comparable*
(both ends are between a third and three) or *open*. A row is added as each result is known; started again, the script
does only what is missing.
Numbers to expect, of tables whose interval holds the true ratio: 92-99 % by either method, unless the effects have
heavy tails. With those, the likelihood holds it in 64-94 % and the pigeonhole in 90-98 %. True shares are held less
often: with heavy-tailed effects in 54-96 % and 75-99 %, with a heavy-tailed rest in 75-98 % and 94-100 %.
"""

from itertools import product
from pathlib import Path

import numpy as np
from table import RESULTS, Rows, parser

from dfaccel.study.components import Components, components, pigeonhole
from dfaccel.study.run import cells, read

KEYS = ("n_levels", "n_of_each", "fraction", "n_stars", "tails", "method")
DESIGNS = ((8, 8), (32, 8), (64, 16), (128, 8))  # levels of both factors, and flows of each level
CELLS = ((0.1, 10_000), (0.0, 10_000), (0.01, 10_000), (0.1, 20_000))  # fraction in the stream, number of stars
TAILS = ("none", "rest", "effects")
N_DRAWS = 1000  # of the pigeonhole


def made_up(size: tuple[int, int], variance: np.ndarray, tails: str, rng: np.random.Generator) -> np.ndarray:
    """Return a table (L, L) with k flows of each level and NaN for the others."""
    levels, k = size
    shapes = ((levels, 1), (1, levels), (levels, levels))
    heavy = (tails == "effects", tails == "effects", tails == "rest")
    draws = (rng.standard_t(3, s) / 3**0.5 if t else rng.standard_normal(s) for s, t in zip(shapes, heavy, strict=True))
    y = sum(v**0.5 * draw for v, draw in zip(variance, draws, strict=True))
    return np.where((np.arange(levels) - np.arange(levels)[:, None]) % levels < k, y, np.nan)


def verdict(low: float, high: float) -> str:
    """Return what the rule says of an interval."""
    if high < 1:
        return "initialization"
    if low > 1:
        return "data"
    return "comparable" if low >= 1 / 3 and high <= 3 else "open"


def summary(found: list[Components], variance: np.ndarray) -> dict[str, float]:
    """Return the columns of a row, from the results of its tables."""
    ends, true = np.array([result.ratio_interval for result in found]), variance[0] / variance[1]
    shares, true_shares = np.array([result.share_interval for result in found]), variance / variance.sum()
    held = np.mean((ends[:, 0] <= true) & (true <= ends[:, 1]))
    said = [verdict(*pair) for pair in ends]
    with np.errstate(divide="ignore"):
        factor = np.median(np.where(np.isinf(ends[:, 1]), np.inf, ends[:, 1] / ends[:, 0]))
    row = {"ratio": true, "n_tables": len(found), "held": held, "held_error": (held * (1 - held) / len(found)) ** 0.5,
           "below": np.mean(ends[:, 1] < true), "above": np.mean(ends[:, 0] > true), "factor": factor}
    row |= {f"held_{term}": np.mean((shares[:, k, 0] <= true_shares[k]) & (true_shares[k] <= shares[:, k, 1]))
            for k, term in enumerate(found[0].terms)}
    row |= {word: said.count(word) / len(said) for word in ("initialization", "data", "comparable", "open")}
    return {name: value if name == "n_tables" else float(value) for name, value in row.items()}


def main() -> None:
    """Do what is missing, and print the table."""
    command = parser(__doc__)
    command.add_argument("--output", type=Path, default=RESULTS / "variance_intervals.ecsv")
    command.add_argument("--tables", type=int, default=300)
    command.add_argument("--seed", type=int, default=12)
    arguments = command.parse_args()
    said = f"python benchmarks/variance_intervals.py --tables {arguments.tables} --seed {arguments.seed}"
    table = Rows(arguments.output, KEYS, {"command": said})
    losses = cells(read(RESULTS / "variance_plummer.ecsv"), "held_out")
    for number, (size, cell, tails) in enumerate(product(DESIGNS, CELLS, TAILS)):
        if (*size, *cell, tails, "pigeonhole") in table:
            continue
        variance, found = components(losses[cell]).share, {"likelihood": [], "pigeonhole": []}
        for rng in np.random.default_rng([arguments.seed, number]).spawn(arguments.tables):
            y = made_up(size, variance, tails, rng)
            found["likelihood"].append(components(y))
            found["pigeonhole"].append(pigeonhole(y, n_draws=N_DRAWS, rng=rng))
        table.add(*(dict(zip(KEYS, (*size, *cell, tails, method), strict=True)) | summary(results, variance)
                    for method, results in found.items()))
    for row in table.rows:
        print(*row.values())


if __name__ == "__main__":
    main()
