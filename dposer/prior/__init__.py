"""The DPoser pose prior: diffusion over normalised body poses."""

from dposer.prior.config import PriorConfig
from dposer.prior.normalizer import Normalizer
from dposer.prior.plausibility import Plausibility
from dposer.prior.pose_prior import PosePrior
from dposer.prior.timesteps import TimeStrategy, preset

__all__ = ["Normalizer", "Plausibility", "PosePrior", "PriorConfig", "TimeStrategy", "preset"]
