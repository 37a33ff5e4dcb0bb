"""How ordinary a pose is: its denoising residual, joint by joint, ranked against held-out human motion."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dposer.body.skeleton import BODY_JOINTS
from dposer.diffusion.denoiser import Denoiser
from dposer.diffusion.schedule import gaussian_like
from dposer.errors import InputError

TIMES = (0.05, 0.1, 0.15, 0.2, 0.3)
"""Where the noise (σ/α from 0.03 to 1) is of the size of ordinary movement: earlier the network sees nothing but
measurement noise, later it forgets the pose. Tables stored with weights belong to these times and draws."""
PAIRS = 2
"""Antithetic pairs (z, −z) of noise at every time."""
QUANTILES = 201
_CHUNK = 16_384


class Plausibility(NamedTuple):
    """100: as ordinary as human motion gets; 50: half of the held-out motion is less so; 0: none is."""

    score: Tensor
    """(batch,) per cent."""
    per_joint: Tensor
    """(batch, 21) per cent, each joint ranked among its own residuals."""
    residual: Tensor
    """(batch, 21) the statistic itself, which still ranks poses whose score is 0."""


def joint_residual(denoiser: Denoiser, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mean of (ε̂ − z)² = (α/σ)² (x − x̂₀)² over a joint's dimensions, the times and the draws z: (batch, D) → (batch, 21).

    All samples share the draws, so that the residual of one does not depend on its companions.

    Args:
        x: normalised poses.
        generator: source of the draws; None: a fixed seed, the same draws in every call.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    draws = gaussian_like(x.new_empty(len(TIMES), PAIRS, x.shape[1]), generator)
    return torch.cat([_chunk_residual(denoiser, some, draws) for some in x.split(_CHUNK)])


def _chunk_residual(denoiser: Denoiser, x: Tensor, draws: Tensor) -> Tensor:
    total = x.new_zeros(len(x), len(BODY_JOINTS))
    for t, pairs in zip(TIMES, draws, strict=True):
        for z in torch.cat([pairs, -pairs]):
            error = denoiser.noise(denoiser.schedule.perturb(x, t, z), t) - z
            total += error.square().unflatten(-1, (len(BODY_JOINTS), -1)).mean(-1)
    return total / (len(TIMES) * 2 * PAIRS)


class Calibration(nn.Module):
    """Quantiles of the residuals of held-out motion: residual → per cent of that motion with a larger one.

    Args:
        total: (Q,) ascending, of the mean over joints.
        per_joint: (21, Q) ascending.
    """

    total: Tensor
    per_joint: Tensor

    def __init__(self, total: Tensor, per_joint: Tensor):
        super().__init__()
        if total.ndim != 1 or len(total) < 2 or per_joint.shape != (len(BODY_JOINTS), len(total)):
            raise InputError(
                f"calibration: tables of shape {tuple(total.shape)} and {tuple(per_joint.shape)}, expected (Q,) and ({len(BODY_JOINTS)}, Q)"
            )
        self.register_buffer("total", total.contiguous())
        self.register_buffer("per_joint", per_joint.contiguous())

    @classmethod
    def fit(cls, residual: Tensor) -> "Calibration":
        """From the residuals (N, 21) of held-out poses."""
        levels = torch.linspace(0, 1, QUANTILES, dtype=residual.dtype, device=residual.device)
        return cls(_quantiles(residual.mean(1, keepdim=True), levels)[0], _quantiles(residual, levels))

    def forward(self, residual: Tensor) -> Plausibility:
        """Rank residuals (batch, 21)."""
        score = _percent_above(self.total[None], residual.mean(1)[None])[0]
        return Plausibility(score, _percent_above(self.per_joint, residual.T).T, residual)


def _quantiles(values: Tensor, levels: Tensor) -> Tensor:
    """(N, J) → (J, Q), linearly interpolated. Sorting, since torch.quantile refuses more than 16 million entries."""
    ordered = values.sort(0).values.T
    place = levels * (ordered.shape[1] - 1)
    below = place.floor().long()
    above = place.ceil().long()
    return torch.lerp(ordered[:, below], ordered[:, above], place - below)


def _percent_above(table: Tensor, values: Tensor) -> Tensor:
    """Per cent of the distribution with quantiles ``table`` (J, Q) above ``values`` (J, B)."""
    last = table.shape[1] - 1
    upper = torch.searchsorted(table, values.contiguous()).clamp(1, last)
    low, high = table.gather(1, upper - 1), table.gather(1, upper)
    part = ((values - low) / (high - low).clamp_min(torch.finfo(values.dtype).tiny)).clamp(0, 1)
    return 100 * (1 - (upper - 1 + part) / last)
