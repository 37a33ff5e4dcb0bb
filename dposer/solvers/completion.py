"""Pose completion: hypotheses for the missing entries of a pose, by samples of p(missing | known) or by DPoser's optimiser.

The optimiser: min over x of w_d ‖M(x − y)‖² + w_p w(t) ‖x − x̂₀(x, t)‖², with no gradient through x̂₀. M keeps the known
entries, y is the observation, x̂₀ the denoised pose. Source: Lu et al., DPoser (arXiv 2312.05541), section 3.3 and
released code. The samplers: :mod:`dposer.diffusion.guidance`.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dposer.body.model import BodyModel, default_body
from dposer.diffusion.guidance import Method, Observation, guided_sample
from dposer.errors import InputError
from dposer.prior.pose_prior import PosePrior, Progress, Weighting, watched
from dposer.prior.timesteps import TimeStrategy, preset
from dposer.solvers.representatives import representatives

Mode = Literal["posterior", "DPoser", "ScoreSDE", "MCG", "DPS", "PiGDM", "RePaint", "SMC"]
"""posterior: the best sampler for the prior at hand, see :func:`sampling_settings`."""

_CHUNK = 8192
"""Hypotheses solved at once."""


@dataclass(frozen=True)
class CompletionSettings:
    """Settings of the optimiser; the defaults are those of the first release's evaluation, but for each hypothesis' own start."""

    time: TimeStrategy = preset("v1", "completion")
    outer_steps: int = 2
    inner_steps: int = 100
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    data_weight: float = 100.0
    prior_weight: float = 0.1
    denoise_steps: int = 1
    denoise_end: float | None = None
    """Where several denoising steps end; None: t / (2 denoise_steps)."""
    weighting: Weighting = "sqrt(1+snr)"
    start: Literal["noise", "zeros"] = "noise"
    """What stands for the missing entries at first, normalised: zeros are the mean training pose."""
    fresh_start: bool = True
    """Each hypothesis starts from its own noise; the releases start them all from the same."""
    reference: bool = False
    """The second release's "improved baseline": the residual is taken relative to that, under the same noise, of a pose whose missing
    entries are noise."""
    write_back: bool = True
    """Known entries are returned as given; False returns them as optimised, as the first release's demo does."""


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of :func:`dposer.diffusion.guidance.guided_sample`."""

    method: Method
    sampler: str = "ddim"
    steps: int = 100
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments: eta, corrector, scale, jacobian, resamples, particles, t_start, ..."""
    candidates: int = 1
    """Samples drawn for each hypothesis that is returned; of more than one, those are returned that stand best for all,
    see :func:`dposer.solvers.representatives.representatives`. 1 returns independent samples."""
    centrality: float = 0.3
    """What the mean error counts beside the minimum when hypotheses are chosen among candidates."""


_FIRST = CompletionSettings(fresh_start=False)
_SECOND = dataclasses.replace(_FIRST, time=preset("v2", "completion"), denoise_steps=10, denoise_end=1e-3)
COMPLETION_PRESETS: dict[str, CompletionSettings] = {
    "v1": _FIRST,
    "v1-demo": dataclasses.replace(_FIRST, time=preset("v1", "completion", "2"), write_back=False),
    "v2": _SECOND,
    "v2-demo": dataclasses.replace(_SECOND, reference=True),
    "x": dataclasses.replace(_FIRST, time=preset("x", "completion"), betas=(0.9, 0.99)),
    "paper": dataclasses.replace(_FIRST, time=preset("paper", "completion")),
}
"""The optimiser as each release ran it: the evaluation and the demo of the first, the second, DPoser-X, and the paper's text."""

_RELEASED = {"scale": 1.0, "jacobian": False, "per_sample": False, "limit": False}
PRESETS: dict[str, dict[str, CompletionSettings | SamplingSettings]] = {
    "DPoser": {**COMPLETION_PRESETS},
    "ScoreSDE": {"v2": SamplingSettings("ScoreSDE", "euler_maruyama", 1000)},
    "MCG": {"v2": SamplingSettings("MCG", "euler_maruyama", 1000, _RELEASED)},
    "DPS": {"v2": SamplingSettings("DPS", "euler_maruyama", 1000, _RELEASED)},
}
"""Mode → release → settings. The published MCG and DPS guide without the network's Jacobian, by one norm for the whole batch."""

