"""Films of motions: bodies and point clouds on a common stage, side by side, drawn one frame at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np
import trimesh
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from dposer.errors import InputError
from dposer.files import finite
from dposer.viz.render import CLAY, DISTANCE, FOCAL, SIZE, Colour, Image, fit_camera, render_camera, view_rotation
from dposer.viz.sheet import contact_sheet, write_text
from dposer.viz.skeletons import RIGHT, lay_along, repeated_faces

Up = Literal["y", "z"]
Track = np.ndarray | Callable[[int], np.ndarray]
"""Points over time: an array (F, N, 3), or a function from a frame's number to (N, 3), called when that frame is drawn."""

_TO_Y_UP = {"y": np.eye(3), "z": Rotation.from_euler("x", -90, degrees=True).as_matrix()}
_UP_AXIS = {"y": 1, "z": 2}
_PLANE = {"y": [0, 2], "z": [0, 1]}
_GAP = 4
_PROBES = 64
_SMALLEST = 32


def heading(root_orient: np.ndarray, up: Up = "z") -> float:
    """Radians about the vertical by which a body is turned, counterclockwise seen from above: where its rest pose's +z points.

    0 faces -y in a world with z up, and +z in one with y up.

    Args:
        root_orient: (3,) axis-angle of the pelvis.

    Raises:
        InputError: another shape.
    """
    if np.shape(root_orient) != (3,):
        raise InputError(f"root_orient: shape {np.shape(root_orient)}, expected (3,), the axis-angle of one frame")
    forward = _TO_Y_UP[up] @ Rotation.from_rotvec(root_orient).apply([0, 0, 1])
    return float(np.arctan2(forward[0], forward[2]))


