"""Training of K flows at once: the schedule, and the state that a step changes and a checkpoint holds."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dfaccel import _check as check
from dfaccel.flows.equilibrium import Equilibrium
from dfaccel.flows.maf import Layout
from dfaccel.flows.muon import Optimizer

_CHUNK = 1024  # held-out stars evaluated at a time: what fits the cache
GROUP = 4  # possible truths of a star among which one is chosen at a time


@dataclass(frozen=True)
class TrainConfig:
    """How flows are trained: Muon and Adam, warm-up and cosine decay, gradients clipped member by member.

    Parameters
    ----------
    n_epochs, batch_size : int
        Passes over the stars, and stars per step and member.
    learning_rate, matrix_rate : float
        Peak rates of Adam and of Muon. Muon trains the matrices between hidden layers; if its rate is 0, Adam does.
    warmup, decay : float, bool
        Share of the steps in which the rates rise to their peaks, and whether they then fall along a cosine to zero.
    clip, checkpoint_seconds : float
        Largest norm of a member's gradient, and time between checkpoints.
    held_out, bootstrap : float, bool
        Share of stars held out to choose each member's best state; whether each draws the others with replacement.
    patience : int, optional
        Epochs without improvement after which a member stops. Training ends when all have stopped.

    Raises
    ------
    TypeError, ValueError
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
        for name in ("n_epochs", "batch_size") if self.patience is None else ("n_epochs", "batch_size", "patience"):
            check.count(getattr(self, name), name)
        check.settle(self, "learning_rate", "clip", "checkpoint_seconds")
        if not 0 <= self.matrix_rate < math.inf:
            raise ValueError(f"matrix_rate must be zero or positive, and finite; got {self.matrix_rate!r}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must lie in [0, 1); got {self.warmup!r}")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must lie in (0, 1); got {self.held_out!r}")

    def schedule(self, progress: float) -> float:
        """Return the share of the peak learning rates at ``progress`` in [0, 1] of all steps."""
        if progress < self.warmup:
            return progress / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))) if self.decay else 1.0


