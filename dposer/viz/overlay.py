"""Pictures of bodies fitted to a photograph: over it, beside its keypoints, from the side and from above.

Bodies are in the camera's frame, metres: x right, y down, z away from the camera. Points are in pixels of the photograph, (0, 0) being
the corner of its first pixel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from dposer.errors import InputError
from dposer.viz.render import CLAY, Colour, Image, checked_image, checked_mesh, render_camera
from dposer.viz.sheet import contact_sheet, write_text
from dposer.viz.skeletons import LEFT, draw_keypoints

PEOPLE = np.array([CLAY, (0.93, 0.74, 0.58), (0.66, 0.82, 0.62), (0.85, 0.66, 0.80), (0.92, 0.84, 0.52), (0.58, 0.81, 0.83)])
"""One colour a person; the seventh has the first again."""
RESIDUAL = (0.86, 0.10, 0.20)

_OPACITIES = 5
"""In so many steps."""
_MESH_PIXELS = 48.0
"""Between the lines of a grid, at least."""
_MARGIN = 0.06
"""Of the picture's side, around what is seen from the side and from above."""
_NEARLY_PARALLEL = 100.0
"""The camera of those stands this many times the size of the scene away from it."""
_GRID, _GROUND, _LABEL = (225, 225, 225), (150, 150, 150), 110

Meshes = Sequence[np.ndarray] | np.ndarray


def overlay(
    image: Image,
    meshes: Meshes,
    faces: np.ndarray,
    focal: float | tuple[float, float],
    centre: tuple[float, float],
    *,
    colours: Colour | None = None,
    opacity: float = 0.85,
    renderer: str = "auto",
) -> Image:
    """``u = f_x x / z + c_x,  v = f_y y / z + c_y``: people over their photograph; who is nearer hides who is behind.

    Args:
        image: (h, w, 3) uint8 RGB.
        meshes: P times (V, 3).
        faces: (F, 3) vertex indices, the same for all.
        focal: one focal length or (f_x, f_y), pixels.
        centre: principal point, pixels.
        colours: (3,) or (P, 3) RGB in [0, 1]; by default :data:`PEOPLE`.
        opacity: of the nearest surface; 1 hides the photograph behind it.
        renderer: see :func:`dposer.viz.render.render_mesh`.

    Returns:
        (h, w, 3) uint8 RGB; a copy of the photograph if there is nobody.

    Raises:
        InputError: wrong shapes, NaN.
    """
    if len(meshes) == 0:
        return checked_image(image, "image").copy()
    scene = _scene(meshes, faces, colours)
    return render_camera(
        scene.vertices, scene.faces, focal, centre, image=image, vertex_colours=scene.colours, opacity=opacity, renderer=renderer
    )


def draw_detections(
    image: Image, points: np.ndarray, edges: Sequence[tuple[int, int]], *, colours: Colour = LEFT, radius: float | None = None
) -> Image:
    """Keypoints of several people; the less sure one is, the fainter. A limb is as faint as the fainter of its ends.

    Args:
        image: (h, w, 3) uint8 RGB.
        points: (P, K, 3) pixels and confidence in [0, 1], or (P, K, 2); what has confidence 0 or is not finite is not drawn.
        edges: pairs of keypoint indices.
        colours: (3,) or (K, 3) RGB in [0, 1], such as :func:`dposer.viz.skeletons.side_colours`.
        radius: of the dots in pixels; by default in proportion to the people.

    Raises:
        InputError: wrong shapes, or an edge that names no keypoint.
    """
    points = _detections(points, "points")
    people, count = points.shape[:2]
    canvas = checked_image(image, "image").copy()
    if points.size == 0:
        return canvas
    for edge in edges:
        if len(edge) != 2 or not all(0 <= joint < count for joint in edge):
            raise InputError(f"edges: found {tuple(edge)}, expected two indices in 0..{count - 1} (one per keypoint)")
    level = np.ceil(np.clip(points[..., 2], 0, 1) * _OPACITIES).ravel()
    pairs = (np.array(edges, int).reshape(-1, 2) + count * np.arange(people)[:, None, None]).reshape(-1, 2)
    faintest = level[pairs].min(1)
    places, paint = points[..., :2].reshape(-1, 2), np.tile(np.broadcast_to(colours, (count, 3)), (people, 1))
    radius = _radius(points, canvas.shape) if radius is None else radius
    for k in range(1, _OPACITIES + 1):
        limbs = pairs[faintest == k]
        shown = level == k
        shown[limbs] = True  # the surer ends too: they are drawn again, and more clearly
        if shown.any():
            drawn = draw_keypoints(canvas, np.column_stack([places, shown]), limbs.tolist(), colours=paint, radius=radius)
            canvas = cv2.addWeighted(drawn, k / _OPACITIES, canvas, 1 - k / _OPACITIES, 0)
    return canvas


