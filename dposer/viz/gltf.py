"""Writes a skinned, animated body as binary glTF 2.0 (``.glb``), which Blender, three.js and game engines open.

Source: glTF 2.0 specification (Khronos): skins 3.7.3, animations 3.11, the GLB container 4.4.
"""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dposer.data.smplx_motion import continuous
from dposer.errors import InputError
from dposer.files import PathLike, finite, save_bytes
from dposer.viz.render import CLAY, Colour, checked_mesh, vertex_normals

INFLUENCES = 4
"""Joints that may move one vertex: what every viewer supports."""

_COMPONENT = {np.dtype(np.uint16): 5123, np.dtype(np.uint32): 5125, np.dtype(np.float32): 5126}
_KIND = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
_ATTRIBUTE, _INDEX = 34962, 34963
_Z_UP_TO_Y_UP = [-(0.5**0.5), 0.0, 0.0, 0.5**0.5]
_GAMMA = 2.2
_FIRST = 2
"""Node of the first joint, after the world and the body."""


def save_animation(
    path: PathLike,
    vertices_rest: np.ndarray,
    faces: np.ndarray,
    weights: np.ndarray,
    joints_rest: np.ndarray,
    parents: Sequence[int],
    rotations: np.ndarray,
    translation: np.ndarray,
    fps: float,
    *,
    names: Sequence[str] | None = None,
    colour: Colour = CLAY,
    up: Literal["y", "z"] = "z",
) -> None:
    """``v_i = Σ_k w_ik G_k (v̄_i - J_k)``: a mesh at rest, its skeleton and the skeleton's rotations over time, in one ``.glb``.

    The viewer does the skinning, so the file stays small, and its pose-dependent corrections (``posedirs``) are left out. Of every
    vertex's weights the four largest are kept, scaled to sum to one.

    Args:
        path: ends in ``.glb``.
        vertices_rest: (V, 3) metres, the surface in the zero pose.
        faces: (M, 3) vertex indices.
        weights: (V, J) skinning weights.
        joints_rest: (J, 3) metres, the joints in the zero pose.
        parents: J indices, each smaller than the joint's own; -1 for the one root, which comes first.
        rotations: (F, K, 4) unit quaternions, x y z w, of the first K ≤ J joints relative to their parents; the others rest.
        translation: (F, 3) metres that the root moves from its place at rest (AMASS's ``trans``).
        fps: frames per second.
        names: J joint names.
        colour: RGB in [0, 1].
        up: which axis of the motion's world points up; glTF's is y, so that a world with z up is laid under a turned node.

    Raises:
        InputError: another suffix, shapes that do not go together, weights or quaternions that are not such, fps not positive, or a
            folder that cannot be written.
    """
    if Path(path).suffix.lower() != ".glb":
        raise InputError(f"{path}: suffix '{Path(path).suffix}', expected '.glb'")
    if not 0 < fps < np.inf:
        raise InputError(f"fps: found {fps}, expected a number above 0")
    if up not in ("y", "z"):
        raise InputError(f"up: found '{up}', expected 'y' or 'z'")
    vertices, faces = checked_mesh(vertices_rest, faces)
    joints = finite(np.asarray(joints_rest), "joints_rest").astype(np.float64)
    count = len(parents)
    _expect("vertices_rest", vertices, (len(vertices), 3))
    _expect("joints_rest", joints, (count, 3))
    if count == 0 or parents[0] != -1 or not all(0 <= parent < j for j, parent in enumerate(parents) if j):
        raise InputError(f"parents: found {list(parents)}, expected -1 (the root), then indices smaller than the joint's own")
    if names is not None and len(names) != count:
        raise InputError(f"names: found {len(names)}, expected {count} (one a joint)")
    influences, shares = strongest(weights, (len(vertices), count))
    turns = _unit(rotations, count)
    _expect("translation", np.asarray(translation), (len(turns), 3))
    moves = joints[0] + finite(np.asarray(translation), "translation")

    pack = _Pack()
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "dposer"},
        "scene": 0,
        "scenes": [{"nodes": [0, 1]}],
        "nodes": [
            {"name": "world", "children": [_FIRST], **({"rotation": _Z_UP_TO_Y_UP} if up == "z" else {})},
            {"name": "body", "mesh": 0, "skin": 0},
            *_joint_nodes(joints, parents, names or [f"joint_{j}" for j in range(count)]),
        ],
        "meshes": [{"name": "body", "primitives": [_surface(pack, vertices, faces, influences, shares)]}],
        "materials": [_matt(colour)],
        "skins": [{"joints": list(range(_FIRST, _FIRST + count)), "skeleton": 0, "inverseBindMatrices": pack.add(_inverse_bind(joints))}],
        "animations": [_animation(pack, np.arange(len(turns)) / fps, moves, turns)],
    }
    save_bytes(path, pack.glb(document))