class Run:
    """The state of one training of k flows: all that changes is in `state` and `progress`, hence in a checkpoint."""

    def __init__(
        self, layout: Layout, config: TrainConfig, stars: Tensor, held_out: Tensor, flips: Tensor, seeds: dict,
        labels: Sequence[int], density: Callable[[list, Tensor], Tensor] | None = None,
        equilibrium: Equilibrium | None = None, weights: tuple[np.ndarray, np.ndarray] | None = None, truths: int = 1,
    ) -> None:
        # stars and held_out (n, features) are standardized; with a density of their own, flows start as the identity;
        # the labels number the members, each of which has streams of randomness of its own;
        # with an equilibrium the stars have its rates as further columns, and the flips their signs;
        # weights are those of the stars and of those held out;
        # with several possible truths a star has as many rows, one after another; the last column is ln J and weight
        self.equilibrium = equilibrium
        self.layout, self.config, self.flips, self.seeds, self.labels = layout, config, flips, seeds, tuple(labels)
        self.density, self.whole = density or layout.log_prob, density is not None
        self.held, self.y = held_out.T.contiguous(), stars.T.contiguous()
        self.weights, judges = weights or (None, np.ones(len(held_out) // truths))
        self.shares = torch.from_numpy(judges / judges.mean()).to(stars.device)
        self.truths, self.n = truths, self.y.shape[1] // truths
        self.n_steps = self.n // config.batch_size
        if not self.n_steps:
            raise ValueError(f"batch_size must be at most the {self.n} training stars; got {config.batch_size}")
        k = len(self.labels)
        self.stars = self._draws("data", "bootstrap", range(k), 0) if config.bootstrap else None
        states = np.random.SeedSequence(seeds["initialization"]).generate_state(max(self.labels) + 1, np.uint64) >> 1
        initial = [int(states[label]) for label in self.labels]
        theta = layout.initial(initial) if density is None else layout.identity(layout.initial(initial))
        self.theta = theta.to(stars.device).requires_grad_()
        self.chosen = torch.zeros(k, self.n if truths > 1 else 0, dtype=torch.int32)  # of its truths, for each star
        self.best = self.theta.detach().clone()
        self.optimizer = Optimizer(layout, self.theta, config.learning_rate, config.matrix_rate)
        j = 0 if equilibrium is None else equilibrium.n_unknowns
        self.normal = torch.zeros(k, j, j + 1, device=stars.device)
        self.progress = {"epoch": 0, "step": 0, "seconds": 0.0, "running": [0.0] * k, "best": [math.inf] * k,
                         "since": [0] * k, "history": []}

    def _draws(self, stream: str, kind: str, members: Sequence[int], *key: int) -> np.ndarray:
        """Return integers (members, n), each row from a generator of its own: bootstrap draws, batch order or flips."""
        rngs = [np.random.default_rng([self.seeds[stream], self.labels[member], *key]) for member in members]
        if kind == "order":
            stars = map(self._in_proportion, members, rngs)
            rows = [rng.permutation(each) for rng, each in zip(rngs, stars, strict=True)]
        else:
            rows = [rng.integers(self.n if kind == "bootstrap" else len(self.flips), size=self.n) for rng in rngs]
        return np.stack(rows).astype(np.int32)

    def _in_proportion(self, member: int, rng: np.random.Generator) -> np.ndarray | int:
        """Return the stars of a pass, each as often as its weight asks, up or down by chance; or n if all are alike."""
        if self.weights is None:
            return self.n
        total = np.cumsum(self.weights if self.stars is None else self.weights[self.stars[member]])
        return np.searchsorted(total, (np.arange(self.n) + rng.random()) / self.n * total[-1], side="right")

    def batches(self, epoch: int, start: int) -> Iterator[Tensor]:
        """Yield the batches (members, features, batch_size) of an epoch from step ``start`` on."""
        members, size = self.members, self.config.batch_size
        order = self._draws("batches", "order", members, epoch)
        if self.stars is not None:
            order = np.take_along_axis(self.stars[members], order, axis=1)
        signs = torch.from_numpy(self._draws("batches", "flips", members, epoch, 1)) if len(self.flips) > 1 else None
        for step in range(start, self.n_steps):
            part = slice(step * size, (step + 1) * size)
            stars = torch.from_numpy(order[:, part].astype(np.int64))
            sign = None if signs is None else self.flips[signs[:, part].long()].mT
            if self.truths > 1:
                yield self._choose(stars, 1.0 if sign is None else sign[..., None], (epoch, step))
                continue
            batch = self.y[:, stars].transpose(0, 1)
            yield batch if sign is None else batch * sign

    def _choose(self, stars: Tensor, sign: Tensor | float, key: tuple[int, int]) -> Tensor:
        """Return a batch of truths, drawn anew from the posterior: among a few of each of ``stars`` (members, size)."""
        # the truths are parted into groups at random, without regard to the present one, which leaves the posterior
        members, rows = self.members, torch.tensor(self.members)[:, None].expand_as(stars)
        rngs = [np.random.default_rng([self.seeds["batches"], self.labels[member], *key, 2]) for member in members]
        groups = torch.from_numpy(np.stack([rng.permutation(self.truths) for rng in rngs]))
        uniform = torch.from_numpy(np.stack([rng.random((stars.shape[1], GROUP), np.float32) for rng in rngs]))
        group_of = groups.argsort(1).gather(1, self.chosen[rows, stars].long()) // GROUP
        group = groups.unflatten(1, (-1, GROUP)).gather(1, group_of[..., None].expand(-1, -1, GROUP))
        some = self.y[:, stars[..., None] * self.truths + group].transpose(0, 1) * sign
        with torch.no_grad():
            log_f = self._log_f(self._networks(), some.flatten(2)).unflatten(1, (-1, GROUP))
        picked = (log_f - torch.log(-torch.log(uniform)).to(log_f)).argmax(2, keepdim=True)  # Gumbel (1954)
        self.chosen[rows, stars] = group.gather(2, picked.cpu())[..., 0].int()
        return some.take_along_dim(picked[:, None], 3)[:, :-1, :, 0]

    def _log_f(self, networks: list, table: Tensor) -> Tensor:
        """Return ln f (members, n), up to a constant, of rows of possible truths (members, columns, n)."""
        return self.density(networks, table[:, : self.layout.features]) + table[:, -1]

    def step(self, batch: Tensor) -> Tensor:
        """Take one step and return the loss (members,) before it."""
        total = self.n_steps * self.config.n_epochs
        done = self.progress["epoch"] * self.n_steps + self.progress["step"]
        self.theta.grad = None
        y = batch[:, : self.layout.features].requires_grad_(self.equilibrium is not None)
        log_p = self.density(self._networks(), y)
        loss = objective = -log_p.mean(1)
        if self.equilibrium is not None:
            (score,) = torch.autograd.grad(log_p.sum(), y, create_graph=True)
            members, rates = self.members, batch[:, self.layout.features :]
            misfit, self.normal[members] = self.equilibrium.misfit(score, y, rates, self.normal[members])
            objective = loss + self.equilibrium.weight * misfit
        objective.sum().backward()
        norm = self.theta.grad.norm(dim=1, keepdim=True)
        if not torch.isfinite(norm).all():
            raise FloatingPointError
        self.theta.grad *= (self.config.clip / norm).clamp_max(1.0)
        self.optimizer.step(self.config.schedule((done + 1) / (total + 1)))
        return loss.detach()

    def validate(self) -> None:
        """Add the losses of an epoch to the history, and keep the states that held-out stars find the most likely."""
        members, progress = self.members, self.progress
        with torch.no_grad():
            networks = self._networks()
            log_f = self.density if self.truths == 1 else self._log_f
            chunks = self.held.split(max(1, _CHUNK // self.truths) * self.truths, dim=1)
            log_f = torch.cat([log_f(networks, chunk.expand(len(members), -1, -1)) for chunk in chunks], dim=1).double()
        log_f = log_f.unflatten(1, (-1, self.truths)).logsumexp(2) - math.log(self.truths)  # of what was measured
        values = (-(log_f * self.shares).mean(1)).tolist()
        last = (progress["history"] or [dict.fromkeys(("train", "held_out"), [math.nan] * len(self.theta))])[-1]
        losses = {name: list(loss) for name, loss in last.items()}  # of a member that has stopped they stay
        for member, value in zip(members, values, strict=True):
            losses["train"][member] = progress["running"][member] / self.n_steps
            losses["held_out"][member] = value
            if not self.finished(member):
                progress["since"][member] += 1
                if value < progress["best"][member] or self.equilibrium is not None:
                    progress["best"][member], progress["since"][member] = value, 0
                    self.best[member] = self.theta.detach()[member]
        progress["history"].append(losses)

    def finished(self, member: int) -> bool:
        """Tell whether a member has run out of patience."""
        return self.progress["since"][member] >= (self.config.patience or math.inf)

    @property
    def members(self) -> list[int]:
        """Members that still learn. Those that start from a prior, which is one model of all, stop together."""
        return [member for member in range(len(self.theta)) if self.whole or not self.finished(member)]

    def _networks(self) -> list:
        members = self.members
        return self.layout.networks(self.theta if len(members) == len(self.theta) else self.theta[members])

    def state(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint."""
        more = {} if self.equilibrium is None else {"normal": self.normal}
        more |= {"chosen": self.chosen} if self.truths > 1 else {}
        return {"theta": self.theta, "best": self.best, **more, **self.optimizer.state()}

    def restore(self, tensors: dict[str, Tensor], progress: dict) -> None:
        """Continue from a checkpoint."""
        with torch.no_grad():
            self.theta.copy_(tensors["theta"])
            self.best.copy_(tensors["best"])
            self.normal.copy_(tensors.get("normal", self.normal))
            self.chosen.copy_(tensors.get("chosen", self.chosen))
        self.optimizer.restore(tensors)
        self.progress = progress
