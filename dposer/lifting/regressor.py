"""Lifting without hypotheses: a network from keypoints to the pose."""

import torch
from torch import Tensor

from dposer.lifting.config import LiftingConfig
from dposer.lifting.mixste import MixSTE
from dposer.lifting.model import LiftingModel
from dposer.lifting.noise import NoiseStreams


class Regressor(LiftingModel):
    """MixSTE: one pose, at once. H = K = 1 whatever is asked for."""

    draws = False

    def __init__(self, config: LiftingConfig) -> None:
        super().__init__(config)
        n = config.network
        self.network = MixSTE(n.frames, len(config.skeleton.joints), config.columns, n.channels, n.depth, n.heads, n.drop_path)

    def estimate(self, observed: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.network(observed)

    def lift(self, context: Tensor, steps: int, streams: NoiseStreams) -> Tensor:
        pose = self.network(context)
        if self.config.flip:
            pose = (pose + self.flipped(self.network(self.flipped(context)))) / 2
        return pose[:, None]
