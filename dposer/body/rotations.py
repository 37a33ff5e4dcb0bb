r"""Rotations of poses: what roma lacks.

A pose holds ``J`` rotations side by side in its last dimension: axis-angle ``(..., 3 J)`` in radians, or the six-dimensional
representation ``(..., 6 J)`` (Zhou et al., On the Continuity of Rotation Representations, CVPR 2019).
"""

import math
from collections.abc import Sequence

import roma
import torch
from torch import Tensor

from dposer.body.skeleton import BODY_MIRROR


def axis_angle_to_rot6d(pose: Tensor) -> Tensor:
    """First two columns of every rotation matrix, stored row by row: ``r00 r01 r10 r11 r20 r21``.

    Args:
        pose: ``(..., 3 J)`` axis-angle, radians.

    Returns:
        ``(..., 6 J)``.
    """
    return roma.rotvec_to_rotmat(pose.unflatten(-1, (-1, 3)))[..., :2].flatten(-3)


def rot6d_to_axis_angle(rot6d: Tensor) -> Tensor:
    r"""Gram–Schmidt on the two columns, the third by cross product; inverse of :func:`axis_angle_to_rot6d` for :math:`\theta < \pi`.

    Degenerate columns (zero, parallel or NaN) give finite values, the zero rotation for NaN.

    Args:
        rot6d: ``(..., 6 J)``, the two columns need not be orthonormal.

    Returns:
        ``(..., 3 J)`` axis-angle of norm at most :math:`\pi`.
    """
    columns = rot6d.unflatten(-1, (-1, 3, 2))
    matrices = roma.special_gramschmidt(columns, epsilon=torch.finfo(rot6d.dtype).tiny)
    return roma.rotmat_to_rotvec(matrices).nan_to_num().flatten(-2)


def wrap_axis_angle(pose: Tensor) -> Tensor:
    r"""The same rotations with the shortest axis-angle: :math:`r\,(1 - 2\pi n / \theta)`, :math:`n` the nearest whole number of turns.

    Args:
        pose: ``(..., 3 J)`` axis-angle, radians, any norm.

    Returns:
        ``(..., 3 J)``, every norm at most :math:`\pi`. The gradient is finite at zero.
    """
    rotvec = pose.unflatten(-1, (-1, 3))
    angle = torch.linalg.vector_norm(rotvec, dim=-1, keepdim=True)
    excess = 2 * math.pi * (angle / (2 * math.pi)).round()
    return (rotvec * (1 - excess / angle.clamp_min(1))).flatten(-2)


def mirror_pose(pose: Tensor, permutation: Sequence[int] = BODY_MIRROR) -> Tensor:
    r"""Reflect a pose in the plane :math:`x = 0`: swap left and right joints and negate y and z of every axis-angle.

    Args:
        pose: ``(..., 3 J)`` axis-angle, radians, ``J = len(permutation)``.
        permutation: joint that takes each joint's place; the default is that of ``pose_body``, ``(0,)`` mirrors ``root_orient``.
    """
    rotvec = pose.unflatten(-1, (len(permutation), 3))[..., list(permutation), :]
    return (rotvec * rotvec.new_tensor([1, -1, -1])).flatten(-2)
