r"""Where joints may be in the picture: cells drawn from heatmaps, and what a network is told of them.

Of a map H a candidate v is drawn with probability in proportion to :math:`H(v)^\tau`, values below 0 being 0, and has the likelihood
:math:`\ell = H(v)`; the first may be the highest cell instead. Of a mixture (:mod:`dposer.data.heatmap_mixtures`) it is drawn as
:math:`m \sim w,\; v \sim N(\mu_m, S_m + \sigma_0^2 I)`, rounded to a cell, which is the same without its map being painted.

Source: Holmquist and Wandt, DiffPose (ICCV 2023, arXiv 2211.16487).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dposer.data.heatmap_mixtures import COLUMNS, SIDE, height, highest, painted, parts, render

_HALF = SIDE / 2


class Candidates(NamedTuple):
    """P candidates of each of J joints."""

    places: Tensor
    """(R, J, P, 2) x, y: whole numbers of cells."""
    likelihood: Tensor
    """(R, J, P)."""


def draw_candidates(heatmaps: Tensor, noise: Tensor, first_highest: bool = True, power: float = 1.0) -> Candidates:
    """As many as there is noise for, after the highest cell if that is one of them.

    Args:
        heatmaps: (R, J, 10) or (R, J, 4096). A map that is nowhere above 0 gives cells anywhere, of likelihood 0.
        noise: (R, J, N, 3) standard normal, N from 0 on.
        power: τ.
    """
    if heatmaps.shape[-1] == COLUMNS and power == 1:
        places = _of_mixture(heatmaps, noise)
        likelihood = height(heatmaps, places)
    else:
        maps = render(heatmaps).flatten(-2) if heatmaps.shape[-1] == COLUMNS else heatmaps
        places, likelihood = _of_cells(maps.clamp(min=0), noise[..., 0], power)
    if first_highest:
        x, y, value = highest(heatmaps)[..., None, :].unbind(-1)
        places = torch.cat((torch.stack((x, y), -1), places), -2)
        likelihood = torch.cat((value, likelihood), -1)
    return Candidates(places, likelihood)


def _of_mixture(mixture: Tensor, noise: Tensor) -> Tensor:
    weight, mean, spread, _ = parts(mixture)
    xx, xy, yy = painted(spread)[..., None, :].unbind(-1)
    first = xx.sqrt()  # Cholesky's factor of the covariance is (first, 0; below, last)
    below = xy / first
    last = (yy - below.square()).sqrt()
    away = torch.stack((first * noise[..., 0], below * noise[..., 0] + last * noise[..., 1]), -1)
    second = torch.special.ndtr(noise[..., 2:]) >= weight[..., None, :1]
    return (torch.where(second, mean[..., None, 1, :], mean[..., None, 0, :]) + away).round().clamp(0, SIDE - 1)


def _of_cells(maps: Tensor, noise: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Places (R, J, N, 2) and likelihoods (R, J, N) of maps (R, J, 4096), by the inverse of their cumulated sums."""
    shares = maps if power == 1 else maps.pow(power)
    empty = ~(shares > 0).any(-1, keepdim=True)
    sums = torch.where(empty, 1.0, shares).cumsum(-1)
    uniform = torch.special.ndtr(noise).clamp(max=1 - 1e-6)
    cell = torch.searchsorted(sums, uniform * sums[..., -1:], right=True).clamp(max=maps.shape[-1] - 1)
    return torch.stack((cell % SIDE, cell // SIDE), -1).to(maps.dtype), maps.gather(-1, cell)


# ---- codes -------------------------------------------------------------------------------------------------------------


def channel_code(x: Tensor, bins: int) -> Tensor:
    r""":math:`\varphi_k(x) = \cos^2 (f (x - c_k))` while :math:`|f (x - c_k)| \le \pi/2`, else 0, with :math:`f = \pi/4 \cdot K / 2`.

    Centres :math:`c_k` are K places evenly spaced on [−1, 1]: (...) to (..., K).
    """
    turned = math.pi / 8 * bins * (x[..., None] - torch.linspace(-1, 1, bins, device=x.device, dtype=x.dtype))
    return torch.where(turned.abs() <= math.pi / 2, turned.cos().square(), 0)


def sine_code(x: Tensor, width: int, base: float = 1e4) -> Tensor:
    """sin and cos of x b^(−i / (n − 1)), n = width / 2: (...) to (..., width)."""
    half = width // 2
    turned = x[..., None] * base ** (-torch.arange(half, device=x.device, dtype=x.dtype) / (half - 1))
    return torch.cat((turned.sin(), turned.cos()), -1)


def on_crop(places: Tensor) -> Tensor:
    """Cells to −1 .. 1."""
    return (places - _HALF) / _HALF


def normalised(places: Tensor, norm: str) -> Tensor:
    """(R, J, P, 2) by the rule of :attr:`~dposer.lifting.config.HeatmapConfig.norm`."""
    if norm in ("unit", "half"):
        return on_crop(places) / (1 if norm == "unit" else 2)
    others = (1,) if norm == "mean_std_per_sample" else (1, 2)
    centred = places - places.mean(others, keepdim=True)
    return centred / centred.std((*others, 3), keepdim=True).clamp_min(1e-6)


def marginals(candidates: Candidates, weight: Tensor) -> Tensor:
    """(R, J, 2, 64): weights (R, J, P) summed by the column, and by the row, that candidates are in."""
    index = candidates.places.transpose(-1, -2).long()
    sums = weight.new_zeros(*index.shape[:-1], SIDE)
    return sums.scatter_add_(-1, index, weight[..., None, :].expand(*index.shape))
