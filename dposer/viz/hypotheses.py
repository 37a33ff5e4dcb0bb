"""Figures of one picture's ambiguity: heatmaps in colours, and the hypotheses in space around what they agree on.

Points in space are in the camera's axes, metres (x right, y down, z away), relative to the root; seen without perspective.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np

from dposer.body.skeleton import HEATMAP_16, Layout, layout_map
from dposer.errors import InputError
from dposer.files import finite
from dposer.viz.plots import new_figure, quiet, rasterised
from dposer.viz.render import Image, checked_image
from dposer.viz.sheet import write_text
from dposer.viz.skeletons import side_colours

AMBIGUOUS, TRUTH = "#a21caf", "0.1"
REACH = 2.5
"""Half axes of ellipsoids in standard deviations: they hold nine tenths of a Gaussian."""
MARGIN = 1.2
"""A heatmap is so many times as wide as the person in it."""
_VIEWS = {"from the camera": 0.0, "from the side": 90.0}
"""Degrees by which the eye goes round; 0 is the camera's own view."""
_INK, _QUIET, _HALO = "0.15", "0.35", "white"
_NIGHT, _DIM = 18, 0.5
"""Grey behind heatmaps, and what is left of the brightness of a photograph there."""
_OPACITY, _LIFT = 0.9, 0.7
"""Of a heatmap where it is 1, and the power by which it falls off."""
_GAP = 24
"""Pixels between the parts of a sheet."""
_CIRCLE = np.stack((np.cos(np.linspace(0, 2 * np.pi, 33)), np.sin(np.linspace(0, 2 * np.pi, 33))))


@dataclass(frozen=True)
class HypothesisCloud:
    """N hypotheses of F frames of J joints, and what was made of them."""

    layout: Layout
    hypotheses: np.ndarray
    """(F, N, J, 3)."""
    pose: np.ndarray
    """(F, J, 3): the one pose of all."""
    mean: np.ndarray
    """(F, J, 3)."""
    covariance: np.ndarray
    """(F, J, 3, 3) m², about the mean."""
    spread: np.ndarray
    """(F, J) metres."""
    apart: np.ndarray
    """(F, J) metres between two camps, 0 where there are none."""
    ambiguous: np.ndarray
    """(F, J) bool."""
    representatives: np.ndarray
    """(F, k, J, 3)."""
    weights: np.ndarray
    """(F, k)."""
    truth: np.ndarray | None = None
    """(F, J, 3)."""

    def __post_init__(self) -> None:
        joints = len(self.layout.joints)
        if np.ndim(self.hypotheses) != 4 or not np.size(self.hypotheses):
            raise InputError(f"hypotheses: shape {np.shape(self.hypotheses)}, expected (frames, hypotheses, {joints}, 3)")
        frames, count = np.shape(self.hypotheses)[:2]
        few = np.shape(self.weights)[-1]
        pose = (frames, joints, 3)
        shapes: dict[str, tuple[int, ...]] = {
            "hypotheses": (frames, count, joints, 3), "pose": pose, "mean": pose, "covariance": (frames, joints, 3, 3),
            "spread": pose[:2], "apart": pose[:2], "ambiguous": pose[:2], "representatives": (frames, few, joints, 3),
            "weights": (frames, few), "truth": pose,
        }  # fmt: skip
        for name, shape in shapes.items():
            found = getattr(self, name)
            if found is None:
                continue
            if np.shape(found) != shape:
                raise InputError(f"{name}: shape {np.shape(found)}, expected {shape}")
            if name != "ambiguous":
                finite(np.asarray(found), name)

    @classmethod
    def of(
        cls, layout: Layout, hypotheses: np.ndarray, found: Mapping[str, np.ndarray], truth: np.ndarray | None = None
    ) -> "HypothesisCloud":
        """From arrays by their names, such as :meth:`dposer.lifting.consensus.Consensus.arrays` gives them; others are left out.

        Raises:
            InputError: some are lacking, or shapes do not go together.
        """
        names = [part.name for part in fields(cls)][2:-1]
        if lacking := [name for name in names if name not in found]:
            raise InputError(f"hypotheses: lacks {', '.join(lacking)}; take all that the consensus has")
        return cls(layout, hypotheses, **{name: found[name] for name in names}, truth=truth)

    def __len__(self) -> int:
        return len(self.pose)


