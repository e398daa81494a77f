"""Training: resumable bit for bit, member by member, on what was asked for, and clear about what goes wrong."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import dfaccel as da
from dfaccel import training
from dfaccel.files import read_tensors, write_tensors
from dfaccel.flows import Layout

SPEC = da.FlowSpec(2, 6, n_blocks=1)
CONFIG = da.TrainConfig(n_epochs=3, batch_size=100)  # 11 steps an epoch with 1,200 stars
STEPS = 11
VARIANTS = {
    "plain": {},
    "bootstrap": {"config": da.TrainConfig(n_epochs=3, batch_size=100, bootstrap=True)},
    "flips": {"symmetry": "axisymmetric", "time_reversal": True},
    "sphere-bootstrap": {"symmetry": "spherical", "config": da.TrainConfig(n_epochs=3, batch_size=100, bootstrap=True)},
}


@pytest.fixture(scope="module")
def stars():
    """Too few stars to learn much from, enough to train on."""
    return da.Plummer().sample(1200, rng=3)


@pytest.fixture(scope="module")
def unbroken(stars):
    """Each variant trained without a break, once."""
    done = {}

    def train(name):
        if name not in done:
            done[name] = fit(stars, **VARIANTS[name])
        return done[name]

    return train


@pytest.fixture(autouse=True)
def one_thread():
    """Bits may depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fit(stars, **options):
    """Train two small flows."""
    return da.fit(stars, **{"n_flows": 2, "spec": SPEC, "config": CONFIG, "rng": 8} | options)


def run(stars, n_flows=2, config=CONFIG, seeds=(1, 2, 3), flips=1):
    """The inside of a training, before its first step."""
    y = torch.from_numpy(stars).float()
    signs = torch.ones(flips, 6)
    signs[1:, 3:] = -1
    names = ("data", "initialization", "batches")
    seeds, stars = dict(zip(names, seeds, strict=True)), training.split(y, config.held_out, seeds[0])
    return training.Run(Layout(SPEC, 6), config, *stars, signs, seeds, n_flows)


def same(model, other):
    """Whether two ensembles are equal bit for bit, their training histories included."""
    equal = all(torch.equal(getattr(model, n), getattr(other, n)) for n in ("theta", "mean", "std", "reference"))
    return equal and all(model.metadata[n] == other.metadata[n] for n in ("history", "held_out_loss", "seeds"))


def break_at(monkeypatch, step, number):
    """Send this process a signal in the midst of a training step."""
    original, taken = training.Run.step, []

    def interrupted(self, batch):
        taken.append(1)
        if len(taken) == step:
            signal.raise_signal(number)
        return original(self, batch)

    monkeypatch.setattr(training.Run, "step", interrupted)


