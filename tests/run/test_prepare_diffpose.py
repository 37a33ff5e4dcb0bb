"""DiffPose's files made from films of the layouts that the data sets come in; the detector is one that sees white."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torch import Tensor

from dposer.body.skeleton import H36M_17, SMPL_24
from dposer.data.diffpose_files import hard_by_fit, hard_frames_of, read_diffpose, read_hard_list
from dposer.data.diffpose_prepare import annotated, detect, h36m_footage, mpi_inf_3dhp_footage, prepare, pw3d_footage
from dposer.data.h36m import CAMERAS, KEPT
from dposer.data.heatmap_mixtures import StoredMaps
from dposer.data.lifting_clip import LiftingClip
from dposer.errors import InputError
from dposer.viz import write_video
from run import prepare_diffpose
from run._cli import cli
from tests.lifting_data import someone

SIDE = 400
"""Pixels of our pictures."""


def white(crops: Tensor) -> Tensor:
    """Every channel is how white the crop is."""
    assert crops.shape[1:] == (3, 255, 255) and crops.min() >= 0 and crops.max() < 1.001
    return torch.nn.functional.interpolate(crops.mean(1, keepdim=True), (64, 64), mode="area").expand(-1, 16, -1, -1)


def picture(spot: np.ndarray) -> np.ndarray:
    """Dark, with a white spot at (x, y)."""
    image = np.full((SIDE, SIDE, 3), 20, np.uint8)
    x, y = spot.round().astype(int)
    image[max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5] = 255
    return image


def actor(frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (F, 32, 2) and millimetres (F, 32, 3) before a camera, of Human3.6M's joints."""
    joints = np.zeros((frames, 32, 3))
    joints[:, KEPT] = someone(frames, seed)[:, :, [0, 2, 1]] * [1, -1, 1] + [0.1, 0.9, 4]
    joints[:, [joint for joint in range(32) if joint not in KEPT]] = joints[:, :1]
    return joints[..., :2] / joints[..., 2:] * 500 + SIDE / 2, 1000 * joints


def save_cdf_mat(path: Path, rows: np.ndarray) -> None:
    cell = np.empty((1, 1), object)
    cell[0, 0] = rows.reshape(len(rows), -1).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"data": cell})


def write_h36m_film(folder: Path, subject: str, name: str, frames: int = 13, world: bool = False) -> None:
    """A video in which the pelvis is white, and poses for all its frames and one more."""
    points, joints = actor(frames + 1, len(name))
    place = folder / subject
    if world:
        view = CAMERAS[subject][0]
        save_cdf_mat(place / "D3_Positions" / f"{name.rpartition('.')[0]}.cdf.mat", 1000 * _to_world(joints / 1000, view))
        points = view.lens.project(torch.from_numpy(joints / 1000).float()).numpy()
    else:
        save_cdf_mat(place / "Poses_D2_Positions" / f"{name}.cdf.mat", points)
        save_cdf_mat(place / "Poses_D3_Positions_mono" / f"{name}.cdf.mat", joints)
    (place / "Videos").mkdir(exist_ok=True)
    write_video(place / "Videos" / f"{name}.mp4", np.stack([picture(point[0] % SIDE) for point in points[:frames]]), 50.0)


def _to_world(joints: np.ndarray, view: Any) -> np.ndarray:
    """Inverse of the camera's way: solved from where it takes the axes."""
    ends = view.stand.to_camera(torch.cat((torch.zeros(1, 3), torch.eye(3)))).double().numpy()
    found: np.ndarray = (joints - ends[0]) @ np.linalg.inv(ends[1:] - ends[0])
    return found


