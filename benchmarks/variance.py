"""Data against initialization: train every flow of the published study, crossed, and keep a table of them.

    python benchmarks/variance.py plummer             # 640 flows, three hours on one core
    python benchmarks/variance.py disc --processes 2
    python benchmarks/variance.py sphere free         # this book's flows, of which accelerations are wanted; minutes

Writes `notebooks/results/variance_NAME.ecsv`, a line a flow; started again, it does only what is missing.
"""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from table import RESULTS, parser

import dfaccel as da
from dfaccel.study.design import Design
from dfaccel.study.run import run

DESIGNS = {
    "plummer": lambda: Design(
        da.Plummer().truncated(30.0), da.Stream(radius=10.0), radii=(0.5, 1.0, 2.0, 4.0), seed=41
    ),
    "disc": lambda: Design(da.Disc(), da.Stream(radius=1.5), radii=(0.5, 1.0, 2.0, 3.0), n_test=20_000, seed=42),
    "sphere": lambda: own("spherical", da.FlowSpec(4, 32), 43),
    "free": lambda: own("radial", da.FlowSpec(6, 32), 44),
}


def own(coordinates: str, spec: da.FlowSpec, seed: int) -> Design:
    """Return the study of a Hernquist sphere with the flows and the schedule that serve accelerations best."""
    return Design(
        da.Hernquist(), fractions=(0.0,), n_stars=(20_000, 100_000), spec=spec, coordinates=coordinates, seed=seed,
        config=da.TrainConfig(n_epochs=10, batch_size=500), radii=tuple(np.geomspace(0.2, 20, 9).round(3).tolist()),
    )  # fmt: skip


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
