"""Settings of a training for so many stars: those of chapter 14, and for fewer stars flows bound to equilibrium."""

from dfaccel import _check as check
from dfaccel.flows.maf import FlowSpec
from dfaccel.flows.training import TrainConfig

_MANY, _SMALL, _FEW = 200_000, 3000, 1000  # stars: no equilibrium from here on; smaller flows below; a weight of one
_SYMMETRIC = ("spherical", "axisymmetric")  # coordinates for which the weight of the equilibrium was chosen


def recipe(n: float, coordinates: str = "spherical") -> dict:
    """Return options of `fit` for ``n`` stars: ``spec``, ``config`` and ``equilibrium``.

    With fewer stars there are more epochs of smaller batches, and below 3,000 stars the flows are smaller. Under a
    symmetry the weight of the equilibrium is about 1 for 1,000 stars. It falls as n^-0.7 to 0 at 200,000 stars. From
    there on nothing changes with n.

    Parameters
    ----------
    n, coordinates : float, str
        Number of stars, of stars with weights the effective one, and coordinates of the fit.

    Raises
    ------
    TypeError, ValueError
        If ``n`` is no number of at least 1.

    Examples
    --------
    >>> import dfaccel as da
    >>> recipe(200_000)["config"].n_epochs, recipe(2000)["config"].n_epochs
    (12, 76)
    >>> stars = da.Plummer().sample(1000, rng=1)
    >>> da.fit(stars, coordinates="spherical", rng=0, **recipe(1000)).n_flows
    1
    """
    if check.positive(n, "n") < 1:
        raise ValueError(f"n must be a number of stars, at least 1; got {n!r}")
    n = min(n, _MANY)
    size = max(2, round(4 * min(n / _SMALL, 1.0) ** 0.6))
    weight = (_FEW / max(n, _FEW)) ** 0.7 - (_FEW / _MANY) ** 0.7
    n_epochs, batch_size = round(12 * (_MANY / n) ** 0.4), max(1, round(500 * (n / _MANY) ** 0.25))
    return {
        "spec": FlowSpec(n_transforms=size, hidden_features=8 * size),
        "config": TrainConfig(n_epochs=n_epochs, batch_size=batch_size, bootstrap=True),
        "equilibrium": weight if coordinates in _SYMMETRIC else 0.0,
    }
