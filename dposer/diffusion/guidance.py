"""Conditioning a sampler on known entries: sample p(x_0 | M x_0 = M y) from a denoiser of p(x_0).

M keeps the known entries, which are free of noise. Every method but one bends the path of an unconditional sampler, and
only approximates the conditional: each one's error on targets known in closed form is stated with it, and measured in
the tests. The exception is a network that was trained with masks, :class:`Inpainting`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from dposer.diffusion.denoiser import Denoiser
from dposer.diffusion.samplers import sample, time_nodes
from dposer.diffusion.schedule import Schedule, Time, expand, gaussian_like

_GUIDANCE = 30.0
"""Sum of the default steps of DPS and MCG."""

Method = Literal["ScoreSDE", "MCG", "DPS", "PiGDM", "RePaint", "SMC", "inpainting"]


@dataclass(frozen=True)
class Observation:
    """Entries of x_0 that are known."""

    known: Tensor
    """(batch, *dims) bool."""
    value: Tensor
    """(batch, *dims), finite; read where known."""

    def residual(self, clean: Tensor) -> Tensor:
        """M (y - clean)."""
        return torch.where(self.known, self.value - clean, 0)

    def write(self, x: Tensor, values: Tensor | None = None) -> Tensor:
        """x with ``values`` (default y) where known."""
        return torch.where(self.known, self.value if values is None else values, x)


@dataclass(frozen=True)
class Replacement:
    """x <- (1 - M) x + M (alpha_t y + sigma_t z), z fresh: known entries follow the forward process.

    Biased: the free entries are denoised beside known ones that they did not help to draw, so that correlations come
    out too weak and the spread too wide, however many the steps.

    Source: Song et al., Score-Based Generative Modeling through SDEs (ICLR 2021), appendix I.2.
    """

    schedule: Schedule
    observation: Observation
    generator: torch.Generator | None = None

    def __call__(self, x: Tensor, t: Time) -> Tensor:
        return self.observation.write(x, self.schedule.perturb(self.observation.value, t, gaussian_like(x, self.generator)))


class GradientGuidance(Denoiser):
    """x <- step(x) - rho grad |M (y - clean(x_t))|: DPS; followed by :class:`Replacement`, MCG.

    :meth:`shift` is the hook for ``sample(..., guide=)``; the network's output is kept for the predictor's step from the
    same state, so that a step costs one evaluation and one backward pass. The step's length does not follow from the
    prior, so that the result is no sample of the conditional, whatever rho.

    Args:
        denoiser: of the prior.
        scale: rho, per step.
        jacobian: False takes the clean estimate's noise as constant, M (clean - y) / (alpha |.|): no backward pass.
        per_sample: False takes one norm over the whole batch, so that a sample depends on its companions.
        limit: never step farther than to the observation, rho <= |M (y - clean)|.

    Source: Chung et al., Diffusion Posterior Sampling (ICLR 2023), algorithm 1, and Improving Diffusion Models for
    Inverse Problems using Manifold Constraints (NeurIPS 2022), eq. 14; DPoser's releases have no Jacobian and one norm.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        observation: Observation,
        scale: float = 1.0,
        jacobian: bool = True,
        per_sample: bool = True,
        limit: bool = True,
    ) -> None:
        super().__init__(denoiser.network, denoiser.schedule, denoiser.predicts, denoiser.clip)
        self.observation, self.scale, self.jacobian, self.per_sample, self.limit = observation, scale, jacobian, per_sample, limit
        self._last: tuple[Tensor, Time, tuple[Tensor, Tensor]] | None = None

    def shift(self, x: Tensor, t: Time) -> Tensor:
        """-rho grad |M (y - clean)| at x_t = x."""
        if self.jacobian:
            clean, noise, pull = _pulled_back(super().clean_and_noise, x, t, self.observation)
        else:
            clean, noise = super().clean_and_noise(x, t)
            pull = self.observation.residual(clean) / expand(self.schedule.alpha(t), x)
        self._last = (x, t, (clean, noise))
        squares = self.observation.residual(clean).square()
        norm = expand(squares.flatten(1).sum(1), x).sqrt() if self.per_sample else squares.sum().sqrt()
        rho = norm.clamp(max=self.scale) if self.limit else self.scale
        return rho * pull / norm.clamp_min(torch.finfo(x.dtype).tiny)

    def clean_and_noise(self, x: Tensor, t: Time, **condition: Any) -> tuple[Tensor, Tensor]:
        """As :meth:`Denoiser.clean_and_noise`; not evaluated again where :meth:`shift` has just been."""
        if self._last is not None and self._last[0] is x and self._last[1] is t:
            return self._last[2]
        return super().clean_and_noise(x, t, **condition)


