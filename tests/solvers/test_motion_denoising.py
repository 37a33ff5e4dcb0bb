import dataclasses
import math

import pytest
import torch
from torch import Tensor

from dposer.body import BodyModel
from dposer.body.parts import part_joints
from dposer.errors import InputError
from dposer.metrics.poses import mpjpe
from dposer.prior import PosePrior
from dposer.prior.timesteps import GridTimes, LinearTimes, preset
from dposer.solvers.generation_scores import joint_positions
from dposer.solvers.initial_poses import MEAN_POSE
from dposer.solvers.motion_adam import AdamSettings, ObservedMotion, motion_gradient
from dposer.solvers.motion_denoising import denoise_motion, denoising_settings, simulate, smooth_poses

QUICK = AdamSettings(LinearTimes(0.2, 0.05), (100.0,), (0.0,), (0.1,), inner_steps=3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def clip(poses: Tensor) -> Tensor:
    """(2, 8, 63): two slow movements from one pose to the next."""
    return torch.lerp(poses[[0, 5]][:, None], poses[[1, 6]][:, None], torch.linspace(0, 0.5, 8)[:, None])


@pytest.fixture(scope="module")
def joints(body: BodyModel, clip: Tensor) -> Tensor:
    return joint_positions(body, clip.flatten(0, 1)).unflatten(0, clip.shape[:2])


def error(body: BodyModel, found: Tensor, joints: Tensor) -> Tensor:
    """MPJPE of each fragment, mm."""
    return 1000 * mpjpe(joint_positions(body, found.flatten(0, 1)).view_as(joints), joints).mean(-1)


# ---- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("noise", "steps", "times"), [(0.02, 40, "denoise20"), (0.04, 60, "denoise40"), (0.1, 80, "denoise100")])
@pytest.mark.parametrize("release", ["v1", "v2", "x", "paper"])
def test_settings_are_those_of_the_releases(release: str, noise: float, steps: int, times: str) -> None:
    settings = denoising_settings(release, noise)
    assert settings.inner_steps == steps and settings.time == preset(release, times)
    assert settings.data_weights == (100, 50, 20) and settings.temporal_weights == (10, 20, 30)
    assert settings.prior_weights == pytest.approx((0.1, 0.2, 0.3)) and settings.weighting == "plain" and settings.lr == 0.03
    assert settings.temporal_on == ("joints" if release == "paper" else "vertices")
    assert (settings.start, settings.smooth) == (("zeros", (3, 2.0)) if release == "v1" else ("mean", None))


@pytest.mark.parametrize(
    ("part", "weight", "t_max"), [("legs", 0.4, 0.2), ("left_arm", 0.2, 0.3), ("right_body", 0.3, 0.3), ("head", 0.3, 0.3)]
)
def test_settings_for_hidden_parts(part: str, weight: float, t_max: float) -> None:
    settings = denoising_settings("v2", 0.0, part)
    assert settings.time == LinearTimes(t_max, 0.01, t_fixed=0.05)
    assert settings.prior_weights == pytest.approx((weight, 2 * weight, 3 * weight)) and settings.weighting == "sqrt(1+snr)"
    assert settings.data_weights == (100, 100, 100) and settings.temporal_weights == (0, 0, 20)
    assert (settings.inner_steps, settings.eps, settings.smooth, settings.start) == (80, 1e-6, (5, 3.0), "zeros")
    assert denoising_settings("v2", 0.04, part) == denoising_settings("v2", 0.04)


def test_a_random_time_and_hps_have_a_lighter_prior() -> None:
    assert denoising_settings("v1", 0.04, strategy="1").prior_weights == pytest.approx((0.01, 0.02, 0.03))
    assert denoising_settings("v2", 0.04, strategy="1").prior_weights == pytest.approx((0.05, 0.1, 0.15))
    assert denoising_settings("v2", 0.04, dataset="HPS").prior_weights == pytest.approx((0.05, 0.1, 0.15))
    assert denoising_settings("v1", 0.04, dataset="HPS").prior_weights == pytest.approx((0.1, 0.2, 0.3))
    assert denoising_settings("paper", 0.04, strategy="2").time.strategy == "2"


def test_other_noise_is_interpolated_and_clamped() -> None:
    middle = denoising_settings("paper", 0.07)
    assert middle.inner_steps == 70 and middle.time.times(3).tolist() == pytest.approx([0.2, 0.1375, 0.075])
    assert denoising_settings("v2", 0.03).time.times(1).tolist() == [0.05]
    assert denoising_settings("v2", 0.03).time.t_max == pytest.approx(0.225)
    assert denoising_settings("v1", 0.03).time == GridTimes(500, 6, 2, 492)  # 1 / truncation = (1/10 + 1/4) / 2
    for release in ("v1", "v2", "x", "paper"):
        assert denoising_settings(release, 0.0) == denoising_settings(release, 0.02)
        assert denoising_settings(release, 3.0) == denoising_settings(release, 0.1)


def test_the_mean_pose() -> None:
    assert len(MEAN_POSE) == 63 and MEAN_POSE[:3] == (-0.2239, 0.0174, 0.0925) and MEAN_POSE[51:54] == (0.1222, -0.9116, 0.2383)


@pytest.mark.parametrize(
    ("arguments", "complaint"), [(("v9", 0.04), "v9"), (("v1", -0.1), "-0.1"), (("v1", 0.0, "legs"), "hidden"), (("x", math.nan), "nan")]
)
def test_unknown_settings_are_refused(arguments: tuple, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        denoising_settings(*arguments)


def test_weights_come_round_by_round() -> None:
    with pytest.raises(InputError, match="one of each a round"):
        dataclasses.replace(QUICK, data_weights=(1.0, 2.0))


# ---- the loss ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["residual", "red-diff"])
@pytest.mark.parametrize("weighting", ["plain", "sqrt(1+snr)"])
@pytest.mark.parametrize("temporal_on", ["joints", "vertices"])
def test_the_gradient_is_that_of_the_formula(
    body: BodyModel, prior: PosePrior, clip: Tensor, joints: Tensor, temporal_on: str, weighting: str, form: str
) -> None:
    rounds = ((100.0, 50.0), (10.0, 20.0), (0.4, 0.8))
    settings = AdamSettings(LinearTimes(0.2, 0.05), *rounds, temporal_on=temporal_on, weighting=weighting, form=form)
    visible = torch.rand(2, 3, 22, generator=seeded(1)) < 0.7
    observed = simulate(joints[:, :3], 0.1, seeded(2))
    motion = ObservedMotion(torch.where(visible[..., None], observed, 0), visible)
    start, t = clip[:, :3] + 0.1, 0.2
    found = motion_gradient(start, motion, prior, body, settings, 1, t, seeded(3))

    poses = start.clone().requires_grad_(True)
    z = torch.randn(6, 63, generator=seeded(3))
    total = torch.zeros(())
    for b in range(2):
        out = body(poses[b], joints="body", vertices="all" if temporal_on == "vertices" else None)
        points = out.vertices if temporal_on == "vertices" else out.joints
        data = sum((out.joints[f, j] - observed[b, f, j]).norm() for f in range(3) for j in range(22) if visible[b, f, j])
        moved = sum((points[f] - points[f + 1]).norm(dim=-1).mean() for f in range(2)) / 2
        noise = z[3 * b : 3 * b + 3]
        if form == "residual":
            pull = prior.loss(poses[b], t, noise, weighting=weighting).sum()
        else:
            alpha, sigma = prior.schedule.alpha(t), prior.schedule.sigma(t)
            x = prior.normalize(poses[b])
            pull = sigma / alpha * ((prior.denoiser.noise(alpha * x + sigma * noise, t) - noise).detach() * x).sum()
        total = total + 50 * data / 66 + 20 * moved + 0.8 * pull / 3
    (expected,) = torch.autograd.grad(total, poses)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_what_is_hidden_is_never_read(body: BodyModel, prior: PosePrior, joints: Tensor) -> None:
    visible = torch.ones(22, dtype=torch.bool)
    visible[part_joints("legs")] = False
    wild = torch.where(visible[:, None], joints, 1e6)
    absent = torch.where(visible[:, None], joints, math.nan)
    found = [
        denoise_motion(prior, some, visible=mask, settings=QUICK, body=body, generator=seeded())
        for some, mask in ((joints, visible), (wild, visible), (absent, None), (absent, visible.expand(8, 22)))
    ]
    assert all(torch.equal(some, found[0]) for some in found[1:]) and bool(found[0].isfinite().all())


# ---- the solver --------------------------------------------------------------------------------------------------------


def test_without_noise_all_joints_are_recovered(body: BodyModel, joints: Tensor) -> None:
    settings = AdamSettings(LinearTimes(0.2, 0.05), (100.0, 50.0), (0.0, 0.0), (0.0, 0.0), inner_steps=100)
    found = denoise_motion(None, joints, settings=settings, body=body, generator=seeded())
    assert found.shape == (2, 8, 63) and float(error(body, found, joints).max()) < 8


def test_the_prior_helps_against_noise_and_hidden_joints(body: BodyModel, prior: PosePrior, joints: Tensor) -> None:
    visible = torch.ones(22, dtype=torch.bool)
    visible[part_joints("left_arm")] = False
    noisy = simulate(joints, 0.1, seeded(5))
    with_prior, without = (
        error(body, denoise_motion(some, noisy, visible=visible, noise_std=0.1, body=body, generator=seeded()), joints).mean()
        for some in (prior, None)
    )
    assert with_prior < 0.9 * without < 0.9 * 1000 * mpjpe(noisy, joints).mean()


def test_a_fragment_does_not_see_its_neighbours(body: BodyModel, clip: Tensor, joints: Tensor) -> None:
    settings = dataclasses.replace(QUICK, temporal_weights=(10.0,))
    motion = ObservedMotion(simulate(joints, 0.1, seeded()), torch.ones(2, 8, 22, dtype=torch.bool))
    together = motion_gradient(clip, motion, None, body, settings, 0, 0.1)
    for i in range(2):
        own = ObservedMotion(motion.joints[i : i + 1], motion.visible[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], motion_gradient(clip[i : i + 1], own, None, body, settings, 0, 0.1))
    assert denoise_motion(None, joints[0], settings=settings, body=body).shape == (8, 63)


def test_root_shape_and_place_are_taken_as_given(body: BodyModel, clip: Tensor) -> None:
    root, trans, betas = torch.tensor([0.3, 1.0, -0.2]), torch.rand(8, 3, generator=seeded()), torch.full((10,), 0.8)
    joints = body(clip[0], root.expand(8, 3), betas.expand(8, 10), trans, vertices=None, joints="body").joints
    settings = AdamSettings(LinearTimes(0.2, 0.05), (100.0,), (0.0,), (0.0,), inner_steps=150)
    found = denoise_motion(None, joints, root_orient=root, trans=trans, betas=betas, settings=settings, body=body, generator=seeded())
    placed = body(found, root.expand(8, 3), betas.expand(8, 10), trans, vertices=None, joints="body").joints
    assert float(mpjpe(placed, joints).mean()) < 0.015


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("release", ["v1", "paper"])
def test_very_short_motions(body: BodyModel, prior: PosePrior, joints: Tensor, frames: int, release: str) -> None:
    settings = dataclasses.replace(denoising_settings(release, 0.04), inner_steps=1)
    found = denoise_motion(prior, joints[0, :frames], settings=settings, body=body, generator=seeded())
    assert found.shape == (frames, 63) and bool(found.isfinite().all())


def test_same_seed_same_result_and_every_step_is_told(body: BodyModel, prior: PosePrior, joints: Tensor) -> None:
    steps: list[tuple[int, int]] = []
    one, other, third = (
        denoise_motion(prior, joints, settings=QUICK, body=body, generator=seeded(seed), progress=lambda *step: steps.append(step))
        for seed in (7, 7, 8)
    )
    assert torch.equal(one, other) and not torch.equal(one, third) and steps == 3 * [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"joints": torch.zeros(0, 22, 3)}, r"shape \(0, 22, 3\)"),
        ({"joints": torch.zeros(5, 17, 3)}, r"shape \(5, 17, 3\)"),
        ({"joints": torch.zeros(22, 3)}, "expected"),
        ({"joints": torch.full((5, 22, 3), math.nan)}, "fragment 0 none was observed"),
        ({"visible": torch.zeros(22, dtype=torch.bool)}, "none was observed"),
        ({"visible": torch.ones(22)}, "expected bool"),
        ({"visible": torch.ones(21, dtype=torch.bool)}, "visible: shape"),
        ({"betas": torch.full((10,), math.nan)}, "betas: holds NaN"),
        ({"trans": torch.zeros(4, 3)}, "trans: shape"),
        ({"settings": "fast"}, "settings: found str"),
        ({"settings": None, "noise_std": -1.0}, "-1"),
    ],
)
def test_bad_input_is_told_in_one_line(body: BodyModel, change: dict, complaint: str) -> None:
    arguments = {"joints": torch.zeros(5, 22, 3), "settings": QUICK, "body": body} | change
    with pytest.raises(InputError, match=complaint) as raised:
        denoise_motion(None, **arguments)
    assert "\n" not in str(raised.value)


