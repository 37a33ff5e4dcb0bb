"""SMPL-X sequences as a skeleton: the body model's own joints, turned to y up, also after a trip through BVH."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dposer.body.model import BodyModel
from dposer.body.skeleton import SMPLX_JOINTS, SMPLX_PARENTS
from dposer.data.amass import AmassSequence
from dposer.data.bvh import read_bvh, write_bvh
from dposer.data.motion import forward_kinematics
from dposer.data.smplx_motion import continuous, local_quaternions, smplx_motion
from dposer.errors import InputError


def sequence(frames: int = 6, seed: int = 0) -> AmassSequence:
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=(frames, 63)) * 0.4, rng.normal(size=(frames, 3)) * 2, rng.normal(size=(frames, 3)) + (3, -2, 1)
    return AmassSequence(*parts, rng.normal(size=10), "neutral", 30.0)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel(dtype=torch.float64)


def posed(body: BodyModel, of: AmassSequence) -> np.ndarray:
    pose, root, trans, betas = (torch.from_numpy(a) for a in (of.pose_body, of.root_orient, of.trans, of.betas[None]))
    return body(pose, root, betas, trans, vertices=None, joints="body").joints.numpy()


def rest(body: BodyModel, of: AmassSequence) -> np.ndarray:
    return body.rest_joints(torch.from_numpy(of.betas[None]))[0].numpy()


def test_bvh_holds_the_joints_of_the_body_with_y_up(body: BodyModel, tmp_path: Path) -> None:
    given = sequence()
    motion = smplx_motion(given, rest(body, given), 30.0)
    x, y, z = np.moveaxis(posed(body, given), -1, 0)
    wanted = np.stack([x, z, -y], -1)
    np.testing.assert_allclose(forward_kinematics(motion)[1], wanted, atol=1e-10)

    write_bvh(tmp_path / "a.bvh", motion)
    again = read_bvh(tmp_path / "a.bvh")
    assert again.fps == pytest.approx(30)
    order = [again.index(name) for name in SMPLX_JOINTS[:22]]
    np.testing.assert_allclose(forward_kinematics(again)[1][:, order], wanted, atol=1e-6)


def test_only_the_last_joints_have_tips_and_these_go_on_outwards(body: BodyModel) -> None:
    motion = smplx_motion(sequence(), rest(body, sequence()), 30.0)
    ends = {name for j, name in enumerate(motion.names) if j not in motion.parents}
    assert {motion.names[j] for j in np.flatnonzero(motion.tips.any(1))} == ends
    for name in ends - {"left_foot", "right_foot"}:
        j = motion.index(name)
        assert motion.tips[j] @ motion.offsets[j] > 0
    assert motion.tips[motion.index("left_wrist"), 0] > 0 > motion.tips[motion.index("right_wrist"), 0]


def test_quaternions_are_the_rotations_without_jumps() -> None:
    frames = 200
    vectors = np.linspace(0, 9, frames)[:, None, None] * np.random.default_rng(0).normal(size=(22, 3))
    wrapped = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_rotvec().reshape(frames, 66)
    spins = AmassSequence(wrapped[:, 3:], wrapped[:, :3], np.zeros((frames, 3)), np.zeros(10), "neutral", 30.0)
    quaternions = local_quaternions(spins)
    assert quaternions.shape == (frames, 22, 4)
    np.testing.assert_allclose(
        Rotation.from_quat(quaternions.reshape(-1, 4)).as_matrix(), Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix(), atol=1e-12
    )
    assert np.abs(np.diff(quaternions, axis=0)).max() < 0.2


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_any_choice_of_signs_becomes_the_same_path_up_to_one_sign(flips: list[bool], seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = Rotation.from_rotvec(rng.uniform(-0.5, 0.5, (len(flips), 3)))
    path = [Rotation.identity()]
    for step in steps[1:] if len(flips) > 1 else []:
        path.append(path[-1] * step)
    quaternions = np.array([turn.as_quat() for turn in path])
    signs = np.where(flips, -1, 1)[:, None]
    result = continuous(quaternions * signs)
    assert ((result[1:] * result[:-1]).sum(-1) >= 0).all()
    np.testing.assert_allclose(np.abs(result), np.abs(quaternions))
    np.testing.assert_array_equal(result[0], (quaternions * signs)[0])


def test_names_and_tree_are_those_of_smplx(body: BodyModel) -> None:
    motion = smplx_motion(sequence(1), rest(body, sequence(1))[:22], 60)
    assert motion.names == SMPLX_JOINTS[:22] and motion.parents == SMPLX_PARENTS[:22]
    assert len(motion) == 1 and motion.fps == 60


def test_bad_input_is_named(body: BodyModel) -> None:
    with pytest.raises(InputError, match=r"rest_joints: shape \(1, 55, 3\), expected \(J, 3\)"):
        smplx_motion(sequence(), rest(body, sequence())[None], 30)
    with pytest.raises(InputError, match=r"rest_joints: shape \(21, 3\)"):
        smplx_motion(sequence(), np.zeros((21, 3)), 30)
    with pytest.raises(InputError, match="fps: found 0"):
        smplx_motion(sequence(), np.zeros((22, 3)), 0)
    broken = sequence()
    broken.trans[1] = np.nan
    with pytest.raises(InputError, match="trans: 3 values are NaN"):
        smplx_motion(broken, np.zeros((22, 3)), 30)
