"""Motion capture of any known rig to SMPL-X body rotations.

``R_j`` is the global rotation of SMPL-X joint j, built bone by bone from the source's global rotations ``G`` (both relative to a
rest pose that faces +z with +y up and its left at +x); local rotation ``R_parent^T R_j``. A plain transfer would put the difference of the
two rest poses and the hinge joints' missing twist into every pose, so limbs are aligned as wholes and twist is shared out along
them, as fits of the body model to mocap do.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from dposer.body.skeleton import BODY_JOINTS, BODY_MIRROR, SMPLX_JOINTS, SMPLX_PARENTS
from dposer.data.motion import Motion, forward_kinematics
from dposer.data.rigs import Between, Limbs, Rig, detect_rig, to_t_pose
from dposer.errors import InputError

_JOINTS = len(BODY_JOINTS) + 1
_MIRROR = (0, *(1 + j for j in BODY_MIRROR))


@dataclass(frozen=True)
class Constants:
    """Offsets between the rest poses (radians), and shares of twist and bend: set so that poses spread like SMPL fits of mocap."""

    pelvis: float = -0.15
    knee: float = -0.08
    toe: float = 0.08
    ankle: float = 0.0
    ankle_median: float = 0.5
    inversion: float = 0.5
    thorax: float = 0.05
    head: float = -0.15
    tilt: float = 0.0
    tilt_vertical_hinge: float = 0.28
    extension: float = 0.15
    deviation: float = 0.12
    leg_share: float = 0.4
    ankle_share: float = 0.45
    arm_share: float = 0.5
    collar_share: float = 0.3
    forearm_share: float = 0.35
    neck_share: float = 0.5
    deviation_share: float = 0.3
    deviation_limit: float = 0.5
    bend_limit: float = 1.2
    twist_limit: float = 1.6


PLAUSIBLE_ANGLES: dict[str, float] = {
    "hip": 2.4, "spine1": 2.1, "knee": 3.1, "spine2": 0.95, "spine3": 0.7, "ankle": 1.4, "foot": np.inf,
    "neck": 1.4, "head": 1.4, "collar": 1.45, "shoulder": 2.3, "elbow": 3.1, "wrist": 2.4,
}  # fmt: skip
"""Largest local rotation angle (radians) of a believable frame, for either side."""

_LIMITS = np.array([PLAUSIBLE_ANGLES[name.split("_")[-1]] for name in BODY_JOINTS])


@dataclass(frozen=True)
class RetargetedMotion:
    """F frames of SMPL-X body motion, +y up."""

    pose_body: np.ndarray
    """(F, 63) float32 axis-angle, norm at most pi."""
    root_orient: np.ndarray
    """(F, 3) float32 axis-angle."""
    trans: np.ndarray
    """(F, 3) float32 metres; the pelvis lies at ``rest_joints[0] + trans``."""
    fps: float
    plausible: np.ndarray
    """(F,) whether every local rotation stays below :data:`PLAUSIBLE_ANGLES`."""
    known: np.ndarray
    """(21,) joints that follow from the source; the others are filled in (legs of an upper body, wrists without hands)."""

    def __len__(self) -> int:
        return len(self.pose_body)


def retarget(motion: Motion, rest_joints: np.ndarray, rig: Rig | None = None, constants: Constants | None = None) -> RetargetedMotion:
    """SMPL-X poses of a captured motion.

    The middle between the hips follows that of the source, with the source's path scaled by the ratio of leg lengths, so that feet
    that stood on the ground still do and the source's unit of length cancels. Rigs without legs follow the root, unscaled.

    Args:
        rest_joints: (22 or more, 3) rest joints of the body model in use, metres; made symmetric before use.
        rig: how to read the skeleton; default :func:`~dposer.data.rigs.detect_rig`.

    Raises:
        InputError: unknown rig, or a bone of the rig that the motion lacks.
    """
    rig = rig or detect_rig(motion.names)
    missing = [name for name in rig.bones if name not in motion.names]
    if missing:
        raise InputError(f"rig '{rig.name}': the motion lacks the joints {', '.join(missing)} (it has {', '.join(motion.names[:12])}, ...)")
    source = _Source(to_t_pose(motion, rig), rig)
    joints = symmetric(rest_joints)
    constants = _for_rig(constants or Constants(), rig)
    rotations = _trunk(source, constants)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        if rig.has_legs:
            rotations |= _leg(source, joints, side, sign, constants, rotations["pelvis"])
        else:
            rotations |= {f"{side}_{name}": rotations["pelvis"] for name in ("hip", "knee", "ankle", "foot")}
        rotations |= _arm(source, joints, side, sign, constants, rotations["spine3"])
    local = _local_rotvecs(rotations)
    return RetargetedMotion(
        pose_body=local[:, 1:].reshape(-1, 3 * (_JOINTS - 1)).astype(np.float32),
        root_orient=local[:, 0].astype(np.float32),
        trans=_translation(source, joints, rotations["pelvis"]).astype(np.float32),
        fps=motion.fps,
        plausible=(np.linalg.norm(local[:, 1:], axis=-1) <= _LIMITS).all(axis=-1),
        known=_known(rig),
    )


def symmetric(rest_joints: np.ndarray) -> np.ndarray:
    """Rest joints (22, 3) averaged with their mirror image."""
    joints = np.asarray(rest_joints, dtype=float)
    if joints.ndim != 2 or joints.shape[0] < _JOINTS or joints.shape[1] != 3 or not np.isfinite(joints).all():
        raise InputError(
            f"rest_joints: shape {joints.shape}, expected at least ({_JOINTS}, 3) finite metres; use BodyModel().rest_joints()"
        )
    joints = joints[:_JOINTS]
    return (joints + joints[list(_MIRROR)] * (-1, 1, 1)) / 2


def to_z_up(root_orient: np.ndarray, trans: np.ndarray, pelvis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same motion in a world with +z up, as AMASS stores it: a turn of 90 degrees about x.

    A body turns about its ``pelvis`` (3,) rest joint p, not about the origin: ``trans' = Rx (p + trans) - p``.
    """
    turn = _rx(np.pi / 2)
    root = (turn * Rotation.from_rotvec(root_orient)).as_rotvec()
    moved = turn.apply(pelvis + trans) - pelvis
    return root.astype(root_orient.dtype), moved.astype(trans.dtype)