# ---- smoothing and noise -----------------------------------------------------------------------------------------------


def test_smoothing_is_a_gaussian_that_keeps_the_ends() -> None:
    spike = torch.zeros(7, 63)
    spike[3] = 1
    found = smooth_poses(spike)
    assert found[:, 0].tolist() == pytest.approx([0, 0, 0.319, 0.362, 0.319, 0, 0], abs=1e-3)
    noise = torch.randn(2, 9, 63, generator=seeded())
    five = smooth_poses(noise, 5, 3.0)
    assert torch.equal(five[:, :2], noise[:, :2]) and torch.equal(five[:, -2:], noise[:, -2:])
    weights = torch.exp(-(torch.arange(-2, 3.0) ** 2) / 18)
    torch.testing.assert_close(five[:, 4], (noise[:, 2:7] * (weights / weights.sum())[:, None]).sum(1))
    assert torch.equal(smooth_poses(noise[:, :4], 5, 3.0), noise[:, :4])


@pytest.mark.parametrize(("width", "sigma"), [(4, 1.0), (0, 1.0), (3, 0.0)])
def test_impossible_kernels_are_refused(width: int, sigma: float) -> None:
    with pytest.raises(InputError, match="odd width"):
        smooth_poses(torch.zeros(9, 63), width, sigma)


def test_noise_has_the_deviation_that_was_asked_for(joints: Tensor) -> None:
    noise = simulate(joints, 0.04, seeded()) - joints
    assert float(noise.std()) == pytest.approx(0.04, rel=0.05) and torch.equal(simulate(joints, 0.0), joints)
    with pytest.raises(InputError, match="noise_std"):
        simulate(joints, -0.1)
