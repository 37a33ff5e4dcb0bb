"""How good denoised motions are, by the protocol of the published tables, those tables, and a filter to compare with.

Source: DPoser (arXiv 2312.05541) and DPoser-X (arXiv 2508.00599), sections on motion denoising.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from scipy.signal import savgol_filter
from torch import Tensor

from dposer.body.model import BodyModel
from dposer.errors import InputError
from dposer.metrics.poses import acceleration_error, distances, jitter, mpjpe, mpvpe
from dposer.prior.pose_prior import PosePrior, Progress
from dposer.solvers.completion_scores import now
from dposer.solvers.motion_denoising import MotionSettings, denoise_motion
from dposer.solvers.stored import Stored

PUBLISHED: Mapping[tuple[str, str], Mapping[str, Mapping[str, float]]] = {
    ("AMASS", "20 mm"): {"DPoser": {"MPJPE": 13.64}, "no prior": {"MPJPE": 15.33}},
    ("AMASS", "40 mm"): {
        "DPoser": {"MPJPE": 19.87, "MPVPE": 38.21},
        "no prior": {"MPJPE": 24.19},
        "VPoser": {"MPJPE": 23.42},
        "Pose-NDF": {"MPJPE": 22.13},
        "HuMoR": {"MPJPE": 22.69},
    },
    ("AMASS", "100 mm"): {"DPoser": {"MPJPE": 33.18}, "no prior": {"MPJPE": 51.48}},
    ("HPS", "20 mm"): {"DPoser": {"MPJPE": 13.45}, "no prior": {"MPJPE": 16.26}},
    ("HPS", "40 mm"): {
        "DPoser": {"MPJPE": 20.54},
        "no prior": {"MPJPE": 23.67},
        "VPoser": {"MPJPE": 22.78},
        "Pose-NDF": {"MPJPE": 21.60},
    },
    ("HPS", "100 mm"): {"DPoser": {"MPJPE": 35.32}, "no prior": {"MPJPE": 50.87}},
    ("AMASS", "legs"): {
        "DPoser": {"vis_MPJPE": 2.8, "inv_MPJPE": 122.4, "MPJPE": 46.3, "MPVPE": 36.5},
        "no prior": {"vis_MPJPE": 2.6, "inv_MPJPE": 147.2, "MPJPE": 55.2, "MPVPE": 54.5},
    },
    ("AMASS", "left_arm"): {
        "DPoser": {"vis_MPJPE": 2.7, "inv_MPJPE": 78.0, "MPJPE": 16.4, "MPVPE": 38.1},
        "no prior": {"vis_MPJPE": 2.6, "inv_MPJPE": 248.7, "MPJPE": 47.4, "MPVPE": 99.1},
    },
}
"""Fragments of 60 frames, (data, noise of all joints or the part that is hidden from clean ones) → method → mm.
AMASS is its HumanEva subset; every prior was trained on AMASS."""


def published_figures(dataset: str, noise_std: float, part: str | None = None) -> Mapping[str, Mapping[str, float]]:
    """What :data:`PUBLISHED` tells of noise of ``noise_std`` metres, or of a hidden part without noise; empty where nothing was."""
    if part is not None and noise_std != 0:
        return {}
    return PUBLISHED.get((dataset, part or f"{1000 * noise_std:g} mm"), {})


FIGURES = ("init_MPJPE", "MPJPE", "MPVPE", "vis_MPJPE", "inv_MPJPE", "acceleration error", "jitter", "true jitter", "ms")
"""Of :meth:`DenoisingScores.report`: errors in mm, their acceleration in mm/frame², jerks in mm/frame³, the solver's ms per fragment."""


@dataclass(frozen=True)
class DenoisingScores(Stored):
    """Of N fragments, (N,) each, in mm and frames; NaN where there is nothing to measure."""

    frames: Tensor
    """How many there are in each fragment."""
    init_mpjpe: Tensor
    """Of what was observed."""
    mpjpe: Tensor
    """Over all 22 joints, no alignment."""
    mpvpe: Tensor
    """Over all vertices."""
    visible_mpjpe: Tensor
    """Over the joints that were observed."""
    occluded_mpjpe: Tensor
    """Over those that were not."""
    acceleration_error: Tensor
    """mm/frame²."""
    jitter: Tensor
    """Of the result, mm/frame³."""
    true_jitter: Tensor
    """Of the truth."""
    ms: Tensor
    """Of the solver, for each fragment its share of the batch."""

    def per_fragment(self) -> dict[str, Tensor]:
        """By the names of :data:`FIGURES`, (N,) each."""
        return dict(zip(FIGURES, list(vars(self).values())[1:], strict=True))

    def report(self) -> dict[str, float]:
        """Means over all frames of all fragments, of ``ms`` over fragments; fragments without a value are left out of its mean."""
        report = {name: _mean(values, self.frames) for name, values in self.per_fragment().items()}
        return report | {"ms": _mean(self.ms, torch.ones_like(self.frames))}


def _mean(values: Tensor, weights: Tensor) -> float:
    there = values.isfinite()
    return float((values[there] * weights[there]).sum() / weights[there].sum()) if bool(there.any()) else math.nan


