"""Films and figures of 2D keypoints lifted to 3D: the picture beside the skeleton in space, with all hypotheses as a cloud.

Points in space are in the camera's axes, metres (x right, y down, z away), relative to the pelvis.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from dposer.body.skeleton import Layout
from dposer.errors import InputError
from dposer.files import finite
from dposer.viz.plots import new_figure, pooled_columns, quiet, rasterised
from dposer.viz.render import Image, checked_image
from dposer.viz.sheet import write_text
from dposer.viz.skeletons import draw_keypoints, side_colours

BOX = 1.7
"""Side of the square of ground that is drawn around a person, metres."""
MEAN, JOINT, TRUTH = "#1b4332", "#c1121f", "#1d4ed8"
"""Of :func:`draw_hypotheses`: mean pose, joints chosen by reprojection, ground truth."""

_UPRIGHT = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""From the camera's axes to x right, y away, z up."""
_SETTLE, _FOLLOW = 0.3, 0.3
"""Seconds (standard deviation) over which the ground follows the feet, and the middle of the picture the person."""
_DISTANCE = 5.0
"""Metres from the eye to the person."""
_MESH = 0.5
"""Metres between the lines of the ground."""
_BITS = 4
_GAP = 6
_GROUND, _GRID, _PAPER, _INK, _EXACT = 244, (205, 208, 212), 255, 60, (20, 20, 20)
_VEIL = 0.45
"""Opacity of the cloud."""
_FAINT = 0.4
"""Of keypoints that were hidden."""


