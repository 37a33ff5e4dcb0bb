"""The example pictures as they ship: readable, and in agreement with the truth beside them."""

import numpy as np
import pytest
import torch

from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.skeleton import OPENPOSE_25, layout_map
from dposer.data.images import read_photo
from dposer.data.keypoints import find_keypoints, read_keypoints, read_sequence
from dposer.data.video import open_video
from dposer.files import load_npz
from dposer.geometry.camera import Camera
from run import make_photo_examples as module
from run._cli import cli

FOLDER = asset("examples")


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel()


def projected(body: BodyModel, name: str) -> np.ndarray:
    """(N, 25, 2) pixels, from the file of the truth alone."""
    truth = {key: torch.as_tensor(value) for key, value in load_npz(FOLDER / f"{name}_truth.npz", "the truth").items()}
    out = body(truth["pose_body"], truth["root_orient"], truth["betas"], truth["trans"], vertices="keypoints")
    torch.testing.assert_close(out.joints, truth["joints"], atol=1e-4, rtol=0)
    points = body.keypoints(out)[:, list(layout_map(body.keypoint_layout.joints, OPENPOSE_25.joints))]
    return Camera(truth["focal"], truth["centre"]).project(points).numpy()


@pytest.mark.parametrize(("name", "people"), [("rendered", 1), ("rendered_two", 2)])
def test_keypoints_of_rendered_people_are_the_truth_s(body: BodyModel, name: str, people: int) -> None:
    photo = read_photo(FOLDER / f"{name}.jpg")
    pairs, missing = find_keypoints(FOLDER, [FOLDER / f"{name}.jpg"])
    found = read_keypoints(pairs[FOLDER / f"{name}.jpg"], image_size=photo.size)
    assert not missing and photo.size == (640, 480) and found.points.shape == (people, 25, 3) and (found.points[..., 2] == 1).all()
    assert np.abs(found.points[..., :2] - projected(body, name)).max() < 0.5


def test_the_film_s_keypoints_scatter_about_the_truth(body: BodyModel) -> None:
    frames, found = list(open_video(FOLDER / "walk.mp4")), read_sequence(FOLDER / "walk_keypoints")
    points, truth = np.stack([one.points[0] for one in found.keypoints]), projected(body, "walk")
    seen = points[..., 2] > 0
    assert len(frames) == len(found) == 48 and not found.gaps and not found.failures and frames[0].shape == (240, 320, 3)
    assert 0.02 < 1 - seen.mean() < 0.08
    scatter = (points[..., :2] - truth)[seen].std() / np.ptp(truth[..., 1], axis=1).max()
    assert abs(scatter - 0.015) < 0.001


def test_the_photographer_is_seen_from_his_right() -> None:
    photo = read_photo(FOLDER / "photographer.jpg")
    (points,) = read_keypoints(FOLDER / "photographer_keypoints.json", image_size=photo.size).points
    seen = {name for name, point in zip(OPENPOSE_25.joints, points, strict=True) if point[2] > 0}
    assert seen == set(module.PHOTOGRAPHER) and {"right_ear", "right_eye"} <= seen and not {"left_ear", "left_eye"} & seen


def test_another_photograph_is_refused(tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli(module.main, ["--photographer", str(FOLDER / "rendered.jpg"), "--output", str(tmp_path_factory.mktemp("made"))])
    assert raised.value.code == 2 and "not the picture the keypoints belong to" in capsys.readouterr().err
