"""AMASS sequences as a skeleton in motion, for the files of other programs (BVH, glTF)."""

import numpy as np
from scipy.spatial.transform import Rotation

from dposer.body.skeleton import BODY_JOINTS, SMPLX_JOINTS, SMPLX_PARENTS
from dposer.data.amass import AmassSequence
from dposer.data.motion import Motion, root_path
from dposer.errors import InputError
from dposer.files import finite

Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""``R_x(-90°)``: takes a world with z up to one with y up, (x, y, z) → (x, z, -y)."""

_BODY = 1 + len(BODY_JOINTS)
_TIPS = {
    "head": (0, 0.2, 0),
    "left_foot": (0, 0, 0.08),
    "right_foot": (0, 0, 0.08),
    "left_wrist": (0.17, 0, 0),
    "right_wrist": (-0.17, 0, 0),
}
"""Metres from the last joints to crown, toes and fingertips of an adult at rest, who faces +z with the left hand at +x."""


def smplx_motion(sequence: AmassSequence, rest_joints: np.ndarray, fps: float) -> Motion:
    """``x_0 = Y (J_0 + trans)``, ``R_0 = Y R(root_orient)``: the 22 joints of the body in motion, turned from z up to y up.

    SMPL-X turns about the pelvis, so the pelvis lies at ``J_0 + trans`` whatever the pose; ``Y`` is :data:`Y_UP`.

    Args:
        sequence: F frames, z up.
        rest_joints: (J, 3) metres, J at least 22: joints of the zero pose for the sequence's shape (``BodyModel.rest_joints``).
        fps: frames per second; what a file without a rate is played at is the caller's to say.

    Returns:
        the motion in SMPL-X's own names and order, for :func:`dposer.data.bvh.write_bvh`; crown, fingertips and toes end it.

    Raises:
        InputError: joints of another shape, numbers that are not finite, or fps not positive.
    """
    rest = finite(np.asarray(rest_joints), "rest_joints").astype(np.float64)
    if rest.ndim != 2 or rest.shape[1] != 3 or len(rest) < _BODY:
        raise InputError(f"rest_joints: shape {rest.shape}, expected (J, 3) with J at least {_BODY}, the joints of one body at rest")
    if not 0 < fps < np.inf:
        raise InputError(f"fps: found {fps}, expected a number above 0")
    rest, names, parents = rest[:_BODY], SMPLX_JOINTS[:_BODY], SMPLX_PARENTS[:_BODY]
    offsets = np.concatenate([rest[:1], rest[1:] - rest[list(parents[1:])]])
    rotations = _rotations(sequence).as_matrix().reshape(len(sequence), _BODY, 3, 3)
    rotations[:, 0] = Y_UP @ rotations[:, 0]
    path = (rest[0] + finite(sequence.trans, "trans")) @ Y_UP.T
    tips = np.array([_TIPS.get(name, (0, 0, 0)) for name in names])
    return Motion(names, parents, offsets, rotations, root_path(offsets, path), float(fps), tips)


def local_quaternions(sequence: AmassSequence) -> np.ndarray:
    """Unit quaternions (F, 22, 4), x y z w, of pelvis and body joints relative to their parents, without jumps of sign.

    The pelvis turns in the sequence's own world (z up).
    """
    return continuous(_rotations(sequence).as_quat().reshape(len(sequence), _BODY, 4))


def continuous(quaternions: np.ndarray) -> np.ndarray:
    """Choose between ``q`` and ``-q``, which are one rotation, so that ``q_t · q_(t-1) ≥ 0``: (F, ..., 4) → (F, ..., 4).

    Interpolation between neighbours then takes the shorter way.
    """
    turns = np.where((quaternions[1:] * quaternions[:-1]).sum(-1, keepdims=True) < 0, -1, 1)
    return np.concatenate([quaternions[:1], quaternions[1:] * np.cumprod(turns, axis=0)])


def _rotations(sequence: AmassSequence) -> Rotation:
    vectors = np.concatenate([finite(sequence.root_orient, "root_orient"), finite(sequence.pose_body, "pose_body")], axis=1)
    return Rotation.from_rotvec(vectors.reshape(-1, 3).astype(np.float64))
