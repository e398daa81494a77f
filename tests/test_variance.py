"""Crossed studies: the same table however it is interrupted and wherever it is computed, and effects that are apart."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import distributed
import numpy as np
import pytest
import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms import CompositeTransform, MaskedAffineAutoregressiveTransform, Permutation

import dfaccel as da
from dfaccel import variance
from dfaccel.design import HELD_OUT, KEYS
from dfaccel.flows import Layout
from dfaccel.variance import Design

SMALL = """Design(
    da.Plummer(), fractions=(0.0, 0.1), n_stars=(1000,), n_data=2, n_initializations=3,
    spec=da.FlowSpec(2, 8, position_map="linear", permutation="rotate"),
    config=da.TrainConfig(n_epochs=3, batch_size=250, learning_rate=0.01, matrix_rate=0, warmup=0, decay=False,
                          patience=1),
    n_held_out=300, n_test=300, seed=3,
)"""
DESIGN = eval(SMALL)  # noqa: S307 - ours; a process of its own needs it too
N_GROUPS = 4


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The table of the small study in bytes, from one run without a break."""
    store = tmp_path_factory.mktemp("unbroken") / "table.csv"
    variance.run(DESIGN, store)
    return store.read_bytes()


@pytest.fixture
def store(tmp_path):
    """Where a table will be."""
    return tmp_path / "table.csv"


@pytest.fixture
def trained(monkeypatch):
    """List of the groups that are trained from here on."""
    groups, original = [], variance.train_group

    def count(design, *group):
        groups.append(group)
        return original(design, *group)

    monkeypatch.setattr(variance, "train_group", count)
    return groups


class EnoughError(Exception):
    """A training has come as far as it is wanted."""


def started(design, *group):
    """The training of a group (by default the first), before its first step."""
    runs = []

    def stop(run):
        runs.append(run)
        raise EnoughError

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(EnoughError):
        patch.setattr(variance, "train", stop)
        variance.train_group(design, *(group or next(iter(design.groups()))))
    return runs[0]


def order(run, epoch=0):
    """Order of the batches, a row a member."""
    return run._draws("batches", "order", run.members, epoch)


# ---- the table ----


def test_the_same_table_twice(store, unbroken, trained):
    table = variance.run(DESIGN, store)
    assert store.read_bytes() == unbroken
    assert trained == list(DESIGN.groups())
    assert DESIGN.n_flows == len(table["kl"]) == 12
    for name, column in variance.read(store).items():
        np.testing.assert_array_equal(column, table[name])
        assert column.dtype == (int if name in (*KEYS[1:], "epochs") else float)
    variance.run(DESIGN, store)  # nothing is left to do
    assert len(trained) == N_GROUPS
    assert store.read_bytes() == unbroken


def test_threads_of_one_process_make_the_same_table(store, unbroken):
    with ThreadPoolExecutor(4) as executor:  # they share torch's generator
        variance.run(DESIGN, store, executor)
    assert store.read_bytes() == unbroken


def test_systems_of_your_own_must_be_told_apart():
    class Own:
        def sample(self, n, rng): ...
        def acceleration(self, x): ...
        def potential(self, x): ...

    with pytest.raises(TypeError, match="system must be hashable and have a repr that says all about it"):
        Design(Own())
    assert Design(da.Plummer(mass=1234567.8)).to_dict() != Design(da.Plummer(mass=1234567.9)).to_dict()
    with pytest.raises(TypeError, match=r"fractions must be a tuple of numbers; got 0\.1"):
        Design(da.Plummer(), fractions=0.1)
    with pytest.raises(ValueError, match="radii must differ in their first six digits"):
        Design(da.Plummer(), radii=(1.0, 1.0000001))
    assert Design(da.Plummer(), seed=np.int64(3)) == Design(da.Plummer(), seed=3)


def test_a_loss_that_is_no_number_is_a_damaged_row(store, unbroken, trained):
    lines = unbroken.decode().splitlines(keepends=True)
    row = lines[4].split(",")
    lines[4] = ",".join([*row[:6], "nan", *row[7:]])
    store.write_text("".join(lines))
    with pytest.warns(UserWarning, match=r"damaged rows \(1\)"):
        variance.run(DESIGN, store)
    assert store.read_bytes() == unbroken
    assert len(trained) == 1


