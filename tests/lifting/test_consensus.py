"""One answer of many hypotheses: closed cases, two camps, and answers that turn with the person."""

import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dposer.body.skeleton import H36M_17
from dposer.errors import InputError
from dposer.geometry.lens import Lens
from dposer.lifting.consensus import (
    AmbiguityRule,
    camps,
    consensus,
    density_mode,
    medoid,
    moments,
    pose_distances,
    represented,
)

J = 17
WRIST = H36M_17.joints.index("left_wrist")


def two_arms(generator: torch.Generator, front: int = 140, back: int = 60, apart: float = 0.4, noise: float = 0.01) -> Tensor:
    """(2, N, J, 3): poses whose left wrist is in one of two places; the second frame's is in one."""
    pose = 0.4 * torch.randn(J, 3, generator=generator)
    h = pose + noise * torch.randn(2, front + back, J, 3, generator=generator)
    h[0, front:, WRIST, 2] += apart
    return h


def test_two_camps_are_found_with_their_weights(generator: torch.Generator) -> None:
    h = two_arms(generator)
    found = consensus(h, "medoid", count=2)
    torch.testing.assert_close(found.weights[0], torch.tensor([0.7, 0.3]))
    assert (found.members[0] < 140).tolist() == [True, False]
    assert torch.equal(found.labels[0], (torch.arange(200) >= 140).long())
    assert torch.equal(found.representatives[0], h[0, found.members[0]])  # they are hypotheses
    assert found.ambiguous[0].nonzero().tolist() == [[WRIST]] and not found.ambiguous[1].any()
    assert float(found.apart[0, WRIST]) == pytest.approx(0.4, abs=0.01) and float(found.apart[1].max()) == 0
    torch.testing.assert_close(found.spread[0, WRIST], torch.tensor(0.4 * (0.7 * 0.3) ** 0.5), atol=3e-3, rtol=0)
    assert set(found.arrays()) >= {"pose", "covariance", "weights"} and found.arrays()["weights"].shape == (2, 2)


def test_a_rare_camp_is_noticed_and_a_wide_cloud_is_no_camp(generator: torch.Generator) -> None:
    rule = AmbiguityRule()
    rare = two_arms(generator, 176, 24, 0.2)  # 65 mm of spread: the rule of spread alone would not see it
    rare[..., 0] += 0.08 * torch.randn(2, 200, 1, generator=generator)  # the widest axis is another one
    assert float(moments(rare)[1][0, WRIST, 2, 2].sqrt()) < rule.spread
    assert float(camps(rare, rule)[0, WRIST]) == pytest.approx(0.2, abs=0.02)
    assert float(camps(two_arms(generator, 190, 10), rule).max()) == 0  # fewer than a tenth
    assert float(camps(two_arms(generator, 100, 100, 0.1), rule).max()) == 0  # too near to each other
    assert float(camps(0.3 * torch.randn(2, 400, J, 3, generator=generator), rule).max()) == 0
    assert float(camps(torch.rand(2, 400, J, 3, generator=generator), rule).max()) == 0
    assert bool(consensus(0.3 * torch.randn(1, 50, J, 3, generator=generator)).ambiguous.all())


def test_closed_cases() -> None:
    places = torch.tensor([0.0, 1.0, 2.0, 3.0, 10.0])
    line = torch.zeros(1, 5, J, 3)
    line[..., 1] = places[:, None]
    torch.testing.assert_close(pose_distances(line)[0], (places[:, None] - places).abs())
    assert torch.equal(medoid(line), line[:, 2])  # the middle one of an odd number on a line
    torch.testing.assert_close(consensus(line, "median").pose, line[:, 2], atol=0.02, rtol=0)
    mean, covariance = moments(line)
    assert float(mean[0, 0, 1]) == pytest.approx(3.2)
    assert float(covariance[0, 0, 1, 1]) == pytest.approx(float(places.var(correction=0)), rel=1e-5)
    alike = line[:, :1].expand(-1, 4, -1, -1)
    for how in ("median", "medoid", "mode"):
        found = consensus(alike, how, count=9)
        torch.testing.assert_close(found.pose, alike[:, 0])
        assert found.members.shape == (1, 4) and found.weights[0].tolist() == [1, 0, 0, 0] and not found.ambiguous.any()
    assert torch.equal(consensus(line[:, :1], "mode").pose, line[:, 0])


def test_the_mode_is_in_the_larger_camp(generator: torch.Generator) -> None:
    h = two_arms(generator, 110, 90)
    centre = h[0, :110].mean(0)
    mode = density_mode(h)[0]
    assert float((mode - centre).norm(dim=-1).max()) < 0.01 < float((moments(h)[0][0, WRIST] - centre[WRIST]).norm())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["median", "medoid", "mode"]))
def test_answers_turn_with_the_person_whatever_the_order(seed: int, how: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    h = two_arms(generator, 20, 11, noise=0.03).double()
    turn = roma.special_procrustes(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    order = torch.randperm(31, generator=generator)
    one, other = consensus(h, how, 3), consensus((h @ turn.T)[:, order], how, 3)
    torch.testing.assert_close(other.pose, one.pose @ turn.T)
    torch.testing.assert_close(other.representatives.sum(1), one.representatives.sum(1) @ turn.T)
    torch.testing.assert_close(other.covariance, turn @ one.covariance @ turn.T)
    torch.testing.assert_close(other.apart, one.apart)
    assert torch.equal(other.ambiguous, one.ambiguous) and torch.equal(other.weights, one.weights)


def test_frames_are_independent_and_groups_are_as_good_as_greed_left_them(generator: torch.Generator) -> None:
    h = 0.1 * torch.randn(5, 40, J, 3, generator=generator)
    members, labels, weights = represented(h, 4)
    assert torch.equal(members[2:3], represented(h[2:3], 4)[0])
    distances = pose_distances(h)
    own = distances.take_along_dim(members[:, None], 2)
    assert torch.equal(own.argmin(-1), labels) and torch.allclose(weights.sum(1), torch.ones(5))
    assert bool((weights.diff(dim=1) <= 0).all()) and bool((labels.gather(1, members) == torch.arange(4)).all())


def test_reprojection_takes_the_joint_that_is_seen(generator: torch.Generator) -> None:
    h = two_arms(generator, 30, 10)
    lens, root = Lens.of_size(1000, 1000, 1100.0), torch.tensor([0.1, 0.2, 4.0]).expand(2, 3)
    h[:, 30:, WRIST, 0] += 0.3
    truth = h[:, 35]
    keypoints = lens.project(truth + root[:, None])
    found = consensus(h, "reprojection", keypoints=keypoints, lens=lens, root=root)
    np.testing.assert_allclose(lens.project(found.pose + root[:, None]), keypoints, atol=1e-2)
    with pytest.raises(InputError, match="lacks keypoints or the lens"):
        consensus(h, "reprojection")


def test_what_cannot_be_used_is_refused() -> None:
    for wrong in (torch.zeros(3, 4, J), torch.zeros(2, 0, J, 3), torch.full((1, 2, J, 3), torch.nan)):
        with pytest.raises(InputError, match="hypotheses"):
            consensus(wrong)
    with pytest.raises(InputError, match="median, medoid, mode"):
        consensus(torch.zeros(1, 2, J, 3), "mean")  # type: ignore[arg-type]