# ---- heatmaps ----------------------------------------------------------------------------------------------------------


def joint_hues(count: int) -> np.ndarray:
    """(count, 3) RGB in [0, 1], round the wheel of colours; neighbours also differ in how bright they are."""
    turn = np.arange(count)
    hue, bright = 360 * turn / count, np.where(turn % 2, 1.0, 0.8)
    wheel = np.stack((hue, np.where(turn % 2, 0.6, 0.95), bright), -1).astype(np.float32)
    return cv2.cvtColor(wheel[None], cv2.COLOR_HSV2RGB)[0].astype(float)


def blended(maps: np.ndarray, photo: Image | None = None) -> Image:
    """All heatmaps in one picture: each lays its colour over the ground with the opacity H to the power 0.7, by which dim ones show too.

    Args:
        maps: (J, h, w) heights, about 0 to 1.
        photo: (H, W, 3) uint8 RGB, the crop that the maps are of; None: a dark ground of (8h, 8w).

    Raises:
        InputError: other shapes, NaN.
    """
    maps = finite(np.asarray(maps, np.float64), "heatmaps")
    if maps.ndim != 3 or not maps.size:
        raise InputError(f"heatmaps: shape {maps.shape}, expected (joints, h, w)")
    if photo is None:
        ground = np.full((8 * maps.shape[1], 8 * maps.shape[2], 3), _NIGHT, np.float64)
    else:
        ground = _DIM * checked_image(photo, "photo").astype(np.float64)
    opacity = _OPACITY * np.clip(maps, 0, 1) ** _LIFT
    colour = 255 * np.einsum("jhw,jc->hwc", opacity, joint_hues(len(maps))) / np.maximum(opacity.sum(0), 1e-9)[..., None]
    covered = 1 - np.prod(1 - opacity, 0)
    size = ground.shape[1::-1]
    paint, covered = (cv2.resize(part, size, interpolation=cv2.INTER_LINEAR) for part in (covered[..., None] * colour, covered))
    return np.rint(np.clip((1 - covered[..., None]) * ground + paint, 0, 255)).astype(np.uint8)


def draw_heatmaps(
    maps: np.ndarray, names: Sequence[str] = HEATMAP_16.joints, photo: Image | None = None, inches: float = 5.0, dpi: int = 130
) -> Image:
    """:func:`blended` maps with a dot at the highest cell of each, and a legend that tells how high it is.

    Args:
        maps: (J, h, w).
        names: of the joints.
        photo: the crop that the maps are of.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: shapes that do not go together, NaN.
    """
    picture = blended(maps, photo)
    if len(maps) != len(names):
        raise InputError(f"heatmaps: {len(maps)} of them for {len(names)} names, expected one a joint")
    figure = new_figure(1.42 * inches, inches)
    figure.set_dpi(dpi)
    axes = figure.add_axes((0, 0, 1 / 1.42, 1))
    height, width = maps.shape[1:]
    axes.imshow(picture, extent=(-0.5, width - 0.5, height - 0.5, -0.5), aspect="auto")
    axes.set_axis_off()
    keys = []
    for name, chart, colour in zip(names, np.asarray(maps), joint_hues(len(names)), strict=True):
        y, x = np.unravel_index(chart.argmax(), chart.shape)
        top = max(float(chart[y, x]), 0.0)
        where = (x, y) if top > 0 else (np.nan, np.nan)
        (dot,) = axes.plot(*where, "o", color=colour, markersize=6, markeredgecolor="white", markeredgewidth=0.9)
        dot.set_label(f"{_spoken(name)}  {top:.2f}" if top > 0 else f"{_spoken(name)}  missing")
        keys.append(dot)
    legend = figure.legend(
        handles=keys, loc="center left", bbox_to_anchor=(1 / 1.42, 0.5), fontsize=8, frameon=False, title="highest value", title_fontsize=8
    )
    for text in legend.get_texts():
        text.set_color(_INK)
    return rasterised(figure)


# ---- the cloud ---------------------------------------------------------------------------------------------------------


