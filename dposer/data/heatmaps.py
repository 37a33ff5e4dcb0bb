r"""Mixtures of Gaussians fitted to the heatmaps of a detector, by expectation maximisation over the cells.

.. math:: r_{nk} \propto \pi_k N(x_n; \mu_k, s_k^2), \qquad
    \pi_k = \sum_n h_n r_{nk}, \quad \mu_k = \frac{1}{\pi_k} \sum_n h_n r_{nk} x_n, \quad
    s_k^2 = \frac{1}{\pi_k} \sum_n h_n r_{nk} (x_n - \mu_k)^2

for a map h of sum 1 over cells with centres x. The seeds are those of k-means++ (Arthur & Vassilvitskii, SODA 2007).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dposer.body.skeleton import H36M_17, Layout
from dposer.data.gmm import hidden_mixture
from dposer.errors import InputError
from dposer.geometry.lens import screen

_CHUNK = 256
"""Maps at once."""
_ITERATIONS, _SETTLED = 100, 1e-4
"""Of expectation maximisation, at most; change of the log-likelihood, relative to it, at which it has come to rest."""
_LEAST, _TOP = 1e-3, 0.1
"""Of the highest cell: cells below the first share are left out, seeds are above the second."""
_FLOOR = 0.25
"""Least variance, cells²: nothing is known better than to half a cell."""
_TINY = 1e-12


def mixture_of_heatmaps(
    heatmaps: Tensor,
    to_pixels: Tensor,
    size: tuple[float, float],
    components: int = 5,
    *,
    generator: torch.Generator,
    layout: Layout = H36M_17,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The mixture (..., J, 5 M) of heatmaps, in screen units, see :mod:`dposer.data.gmm`; the heaviest component comes first.

    Args:
        heatmaps: (..., J, h, w), not negative, of any sum. A map that is zero everywhere means that the joint is missing.
        to_pixels: (..., 2, 3) affine map from cells (column, row; centres at whole numbers) to pixels of the picture, with the maps'
            leading dimensions, or the same for all. Of the covariance that it gives the diagonal is kept.
        size: of the picture.
        components: M.
        generator: source of the seeds, on the CPU.
        layout: of the J joints; where missing ones go.
        progress: told (done, total) maps.

    Raises:
        InputError: other shapes, NaN or negative values, or maps that are zero for all joints.
    """
    joints = len(layout.joints)
    if heatmaps.ndim < 3 or heatmaps.shape[-3] != joints or not heatmaps.numel() or components < 1:
        raise InputError(f"heatmaps {tuple(heatmaps.shape)}, M = {components}: expected (..., {joints}, h, w) of {layout.name}, M >= 1")
    if to_pixels.shape[-2:] != (2, 3) or to_pixels.shape[:-2] not in ((), heatmaps.shape[:-3]):
        raise InputError(f"to_pixels {tuple(to_pixels.shape)}, expected (2, 3) or one for each frame: the affine map from cells to pixels")
    if not bool((heatmaps >= 0).all() and heatmaps.isfinite().all()):
        raise InputError("heatmaps: negative, NaN or infinite values, expected 0 and above; clip them, or apply the detector's sigmoid")
    missing = (heatmaps == 0).flatten(-2).all(-1)
    if bool(missing.all()):
        raise InputError("heatmaps: zero everywhere, expected at least one joint; check the file")
    maps = torch.where(missing[..., None, None], 1.0, heatmaps.float()).flatten(0, -3)  # those of missing joints are not used below
    fitted = []
    for some in maps.split(_CHUNK):
        fitted.append(torch.cat(_fit(some, components, generator), -1))
        if progress:
            progress(min(len(fitted) * _CHUNK, len(maps)), len(maps))
    weight, mean, variance = torch.cat(fitted).reshape(*missing.shape, components, 5).split((1, 2, 2), -1)
    affine = to_pixels[..., None, None, :, :].to(mean)
    mean = (affine[..., :2] @ mean[..., None] + affine[..., 2:])[..., 0]
    deviation = (affine[..., :2].square() @ variance[..., None])[..., 0].sqrt() * (2 / size[0])
    return hidden_mixture(torch.cat((weight, screen(mean, size), deviation), -1).flatten(-2), missing, layout)


def _fit(maps: Tensor, components: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (B, M, 1), heaviest first, means and variances (B, M, 2) in cells, of maps (B, h, w)."""
    h, x = _cells(maps)
    nearest = torch.cdist(x, _seeds(h, x, components, generator)).argmin(-1)
    fitted = _maximised(h, x, torch.nn.functional.one_hot(nearest, components).to(h))
    before = torch.full((len(h),), -math.inf, device=h.device)
    for _ in range(_ITERATIONS):
        joint = _log_joint(x, *fitted)
        likelihood = (h * joint.logsumexp(-1)).sum(-1)
        if bool(((likelihood - before).abs() <= _SETTLED * likelihood.abs()).all()):
            break
        before = likelihood
        fitted = _maximised(h, x, joint.softmax(-1))
    weight, mean, variance = fitted
    order = weight.argsort(-1, descending=True)
    mean, variance = (part.gather(1, order[..., None].expand(-1, -1, 2)) for part in (mean, variance))
    return weight.gather(1, order)[..., None], mean, variance


def _cells(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The cells that count: their shares (B, N), of sum 1, and their columns and rows (B, N, 2)."""
    flat, width = maps.flatten(1), maps.shape[-1]
    kept = flat >= _LEAST * flat.amax(1, keepdim=True)
    h, index = torch.where(kept, flat, 0).topk(int(kept.sum(1).max()), 1)
    return h / h.sum(1, keepdim=True), torch.stack((index % width, index // width), -1).to(h)


def _seeds(h: Tensor, x: Tensor, components: int, generator: torch.Generator) -> Tensor:
    """(B, M, 2): the highest cell, then others of the top, by weight and squared distance from those before."""
    top = torch.where(h >= _TOP * h.amax(-1, keepdim=True), h, 0)
    seeds = x.gather(1, h.argmax(-1)[:, None, None].expand(-1, -1, 2))
    while seeds.shape[1] < components:
        chance = top * torch.cdist(x, seeds).amin(-1).square()
        chance = torch.where(chance.sum(-1, keepdim=True) > _TINY, chance, h)  # the top has fewer cells than there are components
        drawn = torch.multinomial(chance.cpu(), 1, generator=generator).to(x.device)
        seeds = torch.cat((seeds, x.gather(1, drawn[..., None].expand(-1, -1, 2))), 1)
    return seeds


def _log_joint(x: Tensor, weight: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log (π_k N_k) at cells (B, N, 2): (B, N, M)."""
    away = (x[:, :, None] - mean[:, None]).square() / variance[:, None] + variance[:, None].log()
    return weight.clamp_min(_TINY).log()[:, None] - 0.5 * away.sum(-1) - math.log(2 * math.pi)


def _maximised(h: Tensor, x: Tensor, belongs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (B, M), means and variances (B, M, 2) of the mixture to which cells belong by shares (B, N, M)."""
    part = (h[..., None] * belongs).transpose(1, 2)
    weight = part.sum(-1)
    count = weight[..., None] + _TINY  # a component without cells is in the middle of the others
    mean = (part @ x + _TINY * x.mean(1, keepdim=True)) / count
    variance = torch.einsum("bmn,bnmd->bmd", part, (x[:, :, None] - mean[:, None]).square()) / count
    return weight, mean, variance.clamp_min(_FLOOR)
