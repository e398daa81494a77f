"""Training: resumable bit for bit, member by member, and clear about what goes wrong."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import dfaccel as da
from dfaccel._files import read_tensors, write_tensors
from dfaccel.flows import loop, training

SPEC = da.FlowSpec(2, 6, n_blocks=1)
STEPS = 11  # an epoch
BOOTSTRAP = {"config": da.TrainConfig(n_epochs=3, batch_size=100, bootstrap=True)}
VARIANTS = {
    "plain": {},
    "bootstrap": BOOTSTRAP,
    "flips": {"coordinates": "axisymmetric", "time_reversal": True},
    "sphere-bootstrap": {"coordinates": "spherical", **BOOTSTRAP},
    "equilibrium": {"coordinates": "axisymmetric", "time_reversal": True, "equilibrium": 0.1},
    "weights": {"weights": 1 + np.arange(1200) / 1200, **BOOTSTRAP},
}


@pytest.fixture(scope="module")
def unbroken(few_stars, small_fit):
    """Each variant trained without a break."""
    return {name: small_fit(few_stars, **options) for name, options in VARIANTS.items()}


@pytest.fixture
def file(tmp_path):
    """The checkpoint."""
    return tmp_path / "checkpoint.safetensors"


@pytest.fixture
def fit(few_stars, small_fit, file):
    """Train with a checkpoint."""
    return lambda stars=few_stars, **options: small_fit(stars, **{"checkpoint": file.parent} | options)


def run(stars, n_flows=2, seeds=(1, 2, 3), flips=1, **config):
    """The inside of a training, before its first step."""
    y = torch.from_numpy(stars).float()
    signs = torch.ones(flips, 6)
    signs[1:, 3:] = -1
    seeds = dict(zip(("data", "initialization", "batches"), seeds, strict=True))
    return training.Run(SPEC.layout(6), da.TrainConfig(**{"batch_size": 100} | config), y[60:], y[:60], signs, seeds,
                        range(n_flows))


def same(model, other):
    """Whether two ensembles are equal bit for bit, their training histories included."""
    equal = all(torch.equal(getattr(model, n), getattr(other, n)) for n in ("theta", "mean", "std", "reference"))
    return equal and all(model.metadata[n] == other.metadata[n] for n in ("history", "held_out_loss", "seeds"))


def steps_done(header):
    return header["progress"]["epoch"] * STEPS + header["progress"]["step"]


# ---- resuming ----


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("step", [1, 4, STEPS, STEPS + 1, 3 * STEPS])
def test_resumed_is_unbroken_bit_for_bit(fit, file, interrupted_at, unbroken, name, step):
    """Whether it stopped in the first step, within an epoch, at an end of one or after the very last step."""
    with interrupted_at(step), pytest.raises(KeyboardInterrupt):
        fit(**VARIANTS[name])
    assert steps_done(read_tensors(file)[1]) == step
    assert same(fit(**VARIANTS[name]), unbroken[name])
    assert same(fit(**VARIANTS[name]), unbroken[name])  # nothing is left to do


def test_checkpoint_of_the_clock_is_resumed(fit, unbroken, monkeypatch):
    """A process that dies without a word leaves its last checkpoint by the clock; what came after it is done again."""
    saved = []

    def write(path, tensors, header):
        if len(saved) == 7:
            raise SystemExit
        saved.append(header["progress"]["step"])
        write_tensors(path, tensors, header)

    monkeypatch.setattr(loop, "write_tensors", write)
    with pytest.raises(SystemExit):
        fit(config=da.TrainConfig(3, 100, checkpoint_seconds=1e-9))
    monkeypatch.undo()
    assert saved == [1, 2, 3, 4, 5, 6, 7]
    assert same(fit(), unbroken["plain"])  # the clock changes no result


def test_a_signal_in_the_last_validation_is_honoured(fit, unbroken, monkeypatch):
    original = training.Run.validate

    def interrupted(self):
        if self.progress["epoch"] == 2:
            signal.raise_signal(signal.SIGINT)
        original(self)

    monkeypatch.setattr(training.Run, "validate", interrupted)
    with pytest.raises(KeyboardInterrupt, match="training stopped"):
        fit()
    monkeypatch.undo()
    assert same(fit(), unbroken["plain"])


def test_full_disk_loses_nothing_and_resumed_twice_is_unbroken(fit, file, interrupted_at, unbroken, monkeypatch):
    with interrupted_at(5), pytest.raises(KeyboardInterrupt):
        fit()
    before = file.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left on device"):
        fit()
    monkeypatch.undo()
    assert list(file.parent.iterdir()) == [file]
    assert file.read_bytes() == before
    with interrupted_at(12), pytest.raises(KeyboardInterrupt):
        fit()
    assert same(fit(), unbroken["plain"])
    assert not same(fit(rng=9, checkpoint=None), unbroken["plain"])  # negative control: another seed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_handlers_are_put_back_and_get_their_signal(fit, interrupted_at, number):
    got = []
    before = signal.signal(number, lambda n, _: got.append(n))
    try:
        stopped = pytest.raises(KeyboardInterrupt, match=r"training stopped.*checkpoint\.safetensors")
        with interrupted_at(4, number), stopped:
            fit()
        assert got == [number]
        signal.raise_signal(number)
        assert got == [number, number]
    finally:
        signal.signal(number, before)


ENDLESS = """
import sys, torch, dfaccel as da
torch.set_num_threads(1)
stars, spec = da.Plummer().sample(1200, rng=3), da.FlowSpec(2, 6, n_blocks=1)
config = da.TrainConfig(n_epochs=10_000, batch_size=100, checkpoint_seconds=1e-9)
da.fit(stars, n_flows=2, spec=spec, config=config, rng=8, checkpoint=sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT], ids=lambda s: s.name)
def test_killed_process_leaves_a_checkpoint_to_go_on_from(fit, file, replaced_step, number):
    """Ended from outside at a moment nobody chose: the state on disk is whole, and that of an unbroken training."""
    command = [sys.executable, "-c", ENDLESS, str(file.parent)]
    environment = os.environ | {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 120
        while not file.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(np.random.default_rng().uniform(0, 0.1))
        process.send_signal(number)
        message = process.communicate(timeout=60)[1]
    if number == signal.SIGINT:
        assert f"KeyboardInterrupt: training stopped; {file}" in message
        assert "During handling" not in message
    else:
        assert process.returncode == -number, message  # the signal is honoured, not swallowed
    tensors, header = read_tensors(file)
    step, states = steps_done(header), {}

    def recorded(original, run, batch, taken):
        loss = original(run, batch)
        if taken >= step:
            states[taken] = {n: t.detach().clone() for n, t in run.state().items()}
        if taken > step:
            raise InterruptedError
        return loss

    with replaced_step(recorded), contextlib.suppress(InterruptedError):
        fit(config=da.TrainConfig(n_epochs=10_000, batch_size=100), checkpoint=None)
    for name in ("theta", "adam.exp_avg", "adam.exp_avg_sq", "momentum"):
        assert torch.equal(states[step][name], tensors[name])
    assert not torch.equal(states[step + 1]["theta"], tensors["theta"])  # negative control


# ---- members ----


def test_members_have_their_own_streams(few_stars):
    """The three streams are separate: changing one seed changes nothing of the others."""
    base = run(few_stars, 3, bootstrap=True)
    assert len({tuple(row.tolist()) for row in base.theta}) == 3
    assert len({tuple(row) for row in base.stars.tolist()}) == 3
    first = next(base.batches(0, 0))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, next(base.batches(1, 0)))
    for i, changed in enumerate([(9, 2, 3), (1, 9, 3), (1, 2, 9)]):
        other = run(few_stars, 3, changed, bootstrap=True)
        assert torch.equal(base.theta, other.theta) == (i != 1)
        assert np.array_equal(base.stars, other.stars) == (i != 0)
        orders = [state._draws("batches", "order", range(3), 0) for state in (base, other)]
        assert np.array_equal(*orders) == (i != 2)


