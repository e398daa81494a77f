"""Gravity from the motions of stars: distribution functions, normalizing flows, and the accelerations they imply."""

from .coordinates import coordinate_map
from .flows import FlowEnsemble, FlowSpec
from .store import load, save
from .systems import Hernquist, Plummer
from .training import TrainConfig, fit