def strongest(weights: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The :data:`INFLUENCES` joints of largest weight of every vertex, (V, 4), and their weights scaled to sum to one, (V, 4).

    Raises:
        InputError: weights that are not of ``shape`` (V, J), negative, or zero for all of a vertex's joints.
    """
    weights = finite(np.asarray(weights), "weights").astype(np.float64)
    _expect("weights", weights, shape)
    if (weights < 0).any() or not weights.any(1).all():
        raise InputError(f"weights: vertex {int(np.argmax((weights < 0).any(1) | ~weights.any(1)))} has negative or no weights")
    padded = np.pad(weights, ((0, 0), (0, max(0, INFLUENCES - shape[1]))))
    joints = np.argsort(-padded, axis=1, kind="stable")[:, :INFLUENCES]
    kept = np.take_along_axis(padded, joints, 1)
    return np.where(kept > 0, joints, 0), kept / kept.sum(1, keepdims=True)


class _Pack:
    """Collects arrays in one binary chunk and describes each by a buffer view and an accessor."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, array: np.ndarray, dtype: type = np.float32, target: int | None = None, bounds: bool = False) -> int:
        """The number of the new accessor. All dtypes and shapes used here keep the chunk aligned to four bytes."""
        array = np.ascontiguousarray(array, dtype)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": array.nbytes}
        self.views.append(view if target is None else {**view, "target": target})
        accessor = {
            "bufferView": len(self.views) - 1,
            "componentType": _COMPONENT[array.dtype],
            "count": len(array),
            "type": _KIND[array.shape[1:]],
        }
        if bounds:
            accessor |= {"min": np.atleast_1d(array.min(0)).tolist(), "max": np.atleast_1d(array.max(0)).tolist()}
        self.accessors.append(accessor)
        self.data += array.tobytes()
        return len(self.accessors) - 1

    def glb(self, document: dict[str, Any]) -> bytes:
        """Header, JSON chunk, binary chunk."""
        document |= {"buffers": [{"byteLength": len(self.data)}], "bufferViews": self.views, "accessors": self.accessors}
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(self.data), b"BIN\0") + self.data
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _joint_nodes(joints: np.ndarray, parents: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = []
    for j, (name, parent) in enumerate(zip(names, parents, strict=True)):
        offset = joints[j] - (joints[parent] if j else 0)
        children = [_FIRST + k for k, other in enumerate(parents) if other == j]
        nodes.append({"name": name, "translation": offset.tolist(), **({"children": children} if children else {})})
    return nodes


def _surface(pack: _Pack, vertices: np.ndarray, faces: np.ndarray, influences: np.ndarray, shares: np.ndarray) -> dict[str, Any]:
    attributes = {
        "POSITION": pack.add(vertices, target=_ATTRIBUTE, bounds=True),
        "NORMAL": pack.add(_upward_if_none(vertex_normals(vertices, faces)), target=_ATTRIBUTE),
        "JOINTS_0": pack.add(influences, np.uint16, _ATTRIBUTE),
        "WEIGHTS_0": pack.add(shares, target=_ATTRIBUTE),
    }
    return {"attributes": attributes, "indices": pack.add(faces.reshape(-1), np.uint32, _INDEX), "material": 0}


def _matt(colour: Colour) -> dict[str, Any]:
    rgb = np.asarray(colour, np.float64)
    if rgb.shape != (3,) or not ((rgb >= 0) & (rgb <= 1)).all():
        raise InputError(f"colour: found {colour}, expected three numbers (R, G, B) in [0, 1]")
    linear = rgb**_GAMMA  # glTF's factors are amounts of light, not values of a picture
    return {"pbrMetallicRoughness": {"baseColorFactor": [*linear.tolist(), 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.8}}


def _inverse_bind(joints: np.ndarray) -> np.ndarray:
    """Translations by ``-J_k``, (J, 4, 4), transposed: glTF stores matrices column by column."""
    matrices = np.tile(np.eye(4), (len(joints), 1, 1))
    matrices[:, 3, :3] = -joints
    return matrices


def _animation(pack: _Pack, seconds: np.ndarray, moves: np.ndarray, turns: np.ndarray) -> dict[str, Any]:
    """The root's path (F, 3) and the turns (F, K, 4) of the first K joints."""
    times = pack.add(seconds, bounds=True)
    tracks = [("translation", 0, moves), *(("rotation", j, turns[:, j]) for j in range(turns.shape[1]))]
    return {
        "name": "motion",
        "samplers": [{"input": times, "output": pack.add(values)} for _, _, values in tracks],
        "channels": [{"sampler": i, "target": {"node": _FIRST + j, "path": kind}} for i, (kind, j, _) in enumerate(tracks)],
    }


def _unit(rotations: np.ndarray, joints: int) -> np.ndarray:
    rotations = finite(np.asarray(rotations), "rotations").astype(np.float64)
    if rotations.ndim != 3 or rotations.shape[2] != 4 or not 0 < rotations.shape[1] <= joints or len(rotations) == 0:
        raise InputError(f"rotations: shape {rotations.shape}, expected (F, K, 4) with F at least 1 and K from 1 to {joints} (joints)")
    length = np.linalg.norm(rotations, axis=-1, keepdims=True)
    if np.abs(length - 1).max() > 1e-3:
        raise InputError(f"rotations: lengths {length.min():.3g} to {length.max():.3g}, expected unit quaternions (x, y, z, w)")
    return continuous(rotations / length)


def _upward_if_none(normals: np.ndarray) -> np.ndarray:
    """A vertex without faces has no normal, but a file must give it one of unit length."""
    return np.where(normals.any(1, keepdims=True), normals, (0.0, 1.0, 0.0))


def _expect(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise InputError(f"{name}: shape {array.shape}, expected {shape}")
