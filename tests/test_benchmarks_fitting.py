"""The benchmarks of fitting run on a few people, and the people and detectors are what they claim to be."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import fitting, fitting_speed
from benchmarks.fitting import DPOSER, Bodies, Models
from benchmarks.fitting_data import SIZE, Detector, People, film, held_out_clips, held_out_poses, people
from dposer.body import BodyModel
from dposer.body.skeleton import OPENPOSE_25, layout_map
from dposer.prior import PosePrior
from dposer.prior.mixture import PoseMixture
from dposer.solvers.mesh_adam import smplify_settings
from dposer.solvers.mesh_fitting import FitSettings
from dposer.solvers.video_fitting import TrackSettings

EXACT = Detector(0.0, missing=0.0, gross=0.0, swapped=0.0)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel()


@pytest.fixture(scope="module")
def crowd(body: BodyModel) -> People:
    return people(held_out_poses(None, "test", 200, 0), body, 0)


@pytest.fixture(scope="module")
def models(body: BodyModel) -> Models:
    releases = dataclasses.replace(smplify_settings("paper"), steps=1, camera_steps=1)
    single = FitSettings(2, noise=0.01, sides=(0.0, 180.0))
    track = TrackSettings(single, steps=2)
    return Models(PosePrior.from_pretrained(), PoseMixture.from_pretrained(), body, 0, single, track, releases)


def errors(crowd: People, detector: Detector) -> Tensor:
    """Of the person's height, NaN where missing."""
    keypoints = crowd.detected(detector, 1)
    away = (keypoints[..., :2] - crowd.pixels) / crowd.height[:, None, None]
    return torch.where(keypoints[..., 2:] > 0, away, torch.nan)


def test_people_are_in_the_picture_where_their_bodies_are(crowd: People, body: BodyModel) -> None:
    out = body(crowd.pose_body, crowd.root_orient, crowd.betas, crowd.trans, vertices="keypoints")
    points = body.keypoints(out)[:, list(layout_map(body.keypoint_layout.joints, OPENPOSE_25.joints))]
    torch.testing.assert_close(crowd.camera.project(points), crowd.pixels, atol=0.01, rtol=0)
    torch.testing.assert_close(out.joints[:, :22], crowd.joints, atol=1e-5, rtol=0)
    assert bool(((crowd.pixels > 0) & (crowd.pixels < torch.tensor(SIZE))).all())
    assert float(crowd.joints[:, 0, 2].min()) > 2.5 and 0 < float(crowd.betas.abs().amax()) <= 2
    up = (crowd.joints[:, 12] - crowd.joints[:, 0])[:, 1:]
    assert float((up[:, 0] < 0).float().mean()) > 0.95  # nearly all are upright
    hips = crowd.joints[:, 1] - crowd.joints[:, 2]
    turned = torch.atan2(hips[:, 2], hips[:, 0])
    assert float(torch.stack((turned.cos().mean(), turned.sin().mean())).norm()) < 0.15  # and face anywhere


def test_a_detector_errs_as_it_is_told_to(crowd: People) -> None:
    assert float(errors(crowd, EXACT).abs().max()) < 1e-5
    plain = errors(crowd, dataclasses.replace(EXACT, noise=0.02))
    deviations = plain.square().mean((0, 2)).sqrt()
    torch.testing.assert_close(float(deviations.mean()), 0.02, atol=0.001, rtol=0)
    joints = OPENPOSE_25.joints
    ratio = deviations[joints.index("left_hip")] / deviations[joints.index("nose")]
    torch.testing.assert_close(float(ratio), 0.107 / 0.026, rtol=0.15, atol=0)
    torch.testing.assert_close(errors(crowd, dataclasses.replace(EXACT, noise=0.01)), plain / 2, atol=1e-5, rtol=0)
    far = torch.linalg.vector_norm(errors(crowd, dataclasses.replace(EXACT, gross=0.1)), dim=-1)
    torch.testing.assert_close(far[far > 0.01], torch.full_like(far[far > 0.01], 0.1), atol=1e-4, rtol=0)
    assert 0.08 < float((far > 0.01).float().mean()) < 0.12
    half = crowd.detected(Detector(missing=0.5), 0)[..., 2] > 0
    assert 0.45 < float(half.float().mean()) < 0.55 and int(half.sum(1).min()) >= 6
    hidden = crowd.detected(dataclasses.replace(EXACT, hidden="legs"), 0)[..., 2] > 0
    assert {name for name, there in zip(joints, hidden.all(0).tolist(), strict=True) if not there} == {
        f"{side}_{point}" for side in ("left", "right") for point in ("knee", "ankle", "heel", "big_toe", "small_toe")
    }


