"""Draws meshes on the processor, with no graphics driver at all: perspective projection, depth test, interpolated colours."""

import cv2
import numpy as np

NEAR = 0.05
"""Metres in front of the camera; faces that reach nearer are left out."""


def available() -> bool:
    """Whether the installed OpenCV has a triangle rasteriser (it came with version 5)."""
    return hasattr(cv2, "triangleRasterize")


def rasterise(vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int], samples: int = 2) -> np.ndarray:
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
        (h, w, 4) float32: colour times coverage, coverage.
    """
    canvas = np.zeros((*size, 4), np.float32)
    homogeneous = vertices @ intrinsics.T
    depth = homogeneous[:, 2]
    faces = faces[(depth > NEAR)[faces].all(1)]
    if not len(faces):
        return canvas
    used = homogeneous[faces.ravel()]
    pixels = used[:, :2] / used[:, 2:]
    top_left = np.clip(np.floor(pixels.min(0)), 0, size[::-1]).astype(int)
    bottom_right = np.clip(np.ceil(pixels.max(0)), 0, size[::-1]).astype(int)
    width, height = bottom_right - top_left
    if width <= 0 or height <= 0:
        return canvas
    fine = np.array([width, height]) * samples
    # OpenCV's camera looks down -z with y up, its axis through the picture's middle and, at 90 degrees, a focal length of
    # half the picture's height; any other camera becomes that one by a shear of x and y along z, which keeps depth.
    offset = samples * homogeneous[:, :2] - (samples * top_left + fine / 2) * homogeneous[:, 2:]
    points = np.concatenate([offset * (2 / fine[1]) * (1, -1), -homogeneous[:, 2:]], 1)
    far = 1.01 * float(used[:, 2].max())
    colour_buffer = np.zeros((fine[1], fine[0], 3), np.float32)
    depth_buffer = np.full((fine[1], fine[0]), far, np.float32)
    settings = cv2.TriangleRasterizeSettings()
    settings.setCullingMode(cv2.RASTERIZE_CULLING_NONE)
    cv2.triangleRasterize(
        points.astype(np.float32), faces.astype(np.int32), colours.astype(np.float32), colour_buffer, depth_buffer,
        np.eye(4, dtype=np.float32), np.pi / 2, 0.9 * float(used[:, 2].min()), far, settings,
    )  # fmt: skip
    covered = (depth_buffer < far).astype(np.float32)
    window = canvas[top_left[1] : bottom_right[1], top_left[0] : bottom_right[0]]
    window[:] = cv2.resize(np.dstack([colour_buffer, covered]), (int(width), int(height)), interpolation=cv2.INTER_AREA)
    return canvas
