"""Figures of hypotheses: closed forms, and what they say of laws that are known."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from dposer.metrics.hypotheses import (
    LEVELS,
    aligned,
    calibration_error,
    centrality,
    correct_poses,
    correct_shares,
    covered,
    crps,
    deviations,
    energy_scores,
    expected_minimum,
    hypothesis_errors,
    median_pose,
    over_hypotheses,
    rescaled,
)
from dposer.metrics.poses import distances, mpjpe, pa_mpjpe

J = 17


def drawn(frames: int, number: int, spread: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Truths (F, J, 3) N(0, 0.1²) about their means, and hypotheses (F, N, J, 3), ``spread`` times as wide."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(frames, J, 3, generator=generator)
    truth = middle + 0.1 * torch.randn(frames, J, 3, generator=generator)
    return middle[:, None] + spread * 0.1 * torch.randn(frames, number, J, 3, generator=generator), truth


def test_errors_are_those_of_single_poses() -> None:
    h, truth = drawn(3, 4)
    errors = hypothesis_errors(h, truth)
    torch.testing.assert_close(errors[1, 2], mpjpe(h[1, 2], truth[1]))
    torch.testing.assert_close(hypothesis_errors(aligned(h, truth), truth)[2, 3], pa_mpjpe(h[2, 3], truth[2]))
    found = over_hypotheses(torch.tensor([[3.0, 1, 2, 8], [5, 5, 5, 5]]))
    assert [value.tolist() for value in found] == [[1, 5], [3.5, 5], [2.5, 5], [8, 5]]
    assert correct_shares(truth[:, None] + torch.tensor([0.14, 0, 0]), truth, [1, 2]).tolist() == [[1]] * 3
    assert correct_shares(truth[:, None] + torch.tensor([0.16, 0, 0]), truth, [1, 2]).tolist() == [[0]] * 3
    torch.testing.assert_close(deviations(h), h.std(1))
    torch.testing.assert_close(median_pose(h[:, :3]), h[:, :3].median(1).values)


def test_alignment_never_mirrors_and_rescaling_forgets_the_size() -> None:
    h, truth = drawn(2, 5)
    mirrored = truth[:, None] * torch.tensor([-1.0, 1, 1])
    assert hypothesis_errors(aligned(mirrored, truth), truth).min() > 0.1
    assert hypothesis_errors(aligned(3 * truth[:, None] @ torch.linalg.qr(torch.eye(3))[0] + 1, truth), truth).max() < 1e-5
    torch.testing.assert_close(rescaled(3 * h + 1, truth), rescaled(h, truth))
    norms = [torch.linalg.vector_norm(x - x[..., :1, :], dim=(-2, -1)) for x in (rescaled(h, truth), truth[:, None])]
    torch.testing.assert_close(norms[0], norms[1].expand(-1, 5))


def test_cps_is_the_area_of_the_table() -> None:
    h, truth = drawn(40, 6)
    h = truth[:, None] + (h - truth[:, None]) * torch.linspace(1e-3, 2, 40)[:, None, None, None]
    h[0] = truth[0]  # correct at every threshold
    joints = [joint for joint in range(J) if joint != 7]
    largest = 1000 * distances(h, truth[:, None])[..., joints].amax(-1).amin(-1)
    table = torch.stack([(largest < k).double() for k in range(1, 301)])
    area = torch.trapezoid(table.mean(1))
    assert 20 < area < 280 and float(largest.max()) > 300
    found = correct_poses(h, truth, joints).amax(-1).double().mean()
    assert float(found) == pytest.approx(float(area), abs=1e-4)
    assert correct_poses(truth[:, None], truth, joints).tolist() == [[299.0]] * 40


def test_expected_minimum_of_chosen_counts() -> None:
    errors = torch.rand(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for m, found in zip((1, 2, 5, 6), expected_minimum(errors, (1, 2, 5, 6)).unbind(-1), strict=True):
        subsets = [errors[:, list(subset)].amin(1) for subset in itertools.combinations(range(6), m)]
        torch.testing.assert_close(found, torch.stack(subsets).mean(0))
    many = torch.arange(1000.0)[None]  # the least of m of 0 .. N - 1 is (N - m) / (m + 1) on average
    assert expected_minimum(many, (10, 1000))[0].tolist() == pytest.approx([990 / 11, 0], abs=1e-3)


@pytest.mark.parametrize(("spread", "kappa"), [(1.0, 0.5), (3.0, 0.95), (0.3, 0.03)])
def test_calibration_of_known_laws(spread: float, kappa: float) -> None:
    h, truth = drawn(300, 100, spread)
    within = centrality(h, truth)
    curve = covered(within).mean(0)
    assert float(1 - within.mean()) == pytest.approx(kappa, abs=0.05)
    error = float(calibration_error(curve).median())
    low, high = (float(curve[:, LEVELS.index(level)].mean()) for level in (0.5, 0.9))
    if spread == 1:
        assert error < 0.03 and (low, high) == pytest.approx((0.5, 0.9), abs=0.02)
    else:
        assert error > 0.3 and (low > 0.9 if spread > 1 else high < 0.3)


def test_calibration_counts_hypotheses() -> None:
    truth = torch.zeros(1, 1, 3)
    truth[..., 0] = 2.5
    h = torch.zeros(1, 5, 1, 3)
    h[0, :, 0, 0] = torch.tensor([-4.0, -1, 0, 2, 3])  # distances from the median 0: 4 1 0 2 3
    assert centrality(h, truth).tolist() == [[0.6]]
    assert covered(centrality(h, truth), (0.55, 0.6, 0.65)).tolist() == [[[0, 1, 1]]]
    assert centrality(h[:, :1].expand(-1, 4, -1, -1), truth).tolist() == [[1]]


def test_energy_scores_of_gaussians() -> None:
    h, truth = drawn(200, 60)
    found = energy_scores(h, truth)
    # of n dimensions: E|x - y| = 2 σ Γ((n + 1) / 2) / Γ(n / 2) for two draws, half of which the score is
    for score, n in ((found.joints, 3), (found.pose, 3 * J)):
        assert float(score.mean()) == pytest.approx(0.1 * math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2)), rel=0.03)
    few = energy_scores(h, truth, "neighbours")
    assert float((few.pose - found.pose).mean().abs()) < 0.003 and not torch.equal(few.pose, found.pose)
    assert float(crps(h, truth).mean()) == pytest.approx(0.1 / math.sqrt(math.pi), rel=0.03)
    for spread in (0.5, 2.0):  # proper: the law of the truth is best
        others = drawn(200, 60, spread)
        assert energy_scores(*others).pose.mean() > found.pose.mean() and crps(*others).mean() > crps(h, truth).mean()


def test_scores_are_those_of_all_pairs() -> None:
    h, truth = drawn(2, 5)
    h, truth = h.double(), truth.double()
    pairs = list(itertools.combinations(range(5), 2))
    between = torch.stack([torch.linalg.vector_norm(h[:, a] - h[:, b], dim=-1) for a, b in pairs]).mean(0)
    near = distances(h, truth[:, None]).mean(1)
    torch.testing.assert_close(energy_scores(h, truth).joints, near - between / 2)
    between = torch.stack([torch.linalg.vector_norm((h[:, a] - h[:, b]).flatten(1), dim=-1) for a, b in pairs]).mean(0)
    near = torch.linalg.vector_norm((h - truth[:, None]).flatten(2), dim=-1).mean(1)
    torch.testing.assert_close(energy_scores(h, truth).pose, near - between / 2)
    between = torch.stack([(h[:, a] - h[:, b]).abs() for a, b in pairs]).mean(0)
    torch.testing.assert_close(crps(h, truth), (h - truth[:, None]).abs().mean(1) - between / 2)
    one = h[:, :1]
    torch.testing.assert_close(energy_scores(one, truth).joints, distances(one[:, 0], truth))
    torch.testing.assert_close(crps(one, truth), (one[:, 0] - truth).abs())