_CANDIDATES, _FEW_STEPS = 10, 10
"""Of "posterior": 100 evaluations a hypothesis. Against fewer samples of more steps, and other weights of the mean error
(:attr:`SamplingSettings.centrality`), they gave the lowest minimum and mean error on validation subjects of the open corpus."""


def mode_settings(
    prior: PosePrior, mode: Mode, preset: str | None = None, steps: int | None = None
) -> CompletionSettings | SamplingSettings:
    """The settings of a mode: its own or those of a release (:data:`PRESETS`), with another number of steps where one is given.

    Raises:
        InputError: unknown mode, no such preset of it, steps that the rounds of the optimiser do not divide.
    """
    settings = resolved_settings(prior, mode)
    if preset is not None:
        if preset not in PRESETS.get(mode, {}):
            known = ", ".join(PRESETS.get(mode, {})) or "none"
            raise InputError(f"preset '{preset}': mode '{mode}' has no such settings, expected {known}")
        settings = PRESETS[mode][preset]
    if steps is None:
        return settings
    if isinstance(settings, SamplingSettings):
        return dataclasses.replace(settings, steps=steps)
    inner, rest = divmod(steps, settings.outer_steps)
    if rest or not inner:
        raise InputError(f"steps = {steps}, expected a multiple of {settings.outer_steps}, the rounds of DPoser's optimiser")
    return dataclasses.replace(settings, inner_steps=inner)


def replacement_settings(prior: PosePrior) -> SamplingSettings:
    """What "posterior" is for a prior that was not trained with masks."""
    noisy = {**prior.fast_window(), "spacing": "log_snr", "eta": 1.0}
    return SamplingSettings("ScoreSDE", "ddim", _FEW_STEPS, noisy, candidates=_CANDIDATES)


def sampling_settings(prior: PosePrior, mode: Mode) -> SamplingSettings:
    """A sampling mode's own settings.

    "posterior" takes the conditional of a prior that was trained with masks, else replacement, both in few steps, and
    returns the hypotheses that stand best for ten times as many samples.
    """
    noisy = {**prior.fast_window(), "spacing": "log_snr", "eta": 1.0}
    if mode == "posterior" and prior.masked:
        return SamplingSettings("inpainting", "dpm++", _FEW_STEPS, candidates=_CANDIDATES)
    if mode == "posterior":
        return replacement_settings(prior)
    if mode == "PiGDM":
        return SamplingSettings("PiGDM", "ddim", 50, noisy)
    if mode == "RePaint":
        return SamplingSettings("RePaint", "ddim", 20, {**noisy, "resamples": 10})
    if mode == "SMC":
        return SamplingSettings("SMC", steps=50, options={**prior.fast_window(), "particles": 8})
    if mode in ("MCG", "DPS"):
        return SamplingSettings(mode, "ddim", 100, {"eta": 1.0})
    return SamplingSettings("ScoreSDE", "euler_maruyama", 1000)


