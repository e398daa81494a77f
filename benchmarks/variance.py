"""Data against initialization: train every flow of the published study, crossed, and keep a table of them.

    python benchmarks/variance.py plummer             # 640 flows, three hours on one core
    python benchmarks/variance.py disc --processes 2
    python benchmarks/variance.py sphere free         # this book's flows, of which accelerations are wanted; minutes

Writes `notebooks/results/variance_NAME.csv`, a line a flow; started again, it does only what is missing.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import dfaccel as da
from dfaccel import variance

RESULTS = Path(__file__).resolve().parent.parent / "notebooks" / "results"
DESIGNS = {
    "plummer": lambda: variance.Design(
        da.Plummer().truncated(30.0), da.Stream(radius=10.0), radii=(0.5, 1.0, 2.0, 4.0), seed=41
    ),
    "disc": lambda: variance.Design(
        da.Disc(), da.Stream(radius=1.5), radii=(0.5, 1.0, 2.0, 3.0), n_test=20_000, seed=42
    ),
    "sphere": lambda: own("spherical", da.FlowSpec(4, 32), 43),
    "free": lambda: own("none", da.FlowSpec(6, 32), 44),
}


def own(symmetry: str, spec: da.FlowSpec, seed: int) -> variance.Design:
    """Return the study of a Hernquist sphere with the flows and the schedule that serve accelerations best."""
    return variance.Design(
        da.Hernquist(), fractions=(0.0,), n_stars=(20_000, 100_000), spec=spec, symmetry=symmetry, seed=seed,
        config=da.TrainConfig(n_epochs=10, batch_size=500), radii=tuple(np.geomspace(0.2, 20, 9).round(3).tolist()),
    )


def main() -> None:
    """Run the study asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="+", choices=DESIGNS)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    for name in arguments.name:
        design, store = DESIGNS[name](), RESULTS / f"variance_{name}.csv"
        if arguments.processes == 1:
            variance.run(design, store)
        else:
            with ProcessPoolExecutor(arguments.processes) as executor:
                variance.run(design, store, executor)


if __name__ == "__main__":
    main()
