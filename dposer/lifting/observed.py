"""What a network is shown of the keypoints: (..., J, I), by ``config.inputs``.

==========  ====================================================================================================
points      x, y in screen units
visible     x, y, and 1 where the keypoint was seen, else 0
mixture     M times π, x, y, s_x, s_y: weights, means and standard deviations of a mixture (:mod:`dposer.data.gmm`)
heatmap     a heatmap in the person's crop, as a mixture or cell by cell (:mod:`dposer.data.heatmap_mixtures`); J is 16 then
==========  ====================================================================================================

Of a missing joint, a mixture has one wide Gaussian: around its parent, not at what time would fill in, or around the middle of the picture
(``config.hidden`` = "zero").
"""

import numpy as np
import torch
from torch import Tensor

from dposer.body.skeleton import Layout
from dposer.data.gmm import COLUMNS, hidden_mixture, mixture_of
from dposer.data.heatmap_mixtures import crop_box, heatmaps_of_keypoints, mirrored_heatmaps
from dposer.geometry.lens import screen
from dposer.lifting.config import Inputs, LiftingConfig
from dposer.lifting.inputs import fill_gaps, standing_places
from dposer.lifting.windows import flip

__all__ = ["hidden_mixture", "mirrored", "observe", "points_of", "screen_keypoints"]


def observe(keypoints: np.ndarray, size: tuple[float, float], config: LiftingConfig, mixture: np.ndarray | None = None) -> Tensor:
    """(F, J, I) float32 of keypoints (F, J, 3), pixels and confidence; missing ones as ``config.hidden`` says.

    Args:
        mixture: (F, J, M, 5) in screen units, if one is known; else it is made of the keypoints. Without effect on other inputs.

    Raises:
        InputError: no joint in any frame.
    """
    if config.inputs == "heatmap":
        return heatmaps_of_clip(keypoints, config.skeleton)[0]
    points, seen = screen_keypoints(keypoints, size, config.skeleton)
    if config.inputs == "mixture":
        confidence = torch.from_numpy(np.where(seen, keypoints[..., 2], 0).astype(np.float32))
        found = mixture_of(points, confidence, config.skeleton) if mixture is None else torch.from_numpy(mixture).float().flatten(-2)
        return hidden_mixture(found, ~seen, config.skeleton, zero=config.hidden == "zero")
    if config.hidden == "zero":
        points = points * seen[..., None]
    if config.inputs == "visible":
        return torch.cat((points, seen[..., None].to(points)), -1)
    return points


def heatmaps_of_clip(keypoints: np.ndarray, layout: Layout) -> tuple[Tensor, np.ndarray]:
    """Mixtures (F, 16, 10) and their crops (F, 3), which also hold what is missing: where it was before, or would be if they stood."""
    seen = keypoints[..., 2] > 0
    places = keypoints[..., :2] if bool(seen.all()) or not seen.any() else standing_places(keypoints, layout)
    return heatmaps_of_keypoints(keypoints, layout, crop_box(places, np.ones_like(seen)))


def screen_keypoints(keypoints: np.ndarray, size: tuple[float, float], layout: Layout) -> tuple[Tensor, Tensor]:
    """(F, J, 2) in screen units with missing ones filled in, and (F, J) bool: which were seen."""
    seen = keypoints[..., 2] > 0
    filled = keypoints[..., :2] if bool(seen.all()) else fill_gaps(keypoints, layout)[0]
    return screen(torch.from_numpy(np.ascontiguousarray(filled, dtype=np.float32)), size), torch.from_numpy(seen)


def points_of(observed: Tensor, inputs: Inputs) -> Tensor:
    """The keypoints (..., J, 2) of what is observed (..., J, I); of a mixture the means of component 0."""
    return observed[..., 1:3] if inputs == "mixture" else observed[..., :2]


def mirrored(observed: Tensor, inputs: Inputs, layout: Layout) -> Tensor:
    """What would be observed of the mirrored person, (..., J, I)."""
    if inputs == "heatmap":
        return mirrored_heatmaps(observed)
    return flip(observed, layout, range(1, observed.shape[-1], COLUMNS) if inputs == "mixture" else (0,))
