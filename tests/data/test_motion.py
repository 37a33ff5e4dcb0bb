"""Forward kinematics and Euler angles against hand-computed values."""

import numpy as np
import pytest

from dposer.data.motion import Motion, euler_matrices, forward_kinematics, mirror, root_path

_PLANAR = np.array([[0.0, 0, 0], [1, 0, 0], [1, 0, 0]])


def _planar_arm(degrees: tuple[float, float]) -> Motion:
    rotations = np.stack([euler_matrices("Z", np.array([a])) for a in (*degrees, 0.0)])[None]
    tips = np.array([[0, 0, 0], [0, 0, 0], [1.0, 0, 0]])
    return Motion(("a", "b", "c"), (-1, 0, 1), _PLANAR, rotations, root_path(_PLANAR, np.array([[0.0, 2.0, 0.0]])), 30.0, tips)


def test_two_link_arm_by_hand() -> None:
    rotations, positions = forward_kinematics(_planar_arm((90, -90)))
    np.testing.assert_allclose(positions[0], [[0, 2, 0], [0, 3, 0], [1, 3, 0]], atol=1e-12)
    np.testing.assert_allclose(rotations[0, 2], np.eye(3), atol=1e-12)


def test_euler_order_is_the_written_order() -> None:
    degrees = np.array([[90.0, 90.0, 0.0]])
    # Rz(90) Rx(90): x -> y, y -> z -> z, z -> -y -> x
    np.testing.assert_allclose(euler_matrices("ZXY", degrees)[0] @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(euler_matrices("ZXY", degrees)[0] @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(euler_matrices("XZY", degrees)[0] @ [1, 0, 0], [0, 0, 1], atol=1e-12)


@pytest.mark.parametrize("axes", ["", "X", "YZ"])
def test_euler_with_fewer_axes(axes: str) -> None:
    matrices = euler_matrices(axes, np.full((4, len(axes)), 30.0))
    np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (4, 3, 3)), atol=1e-12)


def test_mirror_reflects_positions() -> None:
    motion = _planar_arm((30, 40))
    _, positions = forward_kinematics(motion)
    _, mirrored = forward_kinematics(mirror(motion, (0, 1, 2)))
    np.testing.assert_allclose(mirrored, positions * (-1, 1, 1), atol=1e-12)


def test_select_thins_out_frames() -> None:
    motion = _planar_arm((30, 40))
    assert len(motion.select(slice(0, 0))) == 0
    assert motion.select(slice(None), fps=15.0).fps == 15.0
