"""Rotations of poses: round trips, shortest form, reflection."""

import math

import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dposer.body.kinematics import JointTree
from dposer.body.rotations import axis_angle_to_rot6d, mirror_pose, rot6d_to_axis_angle, wrap_axis_angle
from dposer.body.skeleton import BODY_JOINTS, SMPLX_PARENTS

poses = hnp.arrays(np.float64, (4, 6), elements=st.floats(-7, 7, allow_subnormal=False)).map(torch.from_numpy)


def matrices(pose: torch.Tensor) -> torch.Tensor:
    return roma.rotvec_to_rotmat(pose.unflatten(-1, (-1, 3)))


@settings(max_examples=50, deadline=None)
@given(poses)
def test_rot6d_round_trip(pose: torch.Tensor) -> None:
    back = rot6d_to_axis_angle(axis_angle_to_rot6d(pose))
    assert torch.allclose(matrices(back), matrices(pose), atol=1e-6)
    assert (back.unflatten(-1, (-1, 3)).norm(dim=-1) <= math.pi + 1e-6).all()


def test_rot6d_layout() -> None:
    """A quarter turn about z: columns (0, 1, 0) and (-1, 0, 0), stored row by row."""
    quarter = torch.tensor([0.0, 0.0, math.pi / 2])
    assert torch.allclose(axis_angle_to_rot6d(quarter), torch.tensor([0.0, -1.0, 1.0, 0.0, 0.0, 0.0]), atol=1e-6)


def test_rot6d_orthonormalises_the_columns() -> None:
    skewed = torch.tensor([0.0, -3.0, 2.0, 5.0, 0.0, 0.0])  # columns (0, 2, 0) and (-3, 5, 0)
    assert torch.allclose(rot6d_to_axis_angle(skewed), torch.tensor([0.0, 0.0, math.pi / 2]), atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, math.nan])
def test_degenerate_rot6d_is_finite(value: float) -> None:
    assert torch.isfinite(rot6d_to_axis_angle(torch.full((2, 126), value))).all()


@settings(max_examples=50, deadline=None)
@given(poses)
def test_wrapping_keeps_the_rotation_and_shortens_it(pose: torch.Tensor) -> None:
    wrapped = wrap_axis_angle(pose)
    assert torch.allclose(matrices(wrapped), matrices(pose), atol=1e-6)
    assert (wrapped.unflatten(-1, (-1, 3)).norm(dim=-1) <= math.pi + 1e-9).all()
    assert torch.allclose(wrap_axis_angle(wrapped), wrapped, atol=1e-9)


def test_wrapping_is_the_identity_with_unit_gradient_below_half_a_turn() -> None:
    pose = torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0, -0.5], dtype=torch.float64)
    assert torch.equal(wrap_axis_angle(pose), pose)
    jacobian = torch.autograd.functional.jacobian(wrap_axis_angle, pose)
    assert torch.allclose(jacobian, torch.eye(6, dtype=torch.float64))


def test_mirror_is_an_involution_that_swaps_sides(generator: torch.Generator) -> None:
    pose = torch.randn(5, 63, generator=generator)
    mirrored = mirror_pose(pose)
    assert torch.equal(mirror_pose(mirrored), pose)
    left, right = BODY_JOINTS.index("left_elbow"), BODY_JOINTS.index("right_elbow")
    assert torch.equal(mirrored.view(5, 21, 3)[:, left], pose.view(5, 21, 3)[:, right] * torch.tensor([1, -1, -1]))


def test_mirror_reflects_every_rotation(generator: torch.Generator) -> None:
    """M R M with M = diag(-1, 1, 1)."""
    root = torch.randn(5, 3, generator=generator)
    reflection = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    assert torch.allclose(matrices(mirror_pose(root, (0,))), reflection @ matrices(root) @ reflection, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(poses, st.integers(-12, 0))
def test_kinematics_of_a_chain(pose: torch.Tensor, exponent: int) -> None:
    """Every joint's world rotation is the product of its ancestors', at any scale of the angles."""
    rotations = (pose * 10.0**exponent).unflatten(-1, (-1, 3)).permute(2, 1, 0)  # (3, 2 joints, 4)
    world, positions, local = JointTree((-1, 0), torch.float64)(rotations, torch.ones(3, 2, 1, dtype=torch.float64))
    first, second = roma.rotvec_to_rotmat(rotations.permute(1, 2, 0), epsilon=1e-12)
    assert torch.allclose(local.permute(2, 3, 0, 1), torch.stack((first, second)), atol=1e-9)
    assert torch.allclose(world.permute(2, 3, 0, 1), torch.stack((first, first @ second)), atol=1e-9)
    assert torch.allclose(positions[:, 1].T, 1 + first.sum(-1), atol=1e-9)


@pytest.mark.parametrize("scale", [0.0, 1e-9, 1e-6, 1e-3, 1.0, 3.1])
def test_kinematics_gradients_at_any_angle(scale: float, generator: torch.Generator) -> None:
    rotations = scale * torch.nn.functional.normalize(torch.randn(3, 22, 1, generator=generator, dtype=torch.float64), dim=0)
    offsets = torch.randn(3, 22, 1, generator=generator, dtype=torch.float64)
    tree = JointTree(SMPLX_PARENTS[:22], torch.float64)
    assert torch.autograd.gradcheck(tree, (rotations.requires_grad_(), offsets.requires_grad_()), fast_mode=True)
