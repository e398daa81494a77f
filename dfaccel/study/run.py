"""Train the flows of a study, group by group, here or elsewhere, and keep a table that no interruption damages."""

import io
import math
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, as_completed
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from astropy.table import Table
from tqdm.auto import tqdm
from yaml import YAMLError

from dfaccel._files import difference, write_files
from dfaccel.flows.ensemble import FlowEnsemble
from dfaccel.flows.fit import Prepared, prepare
from dfaccel.flows.loop import train
from dfaccel.flows.training import Run
from dfaccel.gravity.accelerations import accelerations
from dfaccel.study.design import BATCHES, DATA, HELD_OUT, INITIALIZATION, KEYS, VELOCITIES, Design

_INTEGERS = (*KEYS[1:], "epochs")
_DIRECTION = np.array([0.6, 0.8, 0.0])  # along which the radial acceleration is recorded


def run(design: Design, store: str | Path, executor: Executor | None = None) -> Table:
    """Train every flow of a study that is not yet in the table at ``store`` (ECSV), and return the finished table.

    The table is written anew, whole, as soon as a group (the initializations on one draw) is finished, so that a study
    killed at any moment loses only the groups under way. It is the same whatever the executor: none, a
    `concurrent.futures.ProcessPoolExecutor`, or a Dask client's ``get_executor()``.
    """
    store = Path(store).expanduser()
    rows = _finished(store, design) if store.exists() else {}
    _write(store, design, rows)  # if nothing can be written, that shows before anything is trained
    groups = list(design.groups())
    missing = [group for group in groups if any((*group, i) not in rows for i in design.partners(group[2]))]
    here = (train_group(design, *group) for group in missing)
    with tqdm(total=len(groups), initial=len(groups) - len(missing), unit="group", leave=False) as bar:
        for trained in here if executor is None else _elsewhere(executor, design, missing):
            rows = {row[:5]: row for row in trained} | rows  # a row that is there stays as it is
            _write(store, design, rows)
            bar.update()
    return read(store)


def read(store: str | Path) -> Table:
    """Return the table of a study, its design in ``meta["design"]``; damaged rows are left out with a warning."""
    table, damaged = _parse(Path(store).expanduser())
    if damaged:
        warnings.warn(f"{store} has damaged rows ({damaged}), left out here: run the study again", stacklevel=2)
    return table


def cells(table: Table, column: str) -> dict[tuple[float, int], np.ndarray]:
    """Return a column by (fraction, n_stars): (n_data, n_initializations, n_batches), NaN where there is no pair."""
    pairs = table.meta.get("design", {}).get("pairs")
    arranged, factors = {}, ("data", "initialization", "batch")
    for key in sorted(set(zip(table["fraction"].tolist(), table["n_stars"].tolist(), strict=True))):
        here = table[(table["fraction"] == key[0]) & (table["n_stars"] == key[1])]
        values = np.full([table[name].max() + 1 for name in factors], np.nan)
        n_flows = values.size if pairs is None else sum(map(len, pairs)) * values.shape[2]
        if lacking := n_flows - len(here):
            raise ValueError(f"the cell {key} lacks {lacking} of {n_flows} flows: finish the study first")
        values[tuple(here[name].data for name in factors)] = here[column]
        arranged[key] = values
    return arranged


