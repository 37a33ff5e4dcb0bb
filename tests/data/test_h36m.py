"""VideoPose3D's layout of Human3.6M, on small files of that layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from dposer.body.skeleton import H36M_17
from dposer.data.h36m import CAMERAS, KEPT, SYMMETRY, View, h36m_from_source, projections, read_h36m, splits, write_h36m
from dposer.errors import InputError
from run import prepare_data

FRAMES = 7
METADATA = {"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": SYMMETRY}
COCO = {"layout_name": "coco", "num_joints": 17, "keypoints_symmetry": [[1, 3, 5, 7, 9, 11, 13, 15], [2, 4, 6, 8, 10, 12, 14, 16]]}


def world(joints: int = 32, frames: int = FRAMES, seed: int = 0) -> np.ndarray:
    """Someone in the middle of the stage, metres."""
    return (np.random.default_rng(seed).normal(size=(frames, joints, 3)) * 0.3 + [0, 0, 0.9]).astype(np.float32)


def save(path: Path, **members: Any) -> Path:
    np.savez_compressed(path, **{key: np.array(value, dtype=object) for key, value in members.items()})
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Exact keypoints, 2 frames longer than the joints."""
    longer = {
        subject: {action: world(seed=seed, frames=FRAMES + 2) for seed, action in enumerate(("Directions", "Walking 1", "WalkDog"))}
        for subject in ("S1", "S11")
    }
    positions = {subject: {action: value[:FRAMES] for action, value in actions.items()} for subject, actions in longer.items()}
    save(tmp_path / "data_3d_h36m.npz", positions_3d=positions)
    save(tmp_path / "data_2d_h36m_gt.npz", positions_2d=projections(longer, CAMERAS), metadata=METADATA)
    return tmp_path


def test_clips_are_seen_as_the_file_has_them(folder: Path) -> None:
    clips = read_h36m(folder, "gt")
    assert len(clips) == 4 * 5  # S11 Directions is corrupt
    assert {(clip.subject, clip.action) for clip in clips if clip.subject == "S11"} == {("S11", "Walking 1"), ("S11", "WalkDog")}
    for clip in clips:
        assert (len(clip), clip.fps, clip.layout, clip.joints.dtype) == (FRAMES, 50.0, H36M_17, np.float32)
        seen = clip.lens.project(torch.from_numpy(clip.joints))
        np.testing.assert_allclose(seen, clip.keypoints[..., :2], atol=1e-3)
        assert (clip.keypoints[..., 2] == 1).all() and (clip.joints[..., 2] > 2).all()
    first = clips[0]
    back = first.stand.to_world(torch.from_numpy(first.joints)).numpy()
    np.testing.assert_allclose(back, world()[:, KEPT], atol=1e-5)
    assert [clip.view for clip in clips[:4]] == ["54138969", "55011271", "58860488", "60457274"]
    assert [clip.size for clip in clips[:4]] == [(1000, 1002), (1000, 1000), (1000, 1000), (1000, 1002)]


def test_choices(folder: Path) -> None:
    clips = read_h36m(folder, "gt", subjects=["S1"], actions="Walking, Dir", stride=3)
    assert {clip.action for clip in clips} == {"Walking 1", "Directions"} and {len(clip) for clip in clips} == {3}
    assert clips[0].fps == pytest.approx(50 / 3)
    np.testing.assert_array_equal(clips[0].joints, read_h36m(folder, "gt", subjects=["S1"], actions="Dir")[0].joints[::3])


def test_cameras_as_calibrated() -> None:
    """Every camera sees the middle of the stage from 4 to 6 m, upright, from one of four sides."""
    for views in CAMERAS.values():
        for view, sign in zip(views, ((1, 1), (1, -1), (-1, 1), (-1, -1)), strict=True):
            assert float(torch.linalg.vector_norm(view.stand.orientation)) == pytest.approx(1, abs=1e-6)
            assert tuple(view.stand.position[:2].sign().int().tolist()) == sign
            feet, head = view.stand.to_camera(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.8]]))
            assert 3.9 < float(feet[2]) < 6 and float(feet[1] - head[1]) > 1.7
            assert ((view.lens.project(torch.stack((feet, head))) - 500).abs() < 450).all()
    view = CAMERAS["S9"][3]
    assert view.lens.vector.tolist() == pytest.approx(
        [1145.51135, 1144.77393, 514.968201, 501.882019, -0.198384091, 0.218323678, -0.00894780736, -0.000587205577, -0.001813362]
    )
    assert view.stand.position.tolist() == pytest.approx([-1.69604346, -3.82709985, 1.59141272])


