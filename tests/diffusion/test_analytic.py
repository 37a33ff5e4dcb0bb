"""The closed forms that samplers are measured against, by numerical differentiation and by counting."""

import torch

from dposer.diffusion import SubVPSDE
from dposer.diffusion.analytic import GaussianMixture

MIXTURE = GaussianMixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-1.0, -0.5], [1.0, 0.8]], dtype=torch.float64),
    torch.tensor([[[0.6, 0.2], [0.2, 0.3]], [[0.4, -0.1], [-0.1, 0.2]]], dtype=torch.float64),
)


def test_moments_are_those_of_samples() -> None:
    x = MIXTURE.sample(200_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(x.mean(0), MIXTURE.mean, atol=0.01, rtol=0)
    torch.testing.assert_close(x.T.cov(), MIXTURE.covariance, atol=0.02, rtol=0)


def test_the_noise_is_the_gradient_of_the_log_density() -> None:
    schedule, t = SubVPSDE(), torch.tensor(0.3, dtype=torch.float64)
    law = MIXTURE.marginal(schedule.alpha(t), schedule.sigma(t))
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    torch.testing.assert_close(MIXTURE.denoiser(schedule).score(x, t), gradient, rtol=1e-4, atol=1e-6)


def test_the_conditional_is_that_of_samples_near_the_value() -> None:
    x = MIXTURE.sample(2_000_000, torch.Generator().manual_seed(0))
    near = x[(x[:, 0] - 0.2).abs() < 0.01, 1]
    law = MIXTURE.given(torch.tensor([True, False]), torch.tensor([0.2, 0.0], dtype=torch.float64))
    torch.testing.assert_close(near.mean(), law.mean[0], atol=0.02, rtol=0)
    torch.testing.assert_close(near.var(), law.covariance[0, 0], atol=0.03, rtol=0)