class PseudoInverseGuidance(Denoiser):
    """score + J^T M (y - clean) / r^2, J = d clean / d x_t, r^2 = sigma^2 / (alpha^2 + sigma^2): IIGDM for known entries.

    M is its own pseudo-inverse, and r^2 is the variance of x_0 given x_t if x_0 ~ N(0, I). For a Gaussian x_0 of that
    covariance the conditional is exact; else it is biased by as much as the posterior covariance differs from r^2 I.

    Source: Song et al., Pseudoinverse-Guided Diffusion Models for Inverse Problems (ICLR 2023), eq. 7 and section 3.3.
    """

    def __init__(self, denoiser: Denoiser, observation: Observation, scale: float = 1.0) -> None:
        super().__init__(denoiser.network, denoiser.schedule, denoiser.predicts, denoiser.clip)
        self.observation, self.scale = observation, scale

    def clean_and_noise(self, x: Tensor, t: Time, **condition: Any) -> tuple[Tensor, Tensor]:
        """The guided estimates: clean + (alpha^2 + sigma^2) / alpha J^T M (y - clean), and the noise that goes with it."""
        clean, noise, pull = _pulled_back(super().clean_and_noise, x, t, self.observation)
        alpha, sigma = expand(self.schedule.alpha(t), x), expand(self.schedule.sigma(t), x)
        score = self.scale * (alpha**2 + sigma**2) / sigma**2 * pull
        return clean + sigma**2 / alpha * score, noise - sigma * score


class Inpainting(Denoiser):
    """clean(x_t, y, M) of a network that was trained with masks: it sees y where known and denoises the rest.

    No approximation is made beyond the network's own.
    """

    def __init__(self, denoiser: Denoiser, observation: Observation) -> None:
        super().__init__(denoiser.network, denoiser.schedule, denoiser.predicts, denoiser.clip)
        self.observation = observation

    def clean_and_noise(self, x: Tensor, t: Time, **condition: Any) -> tuple[Tensor, Tensor]:
        """(clean, noise) given what is known; clean is y there."""
        observation = self.observation
        clean, noise = super().clean_and_noise(observation.write(x), t, known=observation.known, **condition)
        alpha, sigma = expand(self.schedule.alpha(t), x), expand(self.schedule.sigma(t), x)
        return observation.write(clean), observation.write(noise, (x - alpha * observation.value) / sigma)


