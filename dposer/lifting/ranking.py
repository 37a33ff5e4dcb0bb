r"""Hypotheses re-ranked by what the lifting method does not know: the pose prior, and a camera with its keypoints.

With s the share of samples that a pose stands for, p its plausibility (the part of held-out human motion that is less ordinary) and e its
reprojection error, the root mean square over the joints that are seen,

.. math:: w_k = \operatorname{softmax}_k \Big[ \log s_k + \gamma \log \max(p_k, p_0) - \tfrac12 (e_k / \sigma)^2 \Big] .

A pose of joints has no plausibility by itself: a SMPL-X body is laid into it first (:func:`bodies_of`). A percentage is no likelihood, so
the weights order poses and say which of them to doubt; the calibrated ones are the shares.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dposer.body.model import BodyModel
from dposer.body.skeleton import Layout
from dposer.errors import InputError
from dposer.geometry.lens import Lens
from dposer.lifting.hypotheses import reprojection_error, solve_root
from dposer.prior.pose_prior import PosePrior
from dposer.solvers.motion_fitting import MotionFit, fit_joints

FIT_NOISE = 0.02
"""Metres per coordinate by which a body may miss a hypothesis: so large that jitter of single joints does not count as a strange pose."""
LEAST = 0.005
"""p₀: plausibilities below are all alike."""
_PER_FOCAL = 1 / 200
"""σ by default, of the focal length: 6 px in Human3.6M."""
_MAX_BATCH = 512
_TENSORS = ("pose_body", "root_orient", "trans", "betas", "points", "residuals")


@dataclass(frozen=True)
class Ranking:
    """K poses of each of F frames, judged."""

    weights: Tensor
    """(F, K), which sum to 1."""
    order: Tensor
    """(F, K): poses from the most to the least likely."""
    plausibility: Tensor | None
    """(F, K) per cent of held-out human motion that is less ordinary; None without a prior."""
    reprojection: Tensor | None
    """(F, K) in the unit of the keypoints; None without a lens."""
    bodies: MotionFit | None
    """Of the F · K poses, frame by frame, as :func:`bodies_of` gives them; None without a prior."""

    def best(self, poses: Tensor) -> Tensor:
        """The most likely of (F, K, J, 3): (F, J, 3)."""
        return poses.take_along_dim(self.order[:, :1, None, None], 1)[:, 0]


def rank(
    poses: Tensor,
    layout: Layout,
    prior: PosePrior | None = None,
    *,
    shares: Tensor | None = None,
    keypoints: Tensor | None = None,
    lens: Lens | None = None,
    confidence: Tensor | None = None,
    root: Tensor | None = None,
    trust: float = 1.0,
    pixels: float | None = None,
    body: BodyModel | None = None,
    generator: torch.Generator | None = None,
    max_batch: int = _MAX_BATCH,
) -> Ranking:
    """Weigh poses against each other.

    Every pose has a body fitted to it, so give representatives, not all hypotheses.

    Args:
        poses: (F, K, J, 3) metres, such as :attr:`Consensus.representatives <dposer.lifting.consensus.Consensus.representatives>`.
        layout: of the J joints.
        prior: None: nothing is fitted.
        shares: (F, K) s; None: all alike.
        keypoints, lens, confidence: (F, J, 2) in the unit of the lens, and (F, J), 0 = missing; None: no reprojection.
        root: (F, 3) metres before the camera; None: solved for each pose.
        trust: γ in the prior; 0 is the same as none, but for the bodies.
        pixels: σ in the unit of the keypoints; None: a 200th of the focal length.
        body, generator, max_batch: see :func:`bodies_of`.

    Raises:
        InputError: shapes that do not go together, NaN, numbers out of range, or keypoints without a lens.
    """
    _check(poses, layout)
    if (keypoints is None) != (lens is None):
        raise InputError("ranking: found one of keypoints and lens, expected both, or neither")
    if trust < 0 or (pixels is not None and not pixels > 0):
        raise InputError(f"ranking: trust = {trust}, pixels = {pixels}, expected a weight from 0 on and a deviation above 0")
    if shares is not None and shares.shape != poses.shape[:2]:
        raise InputError(f"shares: shape {tuple(shares.shape)}, expected {tuple(poses.shape[:2])}, one a pose")
    logits = poses.new_zeros(poses.shape[:2]) if shares is None else shares.to(poses).clamp_min(1e-6).log()
    bodies = plausibility = reprojection = None
    if prior is not None:
        bodies = bodies_of(poses.flatten(0, 1), layout, prior, body=body, generator=generator, max_batch=max_batch)
        plausibility = prior.plausibility(bodies.pose_body).score.view_as(logits).to(poses)
        logits = logits + trust * (plausibility / 100).clamp_min(LEAST).log()
    if keypoints is not None and lens is not None:
        reprojection = missed(poses, keypoints, lens, confidence, root)
        scale = lens.focal.mean(-1)[..., None].to(poses) * _PER_FOCAL if pixels is None else pixels
        logits = logits - (reprojection / scale).square() / 2
    weights = logits.softmax(-1)
    return Ranking(weights, weights.argsort(dim=-1, descending=True, stable=True), plausibility, reprojection, bodies)


def missed(poses: Tensor, keypoints: Tensor, lens: Lens, confidence: Tensor | None = None, root: Tensor | None = None) -> Tensor:
    """e = √(Σ_j c_j |Π(x_j + r) − k_j|² / Σ_j c_j): (F, K, J, 3) and keypoints (F, J, 2) → (F, K); 0 where nothing is seen.

    Each pose is first put where it fits best, unless a ``root`` (F, 3) is given.
    """
    h = poses.transpose(0, 1)
    root = solve_root(h, keypoints, lens, confidence) if root is None else root
    seen = torch.ones_like(keypoints[..., 0]) if confidence is None else confidence.to(keypoints)
    places = torch.where(seen[..., None] > 0, keypoints, 0)
    squares = reprojection_error(h, root, places, lens).square() * seen
    return (squares.sum(-1) / seen.sum(-1).clamp_min(1e-9)).sqrt().T


def bodies_of(
    poses: Tensor,
    layout: Layout,
    prior: PosePrior | None = None,
    *,
    body: BodyModel | None = None,
    fit_shape: bool = True,
    generator: torch.Generator | None = None,
    max_batch: int = _MAX_BATCH,
) -> MotionFit:
    """SMPL-X bodies laid into poses of joints, each for itself, in the axes of the poses.

    Args:
        poses: (N, J, 3) metres, wherever they are.
        layout: of the J joints.
        prior: decides what joints leave open, such as the turn of a forearm; None: nothing does.
        body: None takes the open body.
        fit_shape: whether each has a shape of its own; else the mean one.
        generator: source of the prior's noise.
        max_batch: poses that are solved for at once.

    Returns:
        as of :func:`~dposer.solvers.fit_joints`, with betas (N, S).

    Raises:
        InputError: wrong shapes, or joints that the body does not have.
    """
    parts = [
        fit_joints(some, layout, prior, body=body, fit_shape=fit_shape, noise_std=FIT_NOISE, generator=generator)
        for some in poses.split(max_batch)
    ]
    every: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in _TENSORS}
    return replace(parts[0], **every)


def _check(poses: Tensor, layout: Layout) -> None:
    if poses.ndim != 4 or poses.shape[2:] != (len(layout.joints), 3) or 0 in poses.shape:
        raise InputError(f"poses: shape {tuple(poses.shape)}, expected (frames, poses, {len(layout.joints)}, 3) of {layout.name}")
    if not bool(poses.isfinite().all()):
        raise InputError("poses: hold NaN or infinity, expected metres; leave those frames out")
