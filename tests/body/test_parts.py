import pytest
import torch

from dposer.body import BodyModel
from dposer.body.parts import body_weights, part_missing, part_surface
from dposer.body.skeleton import BODY_JOINTS, SMPLX_JOINTS, SMPLX_PARENTS
from dposer.errors import InputError


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel()


def test_fingers_jaw_and_eyes_are_carried_by_body_joints() -> None:
    carried = body_weights(torch.eye(55), SMPLX_PARENTS)
    assert torch.equal(carried[:22], torch.eye(22))
    head, wrist = SMPLX_JOINTS.index("head"), SMPLX_JOINTS.index("left_wrist")
    assert carried[SMPLX_JOINTS.index("jaw"), head] == 1 and carried[SMPLX_JOINTS.index("left_thumb3"), wrist] == 1
    smpl = body_weights(torch.eye(24), (*SMPLX_PARENTS[:22], 20, 21))  # its last two joints are hands, not jaw and eye
    assert smpl[22, 20] == 1 and smpl[23, 21] == 1


def test_what_moves_with_a_missing_axis_is_its_joints_surface(body: BodyModel) -> None:
    arm = part_surface(body.weights, "left_arm")
    axis = part_missing("left_arm").repeat_interleave(3) & (torch.arange(63) % 3 == 1)
    assert torch.equal(part_surface(body.weights, axis), arm) and torch.equal(part_surface(body.weights, part_missing("left_arm")), arm)
    surfaces = [part_surface(body.weights, torch.arange(21) == joint) for joint in range(len(BODY_JOINTS))]
    assert all(len(surface) for surface in surfaces)
    assert torch.cat(surfaces).unique(return_counts=True)[1].max() == 1  # no vertex belongs to two joints
    whole = part_surface(body.weights, torch.ones(63, dtype=torch.bool))
    assert sum(map(len, surfaces)) == len(whole) < body.num_vertices  # the pelvis is never missing


def test_only_a_vertex_that_moves_is_coloured(body: BodyModel) -> None:
    missing = torch.zeros(63, dtype=torch.bool)
    missing[3 * BODY_JOINTS.index("right_knee")] = True
    bent = body(torch.where(missing, 0.7, 0.0)[None]).vertices
    rest = body(torch.zeros(1, 63)).vertices
    assert bent is not None and rest is not None
    moved = (bent - rest)[0].norm(dim=-1) > 1e-3
    assert bool(moved[part_surface(body.weights, missing)].float().mean() > 0.95)


def test_other_masks_are_refused(body: BodyModel) -> None:
    with pytest.raises(InputError, match=r"shape \(2, 63\), expected"):
        part_surface(body.weights, torch.zeros(2, 63, dtype=torch.bool))
