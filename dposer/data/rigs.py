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
class Rig:
    """How to read one skeleton layout."""

    name: str
    root: str
    lowerback: str | Between
    upperback: str | Between
    thorax: str
    head: str
    left: Limbs
    right: Limbs
    has_legs: bool = True
    vertical_elbow_hinge: bool = False
    """The elbow bends about the vertical axis in the T-pose: align the whole arm and tilt the upper arm."""
    hand_bends: bool = True
    """The hand has a bend of its own beside the forearm's twist, and rests slightly extended."""
    length_scale: float = 0.01
    """Metres per unit of the rig's usual files."""
    rest_frames: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Where a joint's local x, y, z axes (columns) point in a T-pose, for rigs whose zero angles are not one."""

    @property
    def bones(self) -> tuple[str, ...]:
        """Every source joint the rig refers to."""
        trunk = [b for part in (self.lowerback, self.upperback) for b in ((part.start, part.end) if isinstance(part, Between) else (part,))]
        limbs = [bone for side in (self.left, self.right) for key, bone in vars(side).items() if self.has_legs or key not in _LEG]
        return tuple(dict.fromkeys([self.root, *trunk, self.thorax, self.head, *limbs]))


_LEG = ("femur", "tibia", "foot")


def detect_rig(names: Sequence[str]) -> Rig:
    """The known rig whose bones all occur among ``names``; the one with the most bones if there are several.

    Raises:
        InputError: none fits.
    """
    fitting = [rig for rig in RIGS.values() if set(rig.bones) <= set(names)]
    if not fitting:
        shown = ", ".join(list(names)[:12])
        raise InputError(f"unknown skeleton with {len(names)} joints ({shown}, ...), expected one of the rigs {', '.join(RIGS)}; pass a Rig of your own")
    return max(fitting, key=lambda rig: (len(rig.bones), not isinstance(rig.upperback, Between)))


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


def _limbs(pattern: str, **bones: str) -> Limbs:
    return Limbs(**{key: pattern.format(bone) for key, bone in bones.items()})


def _cmu(side: str) -> Limbs:
    return _limbs(
        side + "{}", femur="femur", tibia="tibia", foot="foot", humerus="humerus", radius="radius", wrist="wrist", twist="wrist", hand="hand"
    )


def _cmu_bvh(side: str) -> Limbs:
    return _limbs(
        side + "{}",
        femur="UpLeg", tibia="Leg", foot="Foot", humerus="Arm", radius="ForeArm", wrist="Hand", twist="Hand", hand="FingerBase",
    )  # fmt: skip


def _named(pattern: str, hand: str = "Hand") -> Limbs:
    """The usual names of animation packages; ``hand`` is the bone taken for both twist and bend of the wrist."""
    return _limbs(
        pattern, femur="UpLeg", tibia="Leg", foot="Foot", humerus="Arm", radius="ForeArm", wrist="Hand", twist=hand, hand=hand
    )  # fmt: skip


def _daz(side: str) -> Limbs:
    return _limbs(
        side + "{}", femur="Thigh", tibia="Shin", foot="Foot", humerus="Shldr", radius="ForeArm", wrist="Hand", twist="Hand", hand="Hand"
    )


def _bandai(side: str) -> Limbs:
    return _limbs(
        "{}_" + side,
        femur="UpperLeg", tibia="LowerLeg", foot="Foot", humerus="UpperArm", radius="LowerArm", wrist="Hand", twist="Hand", hand="Hand",
    )  # fmt: skip


def _upper_body(side: str) -> Limbs:
    return _limbs(
        side + "_{}",
        femur="-", tibia="-", foot="-", humerus="upper_arm", radius="forearm", wrist="hand", twist="hand", hand="hand",
    )  # fmt: skip


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


_ASF_UNIT = 0.0254 / 0.45
_MASS = "Character1_{}"

RIGS: dict[str, Rig] = {
    rig.name: rig
    for rig in (
        Rig("cmu", "root", "lowerback", "upperback", "thorax", "head", _cmu("l"), _cmu("r"), length_scale=_ASF_UNIT),
        Rig(
            "cmu_bvh", "Hips", "LowerBack", "Spine", "Spine1", "Head", _cmu_bvh("Left"), _cmu_bvh("Right"),
            length_scale=_ASF_UNIT,
        ),
        Rig("daz", "hip", "abdomen", Between("abdomen", "chest", 0.5), "chest", "head", _daz("l"), _daz("r")),
        Rig("game", "Hips", "Spine", "Spine1", "Spine2", "Head", _named("Left{}"), _named("Right{}")),
        Rig(
            "motionbuilder2", _MASS.format("Hips"), _MASS.format("Spine"), Between(_MASS.format("Spine"), _MASS.format("Spine1"), 0.5),
            _MASS.format("Spine1"), _MASS.format("Head"), _named(_MASS.format("Left{}")), _named(_MASS.format("Right{}")),
            vertical_elbow_hinge=True,
        ),
        Rig(
            "motionbuilder3", _MASS.format("Hips"), _MASS.format("Spine"), _MASS.format("Spine1"), _MASS.format("Spine2"),
            _MASS.format("Head"), _named(_MASS.format("Left{}")), _named(_MASS.format("Right{}")), vertical_elbow_hinge=True,
        ),
        Rig(
            "reduced", "Hips", Between("Hips", "Chest", 0.6), Between("Hips", "Chest", 0.85), "Chest", "Neck",
            _named("Left{}", hand="ForeArm"), _named("Right{}", hand="ForeArm"), vertical_elbow_hinge=True, hand_bends=False,
        ),
        Rig(
            "bandai", "Hips", "Spine", Between("Spine", "Chest", 0.5), "Chest", "Head", _bandai("L"), _bandai("R"),
            vertical_elbow_hinge=True, rest_frames=_bandai_rest_frames(),
        ),
        Rig(
            "upper_body", "torso", "torso", "torso", "torso", "head", _upper_body("left"), _upper_body("right"), has_legs=False, hand_bends=False,
        ),
    )
}  # fmt: skip
"""Known rigs by name: ASF/AMC (``cmu``), the 31-joint and 43-joint BVH conversions (``cmu_bvh``, ``daz``), a 22-joint game rig (``game``),
MotionBuilder names with two or three spine joints, a 15-joint reduced skeleton, Bandai-Namco, and an upper body without legs."""
