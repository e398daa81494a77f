"""Gravity from the motions of stars: distribution functions, normalizing flows, and the accelerations they imply."""

from .boltzmann import Accelerations, accelerations
from .divergence import kl_divergence
from .flows import FlowEnsemble, FlowSpec
from .records import record
from .scorecard import ScoreCard, score_card
from .store import load, save
from .systems import Hernquist, Plummer
from .training import TrainConfig, fit

__version__ = "0.1.0"
__all__ = [
    "Accelerations",
    "FlowEnsemble",
    "FlowSpec",
    "Hernquist",
    "Plummer",
    "ScoreCard",
    "TrainConfig",
    "accelerations",
    "fit",
    "kl_divergence",
    "load",
    "record",
    "save",
    "score_card",
]
