"""One training of K flows at once: its state, a step, a validation; everything that a checkpoint must hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .config import TrainConfig
from .flows import Layout
from .optimizer import Optimizer

_CHUNK = 8192


class Run:
    """The state of one training: everything that changes is in `state` and `progress`, and so in a checkpoint.

    Parameters
    ----------
    layout : Layout
        Architecture and number of features.
    config : TrainConfig
        Schedule.
    stars, held_out : Tensor, shape (n, features)
        Standardized coordinates of the training stars and of those that decide when a member is at its best.
    flips : Tensor, shape (n_elements, features)
        Signs of the discrete symmetries.
    seeds : dict
        Seeds of the streams "data" (bootstrap), "initialization" and "batches"; each member has a child of its own.
    k : int
        Number of members.
    density : callable, optional
        What returns the log density of the members from their networks and batches, the layout's by default; given
        another, the flows start as the identity.
    """

    def __init__(
        self,
        layout: Layout,
        config: TrainConfig,
        stars: Tensor,
        held_out: Tensor,
        flips: Tensor,
        seeds: dict,
        k: int,
        density: Callable[[list, Tensor], Tensor] | None = None,
    ) -> None:
        self.layout, self.config, self.flips, self.seeds = layout, config, flips, seeds
        self.density, self.whole = density or layout.log_prob, density is not None
        self.held = held_out.T.contiguous()
        self.y = stars.T.contiguous()
        self.n = self.y.shape[1]
        self.n_steps = self.n // config.batch_size
        if not self.n_steps:
            raise ValueError(f"batch_size must be at most the {self.n} training stars; got {config.batch_size}")
        self.stars = self._draws("data", "bootstrap", range(k), 0) if config.bootstrap else None
        initial = [int(s) for s in np.random.SeedSequence(seeds["initialization"]).generate_state(k, np.uint64) >> 1]
        theta = layout.initial(initial) if density is None else layout.identity(layout.initial(initial))
        self.theta = theta.to(stars.device).requires_grad_()
        layout.mask = layout.mask.to(stars.device)
        self.optimizer = Optimizer(layout, self.theta, config.learning_rate, config.matrix_rate)
        self.best = self.theta.detach().clone()
        self.progress = {
            "epoch": 0, "step": 0, "seconds": 0.0, "running": [0.0] * k, "best": [math.inf] * k,
            "since": [0] * k, "history": [],
        }

    def _draws(self, stream: str, kind: str, members: Sequence[int], *key: int) -> np.ndarray:
        """Return integers (k, n), a row of its own for each member: bootstrap draws, batch orders or flips."""
        rows = []
        for member in members:
            rng = np.random.default_rng([self.seeds[stream], member, *key])
            if kind == "order":
                rows.append(rng.permutation(self.n))
            else:
                rows.append(rng.integers(self.n if kind == "bootstrap" else len(self.flips), size=self.n))
        return np.stack(rows).astype(np.int32)

    def batches(self, epoch: int, start: int) -> Iterator[Tensor]:
        """Yield the batches (members, features, batch_size) of an epoch from step ``start`` on."""
        members, size = self.members, self.config.batch_size
        order = self._draws("batches", "order", members, epoch)
        if self.stars is not None:
            order = np.take_along_axis(self.stars[members], order, axis=1)
        signs = torch.from_numpy(self._draws("batches", "flips", members, epoch, 1)) if len(self.flips) > 1 else None
        for step in range(start, self.n_steps):
            part = slice(step * size, (step + 1) * size)
            batch = self.y[:, torch.from_numpy(order[:, part].astype(np.int64))].transpose(0, 1)
            if signs is not None:
                batch = batch * self.flips[signs[:, part].long()].mT
            yield batch

    def step(self, batch: Tensor) -> Tensor:
        """Take one step and return the loss (members,) before it."""
        total = self.n_steps * self.config.n_epochs
        done = self.progress["epoch"] * self.n_steps + self.progress["step"]
        self.theta.grad = None
        loss = -self.density(self.layout.networks(self._learning()), batch).mean(1)
        loss.sum().backward()
        norm = self.theta.grad.norm(dim=1, keepdim=True)
        if not torch.isfinite(norm).all():
            raise FloatingPointError
        self.theta.grad *= (self.config.clip / norm).clamp_max(1.0)
        self.optimizer.step(self.config.schedule((done + 1) / (total + 1)))
        return loss.detach()

    def validate(self) -> list[float]:
        """Return the held-out loss of each member, and keep the state of those that never did better.

        The loss of a member that has run out of patience stays what it was.
        """
        members = self.members
        with torch.no_grad():
            networks = self.layout.networks(self._learning())
            parts = [self.density(networks, h.expand(len(members), -1, -1)) for h in self.held.split(_CHUNK, dim=1)]
        values = (-torch.cat(parts, dim=1).double().mean(1)).tolist()
        least, since = self.progress["best"], self.progress["since"]
        history = self.progress["history"]
        loss = list(history[-1]["held_out"]) if history else [math.nan] * len(least)
        for member, value in zip(members, values, strict=True):
            loss[member] = value
            if self.finished(member):
                continue
            since[member] += 1
            if value < least[member]:
                least[member], since[member] = value, 0
                self.best[member] = self.theta.detach()[member]
        return loss

    @property
    def members(self) -> list[int]:
        """Members that still learn; those that start from a prior, which is one model of all, learn together."""
        return [member for member in range(len(self.theta)) if self.whole or not self.finished(member)]

    def _learning(self) -> Tensor:
        """Return the parameters (members, n_parameters) of the members that still learn."""
        members = self.members
        return self.theta if len(members) == len(self.theta) else self.theta[members]

    def finished(self, member: int) -> bool:
        """Tell whether a member has run out of patience."""
        return self.config.patience is not None and self.progress["since"][member] >= self.config.patience

    def state(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint."""
        return {"theta": self.theta, "best": self.best, **self.optimizer.state()}

    def restore(self, tensors: dict[str, Tensor], progress: dict) -> None:
        """Continue from a checkpoint."""
        with torch.no_grad():
            self.theta.copy_(tensors["theta"])
            self.best.copy_(tensors["best"])
        self.optimizer.restore(tensors)
        self.progress = progress


def split(y: Tensor, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split stars (n, features) at random into those to train on and the share ``held_out``."""
    order, n_held = np.random.default_rng(seed).permutation(len(y)), max(1, round(held_out * len(y)))
    return y[order[n_held:]], y[order[:n_held]]