# --- films ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LiftingFilm:
    """A picture with keypoints, and the person in space from several sides; iterating draws frame by frame.

    In space the person walks over a ground that passes below, if it is known how the root moves; the ground follows the lowest joint,
    so that the camera may be tilted.
    """

    keypoints: np.ndarray
    """(F, K, 3) pixels and confidence; what has confidence 0 is not drawn."""
    keypoint_layout: Layout
    size: tuple[int, int]
    """Width and height of the picture, pixels."""
    poses: np.ndarray
    """(F, J, 3), drawn bold."""
    layout: Layout
    hypotheses: np.ndarray | None = None
    """(H, F, J, 3), drawn thin."""
    truth: np.ndarray | None = None
    """(F, J, 3), drawn in black."""
    root: np.ndarray | None = None
    """(F, 3) metres before the camera."""
    fps: float = 30.0
    pictures: Iterable[Image] = ()
    """Of the frames, (h, w, 3) uint8 RGB; a plain ground where there is none (any more)."""
    height: int = 480
    """Of a pane, pixels."""
    azimuths: Sequence[float] = (0.0, 90.0)
    """Degrees about the vertical of each view of the person; 0 is the camera's own."""
    elevation: float = 15.0
    """Degrees that they look down."""
    turn: float = 0.0
    """Degrees a second by which the views go round."""
    captions: Sequence[str] = field(default=())
    """Of the picture and of each view."""
    hidden: np.ndarray | None = None
    """(F, K) bool: keypoints that are drawn faintly, since they were not lifted."""

    def __post_init__(self) -> None:
        frames, joints = len(self.poses), len(self.layout.joints)
        count = 0 if self.hypotheses is None else len(self.hypotheses)
        shapes: dict[str, tuple[int, ...]] = {
            "keypoints": (frames, len(self.keypoint_layout.joints), 3), "poses": (frames, joints, 3), "truth": (frames, joints, 3),
            "root": (frames, 3), "hypotheses": (count, frames, joints, 3), "hidden": (frames, len(self.keypoint_layout.joints)),
        }  # fmt: skip
        for name, shape in shapes.items():
            found = getattr(self, name)
            if found is not None and np.shape(found) != shape:
                raise InputError(f"{name}: shape {np.shape(found)}, expected {shape}")
        for name in ("poses", "hypotheses", "root"):
            if getattr(self, name) is not None:
                finite(np.asarray(getattr(self, name)), name)
        if not frames or min(self.size) < 1 or self.height < 32:
            raise InputError(f"film: {frames} frames of {self.size} pixels, {self.height} high, expected some, and at least 32 high")

    def __len__(self) -> int:
        return len(self.poses)

    def __iter__(self) -> Iterator[Image]:
        for frame, picture in enumerate(itertools.islice(itertools.chain(self.pictures, itertools.repeat(None)), len(self))):
            yield self.draw(frame, picture)

    def draw(self, frame: int, picture: Image | None = None) -> Image:
        """(h, w, 3) uint8 RGB, the same size for every frame."""
        panes = [self._picture(frame, picture), *(self._view(frame, azimuth) for azimuth in self.azimuths)]
        gap = np.full((self.height, _GAP, 3), _PAPER, np.uint8)
        row = np.concatenate([part for pane in panes for part in (pane, gap)][:-1], axis=1)
        return np.concatenate([self._head, row]) if any(self.captions) else row

    # ---- the picture

    @cached_property
    def _width(self) -> int:
        """Of the picture's pane."""
        width, height = self.size
        return max(self.height // 2, round(self.height * width / height))

    def _picture(self, frame: int, picture: Image | None) -> Image:
        scale = min(self._width / self.size[0], self.height / self.size[1])
        width, height = round(scale * self.size[0]), round(scale * self.size[1])
        pane = np.full((self.height, self._width, 3), _PAPER, np.uint8)
        top, left = (self.height - height) // 2, (self._width - width) // 2
        inside = pane[top : top + height, left : left + width]
        shrink = picture is not None and checked_image(picture, f"picture {frame}").shape[0] > height
        how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        inside[:] = _GROUND if picture is None else cv2.resize(picture, (width, height), interpolation=how)
        points, colours = self.keypoints[frame] * (scale, scale, 1), side_colours(self.keypoint_layout.joints)
        if self.hidden is not None and self.hidden[frame].any():
            everything = draw_keypoints(inside, points, self.keypoint_layout.edges, colours=colours)
            inside[:] = cv2.addWeighted(everything, _FAINT, inside, 1 - _FAINT, 0)
            points[self.hidden[frame], 2] = 0
        inside[:] = draw_keypoints(inside, points, self.keypoint_layout.edges, colours=colours)
        return pane

    # ---- the person in space

    @cached_property
    def _lift(self) -> np.ndarray:
        """(F, 3): what takes poses, upright, to the place where they stand."""
        lowest = (self.poses @ _UPRIGHT.T)[..., 2].min(1)
        place = np.zeros((len(self), 3)) if self.root is None else _smooth(self.root @ _UPRIGHT.T, _FOLLOW / 3 * self.fps)
        place[:, 2] = -_smooth(lowest, _SETTLE * self.fps)
        return place

    @cached_property
    def _middles(self) -> np.ndarray:
        """(F, 3): what the views look at."""
        middles = _smooth(self._lift, _FOLLOW * self.fps)
        middles[:, 2] = 0.4 * BOX
        return middles

    @cached_property
    def _reach(self) -> float:
        """Metres about the middle that are in the picture: of all but the most extreme moments."""
        places = self.poses @ _UPRIGHT.T + (self._lift - self._middles)[:, None]
        return max(0.72 * BOX, 1.05 * float(np.quantile(np.linalg.norm(places, axis=-1).max(1), 0.99)))

    def _view(self, frame: int, azimuth: float) -> Image:
        eye = _Eye(azimuth + self.turn * frame / self.fps, self.elevation, self._middles[frame], self._reach, self.height)
        pane = np.full((self.height, self.height, 3), _PAPER, np.uint8)
        _segments(pane, eye.project(_ground(self._middles[frame])), _GRID, 1)
        if self.hypotheses is not None and len(self.hypotheses) > 1:
            self._draw_cloud(pane, eye.project(self._placed(self.hypotheses[:, frame], frame)))
        if self.truth is not None:
            limbs = self._limbs[np.isfinite(self.truth[frame, self._limbs]).all((1, 2))]
            _segments(pane, eye.project(self._placed(np.nan_to_num(self.truth[frame]), frame))[limbs], _EXACT, 1)
        place = self._placed(self.poses[frame], frame)
        self._draw_bold(pane, eye.project(place), eye.depths(place))
        return pane

    def _draw_cloud(self, pane: Image, points: np.ndarray) -> None:
        """(H, J, 2) pixels, thin and translucent."""
        cloud = pane.copy()
        for ink in {tuple(row) for row in self._inks.tolist()}:
            limbs = self._limbs[(self._inks[self._limbs[:, 1]] == ink).all(1)]
            _segments(cloud, points[:, limbs].reshape(-1, 2, 2), ink, 1)
        cv2.addWeighted(cloud, _VEIL, pane, 1 - _VEIL, 0, dst=pane)

    def _draw_bold(self, pane: Image, points: np.ndarray, depths: np.ndarray) -> None:
        """(J, 2) pixels; what is nearer hides what is behind."""
        thick, style = max(2, round(self.height / 120)), {"lineType": cv2.LINE_AA, "shift": _BITS}
        for start, end in self._limbs[np.argsort(-depths[self._limbs].mean(1))]:
            _segments(pane, np.stack([points[start], points[end]])[None], self._inks[end].tolist(), thick)
        for joint in np.argsort(-depths):
            cv2.circle(pane, _fixed(points[joint]).tolist(), round(0.8 * thick * 2**_BITS), self._inks[joint].tolist(), -1, **style)

    @cached_property
    def _limbs(self) -> np.ndarray:
        return np.array(self.layout.edges)

    @cached_property
    def _inks(self) -> np.ndarray:
        return np.rint(255 * side_colours(self.layout.joints)).astype(int)

    def _placed(self, points: np.ndarray, frame: int) -> np.ndarray:
        return points @ _UPRIGHT.T + self._lift[frame]

    @cached_property
    def _head(self) -> Image:
        """The captions."""
        size = int(np.clip(self.height / 24, 11, 36))
        widths = [self._width, *[self.height] * len(self.azimuths)]
        head = np.full((2 * size, sum(widths) + _GAP * (len(widths) - 1), 3), _PAPER, np.uint8)
        left = 0
        for text, width in zip(self.captions, widths, strict=False):
            write_text(head, text, (left + width // 2, size), size, width, 400, _INK)
            left += width + _GAP
        return head


@dataclass(frozen=True)
class _Eye:
    """Looks at a point from ``_DISTANCE`` away, so that a ball of ``reach`` about it fills a square picture."""

    azimuth: float
    elevation: float
    middle: np.ndarray
    reach: float
    size: int

    @cached_property
    def _rotation(self) -> np.ndarray:
        """Upright axes → x right, y down, z away."""
        turn = Rotation.from_euler("zx", (-self.azimuth, self.elevation), degrees=True).as_matrix()
        return _UPRIGHT.T @ turn

    def depths(self, points: np.ndarray) -> np.ndarray:
        return (points - self.middle) @ self._rotation[2] + _DISTANCE

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres, upright → (..., 2) pixels."""
        seen = (points - self.middle) @ self._rotation.T
        focal = self.size / 2 * np.sqrt(_DISTANCE**2 - min(self.reach, 0.9 * _DISTANCE) ** 2) / self.reach
        return focal * seen[..., :2] / np.maximum(seen[..., 2:] + _DISTANCE, 0.1) + self.size / 2


def _ground(middle: np.ndarray) -> np.ndarray:
    """(N, 2, 3): the square about a point, and lines within it that stay where they are when the point moves."""
    lines = []
    for axis in (0, 1):
        low, high = middle[axis] - BOX / 2, middle[axis] + BOX / 2
        across = [low, *np.arange(np.ceil(low / _MESH), np.floor(high / _MESH) + 1) * _MESH, high]
        for place in across:
            line = np.zeros((2, 3))
            line[:, axis] = place
            line[:, 1 - axis] = middle[1 - axis] - BOX / 2, middle[1 - axis] + BOX / 2
            lines.append(line)
    return np.array(lines)


def _segments(canvas: Image, ends: np.ndarray, ink: Sequence[int], thickness: int) -> None:
    """Lines (N, 2, 2) in one colour."""
    cv2.polylines(canvas, list(_fixed(ends)), False, tuple(ink), thickness, cv2.LINE_AA, _BITS)


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(points, -1e5, 1e5) * 2**_BITS).astype(np.int32)


def _smooth(values: np.ndarray, deviation: float) -> np.ndarray:
    return gaussian_filter1d(np.asarray(values, np.float64), max(deviation, 1e-3), axis=0, mode="nearest")


# --- figures -------------------------------------------------------------------------------------------------------------


def draw_hypotheses(
    hypotheses: np.ndarray,
    layout: Layout,
    *,
    mean: np.ndarray | None = None,
    joint: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    azimuth: float = 0.0,
    elevation: float = 15.0,
    inches: float = 5.0,
    dpi: int = 300,
) -> Image:
    """All hypotheses of one pose, dashed, with what was made of them, as papers on diffusion-based lifting print them.

    Args:
        hypotheses: (H, J, 3), each in a colour of its own.
        mean: (J, 3) their mean pose, in dark green.
        joint: (J, 3) put together of joints chosen by reprojection, in red.
        truth: (J, 3), in blue.
        azimuth, elevation: degrees; 0, 0 is the camera's own view.
        inches: height of the figure.

    Returns:
        (h, w, 3) uint8 RGB; ±0.5 m to the sides and ±0.75 m upwards about the pelvis.

    Raises:
        InputError: wrong shapes or NaN.
    """
    from mpl_toolkits.mplot3d.art3d import Line3DCollection  # as slow to import as the rest of matplotlib

    figure = new_figure(0.7 * inches, inches)
    figure.set_dpi(dpi)
    axes: Any = figure.add_subplot(projection="3d", computed_zorder=False)
    root = layout.joints.index("pelvis")

    def skeleton(pose: np.ndarray, name: str, **style: Any) -> None:
        pose = finite(np.asarray(pose, np.float64), name)
        if pose.shape != (len(layout.joints), 3):
            raise InputError(f"{name}: shape {pose.shape}, expected ({len(layout.joints)}, 3) of {layout.name}")
        pose = (pose - pose[root]) @ _UPRIGHT.T
        axes.add_collection3d(Line3DCollection(pose[np.array(layout.edges)], clip_on=False, zorder=3, **style))

    for number, pose in enumerate(np.asarray(hypotheses)):
        skeleton(pose, "hypotheses", color=_hue(number), linestyle="dashed", linewidth=0.5)
    for pose, name, colour, width in ((truth, "truth", TRUTH, 0.9), (mean, "mean", MEAN, 0.7), (joint, "joint", JOINT, 0.7)):
        if pose is not None:
            skeleton(pose, name, color=colour, linewidth=width)
    axes.set(xlim=(-0.5, 0.5), ylim=(-0.5, 0.5), zlim=(-0.75, 0.75), xticklabels=(), yticklabels=(), zticklabels=())
    axes.set_box_aspect((1, 1, 1.5), zoom=1.45)
    axes.view_init(elev=elevation, azim=azimuth - 90)
    return rasterised(figure)


def plot_spread(spread: np.ndarray, names: Sequence[str], fps: float | None = None, title: str | None = None) -> Image:
    """How far hypotheses are apart over time: the mean of all joints above a strip of each, in millimetres.

    Args:
        spread: (F, J) metres.
        names: J joints.
        fps: frames a second; None numbers the frames.

    Raises:
        InputError: shapes that do not go together, or NaN.
    """
    spread = 1000 * finite(np.asarray(spread, np.float64), "spread")
    if spread.ndim != 2 or not len(spread) or spread.shape[1] != len(names):
        raise InputError(f"spread: shape {spread.shape}, expected (F, {len(names)}) for {len(names)} names, and a frame")
    figure = new_figure(10, 2.4 + 0.19 * len(names), layout="constrained")
    curve, strip = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1.6, 0.19 * len(names))})
    rate = fps or 1.0
    curve.plot(np.arange(len(spread)) / rate, spread.mean(1), color=MEAN, linewidth=1, marker="." if len(spread) == 1 else "")
    curve.set_ylim(bottom=0)
    curve.set_ylabel("mean, mm", fontsize=8)
    curve.set_title(title or "spread of the hypotheses", loc="left", fontsize=10)
    extent = (-0.5 / rate, (len(spread) - 0.5) / rate, len(names) - 0.5, -0.5)
    pooled = -pooled_columns(-spread, 1200)  # the largest of those that share a column
    shown = strip.imshow(pooled.T, aspect="auto", interpolation="nearest", cmap="magma_r", vmin=0, extent=extent)
    strip.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    strip.set_xlabel("seconds" if fps else "frame", fontsize=8)
    figure.colorbar(shown, ax=strip, pad=0.01).set_label("mm", fontsize=8)
    quiet(figure)
    return rasterised(figure)


def _hue(number: int) -> tuple[float, float, float]:
    """The n-th of endlessly many colours, each far from those before it: hues a golden section apart."""
    hue = number * 0.61803398875 % 1
    red, green, blue = cv2.cvtColor(np.array([[[360 * hue, 0.75, 0.85]]], np.float32), cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue
