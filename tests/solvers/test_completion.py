"""Completion: known entries come back bit for bit, the missing ones follow the prior, bad input is one clear line."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from dposer.body.parts import part_missing
from dposer.errors import InputError
from dposer.prior import Normalizer, PosePrior, PriorConfig, preset
from dposer.solvers import COMPLETION_PRESETS, CompletionSettings, SamplingSettings, complete, sampling_settings
from dposer.solvers.completion import Mode

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


def quick(prior: PosePrior, mode: Mode) -> CompletionSettings | SamplingSettings | None:
    """The mode's own settings, with fewer steps where it has hundreds."""
    return None if mode == "DPoser" else replace(sampling_settings(prior, mode), steps=50 if mode in ("ScoreSDE", "MCG", "DPS") else 10)


@pytest.mark.parametrize("mode", get_args(Mode))
def test_known_entries_come_back_bit_for_bit_whatever_the_missing_ones_held(prior: PosePrior, poses: Tensor, mode: Mode) -> None:
    masks = torch.stack([part_missing(part) for part in ("left_leg", "right_leg", "left_arm", "arms", "trunk", "hands")])
    axes = masks.repeat_interleave(3, dim=1) & (torch.arange(63) % 3 != 1)
    for missing in (part_missing("right_arm"), masks, axes):
        hidden = missing.repeat_interleave(63 // missing.shape[-1], dim=-1).expand(6, 63)
        spoiled = torch.where(hidden, torch.nan, poses)
        results = [complete(prior, p, missing, 3, mode, torch.Generator().manual_seed(1), quick(prior, mode)) for p in (poses, spoiled)]
        assert results[0].shape == (6, 3, 63) and torch.equal(*results)
        known = ~hidden[:, None].expand(-1, 3, -1)
        assert torch.equal(results[0][known], poses[:, None].expand(-1, 3, -1)[known])
        assert bool(torch.isfinite(results[0]).all())
        assert float(results[0].std(dim=1)[hidden].min()) > 0


@pytest.mark.parametrize("mode", ["posterior", "DPoser", "PiGDM", "RePaint", "SMC"])
def test_missing_joints_follow_the_correlation_of_the_prior(
    prior: PosePrior, poses: Tensor, generator: torch.Generator, mode: Mode
) -> None:
    result = complete(prior, poses, part_missing("right_arm"), 8, mode, generator)
    x, y = prior.normalize(result), prior.normalize(poses)
    for left, right in ((15, 16), (17, 18)):
        expected = _CORRELATION * y[:, None, 3 * left : 3 * left + 3]
        error = (x[..., 3 * right : 3 * right + 3] - expected).square().mean().sqrt()
        assert float(error) < 2 * math.sqrt(1 - _CORRELATION**2)


def test_a_single_known_axis_informs_its_twin(prior: PosePrior, poses: Tensor, generator: torch.Generator) -> None:
    missing = torch.zeros(63, dtype=torch.bool)
    missing[3 * 16 + 1] = True  # the right shoulder's y
    x, y = prior.normalize(complete(prior, poses, missing, 20, generator=generator)), prior.normalize(poses)
    error = x[..., 3 * 16 + 1].mean(1) - _CORRELATION * y[:, 3 * 15 + 1]
    assert float(error.abs().max()) < 3 * math.sqrt(1 - _CORRELATION**2)


def test_independent_samples_have_the_spread_of_the_posterior(prior: PosePrior, poses: Tensor, generator: torch.Generator) -> None:
    settings = SamplingSettings("PiGDM", "ddim", 60, {**prior.fast_window(), "spacing": "log_snr", "eta": 1.0})
    x = prior.normalize(complete(prior, poses, part_missing("right_arm"), 100, "posterior", generator, settings))
    spread = x[..., 3 * 16 : 3 * 16 + 3].std(dim=1).mean()
    assert float(spread) == pytest.approx(math.sqrt(1 - _CORRELATION**2), rel=0.15)


def test_chosen_candidates_gather_around_the_posterior_mean(prior: PosePrior, poses: Tensor, generator: torch.Generator) -> None:
    own = sampling_settings(prior, "posterior")
    spreads = [
        complete(prior, poses, part_missing("arms"), 10, "posterior", generator, replace(own, candidates=n, centrality=1.0))
        .std(dim=1)
        .mean()
        for n in (1, 10)
    ]
    assert own.candidates > 1 and float(spreads[1]) < float(spreads[0])


def test_hypotheses_differ_and_the_seed_decides(prior: PosePrior, poses: Tensor) -> None:
    missing = part_missing("right_arm")
    first, again, other = (complete(prior, poses, missing, 4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert float(first.std(dim=1)[:, missing.repeat_interleave(3)].mean()) > 1e-3


@pytest.mark.parametrize("settings", [
    CompletionSettings(fresh_start=False),
    CompletionSettings(denoise_steps=3, inner_steps=20),
    CompletionSettings(time=preset("v1", "completion", strategy="1"), weighting="plain"),
    CompletionSettings(start="zeros", reference=True),
    *COMPLETION_PRESETS.values(),
])  # fmt: skip
def test_published_variants_run(prior: PosePrior, poses: Tensor, generator: torch.Generator, settings: CompletionSettings) -> None:
    result = complete(prior, poses, part_missing("legs"), 2, "DPoser", generator, settings)
    known = ~part_missing("legs").repeat_interleave(3)
    assert bool(torch.isfinite(result).all())
    assert torch.equal(result[..., known], poses[:, None, known].expand(-1, 2, -1)) == settings.write_back
    torch.testing.assert_close(result[..., known], poses[:, None, known].expand(-1, 2, -1), atol=0.05, rtol=0)


def test_the_releases_start_all_hypotheses_alike(prior: PosePrior, poses: Tensor) -> None:
    still = replace(COMPLETION_PRESETS["v1"], inner_steps=1, lr=0.0)
    for settings, alike in ((still, True), (replace(still, fresh_start=True), False)):
        result = complete(prior, poses, part_missing("legs"), 3, "DPoser", torch.Generator().manual_seed(0), settings)
        assert torch.equal(result[:, 0], result[:, 1]) == alike
        assert not torch.equal(result[0], result[1])


def test_one_batch_of_all_hypotheses_is_what_one_after_another_would_be(prior: PosePrior, poses: Tensor) -> None:
    quiet = replace(COMPLETION_PRESETS["v1"], start="zeros", prior_weight=0.0, inner_steps=5)
    many = complete(prior, poses, part_missing("legs"), 3, "DPoser", settings=quiet)
    torch.testing.assert_close(many, complete(prior, poses, part_missing("legs"), 1, "DPoser", settings=quiet).expand(-1, 3, -1))


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
        ({"mode": "DPS", "settings": CompletionSettings()}, "found CompletionSettings, expected SamplingSettings"),
        ({"settings": SamplingSettings("inpainting")}, "not trained with masks"),
        ({"settings": SamplingSettings("PiGDM", options={"speed": 3})}, "unknown option speed"),
        ({"settings": SamplingSettings("PiGDM", sampler="magic")}, "sampler 'magic'"),
    ],
)
def test_bad_input(prior: PosePrior, change: dict, complaint: str) -> None:
    arguments = {"pose": torch.zeros(2, 63), "missing": part_missing("legs"), "hypotheses": 2, **change}
    with pytest.raises(InputError, match=complaint):
        complete(prior, **arguments)
