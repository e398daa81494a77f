"""Your own stars: read them, check them, and write down what follows.

>>> from dfaccel.systems.from_galpy import Unseen
>>> inspect(take(Unseen("king").table(20_000, rng=0)), "spherical").verdict
'ok'
"""

from dfaccel.snapshot.checks import inspect, inspect_fit, require_counts
from dfaccel.snapshot.columns import SnapshotError
from dfaccel.snapshot.profile import potential_tables
from dfaccel.snapshot.read import Snapshot, read, read_table, take
from dfaccel.snapshot.results import accelerations_table, claim, deliver, disagreement, short_errors, versions

__all__ = ["Snapshot", "SnapshotError", "accelerations_table", "claim", "deliver", "disagreement", "inspect",
           "inspect_fit", "potential_tables", "read", "read_table", "require_counts", "short_errors",
           "take", "versions"]
