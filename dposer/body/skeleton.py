"""Joint names, trees and body parts of SMPL-X, and every keypoint layout, each written down once.

Source: SMPL-X (Pavlakos et al., CVPR 2019) for the 55 joints; DPoser (arXiv 2312.05541) for the parts.
"""

BODY_JOINTS: tuple[str, ...] = (
    "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle", "spine3",
    "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)  # fmt: skip
"""The 21 joints of ``pose_body``, in order; joint ``i`` here is SMPL-X joint ``i + 1``."""

_FINGERS = tuple(f"{finger}{i}" for finger in ("index", "middle", "pinky", "ring", "thumb") for i in (1, 2, 3))

SMPLX_JOINTS: tuple[str, ...] = (
    ("pelvis",)
    + BODY_JOINTS
    + ("jaw", "left_eye", "right_eye")
    + tuple(f"left_{f}" for f in _FINGERS)
    + tuple(f"right_{f}" for f in _FINGERS)
)
"""The 55 SMPL-X joints."""

SMPLX_PARENTS: tuple[int, ...] = (
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15,
    20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38,
    21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53,
)  # fmt: skip
"""Parent of each SMPL-X joint; the first 22 entries are the tree of the body."""

_LEGS = {"left_leg": (0, 3, 6, 9), "right_leg": (1, 4, 7, 10)}
_ARMS = {"left_arm": (12, 15, 17, 19), "right_arm": (13, 16, 18, 20)}

PARTS: dict[str, tuple[int, ...]] = {
    **_LEGS,
    **_ARMS,
    "trunk": (2, 5, 8, 15, 16),
    "hands": (19, 20),
    "legs": _LEGS["left_leg"] + _LEGS["right_leg"],
    "arms": _ARMS["left_arm"] + _ARMS["right_arm"],
    "left_body": _LEGS["left_leg"] + _ARMS["left_arm"],
    "right_body": _LEGS["right_leg"] + _ARMS["right_arm"],
}
"""Body parts as indices into :data:`BODY_JOINTS` (DPoser; ``trunk`` holds the shoulders, not the collars)."""


def mirror_name(name: str) -> str:
    """``left_hip`` ↔ ``right_hip``; names without a side map to themselves."""
    if name.startswith("left_"):
        return "right_" + name[5:]
    if name.startswith("right_"):
        return "left_" + name[6:]
    return name


BODY_MIRROR: tuple[int, ...] = tuple(BODY_JOINTS.index(mirror_name(name)) for name in BODY_JOINTS)
"""Permutation of :data:`BODY_JOINTS` that swaps left and right."""
