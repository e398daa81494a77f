"""Orbits of many stars in a fixed potential, block by block, resumable."""

import math
import time as clock
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dfaccel import _check as check
from dfaccel._files import checksum, read_tensors, write_tensors

# Position-extended Forest-Ruth-like integrator, fourth order, symplectic (Omelyan, Mryglod & Folk 2002, eqs 20-22).
_XI, _LAMBDA, _CHI = 0.1786178958448091, -0.2123418310626054, -0.06626458266981849
_BLOCK = 8192  # stars followed at a time: what fits the cache
_CHECKPOINT_SECONDS = 20.0


def integrate(
    w: np.ndarray,
    field: Any,  # a potential with `acceleration` and `rate`, such as `MiyamotoNagai`
    time: float,  # negative goes back in time
    *,
    step: float = 0.5,  # in units of the shortest time on which the force along an orbit changes, 1 / rate
    checkpoint: str | Path | None = None,  # the same call again goes on from this file, which is removed at the end
    device: str = "cpu",
) -> np.ndarray:
    """Return the stars ``w`` (n, 6) after a time on their orbits, (n, 6)."""
    w = check.phase_space(w)
    check.positive(step, "step")
    if not (hasattr(field, "acceleration") and hasattr(field, "rate")):
        raise TypeError(f"field must have acceleration and rate, as MiyamotoNagai has; got {type(field).__name__}")
    if not math.isfinite(time):
        raise ValueError(f"time must be finite; got {time!r}")
    start = torch.from_numpy(w).to(device)
    n_steps = torch.ceil(abs(time) * field.rate(start) / step).clamp_min(1)
    if not torch.isfinite(n_steps).all():
        raise ValueError(f"the field's rate is not finite for star {int((~torch.isfinite(n_steps)).nonzero()[0])}")
    # A star keeps one step throughout, so that the scheme stays symplectic; a block has stars of about the same step.
    blocks = torch.argsort(n_steps, stable=True).split(_BLOCK)
    end, done = torch.empty_like(start), 0
    path = None if checkpoint is None else Path(checkpoint).expanduser()
    identity = {"kind": "integration", "stars": checksum(w), "field": repr(field), "time": time, "step": step}
    if path is not None and path.exists():
        tensors, header = read_tensors(path)
        if {name: header.get(name) for name in identity} != identity:
            raise ValueError(f"checkpoint {path} is of another integration; use another file or delete it")
        end, done = tensors["end"].to(device), header["done"]

    saved = clock.perf_counter()
    bar = tqdm(blocks[done:], unit="block", initial=done, total=len(blocks), leave=False)
    for number, block in enumerate(bar, done):
        n = int(n_steps[block].max())
        end[block] = _follow(start[block], field, time / n, n)
        if path is not None and clock.perf_counter() - saved > _CHECKPOINT_SECONDS:
            write_tensors(path, {"end": end}, {**identity, "done": number + 1})
            saved = clock.perf_counter()
    if path is not None:
        path.unlink(missing_ok=True)
    return end.cpu().numpy()


@torch.inference_mode()
def _follow(w: Tensor, field: Any, dt: float, n: int) -> Tensor:
    """Take n steps of dt."""
    x, v = (part.T.contiguous().T for part in (w[:, :3], w[:, 3:]))  # in memory coordinate by coordinate: much faster
    omega = getattr(field, "pattern_speed", 0.0)

    def drift(share: float) -> None:
        x.add_(v, alpha=share * dt)
        if omega:  # in the axes of a pattern that turns: the exact solution of H = v^2 / 2 - omega L_z
            c, s = math.cos(omega * share * dt), math.sin(omega * share * dt)
            for part in (x, v):
                first = part[:, 0].clone()
                part[:, 0].mul_(c).add_(part[:, 1], alpha=s)
                part[:, 1].mul_(c).sub_(first, alpha=s)

    kicks = 0.5 - _LAMBDA, _LAMBDA, _LAMBDA, 0.5 - _LAMBDA
    drift(_XI)
    for i in range(n):
        for kick, share in zip(kicks, (_CHI, 1 - 2 * (_CHI + _XI), _CHI, _XI if i == n - 1 else 2 * _XI), strict=True):
            v.add_(field.acceleration(x), alpha=kick * dt)
            drift(share)
    return torch.cat([x, v], dim=1)
