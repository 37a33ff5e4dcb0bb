r"""Many hypotheses made into one answer: a pose, a few representatives with weights, and which joints are ambiguous.

Hypotheses are (F, N, J, 3) metres relative to the root, N of each of F frames. Whole poses are apart by

.. math:: d_{nm} = \sqrt{\tfrac1J \sum_j |x_{nj} - x_{mj}|^2},

in which an arm that is elsewhere counts for more than small differences everywhere. One pose of them is

============  ==============================================================================================
median        the geometric median of each joint
medoid        the hypothesis with the least :math:`\sum_m d_{nm}`, so a pose that the method did give
mode          where hypotheses are densest, :func:`density_mode`
reprojection  each joint of the hypothesis that projects nearest to its keypoint, if lens and keypoints are known
============  ==============================================================================================

Median, mode and reprojection put joints of several hypotheses together, so that bones may come out a little short; the medoid keeps them.
"""

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from dposer.errors import InputError
from dposer.geometry.lens import Lens
from dposer.lifting.hypotheses import geometric_median, joint_agg, solve_root
from dposer.solvers.representatives import representatives

Choice = Literal["median", "medoid", "mode", "reprojection"]

REPRESENTATIVES = 5
_AT_ONCE = 2_000_000
"""Numbers of an array that is larger than the hypotheses."""
_ROUNDS = 10
"""Of k-medoids and of 2-means, which hardly ever take as many."""
_TIE = 1e-4
"""By which it counts in a group how central one is among all: both of two are as central in their group."""
_NARROWEST = 1e-4
"""Metres: the least bandwidth of a density, for hypotheses that are all alike."""


@dataclass(frozen=True)
class AmbiguityRule:
    """A joint is ambiguous if its spread is above ``spread``, or if its hypotheses are in two camps.

    They are if a cut in two (2-means) leaves a part of them on either side, their means far apart, and the cut lies where there are few:
    along the line between the means the distance is ``clear`` standard deviations of a camp or more. (A Gaussian cut in the middle has 2.7
    of them and an even spread 3.5, so that neither is taken for two camps: of 50 hypotheses or more less than 1 in 100 such clouds is, of
    20 about 1 in 15.) All of this tells what the hypotheses say, and is as good as they are calibrated.
    """

    spread: float = 0.1
    """Metres, root mean square distance from the mean."""
    apart: float = 0.15
    """Metres between the means of two camps."""
    share: float = 0.1
    """Of the hypotheses in the smaller camp."""
    least: int = 5
    """Hypotheses in it."""
    clear: float = 4.0
    """Standard deviations."""


