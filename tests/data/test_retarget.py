"""Retargeting: documented rest pose, limb directions, equivariances, and facts measured on the open corpus."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dposer.body.skeleton import BODY_JOINTS, BODY_MIRROR, SMPLX_JOINTS, SMPLX_PARENTS
from dposer.data.asf_amc import read_amc
from dposer.data.bvh import read_bvh, write_bvh
from dposer.data.motion import Motion, forward_kinematics, mirror, root_path
from dposer.data.retarget import PLAUSIBLE_ANGLES, Constants, RetargetedMotion, retarget, symmetric, to_z_up
from dposer.data.rigs import RIGS, Between, detect_rig, to_t_pose
from dposer.errors import InputError

MakeMotion = Callable[..., Motion]
_NONE = Constants(**{name: 0.0 for name in vars(Constants()) if not name.endswith("_limit")})
_PARENTS = SMPLX_PARENTS[:22]


def _body(result: RetargetedMotion, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Global rotations and positions of the 22 SMPL-X joints."""
    frames = len(result)
    vectors = np.concatenate([result.root_orient, result.pose_body], axis=1).reshape(-1, 3)
    offsets = joints - joints[[max(p, 0) for p in _PARENTS]]
    path = root_path(offsets, result.trans + joints[0])
    rotations = Rotation.from_rotvec(vectors).as_matrix().reshape(frames, 22, 3, 3)
    return forward_kinematics(Motion(SMPLX_JOINTS[:22], _PARENTS, offsets, rotations, path, result.fps, 0 * offsets))


def _mirrored_pose(pose_body: np.ndarray) -> np.ndarray:
    return (pose_body.reshape(-1, 21, 3)[:, list(BODY_MIRROR)] * (1, -1, -1)).reshape(-1, 63)


def _swap(names: tuple[str, ...]) -> list[int]:
    other = {"l": "r", "r": "l"}
    middle = ("root", "lowerback")
    return [names.index(n if n in middle or n[0] not in other or other[n[0]] + n[1:] not in names else other[n[0]] + n[1:]) for n in names]


def _pose(result: RetargetedMotion, name: str) -> np.ndarray:
    return result.pose_body.reshape(-1, 21, 3)[:, BODY_JOINTS.index(name)]


def test_identity_motion_gives_the_documented_rest_pose(random_motion: MakeMotion, rest_joints: np.ndarray) -> None:
    motion = random_motion(3, size=0.0)
    result = retarget(motion, rest_joints)
    expected = {
        "spine1": (0.15, 0, 0), "spine2": (0, 0, 0), "spine3": (0.05, 0, 0), "neck": (-0.1, 0, 0), "head": (-0.1, 0, 0),
        "left_foot": (0, 0, 0), "right_foot": (0, 0, 0),
    }  # fmt: skip
    np.testing.assert_allclose(result.root_orient, [[-0.15, 0, 0]] * 3, atol=1e-6)
    for name, vector in expected.items():
        np.testing.assert_allclose(_pose(result, name), [vector] * 3, atol=1e-6, err_msg=name)
    # The wrist rests extended and deviated; here the forearm's alignment is the elbow's, so nothing else is in it.
    np.testing.assert_allclose(_pose(result, "left_wrist"), [(0, -0.12, -0.15)] * 3, atol=1e-6)
    np.testing.assert_allclose(_pose(result, "right_wrist"), [(0, 0.12, 0.15)] * 3, atol=1e-6)
    # The pelvis' pitch leaves a little twist in the hip, of which the knee takes its share; without sharing only the knee's offset is left.
    unshared = retarget(motion, rest_joints, constants=Constants(leg_share=0.0))
    np.testing.assert_allclose(_pose(unshared, "left_knee"), [(-0.08, 0, 0)] * 3, atol=1e-6)
    toes_out = Rotation.from_rotvec(_pose(result, "left_ankle")[0]) * Rotation.from_rotvec([0, -0.08, 0])
    np.testing.assert_allclose(toes_out.as_rotvec(), [0.04, 0, 0], atol=1e-6)
    assert result.plausible.all() and result.known.all()


