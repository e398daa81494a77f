"""The loop of a training: step by step to the end, with checkpoints by the clock and on a signal."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm.auto import tqdm

from dfaccel._files import difference, read_tensors, write_tensors
from dfaccel.flows.training import Run


@contextmanager
def _stop_requested() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list while a training runs; afterwards their own handlers receive them."""
    caught, previous = [], {}
    if threading.current_thread() is threading.main_thread():  # Python allows no handlers in other threads
        previous = {n: signal.signal(n, lambda n, _: caught.append(n)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if caught and previous[caught[0]] is not signal.default_int_handler:  # that one's KeyboardInterrupt is raised
            os.kill(os.getpid(), caught[0])


def train(run: Run, path: Path | None = None, identity: dict | None = None) -> None:
    """Train to the end, from and to a checkpoint at ``path``, saved by the clock and on a signal; see `dfaccel.fit`."""
    if path is not None and path.exists():
        tensors, header = read_tensors(path)
        if "config" in header:  # the time between checkpoints is the one setting that does not change the result
            header["config"]["checkpoint_seconds"] = identity["config"]["checkpoint_seconds"]
        for name, value in identity.items():
            if header.get(name) != value:
                odd = difference(name, header.get(name), value)
                raise ValueError(f"checkpoint {path} is of another training: {odd}; use another folder or delete it")
        run.restore(tensors, header["progress"])
    progress, config = run.progress, run.config
    if progress["epoch"] >= config.n_epochs:  # a checkpoint of the end
        return
    last_saved = time.perf_counter()
    started = last_saved - progress["seconds"]

    def save() -> None:
        progress["seconds"] = time.perf_counter() - started
        if path is not None:
            write_tensors(path, run.state(), {**identity, "progress": progress})
        if stop:  # a signal came
            raise KeyboardInterrupt(f"training stopped; {path or 'no checkpoint was asked for'}")

    total, done = config.n_epochs * run.n_steps, progress["epoch"] * run.n_steps + progress["step"]
    with _stop_requested() as stop, tqdm(total=total, initial=done, unit="step", leave=False) as bar:
        while progress["epoch"] < config.n_epochs and not all(map(run.finished, range(len(run.theta)))):
            for batch in run.batches(progress["epoch"], progress["step"]):
                try:
                    loss = run.step(batch)
                except FloatingPointError:
                    good = "none" if path is None or not path.exists() else path
                    where = f"epoch {progress['epoch'] + 1}, step {progress['step'] + 1}"
                    raise FloatingPointError(f"the loss is not finite in {where}; last good checkpoint: {good}; "
                                             "a lower learning_rate may help") from None
                for member, value in zip(run.members, loss.tolist(), strict=True):
                    progress["running"][member] += value
                progress["step"] += 1
                bar.update()
                if progress["step"] % 50 == 0:
                    bar.set_postfix(epoch=progress["epoch"] + 1, loss=f"{loss.mean():.4f}", refresh=False)
                if stop or time.perf_counter() - last_saved > config.checkpoint_seconds:
                    save()
                    last_saved = time.perf_counter()
            run.validate()
            progress |= {"epoch": progress["epoch"] + 1, "step": 0, "running": [0.0] * len(run.theta)}
        save()
