"""Training: K flows at once, resumable, each with its own initialization, stars and batch order."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from . import checks
from .config import TrainConfig
from .coordinates import coordinate_map
from .ensemble import FlowEnsemble
from .files import checksum, difference, read_tensors, write_tensors
from .flows import FlowSpec, Layout
from .run import Run, split

_N_REFERENCE = 20_000  # training positions an ensemble keeps, to know where it has seen data
_CHECKPOINT = "checkpoint.safetensors"


@contextmanager
def _stop_requested() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of dying of them; deliver them on leaving."""
    caught: list[int] = []
    previous = {}
    interrupted = False
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, lambda n, _: caught.append(n))
    except ValueError:  # not in the main thread: signals are somebody else's business
        pass
    try:
        yield caught
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if caught and not (interrupted and previous[caught[0]] is signal.default_int_handler):
            os.kill(os.getpid(), caught[0])


def fit(
    stars: np.ndarray,
    *,
    n_flows: int = 1,
    spec: FlowSpec | None = None,
    config: TrainConfig | None = None,
    symmetry: str = "none",
    time_reversal: bool = False,
    prior: FlowEnsemble | None = None,
    rng: np.random.Generator | int,
    checkpoint: str | Path | None = None,
    device: str = "auto",
) -> FlowEnsemble:
    """Learn the distribution function of stars with an ensemble of flows, all trained at once.

    Parameters
    ----------
    stars : ndarray, shape (n, 6)
        Stars, x y z vx vy vz, at least 1,000.
    n_flows : int
        Number of members.
    spec : FlowSpec, optional
        Architecture.
    config : TrainConfig, optional
        Schedule.
    symmetry : {"none", "axisymmetric", "spherical"}
        Symmetry imposed, exactly, through the coordinates; an assumption, hence none by default.
    time_reversal : bool
        Whether f(x, v) = f(x, -v) is imposed too.
    prior : FlowEnsemble, optional
        Ensemble of as many members to start from, such as one with a symmetry that is likely but must not be imposed:
        the flows begin as the identity, and only the stars move them away from it.
    rng : Generator or int
        Random generator or its seed; independent streams for data, initialization and batch order come from it.
    checkpoint : str or Path, optional
        Folder for checkpoints. A training killed or interrupted goes on from there when called again with the same
        arguments, to the same result.
    device : str
        Torch device; "auto" takes CUDA where there is one.

    Returns
    -------
    FlowEnsemble
        The members, each in the state that gave the held-out stars the highest likelihood.

    Raises
    ------
    ValueError
        If the stars have a wrong shape, are too few, are not finite or have a constant column, if a name is unknown,
        if the prior has another number of members or ``symmetry`` is not none, or if the checkpoint belongs to another
        training.
    FloatingPointError
        If the loss becomes NaN or infinite.

    Examples
    --------
    >>> import dfaccel as da
    >>> stars = da.Hernquist().sample(2000, rng=1)
    >>> model = fit(stars, spec=da.FlowSpec(n_transforms=2, hidden_features=8), symmetry="spherical",
    ...             config=da.TrainConfig(n_epochs=1, batch_size=500), rng=0)
    >>> model.sample(5, rng=2).shape
    (5, 6)
    """
    w = checks.phase_space(stars, "stars")
    checks.training_stars(w)
    checks.count(n_flows, "n_flows")
    spec, config = spec or FlowSpec(), config or TrainConfig()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if prior is not None and (symmetry != "none" or prior.n_flows != n_flows):
        raise ValueError(f"a prior needs as many members as are trained, and symmetry 'none'; it has {prior.n_flows} "
                         f"for {n_flows}, and symmetry is {symmetry!r}")
    children = np.random.default_rng(rng).spawn(3)
    names = ("data", "initialization", "batches")
    seeds = {name: int(child.integers(2**63)) for name, child in zip(names, children, strict=True)}

    coordinates = coordinate_map(w, symmetry, position_map=spec.position_map, time_reversal=time_reversal)
    y, _ = coordinates.forward(torch.from_numpy(w))
    checks.finite_coordinates(y.numpy(), symmetry)
    flipped = (coordinates.flips < 0).any(0)
    mean = torch.where(flipped, 0.0, y.mean(0))
    std = (y - mean).square().mean(0).sqrt()
    reference = y[: , : coordinates.n_positions].float()
    reference = reference[torch.from_numpy(np.random.default_rng(seeds["data"]).permutation(len(w))[:_N_REFERENCE])]

    model = FlowEnsemble(spec, coordinates, mean, std, torch.zeros(n_flows, 0), reference.contiguous(), prior=prior)
    y = ((y - mean) / std).float().to(device)
    layout, flips = Layout(spec, coordinates.features), coordinates.flips.to(device)
    density = None if prior is None else model.to(device).density
    run = Run(layout, config, *split(y, config.held_out, seeds["data"]), flips, seeds, n_flows, density)
    identity = {
        "kind": "training", "spec": spec.to_dict(), "coordinates": coordinates.to_dict(),
        "config": asdict(config),
        "n_flows": n_flows, "seeds": seeds, "stars": checksum(w),
    }
    if prior is not None:
        identity["prior"] = checksum(prior.theta)
    path = None if checkpoint is None else Path(checkpoint) / _CHECKPOINT
    if path is not None and path.exists():
        _resume(run, path, identity)
    train(run, path, identity)

    metadata = {
        "n_stars": len(w), "stars_sha256": identity["stars"], "seeds": seeds, "config": asdict(config),
        "held_out_loss": run.progress["best"], "history": run.progress["history"],
        "seconds": round(run.progress["seconds"], 1), "device": device, "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    return replace(model, theta=run.best.cpu(), metadata=metadata)


def _resume(run: Run, path: Path, identity: dict) -> None:
    tensors, header = read_tensors(path)
    if "config" in header:  # the clock of the checkpoints is the one setting that does not change the result
        header["config"]["checkpoint_seconds"] = identity["config"]["checkpoint_seconds"]
    for name, value in identity.items():
        if header.get(name) != value:
            raise ValueError(f"checkpoint {path} is of another training: {difference(name, header.get(name), value)}; "
                             "use another folder or delete it")
    run.restore(tensors, header["progress"])


def train(run: Run, path: Path | None = None, identity: dict | None = None) -> None:
    """Train to the end, checkpointing to ``path`` by the clock and when asked to stop.

    Parameters
    ----------
    run : Run
        Training, new or restored; its ``best`` and ``progress`` hold the result.
    path : Path, optional
        Checkpoint.
    identity : dict, optional
        What a checkpoint must have been made from.

    Raises
    ------
    FloatingPointError
        If the loss becomes NaN or infinite.
    KeyboardInterrupt
        If it was asked to stop, after a checkpoint.
    """
    progress, config = run.progress, run.config
    if progress["epoch"] >= config.n_epochs:  # a checkpoint of the end
        return
    before, started = progress["seconds"], time.perf_counter()
    last_saved = started

    def save() -> None:
        progress["seconds"] = before + time.perf_counter() - started
        if path is not None:
            write_tensors(path, run.state(), {**(identity or {}), "progress": progress})

    total = config.n_epochs * run.n_steps
    bar = tqdm(total=total, initial=progress["epoch"] * run.n_steps + progress["step"], unit="step", leave=False)
    with _stop_requested() as stop, bar:
        while progress["epoch"] < config.n_epochs:
            if all(run.finished(member) for member in range(len(run.theta))):
                break
            for batch in run.batches(progress["epoch"], progress["step"]):
                try:
                    loss = run.step(batch)
                except FloatingPointError:
                    good = "none" if path is None or not path.exists() else str(path)
                    raise FloatingPointError(
                        f"the loss is not finite in epoch {progress['epoch'] + 1}, step {progress['step'] + 1}; "
                        f"last good checkpoint: {good}; a lower learning_rate may help"
                    ) from None
                for member, value in zip(run.members, loss.tolist(), strict=True):
                    progress["running"][member] += value
                progress["step"] += 1
                bar.update()
                if progress["step"] % 50 == 0:
                    bar.set_postfix(epoch=progress["epoch"] + 1, loss=f"{loss.mean():.4f}", refresh=False)
                if stop or time.perf_counter() - last_saved > config.checkpoint_seconds:
                    save()
                    last_saved = time.perf_counter()
                if stop:
                    raise KeyboardInterrupt(f"training stopped; {path or 'no checkpoint was asked for'}")
            train_loss = [s / run.n_steps for s in progress["running"]]
            for member in set(range(len(train_loss))) - set(run.members):
                train_loss[member] = progress["history"][-1]["train"][member]
            progress["history"].append({"train": train_loss, "held_out": run.validate()})
            progress |= {"epoch": progress["epoch"] + 1, "step": 0, "running": [0.0] * len(train_loss)}
        save()
