r"""From pictures to the crops a detector of heatmaps wants, and from files of heatmaps, or of SimCC's marginals, to what is lifted.

A box is left, top and side in pixels, as of :func:`~dposer.data.heatmap_mixtures.crop_box`. Heatmaps have 64 × 64 cells over it, so that
the pixel p is at cell :math:`u = 64 (p - \mathrm{corner}) / \mathrm{side}`. Files are

- ``.npy``: heatmaps (16, h, w) or (F, 16, h, w) of any size, channels as in :data:`~dposer.body.skeleton.HEATMAP_16`;
- ``.npz``: these as ``heatmaps``, and optionally ``box`` (3,) or (F, 3), ``image_size`` (2,), width and height, and ``focal``, in pixels.

Maps that are not square stand in the middle of their box.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dposer.body.skeleton import H36M_17, HEATMAP_16, layout_map
from dposer.data.heatmap_mixtures import CELLS, SIDE, checked_heatmaps, highest, keypoints_of_tops
from dposer.data.hrnet import INPUT
from dposer.errors import InputError
from dposer.files import PathLike, finite, load_npy, load_npz, save_npz

_JOINTS = HEATMAP_16.joints
_WHAT = "heatmaps"
_MAPS = f"({len(_JOINTS)}, h, w) or (F, {len(_JOINTS)}, h, w)"

_SEEN = 0.1
"""Of the height of all maps' highest cell: joints above it are judged by."""
_FAINT, _TALL = 0.1, 2.0
"""Heights of the highest cell between which maps are as a detector paints them."""
_FITTING, _SCATTERED = 0.8, 0.7
"""An order is another one's if it makes bones so many times as long, and nobody's if bones are so long, of how far joints are apart."""
_CROSSED = 3.0
"""Cells that the sides of shoulders and hips must be apart to be told."""
_MOSTLY = 0.5
"""Of the frames: more than these make a doubt."""
_HIGH_SPINE = 0.3
"""Of the way from the shoulders down to the pelvis: a spine above is none."""


# ---- pictures ----------------------------------------------------------------------------------------------------------


