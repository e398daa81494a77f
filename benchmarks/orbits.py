"""How fast are orbits followed in the disc's potential, by us and by galpy's C integrators, at equal errors?

    OMP_NUM_THREADS=1 python benchmarks/orbits.py --output notebooks/results/orbits.csv

The initial stars of `dfaccel.Disc` are followed for a time of 100. For each of our time steps, each integrator of galpy
is given the coarsest step or tolerance, of a grid of four to a factor of two (two to a factor of ten), with which both
the median and the largest |E / E_0 - 1| at the end, over the same stars, are no larger than ours; its fastest then runs
in turn with ours, for the ratio. galpy has one step or tolerance for all stars, as it is used; only the end is kept.
Time is that of the processor, for the machine may be shared, of one thread for either. Ours follows more stars than
galpy, whose cost per orbit does not depend on their number; errors are those of the stars both follow.
The table ends with the seconds for a million stars on two cores: measured, a process on each, with --million, otherwise
as follows from the rate.
The numbers to expect: ten to fifteen times as fast as galpy's fastest integrator, more where errors are large; which
one it is depends on the error. Stars are followed in blocks, all with the steps of the neediest: with fewer stars than
here, blocks are more mixed and ours is slower. 1e6 stars take about a minute at a step of 0.3.
All takes a few minutes on one core.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from galpy.orbit import Orbit
from galpy.potential import MiyamotoNagaiPotential
from table import parser, write_table

import dfaccel as da
from dfaccel.systems.orbits import integrate

TIME = 100.0
FIELD = da.MiyamotoNagai()
STEPS = {name: [round(100 * 2 ** (k / 4)) for k in range(26)] for name in
         ("leapfrog_c", "symplec4_c", "symplec6_c", "rk4_c", "rk6_c")}  # how many, coarsest first
TOLERANCES = {name: [10 ** (-3 - k / 2) for k in range(22)] for name in ("dop853_c", "dopr54_c")}
SETTINGS = {**STEPS, **TOLERANCES}


def errors(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Return the median and the largest relative error of the energies of stars (n, 6)."""
    first, last = ((w[:, 3:] ** 2).sum(1) / 2 + FIELD.potential(w[:, :3]) for w in (before, after))
    off = np.abs(last / first - 1)
    return float(np.median(off)), float(off.max())


def timed(follow: Callable, *arguments: object) -> tuple[np.ndarray, float]:
    """Return what a function returns, and the seconds of the processor it took."""
    start = time.process_time()
    result = follow(*arguments)
    return result, time.process_time() - start


def ours(w: np.ndarray, step: float) -> np.ndarray:
    """Return the stars at the end."""
    torch.set_num_threads(1)
    return integrate(w, FIELD, TIME, step=step)


def galpy(w: np.ndarray, method: str, setting: float) -> tuple[np.ndarray, float]:
    """Return the stars at the end, by galpy, and the seconds of the integration alone."""
    big_r, phi, z, v_r, v_phi, v_z = da.cylindrical(w)
    orbit = Orbit(np.stack([big_r, v_r, v_phi, z, v_z, phi], axis=1))
    potential = MiyamotoNagaiPotential(amp=FIELD.mass, a=FIELD.a, b=FIELD.b)
    options = {"dt": TIME / setting} if method in STEPS else {"rtol": setting, "atol": setting}
    times = np.array([0, TIME])
    _, seconds = timed(lambda: orbit.integrate(times, potential, method=method, progressbar=False, **options))
    return np.stack([getattr(orbit, name)(TIME) for name in ("x", "y", "z", "vx", "vy", "vz")], axis=1), seconds


def coarsest(method: str, reached: Callable, target: tuple[float, float]) -> float | None:
    """Return the coarsest setting whose errors are within the target, by bisection; None if there is none."""
    low, high = 0, len(SETTINGS[method])
    while low < high:
        middle = (low + high) // 2
        if all(np.array(reached(method, SETTINGS[method][middle])) <= target):
            high = middle
        else:
            low = middle + 1
    return SETTINGS[method][low] if low < len(SETTINGS[method]) else None


def main() -> None:
    """Find galpy's fastest integrator at our errors, time both in turn, print one line each, write the table."""
    command = parser(__doc__)
    command.add_argument("--stars", type=int, default=262_144, help="that ours follows")
    command.add_argument("--galpy-stars", type=int, default=1000, help="that galpy follows, the first of them")
    command.add_argument("--steps", type=float, nargs="+", default=[0.3, 0.5], help="our time steps")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--million", action="store_true", help="measure a million stars on two cores")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--output", type=Path, help="CSV file")
    arguments = command.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        command.error("set OMP_NUM_THREADS=1, so that galpy's integrators use one thread, as ours does")

    w = da.Disc().initial(arguments.stars, rng=arguments.seed)
    few = w[: arguments.galpy_stars]
    found = {}

    def reached(method: str, setting: float) -> tuple[float, float]:
        if (method, setting) not in found:
            end, seconds = galpy(few, method, setting)
            found[method, setting] = (*errors(few, end), seconds)
        return found[method, setting][:2]

    rows = []
    for step in arguments.steps:
        end, _ = timed(ours, w, step)
        target = errors(few, end[: len(few)])
        fit = {method: setting for method in SETTINGS if (setting := coarsest(method, reached, target)) is not None}
        times = {name: [] for name in ("ours", *fit)}
        for _ in range(arguments.rounds):
            times["ours"].append(timed(ours, w, step)[1] / len(w))
            for method, setting in fit.items():
                times[method].append(galpy(few, method, setting)[1] / len(few))
        best = min(fit, key=lambda method: np.median(times[method]))
        for name in sorted(times, key=lambda name: np.median(times[name])):
            ratio = np.array(times[name]) / times["ours"]
            setting = step if name == "ours" else fit[name]
            median, largest = target if name == "ours" else reached(name, setting)
            rows.append({
                "our_step": step, "integrator": name, "setting": float(setting), "median_error": median,
                "largest_error": largest, "orbits_per_second": float(1 / np.median(times[name])),
                "ratio": float(np.median(ratio)), "least_ratio": ratio.min(), "most_ratio": ratio.max(),
                "million_seconds": float(1e6 * np.median(times[name]) / 2), "fastest_of_galpy": int(name == best),
            })
            print("step {our_step:g}: {integrator} ({setting:.3g}): |dE/E| median {median_error:.1e}, largest "
                  "{largest_error:.1e}; {orbits_per_second:.0f} orbits/s a core, {ratio:.3g} "
                  "({least_ratio:.3g}-{most_ratio:.3g}) times our time".format(**rows[-1]), flush=True)
    if arguments.million:
        halves = np.split(da.Disc().initial(1_000_000, rng=arguments.seed), 2)
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            list(pool.map(ours, [half[:1] for half in halves], [1.0, 1.0]))  # start the processes
            start = time.perf_counter()
            list(pool.map(ours, halves, [arguments.steps[0]] * 2))
            rows[0]["million_seconds"] = time.perf_counter() - start
    print(f"1e6 stars on two cores, step {arguments.steps[0]:g}: {rows[0]['million_seconds']:.0f} s")
    if arguments.output:
        write_table(arguments.output, rows)


if __name__ == "__main__":
    main()
