"""Joints of the open body, and the T-pose as inverse skinning of MakeHuman's A-pose.

The A-shaped sculpture is not skinned into a T: the template is chosen such that posing it back gives the sculpture exactly,
so that arms-down poses, which are the common ones, look as they were sculpted.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from dposer.body.open_body.assets import Array, Assets
from dposer.body.skeleton import SMPLX_JOINTS, SMPLX_PARENTS, mirror_name

JOINT = {name: i for i, name in enumerate(SMPLX_JOINTS)}
JOINT_MIRROR = np.array([JOINT[mirror_name(name)] for name in SMPLX_JOINTS])
FLIP = np.array([-1.0, 1.0, 1.0])  # mirrors a point
FINGERS = {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "pinky": 5}  # MakeHuman's numbers

_PELVIS = np.array([0.0, -0.35, 0.01])
_REFERENCE_STATURE = 1.72
_MIDDLE_OR_LEFT = tuple(name for name in SMPLX_JOINTS if not name.startswith("right_"))

# Joint -> MakeHuman bone whose head it follows, and the offset from there (metres at the reference stature).
_BONES: dict[str, tuple[str, tuple[float, float, float]]] = {
    "pelvis": ("spine05", (0, 0.045, 0.035)),
    "spine1": ("spine03", (0, -0.010, 0.030)),
    "spine2": ("spine02", (0, 0.040, 0.025)),
    "spine3": ("spine01", (0, -0.045, 0.065)),
    "neck": ("neck01", (0, -0.065, 0.005)),
    "head": ("head", (0, -0.005, -0.010)),
    "jaw": ("jaw", (0, 0, 0)),
    "left_hip": ("upperleg01.L", (-0.055, -0.045, 0.020)),
    "left_knee": ("lowerleg01.L", (0, 0, 0)),
    "left_ankle": ("foot.L", (0, 0, 0)),
    "left_foot": ("toe3-1.L", (0.005, -0.010, -0.025)),
    "left_collar": ("clavicle.L", (0.025, -0.070, 0.010)),
    "left_shoulder": ("upperarm01.L", (0, -0.005, 0)),
    "left_elbow": ("lowerarm01.L", (0, 0, 0)),
    "left_wrist": ("wrist.L", (0, 0, 0)),
    **{f"left_{finger}{i}": (f"finger{k}-{i}.L", (0, 0, 0)) for finger, k in FINGERS.items() for i in (1, 2, 3)},
}

# Further offsets, given in the axes of the T-pose.
_T_OFFSETS = {"left_elbow": (0, -0.015, 0), "left_wrist": (0.010, -0.004, 0), "left_thumb1": (0.010, -0.018, 0)}

# Where the bones of the left side point in the T-pose.
_UPPER_ARM, _FOREARM = (0.262, -0.045, -0.040), (0.2505, 0, -0.009)
_HAND, _KNUCKLES = (0.110, -0.009, -0.004), (0.018, 0, 0.063)  # wrist to middle knuckle, pinky knuckle to index knuckle
_THIGH, _SHANK = (-0.005, -0.41, 0), (-0.029, -0.407, -0.026)
_FINGER = {"index": (1, 0, 0.09), "middle": (1, 0, -0.13), "ring": (1, 0, -0.2), "pinky": (0.79, -0.02, -0.60)}
_THUMB = ((0.70, -0.10, 0.70), (0.56, 0.03, 0.83), (0.78, -0.15, 0.60))
_COLLAR_DEGREES, _FOOT_DEGREES = 8, 5


@dataclass(frozen=True)
class Pose:
    """A person's joints in MakeHuman's rest pose and in the T-pose, and how the one turns into the other.

    Attributes:
        rest: (55, 3) joints in the rest pose, metres.
        joints: (55, 3) joints in the T-pose, the pelvis at (0, -0.35, 0.01).
        turn: (55, 3, 3) world rotation of each joint from rest to T.
    """

    rest: Array
    joints: Array
    turn: Array


def t_pose(assets: Assets, vertices: Array) -> Pose:
    """J_T[j] = J_T[p] + G_p (J[j] - J[p]) over the tree, for a person's (19158, 3) vertices in MakeHuman's rest pose."""
    scale = np.ptp(vertices[assets.groups["body"], 1]) / _REFERENCE_STATURE
    heads = {name: assets.bone_end(vertices, bone) for name, (bone, _) in _BONES.items()}
    tips = {finger: assets.bone_end(vertices, f"finger{k}-3.L", "tail") for finger, k in FINGERS.items()}
    turns = _turns(heads, tips)

    rest, turn = np.zeros((55, 3)), np.zeros((55, 3, 3))
    for name in _MIDDLE_OR_LEFT:
        turn[JOINT[name]] = turns[name]
    for name, (_, offset) in _BONES.items():
        rest[JOINT[name]] = heads[name] + scale * np.array(offset)
    for name, offset in _T_OFFSETS.items():
        rest[JOINT[name]] += turns[SMPLX_JOINTS[SMPLX_PARENTS[JOINT[name]]]].T @ offset
    rest[JOINT["left_eye"]] = vertices[assets.groups["helper-l-eye"]].mean(axis=0)
    _mirror_left_to_right(rest, turn)

    joints = np.empty_like(rest)
    joints[0] = _PELVIS
    for j, p in enumerate(SMPLX_PARENTS):
        if p >= 0:
            joints[j] = joints[p] + turn[p] @ (rest[j] - rest[p])
    return Pose(rest, joints, turn)


def unpose(vertices: Array, weights: Array, pose: Pose) -> Array:
    """v_T = M⁻¹ (v - Σ_j w_j (J_j - G_jᵀ J_T,j)), M = Σ_j w_j G_jᵀ: the (V, 3) template whose skinning into the rest pose is ``vertices``.

    ``weights`` is (V, 55). The condition number of M stays below 1.1, so the inversion is safe.
    """
    back = pose.turn.transpose(0, 2, 1)
    shift = pose.rest - np.einsum("jab,jb->ja", back, pose.joints)
    matrices = (weights @ back.reshape(55, 9)).reshape(-1, 3, 3)
    return np.linalg.solve(matrices, (vertices - weights @ shift)[..., None])[..., 0]


def _turns(joint: dict[str, Array], tips: dict[str, Array]) -> dict[str, Array]:
    """World rotation from rest to T of the middle and left joints, by name, from the heads of their bones (before any offset)."""
    turns = {name: np.eye(3) for name in _MIDDLE_OR_LEFT}
    turns["left_collar"] = _about("z", _COLLAR_DEGREES)

    upper_arm, forearm = joint["left_elbow"] - joint["left_shoulder"], joint["left_wrist"] - joint["left_elbow"]
    hinge, hinge_t = np.cross(upper_arm, forearm), (0, -1, 0)
    turns["left_shoulder"] = _frame(_UPPER_ARM, hinge_t) @ _frame(upper_arm, hinge).T
    turns["left_elbow"] = _frame(_FOREARM, hinge_t) @ _frame(forearm, hinge).T

    hand, knuckles = joint["left_middle1"] - joint["left_wrist"], joint["left_index1"] - joint["left_pinky1"]
    turns["left_wrist"] = _frame(_HAND, _KNUCKLES) @ _frame(hand, knuckles).T
    for finger, direction in _FINGER.items():
        points = _finger_points(joint, tips, finger)
        curl = np.cross(points[1] - points[0], points[3] - points[2])
        target = _frame(direction, np.cross(direction, (0, -1, 0)))
        for i in range(3):
            turns[f"left_{finger}{i + 1}"] = target @ _frame(points[i + 1] - points[i], curl).T
    points, turn = _finger_points(joint, tips, "thumb"), turns["left_wrist"]
    for i, direction in enumerate(_THUMB):
        turn = _smallest(turn @ (points[i + 1] - points[i]), direction) @ turn
        turns[f"left_thumb{i + 1}"] = turn

    hip = _smallest(joint["left_knee"] - joint["left_hip"], _THIGH)
    turns["left_hip"] = hip
    turns["left_knee"] = _smallest(hip @ (joint["left_ankle"] - joint["left_knee"]), _SHANK) @ hip
    turns["left_ankle"] = turns["left_foot"] = _about("y", _FOOT_DEGREES)
    return turns


def _finger_points(joint: dict[str, Array], tips: dict[str, Array], finger: str) -> list[Array]:
    return [joint[f"left_{finger}{i}"] for i in (1, 2, 3)] + [tips[finger]]


def _mirror_left_to_right(joints: Array, turn: Array) -> None:
    """Fill the right side: points by the mirror S, rotations by S R S."""
    for name in _MIDDLE_OR_LEFT:
        if name.startswith("left_"):
            left, right = JOINT[name], JOINT[mirror_name(name)]
            joints[right] = joints[left] * FLIP
            turn[right] = turn[left] * FLIP * FLIP[:, None]


def _frame(along: Array | tuple[float, ...], side: Array | tuple[float, ...]) -> Array:
    """The rotation with columns x ∥ along, z ∥ x × side, y = z × x."""
    x = np.asarray(along) / np.linalg.norm(along)
    z = np.cross(x, side)
    z /= np.linalg.norm(z)
    return np.stack([x, np.cross(z, x), z], axis=1)


def _smallest(a: Array, b: Array | tuple[float, ...]) -> Array:
    """The rotation by the smallest angle that takes the direction of ``a`` to that of ``b``."""
    axis = np.cross(a, b)
    length = float(np.linalg.norm(axis))
    angle = np.arctan2(length, np.dot(a, b))
    return Rotation.from_rotvec(axis * (angle / max(length, 1e-12))).as_matrix()


def _about(axis: str, degrees: float) -> Array:
    return Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