@dataclass(frozen=True)
class Consensus:
    """What N hypotheses of F frames say together; metres. Representatives come by falling weight."""

    pose: Tensor
    """(F, J, 3)."""
    mean: Tensor
    """(F, J, 3): where the ellipsoids of ``covariance`` are."""
    covariance: Tensor
    """(F, J, 3, 3) m²."""
    spread: Tensor
    """(F, J) root mean square distance from the mean, √tr covariance."""
    apart: Tensor
    """(F, J) between two camps of hypotheses, 0 where there are none."""
    ambiguous: Tensor
    """(F, J) bool, see :class:`AmbiguityRule`."""
    members: Tensor
    """(F, k) which hypotheses represent the others."""
    representatives: Tensor
    """(F, k, J, 3)."""
    weights: Tensor
    """(F, k): the share of hypotheses that each stands for."""
    labels: Tensor
    """(F, N): the representative that stands for a hypothesis."""

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it by its names, to be drawn or written."""
        return {part.name: getattr(self, part.name).cpu().numpy() for part in fields(self)}


def consensus(
    hypotheses: Tensor,
    how: Choice = "median",
    count: int = REPRESENTATIVES,
    rule: AmbiguityRule | None = None,
    *,
    keypoints: Tensor | None = None,
    lens: Lens | None = None,
    confidence: Tensor | None = None,
    root: Tensor | None = None,
) -> Consensus:
    """One pose, representatives, ellipsoids and ambiguous joints of each frame.

    Args:
        hypotheses: (F, N, J, 3).
        count: representatives k, of which there are not more than hypotheses.
        rule: None: the default one.
        keypoints, lens, confidence: (F, J, 2) in the unit of the lens, and (F, J), for "reprojection".
        root: (F, 3) metres before the camera, for "reprojection"; None: solved for each hypothesis.

    Raises:
        InputError: wrong shapes, NaN, an unknown choice, or reprojection without lens and keypoints.
    """
    if hypotheses.ndim != 4 or hypotheses.shape[-1] != 3 or 0 in hypotheses.shape:
        raise InputError(f"hypotheses: shape {tuple(hypotheses.shape)}, expected (frames, hypotheses, joints, 3)")
    if not bool(hypotheses.isfinite().all()):
        raise InputError("hypotheses: hold NaN or infinity, expected metres; leave those frames out")
    if how not in get_args(Choice) or count < 1:
        raise InputError(f"consensus {how!r} with {count} representatives, expected {', '.join(get_args(Choice))} and at least one")
    if how == "reprojection":
        pose = _reprojected(hypotheses, keypoints, lens, confidence, root)
    elif how == "median":
        pose = geometric_median(hypotheses.transpose(0, 1))
    else:
        pose = (medoid if how == "medoid" else density_mode)(hypotheses)
    members, labels, weights = represented(hypotheses, count)
    mean, covariance = moments(hypotheses)
    spread = covariance.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()
    rule = rule or AmbiguityRule()
    apart = camps(hypotheses, rule)
    ambiguous = (spread > rule.spread) | (apart > 0)
    chosen = hypotheses.take_along_dim(members[..., None, None], 1)
    return Consensus(pose, mean, covariance, spread, apart, ambiguous, members, chosen, weights, labels)


def _reprojected(h: Tensor, keypoints: Tensor | None, lens: Lens | None, confidence: Tensor | None, root: Tensor | None) -> Tensor:
    if keypoints is None or lens is None:
        raise InputError("consensus by reprojection: lacks keypoints or the lens; give them, or take median, medoid or mode")
    h = h.transpose(0, 1)
    root = solve_root(h, keypoints, lens, confidence) if root is None else root
    return joint_agg(h, root, keypoints, lens, confidence)


# ---- whole poses -------------------------------------------------------------------------------------------------------


def pose_distances(h: Tensor) -> Tensor:
    """d_nm: (F, N, J, 3) → (F, N, N) metres."""
    flat = h.flatten(-2)
    return torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist") / math.sqrt(h.shape[-2])


def _chunks(h: Tensor) -> tuple[Tensor, ...]:
    """Some frames at a time, so that neither their distances nor what :func:`camps` tries become too many."""
    count, joints = h.shape[1:3]
    return h.split(max(1, _AT_ONCE // (count * max(count, 9 * joints))))


def medoid(h: Tensor) -> Tensor:
    """argmin over x_n of Σ_m d_nm: (F, N, J, 3) → (F, J, 3)."""
    best = torch.cat([pose_distances(some).sum(-1).argmin(-1) for some in _chunks(h)])
    return h.take_along_dim(best[:, None, None, None], 1)[:, 0]


def density_mode(h: Tensor, iterations: int = 20) -> Tensor:
    r"""Where Σ_n exp(−d(x, x_n)² / 2b²) has its top, (F, N, J, 3) → (F, J, 3).

    Mean shift from the hypothesis at which it is highest. The bandwidth b is what half of the hypotheses have their ⌈√N⌉-th neighbour
    within, so that it is of the size of a cluster and not of what is between clusters.

    Source: Comaniciu and Meer, mean shift (TPAMI 2002).
    """
    return torch.cat([_mode(some, iterations) for some in _chunks(h)])


def _mode(h: Tensor, iterations: int) -> Tensor:
    squares = pose_distances(h).square()
    neighbour = min(math.ceil(math.sqrt(h.shape[1])), h.shape[1] - 1)
    bandwidth = squares.kthvalue(neighbour + 1, -1).values.median(-1).values.clamp_min(_NARROWEST**2)  # b²; the nearest is oneself
    density = torch.exp(-squares / (2 * bandwidth[:, None, None])).sum(-1)
    place = h.take_along_dim(density.argmax(-1)[:, None, None, None], 1)
    for _ in range(iterations):
        away = (h - place).square().sum(-1).mean(-1)
        share = (-away / (2 * bandwidth[:, None])).softmax(-1)
        place = (share[..., None, None] * h).sum(1, keepdim=True)
    return place[:, 0]


# ---- representatives ---------------------------------------------------------------------------------------------------


def represented(h: Tensor, count: int = REPRESENTATIVES) -> tuple[Tensor, Tensor, Tensor]:
    """k-medoids: members (F, k) and weights (F, k) by falling weight, and the label (F, N) of each hypothesis.

    Members are chosen one after another, each for the least mean distance to the nearest of them, and then in turns every hypothesis goes
    to its nearest member and every group to the member most central in it. Nothing is drawn at random.
    """
    parts = zip(*(_k_medoids(pose_distances(some), min(count, h.shape[1])) for some in _chunks(h)), strict=True)
    members, labels = (torch.cat(part) for part in parts)
    weights = torch.nn.functional.one_hot(labels, members.shape[1]).to(h).mean(1)
    weights, order = weights.sort(dim=-1, descending=True, stable=True)
    return members.gather(1, order), order.argsort(-1).gather(1, labels), weights


def _k_medoids(distances: Tensor, count: int) -> tuple[Tensor, Tensor]:
    members = representatives(distances, count)
    among_all = _TIE * distances.mean(1, keepdim=True)
    for _ in range(_ROUNDS):
        labels = _nearest(distances, members)
        own = torch.nn.functional.one_hot(labels, count).to(distances).mT  # (F, k, N)
        central = torch.where(own > 0, own @ distances + among_all, torch.inf).argmin(-1)
        members = torch.where(own.any(-1), central, members)  # of hypotheses that are alike, one may have no group
    return members, _nearest(distances, members)


def _nearest(distances: Tensor, members: Tensor) -> Tensor:
    return distances.take_along_dim(members[:, None], 2).argmin(-1)


# ---- single joints -----------------------------------------------------------------------------------------------------


def moments(h: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (F, J, 3) and covariance (F, J, 3, 3) of each joint over the hypotheses (F, N, J, 3)."""
    mean = h.mean(1)
    away = h - mean[:, None]
    return mean, torch.einsum("fnja,fnjb->fjab", away, away) / h.shape[1]


