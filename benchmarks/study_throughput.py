"""How much faster does a study train its flows than nflows would, and what would the published one cost?

    python benchmarks/study_throughput.py --output notebooks/results

Both sides take whole epochs of `benchmarks/variance.py plummer` in turn, in this process: 10,000 stars in batches of
1,024, Adam, clipped gradients, then the loss of the stars held out. Ours trains the 8 initializations of a draw at
once; the peer is nflows as anyone would use it, one flow after another. Seconds on one thread are those of the
processor, so that others on the machine do not count; on more threads, which wait for each other, those of the clock.
The number to expect: at least 1.8 times the epochs per second on 2 cores. In the study a flow that has stopped
improving leaves its stack: *of study* is the ratio for the epochs in the table of the study, with an epoch of a stack
that has shrunk costing what lies, in proportion, between the stack of 8 and the single flow.

The projection is for the published numbers of flows, 100 for initialization and 50 for data, at 5 fractions and 6
numbers of stars from 10,000 to 200,000. It takes the measured seconds of a step and of a validation on one thread, and
the mean epochs of the table at every number of stars (an assumption); initializations in stacks of 8, draws of the
data as single flows, each on one core, longest first. The speed of a GPU is an assumption, not a measurement.
"""

import heapq
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from stacked_training import step_of_nflows
from table import RESULTS, parser, write_table

import dfaccel as da
from dfaccel.flows.training import Run
from dfaccel.study.design import Design
from dfaccel.study.run import read

K, FRACTIONS, SIZES = 8, 5, (10_000, 25_000, 50_000, 75_000, 150_000, 200_000)
PUBLISHED = {"initialization": 100, "data": 50}


def training(design: Design, k: int) -> Run:
    """Return a training of k flows, as in the study."""
    w = torch.from_numpy(design.system.sample(design.n_stars[0] + design.n_held_out, rng=1))
    y = ((w - w.mean(0)) / w.std(0)).float()
    seeds = {"data": 0, "initialization": 1, "batches": 2}
    stars, held_out = y[: design.n_stars[0]], y[design.n_stars[0] :]
    return Run(design.spec.layout(6), design.config, stars, held_out, torch.ones(1, 6), seeds, range(k))


