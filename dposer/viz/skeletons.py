"""Stick figures: keypoints drawn on a picture, and joint trees in space."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import trimesh

from dposer.errors import InputError
from dposer.files import finite
from dposer.viz.render import Colour, Image, checked_image, render_mesh

LEFT = (0.93, 0.45, 0.20)
RIGHT = (0.18, 0.47, 0.78)
MIDDLE = (0.35, 0.37, 0.42)

_SUBPIXEL_BITS = 4


def side_colours(names: Sequence[str]) -> np.ndarray:
    """(J, 3) RGB: :data:`LEFT` for joints named ``left_…``, :data:`RIGHT` for ``right_…``, :data:`MIDDLE` for the rest."""
    return np.array([LEFT if name.startswith("left") else RIGHT if name.startswith("right") else MIDDLE for name in names])


def draw_keypoints(
    image: Image,
    keypoints: np.ndarray,
    edges: Sequence[tuple[int, int]],
    *,
    colours: Colour = LEFT,
    threshold: float = 0.0,
    radius: float | None = None,
) -> Image:
    """Dots at keypoints and lines along edges, over a copy of a picture.

    Args:
        image: (h, w, 3) uint8 RGB.
        keypoints: (J, 2) or (J, 3): x, y in pixels, confidence. Points with confidence not above ``threshold``, and NaN, are left out
            with their edges.
        edges: pairs of keypoint indices; an edge takes its second point's colour.
        colours: (3,) or (J, 3) RGB in [0, 1], such as :func:`side_colours`.
        radius: of the dots in pixels; by default a share of the picture's size.

    Raises:
        InputError: wrong shapes, or an edge that names no keypoint.
    """
    canvas = checked_image(image, "image").copy()
    keypoints = np.asarray(keypoints, np.float64)
    if keypoints.ndim != 2 or keypoints.shape[1] not in (2, 3):
        raise InputError(f"keypoints: shape {keypoints.shape}, expected (J, 2) or (J, 3)")
    for edge in edges:
        if len(edge) != 2 or not all(0 <= joint < len(keypoints) for joint in edge):
            raise InputError(f"edges: found {tuple(edge)}, expected two indices in 0..{len(keypoints) - 1} (one per keypoint)")
    radius = max(2.0, min(canvas.shape[:2]) / 120) if radius is None else radius
    shown = np.isfinite(keypoints).all(1)
    if keypoints.shape[1] == 3:
        shown &= keypoints[:, 2] > threshold
    far_outside = np.abs(keypoints[:, :2]) > 1e6  # beyond what a fixed-point coordinate holds
    shown &= ~far_outside.any(1)
    # OpenCV counts from pixel centres, keypoints from the corner of the first pixel.
    points = np.rint((np.where(shown[:, None], keypoints[:, :2], 0) - 0.5) * 2**_SUBPIXEL_BITS).astype(int)
    inks = np.rint(255 * np.broadcast_to(colours, (len(keypoints), 3))).astype(int).tolist()
    style: dict[str, Any] = {"lineType": cv2.LINE_AA, "shift": _SUBPIXEL_BITS}
    for a, b in edges:
        if shown[a] and shown[b]:
            cv2.line(canvas, points[a].tolist(), points[b].tolist(), inks[b], max(1, round(radius)), **style)
    for i in np.flatnonzero(shown):
        cv2.circle(canvas, points[i].tolist(), round((radius + 1) * 2**_SUBPIXEL_BITS), (255, 255, 255), -1, **style)
        cv2.circle(canvas, points[i].tolist(), round(radius * 2**_SUBPIXEL_BITS), inks[i], -1, **style)
    return canvas


def render_skeleton(joints: np.ndarray, parents: Sequence[int], *, colours: Colour = RIGHT, thickness: float = 0.018, **view: Any) -> Image:
    """A ball at each joint and a rod from each to its parent, drawn by :func:`dposer.viz.render.render_mesh`.

    Args:
        joints: (J, 3) or (N, J, 3) metres, y up. (Joints of a camera's frame, y down, become so by ``joints * (1, -1, -1)``.)
        parents: J indices, -1 for a root.
        colours: (3,) or (J, 3) RGB in [0, 1], such as :func:`side_colours`; a rod takes its child's colour.
        thickness: radius of a rod in metres.
        **view: ``view``, ``size``, ``fit``, ``centre`` (by default the mean joint) and the rest of :func:`render_mesh`.

    Returns:
        (h, w, 3) or (N, h, w, 3) uint8 RGB.

    Raises:
        InputError: wrong shapes, NaN, or a parent that names no joint.
    """
    joints = finite(np.asarray(joints), "joints").astype(np.float64)
    parent = np.asarray(parents)
    if joints.ndim not in (2, 3) or joints.shape[-2:] != (len(parent), 3):
        raise InputError(f"joints: shape {joints.shape}, expected ({len(parent)}, 3) or (N, {len(parent)}, 3) for {len(parent)} parents")
    if (parent < -1).any() or (parent >= len(parent)).any():
        raise InputError(f"parents: found {parent.min()}..{parent.max()}, expected -1..{len(parent) - 1}")
    child = np.flatnonzero(parent >= 0)
    ball, rod = trimesh.creation.icosphere(2, 1.6 * thickness), trimesh.creation.cylinder(thickness, 1.0, sections=16)
    balls = joints[..., :, None, :] + ball.vertices
    rods = lay_along(rod.vertices, joints[..., parent[child], :], joints[..., child, :])
    vertices = np.concatenate([part.reshape(*joints.shape[:-2], -1, 3) for part in (balls, rods)], -2)
    faces = np.concatenate([repeated_faces(ball, len(parent), 0), repeated_faces(rod, len(child), len(parent) * len(ball.vertices))])
    inks = np.broadcast_to(colours, (len(parent), 3))
    paint = np.concatenate([np.repeat(inks, len(ball.vertices), 0), np.repeat(inks[child], len(rod.vertices), 0)])
    view.setdefault("centre", joints.mean(-2))
    return render_mesh(vertices, faces, vertex_colours=paint, **view)


def lay_along(shape: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """``m + x e_1 + y e_2 + z (end - start)``: lay a shape (S, 3) of unit length along z between points (..., 3) → (..., S, 3)."""
    axis = end - start
    helper = np.eye(3)[np.abs(axis).argmin(-1)]  # the coordinate axis farthest from parallel
    first = np.cross(helper, axis)
    first = first / np.maximum(np.linalg.norm(first, axis=-1, keepdims=True), 1e-12)
    second = np.cross(axis, first)
    second = second / np.maximum(np.linalg.norm(second, axis=-1, keepdims=True), 1e-12)
    return (start + end)[..., None, :] / 2 + shape @ np.stack([first, second, axis], -2)


def repeated_faces(mesh: trimesh.Trimesh, times: int, offset: int) -> np.ndarray:
    """Faces of ``times`` copies of a mesh laid one after another, the first at vertex ``offset``."""
    copies = np.arange(times)[:, None, None] * len(mesh.vertices) + offset
    return (mesh.faces + copies).reshape(-1, 3)