def camps(h: Tensor, rule: AmbiguityRule) -> Tensor:
    """How far two camps of hypotheses are apart, by the rule; 0 where they are in one: (F, N, J, 3) → (F, J) metres.

    2-means, begun by cutting through the mean across each of the three axes of the covariance; if several cuts part camps, the widest.
    """
    return torch.cat([_camps(some, rule) for some in _chunks(h)])


def _camps(h: Tensor, rule: AmbiguityRule) -> Tensor:
    mean, covariance = moments(h)
    away = h - mean[:, None]
    axes = torch.linalg.eigh(covariance).eigenvectors
    here = torch.einsum("fnja,fjac->fnjc", away, axes) > 0  # (F, N, J, 3 cuts): who is on one side
    points = away[..., None, :]
    for _ in range(_ROUNDS):
        ours, theirs = _mean(points, here[..., None]), _mean(points, ~here[..., None])
        here = (points - ours).square().sum(-1) < (points - theirs).square().sum(-1)
    gap = _mean(points, here[..., None]) - _mean(points, ~here[..., None])  # (F, 1, J, 3 cuts, 3)
    distance = torch.linalg.vector_norm(gap, dim=-1)
    along = (points * gap).sum(-1) / distance.clamp_min(1e-9)
    width = ((_variance(along, here) + _variance(along, ~here)) / 2).sqrt()
    smaller = torch.minimum(here.sum(1, keepdim=True), (~here).sum(1, keepdim=True))
    parted = (smaller >= max(rule.least, rule.share * h.shape[1])) & (distance >= rule.apart) & (distance >= rule.clear * width)
    return torch.where(parted, distance, 0.0)[:, 0].amax(-1)


def _mean(values: Tensor, among: Tensor) -> Tensor:
    """Over the hypotheses (second dimension) for which ``among`` holds."""
    return (values * among).sum(1, keepdim=True) / among.sum(1, keepdim=True).clamp_min(1)


def _variance(values: Tensor, among: Tensor) -> Tensor:
    return _mean((values - _mean(values, among)).square(), among)
