"""Motion denoising: noisy, partly hidden 3D joints of a sequence → its body poses.

The experiment of DPoser (arXiv 2312.05541), section 4: y = J(θ) + σ z is given for the first 22 joints, the root and the shape
are known, θ is sought. The library's own solver is of second order, :mod:`dposer.solvers.motion_fitting`; the published optimiser is
:mod:`dposer.solvers.motion_adam`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dposer.body.model import BodyModel, default_body
from dposer.body.skeleton import BODY_JOINTS
from dposer.diffusion.schedule import gaussian_like
from dposer.errors import InputError
from dposer.prior.pose_prior import PosePrior, Progress
from dposer.solvers.motion_adam import AdamSettings, ObservedMotion, denoising_settings, smooth_poses, solve_adam
from dposer.solvers.motion_fitting import NewtonSettings, solve_newton

__all__ = ["AdamSettings", "MotionSettings", "NewtonSettings", "denoise_motion", "denoising_settings", "simulate", "smooth_poses"]

JOINTS = len(BODY_JOINTS) + 1

MotionSettings = AdamSettings | NewtonSettings
"""Settings of either solver."""

_SOLVERS: Mapping[type, Callable[..., Tensor]] = {AdamSettings: solve_adam, NewtonSettings: solve_newton}
"""By their settings: called as ``solve(motion, prior, body, settings, generator, progress)`` → (B, F, 63)."""


def denoise_motion(
    prior: PosePrior | None,
    joints: Tensor,
    *,
    visible: Tensor | None = None,
    noise_std: float | None = None,
    settings: MotionSettings | None = None,
    body: BodyModel | None = None,
    root_orient: Tensor | None = None,
    trans: Tensor | None = None,
    betas: Tensor | None = None,
    fps: float = 30.0,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Body poses of a sequence, or of a batch of them, from noisy joints.

    Args:
        prior: None solves without any.
        joints: (F, 22, 3) or (B, F, 22, 3) in metres: pelvis and the 21 body joints. What is NaN was not observed.
        visible: bool, of what was observed: (22,), (F, 22) or (B, F, 22). None: all that is not NaN.
        noise_std: of the measurement in metres, for the second-order solver; None: estimated from the joints.
        settings: None takes the second-order solver's; those of the releases and the paper are :func:`denoising_settings`.
        body: None takes the open body.
        root_orient: (3,), (F, 3) or (B, F, 3) axis-angle; trans likewise, metres; betas (n,), (F, n) or (B, F, n). None: zero.
        fps: frames per second, by which the second-order solver weighs movement; the published settings are meant for a frame as it is.
        generator: source of all noise.
        progress: called as ``progress(done, total)`` after every step.

    Returns:
        (F, 63) or (B, F, 63) axis-angle in radians, on the device of the body.

    Raises:
        InputError: wrong shapes, a placement that is not finite, a fragment of which nothing was observed, settings of an unknown
            kind, or a body that is not where the prior is.
    """
    body = body or default_body(prior.device if prior is not None else joints.device)
    if prior is not None and prior.device != body.device:
        raise InputError(f"the prior is on {prior.device} and the body on {body.device}, expected one device; move one of them")
    if noise_std is not None and not 0 <= noise_std < math.inf:
        raise InputError(f"noise_std = {noise_std}, expected a standard deviation in metres, 0 or more")
    settings = settings or NewtonSettings()
    if type(settings) not in _SOLVERS:
        known = ", ".join(kind.__name__ for kind in _SOLVERS)
        raise InputError(f"settings: found {type(settings).__name__}, expected {known}")
    motion = _observed(joints, visible, body, {"root_orient": root_orient, "trans": trans, "betas": betas}, fps, noise_std)
    poses = _SOLVERS[type(settings)](motion, prior, body, settings, generator, progress)
    return poses if joints.ndim == 4 else poses[0]


def simulate(joints: Tensor, noise_std: float, generator: torch.Generator | None = None) -> Tensor:
    """y = J + σ z: joints (..., 3) in metres as a sensor with noise of ``noise_std`` metres would see them.

    Raises:
        InputError: a standard deviation that is negative or not finite.
    """
    if not 0 <= noise_std < math.inf:
        raise InputError(f"noise_std = {noise_std}, expected a standard deviation in metres, 0 or more")
    return joints + noise_std * gaussian_like(joints, generator)


def _observed(
    joints: Tensor, visible: Tensor | None, body: BodyModel, placement: Mapping[str, Tensor | None], fps: float, noise_std: float | None
) -> ObservedMotion:
    """Check and move the inputs."""
    if joints.ndim not in (3, 4) or joints.shape[-2:] != (JOINTS, 3) or joints.numel() == 0:
        raise InputError(f"joints: shape {tuple(joints.shape)}, expected (frames, {JOINTS}, 3) or (fragments, frames, {JOINTS}, 3)")
    joints = joints if joints.ndim == 4 else joints[None]
    joints = joints.to(body.device, body.dtype)
    seen = joints.isfinite().all(-1)
    if visible is not None:
        if visible.dtype != torch.bool:
            raise InputError(f"visible: dtype {visible.dtype}, expected bool, True where a joint was observed")
        seen = seen & _broadcast(visible, seen.shape, "visible").to(body.device)
    if not bool(seen.any(-1).any(-1).all()):
        empty = int((~seen.any(-1).any(-1)).nonzero()[0])
        raise InputError(f"joints: of fragment {empty} none was observed, expected some that are visible and not NaN; leave it out")
    given: dict[str, Any] = {}
    for name, value in placement.items():
        if value is not None:
            if not bool(value.isfinite().all()):
                raise InputError(f"{name}: holds NaN or infinity, expected finite numbers; fill those frames")
            shape = torch.Size((*joints.shape[:2], value.shape[-1] if value.ndim else 3))
            given[name] = _broadcast(value, shape, name).to(body.device, body.dtype).flatten(0, 1)
    return ObservedMotion(torch.where(seen[..., None], joints, 0), seen, given, fps, noise_std)


def _broadcast(value: Tensor, shape: torch.Size, name: str) -> Tensor:
    """``value`` expanded along leading dimensions; of a batch of frames (F, ...) every fragment gets the same."""
    if value.ndim not in (1, 2, 3) or value.shape != shape[-value.ndim :]:
        allowed = ", ".join(str(tuple(shape[-n:])) for n in (1, 2, 3))
        raise InputError(f"{name}: shape {tuple(value.shape)}, expected one of {allowed}")
    return value.expand(shape)
