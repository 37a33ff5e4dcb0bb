"""A skeleton in motion, whatever file it came from, and its forward kinematics."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation


@dataclass(frozen=True)
class Motion:
    """J joints over F frames; every length in metres, +y up, column vectors.

    A joint sits where its bone begins, and its rotation turns the bones that leave it. In the rest pose all rotations
    are the identity and joint ``j`` lies at ``offsets[j]`` from its parent.
    """

    names: tuple[str, ...]
    """J joint names."""
    parents: tuple[int, ...]
    """J parent indices, each smaller than the joint's own; -1 for the root."""
    offsets: np.ndarray
    """(J, 3) rest position of a joint relative to its parent."""
    rotations: np.ndarray
    """(F, J, 3, 3) rotation relative to the parent."""
    translations: np.ndarray
    """(F, J, 3) position relative to the parent: the root's path, and ``offsets`` for joints that only rotate."""
    fps: float
    tips: np.ndarray
    """(J, 3) free end of a joint without children (BVH ``End Site``); zero elsewhere."""

    def __len__(self) -> int:
        return len(self.rotations)

    def index(self, name: str) -> int:
        return self.names.index(name)

    def select(self, frames: slice | np.ndarray, fps: float | None = None) -> "Motion":
        """Only some of the frames, e.g. ``select(slice(None, None, 4), fps=motion.fps / 4)``."""
        fps = self.fps if fps is None else fps
        return replace(self, rotations=self.rotations[frames], translations=self.translations[frames], fps=fps)


def root_path(offsets: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Translations (F, J, 3) of a skeleton whose root follows ``root`` (F, 3) and whose other joints only rotate."""
    translations = np.repeat(offsets[None], len(root), axis=0)
    translations[:, 0] = root
    return translations


def forward_kinematics(motion: Motion) -> tuple[np.ndarray, np.ndarray]:
    """``G_j = G_parent R_j``, ``x_j = x_parent + G_parent t_j``: global rotations (F, J, 3, 3) and positions (F, J, 3)."""
    rotations = np.empty_like(motion.rotations)
    positions = np.empty_like(motion.translations)
    for j, parent in enumerate(motion.parents):
        if parent < 0:
            rotations[:, j], positions[:, j] = motion.rotations[:, j], motion.translations[:, j]
        else:
            rotations[:, j] = rotations[:, parent] @ motion.rotations[:, j]
            positions[:, j] = positions[:, parent] + np.einsum("fij,fj->fi", rotations[:, parent], motion.translations[:, j])
    return rotations, positions


def mirror(motion: Motion, swap: Sequence[int]) -> Motion:
    """Reflection at the plane x = 0: ``R' = S R S`` with ``S = diag(-1, 1, 1)`` and left and right exchanged.

    Args:
        swap: J indices, the joint on the other side of each joint (itself for the middle ones).
    """
    order = list(swap)
    sign = np.array([-1.0, 1.0, 1.0])
    return replace(
        motion,
        offsets=motion.offsets[order] * sign,
        rotations=motion.rotations[:, order] * np.outer(sign, sign),
        translations=motion.translations[:, order] * sign,
        tips=motion.tips[order] * sign,
    )


def euler_matrices(axes: str, degrees: np.ndarray) -> np.ndarray:
    """Product of elementary rotations in the order of ``axes``: ``ZXY`` gives ``Rz Rx Ry``; (..., len(axes)) → (..., 3, 3).

    An order that repeats an axis twice in a row or has fewer than three axes is allowed.
    """
    result = np.broadcast_to(np.eye(3), (*degrees.shape[:-1], 3, 3))
    for i, axis in enumerate(axes):
        angles = degrees[..., i].reshape(-1, 1)
        result = result @ Rotation.from_euler(axis, angles, degrees=True).as_matrix().reshape(*degrees.shape[:-1], 3, 3)
    return result
