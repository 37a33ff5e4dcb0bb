r"""Heatmaps of a detector, as mixtures of Gaussians in the crop they were found in, or cell by cell.

A detector that was trained to paint a Gaussian of height 1 and deviation σ₀ at each joint tends to the mean of what it would have to paint.
If a joint is at :math:`N(\mu_m, S_m)` with probability :math:`w_m`, its map is

.. math:: H(v) = g \sum_m w_m \frac{\sigma_0^2}{\sqrt{\det(S_m + \sigma_0^2 I)}}
    \exp\left(-\tfrac12 (v - \mu_m)^T (S_m + \sigma_0^2 I)^{-1} (v - \mu_m)\right)

so that it is blurred and dim together. A mixture is (..., 16, 10): w₁, w₂, x₁, y₁, x₂, y₂, S_xx, S_xy, S_yy (of both modes) and the gain
g, in cells of a map of 64 × 64 whose cell k has its centre at k, x to the right and y down. A missing joint has gain 0. Cell by cell a map
is (..., 16, 4096), row by row. Joints are those of :data:`~dposer.body.skeleton.HEATMAP_16`.

A keypoint of confidence c stands for one mode whose map has height c: :math:`\det(S + \sigma_0^2 I)^{1/2} = \sigma_0^2 / c`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dposer.body.skeleton import H36M_17, HEATMAP_16, Layout, layout_map
from dposer.errors import InputError

SIDE = 64
"""Cells."""
CELLS = SIDE * SIDE
COLUMNS = 10
"""Of a mixture."""
MODES = 2
SIGMA = 2.0
"""σ₀, cells."""
MARGIN = 1.2
"""A crop is so many times as wide as the keypoints are apart."""
_SMALLEST = 32
"""Pixels: side of a crop, at least."""
_CLIMB = 3
"""Steps."""
LEAST_TRUST = 0.05
"""Confidences below count as this."""


@dataclass(frozen=True)
class StoredMaps:
    """Heatmaps in a table of an HDF5 file, read when they are asked for.

    Args:
        path, table, column: where they are; each row of the column is (16, h, w).
        rows: (F,) which of them.
    """

    path: Path
    table: str
    column: str
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.rows), len(HEATMAP_16.joints), CELLS

    @classmethod
    def joined(cls, many: Sequence["np.ndarray | StoredMaps | None"]) -> "StoredMaps | None":
        """Of one table, one after another; None where none is stored.

        Raises:
            InputError: they lie in several tables, or not all are stored.
        """
        stored = [some for some in many if isinstance(some, StoredMaps)]
        if not stored:
            return None
        places = {(some.path, some.table, some.column) for some in stored}
        if len(stored) < len(many) or len(places) > 1:
            found = ", ".join(sorted({f"{path}:{table}" for path, table, _ in places}))
            raise InputError(f"heatmaps: of several sources ({found}), expected one table; join them in one file")
        return cls(*places.pop(), np.concatenate([some.rows for some in stored]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: np.ndarray | slice) -> np.ndarray:
        """(n, 16, 4096) float32."""
        import h5py

        rows, places = np.unique(self.rows[which], return_inverse=True)
        if not len(rows):
            return np.zeros((0, *self.shape[1:]), np.float32)
        with h5py.File(self.path, "r") as file:
            found = np.asarray(file[self.table].fields(self.column)[rows], np.float32)
        return _squared(torch.from_numpy(found[places])).flatten(-2).numpy()


# ---- maps --------------------------------------------------------------------------------------------------------------


def parts(mixture: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights (..., 2), means (..., 2, 2), covariances (..., 3) and gains (...) of (..., 10)."""
    weight, mean, spread, gain = mixture.split((MODES, 2 * MODES, 3, 1), -1)
    return weight, mean.unflatten(-1, (MODES, 2)), spread, gain[..., 0]


def painted(spread: Tensor) -> Tensor:
    """S + σ₀² I as (xx, xy, yy): (..., 3) to the same."""
    return spread + SIGMA**2 * spread.new_tensor([1.0, 0.0, 1.0])


def height(mixture: Tensor, places: Tensor) -> Tensor:
    """H(v): mixtures (..., 10) and places (..., P, 2), cells → (..., P)."""
    weight, mean, spread, gain = parts(mixture)
    xx, xy, yy = painted(spread)[..., None, None, :].unbind(-1)  # (..., 1, 1)
    determinant = xx * yy - xy.square()
    dx, dy = (places[..., :, None, :] - mean[..., None, :, :]).unbind(-1)  # (..., P, M)
    away = (yy * dx.square() - 2 * xy * dx * dy + xx * dy.square()) / determinant
    tops = SIGMA**2 * determinant.rsqrt() * weight[..., None, :]
    return gain[..., None] * (tops * torch.exp(-0.5 * away)).sum(-1)


