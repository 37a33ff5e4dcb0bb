"""Completion: known joints come back bit for bit, the missing ones follow the prior, bad input is one clear line."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dposer.body.parts import part_missing
from dposer.errors import InputError
from dposer.prior import Normalizer, PosePrior, PriorConfig, preset
from dposer.solvers import CompletionSettings, complete

_CORRELATION = 0.95


class GaussianNoise(nn.Module):
    """Exact noise prediction for x ~ N(0, C), in which the right arm repeats the left one up to the correlation."""

    def __init__(self) -> None:
        super().__init__()
        covariance = torch.eye(63)
        for left, right in ((12, 13), (15, 16), (17, 18), (19, 20)):
            for axis in range(3):
                covariance[3 * left + axis, 3 * right + axis] = covariance[3 * right + axis, 3 * left + axis] = _CORRELATION
        self.register_buffer("values", torch.linalg.eigh(covariance)[0])
        self.register_buffer("vectors", torch.linalg.eigh(covariance)[1])

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        t = (label.double() / 999).reshape(-1, 1)
        log_alpha = -t * (0.25 * t * 19.9 + 0.05)
        alpha, sigma = log_alpha.exp().float(), (-torch.expm1(2 * log_alpha)).float()
        noise = sigma * (x @ self.vectors) / (alpha**2 * self.values + sigma**2)
        return noise @ self.vectors.T


@pytest.fixture
def prior() -> PosePrior:
    normalizer = Normalizer(torch.linspace(-0.2, 0.2, 63), torch.linspace(0.1, 0.4, 63))
    return PosePrior(GaussianNoise(), normalizer, PriorConfig()).eval()


@pytest.fixture
def poses(prior: PosePrior, generator: torch.Generator) -> Tensor:
    return prior.sample(6, generator=generator)


@pytest.mark.parametrize("part", ["left_leg", "right_arm", "trunk", "hands", "legs"])
def test_known_joints_come_back_bit_for_bit(prior: PosePrior, poses: Tensor, generator: torch.Generator, part: str) -> None:
    missing = part_missing(part)
    result = complete(prior, poses, missing, hypotheses=3, generator=generator)
    known = ~missing.repeat_interleave(3)
    assert result.shape == (6, 3, 63)
    assert torch.equal(result[:, :, known], poses[:, None, known].expand(-1, 3, -1))
    assert bool(torch.isfinite(result).all())


def test_what_the_missing_joints_held_does_not_matter(prior: PosePrior, poses: Tensor) -> None:
    missing = part_missing("left_arm")
    spoiled = torch.where(missing.repeat_interleave(3), torch.nan, poses)
    results = [complete(prior, p, missing, 2, generator=torch.Generator().manual_seed(1)) for p in (poses, spoiled)]
    assert torch.equal(*results)


def test_missing_joints_follow_the_correlation_of_the_prior(prior: PosePrior, poses: Tensor, generator: torch.Generator) -> None:
    result = complete(prior, poses, part_missing("right_arm"), hypotheses=8, generator=generator)
    x, y = prior.normalize(result), prior.normalize(poses)
    for left, right in ((15, 16), (17, 18)):
        expected = _CORRELATION * y[:, None, 3 * left : 3 * left + 3]
        error = (x[..., 3 * right : 3 * right + 3] - expected).square().mean().sqrt()
        assert float(error) < 2 * math.sqrt(1 - _CORRELATION**2)


def test_a_mask_for_each_pose_equals_each_mask_alone(prior: PosePrior, poses: Tensor, generator: torch.Generator) -> None:
    masks = torch.stack([part_missing(part) for part in ("left_leg", "right_leg", "left_arm", "arms", "trunk", "hands")])
    together = complete(prior, poses, masks, hypotheses=2, generator=generator)
    for row, mask in enumerate(masks):
        assert torch.equal(together[row][:, ~mask.repeat_interleave(3)], poses[row, ~mask.repeat_interleave(3)].expand(2, -1))


def test_hypotheses_differ_and_the_seed_decides(prior: PosePrior, poses: Tensor) -> None:
    missing = part_missing("right_arm")
    first, again, other = (complete(prior, poses, missing, 4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert float(first.std(dim=1)[:, missing.repeat_interleave(3)].mean()) > 1e-3


@pytest.mark.parametrize("settings", [
    CompletionSettings(fresh_start=False),
    CompletionSettings(denoise_steps=3, inner_steps=20),
    CompletionSettings(time=preset("v1", "completion", strategy="1"), weighting="plain"),
    replace(CompletionSettings(), time=preset("x", "completion"), betas=(0.9, 0.99)),
])  # fmt: skip
def test_published_variants_run(prior: PosePrior, poses: Tensor, generator: torch.Generator, settings: CompletionSettings) -> None:
    assert bool(torch.isfinite(complete(prior, poses, part_missing("legs"), 2, generator=generator, settings=settings)).all())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"missing": torch.zeros(21, dtype=torch.bool)}, "marks no joint"),
        ({"missing": torch.ones(21, dtype=torch.bool)}, "every joint"),
        ({"missing": torch.ones(20, dtype=torch.bool)}, r"expected bool of shape \(21,\)"),
        ({"missing": torch.ones(21)}, "expected bool"),
        ({"pose": torch.zeros(2, 62)}, r"expected \(batch, 63\)"),
        ({"pose": torch.full((2, 63), torch.nan)}, "NaN or infinity in known joint"),
        ({"hypotheses": 0}, "at least 1"),
        ({"mode": "magic"}, "does not exist"),
    ],
)
def test_bad_input(prior: PosePrior, change: dict, complaint: str) -> None:
    arguments = {"pose": torch.zeros(2, 63), "missing": part_missing("legs"), "hypotheses": 2, **change}
    with pytest.raises(InputError, match=complaint):
        complete(prior, **arguments)
