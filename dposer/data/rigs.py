"""Which source bone plays which part, for every known rig: small tables, one entry a rig."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dposer.data.motion import Motion
from dposer.errors import InputError


@dataclass(frozen=True)
class Between:
    """A bone that lies ``fraction`` of the way from ``start`` to ``end``: ``G = G_start exp(fraction log(G_start^T G_end))``."""

    start: str
    end: str
    fraction: float

    @property
    def ends(self) -> tuple[str, str]:
        return self.start, self.end


@dataclass(frozen=True)
class Limbs:
    """Bones of one side. A leg is thigh, shank, foot; an arm is upper arm, forearm, wrist joint.

    ``twist`` and ``hand`` are the bones that turn and bend the wrist; the direction of the forearm leads to ``wrist``.
    """

    femur: str
    tibia: str
    foot: str
    humerus: str
    radius: str
    wrist: str
    twist: str
    hand: str


@dataclass(frozen=True)
class Trunk:
    """The bones from the root to the head."""

    root: str
    lowerback: str | Between
    upperback: str | Between
    thorax: str
    head: str


@dataclass(frozen=True)
class Rig:
    """How to read one skeleton layout."""

    name: str
    trunk: Trunk
    left: Limbs
    right: Limbs
    has_legs: bool = True
    vertical_elbow_hinge: bool = False
    """The elbow bends about the vertical axis in the T-pose: align the whole arm and tilt the upper arm."""
    hand_bends: bool = True
    """The hand has a bend of its own beside the forearm's twist, and rests slightly extended."""
    rest_frames: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Where a joint's local x, y, z axes (columns) point in a T-pose, for rigs whose zero angles are not one."""

    @property
    def bones(self) -> tuple[str, ...]:
        """Every source joint the rig refers to."""
        trunk = [name for bone in vars(self.trunk).values() for name in (bone.ends if isinstance(bone, Between) else (bone,))]
        limbs = [bone for side in (self.left, self.right) for key, bone in vars(side).items() if self.has_legs or key not in _LEG]
        return tuple(dict.fromkeys([*trunk, *limbs]))


_LEG = ("femur", "tibia", "foot")


def detect_rig(names: Sequence[str]) -> Rig:
    """The known rig whose bones all occur among ``names``; the one with the most bones if there are several.

    Raises:
        InputError: none fits.
    """
    fitting = [rig for rig in RIGS.values() if set(rig.bones) <= set(names)]
    if not fitting:
        shown = ", ".join(list(names)[:12])
        raise InputError(
            f"unknown skeleton with {len(names)} joints ({shown}, ...), expected one of the rigs {', '.join(RIGS)}; pass a Rig of your own"
        )
    return max(fitting, key=lambda rig: len(rig.bones))


def to_t_pose(motion: Motion, rig: Rig) -> Motion:
    """The same motion with rotations relative to a T-pose: ``G' = G H^T``, so ``R' = H_parent R H^T`` and ``t' = H_parent t``."""
    if not rig.rest_frames:
        return motion
    rest = np.array([rig.rest_frames.get(name, np.eye(3)) for name in motion.names])
    parent = np.array([rest[p] if p >= 0 else np.eye(3) for p in motion.parents])
    return Motion(
        motion.names,
        motion.parents,
        np.einsum("jab,jb->ja", parent, motion.offsets),
        parent @ motion.rotations @ rest.transpose(0, 2, 1),
        np.einsum("jab,fjb->fja", parent, motion.translations),
        motion.fps,
        np.einsum("jab,jb->ja", rest, motion.tips),
    )


def _sides(left: str, right: str, bones: str) -> tuple[Limbs, Limbs]:
    """Both sides from a name pattern each and the eight names of :class:`Limbs`, in its order."""
    return Limbs(*(left.format(bone) for bone in bones.split())), Limbs(*(right.format(bone) for bone in bones.split()))


