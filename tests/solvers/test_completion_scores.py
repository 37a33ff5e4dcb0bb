"""Scores of completions: right on cases with known answers, by part and by mask."""

import pytest
import torch
from torch import Tensor

from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.parts import part_missing
from dposer.data.amass import read_poses
from dposer.errors import InputError
from dposer.prior import PosePrior
from dposer.solvers import complete
from dposer.solvers.completion_scores import completion_scores, mean_completion, nearest_completions


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel()


@pytest.fixture(scope="module")
def prior() -> PosePrior:
    return PosePrior.from_pretrained()


@pytest.fixture(scope="module")
def poses() -> Tensor:
    return torch.as_tensor(read_poses(asset("examples", "toy_data.npz")))


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
    guesses = complete(prior, poses[:40], part_missing(part), 10, generator=generator)
    ours = completion_scores(body, guesses, poses[:40], part).report()
    mean = completion_scores(body, mean_completion(poses, poses[:40], part), poses[:40], part).report()
    assert ours["MPVPE min"] < 0.85 * mean["MPVPE min"] and ours["MPJPE min"] < 0.85 * mean["MPJPE min"]
