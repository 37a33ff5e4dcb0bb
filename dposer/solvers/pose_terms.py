r"""Priors over poses as quadratics ½ (θ − c)ᵀ C (θ − c), what a second-order solver can take in.

The diffusion prior enters by a proximal step: with the pose blurred to the level σ̃ = σ(t)/α(t) of normalised space,

.. math:: -\nabla_{\tilde x} \log p_{\tilde\sigma}(\tilde x) = (\tilde x - \hat x_0) / \tilde\sigma^2, \qquad
          -\nabla^2_{\tilde x} \log p_{\tilde\sigma} \preceq 1 / \tilde\sigma^2,

so c = x̂₀ and C = κ / σ̃² is that energy's tangent quadratic from above. The gradient is the one of DPoser's regulariser (arXiv
2312.05541, eq. 8) with a weight that is that of Bayes' rule for κ = 1. Neighbouring frames of a motion tell the prior nearly the same
thing, so that κ there is well below 1, but for rotations that no measurement tells of.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from dposer.diffusion.schedule import gaussian_like
from dposer.prior.mixture import PoseMixture
from dposer.prior.pose_prior import PosePrior
from dposer.solvers.gauss_newton import Quadratic

PoseTerm = Callable[[Tensor, float], Quadratic]
"""Called with poses (F, B, 63) and how far the solver is, from 0 to 1."""


class EnergyTerm(Protocol):
    """A :data:`PoseTerm` that also compares poses that lie far apart."""

    def __call__(self, pose: Tensor, done: float) -> Quadratic: ...

    def energy(self, pose: Tensor) -> Tensor:
        """(F, B)."""
        ...


LEVELS = (1.0, 2.0, 3.0)
"""σ̃ of :meth:`DiffusionTerm.energy`; with lower ones starts were chosen less well on validation subjects, half of the keypoints missing."""


@dataclass(frozen=True)
class Anneal:
    """The level σ̃ falls geometrically from ``first`` to ``last``; the weight is κ."""

    first: float
    last: float
    weight: float
    unseen: float | None = None
    """κ of rotations that move no point that was ever measured; None: the same."""

    def times(self, factor: float) -> "Anneal":
        """The same levels, weights times ``factor``."""
        return Anneal(self.first, self.last, self.weight * factor, None if self.unseen is None else self.unseen * factor)

    def level(self, done: float) -> float:
        return self.first * (self.last / self.first) ** done


class DiffusionTerm:
    """The diffusion prior at falling levels.

    x̂₀ is the mean over noise z and −z, which frees it of the noise to first order; z is the same for all frames, so that it adds no
    jitter, and is drawn anew at each step.

    Args:
        prior: the pose prior.
        anneal: levels and weight.
        generator: source of the noise.
        seen: bool, what expands to (F, B, 63): which rotations move a point that was ever measured; None: all.
    """

    def __init__(self, prior: PosePrior, anneal: Anneal, generator: torch.Generator | None = None, seen: Tensor | None = None) -> None:
        self.prior, self.anneal, self.generator = prior, anneal, generator
        self.spread = spread(prior)
        self.weight = torch.full_like(self.spread, anneal.weight)
        if seen is not None and anneal.unseen is not None:
            self.weight = torch.where(seen, self.weight, anneal.unseen)

    @torch.no_grad()
    def __call__(self, pose: Tensor, done: float) -> Quadratic:
        level = self.anneal.level(done)
        t = self.prior.schedule.time(-math.log(level))
        frames = pose.flatten(0, 1)
        noise = gaussian_like(self.prior.normalizer.shift, self.generator).expand(len(frames), -1)
        clean = [self.prior.denoise(frames, t, sign * noise) for sign in (1, -1)]
        precision = self.weight / (level * self.spread) ** 2
        return Quadratic(((clean[0] + clean[1]) / 2).view_as(pose).to(pose), precision.to(pose))

    @torch.no_grad()
    def energy(self, pose: Tensor) -> Tensor:
        r"""(F, B): :math:`\tfrac{\kappa}{2} \|\tilde x - \hat x_0\|^2 / \tilde\sigma^2`, the mean over :data:`LEVELS`, by which poses that
        lie far apart are compared. The noise is the same at every call."""
        frames, generator = pose.flatten(0, 1), torch.Generator(self.prior.device).manual_seed(0)
        noise = gaussian_like(self.prior.normalizer.shift, generator).expand(len(frames), -1)
        total = torch.zeros_like(frames[:, 0])
        for level in LEVELS:
            t = self.prior.schedule.time(-math.log(level))
            for sign in (1, -1):
                away = (frames - self.prior.denoise(frames, t, sign * noise)) / (level * self.spread)
                total = total + away.square().sum(-1) / (4 * len(LEVELS))
        return self.anneal.weight * total.view(pose.shape[:-1])


class GaussianTerm:
    """κ times −log N(μ, Σ) of axis-angle poses.

    Args:
        mean: (63,) radians.
        covariance: (63, 63).
        weight: κ.
    """

    def __init__(self, mean: Tensor, covariance: Tensor, weight: float = 1.0) -> None:
        self.quadratic = Quadratic(mean, weight * torch.linalg.inv(covariance.double()).to(covariance))

    def __call__(self, pose: Tensor, done: float) -> Quadratic:
        return self.quadratic

    def energy(self, pose: Tensor) -> Tensor:
        """(F, B), up to a constant."""
        return 0.5 * ((pose - self.quadratic.centre) * self.quadratic.pull(pose)).sum(-1)


@dataclass(frozen=True)
class MixtureTerm:
    """κ times −log of the nearest component of a mixture of Gaussians, as SMPLify has it."""

    mixture: PoseMixture = field(repr=False)
    weight: float = 0.3
    """κ; this one gave the lowest errors of mesh fitting on validation subjects."""

    def __call__(self, pose: Tensor, done: float) -> Quadratic:
        rows = self.mixture.nearest(pose.flatten(0, 1)).view(pose.shape[:-1])
        return Quadratic(self.mixture.means[rows], self.weight * self.mixture.precisions[rows])

    def energy(self, pose: Tensor) -> Tensor:
        """(F, B)."""
        return self.weight * self.mixture.energy(pose.flatten(0, 1)).view(pose.shape[:-1])


def spread(prior: PosePrior) -> Tensor:
    """(63,) radians that one unit of normalised space stands for; the six numbers of rot6d move √(4/3) as far as the angle, on average."""
    scale = prior.normalizer.scale
    if prior.dim == 63:
        return scale
    return (scale.unflatten(0, (21, 6)).square().mean(1) * 3 / 4).sqrt().repeat_interleave(3)
