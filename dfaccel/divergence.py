"""How far a learned distribution function is from the true one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import checks
from .boltzmann import DistributionFunction
from .ensemble import FlowEnsemble


class Estimate(NamedTuple):
    """A Monte Carlo estimate and its standard error."""

    value: float
    standard_error: float


def kl_divergence(
    truth: DistributionFunction, model: FlowEnsemble, *, n: int = 100_000, rng: np.random.Generator | int
) -> Estimate:
    r"""Estimate :math:`\mathrm{KL}(\mathrm{true}\,\|\,\mathrm{flow}) = \langle \ln f - \ln \hat f\rangle_f`, in nats.

    Parameters
    ----------
    truth : system
        System whose DF is known in closed form.
    model : FlowEnsemble
        Learned DF.
    n : int
        Number of fresh stars drawn from the truth.
    rng : Generator or int
        Random generator or its seed.

    Returns
    -------
    Estimate
        Value and standard error.

    Raises
    ------
    ValueError
        If ``n`` is not at least 2.

    Examples
    --------
    >>> import dfaccel as da
    >>> truth = da.Plummer()
    >>> model = da.fit(truth.sample(2000, rng=1), spec=da.FlowSpec(2, 8), symmetry="spherical",
    ...                config=da.TrainConfig(n_epochs=1, batch_size=500), rng=0)
    >>> kl_divergence(truth, model, n=1000, rng=2).value > 0
    True
    """
    if checks.count(n, "n") < 2:
        raise ValueError("n must be at least 2 for a standard error; got 1")
    w = truth.sample(n, rng=rng)
    difference = truth.log_df(w) - model.log_prob(w)
    return Estimate(float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(n)))