def test_feet_are_exactly_zero(random_motion: MakeMotion, rest_joints: np.ndarray) -> None:
    """Rounding noise there would be blown up by a normaliser that divides by the standard deviation."""
    result = retarget(random_motion(4, 1), rest_joints)
    assert not _pose(result, "left_foot").any() and not _pose(result, "right_foot").any()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_limbs_point_where_the_source_points(random_motion: MakeMotion, rest_joints: np.ndarray, seed: int) -> None:
    """Without offsets and sharing, upper arm and forearm point as the source's, and the unbent leg as its thigh."""
    motion = random_motion(4, seed, 0.7)
    joints = symmetric(rest_joints)
    result = retarget(motion, rest_joints, constants=_NONE)
    rotations, positions = _body(result, joints)
    _, source = forward_kinematics(motion)
    ends = {"shoulder": ("humerus", "radius", "elbow"), "elbow": ("radius", "wrist", "wrist")}
    for side in ("left", "right"):
        for joint, (start, end, ours) in ends.items():
            bone = source[:, motion.index(side[0] + end)] - source[:, motion.index(side[0] + start)]
            mine = positions[:, SMPLX_JOINTS.index(f"{side}_{ours}")] - positions[:, SMPLX_JOINTS.index(f"{side}_{joint}")]
            cosines = (bone * mine).sum(-1) / np.linalg.norm(bone, axis=-1) / np.linalg.norm(mine, axis=-1)
            np.testing.assert_allclose(cosines, 1, atol=1e-6)
        hip, ankle = (SMPLX_JOINTS.index(f"{side}_{name}") for name in ("hip", "ankle"))
        thigh = source[:, motion.index(side[0] + "tibia")] - source[:, motion.index(side[0] + "femur")]
        whole = np.einsum("fij,j->fi", rotations[:, hip], joints[ankle] - joints[hip])
        cosines = (thigh * whole).sum(-1) / np.linalg.norm(thigh, axis=-1) / np.linalg.norm(whole, axis=-1)
        np.testing.assert_allclose(cosines, 1, atol=1e-6)


def test_sharing_twist_moves_no_joint_of_the_arm(random_motion: MakeMotion, rest_joints: np.ndarray) -> None:
    motion = random_motion(6, 3, 0.6)
    joints = symmetric(rest_joints)
    shared = replace(_NONE, arm_share=0.5, forearm_share=0.35)
    arms = [SMPLX_JOINTS.index(f"{side}_{name}") for side in ("left", "right") for name in ("elbow", "wrist")]
    (_, without), (_, with_sharing) = (_body(retarget(motion, rest_joints, constants=c), joints) for c in (_NONE, shared))
    np.testing.assert_allclose(with_sharing[:, arms], without[:, arms], atol=1e-6)


def test_collar_split_keeps_the_arm(random_motion: MakeMotion, rest_joints: np.ndarray) -> None:
    """The collar takes its share; the upper arm's global rotation stays."""
    motion = random_motion(6, 3, 0.6)
    joints = symmetric(rest_joints)
    (before, _), (after, _) = (_body(retarget(motion, rest_joints, constants=replace(_NONE, collar_share=k)), joints) for k in (0, 0.3))
    shoulder = SMPLX_JOINTS.index("left_shoulder")
    np.testing.assert_allclose(after[:, shoulder], before[:, shoulder], atol=1e-6)
    assert np.abs(after - before).max() > 0.05


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([0.2, 0.8]))
def test_mirrored_source_gives_the_mirrored_pose(random_motion: MakeMotion, rest_joints: np.ndarray, seed: int, size: float) -> None:
    motion = random_motion(5, seed, size)
    result = retarget(motion, rest_joints)
    reflected = retarget(mirror(motion, _swap(motion.names)), rest_joints)
    np.testing.assert_allclose(reflected.pose_body, _mirrored_pose(result.pose_body), atol=2e-5)
    np.testing.assert_allclose(reflected.root_orient, result.root_orient * (1, -1, -1), atol=2e-6)
    np.testing.assert_allclose(reflected.trans, result.trans * (-1, 1, 1), atol=2e-6)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_turning_the_world_turns_only_the_root(random_motion: MakeMotion, rest_joints: np.ndarray, seed: int) -> None:
    motion = random_motion(4, seed)
    turn = Rotation.random(rng=np.random.default_rng(seed))
    rotations, path = motion.rotations.copy(), motion.translations.copy()
    rotations[:, 0], path[:, 0] = turn.as_matrix() @ rotations[:, 0], turn.apply(path[:, 0])
    before = retarget(motion, rest_joints)
    after = retarget(replace(motion, rotations=rotations, translations=path), rest_joints)
    np.testing.assert_allclose(after.pose_body, before.pose_body, atol=1e-6)
    joints = symmetric(rest_joints)
    np.testing.assert_allclose(_body(after, joints)[1], turn.apply(_body(before, joints)[1].reshape(-1, 3)).reshape(4, 22, 3), atol=1e-5)


