"""What a study of data against initialization varies, and what it holds fixed."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
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
    """What a study varies, and what it holds fixed.

    A cell is one of the ``fractions`` of stars that belong to the ``stream`` and one of the numbers ``n_stars`` of
    training stars. In each cell we learn every one of ``n_data`` draws of the stars from every one of
    ``n_initializations``, ``n_batches`` times with other orders of the batches; or only the ``pairs`` (data,
    initialization), such as those of `cyclic`. The flows of a cell share the stars that are held out, the coordinates
    and the standardization (those of the held-out stars).

    ``system`` is a system, or an object of your own that is hashable and has a ``repr`` that says all about it;
    ``spec`` is the architecture; ``config`` the schedule, of which ``held_out`` is not used; ``coordinates`` the name
    of those to learn in. The ``n_held_out`` stars decide when a flow is at its best, and ``n_test`` others judge it
    then. The radial acceleration is recorded at the distances ``radii`` from the centre, along a fixed direction in
    the plane. All randomness comes from ``seed``.
    """

    system: Any
    stream: Stream = field(default_factory=Stream)
    fractions: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
    n_stars: tuple[int, ...] = (10_000, 20_000)
    n_data: int = 8
    n_initializations: int = 8
    n_batches: int = 1
    pairs: tuple[tuple[int, int], ...] | None = None
    spec: FlowSpec = field(default_factory=lambda: FlowSpec(6, 32, permutation="rotate"))
    config: TrainConfig = field(default_factory=lambda: TrainConfig(
        n_epochs=200, batch_size=1024, learning_rate=1e-3, matrix_rate=0.0, warmup=0.0, decay=False, patience=10))
    coordinates: str = "linear"
    n_held_out: int = 8192
    n_test: int = 50_000
    radii: tuple[float, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values, and that every cell can be drawn."""
        for name in ("fractions", "n_stars", "radii"):
            if np.ndim(getattr(self, name)) != 1:
                raise TypeError(f"{name} must be a tuple of numbers; got {getattr(self, name)!r}")
        try:
            told = hash(self.system) is not None and " object at 0x" not in repr(self.system)
        except TypeError:
            told = False
        if not told:
            raise TypeError("system must be hashable and have a repr that says all about it, as a frozen dataclass of "
                            f"numbers does; got a {type(self.system).__name__}")
        values = {name: check.count(getattr(self, name), name)
                  for name in ("n_data", "n_initializations", "n_batches", "n_held_out", "n_test")}
        values["fractions"] = tuple(self.population(fraction).fraction for fraction in self.fractions)
        values["n_stars"] = tuple(check.count(n, "n_stars") for n in self.n_stars)
        values["radii"] = tuple(check.positive(radius, "radii") for radius in self.radii)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer) or self.seed < 0:
            raise ValueError(f"seed must be an integer, zero or positive; got {self.seed!r}")
        for name, value in (values | {"seed": int(self.seed)}).items():  # plain numbers: equal designs, equal tables
            object.__setattr__(self, name, value)
            if isinstance(value, tuple) and len(set(value)) < len(value):
                raise ValueError(f"{name} must differ from one another; got {value}")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"radii must differ in their first six digits; got {self.radii}")
        if self.pairs is not None:
            object.__setattr__(self, "pairs", _connected(self.pairs, self.n_data, self.n_initializations))
        if not self.fractions or not self.n_stars:
            raise ValueError("fractions and n_stars must name at least one cell")
        if self.coordinates not in COORDINATES:
            raise ValueError(f"coordinates must be one of {', '.join(COORDINATES)}; got {self.coordinates!r}")
        fewest = {"n_stars": min(self.n_stars), "n_held_out + n_test": self.n_held_out + self.n_test}
        if fewest["n_stars"] < self.config.batch_size:
            raise ValueError(f"n_stars must be at least one batch of {self.config.batch_size}; got {min(self.n_stars)}")
        for (name, n), fraction in product(fewest.items(), self.fractions):
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
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {name: repr(values[name]) for name in ("system", "stream")}
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
    found = tuple(sorted(map(tuple, array.tolist())))
    if len(set(found)) < len(found):
        raise ValueError(f"pairs must differ from one another; {len(found) - len(set(found))} are repeated")
    there = np.zeros((n_data, n_initializations), bool)
    there[tuple(array.T)] = True
    check_pairs(there, "pairs")
    return found