def cells(device: torch.device | None = None) -> Tensor:
    """(4096, 2) their centres, row by row: x, y."""
    y, x = torch.meshgrid(*[torch.arange(SIDE, dtype=torch.float32, device=device)] * 2, indexing="ij")
    return torch.stack((x, y), -1).flatten(0, 1)


def render(mixture: Tensor) -> Tensor:
    """Maps (..., J, 64, 64) of mixtures (..., J, 10)."""
    grid = cells(mixture.device)
    maps = [height(some, grid.expand(*some.shape[:-1], -1, -1)) for some in mixture.reshape(-1, COLUMNS).split(256)]
    return torch.cat(maps).reshape(*mixture.shape[:-1], SIDE, SIDE)


def highest(heatmaps: Tensor) -> Tensor:
    """(..., J, 3): x, y of the highest cell and how high it is, of either kind of heatmaps (..., J, 10 or 4096).

    Where nothing is above 0 it is the middle. A mixture's is the higher of those that a short climb from its means, cell by cell, finds.
    """
    if heatmaps.shape[-1] == COLUMNS:
        around = (cells(heatmaps.device).view(SIDE, SIDE, 2)[:3, :3] - 1).flatten(0, 1)
        top = parts(heatmaps)[1]
        for _ in range(_CLIMB):
            near = (top.round()[..., None, :] + around).clamp(0, SIDE - 1)  # (..., M, 9, 2)
            value, best = height(heatmaps, near.flatten(-3, -2)).unflatten(-1, (MODES, -1)).max(-1)
            top = near.take_along_dim(best[..., None, None], -2)[..., 0, :]
        value, best = value.max(-1)
        place = top.take_along_dim(best[..., None, None], -2)[..., 0, :]
    else:
        value, cell = heatmaps.clamp(min=0).max(-1)
        place = torch.stack((cell % SIDE, cell // SIDE), -1).to(heatmaps.dtype)
    return torch.cat((torch.where(value[..., None] > 0, place, SIDE / 2), value[..., None]), -1)


def mirrored_heatmaps(heatmaps: Tensor) -> Tensor:
    """Those of the mirrored person, of either kind."""
    twins = heatmaps[..., list(HEATMAP_16.mirror), :]
    if heatmaps.shape[-1] == COLUMNS:
        sign = heatmaps.new_tensor([1, 1, -1, 1, -1, 1, 1, -1, 1, 1])
        shift = heatmaps.new_tensor([0, 0, 1, 0, 1, 0, 0, 0, 0, 0]) * (SIDE - 1)
        return twins * sign + shift
    return twins.unflatten(-1, (SIDE, SIDE)).flip(-1).flatten(-2)


def hidden_heatmaps(heatmaps: Tensor, hidden: Tensor, layout: Layout) -> Tensor:
    """Without the joints (..., J) of ``layout`` that are hidden: (..., 16, C) to the same."""
    rows = torch.tensor(layout_map(layout.joints, HEATMAP_16.joints), device=hidden.device)
    gone = (hidden[..., rows.clamp(min=0)] & (rows >= 0))[..., None]
    if heatmaps.shape[-1] == COLUMNS:
        gone = gone & (torch.arange(COLUMNS, device=heatmaps.device) == COLUMNS - 1)
    return heatmaps.masked_fill(gone, 0)


def checked_heatmaps(maps: np.ndarray, source: str) -> np.ndarray:
    """Maps (..., 16, h, w) of any size as (..., 16, 4096) float32; those of other sizes are set in the middle of a square and resampled.

    Values below 0 are kept: whoever draws from maps clamps them. A frame may be empty if another is not.

    Raises:
        InputError: another number of channels, no numbers, NaN, nothing above 0, or values that are no heights.
    """
    channels = len(HEATMAP_16.joints)
    if np.asarray(maps).dtype.kind not in "fiub":
        raise InputError(f"{source}: heatmaps of {np.asarray(maps).dtype}, expected real numbers")
    maps = np.asarray(maps, np.float32)
    if maps.ndim < 3 or maps.shape[-3] != channels or not maps.size:
        raise InputError(f"{source}: heatmaps of shape {maps.shape}, expected (..., {channels}, h, w) with {', '.join(HEATMAP_16.joints)}")
    if not np.isfinite(maps).all():
        raise InputError(f"{source}: heatmaps hold NaN or infinity, expected heights from about 0 to about 1; check the detector")
    top = float(maps.max())
    if top <= 0:
        raise InputError(f"{source}: heatmaps are nowhere above 0, expected a person; check the crop, and that these are no logarithms")
    if top > 10:
        raise InputError(f"{source}: heatmaps reach {top:.3g}, expected heights to about 1; divide them, by 255 if they are pictures")
    return _squared(torch.from_numpy(maps)).flatten(-2).numpy()


def _squared(maps: Tensor) -> Tensor:
    h, w = maps.shape[-2:]
    if h == w == SIDE:
        return maps
    side = max(h, w)
    left, top = (side - w) // 2, (side - h) // 2
    square = torch.nn.functional.pad(maps, (left, side - w - left, top, side - h - top))
    flat = square.reshape(-1, 1, side, side)
    return torch.nn.functional.interpolate(flat, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True).reshape(
        *maps.shape[:-2], SIDE, SIDE
    )


# ---- keypoints ---------------------------------------------------------------------------------------------------------


def in_crop(pixels: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Pixels (F, J, 2) → cells of the crops (F, 3)."""
    return SIDE * (pixels - box[:, None, :2]) / box[:, None, 2:]


def in_picture(places: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Inverse of :func:`in_crop`."""
    return box[:, None, :2] + places * box[:, None, 2:] / SIDE


def keypoints_of_tops(tops: np.ndarray, box: np.ndarray, layout: Layout = H36M_17) -> np.ndarray:
    """Cells and heights (F, 16, 3) in crops (F, 3) as keypoints (F, J, 3): pixels and confidence, all 0 of joints that are missing.

    The nose, of which there is no map, is put between neck and head top.
    """
    points = np.concatenate((in_picture(tops[..., :2], box), tops[..., 2:].clip(0, 1)), -1)
    neck, crown = (points[:, HEATMAP_16.joints.index(name)] for name in ("neck", "head_top"))
    nose = np.concatenate(((neck + crown)[:, :2] / 2, np.minimum(neck, crown)[:, 2:]), -1)
    rows = np.array(layout_map((*HEATMAP_16.joints, "head") if layout is H36M_17 else HEATMAP_16.joints, layout.joints))
    found = np.concatenate((points, nose[:, None]), 1)[:, rows]
    return np.where((rows >= 0)[:, None] & (found[..., 2:] > 0), found, 0).astype(np.float32)


def crop_box(points: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(F, 3): left, top and side of the square around what is seen, :data:`MARGIN` times as wide; (F, J, 2) pixels and (F, J) bool.

    Corners are whole pixels, the side is 32 at least. Where nothing is seen, the square is that around 0.
    """
    there = seen[..., None]
    low, high = np.where(there, points, np.inf).min(1), np.where(there, points, -np.inf).max(1)
    low, high = (np.where(np.isfinite(end), end, 0.0) for end in (low, high))
    side = np.maximum(np.round(MARGIN * (high - low).max(-1)), _SMALLEST)
    corner = np.round(np.round((low + high) / 2) - side[:, None] / 2)
    return np.concatenate((corner, side[:, None]), -1)


def heatmaps_of_keypoints(keypoints: np.ndarray, layout: Layout, box: np.ndarray | None = None) -> tuple[Tensor, np.ndarray]:
    """Mixtures (F, 16, 10) that stand for keypoints (F, J, 3), pixels and confidence, and the crops (F, 3) that they are in.

    Args:
        layout: of the keypoints; a joint that it lacks is missing.
        box: left, top and side of the crops; None: :func:`crop_box`.

    Raises:
        InputError: confidences above 1.
    """
    confidence = np.nan_to_num(keypoints[..., 2])
    if confidence.max(initial=0) > 1:
        raise InputError(f"keypoints: confidence {confidence.max():.3g}, expected at most 1; scale the detector's scores")
    seen = (confidence > 0) & np.isfinite(keypoints[..., :2]).all(-1)
    box = crop_box(keypoints[..., :2], seen) if box is None else box
    rows = list(layout_map(layout.joints, HEATMAP_16.joints))
    known = np.array([row >= 0 for row in rows]) & seen[:, rows]
    places = in_crop(keypoints[:, rows, :2], box)
    trust = np.where(known, confidence[:, rows].clip(LEAST_TRUST, 1), 1.0)
    spread = SIGMA**2 * (1 / trust - 1)
    mixture = np.zeros((*known.shape, COLUMNS), np.float32)
    mixture[..., 0] = 1
    mixture[..., 2:6] = np.tile(np.where(known[..., None], places, SIDE / 2), MODES)
    mixture[..., 6] = mixture[..., 8] = spread
    mixture[..., 9] = known
    return torch.from_numpy(mixture), box