# ---- resuming ----


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("step", [1, 4, STEPS, STEPS + 1, 3 * STEPS])
def test_resumed_is_unbroken_bit_for_bit(stars, unbroken, tmp_path, monkeypatch, name, step):
    """Whether it stopped in the first step, within an epoch, at an end of one or after the very last step."""
    with monkeypatch.context() as patch:
        break_at(patch, step, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            fit(stars, checkpoint=tmp_path, **VARIANTS[name])
    progress = read_tensors(tmp_path / "checkpoint.safetensors")[1]["progress"]
    assert progress["epoch"] * STEPS + progress["step"] == step
    assert same(fit(stars, checkpoint=tmp_path, **VARIANTS[name]), unbroken(name))
    assert same(fit(stars, checkpoint=tmp_path, **VARIANTS[name]), unbroken(name))  # nothing is left to do


def test_resumed_twice_is_unbroken(stars, unbroken, tmp_path, monkeypatch):
    for step in (5, 12):
        with monkeypatch.context() as patch:
            break_at(patch, step, signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                fit(stars, checkpoint=tmp_path)
    assert same(fit(stars, checkpoint=tmp_path), unbroken("plain"))
    assert not same(fit(stars, rng=9), unbroken("plain"))  # negative control: another seed is another training


def test_checkpoint_of_the_clock_is_resumed(stars, unbroken, tmp_path, monkeypatch):
    """A process that dies without a word leaves its last checkpoint by the clock; what came after it is done again."""
    saved = []

    def write(path, tensors, header):
        if len(saved) == 7:
            raise SystemExit
        saved.append(header["progress"]["step"])
        write_tensors(path, tensors, header)

    config = da.TrainConfig(n_epochs=3, batch_size=100, checkpoint_seconds=1e-9)
    with monkeypatch.context() as patch:
        patch.setattr(training, "write_tensors", write)
        with pytest.raises(SystemExit):
            fit(stars, checkpoint=tmp_path, config=config)
    assert saved == [1, 2, 3, 4, 5, 6, 7]
    assert same(fit(stars, checkpoint=tmp_path), unbroken("plain"))  # the clock may be set anew, it changes no result


SERVER = """
import os, sys, torch, dfaccel as da
torch.set_num_threads(1)
stars = da.Plummer().sample(1200, rng=3)
spec = da.FlowSpec(2, 6, n_blocks=1)
config = da.TrainConfig(n_epochs=10_000, batch_size=100, checkpoint_seconds=1e-9)
for folder in sys.argv[1:]:
    if os.fork() == 0:
        os.makedirs(folder)
        open(folder + "/pid", "w").write(str(os.getpid()))
        os.dup2(os.open(folder + "/stderr", os.O_CREAT | os.O_WRONLY), 2)
        da.fit(stars, n_flows=2, spec=spec, config=config, rng=8, checkpoint=folder)
for _ in sys.argv[1:]:
    print(*os.wait())
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Three trainings in processes of their own, each ended from outside by a signal at a moment nobody chose.

    Returns for each signal the folder of its checkpoint and the status with which the process ended.
    """
    top = tmp_path_factory.mktemp("killed")
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    folders = {number: top / number.name for number in signals}
    environment = os.environ | {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SERVER, *map(str, folders.values())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        deadline = time.monotonic() + 120
        while not all((folder / "checkpoint.safetensors").exists() for folder in folders.values()):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pids = {}
        for number, folder in folders.items():
            time.sleep(np.random.default_rng().uniform(0, 0.1))
            pids[int((folder / "pid").read_text())] = number
            os.kill(int((folder / "pid").read_text()), number)
        statuses = dict(map(int, line.split()) for line in server.communicate(timeout=60)[0].splitlines())
    return {number: (folders[number], os.waitstatus_to_exitcode(statuses[pid])) for pid, number in pids.items()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT], ids=lambda s: s.name)
def test_killed_process_leaves_a_checkpoint_to_go_on_from(stars, killed, number):
    """The state on disk is whole, though it was being written all the time, and that of an unbroken training."""
    folder, status = killed[number]
    message = (folder / "stderr").read_text()
    if number == signal.SIGINT:
        assert f"KeyboardInterrupt: training stopped; {folder}/checkpoint.safetensors" in message
        assert "During handling" not in message
    else:
        assert status == -number, message  # the signal is honoured, not swallowed
    tensors, header = read_tensors(folder / "checkpoint.safetensors")
    step = header["progress"]["epoch"] * STEPS + header["progress"]["step"]
    reference = unbroken_until(stars, step)
    for name in ("theta", "adam.exp_avg", "adam.exp_avg_sq", "momentum"):
        assert torch.equal(reference[name], tensors[name])
    assert not torch.equal(unbroken_until(stars, step + 1)["theta"], tensors["theta"])  # negative control


class EnoughError(Exception):
    """A training has come as far as it is wanted."""


def unbroken_until(stars, step):
    """Tensors of a training of 10,000 epochs as it stands after some steps."""
    original, taken, state = training.Run.step, [], {}

    def stepped(self, batch):
        loss = original(self, batch)
        taken.append(1)
        if len(taken) == step:
            state.update({n: t.detach().clone() for n, t in self.state().items()})
            raise EnoughError
        return loss

    config = da.TrainConfig(n_epochs=10_000, batch_size=100)
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(EnoughError):
        patch.setattr(training.Run, "step", stepped)
        fit(stars, config=config)
    return state


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_handlers_are_put_back_and_get_their_signal(stars, tmp_path, monkeypatch, number):
    got = []
    before = signal.signal(number, lambda n, _: got.append(n))
    try:
        break_at(monkeypatch, 4, number)
        with pytest.raises(KeyboardInterrupt, match=r"training stopped.*checkpoint\.safetensors"):
            fit(stars, checkpoint=tmp_path)
        assert got == [number]
        signal.raise_signal(number)
        assert got == [number, number]
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(
    ("change", "name"),
    [({"spec": da.FlowSpec(2, 7, n_blocks=1)}, "spec"), ({"rng": 9}, "seeds"), ({"n_flows": 3}, "n_flows"),
     ({"symmetry": "spherical"}, "coordinates"), ({"time_reversal": True}, "coordinates"),
     ({"config": da.TrainConfig(n_epochs=4, batch_size=100)}, "config"), ({"stars": True}, "stars")],
    ids=str,
)
def test_checkpoint_of_another_training_is_refused(stars, tmp_path, change, name):
    fit(stars, checkpoint=tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    other = np.vstack([stars[1:], stars[:1] * (1 + 1e-15)]) if change.pop("stars", None) else stars
    with pytest.raises(ValueError, match=f"is of another training: its {name}.* is .*use another folder or delete it"):
        fit(other, checkpoint=tmp_path, **change)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_damaged_checkpoint_is_refused(stars, tmp_path):
    fit(stars, checkpoint=tmp_path)
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        fit(stars, checkpoint=tmp_path)


# ---- members ----


def test_members_have_their_own_streams(stars):
    """The three streams are separate: changing one seed changes nothing of the others."""
    base = run(stars, 3, da.TrainConfig(batch_size=100, bootstrap=True))
    assert len({tuple(row.tolist()) for row in base.theta}) == 3
    assert len({tuple(row) for row in base.stars.tolist()}) == 3
    first = next(base.batches(0, 0))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, next(base.batches(1, 0)))
    for i, changed in enumerate([(9, 2, 3), (1, 9, 3), (1, 2, 9)]):
        other = run(stars, 3, da.TrainConfig(batch_size=100, bootstrap=True), changed)
        assert torch.equal(base.theta, other.theta) == (i != 1)
        assert np.array_equal(base.stars, other.stars) == (i != 0)
        assert torch.equal(base.held, other.held) == (i != 0)
        orders = [state._draws("batches", "order", range(3), 0) for state in (base, other)]
        assert np.array_equal(*orders) == (i != 2)


def test_an_epoch_shows_each_star_once(stars):
    state = run(stars, config=da.TrainConfig(batch_size=114))  # 1,140 training stars: ten whole batches
    seen = torch.cat(list(state.batches(0, 0)), dim=2)
    for member in seen:
        assert torch.equal(member.T.sort(dim=0).values, state.y.T.sort(dim=0).values)
    rest = torch.cat(list(state.batches(0, 4)), dim=2)
    assert torch.equal(rest, seen[:, :, 4 * 114 :])


def test_bootstrap_draws_with_replacement(stars):
    """The share of distinct stars is 1 - 1/e within 5 sigma; sigma^2 = (1/e)(1 - 2/e) / n for n draws out of n."""
    state = run(stars, config=da.TrainConfig(batch_size=100, bootstrap=True))
    for drawn in state.stars:
        share, sigma = len(np.unique(drawn)) / state.n, math.sqrt((1 - 2 / math.e) / math.e / state.n)
        assert abs(share - (1 - 1 / math.e)) < 5 * sigma


def test_flips_are_shown_equally_often(stars):
    """Signs are those of a fair coin: half the stars are reversed, within 5 sigma of sqrt(n)/2."""
    state = run(abs(stars), flips=2)
    batches = torch.cat(list(state.batches(0, 0)), dim=2)
    reversed_stars = (batches[:, 3:] < 0).all(1)
    assert torch.equal(reversed_stars, (batches[:, 3:] < 0).any(1))
    assert (batches[:, :3] > 0).all()
    n = reversed_stars.numel()
    assert abs(reversed_stars.sum().item() - n / 2) < 5 * math.sqrt(n) / 2


@pytest.mark.parametrize("clip", [5.0, 0.05])
def test_a_member_trains_as_if_alone(stars, clip):
    """So nothing is shared, the clipping least of all: with a tight one, a common norm would slow every member."""
    config = da.TrainConfig(n_epochs=2, batch_size=100, clip=clip)
    together, alone = fit(stars, n_flows=3, config=config), fit(stars, n_flows=1, config=config)
    torch.testing.assert_close(together.theta[0], alone.theta[0], rtol=1e-3, atol=1e-5)
    assert (together.theta[1] - alone.theta[0]).abs().max() > 1e-2  # negative control: the next member is another
    for epoch, single in zip(together.metadata["history"], alone.metadata["history"], strict=True):
        assert epoch["train"][0] == pytest.approx(single["train"][0], abs=1e-4)
        assert epoch["held_out"][0] == pytest.approx(single["held_out"][0], abs=1e-4)


def test_gradients_are_clipped_member_by_member(stars, monkeypatch):
    state = run(stars, config=da.TrainConfig(batch_size=100, clip=0.3))
    with torch.no_grad():
        state.theta[1] *= 3  # a steep one beside a gentle one
    norms = []
    monkeypatch.setattr(state.optimizer, "step", lambda _: norms.append(state.theta.grad.norm(dim=1)))
    state.step(next(state.batches(0, 0)))
    loose = run(stars, config=da.TrainConfig(batch_size=100, clip=1e9))
    monkeypatch.setattr(loose.optimizer, "step", lambda _: norms.append(loose.theta.grad.norm(dim=1)))
    loose.step(next(loose.batches(0, 0)))
    torch.testing.assert_close(norms[0], torch.tensor([0.3, 0.3]))
    assert norms[1].min() > 0.3


# ---- what is learned ----


def test_held_out_stars_are_apart_and_the_same_for_all(stars):
    state = run(stars, 3, da.TrainConfig(batch_size=100, held_out=0.1, bootstrap=True))
    assert state.held.shape == (6, 120)
    assert state.y.shape == (6, 1080)
    everything = torch.cat([state.held, state.y], dim=1).T
    assert torch.equal(everything.sort(dim=0).values, torch.from_numpy(stars).float().sort(dim=0).values)


def test_best_state_is_kept(stars):
    """A rate and a length at which small data are overfitted: the last epoch is not the best one."""
    config = da.TrainConfig(n_epochs=25, batch_size=100, learning_rate=0.03, held_out=0.3)
    model = fit(stars, spec=da.FlowSpec(2, 32), config=config)
    held_out = np.array([epoch["held_out"] for epoch in model.metadata["history"]])
    best = np.array(model.metadata["held_out_loss"])
    np.testing.assert_array_equal(best, held_out.min(axis=0))
    assert (held_out[-1] > best).all()
    w = stars[np.random.default_rng(model.metadata["seeds"]["data"]).permutation(1200)[:360]]
    log_jacobian = model.coordinates.forward(torch.from_numpy(w))[1].numpy() - model.std.log().sum().numpy()
    np.testing.assert_allclose((log_jacobian - model.members_log_prob(w)).mean(axis=1), best, rtol=1e-5)


def test_early_stopping(stars):
    config = da.TrainConfig(n_epochs=60, batch_size=100, learning_rate=0.05, held_out=0.3, patience=2)
    model = fit(stars, config=config)
    held_out = np.array([epoch["held_out"] for epoch in model.metadata["history"]])
    assert 3 <= len(held_out) < 60
    assert (held_out[-2:] >= held_out[:-2].min(axis=0)).all()  # nobody improved in the last two
    assert (held_out[-3] < held_out[:-3].min(axis=0, initial=math.inf)).any()  # somebody did just before


def test_members_out_of_patience_are_left_out_and_the_others_go_on_as_if_they_were_not(stars):
    """Each member of a stack with patience ends as in a stack where nobody has stopped yet."""
    config = da.TrainConfig(
        n_epochs=60, batch_size=100, learning_rate=0.03, warmup=0.0, decay=False, held_out=0.3, patience=2
    )
    together = fit(stars, n_flows=3, config=config)
    patient = fit(stars, n_flows=3, config=replace(config, n_epochs=len(together.metadata["history"]), patience=None))
    ends = []
    for member in range(3):
        mine, other = ([epoch["held_out"][member] for epoch in m.metadata["history"]] for m in (together, patient))
        end = next(i for i in range(len(mine)) if i >= np.argmin(mine[: i + 1]) + 2 or i == len(mine) - 1) + 1
        ends.append(end)
        np.testing.assert_allclose(mine[:end], other[:end], rtol=1e-4)
        assert set(mine[end:]) <= {mine[end - 1]}  # nothing new is learnt
    assert len(set(ends)) > 1  # else nobody would have been left out


def test_learning_rate_warms_up_and_falls_to_zero(stars, monkeypatch):
    config = da.TrainConfig(n_epochs=10, batch_size=100, learning_rate=0.02, warmup=0.2)
    assert config.schedule(0.1) == pytest.approx(0.5)
    assert config.schedule(0.2) == pytest.approx(1)
    assert config.schedule(0.6) == pytest.approx(0.5)
    assert config.schedule(1.0) == pytest.approx(0)
    assert da.TrainConfig(warmup=0.0).schedule(0) == pytest.approx(1)
    rates, original = [], training.Run.step

    def step(self, batch):
        loss = original(self, batch)
        rates.append(self.optimizer.adam.param_groups[0]["lr"])
        return loss

    monkeypatch.setattr(training.Run, "step", step)
    fit(stars, config=config)
    expected = [0.02 * config.schedule((i + 1) / (10 * STEPS + 1)) for i in range(10 * STEPS)]
    assert rates == expected
    assert abs(np.argmax(rates) - 0.2 * 10 * STEPS) <= 1


def test_training_teaches(stars):
    """More likely than a Gaussian with the stars' moments, on fresh stars, by more than 5 standard errors."""
    model = fit(da.Plummer().sample(5000, rng=0), symmetry="spherical",
                config=da.TrainConfig(n_epochs=4, batch_size=100), spec=da.FlowSpec(3, 16))
    fresh = da.Plummer().sample(5000, rng=1)
    gaussian = torch.distributions.Normal(torch.zeros(6), torch.from_numpy(stars.std(axis=0)))
    gain = model.log_prob(fresh) - gaussian.log_prob(torch.from_numpy(fresh)).sum(1).numpy()
    assert gain.mean() > 5 * gain.std() / math.sqrt(len(gain))


def test_a_false_symmetry_is_paid_for():
    """A Plummer sphere flattened to q = 0.25, learned with and without assuming that it is round.

    A spherical model makes every direction equally likely, but mu = z/r has the density
    q^2 (mu^2 + q^2 (1 - mu^2))^(-3/2) / 2. A joint density is never nearer than its marginal, so KL(true || spherical)
    is at least the KL of the directions alone, 0.62 nats, whatever is learned. Without the assumption not even
    half of that remains.
    """
    q, sphere = 0.25, da.Plummer()
    mu = np.linspace(-1, 1, 200_001)
    density = 0.5 * q**2 / (mu**2 + q**2 * (1 - mu**2)) ** 1.5
    assert np.trapezoid(density, mu) == pytest.approx(1, abs=1e-6)
    bound = np.trapezoid(density * np.log(2 * density), mu)

    def stars(rng, q):
        return sphere.sample(20_000, rng=rng) * [1, 1, q, 1, 1, 1]

    def kl(q, symmetry):
        config = da.TrainConfig(n_epochs=4, batch_size=400, learning_rate=5e-3)
        model = da.fit(stars(1, q), spec=da.FlowSpec(3, 32), config=config, symmetry=symmetry, rng=0)
        w = stars(2, q)
        difference = sphere.log_df(w / [1, 1, q, 1, 1, 1]) - math.log(q) - model.log_prob(w)
        return difference.mean(), difference.std() / math.sqrt(len(w))

    false, error = kl(q, "spherical")
    assert false > bound - 5 * error
    general, error = kl(q, "none")
    assert general < bound / 2 - 5 * error
    true, error = kl(1.0, "spherical")  # control: where the symmetry holds it costs nothing
    assert true < 0.05 - 5 * error


# ---- what goes wrong ----


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_loss_that_is_not_finite_names_its_epoch_and_the_last_checkpoint(stars, tmp_path, monkeypatch, checkpoint):
    original = training.Run.step

    def poisoned(self, batch):
        return original(self, batch * math.nan if self.progress["epoch"] == 1 and self.progress["step"] == 2 else batch)

    config = da.TrainConfig(n_epochs=3, batch_size=100, checkpoint_seconds=1e-9)
    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "step", poisoned)
        folder = tmp_path if checkpoint else None
        last = r".*checkpoint\.safetensors" if checkpoint else "none"
        with pytest.raises(FloatingPointError, match=f"not finite in epoch 2, step 3; last good checkpoint: {last}"):
            fit(stars, config=config, checkpoint=folder)
    if checkpoint:
        tensors, header = read_tensors(tmp_path / "checkpoint.safetensors")
        assert (header["progress"]["epoch"], header["progress"]["step"]) == (1, 2)
        assert all(torch.isfinite(t).all() for t in tensors.values())


def test_a_rate_far_too_high_raises(stars):
    with pytest.raises(FloatingPointError, match="a lower learning_rate may help"):
        fit(stars, config=da.TrainConfig(n_epochs=5, batch_size=100, learning_rate=1e18))


def test_full_disk_during_training_loses_nothing(stars, unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        break_at(patch, 5, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            fit(stars, checkpoint=tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left on device"):
            fit(stars, checkpoint=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert same(fit(stars, checkpoint=tmp_path), unbroken("plain"))


def repeated(stars, share):
    """Stars of which a share repeats others."""
    n = round(share * len(stars))
    return np.vstack([stars[: len(stars) - n], stars[:n]])


def test_repeated_stars_are_reported_with_their_share(stars):
    with pytest.warns(UserWarning, match=r"3\.0% of the stars repeat another one") as caught:
        fit(repeated(stars, 0.03))
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(repeated(stars, 0.005))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda w: w[:, :5], ValueError, r"stars must have shape \(n, 6\); got \(1200, 5\)"),
        (lambda w: w[:999], ValueError, "stars must have at least 1000 rows to learn from; got 999"),
        (lambda w: w[:0], ValueError, "stars must have at least one row"),
        (lambda w: np.where(np.arange(1200)[:, None] % 400 == 17, np.nan, w), ValueError,
         "stars has 3 non-finite rows, first at index 17"),
        (lambda w: np.where(np.arange(1200)[:, None] == 5, np.inf, w), ValueError,
         "stars has 1 non-finite row, first at index 5"),
        (lambda w: w * [1, 1, 0, 1, 1, 1], ValueError, "stars has a constant column: z;"),
        (lambda w: w * [1, 1, 1, 0, 1, 1] + 3, ValueError, "stars has a constant column: vx;"),
    ],
)
def test_bad_stars(stars, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        fit(change(stars), checkpoint=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("symmetry", ["spherical", "axisymmetric"])
def test_stars_at_a_singular_place_are_named(stars, symmetry):
    w = stars.copy()
    w[[4, 9], :3] = 0
    with pytest.raises(ValueError, match=f"2 rows where {symmetry} coordinates are singular.*index 4; remove"):
        fit(w, symmetry=symmetry)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_flows": 0}, ValueError, "n_flows must be a positive integer; got 0"),
        ({"n_flows": 1.5}, TypeError, "n_flows must be a positive integer; got 1.5"),
        ({"symmetry": "round"}, ValueError, "symmetry must be one of none, axisymmetric, spherical; got 'round'"),
        ({"config": da.TrainConfig(batch_size=1141)}, ValueError,
         "batch_size must be at most the 1140 training stars; got 1141"),
    ],
)
def test_bad_options(stars, options, error, message):
    with pytest.raises(error, match=message):
        fit(stars, **options)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_epochs": 0}, "n_epochs must be a positive integer; got 0"),
        ({"batch_size": -1}, "batch_size must be a positive integer; got -1"),
        ({"learning_rate": 0}, "learning_rate must be a positive finite number; got 0"),
        ({"clip": math.nan}, "clip must be a positive finite number; got nan"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds must be a positive finite number; got -1"),
        ({"warmup": 1.0}, r"warmup must lie in \[0, 1\); got 1.0"),
        ({"held_out": 0}, r"held_out must lie in \(0, 1\); got 0"),
        ({"patience": 0}, "patience must be a positive integer; got 0"),
    ],
)
def test_bad_configuration(values, message):
    with pytest.raises(ValueError, match=message):
        da.TrainConfig(**values)


def test_nothing_of_a_run_stays_behind_on_the_cpu(stars):
    """On the meta device, which computes nothing but refuses tensors of another device, as a GPU does."""
    y = torch.from_numpy(stars).float().to("meta")
    seeds = {"data": 1, "initialization": 2, "batches": 3}
    state = training.Run(Layout(SPEC, 6), CONFIG, y[50:], y[:50], torch.ones(2, 6, device="meta"), seeds, 2)
    batch = next(state.batches(0, 0))
    loss = state.layout.log_prob(state.layout.networks(state.theta), batch).mean(1)
    loss.sum().backward()
    assert state.theta.grad.device == loss.device == state.best.device == torch.device("meta")