def turned(points: np.ndarray, azimuth: float) -> np.ndarray:
    """What an eye ``azimuth`` degrees round the vertical sees of points (..., 3): right and up, (..., 2)."""
    return points @ _sight(azimuth).T


def _sight(azimuth: float) -> np.ndarray:
    """(2, 3)."""
    angle = np.deg2rad(azimuth)
    return np.array([[np.cos(angle), 0, np.sin(angle)], [0, -1, 0]])


def silhouettes(mean: np.ndarray, covariance: np.ndarray, azimuth: float) -> np.ndarray:
    """Outlines of the ellipsoids (x − m)ᵀ Σ⁻¹ (x − m) = r² in a view P, which are m + r (P Σ Pᵀ)^½ of the unit circle.

    Args:
        mean: (J, 3).
        covariance: (J, 3, 3).

    Returns:
        (J, 33, 2), closed.
    """
    sight = _sight(azimuth)
    values, axes = np.linalg.eigh(sight @ covariance @ sight.T)
    half = axes * np.sqrt(np.maximum(values, 0))[:, None, :]
    return turned(mean, azimuth)[:, None] + REACH * (half @ _CIRCLE).swapaxes(-1, -2)


def draw_cloud(cloud: HypothesisCloud, frame: int = 0, *, ellipsoids: bool = False, inches: float = 5.0, dpi: int = 130) -> Image:
    """Hypotheses thin and translucent, their consensus bold, truth dashed; rings and names at ambiguous joints. From two sides.

    Args:
        frame: which one.
        ellipsoids: also those of the joints, :func:`silhouettes`.
        inches: height.

    Returns:
        (h, w, 3) uint8 RGB, both views at one scale.

    Raises:
        InputError: no such frame.
    """
    if not 0 <= frame < len(cloud):
        raise InputError(f"frame {frame}: expected 0 to {len(cloud) - 1}")
    views = [_flat(cloud, frame, azimuth, ellipsoids) for azimuth in _VIEWS.values()]
    corners = np.array([_corners(view) for view in views])  # (views, 2, 2)
    widths, (bottom, top) = np.ptp(corners[..., 0], axis=1), (corners[:, 0, 1].min(), corners[:, 1, 1].max())
    figure = new_figure(inches * widths.sum() / (top - bottom), inches)
    figure.set_dpi(dpi)
    for number, (title, view) in enumerate(zip(_VIEWS, views, strict=True)):
        axes = figure.add_axes((widths[:number].sum() / widths.sum(), 0, widths[number] / widths.sum(), 0.95))
        axes.set(xlim=corners[number, :, 0], ylim=(bottom, top), aspect="equal")
        axes.set_axis_off()
        axes.set_title(title, fontsize=9, color=_QUIET, pad=2)
        _draw_view(axes, cloud, frame, view)
    return rasterised(figure)


def _flat(cloud: HypothesisCloud, frame: int, azimuth: float, ellipsoids: bool) -> dict[str, np.ndarray]:
    """What a view shows, right and up, by its name."""
    parts = {"hypotheses": cloud.hypotheses, "pose": cloud.pose, "truth": cloud.truth}
    view = {name: turned(np.asarray(part[frame]), azimuth) for name, part in parts.items() if part is not None}
    return view | ({"outlines": silhouettes(cloud.mean[frame], cloud.covariance[frame], azimuth)} if ellipsoids else {})


def _corners(view: dict[str, np.ndarray]) -> np.ndarray:
    """(2, 2): low and high of what is seen, with room for names; a stray hypothesis shall not make all others small."""
    whole = np.concatenate([points.reshape(-1, 2) for name, points in view.items() if name != "hypotheses"])
    ends = np.quantile(view["hypotheses"].reshape(-1, 2), (0.002, 0.998), axis=0)
    room = np.array([0.15, 0.12])
    return np.stack((np.minimum(ends[0], whole.min(0)) - room, np.maximum(ends[1], whole.max(0)) + room))


