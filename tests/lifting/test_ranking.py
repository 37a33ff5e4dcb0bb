"""Hypotheses weighed by the prior and the camera."""

import pytest
import torch

from dposer import BodyModel, PosePrior
from dposer.assets import asset
from dposer.body.points import BodyPoints, Skeleton
from dposer.body.skeleton import H36M_17
from dposer.errors import InputError
from dposer.files import load_npz
from dposer.geometry.lens import Lens
from dposer.lifting.ranking import bodies_of, missed, rank

LENS = Lens.of_size(1000, 1000, 1100.0)


@pytest.fixture(scope="module")
def walk() -> torch.Tensor:
    """(2, 17, 3): joints of a person who walks, camera axes, relative to the pelvis."""
    motion = load_npz(asset("examples", "walk_truth.npz"), "a motion", ("pose_body", "trans"))
    pose = torch.as_tensor(motion["pose_body"][[5, 25]], dtype=torch.float32)
    body = BodyModel()
    upside_down = torch.diag(torch.tensor([1.0, -1.0, -1.0])).expand(2, 3, 3)
    points = BodyPoints.of_layout(body, H36M_17)
    joints = points(Skeleton(body)(pose, upside_down, torch.zeros(2, 3), torch.zeros(2, 10)), torch.zeros(2, 10))
    return (joints - joints[:, :1]).detach()


def test_the_prior_knows_which_way_knees_bend(walk: torch.Tensor) -> None:
    """A pose seen from the front looks the same if it is turned inside out along the depth."""
    mirrored = walk * torch.tensor([1.0, 1.0, -1.0])
    poses = torch.stack((mirrored, walk), 1)
    ranking = rank(poses, H36M_17, PosePrior.from_pretrained(), shares=torch.tensor([[0.7, 0.3]]).expand(2, 2))
    assert ranking.order.tolist() == [[1, 0]] * 2 and float(ranking.weights[:, 1].min()) > 0.9
    assert ranking.plausibility is not None and bool((ranking.plausibility[:, 1] > ranking.plausibility[:, 0] + 20).all())
    assert torch.equal(ranking.best(poses), walk) and ranking.reprojection is None
    bodies = ranking.bodies
    assert bodies is not None and bodies.pose_body.shape == (4, 63) and bodies.betas.shape == (4, 10)
    assert float(bodies.residuals[1::2].mean()) < 0.02


def test_weights_are_the_stated_softmax(walk: torch.Tensor) -> None:
    poses = torch.stack((walk, walk * 1.0, walk), 1)
    poses[:, 1, 13, 0] += 0.2
    root = torch.tensor([0.2, 0.1, 4.0]).expand(2, 3)
    keypoints = LENS.project(walk + root[:, None])
    shares = torch.tensor([[0.2, 0.5, 0.3]]).expand(2, 3)
    error = missed(poses, keypoints, LENS, root=root)
    off = torch.linalg.vector_norm(LENS.project(poses[:, 1] + root[:, None])[:, 13] - keypoints[:, 13], dim=-1)
    torch.testing.assert_close(error, torch.stack((0 * off, off / 17**0.5, 0 * off), 1), atol=1e-3, rtol=0)
    ranking = rank(poses, H36M_17, shares=shares, keypoints=keypoints, lens=LENS, root=root, pixels=8.0)
    expected = shares * torch.exp(-((error / 8).square()) / 2)
    torch.testing.assert_close(ranking.weights, expected / expected.sum(1, keepdim=True))
    assert ranking.bodies is None and ranking.order[0, 0] == 2
    hidden = torch.ones(2, 17)
    hidden[:, 13] = 0
    keypoints[:, 13] = torch.nan
    torch.testing.assert_close(missed(poses, keypoints, LENS, hidden), torch.zeros(2, 3), atol=0.05, rtol=0)


def test_bodies_do_not_depend_on_how_many_are_fitted_at_once(walk: torch.Tensor) -> None:
    whole, single = (bodies_of(walk, H36M_17, max_batch=size) for size in (8, 1))
    torch.testing.assert_close(whole.points, single.points, atol=1e-3, rtol=0)
    assert whole.residuals.shape == (2, 17)


def test_what_does_not_go_together_is_refused(walk: torch.Tensor) -> None:
    poses = walk[:, None]
    with pytest.raises(InputError, match=r"poses: shape \(2, 17, 3\)"):
        rank(walk, H36M_17)
    with pytest.raises(InputError, match="keypoints and lens"):
        rank(poses, H36M_17, lens=LENS)
    with pytest.raises(InputError, match="shares"):
        rank(poses, H36M_17, shares=torch.ones(2, 3))
    with pytest.raises(InputError, match="pixels = 0"):
        rank(poses, H36M_17, pixels=0)
