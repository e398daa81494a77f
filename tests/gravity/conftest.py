"""Distribution functions for the tests of gravity: exact ones, and one learned by small flows."""

import numpy as np
import pytest
import torch

import dfaccel as da

EXACT = [da.Hernquist(), da.Hernquist(beta=0.5), da.Plummer(), da.Hernquist(mass=3.0, scale=2.0, G=0.7),
         da.Hernquist(mass=0.2, scale=5.0, beta=0.5, G=43.0), da.Plummer(mass=3.0, scale=0.5, G=2.0)]


class Shifted(da.DistributionFunction):
    """A distribution function and nothing else, its centre somewhere: no potential, no scale to peep at."""

    def __init__(self, system, centre=(0.0, 0.0, 0.0)):
        self.__system, self.__centre = system, np.array([*centre, 0, 0, 0])

    def log_df(self, w):
        return self.__system.log_df(w - torch.as_tensor(self.__centre))

    def sample(self, n, *, rng):
        return self.__system.sample(n, rng=rng) + self.__centre


@pytest.fixture(params=EXACT, ids=repr)
def system(request):
    return request.param


@pytest.fixture(scope="session")
def shifted():
    return Shifted


@pytest.fixture(scope="session")
def learned():
    """Three small flows of a Plummer sphere."""
    config = da.TrainConfig(n_epochs=5, batch_size=200, learning_rate=5e-3)
    return da.fit(da.Plummer().sample(20_000, rng=0), n_flows=3, spec=da.FlowSpec(3, 16, n_blocks=1), config=config,
                  coordinates="spherical", rng=1)