@pytest.fixture(scope="module")
def h36m(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("h36m")
    for subject, name in (
        ("S1", "Sitting 2.54138969"), ("S1", "Sitting 1.54138969"), ("S5", "Waiting 1.55011271"), ("S9", "Walking.58860488"),
        ("S11", "Directions.54138969"),
    ):  # fmt: skip
        write_h36m_film(folder, subject, name, frames=13)
    (folder / "S9" / "Videos" / "_ALL.58860488.mp4").write_bytes(b"nobody looks into it")
    return folder


def clips_of(path: Path, split: Any) -> dict[str, LiftingClip]:
    return {clip.name: clip for clip in read_diffpose(path, split)}


def test_human36m_is_prepared_and_goes_on_where_it_was_stopped(h36m: Path, tmp_path: Path) -> None:
    path, seen = tmp_path / "H36M.h5", 0

    def tired(crops: Tensor) -> Tensor:
        nonlocal seen
        seen += len(crops)
        if seen > 4:
            raise KeyboardInterrupt
        return white(crops)

    films = h36m_footage(h36m)
    assert [film.name for film in films] == ["S1 Sitting 1.54138969", "S1 Sitting 2.54138969", "S9 Walking.58860488"]  # two are skipped
    with pytest.raises(KeyboardInterrupt):
        prepare(path, "h36m", films, tired, {"weights": "white"})
    assert not path.exists() and len(list((tmp_path / "H36M.parts").glob("*.npy"))) == 1
    with pytest.raises(InputError, match="parts of a run with other settings"):
        prepare(path, "h36m", films, white, {"weights": "black"})
    (tmp_path / "list").write_text("/S9/Walking.58860488/8.jpg\n/S9/Walking.58860488/16.jpg\n")
    listed, seen = read_hard_list(tmp_path / "list"), -100
    tallies = prepare(path, "h36m", films, tired, {"weights": "white"}, lambda rows: hard_frames_of(rows, listed), batch=2)
    assert seen == -94 and [file.name for file in tmp_path.glob("H36M*")] == ["H36M.h5"]  # six more crops, and no parts
    found = [(one.split, one.subject, one.films, one.frames, one.hard) for one in tallies]
    assert found == [("train", "S1", 2, 6, 0), ("test", "S9", 1, 3, 1)]
    assert all(one.doubt for one in tallies)  # all channels see the pelvis

    train, test = clips_of(path, "train"), clips_of(path, "test")
    assert set(train) == {"S1/Sitting/54138969", "S1/Sitting 1/54138969"}
    clip, (points, joints) = test["S9/Walking/58860488"], actor(14, len("Walking.58860488"))
    frames = [3, 7, 11]
    assert clip.joints is not None and np.allclose(clip.joints, joints[frames][:, KEPT] / 1000, atol=1e-5)
    assert np.abs(clip.keypoints[:, 0, :2] - points[frames, 0]).max() < 5  # pixels, of crops with cells of 4
    assert clip.hard is not None and clip.hard.tolist() == [False, True, False] and isinstance(clip.heatmaps, StoredMaps)


def test_poses_in_the_world_do_where_there_are_no_others(tmp_path: Path) -> None:
    write_h36m_film(tmp_path, "S9", "Waiting.54138969", frames=4, world=True)
    (film,) = h36m_footage(tmp_path)
    _, joints = actor(5, len("Waiting.54138969"))
    rows = film.annotations()
    assert np.allclose(rows["gt_3d"][0].T, joints[3, KEPT], atol=0.1)
    pixels = CAMERAS["S9"][0].lens.project(torch.from_numpy(joints[3, KEPT] / 1000).float())
    assert np.allclose(rows["gt_2d"][0].T, pixels.numpy(), atol=0.1)
    (tmp_path / "S9" / "D3_Positions" / "Waiting.cdf.mat").unlink()
    with pytest.raises(InputError, match="found neither D2_Positions and D3_Positions_mono"):
        h36m_footage(tmp_path)[0].annotations()
    for folder, columns in (("D2_Positions", 64), ("D3_Positions_mono", 90)):
        save_cdf_mat(tmp_path / "S9" / folder / "Waiting.54138969.cdf.mat", np.zeros((5, columns)))
    with pytest.raises(InputError, match=r"positions of shape \(5, 90\), expected Human3.6M's positions, \(n, 96\)"):
        h36m_footage(tmp_path)[0].annotations()
    (tmp_path / "S9" / "D2_Positions" / "Waiting.54138969.cdf.mat").rename(tmp_path / "S9" / "D2_Positions" / "Waiting.54138969.cdf")
    with pytest.raises(InputError, match=r"Waiting.54138969.cdf: (.cdf files are read by cdflib.*pip install cdflib|not readable)"):
        h36m_footage(tmp_path)[0].annotations()


def test_3dhp_is_prepared_of_valid_frames(tmp_path: Path) -> None:
    points, joints = (some[:, KEPT] for some in actor(3, 5))
    order = [14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]  # theirs of each of ours
    theirs = np.argsort(order)
    (tmp_path / "TS2" / "imageSequence").mkdir(parents=True)
    with h5py.File(tmp_path / "TS2" / "annot_data.mat", "w") as file:
        sets = {"annot2": points[:, theirs], "annot3": joints[:, theirs], "univ_annot3": joints[:, theirs] * 1.1}
        for key, values in sets.items():
            file[key] = values[:, None]
        file["valid_frame"], file["activity_annotation"] = np.array([[1.0], [0], [1]]), np.ones((3, 1))
    with pytest.raises(InputError, match="found 0 pictures, expected 3"):
        mpi_inf_3dhp_footage(tmp_path)
    for frame in range(3):
        Image.fromarray(picture(points[frame, 0])).save(tmp_path / "TS2" / "imageSequence" / f"img_{frame + 1:06d}.jpg")
    path = tmp_path / "3DHP.h5"
    (tally,) = prepare(path, "3dhp", mpi_inf_3dhp_footage(tmp_path), white, {})
    (clip,) = read_diffpose(path, "test")
    assert (tally.frames, clip.subject, len(clip)) == (2, "TS2", 2) and clip.joints is not None
    assert np.allclose(clip.joints, 1.1 * joints[[0, 2]] / 1000, atol=1e-5)
    assert np.abs(clip.keypoints[:, H36M_17.joints.index("pelvis"), :2] - points[[0, 2], 0]).max() < 5


def test_3dpw_is_prepared_before_the_camera_and_never_runs_a_pickle(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tall = np.tile(someone(3, 1), (1, 2, 1))[:, :24]
    flat = np.concatenate((random.uniform(120, 280, (3, 2, 18)), np.ones((3, 1, 18))), 1)
    flat[:, :, 4], flat[1] = 0, 0  # a joint that was not found lies at 0, 0, in the second frame all of them
    cameras = np.tile(np.eye(4), (3, 1, 1))
    cameras[:, :3, :3], cameras[:, :3, 3] = [[0, 1, 0], [0, 0, -1], [-1, 0, 0]], [0.1, 0.9, 4]
    (tmp_path / "imageFiles" / "walk_00").mkdir(parents=True)
    for frame in range(3):
        Image.fromarray(picture(flat[frame, :2, 8])).save(tmp_path / "imageFiles" / "walk_00" / f"image_{frame:05d}.jpg")
    stored = {"sequence": "walk_00", "poses2d": [flat], "jointPositions": [tall.reshape(3, 72)], "cam_poses": cameras}
    file = tmp_path / "sequenceFiles" / "test" / "walk_00.pkl"
    file.parent.mkdir(parents=True)
    file.write_bytes(pickle.dumps(stored, protocol=2))

    path = tmp_path / "3DPW.h5"
    (tally,) = prepare(path, "3dpw", pw3d_footage(tmp_path), white, {})
    (clip,) = read_diffpose(path, "test")
    assert (tally.split, tally.subject, len(clip)) == ("test", "te", 2) and clip.joints is not None
    before = tall[..., [1, 2, 0]] * [1, -1, -1] + [0.1, 0.9, 4]
    assert np.allclose(clip.joints, before[[0, 2]], atol=1e-5)
    hip = SMPL_24.joints.index("right_hip")
    assert np.abs(clip.keypoints[:, hip, :2] - flat[[0, 2], :2, 8]).max() < 5
    assert (clip.keypoints[:, hip, :2] > 100).all()  # crops do not reach for 0, 0

    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return exec, ("raise SystemExit",)

    for broken, message in (({"poses2d": Bomb()}, "unsafe pickle"), ({"poses2d": []}, "lacks jointPositions, cam_poses")):
        file.write_bytes(pickle.dumps(broken))
        with pytest.raises(InputError, match=message):
            pw3d_footage(tmp_path)[0].annotations()


def test_crops_are_square_and_black_outside_and_detectors_are_checked() -> None:
    points = np.array([[[-20.0, 10.0], [30.0, 60.0]]])
    rows = annotated("h36m", ("Walking", "S1", "0", "54138969"), np.array([3]), points, np.ones((1, 2), bool))
    assert rows["crop"].tolist() == [[-25, 5, 60]]
    image = np.full((50, 100, 3), 255, np.uint8)
    (row,) = detect(rows, [image], white)
    inside = row["heatmap"][0].astype(float)
    assert inside[:47, 28:].min() > 0.99 and inside[49:].max() < 0.01 and inside[:, :26].max() < 0.01
    assert len(detect(rows, [], white)) == 0
    with pytest.raises(InputError, match=r"shape \(1, 16, 32, 32\), expected \(1, 16, 64, 64\)"):
        detect(rows, [image], lambda crops: white(crops)[..., ::2, ::2])
    assert not hard_by_fit(torch.zeros(1, 16, 64, 64)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--weights: not given, expected weights of HRNet-W32"),
        (("--weights", "none.pt"), "none.pt: found nothing, expected weights of HRNet-W32"),
        (("--weights", __file__), "found no S1/.../Videos/.*, expected Human3.6M unpacked"),
        (("--batch", "0"), "--batch 0: expected 1 or more"),
        (("--weights", __file__, "--hard-list", __file__, "--hard-by-fit"), "--hard-list: is of Human3.6M, and instead"),
    ],
)
def test_the_command_tells_what_it_lacks(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli(prepare_diffpose.main, ["--source", "h36m", "--input", str(tmp_path), *arguments])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    with pytest.raises(InputError, match=message):
        raise InputError(error)