def train_group(design: Design, fraction: float, n_stars: int, data: int, batch: int) -> list[tuple]:
    """Train the initializations of one draw of the stars, on one thread; return their rows, values of the columns."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the result must not depend on where it is computed
    try:
        return _train_group(design, fraction, n_stars, data, batch)
    finally:
        torch.set_num_threads(threads)


def _train_group(design: Design, fraction: float, n_stars: int, data: int, batch: int) -> list[tuple]:
    judges, test, entropy = _judges(design, fraction)
    key, n = (design.fractions.index(fraction), design.n_stars.index(n_stars)), design.n_held_out
    stars = judges.apply(design.population(fraction).sample(n_stars, rng=design.rng(DATA, *key, data)))
    seeds = {
        "data": 0,  # no bootstrap, hence not used
        "initialization": int(design.rng(INITIALIZATION, *key).integers(2**63)),
        "batches": int(design.rng(BATCHES, *key, data, batch).integers(2**63)),
    }
    coordinates, partners = stars.coordinates, design.partners(data)
    layout = design.spec.layout(coordinates.features)
    run = Run(layout, design.config, stars.y, judges.y[:n], coordinates.flips, seeds, partners)
    train(run)
    model = FlowEnsemble(design.spec, coordinates, stars.mean, stars.std, run.best, stars.positions)
    loss = -model.members_log_df(test).mean(axis=1)
    pulls = np.empty((len(partners), 0))
    if design.radii:
        rng = design.rng(VELOCITIES, *key, data, batch)
        pulls = accelerations(model, np.outer(design.radii, _DIRECTION), rng=rng, warn=False).members @ _DIRECTION
    rows = []
    for member, best in enumerate(run.progress["best"]):
        epochs = [epoch["held_out"][member] for epoch in run.progress["history"]].index(best) + 1
        losses = judges.offset(slice(n)) + best, float(loss[member]), float(loss[member] - entropy)
        rows.append((fraction, n_stars, data, batch, partners[member], epochs, *losses, *pulls[member].tolist()))
    return rows


@lru_cache(maxsize=1)
def _judges(design: Design, fraction: float) -> tuple[Prepared, np.ndarray, float]:
    """Return the stars that judge the flows, held out then test, the latter as they are, and the truth's entropy."""
    population = design.population(fraction)
    rng = design.rng(HELD_OUT, design.fractions.index(fraction))
    w = population.sample(design.n_held_out + design.n_test, rng=rng)
    test = w[design.n_held_out :]
    entropy = -float(population.log_df(test).mean()) if hasattr(population.system, "log_df") else math.nan
    return prepare(w, design.coordinates), test, entropy


def _elsewhere(executor: Executor, design: Design, missing: list[tuple]) -> Iterator[list[tuple]]:
    """Yield the rows of each group as it is finished; what the caller makes of them raises there, not here."""
    futures, done = [], set()
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


def _write(store: Path, design: Design, rows: dict[tuple, tuple]) -> None:
    """Write the table anew, whole or not at all."""
    order = {group: place for place, group in enumerate(design.groups())}
    ordered = sorted(rows.values(), key=lambda row: (order[row[:4]], row[4]))
    kinds = [int if name in _INTEGERS else float for name in design.columns]
    table = Table(rows=ordered or None, names=design.columns, dtype=kinds, meta={"design": design.to_dict()})
    text = io.StringIO()
    table.write(text, format="ascii.ecsv", delimiter=",")
    write_files({store: text.getvalue().encode()})


def _parse(store: Path) -> tuple[Table, int]:
    """Return the table without the rows that are not whole, and the number of those."""
    if not store.exists():
        raise FileNotFoundError(f"{store} does not exist")
    *lines, cut = store.read_text(errors="replace").split("\n")  # a line without its end may lack digits
    head = next((i for i, line in enumerate(lines, 1) if not line.startswith("#")), 0)
    rows = []
    for line in lines[head:]:
        with suppress(ValueError):  # a whole row has a number of the right kind for each column, and a finite loss
            items = zip(lines[head - 1].split(","), line.split(","), strict=True)
            row = {name: (int if name in _INTEGERS else float)(item) for name, item in items}
            rows += [line] * math.isfinite(row.get("held_out", 0.0))
    try:
        table = Table.read([*lines[:head], *rows], format="ascii.ecsv")
        if tuple(table.colnames[:5]) != KEYS or not isinstance(table.meta["design"], dict):
            raise ValueError
    except (ValueError, LookupError, TypeError, YAMLError):
        raise ValueError(f"{store} is not the table of a study; name another file or delete it") from None
    return table, len(lines) - head - len(rows) + bool(cut)


def _finished(store: Path, design: Design) -> dict[tuple, tuple]:
    """Return the rows of the table by their `KEYS`, or raise ValueError if it is that of another design."""
    table, damaged = _parse(store)
    there = {"pairs": None} | table.meta["design"] | {"columns": table.colnames}  # complete designs once had no pairs
    here = design.to_dict() | {"columns": list(design.columns)}
    if here != there:
        raise ValueError(f"{store} is of another study: {difference('', there, here)}; name another file or delete it")
    rows = list(zip(*(table[name].tolist() for name in table.colnames), strict=True))
    groups = {group: design.partners(group[2]) for group in design.groups()}
    found = {row[:5]: row for row in reversed(rows) if row[4] in groups.get(row[:4], ())}
    damaged += len(rows) - len(found)  # of other groups, or there twice
    if damaged:
        warnings.warn(f"{store} has damaged rows ({damaged}): these flows are trained again", stacklevel=3)
    return found