def _bandai_rest_frames() -> dict[str, np.ndarray]:
    x, y, z = np.eye(3)
    foot = np.array([0.0, -np.sin(np.radians(43)), np.cos(np.radians(43))])
    side = np.cross(foot, x)
    axes = {
        "Hips": (y, -x, z),
        **dict.fromkeys(("Spine", "Chest", "Neck", "Head"), (y, z, x)),
        **dict.fromkeys(("Shoulder_L", "UpperArm_L", "LowerArm_L", "Hand_L"), (x, y, z)),
        **dict.fromkeys(("Shoulder_R", "UpperArm_R", "LowerArm_R", "Hand_R"), (x, -y, -z)),
        **dict.fromkeys(("UpperLeg_L", "LowerLeg_L"), (-y, x, z)),
        **dict.fromkeys(("UpperLeg_R", "LowerLeg_R"), (y, x, -z)),
        **dict.fromkeys(("Foot_L", "Toes_L"), (foot, x, side)),
        **dict.fromkeys(("Foot_R", "Toes_R"), (-foot, x, -side)),
    }
    return {name: np.stack(columns, axis=1) for name, columns in axes.items()}


_USUAL = "UpLeg Leg Foot Arm ForeArm Hand Hand Hand"
_MB_HIPS, _MB_SPINE, _MB_SPINE1, _MB_SPINE2, _MB_HEAD = (f"Character1_{bone}" for bone in ("Hips", "Spine", "Spine1", "Spine2", "Head"))
_MB_SIDES = _sides("Character1_Left{}", "Character1_Right{}", _USUAL)

_ALL = (
    Rig(
        "cmu",
        Trunk("root", "lowerback", "upperback", "thorax", "head"),
        *_sides("l{}", "r{}", "femur tibia foot humerus radius wrist wrist hand"),
    ),
    Rig(
        "cmu_bvh",
        Trunk("Hips", "LowerBack", "Spine", "Spine1", "Head"),
        *_sides("Left{}", "Right{}", "UpLeg Leg Foot Arm ForeArm Hand Hand FingerBase"),
    ),
    Rig(
        "daz",
        Trunk("hip", "abdomen", Between("abdomen", "chest", 0.5), "chest", "head"),
        *_sides("l{}", "r{}", "Thigh Shin Foot Shldr ForeArm Hand Hand Hand"),
    ),
    Rig("game", Trunk("Hips", "Spine", "Spine1", "Spine2", "Head"), *_sides("Left{}", "Right{}", _USUAL)),
    Rig(
        "motionbuilder2",
        Trunk(_MB_HIPS, _MB_SPINE, Between(_MB_SPINE, _MB_SPINE1, 0.5), _MB_SPINE1, _MB_HEAD),
        *_MB_SIDES,
        vertical_elbow_hinge=True,
    ),
    Rig("motionbuilder3", Trunk(_MB_HIPS, _MB_SPINE, _MB_SPINE1, _MB_SPINE2, _MB_HEAD), *_MB_SIDES, vertical_elbow_hinge=True),
    Rig(
        "reduced",
        Trunk("Hips", Between("Hips", "Chest", 0.6), Between("Hips", "Chest", 0.85), "Chest", "Neck"),
        *_sides("Left{}", "Right{}", "UpLeg Leg Foot Arm ForeArm Hand ForeArm ForeArm"),
        vertical_elbow_hinge=True,
        hand_bends=False,
    ),
    Rig(
        "bandai",
        Trunk("Hips", "Spine", Between("Spine", "Chest", 0.5), "Chest", "Head"),
        *_sides("{}_L", "{}_R", "UpperLeg LowerLeg Foot UpperArm LowerArm Hand Hand Hand"),
        vertical_elbow_hinge=True,
        rest_frames=_bandai_rest_frames(),
    ),
    Rig(
        "upper_body",
        Trunk("torso", "torso", "torso", "torso", "head"),
        *_sides("left_{}", "right_{}", "- - - upper_arm forearm hand hand hand"),
        has_legs=False,
        hand_bends=False,
    ),
)

RIGS: dict[str, Rig] = {rig.name: rig for rig in _ALL}
"""Known rigs by name: ASF/AMC (``cmu``), the 31-joint and 43-joint BVH conversions (``cmu_bvh``, ``daz``), a 22-joint game rig (``game``),
MotionBuilder names with two or three spine joints, a 15-joint reduced skeleton, Bandai-Namco, and an upper body without legs."""
