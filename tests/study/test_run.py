"""Crossed studies: the same table however it is interrupted and wherever it is computed, and effects that are apart."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from unittest.mock import Mock, patch

import distributed
import numpy as np
import pytest
import torch
from astropy.table import Table

import dfaccel as da
from dfaccel.study import run as study
from dfaccel.study.design import HELD_OUT, KEYS, Design  # noqa: F401 - Design is evaluated

SMALL = """Design(
    da.Plummer(), fractions=(0.0, 0.1), n_stars=(1000,), n_data=2, n_initializations=3,
    spec=da.FlowSpec(2, 8, permutation="rotate"), n_held_out=300, n_test=300, seed=3,
    config=da.TrainConfig(n_epochs=3, batch_size=250, learning_rate=0.01, matrix_rate=0, warmup=0, decay=False,
                          patience=1),
)"""
DESIGN = eval(SMALL)  # noqa: S307 - ours; a process of its own needs it too
GROUPS = list(DESIGN.groups())


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The table of the small study in bytes, from one run without a break."""
    store = tmp_path_factory.mktemp("unbroken") / "table.ecsv"
    study.run(DESIGN, store)
    return store.read_bytes()


def head(table):
    """Number of lines above the rows of a table in bytes."""
    return sum(line.startswith(b"#") for line in table.splitlines()) + 1


def rows(table, n):
    """A table in bytes with its first n rows only."""
    return b"".join(table.splitlines(keepends=True)[: head(table) + n])


@pytest.fixture
def store(tmp_path):
    return tmp_path / "table.ecsv"


@pytest.fixture
def trained(monkeypatch):
    """List of the groups that are trained from here on."""
    groups, original = [], study.train_group
    monkeypatch.setattr(study, "train_group", lambda design, *key: groups.append(key) or original(design, *key))
    return groups


def started(design, *group):
    """The training of a group (by default the first), before its first step."""
    train = Mock(side_effect=KeyboardInterrupt)
    with patch.object(study, "train", train), pytest.raises(KeyboardInterrupt):
        study.train_group(design, *(group or next(iter(design.groups()))))
    return train.call_args.args[0]


def order(run):
    """Order of the batches, a row a member."""
    return run._draws("batches", "order", run.members, 0)


# ---- the table ----


def test_the_same_table_twice(store, unbroken, trained):
    table = study.run(DESIGN, store)
    assert store.read_bytes() == unbroken
    assert trained == GROUPS
    assert DESIGN.n_flows == len(table) == 12
    assert tuple(table.colnames) == DESIGN.columns
    for again in (study.read(store), Table.read(store), study.run(DESIGN, store)):  # nothing is left to do
        assert again.meta["design"] == DESIGN.to_dict()
        for name, column in again.columns.items():
            np.testing.assert_array_equal(column, table[name])
            assert column.dtype == (int if name in (*KEYS[1:], "epochs") else float)
    assert trained == GROUPS
    assert store.read_bytes() == unbroken


def test_threads_of_one_process_make_the_same_table_and_another_seed_another(store, unbroken):
    with ThreadPoolExecutor(4) as executor:  # they share torch's generator
        study.run(DESIGN, store, executor)
    assert store.read_bytes() == unbroken
    other = store.with_name("other.ecsv")
    study.run(replace(DESIGN, seed=4, fractions=(0.0,), n_data=1), other)  # negative control
    one, two = (table.splitlines()[head(table)].split(b",") for table in (unbroken, other.read_bytes()))
    assert one[:5] == two[:5]
    assert one[6:] != two[6:]


