"""From stars to an ensemble: the preparation of stars, which studies share, and `fit`."""

import platform
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dfaccel import _check as check
from dfaccel._files import checksum
from dfaccel.coordinates import CoordinateMap, coordinate_map
from dfaccel.flows.ensemble import FlowEnsemble
from dfaccel.flows.equilibrium import Equilibrium
from dfaccel.flows.loop import train
from dfaccel.flows.maf import FlowSpec
from dfaccel.flows.training import GROUP, Run, TrainConfig

_N_REFERENCE = 20_000  # training positions an ensemble keeps, to know where it has seen data


@dataclass(frozen=True)
class Prepared:
    """Stars as a flow sees them, made by `prepare`: coordinates (n, features), float64, and how to standardize them."""

    coordinates: CoordinateMap
    mean: Tensor
    std: Tensor
    raw: Tensor
    log_jacobian: Tensor

    @cached_property
    def y(self) -> Tensor:
        """Standardized coordinates (n, features), float32."""
        return ((self.raw - self.mean) / self.std).float()

    @property
    def positions(self) -> Tensor:
        """Position coordinates (n, n_positions), float32, not standardized."""
        return self.raw[:, : self.coordinates.n_positions].float()

    def apply(self, w: np.ndarray) -> Self:
        """Return other stars ``w`` (n, 6) in the same coordinates and with the same standardization."""
        raw, log_jacobian = self.coordinates.forward(torch.from_numpy(w))
        return replace(self, raw=raw, log_jacobian=log_jacobian)

    def offset(self, part: slice = slice(None)) -> float:
        """Return what to add to the mean loss of some of the stars for their cross-entropy in the user's units."""
        return float(self.std.log().sum() - self.log_jacobian[part].mean())