def _draw_view(axes: Any, cloud: HypothesisCloud, frame: int, view: dict[str, np.ndarray]) -> None:
    from matplotlib.collections import LineCollection, PolyCollection  # as slow to import as the rest of matplotlib

    limbs, colours = np.array(cloud.layout.edges), side_colours(cloud.layout.joints)
    count = len(view["hypotheses"])
    inks = np.tile(colours[limbs[:, 1]], (count, 1))
    faint = float(np.clip(12 / count, 0.05, 0.6))
    many = list(view["hypotheses"][:, limbs].reshape(-1, 2, 2))
    axes.add_collection(LineCollection(many, colors=inks, linewidths=0.7, alpha=faint, zorder=1))
    bold = view["pose"][limbs]
    axes.add_collection(LineCollection(list(bold), colors=_HALO, linewidths=4.2, capstyle="round", zorder=3))
    axes.add_collection(LineCollection(list(bold), colors=colours[limbs[:, 1]], linewidths=2.4, capstyle="round", zorder=3))
    if "outlines" in view:
        edges = [AMBIGUOUS if doubtful else _QUIET for doubtful in cloud.ambiguous[frame]]
        axes.add_collection(PolyCollection(list(view["outlines"]), facecolors="none", edgecolors=edges, linewidths=0.8, zorder=2))
    if "truth" in view:
        axes.add_collection(LineCollection(list(view["truth"][limbs]), colors=TRUTH, linewidths=1.1, linestyles=(0, (3, 2)), zorder=4))
    for joint in np.flatnonzero(cloud.ambiguous[frame]):
        place = view["pose"][joint]
        axes.plot(*place, "o", markersize=10, markerfacecolor="none", markeredgecolor=AMBIGUOUS, markeredgewidth=1.5, zorder=5)
        label = f"{_spoken(cloud.layout.joints[joint])} ±{1000 * cloud.spread[frame, joint]:.0f} mm"
        paper = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
        axes.annotate(label, place, (8, 5), textcoords="offset points", fontsize=7, color=AMBIGUOUS, zorder=6, bbox=paper)


# ---- joint by joint ----------------------------------------------------------------------------------------------------


def on_map(points: np.ndarray, around: np.ndarray, side: int = 64) -> np.ndarray:
    """s/2 + s ((x, y) − c) / (1.2 m): poses (..., J, 3) as an upright camera far away would have them in a map of s × s cells.

    Args:
        around: (J, 3) the pose in whose box c is the middle and m the longer side, the truth or the consensus.

    Returns:
        (..., J, 2).
    """
    low, high = around[:, :2].min(0), around[:, :2].max(0)
    return side / 2 + side * (points[..., :2] - (low + high) / 2) / (MARGIN * max(float((high - low).max()), 1e-9))


