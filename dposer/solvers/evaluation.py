"""How good a prior is: figures of its samples, its likelihood and its completions, in the units of the published tables.

Source of the protocols: DPoser (arXiv 2312.05541) and DPoser-X (arXiv 2508.00599).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dposer.body.model import BodyModel
from dposer.body.parts import part_missing
from dposer.data.processed import balanced_indices
from dposer.diffusion.objective import denoising_loss
from dposer.metrics.distribution import dnn, fid, precision_recall_density_coverage
from dposer.metrics.poses import apd
from dposer.metrics.self_intersection import self_intersection
from dposer.prior.pose_prior import PosePrior, Progress
from dposer.solvers.completion import complete
from dposer.solvers.completion_scores import completion_scores


@torch.no_grad()
def generation_report(
    samples: Tensor, reference: Tensor, training: Tensor | None = None, body: BodyModel | None = None
) -> dict[str, float]:
    """APD (cm), FID, precision, recall, density, coverage and, given the training poses, dNN (rad) of generated poses.

    Args:
        samples: (N, 63) axis-angle.
        reference: (M, 63) real poses for FID and precision/recall.
        training: (K, 63) poses among which the nearest neighbour is sought for dNN.
        body: default the open body.
    """
    body = body or BodyModel()
    joints = joint_positions(body, samples)
    report = {"APD": 100 * float(apd(joints)), "FID": float(fid(samples, reference))}
    report |= {key: float(value) for key, value in precision_recall_density_coverage(samples, reference)._asdict().items()}
    if training is not None:
        report["dNN"] = float(dnn(samples, training).mean())
    return report


@torch.no_grad()
def self_intersection_report(samples: Tensor, body: BodyModel | None = None, progress: Progress | None = None) -> float:
    """SI: mean over the samples of the percentage of faces that intersect others."""
    body = body or BodyModel()
    total = 0.0
    for i in range(len(samples)):  # one mesh at a time: its broad phase is what fills memory
        vertices = body(samples[i : i + 1].to(body.device)).vertices
        assert vertices is not None
        total += float(self_intersection(vertices[0].cpu().numpy(), body.faces))
        if progress is not None:
            progress(i + 1, len(samples))
    return total / len(samples)


@torch.no_grad()
def joint_positions(body: BodyModel, poses: Tensor, chunk: int = 4096) -> Tensor:
    """(N, 22, 3) body joints in metres, root at zero rotation and translation, mean shape."""
    return torch.cat([body(part.to(body.device), vertices=None, joints="body").joints for part in poses.split(chunk)])


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
    """What training watches on held-out poses: denoising loss on fixed draws, figures of samples, completion error (5 hypotheses)."""
    generator = torch.Generator(prior.device).manual_seed(seed)
    cpu = torch.Generator().manual_seed(seed)
    report: dict[str, float] = {"loss": validation_loss(prior, poses, generator)}
    reference = poses[torch.randperm(len(poses), generator=cpu)[:5000]].to(prior.device)
    report |= generation_report(prior.sample(min(samples, len(poses)), generator=generator), reference, body=body)
    truth = reference[:completions]
    for part in parts:
        guesses = complete(prior, truth, part_missing(part), hypotheses=5, generator=generator)
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


def balanced_draw(poses: Tensor, subject: Tensor | None, count: int, seed: int) -> Tensor:
    """``count`` poses, each subject as likely as any other where subjects are known."""
    generator = torch.Generator().manual_seed(seed)
    if subject is None:
        return poses[torch.randperm(len(poses), generator=generator)[:count]]
    return poses[balanced_indices(subject, count, generator)]


def report_row(name: str, report: dict[str, Any], keys: Sequence[str], digits: int = 3) -> list[str]:
    """A table row: the name, then the figures asked for ('-' where there is none)."""
    return [name, *(f"{report[key]:.{digits}f}" if key in report else "-" for key in keys)]
