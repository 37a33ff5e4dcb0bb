"""What training watches, and what the shipped prior must keep."""

from functools import partial

import pytest
import torch
from torch import Tensor

from dposer.body import BodyModel
from dposer.body.parts import part_surface, part_vertices
from dposer.errors import InputError
from dposer.prior import PosePrior
from dposer.solvers.evaluation import mesh_loss, validate


def test_plausibility_of_the_shipped_prior(prior: PosePrior, poses: Tensor) -> None:
    score = prior.plausibility(poses).score
    assert 35 < float(score.mean()) < 65
    broken = poses.clone()
    broken[:, 9] = -0.8  # left knee bent forwards
    result = prior.plausibility(broken)
    assert float((result.score < score).float().mean()) > 0.9
    assert float((result.per_joint.argmin(1) == 3).float().mean()) > 0.5  # and it says which joint


def test_validation_and_the_auxiliary_loss_run(prior: PosePrior, body: BodyModel, poses: Tensor) -> None:
    report = validate(prior, body, poses, samples=50, completions=4)
    assert {"loss", "APD", "FID", "left_leg MPJPE"} <= report.keys() and all(value == value for value in report.values())
    loss = partial(mesh_loss, body)
    x = prior.normalize(poses[:3])
    value = loss(prior, poses[:3], x, torch.full((3,), 0.1))
    assert value.ndim == 0 and 0 < float(value) < 1


def test_parts_of_the_surface(body: BodyModel) -> None:
    sizes = {part: len(part_vertices(body.weights, part)) for part in ("left_leg", "right_leg", "left_arm", "right_arm", "legs", "arms")}
    assert sizes["left_leg"] == sizes["right_leg"] and sizes["left_arm"] == sizes["right_arm"]
    assert sizes["legs"] == 2 * sizes["left_leg"] and sizes["arms"] == 2 * sizes["left_arm"]
    drawn, scored = (set(some(body.weights, "left_arm").tolist()) for some in (part_surface, part_vertices))
    assert scored < drawn  # what is drawn as missing takes the hand along
    with pytest.raises(InputError, match="'tail' does not exist"):
        part_vertices(body.weights, "tail")
