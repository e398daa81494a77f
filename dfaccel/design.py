"""What a study of data against initialization varies, and what it holds fixed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np

from . import checks
from .config import TrainConfig
from .coordinates import SYMMETRIES
from .flows import FlowSpec
from .streams import Host, Stream, mix

KEYS = ("fraction", "n_stars", "data", "batch", "initialization")
DATA, INITIALIZATION, BATCHES, HELD_OUT, VELOCITIES = range(5)  # the streams of randomness


@dataclass(frozen=True)
class Design:
    """What a study varies, and what it holds fixed.

    A cell is a fraction of stream stars and a number of stars. In each, every draw of the stars is learned from every
    initialization, ``n_batches`` times with other orders of the batches. The cell has one set of stars held out, one
    coordinate map and one standardization (those of the held-out stars).

    Parameters
    ----------
    system : system
        Where stars come from: `Plummer`, `Disc`, or an object of your own whose ``repr`` says all about it.
    stream : Stream
        Stream mixed into it.
    fractions : tuple of float
        Shares of the stream's stars.
    n_stars : tuple of int
        Numbers of training stars.
    n_data, n_initializations, n_batches : int
        Levels of the crossed factors, and repetitions.
    spec : FlowSpec
        Architecture of every flow.
    config : TrainConfig
        Schedule; ``held_out`` is not used.
    symmetry : {"none", "axisymmetric", "spherical"}
        Symmetry assumed.
    n_held_out, n_test : int
        Stars that decide when a flow is at its best, and others on which it is then judged.
    radii : tuple of float
        Distances from the centre, along a fixed direction in the plane, at which the radial acceleration is recorded.
    seed : int
        Seed of all of it.

    Raises
    ------
    TypeError, ValueError
        If a value is out of range, the stream is not bound, or the stars are too few for one star of the stream.

    Examples
    --------
    >>> import dfaccel as da
    >>> design = Design(da.Plummer(), da.Stream(), n_stars=(10_000,), n_data=2, n_initializations=3)
    >>> design.n_flows
    30
    """

    system: Host
    stream: Stream = field(default_factory=Stream)
    fractions: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
    n_stars: tuple[int, ...] = (10_000, 20_000)
    n_data: int = 8
    n_initializations: int = 8
    n_batches: int = 1
    spec: FlowSpec = field(default_factory=lambda: FlowSpec(6, 32, position_map="linear", permutation="rotate"))
    config: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            n_epochs=200, batch_size=1024, learning_rate=1e-3, matrix_rate=0.0, warmup=0.0, decay=False, patience=10
        )
    )
    symmetry: str = "none"
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
            hash(self.system)
            told = " object at 0x" not in repr(self.system)
        except TypeError:
            told = False
        if not told:
            raise TypeError("system must be hashable and have a repr that says all about it, as a frozen dataclass of "
                            f"numbers does; got a {type(self.system).__name__}")
        values = {name: checks.count(getattr(self, name), name)
                  for name in ("n_data", "n_initializations", "n_batches", "n_held_out", "n_test")}
        values["fractions"] = tuple(self.population(fraction).fraction for fraction in self.fractions)
        values["n_stars"] = tuple(checks.count(n, "n_stars") for n in self.n_stars)
        values["radii"] = tuple(checks.positive(radius, "radii") for radius in self.radii)
        for name, value in values.items():  # plain numbers, so that equal designs make equal tables
            object.__setattr__(self, name, value)
        for name in ("fractions", "n_stars", "radii"):
            if len(set(values[name])) < len(values[name]):
                raise ValueError(f"{name} must differ from one another; got {values[name]}")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"radii must differ in their first six digits; got {values['radii']}")
        if not self.fractions or not self.n_stars:
            raise ValueError("fractions and n_stars must name at least one cell")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer) or self.seed < 0:
            raise ValueError(f"seed must be an integer, zero or positive; got {self.seed!r}")
        object.__setattr__(self, "seed", int(self.seed))
        if self.symmetry not in SYMMETRIES:
            raise ValueError(f"symmetry must be one of {', '.join(SYMMETRIES)}; got {self.symmetry!r}")
        for n in self.n_stars:
            if n < self.config.batch_size:
                raise ValueError(f"n_stars must be at least one batch of {self.config.batch_size}; got {n}")
        samples = {"n_stars": min(self.n_stars), "n_held_out + n_test": self.n_held_out + self.n_test}
        for name, n in samples.items():
            for fraction in self.fractions:
                try:
                    self.population(fraction).n_stream(n)
                except ValueError as error:
                    raise ValueError(f"{name} is too small: {error}") from None

    @property
    def n_flows(self) -> int:
        """Number of flows of the study."""
        cells = len(self.fractions) * len(self.n_stars)
        return cells * self.n_data * self.n_initializations * self.n_batches

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the table."""
        return (*KEYS, "epochs", "held_out", "cross_entropy", "kl", *(f"a_{radius:g}" for radius in self.radii))

    def population(self, fraction: float) -> Host:
        """Return the system with its stream."""
        return mix(self.system, self.stream, fraction)

    def to_dict(self) -> dict:
        """Return the design as plain values, for the store."""
        values = {"system": repr(self.system), "stream": repr(self.stream)}
        for name in ("spec", "config"):
            values[name] = asdict(getattr(self, name))
        del values["config"]["checkpoint_seconds"], values["config"]["held_out"]
        names = ("fractions", "n_stars", "n_data", "n_initializations", "n_batches", "symmetry", "n_held_out", "n_test",
                 "radii", "seed")
        return json.loads(json.dumps(values | {name: getattr(self, name) for name in names}))

    def groups(self) -> Iterator[tuple[float, int, int, int]]:
        """Yield what is trained together, all initializations on the same stars: fraction, n_stars, data, batch."""
        for n in self.n_stars:
            for fraction in self.fractions:
                for data in range(self.n_data):
                    for batch in range(self.n_batches):
                        yield fraction, n, data, batch

    def rng(self, stream: int, *key: int) -> np.random.Generator:
        """Return the generator of one stream of randomness, independent of all others."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(stream, *key)))
