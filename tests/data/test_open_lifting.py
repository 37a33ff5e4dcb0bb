"""Motions on the stage, cameras around it and what the simulated detector makes of them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.body.skeleton import H36M_17
from dposer.data.amass import AmassSequence, write_amass
from dposer.data.h36m import CAMERAS, read_h36m, splits
from dposer.data.open_lifting import Actors, Detector, behind_trunk, cut, draw_views, find_motions, lasting, looking, record, staged
from dposer.errors import InputError
from dposer.geometry.lens import Stand
from run import prepare_data

ROW = {name: row for row, name in enumerate(H36M_17.joints)}
STANDING = np.zeros((17, 3), np.float32)
"""Faces +x with the left at +y, arms hanging."""
for _name, _place in {
    "pelvis": (0, 0, 0.95), "spine": (0, 0, 1.2), "neck": (0, 0, 1.45), "head": (0.05, 0, 1.57), "head_top": (0, 0, 1.7),
    "left_hip": (0, 0.13, 0.95), "left_knee": (0, 0.13, 0.5), "left_ankle": (0, 0.13, 0.08),
    "left_shoulder": (0, 0.17, 1.4), "left_elbow": (0, 0.25, 1.1), "left_wrist": (0.05, 0.25, 0.85),
}.items():  # fmt: skip
    STANDING[ROW[_name]] = _place
    STANDING[ROW[_name.replace("left", "right")]] = _place * np.array([1, -1, 1])


@pytest.fixture(scope="module")
def actors() -> Actors:
    return Actors()


def walk(frames: int, metres: float, seed: int = 0, fps: float = 30.0) -> AmassSequence:
    """Straight along x, the joints turning slowly."""
    pose = np.outer(np.linspace(0, 1, frames), np.random.default_rng(seed).normal(size=63) * 0.2)
    trans = np.linspace((0, 0, 1.2), (metres, 0, 1.2), frames)
    return AmassSequence(pose, np.tile([np.pi / 2, 0, 0], (frames, 1)), trans, np.zeros(10), "neutral", fps)


@pytest.fixture(scope="module")
def motions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("amass")
    write_amass(folder / "train" / "01" / "walk_stageii.npz", walk(100, 5.8), plausible=np.arange(100) != 60)
    write_amass(folder / "train" / "01" / "fast_stageii.npz", walk(80, 1, fps=60.0))
    write_amass(folder / "test" / "02" / "stand_poses.npz", walk(40, 0))
    write_amass(folder / "test" / "02" / "film_stageii.npz", walk(40, 0, fps=24.0))
    write_amass(folder / "other" / "03" / "stand_stageii.npz", walk(40, 0))
    return folder


def test_prepared_and_read(motions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        prepare_data.main(prepare_data.Args("lifting", motions, tmp_path / name, seed=3))
    out = capsys.readouterr().out
    assert "1 of 4 files could not be used" in out and "film_stageii.npz: 24 frames a second" in out
    for file in ("data_3d_open.npz", "data_2d_open_gt.npz", "data_2d_open_noisy.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert splits(tmp_path / "a", "open") == {"train": ("01",), "valid": (), "test": ("02",)}
    exact, noisy = (read_h36m(tmp_path / "a", name, "open") for name in ("gt", "noisy"))
    lengths = {(clip.subject, clip.action): len(clip) for clip in exact}
    # 3 m of 5.8 m in 100 frames are about 52 frames, by the legs; frame 60 is implausible, and too few are left before it
    first = lengths.pop(("01", "walk 1"))
    assert abs(first - 52) < 5 and lengths == {("01", "fast 1"): 40, ("01", "walk 2"): 39, ("02", "stand 1"): 40}
    for clip, seen in zip(exact, noisy, strict=True):
        assert (clip.name, clip.fps) == (seen.name, 30.0)
        np.testing.assert_array_equal(clip.joints, seen.joints)
        np.testing.assert_allclose(clip.lens.project(torch.from_numpy(clip.joints)), clip.keypoints[..., :2], atol=1e-3)
        assert ((clip.keypoints[..., :2] > 0) & (clip.keypoints[..., :2] < clip.size)).mean() > 0.99


def test_bodies_differ_and_keep_their_bones(motions: Path, actors: Actors) -> None:
    """One subject has one body, whatever the seed of its motions; another has another; the feet stay where the floor is."""
    bones = [], []
    for seed in (0, 1):
        for row, ((split, subject), paths) in enumerate(find_motions(motions).items()):
            for joints in record(split, subject, paths, actors, seed).joints.values():
                length = np.linalg.norm(joints - joints[:, list(H36M_17.parents)], axis=-1)[:, 1:]
                limbs = [ROW[f"{side}_{name}"] - 1 for side in ("left", "right") for name in ("ankle", "elbow", "wrist")]
                np.testing.assert_allclose(length[:, limbs], length[:1, limbs].repeat(len(length), 0), atol=1e-4)
                bones[row].append(length[0, limbs])
                assert 0.8 < joints[0, 0, 2] < 1.6
    assert np.abs(bones[0][0] - bones[0][1]).max() < 1e-4 < 0.003 < np.abs(bones[0][0] - bones[0][-1]).max()
    assert np.abs(bones[0][0] - bones[1][0]).max() > 0.003


@given(
    steps=st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.integers(0, 9)), min_size=1, max_size=40),
    shortest=st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_pieces(steps: list[tuple[float, float, int]], shortest: int) -> None:
    path, kept = np.cumsum([step[:2] for step in steps], 0), np.array([step[2] > 0 for step in steps])
    pieces, end = cut(path, kept, 1.5, shortest), 0
    for piece in pieces:
        assert piece.start >= end and piece.stop - piece.start >= shortest and kept[piece].all()
        assert np.ptp(path[piece], axis=0).max() <= 1.5
        longer = slice(piece.start, piece.stop + 1)
        assert piece.stop == len(path) or not kept[longer].all() or np.ptp(path[longer], axis=0).max() > 1.5
        end = piece.stop
    if shortest == 1:
        assert sum(piece.stop - piece.start for piece in pieces) == kept.sum()


def test_stage_turns_and_moves_only() -> None:
    random = np.random.default_rng(0)
    joints = STANDING + np.stack((np.linspace(7, 9, 30), np.zeros(30), np.zeros(30)), -1)[:, None]
    places = [staged(joints, random) for _ in range(50)]
    for place in places:
        np.testing.assert_allclose(place[..., 2], joints[..., 2], atol=1e-5)
        flat, before = place.reshape(-1, 3)[::37], joints.reshape(-1, 3)[::37]
        np.testing.assert_allclose(np.linalg.norm(flat - flat[:1], axis=1), np.linalg.norm(before - before[:1], axis=1), atol=1e-5)
        assert np.abs(place[:, 0, :2]).max() < 1.5 + 1e-5
    assert np.std([place[0, 0, :2] for place in places]) > 0.3


def test_cameras_look_at_the_stage() -> None:
    target = torch.tensor([0.1, -0.2, 0.9])
    stand = looking(torch.tensor([3.0, -4.0, 1.6]), target)
    seen = stand.to_camera(torch.stack((target, target + torch.tensor([0.0, 0.0, 0.1]))))
    assert torch.allclose(seen[0, :2], torch.zeros(2), atol=1e-6) and seen[0, 2] > 4
    assert abs(seen[1, 0]) < 1e-6 and seen[1, 1] < -0.05  # upright: above is at smaller y
    people = STANDING + np.random.default_rng(0).uniform(-1.5, 1.5, (200, 1, 3)).astype(np.float32) * np.float32([1, 1, 0])
    for view, model in zip(draw_views(people, np.random.default_rng(0)), CAMERAS["S1"], strict=True):
        before = view.stand.to_camera(torch.from_numpy(people))
        pixels = view.lens.project(before)
        assert ((pixels >= 0) & (pixels < torch.tensor(view.size))).all(-1).float().mean() > 0.997
        assert (view.stand.position[:2] * model.stand.position[:2] > 0).all() and 1.4 <= view.stand.position[2] <= 1.7


def side_view(frames: int) -> np.ndarray:
    """Someone seen from their left, 5 m away."""
    stand = looking(torch.tensor([0.0, 5.0, 1.2]), torch.tensor([0.0, 0.0, 1.0]))
    return stand.to_camera(torch.from_numpy(STANDING)).numpy()[None].repeat(frames, 0)


def test_who_is_behind_the_trunk() -> None:
    hidden = {H36M_17.joints[row] for row in np.flatnonzero(behind_trunk(side_view(1))[0])}
    assert hidden == {"right_hip", "right_shoulder", "right_elbow", "right_wrist"}
    front = looking(torch.tensor([5.0, 0.0, 1.2]), torch.tensor([0.0, 0.0, 1.0])).to_camera(torch.from_numpy(STANDING)).numpy()
    assert not behind_trunk(front[None]).any()


def test_lasting_noise() -> None:
    noise = lasting(np.random.default_rng(0), (4000, 20), 0.8)
    assert noise.std() == pytest.approx(1, abs=0.03) and noise[0].std() == pytest.approx(1, abs=0.5)
    for lag in (1, 3):
        assert (noise[lag:] * noise[:-lag]).mean() == pytest.approx(0.8**lag, abs=0.04)


def detections(frames: int, seed: int = 0, **changes: object) -> tuple[np.ndarray, np.ndarray]:
    """Exact and found keypoints of the side view."""
    view = dataclasses.replace(CAMERAS["S1"][1], stand=Stand(torch.tensor([1.0, 0, 0, 0]), torch.zeros(3)))
    joints = side_view(frames)
    pixels = view.lens.project(torch.from_numpy(joints)).numpy()
    detector = dataclasses.replace(Detector(), **changes)
    return pixels, detector(pixels, joints, view, np.random.default_rng(seed))


def test_detector_errs_as_it_says() -> None:
    exact, found = detections(6000)
    np.testing.assert_array_equal(found, detections(6000)[1])
    seen, error = found[..., 2] > 0, np.linalg.norm(found[..., :2] - exact, axis=-1)
    assert 3.5 < error[seen].mean() < 7 and np.percentile(error[seen], 99) > 4 * error[seen].mean()
    hidden = behind_trunk(side_view(1))[0]
    assert 1 - seen[:, ~hidden].mean() == pytest.approx(0.005, abs=0.002)
    assert 1 - seen[:, hidden].mean() == pytest.approx(0.05, abs=0.015)
    assert np.corrcoef(found[..., 2][seen], error[seen])[0, 1] < -0.4
    assert found[..., 2][seen].min() >= 0.05 and found[..., 2].max() <= 1
    assert found[:, ROW["left_hip"], 2].mean() > found[:, ROW["right_hip"], 2].mean() + 0.05


def test_detector_part_by_part() -> None:
    nothing = {"noise": 1e-9, "tail": 0.0, "outliers": 0.0, "swapped": 0.0, "missing": 0.0, "missing_hidden": 0.0, "trust_noise": 0.0}
    exact, found = detections(50, **nothing)
    np.testing.assert_allclose(found[..., :2], exact, atol=1e-3)

    exact, found = detections(4000, **{**nothing, "noise": 0.006, "hidden_scale": 1.0})
    error = found[..., :2] - exact
    height = 1149.67566 * 1.7 / float(side_view(1)[0, 0, 2])
    assert error.std() == pytest.approx(0.006 * height, rel=0.1)  # proportions have mean 1
    assert (error[1:] * error[:-1]).mean() / error.var() == pytest.approx(0.7 * 0.8, abs=0.03)

    exact, found = detections(8000, **{**nothing, "swapped": 0.1})
    other = exact[:, list(H36M_17.mirror)]
    swapped = (np.abs(found[..., :2] - other) < 1e-2).all(-1) & (np.abs(exact - other) > 1).any(-1)
    for pair in (("elbow", "wrist"), ("knee", "ankle")):
        rows = [ROW[f"{side}_{name}"] for side in ("left", "right") for name in pair]
        assert (swapped[:, rows].all(1) == swapped[:, rows].any(1)).all()
        assert swapped[:, rows[0]].mean() == pytest.approx(0.1, abs=0.03)
    assert not swapped[:, ROW["left_shoulder"]].any()


def test_gaps_hold_the_last_place() -> None:
    _, found = detections(2000, missing=0.3, missing_hidden=0.3)
    lost = found[..., 2] == 0
    assert 0.25 < lost.mean() < 0.35
    held = lost[1:]
    np.testing.assert_array_equal(found[1:, :, :2][held], found[:-1, :, :2][held])
    assert (held & lost[:-1]).sum() / held.sum() > 0.7  # they last
    assert np.isfinite(detections(30, missing=1.0, missing_hidden=1.0)[1]).all()


def test_folders_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found no train\|valid\|test.*--write-amass"):
        find_motions(tmp_path)
    for split in ("train", "test"):
        write_amass(tmp_path / split / "01" / "a_stageii.npz", walk(20, 0))
    with pytest.raises(InputError, match="subject 01 is in more than one split"):
        find_motions(tmp_path)
    (tmp_path / "test" / "01" / "a_stageii.npz").unlink()
    with pytest.raises(InputError, match="no motion gave a piece of 27 plausible frames"):
        prepare_data.main(prepare_data.Args("lifting", tmp_path, tmp_path / "out"))
