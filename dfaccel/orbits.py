"""Orbits of many stars in a fixed potential, block by block, resumable."""

from __future__ import annotations

import math
import time as clock
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import checks
from .files import checksum, read_tensors, write_tensors

# Position-extended Forest-Ruth-like integrator, fourth order, symplectic (Omelyan, Mryglod & Folk 2002, eqs 20-22).
_XI, _LAMBDA, _CHI = 0.1786178958448091, -0.2123418310626054, -0.06626458266981849
_BLOCK = 8192  # stars followed at a time: what fits the cache
_CHECKPOINT_SECONDS = 20.0


class Field(Protocol):
    """A potential in which stars move."""

    def acceleration(self, x: Tensor) -> Tensor:
        """Return the acceleration (n, 3) at ``x`` (n, 3)."""

    def rate(self, w: Tensor) -> Tensor:
        """Return an upper bound (n,) of how fast the force along each orbit changes, per unit time."""


def integrate(
    w: np.ndarray,
    field: Field,
    time: float,
    *,
    step: float = 0.5,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
) -> np.ndarray:
    """Follow stars on their orbits for a time.

    Every star keeps one time step throughout, so that the scheme stays symplectic; stars that need about the same step
    (``step`` over the field's ``rate``) are followed together.

    Parameters
    ----------
    w : ndarray, shape (n, 6)
        Stars at the beginning.
    field : object
        Potential, such as `MiyamotoNagai`.
    time : float
        For how long; negative goes back in time.
    step : float
        Time step, in units of the shortest time on which the force along an orbit changes.
    checkpoint : str or Path, optional
        File for checkpoints. An integration killed or interrupted goes on from there when called again with the same
        arguments, to the same result; the file is removed at the end.
    device : str
        Torch device.

    Returns
    -------
    ndarray, shape (n, 6)
        Stars at the end.

    Raises
    ------
    TypeError
        If the field lacks a method.
    ValueError
        If the stars have a wrong shape or are not finite, a number is out of range, or the checkpoint is of another
        integration.

    Examples
    --------
    >>> import dfaccel as da
    >>> stars = integrate([[1.0, 0, 0, 0, 0.5, 0]], da.MiyamotoNagai(), 10.0)
    >>> back = integrate(stars, da.MiyamotoNagai(), -10.0)
    >>> bool(abs(back - [[1.0, 0, 0, 0, 0.5, 0]]).max() < 1e-5)
    True
    """
    w = checks.phase_space(w)
    checks.positive(step, "step")
    if not (hasattr(field, "acceleration") and hasattr(field, "rate")):
        raise TypeError(f"field must have acceleration and rate, as MiyamotoNagai has; got {type(field).__name__}")
    if not math.isfinite(time):
        raise ValueError(f"time must be finite; got {time!r}")
    start = torch.from_numpy(w).to(device)
    n_steps = torch.ceil(abs(time) * field.rate(start) / step).clamp_min(1)
    if not torch.isfinite(n_steps).all():
        raise ValueError(f"the field's rate is not finite for star {int((~torch.isfinite(n_steps)).nonzero()[0])}")
    blocks = torch.argsort(n_steps, stable=True).split(_BLOCK)
    end, done = torch.empty_like(start), 0
    path = None if checkpoint is None else Path(checkpoint)
    identity = {"kind": "integration", "stars": checksum(w), "field": repr(field), "time": time, "step": step}
    if path is not None and path.exists():
        tensors, header = read_tensors(path)
        if {name: header.get(name) for name in identity} != identity:
            raise ValueError(f"checkpoint {path} is of another integration; use another file or delete it")
        end, done = tensors["end"].to(device), header["done"]

    saved = clock.perf_counter()
    for number, block in enumerate(tqdm(blocks, unit="block", initial=done, leave=False)):
        if number < done:
            continue
        n = int(n_steps[block].max())
        end[block] = _follow(start[block], field, time / n, n)
        if path is not None and clock.perf_counter() - saved > _CHECKPOINT_SECONDS:
            write_tensors(path, {"end": end}, {**identity, "done": number + 1})
            saved = clock.perf_counter()
    if path is not None:
        path.unlink(missing_ok=True)
    return end.cpu().numpy()


@torch.inference_mode()
def _follow(w: Tensor, field: Field, dt: float, n: int) -> Tensor:
    """Take n steps of dt."""
    x, v = (part.T.contiguous().T for part in (w[:, :3], w[:, 3:]))  # in memory coordinate by coordinate: much faster
    x.add_(v, alpha=_XI * dt)
    for i in range(n):
        v.add_(field.acceleration(x), alpha=(0.5 - _LAMBDA) * dt)
        x.add_(v, alpha=_CHI * dt)
        v.add_(field.acceleration(x), alpha=_LAMBDA * dt)
        x.add_(v, alpha=(1 - 2 * (_CHI + _XI)) * dt)
        v.add_(field.acceleration(x), alpha=_LAMBDA * dt)
        x.add_(v, alpha=_CHI * dt)
        v.add_(field.acceleration(x), alpha=(0.5 - _LAMBDA) * dt)
        x.add_(v, alpha=(2 if i < n - 1 else 1) * _XI * dt)
    return torch.cat([x, v], dim=1)
