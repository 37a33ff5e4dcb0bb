"""Diffusion priors for 3D human pose over SMPL-X."""

from dposer.body import BodyModel
from dposer.prior import PosePrior

__version__ = "0.1.0"

__all__ = ["BodyModel", "PosePrior", "__version__"]
