"""Joint names, trees and body parts of SMPL-X, and every keypoint layout, each written down once.

Source: SMPL-X (Pavlakos et al., CVPR 2019) for the 55 joints; DPoser (arXiv 2312.05541) for the parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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

# --- keypoint layouts --------------------------------------------------------------------------------------------------

SURFACE_KEYPOINTS: dict[str, str] = {
    "nose": "nose", "reye": "right_eye", "leye": "left_eye", "rear": "right_ear", "lear": "left_ear",
    "LBigToe": "left_big_toe", "LSmallToe": "left_small_toe", "LHeel": "left_heel",
    "RBigToe": "right_big_toe", "RSmallToe": "right_small_toe", "RHeel": "right_heel",
}  # fmt: skip
"""The keypoints that are vertices of the body's surface, in output order (DPoser joints 55 to 65): smplx's short name → layout name."""


@dataclass(frozen=True)
class Layout:
    """What the rows of a keypoint array mean.

    Names are shared between layouts, so that :func:`layout_map` can go from one to another.

    Args:
        name: how files and flags call the layout.
        joints: one name a row; sided names begin with ``left_`` or ``right_``.
        edges: the limbs, as (parent, child) rows.
    """

    name: str
    joints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]

    @property
    def parents(self) -> tuple[int, ...]:
        """Parent of every joint, -1 at roots; for layouts whose limbs form a tree.

        Raises:
            ValueError: the limbs form loops (COCO-17, BlazePose-33), so there is no such thing.
        """
        parents = {child: parent for parent, child in self.edges}
        if len(parents) < len(self.edges):
            raise ValueError(f"layout {self.name}: its limbs form loops, so joints have no single parent; use edges")
        return tuple(parents.get(joint, -1) for joint in range(len(self.joints)))

    @property
    def mirror(self) -> tuple[int, ...]:
        """Permutation that swaps left and right."""
        return tuple(self.joints.index(mirror_name(name)) for name in self.joints)

    @property
    def left(self) -> tuple[int, ...]:
        """Rows on the left side, in order; :attr:`right` holds their partners in the same order."""
        return tuple(i for i, name in enumerate(self.joints) if name.startswith("left_"))

    @property
    def right(self) -> tuple[int, ...]:
        """Partners of :attr:`left`."""
        return tuple(self.mirror[i] for i in self.left)


def layout_map(source: Sequence[str], target: Sequence[str]) -> tuple[int, ...]:
    """Row of ``source`` that holds each joint of ``target``, -1 where it has none: ``target_array = source_array[:, map]``."""
    rows = {name: row for row, name in enumerate(source)}
    return tuple(rows.get(name, -1) for name in target)


def _limbs(parents: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple((parent, child) for child, parent in enumerate(parents) if parent >= 0)


def surface_layout(name: str, joints: Sequence[str], parents: Sequence[int]) -> Layout:
    """Joints of a body model followed by its :data:`SURFACE_KEYPOINTS`.

    The eyeball centres are renamed ``left_eyeball``: a detector's ``left_eye`` is the point on the surface.
    """
    anchors = [
        joints.index("head" if "toe" not in key and "heel" not in key else f"{key.split('_')[0]}_ankle")
        for key in SURFACE_KEYPOINTS.values()
    ]
    skeleton = tuple(joint + "ball" if joint.endswith("_eye") else joint for joint in joints)
    return Layout(name, skeleton + tuple(SURFACE_KEYPOINTS.values()), _limbs([*parents, *anchors]))


SMPLX_66 = surface_layout("smplx", SMPLX_JOINTS, SMPLX_PARENTS)
"""The 55 SMPL-X joints and 11 surface keypoints, as :meth:`BodyModel.keypoints` gives them."""

SMPLX_22 = Layout("smplx22", SMPLX_JOINTS[:22], _limbs(SMPLX_PARENTS[:22]))
"""The pelvis and the 21 joints of ``pose_body``."""

SMPL_24 = Layout("smpl24", (*SMPLX_JOINTS[:22], "left_hand", "right_hand"), _limbs((*SMPLX_PARENTS[:22], 20, 21)))
"""The joints of SMPL, as 3DPW has them."""

_SIDED = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")

OPENPOSE_25 = Layout(
    "openpose25",
    (
        "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
        "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
        "right_eye", "left_eye", "right_ear", "left_ear",
        "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
    ),
    (
        (1, 0), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (10, 11), (8, 12), (12, 13), (13, 14),
        (0, 15), (0, 16), (15, 17), (16, 18), (14, 19), (19, 20), (14, 21), (11, 22), (22, 23), (11, 24),
    ),
)  # fmt: skip
"""OpenPose BODY_25."""

COCO_17 = Layout(
    "coco17",
    ("nose", "left_eye", "right_eye", "left_ear", "right_ear", *(f"{side}_{joint}" for joint in _SIDED for side in ("left", "right"))),
    (
        (0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10),
        (5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16),
    ),
)  # fmt: skip
"""COCO person keypoints."""

H36M_17 = Layout(
    "h36m17",
    (
        "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "spine", "neck", "head", "head_top",
        "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
    ),
    _limbs((-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)),
)  # fmt: skip
"""The 17 Human3.6M joints that lifting works with. Others call joint 8 (here ``neck``) thorax and 9 (here ``head``) neck or nose."""

_HEATMAP_ROWS = (3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13)

HEATMAP_16 = Layout(
    "mpii16",
    tuple(H36M_17.joints[row] for row in _HEATMAP_ROWS),
    ((6, 2), (2, 1), (1, 0), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (8, 12), (12, 11), (11, 10), (8, 13), (13, 14), (14, 15)),
)  # fmt: skip
"""Channels of the heatmaps of detectors in MPII's order that were tuned to Human3.6M: its joints but for the nose."""

