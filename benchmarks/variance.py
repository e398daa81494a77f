"""Data against initialization: train every flow of the published study, crossed, and keep a table of them.

    python benchmarks/variance.py plummer             # 640 flows, three hours on one core
    python benchmarks/variance.py disc --processes 2
    python benchmarks/variance.py sphere free         # this book's flows, of which accelerations are wanted; minutes
    python benchmarks/variance.py tenth none hundredth twice disc_tenth   # sparsely crossed, many levels; 19 core hours

Writes `notebooks/results/variance_NAME.ecsv`, a line a flow; started again, it does only what is missing.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from table import RESULTS, parser

import dfaccel as da
from dfaccel.study.design import Design, cyclic
from dfaccel.study.run import run

DESIGNS = {
    "plummer": lambda: Design(
        da.Plummer(r_max=30.0), da.Stream(radius=10.0), radii=(0.5, 1.0, 2.0, 4.0), seed=41
    ),
    "disc": lambda: Design(da.Disc(), da.Stream(radius=1.5), radii=(0.5, 1.0, 2.0, 3.0), n_test=20_000, seed=42),
    "sphere": lambda: own("spherical", da.FlowSpec(4, 32), 43),
    "free": lambda: own("radial", da.FlowSpec(6, 32), 44),
    "tenth": lambda: sparse("plummer", 0.1, 10_000, 128, 8, 56),
    "none": lambda: sparse("plummer", 0.0, 10_000, 128, 8, 52),
    "hundredth": lambda: sparse("plummer", 0.01, 10_000, 128, 8, 53),
    "twice": lambda: sparse("plummer", 0.1, 20_000, 64, 16, 54),
    "disc_tenth": lambda: sparse("disc", 0.1, 10_000, 32, 8, 55),
}


def own(coordinates: str, spec: da.FlowSpec, seed: int) -> Design:
    """Return the study of a Hernquist sphere with the flows and the schedule that serve accelerations best."""
    return Design(
        da.Hernquist(), fractions=(0.0,), n_stars=(20_000, 100_000), spec=spec, coordinates=coordinates, seed=seed,
        config=da.TrainConfig(n_epochs=10, batch_size=500), radii=tuple(np.geomspace(0.2, 20, 9).round(3).tolist()),
    )  # fmt: skip


def sparse(name: str, fraction: float, n_stars: int, n_levels: int, n_partners: int, seed: int) -> Design:
    """Return one cell of the crossed study with more levels: each draw with some of the initializations."""
    design = DESIGNS[name]()
    return replace(
        design, fractions=(fraction,), n_stars=(n_stars,), n_data=n_levels, n_initializations=n_levels, seed=seed,
        pairs=cyclic(n_levels, n_partners), config=replace(design.config, n_epochs=600),
    )


def main() -> None:
    """Run the study asked for."""
    command = parser(__doc__)
    command.add_argument("name", nargs="+", choices=DESIGNS)
    command.add_argument("--processes", type=int, default=1)
    command.add_argument("--output", type=Path, default=RESULTS, help="folder of the tables")
    arguments = command.parse_args()
    for name in arguments.name:
        design, store = DESIGNS[name](), arguments.output / f"variance_{name}.ecsv"
        if arguments.processes == 1:
            run(design, store)
        else:
            with ProcessPoolExecutor(arguments.processes) as executor:
                run(design, store, executor)


if __name__ == "__main__":
    main()
