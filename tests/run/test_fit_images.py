"""Folders and videos of people of our own making, fitted by the command line: whole, with bad ones among them, and continued."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer.assets import asset
from dposer.body.model import default_body
from dposer.body.skeleton import OPENPOSE_25, layout_map
from dposer.data.amass import read_amass, read_poses
from dposer.data.keypoints import Keypoints, read_keypoints, write_openpose
from dposer.data.video import open_video
from dposer.errors import InputError
from dposer.geometry.camera import Camera
from dposer.viz import save_image, write_video
from run import _fitting
from run import fit_images as module
from run._cli import cli

SIZE = (320, 240)
GREY = np.full((SIZE[1], SIZE[0], 3), 180, np.uint8)
FRAMES = 12


def seen(poses: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(N, 25, 3) keypoints of people who face the camera."""
    body, count = default_body(torch.device("cpu")), len(poses)
    facing, trans = torch.tensor([[math.pi, 0, 0]]).expand(count, 3), torch.as_tensor(places, dtype=torch.float32)
    out = body(torch.as_tensor(poses), facing, trans=trans, vertices="keypoints")
    rows = list(layout_map(body.keypoint_layout.joints, OPENPOSE_25.joints))
    points = Camera.of_size(*SIZE).project(body.keypoints(out)[:, rows])
    return torch.cat((points, torch.ones(count, 25, 1)), -1).double().numpy()


def write(path: Path, points: np.ndarray) -> None:
    write_openpose(path, Keypoints(points, OPENPOSE_25, (None,) * len(points), SIZE))


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs, of two people, of one whom another stands beside who is hardly seen, and a broken one."""
    folder = tmp_path_factory.mktemp("album")
    poses = read_poses(asset("examples", "toy_data.npz"))[[40, 200, 300]]
    people = seen(poses, np.array([[-0.6, 0.1, 3.5], [0.7, 0.2, 4.2], [0.0, 0.1, 3.0]]))
    scrap = people[:1].copy()
    scrap[:, 3:] = 0
    for name, some in {"img2": people[:2], "img10": np.concatenate([scrap, people[2:]]), "img1": people[:1]}.items():
        save_image(folder / f"{name}.png", GREY)
        write(folder / f"{name}_keypoints.json", some)
    (folder / "img1.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of two people, who change places in the lists, its frames as pictures, and the keypoints of both."""
    folder = tmp_path_factory.mktemp("clip")
    poses = read_poses(asset("examples", "toy_data.npz"))[[40, 200]]
    (folder / "poses").mkdir()
    for frame in range(FRAMES):
        people = seen(poses, np.array([[-0.8 + 0.02 * frame, 0.1, 3.5], [0.8, 0.2, 4.2 - 0.02 * frame]]))
        write(folder / f"poses/walk_{frame:012d}_keypoints.json", people[:: 1 if frame % 3 else -1])
        save_image(folder / f"stills/frame{frame}.png", GREY)
        write(folder / f"still_poses/frame{frame}_keypoints.json", people[:1])
    write_video(folder / "walk.mp4", [GREY] * FRAMES, 12.5)
    return folder


def run(*flags: object) -> int:
    """Exit code."""
    try:
        cli(module.main, [*map(str, flags), "--device", "cpu", "--steps", "4", "--prior", "None"])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("computed again")