def _truths(stars: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Return stars (n, 6), or possible truths of each, one after another, the logs of their weights, and how many."""
    if not hasattr(stars, "log_weight"):
        return check.phase_space(stars, "stars"), None, 1
    n, truths = np.shape(stars.log_weight)
    if truths % GROUP or np.shape(stars.w) != (n, truths, 6):
        raise ValueError(f"stars must have a multiple of {GROUP} possible truths each; got shape {np.shape(stars.w)}")
    return check.phase_space(stars.w.reshape(-1, 6), "stars"), stars.log_weight.reshape(-1, 1), truths


def prepare(w: np.ndarray, coordinates: str | CoordinateMap = "radial", *, time_reversal: bool = False) -> Prepared:
    """Choose coordinates from stars ``w`` (n, 6), and standardize the stars in them."""
    coordinates = coordinate_map(w, coordinates, time_reversal=time_reversal)
    raw, log_jacobian = coordinates.forward(torch.from_numpy(w))
    bad = np.flatnonzero(~raw.isfinite().all(1))
    if len(bad):
        raise ValueError(f"stars must not lie where {coordinates.name} coordinates are singular (centre, axis or "
                         f"purely radial orbit); {len(bad)} do, first at index {bad[0]}; remove them")
    mean = torch.where((coordinates.flips < 0).any(0), 0.0, raw.mean(0))  # flips are about zero
    return Prepared(coordinates, mean, (raw - mean).square().mean(0).sqrt(), raw, log_jacobian)


@torch.inference_mode(False)
@torch.enable_grad()
def fit(
    stars: np.ndarray, *, n_flows: int = 1, spec: FlowSpec | None = None, config: TrainConfig | None = None,
    coordinates: str | CoordinateMap = "radial", time_reversal: bool = False, prior: FlowEnsemble | None = None,
    weights: np.ndarray | None = None, equilibrium: float = 0.0, selection: bool = False,
    rng: np.random.Generator | int, checkpoint: str | Path | None = None, device: str = "auto",
) -> FlowEnsemble:
    """Learn the distribution function of stars with an ensemble of flows, all trained at once.

    The members differ in initialization and in the order of their batches and, with ``TrainConfig(bootstrap=True)``,
    in their stars. The loss is the negative mean log-likelihood of the stars (Green & Ting 2020, arXiv:2011.04673).
    Each member is returned in the state that gave the held-out stars the highest likelihood; with ``equilibrium``,
    which itself keeps it from learning the noise, in its last state.

    Parameters
    ----------
    stars : ndarray, shape (n, 6), or PossibleTruths
        Stars, x y z vx vy vz, at least 1,000, in any units of length and velocity; or, for stars with errors, the
        `possible_truths` of each. The loss is then that of the stars as they were measured: at each step a truth of a
        star is drawn in proportion to f, which gives the gradient of the likelihood (Fisher's identity).
    n_flows, spec, config : int, FlowSpec, TrainConfig, optional
        Number of members, their architecture and the schedule.
    coordinates, time_reversal : {"spherical", "axisymmetric", "radial", "linear", "local", ...} or CoordinateMap, bool
        Coordinates to learn in: the first two impose their symmetry exactly; "local" is for a ball or a box with walls,
        and "mirrored" the same with z -> -z. And whether to impose f(x, v) = f(x, -v).
    prior : FlowEnsemble, optional
        Ensemble of as many members to start from, for example with a symmetry that is likely but must not be imposed.
    weights : ndarray, shape (n,), optional
        For how much each star counts: its mass, or one over the known share of stars that are seen at its place. Every
        pass draws stars in proportion. The metadata state the effective number of stars, (sum w)^2 / sum w^2.
    equilibrium : float
        Weight in the loss of the mean squared misfit of the Boltzmann equation, at all stars in one field of force,
        which is found with f (0.1 is a good one with a symmetry, 0.3 without; 0 leaves it out).
    selection : bool
        Whether stars are missing by place: the equilibrium then has an unknown completeness, which is found with f.
    rng, device : Generator or int, str
        Random generator or its seed, from which data, initialization and batch order have independent streams; and
        torch device ("auto" takes CUDA if there is one).
    checkpoint : str or Path, optional
        Folder for checkpoints. A training that was stopped goes on from there when it is called again, to the same end.

    Raises
    ------
    TypeError, ValueError, FloatingPointError
        If stars have a wrong shape, are too few or not finite, do not vary, or lie where the coordinates are singular;
        if an option is unknown or does not fit the prior or the coordinates; if the checkpoint is of another training;
        if the loss is NaN.

    Examples
    --------
    >>> import dfaccel as da
    >>> stars = da.Hernquist().sample(2000, rng=1)
    >>> model = fit(stars, spec=da.FlowSpec(2, 8), coordinates="spherical", config=da.TrainConfig(1, 500), rng=0)
    >>> model.sample(5, rng=2).shape
    (5, 6)
    """
    w, log_weight, truths = _truths(stars)
    n_stars = len(w) // truths
    check.training_stars(w[::truths])
    check.count(n_flows, "n_flows")
    spec, config = spec or FlowSpec(), config or TrainConfig()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    streams = zip(("data", "initialization", "batches"), np.random.default_rng(rng).spawn(3), strict=True)
    seeds = {name: int(child.integers(2**63)) for name, child in streams}
    ready = prepare(w, coordinates, time_reversal=time_reversal)
    coordinates = ready.coordinates
    if prior is not None and (coordinates.features < 6 or prior.n_flows != n_flows):
        raise ValueError(f"a prior needs as many members as are trained, and coordinates without symmetry; it has "
                         f"{prior.n_flows} for {n_flows}, and coordinates is {coordinates.name!r}")
    if weights is not None:
        weights = check.weights(weights, n_stars)
    if selection and not equilibrium:
        raise ValueError("selection needs an equilibrium, for example 0.1; without it the training knows no equation")
    order, n = np.random.default_rng(seeds["data"]).permutation(n_stars), max(1, round(config.held_out * n_stars))
    some = torch.from_numpy(order[:_N_REFERENCE] * truths)
    nothing = torch.zeros(n_flows, 0)
    model = FlowEnsemble(spec, coordinates, ready.mean, ready.std, nothing, ready.positions[some], prior=prior)
    density = None if prior is None else model.to(device).density
    equation, table, judges, flips = None, [ready.y], [ready.y], [coordinates.flips]
    if equilibrium:
        equation = Equilibrium(equilibrium, coordinates, ready.mean, ready.std, torch.from_numpy(w), selection)
        table, flips = [ready.y, equation.rates], [coordinates.flips, equation.flips]
    if truths > 1:
        worth = (ready.log_jacobian[:, None] + torch.from_numpy(log_weight)).float()
        table, judges, flips = [*table, worth], [ready.y, worth], [*flips, torch.ones(len(flips[0]), 1)]
    table, judges = (torch.cat(part, 1).unflatten(0, (-1, truths)) for part in (table, judges))
    parts = (table[order[n:]].flatten(0, 1), judges[order[:n]].flatten(0, 1), torch.cat(flips, 1))
    parts = [part.to(device) for part in parts]
    shares = None if weights is None else (weights[order[n:]], weights[order[:n]])
    layout = spec.layout(coordinates.features)
    run = Run(layout, config, *parts, seeds, range(n_flows), density, equation, shares, truths)
    together = w if weights is None else np.column_stack([w, np.repeat(weights, truths)])
    kind = f"training with equilibrium {equilibrium}" if equilibrium else "training"
    identity = {
        "kind": kind + " and selection" * selection, "spec": asdict(spec),
        "stars": checksum(*(part for part in (together, log_weight) if part is not None)),
        "coordinates": coordinates.to_dict(), "config": asdict(config), "n_flows": n_flows, "seeds": seeds,
        **({} if prior is None else {"prior": checksum(prior.theta)}),
    }
    train(run, None if checkpoint is None else Path(checkpoint).expanduser() / "checkpoint.safetensors", identity)
    metadata = {
        "n_stars": n_stars, "n_truths": truths,
        "n_effective": n_stars if weights is None else n_stars / float((weights**2).mean()),
        "stars_sha256": identity["stars"], "seeds": seeds, "config": asdict(config),
        "equilibrium": equilibrium, "selection": selection, "held_out_loss": run.progress["best"],
        "history": run.progress["history"], "seconds": round(run.progress["seconds"], 1), "device": device,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    return replace(model, theta=run.best.cpu(), metadata=metadata)
