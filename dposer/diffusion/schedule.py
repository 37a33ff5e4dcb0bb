"""Noise schedules: the Gaussian path x_t = alpha(t) x_0 + sigma(t) z, z ~ N(0, I), from data (small t) to noise (t = t_max).

A time is a float, a 0-d tensor or a (batch,) tensor (or a shorter one, see :func:`expand`); whatever depends on it has its
shape. Floats are worked out in float64, and :func:`expand` makes per-sample values broadcast against x without promoting it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Time = float | Tensor
Device = torch.device | str | None


def expand(value: Tensor, x: Tensor) -> Tensor:
    """Shape (K,) as (batch, 1, ..., 1) to broadcast against x (batch, *dims), in its dtype and device; 0-d stays as it is.

    K divides batch, and batch / K consecutive samples share a value; K = batch is the usual case.

    Raises:
        ValueError: K does not divide batch.
    """
    if value.ndim == 0:
        return value
    if len(x) % len(value):
        raise ValueError(f"{len(value)} times for {len(x)} samples, expected one time, one per sample, or one per equal run of samples")
    return value.to(x).repeat_interleave(len(x) // len(value)).reshape(-1, *(1,) * (x.ndim - 1))


def gaussian_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """z ~ N(0, I) of the shape, dtype and device of x, drawn where the generator lives (None: torch's own)."""
    return _gaussian(x.shape, generator, x.device, x.dtype)


def _gaussian(shape: Sequence[int], generator: torch.Generator | None, device: Device, dtype: torch.dtype | None) -> Tensor:
    source = device if generator is None else generator.device
    return torch.randn(tuple(shape), generator=generator, device=source, dtype=dtype).to(device=device)


def _tensor(t: Time) -> Tensor:
    return t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)


