"""Small trainings, for the tests of fit and of training."""

import contextlib
import signal

import pytest
import torch

import dfaccel as da
from dfaccel.flows import training

SPEC = da.FlowSpec(2, 6, n_blocks=1)
CONFIG = da.TrainConfig(n_epochs=3, batch_size=100)  # 11 steps an epoch with 1,200 stars


@pytest.fixture(scope="session")
def few_stars():
    """Too few stars to learn much from, enough to train on."""
    return da.Plummer().sample(1200, rng=3)


@pytest.fixture(scope="session")
def small_fit():
    """Train two small flows on one thread, since bits may depend on the number of threads."""

    def fit(stars, **options):
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return da.fit(stars, **{"n_flows": 2, "spec": SPEC, "config": CONFIG, "rng": 8} | options)
        finally:
            torch.set_num_threads(before)

    return fit


@pytest.fixture(scope="session")
def replaced_step():
    """Replace the steps of a training by ``step(original, run, batch, number)``, counted from one."""

    @contextlib.contextmanager
    def replaced(step):
        original, taken = training.Run.step, []

        def counted(self, batch):
            taken.append(1)
            return step(original, self, batch, len(taken))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training.Run, "step", counted)
            yield

    return replaced


@pytest.fixture(scope="session")
def interrupted_at(replaced_step):
    """Send this process a signal in the midst of a training step."""

    def interrupted(step, number=signal.SIGINT):
        def stepped(original, run, batch, taken):
            if taken == step:
                signal.raise_signal(number)
            return original(run, batch)

        return replaced_step(stepped)

    return interrupted
