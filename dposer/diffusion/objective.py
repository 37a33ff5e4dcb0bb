"""Denoising score matching: learn E[z | x_t] by regressing the noise."""

from typing import Any

import torch
from torch import Tensor

from dposer.diffusion.denoiser import Denoiser
from dposer.diffusion.schedule import Device, DiscreteSchedule, Schedule, expand, gaussian_like


def denoising_loss(
    denoiser: Denoiser,
    x0: Tensor,
    *,
    t: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    eps: float = 1e-5,
    levels: int | None = None,
    reduce_mean: bool = True,
    likelihood_weighting: bool = False,
    per_sample: bool = False,
    **condition: Any,
) -> Tensor:
    """mean over D of (sigma score + z)^2 = (z - noise(x_t, t))^2 at x_t = alpha x_0 + sigma z, averaged over the batch.

    The legacy discrete losses are the same expression on another schedule: DDPM on ``VPSDE().discretize(1000)``, SMLD
    on ``VESDE()`` with ``levels=1000``.

    Args:
        x0: (batch, *dims) clean data.
        t: (batch,) times; None draws them, see :func:`draw_times`.
        noise: z like x0; None draws it.
        eps, levels: for drawing times.
        reduce_mean: False takes half the sum over D.
        likelihood_weighting: weighs the squared score error by g(t)^2 instead of sigma^2 (Song et al., NeurIPS 2021).
        per_sample: return (batch,) rather than the mean.

    Source: Ho et al. (NeurIPS 2020), eq. 14; Song et al. (ICLR 2021), eq. 7.
    """
    schedule = denoiser.schedule
    if t is None:
        t = draw_times(schedule, len(x0), eps=eps, levels=levels, generator=generator, device=x0.device)
    if noise is None:
        noise = gaussian_like(x0, generator)
    error = (denoiser.noise(schedule.perturb(x0, t, noise), t, **condition) - noise) ** 2
    if likelihood_weighting:
        error = error * expand(schedule.diffusion(t) / schedule.sigma(t), x0) ** 2
    loss = error.flatten(1).mean(1) if reduce_mean else 0.5 * error.flatten(1).sum(1)
    return loss if per_sample else loss.mean()


def draw_times(
    schedule: Schedule,
    n: int,
    *,
    eps: float = 1e-5,
    levels: int | None = None,
    generator: torch.Generator | None = None,
    device: Device = None,
) -> Tensor:
    """(n,) float32 times: U(eps, t_max), or uniform over the steps of a discrete schedule, or over i / (levels - 1)."""
    uniform = torch.rand(n, generator=generator, device=device if generator is None else generator.device).to(device=device)
    if isinstance(schedule, DiscreteSchedule):
        return (uniform * len(schedule.betas)).floor().clamp(max=schedule.t_max)
    if levels is not None:
        return (uniform * levels).floor().clamp(max=levels - 1) / (levels - 1)
    return eps + uniform * (schedule.t_max - eps)
