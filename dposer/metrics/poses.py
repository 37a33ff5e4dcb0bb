"""Errors and diversity of 3D points: joints or vertices.

Points are in metres and so are the results; reports multiply by 1000 (mm) or 100 (cm). Results are per pose (or per
sequence): averaging over the data set is left to the caller, since where it happens differs between protocols.
Several hypotheses are one more batch dimension: broadcast the target against them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from dposer.errors import InputError
from dposer.geometry.procrustes import procrustes_align


def distances(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """‖p_j − y_j‖ of corresponding points: (..., J, 3) twice, with batch dimensions that broadcast, to (..., J).

    Raises:
        InputError: the two do not hold the same number of 3D points.
    """
    return torch.linalg.vector_norm(_difference(predicted, target), dim=-1)


def mean_distance(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1/J Σ_j ‖p_j − y_j‖: (..., J, 3) twice to (...), in the unit of the input.

    MPJPE when the points are joints, MPVPE when they are vertices. For the error of a body part pass its points only.
    """
    return distances(predicted, target).mean(dim=-1)


mpjpe = mean_distance
mpvpe = mean_distance


def pa_mpjpe(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """min over similarities (s, R, t) in the least-squares sense, then the mean distance: (..., J, 3) twice to (...).

    PA-MPJPE when the points are joints, PA-PVE when they are vertices.
    """
    return mean_distance(procrustes_align(predicted, target), target)


pa_mpvpe = pa_mpjpe


def root_aligned(points: torch.Tensor, root: int | torch.Tensor = 0) -> torch.Tensor:
    """x_p − x_root: (..., P, 3) to the same.

    Pelvis-aligned errors are :func:`mean_distance` of two such sets.

    Args:
        root: the row of the root joint, or where it is, (..., 3), for points such as vertices of which none is it.
    """
    return points - (points[..., root, :] if isinstance(root, int) else root)[..., None, :]


def n_mpjpe(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean distance of s p to y with the least-squares scale s = Σ_j ⟨p_j, y_j⟩ / Σ_j ‖p_j‖²: (..., J, 3) twice to (...).

    The points should be relative to the root. Source: Rhodin et al., CVPR 2018.
    """
    energy = predicted.square().sum(dim=(-2, -1), keepdim=True)
    scale = (predicted * target).sum(dim=(-2, -1), keepdim=True) / torch.where(energy > 0, energy, 1)
    return mean_distance(scale * predicted, target)


class BestOf(NamedTuple):
    """Statistics over hypotheses, each of the shape of the errors without their hypothesis dimension."""

    min: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor


def best_of(errors: torch.Tensor, dim: int = -1) -> BestOf:
    """Minimum, mean and population standard deviation of ``errors`` over the hypotheses in ``dim``.

    Joints and vertices each have their own minimum: the best hypothesis of one need not be that of the other.
    """
    return BestOf(errors.amin(dim), errors.mean(dim), errors.std(dim, correction=0))


def apd(joints: torch.Tensor) -> torch.Tensor:
    """Average pairwise distance 2 / (N (N − 1)) Σ_{a<b} 1/J Σ_j ‖x_aj − x_bj‖: (..., N, J, 3) to (...).

    NaN for a single sample, which has no pair. Memory is a few times that of the input, whatever N.

    Source: DPoser (arXiv 2312.05541), over the 22 body joints with root and shape at zero, tabled in cm.
    """
    if joints.ndim < 3 or joints.shape[-1] != 3:
        raise InputError(f"apd: found joints of shape {tuple(joints.shape)}, expected (..., samples, joints, 3)")
    x = joints.movedim((-1, -3), (0, 1)).contiguous()
    samples = x.shape[1]
    total = torch.zeros(joints.shape[:-3], dtype=torch.float64, device=joints.device)
    # All pairs `offset` apart at once: each unordered pair once, at the memory of the samples instead of their square.
    for offset in range(1, samples):
        distance = (x[:, offset:] - x[:, :-offset]).square_().sum(dim=0).sqrt_()
        total += distance.mean(dim=-1).sum(dim=0)
    return (total / (samples * (samples - 1) / 2 or torch.nan)).to(joints.dtype)


def pck(predicted: torch.Tensor, target: torch.Tensor, threshold: float = 0.15) -> torch.Tensor:
    """1/J Σ_j 1[‖p_j − y_j‖ < threshold], a share in [0, 1]: (..., J, 3) twice to (...)."""
    return (distances(predicted, target) < threshold).to(predicted.dtype).mean(dim=-1)


def auc(predicted: torch.Tensor, target: torch.Tensor, limit: float = 0.15, thresholds: int = 31) -> torch.Tensor:
    """Mean of :func:`pck` over ``thresholds`` thresholds evenly spaced in [0, ``limit``], both ends included.

    The threshold 0 always scores 0, so the default (0, 5, ..., 150 mm, as MPI-INF-3DHP has it) cannot exceed 30/31.
    """
    grid = torch.linspace(0, limit, thresholds, dtype=predicted.dtype, device=predicted.device)
    return (distances(predicted, target)[..., None] < grid).to(predicted.dtype).mean(dim=(-2, -1))


def mpjve(predicted: torch.Tensor, target: torch.Tensor, fps: float = 1.0) -> torch.Tensor:
    """Velocity error, mean over frames and joints of ‖Δp − Δy‖·fps: (..., T, J, 3) twice to (...), metres per frame, or per s."""
    return _motion(_difference(predicted, target), 1, fps)


def acceleration_error(predicted: torch.Tensor, target: torch.Tensor, fps: float = 1.0) -> torch.Tensor:
    """Mean over frames and joints of ‖Δ²p − Δ²y‖·fps²: (..., T, J, 3) twice to (...), metres per frame², or per s²."""
    return _motion(_difference(predicted, target), 2, fps)


def jitter(joints: torch.Tensor, fps: float = 1.0) -> torch.Tensor:
    """Mean over frames and joints of the jerk ‖Δ³x‖·fps³: (..., T, J, 3) to (...), metres per frame³, or per s³ given ``fps``."""
    return _motion(joints, 3, fps)


def bone_lengths(joints: torch.Tensor, edges: Sequence[tuple[int, int]]) -> torch.Tensor:
    """ℓ_e = ‖x_child − x_parent‖ of (parent, child) rows: (..., J, 3) to (..., E)."""
    parents, children = zip(*edges, strict=True)
    return torch.linalg.vector_norm(joints[..., list(children), :] - joints[..., list(parents), :], dim=-1)


def consistency(lengths: torch.Tensor, counts: torch.Tensor | None = None) -> torch.Tensor:
    """Standard deviation over time of lengths that should not change, divided by T − 1: (..., T, E) to (..., E).

    Zero for a rigid skeleton; NaN for fewer than two frames.

    Args:
        counts: (..., T) bool, the frames that count; None: all.

    Source: Rommel et al., DiffHPE (ICCV 2023 workshops).
    """
    mask = torch.ones_like(lengths[..., :1]) if counts is None else counts[..., None].to(lengths)
    total = mask.sum(-2)
    mean = (lengths * mask).sum(-2, keepdim=True) / total[..., None, :].clamp_min(1)
    squares = ((lengths - mean).square() * mask).sum(-2)
    return (squares / torch.where(total > 1, total - 1, torch.nan)).sqrt()


def asymmetry(lengths: torch.Tensor, pairs: Sequence[tuple[int, int]]) -> torch.Tensor:
    """|ℓ_left − ℓ_right| of (left, right) columns: (..., E) to (..., P).

    Zero for a skeleton that is its own mirror image. Source: Rommel et al., DiffHPE (ICCV 2023 workshops).
    """
    left, right = zip(*pairs, strict=True)
    return (lengths[..., list(left)] - lengths[..., list(right)]).abs()


def _difference(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    for name, points in (("predicted", predicted), ("target", target)):
        if points.ndim < 2 or points.shape[-1] != 3 or points.shape[-2] == 0:
            raise InputError(f"{name}: found shape {tuple(points.shape)}, expected (..., points, 3)")
    if predicted.shape[-2] != target.shape[-2]:
        raise InputError(f"points: {predicted.shape[-2]} predicted and {target.shape[-2]} target, expected as many of each")
    return predicted - target


def _motion(joints: torch.Tensor, order: int, fps: float) -> torch.Tensor:
    if joints.ndim < 3 or joints.shape[-1] != 3 or joints.shape[-3] <= order:
        raise InputError(f"motion: found joints of shape {tuple(joints.shape)}, expected (..., more than {order} frames, joints, 3)")
    return torch.linalg.vector_norm(joints.diff(n=order, dim=-3), dim=-1).mean(dim=(-2, -1)) * fps**order
