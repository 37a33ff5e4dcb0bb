"""A target whose diffusion is known in closed form: x_0 ~ N(m, C), so x_t ~ N(alpha m, alpha^2 C + sigma^2 I)."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dposer.diffusion import VESDE, VPSDE, Denoiser, DiscreteSchedule, Schedule, SubVPSDE

SCHEDULES: dict[str, Schedule] = {
    "vp": VPSDE(),
    "subvp": SubVPSDE(),
    "ve": VESDE(),
    "discrete": DiscreteSchedule.linear(1000),
}


class Gaussian(torch.nn.Module):
    """The exact noise (or score, or clean) prediction for N(m, C), as a network of (x, label)."""

    def __init__(self, schedule: Schedule, predicts: str = "noise", dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.schedule, self.predicts = schedule, predicts
        generator = torch.Generator().manual_seed(7)
        self.mean = torch.tensor([0.5, -1.0, 0.2], dtype=dtype)
        self.axes = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0].to(dtype)
        self.variances = torch.tensor([0.04, 0.5, 1.5], dtype=dtype)

    @property
    def covariance(self) -> Tensor:
        return self.axes * self.variances @ self.axes.T

    def spread(self, t: float | Tensor) -> Tensor:
        """(batch or 1, 3) variances of x_t along the axes."""
        alpha, sigma = torch.as_tensor(self.schedule.alpha(t)), torch.as_tensor(self.schedule.sigma(t))
        return ((alpha**2).reshape(-1, 1) * self.variances + (sigma**2).reshape(-1, 1)).to(self.mean)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        assert label.shape == (len(x),)
        t = self.time_of(label)
        alpha, sigma = self.schedule.alpha(t).to(x)[:, None], self.schedule.sigma(t).to(x)[:, None]
        score = -((x - alpha * self.mean) @ self.axes / self.spread(t)) @ self.axes.T
        return {"score": score, "noise": -sigma * score, "clean": (x + sigma**2 * score) / alpha}[self.predicts]

    def time_of(self, label: Tensor) -> Tensor:
        if isinstance(self.schedule, VESDE):
            return torch.log(label / self.schedule.sigma_min) / math.log(self.schedule.sigma_max / self.schedule.sigma_min)
        return label if isinstance(self.schedule, DiscreteSchedule) else label / 999

    def transport(self, x: Tensor, start: float, end: float) -> Tensor:
        """The exact solution of the probability-flow ODE: (x - alpha m) / sqrt(variance) is constant along each axis."""
        centred = (x - self.schedule.alpha(start).to(x) * self.mean) @ self.axes
        return self.schedule.alpha(end).to(x) * self.mean + centred * (self.spread(end) / self.spread(start)).sqrt() @ self.axes.T


MakeGaussian = Callable[..., tuple[Denoiser, Gaussian]]


@pytest.fixture
def gaussian() -> MakeGaussian:
    """make(name, dtype=float64, predicts="noise") -> the exact denoiser on SCHEDULES[name] and its closed forms."""

    def make(name: str, dtype: torch.dtype = torch.float64, predicts: str = "noise") -> tuple[Denoiser, Gaussian]:
        network = Gaussian(SCHEDULES[name], predicts, dtype)
        return Denoiser(network, SCHEDULES[name], predicts), network  # type: ignore[arg-type]

    return make
