"""Pose completion: min over x of w_d ‖M(x − y)‖² + w_p w(t) ‖x − x̂₀(x, t)‖², with no gradient through x̂₀.

M keeps the known entries, y is the observation, x̂₀ the denoised pose. Source: Lu et al., DPoser
(arXiv 2312.05541), section 3.3 and released code.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dposer.errors import InputError
from dposer.prior.pose_prior import PosePrior, Progress, Weighting
from dposer.prior.timesteps import TimeStrategy, preset

Mode = Literal["DPoser"]


@dataclass(frozen=True)
class CompletionSettings:
    """Settings of the optimiser; the defaults are those of the first release's evaluation."""

    time: TimeStrategy = preset("v1", "completion")
    outer_steps: int = 2
    inner_steps: int = 100
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    data_weight: float = 100.0
    prior_weight: float = 0.1
    denoise_steps: int = 1
    weighting: Weighting = "sqrt(1+snr)"
    fresh_start: bool = True
    """Each hypothesis starts from its own noise; the releases start them all from the same."""


def complete(
    prior: PosePrior,
    pose: Tensor,
    missing: Tensor,
    hypotheses: int = 10,
    mode: Mode = "DPoser",
    generator: torch.Generator | None = None,
    settings: CompletionSettings | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Complete poses whose ``missing`` joints are unknown; known joints are returned bit for bit.

    Args:
        prior: the pose prior.
        pose: (batch, 63) axis-angle in radians; the values at missing joints are never read.
        missing: (21,) or (batch, 21) bool.
        hypotheses: completions per pose, all solved in one batch.
        generator: source of all noise, on the device of the prior.
        progress: called as ``progress(done, total)`` after every step.

    Returns:
        (batch, hypotheses, 63) axis-angle in radians.

    Raises:
        InputError: wrong shapes, NaN in a known joint, nothing or everything missing, no hypotheses.
    """
    if mode != "DPoser":
        raise InputError(f"mode '{mode}' does not exist, expected DPoser")
    if hypotheses < 1:
        raise InputError(f"hypotheses = {hypotheses}, expected at least 1")
    settings = settings or CompletionSettings()
    pose, hidden = _observation(prior, pose, missing)
    known = ~prior.expand_joints(hidden)
    observed = torch.where(known, prior.normalize(torch.where(_per_axis(hidden), 0.0, pose)), 0.0)

    repeat = (len(pose), hypotheses)
    y = observed[:, None].expand(*repeat, -1).flatten(0, 1)
    keep = known[:, None].expand(*repeat, -1).flatten(0, 1)
    start = torch.randn(y.shape if settings.fresh_start else observed.shape, generator=generator, device=y.device, dtype=y.dtype)
    if not settings.fresh_start:
        start = start[:, None].expand(*repeat, -1).flatten(0, 1)

    x = _optimise(prior, torch.where(keep, y, start), y, keep, settings, generator, progress)
    result = prior.denormalize(x).view(*repeat, 63)
    return torch.where(_per_axis(hidden)[:, None], result, pose[:, None])


@torch.no_grad()
def _optimise(
    prior: PosePrior,
    x: Tensor,
    y: Tensor,
    keep: Tensor,
    settings: CompletionSettings,
    generator: torch.Generator | None,
    progress: Progress | None,
) -> Tensor:
    """Adam on the gradient written out: the stop-gradient makes ∇w‖x − x̂₀‖² = 2w(x − x̂₀), so nothing is taped."""
    total = settings.outer_steps * settings.inner_steps
    times = settings.time.times(total, generator)
    x = x.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([x], lr=settings.lr, betas=settings.betas, fused=True)
    for step, t in enumerate(times.tolist()):
        outer = step // settings.inner_steps
        data, regulariser = settings.data_weight / (1 + outer), settings.prior_weight * (1 + outer)
        pull = prior.loss_gradient(x, t, steps=settings.denoise_steps, weighting=settings.weighting, generator=generator)
        x.grad = (data * 2 * keep * (x - y) + regulariser * pull) / x.shape[-1]
        optimizer.step()
        if progress is not None:
            progress(step + 1, total)
    return torch.where(keep, y, x)


def _observation(prior: PosePrior, pose: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
    """Check and move the inputs; returns the pose (batch, 63) and the missing joints (batch, 21)."""
    if pose.ndim != 2 or pose.shape[1] != 63:
        raise InputError(f"pose: shape {tuple(pose.shape)}, expected (batch, 63) axis-angle")
    if missing.dtype != torch.bool or missing.shape not in ((21,), (len(pose), 21)):
        raise InputError(f"missing: {missing.dtype} of shape {tuple(missing.shape)}, expected bool of shape (21,) or ({len(pose)}, 21)")
    pose = pose.to(prior.device, prior.dtype)
    hidden = missing.to(prior.device).expand(len(pose), 21)
    counts = hidden.sum(1)
    if bool((counts == 0).any()) or bool((counts == 21).any()):
        raise InputError("missing: marks no joint or every joint of a pose, expected some of the 21; use prior.sample() for free poses")
    bad = ~torch.isfinite(pose) & ~_per_axis(hidden)
    if bool(bad.any()):
        row, column = (int(i) for i in bad.nonzero()[0])
        raise InputError(f"pose: row {row} holds NaN or infinity in known joint {column // 3}; mark it missing or mend it")
    return pose, hidden


def _per_axis(joints: Tensor) -> Tensor:
    """(..., 21) → (..., 63)."""
    return joints.repeat_interleave(3, dim=-1)
