"""One prediction, three faces."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dposer.diffusion import Denoiser, SubVPSDE

PREDICTIONS = ["noise", "score", "clean"]


@pytest.mark.parametrize("name", ["vp", "subvp", "ve", "discrete"])
def test_every_prediction_gives_the_same_faces(name: str, gaussian: Any, generator: torch.Generator) -> None:
    schedule = gaussian(name)[0].schedule
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    t = torch.linspace(0.05, 1, 5, dtype=torch.float64) * schedule.t_max
    denoisers = [gaussian(name, predicts=predicts)[0] for predicts in PREDICTIONS]
    for face in ("noise", "score", "clean"):
        values = [getattr(denoiser, face)(x, t) for denoiser in denoisers]
        torch.testing.assert_close(values[0], values[1], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(values[0], values[2], rtol=1e-6, atol=1e-6)
    clean, noise = denoisers[0].clean_and_noise(x, t)
    torch.testing.assert_close(schedule.perturb(clean, t, noise), x)


def test_score_is_the_gradient_of_the_log_density(gaussian: Any, generator: torch.Generator) -> None:
    denoiser, target = gaussian("subvp")
    x, t = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True), 0.3
    alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
    marginal = torch.distributions.MultivariateNormal(alpha * target.mean, alpha**2 * target.covariance + sigma**2 * torch.eye(3))
    (gradient,) = torch.autograd.grad(marginal.log_prob(x).sum(), x)
    torch.testing.assert_close(denoiser.score(x, t), gradient)


def test_a_scalar_time_equals_a_batch_of_it(gaussian: Any, generator: torch.Generator) -> None:
    denoiser = gaussian("subvp", torch.float32)[0]
    x = torch.randn(4, 3, generator=generator)
    for t in (torch.tensor(0.4), torch.full((4,), 0.4)):
        torch.testing.assert_close(denoiser.clean(x, 0.4), denoiser.clean(x, t), rtol=1e-4, atol=1e-4)
    assert denoiser.clean(x, 0.4).dtype == torch.float32


def test_clip_bounds_the_clean_estimate_and_the_noise_follows(gaussian: Any, generator: torch.Generator) -> None:
    denoiser = gaussian("discrete")[0]
    denoiser.clip = 0.7
    x = 3 * torch.randn(50, 3, generator=generator, dtype=torch.float64)
    clean, noise = denoiser.clean_and_noise(x, 300)
    assert float(clean.abs().max()) == 0.7
    torch.testing.assert_close(denoiser.schedule.perturb(clean, 300, noise), x)


def test_condition_reaches_the_network() -> None:
    class Shift(torch.nn.Module):
        def forward(self, x: Tensor, label: Tensor, *, offset: Tensor) -> Tensor:
            return x + offset + label[:, None]

    denoiser = Denoiser(Shift(), SubVPSDE())
    x = torch.zeros(2, 3)
    assert denoiser.noise(x, 0.5, offset=torch.ones(2, 1)).tolist() == [[500.5] * 3] * 2


def test_consecutive_samples_may_share_a_time() -> None:
    """K times for a batch reach the network as K labels, and scale each run of samples by its own time."""

    class Shared(torch.nn.Module):
        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            return label.repeat_interleave(len(x) // len(label))[:, None].expand_as(x) / 999

    denoiser, x, t = Denoiser(Shared(), SubVPSDE()), torch.ones(4, 3), torch.tensor([0.2, 0.6])
    torch.testing.assert_close(denoiser.clean(x, t), denoiser.clean(x, t.repeat_interleave(2)))


def test_unknown_prediction_is_named() -> None:
    with pytest.raises(ValueError, match="predicts = 'velocity'"):
        Denoiser(torch.nn.Identity(), SubVPSDE(), "velocity")  # type: ignore[arg-type]
