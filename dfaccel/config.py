"""How flows are trained: the settings of one training, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from . import checks


@dataclass(frozen=True)
class TrainConfig:
    """How flows are trained: Muon and Adam, warm-up then cosine to zero, gradients clipped member by member.

    Parameters
    ----------
    n_epochs : int
        Passes over the stars.
    batch_size : int
        Stars a step and member.
    learning_rate : float
        Peak learning rate of Adam.
    matrix_rate : float
        Peak learning rate of Muon, which trains the matrices between hidden layers; 0 leaves them to Adam.
    warmup : float
        Share of the steps over which the learning rates rise to their peaks.
    decay : bool
        Whether the rates fall along a cosine to zero after the warm-up; if not they stay at their peaks.
    clip : float
        Largest norm of a member's gradient.
    held_out : float
        Share of the stars set aside, the same for all members; the best state of each member is the one that gives
        them the highest likelihood.
    bootstrap : bool
        Whether each member trains on its own draw, with replacement, of the stars.
    patience : int or None
        A member that has not improved for this many epochs is finished, and training stops when all are; None trains
        to the end.
    checkpoint_seconds : float
        Time between checkpoints.

    Raises
    ------
    ValueError
        If a value is out of range.

    Examples
    --------
    >>> TrainConfig(n_epochs=2).batch_size
    1000
    """

    n_epochs: int = 10
    batch_size: int = 1000
    learning_rate: float = 2e-3
    matrix_rate: float = 0.02
    warmup: float = 0.05
    decay: bool = True
    clip: float = 5.0
    held_out: float = 0.05
    bootstrap: bool = False
    patience: int | None = None
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("n_epochs", "batch_size"):
            checks.count(getattr(self, name), name)
        for name in ("learning_rate", "clip", "checkpoint_seconds"):
            checks.positive(getattr(self, name), name)
        if not 0 <= self.matrix_rate < math.inf:
            raise ValueError(f"matrix_rate must be zero or positive, and finite; got {self.matrix_rate!r}")
        if self.patience is not None:
            checks.count(self.patience, "patience")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must lie in [0, 1); got {self.warmup!r}")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must lie in (0, 1); got {self.held_out!r}")

    def schedule(self, progress: float) -> float:
        """Return the share of the peak learning rates at ``progress`` in [0, 1] of all steps."""
        if progress < self.warmup:
            return progress / self.warmup
        if not self.decay:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup)))