def test_z_up_turns_the_world(random_motion: MakeMotion, rest_joints: np.ndarray) -> None:
    result = retarget(random_motion(4, 7), rest_joints)
    root, trans = to_z_up(result.root_orient, result.trans, rest_joints[0])
    _, before = _body(result, rest_joints)
    _, after = _body(replace(result, root_orient=root, trans=trans), rest_joints)
    np.testing.assert_allclose(after, before @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]), atol=1e-6)  # (x, y, z) -> (x, -z, y)


def test_hips_follow_the_source_scaled_by_leg_length(random_motion: MakeMotion, rest_joints: np.ndarray) -> None:
    motion = random_motion(4, 2)
    hips = [SMPLX_JOINTS.index(name) for name in ("left_hip", "right_hip")]
    doubled = replace(motion, offsets=2 * motion.offsets, translations=2 * motion.translations)
    joints = symmetric(rest_joints)
    (_, one), (_, two) = (_body(retarget(m, rest_joints), joints) for m in (motion, doubled))
    np.testing.assert_allclose(one, two, atol=1e-6)  # the unit of length cancels
    _, source = forward_kinematics(motion)
    ours = np.linalg.norm(joints[4] - joints[1]) + np.linalg.norm(joints[7] - joints[4])
    theirs = np.linalg.norm(motion.offsets[motion.index("ltibia")]) + np.linalg.norm(motion.offsets[motion.index("lfoot")])
    middle = (source[:, motion.index("lfemur")] + source[:, motion.index("rfemur")]) / 2
    np.testing.assert_allclose(one[:, hips].mean(axis=1), middle * ours / theirs, atol=1e-6)


def test_amc_and_its_bvh_agree(tmp_path: Path, asf_text: str, amc_text: Callable[..., str], rest_joints: np.ndarray) -> None:
    """The same clip through ASF/AMC and through a BVH file with the names of the 31-joint conversions."""
    (tmp_path / "a.asf").write_text(asf_text)
    (tmp_path / "a.amc").write_text(amc_text(6))
    motion = read_amc(tmp_path / "a.amc", tmp_path / "a.asf", fps=30)
    cmu, bvh = RIGS["cmu"], RIGS["cmu_bvh"]
    renamed = dict(zip(cmu.bones, bvh.bones, strict=True))
    write_bvh(tmp_path / "a.bvh", replace(motion, names=tuple(renamed.get(name, name) for name in motion.names)))
    converted = read_bvh(tmp_path / "a.bvh")
    assert detect_rig(motion.names) is cmu and detect_rig(converted.names) is bvh
    a, b = retarget(motion, rest_joints), retarget(converted, rest_joints)
    np.testing.assert_allclose(a.pose_body, b.pose_body, atol=1e-5)
    np.testing.assert_allclose(a.trans, b.trans, atol=1e-5)


def test_plausible_flags_the_bent_frame(random_motion: MakeMotion, rest_joints: np.ndarray) -> None:
    motion = random_motion(3, size=0.0)
    motion.rotations[1, motion.index("upperback")] = Rotation.from_rotvec([PLAUSIBLE_ANGLES["spine2"] + 0.1, 0, 0]).as_matrix()
    np.testing.assert_array_equal(retarget(motion, rest_joints).plausible, [True, False, True])


def test_between_is_the_scaled_rotation(rest_joints: np.ndarray) -> None:
    """The reduced skeleton bends its one trunk joint: SMPL-X's spine shares the bend 0.6 : 0.25 : 0.15."""
    rig = RIGS["reduced"]
    assert rig.trunk.lowerback == Between("Hips", "Chest", 0.6)
    names = rig.bones
    parents = tuple(-1 if name == "Hips" else 0 for name in names)
    offsets = np.array([[0.0, 0, 0] if name == "Hips" else [0.1, 0.1, 0.0] for name in names])
    names, parents = (*names, "LeftHand", "RightHand"), (*parents, 0, 0)
    offsets = np.concatenate([offsets, [[0.3, 0, 0], [-0.3, 0, 0]]])
    rotations = np.tile(np.eye(3), (1, len(names), 1, 1))
    rotations[0, names.index("Chest")] = Rotation.from_rotvec([0, 0, 1.0]).as_matrix()
    motion = Motion(names, parents, offsets, rotations, root_path(offsets, np.zeros((1, 3))), 30.0, 0 * offsets)
    result = retarget(motion, rest_joints, rig, _NONE)
    shares = [_pose(result, name)[0, 2] for name in ("spine1", "spine2", "spine3")]
    np.testing.assert_allclose(shares, [0.6, 0.25, 0.15], atol=1e-6)
    assert [name for name, known in zip(BODY_JOINTS, result.known, strict=True) if not known] == ["left_wrist", "right_wrist"]


