"""The loss at the exact denoiser is the conditional variance of the noise."""

from typing import Any

import pytest
import torch

from dposer.diffusion import VESDE, Denoiser, DiscreteSchedule, SubVPSDE, denoising_loss, draw_times


def data(target: Any, n: int, generator: torch.Generator) -> torch.Tensor:
    z = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return target.mean + z * target.variances.sqrt() @ target.axes.T


@pytest.mark.parametrize(("name", "t"), [("vp", 0.2), ("subvp", 0.1), ("subvp", 0.6), ("ve", 0.4), ("discrete", 300.0)])
def test_loss_of_the_exact_denoiser(name: str, t: float, gaussian: Any, generator: torch.Generator) -> None:
    """E (z - E[z | x_t])^2 = alpha^2 c / (alpha^2 c + sigma^2) along each axis of variance c. Tolerance: 4 standard errors."""
    denoiser, target = gaussian(name, predicts="score" if name == "ve" else "noise")
    x0, times = data(target, 20000, generator), torch.full((20000,), t, dtype=torch.float64)
    expected = 1 - (denoiser.schedule.sigma(t) ** 2 / target.spread(t)).mean()
    loss = denoising_loss(denoiser, x0, t=times, generator=generator)
    assert loss.ndim == 0
    assert float(loss) == pytest.approx(float(expected), rel=4 * (2 / 20000) ** 0.5)
    seed = torch.Generator().manual_seed(3)
    halves = denoising_loss(denoiser, x0, t=times, generator=seed, reduce_mean=False, per_sample=True)
    assert halves.shape == (20000,)
    assert float(halves.mean()) == pytest.approx(1.5 * float(expected), rel=0.05)
    if name != "discrete":
        weighted = denoising_loss(denoiser, x0, t=times, generator=torch.Generator().manual_seed(3), likelihood_weighting=True)
        scale = float((denoiser.schedule.diffusion(t) / denoiser.schedule.sigma(t)) ** 2)
        assert float(weighted) == pytest.approx(scale * float(halves.mean()) / 1.5, rel=1e-9)


def test_given_noise_and_time_make_it_deterministic(gaussian: Any, generator: torch.Generator) -> None:
    denoiser, target = gaussian("subvp")
    x0, t = data(target, 6, generator), torch.linspace(0.01, 1, 6, dtype=torch.float64)
    z = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    by_hand = ((denoiser.noise(denoiser.schedule.perturb(x0, t, z), t) - z) ** 2).mean(1)
    torch.testing.assert_close(denoising_loss(denoiser, x0, t=t, noise=z, per_sample=True), by_hand)
    sigma = denoiser.schedule.sigma(t)[:, None]
    by_score = ((denoiser.score(denoiser.schedule.perturb(x0, t, z), t) * sigma + z) ** 2).mean(1)
    torch.testing.assert_close(by_hand, by_score)


def test_same_generator_same_loss(gaussian: Any, generator: torch.Generator) -> None:
    denoiser, target = gaussian("subvp")
    x0 = data(target, 10, generator)
    losses = [float(denoising_loss(denoiser, x0, generator=torch.Generator().manual_seed(seed))) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_drawn_times(generator: torch.Generator) -> None:
    times = draw_times(SubVPSDE(), 5000, eps=0.2, generator=generator)
    assert 0.2 <= float(times.min()) < 0.21 and 0.99 < float(times.max()) <= 1
    steps = draw_times(DiscreteSchedule.linear(7), 5000, generator=generator)
    assert steps.unique().tolist() == list(range(7))
    levels = draw_times(VESDE(), 5000, levels=5, generator=generator)
    assert levels.unique().tolist() == [0, 0.25, 0.5, 0.75, 1]
    counts = torch.bincount((levels * 4).long()).double() / 5000
    assert float((counts - 0.2).abs().max()) < 0.03


def test_smld_is_the_ve_loss_on_the_geometric_levels(gaussian: Any, generator: torch.Generator) -> None:
    """Target -n / sigma^2 for n = sigma z, weight sigma^2: the same number."""
    denoiser, target = gaussian("ve", predicts="score")
    x0, z = data(target, 8, generator), torch.randn(8, 3, generator=generator, dtype=torch.float64)
    t = draw_times(denoiser.schedule, 8, levels=1000, generator=generator).double()
    sigma = torch.exp(torch.linspace(torch.tensor(0.01).log(), torch.tensor(50.0).log(), 1000))[(t * 999).round().long()].double()[:, None]
    n = sigma * z
    smld = ((denoiser.network(x0 + n, sigma[:, 0]) + n / sigma**2) ** 2 * sigma**2).mean(1)
    torch.testing.assert_close(denoising_loss(denoiser, x0, t=t, noise=z, per_sample=True), smld, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_network(generator: torch.Generator) -> None:
    class Net(torch.nn.Linear):
        def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward(x)

    denoiser = Denoiser(Net(3, 3), SubVPSDE())
    denoising_loss(denoiser, torch.randn(4, 3, generator=generator), generator=generator).backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in denoiser.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in denoiser.parameters())