def _pulled_back(
    estimate: Callable[[Tensor, Time], tuple[Tensor, Tensor]], x: Tensor, t: Time, observation: Observation
) -> tuple[Tensor, Tensor, Tensor]:
    """(clean, noise, J^T M (y - clean)): one evaluation and its backward pass."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        clean, noise = estimate(x, t)
        (pull,) = torch.autograd.grad(-0.5 * observation.residual(clean).square().sum(), x)
    return clean.detach(), noise.detach(), pull


def time_travel(nodes: Tensor, jump: int = 1, resamples: int = 10) -> Tensor:
    """RePaint's times: every ``jump`` steps down are repeated ``resamples`` times, by going back up in between.

    Args:
        nodes: (steps + 1,) decreasing times. The last step, to clean data, is taken once.

    Source: Lugmayr et al., RePaint (CVPR 2022), algorithm 1 and appendix B.
    """
    if jump < 1 or resamples < 1:
        raise ValueError(f"jump = {jump}, resamples = {resamples}, expected at least 1 of each")
    walk = [nodes[:1]]
    last = len(nodes) - 2
    for start in range(0, last, jump):
        down = nodes[start + 1 : min(start + jump, last) + 1]
        walk += [down, *([nodes[start : start + 1], down] * (resamples - 1))]
    return torch.cat([*walk, nodes[-1:]])


def guided_sample(
    denoiser: Denoiser,
    z: Tensor,
    observation: Observation,
    method: Method = "PiGDM",
    *,
    sampler: str = "ddim",
    steps: int = 100,
    generator: torch.Generator | None = None,
    scale: float | None = None,
    jacobian: bool = True,
    per_sample: bool = True,
    limit: bool = True,
    jump: int = 1,
    resamples: int = 10,
    particles: int = 8,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
    **options: Any,
) -> Tensor:
    """Sample p(x_0 | M x_0 = M y) with any sampler; known entries come back as given.

    Args:
        denoiser: of the prior; for "inpainting" its network takes ``known``.
        z: (batch, *dims) state at the first time, e.g. ``schedule.sample_prior(...)``.
        method: ScoreSDE (:class:`Replacement`), DPS and MCG (:class:`GradientGuidance`), PiGDM
            (:class:`PseudoInverseGuidance`), RePaint (:func:`time_travel`), SMC (:func:`twisted_smc`) or inpainting.
        sampler, steps, options: see :func:`dposer.diffusion.samplers.sample`; SMC has its own, DDPM's.
        scale: of the guidance: per step for DPS and MCG (published: 1, for a thousand steps; default: 30 / steps, since
            body poses and targets of closed form are pushed too far by more), a factor for PiGDM and SMC (default 1).
        jacobian, per_sample, limit: of DPS and MCG.
        jump, resamples: of RePaint, which evaluates the network about ``steps * resamples`` times.
        particles: of SMC, for each sample.

    Raises:
        ValueError: unknown method, or an option that the sampler refuses.
    """
    shared: dict[str, Any] = {"steps": steps, "generator": generator, "progress": progress, **options}
    replace = Replacement(denoiser.schedule, observation, generator)
    if method == "SMC":
        return twisted_smc(denoiser, z, observation, particles=particles, scale=1.0 if scale is None else scale, **shared)
    shared["sampler"] = sampler
    if method == "ScoreSDE":
        x = sample(denoiser, z, constrain=replace, **shared)
    elif method in ("DPS", "MCG"):
        guided = GradientGuidance(denoiser, observation, _GUIDANCE / steps if scale is None else scale, jacobian, per_sample, limit)
        x = sample(guided, z, guide=guided.shift, constrain=replace if method == "MCG" else None, **shared)
    elif method == "PiGDM":
        x = sample(PseudoInverseGuidance(denoiser, observation, 1.0 if scale is None else scale), z, **shared)
    elif method == "RePaint":
        window = {key: shared.pop(key) for key in ("t_start", "t_end", "spacing", "noise_removal") if key in shared}
        window.setdefault("spacing", "log_snr" if sampler == "dpm++" else "uniform")
        nodes = time_nodes(denoiser.schedule, shared.pop("steps"), **window)
        x = sample(denoiser, z, constrain=replace, times=time_travel(nodes, jump, resamples), **shared)
    elif method == "inpainting":
        x = sample(Inpainting(denoiser, observation), z, **shared)
    else:
        raise ValueError(f"method {method!r}, expected one of {', '.join(get_args(Method))}")
    return observation.write(x)


@torch.no_grad()
def twisted_smc(
    denoiser: Denoiser,
    z: Tensor,
    observation: Observation,
    *,
    particles: int = 8,
    steps: int = 50,
    scale: float = 1.0,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
    **window: Any,
) -> Tensor:
    """Twisted sequential Monte Carlo: DDPM's chain under PiGDM's guidance, its error mended by weights and resampling.

    Every sample has a filter of its own, so that samples stay independent. With the twist
    psi_t(x) = N(y; M clean(x), r^2) a step x_t -> x_s weighs w = p(x_s | x_t) psi_s(x_s) / (q(x_s | x_t) psi_t(x_t)), p
    being the unguided and q the guided transition, and a filter is resampled when fewer than half of its particles
    count. Exact as the number of particles (and of steps) grows.

    Args:
        z: (batch, *dims); the particles beyond the first are drawn anew.
        scale: widens r for values below 1, r^2 = sigma^2 / (alpha^2 + sigma^2) / scale.
        window: ``t_start``, ``t_end``, ``spacing`` of the times.

    Source: Wu et al., Practical and Asymptotically Exact Conditional Sampling in Diffusion Models (NeurIPS 2023), algorithm 1.
    """
    schedule = denoiser.schedule
    many = Observation(*(_repeat(values, particles) for values in (observation.known, observation.value)))
    x = schedule.sample_prior((len(z) * particles, *z.shape[1:]), generator, z.device, z.dtype)
    x[::particles] = z
    nodes = time_nodes(schedule, steps, **{"spacing": "log_snr", **window})[:-1]
    clean, noise, score, twist = _twisted(denoiser, x, nodes[0], many, scale)
    weights = twist.view(-1, particles)  # logarithms, a row for each filter
    for i in (progress or iter)(range(len(nodes) - 1)):
        t, s = nodes[i], nodes[i + 1]
        weights, rows = _resampled(weights, generator)
        clean, noise, score, twist = clean[rows], noise[rows], score[rows], twist[rows]
        sigma_t, alpha, sigma = schedule.sigma(t), schedule.alpha(s), schedule.sigma(s)
        a = (schedule.log_alpha(t) - schedule.log_alpha(s)).exp()
        deviation = sigma * (1 - (a * sigma / sigma_t) ** 2).sqrt()
        kept = a * sigma**2 / sigma_t  # what remains of the noise: sigma^2 - deviation^2 = kept^2
        shift = (alpha * sigma_t**2 / schedule.alpha(t) - kept * sigma_t) * score
        jitter = gaussian_like(clean, generator)
        x = alpha * clean + kept * noise + shift + deviation * jitter
        log_ratio = 0.5 * (jitter.square() - (jitter + shift / deviation).square()).flatten(1).sum(1)  # log p - log q
        before = twist
        clean, noise, score, twist = _twisted(denoiser, x, s, many, scale)
        weights = weights + (log_ratio + twist - before).view(-1, particles)
    drawn = _draw(weights.softmax(1), 1, generator)
    return observation.write(clean[drawn.flatten()])


def _twisted(denoiser: Denoiser, x: Tensor, t: Tensor, observation: Observation, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """clean, noise, grad log psi and log psi (batch,) up to a constant that all particles share."""
    schedule = denoiser.schedule
    clean, noise, pull = _pulled_back(denoiser.clean_and_noise, x, t, observation)
    variance = schedule.sigma(t) ** 2 / (schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2) / scale
    return clean, noise, pull / variance, -0.5 * observation.residual(clean).square().flatten(1).sum(1) / variance


def _repeat(values: Tensor, count: int) -> Tensor:
    return values.repeat_interleave(count, dim=0)


def _resampled(log_weights: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Resample the filters (G, P) whose effective number is below P / 2: their new log weights, and rows (G P,)."""
    weights = log_weights.softmax(dim=1)
    count = weights.shape[1]
    poor = (1 / weights.square().sum(1) < count / 2)[:, None]
    stay = torch.arange(weights.numel(), device=weights.device).view_as(weights)
    rows = torch.where(poor, _draw(weights, count, generator), stay)
    return torch.where(poor, 0, log_weights - log_weights.logsumexp(1, keepdim=True)), rows.flatten()


def _draw(weights: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Systematic draws: ``count`` particles of each filter (G, P), as rows (G, count) of all particles."""
    groups, size = weights.shape
    offset = torch.rand(groups, 1, generator=generator, device=weights.device if generator is None else generator.device)
    places = (torch.arange(count, device=weights.device) + offset.to(weights)) / count
    chosen = torch.searchsorted(weights.cumsum(1), places).clamp(max=size - 1)
    return chosen + size * torch.arange(groups, device=weights.device)[:, None]
