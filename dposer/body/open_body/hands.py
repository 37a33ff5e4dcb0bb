"""Hand poses of the open body: the relaxed hand and a hand-made orthonormal basis, in the SMPL-X file's form."""

import numpy as np
from scipy.spatial.transform import Rotation

from dposer.body.open_body.assets import Array
from dposer.body.open_body.t_pose import FLIP, Pose
from dposer.body.skeleton import SMPLX_JOINTS, SMPLX_PARENTS

_JOINTS = [j for j, name in enumerate(SMPLX_JOINTS) if name.startswith("left_") and name[-1].isdigit()]
_NAMES = [SMPLX_JOINTS[j].removeprefix("left_") for j in _JOINTS]
_MIRROR = np.tile(-FLIP, len(_JOINTS))  # a mirrored rotation vector keeps x and flips y and z

_CURL = (0, 0, -1)  # of a left finger, which points to +x with the palm down

# Left-hand motions: a joint, or a finger without its number, -> rotation axis.
_MOTIONS: tuple[dict[str, tuple[float, float, float]], ...] = (
    {finger: _CURL for finger in ("index", "middle", "ring", "pinky")},  # fist
    {"thumb1": (0.5, 0.6, -0.4), "thumb2": (0.1, 0.7, -0.3), "thumb3": (0.1, 0.7, -0.3)},  # thumb closing
    {"index1": (0, -1, 0), "middle1": (0, -0.3, 0), "ring1": (0, 0.4, 0), "pinky1": (0, 1, 0)},  # spread
    {"index": _CURL, "pinky": (0, 0, 1)},  # index against pinky
    {f"{finger}{i}": (0, 0, z) for finger in ("index", "middle", "ring", "pinky") for i, z in ((1, -1), (2, 0.5), (3, 0.5))},  # hook
    {"index": (0, 0, -0.5), "pinky": (0, 0, -0.5), "middle": (0, 0, 0.5), "ring": (0, 0, 0.5)},  # outer against inner fingers
    {"thumb1": (1, 0, 0)},  # thumb under the palm
)


def relaxed_hands(pose: Pose) -> dict[str, Array]:
    """``hands_meanl``, ``hands_meanr`` (45,): log(G_parent G_jᵀ), the half-curled hand of the sculpture, radians."""
    local = [pose.turn[SMPLX_PARENTS[j]] @ pose.turn[j].T for j in _JOINTS]
    left = Rotation.from_matrix(np.stack(local)).as_rotvec().reshape(-1)
    return {"hands_meanl": left, "hands_meanr": left * _MIRROR}


def hand_basis() -> dict[str, Array]:
    """``hands_componentsl``, ``hands_componentsr`` (45, 45): orthonormal rows, the first ones common motions, by Gram-Schmidt."""
    motions = [np.array([_axis(motion, name) for name in _NAMES], dtype=float).reshape(-1) for motion in _MOTIONS]
    rows: list[Array] = []
    for vector in (*motions, *np.eye(len(_MIRROR))):
        for row in rows:
            vector = vector - (vector @ row) * row
        if np.linalg.norm(vector) > 0.1 and len(rows) < len(_MIRROR):
            rows.append(vector / np.linalg.norm(vector))
    left = np.stack(rows)
    return {"hands_componentsl": left, "hands_componentsr": left * _MIRROR}


def _axis(motion: dict[str, tuple[float, float, float]], name: str) -> tuple[float, float, float]:
    return motion.get(name, motion.get(name[:-1], (0, 0, 0)))
