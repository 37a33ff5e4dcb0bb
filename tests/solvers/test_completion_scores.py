"""Scores of completions: right on cases with known answers, by part and by mask."""

import pytest
import torch
from torch import Tensor

from dposer.body import BodyModel
from dposer.body.parts import part_missing
from dposer.errors import InputError
from dposer.prior import PosePrior
from dposer.solvers import complete
from dposer.solvers.completion import CompletionSettings, Mode, SamplingSettings, mode_settings
from dposer.solvers.completion_scores import (
    BASELINES,
    PUBLISHED,
    CompletionResult,
    baseline,
    completion_scores,
    count_evaluations,
    evaluate_completion,
    mean_completion,
    nearest_completions,
    published_figures,
    solver,
)


def test_perfect_completions_have_no_error_and_known_joints_none_either(body: BodyModel, poses: Tensor) -> None:
    scores = completion_scores(body, poses[:7, None].expand(-1, 3, -1), poses[:7], "legs", chunk=6)
    assert scores.mpvpe.shape == scores.mpjpe.shape == (7, 3) and scores.apd.shape == (7,)
    assert max(float(values.max()) for values in (scores.mpvpe, scores.mpjpe, scores.apd)) < 1e-3


def test_a_bent_knee_moves_only_the_leg_by_the_length_of_the_shank(body: BodyModel) -> None:
    truth = torch.zeros(1, 63)
    bent = truth.clone()
    bent[0, 9] = torch.pi / 2  # left knee about x
    scores = completion_scores(body, torch.stack([bent, truth], dim=1), truth, "left_leg")
    rest = body.rest_joints()[0]
    knee, ankle, foot = rest[4], rest[7], rest[10]
    turned = [2**0.5 * torch.linalg.vector_norm((end - knee)[1:]) for end in (ankle, foot)]
    expected = float(sum(turned)) / 4
    torch.testing.assert_close(scores.mpjpe, torch.tensor([[1000 * expected, 0]]), rtol=1e-4, atol=1e-3)
    assert float(scores.apd) == pytest.approx(100 * expected, rel=1e-4)
    assert float(completion_scores(body, bent[:, None], truth, "arms").mpvpe) < 1e-3


def test_a_mask_scores_the_joints_it_names_and_each_pose_its_own(body: BodyModel, poses: Tensor) -> None:
    guesses = poses[7:14, None]
    names = ["left_leg", "legs", "arms", "trunk", "hands", "right_arm", "left_arm"]
    masks = torch.stack([part_missing(name) for name in names])
    together = completion_scores(body, guesses, poses[:7], masks)
    for row, name in enumerate(names):
        alone = completion_scores(body, guesses[row, None], poses[row, None], name)
        torch.testing.assert_close(together.mpjpe[row], alone.mpjpe[0])
        per_axis = completion_scores(body, guesses[row, None], poses[row, None], masks[row].repeat_interleave(3))
        torch.testing.assert_close(together.mpvpe[row], per_axis.mpvpe[0])
    with pytest.raises(InputError, match="expected"):
        completion_scores(body, guesses, poses[:7], torch.ones(5, dtype=torch.bool))


def test_baselines(poses: Tensor) -> None:
    hidden = part_missing("arms").repeat_interleave(3)
    nearest = nearest_completions(poses, poses[:5], "arms", count=3)
    assert torch.equal(nearest[:, 0], poses[:5])  # each pose is its own nearest neighbour
    filled = mean_completion(poses, poses[:5], "arms")
    assert torch.equal(filled[:, 0, ~hidden], poses[:5, ~hidden])
    torch.testing.assert_close(filled[:, 0, hidden], poses.mean(0)[hidden].expand(5, -1))


@pytest.mark.parametrize("part", ["left_leg", "legs", "arms", "trunk"])
def test_the_best_of_ten_completions_beats_the_mean_pose_clearly(prior: PosePrior, body: BodyModel, poses: Tensor, part: str) -> None:
    generator = torch.Generator().manual_seed(0)
    guesses = complete(prior, poses[:40:2], part_missing(part), 10, "DPoser", generator=generator)
    ours = completion_scores(body, guesses, poses[:40:2], part).report()
    mean = completion_scores(body, mean_completion(poses, poses[:40:2], part), poses[:40:2], part).report()
    assert ours["MPVPE min"] < 0.85 * mean["MPVPE min"] and ours["MPJPE min"] < 0.85 * mean["MPJPE min"]


def test_nearest_poses_are_sought_among_what_each_pose_knows(poses: Tensor) -> None:
    masks = torch.stack([part_missing(name) for name in ("legs", "arms", "left_body")])
    masks = torch.cat([masks.repeat_interleave(3, dim=1), torch.rand(2, 63, generator=torch.Generator().manual_seed(0)) < 0.5])
    found = nearest_completions(poses[10:], poses[:5], masks, count=4)
    for pose, mask, guesses in zip(poses[:5], masks, found, strict=True):
        order = (poses[10:, ~mask] - pose[~mask]).norm(dim=1).argsort()[:4]
        torch.testing.assert_close(guesses[:, mask], poses[10:][order][:, mask])
        assert torch.equal(guesses[:, ~mask], pose[~mask].expand(4, -1))
    assert nearest_completions(poses[:3], poses[:5], "legs", count=10).shape == (5, 3, 63)


