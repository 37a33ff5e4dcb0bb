r"""Motion from 3D joints by first-order optimisation, as DPoser's releases and its paper have it.

Over the axis-angles θ of F frames, minimise by Adam, in rounds of falling faith in the measurement,

.. math:: \frac{w_d}{22 F} \sum_{f,j} m_{fj} \|J_{fj}(\theta) - y_{fj}\| + \frac{w_s}{(F - 1) N} \sum_{f,n} \|p_{fn} - p_{f+1,n}\|
          + \frac{w_p}{F} \sum_f w(t) \|\tilde x_f - \hat x_{0,f}\|^2

m marks what was observed, p are the joints or the vertices, x̃ the normalised pose and x̂₀ its denoised version, a constant.
Source: Lu et al., DPoser (arXiv 2312.05541), section 4 and released code; DPoser-X (arXiv 2508.00599).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from dposer.body.model import BodyModel
from dposer.diffusion.schedule import gaussian_like
from dposer.errors import InputError
from dposer.prior.pose_prior import Form, PosePrior, Progress, Weighting
from dposer.prior.timesteps import GridTimes, LinearTimes, Strategy, TimeStrategy, preset
from dposer.solvers.initial_poses import MEAN_POSE

Release = Literal["v1", "v2", "x", "paper"]
Dataset = Literal["AMASS", "HPS"]

_SPREAD = 0.01
"""Standard deviation of the start about its centre, radians."""


@dataclass(frozen=True)
class AdamSettings:
    """Settings of :func:`solve_adam`. Weights are given for each round; there are as many rounds as weights."""

    time: TimeStrategy
    data_weights: tuple[float, ...] = (100.0, 50.0, 20.0)
    """w_d: 100 / (1 + i²) in round i."""
    temporal_weights: tuple[float, ...] = (10.0, 20.0, 30.0)
    """w_s; a round with 0 does not compute the term."""
    prior_weights: tuple[float, ...] = (0.1, 0.2, 0.3)
    """w_p."""
    inner_steps: int = 60
    """Steps a round."""
    start: Literal["zeros", "mean"] = "mean"
    """The pose that all frames start about: zero, or the mean pose."""
    lr: float = 0.03
    eps: float = 1e-8
    """Of Adam."""
    temporal_on: Literal["joints", "vertices"] = "joints"
    """Whose movement is penalised. Vertices pose the whole mesh at every step."""
    weighting: Weighting = "plain"
    form: Form = "residual"
    """The other, "red-diff", descends (σ/α) ⟨sg(ε̂ − z), x̃⟩ whatever the weighting; with plain weights both have one gradient."""
    smooth: tuple[int, float] | None = None
    """Width and σ in frames of :func:`smooth_poses`, applied to the result."""

    def __post_init__(self) -> None:
        if not len(self.data_weights) == len(self.temporal_weights) == len(self.prior_weights) > 0:
            raise InputError(
                f"weights: {len(self.data_weights)} of data, {len(self.temporal_weights)} temporal and {len(self.prior_weights)} of the "
                "prior, expected one of each a round"
            )


# ---- the releases ------------------------------------------------------------------------------------------------------

_LEVELS = (0.02, 0.04, 0.1)
"""Noise in metres that the releases have settings for."""
_STEPS = (40, 60, 80)
_PARTIAL = {"legs": 0.4, "left_arm": 0.2, "right_body": 0.3}
"""Weight of the prior where a part is hidden."""
_OTHERS = 0.3


def denoising_settings(
    release: Release = "paper",
    noise_std: float = 0.04,
    part: str | None = None,
    strategy: Strategy = "3",
    dataset: Dataset = "AMASS",
) -> AdamSettings:
    """The settings of a release for noise of ``noise_std`` metres, or for joints that are hidden and others seen without noise.

    v1 starts at zero, smooths the result and has the temporal term on vertices; v2 starts at the mean pose; x is v2 with times of
    DPoser-X; paper has the temporal term on joints and the paper's times, else it is v2. Releases know 20, 40 and 100 mm: between
    these, steps and times are linear in the noise (of v1's grid: the reciprocal of the truncation and the fixed index), beyond
    them constant.

    Args:
        part: what is hidden; "legs", "left_arm" and "right_body" have settings of their own, any other name the rest's. Those
            are for clean joints: with noise the settings are those of the noise.
        strategy: of times, '1' random, '2' fixed or '3' truncated annealing.
        dataset: HPS has a lighter prior in v2 and after.

    Raises:
        InputError: no such release, negative noise, or hidden joints with v1, which knows none.
    """
    if release not in get_args(Release):
        raise InputError(f"release '{release}' does not exist, expected one of {', '.join(get_args(Release))}")
    if not 0 <= noise_std < math.inf:
        raise InputError(f"noise_std = {noise_std}, expected a standard deviation in metres, 0 or more")
    temporal_on: Literal["joints", "vertices"] = "joints" if release == "paper" else "vertices"
    if part is not None and release == "v1":
        raise InputError("release 'v1' has no settings for hidden joints; take v2, x or paper")
    if part is not None and noise_std == 0:
        times = preset("v2", "partial_legs" if part == "legs" else "partial", strategy)
        weight = _PARTIAL.get(part, _OTHERS)
        return AdamSettings(
            times,
            data_weights=(100.0, 100.0, 100.0),
            temporal_weights=(0.0, 0.0, 20.0),
            prior_weights=(weight, 2 * weight, 3 * weight),
            inner_steps=80,
            start="zeros",
            eps=1e-6,
            temporal_on=temporal_on,
            weighting="sqrt(1+snr)",
            smooth=(5, 3.0),
        )
    first = release == "v1"
    light = (0.1 if first else 0.5) if strategy == "1" else 0.5 if dataset == "HPS" and not first else 1.0
    return AdamSettings(
        _times(release, noise_std, strategy),
        prior_weights=(0.1 * light, 0.2 * light, 0.3 * light),
        inner_steps=round(_between(noise_std, _STEPS)),
        start="zeros" if first else "mean",
        temporal_on=temporal_on,
        smooth=(3, 2.0) if first else None,
    )


def _times(release: Release, noise_std: float, strategy: Strategy) -> TimeStrategy:
    known = [preset(release, f"denoise{round(1000 * level)}", strategy) for level in _LEVELS]
    grids, lines = [t for t in known if isinstance(t, GridTimes)], [t for t in known if isinstance(t, LinearTimes)]
    if grids:
        truncation = 1 / _between(noise_std, [1 / grid.truncation for grid in grids])
        index = _between(noise_std, [grid.fixed_index for grid in grids])
        return dataclasses.replace(grids[0], truncation=round(truncation), fixed_index=round(index))
    high, low, fixed = (_between(noise_std, [getattr(line, name) for line in lines]) for name in ("t_max", "t_min", "t_fixed"))
    return dataclasses.replace(lines[0], t_max=high, t_min=low, t_fixed=fixed)


def _between(noise_std: float, values: Sequence[float]) -> float:
    return float(np.interp(noise_std, _LEVELS, values))


# ---- the solver --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ObservedMotion:
    """B fragments of F frames, and what is known of them, on the device and in the precision of the body."""

    joints: Tensor
    """(B, F, 22, 3) metres; finite also where nothing was observed."""
    visible: Tensor
    """(B, F, 22) bool: what was observed."""
    placement: Mapping[str, Tensor] = field(default_factory=dict)
    """What is given of root_orient, trans and betas, (B F, width) each, as the body takes it."""
    fps: float = 30.0
    """Frames per second."""
    noise_std: float | None = None
    """Of the measurement, metres; None: not known."""


def solve_adam(
    motion: ObservedMotion,
    prior: PosePrior | None,
    body: BodyModel,
    settings: AdamSettings,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Poses (B, F, 63) of all fragments at once; but for the noise that is drawn, each as if it were alone."""
    total = len(settings.data_weights) * settings.inner_steps
    times = settings.time.times(total, generator).tolist()
    poses = _start(motion, settings, generator).requires_grad_(True)
    optimizer = torch.optim.Adam([poses], lr=settings.lr, eps=settings.eps, fused=True)
    for step in range(total):
        poses.grad = motion_gradient(poses, motion, prior, body, settings, step // settings.inner_steps, times[step], generator)
        optimizer.step()
        if progress is not None:
            progress(step + 1, total)
    return smooth_poses(poses.detach(), *settings.smooth) if settings.smooth else poses.detach()


def motion_gradient(
    poses: Tensor,
    motion: ObservedMotion,
    prior: PosePrior | None,
    body: BodyModel,
    settings: AdamSettings,
    outer: int,
    t: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Gradient (B, F, 63) of the loss in round ``outer`` at ``poses``, summed over fragments.

    The prior's term enters by its own gradient, g = ∂L/∂x̃, as ⟨g, x̃⟩: no network is differentiated.
    """
    data, temporal, regulariser = (weights[outer] for weights in (settings.data_weights, settings.temporal_weights, settings.prior_weights))
    fragments, frames = poses.shape[:2]
    with torch.enable_grad():
        poses = poses.detach().requires_grad_(True)
        moving = temporal > 0 and frames > 1
        mesh = moving and settings.temporal_on == "vertices"
        out = body(poses.flatten(0, 1), vertices="all" if mesh else None, joints="body", **motion.placement)
        joints = out.joints.unflatten(0, (fragments, frames))
        misses = torch.linalg.vector_norm(joints - motion.joints, dim=-1) * motion.visible
        loss = data * misses.mean((1, 2)).sum()
        if moving:
            points = out.vertices.unflatten(0, (fragments, frames)) if mesh else joints
            loss = loss + temporal * torch.linalg.vector_norm(points.diff(dim=1), dim=-1).mean((1, 2)).sum()
        if prior is not None and regulariser > 0:
            x = prior.normalize(poses.flatten(0, 1))
            weighting: Weighting = "plain" if settings.form == "red-diff" else settings.weighting
            pull = prior.loss_gradient(x.detach(), t, generator=generator, weighting=weighting)
            loss = loss + regulariser / frames * (pull * x).sum()
        (gradient,) = torch.autograd.grad(loss, poses)
    return gradient.contiguous()  # fused Adam reads it in the order of memory


def _start(motion: ObservedMotion, settings: AdamSettings, generator: torch.Generator | None) -> Tensor:
    poses = motion.joints.new_zeros(*motion.joints.shape[:2], 63)
    if settings.start == "mean":
        poses = poses + poses.new_tensor(MEAN_POSE)
    return poses + _SPREAD * gaussian_like(poses, generator)


def smooth_poses(poses: Tensor, width: int = 3, sigma: float = 2.0) -> Tensor:
    """Σ_k g_k θ_{f+k} with g a Gaussian of ``sigma`` frames over ``width`` of them: (..., F, D) → (..., F, D).

    The first and the last ⌊width / 2⌋ frames are kept as they are. Axis-angles that jump by a turn are not for it.

    Raises:
        InputError: a width that is even or not positive, or a sigma that is not positive.
    """
    reach = width // 2
    if width < 1 or width % 2 == 0 or not sigma > 0:
        raise InputError(f"smoothing of width {width} and sigma {sigma}, expected an odd width and a positive sigma")
    if poses.shape[-2] < width:
        return poses
    offsets = torch.arange(-reach, reach + 1, device=poses.device, dtype=poses.dtype)
    kernel = (-0.5 * (offsets / sigma).square()).softmax(0)
    middle = (poses.unfold(-2, width, 1) * kernel).sum(-1)
    return torch.cat((poses[..., :reach, :], middle, poses[..., poses.shape[-2] - reach :, :]), dim=-2)
