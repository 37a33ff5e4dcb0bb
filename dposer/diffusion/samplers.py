"""Samplers: one loop, correctors first, then a predictor that walks from time t to the next time s < t.

Between two times of any schedule the forward chain is x_t = a x_s + b z with a = alpha_t / alpha_s and
b^2 = sigma_t^2 - a^2 sigma_s^2 (in DDPM's terms a^2 = 1 - beta_i and b^2 = beta_i). Written in a and b, every predictor
serves VP, sub-VP, VE and discrete schedules alike, and stays stable however few the steps.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dposer.diffusion.denoiser import Denoiser
from dposer.diffusion.ode import ode_encode, ode_sample
from dposer.diffusion.schedule import VESDE, DiscreteSchedule, Schedule, SubVPSDE, gaussian_like

__all__ = ["CORRECTORS", "PREDICTORS", "ode_encode", "ode_sample", "sample", "time_nodes"]

Hook = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Run:
    """What predictors and correctors share during one call of :func:`sample`."""

    denoiser: Denoiser
    condition: dict[str, Any]
    generator: torch.Generator | None
    eta: float
    snr: float
    noise: Callable[[Tensor], Tensor] | None = None
    previous: tuple[Tensor, Tensor] | None = field(default=None, repr=False)
    """Clean estimate and log-SNR of the step before, for multistep predictors."""

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    def noise_like(self, x: Tensor) -> Tensor:
        return gaussian_like(x, self.generator) if self.noise is None else self.noise(x)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        return self.denoiser.score(x, t, **self.condition)

    def clean_and_noise(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.denoiser.clean_and_noise(x, t, **self.condition)


@dataclass(frozen=True)
class Step:
    """From time t to s, both 0-d; dt = s - t < 0 is the length the SDE and ODE solvers walk."""

    t: Tensor
    s: Tensor
    dt: Tensor


Predictor = Callable[[Run, Tensor, Step], tuple[Tensor, Tensor]]
"""(run, x, step) -> (x_s, its noise-free mean)."""

Corrector = Callable[[Run, Tensor, Tensor], Tensor]
"""(run, x, t) -> x, still at time t."""


def _chain(schedule: Schedule, step: Step) -> tuple[Tensor, Tensor]:
    """a and b of the module's docstring."""
    a = (schedule.log_alpha(step.t) - schedule.log_alpha(step.s)).exp()
    b = (schedule.sigma(step.t) ** 2 - a**2 * schedule.sigma(step.s) ** 2).clamp(min=0).sqrt()
    return a, b