class _Source:
    """Global rotations of the source bones and their rest directions, by the part they play."""

    def __init__(self, motion: Motion, rig: Rig) -> None:
        self.rig = rig
        self.motion = motion
        rotations, self.positions = forward_kinematics(motion)
        self._rotations = {name: Rotation.from_matrix(rotations[:, motion.index(name)]) for name in rig.bones}

    def bone(self, bone: str | Between) -> Rotation:
        if isinstance(bone, str):
            return self._rotations[bone]
        start, end = self.bone(bone.start), self.bone(bone.end)
        return start * _scaled(start.inv() * end, bone.fraction)

    def side(self, side: str) -> Limbs:
        return self.rig.left if side == "left" else self.rig.right

    def direction(self, end: str) -> np.ndarray:
        """Rest direction of the bone that leads to joint ``end``."""
        return _unit(self.motion.offsets[self.motion.index(end)])

    def path(self, *names: str) -> np.ndarray:
        """(F, 3) middle of some joints."""
        return np.mean([self.positions[:, self.motion.index(name)] for name in names], axis=0)


def _for_rig(c: Constants, rig: Rig) -> Constants:
    return replace(
        c,
        tilt=c.tilt_vertical_hinge if rig.vertical_elbow_hinge else c.tilt,
        extension=c.extension if rig.hand_bends else 0.0,
    )


def _trunk(source: _Source, c: Constants) -> dict[str, Rotation]:
    """No alignment: SMPL-X's spine zigzags at rest, and aligning it would bend every pose."""
    trunk = source.rig.trunk
    spine3 = source.bone(trunk.thorax) * _rx(c.thorax)
    head = source.bone(trunk.head) * _rx(c.head)
    return {
        "pelvis": source.bone(trunk.root) * _rx(c.pelvis),
        "spine1": source.bone(trunk.lowerback),
        "spine2": source.bone(trunk.upperback),
        "spine3": spine3,
        "neck": spine3 * _scaled(spine3.inv() * head, c.neck_share),
        "head": head,
    }


def _leg(source: _Source, joints: np.ndarray, side: str, s: float, c: Constants, pelvis: Rotation) -> dict[str, Rotation]:
    """Align the whole leg, then share the twist of thigh and foot with pelvis and shank."""
    bones = source.side(side)
    hip, knee, ankle = (joints[SMPLX_JOINTS.index(f"{side}_{name}")] for name in ("hip", "knee", "ankle"))
    u, w = _unit(ankle - hip), _unit(ankle - knee)
    align = _smallest(u, source.direction(bones.tibia))
    thigh = source.bone(bones.femur) * align * _rx(-c.knee / 2)
    shank = source.bone(bones.tibia) * align * _rx(c.knee / 2)
    foot = source.bone(bones.foot) * align

    v = (shank.inv() * foot).as_rotvec()
    m = np.median(v, axis=0)
    v[:, 1] = (v[:, 1] - m[1]) + c.ankle_median * m[1]
    v[:, 2] = c.inversion * (v[:, 2] - m[2]) + c.ankle_median * m[2]
    bend = Rotation.from_rotvec(v) * _about((0, 1, 0), s * c.toe) * _rx(c.ankle)
    foot = shank * bend

    thigh = thigh * _about(u, -c.leg_share * _twist(pelvis.inv() * thigh, u))
    psi = _twist(bend, w)
    shank = shank * _about(w, c.ankle_share * (psi - np.median(psi)))
    return {f"{side}_hip": thigh, f"{side}_knee": shank, f"{side}_ankle": foot, f"{side}_foot": foot}


