"""Gravity from the motions of stars: distribution functions, normalizing flows, and the accelerations they imply."""

from .boltzmann import Accelerations, accelerations
from .calibration import calibrate
from .divergence import kl_divergence
from .ensemble import FlowEnsemble
from .flows import FlowSpec
from .mcmc import ShortChainError, sample_mcmc
from .mocks import add_noise, denoise
from .poisson import enclosed_mass, mass_density
from .published import load_hernquistflows
from .records import record
from .scorecard import ScoreCard, score_card
from .store import load, save
from .systems import Hernquist, Plummer
from .training import TrainConfig, fit
from .units import Units

__version__ = "0.1.0"
__all__ = [
    "Accelerations",
    "FlowEnsemble",
    "FlowSpec",
    "Hernquist",
    "Plummer",
    "ScoreCard",
    "ShortChainError",
    "TrainConfig",
    "Units",
    "accelerations",
    "add_noise",
    "calibrate",
    "denoise",
    "enclosed_mass",
    "fit",
    "kl_divergence",
    "load",
    "load_hernquistflows",
    "mass_density",
    "record",
    "sample_mcmc",
    "save",
    "score_card",
]