def test_another_seed_is_another_table(store, unbroken):
    """Negative control: all that is equal above is not equal here."""
    variance.run(replace(DESIGN, seed=4, fractions=(0.0,), n_data=1), store)
    first, other = (text.splitlines()[2].split(b",") for text in (unbroken, store.read_bytes()))
    assert first[:5] == other[:5]
    assert first[6:] != other[6:]


def test_equal_designs_make_equal_tables(store, unbroken):
    """However their numbers are written."""
    same = replace(DESIGN, fractions=[0, np.float64(0.1)], n_stars=np.array([1000]), n_data=np.int64(2))
    assert same == DESIGN
    variance.run(same, store)
    assert store.read_bytes() == unbroken


@pytest.mark.parametrize("symmetry", ["none", "axisymmetric", "spherical"])
def test_rows_say_what_the_flows_are_worth(symmetry, monkeypatch):
    """Cross-entropies are those of the ensemble's own densities; less the entropy of the same stars they are the KL.

    What is held out judges the networks themselves, as in training, before mirror images are averaged.
    """
    models = []

    def keep(*arguments):
        models.append(da.FlowEnsemble(*arguments))
        return models[-1]

    monkeypatch.setattr(variance, "FlowEnsemble", keep)
    design = replace(DESIGN, symmetry=symmetry, radii=(0.5, 2.0))
    rows = variance.train_group(design, 0.1, 1000, 0, 0)
    assert [tuple(row) for row in rows] == [design.columns] * 3
    assert design.columns[-2:] == ("a_0.5", "a_2")
    population = design.population(0.1)
    w = population.sample(600, design.rng(HELD_OUT, 1))
    log_f = models[0].members_log_prob(w)
    entropy = -population.log_df(w[300:]).mean()
    for member, row in enumerate(rows):
        assert row["initialization"] == member
        if symmetry != "axisymmetric":
            assert row["held_out"] == pytest.approx(-log_f[member, :300].mean(), abs=1e-4)
        assert row["cross_entropy"] == pytest.approx(-log_f[member, 300:].mean(), abs=1e-4)
        assert row["kl"] == pytest.approx(row["cross_entropy"] - entropy, abs=1e-9)
    assert np.isfinite([[row["a_0.5"], row["a_2"]] for row in rows]).all()
    np.testing.assert_allclose(models[0].members_log_prob(w * [1, 1, -1, 1, 1, -1]), log_f,
                               atol=1e-4 if symmetry != "none" else 1e9)


def test_a_system_without_a_density_has_no_divergence():
    """The cross-entropy remains."""
    design = Design(da.Disc(time=1.0), da.Stream(radius=1.5), **{n: getattr(DESIGN, n) for n in (
        "fractions", "n_stars", "n_data", "n_initializations", "spec", "config", "n_held_out", "n_test", "seed")})
    rows = variance.train_group(design, 0.0, 1000, 0, 0)
    assert all(np.isnan(row["kl"]) and np.isfinite(row["cross_entropy"]) for row in rows)


def test_cells_are_arranged_by_their_factors(store):
    design = replace(DESIGN, fractions=(0.0,), n_batches=2)
    table = variance.run(design, store)
    ((key, values),) = variance.cells(table, "kl").items()
    assert (key, values.shape) == ((0.0, 1000), (2, 3, 2))
    for i in range(len(table["kl"])):
        place = tuple(table[name][i] for name in ("data", "initialization", "batch"))
        assert values[place] == table["kl"][i]
    assert len(np.unique(values)) == 12


def test_cells_that_lack_flows_are_refused(store, unbroken):
    """Also where those missing are the last ones of a cell, which no gap betrays."""
    for lines in (unbroken.splitlines(keepends=True)[:-1], unbroken.splitlines(keepends=True)[:-3]):
        store.write_bytes(b"".join(lines))
        with pytest.raises(ValueError, match=r"the cell \(0.1, 1000\) lacks . of 6 flows: finish the study first"):
            variance.cells(variance.read(store), "kl")


# ---- interrupted ----