def test_evaluations_are_counted_and_only_meanwhile(prior: PosePrior, poses: Tensor) -> None:
    settings = CompletionSettings(outer_steps=1, inner_steps=3)
    with count_evaluations(prior) as counter:
        complete(prior, poses[:4], part_missing("legs"), 5, "DPoser", settings=settings)
    complete(prior, poses[:4], part_missing("legs"), 5, "DPoser", settings=settings)
    assert (counter.rows, counter.calls) == (3 * 4 * 5, 3)
    with count_evaluations(prior) as counter:
        complete(prior, poses[:4], part_missing("legs"), 5, "DPS", settings=SamplingSettings("DPS", "ddim", 6))
    assert counter.rows == 6 * 4 * 5


@pytest.mark.parametrize("name", ["DPoser", *BASELINES])
def test_results_of_batches_join_to_the_result_of_all(prior: PosePrior, body: BodyModel, poses: Tensor, name: str) -> None:
    settings = CompletionSettings(outer_steps=1, inner_steps=2)
    solve = solver(prior, "DPoser", 3, settings) if name == "DPoser" else baseline(name, poses[100:])
    parts = [evaluate_completion(prior, body, some, "arms", solve, torch.Generator().manual_seed(0)) for some in poses[:7].split(3)]
    whole = CompletionResult.from_arrays([part.arrays() for part in parts])
    scores = completion_scores(body, whole.completions, poses[:7], "arms")
    torch.testing.assert_close(whole.scores.mpjpe, scores.mpjpe)
    hypotheses = whole.completions.shape[1]
    assert hypotheses == {"DPoser": 3, "mean": 1, "nearest": 1, "nearest-10": 10}[name]
    report, per_pose = whole.report(), whole.per_pose()
    assert report["evaluations"] == (2 if name == "DPoser" else 0) and report["ms"] > 0
    for figure, values in per_pose.items():
        assert values.shape == (7,) and (hypotheses == 1 or report[figure] == pytest.approx(float(values.mean())))
    ranks = prior.plausibility(whole.completions[4]).score
    torch.testing.assert_close(whole.plausibility[4], ranks)


def test_a_solver_that_diverges_is_seen_and_does_not_stop_the_rest(prior: PosePrior, body: BodyModel, poses: Tensor) -> None:
    def diverge(some: Tensor, *_: object) -> Tensor:
        return some[:, None].expand(-1, 2, -1).clone().index_fill(0, torch.tensor([1]), torch.nan)

    result = evaluate_completion(prior, body, poses[:3], "legs", diverge)
    assert result.plausibility.isnan().any(1).tolist() == result.scores.mpjpe.isnan().any(1).tolist() == [False, True, False]


def test_published_figures_by_mode_and_part() -> None:
    assert published_figures("DPoser", "left_leg") == {
        "MPVPE min": 38.79, "MPVPE mean": 78.31, "MPVPE std": 27.13, "APD": 6.53,
        "MPJPE min": 35.37, "MPJPE mean": 74.01, "MPJPE std": 26.47,
    }  # fmt: skip
    assert set(published_figures("DPS", "trunk")) == {"MPJPE min", "MPJPE mean", "MPJPE std"}
    assert published_figures("posterior", "left_leg") == published_figures("DPoser", "hands") == {}
    assert all(set(parts) == {"left_leg", "legs", "arms", "trunk"} for parts in PUBLISHED.values())


def test_settings_of_a_mode_by_release_and_number_of_steps(prior: PosePrior) -> None:
    ours, theirs = (mode_settings(prior, "DPoser", preset, 40) for preset in (None, "x"))
    assert isinstance(ours, CompletionSettings) and isinstance(theirs, CompletionSettings)
    assert ours.inner_steps == theirs.inner_steps == 20 and ours.fresh_start and theirs.betas == (0.9, 0.99)
    sampling = mode_settings(prior, "ScoreSDE", steps=7)
    assert isinstance(sampling, SamplingSettings) and sampling.steps == 7
    released = mode_settings(prior, "DPS", "v2")
    assert isinstance(released, SamplingSettings) and released.steps == 1000 and not released.options["jacobian"]
    wrong: list[tuple[Mode, str | None, int | None]] = [
        ("DPS", "v1", None),
        ("posterior", "v2", None),
        ("DPoser", "v0", None),
        ("DPoser", None, 3),
        ("DPoser", None, 0),
    ]
    for mode, preset, steps in wrong:
        with pytest.raises(InputError):
            mode_settings(prior, mode, preset, steps)
    with pytest.raises(InputError, match="baseline 'best'"):
        baseline("best", torch.zeros(3, 63))