def pad_square(size: tuple[int, int]) -> np.ndarray:
    """(3,): the box of a whole picture of this width and height, the smallest square around it."""
    width, height = size
    side = max(width, height)
    return np.array([-((side - width) // 2), -((side - height) // 2), side], np.float64)


def crop(image: np.ndarray, box: np.ndarray) -> Tensor:
    """(3, 255, 255) of a picture (H, W, 3) and a box (3,), as :func:`crops`."""
    return crops(np.asarray(image)[None], np.asarray(box)[None])[0]


def crops(images: np.ndarray | Tensor, boxes: np.ndarray) -> Tensor:
    r"""What is in boxes, bilinear without smoothing; outside the picture is black.

    .. math:: C_k = I\big(b + \mathrm{clip}((k + \tfrac12) s / 255 - \tfrac12, \; 0, \; s - 1)\big)

    along either axis, for a box from b of side s; pixels of the picture I have their centres at whole numbers.

    Args:
        images: (F, H, W, 3) uint8 RGB, or (1, H, W, 3) for all boxes.
        boxes: (F, 3).

    Returns:
        (F, 3, 255, 255) float32 in [0, 1], where the pictures are.

    Raises:
        InputError: other shapes or types, or a box without a side.
    """
    images = torch.as_tensor(images)
    boxes = np.asarray(boxes, np.float64)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != torch.uint8:
        raise InputError(f"pictures of shape {tuple(images.shape)}, {images.dtype}, expected (F, H, W, 3) uint8; make them RGB of 0 .. 255")
    if boxes.ndim != 2 or boxes.shape[1] != 3 or len(images) not in (1, len(boxes)):
        raise InputError(f"boxes of shape {boxes.shape} for {len(images)} pictures, expected (F, 3): left, top and side of each")
    _check_box(boxes, "boxes")
    left, top, side = torch.from_numpy(boxes).unbind(-1)
    device = images.device
    frame = torch.arange(len(boxes), device=device)[:, None, None] % len(images)
    found = torch.zeros(len(boxes), INPUT, INPUT, 3, device=device)
    for y, share_y in _beside(top, side, images.shape[1], device):
        for x, share_x in _beside(left, side, images.shape[2], device):
            found += images[frame, y[:, :, None], x[:, None, :]] * (share_y[:, :, None] * share_x[:, None, :])[..., None]
    return (found / 255).permute(0, 3, 1, 2).contiguous()


def _beside(corner: Tensor, side: Tensor, length: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """The two pixels (F, 255) beside each place along an axis, and their shares, 0 outside of the picture."""
    step = (torch.arange(INPUT) + 0.5) / INPUT
    inside = (step * side[:, None] - 0.5).clamp(min=0).minimum(side[:, None] - 1)
    place = corner[:, None] + inside
    first = place.floor()
    found = []
    for pixel, share in ((first, 1 - (place - first)), (first + 1, place - first)):
        shown = torch.where((pixel >= 0) & (pixel < length), share, 0.0)
        found.append((pixel.clamp(0, length - 1).long().to(device), shown.float().to(device)))
    return found


def _check_box(boxes: np.ndarray, source: str) -> None:
    bad = ~(np.isfinite(boxes).all(-1) & (boxes[..., -1] >= 1))
    if bad.any():
        shown = ", ".join(f"{number:g}" for number in boxes[bad][0])
        raise InputError(
            f"{source}: found {shown}, expected left, top and side in pixels, the side at least 1; check the detector of people"
        )


# ---- files -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeatmapFile:
    """Heatmaps of one person in F pictures, and what is known of where they were cut out."""

    maps: np.ndarray
    """(F, 16, 4096) float32."""
    box: np.ndarray | None = None
    """(F, 3) left, top and side, pixels; None if not known."""
    size: tuple[int, int] | None = None
    """Width and height of the pictures; None if not known."""
    focal: float | None = None
    """Pixels; None if not known."""
    notes: tuple[str, ...] = ()
    """What looks wrong, as :func:`doubts` and of heights, a sentence each."""


def read_heatmaps_file(path: PathLike) -> HeatmapFile:
    """Read a ``.npy`` or ``.npz`` of the form above; ``heatmaps`` may also be (F, 16, 4096), as :func:`write_heatmaps_file` has them.

    Raises:
        InputError: missing, damaged, of another form, or heatmaps that are none: NaN, nowhere above 0, heights of pictures or logits.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz"):
        raise InputError(f"{path}: expected heatmaps as .npy {_MAPS} or .npz with 'heatmaps'; save them so")
    members = (
        load_npz(path, _WHAT, ("heatmaps",), ("box", "image_size", "focal")) if suffix == ".npz" else {"heatmaps": load_npy(path, _WHAT)}
    )
    maps = checked_heatmaps(_shaped(members["heatmaps"], path), str(path))
    size, focal = _positive(members.get("image_size"), 2, f"{path}: image_size"), _positive(members.get("focal"), 1, f"{path}: focal")
    box = None if "box" not in members else _boxes(members["box"], len(maps), path)
    width_height = None if size is None else (round(size[0]), round(size[1]))
    notes = _doubted_heights(maps) + doubts(maps, box, width_height)
    return HeatmapFile(maps, box, width_height, None if focal is None else focal[0], notes)


def write_heatmaps_file(path: PathLike, heatmaps: HeatmapFile) -> None:
    """Write a ``.npz`` of the form above, to be read by :func:`read_heatmaps_file`."""
    known = {"box": heatmaps.box, "image_size": heatmaps.size, "focal": heatmaps.focal}
    maps = heatmaps.maps.reshape(-1, len(_JOINTS), SIDE, SIDE)
    save_npz(path, {"heatmaps": maps} | {name: value for name, value in known.items() if value is not None})


def _shaped(maps: np.ndarray, path: Path) -> np.ndarray:
    """(F, 16, h, w)."""
    maps = finite(maps, f"{path}: heatmaps")
    count = len(_JOINTS)
    if maps.ndim == 3 and maps.shape[1:] == (count, CELLS):
        return maps.reshape(-1, count, SIDE, SIDE)
    if maps.ndim not in (3, 4) or maps.shape[-3] != count or not maps.size:
        last = maps.ndim in (3, 4) and maps.shape[-1] == count
        mend = "move the channels, which are last, before the rows" if last else f"in the order {', '.join(_JOINTS)}"
        raise InputError(f"{path}: heatmaps of shape {maps.shape}, expected {_MAPS}; {mend}")
    return maps.reshape(-1, *maps.shape[-3:])


def _boxes(box: np.ndarray, frames: int, path: Path) -> np.ndarray:
    """(F, 3)."""
    if box.shape not in ((3,), (frames, 3)):
        mend = "; make the two corners, or width and height, one square's left, top and side" if box.shape[-1:] == (4,) else ""
        raise InputError(f"{path}: box of shape {box.shape}, expected (3,) or ({frames}, 3): left, top and side in pixels{mend}")
    box = np.broadcast_to(finite(box, f"{path}: box"), (frames, 3)).astype(np.float64)
    _check_box(box, f"{path}: box")
    return box


def _positive(value: np.ndarray | None, count: int, name: str) -> list[float] | None:
    if value is None:
        return None
    numbers = finite(value, name).ravel()
    if len(numbers) != count or not (numbers >= 1).all():
        what = "one number" if count == 1 else "width and height"
        raise InputError(f"{name}: found {' '.join(f'{number:g}' for number in numbers[:4]) or 'nothing'}, expected {what} in pixels")
    return [float(number) for number in numbers]


# ---- joints ------------------------------------------------------------------------------------------------------------


def keypoints_of_heatmaps(maps: np.ndarray | Tensor, box: np.ndarray) -> np.ndarray:
    """(F, 17, 3): the highest cells as keypoints of :data:`~dposer.body.skeleton.H36M_17`, pixels and their heights within [0, 1].

    The nose, of which there is no map, is put between neck and head top. All is 0 where a map is nowhere above 0.

    Args:
        maps: (F, 16, 10 or 4096).
        box: (F, 3) or (3,); 0, 0, 64 keeps cells.
    """
    tops = highest(torch.as_tensor(maps)).double().cpu().numpy()
    return keypoints_of_tops(tops, np.broadcast_to(np.asarray(box, np.float64), (len(tops), 3)))


def of_mpii(maps: Tensor) -> Tensor:
    """Maps (..., 16, h, w) of a detector in MPII's own order in that of :data:`~dposer.body.skeleton.HEATMAP_16`.

    There, channels 7 and 8 are the thorax and the upper neck. The former is the neck here; of the spine nothing is known: it is missing.
    """
    spine, neck = _JOINTS.index("spine"), _JOINTS.index("neck")
    found = maps.clone()
    found[..., neck, :, :] = maps[..., spine, :, :]
    found[..., spine, :, :] = 0
    return found


def maps_from_simcc(x: np.ndarray | Tensor, y: np.ndarray | Tensor) -> Tensor:
    r"""Heatmaps (F, J, 4096) of the marginals that a detector of SimCC's kind tells.

    .. math:: H(u, v) = \hat x \hat y \; \frac{(R x)_u}{\max R x} \frac{(R y)_v}{\max R y}, \qquad \hat x = \max x, \quad \hat y = \max y,

    of values above 0, where R takes bins to 64 cells by weights that fall off linearly over a cell. Bins are as wide along either axis; the
    shorter one is in the middle of the square.

    Args:
        x, y: (F, J, bins) values of about 1 at sure joints, as RTMPose gives them.

    Raises:
        InputError: other shapes, NaN, or values that are no heights.

    Source: Li et al., ECCV 2022 (SimCC).
    """
    x, y = (torch.as_tensor(axis).float() for axis in (x, y))
    if x.ndim != 3 or y.ndim != 3 or x.shape[:2] != y.shape[:2] or not min(x.numel(), y.numel()):
        raise InputError(f"SimCC of shapes {tuple(x.shape)} and {tuple(y.shape)}, expected (F, J, bins) of x and of y; check the detector")
    if not bool(x.isfinite().all() and y.isfinite().all()):
        raise InputError("SimCC holds NaN or infinity, expected values from about 0 to about 1; check the detector")
    if (top := float(torch.maximum(x.max(), y.max()))) > 10:
        raise InputError(f"SimCC reaches {top:.3g}, expected values to about 1; scale them")
    side = max(x.shape[-1], y.shape[-1])
    across, down = (_cells_of_bins(axis.clamp(min=0), side) for axis in (x, y))
    return (down[..., :, None] * across[..., None, :]).flatten(-2)


def _cells_of_bins(marginal: Tensor, side: int) -> Tensor:
    """(..., 64) of (..., bins), as high at the top."""
    ratio, bins = side / SIDE, marginal.shape[-1]
    place = torch.arange(bins, device=marginal.device) + (side - bins) // 2
    away = (place - ratio * torch.arange(SIDE, device=marginal.device)[:, None]).abs() / max(ratio, 1)
    cells = marginal @ (1 - away).clamp(min=0).T
    tops, before = (values.amax(-1, keepdim=True) for values in (cells, marginal))
    return torch.where(tops > 0, cells / tops * before, 0)


# ---- doubts ------------------------------------------------------------------------------------------------------------


def doubts(maps: np.ndarray | Tensor, box: np.ndarray | None = None, size: tuple[int, int] | None = None) -> tuple[str, ...]:
    """What looks wrong with heatmaps (F, 16, 10 or 4096), a sentence each: the order of channels, and people who are cut off.

    Args:
        box: (F, 3) or (3,), and
        size: width and height of the pictures, to tell where these end.
    """
    tops = highest(torch.as_tensor(maps)).cpu().numpy()
    seen = tops[..., 2] > _SEEN * max(float(tops[..., 2].max(initial=0)), 0)
    points = np.where(seen[..., None], tops[..., :2], np.nan)
    return (*_doubted_order(points), *_doubted_presence(seen), *_doubted_edges(points, box, size))


def _doubted_heights(maps: np.ndarray) -> tuple[str, ...]:
    top = float(maps.max())
    if top < _FAINT:
        return (f"heatmaps are nowhere above {top:.2g}, expected about 1 at sure joints: if each map sums to 1, multiply them by 25",)
    if top > _TALL:
        return (f"heatmaps reach {top:.2g}, expected about 1 at sure joints: check their scale",)
    return ()


def _doubted_order(points: np.ndarray) -> list[str]:
    """Of highest cells (F, 16, 2), NaN where nothing is seen."""
    length = _bone_length(points, _JOINTS)
    other = _bone_length(points, tuple(name for name in H36M_17.joints if name != "head"))
    if length > _SCATTERED or other < _FITTING * length:
        hint = f", they would be in that of {H36M_17.name} without the nose" if other < _FITTING * length else ""
        return [f"bones are no person's in the order of {HEATMAP_16.name}{hint}: check the order of the channels"]
    return [*_doubted_up(points), *_doubted_sides(points), *_doubted_spine(points)]


def _bone_length(points: np.ndarray, order: tuple[str, ...]) -> float:
    """Mean length of bones over the mean distance of joints; 0 if too little is seen."""
    ends = np.array(HEATMAP_16.edges)
    points = points[:, list(layout_map(order, _JOINTS))]
    bones = np.linalg.norm(points[:, ends[:, 0]] - points[:, ends[:, 1]], axis=-1)
    apart = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)
    bones, apart = bones[np.isfinite(bones)], apart[np.isfinite(apart) & (apart > 0)]
    return float(bones.mean() / apart.mean()) if len(bones) and len(apart) else 0.0


def _doubted_up(points: np.ndarray) -> list[str]:
    head = points[:, _JOINTS.index("head_top"), 1]
    feet = points[:, [_JOINTS.index(f"{side}_ankle") for side in ("left", "right")], 1].min(1)
    below, known = int((head > feet).sum()), int(np.isfinite(head - feet).sum())
    if below <= _MOSTLY * known:
        return []
    return [f"the head is below the feet in {below} of {known} frames: check that rows go downwards, and the order of the channels"]


def _doubted_sides(points: np.ndarray) -> list[str]:
    """Whether the right shoulder and the right hip are mostly on different sides."""
    gaps = [points[:, _JOINTS.index(f"right_{name}"), 0] - points[:, _JOINTS.index(f"left_{name}"), 0] for name in ("shoulder", "hip")]
    told = np.all([np.abs(gap) >= _CROSSED for gap in gaps], axis=0)
    crossed = int((gaps[0] * gaps[1] < 0)[told].sum())
    if crossed <= _MOSTLY * told.sum():
        return []
    return [f"left and right of shoulders and hips disagree in {crossed} of {int(told.sum())} frames: check the order of the channels"]


def _doubted_spine(points: np.ndarray) -> list[str]:
    """Whether the channel of the spine is between the shoulders."""
    shoulders = points[:, [_JOINTS.index(f"{side}_shoulder") for side in ("left", "right")]].mean(1)
    pelvis, spine = points[:, _JOINTS.index("pelvis")], points[:, _JOINTS.index("spine")]
    trunk = np.linalg.norm(pelvis - shoulders, axis=-1)
    high = np.linalg.norm(spine - shoulders, axis=-1) < _HIGH_SPINE * trunk
    if high.sum() <= _MOSTLY * np.isfinite(trunk * spine[:, 0]).sum():
        return []
    return [
        "channel 7 is between the shoulders, where MPII has the thorax, not the spine: the detector was not tuned to Human3.6M; "
        "move channel 7 to 8 and make channel 7 zero, or lift with weights that were trained on such heatmaps"
    ]


def _doubted_presence(seen: np.ndarray) -> list[str]:
    nobody = int((~seen.any(1)).sum())
    return [f"nobody is found in {nobody} of {len(seen)} frames"] if nobody else []


def _doubted_edges(points: np.ndarray, box: np.ndarray | None, size: tuple[int, int] | None) -> list[str]:
    """Whether highest cells are at the border of the crop or, where it is known, of the picture."""
    known = np.isfinite(points).all(-1)
    at_edge = known & ((points <= 0) | (points >= SIDE - 1)).any(-1)
    if box is not None and size is not None:
        box = np.broadcast_to(np.asarray(box, np.float64), (len(points), 3))[:, None]
        cell = box[..., 2:] / SIDE
        pixels = box[..., :2] + points * cell
        at_edge |= known & ((pixels <= cell) | (pixels >= np.array(size) - cell)).any(-1)
    if not at_edge.any():
        return []
    names = [name for name, hit in zip(_JOINTS, at_edge.any(0), strict=True) if hit]
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    frames = f"{int(at_edge.any(1).sum())} of {len(points)} frames"
    return [f"{shown} at the border in {frames}: the person may be cut off, and what is beyond is guessed; widen the box if it is that"]