def test_an_epoch_shows_each_star_once(few_stars):
    state = run(few_stars, batch_size=114)  # 1,140 training stars: ten whole batches
    seen = torch.cat(list(state.batches(0, 0)), dim=2)
    for member in seen:
        assert torch.equal(member.T.sort(dim=0).values, state.y.T.sort(dim=0).values)
    assert torch.equal(torch.cat(list(state.batches(0, 4)), dim=2), seen[:, :, 4 * 114 :])


@pytest.mark.parametrize("bootstrap", [False, True])
def test_a_pass_shows_each_star_as_often_as_its_weight_asks(few_stars, bootstrap):
    """Its share of n, up or down to a whole number; the mean of 100 passes within 5 sigma of a half each."""
    weights = np.r_[np.zeros(300), np.geomspace(0.1, 10, 840)]
    state = run(few_stars, bootstrap=bootstrap)
    state.weights = weights
    drawn = np.stack([state._draws("batches", "order", [1], epoch)[0] for epoch in range(100)])
    held = weights if not bootstrap else weights[state.stars[1]]
    wanted = 1140 * held / held.sum()
    counts = np.apply_along_axis(np.bincount, 1, drawn, minlength=1140)
    assert (np.abs(counts - wanted) < 1).all()
    assert not counts[:, held == 0].any()
    assert (np.abs(counts.mean(0) - wanted) <= 5 * 0.5 / 10).all()
    assert (counts != counts[0]).any()  # negative control: passes differ


