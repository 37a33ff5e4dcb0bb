"""What training watches: figures of a prior on held-out poses, and the published auxiliary loss.

Source: DPoser (arXiv 2312.05541), released code.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dposer.body.model import BodyModel
from dposer.body.parts import part_missing
from dposer.diffusion.objective import denoising_loss
from dposer.prior.pose_prior import PosePrior
from dposer.solvers.completion import Mode, complete
from dposer.solvers.completion_scores import completion_scores
from dposer.solvers.generation_scores import generation_report

__all__ = ["mesh_loss", "validate", "validation_loss"]


def validate(
    prior: PosePrior,
    body: BodyModel,
    poses: Tensor,
    *,
    seed: int = 42,
    samples: int = 1000,
    completions: int = 50,
    parts: Sequence[str] = ("left_leg",),
) -> dict[str, float]:
    """What training watches on held-out poses: denoising loss on fixed draws, figures of samples, completion error (5 hypotheses).

    A prior trained with masks completes by its own conditional, another by DPoser's optimiser.
    """
    generator = torch.Generator(prior.device).manual_seed(seed)
    cpu = torch.Generator().manual_seed(seed)
    report: dict[str, float] = {"loss": validation_loss(prior, poses, generator)}
    reference = poses[torch.randperm(len(poses), generator=cpu)[:5000]].to(prior.device)
    report |= generation_report(prior.sample(min(samples, len(poses)), generator=generator), reference, body=body)
    truth = reference[:completions]
    mode: Mode = "posterior" if prior.masked else "DPoser"
    for part in parts:
        guesses = complete(prior, truth, part_missing(part), hypotheses=5, mode=mode, generator=generator)
        report[f"{part} MPJPE"] = completion_scores(body, guesses, truth, part).report()["MPJPE min"]
    return report


@torch.no_grad()
def validation_loss(prior: PosePrior, poses: Tensor, generator: torch.Generator, draws: int = 20_000) -> float:
    """Denoising loss at evenly spread times: the same draws for every model that is compared."""
    rows = torch.randint(len(poses), (draws,), generator=generator, device=prior.device)
    x = prior.normalize(poses.to(prior.device)[rows])
    t = torch.linspace(1e-3, 1, draws, device=prior.device)
    noise = torch.randn(x.shape, generator=generator, device=prior.device)
    parts = zip(x.split(2000), t.split(2000), noise.split(2000), strict=True)
    losses = [denoising_loss(prior.denoiser, some, t=times, noise=z) for some, times, z in parts]
    return float(torch.stack(losses).mean())


def mesh_loss(body: BodyModel, prior: PosePrior, pose: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """Auxiliary training loss w (‖v − v̂‖² + ‖J − Ĵ‖²), w = ln(1 + α/σ), after DDIM denoising from t to t / 2K.

    Source: DPoser (arXiv 2312.05541), released code, ``auxiliary_loss``; its authors do not recommend it.
    """
    steps = prior.config.training.denoise_steps
    guess = prior.denormalize(prior.ddim(x_t, t, steps))
    weight = torch.log1p(prior.denoiser.schedule.alpha(t) / prior.denoiser.schedule.sigma(t))
    true, found = body(pose), body(guess)
    assert true.vertices is not None and found.vertices is not None
    squares = (found.vertices - true.vertices).square().sum(-1).mean(1) + (found.joints - true.joints).square().sum(-1).mean(1)
    return (weight * squares).mean()