class Schedule(ABC):
    """p(x_t | x_0) = N(alpha x_0, sigma^2 I), the marginal of dx = f(x, t) dt + g(t) dw where the schedule is an SDE.

    Source: Song et al., Score-Based Generative Modeling through SDEs (ICLR 2021), section 3 and appendix B.
    """

    clean_time: float = 0.0
    """The limit time of clean data, where alpha = 1 and sigma = 0. No network is ever evaluated there."""
    sampling_eps: float = 1e-3
    """Time at which samplers stop."""
    t_max: float = 1.0
    """Time of the prior."""

    @property
    def prior_sigma(self) -> float:
        """Standard deviation of the prior."""
        return 1.0

    @abstractmethod
    def log_alpha(self, t: Time) -> Tensor:
        """Logarithm of the signal scale."""

    @abstractmethod
    def sigma(self, t: Time) -> Tensor:
        """Standard deviation of the noise."""

    @abstractmethod
    def label(self, t: Time) -> Tensor:
        """What the network is told about the time."""

    @abstractmethod
    def time(self, log_snr: Time) -> Tensor:
        """Inverse of :meth:`log_snr`."""

    def alpha(self, t: Time) -> Tensor:
        """Scale of the signal."""
        return self.log_alpha(t).exp()

    def log_snr(self, t: Time) -> Tensor:
        """log(alpha / sigma): falls as t grows."""
        return self.log_alpha(t) - self.sigma(t).log()

    def step_alpha(self, t: Time) -> Tensor:
        """alpha_i of the 1000-level chain, by which Langevin correctors scale their step; 1 where nothing decays."""
        return torch.ones_like(_tensor(t))

    def drift(self, x: Tensor, t: Time) -> Tensor:
        """f(x, t) of the SDE, shaped like x."""
        raise ValueError(f"{type(self).__name__} has no SDE; use the ddim, ancestral, reverse_diffusion or dpm++ sampler")

    def diffusion(self, t: Time) -> Tensor:
        """g(t) of the SDE."""
        raise ValueError(f"{type(self).__name__} has no SDE; use the ddim, ancestral, reverse_diffusion or dpm++ sampler")

    def perturb(self, x0: Tensor, t: Time, noise: Tensor) -> Tensor:
        """x_t = alpha(t) x0 + sigma(t) noise."""
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * noise

    def sample_prior(
        self,
        shape: Sequence[int],
        generator: torch.Generator | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """z ~ N(0, prior_sigma^2 I) of the given shape."""
        return self.prior_sigma * _gaussian(shape, generator, device, dtype)

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """-D/2 ln(2 pi s^2) - |z|^2 / (2 s^2) with s = prior_sigma: (batch, *dims) -> (batch,), in nats."""
        dims = z[0].numel()
        normaliser = 0.5 * dims * math.log(2 * math.pi * self.prior_sigma**2)
        return -(z**2).flatten(1).sum(1) / (2 * self.prior_sigma**2) - normaliser


@dataclass(frozen=True)
class _LinearBeta(Schedule):
    """alpha(t) = exp(-1/2 int_0^t beta), beta(t) = beta_0 + t (beta_1 - beta_0): what VP and sub-VP share."""

    beta_0: float = 0.1
    beta_1: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_0 <= self.beta_1:
            raise ValueError(f"beta_0 = {self.beta_0}, beta_1 = {self.beta_1}, expected 0 < beta_0 <= beta_1")

    def beta(self, t: Time) -> Tensor:
        """beta_0 + t (beta_1 - beta_0)."""
        return self.beta_0 + _tensor(t) * (self.beta_1 - self.beta_0)

    def log_alpha(self, t: Time) -> Tensor:
        t = _tensor(t)
        return -t * (0.25 * t * (self.beta_1 - self.beta_0) + 0.5 * self.beta_0)

    def _time_of_log_alpha(self, log_alpha: Tensor) -> Tensor:
        """Positive root of the quadratic in :meth:`log_alpha`, written so that nothing cancels near 0."""
        b = 0.5 * self.beta_0
        return -2 * log_alpha / (b + (b**2 - (self.beta_1 - self.beta_0) * log_alpha).sqrt())

    def label(self, t: Time) -> Tensor:
        return 999 * _tensor(t)

    def step_alpha(self, t: Time) -> Tensor:
        return 1 - self.beta(t) / 1000

    def drift(self, x: Tensor, t: Time) -> Tensor:
        return -0.5 * expand(self.beta(t), x) * x


@dataclass(frozen=True)
class VPSDE(_LinearBeta):
    """Variance preserving: alpha^2 + sigma^2 = 1, dx = -1/2 beta x dt + sqrt(beta) dw (Song et al. 2021, eq. 11)."""

    def sigma(self, t: Time) -> Tensor:
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def time(self, log_snr: Time) -> Tensor:
        return self._time_of_log_alpha(-0.5 * torch.nn.functional.softplus(-2 * _tensor(log_snr)))

    def diffusion(self, t: Time) -> Tensor:
        return self.beta(t).sqrt()

    def discretize(self, steps: int = 1000) -> "DiscreteSchedule":
        """The DDPM chain it is the limit of: beta_i evenly spaced from beta_0 / N to beta_1 / N."""
        return DiscreteSchedule.linear(steps, self.beta_0 / steps, self.beta_1 / steps)


@dataclass(frozen=True)
class SubVPSDE(_LinearBeta):
    """Sub-VP: sigma = 1 - alpha^2, the drift of VP, g^2 = beta (1 - alpha^4) (Song et al. 2021, appendix B)."""

    def sigma(self, t: Time) -> Tensor:
        return -torch.expm1(2 * self.log_alpha(t))

    def time(self, log_snr: Time) -> Tensor:
        # sigma / alpha = 1 / alpha - alpha = 2 sinh(-log alpha)
        return self._time_of_log_alpha(-torch.asinh(0.5 * torch.exp(-_tensor(log_snr))))

    def diffusion(self, t: Time) -> Tensor:
        return (-self.beta(t) * torch.expm1(4 * self.log_alpha(t))).sqrt()


@dataclass(frozen=True)
class VESDE(Schedule):
    """Variance exploding: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t, no drift (Song et al. 2021, eq. 9)."""

    clean_time = -math.inf
    sampling_eps = 1e-5

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min = {self.sigma_min}, sigma_max = {self.sigma_max}, expected 0 < sigma_min < sigma_max")

    @property
    def prior_sigma(self) -> float:
        return self.sigma_max

    @property
    def _log_ratio(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)

    def log_alpha(self, t: Time) -> Tensor:
        return torch.zeros_like(_tensor(t))

    def sigma(self, t: Time) -> Tensor:
        return self.sigma_min * torch.exp(_tensor(t) * self._log_ratio)

    def log_snr(self, t: Time) -> Tensor:
        return -math.log(self.sigma_min) - _tensor(t) * self._log_ratio

    def time(self, log_snr: Time) -> Tensor:
        return (-_tensor(log_snr) - math.log(self.sigma_min)) / self._log_ratio

    def label(self, t: Time) -> Tensor:
        return self.sigma(t)

    def drift(self, x: Tensor, t: Time) -> Tensor:
        return torch.zeros_like(x)

    def diffusion(self, t: Time) -> Tensor:
        return self.sigma(t) * math.sqrt(2 * self._log_ratio)


class DiscreteSchedule(Schedule):
    """alpha_i^2 = prod_{j <= i} (1 - beta_j), sigma_i^2 = 1 - alpha_i^2 at the integer times i = 0 .. N-1; -1 is clean data.

    Tables are float64; times are rounded to the nearest step; the label is the step itself.
    Source: Ho et al., Denoising Diffusion Probabilistic Models (NeurIPS 2020), eqs. 2-4.
    """

    clean_time = -1.0
    sampling_eps = -1.0

    def __init__(self, betas: Sequence[float] | Tensor) -> None:
        self.betas = torch.as_tensor(betas, dtype=torch.float64, device="cpu")
        if self.betas.ndim != 1 or len(self.betas) == 0 or not bool(((self.betas > 0) & (self.betas < 1)).all()):
            raise ValueError(f"betas of shape {tuple(self.betas.shape)}, expected a non-empty list of numbers strictly between 0 and 1")
        self.t_max = float(len(self.betas) - 1)
        # entry 0 of the tables is clean data
        self._log_alphas = torch.cat([torch.zeros(1, dtype=torch.float64), 0.5 * torch.log1p(-self.betas).cumsum(0)])
        self._sigmas = (-torch.expm1(2 * self._log_alphas)).sqrt()

    @classmethod
    def linear(cls, steps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> "DiscreteSchedule":
        """Evenly spaced betas (Ho et al. 2020)."""
        return cls(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64))

    @classmethod
    def quad(cls, steps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> "DiscreteSchedule":
        """Betas whose square roots are evenly spaced."""
        return cls(torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64) ** 2)

    @classmethod
    def cosine(cls, steps: int, max_beta: float = 0.999, offset: float = 0.008) -> "DiscreteSchedule":
        """beta_i = min(1 - g((i+1)/N) / g(i/N), max_beta), g(u) = cos^2((u + offset) / (1 + offset) pi/2).

        Source: Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models (ICML 2021), eq. 17.
        """
        u = torch.arange(steps + 1, dtype=torch.float64) / steps
        g = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
        return cls((1 - g[1:] / g[:-1]).clamp(max=max_beta))

    @property
    def alpha_bars(self) -> Tensor:
        """(N,) float64 prod (1 - beta)."""
        return (2 * self._log_alphas[1:]).exp()

    def log_alpha(self, t: Time) -> Tensor:
        return self._look_up(self._log_alphas, t)

    def sigma(self, t: Time) -> Tensor:
        return self._look_up(self._sigmas, t)

    def step_alpha(self, t: Time) -> Tensor:
        return 1 - self._look_up(torch.nn.functional.pad(self.betas, (1, 0)), t)

    def label(self, t: Time) -> Tensor:
        return _tensor(t).round()

    def time(self, log_snr: Time) -> Tensor:
        """The step whose log-SNR is nearest; -1 at infinity."""
        log_snr = _tensor(log_snr)
        table = (self._log_alphas - self._sigmas.log())[1:].to(log_snr.device)
        nearest = (log_snr.unsqueeze(-1) - table).abs().argmin(-1).to(log_snr.dtype)
        return torch.where(log_snr == math.inf, self.clean_time, nearest)

    def _look_up(self, table: Tensor, t: Time) -> Tensor:
        t = _tensor(t)
        index = t.round().long() + 1
        if t.device.type == "cpu" and bool(((index < 0) | (index >= len(table))).any()):
            raise ValueError(f"time {t.tolist()}, expected steps from -1 (clean data) to {self.t_max:.0f}")
        return table.to(t.device)[index]


SCHEDULES: dict[str, type[Schedule]] = {"vpsde": VPSDE, "subvpsde": SubVPSDE, "vesde": VESDE}


def make_schedule(name: str, **parameters: float) -> Schedule:
    """Schedule by its name in configs: "vpsde", "subvpsde" or "vesde".

    Raises:
        ValueError: unknown name or parameter.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule {name!r}, expected one of {', '.join(SCHEDULES)}")
    try:
        return SCHEDULES[name](**parameters)
    except TypeError as error:
        raise ValueError(f"schedule {name!r}: {error}") from error