def test_bootstrap_draws_with_replacement_and_flips_are_shown_equally_often(few_stars):
    """The share of distinct stars is 1 - 1/e within 5 sigma; sigma^2 = (1/e)(1 - 2/e) / n for n draws out of n.

    Signs are those of a fair coin: half the stars are reversed, within 5 sigma of sqrt(n)/2.
    """
    state = run(few_stars, bootstrap=True)
    share, sigma = 1 - 1 / math.e, math.sqrt((1 - 2 / math.e) / math.e / state.n)
    assert all(abs(len(np.unique(drawn)) / state.n - share) < 5 * sigma for drawn in state.stars)
    batches = torch.cat(list(run(abs(few_stars), flips=2).batches(0, 0)), dim=2)
    reversed_stars = (batches[:, 3:] < 0).all(1)
    assert torch.equal(reversed_stars, (batches[:, 3:] < 0).any(1))
    assert (batches[:, :3] > 0).all()
    n = reversed_stars.numel()
    assert abs(reversed_stars.sum().item() - n / 2) < 5 * math.sqrt(n) / 2


@pytest.mark.parametrize("clip", [5.0, 0.05])
def test_a_member_trains_as_if_alone(few_stars, small_fit, clip):
    """So nothing is shared, the clipping least of all: with a tight one, a common norm would slow every member."""
    config = da.TrainConfig(n_epochs=2, batch_size=100, clip=clip)
    together, alone = (small_fit(few_stars, n_flows=k, config=config) for k in (3, 1))
    torch.testing.assert_close(together.theta[0], alone.theta[0], rtol=1e-3, atol=1e-5)
    assert (together.theta[1] - alone.theta[0]).abs().max() > 1e-2  # negative control: the next member is another
    for epoch, single in zip(together.metadata["history"], alone.metadata["history"], strict=True):
        for name in ("train", "held_out"):
            assert epoch[name][0] == pytest.approx(single[name][0], abs=1e-4)


def test_gradients_are_clipped_member_by_member(few_stars, monkeypatch):
    norms = []
    for clip in (0.3, 1e9):
        state = run(few_stars, clip=clip)
        with torch.no_grad():
            state.theta[1] *= 3  # a steep one beside a gentle one
        monkeypatch.setattr(state.optimizer, "step", lambda _, s=state: norms.append(s.theta.grad.norm(dim=1)))
        state.step(next(state.batches(0, 0)))
    torch.testing.assert_close(norms[0], torch.tensor([0.3, 0.3]))
    assert norms[1].min() > 0.3


def test_early_stopping(few_stars, small_fit):
    """Each member of a stack with patience ends as in a stack where nobody has stopped yet, and then stays as it is."""
    config = da.TrainConfig(60, 100, learning_rate=0.03, warmup=0.0, decay=False, held_out=0.3, patience=2)
    together = small_fit(few_stars, n_flows=3, config=config)
    n_epochs = len(together.metadata["history"])
    assert 3 <= n_epochs < 60
    patient = small_fit(few_stars, n_flows=3, config=replace(config, n_epochs=n_epochs, patience=None))
    ends = []
    for member in range(3):
        mine, other = ([epoch["held_out"][member] for epoch in m.metadata["history"]] for m in (together, patient))
        end = next(i for i in range(len(mine)) if i >= np.argmin(mine[: i + 1]) + 2 or i == len(mine) - 1) + 1
        ends.append(end)
        np.testing.assert_allclose(mine[:end], other[:end], rtol=1e-4)
        assert set(mine[end:]) <= {mine[end - 1]}  # nothing new is learnt
    assert max(ends) == n_epochs
    assert len(set(ends)) > 1  # else nobody would have been left out


def test_learning_rate_warms_up_and_falls_to_zero(few_stars, small_fit, replaced_step):
    config = da.TrainConfig(n_epochs=10, batch_size=100, learning_rate=0.02, warmup=0.2)
    assert [config.schedule(p) for p in (0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.5, 1, 0.5, 0])
    assert da.TrainConfig(warmup=0.0).schedule(0) == pytest.approx(1)
    assert da.TrainConfig(decay=False).schedule(1.0) == 1
    rates = []

    def noted(original, run, batch, _):
        loss = original(run, batch)
        rates.append(run.optimizer.adam.param_groups[0]["lr"])
        return loss

    with replaced_step(noted):
        small_fit(few_stars, config=config)
    assert rates == [0.02 * config.schedule((i + 1) / (10 * STEPS + 1)) for i in range(10 * STEPS)]
    assert abs(np.argmax(rates) - 0.2 * 10 * STEPS) <= 1