@pytest.mark.parametrize("coordinates", ["linear", "axisymmetric", "spherical"])
def test_rows_say_what_the_flows_are_worth(coordinates, monkeypatch):
    """Cross-entropies are those of the ensemble's own densities; less the entropy of the same stars they are the KL.

    What is held out judges the networks themselves, as in training, before mirror images are averaged.
    """
    models = []
    monkeypatch.setattr(study, "FlowEnsemble", lambda *given: models.append(da.FlowEnsemble(*given)) or models[-1])
    design = replace(DESIGN, coordinates=coordinates, radii=(0.5, 2.0))
    assert design.columns[-2:] == ("a_0.5", "a_2")
    rows = [dict(zip(design.columns, row, strict=True)) for row in study.train_group(design, 0.1, 1000, 0, 0)]
    population = design.population(0.1)
    w = population.sample(600, rng=design.rng(HELD_OUT, 1))
    log_f = models[0].members_log_df(w)
    entropy = -population.log_df(w[300:]).mean()
    for member, row in enumerate(rows):
        assert row["initialization"] == member
        if coordinates != "axisymmetric":
            assert row["held_out"] == pytest.approx(-log_f[member, :300].mean(), abs=1e-4)
        assert row["cross_entropy"] == pytest.approx(-log_f[member, 300:].mean(), abs=1e-4)
        assert row["kl"] == pytest.approx(row["cross_entropy"] - entropy, abs=1e-9)
    assert np.isfinite([[row["a_0.5"], row["a_2"]] for row in rows]).all()
    np.testing.assert_allclose(models[0].members_log_df(w * [1, 1, -1, 1, 1, -1]), log_f,
                               atol=1e-4 if coordinates != "linear" else 1e9)


def test_a_system_without_a_density_has_no_divergence():
    """The cross-entropy remains."""
    design = replace(DESIGN, system=da.Disc(time=1.0), stream=da.Stream(radius=1.5))
    held_out, cross_entropy, kl = np.array(study.train_group(design, 0.0, 1000, 0, 0))[:, 6:].T
    assert np.isnan(kl).all()
    assert np.isfinite([held_out, cross_entropy]).all()


def test_cells_are_arranged_by_their_factors(store):
    table = study.run(replace(DESIGN, fractions=(0.0,), n_batches=2), store)
    ((key, values),) = study.cells(table, "kl").items()
    assert (key, values.shape) == ((0.0, 1000), (2, 3, 2))
    assert all(values[row["data"], row["initialization"], row["batch"]] == row["kl"] for row in table)
    assert len(np.unique(values)) == 12


def test_pairs_are_flows_of_the_complete_study(store, tmp_path, unbroken):
    """A flow does not depend on those beside it, up to the rounding of sums in products of other sizes."""
    store.write_bytes(unbroken)
    pairs = ((0, 0), (0, 2), (1, 1), (1, 2))
    sparse = study.run(replace(DESIGN, pairs=pairs), tmp_path / "sparse.ecsv")
    for key, values in study.cells(sparse, "held_out").items():
        complete = study.cells(study.read(store), "held_out")[key][..., 0]
        assert {*zip(*np.nonzero(np.isfinite(values[..., 0])), strict=True)} == set(pairs)
        assert values[..., 0][*zip(*pairs, strict=True)] == pytest.approx(complete[*zip(*pairs, strict=True)], rel=1e-6)
    (tmp_path / "sparse.ecsv").write_bytes(rows((tmp_path / "sparse.ecsv").read_bytes(), 7))
    with pytest.raises(ValueError, match=r"the cell \(0.1, 1000\) lacks 1 of 4 flows"):
        study.cells(study.read(tmp_path / "sparse.ecsv"), "kl")


@pytest.mark.parametrize("lacking", [1, 3])
def test_cells_that_lack_flows_are_refused(store, unbroken, lacking):
    """Also where those missing are the last ones of a cell, which no gap betrays."""
    store.write_bytes(rows(unbroken, 12 - lacking))
    with pytest.raises(ValueError, match=rf"the cell \(0.1, 1000\) lacks {lacking} of 6 flows: finish the study first"):
        study.cells(study.read(store), "kl")


# ---- interrupted ----


DAMAGES = {  # of one row
    "zeros": lambda row: b"\0" * len(row), "binary": lambda _: b"\xff\xfe", "empty": lambda _: b"",
    "long": lambda row: row + b",1", "fraction": lambda row: row.replace(b"1000,", b"1000.5,"),
    "stranger": lambda row: row.replace(b"1000,", b"2000,"), "letter": lambda row: row.replace(b"0.0,", b"x,"),
    "no loss": lambda row: b",".join([*row.split(b",")[:6], b"nan", b"1", b"1"]),
}


def damage(change):
    """A change of the table that changes its second row only."""

    def changed(table):
        lines = table.splitlines()
        lines[head(table) + 1] = change(lines[head(table) + 1])
        return b"\n".join([*lines, b""])

    return changed


