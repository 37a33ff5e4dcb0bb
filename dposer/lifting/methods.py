"""The lifting methods by their names."""

from dposer.lifting.config import LiftingConfig, Method
from dposer.lifting.d3dp import D3DP
from dposer.lifting.diffhpe import DiffHPE
from dposer.lifting.diffpose import DiffPose
from dposer.lifting.model import LiftingModel
from dposer.lifting.refiners import GraFormerLifter, Refiner
from dposer.lifting.regressor import Regressor

METHODS: dict[Method, type[LiftingModel]] = {
    "mixste": Regressor,
    "d3dp": D3DP,
    "ddhpose": D3DP,
    "diffhpe-2d": DiffHPE,
    "diffhpe": DiffHPE,
    "graformer": GraFormerLifter,
    "cross-channel": Refiner,
    "single-graph": Refiner,
    "diffpose": DiffPose,
}


def build_model(config: LiftingConfig) -> LiftingModel:
    """The method that ``config`` names, with random weights from torch's generator."""
    return METHODS[config.method](config)