@given(values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=16, max_size=16))
@settings(max_examples=15, deadline=None)
def test_a_view_survives_its_values(values: list[float]) -> None:
    keys = {"focal": 2, "centre": 2, "radial": 3, "tangential": 2, "orientation": 4, "translation": 3}
    parts = np.split(np.array(values), np.cumsum(list(keys.values()))[:-1])
    stored = {"id": "a", "size": [640, 480], **{key: part.tolist() for key, part in zip(keys, parts, strict=True)}}
    assert View.of(stored).values == stored


def test_other_data_sets_bring_their_cameras(tmp_path: Path) -> None:
    positions = {"tall": {"hop": world(17)}, "small": {"hop": 0.5 * world(17, seed=1)}}
    cameras = {"tall": CAMERAS["S1"][:1], "small": CAMERAS["S5"][1:3]}
    noisy = {s: {"hop": [np.full((FRAMES, 17, 3), 0.5)] * len(cameras[s])} for s in positions}
    scores = {s: {"hop": [np.full((FRAMES, 17, 3), 5.0)] * len(cameras[s])} for s in positions}
    films = {"gt": projections(positions, cameras), "noisy": noisy, "scores": scores}
    metadata = {"fps": 30.0, "splits": {"train": ["tall"], "test": ["small"]}}
    files = write_h36m(tmp_path, "mine", positions, films, cameras, metadata)
    assert [file.name for file in files] == ["data_3d_mine.npz", *(f"data_2d_mine_{name}.npz" for name in films)]
    assert splits(tmp_path, "mine") == {"train": ("tall",), "test": ("small",)}
    tall, *small = read_h36m(tmp_path, "gt", "mine")
    assert (tall.view, tall.fps, len(small)) == ("54138969", 30.0, 2)
    np.testing.assert_allclose(tall.lens.project(torch.from_numpy(tall.joints)), tall.keypoints[..., :2], atol=1e-3)
    assert read_h36m(tmp_path, "noisy", "mine")[0].keypoints[0, 0, 2] == 0.5
    assert read_h36m(tmp_path, "scores", "mine")[0].keypoints[0, 0, 2] == 1  # scores that leave [0, 1] are no confidences


def test_splits_of_human36m(folder: Path) -> None:
    assert splits(folder) == {"train": ("S1", "S5", "S6", "S7"), "valid": ("S8",), "test": ("S9", "S11")}


def two(value: Any, subject: str = "S1") -> dict[str, Any]:
    return {"positions_2d": {subject: {"Walking 1": value}}, "metadata": METADATA}


