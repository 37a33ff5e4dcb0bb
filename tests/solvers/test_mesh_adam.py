"""SMPLify with the DPoser prior: its constants, its terms, and what it finds of people posed before a camera."""

import dataclasses
import math
from typing import Any

import pytest
import roma
import torch
from torch import Tensor

from dposer.body import BodyModel
from dposer.body.points import Place, layout_places
from dposer.body.skeleton import OPENPOSE_25, layout_map
from dposer.errors import InputError
from dposer.geometry.camera import Camera
from dposer.prior import PosePrior
from dposer.solvers.initial_poses import MEAN_POSE
from dposer.solvers.mesh_adam import (
    BEND_POSE,
    BEND_ROOT,
    FACING,
    MEAN_SHAPE,
    BodyStart,
    Places,
    SmplifyResult,
    box_translation,
    gmof,
    keypoint_places,
    limb_translation,
    smplify_settings,
    solve_smplify,
    wrong_bending,
)

NAMES = OPENPOSE_25.joints
SMALL = Camera.of_size(800, 600)
PEOPLE = 3
QUICK = dataclasses.replace(smplify_settings(), start_betas=(), steps=12, camera_steps=40, lr=0.03)
WHERE = torch.tensor([0.2, -0.1, 4.0])


def camera(people: int = PEOPLE) -> Camera:
    return Camera(SMALL.focal.expand(people, 2), SMALL.centre.expand(people, 2))


@pytest.fixture(scope="module")
def place(body: BodyModel) -> Places:
    return keypoint_places(body, layout_places(body, OPENPOSE_25))


def seen(place: Places, pose: Tensor, side: float = 0.0, betas: Tensor | None = None) -> Tensor:
    """Keypoints (P, 25, 3) of people turned by ``side`` degrees."""
    root = roma.rotvec_composition((torch.tensor(FACING), torch.tensor([0, math.radians(side), 0])))
    people = len(pose)
    points = place(pose, root.expand(people, 3), WHERE.expand(people, 3), torch.zeros(people, 10) if betas is None else betas)
    return torch.nn.functional.pad(camera(people).project(points), (0, 1), value=1.0)


def solved(place: Places, keypoints: Tensor, prior: PosePrior | None = None, **options: Any) -> SmplifyResult:
    settings = options.pop("settings", QUICK)
    return solve_smplify(
        place, NAMES, keypoints, camera(len(keypoints)), prior, settings, generator=torch.Generator().manual_seed(0), **options
    )


def miss(place: Places, found: SmplifyResult | BodyStart, keypoints: Tensor, rows: list[int] | slice = slice(None)) -> Tensor:
    """Mean distance in pixels (P,)."""
    assert found.trans is not None and found.betas is not None
    points = place(found.pose_body, found.root_orient, found.trans, found.betas)
    return torch.linalg.vector_norm(camera(len(points)).project(points) - keypoints[..., :2], dim=-1)[:, rows].mean(1)


# ---- constants ---------------------------------------------------------------------------------------------------------


def test_the_stages_are_those_of_the_releases() -> None:
    v1, v2, x, paper = (smplify_settings(release) for release in ("v1", "v2", "x", "paper"))
    for settings in (v1, v2, x, paper):
        assert settings.prior_weights == settings.shape_weights == (50, 20, 10, 5, 2)
        assert settings.angle_weights == (150, 50, 30, 15, 5) and settings.ignored == ("neck", "left_hip", "right_hip")
        assert (settings.steps, settings.camera_steps, settings.lr, settings.robust, settings.depth_weight) == (100, 100, 0.01, 100, 100)
    assert [s.weighting for s in (v1, v2, x)] == ["sqrt(1+snr)", "sqrt(1+snr^2)", "sqrt(1+snr^2)"]
    assert [s.denoising_steps for s in (v1, v2, x, paper)] == [1, 10, 1, 1] and v2.denoising_end == 0.1
    assert [s.camera_start for s in (v1, v2)] == ["box", "limbs"] and [s.flip for s in (v1, v2)] == ["never", "narrow"]
    assert (v1.crop_scale, v2.crop_scale, v2.bent_above_ratio, v2.flip_below) == (1.3, 0.9, 0.75, 25)
    assert [(s.bent_root, s.camera_confidence) for s in (v1, v2)] == [(True, False), (False, True)]
    ehf = smplify_settings("v1", ehf=True)
    assert (ehf.box, ehf.crop_scale, ehf.bent_below_row) == ((400, 100, 1000, 1200), 0.9, 400)
    first_and_last = [s.time.times(500)[[0, -1]].tolist() for s in (v1, v2, paper)]
    torch.testing.assert_close(torch.tensor(first_and_last), torch.tensor([[0.057, 0.009], [0.12, 0.08], [0.12, 0.08]]), atol=1e-3, rtol=0)
    assert smplify_settings("v2", "2").time.times(1).item() == 0.1
    with pytest.raises(InputError, match="release 'v9' does not exist"):
        smplify_settings("v9")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one of each a round"):
        dataclasses.replace(v1, angle_weights=(1.0,))