def draw_residuals(
    image: Image, measured: np.ndarray, projected: np.ndarray, *, colours: Colour = LEFT, radius: float | None = None
) -> Image:
    """A line from each measured keypoint to where the body has it, in :data:`RESIDUAL`; as faint as the measurement is unsure.

    Args:
        measured: (P, K, 3) pixels and confidence, or (P, K, 2).
        projected: (P, K, 2) pixels.
        image, colours, radius: as in :func:`draw_detections`; ``colours`` are those of what was measured.

    Raises:
        InputError: as :func:`draw_detections`.
    """
    measured, projected = _pair(measured, projected)
    count = measured.shape[1]
    ends = np.concatenate([projected, measured[..., 2:]], -1)
    paint = np.concatenate([np.broadcast_to(colours, (count, 3)), np.broadcast_to(RESIDUAL, (count, 3))])
    radius = 0.6 * _radius(measured, image.shape) if radius is None else radius
    lines = [(joint, count + joint) for joint in range(count)]
    return draw_detections(image, np.concatenate([measured, ends], 1), lines, colours=paint, radius=radius)


def mean_residual(measured: np.ndarray, projected: np.ndarray) -> float:
    """Mean of ‖m − p‖ over the keypoints that were measured, in pixels; NaN if there are none.

    Args:
        measured: (P, K, 3) pixels and confidence, or (P, K, 2).
        projected: (P, K, 2) pixels.
    """
    measured, projected = _pair(measured, projected)
    seen = measured[..., 2] > 0
    return float(np.linalg.norm(measured[..., :2] - projected, axis=-1)[seen].mean()) if seen.any() else float("nan")


def side_and_top(
    meshes: Meshes, faces: np.ndarray, *, size: tuple[int, int] = (512, 512), colours: Colour | None = None, renderer: str = "auto"
) -> tuple[Image, Image]:
    """The bodies as seen from the camera's right, and from above it, both in one scale and from far away.

    The camera that took the photograph is on the left of the first picture and below the second. Grey lines are a grid whose step is
    written in the corner; the darker one is the ground, taken to be level with the lowest point of all.

    Args:
        meshes: P times (V, 3), at least one.
        faces: (F, 3) vertex indices, the same for all.
        size: (h, w) of each picture.
        colours, renderer: as in :func:`overlay`.

    Returns:
        Two pictures (h, w, 3) uint8 RGB.

    Raises:
        InputError: no meshes, wrong shapes, NaN.
    """
    if len(meshes) == 0:
        raise InputError("meshes: found none, expected at least one")
    scene = _scene(meshes, faces, colours)
    seen = [scene.vertices @ rotation.T for rotation in (_FROM_SIDE, _FROM_ABOVE)]
    extents = np.array([np.ptp(points[:, :2], axis=0) for points in seen])
    room = np.array(size[::-1]) * (1 - 2 * _MARGIN)
    scale = float((room / np.maximum(extents, 1e-6)).min())
    side, top = (_parallel(points, scene, scale, size, ground, renderer) for points, ground in zip(seen, (True, False), strict=True))
    return side, top


