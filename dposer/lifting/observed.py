"""What a network is shown of the keypoints: (..., J, I), by ``config.inputs``.

==========  ====================================================================================================
points      x, y in screen units
visible     x, y, and 1 where the keypoint was seen, else 0
mixture     M times π, x, y, s_x, s_y: weights, means and standard deviations of a mixture (:mod:`dposer.data.gmm`)
==========  ====================================================================================================
"""

import numpy as np
import torch
from torch import Tensor

from dposer.body.skeleton import Layout
from dposer.geometry.lens import screen
from dposer.lifting.config import Inputs, LiftingConfig
from dposer.lifting.inputs import fill_gaps
from dposer.lifting.windows import flip


def observe(keypoints: np.ndarray, size: tuple[float, float], config: LiftingConfig) -> Tensor:
    """(F, J, I) float32 of keypoints (F, J, 3), pixels and confidence; missing ones as ``config.hidden`` says.

    Raises:
        InputError: no joint in any frame.
    """
    points, seen = screen_keypoints(keypoints, size, config.skeleton)
    if config.hidden == "zero":
        points = points * seen[..., None]
    if config.inputs == "visible":
        return torch.cat((points, seen[..., None].to(points)), -1)
    return points


def screen_keypoints(keypoints: np.ndarray, size: tuple[float, float], layout: Layout) -> tuple[Tensor, Tensor]:
    """(F, J, 2) in screen units with missing ones filled in, and (F, J) bool: which were seen."""
    seen = keypoints[..., 2] > 0
    filled = keypoints[..., :2] if bool(seen.all()) else fill_gaps(keypoints, layout)[0]
    return screen(torch.from_numpy(np.ascontiguousarray(filled, dtype=np.float32)), size), torch.from_numpy(seen)


def mirrored(observed: Tensor, inputs: Inputs, layout: Layout) -> Tensor:
    """What would be observed of the mirrored person, (..., J, I)."""
    return flip(observed, layout, range(1, observed.shape[-1], 5) if inputs == "mixture" else (0,))
