"""Crossed studies: many flows, each of a draw of the stars, an initialization and an order of the batches.

>>> import dfaccel as da
>>> da.variance.Design(da.Plummer()).n_flows
640
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .boltzmann import accelerations
from .coordinates import CoordinateMap, coordinate_map
from .design import BATCHES, DATA, HELD_OUT, INITIALIZATION, KEYS, VELOCITIES, Design
from .ensemble import FlowEnsemble
from .flows import Layout
from .run import Run
from .study import cells, read, read_rows, write_rows
from .training import train

__all__ = ["Design", "cells", "read", "run", "train_group"]

_CHUNK = 8192


@dataclass(frozen=True)
class _Cell:
    """What the flows of a cell share."""

    coordinates: CoordinateMap
    mean: Tensor
    std: Tensor
    held_out: Tensor
    test: Tensor
    constants: tuple[float, float]  # to add to the losses on the two for cross-entropies in the user's units
    entropy: float  # of the truth, on the same stars; NaN where it has no density


@lru_cache(maxsize=1)
def _cell(design: Design, fraction: float) -> _Cell:
    population = design.population(fraction)
    rng = design.rng(HELD_OUT, design.fractions.index(fraction))
    w = population.sample(design.n_held_out + design.n_test, rng)
    coordinates = coordinate_map(w, design.symmetry, position_map=design.spec.position_map)
    y, log_jacobian = coordinates.forward(torch.from_numpy(w))
    mirrored = (coordinates.flips < 0).any(0)  # these stay centred on the plane of the mirror
    mean = torch.where(mirrored, 0.0, y.mean(0))
    std = torch.where(mirrored, y.square().mean(0).sqrt(), y.std(0, correction=0))
    y = ((y - mean) / std).float()
    n = design.n_held_out
    entropy = -float(population.log_df(w[n:]).mean()) if hasattr(population.system, "log_df") else float("nan")
    constants = tuple(float(std.log().sum() - part.mean()) for part in (log_jacobian[:n], log_jacobian[n:]))
    return _Cell(coordinates, mean, std, y[:n], y[n:], constants, entropy)


def train_group(design: Design, fraction: float, n_stars: int, data: int, batch: int) -> list[dict]:
    """Train all initializations on one draw of the stars, on one thread; return their rows of the table.

    Parameters
    ----------
    design : Design
        Study.
    fraction, n_stars, data, batch
        Which of `Design.groups`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the result must not depend on where it is computed
    try:
        return _train_group(design, fraction, n_stars, data, batch)
    finally:
        torch.set_num_threads(threads)


def _train_group(design: Design, fraction: float, n_stars: int, data: int, batch: int) -> list[dict]:
    cell, key = _cell(design, fraction), (design.fractions.index(fraction), design.n_stars.index(n_stars))
    w = design.population(fraction).sample(n_stars, design.rng(DATA, *key, data))
    y, _ = cell.coordinates.forward(torch.from_numpy(w))
    y = ((y - cell.mean) / cell.std).float()
    seeds = {
        "data": 0,  # no bootstrap, hence not used
        "initialization": int(design.rng(INITIALIZATION, *key).integers(2**63)),
        "batches": int(design.rng(BATCHES, *key, data, batch).integers(2**63)),
    }
    layout = Layout(design.spec, cell.coordinates.features)
    run = Run(layout, design.config, y, cell.held_out, cell.coordinates.flips, seeds, design.n_initializations)
    train(run)
    with torch.no_grad():
        networks = layout.networks(run.best)
        parts = []
        for chunk in cell.test.split(_CHUNK):
            images = [(chunk * sign).T.expand(len(run.best), -1, -1) for sign in cell.coordinates.flips.float()]
            log_p = torch.stack([layout.log_prob(networks, image) for image in images])
            parts.append(log_p.logsumexp(0) - math.log(len(images)))
    loss = cell.constants[1] - torch.cat(parts, dim=1).double().mean(1)
    model = FlowEnsemble(design.spec, cell.coordinates, cell.mean, cell.std, run.best, _reference(cell, y))
    gravity = _radial(design, model, key, data, batch)
    rows = []
    for member, (value, pull) in enumerate(zip(loss.tolist(), gravity, strict=True)):
        history = [epoch["held_out"][member] for epoch in run.progress["history"]]
        best = run.progress["best"][member]
        epochs, held_out = history.index(best) + 1, cell.constants[0] + best
        values = (fraction, n_stars, data, batch, member, epochs, held_out, value, value - cell.entropy, *pull.tolist())
        rows.append(dict(zip(design.columns, values, strict=True)))
    return rows


