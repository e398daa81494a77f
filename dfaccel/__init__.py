"""Gravity from the motions of stars: distribution functions, normalizing flows, and the accelerations they imply."""

from . import components as components
from . import snapshot, variance
from .boltzmann import Accelerations, accelerations
from .calibration import calibrate
from .config import TrainConfig
from .divergence import kl_divergence, knn_divergence
from .ensemble import FlowEnsemble
from .flows import FlowSpec
from .mcmc import ShortChainError, sample_mcmc
from .mocks import add_noise, denoise
from .poisson import enclosed_mass, mass_density
from .published import load_hernquistflows
from .records import record
from .scorecard import ScoreCard, score_card
from .store import load, save
from .streams import Stream, mix
from .systems import Disc, Hernquist, MiyamotoNagai, Plummer
from .training import fit
from .units import Units

__version__ = "0.1.0"
__all__ = [
    "Accelerations",
    "Disc",
    "FlowEnsemble",
    "FlowSpec",
    "Hernquist",
    "MiyamotoNagai",
    "Plummer",
    "ScoreCard",
    "ShortChainError",
    "Stream",
    "TrainConfig",
    "Units",
    "accelerations",
    "add_noise",
    "calibrate",
    "denoise",
    "enclosed_mass",
    "fit",
    "kl_divergence",
    "knn_divergence",
    "load",
    "load_hernquistflows",
    "mass_density",
    "mix",
    "record",
    "sample_mcmc",
    "save",
    "score_card",
    "snapshot",
    "variance",
]