INTERRUPTED = {  # name: (what became of the table, which groups are missing)
    **{f"{n} rows": (lambda table, n=n: rows(table, n), GROUPS[n // 3 :]) for n in (0, 3, 6, 8, 11)},
    **{f"cut by {n}": (lambda table, n=n: table[:-n], GROUPS[-1:]) for n in (1, 2, 20, 70)},  # which may read well
    **{name: (damage(change), GROUPS[:1]) for name, change in DAMAGES.items()},
}


@pytest.mark.parametrize("name", INTERRUPTED)
def test_what_is_missing_or_damaged_is_done_again(name, store, unbroken, trained):
    """And nothing else; a row without its end, too, for its last number may lack digits."""
    change, missing = INTERRUPTED[name]
    store.write_bytes(change(unbroken))
    if "rows" in name:
        study.run(DESIGN, store)
    else:
        if name != "stranger":  # which only the design betrays
            with pytest.warns(UserWarning, match=r"damaged rows \(1\), left out here") as caught:
                assert len(study.read(store)) == 11
            assert caught[0].filename == __file__
        with pytest.warns(UserWarning, match=r"ecsv has damaged rows \(1\): these flows are trained again") as caught:
            study.run(DESIGN, store)
        assert caught[0].filename == __file__
    assert trained == missing
    assert store.read_bytes() == unbroken


def test_stopped_within_a_group_or_by_a_full_disk(store, unbroken, trained):
    """What was done before is kept, and nothing else is left behind."""
    original = study.train

    def interrupted(run):
        if len(trained) == 3:
            raise KeyboardInterrupt
        original(run)

    with patch.object(study, "train", interrupted), pytest.raises(KeyboardInterrupt):
        study.run(DESIGN, store)
    assert store.read_bytes() == rows(unbroken, 6)
    with patch.object(os, "fsync", Mock(side_effect=OSError(28, "No space left on device"))):
        for executor in (None, Here()):
            with pytest.raises(OSError, match="No space left on device"):
                study.run(DESIGN, store, executor)
    assert [file.name for file in store.parent.iterdir()] == ["table.ecsv"]
    assert store.read_bytes() == rows(unbroken, 6)
    trained.clear()
    study.run(DESIGN, store)
    assert trained == GROUPS[2:]
    assert store.read_bytes() == unbroken


VICTIM = f"""
import sys, dfaccel as da
from pathlib import Path
from dfaccel.study import run as study
from dfaccel.study.design import Design
design, store, original = {SMALL}, Path(sys.argv[1]), study.train_group
def train_group(*group):
    rows = original(*group)
    there = study._finished(store, design) if store.exists() else {{}}
    for _ in range(50):
        study._write(store, design, there)
    return rows
study.train_group = train_group
study.run(design, store)
"""


@pytest.mark.slow
def test_killed_at_any_moment(store, unbroken):
    """With SIGKILL, at a moment nobody chose, while the table is also written all the time."""
    with subprocess.Popen([sys.executable, "-c", VICTIM, str(store)]) as process:
        deadline = time.monotonic() + 120
        while not (store.exists() and store.read_bytes().count(b"\n") > head(unbroken)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(np.random.default_rng().uniform(0, 1.5))
        process.kill()
        assert process.wait() in (-signal.SIGKILL, 0)
    study.run(DESIGN, store)  # without a warning: whatever was being written, the table is whole
    assert store.read_bytes() == unbroken


@pytest.mark.parametrize(("change", "message"), [
    ({"n_data": 3}, "its n_data is 2, here it is 3"),
    ({"seed": 4}, "its seed is 3, here it is 4"),
    ({"config": replace(DESIGN.config, patience=2)}, "its config patience is 1, here it is 2"),
    ({"spec": replace(DESIGN.spec, permutation="reverse")}, "its spec permutation is 'rotate', .*'reverse'"),
    ({"coordinates": "radial"}, "its coordinates is 'linear', here it is 'radial'"),
    ({"fractions": (0.0,)}, r"its fractions is \[0.0, 0.1\], here it is \[0.0\]"),
    ({"system": da.Plummer(r_max=30.0)}, "its system is 'Plummer.*', here it is '.*30.*'"),
    ({"stream": da.Stream(arc=0.5)}, "its stream is 'Stream.*', here it is 'Stream.*arc=0.5,.*'"),
    ({"radii": (1.0,)}, r"its radii is \[\], here it is \[1.0\]"),
    ({"pairs": ((0, 0), (0, 2), (1, 1), (1, 2))}, r"its pairs is None, here it is \[\[0, 2\], \[1, 2\]\]"),
    ({"n_test": 301}, "its n_test is 300, here it is 301"),
    ({}, r"its columns is .*'KL'\], here it is .*'kl'\]"),
], ids=str)
def test_the_table_of_another_study_is_refused(store, unbroken, trained, change, message):
    there = unbroken if change else unbroken.replace(b",kl\n", b",KL\n").replace(b"name: kl,", b"name: KL,")
    store.write_bytes(there)
    with pytest.raises(ValueError, match=f"table.ecsv is of another study: {message}; name another file or delete it"):
        study.run(replace(DESIGN, **change), store)
    assert store.read_bytes() == there
    assert not trained


def test_a_table_from_before_there_were_pairs_is_of_the_complete_study(store, unbroken, trained):
    without = b"".join(line for line in unbroken.splitlines(keepends=True) if b"pairs: null" not in line)
    assert len(without) < len(unbroken)
    store.write_bytes(without)
    assert len(study.run(DESIGN, store)) == 12
    assert not trained
    assert store.read_bytes() == unbroken


@pytest.mark.parametrize("change", [
    lambda _: b"", lambda _: b"a,b\n1,2\n", lambda _: b"# {}\n", lambda _: b"\x89PNG\r\n\0\xff",
    lambda table: table.replace(b"%ECSV", b"%CSV"), lambda table: table.replace(b"- design:", b"- other:"),
    lambda table: table.replace(b"seed: 3", b"seed: {"), lambda table: table.replace(b"batch", b"sheet"),
    lambda table: b"".join(table.splitlines(keepends=True)[2:]),
    lambda table: b"".join(table.splitlines(keepends=True)[:9]),
])
def test_what_is_no_table_is_refused(store, unbroken, trained, change):
    with pytest.raises(FileNotFoundError, match="table.ecsv does not exist"):
        study.read(store)
    store.write_bytes(change(unbroken))
    for act in (study.read, lambda path: study.run(DESIGN, path)):
        with pytest.raises(ValueError, match=r"table.ecsv is not the table of a study; name another file or delete it"):
            act(store)
    assert store.read_bytes() == change(unbroken)
    assert not trained


# ---- elsewhere ----


class Here(Executor):
    """An executor that computes at once, in this process, until it fails for good."""

    def __init__(self, lasts=100, error=None):
        self.left, self.error = lasts, error

    def submit(self, function, *arguments):
        future, self.left = Future(), self.left - 1
        if self.left >= 0:
            future.set_result(function(*arguments))
        elif self.error is None:
            raise RuntimeError("cannot schedule new futures after shutdown")
        else:
            future.set_exception(self.error)
        return future


@pytest.fixture
def at_first_row(monkeypatch):
    """Do something once, when the first group is kept."""
    acts, original = [], study._write

    def write(store, design, rows):
        original(store, design, rows)
        if acts and rows:
            acts.pop()()

    monkeypatch.setattr(study, "_write", write)
    return acts.append


@pytest.mark.parametrize("lasts", [0, 1, 3])
@pytest.mark.parametrize("error", [
    None, BrokenProcessPool("terminated"), ConnectionError("lost"), TimeoutError("late"), FloatingPointError("nan"),
], ids=repr)
def test_a_failing_executor_keeps_what_is_done(store, unbroken, trained, lasts, error):
    """Also what it has done but nobody has collected; errors of the network are errors of the executor."""
    name = type(error or RuntimeError()).__name__
    message = rf"the executor failed after {lasts} of 4 groups \({name}: .*these are kept: call again with the same"
    with pytest.raises(RuntimeError, match=message):
        study.run(DESIGN, store, Here(lasts, error))
    assert store.read_bytes() == rows(unbroken, 3 * lasts)
    study.run(DESIGN, store, Here())
    assert trained == GROUPS
    assert store.read_bytes() == unbroken


@pytest.mark.slow
def test_processes_make_the_same_table_and_one_that_dies_loses_nothing(store, unbroken, at_first_row):
    """A pool of processes does not survive a death, the study does."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        study.run(DESIGN, store, executor)
        assert store.read_bytes() == unbroken
        study.run(replace(DESIGN, n_data=1, seed=9), store.with_name("other.ecsv"), executor)
        store.unlink()
        at_first_row(lambda: os.kill(next(iter(executor._processes)), signal.SIGKILL))
        with pytest.raises(RuntimeError, match=r"the executor failed after [1-3] of 4 groups \(BrokenProcessPool: "):
            study.run(DESIGN, store, executor)
    assert len(study.read(store)) in (3, 6, 9)
    study.run(DESIGN, store)
    assert store.read_bytes() == unbroken


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_and_one_that_is_lost(store, unbroken, at_first_row):
    """A Dask cluster of two processes makes the same table though one is killed; when it is closed, rows are kept."""
    options = {"n_workers": 2, "processes": True, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        pids = client.run(os.getpid)
        assert len(set(pids.values()) | {os.getpid()}) == 3
        at_first_row(lambda: os.kill(next(iter(pids.values())), signal.SIGKILL))
        study.run(DESIGN, store, client.get_executor())
        assert store.read_bytes() == unbroken
        store.unlink()
        lost = replace(DESIGN, n_batches=20)  # more than can be finished meanwhile
        at_first_row(cluster.close)
        with pytest.raises(RuntimeError, match=r"the executor failed after \d+ of 80 groups \(.*are kept: call again"):
            study.run(lost, store, client.get_executor())
    kept = study.read(store)
    assert 3 <= len(kept) < lost.n_flows
    assert {tuple(row)[:4] for row in kept} <= set(lost.groups())


@pytest.mark.usefixtures("global_random_state")
@pytest.mark.parametrize("fails", [False, True])
def test_threads_and_global_randomness_are_left_as_found(store, unbroken, monkeypatch, fails):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        if fails:
            monkeypatch.setattr(study, "accelerations", None)
        with pytest.raises(TypeError) if fails else contextlib.nullcontext():
            study.run(replace(DESIGN, radii=(1.0,) if fails else ()), store)
        assert fails or store.read_bytes() == unbroken  # which must not depend on the threads of the caller
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- what differs between flows ----


def test_initializations_differ_and_nothing_else():
    run = started(DESIGN)
    assert [tuple(tensor.shape) for tensor in (run.theta[:, 0], run.y, run.held)] == [(3,), (6, 1000), (6, 300)]
    for each in (run.theta, order(run)):  # each flow has an order of the batches of its own, too
        assert len({tuple(row) for row in each.tolist()}) == 3
    assert run.stars is None  # all members learn from the same stars
    both = torch.cat([run.y, run.held], dim=1)
    assert both.unique(dim=1).shape == both.shape  # those held out are others


ALL = {"stars", "held out", "initialization", "order"}


@pytest.mark.parametrize(("change", "group", "same"), [
    ({"n_initializations": 5}, 0, ALL), ({"n_data": 7}, 0, ALL), ({"n_batches": 4}, 0, ALL),  # larger studies
    ({"fractions": (0.0, 0.2)}, 0, ALL), ({"n_stars": (1000, 2000)}, 0, ALL), ({"radii": (1.0,)}, 0, ALL),
    ({}, (0.0, 1000, 1, 0), {"held out", "initialization"}),  # another draw
    ({"n_batches": 2}, (0.0, 1000, 0, 1), {"stars", "held out", "initialization"}),  # another order of the batches
    ({"n_stars": (1000, 1250)}, (0.0, 1250, 0, 0), {"held out"}),  # other cells
    ({}, (0.1, 1000, 0, 0), set()),
    ({"seed": 4}, 0, set()),
])
def test_a_factor_changes_what_it_should_and_nothing_else(change, group, same):
    """Against the first group of the study."""
    run, other = started(DESIGN), started(replace(DESIGN, **change), *(group or ()))
    equal = {
        "stars": torch.equal(run.y, other.y[:, :1000]), "held out": torch.equal(run.held, other.held),
        "initialization": torch.equal(run.theta, other.theta[:3]),
        "order": np.array_equal(order(run), order(other)[:3]),
    }
    assert {name for name, value in equal.items() if value} == same
    assert not torch.isin(run.theta, other.theta[:, ::7]).all() or "initialization" in same