def test_swapped_limbs_are_swapped_whole(crowd: People) -> None:
    swapped = crowd.detected(dataclasses.replace(EXACT, swapped=1.0), 0)[..., :2]
    mirrored = crowd.pixels[:, list(OPENPOSE_25.mirror)]
    other = (swapped - crowd.pixels).abs().amax(-1) > 1e-3
    torch.testing.assert_close(swapped[other], mirrored[other])
    limbs = {frozenset(name for name, there in zip(OPENPOSE_25.joints, row, strict=True) if there) for row in other.tolist()}
    assert frozenset({"left_elbow", "left_wrist", "right_elbow", "right_wrist"}) in limbs and all("nose" not in limb for limb in limbs)


def test_a_film_is_the_motion_before_a_camera_at_rest(body: BodyModel, tmp_path: Path) -> None:
    clip = held_out_clips(tmp_path, 2, 0, frames=60)[1]
    filmed = film(clip, body, 3)
    pose, root, trans = (torch.tensor(part, dtype=torch.float32) for part in (clip.pose_body, clip.root_orient, clip.trans))
    world = body(pose, root, filmed.betas, trans, vertices=None, joints="body").joints
    torch.testing.assert_close(torch.cdist(world[0], world[-1]), torch.cdist(filmed.joints[0], filmed.joints[-1]), atol=1e-4, rtol=0)
    noise = filmed.detected(dataclasses.replace(EXACT, noise=0.01, lasting=0.8), 0, film=True)[..., :2] - filmed.pixels
    correlation = float((noise[1:] * noise[:-1]).mean() / noise.square().mean())
    assert math.isclose(correlation, 0.8, abs_tol=0.05)


def test_tables_of_people(models: Models, crowd: People) -> None:
    some = crowd.part(slice(2))
    text = fitting.fitting(models, some, {"1 % of noise": Detector()})
    assert text.count(DPOSER) >= 3 and "published: 58.3 → 56.0 mm (-4 %)" in text and "2 poses" in text
    assert "weight 0.3" in fitting.tune(models, some, (0.3,), {"1 % of noise": Detector()})
    exact = Bodies.of_people(some)
    scores = fitting.scored(models, some, some.detected(EXACT, 0), exact)
    assert float(torch.stack(list(scores.meshes.chosen().values())).max()) < 0.01 and float(scores.reprojection.max()) < 0.01


def test_speed_and_objectives(models: Models, crowd: People) -> None:
    some = crowd.part(slice(2))
    keypoints = some.detected(Detector(), 0)
    table, found = fitting_speed.durations(models, some, keypoints, 1)
    assert "1.0×" in table
    whole = fitting_speed.original(models)(keypoints, some.camera)
    torch.testing.assert_close(whole.pose_body, found[fitting_speed.ADAM].pose_body, atol=1e-3, rtol=0)
    assert "lower by the default in" in fitting_speed.objectives(models, some, keypoints, found, 0.01)
    left = fitting_speed.our_objective(models, keypoints, some.camera, found[DPOSER], 0.01)
    torch.testing.assert_close(left, found[DPOSER].objective[:, 0], rtol=1e-3, atol=0)


def test_a_table_of_films(models: Models, tmp_path: Path) -> None:
    text = fitting.video(models, held_out_clips(tmp_path, 1, 0, frames=10), {"1 % of noise": Detector()})
    assert "1 films of 10 frames" in text and "of that frame by frame" in text