def _reference(cell: _Cell, y: Tensor) -> Tensor:
    n = cell.coordinates.n_positions
    return (y[:, :n] * cell.std[:n] + cell.mean[:n]).float().contiguous()


def _radial(design: Design, model: FlowEnsemble, key: tuple, data: int, batch: int) -> np.ndarray:
    """Return the radial acceleration (n_flows, n_radii) of each member."""
    if not design.radii:
        return np.empty((model.n_flows, 0))
    direction = np.array([0.6, 0.8, 0.0])
    with warnings.catch_warnings():  # few stars at large radii are the study's business
        warnings.simplefilter("ignore", UserWarning)
        rng = design.rng(VELOCITIES, *key, data, batch)
        result = accelerations(model, np.outer(design.radii, direction), rng=rng)
    return result.members @ direction


def run(design: Design, store: str | Path, executor: Executor | None = None) -> dict[str, np.ndarray]:
    """Train every flow of a study that is not in its table yet.

    The table is written anew, whole, as soon as the flows of a group (all initializations of a draw) are finished: a
    study killed at any moment loses the groups under way, and goes on when called again. The result is the same
    whatever the executor and however often it was interrupted.

    Parameters
    ----------
    design : Design
        Study.
    store : str or Path
        Table, a CSV file whose first line is the design; made if need be.
    executor : Executor, optional
        Where groups are trained: a `concurrent.futures.ProcessPoolExecutor`, or a Dask client's ``get_executor()``. By
        default here, one after another.

    Returns
    -------
    dict of ndarray
        Columns of the finished table.

    Raises
    ------
    ValueError
        If the table is of another design.
    OSError
        If it cannot be written; what it held is still there.
    RuntimeError
        If the executor fails; what is finished is kept.

    Warns
    -----
    UserWarning
        If rows of the table are damaged, the last one cut off for example; their flows are trained again.

    Examples
    --------
    >>> import dfaccel as da
    >>> design = da.variance.Design(da.Plummer(), n_stars=(10_000,))
    >>> table = run(design, "plummer.csv")  # doctest: +SKIP
    """
    store = Path(store)
    rows = read_rows(store, design) if store.exists() else {}
    write_rows(store, design, rows)  # where nothing can be written, it shows before anything is trained
    members = range(design.n_initializations)
    missing = [group for group in design.groups() if any((*group, member) not in rows for member in members)]
    total = sum(1 for _ in design.groups())
    bar = tqdm(total=total, initial=total - len(missing), unit="group", leave=False)

    with bar:
        for finished in _trained_here(design, missing) if executor is None else _trained_on(executor, design, missing):
            for row in finished:
                rows.setdefault(tuple(row[name] for name in KEYS), row)
            write_rows(store, design, rows)
            bar.update()
    write_rows(store, design, rows)
    return read(store)


def _trained_here(design: Design, missing: list[tuple]) -> Iterator[list[dict]]:
    for group in missing:
        yield train_group(design, *group)


def _trained_on(executor: Executor, design: Design, missing: list[tuple]) -> Iterator[list[dict]]:
    """Yield the rows of each group as it is finished; what the caller makes of them raises there, not here."""
    futures: list[Future] = []
    done = set()
    try:
        futures += (executor.submit(train_group, design, *group) for group in missing)
        for future in as_completed(futures):
            rows = future.result()
            done.add(future)
            yield rows
    except Exception as error:
        for future in futures:
            if future not in done and future.done() and not future.cancelled() and future.exception() is None:
                done.add(future)
                yield future.result()
        raise RuntimeError(f"the executor failed after {len(done)} of {len(missing)} groups ({type(error).__name__}: "
                           f"{error}); these are kept: call again with the same design and store to go on") from error
    finally:
        for future in futures:
            future.cancel()
