"""Made-up hypotheses of a person whose left arm is out of sight."""

import numpy as np
import torch

from dposer.body.skeleton import H36M_17
from dposer.lifting.consensus import consensus
from dposer.viz.hypotheses import HypothesisCloud
from tests.lifting_data import someone

ELBOW, WRIST = (H36M_17.joints.index(f"left_{name}") for name in ("elbow", "wrist"))


def hidden_arm(frames: int = 2, count: int = 40, truth: bool = True) -> HypothesisCloud:
    """The arm is down in three of four hypotheses, and else reaches away from the camera."""
    people = (someone(frames, 0) * (-1, 1, 1))[..., [0, 2, 1]] * (1, -1, 1)  # facing a camera
    people = people - people[:, :1]
    h = people[:, None] + np.random.default_rng(0).normal(0, 0.008, (frames, count, 17, 3))
    for joint, reach in ((ELBOW, 0.28), (WRIST, 0.53)):
        h[:, count * 3 // 4 :, joint] += (0, -reach, reach)
    h[:, :, 0] = 0
    found = consensus(torch.from_numpy(h.astype(np.float32)), count=3)
    return HypothesisCloud.of(H36M_17, h, found.arrays(), people if truth else None)
