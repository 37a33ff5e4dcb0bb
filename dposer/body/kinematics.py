"""Forward kinematics of a joint tree, with its gradient in closed form.

Arrays here are laid out components first: vectors ``(3, J, B)``, matrices ``(3, 3, J, B)`` (row, column, joint, batch).
Products of many 3 by 3 matrices are then a few wide elementwise operations, several times faster on a CPU than batched
products of tiny matrices.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function


class JointTree(nn.Module):
    """A tree of ``J`` joints whose parents come before their children.

    Args:
        parents: parent of each joint, -1 for the root (joint 0).
    """

    ancestors: Tensor  # (J, J): 1 where the column is the row's joint or one of its ancestors
    leaps: Tensor  # (rounds, J + 1): row r leads every node 2^r steps up; node 0 is the world, joint j is node j + 1

    def __init__(self, parents: Sequence[int], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        ancestors = torch.eye(len(parents), dtype=dtype)
        for joint, parent in enumerate(parents[1:], start=1):
            ancestors[joint] += ancestors[parent]
        leaps = [torch.tensor([0, *(parent + 1 for parent in parents)])]
        while 2 ** len(leaps) < int(ancestors.sum(1).max()):
            leaps.append(leaps[-1][leaps[-1]])
        self.register_buffer("ancestors", ancestors, persistent=False)
        self.register_buffer("leaps", torch.stack(leaps), persistent=False)

    def forward(self, rotations: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""World rotations :math:`W_k = W_{p(k)} R_k` and positions :math:`P_k = P_{p(k)} + W_{p(k)} o_k`.

        Args:
            rotations: ``(3, J, B)`` axis-angle of every joint in its parent's frame, radians.
            offsets: ``(3, J, B)`` or ``(3, J, 1)`` rest position relative to the parent, metres (of the root: to the world).

        Returns:
            world rotations ``(3, 3, J, B)``, positions ``(3, J, B)``, local rotations :math:`R` ``(3, 3, J, B)``.
        """
        nodes, positions, local = _Kinematics.apply(rotations, offsets.expand_as(rotations), self.ancestors, self.leaps)
        return nodes[:, :, 1:], positions, local

    def rest(self, offsets: Tensor) -> Tensor:
        """Positions ``(3, J, B)`` of the zero pose: the offsets summed along the tree."""
        return self.ancestors @ offsets


class _Kinematics(Function):
    r"""Forward by pointer doubling: :math:`\log_2(\mathrm{depth})` products of all joints at once. Backward by statics.

    Read the gradients :math:`g_j` at the positions as forces. Turning joint :math:`k` about itself by a small
    :math:`\omega` changes the loss by :math:`\omega \cdot \tau_k`, where
    :math:`\tau_k = \sum_{j \succeq k} (P_j - P_k) \times g_j` is the torque of all forces beyond :math:`k`.
    The columns of a rotation matrix are points at unit distance, so gradients on them are forces too.
    The last step, from :math:`\omega` to axis-angle :math:`r`, is the left Jacobian of SO(3),
    :math:`1 + \tfrac{1 - \cos\theta}{\theta^2} [r]_\times + \tfrac{\theta - \sin\theta}{\theta^3} [r]_\times^2`.
    The backward is made of differentiable operations, so second derivatives exist.
    """

    @staticmethod
    def forward(ctx: Any, rotations: Tensor, offsets: Tensor, ancestors: Tensor, leaps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        local = _rotation_matrices(rotations)
        world = torch.eye(3, dtype=local.dtype, device=local.device)[:, :, None, None]
        nodes = torch.cat((world.expand_as(local[:, :, :1]), local), 2)
        for leap in leaps:
            nodes = (nodes.index_select(2, leap)[:, :, None] * nodes).sum(1)
        positions = ancestors @ (_parent_frames(nodes, leaps) * offsets).sum(1)
        ctx.save_for_backward(rotations, ancestors, leaps, nodes, positions, local)
        ctx.set_materialize_grads(False)
        return nodes, positions, local

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        rotations, ancestors, leaps, nodes, positions, local = ctx.saved_tensors
        g_nodes, g_positions, g_local = gradients
        frames = _parent_frames(nodes, leaps)
        torque, g_offsets = torch.zeros_like(positions), None
        if g_nodes is not None:
            torque = torque + _cross(nodes, g_nodes).sum(1)[:, 1:]
        if g_positions is not None:
            force = ancestors.T @ g_positions
            torque = ancestors.T @ (torque + _cross(positions, g_positions)) - _cross(positions, force)
            g_offsets = (frames * force[:, None]).sum(0)
        else:
            torque = ancestors.T @ torque
        torque = (frames * torque[:, None]).sum(0)  # from here on in the parent's frame
        if g_local is not None:
            torque = torque + _cross(local, g_local).sum(1)
        _, b, c = _rotation_coefficients(rotations)
        swing = _cross(rotations, torque)
        return torque - b * swing + c * _cross(rotations, swing), g_offsets, None, None


def _rotation_coefficients(rotations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r""":math:`\sin\theta/\theta`, :math:`(1-\cos\theta)/\theta^2` and :math:`(\theta-\sin\theta)/\theta^3`, without a branch at zero.

    The tiny addend keeps the square root differentiable; where the last quotient loses its digits, the
    :math:`\theta^2` it is multiplied with is below the precision of the result.
    """
    squared = (rotations * rotations).sum(0) + torch.finfo(rotations.dtype).eps ** 2
    angle = squared.sqrt() / math.pi
    a = torch.sinc(angle)
    return a, torch.sinc(angle / 2).square() / 2, (1 - a) / squared


def _rotation_matrices(rotations: Tensor) -> Tensor:
    r"""Rodrigues' formula :math:`R = \cos\theta + \tfrac{\sin\theta}{\theta} [r]_\times + \tfrac{1-\cos\theta}{\theta^2} r r^T`."""
    a, b, _ = _rotation_coefficients(rotations)
    x, y, z = a * rotations
    cosine = 1 - b * (rotations * rotations).sum(0)
    return torch.stack((cosine, -z, y, z, cosine, -x, -y, x, cosine)).unflatten(0, (3, 3)) + (b * rotations)[:, None] * rotations


def _parent_frames(nodes: Tensor, leaps: Tensor) -> Tensor:
    """World rotation of every joint's parent, the identity for the root."""
    return nodes.index_select(2, leaps[0, 1:])


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.cross(a, b, dim=0)
