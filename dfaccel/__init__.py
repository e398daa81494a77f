"""Gravity from the motions of stars: distribution functions, normalizing flows, and the accelerations they imply."""

from dfaccel.axes import cylindrical, directions, spherical
from dfaccel.chapter import record
from dfaccel.flows.divergence import kl_divergence, knn_divergence
from dfaccel.flows.ensemble import FlowEnsemble
from dfaccel.flows.fit import fit
from dfaccel.flows.maf import FlowSpec
from dfaccel.flows.recipe import recipe
from dfaccel.flows.store import load, save
from dfaccel.flows.training import TrainConfig
from dfaccel.gravity import unknowns
from dfaccel.gravity.accelerations import Accelerations, accelerations
from dfaccel.gravity.calibration import calibrate
from dfaccel.gravity.jeans import jeans
from dfaccel.gravity.potential import Potential, potential
from dfaccel.gravity.scorecard import ScoreCard, score_card
from dfaccel.gravity.solve import Solution, solve
from dfaccel.stars.mcmc import ShortChainError, sample_mcmc
from dfaccel.stars.noise import add_noise, denoise, possible_truths
from dfaccel.systems.bar import BarredDisc
from dfaccel.systems.base import DistributionFunction
from dfaccel.systems.disc import Disc, MiyamotoNagai
from dfaccel.systems.hernquist import Hernquist
from dfaccel.systems.plummer import Plummer
from dfaccel.systems.stream import Stream, mix

__version__ = "0.1.0"
__all__ = [
    "Accelerations", "BarredDisc", "Disc", "DistributionFunction", "FlowEnsemble", "FlowSpec", "Hernquist",
    "MiyamotoNagai", "Plummer", "Potential", "ScoreCard", "ShortChainError", "Solution", "Stream", "TrainConfig",
    "accelerations", "add_noise", "calibrate", "cylindrical", "denoise", "directions", "fit", "jeans", "kl_divergence",
    "knn_divergence", "load", "mix", "possible_truths", "potential", "recipe", "record", "sample_mcmc", "save",
    "score_card", "snapshot", "solve", "spherical", "unknowns",
]


def __getattr__(name: str) -> object:
    """Return `dfaccel.snapshot`, imported when it is first asked for: astropy takes long."""
    if name != "snapshot":
        raise AttributeError(f"module 'dfaccel' has no attribute {name!r}")
    import dfaccel.snapshot

    return dfaccel.snapshot


def __dir__() -> list[str]:
    """Return all names, for completion."""
    return [*globals(), "snapshot"]
