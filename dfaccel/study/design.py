"""What a study of data against initialization varies, and what it holds fixed."""

import json
from collections.abc import Hashable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

import numpy as np

from dfaccel import _check as check
from dfaccel.coordinates import COORDINATES
from dfaccel.flows.maf import FlowSpec
from dfaccel.flows.training import TrainConfig
from dfaccel.study.components import check_pairs
from dfaccel.systems.stream import Mixture, Stream, mix

KEYS = ("fraction", "n_stars", "data", "batch", "initialization")
DATA, INITIALIZATION, BATCHES, HELD_OUT, VELOCITIES = range(5)  # the streams of randomness


@dataclass(frozen=True)
class Design:
    """What a study varies, and what it holds fixed: a cell is a fraction of stars in the stream and a number of stars.

    The flows of a cell share the stars that are held out, the coordinates and the standardization (those of the
    held-out stars).
    """

    system: Any  # one of ours, or an object of your own that is hashable and whose ``repr`` says all about it
    stream: Stream = field(default_factory=Stream)
    fractions: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)  # of the stars that belong to the stream
    n_stars: tuple[int, ...] = (10_000, 20_000)  # to train on
    n_data: int = 8  # draws of the stars in a cell, each of which is learned ...
    n_initializations: int = 8  # from every initialization ...
    n_batches: int = 1  # with so many orders of the batches ...
    pairs: tuple[tuple[int, int], ...] | None = None  # or only from these (data, initialization), as of `cyclic`
    spec: FlowSpec = field(default_factory=lambda: FlowSpec(6, 32, permutation="rotate"))
    config: TrainConfig = field(default_factory=lambda: TrainConfig(  # its held_out is not used
        n_epochs=200, batch_size=1024, learning_rate=1e-3, matrix_rate=0.0, warmup=0.0, decay=False, patience=10))
    coordinates: str = "linear"
    n_held_out: int = 8192  # stars that decide when a flow is at its best
    n_test: int = 50_000  # others that judge it then
    radii: tuple[float, ...] = ()  # where the radial acceleration is recorded, along a fixed direction in the plane
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values, and that every cell can be drawn."""
        for name in ("fractions", "n_stars", "radii"):
            if np.ndim(getattr(self, name)) != 1:
                raise TypeError(f"{name} must be a tuple of numbers; got {getattr(self, name)!r}")
        if not isinstance(self.system, Hashable) or " object at 0x" in repr(self.system):
            raise TypeError("system must be hashable and have a repr that says all about it, as a frozen dataclass of "
                            f"numbers does; got a {type(self.system).__name__}")
        values = {name: check.count(getattr(self, name), name)
                  for name in ("n_data", "n_initializations", "n_batches", "n_held_out", "n_test")}
        values["fractions"] = tuple(self.population(fraction).fraction for fraction in self.fractions)
        values["n_stars"] = tuple(check.count(n, "n_stars") for n in self.n_stars)
        values["radii"] = tuple(check.positive(radius, "radii") for radius in self.radii)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer) or self.seed < 0:
            raise ValueError(f"seed must be an integer, zero or positive; got {self.seed!r}")
        if self.pairs is not None:
            values["pairs"] = _connected(self.pairs, values["n_data"], values["n_initializations"])
        for name, value in (values | {"seed": int(self.seed)}).items():  # plain numbers: equal designs, equal tables
            object.__setattr__(self, name, value)
            if isinstance(value, tuple) and len(set(value)) < len(value):
                raise ValueError(f"{name} must differ from one another; got {value}")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"radii must differ in their first six digits; got {self.radii}")
        if not self.fractions or not self.n_stars:
            raise ValueError("fractions and n_stars must name at least one cell")
        if self.coordinates not in COORDINATES:
            raise ValueError(f"coordinates must be one of {', '.join(COORDINATES)}; got {self.coordinates!r}")
        least, judges = min(self.n_stars), self.n_held_out + self.n_test
        if least < self.config.batch_size:
            raise ValueError(f"n_stars must be at least one batch of {self.config.batch_size}; got {least}")
        for (name, n), fraction in product({"n_stars": least, "n_held_out + n_test": judges}.items(), self.fractions):
            try:
                self.population(fraction).n_stream(n)
            except ValueError as error:
                raise ValueError(f"{name} is too small: {error}") from None

    @property
    def n_flows(self) -> int:
        """Number of flows of the study."""
        return sum(len(self.partners(group[2])) for group in self.groups())

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the table."""
        return (*KEYS, "epochs", "held_out", "cross_entropy", "kl", *(f"a_{radius:g}" for radius in self.radii))

    def population(self, fraction: float) -> Mixture:
        """Return the system with its stream."""
        return mix(self.system, self.stream, fraction)

    def to_dict(self) -> dict:
        """Return the design as plain values, without what does not change the result."""
        values = vars(self) | {name: repr(getattr(self, name)) for name in ("system", "stream")}
        values |= {name: asdict(values[name]) for name in ("spec", "config")}
        if self.pairs is not None:  # the initializations of each draw, a line a draw
            values["pairs"] = [self.partners(d) for d in range(self.n_data)]
        del values["config"]["checkpoint_seconds"], values["config"]["held_out"]
        return json.loads(json.dumps(values))

    def partners(self, data: int) -> tuple[int, ...]:
        """Return the initializations from which a draw of the stars is learned."""
        everyone = range(self.n_initializations)
        return tuple(everyone if self.pairs is None else (i for d, i in self.pairs if d == data))

    def groups(self) -> Iterator[tuple[float, int, int, int]]:
        """Yield what is trained together, its initializations on the same stars: fraction, n_stars, data, batch."""
        for n, fraction, *rest in product(self.n_stars, self.fractions, range(self.n_data), range(self.n_batches)):
            yield fraction, n, *rest

    def rng(self, stream: int, *key: int) -> np.random.Generator:
        """Return the generator of one stream of randomness, independent of all others."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(stream, *key)))


def cyclic(n_levels: int, n_partners: int) -> tuple[tuple[int, int], ...]:
    """Return pairs of ``n_levels`` draws with as many initializations: draw d with d, d + 1, ..., around the circle."""
    n_levels, n_partners = check.count(n_levels, "n_levels"), check.count(n_partners, "n_partners")
    if n_partners > n_levels:
        raise ValueError(f"n_partners must be at most n_levels, {n_levels}; got {n_partners}")
    return tuple((d, (d + step) % n_levels) for d in range(n_levels) for step in range(n_partners))


def _connected(pairs: Any, n_data: int, n_initializations: int) -> tuple[tuple[int, int], ...]:
    """Return pairs, sorted, or raise ValueError if they do not tie all draws and initializations together."""
    array = np.asarray(pairs)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise ValueError(f"pairs must be pairs of integers, (data, initialization); got {pairs!r:.60}")
    outside = (array < 0) | (array >= (n_data, n_initializations))
    if outside.any():
        raise ValueError(f"pairs must lie below ({n_data}, {n_initializations}); got "
                         f"{tuple(array[outside.any(1)][0].tolist())}")
    there = np.zeros((n_data, n_initializations), bool)
    there[tuple(array.T)] = True
    if repeated := len(array) - there.sum():
        raise ValueError(f"pairs must differ from one another; {repeated} are repeated")
    check_pairs(there, "pairs")
    return tuple(map(tuple, np.argwhere(there).tolist()))