BROKEN: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "millimetres": (
        {"positions_3d": {"S1": {"Walking 1": world() * 1000}}},
        {},
        {},
        r"3d_h36m.* expected metres; divide millimetres by 1000",
    ),
    "joints": ({"positions_3d": {"S1": {"Walking 1": world(25)}}}, {}, {}, r"shape \(7, 25, 3\), expected \(frames, 32 or 17, 3\)"),
    "nan": ({"positions_3d": {"S1": {"Walking 1": world() * np.nan}}}, {}, {}, "are NaN or infinite"),
    "nested": ({"positions_3d": {"S1": world()}}, {}, {}, r"'positions_3d' is not \{subject"),
    "list": ({"positions_3d": {"S1": {"Walking 1": [1, 2]}}}, {}, {}, "found a list, expected an array"),
    "unknown cameras": ({"positions_3d": {"S2": {"Walking 1": world()}}}, {}, {}, "cameras of S2 are not known"),
    "broken camera": ({"positions_3d": {"S1": {}}, "cameras": {"S1": [{}]}}, {}, {}, "'cameras' has one that cannot be read"),
    "metadata": ({"positions_3d": {"S1": {}}, "metadata": "no"}, {}, {}, "'metadata' is a str, expected a dict"),
    "no keypoints": ({}, {"positions_2d": {}, "metadata": METADATA}, {}, "no keypoints of S1/Walking 1"),
    "short": ({}, two([np.ones((3, 17, 2))] * 4), {}, "S1/Walking 1/54138969: 3 frames of keypoints, but 7 of 3D joints"),
    "three cameras": ({}, two([np.ones((FRAMES, 17, 2))] * 3), {}, "keypoints of 3 cameras, expected 4"),
    "18 keypoints": ({}, two([np.ones((FRAMES, 18, 2))] * 4), {}, r"keypoints of shape \(7, 18, 2\)"),
    "coco": ({}, {**two([np.ones((FRAMES, 17, 2))] * 4), "metadata": COCO}, {}, "layout 'coco' with symmetry .* expected h36m"),
    "ragged": ({}, {**two([]), "metadata": {**METADATA, "keypoints_symmetry": [[1], 2]}}, {}, "expected h36m"),
    "no layout": ({}, {"positions_2d": {}}, {}, r"2d_h36m_gt\.npz: lacks metadata \(found positions_2d\)"),
    "subject": ({}, {}, {"subjects": ["S3"]}, r"has no subject S3 \(has S1\)"),
    "action": ({}, {}, {"actions": "Eat"}, r"no action begins with 'Eat' \(there are Walking 1\)"),
    "stride": ({}, {}, {"stride": 0}, "stride 0: expected 1 or more"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_fit_is_named(tmp_path: Path, name: str) -> None:
    in_3d, in_2d, choice, message = BROKEN[name]
    save(tmp_path / "data_3d_h36m.npz", **(in_3d or {"positions_3d": {"S1": {"Walking 1": world()}}}))
    save(tmp_path / "data_2d_h36m_gt.npz", **(in_2d or two([np.ones((FRAMES, 17, 2))] * 4)))
    with pytest.raises(InputError, match=message) as caught:
        read_h36m(tmp_path, "gt", **choice)
    assert "\n" not in str(caught.value)


def test_keypoints_in_cocos_order_are_converted_if_told_how(tmp_path: Path) -> None:
    save(tmp_path / "data_3d_h36m.npz", positions_3d={"S1": {"Walking 1": world()}})
    save(tmp_path / "data_2d_h36m_coco.npz", **{**two([np.ones((FRAMES, 17, 3))] * 4), "metadata": COCO})
    clips = read_h36m(tmp_path, "coco", from_coco=lambda film: 2 * film)
    assert len(clips) == 4 and (clips[0].keypoints == 2).all()


def test_missing_files_say_where_to_get_them(folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"data_2d_h36m_cpn_ft_h36m_dbb\.npz: found nothing.*data_2d_h36m_gt\.npz.*DATASETS\.md.*--source lifting"
    ):
        read_h36m(folder)
    with pytest.raises(InputError, match=r"data_3d_open\.npz: found nothing"):
        splits(folder, "open")
    save(folder / "data_3d_open.npz", positions_3d={})
    with pytest.raises(InputError, match="'metadata' has no splits"):
        splits(folder, "open")


def test_from_human36m_own_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poses = tmp_path / "S1" / "MyPoseFeatures" / "D3_Positions"
    poses.mkdir(parents=True)
    (poses / "Walking.cdf").write_bytes(b"binary")
    with pytest.raises(InputError, match=r"found no S1/\.\.\./D3_Positions/\*\.cdf\.mat.*take 'D3 Positions mat' instead"):
        h36m_from_source(tmp_path)
    data = np.empty((1, 1), dtype=object)
    data[0, 0] = (1000 * world()).reshape(FRAMES, 96)
    savemat(poses / "TakingPhoto 1.cdf.mat", {"data": data})
    prepare_data.main(prepare_data.Args("h36m", tmp_path, tmp_path / "out"))
    assert "S1" in capsys.readouterr().out
    clip = read_h36m(tmp_path / "out", "gt")[0]
    assert (clip.action, clip.fps) == ("Photo 1", 50.0)
    np.testing.assert_allclose(clip.stand.to_world(torch.from_numpy(clip.joints)), world()[:, KEPT], atol=1e-5)
    (poses / "Eating.cdf.mat").write_bytes(b"no matrix")
    with pytest.raises(InputError, match=r"Eating\.cdf\.mat: not readable"):
        h36m_from_source(tmp_path)
