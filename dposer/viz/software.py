"""Draws meshes on the processor, with no graphics driver at all: perspective projection, depth test, interpolated colours."""

import cv2
import numpy as np

NEAR = 0.05
"""Metres in front of the camera; faces that reach nearer are left out."""


def available() -> bool:
    """Whether the installed OpenCV has a triangle rasteriser (it came with version 5)."""
    return hasattr(cv2, "triangleRasterize")


def rasterise(
    vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int], samples: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """``z (u, v, 1) = K (x, y, z)``: project, keep the nearest surface, average ``samples²`` points a pixel.

    Both sides of a face are drawn. Coverage is averaged together with colour, so an outline blends into any background.

    Args:
        vertices: (V, 3) metres; x right, y down, z away from the camera.
        faces: (F, 3) vertex indices.
        colours: (V, 3) in [0, 1], final (already lit).
        intrinsics: (3, 3) ``K`` in pixels; pixel (0, 0) spans [0, 1) × [0, 1).
        size: (h, w) of the image.
        samples: points along each side of a pixel.

    Returns:
        Colour times coverage, (h, w, 3) float32, and coverage, (h, w) float32.
    """
    colour, coverage = np.zeros((*size, 3), np.float32), np.zeros(size, np.float32)
    homogeneous = vertices @ intrinsics.T
    depth = homogeneous[:, 2]
    faces, used = in_front(faces, depth)
    if not len(faces):
        return colour, coverage
    pixels = homogeneous[used, :2].T / depth[used]
    left, top = np.clip(np.floor(pixels.min(1)), 0, size[::-1]).astype(int)
    right, bottom = np.clip(np.ceil(pixels.max(1)), 0, size[::-1]).astype(int)
    if right <= left or bottom <= top:
        return colour, coverage
    # OpenCV's camera looks down -z with y up, its axis through the picture's middle and, at 90 degrees, a focal length of
    # half the picture's height; any other camera becomes that one by a shear of x and y along z, which keeps depth.
    middle = np.array([left + right, top + bottom]) / 2
    points = np.column_stack([(homogeneous[:, :2] - middle * depth[:, None]) * (2 / (bottom - top)) * (1, -1), -depth])
    nearest, farthest = float(depth[used].min()), float(depth[used].max())
    fine = ((bottom - top) * samples, (right - left) * samples)
    fine_colour, fine_depth = np.zeros((*fine, 3), np.float32), np.full(fine, 2 * farthest, np.float32)
    settings = cv2.TriangleRasterizeSettings()  # OpenCV leaves it uninitialised: all three are needed
    settings.setCullingMode(cv2.RASTERIZE_CULLING_NONE)
    settings.setShadingType(cv2.RASTERIZE_SHADING_SHADED)
    settings.setGlCompatibleMode(cv2.RASTERIZE_COMPAT_DISABLED)
    cv2.triangleRasterize(
        points.astype(np.float32), faces.astype(np.int32), colours.astype(np.float32), fine_colour, fine_depth,
        np.eye(4, dtype=np.float32), np.pi / 2, 0.9 * nearest, 2 * farthest, settings,
    )  # fmt: skip
    covered = (fine_depth < 1.5 * farthest).astype(np.float32)  # half-way to the fill, which OpenCV may return rounded
    window = np.s_[top:bottom, left:right]
    shape = (int(right - left), int(bottom - top))
    colour[window] = cv2.resize(fine_colour, shape, interpolation=cv2.INTER_AREA)
    coverage[window] = cv2.resize(covered, shape, interpolation=cv2.INTER_AREA)
    return colour, coverage


def in_front(faces: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The faces that lie wholly beyond :data:`NEAR`, (F', 3), and a mask (V,) of the vertices they use."""
    seen = depth > NEAR
    if not seen.all():
        faces = faces[seen[faces[:, 0]] & seen[faces[:, 1]] & seen[faces[:, 2]]]
    used = np.zeros(len(depth), bool)
    used[faces.ravel()] = True
    return faces, used
