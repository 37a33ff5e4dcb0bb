"""What ships: the body, the prior and the example poses."""

import pytest
import torch
from torch import Tensor

from dposer.assets import asset
from dposer.body import BodyModel
from dposer.data.amass import read_poses
from dposer.prior import PosePrior


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel()


@pytest.fixture(scope="module")
def prior() -> PosePrior:
    return PosePrior.from_pretrained()


@pytest.fixture(scope="module")
def poses() -> Tensor:
    """(500, 63)."""
    return torch.as_tensor(read_poses(asset("examples", "toy_data.npz")))
