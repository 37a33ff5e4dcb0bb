"""A few hypotheses that stand for many samples of a posterior."""

import torch
from torch import Tensor


def representatives(distances: Tensor, count: int, centrality: float = 0.0) -> Tensor:
    """Choose S, |S| = ``count``, for a small  E min_{h in S} d(x, h) + centrality · E mean_{h in S} d(x, h),  x a sample.

    If the truth is one more sample of the same law, this is what the error of the best of the chosen and their mean
    error are expected to be: with ``centrality`` 0 the chosen cover the samples (k-medoids), the larger it is the more
    they gather where samples are dense. Chosen greedily, one after another.

    Args:
        distances: (batch, N, N) between the samples, N >= count.

    Returns:
        (batch, count) indices of different samples, the first being the most central.
    """
    batch, samples, _ = distances.shape
    rows = torch.arange(batch, device=distances.device)
    price = centrality / count * distances.mean(dim=1)
    covered = distances.amax(dim=(1, 2))[:, None].expand(batch, samples)
    chosen: list[Tensor] = []
    for _ in range(count):
        cost = torch.minimum(covered[:, :, None], distances).mean(dim=1) + price
        best = cost.argmin(dim=1)
        chosen.append(best)
        covered = torch.minimum(covered, distances[rows, :, best])
        price = price.scatter(1, best[:, None], torch.inf)
    return torch.stack(chosen, dim=1)
