"""People found in pictures of which the truth is known. Without MediaPipe, that this is told; and where the pictures are looked at."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from dposer.assets import asset
from dposer.data import detection
from dposer.data.detection import Detector, detect_people
from dposer.data.images import read_photo
from dposer.data.keypoints import read_keypoints, to_openpose25
from dposer.errors import InputError
from dposer.viz import save_image
from run import detect as module
from run._cli import cli

INSTALLED = importlib.util.find_spec("mediapipe") is not None
needs_mediapipe = pytest.mark.skipif(not INSTALLED, reason="mediapipe is not installed")
TWO = asset("examples", "rendered_two.jpg")


@pytest.mark.parametrize("size", [(1920, 1080), (480, 640), (500, 500), (3, 2)])
def test_small_people_are_whole_in_some_part(size: tuple[int, int]) -> None:
    whole, margin, *parts = detection._views(*size, thorough=True)
    assert whole[:4] == (0, 0, *size) and margin.left == margin.top < 0 and not list(detection._views(*size, thorough=False))[1:]
    side = parts[0].right - parts[0].left
    assert all(0 <= view.left < view.right <= size[0] and 0 <= view.top < view.bottom <= size[1] for view in parts)
    low = np.random.default_rng(0).uniform(0, 1, (200, 2)) * (np.array(size) - side // 2)
    high = low + side // 2
    held = [view.holds(low - view.corner) & view.holds(high - view.corner - 1) for view in parts]
    assert np.any(held, axis=0).all()


@pytest.mark.skipif(INSTALLED, reason="mediapipe is installed")
def test_what_to_install_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"pip install mediapipe==0\.10\.14"):
        detect_people(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(SystemExit) as raised:
        cli(module.main, ["--img", str(TWO), "--output", str(tmp_path)])
    assert raised.value.code == 2 and "pip install" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("pixels", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)])
def test_no_picture_is_told(pixels: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected uint8 RGB"):
        Detector()(pixels)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [((), "expected one of --img"), (("--img", "a.jpg", "--video", "b.mp4"), "--img and --video"), (("--images", "."), "only --img")],
)
def test_flags_that_do_not_go_together(flags: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli(module.main, [*flags, "--output", "one.json"])
    assert raised.value.code == 2 and complaint in capsys.readouterr().err


@needs_mediapipe
def test_everybody_is_found_where_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    photo = read_photo(TWO)
    found, truth = detect_people(photo.pixels), read_keypoints(asset("examples", "rendered_two_keypoints.json")).points
    assert len(found) == 2 and found.image_size == photo.size and found.ids == (None, None)
    points = to_openpose25(found).points
    nearest = np.linalg.norm(points[:, None, 1, :2] - truth[None, :, 1, :2], axis=-1).argmin(1)
    assert sorted(nearest) == [0, 1]
    limbs = range(2, 15)  # both arms and legs: a person mistaken for their mirror image would be far off
    for person, true in zip(points, truth[nearest], strict=True):
        gaps = np.linalg.norm(person[limbs, :2] - true[limbs, :2], axis=-1) / np.ptp(true[:, 1])
        assert np.median(gaps) < 0.05 and (person[limbs, 2] > 0).all()
    assert not capfd.readouterr().err


@needs_mediapipe
def test_as_many_as_asked_for_and_nobody_twice() -> None:
    pixels = read_photo(TWO).pixels
    with Detector(thorough=False) as detector:
        assert len(detector(pixels, most=1)) == 1 and len(detector(np.full_like(pixels, 200))) == 0
        cut = detector(pixels[:300])  # at the knees
        below = cut.layout.joints.index("left_ankle")
        assert len(cut) == 2 and (cut.points[:, below, 2] == 0).all()


@needs_mediapipe
def test_keypoints_are_written_and_a_picture_of_nobody_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    save_image(photos / "two.png", read_photo(TWO).pixels)
    save_image(photos / "wall.png", np.full((240, 320, 3), 200, np.uint8))
    with pytest.raises(SystemExit) as raised:
        cli(module.main, ["--images", str(photos), "--output", str(tmp_path / "out"), "--look", "quick"])
    assert raised.value.code == 1 and "wall.png: nobody was found" in capsys.readouterr().out
    written = {name: read_keypoints(tmp_path / "out" / f"{name}_keypoints.json") for name in ("two", "wall")}
    assert len(written["two"]) == 2 and len(written["wall"]) == 0 and written["two"].image_size == (640, 480)
    assert (tmp_path / "out" / "two_detected.jpg").is_file()