def test_rest_frames_make_a_t_pose(mocap: Path) -> None:
    """Bandai-Namco's zero angles are no T-pose; seen from the T-pose the arms lie along +-x and the legs along -y."""
    path = sorted((mocap / "noncommercial" / "bandai_namco" / "dataset-1").glob("*.bvh.gz"))[0]
    motion = read_bvh(path)
    turned = to_t_pose(motion, RIGS["bandai"])
    for name, direction in {
        "LowerArm_L": (1, 0, 0),
        "LowerArm_R": (-1, 0, 0),
        "Foot_L": (0, -1, 0),
        "Foot_R": (0, -1, 0),
        "Chest": (0, 1, 0),
    }.items():
        offset = turned.offsets[turned.index(name)]
        np.testing.assert_allclose(offset / np.linalg.norm(offset), direction, atol=0.06)
    np.testing.assert_allclose(forward_kinematics(turned)[1], forward_kinematics(motion)[1], atol=1e-9)


def test_upper_body_knows_no_legs(mocap: Path, rest_joints: np.ndarray) -> None:
    path = sorted((mocap / "other_permissive" / "hri_upper_body").glob("*.bvh.gz"))[0]
    result = retarget(read_bvh(path), rest_joints)
    known = {name for name, is_known in zip(BODY_JOINTS, result.known, strict=True) if is_known}
    sides = {f"{side}_{name}" for side in ("left", "right") for name in ("collar", "shoulder", "elbow", "wrist")}
    assert known == sides | {"neck", "head"}
    legs = [BODY_JOINTS.index(name) for name in ("left_hip", "right_knee", "left_ankle")]
    assert not result.pose_body.reshape(-1, 21, 3)[:, legs].any()


def test_bad_input(random_motion: MakeMotion, rest_joints: np.ndarray) -> None:
    motion = random_motion(2)
    with pytest.raises(InputError, match="unknown skeleton"):
        detect_rig(("hip", "hop"))
    with pytest.raises(InputError, match="lacks the joints"):
        retarget(motion, rest_joints, RIGS["game"])
    with pytest.raises(InputError, match="rest_joints"):
        retarget(motion, rest_joints[:5])
    flat = replace(motion, offsets=0 * motion.offsets)
    with pytest.raises(InputError, match="no length"):
        retarget(flat, rest_joints)


@pytest.mark.parametrize(
    ("clip", "flagged"),
    [("60/60_07", 0.35), ("60/60_02", 0.03), ("60/60_06", 1.0), ("01/01_12", 0.0), ("unknown_backflip/backflip_01", 0.18)],
)
def test_flagged_frames_of_the_corpus(mocap: Path, rest_joints: np.ndarray, clip: str, flagged: float) -> None:
    """Broken heads (60) and feet (backflip) that the corpus lists; 01_12 is only sound if the Euler branches are repaired."""
    folder = mocap / "cmu" / "asf_amc" / clip.split("/")[0]
    motion = read_amc(folder / f"{clip.split('/')[1]}.amc.gz", next(folder.glob("*.asf")))
    assert np.mean(~retarget(motion, rest_joints).plausible) == pytest.approx(flagged, abs=0.025)


@pytest.mark.parametrize(
    ("pattern", "rig"),
    [
        ("cmu/bvh/06_01*", "cmu_bvh"), ("cmu/bvh/94_07*", "daz"), ("cmu/bvh_fbx/85_*", "game"), ("cmu/bvh_reduced/06_*", "reduced"),
        ("other_permissive/snu_mass_mss/mass_walk*", "motionbuilder2"), ("other_permissive/snu_mass_mss/mss_walk.bvh*", "motionbuilder3"),
    ],
)  # fmt: skip
def test_every_rig_of_the_corpus(mocap: Path, rest_joints: np.ndarray, pattern: str, rig: str) -> None:
    motion = read_bvh(sorted(mocap.glob(pattern))[0])
    assert detect_rig(motion.names).name == rig
    result = retarget(motion, rest_joints)
    assert np.isfinite(result.pose_body).all() and result.plausible.mean() > 0.9
    assert np.linalg.norm(result.pose_body.reshape(-1, 3), axis=-1).max() <= np.pi + 1e-6
    _, positions = _body(result, symmetric(rest_joints))
    head, feet = positions[:, 15, 1], positions[:, [10, 11], 1].mean(axis=1)
    assert np.median(head - feet) > 0.7  # upright most of the time, so no axis is swapped