def complete(
    prior: PosePrior,
    pose: Tensor,
    missing: Tensor,
    hypotheses: int = 10,
    mode: Mode = "posterior",
    generator: torch.Generator | None = None,
    settings: CompletionSettings | SamplingSettings | None = None,
    progress: Progress | None = None,
    body: BodyModel | None = None,
) -> Tensor:
    """Complete poses whose ``missing`` entries are unknown; known ones are returned bit for bit.

    Args:
        prior: the pose prior.
        pose: (batch, 63) axis-angle in radians; the values at missing entries are never read.
        missing: bool, of joints (21,) or (batch, 21), or of single axes (63,) or (batch, 63).
        hypotheses: completions per pose, all solved in one batch.
        mode: who solves it.
        generator: source of all noise, on the device of the prior.
        settings: None takes the mode's own; :class:`CompletionSettings` for DPoser, else :class:`SamplingSettings`.
        progress: called as ``progress(done, total)`` after every step.
        body: whose joints tell how far apart candidates are; None: the open body.

    Returns:
        (batch, hypotheses, 63) axis-angle in radians.

    Raises:
        InputError: wrong shapes, NaN in a known entry, nothing or everything missing, no hypotheses, single axes with a
            prior that has no axes (rot6d), settings of another mode or that the sampler refuses.
    """
    if hypotheses < 1:
        raise InputError(f"hypotheses = {hypotheses}, expected at least 1")
    settings = resolved_settings(prior, mode, settings)
    pose, hidden = _observation(prior, pose, missing)
    known = ~_normalized_mask(prior, hidden)
    observed = torch.where(known, prior.normalize(torch.where(hidden, 0, pose)), 0)
    candidates = 1 if isinstance(settings, CompletionSettings) else settings.candidates
    draws = hypotheses * candidates
    size = max(1, _CHUNK // draws)
    chunks = list(zip(observed.split(size), known.split(size), strict=True))
    parts: list[Tensor] = []
    for i, (values, mask) in enumerate(chunks):
        task = Observation(*(part.repeat_interleave(draws, dim=0) for part in (mask, values)))
        watch = None if progress is None else watched(progress, i, len(chunks))
        if isinstance(settings, CompletionSettings):
            parts.append(_optimise(prior, task, hypotheses, settings, generator, watch))
        else:
            parts.append(_sample(prior, task, settings, generator, watch))
    result = prior.denormalize(torch.cat(parts)).view(len(pose), draws, 63)
    if candidates > 1:
        result = _chosen(result, hypotheses, settings.centrality, body or default_body(prior.device))  # type: ignore[union-attr]
    if isinstance(settings, CompletionSettings) and not settings.write_back:
        return result
    return torch.where(hidden[:, None], result, pose[:, None])


@torch.no_grad()
def _chosen(candidates: Tensor, count: int, centrality: float, body: BodyModel) -> Tensor:
    """The ``count`` of the candidates (batch, N, 63) that stand best for all, by root mean square distance of joints."""
    picked = []
    for some in candidates.split(max(1, _CHUNK // candidates.shape[1])):
        joints = body(some.flatten(0, 1).to(body.device), vertices=None, joints="body").joints
        places = joints.reshape(*some.shape[:2], -1).to(some)
        index = representatives(torch.cdist(places, places), count, centrality)
        picked.append(some.take_along_dim(index[..., None], dim=1))
    return torch.cat(picked)


Watch = Callable[[Iterable[int]], Iterable[int]]


@torch.no_grad()
def _optimise(
    prior: PosePrior,
    task: Observation,
    hypotheses: int,
    settings: CompletionSettings,
    generator: torch.Generator | None,
    watch: Watch | None,
) -> Tensor:
    """Adam on the gradient written out: the stop-gradient makes ∇w‖x − x̂₀‖² = 2w(x − x̂₀), so nothing is taped."""
    y, keep = task.value, task.known
    total = settings.outer_steps * settings.inner_steps
    times = settings.time.times(total, generator).tolist()
    x = task.write(_start(y, hypotheses, settings, generator)).requires_grad_(True)
    optimizer = torch.optim.Adam([x], lr=settings.lr, betas=settings.betas, fused=True)
    options: dict[str, Any] = {"steps": settings.denoise_steps, "t_end": settings.denoise_end, "weighting": settings.weighting}
    for step in (watch or iter)(range(total)):
        outer = step // settings.inner_steps
        data, regulariser = settings.data_weight / (1 + outer), settings.prior_weight * (1 + outer)
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        pull = prior.loss_gradient(x, times[step], noise, **options)
        if settings.reference:
            reference = task.write(torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype))
            pull = pull - prior.loss_gradient(reference, times[step], noise, **options)
        x.grad = (data * 2 * keep * (x - y) + regulariser * pull) / x.shape[-1]
        optimizer.step()
    return task.write(x) if settings.write_back else x.detach()


def _start(y: Tensor, hypotheses: int, settings: CompletionSettings, generator: torch.Generator | None) -> Tensor:
    if settings.start == "zeros":
        return torch.zeros_like(y)
    poses = y if settings.fresh_start else y[::hypotheses]
    noise = torch.randn(poses.shape, generator=generator, device=y.device, dtype=y.dtype)
    return noise if settings.fresh_start else noise.repeat_interleave(hypotheses, dim=0)


def _sample(
    prior: PosePrior, task: Observation, settings: SamplingSettings, generator: torch.Generator | None, watch: Watch | None
) -> Tensor:
    z = prior.schedule.sample_prior(task.value.shape, generator, prior.device, prior.dtype)
    with prior.checked_sampling(settings.sampler, settings.options, guided_sample) as options:
        return guided_sample(
            prior.denoiser, z, task, settings.method, sampler=settings.sampler, steps=settings.steps, generator=generator,
            progress=watch, **options,
        )  # fmt: skip


def resolved_settings(
    prior: PosePrior, mode: Mode, settings: CompletionSettings | SamplingSettings | None = None
) -> CompletionSettings | SamplingSettings:
    """``settings`` if they fit the mode and the prior; for None the mode's own.

    Raises:
        InputError: unknown mode, settings of another one, or of masks with a prior that has learned none.
    """
    if mode not in get_args(Mode):
        raise InputError(f"mode '{mode}' does not exist, expected one of {', '.join(get_args(Mode))}")
    own: CompletionSettings | SamplingSettings
    own = CompletionSettings() if mode == "DPoser" else sampling_settings(prior, mode)
    settings = own if settings is None else settings
    if type(settings) is not type(own):
        raise InputError(f"settings for mode '{mode}': found {type(settings).__name__}, expected {type(own).__name__}")
    if isinstance(settings, SamplingSettings) and settings.method == "inpainting" and not prior.masked:
        raise InputError(
            "inpainting: these weights were not trained with masks; take another mode, or teach them (configs/subvp/open_masked.py)"
        )
    return settings


def _observation(prior: PosePrior, pose: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
    """Check and move the inputs; returns the pose and what is missing of it, both (batch, 63)."""
    if pose.ndim != 2 or pose.shape[1] != 63 or len(pose) == 0:
        raise InputError(f"pose: shape {tuple(pose.shape)}, expected (batch, 63) axis-angle")
    if missing.dtype != torch.bool or missing.shape not in [(*batch, size) for batch in ((), (len(pose),)) for size in (21, 63)]:
        found = f"{missing.dtype} of shape {tuple(missing.shape)}"
        raise InputError(f"missing: {found}, expected bool of shape (21,), (63,), ({len(pose)}, 21) or ({len(pose)}, 63)")
    pose = pose.to(prior.device, prior.dtype)
    hidden = missing.to(prior.device).repeat_interleave(63 // missing.shape[-1], dim=-1).expand(len(pose), 63)
    counts = hidden.sum(1)
    wrong = (counts == 0) | (counts == 63)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        what = "no joint" if counts[row] == 0 else "every joint"
        raise InputError(f"missing: marks {what} of pose {row}, expected some of the 21; use prior.sample() for free poses")
    bad = ~torch.isfinite(pose) & ~hidden
    if bool(bad.any()):
        row, column = (int(i) for i in bad.nonzero()[0])
        raise InputError(f"pose: row {row} holds NaN or infinity in known joint {column // 3}; mark it missing or mend it")
    return pose, hidden


def _normalized_mask(prior: PosePrior, hidden: Tensor) -> Tensor:
    """(batch, 63) of axes → (batch, D) of normalised entries."""
    if prior.dim == 63:
        return hidden
    by_joint = hidden.unflatten(1, (21, 3))
    if bool((by_joint.any(-1) != by_joint.all(-1)).any()):
        raise InputError("missing: single axes, which a prior over rot6d does not have; mark whole joints")
    return prior.expand_joints(by_joint.any(-1))
