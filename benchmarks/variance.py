"""Data against initialization: train every flow of the published study, crossed, and keep a table of them.

    python benchmarks/variance.py plummer             # 640 flows, three hours on one core
    python benchmarks/variance.py disc --processes 2

Writes `notebooks/results/variance_NAME.csv`, a line a flow; started again, it does only what is missing.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

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
}


def main() -> None:
    """Run the study asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=DESIGNS)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    design, store = DESIGNS[arguments.name](), RESULTS / f"variance_{arguments.name}.csv"
    if arguments.processes == 1:
        variance.run(design, store)
    else:
        with ProcessPoolExecutor(arguments.processes) as executor:
            variance.run(design, store, executor)


if __name__ == "__main__":
    main()
