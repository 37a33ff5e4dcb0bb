"""People in pictures: what is found of those that were posed before a camera, whatever hides, and what is refused."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import roma
import torch
from torch import Tensor

from dposer.body import BodyModel
from dposer.body.skeleton import COCO_17, OPENPOSE_25, Layout, layout_map
from dposer.errors import InputError
from dposer.geometry.camera import Camera
from dposer.geometry.procrustes import procrustes
from dposer.prior import PosePrior
from dposer.solvers.mesh_adam import BodyStart, smplify_settings
from dposer.solvers.mesh_fitting import FitSettings, MeshFit, fit_keypoints
from tests.body import synthetic

CAMERA = Camera.of_size(800, 600)
PEOPLE = 6
QUICK = FitSettings(noise=0.005, steps=20)


@dataclasses.dataclass(frozen=True)
class Scene:
    """People anywhere before the camera, facing anywhere."""

    pose: Tensor
    root: Tensor
    trans: Tensor
    betas: Tensor

    def joints(self, body: BodyModel) -> Tensor:
        return body(self.pose, self.root, self.betas, self.trans, vertices=None, joints="body").joints

    def keypoints(self, body: BodyModel, layout: Layout = OPENPOSE_25) -> Tensor:
        out = body(self.pose, self.root, self.betas, self.trans, vertices="keypoints")
        seen = CAMERA.project(body.keypoints(out)[:, list(layout_map(body.keypoint_layout.joints, layout.joints))])
        return torch.cat((seen, torch.ones_like(seen[..., :1])), -1)


@pytest.fixture(scope="module")
def scene(poses: Tensor) -> Scene:
    generator = torch.Generator().manual_seed(0)
    facing = torch.tensor([math.pi, 0, 0]).expand(PEOPLE, 3)
    turned = torch.nn.functional.pad(2 * math.pi * torch.rand(PEOPLE, 1, generator=generator), (1, 1))
    trans = torch.randn(PEOPLE, 3, generator=generator) * torch.tensor([0.5, 0.2, 0.5]) + torch.tensor([0, 0, 4.0])
    return Scene(poses[:480:80], roma.rotvec_composition((facing, turned)), trans, 0.7 * torch.randn(PEOPLE, 10, generator=generator))


def fitted(prior: PosePrior | None, keypoints: Tensor, body: BodyModel, **options: Any) -> MeshFit:
    options = {"settings": QUICK, "generator": torch.Generator().manual_seed(0), "body": body} | options
    return fit_keypoints(prior, keypoints, options.pop("camera", CAMERA), **options)


def apart(fit: MeshFit, scene: Scene, body: BodyModel) -> Tensor:
    """PA-MPJPE of every person, mm."""
    joints = body(fit.pose_body, fit.root_orient, fit.betas, fit.trans, vertices=None, joints="body").joints
    truth = scene.joints(body)
    return 1000 * torch.linalg.vector_norm(procrustes(joints, truth)(joints) - truth, dim=-1).mean(-1)


@pytest.fixture(scope="module")
def fit(prior: PosePrior, body: BodyModel, scene: Scene) -> MeshFit:
    return fitted(prior, scene.keypoints(body), body)


def test_people_are_found_from_any_side(fit: MeshFit, scene: Scene, body: BodyModel) -> None:
    assert fit.pose_body.shape == (PEOPLE, 63) and fit.betas.shape == (PEOPLE, 10) and fit.objective.shape == (PEOPLE, 4)
    assert float(apart(fit, scene, body).mean()) < 50 and float(fit.residuals.mean()) < 5
    assert float((fit.trans[:, 2] / scene.trans[:, 2]).log().abs().max()) < 0.25  # how large a person is a picture does not tell
    torch.testing.assert_close(fit.keypoints, dataclasses.replace(scene, **as_scene(fit)).keypoints(body)[..., :2], atol=12, rtol=0)


def as_scene(fit: MeshFit) -> dict[str, Tensor]:
    return {"pose": fit.pose_body, "root": fit.root_orient, "trans": fit.trans, "betas": fit.betas}


def test_the_prior_is_what_knows_depth(fit: MeshFit, scene: Scene, body: BodyModel) -> None:
    none = fitted(None, scene.keypoints(body), body)
    assert float(none.residuals.mean()) < float(fit.residuals.mean())
    assert float(apart(fit, scene, body).mean()) < 0.7 * float(apart(none, scene, body).mean())


def test_an_outlier_moves_little(fit: MeshFit, prior: PosePrior, scene: Scene, body: BodyModel) -> None:
    keypoints = scene.keypoints(body)
    keypoints[:, OPENPOSE_25.joints.index("left_wrist"), 0] += 150
    found = fitted(prior, keypoints, body)
    assert float(found.residuals.median(1).values.max()) < 8
    assert float(apart(found, scene, body).mean()) < float(apart(fit, scene, body).mean()) + 30


def test_what_is_missing_does_not_count(prior: PosePrior, scene: Scene, body: BodyModel) -> None:
    hidden, unknown = scene.keypoints(body), scene.keypoints(body)
    hidden[:, 3:8] = torch.tensor([-1e4, 1e4, 0])
    unknown[:, 3:8, :2] = math.nan
    found = [fitted(prior, some, body) for some in (hidden, unknown)]
    assert torch.equal(found[0].pose_body, found[1].pose_body)
    assert bool(found[0].residuals[:, 3:8].isnan().all()) and bool(found[0].residuals[:, 8:].isfinite().all())


def test_nobody_sees_the_others(prior: PosePrior, scene: Scene, body: BodyModel) -> None:
    keypoints = scene.keypoints(body)
    together, alone = (fitted(None, some, body).trans[0] for some in (keypoints, keypoints[:1]))
    torch.testing.assert_close(together, alone, atol=5e-3, rtol=0)


def test_a_person_upside_down_is_found_too(prior: PosePrior, poses: Tensor, body: BodyModel) -> None:
    roots = torch.tensor([[0.0, 0.0, 0.0], [math.pi, 0, 0]])
    turned = Scene(poses[[80, 80]], roots, torch.tensor([[0.0, 0.2, 4.0], [0.0, -0.2, 4.0]]), torch.zeros(2, 10))
    found = fitted(prior, turned.keypoints(body), body)
    upright = torch.tensor([math.pi, 0, 0]).expand(2, 3)
    errors, turns = apart(found, turned, body), roma.rotvec_geodesic_distance(found.root_orient, turned.root)
    assert float(errors.max()) < 90 and float(errors.diff().abs()) < 15 and float(turns.max()) < 0.6
    assert float(roma.rotvec_geodesic_distance(found.root_orient, upright)[0]) > 2.5


def test_known_shapes_are_kept_and_tell_the_distance(prior: PosePrior, scene: Scene, body: BodyModel) -> None:
    found = fitted(prior, scene.keypoints(body), body, betas=scene.betas)
    assert torch.equal(found.betas, scene.betas)
    assert float((found.trans[:, 2] - scene.trans[:, 2]).abs().mean()) < 0.2


def test_pictures_of_any_size_are_alike(fit: MeshFit, prior: PosePrior, scene: Scene, body: BodyModel) -> None:
    larger = scene.keypoints(body) * torch.tensor([3, 3, 1])
    found = fitted(prior, larger, body, camera=Camera(3 * CAMERA.focal, 3 * CAMERA.centre))
    torch.testing.assert_close(found.pose_body, fit.pose_body, atol=0.05, rtol=0)
    one_each = Camera(CAMERA.focal.expand(PEOPLE, 2), CAMERA.centre.expand(PEOPLE, 2))
    assert torch.equal(fitted(prior, scene.keypoints(body), body, camera=one_each).pose_body, fit.pose_body)


def test_other_layouts_will_do(prior: PosePrior, scene: Scene, body: BodyModel) -> None:
    found = fitted(prior, scene.keypoints(body, COCO_17), body, what="coco17")
    assert float(apart(found, scene, body).mean()) < 60


@pytest.mark.parametrize("noise", [0.005, 0.02])
def test_noise_is_estimated(prior: PosePrior, scene: Scene, body: BodyModel, noise: float) -> None:
    keypoints = scene.keypoints(body)
    height = CAMERA.focal[0] * 1.7 / scene.trans[:, 2]
    errors = noise * height[:, None, None] * torch.randn(PEOPLE, 25, 2, generator=torch.Generator().manual_seed(1))
    keypoints[..., :2] += errors
    keypoints[0, 4] = torch.tensor([0.0, 0.0, 1.0])  # far off
    found = fitted(prior, keypoints, body, settings=FitSettings())
    assert 0.5 * noise < float(found.noise.mean()) < 2.2 * noise and float(found.noise[0]) < 2.5 * noise


def test_a_start_from_outside_is_the_only_one(prior: PosePrior, scene: Scene, body: BodyModel) -> None:
    keypoints = scene.keypoints(body)
    start = BodyStart(scene.pose, scene.root, betas=scene.betas)
    found = fitted(prior, keypoints, body, initial=start)
    assert found.objective.shape == (PEOPLE, 1) and torch.equal(found.start.pose_body, scene.pose)
    assert float(apart(found, scene, body).mean()) < 35
    assert found.start.trans is not None and float((found.start.trans[:, 2] / scene.trans[:, 2]).log().abs().max()) < 0.2
    with pytest.raises(InputError, match=r"initial root_orient: shape \(6, 4\), expected \(6, 3\)"):
        fitted(prior, keypoints, body, initial=dataclasses.replace(start, root_orient=torch.zeros(PEOPLE, 4)))


def test_the_releases_solver_takes_the_same_call(prior: PosePrior, scene: Scene, body: BodyModel) -> None:
    keypoints = scene.keypoints(body)
    settings = dataclasses.replace(smplify_settings("paper"), steps=20, camera_steps=60)
    start = BodyStart(scene.pose, scene.root)
    begun, found = (fitted(prior, keypoints, body, initial=start, settings=dataclasses.replace(settings, steps=steps)) for steps in (1, 20))
    assert float(found.residuals.mean()) < 0.5 * float(begun.residuals.mean()) and bool(found.noise.isnan().all())
    assert found.start.trans is not None and found.start.betas is not None and found.pose_body.shape == (PEOPLE, 63)


@pytest.mark.parametrize("kind", ["smplh", "smpl"])
def test_smplh_and_smpl_files_are_fitted_as_well(tmp_path: Path, prior: PosePrior, kind: str) -> None:
    """Bodies of their format, though random surfaces are nobody's: hence a start nearby."""
    other = BodyModel(synthetic.write_pkl(tmp_path / "body.pkl", synthetic.body_arrays(kind)))
    generator = torch.Generator().manual_seed(0)
    pose, near = (0.2 * torch.randn(2, 63, generator=generator) for _ in range(2))
    truth = Scene(pose, torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 4.0], [0.5, 0.0, 5.0]]), torch.zeros(2, 10))
    keypoints = truth.keypoints(other)
    start = BodyStart(pose + 0.3 * near, truth.root, truth.trans)
    first, found = (fitted(prior, keypoints, other, initial=start, settings=dataclasses.replace(QUICK, steps=steps)) for steps in (0, 20))
    assert float(found.residuals.nanmean()) < 0.3 * float(first.residuals.nanmean())


@pytest.mark.parametrize(
    ("keypoints", "complaint"),
    [
        (torch.zeros(2, 17, 3), r"shape \(2, 17, 3\), expected \(people, 25, 3\)"),
        (torch.zeros(0, 25, 3), r"shape \(0, 25, 3\)"),
        (torch.zeros(25, 3), r"shape \(25, 3\)"),
        (torch.ones(1, 25, 3) * 2, "confidences from 0 to 1"),
        (torch.ones(1, 25, 3) * math.nan, "confidences from 0 to 1"),
        (torch.cat((torch.ones(2, 3, 3), torch.zeros(2, 22, 3)), 1), "person 0 has 3 of use, expected 4 or more"),
    ],
)
def test_bad_keypoints_are_told_in_one_line(body: BodyModel, keypoints: Tensor, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as raised:
        fit_keypoints(None, keypoints, CAMERA, body=body)
    assert "\n" not in str(raised.value)


def test_a_shape_of_another_body_is_refused(body: BodyModel, scene: Scene) -> None:
    with pytest.raises(InputError, match=r"betas: shape \(11,\), expected 1 to 10 numbers"):
        fit_keypoints(None, scene.keypoints(body), CAMERA, body=body, betas=torch.zeros(11))