def draw_joints(
    maps: np.ndarray, cloud: HypothesisCloud, frame: int = 0, *, columns: int = 4, inches: float = 10.0, dpi: int = 130
) -> Image:
    """Each joint's heatmap, and beside it where the hypotheses have that joint (:func:`on_map`, about the truth if there is one).

    Crosses are the consensus, pluses the truth.

    Args:
        maps: (16, h, h), joints of :data:`~dposer.body.skeleton.HEATMAP_16`.
        frame: which one of ``cloud``.
        inches: width.

    Raises:
        InputError: another number of maps, or joints that ``cloud`` lacks.
    """
    maps = finite(np.asarray(maps, np.float64), "heatmaps")
    rows = list(layout_map(cloud.layout.joints, HEATMAP_16.joints))
    if maps.ndim != 3 or len(maps) != len(rows) or maps.shape[1] != maps.shape[2] or min(rows) < 0:
        raise InputError(f"heatmaps: shape {maps.shape} for {cloud.layout.name}, expected ({len(rows)}, h, h) of joints that it has")
    side = maps.shape[1]
    around = cloud.pose[frame] if cloud.truth is None else cloud.truth[frame]
    places = {
        "hypotheses": cloud.hypotheses[frame],
        "pose": cloud.pose[frame],
        "truth": None if cloud.truth is None else cloud.truth[frame],
    }
    flat = {name: on_map(np.asarray(pose), around, side)[..., rows, :] for name, pose in places.items() if pose is not None}
    lines = -(-len(rows) // columns)
    wide, high = 2.25 * side, 1.25 * side
    figure = new_figure(inches, inches * lines * high / (columns * wide))
    figure.set_dpi(dpi)
    axes = figure.add_axes((0, 0, 1, 1))
    for joint, (name, colour) in enumerate(zip(HEATMAP_16.joints, side_colours(HEATMAP_16.joints), strict=True)):
        corner = np.array([joint % columns * wide + 0.06 * side, joint // columns * high + 0.2 * side])
        doubtful = bool(cloud.ambiguous[frame, rows[joint]])
        title = f"{_spoken(name)}  {maps[joint].max():.2f}  ±{1000 * cloud.spread[frame, rows[joint]]:.0f} mm"
        axes.text(*(corner - (0, 0.05 * side)), title, fontsize=7, color=AMBIGUOUS if doubtful else _INK)
        for tile in (0.0, 1.03 * side):
            edge = [corner[0] + tile, corner[0] + tile + side, corner[1] + side, corner[1]]
            if tile == 0:
                axes.imshow(maps[joint], extent=edge, cmap="magma", vmin=0, vmax=max(float(maps[joint].max()), 1e-6), zorder=1)
            else:
                axes.imshow(np.full((1, 1), 0.96), extent=edge, cmap="gray", vmin=0, vmax=1, zorder=1)
        beside = corner + (1.03 * side, 0)
        inside = beside + np.clip(flat["hypotheses"][:, joint], 0, side)
        axes.plot(*inside.T, ".", color=colour, markersize=2.5, alpha=0.35, markeredgewidth=0, zorder=2)
        for mark, which in (("x", "pose"), ("+", "truth")):
            if which in flat:
                axes.plot(*(beside + flat[which][joint]), mark, color=_INK, markersize=4, markeredgewidth=0.8, zorder=3)
    axes.set(xlim=(0, columns * wide), ylim=(lines * high, 0))
    quiet(figure)
    axes.set_axis_off()
    return rasterised(figure)


# ---- together ----------------------------------------------------------------------------------------------------------


def figure_sheet(
    cloud: HypothesisCloud,
    maps: np.ndarray | None = None,
    photo: Image | None = None,
    frame: int = 0,
    *,
    ellipsoids: bool = False,
    title: str | None = None,
    height: int = 650,
) -> Image:
    """The photograph, its heatmaps (:func:`draw_heatmaps`) and the hypotheses (:func:`draw_cloud`) side by side.

    Args:
        cloud, frame: what is drawn in space.
        maps: (16, h, w) of that frame; None: left out.
        photo: the crop that the maps are of; None: left out.
        title: a line above.
        height: pixels of each part.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    inches, parts = height / 130, []
    if photo is not None:
        wide = max(1, round(height * photo.shape[1] / max(photo.shape[0], 1)))
        parts.append((cv2.resize(checked_image(photo, "photo"), (wide, height), interpolation=cv2.INTER_AREA), "picture"))
    if maps is not None:
        parts.append((draw_heatmaps(maps, photo=photo, inches=inches), "heatmaps"))
    legend = "bold: consensus, rings: ambiguous" + ("" if cloud.truth is None else ", dashed: truth")
    parts.append((draw_cloud(cloud, frame, ellipsoids=ellipsoids, inches=inches), f"{cloud.hypotheses.shape[1]} hypotheses ({legend})"))
    return _in_a_row(parts, title)


def _in_a_row(parts: Sequence[tuple[Image, str]], title: str | None) -> Image:
    """Pictures of one height with captions above them."""
    text = max(12, parts[0][0].shape[0] // 32)
    above = text * (5 if title else 2)
    tall = above + max(image.shape[0] for image, _ in parts) + _GAP
    sheet = np.full((tall, sum(image.shape[1] + _GAP for image, _ in parts) + _GAP, 3), 255, np.uint8)
    if title:
        write_text(sheet, title, (sheet.shape[1] // 2, 3 * text // 2), 3 * text // 2, sheet.shape[1] - 2 * _GAP, 600, 40)
    left = _GAP
    for image, caption in parts:
        height, width = image.shape[:2]
        sheet[above : above + height, left : left + width] = image
        write_text(sheet, caption, (left + width // 2, above - text), text, width, 400, 90)
        left += width + _GAP
    return sheet


def _spoken(name: str) -> str:
    return name.replace("_", " ")