# ---- terms -------------------------------------------------------------------------------------------------------------


def test_gmof_is_square_for_small_errors_and_bounded_for_large_ones() -> None:
    errors = torch.tensor([0.0, 0.1, 100.0, -100.0, 1e6])
    torch.testing.assert_close(gmof(errors, 100.0), torch.tensor([0, 0.01, 5000, 5000, 1e4]))


def test_bending_the_wrong_way_is_told_by_four_entries(poses: Tensor) -> None:
    pose = poses[:2].clone().requires_grad_(True)
    value = wrong_bending(pose)
    (gradient,) = torch.autograd.grad(value.sum(), pose)
    entries = {52: 1, 55: -1, 9: -1, 12: -1}
    torch.testing.assert_close(value, sum((torch.exp(s * pose[:, i]).square() for i, s in entries.items()), torch.zeros(2)))
    assert gradient[0].nonzero()[:, 0].tolist() == sorted(entries)


def test_a_box_and_limbs_tell_where_a_person_begins() -> None:
    f, s = 1000.0, 0.9
    box = torch.tensor([[300.0, 100.0, 500.0, 500.0], [100.0, 300.0, 700.0, 400.0]])
    side = 1.1 * torch.tensor([400.0, 800.0])
    expected = 2 * torch.stack((torch.tensor([0.0, 0.0]), torch.tensor([0.0, 50.0]), torch.full((2,), f)), 1) / (s * side[:, None])
    torch.testing.assert_close(box_translation(box, Camera.of_size(800, 600, f), s), expected)

    names = ("nose", "left_shoulder", "left_hip", "right_shoulder", "right_hip")
    points = torch.tensor([[0, 0, 0], [0.2, 0, 0], [0.2, 0.5, 0], [-0.2, 0, 0], [-0.2, 0.3, 0]]).expand(3, -1, -1)
    pixels = 200 * points[..., :2]
    both, left, none = torch.ones(5).bool(), torch.tensor([1, 1, 1, 0, 1]).bool(), torch.tensor([1, 0, 1, 1, 0]).bool()
    pixels = torch.cat((pixels[:1], 2 * pixels[1:]))
    found = limb_translation(points, pixels, torch.stack((both, left, none)), names, Camera.of_size(800, 600, f))
    torch.testing.assert_close(found[:2], torch.tensor([[0, 0, 5.0], [0, 0, 2.5]]))
    assert bool(found[2, 2].isnan())
    assert bool(limb_translation(points, pixels, torch.ones(3, 5).bool(), ("a",) * 5, SMALL)[:, 2].isnan().all())