MPI_INF_3DHP_17 = Layout(
    "mpi_inf_3dhp17",
    (
        "head_top", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
        "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "pelvis", "spine", "head",
    ),
    _limbs((1, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, -1, 14, 1)),
)  # fmt: skip
"""The 17 "relevant" joints of MPI-INF-3DHP; the root is joint 14."""

BLAZEPOSE_33 = Layout(
    "blazepose33",
    (
        "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
        *(
            f"{side}_{joint}"
            for joint in (
                "ear", "mouth", "shoulder", "elbow", "wrist", "pinky", "index", "thumb",
                "hip", "knee", "ankle", "heel", "foot_index",
            )
            for side in ("left", "right")
        ),
    ),
    (
        (0, 1), (1, 2), (2, 3), (3, 7), (0, 4), (4, 5), (5, 6), (6, 8), (9, 10), (11, 12), (11, 23), (12, 24), (23, 24),
        (11, 13), (13, 15), (15, 17), (15, 19), (15, 21), (17, 19), (12, 14), (14, 16), (16, 18), (16, 20), (16, 22), (18, 20),
        (23, 25), (25, 27), (27, 29), (29, 31), (27, 31), (24, 26), (26, 28), (28, 30), (30, 32), (28, 32),
    ),
)  # fmt: skip
"""MediaPipe's BlazePose landmarks."""

OPENPOSE_18 = Layout(
    "openpose18",
    tuple(name for name in OPENPOSE_25.joints[:19] if name != "pelvis"),
    (
        (1, 0), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
        (0, 14), (0, 15), (14, 16), (15, 17),
    ),
)  # fmt: skip
"""OpenPose's older COCO model: BODY_25 without pelvis and feet."""

HALPE_26 = Layout(
    "halpe26",
    COCO_17.joints
    + ("head_top", "neck", "pelvis")
    + tuple(f"{side}_{joint}" for joint in ("big_toe", "small_toe", "heel") for side in ("left", "right")),
    COCO_17.edges
    + ((18, 17), (18, 5), (18, 6), (18, 19), (19, 11), (19, 12))
    + ((15, 20), (20, 22), (15, 24), (16, 21), (21, 23), (16, 25)),
)
"""The body keypoints of Halpe-FullBody, as AlphaPose writes them: COCO-17, then the middle line and the feet."""

_FACE_68 = (
    *(f"right_jaw{i}" for i in range(1, 9)), "chin", *(f"left_jaw{i}" for i in range(8, 0, -1)),
    *(f"right_brow{i}" for i in range(1, 6)), *(f"left_brow{i}" for i in range(5, 0, -1)),
    *(f"nose_bridge{i}" for i in range(1, 5)), "right_nostril1", "right_nostril2", "nose_base", "left_nostril2", "left_nostril1",
    "right_eye_outer", "right_upper_lid1", "right_upper_lid2", "right_eye_inner", "right_lower_lid2", "right_lower_lid1",
    "left_eye_inner", "left_upper_lid2", "left_upper_lid1", "left_eye_outer", "left_lower_lid1", "left_lower_lid2",
    "right_mouth", "right_upper_lip1", "right_upper_lip2", "upper_lip", "left_upper_lip2", "left_upper_lip1",
    "left_mouth", "left_lower_lip1", "left_lower_lip2", "lower_lip", "right_lower_lip2", "right_lower_lip1",
    "right_mouth_inner", "right_upper_lip_inner", "upper_lip_inner", "left_upper_lip_inner",
    "left_mouth_inner", "left_lower_lip_inner", "lower_lip_inner", "right_lower_lip_inner",
)  # fmt: skip
"""The 68 face landmarks of iBUG 300-W; sides are those of the person."""

_HAND_21 = ("hand_root", *(f"{finger}{end}" for finger in ("thumb", "index", "middle", "ring", "pinky") for end in (1, 2, 3, "_tip")))
"""A hand as detectors order it; ``thumb1`` to ``pinky3`` are the joints that SMPL-X calls so."""


def _path(*rows: int, closed: bool = False) -> tuple[tuple[int, int], ...]:
    return tuple(zip(rows, rows[1:] + rows[:1] if closed else rows[1:], strict=False))


COCO_WHOLEBODY_133 = Layout(
    "coco_wholebody133",
    COCO_17.joints
    + tuple(f"{side}_{joint}" for side in ("left", "right") for joint in ("big_toe", "small_toe", "heel"))
    + _FACE_68
    + tuple(f"{side}_{joint}" for side in ("left", "right") for joint in _HAND_21),
    COCO_17.edges
    + ((15, 17), (17, 18), (15, 19), (16, 20), (20, 21), (16, 22))
    + tuple(limb for first, last in ((23, 39), (40, 44), (45, 49), (50, 53), (54, 58)) for limb in _path(*range(first, last + 1)))
    + tuple(limb for first, last in ((59, 64), (65, 70), (71, 82), (83, 90)) for limb in _path(*range(first, last + 1), closed=True))
    + tuple(limb for root in (91, 112) for tip in range(4, 21, 4) for limb in _path(root, *range(root + tip - 3, root + tip + 1)))
    + ((9, 91), (10, 112)),
)
"""COCO-WholeBody: COCO-17, feet, face and hands."""

LAYOUTS: dict[str, Layout] = {
    layout.name: layout for layout in (SMPLX_66, SMPLX_22, OPENPOSE_25, COCO_17, H36M_17, MPI_INF_3DHP_17, BLAZEPOSE_33)
}
"""Layouts of 3D joints by name; the others above only come from detectors in images."""