def test_a_folder_goes_on_past_a_bad_photograph_and_is_continued_when_it_is_mended(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--images", album, "--keypoints", album, "--output", tmp_path, "--batch", 1, "--export", "glb")
    assert run(*flags) == 1
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert names == {f"{name}{end}" for name in ("img2", "img10") for end in ("_fit.npz", "_overlay.jpg", "_people.glb")} | {
        "summary.csv", "failures.json",
    }  # fmt: skip
    assert [(row["image"], row["person"]) for row in rows(tmp_path)] == [("img2.png", "0"), ("img2.png", "1"), ("img10.png", "1")]
    assert all(float(row["residual_px"]) < 12 and 2 < float(row["distance_m"]) < 6 for row in rows(tmp_path))
    with np.load(tmp_path / "img2_fit.npz") as fit:
        assert fit["body_pose"].shape == (2, 63) and fit["residuals"].shape == (2, 25) and fit["focal"].tolist() == [400, 400]
        assert {"global_orient", "betas", "transl", "centre", "keypoints", "plausibility"} <= set(fit) and "open body" in str(fit["body"])
    told = capsys.readouterr().out
    assert list(json.loads((tmp_path / "failures.json").read_text())) == ["img1.png"]
    assert "1 failed" in told and "img1.png: not a readable picture" in told and "img10.png: 1 of 2 people left out" in told

    before = (tmp_path / "img2_fit.npz").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(_fitting, "fit_keypoints", refuse)
        assert run(*flags) == 1
    save_image(album / "img1.png", GREY)
    assert run(*flags) == 0 and (tmp_path / "img1_overlay.jpg").is_file() and json.loads((tmp_path / "failures.json").read_text()) == {}
    assert [row["image"] for row in rows(tmp_path)] == ["img1.png", "img2.png", "img2.png", "img10.png"]
    assert (tmp_path / "img2_fit.npz").stat().st_mtime_ns == before


def test_without_keypoints_they_are_detected_once_and_can_be_edited(album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "photos"
    save_image(folder / "a.png", GREY)
    found = read_keypoints(album / "img2_keypoints.json")
    monkeypatch.setattr(module, "detector", lambda thorough: lambda pixels: found)
    flags = ("--images", folder, "--output", tmp_path / "out", "--no-overlay")
    assert run(*flags) == 0 and len(rows(tmp_path / "out")) == 2
    monkeypatch.setattr(module, "detector", lambda thorough: refuse)
    write(tmp_path / "out/keypoints/a_keypoints.json", found.points[:1])
    assert run(*flags) == 0 and len(rows(tmp_path / "out")) == 1
    write(tmp_path / "out/keypoints/a_keypoints.json", found.points[:0])
    assert run(*flags) == 1 and "shows nobody" in (tmp_path / "out/failures.json").read_text()


def test_people_of_a_video_are_followed_fitted_and_filmed(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clip / "poses/walk_000000000005_keypoints.json").write_text("{")
    flags = ("--video", clip / "walk.mp4", "--keypoints", clip / "poses", "--output", tmp_path)
    assert run(*flags) == 1
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    tracks = {f"track0{i}_{kind}.npz" for i in range(2) for kind in ("fit", "stageii")}
    assert names == tracks | {"overlay.mp4", "tracks.json", "summary.csv", "failures.json"}
    for i in range(2):
        sequence = read_amass(tmp_path / f"track0{i}_stageii.npz")
        assert len(sequence) == FRAMES and sequence.fps == 12.5 and sequence.betas.shape == (10,)
        with np.load(tmp_path / f"track0{i}_fit.npz") as fit:
            assert fit["keypoints"].shape == (FRAMES, 25, 2) and fit["first_frame"] == 0 and fit["focal"].tolist() == [400, 400]
            assert np.flatnonzero(np.isnan(fit["residuals"]).all(1)).tolist() == [5] and np.nanmean(fit["residuals"]) < 12
            assert fit["people"].tolist() == [-1 if t == 5 else i if t % 3 else 1 - i for t in range(FRAMES)]
    film = open_video(tmp_path / "overlay.mp4")
    assert film.size == SIZE and film.fps == 12.5 and sum(1 for _ in film) == FRAMES
    assert "walk_000000000005" in (tmp_path / "failures.json").read_text()
    monkeypatch.setattr(module, "fit_track", refuse)
    monkeypatch.setattr(module, "write_video", refuse)
    assert run(*flags) == 1


def test_frames_in_a_folder_are_a_video(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clip / "stills/frame3.png").write_bytes(b"no picture")
    flags = ("--images", clip / "stills", "--sequence", "--fps", 10, "--keypoints", clip / "still_poses", "--longest", 160)
    assert run(*flags, "--output", tmp_path) == 1
    film = open_video(tmp_path / "overlay.mp4")
    assert film.size == (160, 120) and film.fps == 10 and [row["frames"] for row in rows(tmp_path)] == [str(FRAMES)]
    assert list(json.loads((tmp_path / "failures.json").read_text())) == ["frame3.png"]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--images", "{album}", "--video", "{clip}/walk.mp4"], "found both of --images and --video"),
        (["--keypoints", "{album}"], "found neither"),
        (["--images", "{clip}", "--keypoints", "{album}"], "no pictures in it"),
        (["--images", "{album}/none", "--keypoints", "{album}"], "found nothing"),
        (["--images", "{album}", "--keypoints", "{clip}"], "no file for any of 3 images"),
        (["--images", "{album}", "--keypoints", "{album}/img2_keypoints.json"], "of one image, found 3"),
        (["--images", "{album}", "--keypoints", "{album}/none"], "none: found nothing"),
        (["--images", "{album}", "--keypoints", "{album}", "--ignore", "tail"], "--ignore tail"),
        (["--images", "{album}", "--keypoints", "{album}", "--layout", "tail"], "--layout tail"),
        (["--images", "{album}", "--keypoints", "{album}", "--focal", "500", "--exif"], "--focal and --exif"),
        (["--images", "{album}", "--keypoints", "{album}", "--batch", "0"], "--batch 0"),
        (["--video", "{album}/img2.png.mp4", "--keypoints", "{clip}/poses"], "found nothing"),
        (["--video", "{clip}/walk.mp4", "--keypoints", "{clip}/poses", "--export", "obj"], "--export"),
        (["--video", "{clip}/walk.mp4", "--keypoints", "{clip}/poses", "--shortest", "13"], "lower --shortest"),
    ],
)
def test_a_command_line_that_cannot_be_run_ends_in_one_line(
    album: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], complaint: str
) -> None:
    assert run(*(flag.format(album=album, clip=clip) for flag in flags), "--output", tmp_path / "out") == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert complaint in told[-1] and told[-1].startswith("error: ")
    assert not list(tmp_path.rglob("*.npz"))


def test_keypoints_of_a_longer_video_are_refused(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "short.mp4", [GREY] * 5, 12.5)
    assert run("--video", tmp_path / "short.mp4", "--keypoints", clip / "poses", "--output", tmp_path / "out") == 2
    assert "of frames 0 to 11, found 5 in" in capsys.readouterr().err


def test_lenses_come_from_one_source(tmp_path: Path) -> None:
    flags = _fitting.FitFlags(exif=True)
    assert flags.camera(SIZE, 555.0, "photo").focal.tolist() == [555, 555]
    with pytest.raises(InputError, match="photo: its EXIF tells no focal length"):
        flags.camera(SIZE, None, "photo")
    (tmp_path / "K.txt").write_text("500 0 150\n0 510 110\n0 0 1\n")
    camera = _fitting.FitFlags(intrinsics=tmp_path / "K.txt").camera(SIZE, None, "photo")
    assert camera.focal.tolist() == [500, 510] and camera.centre.tolist() == [150, 110]
