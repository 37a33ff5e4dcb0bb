"""Keypoint vertices, face landmarks, and the vertex order that puts the former where readers of SMPL-X files look for them."""

import numpy as np

from dposer.body.open_body.assets import Array, Ids
from dposer.body.open_body.mesh import Mesh
from dposer.errors import InputError

# Keypoint -> (vertex of MakeHuman's base mesh, index under which the package smplx looks for it in an SMPL-X file).
KEYPOINTS: dict[str, tuple[int, int]] = {
    "nose": (5054, 9120), "reye": (14679, 9929), "leye": (14607, 9448), "rear": (5536, 616), "lear": (12135, 6),
    "rthumb": (2767, 8079), "rindex": (1930, 7669), "rmiddle": (2122, 7794), "rring": (2453, 7905), "rpinky": (2506, 8022),
    "lthumb": (9435, 5361), "lindex": (8598, 4933), "lmiddle": (8790, 5058), "lring": (9121, 5169), "lpinky": (9174, 5286),
    "LBigToe": (11551, 5770), "LSmallToe": (13280, 5780), "LHeel": (12453, 8846),
    "RBigToe": (4933, 8463), "RSmallToe": (6684, 8474), "RHeel": (5856, 8635),
}  # fmt: skip

_YAW_BINS = 79

# Landmarks by (x, y) on the front of the template, centimetres; the subject's right side is -x.
_BROW = [(-5.0, 32.5), (-4.3, 33.2), (-3.4, 33.4), (-2.4, 33.3), (-1.3, 32.9)]
_BRIDGE = [(0.0, 31.8), (0.0, 30.5), (0.0, 29.2), (0.0, 27.9)]
_NOSTRILS = [(-1.2, 27.1), (-0.6, 26.8), (0.0, 26.6)]
_EYE = [(-4.45, 31.65), (-3.7, 32.05), (-2.8, 32.05), (-1.95, 31.4), (-2.7, 31.25), (-3.7, 31.25)]
_UPPER_LIP, _LOWER_LIP = [(-2.45, 24.65), (-1.6, 25.05), (-0.6, 25.25), (0.0, 25.15)], [(0.0, 23.35), (-0.7, 23.45), (-1.7, 23.9)]
_UPPER_GAP, _LOWER_GAP = [(-2.1, 24.6), (-0.8, 24.75), (0.0, 24.75)], [(0.0, 24.55), (-0.8, 24.55)]
_JAW = [(-7.3, 30.5), (-7.2, 29.0), (-6.9, 27.2), (-6.1, 25.4), (-5.3, 23.5), (-4.3, 22.2), (-3.0, 21.2), (-1.5, 20.55), (0.0, 20.5)]

_Points = list[tuple[float, float]]


def slot_order(mesh: Mesh) -> Ids:
    """(V,) permutation: new vertex i is old vertex ``order[i]``. Only pairs are swapped, to bring each keypoint to its slot."""
    order = np.arange(len(mesh.base_vertex))
    for base_id, slot in KEYPOINTS.values():
        place = np.flatnonzero(mesh.base_vertex[order] == base_id).item()
        order[[place, slot]] = order[[slot, place]]
    return order


def face_landmarks(template: Array, triangles: Ids) -> dict[str, Array | Ids]:
    """The 51 inner landmarks of the iBUG list (17..67) and its 17 of the jaw, as triangles and barycentric coordinates.

    The jaw does not depend on the view here: its points are repeated for every yaw bin of the dynamic contour.
    """
    eye = _mirrored(_EYE)
    inner = (
        _there_and_back(_BROW, middle=False)
        + _BRIDGE
        + _there_and_back(_NOSTRILS)
        + _EYE
        + [eye[i] for i in (3, 2, 1, 0, 5, 4)]
        + _there_and_back(_UPPER_LIP)
        + _back_and_there(_LOWER_LIP)
        + _there_and_back(_UPPER_GAP)
        + _back_and_there(_LOWER_GAP)
    )
    faces, coordinates = _cast(template, triangles, inner)
    jaw_faces, jaw_coordinates = _cast(template, triangles, _there_and_back(_JAW))
    return {
        "lmk_faces_idx": faces,
        "lmk_bary_coords": coordinates,
        "dynamic_lmk_faces_idx": np.tile(jaw_faces, (_YAW_BINS, 1)),
        "dynamic_lmk_bary_coords": np.tile(jaw_coordinates, (_YAW_BINS, 1, 1)),
    }


def _mirrored(points: _Points) -> _Points:
    return [(-x, y) for x, y in points]


def _there_and_back(points: _Points, middle: bool = True) -> _Points:
    """From the right to the midline and on to the left; the last point is on the midline, and not doubled, if ``middle``."""
    return points + _mirrored(points[: -1 if middle else None])[::-1]


def _back_and_there(points: _Points) -> _Points:
    """From the left to the midline, the first point, and on to the right."""
    return _mirrored(points[:0:-1]) + points


def _cast(vertices: Array, triangles: Ids, points: _Points) -> tuple[Ids, Array]:
    """First triangle (n,) that a ray along -z meets at each (x, y) in centimetres, and the (n, 3) barycentric coordinates of the hit."""
    corners = vertices[triangles]
    a, b, c = (corners[:, k, :2] for k in range(3))
    area = _cross(b - a, c - a)
    with np.errstate(divide="ignore"):
        inverse = 1 / area
    faces, coordinates = [], []
    for x, y in points:
        p = np.array([x, y]) / 100
        v, w = _cross(p - a, c - a) * inverse, _cross(b - a, p - a) * inverse
        bary = np.stack([1 - v - w, v, w], axis=1)
        hit = np.isfinite(bary).all(axis=1) & (bary.min(axis=1) > -1e-9)
        if not hit.any():
            raise InputError(f"landmark at ({x}, {y}) cm: no surface there; the template is not the one that the landmarks were made for")
        depth = (np.where(hit[:, None], bary, 0) * corners[..., 2]).sum(axis=1)
        face = int(np.where(hit, depth, -np.inf).argmax())
        faces.append(face)
        coordinates.append(np.clip(bary[face], 0, 1) / np.clip(bary[face], 0, 1).sum())
    return np.array(faces), np.stack(coordinates)


def _cross(a: Array, b: Array) -> Array:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
