import math

import pytest
import torch
from torch import Tensor

from dposer.body import BodyModel
from dposer.errors import InputError
from dposer.prior import PosePrior
from dposer.prior.pose_prior import Progress
from dposer.prior.timesteps import LinearTimes
from dposer.solvers.denoising_scores import (
    FIGURES,
    DenoisingScores,
    best_window,
    denoising_scores,
    evaluate_denoising,
    joint_scores,
    published_figures,
    savitzky_golay,
    solver,
)
from dposer.solvers.generation_scores import joint_positions
from dposer.solvers.motion_adam import AdamSettings


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_a_constant_offset_is_the_error() -> None:
    truth = uniform(2, 6, 22, 3)
    found = truth + torch.tensor([0.003, 0.0, 0.004])
    report = joint_scores(found, truth, truth + torch.tensor([0.0, 0.02, 0.0])).report()
    assert report["init_MPJPE"] == pytest.approx(20, rel=1e-4) and report["MPJPE"] == pytest.approx(5, rel=1e-4)
    assert report["vis_MPJPE"] == pytest.approx(5, rel=1e-4) and report["acceleration error"] == pytest.approx(0, abs=1e-3)
    assert report["jitter"] == pytest.approx(report["true jitter"], rel=1e-4)
    assert all(math.isnan(report[name]) for name in ("MPVPE", "inv_MPJPE", "ms")) and tuple(report) == FIGURES


def test_hidden_joints_are_scored_apart() -> None:
    truth = uniform(1, 5, 22, 3)
    visible = torch.arange(22) < 11
    found = torch.where(visible[:, None], truth + torch.tensor([0.001, 0, 0]), truth + torch.tensor([0, 0.1, 0]))
    observed = torch.where(visible[:, None], truth, math.nan)
    for scores in (joint_scores(found, truth, observed), joint_scores(found, truth, truth, visible)):
        report = scores.report()
        assert report["vis_MPJPE"] == pytest.approx(1, rel=1e-3) and report["inv_MPJPE"] == pytest.approx(100, rel=1e-3)
        assert report["MPJPE"] == pytest.approx(50.5, rel=1e-3) and report["init_MPJPE"] == 0


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_very_short_motions_have_no_jerk(frames: int) -> None:
    truth = uniform(1, frames, 22, 3)
    report = joint_scores(truth, truth, truth).report()
    assert report["MPJPE"] == 0 and math.isnan(report["jitter"]) and math.isnan(report["acceleration error"]) == (frames < 3)


def test_fragments_weigh_by_their_frames_and_survive_being_written() -> None:
    short, long = uniform(1, 4, 22, 3), uniform(2, 12, 22, 3)
    shift = torch.tensor([0.01, 0, 0])
    parts = [joint_scores(short + shift, short, short).arrays(), joint_scores(long, long, long).arrays()]
    scores = DenoisingScores.from_arrays(parts)
    assert scores.frames.tolist() == [4, 12, 12] and scores.report()["MPJPE"] == pytest.approx(10 * 4 / 28, rel=1e-3)
    assert scores.per_fragment()["MPJPE"].tolist() == pytest.approx([10, 0, 0], rel=1e-3)


def test_the_experiment_scores_joints_and_surface(body: BodyModel, poses: Tensor) -> None:
    truth = poses[:6].view(2, 3, 63)
    joints = joint_positions(body, poses[:6]).view(2, 3, 22, 3)

    def knows(_joints: Tensor, _visible: Tensor | None, _generator: torch.Generator | None, _progress: Progress | None) -> Tensor:
        return truth

    report = evaluate_denoising(body, truth, joints + 0.01, knows).report()
    assert report["MPJPE"] == report["MPVPE"] == 0 and report["ms"] >= 0
    assert report["init_MPJPE"] == pytest.approx(10 * math.sqrt(3), rel=1e-3)
    off = denoising_scores(body, truth + 0.05, truth, joints, chunk=4)
    expected = (body(truth[1] + 0.05).vertices - body(truth[1]).vertices).norm(dim=-1).mean()
    assert float(off.mpvpe[1]) == pytest.approx(1000 * float(expected), rel=1e-3)


def test_the_solver_is_denoise_motion(body: BodyModel, prior: PosePrior, poses: Tensor) -> None:
    settings = AdamSettings(LinearTimes(0.2, 0.05), (100.0,), (10.0,), (0.1,), inner_steps=40)
    truth = poses[:1].expand(1, 4, 63)
    joints = joint_positions(body, truth[0])[None]
    solve = solver(prior, body, 0.02, settings)
    scores = evaluate_denoising(body, truth, joints, solve, generator=torch.Generator().manual_seed(0))
    assert float(scores.mpjpe[0]) < 40


def test_published_figures() -> None:
    assert published_figures("AMASS", 0.04)["DPoser"] == {"MPJPE": 19.87, "MPVPE": 38.21}
    assert published_figures("HPS", 0.1)["no prior"]["MPJPE"] == 50.87
    legs = published_figures("AMASS", 0.0, "legs")
    assert legs["DPoser"]["inv_MPJPE"] == 122.4 and legs["no prior"]["inv_MPJPE"] == 147.2
    assert (
        not published_figures("AMASS", 0.05)
        and not published_figures("AMASS", 0.04, "legs")
        and not published_figures("AMASS", 0.0, "arms")
    )


def test_the_filter_keeps_polynomials_and_the_best_window_fits_the_noise() -> None:
    t = torch.linspace(0, 1, 40)[:, None, None]
    parabola = (t**2 - 0.3 * t).expand(40, 22, 3)
    torch.testing.assert_close(savitzky_golay(parabola, 7), parabola, atol=1e-5, rtol=1e-4)
    noise = torch.randn(1, 40, 22, 3, generator=torch.Generator().manual_seed(0))
    wave = torch.sin(6 * t).expand(1, 40, 22, 3)
    little, much = (best_window(wave + scale * noise, wave) for scale in (1e-3, 0.3))
    assert little < much <= 31 and little % 2 == much % 2 == 1


@pytest.mark.parametrize(("window", "frames"), [(4, 20), (2, 20), (21, 20), (3, 2)])
def test_windows_that_do_not_fit_are_refused(window: int, frames: int) -> None:
    with pytest.raises(InputError, match="window"):
        savitzky_golay(torch.zeros(frames, 22, 3), window)


def test_a_filter_cannot_fill_holes() -> None:
    with pytest.raises(InputError, match="NaN"):
        savitzky_golay(torch.full((20, 22, 3), math.nan), 5)
    with pytest.raises(InputError, match="too short"):
        best_window(torch.zeros(2, 22, 3), torch.zeros(2, 22, 3))
