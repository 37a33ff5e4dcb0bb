"""Likelihood and ODE transport against the closed forms of a Gaussian."""

import math
from typing import Any

import pytest
import torch

from dposer.diffusion import VPSDE, Denoiser, bits_per_dim, log_likelihood, ode_encode, ode_sample
from dposer.diffusion.likelihood import velocity_and_divergence

NAMES = ["vp", "subvp", "ve"]


def closed_form(denoiser: Any, target: Any, x: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    z = target.transport(x, eps, 1.0)
    log_det = 0.5 * (target.spread(1.0) / target.spread(eps)).log().sum()
    return denoiser.schedule.prior_log_prob(z) + log_det, z


@pytest.mark.parametrize(("name", "rtol", "error"), [("vp", 1e-4, 3e-3), ("subvp", 1e-5, 5e-4), ("ve", 1e-4, 0.02)])
def test_exact_likelihood(name: str, rtol: float, error: float, gaussian: Any, generator: torch.Generator) -> None:
    denoiser, target = gaussian(name)
    x = target.mean + 0.5 * torch.randn(6, 3, generator=generator, dtype=torch.float64)
    log_prob, z, nfe = log_likelihood(denoiser, x, rtol=rtol, atol=rtol)
    expected, latent = closed_form(denoiser, target, x, 1e-4)
    torch.testing.assert_close(z, latent, rtol=5e-3, atol=error)
    torch.testing.assert_close(log_prob, expected, rtol=0, atol=error)
    assert nfe > 0
    density = torch.distributions.MultivariateNormal(target.mean, target.covariance)
    # the prior is not quite the law at t = 1 (alpha = 0.0066, or sigma = 50)
    tolerance = 0.1 if name == "ve" else 0.03
    torch.testing.assert_close(log_prob, density.log_prob(x), rtol=0, atol=tolerance)


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased(probe: Any, gaussian: Any, generator: torch.Generator) -> None:
    """4000 probes at one point; tolerance 4 standard errors."""
    denoiser, target = gaussian("subvp")
    x = (target.mean + 0.3).expand(4000, 3).clone()
    log_prob, _, _ = log_likelihood(denoiser, x, method="hutchinson", probe=probe, generator=generator)
    expected, _ = closed_form(denoiser, target, x[:1], 1e-4)
    assert abs(float(log_prob.mean() - expected)) < 4 * float(log_prob.std()) / 4000**0.5 + 1e-3


def test_chunks_and_batches_do_not_matter(gaussian: Any, generator: torch.Generator) -> None:
    denoiser, target = gaussian("subvp", torch.float32)
    x = target.mean + 0.5 * torch.randn(4, 3, generator=generator)
    whole = log_likelihood(denoiser, x)[0]
    torch.testing.assert_close(log_likelihood(denoiser, x[:1], chunk=2)[0], whole[:1], rtol=0, atol=0.01)
    assert whole.dtype == torch.float32 and whole.shape == (4,)


def test_exact_trace_through_a_usual_network(generator: torch.Generator) -> None:
    """Group norm, SiLU and a table indexed by the truncated label: the divergence equals that of the full Jacobian."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.norm, self.outer = torch.nn.Linear(6, 16), torch.nn.GroupNorm(4, 16), torch.nn.Linear(16, 6)
            self.table = torch.linspace(1, 2, 1000)

        def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            h = torch.nn.functional.silu(self.norm(self.inner(x.flatten(1)) + label[:, None] / 999))
            return (self.outer(h) / self.table[label.long()][:, None]).reshape(x.shape)

    torch.manual_seed(0)
    denoiser = Denoiser(Net(), VPSDE())
    x = torch.randn(5, 2, 3, generator=generator)
    directions = torch.eye(6).reshape(6, 2, 3)
    _, divergence = velocity_and_divergence(lambda x: denoiser.velocity(x, 0.3), x, directions, chunk=4)
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(lambda y: denoiser.velocity(y[None], 0.3)[0], x[i]).reshape(6, 6)
        torch.testing.assert_close(divergence[i], jacobian.trace(), rtol=1e-4, atol=1e-5)
    log_prob, z, _ = log_likelihood(denoiser, x)
    assert log_prob.shape == (5,) and z.shape == x.shape and bool(torch.isfinite(log_prob).all())


@pytest.mark.parametrize("name", NAMES)
def test_ode_is_the_closed_form_transport_and_inverts(name: str, gaussian: Any, generator: torch.Generator) -> None:
    denoiser, target = gaussian(name)
    z = denoiser.schedule.sample_prior((7, 3), generator, dtype=torch.float64)
    x, nfe = ode_sample(denoiser, z, rtol=1e-6, atol=1e-7)
    eps = denoiser.schedule.sampling_eps
    torch.testing.assert_close(x, target.transport(z, 1.0, eps), rtol=1e-4, atol=1e-5)
    back, _ = ode_encode(denoiser, x, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(back, z, rtol=1e-4, atol=1e-4)
    clean, more = ode_sample(denoiser, z, rtol=1e-6, atol=1e-7, denoise=True)
    torch.testing.assert_close(clean, denoiser.clean(x, eps), rtol=1e-6, atol=1e-6)
    assert more == nfe + 1


def test_bits_per_dim() -> None:
    assert bits_per_dim(torch.tensor([-63 * math.log(2) * 3]), 63).tolist() == pytest.approx([3.0])


def test_bad_input_is_named(gaussian: Any) -> None:
    denoiser = gaussian("subvp")[0]
    x = torch.zeros(2, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="method = 'skilling'"):
        log_likelihood(denoiser, x, method="skilling")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NaN or infinity at t = 1"):
        denoiser.network.mean = denoiser.network.mean + math.nan
        ode_sample(denoiser, x)
    with pytest.raises(ValueError, match="no SDE"):
        ode_sample(gaussian("discrete")[0], x)
