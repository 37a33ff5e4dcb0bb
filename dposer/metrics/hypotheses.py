r"""Many hypotheses of one pose against the truth: how near the best comes, and whether their spread tells how far off they are.

Hypotheses are (..., N, J, 3) and the truth (..., J, 3), metres relative to the root; results are of each pose (...), so that averages over
a data set are left to the caller. Nothing needs more than a few times the memory of the hypotheses.

A truth that is one more draw from the law of the hypotheses lies within their central region of level q, for every q, in a share q of
all poses. The region of a joint is the ball about the median m of each coordinate that holds a share q of the hypotheses,

.. math:: c = \tfrac1N \#\{n : |p_n - m| \le |g - m|\} \le q

which :func:`centrality` gives for all levels at once; the share of poses below each level is the calibration curve.

Sources: Holmquist and Wandt, DiffPose (ICCV 2023); Wandt et al., CanonPose (CVPR 2021) for CPS; Pierzchlewicz et al., Multi-hypothesis 3D
human pose estimation metrics favor miscalibrated distributions (arXiv 2210.11179); Gneiting and Raftery (JASA 2007) for scoring rules.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dposer.geometry.procrustes import procrustes_align
from dposer.metrics.poses import distances, mean_distance, pck, root_aligned

LEVELS = tuple(i / 20 for i in range(1, 21))
"""q at which calibration is looked at."""
_LIMIT = 300
"""Millimetres up to which CPS counts."""


# ---- errors ------------------------------------------------------------------------------------------------------------


class OverHypotheses(NamedTuple):
    """Statistics of errors (..., N) over the hypotheses, each (...)."""

    best: Tensor
    mean: Tensor
    median: Tensor
    worst: Tensor


def over_hypotheses(errors: Tensor) -> OverHypotheses:
    """(..., N) → four of (...)."""
    ordered = errors.sort(-1).values
    return OverHypotheses(ordered[..., 0], errors.mean(-1), _middle(ordered, -1), ordered[..., -1])


def hypothesis_errors(h: Tensor, truth: Tensor) -> Tensor:
    """e(p_n) = 1/J Σ_j |p_nj − g_j|, P1 of every hypothesis: (..., N). P2 is the same of :func:`aligned` ones."""
    return mean_distance(h, truth[..., None, :, :])


def aligned(h: Tensor, truth: Tensor) -> Tensor:
    """Every hypothesis moved, turned (never mirrored) and scaled onto the truth: (..., N, J, 3)."""
    return procrustes_align(h, truth[..., None, :, :])


def rescaled(h: Tensor, truth: Tensor, root: int = 0) -> Tensor:
    """p |g| / |p|, norms over all joints relative to the root: every hypothesis as large as the truth, (..., N, J, 3)."""
    h, truth = root_aligned(h, root), root_aligned(truth, root)[..., None, :, :]
    size, wanted = (torch.linalg.vector_norm(points, dim=(-2, -1), keepdim=True) for points in (h, truth))
    return h * wanted / size.clamp_min(torch.finfo(h.dtype).tiny)


def correct_shares(h: Tensor, truth: Tensor, joints: Sequence[int], threshold: float = 0.15) -> Tensor:
    """Share of some joints nearer than a threshold, of every hypothesis: (..., N). PCK is the largest of them."""
    rows = list(joints)
    return pck(h[..., rows, :], truth[..., None, rows, :], threshold)


def correct_poses(aligned: Tensor, truth: Tensor, joints: Sequence[int]) -> Tensor:
    r"""What each :func:`aligned` hypothesis would add to CPS, 0 .. 299, were it the only one: (..., N). CPS is the mean of the largest.

    With d the largest distance of some joints, in millimetres, a pose is correct at k if d < k. The area under the share of correct
    poses over k = 1, 2, ..., 300, by trapezoids, is the mean of

    .. math:: 300 - \lfloor d \rfloor - \tfrac12 [d < 1] - \tfrac12 \quad \text{for } d < 300, \text{ else } 0,

    since 300 − ⌊d⌋ of the k, but 300 at most, are above d, and the two at the ends count half.
    """
    rows = list(joints)
    d = 1000 * distances(aligned[..., rows, :], truth[..., None, rows, :]).amax(-1)
    return torch.where(d < _LIMIT, _LIMIT - d.floor() - (d < 1) / 2 - 0.5, 0.0)


def expected_minimum(errors: Tensor, counts: Sequence[int] | None = None) -> Tensor:
    r"""E[min of m of the N], the mean over all subsets of m: (..., N) → (..., M), for m = 1 .. N or the given ones.

    .. math:: \sum_{i=1}^{N} \binom{N-i}{m-1} \Big/ \binom{N}{m} \; e_{(i)}

    with the errors in ascending order: an unbiased estimate of the best of m independent hypotheses, whatever N is.
    """
    number = errors.shape[-1]
    m = torch.tensor(range(1, number + 1) if counts is None else counts, dtype=torch.float64)
    i = torch.arange(1, number, dtype=torch.float64)[:, None]
    ratio = ((number - i - m + 1) / (number - i)).clamp_min(0)  # of two coefficients that follow each other
    weights = torch.cat((m[None] / number, ratio)).cumprod(0)
    return errors.sort(-1).values @ weights.to(errors)


# ---- spread ------------------------------------------------------------------------------------------------------------


def median_pose(h: Tensor) -> Tensor:
    """The median of each coordinate: (..., N, J, 3) → (..., J, 3)."""
    return _middle(h.sort(-3).values, -3)


def deviations(h: Tensor) -> Tensor:
    """Unbiased standard deviation of each coordinate: (..., J, 3), zero for a single hypothesis."""
    return h.std(-3, correction=min(1, h.shape[-3] - 1))


def centrality(h: Tensor, truth: Tensor) -> Tensor:
    """c = share of hypotheses that are no farther from the median than the truth is, of each joint: (..., J) float64, see the module.

    κ = 1 − c is what DiffPose's tables call ECE: about ½ if calibrated, near 1 if hypotheses are too far apart. Of a joint where hypotheses
    are all the same c is 1. As m is nearer to the hypotheses that it is of than to the truth, few of them look too sure: of draws from one
    law κ is 0.46 with 20 hypotheses, 0.496 with 200, and the ECE 0.02 and 0.003.
    """
    centre = median_pose(h)
    away, theirs = distances(truth, centre), distances(h, centre[..., None, :, :])
    return (theirs <= away[..., None, :]).sum(-2).double() / h.shape[-3]


def covered(centrality: Tensor, levels: Sequence[float] = LEVELS) -> Tensor:
    """1 where the truth lies within the central region of level q, else 0: (...) → (..., Q).

    The mean over poses is the coverage, and over all of :data:`LEVELS` the calibration curve ω(q).
    """
    return (centrality[..., None] <= torch.tensor(levels, dtype=torch.float64, device=centrality.device)).double()


def calibration_error(curve: Tensor) -> Tensor:
    """ECE = mean over q of |ω(q) − q| of curves (..., Q) at :data:`LEVELS`: (...)."""
    return (curve - torch.tensor(LEVELS, dtype=curve.dtype, device=curve.device)).abs().mean(-1)


# ---- proper scores -----------------------------------------------------------------------------------------------------


class EnergyScores(NamedTuple):
    """Of whole poses, as points of 3 J dimensions, (...), and of each joint, (..., J); in the unit of the points."""

    pose: Tensor
    joints: Tensor


def energy_scores(h: Tensor, truth: Tensor, pairs: Literal["all", "neighbours"] = "all") -> EnergyScores:
    r"""Proper scores, lowest in expectation where hypotheses are drawn from the law of the truth.

    .. math:: \frac1N \sum_n |p_n - g| - \frac12 \operatorname{mean}_{a \ne b} |p_a - p_b|

    Args:
        pairs: all N (N − 1) / 2, or only the N − 1 of hypotheses that follow each other, which is as unbiased, and faster.
    """
    x = (h - truth[..., None, :, :]).movedim((-1, -3), (0, 1)).contiguous()
    number = x.shape[1]
    between = torch.zeros_like(x[0, 0, ..., :1], dtype=torch.float64)
    reach = number if pairs == "all" else min(2, number)
    for offset in range(1, reach):  # all pairs so far apart at once: the memory of the hypotheses, not of its square
        between = between + _norms(x[:, offset:] - x[:, :-offset]).sum(0, dtype=torch.float64)
    count = sum(number - offset for offset in range(1, reach))
    score = (_norms(x).mean(0, dtype=torch.float64) - between / (2 * max(1, count))).to(h.dtype)
    return EnergyScores(score[..., -1], score[..., :-1])


def _norms(x: Tensor) -> Tensor:
    """Lengths of joints, and last of the whole pose: (3, ..., J) → (..., J + 1)."""
    squares = x.square().sum(0)
    return torch.cat((squares, squares.sum(-1, keepdim=True)), -1).sqrt_()


def crps(h: Tensor, truth: Tensor) -> Tensor:
    """Continuous ranked probability score, the energy score of each coordinate by itself: (..., J, 3)."""
    x = (h - truth[..., None, :, :]).sort(-3).values  # about the truth, so that sums keep their digits
    number = x.shape[-3]
    weight = (2 * torch.arange(1, number + 1) - number - 1).to(x)[:, None, None]
    return x.abs().mean(-3) - (weight * x).sum(-3) / max(1, number * (number - 1))


def _middle(ordered: Tensor, dim: int) -> Tensor:
    """The median of what is in ascending order; of an even number the mean of the two in the middle."""
    number = ordered.shape[dim]
    return (ordered.select(dim, (number - 1) // 2) + ordered.select(dim, number // 2)) / 2