# ---- what goes wrong ----


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_loss_that_is_not_finite_names_its_epoch_and_the_last_checkpoint(fit, file, replaced_step, checkpoint):
    def poisoned(original, run, batch, taken):
        return original(run, batch * math.nan if taken == STEPS + 3 else batch)

    last = r".*checkpoint\.safetensors" if checkpoint else "none"
    message = f"not finite in epoch 2, step 3; last good checkpoint: {last}"
    with replaced_step(poisoned), pytest.raises(FloatingPointError, match=message):
        fit(config=da.TrainConfig(3, 100, checkpoint_seconds=1e-9), **({} if checkpoint else {"checkpoint": None}))
    assert file.exists() == checkpoint
    if checkpoint:
        tensors, header = read_tensors(file)
        assert steps_done(header) == STEPS + 2
        assert all(torch.isfinite(t).all() for t in tensors.values())
    with pytest.raises(FloatingPointError, match="a lower learning_rate may help"):
        fit(config=da.TrainConfig(5, 100, learning_rate=1e18), checkpoint=None)


@pytest.mark.parametrize(
    ("change", "name"),
    [({"spec": da.FlowSpec(2, 7, n_blocks=1)}, "spec"), ({"rng": 9}, "seeds"), ({"n_flows": 3}, "n_flows"),
     ({"coordinates": "spherical"}, "coordinates"), ({"time_reversal": True}, "coordinates"),
     ({"config": da.TrainConfig(n_epochs=4, batch_size=100)}, "config"), ({"stars": 1 + 1e-15}, "stars"),
     ({"coordinates": "spherical", "equilibrium": 0.1}, "kind")],
    ids=str,
)
def test_checkpoint_of_another_training_or_a_damaged_one_is_refused(fit, file, few_stars, change, name):
    fit()
    before = file.read_bytes()
    if "stars" in change:
        change = {"stars": np.vstack([few_stars[1:], few_stars[:1] * change["stars"]])}
    with pytest.raises(ValueError, match=f"is of another training: its {name}.* is .*use another folder or delete it"):
        fit(**change)
    assert file.read_bytes() == before
    file.write_bytes(before[:-5])
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        fit()


COUNT, POSITIVE = "be a positive integer", "be a positive finite number"


@pytest.mark.parametrize(
    ("kind", "name", "value", "must"),
    [*((da.TrainConfig, *case) for case in (
        ("n_epochs", 0, COUNT), ("batch_size", -1, COUNT), ("patience", 0, COUNT), ("learning_rate", 0, POSITIVE),
        ("clip", math.nan, POSITIVE), ("checkpoint_seconds", -1, POSITIVE), ("warmup", 1.0, r"lie in \[0, 1\)"),
        ("matrix_rate", math.inf, "be zero or positive, and finite"), ("held_out", 0, r"lie in \(0, 1\)"))),
     *((da.FlowSpec, *case) for case in (
        ("n_transforms", 0, COUNT), ("hidden_features", -1, COUNT), ("n_blocks", 0, COUNT),
        ("activation", "sine", "be one of gelu.*"), ("permutation", "swap", "be reverse or rotate")))],
)
def test_bad_configuration(kind, name, value, must):
    with pytest.raises(ValueError, match=f"{name} must {must}; got {value!r}"):
        kind(**{name: value})


def test_nothing_of_a_run_stays_behind_on_the_cpu(few_stars, ensemble):
    """On the meta device, which computes nothing but refuses tensors of another device, as a GPU does."""
    y, flips = torch.from_numpy(few_stars).float().to("meta"), torch.ones(2, 6, device="meta")
    seeds = {"data": 1, "initialization": 2, "batches": 3}
    model = replace(ensemble("radial"), prior=ensemble("spherical"))
    for density in (None, model.to("meta").density):
        config = da.TrainConfig(batch_size=100)
        state = training.Run(SPEC.layout(6), config, y[50:], y[:50], flips, seeds, range(2), density)
        loss = state.density(state.layout.networks(state.theta), next(state.batches(0, 0))).mean(1)
        loss.sum().backward()
        assert state.theta.grad.device == loss.device == state.best.device == torch.device("meta")