def joint_scores(found: Tensor, truth: Tensor, observed: Tensor, visible: Tensor | None = None) -> DenoisingScores:
    """Scores of joints alone, whose vertices nobody knows.

    Args:
        found, truth, observed: (N, F, 22, 3) metres; what is not finite in ``observed`` was not observed.
        visible: bool, of what was observed: (22,), (F, 22) or (N, F, 22).
    """
    seen = observed.isfinite().all(-1)
    seen = seen if visible is None else seen & visible.to(seen.device)
    errors, frames = distances(found, truth), found.shape[1]
    nowhere = errors.new_full((len(errors),), math.nan)
    return DenoisingScores(
        frames=torch.full_like(nowhere, frames),
        init_mpjpe=1000 * _mean_where(seen, distances(torch.where(seen[..., None], observed, 0), truth)),
        mpjpe=1000 * mpjpe(found, truth).mean(-1),
        mpvpe=nowhere,
        visible_mpjpe=1000 * _mean_where(seen, errors),
        occluded_mpjpe=1000 * _mean_where(~seen, errors),
        acceleration_error=1000 * acceleration_error(found, truth) if frames > 2 else nowhere,
        jitter=1000 * jitter(found) if frames > 3 else nowhere,
        true_jitter=1000 * jitter(truth) if frames > 3 else nowhere,
        ms=nowhere,
    )


def _mean_where(chosen: Tensor, values: Tensor) -> Tensor:
    """Mean over frames and joints (N, F, J) of the chosen, NaN where none is."""
    return (values * chosen).sum((1, 2)) / chosen.sum((1, 2))


@torch.no_grad()
def denoising_scores(
    body: BodyModel, found: Tensor, poses: Tensor, observed: Tensor, visible: Tensor | None = None, chunk: int = 500
) -> DenoisingScores:
    """Scores of poses: no alignment, root, translation and shape at zero.

    Args:
        found, poses: (N, F, 63) the result and the truth.
        observed: (N, F, 22, 3) metres; visible: see :func:`joint_scores`.
        chunk: bodies posed at once.
    """
    joints, errors = [], []
    for pair in zip(found.flatten(0, 1).split(chunk), poses.flatten(0, 1).split(chunk), strict=True):
        guess, truth = (body(some.to(body.device), joints="body") for some in pair)
        assert guess.vertices is not None and truth.vertices is not None
        joints.append(torch.stack((guess.joints, truth.joints)))
        errors.append(mpvpe(guess.vertices, truth.vertices))
    guesses, truths = torch.cat(joints, dim=1).unflatten(1, found.shape[:2])
    surface = 1000 * torch.cat(errors).view(found.shape[:2]).mean(1)
    return dataclasses.replace(joint_scores(guesses, truths, observed.to(guesses), visible), mpvpe=surface)


# ---- the experiment ----------------------------------------------------------------------------------------------------

Solve = Callable[[Tensor, Tensor | None, torch.Generator | None, Progress | None], Tensor]
"""Called as ``solve(observed, visible, generator, progress)``: (N, F, 22, 3) → poses (N, F, 63)."""


def solver(prior: PosePrior | None, body: BodyModel, noise_std: float, settings: MotionSettings | None = None) -> Solve:
    """:func:`dposer.solvers.motion_denoising.denoise_motion` with one prior and one kind of settings."""

    def solve(observed: Tensor, visible: Tensor | None, generator: torch.Generator | None, progress: Progress | None) -> Tensor:
        return denoise_motion(
            prior, observed, visible=visible, noise_std=noise_std, settings=settings, body=body, generator=generator, progress=progress
        )

    return solve


def evaluate_denoising(
    body: BodyModel,
    poses: Tensor,
    observed: Tensor,
    solve: Solve,
    visible: Tensor | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> DenoisingScores:
    """Solve for the poses (N, F, 63) that joints (N, F, 22, 3) were measured of, and score what is found.

    Args:
        observed: such as :func:`dposer.solvers.motion_denoising.simulate` makes; what is NaN was not observed.
        solve: see :func:`solver`.
        visible: bool, of what was observed: (22,), (F, 22) or (N, F, 22).
    """
    start = now(body.device)
    found = solve(observed, visible, generator, progress)
    ms = 1000 * (now(body.device) - start) / len(poses)
    scores = denoising_scores(body, found, poses, observed, visible)
    return dataclasses.replace(scores, ms=torch.full_like(scores.frames, ms))


# ---- a filter ----------------------------------------------------------------------------------------------------------


def savitzky_golay(joints: Tensor, window: int, order: int = 2) -> Tensor:
    """Baseline: each coordinate's least-squares polynomial over ``window`` frames about each frame, (..., F, 22, 3) to the same.

    It knows no body, so that its joints can be scored (:func:`joint_scores`), but no pose follows from them.

    Source: Savitzky and Golay, Analytical Chemistry 36, 1964.

    Raises:
        InputError: a window that is even, longer than the motion, or not longer than the order; joints that are not finite.
    """
    if window % 2 == 0 or not order < window <= joints.shape[-3]:
        raise InputError(f"window = {window}, expected an odd number above the order {order} and up to {joints.shape[-3]} frames")
    if not bool(joints.isfinite().all()):
        raise InputError("joints: hold NaN or infinity, which a filter cannot fill; expected finite joints")
    return torch.as_tensor(savgol_filter(joints.cpu().numpy(), window, order, axis=-3)).to(joints)


def best_window(observed: Tensor, truth: Tensor, order: int = 2, longest: int = 31) -> int:
    """The window whose :func:`savitzky_golay` of ``observed`` has the lowest MPJPE to ``truth``, (..., F, 22, 3) both.

    Raises:
        InputError: a motion too short for any window.
    """
    windows = range(order + 1 + order % 2, min(longest, observed.shape[-3]) + 1, 2)
    if not windows:
        raise InputError(
            f"a motion of {observed.shape[-3]} frames is too short for a window of order {order}; expected at least {order + 1}"
        )
    return min(windows, key=lambda window: float(mpjpe(savitzky_golay(observed, window, order), truth).mean()))
