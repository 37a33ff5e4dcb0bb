"""Learning p(missing | known): the masks drawn, what is scored, and that it is learned."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dposer.body.parts import part_missing
from dposer.body.skeleton import PARTS
from dposer.diffusion import SubVPSDE
from dposer.diffusion.guidance import Inpainting, Observation
from dposer.errors import InputError
from dposer.prior import PriorConfig
from dposer.prior.config import DataConfig, ModelConfig, OptimConfig, TrainingConfig
from dposer.prior.masks import draw_known, masked_loss
from dposer.prior.networks import build_denoiser, build_network
from dposer.prior.training import Trainer


def test_masks_are_of_parts_joints_and_entries_and_some_of_nothing(generator: torch.Generator) -> None:
    known = draw_known(20_000, 63, 0.75, generator=generator)
    by_joint = known.unflatten(1, (21, 3))
    nothing, whole = ~known.any(1), by_joint.all(-1) == by_joint.any(-1)
    assert float(nothing.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert 0.9 < float(whole.all(1).float().mean()) < 0.96  # but for a tenth of the masked ones
    for part in PARTS:
        exactly = (by_joint.any(-1) == ~part_missing(part)).all(1)
        assert float(exactly.float().mean()) == pytest.approx(0.75 * 0.5 / len(PARTS), abs=0.01)
    assert draw_known(10, 126, 1.0, generator=generator).shape == (10, 126)
    assert not draw_known(100, 63, 0.0, generator=generator).any()


def test_only_missing_entries_are_noisy_and_scored(generator: torch.Generator) -> None:
    seen: list[Tensor] = []

    class Zero(torch.nn.Module):
        def forward(self, x: Tensor, label: Tensor, known: Tensor) -> Tensor:
            seen.append(x)
            return torch.zeros_like(x)

    config = PriorConfig()
    denoiser = build_denoiser(Zero(), config)
    x, noise = torch.randn(2, 8, 63, generator=generator)
    known = draw_known(8, 63, 1.0, generator=generator)
    t = torch.linspace(0.1, 0.9, 8)
    loss = masked_loss(denoiser, x, known, t, noise)
    torch.testing.assert_close(loss, noise[~known].square().mean())
    assert torch.equal(seen[0][known], x[known])
    assert torch.equal(seen[0][~known], SubVPSDE().perturb(x, t, noise)[~known])


def test_a_network_that_learns_masks_begins_as_it_was(generator: torch.Generator) -> None:
    small = ModelConfig(HIDDEN_DIM=64, EMBED_DIM=32)
    plain, masked = build_network(small, 63), build_network(ModelConfig(HIDDEN_DIM=64, EMBED_DIM=32, masked=True), 63)
    masked.load_state_dict(plain.state_dict(), strict=False)
    x, label = torch.randn(5, 63, generator=generator), torch.full((5,), 100.0)
    plain.eval(), masked.eval()
    assert torch.equal(plain(x, label), masked(x, label))
    assert torch.equal(plain(x, label), masked(x, label, known=x > 0))
    torch.nn.init.normal_(masked.known_dense.weight)  # type: ignore[union-attr, arg-type]
    assert not torch.equal(masked(x, label), masked(x, label, known=x > 0))


RECIPE = PriorConfig(
    data=DataConfig(),
    model=ModelConfig(HIDDEN_DIM=128, EMBED_DIM=32, dropout=0.0, scale_by_sigma=False, ema_rate=0.95, masked=True),
    training=TrainingConfig(batch_size=128, shared_times=32, mask_rate=0.8, n_iters=300, log_freq=300, snapshot_freq=1000),
    optim=OptimConfig(lr=2e-3, warmup=20, schedule="cosine"),
)


def test_what_is_known_is_used(tmp_path: Path, generator: torch.Generator) -> None:
    """Poses of three degrees of freedom, half noise: what is known must tell what is missing."""
    poses = 0.3 * torch.randn(4000, 3, generator=generator) @ torch.randn(3, 63, generator=generator)
    trainer = Trainer(RECIPE, poses, tmp_path)
    list(trainer.run())
    prior = trainer.prior()
    assert prior.masked
    x = prior.normalize(poses[:500])
    hidden = part_missing("arms").repeat_interleave(3)
    x_t = prior.schedule.perturb(x, 0.3, torch.randn(x.shape, generator=generator))
    blind = prior.denoiser.clean(x_t, 0.3)
    told = Inpainting(prior.denoiser, Observation(~hidden.expand_as(x), x)).clean(x_t, 0.3)
    errors = [float((clean - x)[:, hidden].square().mean().sqrt()) for clean in (blind, told)]
    assert errors[1] < 0.9 * errors[0]


def test_training_starts_from_weights_without_masks(tmp_path: Path, generator: torch.Generator) -> None:

    plain = dataclasses.replace(
        RECIPE, model=dataclasses.replace(RECIPE.model, masked=False), training=dataclasses.replace(RECIPE.training, mask_rate=0.0)
    )
    poses = torch.randn(400, 63, generator=generator) * 0.3
    first = Trainer(plain, poses, tmp_path / "plain")
    list(first.run(2))
    second = Trainer(RECIPE, poses + 1, tmp_path / "masked")
    second.start_from(first.prior())
    x, label = torch.randn(3, 63, generator=generator), torch.full((1,), 50.0)
    before, after = first.prior().denoiser.network(x, label), second.prior().denoiser.network(x, label)
    assert torch.equal(before, after)
    assert torch.equal(second.normalizer.shift, first.normalizer.shift)  # what it was trained with
    wide = dataclasses.replace(plain, model=dataclasses.replace(plain.model, HIDDEN_DIM=64))
    with pytest.raises(InputError, match="model section"):
        Trainer(wide, poses, tmp_path / "wide").start_from(first.prior())


@pytest.mark.parametrize(("model", "training"), [
    (ModelConfig(masked=True), TrainingConfig()),
    (ModelConfig(), TrainingConfig(mask_rate=0.5)),
    (ModelConfig(masked=True), TrainingConfig(mask_rate=0.5, likelihood_weighting=True)),
])  # fmt: skip
def test_recipes_that_cannot_be(tmp_path: Path, model: ModelConfig, training: TrainingConfig) -> None:
    with pytest.raises(InputError, match="mask_rate"):
        Trainer(PriorConfig(model=model, training=training), torch.randn(2000, 63), tmp_path)