@pytest.mark.parametrize("kept", [2, 5, 8, 10, 13])
def test_a_restart_does_what_is_missing(store, unbroken, trained, kept):
    """Lines kept of 14: the head alone, one group, two groups, two and two thirds, all but one flow."""
    store.write_bytes(b"".join(unbroken.splitlines(keepends=True)[:kept]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        variance.run(DESIGN, store)
    assert trained == list(DESIGN.groups())[(kept - 2) // 3 :]
    assert store.read_bytes() == unbroken


def test_stopped_within_a_group(store, unbroken, trained, monkeypatch):
    with monkeypatch.context() as patch:
        original = variance.train

        def interrupted(run):
            if len(trained) == 3:
                raise KeyboardInterrupt
            original(run)

        patch.setattr(variance, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            variance.run(DESIGN, store)
    assert store.read_bytes() == b"".join(unbroken.splitlines(keepends=True)[:8])
    variance.run(DESIGN, store)
    assert trained == [*list(DESIGN.groups())[:3], *list(DESIGN.groups())[2:]]
    assert store.read_bytes() == unbroken


VICTIM = f"""
import sys, dfaccel as da
from pathlib import Path
from dfaccel import variance
from dfaccel.variance import Design
design, store, original = {SMALL}, Path(sys.argv[1]), variance.train_group
def train_group(*group):
    rows = original(*group)
    there = variance.read_rows(store, design) if store.exists() else {{}}
    for _ in range(50):
        variance.write_rows(store, design, there)
    return rows
variance.train_group = train_group
variance.run(design, store)
"""


def test_killed_at_any_moment(store, unbroken):
    """With SIGKILL, at a moment nobody chose, while the table is also written all the time."""
    with subprocess.Popen([sys.executable, "-c", VICTIM, str(store)]) as process:
        deadline = time.monotonic() + 120
        while not (store.exists() and store.read_bytes().count(b"\n") > 2):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(np.random.default_rng().uniform(0, 1.5))
        process.kill()
        assert process.wait() in (-signal.SIGKILL, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # whatever was being written, the table is whole
        variance.run(DESIGN, store)
    assert store.read_bytes() == unbroken


@pytest.mark.parametrize("cut", [1, 2, 20, 70])
def test_a_row_cut_off_is_done_again(store, unbroken, trained, cut):
    """Also where what is left of it reads well: without its end a number may lack digits."""
    store.write_bytes(unbroken[:-cut])
    with pytest.warns(UserWarning, match=r"table.csv has damaged rows \(1\): these flows are trained again") as caught:
        variance.run(DESIGN, store)
    assert caught[0].filename == __file__
    assert trained == [(0.1, 1000, 1, 0)]
    assert store.read_bytes() == unbroken


@pytest.mark.parametrize("damage", [
    lambda row: b"\0" * len(row), lambda _: b"\xff\xfe", lambda _: b"", lambda row: row + b",1",
    lambda row: row.replace(b"1000,", b"1000.5,"), lambda row: row.replace(b"1000,", b"2000,"),
    lambda row: row.replace(b"0.0,", b"x,"),
], ids=["zeros", "binary", "empty", "long", "fraction", "stranger", "letter"])
def test_a_damaged_row_is_done_again(store, unbroken, trained, damage):
    lines = unbroken.splitlines()
    lines[3] = damage(lines[3])
    store.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.warns(UserWarning, match=r"damaged rows \(1\)"):
        variance.run(DESIGN, store)
    assert trained == [(0.0, 1000, 0, 0)]
    assert store.read_bytes() == unbroken


def test_reading_a_damaged_table_warns(store, unbroken):
    store.write_bytes(unbroken[:-3])
    with pytest.warns(UserWarning, match=r"damaged rows \(1\), left out here") as caught:
        assert len(variance.read(store)["kl"]) == 11
    assert caught[0].filename == __file__


def test_full_disk_loses_nothing(store, unbroken, trained, monkeypatch):
    before = b"".join(unbroken.splitlines(keepends=True)[:8])
    store.write_bytes(before)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        for executor in (None, Here()):
            with pytest.raises(OSError, match="No space left on device"):
                variance.run(DESIGN, store, executor)
    assert [file.name for file in store.parent.iterdir()] == ["table.csv"]
    assert store.read_bytes() == before
    variance.run(DESIGN, store)
    assert trained[-2:] == list(DESIGN.groups())[2:]
    assert store.read_bytes() == unbroken


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_data": 3}, "its n_data is 2, here it is 3"),
        ({"seed": 4}, "its seed is 3, here it is 4"),
        ({"config": replace(DESIGN.config, patience=2)}, "its config patience is 1, here it is 2"),
        ({"spec": replace(DESIGN.spec, permutation="reverse")}, "its spec permutation is 'rotate', .*'reverse'"),
        ({"fractions": (0.0,)}, r"its fractions is \[0.0, 0.1\], here it is \[0.0\]"),
        ({"system": da.Plummer().truncated(30.0)}, "its system is 'Plummer.*', here it is '.*30.*'"),
        ({"stream": da.Stream(arc=0.5)}, "its stream is 'Stream.*', here it is 'Stream.*arc=0.5,.*'"),
        ({"radii": (1.0,)}, r"its radii is \[\], here it is \[1.0\]"),
        ({"n_test": 301}, "its n_test is 300, here it is 301"),
    ],
    ids=str,
)
def test_the_table_of_another_study_is_refused(store, unbroken, trained, change, message):
    store.write_bytes(unbroken)
    with pytest.raises(ValueError, match=f"table.csv is of another study: {message}; name another file or delete it"):
        variance.run(replace(DESIGN, **change), store)
    assert store.read_bytes() == unbroken
    assert not trained


def test_other_columns_are_refused(store, unbroken):
    store.write_bytes(unbroken.replace(b",kl\n", b",KL\n"))
    with pytest.raises(ValueError, match=r"its columns is .*'KL'\], here it is .*'kl'\]"):
        variance.run(DESIGN, store)


def test_clocks_do_not_make_another_study(store, unbroken, trained):
    store.write_bytes(unbroken)
    variance.run(replace(DESIGN, config=replace(DESIGN.config, checkpoint_seconds=1.0, held_out=0.3)), store)
    assert store.read_bytes() == unbroken
    assert not trained


@pytest.mark.parametrize("content", [
    b"", b"a,b\n1,2\n", b"# {}\n", b"# {\n", b"# 3\nfraction,n_stars,data,batch,initialization\n", b"\x89PNG\r\n\0\xff",
    b"# {}\nname,beta\n",
], ids=str)
def test_what_is_no_table_is_refused(store, trained, content):
    store.write_bytes(content)
    for act in (variance.read, lambda path: variance.run(DESIGN, path)):
        with pytest.raises(ValueError, match=r"table.csv is not the table of a study; name another file or delete it"):
            act(store)
    assert store.read_bytes() == content
    assert not trained


def test_no_table_at_all(store):
    with pytest.raises(FileNotFoundError, match="table.csv does not exist"):
        variance.read(store)


# ---- elsewhere ----


class Here(Executor):
    """An executor that computes at once, in this process, until it fails for good."""

    def __init__(self, lasts=100, error=None):
        self.left, self.error = lasts, error

    def submit(self, function, *arguments):
        """Compute, or fail."""
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
    acts, original = [], variance.write_rows

    def write(store, design, rows):
        original(store, design, rows)
        if acts and rows:
            acts.pop()()

    monkeypatch.setattr(variance, "write_rows", write)
    return acts.append


@pytest.mark.parametrize("lasts", [0, 1, 3])
@pytest.mark.parametrize("error", [
    None, BrokenProcessPool("a process was terminated"), ConnectionError("lost"), TimeoutError("late"),
    FloatingPointError("the loss is not finite"),
], ids=repr)
def test_a_failing_executor_keeps_what_is_done(store, unbroken, trained, lasts, error):
    """Also what it has done but nobody has collected; errors of the network are errors of the executor."""
    name = type(error or RuntimeError()).__name__
    message = rf"the executor failed after {lasts} of 4 groups \({name}: .*these are kept: call again with the same"
    with pytest.raises(RuntimeError, match=message):
        variance.run(DESIGN, store, Here(lasts, error))
    if lasts:
        assert store.read_bytes() == b"".join(unbroken.splitlines(keepends=True)[: 2 + 3 * lasts])
    variance.run(DESIGN, store, Here())
    assert trained == list(DESIGN.groups())
    assert store.read_bytes() == unbroken


def test_processes_make_the_same_table_and_one_that_dies_loses_nothing(store, unbroken, at_first_row):
    """A pool of processes does not survive a death, the study does."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        variance.run(DESIGN, store, executor)
        assert store.read_bytes() == unbroken
        variance.run(replace(DESIGN, n_data=1, seed=9), store.with_name("other.csv"), executor)
        store.unlink()
        at_first_row(lambda: os.kill(next(iter(executor._processes)), signal.SIGKILL))
        with pytest.raises(RuntimeError, match=r"the executor failed after [1-3] of 4 groups \(BrokenProcessPool: "):
            variance.run(DESIGN, store, executor)
    assert len(store.read_bytes().splitlines()) in (5, 8, 11)
    variance.run(DESIGN, store)
    assert store.read_bytes() == unbroken


def test_a_cluster_that_loses_a_worker_and_one_that_is_lost(store, unbroken, at_first_row):
    """A Dask cluster of two processes makes the same table though one is killed; when it is closed, rows are kept."""
    options = {"n_workers": 2, "processes": True, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        pids = client.run(os.getpid)
        assert len(set(pids.values()) | {os.getpid()}) == 3
        at_first_row(lambda: os.kill(next(iter(pids.values())), signal.SIGKILL))
        variance.run(DESIGN, store, client.get_executor())
        assert store.read_bytes() == unbroken
        store.unlink()
        lost = replace(DESIGN, n_batches=20)  # more than can be finished meanwhile
        at_first_row(cluster.close)
        with pytest.raises(RuntimeError, match=r"the executor failed after \d+ of 80 groups \(.*are kept: call again"):
            variance.run(lost, store, client.get_executor())
    kept = variance.read(store)
    assert 3 <= len(kept["kl"]) < lost.n_flows
    assert not set(zip(*(kept[name].tolist() for name in KEYS), strict=True)) - {
        (*group, member) for group in lost.groups() for member in range(3)
    }


@pytest.mark.usefixtures("global_random_state")
@pytest.mark.parametrize("fails", [False, True])
def test_threads_and_global_randomness_are_left_as_found(store, unbroken, monkeypatch, fails):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        if fails:
            monkeypatch.setattr(variance, "accelerations", None)
            with pytest.raises(TypeError):
                variance.run(replace(DESIGN, radii=(1.0,)), store)
        else:
            variance.run(DESIGN, store)
            assert store.read_bytes() == unbroken  # which must not depend on the threads of the caller
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- what differs between flows ----


def test_initializations_differ_and_nothing_else():
    run = started(DESIGN)
    assert run.theta.shape[0] == 3
    assert len({tuple(row.tolist()) for row in run.theta}) == 3
    assert run.y.shape == (6, 1000)
    assert run.held.shape == (6, 300)
    assert len({tuple(row) for row in order(run).tolist()}) == 3  # each flow has an order of its own
    assert run.stars is None  # all members learn from the same stars
    both = torch.cat([run.y, run.held], dim=1)
    assert both.unique(dim=1).shape == both.shape  # those held out are others


@pytest.mark.parametrize("change", [
    {"n_initializations": 5}, {"n_data": 7}, {"n_batches": 4}, {"fractions": (0.0, 0.2)}, {"n_stars": (1000, 2000)},
    {"radii": (1.0,)},
], ids=str)
def test_a_larger_study_begins_with_the_same_flows(change):
    run, other = started(DESIGN), started(replace(DESIGN, **change))
    assert torch.equal(run.y, other.y)
    assert torch.equal(run.held, other.held)
    assert torch.equal(run.theta, other.theta[:3])
    np.testing.assert_array_equal(order(run), order(other)[:3])


@pytest.mark.parametrize(
    ("group", "same"),
    [
        ((0.0, 1000, 0, 0), {"stars", "held out", "initialization", "order"}),
        ((0.0, 1000, 1, 0), {"held out", "initialization"}),
        ((0.0, 1000, 0, 1), {"stars", "held out", "initialization"}),
        ((0.0, 1250, 0, 0), {"held out"}),
        ((0.1, 1000, 0, 0), set()),
    ],
)
def test_a_factor_changes_what_it_should_and_nothing_else(group, same):
    """Another draw, another order of the batches, and other cells, against the first group."""
    design = replace(DESIGN, n_batches=2, n_stars=(1000, 1250))
    run, other = started(design), started(design, *group)
    equal = {
        "stars": torch.equal(run.y, other.y[:, :1000]),
        "held out": torch.equal(run.held, other.held),
        "initialization": torch.equal(run.theta, other.theta),
        "order": np.array_equal(order(run), order(other)),
    }
    assert {name for name, value in equal.items() if value} == same
    assert not torch.isin(run.theta, other.theta[:, ::7]).all() or "initialization" in same


def test_a_seed_changes_everything():
    run, other = started(DESIGN), started(replace(DESIGN, seed=4))
    assert not torch.equal(run.y, other.y)
    assert not torch.equal(run.held, other.held)
    assert (run.theta != other.theta).any(dim=1).all()
    assert (order(run) != order(other)).any(axis=1).all()


def test_streams_of_randomness_are_apart():
    """Whatever their names and keys, no two begin alike."""
    keys = ((), (0,), (0, 0), (0, 0, 1), (1,))
    first = {DESIGN.rng(stream, *key).integers(2**63) for stream in range(5) for key in keys}
    assert len(first) == 25


def test_the_published_structure():
    """Six rows back by one before each transform: the last feature first, in nflows' own words."""
    spec = da.FlowSpec(3, 8, permutation="rotate")
    torch.manual_seed(5)
    steps = []
    for _ in range(3):
        steps += [Permutation(torch.tensor([5, 0, 1, 2, 3, 4])),
                  MaskedAffineAutoregressiveTransform(6, 8, num_blocks=2, activation=torch.nn.functional.gelu)]
    peer, layout = Flow(CompositeTransform(steps), StandardNormal([6])), Layout(spec, 6)
    theta = layout.initial([5])
    assert torch.equal(theta[0], torch.cat([p.detach().reshape(-1) for p in peer.parameters()]))
    y = torch.randn(50, 6)
    ours = layout.log_prob(layout.networks(theta), y.T[None])[0]
    torch.testing.assert_close(ours, peer.log_prob(y).detach(), rtol=1e-5, atol=1e-5)
    reverse = Layout(replace(spec, permutation="reverse"), 6)
    assert (reverse.log_prob(reverse.networks(theta), y.T[None])[0] - ours).abs().max() > 1e-3  # negative control


# ---- designs ----


def test_groups_are_in_order_and_complete():
    design = Design(da.Plummer(), n_stars=(10_000, 20_000), n_data=2, n_initializations=4, n_batches=3)
    groups = list(design.groups())
    assert groups[:4] == [(0.0, 10_000, 0, 0), (0.0, 10_000, 0, 1), (0.0, 10_000, 0, 2), (0.0, 10_000, 1, 0)]
    assert len(groups) == len(set(groups)) == 5 * 2 * 2 * 3
    assert design.n_flows == 4 * len(groups)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n_data": 0}, ValueError, "n_data must be a positive integer; got 0"),
        ({"n_initializations": 1.5}, TypeError, "n_initializations must be a positive integer; got 1.5"),
        ({"n_batches": -1}, ValueError, "n_batches must be a positive integer; got -1"),
        ({"n_held_out": 0}, ValueError, "n_held_out must be a positive integer; got 0"),
        ({"n_test": None}, TypeError, "n_test must be a positive integer; got None"),
        ({"fractions": (0.1, 0.1)}, ValueError, r"fractions must differ from one another; got \(0.1, 0.1\)"),
        ({"n_stars": (1000, 1000)}, ValueError, "n_stars must differ"),
        ({"fractions": ()}, ValueError, "fractions and n_stars must name at least one cell"),
        ({"n_stars": ()}, ValueError, "fractions and n_stars must name at least one cell"),
        ({"fractions": (1.1,)}, ValueError, r"fraction must lie in \[0, 1\]; got 1.1"),
        ({"fractions": ("many",)}, TypeError, "fraction must be a number from 0 to 1; got 'many'"),
        ({"n_stars": (1e3,)}, TypeError, "n_stars must be a positive integer; got 1000.0"),
        ({"n_stars": (249,)}, ValueError, "n_stars must be at least one batch of 250; got 249"),
        ({"fractions": (5e-4,)}, ValueError, "n_stars is too small: n must be at least 2000 for a fraction of 0.0005"),
        ({"fractions": (1e-3,)}, ValueError, r"n_held_out \+ n_test is too small: n must be at least 1000.*got 600"),
        ({"radii": (0.0,)}, ValueError, "radii must be a positive finite number; got 0"),
        ({"radii": (1, 1.0)}, ValueError, "radii must differ"),
        ({"symmetry": "round"}, ValueError, "symmetry must be one of none, axisymmetric, spherical; got 'round'"),
        ({"seed": -1}, ValueError, "seed must be an integer, zero or positive; got -1"),
        ({"seed": None}, ValueError, "seed must be an integer, zero or positive; got None"),
        ({"stream": da.Stream(speed=3.0)}, ValueError, "the stream is not bound"),
    ],
    ids=str,
)
def test_bad_designs(change, error, message):
    with pytest.raises(error, match=message):
        replace(DESIGN, **change)