@dataclass(frozen=True)
class MeshLayer:
    """A surface in motion."""

    vertices: Track
    """(F, V, 3) metres."""
    faces: np.ndarray
    """(M, 3) vertex indices."""
    colour: Colour = CLAY
    """(3,) or (V, 3) RGB in [0, 1]."""
    opacity: float = 1.0
    """1 hides what was painted before, 0 is invisible."""

    @property
    def track(self) -> Track:
        return self.vertices

    def mesh(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices, faces and colours to draw."""
        return vertices, self.faces, np.broadcast_to(self.colour, vertices.shape)


@dataclass(frozen=True)
class PointLayer:
    """Points in motion as balls, and rods between them; a point that is not finite is missing, with its rods, in that frame."""

    points: Track
    """(F, K, 3) metres."""
    edges: Sequence[tuple[int, int]] = ()
    """Pairs of points; a rod takes its second point's colour."""
    colour: Colour = RIGHT
    """(3,) or (K, 3) RGB in [0, 1]."""
    radius: float = 0.025
    """Of a ball, metres."""
    opacity: float = 1.0
    """1 hides what was painted before, 0 is invisible."""

    @property
    def track(self) -> Track:
        return self.points

    def mesh(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices, faces and colours to draw."""
        shown = np.isfinite(points).all(1)
        for edge in self.edges:
            if len(edge) != 2 or not all(0 <= point < len(points) for point in edge):
                raise InputError(f"edges: found {tuple(edge)}, expected two indices in 0..{len(points) - 1} (one per point)")
        start, end = np.array(self.edges, int).reshape(-1, 2).T
        places = np.where(shown[:, None], points, 0)
        ball, rod = self._shapes
        balls = places[:, None] + ball.vertices
        rods = lay_along(rod.vertices, places[start], places[end])
        faces = [
            repeated_faces(ball, len(points), 0)[np.repeat(shown, len(ball.faces))],
            repeated_faces(rod, len(start), balls.size // 3)[np.repeat(shown[start] & shown[end], len(rod.faces))],
        ]
        inks = np.broadcast_to(self.colour, points.shape)
        colours = [np.repeat(inks, len(ball.vertices), 0), np.repeat(inks[end], len(rod.vertices), 0)]
        return np.concatenate([balls.reshape(-1, 3), rods.reshape(-1, 3)]), np.concatenate(faces), np.concatenate(colours)

    @cached_property
    def _shapes(self) -> tuple[trimesh.Trimesh, trimesh.Trimesh]:
        return trimesh.creation.icosphere(1, self.radius), trimesh.creation.cylinder(0.4 * self.radius, 1.0, sections=8)


Layer = MeshLayer | PointLayer


@dataclass(frozen=True)
class Pane:
    """One picture of several: layers are painted in order, each over those before it, whatever lies nearer."""

    caption: str
    layers: Sequence[Layer]


@dataclass(frozen=True)
class Stage:
    """``x' = R (x - c_f) + (0, 0, distance)``: where a film's camera stands in frame f (x' right, y' down, z' away), and the ground.

    Made by :meth:`around`.
    """

    rotation: np.ndarray
    """(3, 3) ``R``, from the world to the camera."""
    centres: np.ndarray
    """(F, 3) ``c_f``, the points looked at; all one point if the camera stands still."""
    distance: float
    """Metres from the camera to the point looked at."""
    intrinsics: np.ndarray
    """(3, 3) pixels."""
    size: tuple[int, int]
    """(h, w)."""
    up: Up
    floor: float | None
    """Height of the ground, None for an empty stage."""

    @classmethod
    def around(
        cls,
        path: np.ndarray,
        *,
        floor: float | None = None,
        up: Up = "z",
        view: str = "front",
        heading: float = 0.0,
        tilt: float = 10.0,
        size: tuple[int, int] = (384, 384),
        reach: float = 1.2,
        roam: float = 4.0,
        smooth: float = 20.0,
    ) -> "Stage":
        """A camera that keeps everything within ``reach`` of a path in its picture.

        It stands still, looking at the middle of the path, unless the path leads farther than ``roam``: then it goes along with the
        path, low-pass filtered.

        Args:
            path: (F, 3) metres, what the film is about, such as the pelvis.
            floor: height of the ground (see :func:`lowest`); None draws none.
            up: the world's vertical axis.
            view: see :func:`dposer.viz.render.view_rotation`.
            heading: radians about the vertical by which the person is turned that ``view`` is about (see :func:`heading`).
            tilt: degrees that the camera looks down, beside what ``view`` says.
            size: (h, w) of a pane.
            reach: metres.
            roam: metres, the longest horizontal side of the path that is filmed from one place.
            smooth: standard deviation of the low-pass filter, in frames.

        Raises:
            InputError: an empty or wrongly shaped path, NaN in it, an unknown view or axis, or lengths that are not positive.
        """
        path = finite(np.asarray(path), "path").astype(np.float64)
        if path.ndim != 2 or path.shape[1] != 3 or len(path) == 0:
            raise InputError(f"path: shape {path.shape}, expected (F, 3) with F at least 1")
        if up not in _TO_Y_UP:
            raise InputError(f"up: found '{up}', expected 'y' or 'z'")
        if not (reach > 0 and smooth > 0):
            raise InputError(f"reach, smooth: found {reach} and {smooth}, expected numbers above 0")
        if len(size) != 2 or min(size) < _SMALLEST:
            raise InputError(f"size: found {size}, expected two whole numbers (h, w) of at least {_SMALLEST}")
        axis = _UP_AXIS[up]
        facing = Rotation.from_euler("x", tilt, degrees=True).as_matrix() @ view_rotation(view)
        rotation = np.diag([1.0, -1.0, -1.0]) @ facing @ Rotation.from_euler("y", -heading).as_matrix() @ _TO_Y_UP[up]
        follows = np.delete(np.ptp(path, axis=0), axis).max() > roam
        centres = _smoothed(path, smooth) if follows else np.tile((path.min(0) + path.max(0)) / 2, (len(path), 1))
        framed = path[:, None] + reach * np.concatenate([np.eye(3), -np.eye(3)])
        if floor is not None:
            framed[..., axis] = np.maximum(framed[..., axis], floor)
        height, width = size
        focal = FOCAL * min(height / SIZE[0], width / SIZE[1])
        lens = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        intrinsics, distance = fit_camera((framed - centres[:, None]) @ rotation.T, lens, size, DISTANCE)
        return cls(rotation, centres, distance, intrinsics, size, up, floor)

    def __len__(self) -> int:
        return len(self.centres)

    @property
    def steady(self) -> bool:
        """Whether the camera stands still."""
        return bool((self.centres == self.centres[0]).all())

    def seen(self, points: np.ndarray, frame: int) -> np.ndarray:
        """Points (N, 3) of the world as the camera sees them."""
        return (points - self.centres[frame]) @ self.rotation.T + (0, 0, self.distance)

    def backdrop(self, frame: int) -> Image:
        """The empty stage: tiles of one metre, fixed in the world, that fade into white."""
        if self.floor is None:
            return np.full((*self.size, 3), 255, np.uint8)
        axis, plane = _UP_AXIS[self.up], _PLANE[self.up]
        eye = self.centres[frame] - self.distance * self.rotation[2]
        drop = self.floor - eye[axis]
        depths, slopes, widths = self._falls
        ground = eye[plane] + drop * slopes
        fade = np.exp(-((ground - self.centres[frame][plane]) ** 2).sum(-1) / (0.5 * self.distance) ** 2)
        fade[drop * depths < 0] = 0  # above the horizon, where rays meet the plane behind the camera
        grey = 1 - fade * (0.16 - 0.06 * _chequers(ground, abs(drop) * widths))
        return cv2.cvtColor(np.rint(255 * grey).astype(np.uint8), cv2.COLOR_GRAY2RGB)

    @cached_property
    def _falls(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the ray through each pixel's middle, per metre that it rises: (h, w) metres away from the camera, (h, w, 2) metres
        along the ground, and (h, w, 2) the metres of ground that the pixel spans."""
        rows, columns = np.indices(self.size) + 0.5
        rays = np.stack([columns, rows, np.ones(self.size)], -1) @ np.linalg.inv(self.intrinsics).T @ self.rotation
        rise = rays[..., _UP_AXIS[self.up]]
        depths = 1 / np.where(np.abs(rise) < 1e-6, 1e-6, rise)
        slopes = rays[..., _PLANE[self.up]] * depths[..., None]
        return depths, slopes, np.abs(np.gradient(slopes, axis=0)) + np.abs(np.gradient(slopes, axis=1))


def lowest(layers: Iterable[Layer], frames: int, up: Up = "z") -> float:
    """Height, in metres, of the lowest point of the surfaces among the layers, or of the point layers if there are no surfaces.

    Looks at up to 64 frames spread over all ``frames``, so that a long film is not posed twice.

    Raises:
        InputError: nothing but missing points.
    """
    layers = list(layers)
    solid = [layer for layer in layers if isinstance(layer, MeshLayer)] or layers
    probes = np.unique(np.linspace(0, frames - 1, min(frames, _PROBES)).astype(int))
    parts = [_at(layer.track, frame) for layer in solid for frame in probes]
    points = np.concatenate([part[np.isfinite(part).all(1)] for part in parts]) if parts else np.zeros((0, 3))
    if not len(points):
        raise InputError("layers: found no point that is not missing, expected some to find the ground under")
    return float(points[:, _UP_AXIS[up]].min())


def film(panes: Sequence[Pane], stage: Stage, frames: Iterable[int] | None = None) -> Iterator[Image]:
    """Pictures of the panes side by side under their captions, each drawn when it is asked for.

    Args:
        panes: at least one; all are seen by the stage's one camera.
        frames: numbers of the frames to draw, by default all of the stage's.

    Returns:
        an iterator over (H, W, 3) uint8 RGB, as :func:`dposer.viz.video.write_video` takes them.

    Raises:
        InputError: no panes, a layer with another number of frames than the stage has, or a frame that does not exist. What
            :func:`dposer.viz.render.render_camera` refuses is raised when the frame is drawn.
    """
    chosen = list(range(len(stage)) if frames is None else frames)
    if not panes:
        raise InputError("panes: found none, expected at least one")
    for pane in panes:
        for layer in pane.layers:
            if isinstance(layer.track, np.ndarray) and (layer.track.ndim != 3 or len(layer.track) != len(stage)):
                raise InputError(
                    f"pane '{pane.caption}': a layer of shape {layer.track.shape}, expected ({len(stage)}, N, 3) as the stage's path"
                )
    if not all(0 <= frame < len(stage) for frame in chosen):
        raise InputError(f"frames: found {min(chosen)}..{max(chosen)}, expected 0..{len(stage) - 1}")
    return _film(panes, stage, chosen)


def film_sheet(panes: Sequence[Pane], stage: Stage, count: int = 12, *, fps: float | None = None, columns: int | None = None) -> Image:
    """``count`` frames spread over a film on one sheet, with their times: a motion at a glance.

    Args:
        fps: gives the times in seconds; None counts frames.
        columns: frames a row, see :func:`dposer.viz.sheet.contact_sheet`.

    Raises:
        InputError: ``count`` below 1, or as :func:`film`.
    """
    if count < 1:
        raise InputError(f"count: found {count}, expected at least 1 frame")
    chosen = np.unique(np.linspace(0, len(stage) - 1, count).round().astype(int)).tolist()
    captions = [f"frame {frame}" if fps is None else f"{frame / fps:.2f} s" for frame in chosen]
    return contact_sheet(list(film(panes, stage, chosen)), captions, columns)


def _film(panes: Sequence[Pane], stage: Stage, frames: Sequence[int]) -> Iterator[Image]:
    height, width = stage.size
    head = _captions([pane.caption for pane in panes], width)
    picture = np.full((len(head) + height, head.shape[1], 3), 255, np.uint8)
    picture[: len(head)] = head
    backdrop = None
    for frame in frames:
        if backdrop is None or not stage.steady:
            backdrop = stage.backdrop(frame)
        for i, pane in enumerate(panes):
            left = i * (width + _GAP)
            picture[len(head) :, left : left + width] = _draw(pane, stage, frame, backdrop)
        yield picture.copy()


def _draw(pane: Pane, stage: Stage, frame: int, picture: Image) -> Image:
    (fx, fy), (cx, cy) = stage.intrinsics[(0, 1), (0, 1)], stage.intrinsics[:2, 2]
    for layer in pane.layers:
        vertices, faces, colours = layer.mesh(_at(layer.track, frame))
        if len(faces):
            seen = stage.seen(vertices, frame)
            picture = render_camera(seen, faces, (fx, fy), (cx, cy), image=picture, vertex_colours=colours, opacity=layer.opacity)
    return picture


def _captions(texts: Sequence[str], width: int) -> Image:
    """The line above the panes, (0, W, 3) if no pane has a caption."""
    size = int(np.clip(width / 18, 11, 36))
    line = np.full((2 * size if any(texts) else 0, len(texts) * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for i, text in enumerate(texts):
        if text:
            write_text(line, text, (i * (width + _GAP) + width // 2, size), size, width, 400, 40)
    return line


def _at(track: Track, frame: int) -> np.ndarray:
    points = np.asarray(track(frame) if callable(track) else track[frame])
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"frame {frame} of a layer: shape {points.shape}, expected (N, 3)")
    return points


def _chequers(points: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Mean of ``s(x) s(y)``, with ``s`` ±1 on every other metre, over boxes of ``widths`` about points of a plane: (h, w, 2) → (h, w).

    The mean of ``s`` is a difference of its integral, a triangle wave, so tiles smaller than a pixel turn grey, not noisy.
    """
    widths = np.maximum(widths, 1e-6)
    upper, lower = (1 - np.abs((points + sign * widths / 2) % 2 - 1) for sign in (1, -1))
    return ((upper - lower) / widths).prod(-1)


def _smoothed(path: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian low-pass along a path (F, 3), which is continued beyond its ends by point reflection so that nothing lags there."""
    margin = int(np.ceil(4 * deviation))
    longer = np.pad(path, ((margin, margin), (0, 0)), mode="reflect", reflect_type="odd")
    return gaussian_filter1d(longer, deviation, axis=0)[margin:-margin]
