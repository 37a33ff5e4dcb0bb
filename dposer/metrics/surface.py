"""Distance of points to a surface: of markers to the skin of the body that was fitted to them."""

import numpy as np
import trimesh
from scipy.spatial import cKDTree

from dposer.errors import InputError

_TIED = 1e-9
"""Faces whose distances differ by no more than this share of the mesh's size are equally close: they meet in the closest point."""


def surface_distance(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray) -> np.ndarray:
    """``± min_t ‖p - closest point of triangle t‖``, positive outside: (F, V, 3) and (F, K, 3) to (F, K), exact.

    A triangle lies within its radius ``r_t`` about its centroid ``g_t``, and the closest centroid is a point of the surface. So the
    closest triangle is among those with ``‖p - g_t‖ - r_t ≤ min_u ‖p - g_u‖``, and only these are measured. Of triangles that meet in
    the closest point, the one that faces the point most gives the sign.

    Args:
        vertices: metres, or any unit.
        faces: (M, 3) vertex indices, counter-clockwise seen from outside.
        points: NaN where missing.

    Returns:
        NaN where the point is missing.

    Raises:
        InputError: shapes that do not go together, indices out of range, or vertices that are not finite.
    """
    vertices, points, faces = np.asarray(vertices, np.float64), np.asarray(points, np.float64), np.asarray(faces)
    if vertices.ndim != 3 or points.ndim != 3 or vertices.shape[::2] != points.shape[::2] or points.shape[2] != 3:
        raise InputError(f"surface: vertices {vertices.shape} and points {points.shape}, expected (F, V, 3) and (F, K, 3) of one F")
    if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0 or not np.issubdtype(faces.dtype, np.integer):
        raise InputError(f"surface: faces of shape {faces.shape} and type {faces.dtype}, expected (M, 3) integers")
    if not 0 <= faces.min() <= faces.max() < vertices.shape[1]:
        raise InputError(f"surface: faces index vertices {faces.min()} to {faces.max()}, expected 0 to {vertices.shape[1] - 1}")
    if not np.isfinite(vertices).all():
        raise InputError("surface: vertices hold NaN or infinity, expected finite positions; drop those frames")
    result = np.full(points.shape[:2], np.nan)
    seen = np.isfinite(points).all(-1)
    for frame in np.flatnonzero(seen.any(1)):  # each has a tree of its own
        result[frame, seen[frame]] = _distance(vertices[frame][faces], points[frame, seen[frame]])
    return result


def _distance(triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(K,) of triangles (M, 3, 3) to points (K, 3)."""
    row, face = _candidates(triangles, points)
    away = points[row] - trimesh.triangles.closest_point(triangles[face], points[row])
    length = np.linalg.norm(away, axis=-1)
    closest = np.full(len(points), np.inf)
    np.minimum.at(closest, row, length)
    a, b, c = triangles[face].transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    rise = (away * normal).sum(-1) / np.maximum(np.linalg.norm(normal, axis=-1), np.finfo(float).tiny)
    rise[length > closest[row] + _TIED * np.ptp(triangles, axis=(0, 1)).max()] = 0
    highest, deepest = np.zeros(len(points)), np.zeros(len(points))
    np.maximum.at(highest, row, rise)
    np.minimum.at(deepest, row, rise)
    return np.where(highest >= -deepest, closest, -closest)


def _candidates(triangles: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a point and a triangle that may be its closest."""
    centroids = triangles.mean(1)
    radius = np.linalg.norm(triangles - centroids[:, None], axis=-1).max(1)
    tree = cKDTree(centroids)
    bound = tree.query(points)[0] * (1 + 1e-9)
    near = tree.query_ball_point(points, bound + radius.max())
    row, face = np.repeat(np.arange(len(points)), [len(ids) for ids in near]), np.concatenate(near).astype(int)
    may = np.linalg.norm(points[row] - centroids[face], axis=-1) - radius[face] <= bound[row]
    return row[may], face[may]