def fit_sheet(
    image: Image,
    meshes: Meshes,
    faces: np.ndarray,
    focal: float | tuple[float, float],
    centre: tuple[float, float],
    measured: np.ndarray,
    projected: np.ndarray,
    edges: Sequence[tuple[int, int]],
    *,
    point_colours: Colour = LEFT,
    colours: Colour | None = None,
    title: str | None = None,
    longest: int = 720,
    renderer: str = "auto",
) -> Image:
    """What one looks at to judge a fit, on one sheet: bodies over the photograph, keypoints with their residuals, side and top views.

    Args:
        image, meshes, faces, focal, centre, colours, renderer: as in :func:`overlay`, at least one mesh.
        measured, projected, edges: as in :func:`draw_residuals` and :func:`draw_detections`.
        point_colours: (3,) or (K, 3) RGB of what was measured.
        title: a line above.
        longest: side of each of the four pictures in pixels; the photograph is scaled to it.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: wrong shapes, NaN, no mesh.
    """
    measured, projected = _pair(measured, projected)
    height, width = checked_image(image, "image").shape[:2]
    scale = longest / max(height, width)
    shape = max(1, round(scale * width)), max(1, round(scale * height))
    small = cv2.resize(image, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    zoom = np.array(shape) / (width, height)
    fx, fy = zoom * np.broadcast_to(focal, 2)
    cx, cy = zoom * np.asarray(centre)
    fit = overlay(small, meshes, faces, (fx, fy), (cx, cy), colours=colours, renderer=renderer)
    points, ends = measured * (*zoom, 1), projected * zoom
    keypoints = draw_residuals(draw_detections(small, points, edges, colours=point_colours), points, ends, colours=point_colours)
    side, top = side_and_top(meshes, faces, size=small.shape[:2], colours=colours, renderer=renderer)
    gap = mean_residual(measured, projected)
    caption = "no keypoints" if np.isnan(gap) else f"keypoints, {gap:.1f} px from the body's in red"
    captions = ("fit", caption, "from the camera's right", "from above")
    return contact_sheet((fit, keypoints, side, top), captions, columns=2 if width > height else 4, title=title)


# --- pieces --------------------------------------------------------------------------------------------------------------

_FROM_SIDE = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
_FROM_ABOVE = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
"""Rotations from the camera's frame to that of one which looks along its -x, and one which looks along its +y."""


class _Scene(NamedTuple):
    """All bodies as one mesh, so that they share a depth buffer."""

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray


def _scene(meshes: Meshes, faces: np.ndarray, colours: Colour | None) -> _Scene:
    shapes = {np.shape(mesh) for mesh in meshes}
    if len(shapes) != 1:
        raise InputError(f"meshes: shapes {sorted(shapes)}, expected one shape (V, 3) for all")
    stacked, faces = checked_mesh(np.stack([np.asarray(mesh) for mesh in meshes]), faces)
    people, count = stacked.shape[:2]
    paint = PEOPLE[np.arange(people) % len(PEOPLE)] if colours is None else np.asarray(colours)
    if paint.shape not in ((3,), (people, 3)):
        raise InputError(f"colours: shape {paint.shape}, expected (3,) or ({people}, 3)")
    copies = faces + count * np.arange(people)[:, None, None]
    every = np.repeat(np.broadcast_to(paint, (people, 3)), count, axis=0)
    return _Scene(stacked.reshape(-1, 3), copies.reshape(-1, 3), every)


def _parallel(points: np.ndarray, scene: _Scene, scale: float, size: tuple[int, int], ground: bool, renderer: str) -> Image:
    """A view along z at ``scale`` pixels a metre, over a grid that may stand on the ground."""
    low, high = points.min(0), points.max(0)
    middle = (low + high) / 2
    origin = np.array(size[::-1]) / 2 - scale * middle[:2]  # where the point (0, 0) of the plane is, in pixels
    page = _grid(size, scale, origin, high[1] if ground else None)
    distance = _NEARLY_PARALLEL * float((high - low).max() + 1e-3)
    ahead = points - middle + (0, 0, distance)
    half = (size[1] / 2, size[0] / 2)
    return render_camera(ahead, scene.faces, scale * distance, half, image=page, vertex_colours=scene.colours, renderer=renderer)


def _grid(size: tuple[int, int], scale: float, origin: np.ndarray, ground: float | None) -> Image:
    """Lines at whole multiples of a round step; those across count from the ground if there is one."""
    height, width = size
    page = np.full((height, width, 3), 255, np.uint8)
    step = _round_up(_MESH_PIXELS / scale)
    floor = origin[1] + (scale * ground if ground is not None else 0)
    for column in np.arange(origin[0] % (scale * step), width, scale * step).round().astype(int).tolist():
        cv2.line(page, (column, 0), (column, height), _GRID, 1)
    for row in np.arange(floor % (scale * step), height, scale * step).round().astype(int).tolist():
        cv2.line(page, (0, row), (width, row), _GRID, 1)
    if ground is not None:
        cv2.line(page, (0, round(floor)), (width, round(floor)), _GROUND, 2)
    text = max(9, min(size) // 28)
    write_text(page, f"{step:g} m", (3 * text, height - text), text, 5 * text, 400, _LABEL)
    return page


def _round_up(length: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not less."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(power * next(digit for digit in (1, 2, 5, 10) if digit * power >= length))


def _detections(points: np.ndarray, name: str) -> np.ndarray:
    """(P, K, 3) with confidence 0 where anything is not finite."""
    points = np.asarray(points, np.float64)
    if points.ndim != 3 or points.shape[2] not in (2, 3):
        raise InputError(f"{name}: shape {points.shape}, expected (P, K, 3) or (P, K, 2): people, keypoints, x, y and confidence")
    known = np.isfinite(points).all(-1)
    confidence = points[..., 2] if points.shape[2] == 3 else np.ones(points.shape[:2])
    return np.concatenate([points[..., :2], np.where(known, confidence, 0)[..., None]], -1)


def _pair(measured: np.ndarray, projected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measured points (P, K, 3), with confidence 0 where the projection is not finite, and projected ones (P, K, 2)."""
    measured, projected = _detections(measured, "measured"), np.asarray(projected, np.float64)
    if projected.shape != (*measured.shape[:2], 2):
        raise InputError(f"projected: shape {projected.shape}, expected {(*measured.shape[:2], 2)}, one point for each measured")
    known = np.isfinite(projected).all(-1, keepdims=True)
    return np.concatenate([measured[..., :2], measured[..., 2:] * known], -1), projected


def _radius(points: np.ndarray, shape: tuple[int, ...]) -> float:
    """Of dots that suit both the picture and the median person in it."""
    seen = np.where(points[..., 2:] > 0, points[..., :2], np.nan)
    some = seen[np.isfinite(seen).all(-1).sum(1) > 1]
    person = np.median((np.nanmax(some, 1) - np.nanmin(some, 1)).max(-1)) if len(some) else np.inf
    return max(1.5, min(min(shape[:2]) / 120, person / 80))