def _arm(source: _Source, joints: np.ndarray, side: str, s: float, c: Constants, spine3: Rotation) -> dict[str, Rotation]:
    """Align, give the elbow its share of the twist that a hinge leaves to the upper arm, split the collar off the shoulder."""
    bones = source.side(side)
    shoulder, elbow, wrist = (joints[SMPLX_JOINTS.index(f"{side}_{name}")] for name in ("shoulder", "elbow", "wrist"))
    e, f = _unit(elbow - shoulder), _unit(wrist - elbow)
    d_humerus, d_radius = source.direction(bones.radius), source.direction(bones.wrist)
    a_humerus, a_radius = (_unit(wrist - shoulder),) * 2 if source.rig.vertical_elbow_hinge else (e, f)
    upper = source.bone(bones.humerus) * _smallest(a_humerus, d_humerus) * _about(e, s * c.tilt)
    fore = source.bone(bones.radius) * _smallest(a_radius, d_radius)

    upper = upper * _about(e, -c.arm_share * _twist(spine3.inv() * upper, e))
    collar = spine3 * _scaled(spine3.inv() * upper, c.collar_share)

    radius = source.bone(bones.radius)
    theta = _twist(radius.inv() * source.bone(bones.twist), d_radius)
    v = ((radius * _about(d_radius, theta)).inv() * source.bone(bones.hand)).as_rotvec()
    theta = np.clip(theta, -c.twist_limit, c.twist_limit)
    fore = fore * _about(f, c.forearm_share * theta)
    bend = np.clip(v[:, 2], -c.bend_limit, c.bend_limit) - s * c.extension
    spread = np.clip(v[:, 1] - np.median(v[:, 1]), -c.deviation_limit, c.deviation_limit)
    deviation = c.deviation_share * spread - s * c.deviation
    palm = fore * _about(f, (1 - c.forearm_share) * theta) * Rotation.from_rotvec(np.stack([0 * bend, deviation, bend], axis=-1))
    return {f"{side}_collar": collar, f"{side}_shoulder": upper, f"{side}_elbow": fore, f"{side}_wrist": palm}


def _local_rotvecs(rotations: dict[str, Rotation]) -> np.ndarray:
    """(F, 22, 3) rotation vectors relative to the parents; exactly zero where a joint is its parent's equal, without rounding noise."""
    local = np.zeros((len(rotations["pelvis"]), _JOINTS, 3))
    local[:, 0] = rotations["pelvis"].as_rotvec()
    for j in range(1, _JOINTS):
        own, parent = rotations[SMPLX_JOINTS[j]], rotations[SMPLX_JOINTS[SMPLX_PARENTS[j]]]
        if own is not parent:
            local[:, j] = (parent.inv() * own).as_rotvec()
    return local


def _translation(source: _Source, joints: np.ndarray, pelvis: Rotation) -> np.ndarray:
    rig = source.rig
    if not rig.has_legs:
        return source.path(rig.trunk.root) - joints[0]
    ours = sum(_length(joints[a] - joints[b]) for a, b in ((1, 4), (4, 7), (2, 5), (5, 8)))
    ends = (side for limbs in (rig.left, rig.right) for side in (limbs.tibia, limbs.foot))
    theirs = sum(_length(source.motion.offsets[source.motion.index(end)]) for end in ends)
    hips = (joints[1] + joints[2]) / 2 - joints[0]
    return source.path(rig.left.femur, rig.right.femur) * (ours / theirs) - pelvis.apply(hips) - joints[0]


def _known(rig: Rig) -> np.ndarray:
    filled = {"hip", "knee", "ankle", "foot", "spine1", "spine2", "spine3"} if not rig.has_legs else set()
    filled |= {"wrist"} if rig.left.hand == rig.left.radius else set()
    return np.array([name.split("_")[-1] not in filled for name in BODY_JOINTS])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / _length(vector)


def _length(vector: np.ndarray) -> float:
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        raise InputError("a limb of the skeleton has no length, so its direction is unknown; check the offsets in the file")
    return length


def _about(axis: np.ndarray | tuple[float, float, float], angle: np.ndarray | float) -> Rotation:
    """E(axis, angle): rotation about a unit axis, by one angle or by (F,) angles."""
    return Rotation.from_rotvec(np.asarray(angle)[..., None] * np.asarray(axis))


def _rx(angle: float) -> Rotation:
    return _about((1.0, 0.0, 0.0), angle)


def _smallest(a: np.ndarray, b: np.ndarray) -> Rotation:
    """The smallest rotation that takes unit vector ``a`` to ``b``: about ``a x b``, by the angle between them."""
    axis, cosine = np.cross(a, b), float(a @ b)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:  # parallel, or opposite: then any axis across ``a`` will do
        axis = np.cross(a, np.eye(3)[np.argmin(np.abs(a))])
    return _about(_unit(axis), np.arctan2(sine, cosine))


def _scaled(rotation: Rotation, fraction: float) -> Rotation:
    """exp(fraction log Q)."""
    return Rotation.from_rotvec(fraction * rotation.as_rotvec())


def _twist(rotation: Rotation, axis: np.ndarray) -> np.ndarray:
    """Twist angle of a rotation about a unit axis, ``2 atan2(q_vec . axis, q_w)`` in (-pi, pi]."""
    q = rotation.as_quat()
    angle = 2 * np.arctan2(q[..., :3] @ axis, q[..., 3])
    return np.pi - (np.pi - angle) % (2 * np.pi)