def euler_maruyama(run: Run, x: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """mean = x + (f - g^2 score) dt,  x = mean + g sqrt(|dt|) z (Song et al. 2021, eq. 6)."""
    g = run.schedule.diffusion(step.t)
    mean = x + (run.schedule.drift(x, step.t) - g**2 * run.score(x, step.t)) * step.dt
    return mean + g * step.dt.abs().sqrt() * run.noise_like(x), mean


def reverse_diffusion(run: Run, x: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """mean = (2 - a) x + b^2 score,  x = mean + b z: the forward chain's step, reversed (Song et al. 2021, appendix E)."""
    a, b = _chain(run.schedule, step)
    mean = (2 - a) * x + b**2 * run.score(x, step.t)
    return mean + b * run.noise_like(x), mean


def ancestral(run: Run, x: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """mean = (x + b^2 score) / a,  noise b (VP) or b sigma_s / sigma_t (VE) (Ho et al. 2020; Song et al. 2021, appendix F)."""
    schedule = run.schedule
    if isinstance(schedule, SubVPSDE):
        raise ValueError("the ancestral sampler is defined for VP, VE and discrete schedules, found SubVPSDE; use reverse_diffusion")
    a, b = _chain(schedule, step)
    mean = (x + b**2 * run.score(x, step.t)) / a
    scale = b * schedule.sigma(step.s) / schedule.sigma(step.t) if isinstance(schedule, VESDE) else b
    return mean + scale * run.noise_like(x), mean


def ddim(run: Run, x: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """mean = alpha_s clean + sqrt(sigma_s^2 - c^2) noise,  c = eta b sigma_s / sigma_t (Song et al., DDIM, ICLR 2021, eq. 12).

    eta = 0 is deterministic; eta = 1 samples DDPM's posterior q(x_s | x_t, clean).
    """
    schedule = run.schedule
    clean, noise = run.clean_and_noise(x, step.t)
    sigma = schedule.sigma(step.s)
    c = run.eta * _chain(schedule, step)[1] * sigma / schedule.sigma(step.t)
    mean = schedule.alpha(step.s) * clean + (sigma**2 - c**2).clamp(min=0).sqrt() * noise
    return (mean + c * run.noise_like(x) if run.eta else mean), mean


def dpm_solver(run: Run, x: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """mean = sigma_s / sigma_t e^(-eta^2 h) x - alpha_s (e^(-(1 + eta^2) h) - 1) D,  x = mean + sigma_s sqrt(1 - e^(-2 eta^2 h)) z.

    h is the step in log-SNR, D the clean estimate extrapolated to the middle of the step. eta = 0 solves the
    probability-flow ODE, DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2); eta = 1 the reverse SDE (appendix B
    there); between them lie the SDEs of the same marginals with eta times its noise (Xue et al., arXiv 2309.05019, eq. 6).
    """
    schedule = run.schedule
    clean, _ = run.clean_and_noise(x, step.t)
    log_snr = schedule.log_snr(step.t)
    h = schedule.log_snr(step.s) - log_snr
    estimate = clean
    if run.previous is not None and torch.isfinite(h):
        before, log_snr_before = run.previous
        estimate = clean + 0.5 * h / (log_snr - log_snr_before) * (clean - before)
    run.previous = (clean, log_snr)
    noisy = run.eta**2 * h if run.eta else torch.zeros_like(h)
    mean = (
        schedule.sigma(step.s) / schedule.sigma(step.t) * (-noisy).exp() * x - schedule.alpha(step.s) * torch.expm1(-h - noisy) * estimate
    )
    return (mean + schedule.sigma(step.s) * (-torch.expm1(-2 * noisy)).sqrt() * run.noise_like(x) if run.eta else mean), mean


def ode_euler(run: Run, x: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """x + (f - 1/2 g^2 score) dt."""
    x = x + run.denoiser.velocity(x, step.t, **run.condition) * step.dt
    return x, x


def _stay(run: Run, x: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    return x, x


PREDICTORS: dict[str, Predictor] = {
    "euler_maruyama": euler_maruyama,
    "reverse_diffusion": reverse_diffusion,
    "ancestral": ancestral,
    "ddim": ddim,
    "dpm++": dpm_solver,
    "ode_euler": ode_euler,
    "none": _stay,
}


def langevin(run: Run, x: Tensor, t: Tensor) -> Tensor:
    """x + h score + sqrt(2 h) z,  h = 2 a (snr |z| / |score|)^2, norms averaged over the batch (Song et al. 2021, algorithms 4, 5).

    The average makes a sample depend on its batch.
    """
    score, z = run.score(x, t), run.noise_like(x)
    ratio = z.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()
    return _langevin_step(run, x, t, score, z, run.snr * ratio)


def annealed_langevin(run: Run, x: Tensor, t: Tensor) -> Tensor:
    """x + h score + sqrt(2 h) z,  h = 2 a (snr sigma(t))^2 (Song and Ermon, NeurIPS 2019)."""
    return _langevin_step(run, x, t, run.score(x, t), run.noise_like(x), run.snr * run.schedule.sigma(t))


def _langevin_step(run: Run, x: Tensor, t: Tensor, score: Tensor, z: Tensor, ratio: Tensor) -> Tensor:
    h = 2 * run.schedule.step_alpha(t) * ratio**2
    return x + h * score + (2 * h).sqrt() * z


CORRECTORS: dict[str, Corrector] = {"langevin": langevin, "ald": annealed_langevin}


def sample(
    denoiser: Denoiser,
    z: Tensor,
    *,
    sampler: str = "dpm++",
    steps: int = 20,
    t_start: float | None = None,
    t_end: float | None = None,
    spacing: str | None = None,
    times: Tensor | None = None,
    eta: float = 0.0,
    corrector: str = "none",
    corrector_steps: int = 1,
    snr: float = 0.16,
    noise_removal: bool = True,
    generator: torch.Generator | None = None,
    noise: Callable[[Tensor], Tensor] | None = None,
    constrain: Hook | None = None,
    guide: Hook | None = None,
    trajectory: bool = False,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
    grad: bool = False,
    **condition: Any,
) -> Any:
    """Carry the state z (batch, *dims) from t_start to data in ``steps`` predictor steps.

    Args:
        z: state at t_start, e.g. ``schedule.sample_prior(...)``.
        sampler: a key of :data:`PREDICTORS`.
        steps, t_start, t_end, spacing, noise_removal: see :func:`time_nodes`. With ``noise_removal`` the last step runs
            from t_end to clean data and the result is its noise-free mean, else the result is the state at t_end.
        times: the times themselves, in place of the five above. Where they rise, noise is added by the forward chain
            (a path that goes back and forth is RePaint's).
        eta: stochasticity of ddim and dpm++, 0 (deterministic) to 1 (as noisy as the reverse SDE).
        corrector, corrector_steps, snr: "none" or a key of :data:`CORRECTORS`, how often at each time, and its signal-to-noise ratio.
        noise: draws z ~ N(0, I) like a state, in place of ``generator``, e.g. from a stream for each row.
        constrain: x <- constrain(x, t) after every update, t being the time x has then reached (an observation can be
            written into it; at ``schedule.clean_time`` that is without noise).
        guide: x <- x + guide(x_t, t) after every predictor step, evaluated at the state before the step. One that needs
            gradients enables them itself, unless ``grad`` is set.
        trajectory: also return the states after each step, (steps, batch, *dims); the last is the result.
        progress: wraps the range of steps, e.g. ``tqdm``.
        grad: record the loop for differentiation.
        condition: handed to the network.

    Returns:
        x (batch, *dims), or (x, trajectory).

    Raises:
        ValueError: unknown sampler, corrector or spacing, times out of order, or a sampler the schedule cannot run.
    """
    _check_name("sampler", sampler, PREDICTORS)
    _check_name("corrector", corrector, ("none", *CORRECTORS))
    if spacing is None:
        spacing = "log_snr" if sampler == "dpm++" else "uniform"
    if times is None:
        nodes = time_nodes(denoiser.schedule, steps, t_start, t_end, spacing, noise_removal)
    else:
        nodes = times.double().cpu()
        if len(nodes) < 2 or bool((nodes.diff() == 0).any()):
            raise ValueError(f"times {nodes.tolist()[:4]} ..., expected at least two, and no time right after itself")
    lengths = nodes[1:].clamp(min=0) - nodes[:-1]
    if times is None and spacing == "uniform":
        lengths = lengths.mean().expand(len(lengths))  # the reference's constant dt: 1 / steps on the whole interval
    predict = PREDICTORS[sampler]
    corrections = [] if corrector == "none" else [CORRECTORS[corrector]] * corrector_steps
    run = Run(denoiser, condition, generator, eta, snr, noise)
    clean_time = denoiser.schedule.clean_time
    x, states = z, []
    with torch.set_grad_enabled(grad):
        for i in (progress or iter)(range(len(lengths))):
            step = Step(nodes[i], nodes[i + 1], lengths[i])
            if step.s > step.t:
                x, run.previous = _renoised(run, x, step), None
                continue
            for correct in corrections:
                x = _constrained(correct(run, x, step.t), step.t, constrain)
            shift = guide(x, step.t) if guide else 0
            drawn, mean = predict(run, x, step)
            x = _constrained((mean if step.s == clean_time else drawn) + shift, step.s, constrain)
            if trajectory:
                states.append(x)
    return (x, torch.stack(states)) if trajectory else x


def _renoised(run: Run, x: Tensor, step: Step) -> Tensor:
    """a x + b z, the forward chain from time t to s > t."""
    a, b = _chain(run.schedule, Step(step.s, step.t, -step.dt))
    return a * x + b * run.noise_like(x)


def time_nodes(
    schedule: Schedule,
    steps: int,
    t_start: float | None = None,
    t_end: float | None = None,
    spacing: str = "uniform",
    noise_removal: bool = True,
) -> Tensor:
    """(steps + 1,) float64 decreasing times, evenly spaced in time ("uniform") or in log(alpha / sigma) ("log_snr").

    They run from t_start (None: t_max) to t_end (None: sampling_eps; for log_snr not below sigma / alpha = 0.01, since
    sub-VP's log-SNR has no floor near t = 0 and half the steps would be spent on invisible noise). With
    ``noise_removal`` t_end is the last time but one and is followed by ``schedule.clean_time``. On a discrete schedule
    times are whole steps, and coinciding ones are merged.

    Raises:
        ValueError: steps < 1, unknown spacing, or t_end not below t_start.
    """
    _check_name("spacing", spacing, ("uniform", "log_snr"))
    if steps < 1:
        raise ValueError(f"steps = {steps}, expected at least 1")
    start = schedule.t_max if t_start is None else t_start
    if t_end is None:
        t_end = schedule.sampling_eps
        if spacing == "log_snr":
            floor = float(schedule.time(math.log(100)))
            t_end = floor if t_end < floor < start else t_end
    jump = noise_removal and t_end > schedule.clean_time
    count = steps if jump else steps + 1
    if spacing == "uniform":
        nodes = torch.linspace(start, t_end, count, dtype=torch.float64)
    else:
        first, last = float(schedule.log_snr(start)), float(schedule.log_snr(t_end))
        if not math.isfinite(last):
            raise ValueError(f"t_end = {t_end} has no noise left, so its log-SNR is infinite; choose a later t_end or spacing='uniform'")
        nodes = schedule.time(torch.linspace(first, last, count, dtype=torch.float64))
        nodes[0] = start
    if jump:
        nodes = torch.cat([nodes, torch.tensor([schedule.clean_time], dtype=torch.float64)])
    if isinstance(schedule, DiscreteSchedule):
        nodes = nodes.round().unique_consecutive()
    return _checked(nodes)


def _checked(nodes: Tensor) -> Tensor:
    if len(nodes) < 2 or not bool((nodes.diff() < 0).all()):
        raise ValueError(f"times {nodes.tolist()[:4]} ..., expected at least two that decrease (is t_end below t_start?)")
    return nodes


def _check_name(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ValueError(f"{what} {name!r}, expected one of {', '.join(known)}")


def _constrained(x: Tensor, t: Tensor, constrain: Hook | None) -> Tensor:
    return x if constrain is None else constrain(x, t)
