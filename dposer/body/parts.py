"""Which vertices belong to a body part.

DPoser scores completion on vertices of the public SMPL-X segmentation, whose segments are the vertices bound most to
one joint. The same rule is applied here to the skinning weights of whatever body is loaded, so that it holds for any
body file. Source of the part → segment table: DPoser (arXiv 2312.05541), released code.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dposer.body.skeleton import BODY_JOINTS, PARTS, SMPLX_JOINTS, SMPLX_PARENTS
from dposer.errors import InputError

_LEG = ("hip", "knee", "ankle", "foot")
_ARM = ("shoulder", "elbow")  # without the hand, which is a part of its own


def _both(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for side in ("left", "right") for name in names)


_SEGMENTS: dict[str, tuple[str, ...]] = {
    **{f"{side}_leg": tuple(f"{side}_{name}" for name in _LEG) for side in ("left", "right")},
    **{f"{side}_arm": tuple(f"{side}_{name}" for name in _ARM) for side in ("left", "right")},
    **{f"{side}_body": tuple(f"{side}_{name}" for name in _LEG + _ARM) for side in ("left", "right")},
    "legs": _both(_LEG),
    "arms": _both(_ARM),
    "trunk": ("spine2", "spine3", "left_collar", "right_collar"),
    "hands": ("left_wrist", "right_wrist"),
}


def part_missing(part: str) -> Tensor:
    """Mask (21,) of the body joints of ``part``. Raises :class:`InputError` on an unknown part."""
    missing = torch.zeros(21, dtype=torch.bool)
    missing[list(PARTS[_known(part)])] = True
    return missing


def part_joints(part: str) -> Tensor:
    """Indices into the SMPL-X output joints of the joints of ``part`` (body joint + 1)."""
    return torch.tensor(PARTS[_known(part)]) + 1


def part_vertices(weights: Tensor, part: str) -> Tensor:
    """Indices of the vertices whose largest skinning weight (V, J) belongs to the segments of ``part``."""
    owner = weights.argmax(dim=1)
    segments = torch.tensor([SMPLX_JOINTS.index(name) for name in _SEGMENTS[_known(part)]], device=weights.device)
    return torch.isin(owner, segments).nonzero()[:, 0]


def body_weights(weights: Tensor, parents: Sequence[int]) -> Tensor:
    """Skinning weights (V, J) with those of fingers, jaw and eyes given to the body joint that carries them: (V, 22)."""
    carrier = list(range(len(BODY_JOINTS) + 1))
    for parent in parents[len(carrier) :]:
        carrier.append(carrier[parent])
    merged = weights.new_zeros(len(weights), len(BODY_JOINTS) + 1)
    return merged.index_add(1, torch.tensor(carrier, device=weights.device), weights)


def part_surface(weights: Tensor, missing: str | Tensor, parents: Sequence[int] = SMPLX_PARENTS) -> Tensor:
    """Indices of all vertices moved first of all by joints of which an axis is missing, hands with their wrist: what to draw as missing.

    Args:
        weights: (V, J) skinning weights.
        missing: a part of the body, or a mask (21,) or (63,) bool.
        parents: parent of each of the J joints, where they are not SMPL-X's.

    Raises:
        InputError: an unknown part, or another shape.
    """
    joints = part_missing(missing) if isinstance(missing, str) else missing
    if joints.shape not in ((21,), (63,)):
        raise InputError(f"missing: shape {tuple(joints.shape)}, expected (21,) or (63,)")
    joints = joints.to(weights.device, torch.bool).view(21, -1).any(1)
    owner = body_weights(weights, parents).argmax(1)
    return (joints[owner - 1] & (owner > 0)).nonzero()[:, 0]


def _known(part: str) -> str:
    if part not in PARTS:
        raise InputError(f"part '{part}' does not exist, expected one of {', '.join(PARTS)}")
    return part