def test_keypoints_are_placed_where_the_body_has_them(place: Places, body: BodyModel, poses: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    state = [poses[:4], *(torch.randn(4, width, generator=generator) for width in (3, 3, 10))]
    state = [part.requires_grad_(True) for part in state]

    def posed(pose: Tensor, root: Tensor, trans: Tensor, betas: Tensor) -> Tensor:
        points = body.keypoints(body(pose, root, betas, trans, vertices="keypoints"))
        return points[:, list(layout_map(body.keypoint_layout.joints, NAMES))]

    torch.testing.assert_close(place(*state), posed(*state))
    ours, theirs = (torch.autograd.grad(where(*state).square().sum(), state) for where in (place, posed))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    pose, root, trans, betas = state
    wrist = keypoint_places(body, [Place("left_wrist", {"left_wrist": 1.0})])(pose, root, trans, betas[:, :4])
    torch.testing.assert_close(wrist, place(pose, root, trans, betas * (torch.arange(10) < 4))[:, [NAMES.index("left_wrist")]])


# ---- the solver --------------------------------------------------------------------------------------------------------


def test_the_camera_stage_turns_and_shifts_a_rigid_body(place: Places, poses: Tensor) -> None:
    pose, betas = poses[:PEOPLE], torch.randn(PEOPLE, 10, generator=torch.Generator().manual_seed(0))
    root = roma.rotvec_composition((torch.tensor(FACING), torch.tensor([0, 0.4, 0.2]))).expand(PEOPLE, 3)
    init = BodyStart(pose, root, (WHERE + torch.tensor([0.2, -0.2, 0.0])).expand(PEOPLE, 3))
    nothing: dict[str, Any] = {
        "prior_weights": (0.0,),
        "shape_weights": (0.0,),
        "angle_weights": (0.0,),
        "steps": 1,
        "lr": 0.01,
        "camera_steps": 120,
    }
    keypoints = seen(place, pose, betas=betas)
    found = solved(place, keypoints, settings=dataclasses.replace(QUICK, flip="never", **nothing), init=init, betas=betas)
    torso = [NAMES.index(f"{side}_{joint}") for side in ("left", "right") for joint in ("hip", "shoulder")]

    def errors(some: SmplifyResult | BodyStart) -> Tensor:
        return miss(place, some, keypoints, torso)

    assert float(errors(found).max()) < 5 and float(errors(found.start).min()) > 40
    torch.testing.assert_close(found.trans[:, 2], WHERE[2].expand(PEOPLE), atol=0.02, rtol=0)
    assert torch.equal(found.betas, betas) and found.objective.shape == (PEOPLE, 1)
    assert all(torch.equal(getattr(found.start, name), getattr(init, name)) for name in ("pose_body", "root_orient", "trans"))


@pytest.fixture(scope="module")
def keypoints(place: Places, poses: Tensor) -> Tensor:
    return seen(place, poses[:480:160], side=30)


def test_people_come_to_lie_on_their_keypoints(place: Places, prior: PosePrior, keypoints: Tensor) -> None:
    done: list[tuple[int, int]] = []
    found = solved(place, keypoints, prior, progress=lambda *step: done.append(step))
    total = QUICK.camera_steps + 5 * QUICK.steps
    assert done == [(step, total) for step in range(1, total + 1)]
    before, after = miss(place, found.start, keypoints), miss(place, found, keypoints)
    assert bool((after < 0.25 * before).all()) and float(after.max()) < 15
    brief = dataclasses.replace(QUICK, steps=1, camera_steps=0)
    one, two = (solved(place, keypoints, prior, settings=dataclasses.replace(brief, denoising_steps=n)).pose_body for n in (1, 2))
    assert not torch.equal(one, two)


def test_nobody_sees_the_others_or_what_is_missing(place: Places, keypoints: Tensor) -> None:
    hidden = keypoints[:1].clone()
    hidden[:, [4, 12], 2] = 0
    moved = hidden.clone()
    moved[:, [4, 12], :2] = torch.tensor([[-1e4, math.nan]])
    few = dataclasses.replace(QUICK, steps=4)
    together, alone = (solved(place, some, settings=few) for some in (torch.cat((hidden, keypoints)), moved))
    torch.testing.assert_close(together.pose_body[:1], alone.pose_body, atol=2e-3, rtol=0)
    torch.testing.assert_close(together.trans[:1], alone.trans, atol=2e-3, rtol=0)
    assert bool(alone.objective[:, 0].isfinite().all())


def test_ignored_keypoints_count_in_the_camera_stage_alone(place: Places, keypoints: Tensor) -> None:
    moved = keypoints.clone()
    moved[:, NAMES.index("left_hip"), 0] += 20
    settings = dataclasses.replace(QUICK, steps=2, camera_start="box", camera_steps=0)
    same = [solved(place, some, settings=settings).root_orient for some in (keypoints, moved)]
    other = [solved(place, some, settings=dataclasses.replace(settings, camera_steps=2)).root_orient for some in (keypoints, moved)]
    assert torch.equal(*same) and not torch.equal(*other)


def test_a_person_seen_from_behind_is_turned_about(place: Places, poses: Tensor) -> None:
    behind = seen(place, poses[[0, 0]], side=180)
    facing = seen(place, poses[[0]])
    settings = dataclasses.replace(QUICK, flip="always", start_pose=tuple(poses[0].tolist()))
    found = solved(place, torch.cat((behind, facing)), settings=settings)
    assert found.objective.argmin(1).tolist() == [1, 1, 0]
    turned = roma.rotvec_geodesic_distance(found.root_orient, torch.tensor(FACING).expand(3, 3))
    assert float(turned[:2].min()) > 2 and float(turned[2]) < 1


def test_only_narrow_people_are_tried_both_ways(place: Places, poses: Tensor) -> None:
    pose = torch.tensor(MEAN_POSE).expand(1, -1)
    wide, side = seen(place, pose), seen(place, pose, side=90)
    hidden = wide.clone()
    hidden[:, NAMES.index("left_shoulder"), 2] = 0
    found = solved(place, torch.cat((wide, side, hidden)), settings=dataclasses.replace(QUICK, steps=1, camera_steps=1))
    assert found.objective.isfinite().tolist() == [[True, False], [True, True], [True, True]]


def test_where_people_begin(place: Places, keypoints: Tensor) -> None:
    def start(keypoints: Tensor, **options: Any) -> BodyStart:
        settings = dataclasses.replace(options.pop("settings", smplify_settings()), steps=1, camera_steps=0)
        return solved(place, keypoints, settings=settings, **options).start

    upright = start(keypoints)
    torch.testing.assert_close(upright.pose_body, torch.tensor(MEAN_POSE).expand(PEOPLE, 63))
    torch.testing.assert_close(upright.betas, torch.tensor(MEAN_SHAPE).expand(PEOPLE, 10))
    fewer = start(keypoints, num_betas=4).betas
    assert fewer is not None and fewer.shape == (PEOPLE, 4)

    lying = keypoints[..., [1, 0, 2]] + torch.tensor([200.0, 200.0, 0.0])
    box = torch.cat((lying[..., :2].amin(1), lying[..., :2].amax(1)), 1) * torch.tensor([1, 1 / 3, 1, 1])
    for settings, root in ((smplify_settings(), FACING), (dataclasses.replace(smplify_settings(), bent_root=True), BEND_ROOT)):
        bent = start(lying, settings=settings)
        torch.testing.assert_close(bent.pose_body, torch.tensor(BEND_POSE).expand(PEOPLE, 63))
        torch.testing.assert_close(bent.root_orient, torch.tensor(root).expand(PEOPLE, 3))
        torch.testing.assert_close(bent.trans, box_translation(box, camera(), 0.9))
    ehf = start(keypoints + torch.tensor([0, 400.0, 0]), settings=smplify_settings("v1", ehf=True))
    torch.testing.assert_close(ehf.pose_body, torch.tensor(BEND_POSE).expand(PEOPLE, 63))
    box = torch.tensor([[400.0, 100.0, 1000.0, 1200.0]]).expand(PEOPLE, 4)
    torch.testing.assert_close(ehf.trans, box_translation(box, camera(), 0.9))

    given = BodyStart(torch.ones(PEOPLE, 63), torch.ones(PEOPLE, 3), betas=torch.ones(PEOPLE, 5))
    begun = start(lying, init=given)
    assert torch.equal(begun.pose_body, given.pose_body) and begun.betas is given.betas and begun.trans is not None
