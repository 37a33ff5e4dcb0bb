"""The similarity transform that best lays one point set over another, with known correspondences."""

from typing import NamedTuple

import roma
import torch

from dposer.errors import InputError


class Similarity(NamedTuple):
    """``x ↦ s R x + t`` for a batch of point sets: ``scale`` (...), ``rotation`` (..., 3, 3), ``translation`` (..., 3)."""

    scale: torch.Tensor
    rotation: torch.Tensor
    translation: torch.Tensor

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """Transform ``points`` (..., P, 3)."""
        return self.scale[..., None, None] * points @ self.rotation.mT + self.translation[..., None, :]


def procrustes(source: torch.Tensor, target: torch.Tensor, scale: bool = True) -> Similarity:
    """argmin over s, R, t of Σ_p ‖s R x_p + t − y_p‖²,  with R a proper rotation (det R = +1).

    With centred x, y and Σ_p y_p x_pᵀ = U S Vᵀ:  R = U diag(1, 1, det(U Vᵀ)) Vᵀ,  s = (S₁ + S₂ ± S₃) / Σ_p ‖x_p‖².

    Args:
        source: (..., P, 3) points x.
        target: (..., P, 3) points y; batch dimensions broadcast against those of ``source``.
        scale: False fixes s = 1 (a rigid alignment).

    Points on a line leave a free turn about it, of which one is returned; a source that is a single repeated point
    keeps s = 1; a target that is one gives s = 0. All of these still attain the minimum.

    Raises:
        InputError: shapes that do not correspond, no points, or coordinates that are NaN or infinite.

    Source: Umeyama, PAMI 1991, equations 40 to 42.
    """
    _check(source, target)
    source_mean, target_mean = source.mean(dim=-2, keepdim=True), target.mean(dim=-2, keepdim=True)
    x, y = source - source_mean, target - target_mean
    covariance = y.mT @ x
    rotation = roma.special_procrustes(covariance)
    variance = x.square().sum(dim=(-2, -1))
    factor = torch.ones(covariance.shape[:-2], dtype=source.dtype, device=source.device)
    if scale:
        spread = variance > 0
        factor = torch.where(spread, (rotation * covariance).sum(dim=(-2, -1)) / torch.where(spread, variance, 1), factor)
    translation = target_mean - factor[..., None, None] * source_mean @ rotation.mT
    return Similarity(factor, rotation, translation.squeeze(-2))


def procrustes_align(source: torch.Tensor, target: torch.Tensor, scale: bool = True) -> torch.Tensor:
    """``source`` (..., P, 3) moved onto ``target`` by :func:`procrustes`: the points s R x_p + t, (..., P, 3)."""
    return procrustes(source, target, scale)(source)


def _check(source: torch.Tensor, target: torch.Tensor) -> None:
    for name, points in (("source", source), ("target", target)):
        if points.ndim < 2 or points.shape[-1] != 3 or points.shape[-2] == 0:
            raise InputError(f"procrustes {name}: found shape {tuple(points.shape)}, expected (..., points, 3)")
        if not points.isfinite().all():
            raise InputError(f"procrustes {name}: holds NaN or infinite coordinates, expected finite ones; drop those point sets")
    if source.shape[-2] != target.shape[-2]:
        raise InputError(f"procrustes: {source.shape[-2]} source points and {target.shape[-2]} target points, expected as many of each")