def stacked(design: Design, k: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return an epoch of steps and a validation of k flows at once."""
    run = training(design, k)

    def steps() -> None:
        for batch in run.batches(run.progress["epoch"], 0):
            run.step(batch)
        run.progress["epoch"] += 1

    return steps, run.validate


def one_after_another(design: Design, k: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return the same of k flows of nflows."""
    run, size = training(design, k), design.config.batch_size
    y, held_out = run.y.T.contiguous(), run.held.T.contiguous()
    flows = [design.spec.build(6, seed) for seed in range(k)]
    optimizers = [torch.optim.Adam(flow.parameters(), lr=design.config.learning_rate) for flow in flows]

    def steps() -> None:
        for flow, optimizer in zip(flows, optimizers, strict=True):
            order = torch.from_numpy(np.random.default_rng(0).permutation(len(y)))
            for step in range(len(y) // size):
                batch = y[order[step * size : (step + 1) * size]]
                step_of_nflows(flow, optimizer, batch, design.config.clip)

    def validation() -> None:
        with torch.no_grad():
            for flow in flows:
                flow.log_prob(held_out).mean().item()

    return steps, validation


def measure(design: Design, rounds: int, clock: Callable[[], float]) -> dict[str, np.ndarray]:
    """Return seconds (rounds, 2) of the steps of an epoch and of a validation, for each way."""
    ways = {"stack": stacked(design, K), "single": stacked(design, 1), "nflows": one_after_another(design, K)}
    seconds = {name: np.empty((rounds, 2)) for name in ways}
    for repeat in range(-1, rounds):  # the first round warms up
        for name, parts in ways.items():
            for column, part in enumerate(parts):
                start = clock()
                part()
                seconds[name][repeat, column] = clock() - start
    return seconds


def hours(jobs: list[float], workers: int) -> float:
    """Return how long workers need for jobs, each taking the longest one left when it is free; in the jobs' unit."""
    free = [0.0] * workers
    for job in sorted(jobs, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + job)
    return max(free)


def projection(jobs: dict[str, list[float]], cores: int, gpu: float) -> list[dict]:
    """Return the table of hours for what was published."""
    rows = []
    for name, seconds in (*jobs.items(), ("both", [job for part in jobs.values() for job in part])):
        core_hours = [job / 3600 for job in seconds]
        rows.append({
            "what varies": name, "flows": FRACTIONS * len(SIZES) * PUBLISHED.get(name, sum(PUBLISHED.values())),
            "core hours": sum(core_hours), f"hours on 1 node of {cores} cores": hours(core_hours, cores),
            f"hours on 10 nodes of {cores} cores": hours(core_hours, 10 * cores),
            f"hours on 1 GPU, assumed as fast as {gpu:g} cores": sum(core_hours) / gpu,
        })
    return rows


def main() -> None:
    """Measure, project, print, and write the tables if asked to."""
    command = parser(__doc__)
    command.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    command.add_argument("--rounds", type=int, default=7)
    command.add_argument("--cores", type=int, default=32, help="of a node")
    command.add_argument("--gpu", type=float, default=50, help="how many cores a GPU is worth: an assumption")
    command.add_argument("--output", type=Path, help="folder for study.csv and projection.csv")
    arguments = command.parse_args()
    design = Design(da.Plummer(r_max=30.0))
    epochs = np.array(read(RESULTS / "variance_plummer.ecsv")["epochs"])
    stacks = epochs[: len(epochs) // K * K].reshape(-1, K) + design.config.patience
    n_single, n_stack, steps = stacks.mean(), stacks.max(axis=1).mean(), design.n_stars[0] // design.config.batch_size

    def shrinking(stack: float, single: float) -> float:
        """Return what a stack costs, from the cost of an epoch of a whole one and of a single flow."""
        each = (stack - single) / (K - 1)
        return float(n_stack * (single - each) + K * n_single * each)

    rows, cost = [], None
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        seconds = measure(design, arguments.rounds, time.process_time if threads == 1 else time.perf_counter)
        ratios = seconds["nflows"].sum(1) / seconds["stack"].sum(1)
        epoch = {name: np.median(values.sum(1)) for name, values in seconds.items()}
        rows.append({
            "threads": threads, "flows": K,
            **{f"{name} epochs/s": float(n / epoch[name])
               for name, n in (("stack", K), ("single", 1), ("nflows", K))},
            "ratio": float(np.median(ratios)), "least": float(ratios.min()), "most": float(ratios.max()),
            "of study": float(n_single * epoch["nflows"] / shrinking(epoch["stack"], epoch["single"])),
        })
        print(", ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()))
        if cost is None:
            cost = {name: np.median(values, axis=0) / (steps, 1) for name, values in seconds.items()}

    def epoch_of(way: str, n_stars: int) -> float:
        return float(n_stars // design.config.batch_size * cost[way][0] + cost[way][1])

    n_stacks = -(-PUBLISHED["initialization"] // K)
    jobs = {
        "initialization": [shrinking(epoch_of("stack", n), epoch_of("single", n)) for n in SIZES]
        * FRACTIONS * n_stacks,
        "data": [n_single * epoch_of("single", n) for n in SIZES] * FRACTIONS * PUBLISHED["data"],
    }
    table = projection(jobs, arguments.cores, arguments.gpu)
    print(f"epochs of a flow {n_single:.0f}, of a stack {n_stack:.0f}, from {len(stacks)} stacks")
    for row in table:
        print(", ".join(f"{name} {value:.4g}" if isinstance(value, float) else value for name, value in row.items()
                        if not isinstance(value, int)))
    if arguments.output:
        write_table(arguments.output / "study.csv", rows, 4)
        write_table(arguments.output / "projection.csv", table, 4)


if __name__ == "__main__":
    main()
