"""A person who moves before a camera, and is followed."""

import dataclasses
import math

import pytest
import roma
import torch
from torch import Tensor

from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.skeleton import OPENPOSE_25, layout_map
from dposer.data.amass import read_amass
from dposer.errors import InputError
from dposer.geometry.camera import Camera
from dposer.geometry.procrustes import procrustes
from dposer.prior import PosePrior
from dposer.solvers.mesh_fitting import FitSettings, fit_keypoints
from dposer.solvers.video_fitting import TrackFit, TrackSettings, fit_track

CAMERA, FRAMES = Camera.of_size(800, 600), 40
QUICK = TrackSettings(single=FitSettings(steps=15), steps=8, window=24, overlap=6)


@dataclasses.dataclass(frozen=True)
class Film:
    joints: Tensor
    """(F, 22, 3)."""
    clean: Tensor
    """(F, 25, 3) keypoints."""
    noisy: Tensor


@pytest.fixture(scope="module")
def film(body: BodyModel) -> Film:
    clip = read_amass(asset("examples", "motion.npz"))
    pose, root, trans = (torch.as_tensor(part[:FRAMES], dtype=torch.float32) for part in (clip.pose_body, clip.root_orient, clip.trans))
    upright = torch.tensor([math.pi / 2, 0, 0])  # AMASS's +z up to the camera's -y
    root = roma.rotvec_composition((upright.expand(FRAMES, 3), root))
    trans = roma.rotvec_to_rotmat(upright) @ trans[..., None]
    trans = trans[..., 0] - trans[:1, :, 0] + torch.tensor([0, 0, 4.0])
    out = body(pose, root, 0.5 * torch.ones(FRAMES, 10), trans, vertices="keypoints")
    seen = CAMERA.project(body.keypoints(out)[:, list(layout_map(body.keypoint_layout.joints, OPENPOSE_25.joints))])
    clean = torch.cat((seen, torch.ones(FRAMES, 25, 1)), -1)
    noisy = clean.clone()
    noisy[..., :2] += 3 * torch.randn(FRAMES, 25, 2, generator=torch.Generator().manual_seed(0))
    return Film(out.joints[:, :22], clean, noisy)


def tracked(prior: PosePrior | None, keypoints: Tensor, body: BodyModel, settings: TrackSettings = QUICK) -> TrackFit:
    return fit_track(prior, keypoints, CAMERA, body=body, settings=settings, generator=torch.Generator().manual_seed(0))


def joints_of(fit: TrackFit, body: BodyModel) -> Tensor:
    return body(fit.pose_body, fit.root_orient, fit.betas.expand(FRAMES, -1), fit.trans, vertices=None, joints="body").joints


def apart(joints: Tensor, film: Film) -> float:
    return 1000 * float(torch.linalg.vector_norm(procrustes(joints, film.joints)(joints) - film.joints, dim=-1).mean())


def shaking(joints: Tensor) -> Tensor:
    return torch.linalg.vector_norm(joints.diff(n=2, dim=0), dim=-1).mean()


@pytest.fixture(scope="module")
def fit(prior: PosePrior, film: Film, body: BodyModel) -> TrackFit:
    return tracked(prior, film.noisy, body)


def test_a_video_is_fitted_better_and_steadier_than_its_frames(fit: TrackFit, prior: PosePrior, film: Film, body: BodyModel) -> None:
    assert fit.pose_body.shape == (FRAMES, 63) and fit.betas.shape == (10,) and fit.residuals.shape == (FRAMES, 25)
    alone = fit_keypoints(prior, film.noisy, CAMERA, body=body, settings=QUICK.single, generator=torch.Generator().manual_seed(0))
    single = body(alone.pose_body, alone.root_orient, alone.betas, alone.trans, vertices=None, joints="body").joints
    joints = joints_of(fit, body)
    assert float(shaking(joints)) < 0.2 * float(shaking(single)) and float(shaking(joints)) < 3 * float(shaking(film.joints))
    assert apart(joints, film) < apart(single, film)
    away = [float(torch.linalg.vector_norm(some.keypoints - film.clean[..., :2], dim=-1).mean()) for some in (fit, alone)]
    assert away[0] < away[1]
    assert 0.003 < fit.noise < 0.02  # 3 px of 420


def test_borders_of_windows_are_not_seen(fit: TrackFit, body: BodyModel) -> None:
    bends = torch.linalg.vector_norm(joints_of(fit, body).diff(n=2, dim=0), dim=-1).mean(1)
    border = bends[QUICK.window - QUICK.overlap - 2 : QUICK.window - QUICK.overlap + 1]
    assert float(border.max()) < 3 * float(bends.median()) + 1e-3


def test_frames_without_anybody_are_bridged(prior: PosePrior, film: Film, body: BodyModel) -> None:
    keypoints = film.clean.clone()
    keypoints[12:18] = 0
    keypoints[30, 3:] = 0
    found = tracked(prior, keypoints, body)
    assert bool(found.residuals[12:18].isnan().all()) and apart(joints_of(found, body), film) < 60
    assert float(shaking(joints_of(found, body)[10:20])) < 4 * float(shaking(film.joints))


def test_one_frame_and_a_known_shape_will_do(prior: PosePrior, film: Film, body: BodyModel) -> None:
    betas = 0.5 * torch.ones(10)
    found = fit_track(prior, film.clean[:1], CAMERA, body=body, betas=betas, settings=QUICK, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.betas, betas) and found.pose_body.shape == (1, 63)


@pytest.mark.parametrize(
    ("keypoints", "flags", "complaint"),
    [
        (torch.zeros(5, 25, 3), {}, "no frame has four of use"),
        (torch.zeros(5, 17, 3), {}, r"shape \(5, 17, 3\)"),
        (torch.ones(5, 25, 3), {"fps": 0.0}, "fps = 0"),
        (torch.ones(5, 25, 3), {"betas": torch.zeros(5, 10)}, "one shape for all frames"),
    ],
)
def test_bad_input_is_told_in_one_line(body: BodyModel, keypoints: Tensor, flags: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as raised:
        fit_track(None, keypoints, CAMERA, body=body, **flags)
    assert "\n" not in str(raised.value)
