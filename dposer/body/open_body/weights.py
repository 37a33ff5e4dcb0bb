"""Skinning weights: MakeHuman's 163 bones gathered into the 55 joints, the torso and the forearm redistributed."""

import numpy as np

from dposer.body.open_body.assets import Array, Assets
from dposer.body.open_body.mesh import Mesh
from dposer.body.open_body.t_pose import FINGERS, JOINT, JOINT_MIRROR
from dposer.body.skeleton import SMPLX_JOINTS

_TORSO = "torso"
_SIDES = {"L": "left", "R": "right"}
_LIMBS = {
    **dict.fromkeys(("upperleg01", "upperleg02"), "hip"),
    **dict.fromkeys(("lowerleg01", "lowerleg02"), "knee"),
    "foot": "ankle",
    **dict.fromkeys(("clavicle", "shoulder01"), "collar"),
    **dict.fromkeys(("upperarm01", "upperarm02"), "shoulder"),
    **dict.fromkeys(("lowerarm01", "lowerarm02"), "elbow"),
    **dict.fromkeys(("wrist", "metacarpal1", "metacarpal2", "metacarpal3", "metacarpal4"), "wrist"),
    **{f"finger{k}-{i}": f"{finger}{i}" for finger, k in FINGERS.items() for i in (1, 2, 3)},
    "eye": "eye",
}
_HALF_HEIGHT = {"spine1": 0.11, "spine2": 0.07, "spine3": 0.07}  # of the blend between neighbours of the spine, metres
_TWIST = 0.55  # the share of the forearm near the wrist that turns with the hand
_SMALLEST, _INFLUENCES = 0.002, 6


def skin_weights(assets: Assets, mesh: Mesh, vertices: Array, rest: Array) -> Array:
    """(V, 55) weights, rows sum to 1 and mirror exactly, from (V, 3) vertices and (55, 3) joints in MakeHuman's rest pose."""
    columns = {name: np.zeros(len(assets.base)) for name in (*SMPLX_JOINTS, _TORSO)}
    for bone, (ids, values) in assets.bone_weights.items():
        columns[_joint_of(assets, bone)][ids] += values
    weights = np.stack([columns[name] for name in SMPLX_JOINTS], axis=1)[mesh.base_vertex]
    weights += columns[_TORSO][mesh.base_vertex, None] * _along_spine(vertices, rest)
    for side in _SIDES.values():
        _share_twist(weights, vertices, rest, JOINT[f"{side}_elbow"], JOINT[f"{side}_wrist"])
    return _clean(weights, mesh)


def _joint_of(assets: Assets, bone: str) -> str:
    """The joint, or the torso, that a MakeHuman bone belongs to."""
    name, _, side = bone.partition(".")
    if name in _LIMBS:
        return f"{_SIDES[side]}_{_LIMBS[name]}"
    if name.startswith("toe"):
        return f"{_SIDES[side]}_foot"
    if name.startswith("neck"):
        return "neck"
    line = set(assets.ancestors(bone))
    return "jaw" if "jaw" in line else "head" if "head" in line else _TORSO


def _along_spine(vertices: Array, rest: Array) -> Array:
    """(V, 55) shares of pelvis, spine and neck in the torso, by height; they sum to 1."""
    x, y = np.abs(vertices[:, 0]), vertices[:, 1]
    above = [np.ones_like(y)]
    for name, half in _HALF_HEIGHT.items():
        middle = rest[JOINT[name], 1]
        above.append(_smoothstep(middle - half, middle + half, y))
    neck = rest[JOINT["neck"], 1]
    above.append(_smoothstep(neck - 0.03, neck + 0.07, y) * (1 - _smoothstep(0.07, 0.13, x)))
    falling = np.minimum.accumulate(above, axis=0)
    shares = np.zeros((len(y), 55))
    for i, name in enumerate(("pelvis", "spine1", "spine2", "spine3", "neck")):
        shares[:, JOINT[name]] = falling[i] - (falling[i + 1] if i + 1 < len(falling) else 0)
    return shares


def _share_twist(weights: Array, vertices: Array, rest: Array, elbow: int, wrist: int) -> None:
    """Hand part of the forearm's weight to the wrist, growing along the bone: no candy-wrapper when the hand turns."""
    bone = rest[wrist] - rest[elbow]
    along = (vertices - rest[elbow]) @ bone / (bone @ bone)
    moved = _TWIST * _smoothstep(0.3, 1.05, along) * weights[:, elbow]
    weights[:, elbow] -= moved
    weights[:, wrist] += moved


def _clean(weights: Array, mesh: Mesh) -> Array:
    """Symmetric, without specks, at most six influences, rows summing to 1."""
    weights = (weights + weights[mesh.mirror][:, JOINT_MIRROR]) / 2
    weights[weights < _SMALLEST] = 0
    sixth = np.partition(weights, -_INFLUENCES, axis=1)[:, -_INFLUENCES, None]
    weights[weights < sixth] = 0
    return weights / weights.sum(axis=1, keepdims=True)


def _smoothstep(a: float, b: float, x: Array) -> Array:
    t = np.clip((x - a) / (b - a), 0, 1)
    return t * t * (3 - 2 * t)
