"""What cameras and detectors do to keypoints, put on by hand: noise and missing joints, to see what a lifter makes of them."""

import torch
from torch import Tensor
from torch.nn import functional


def jittered(keypoints: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """x + σ z, white: (F, J, 3) pixels and confidence to the same; the confidence stays."""
    noise = torch.randn(*keypoints.shape[:-1], 2, generator=generator)
    return keypoints + functional.pad(sigma * noise, (0, 1))


def hidden(keypoints: Tensor, share: float, generator: torch.Generator, run: float = 10.0) -> Tensor:
    """Each joint comes and goes: missing (confidence 0) for ``share`` of the frames, in runs of ``run`` frames on average.

    A two-state Markov chain: a joint that is missing comes back with probability 1 / run, one that is seen leaves with that probability
    times share / (1 − share), and the first frame is drawn from its stationary distribution.

    Args:
        keypoints: (F, J, 3) pixels and confidence.
        share: in [0, 1).
    """
    frames, joints = keypoints.shape[:2]
    back = 1 / run
    away = min(1.0, back * share / (1 - share))
    uniform = torch.rand(frames, joints, generator=generator)
    missing = [uniform[0] < share]
    for drawn in uniform[1:]:
        missing.append(torch.where(missing[-1], drawn >= back, drawn < away))
    return torch.where(torch.stack(missing)[..., None], keypoints * torch.tensor([1.0, 1.0, 0.0]), keypoints)
