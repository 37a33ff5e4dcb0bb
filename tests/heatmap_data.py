"""Heatmaps for tests, as mixtures."""

import torch

from dposer.data.heatmap_mixtures import COLUMNS


def mixtures(seed: int = 0, rows: int = 1, gain: float = 1.0) -> torch.Tensor:
    """(rows, 16, 10): two tilted modes well inside the crop."""
    random = torch.Generator().manual_seed(seed)
    found = torch.zeros(rows, 16, COLUMNS)
    found[..., 0] = torch.rand(rows, 16, generator=random) * 0.4 + 0.5
    found[..., 1] = 1 - found[..., 0]
    found[..., 2:6] = 16 + 32 * torch.rand(rows, 16, 4, generator=random)
    found[..., 6:9] = torch.tensor([5.0, 2.0, 3.0])
    found[..., 9] = gain
    return found


def normal(rows: int, count: int, seed: int = 0) -> torch.Tensor:
    """(rows, 16, count, 3), of candidates."""
    return torch.randn(rows, 16, count, 3, generator=torch.Generator().manual_seed(seed))
