"""Masks of known entries, for a network that learns p(missing | known) of every mask at once.

Such a network sees known entries without noise and is scored on the others. Source of the idea: Tashiro et al., CSDI
(NeurIPS 2021), section 4.2; the mixture of masks is ours.
"""

import torch
from torch import Tensor

from dposer.body.parts import part_missing
from dposer.body.skeleton import BODY_JOINTS, PARTS
from dposer.diffusion.denoiser import Denoiser

_BY_PART, _BY_JOINT = 0.5, 0.4
"""Of the masked poses, half miss a named part, two fifths any joints, the rest any single entries."""


def draw_known(batch: int, dim: int, rate: float, device: torch.device | str = "cpu", generator: torch.Generator | None = None) -> Tensor:
    """Known entries (batch, dim) of random masks; with probability 1 − ``rate`` nothing is known.

    Joints, or single entries, are missing with a probability that is itself drawn uniformly for each pose, so that any
    number of them is as likely as any other.
    """
    joints = len(BODY_JOINTS)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, device=device, generator=generator)

    parts = torch.stack([part_missing(part) for part in PARTS]).to(device)
    share = uniform(batch, 1)
    by_part = parts[(uniform(batch) * len(parts)).long()].repeat_interleave(dim // joints, dim=1)
    by_joint = (uniform(batch, joints) < share).repeat_interleave(dim // joints, dim=1)
    by_entry = uniform(batch, dim) < share
    kind = uniform(batch, 1)
    missing = torch.where(kind < _BY_PART, by_part, torch.where(kind < _BY_PART + _BY_JOINT, by_joint, by_entry))
    return ~missing & (uniform(batch, 1) < rate)


def masked_loss(denoiser: Denoiser, x: Tensor, known: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """mean over missing entries of (z − ε(x_t, t, known))², x_t being clean where known.

    Args:
        x: (batch, D) clean, normalised; known: (batch, D); t: (K,), K dividing batch; noise: z like x.
    """
    x_t = torch.where(known, x, denoiser.schedule.perturb(x, t, noise))
    error = (denoiser.noise(x_t, t, known=known) - noise).square()
    return (error * ~known).sum() / (~known).sum().clamp_min(1)
