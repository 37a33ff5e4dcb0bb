"""Samplers against a Gaussian target, for which every marginal and the probability flow are known."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from dposer.diffusion import VESDE, VPSDE, Denoiser, DiscreteSchedule, SubVPSDE, sample, time_nodes
from dposer.diffusion.samplers import PREDICTORS

N = 5000


def check_moments(x: Tensor, target: Any, bias: float) -> None:
    """Mean and covariance within 5 standard errors of N samples plus the sampler's own ``bias`` (relative to the spread)."""
    spread = target.covariance.diagonal().sqrt()
    tolerance = 5 / len(x) ** 0.5 + bias
    assert float(((x.mean(0) - target.mean) / spread).abs().max()) < tolerance
    scale = spread[:, None] * spread
    assert float(((x.T.cov() - target.covariance) / scale).abs().max()) < 1.5 * tolerance


@pytest.mark.parametrize(
    ("name", "sampler", "steps", "bias"),
    [
        *((name, "euler_maruyama", 150, 0.06) for name in ("vp", "subvp")),
        ("ve", "euler_maruyama", 150, 0.15),
        *((name, "reverse_diffusion", 150, 0.06) for name in ("vp", "subvp", "discrete")),
        ("ve", "reverse_diffusion", 150, 0.15),
        *((name, "ancestral", 150, 0.06) for name in ("vp", "ve", "discrete")),
        *((name, "ddim", 80, 0.06) for name in ("vp", "subvp", "ve", "discrete")),
        *((name, "dpm++", 20, 0.02) for name in ("vp", "subvp", "ve", "discrete")),
        *((name, "ode_euler", 150, 0.06) for name in ("vp", "subvp")),
    ],
)
def test_moments(name: str, sampler: str, steps: int, bias: float, gaussian: Any, generator: torch.Generator) -> None:
    denoiser, target = gaussian(name, torch.float32)
    z = denoiser.schedule.sample_prior((N, 3), generator)
    x = sample(denoiser, z, sampler=sampler, steps=steps, generator=generator)
    assert x.dtype == torch.float32
    check_moments(x, target, bias)


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize(("sampler", "schedule", "steps"), [("ddim", "discrete", 150), ("dpm++", "subvp", 40), ("dpm++", "vp", 40)])
def test_a_share_of_noise_keeps_the_moments(
    sampler: str, schedule: str, steps: int, eta: float, gaussian: Any, generator: torch.Generator
) -> None:
    denoiser, target = gaussian(schedule, torch.float32)
    z = denoiser.schedule.sample_prior((N, 3), generator)
    check_moments(sample(denoiser, z, sampler=sampler, eta=eta, steps=steps, generator=generator), target, 0.03)


@pytest.mark.parametrize("name", ["vp", "subvp", "ve"])
@pytest.mark.parametrize("corrector", ["langevin", "ald"])
def test_correctors_help_a_coarse_predictor(name: str, corrector: str, gaussian: Any, generator: torch.Generator) -> None:
    denoiser, target = gaussian(name, torch.float32)
    z = denoiser.schedule.sample_prior((N, 3), generator)
    x = sample(denoiser, z, sampler="ddim", steps=100, corrector=corrector, generator=generator)
    check_moments(x, target, 0.1)


@pytest.mark.parametrize("corrector", ["langevin", "ald"])
def test_correctors_alone_settle_in_the_marginal(corrector: str, gaussian: Any, generator: torch.Generator) -> None:
    """From a single point at t = 0.3 to N(alpha m, alpha^2 C + sigma^2 I)."""
    denoiser, target = gaussian("subvp", torch.float32)
    times = torch.tensor([0.3, 0.2])
    x = sample(denoiser, torch.zeros(N, 3), sampler="none", times=times, corrector=corrector, corrector_steps=100, generator=generator)
    alpha, variances = denoiser.schedule.alpha(0.3).float(), target.spread(0.3)
    target.mean, target.variances = alpha * target.mean, variances[0]
    check_moments(x, target, 0.05)


@pytest.mark.parametrize("corrector", ["langevin", "ald"])
@pytest.mark.parametrize("name", ["subvp", "ve"])
def test_one_corrector_step_by_hand(corrector: str, name: str, gaussian: Any) -> None:
    denoiser, _ = gaussian(name)
    x, t = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(4, 3), 0.5
    score = denoiser.score(x, t)
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    a = 1.0 if name == "ve" else 1 - (0.1 + 19.9 * t) / 1000
    size = z.norm(dim=1).mean() / score.norm(dim=1).mean() if corrector == "langevin" else denoiser.schedule.sigma(t)
    step = 2 * a * (0.16 * size) ** 2
    got = sample(
        denoiser, x, sampler="none", corrector=corrector, steps=1, t_start=t, t_end=0.4, generator=torch.Generator().manual_seed(5)
    )
    torch.testing.assert_close(got, x + step * score + (2 * step).sqrt() * z)


@pytest.mark.parametrize("name", ["vp", "subvp", "ve"])
def test_euler_maruyama_is_the_reference_loop(name: str, gaussian: Any) -> None:
    """times = linspace(1, eps, N), dt = -1/N; the result is the last mean."""
    denoiser, _ = gaussian(name)
    schedule, steps = denoiser.schedule, 30
    z = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(4, 3)
    x, generator = z, torch.Generator().manual_seed(1)
    for t in torch.linspace(1, schedule.sampling_eps, steps, dtype=torch.float64):
        g = schedule.diffusion(t)
        mean = x - (schedule.drift(x, t) - g**2 * denoiser.score(x, t)) / steps
        x = mean + g / steps**0.5 * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    got = sample(denoiser, z, sampler="euler_maruyama", steps=steps, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(got, mean)


def test_ancestral_and_reverse_diffusion_are_the_ddpm_chain(gaussian: Any) -> None:
    denoiser = gaussian("discrete")[0]
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(4, 3)
    i, times = 500, torch.tensor([500, 499])
    beta, score = denoiser.schedule.betas[i], denoiser.score(x, i)
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    means = {"ancestral": (x + beta * score) / (1 - beta).sqrt(), "reverse_diffusion": (2 - (1 - beta).sqrt()) * x + beta * score}
    for sampler, mean in means.items():
        got = sample(denoiser, x, sampler=sampler, times=times, generator=torch.Generator().manual_seed(5))
        torch.testing.assert_close(got, mean + beta.sqrt() * z)


@pytest.mark.parametrize(("sampler", "t"), [("ancestral", 0.5), ("reverse_diffusion", 0.02)])
def test_continuous_vp_steps_agree_with_the_published_table(sampler: str, t: float, gaussian: Any) -> None:
    """With 1000 steps b^2 is the table's beta_i = beta(t) / N to first order."""
    denoiser, _ = gaussian("vp")
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(4, 3)
    beta, score = denoiser.schedule.beta(t) / 1000, denoiser.score(x, t)
    mean = (x + beta * score) / (1 - beta).sqrt() if sampler == "ancestral" else (2 - (1 - beta).sqrt()) * x + beta * score
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    got = sample(
        denoiser, x, sampler=sampler, times=torch.tensor([t, t - 1e-3], dtype=torch.float64), generator=torch.Generator().manual_seed(5)
    )
    torch.testing.assert_close(got, mean + beta.sqrt() * z, rtol=0, atol=2e-3)


def test_ancestral_ve_by_hand(gaussian: Any) -> None:
    denoiser, _ = gaussian("ve")
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(4, 3)
    high, low = (denoiser.schedule.sigma(t) for t in (0.5, 0.45))
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    gap = high**2 - low**2
    for sampler, noise in {"ancestral": (low**2 * gap / high**2).sqrt(), "reverse_diffusion": gap.sqrt()}.items():
        got = sample(denoiser, x, sampler=sampler, times=torch.tensor([0.5, 0.45]).double(), generator=torch.Generator().manual_seed(5))
        torch.testing.assert_close(got, x + gap * denoiser.score(x, 0.5) + noise * z, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("t", "s", "alpha", "c", "sigma"),
    [
        (999, 799, 0.3067, 0.0001, 0.9518),
        (799, 599, 0.5838, 0.3638, 0.7258),
        (599, 399, 0.8047, 0.3150, 0.5033),
        (399, 199, 0.9480, 0.1448, 0.2834),
    ],
)
def test_published_ddim_coefficients(t: int, s: int, alpha: float, c: float, sigma: float, generator: torch.Generator) -> None:
    """x_s = alpha clean + c noise + sigma z with eta = 1 on the cosine schedule of D3DP."""

    class Known(torch.nn.Module):
        def forward(self, x: Tensor, label: Tensor, clean: float) -> Tensor:
            return torch.full_like(x, clean)

    denoiser = Denoiser(Known(), DiscreteSchedule.cosine(1000), "clean")

    def moments(clean: float, noise: float) -> tuple[float, float]:
        x = denoiser.schedule.perturb(torch.full((40000, 1), clean).double(), t, torch.tensor(noise).double())
        x = sample(denoiser, x, sampler="ddim", eta=1.0, times=torch.tensor([t, s]), generator=generator, clean=clean)
        return float(x.mean()), float(x.std())

    assert moments(1.0, 0.0) == pytest.approx((alpha, sigma), abs=0.02)
    still = sample(denoiser, torch.zeros(1, 1), sampler="ddim", times=torch.tensor([t, s]), clean=1.0)
    root = float(denoiser.schedule.sigma(s))
    assert (root**2 - sigma**2) ** 0.5 == pytest.approx(c, abs=2e-2 if c < 1e-3 else 2e-3)
    noise = -float(denoiser.schedule.alpha(t) / denoiser.schedule.sigma(t))
    assert float(still) == pytest.approx(alpha + root * noise, abs=1e-4)


def error_at(sampler: str, steps: int, name: str, gaussian: Any) -> float:
    denoiser, target = gaussian(name)
    z = denoiser.schedule.sample_prior((16, 3), torch.Generator().manual_seed(2), dtype=torch.float64)
    x = sample(denoiser, z, sampler=sampler, steps=steps, t_end=0.1, noise_removal=False)
    return float((x - target.transport(z, 1.0, 0.1)).norm())


@pytest.mark.parametrize("name", ["vp", "subvp", "ve"])
@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpm++", 2), ("ode_euler", 1)])
def test_order_of_convergence(sampler: str, order: int, name: str, gaussian: Any) -> None:
    steps = 160 if sampler == "ode_euler" else 80
    ratio = error_at(sampler, steps, name, gaussian) / error_at(sampler, 2 * steps, name, gaussian)
    assert 0.8 * 2**order < ratio < 1.25 * 2**order


@pytest.mark.parametrize("name", ["vp", "subvp", "ve"])
def test_twenty_steps_of_dpm_solver_are_close_to_the_flow(name: str, gaussian: Any) -> None:
    denoiser, target = gaussian(name, torch.float32)
    z = denoiser.schedule.sample_prior((500, 3), torch.Generator().manual_seed(2))
    exact = target.transport(z, 1.0, denoiser.schedule.sampling_eps)
    spread = target.covariance.diagonal().sqrt()
    assert float(((sample(denoiser, z, steps=20) - exact) / spread).square().mean().sqrt()) < 0.03


@pytest.mark.parametrize("spacing", ["uniform", "log_snr"])
@pytest.mark.parametrize("sampler", sorted(set(PREDICTORS) - {"none"}))
@pytest.mark.parametrize("schedule", [VPSDE(), SubVPSDE(), VESDE(), DiscreteSchedule.cosine(25)], ids=lambda s: type(s).__name__)
def test_float32_stays_finite_however_few_the_steps(schedule: Any, sampler: str, spacing: str, generator: torch.Generator) -> None:
    discrete, sub = isinstance(schedule, DiscreteSchedule), isinstance(schedule, SubVPSDE)
    if (discrete and sampler in ("euler_maruyama", "ode_euler")) or (sub and sampler == "ancestral"):
        with pytest.raises(ValueError, match="no SDE|ancestral"):
            sample(Denoiser(torch.nn.Identity(), schedule), torch.zeros(2, 3), sampler=sampler)
        return

    class Bounded(torch.nn.Module):
        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            return torch.tanh(x)

    denoiser = Denoiser(Bounded(), schedule, "score" if isinstance(schedule, VESDE) else "noise")
    z = schedule.sample_prior((8, 3), generator)
    for steps in (1, 2, 25):
        for noise_removal in (True, False):
            x = sample(denoiser, z, sampler=sampler, steps=steps, spacing=spacing, noise_removal=noise_removal, generator=generator)
            assert bool(torch.isfinite(x).all()), (steps, noise_removal)


def test_nodes() -> None:
    assert time_nodes(VPSDE(), 4).tolist() == pytest.approx([1, 0.667, 0.334, 0.001, 0], abs=1e-9)
    assert time_nodes(VPSDE(), 3, 0.6, 0.3, noise_removal=False).tolist() == pytest.approx([0.6, 0.5, 0.4, 0.3])
    assert time_nodes(DiscreteSchedule.cosine(1000), 5).tolist() == [999, 799, 599, 399, 199, -1]
    assert time_nodes(DiscreteSchedule.cosine(25), 25).tolist() == [*range(24, -2, -1)]
    for schedule in (VPSDE(), SubVPSDE(), VESDE()):
        nodes = time_nodes(schedule, 6, spacing="log_snr")
        gaps = schedule.log_snr(nodes[:-1]).diff()
        torch.testing.assert_close(gaps, gaps[:1].expand(5))
        assert float(schedule.sigma(nodes[-2]) / schedule.alpha(nodes[-2])) >= 0.01 - 1e-9
        assert float(nodes[-1]) == schedule.clean_time
    assert time_nodes(SubVPSDE(), 2, t_start=0.02, spacing="log_snr").tolist() == pytest.approx([0.02, 0.001, 0])
    merged = time_nodes(DiscreteSchedule.linear(10), 40, spacing="log_snr")
    assert merged.tolist() == [*range(9, -2, -1)]


@pytest.mark.parametrize("sampler", ["dpm++", "ddim", "euler_maruyama"])
def test_same_seed_same_sample_and_trajectory(sampler: str, gaussian: Any) -> None:
    denoiser, _ = gaussian("subvp", torch.float32)
    z = denoiser.schedule.sample_prior((5, 3), torch.Generator().manual_seed(0))
    first, second, other = (
        sample(denoiser, z, sampler=sampler, eta=1.0, steps=6, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)
    x, states = sample(denoiser, z, sampler=sampler, eta=1.0, steps=6, generator=torch.Generator().manual_seed(1), trajectory=True)
    assert torch.equal(x, first) and states.shape == (6, 5, 3) and torch.equal(states[-1], x)


@pytest.mark.parametrize("sampler", ["dpm++", "ddim"])
def test_a_sample_does_not_depend_on_its_batch(sampler: str, gaussian: Any, generator: torch.Generator) -> None:
    denoiser, _ = gaussian("subvp")
    z = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    whole = sample(denoiser, z, sampler=sampler)
    torch.testing.assert_close(torch.cat([sample(denoiser, part, sampler=sampler) for part in z.split(2)]), whole)


def test_any_shape_and_condition(generator: torch.Generator) -> None:
    class Zero(torch.nn.Module):
        def forward(self, x: Tensor, label: Tensor, target: Tensor) -> Tensor:
            return target.expand_as(x)

    target = torch.randn(4, 5, generator=generator)
    denoiser = Denoiser(Zero(), SubVPSDE(), "clean")
    for sampler in ("dpm++", "ddim", "reverse_diffusion"):
        x = sample(denoiser, torch.randn(2, 7, 4, 5, generator=generator), sampler=sampler, generator=generator, target=target)
        torch.testing.assert_close(x, target.expand(2, 7, 4, 5), rtol=0, atol=1e-3)


def test_constrain_writes_an_observation_into_the_result(gaussian: Any, generator: torch.Generator) -> None:
    """Replacement at every noise level; at the last, noiseless one the known entry is exact and the rest follows its law."""
    denoiser, target = gaussian("vp", torch.float32)
    schedule, known = denoiser.schedule, torch.tensor([True, False, False])
    seen = []

    def replace(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t))
        noisy = schedule.perturb(target.mean + 0.4, t, torch.randn(x.shape, generator=generator))
        return torch.where(known, noisy, x)

    z = schedule.sample_prior((300, 3), generator)
    x = sample(denoiser, z, sampler="ancestral", steps=50, corrector="ald", generator=generator, constrain=replace)
    assert torch.equal(x[:, 0], (target.mean[0] + 0.4).expand(300))
    assert len(seen) == 100 and seen[-1] == 0 and seen[0] == 1


def test_guide_adds_to_the_predicted_state(gaussian: Any) -> None:
    denoiser, _ = gaussian("vp")
    z = torch.ones(2, 3, dtype=torch.float64)
    plain = sample(denoiser, z, steps=1)
    torch.testing.assert_close(sample(denoiser, z, steps=1, guide=lambda x, t: 0.1 * x * t), plain + 0.1)


def test_gradients_flow_on_request(gaussian: Any) -> None:
    denoiser, _ = gaussian("subvp")
    z = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()
    assert not sample(denoiser, z, steps=4).requires_grad
    x = sample(denoiser, z, steps=4, grad=True)
    (gradient,) = torch.autograd.grad(x.sum(), z)
    shift = torch.zeros(2, 3, dtype=torch.float64)
    shift[0, 0] = 1e-6
    change = (sample(denoiser, z.detach() + shift, steps=4) - x.detach()).sum() / 1e-6
    torch.testing.assert_close(gradient[0, 0], change, rtol=1e-5, atol=1e-6)


def test_progress_wraps_the_steps(gaussian: Any) -> None:
    denoiser, _ = gaussian("vp")
    counted: list[int] = []

    def count(steps: Iterable[int]) -> Iterator[int]:
        for i in steps:
            counted.append(i)
            yield i

    sample(denoiser, torch.ones(1, 3, dtype=torch.float64), steps=3, progress=count)
    assert counted == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": "euler"}, "sampler 'euler', expected one of euler_maruyama"),
        ({"corrector": "mala"}, "corrector 'mala'"),
        ({"spacing": "cubic"}, "spacing 'cubic'"),
        ({"steps": 0}, "steps = 0"),
        ({"t_start": 0.1, "t_end": 0.5}, "that decrease"),
        ({"times": torch.tensor([0.1])}, "at least two"),
        ({"spacing": "log_snr", "t_end": 0.0}, "infinite"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str, gaussian: Any) -> None:
    with pytest.raises(ValueError, match=message):
        sample(gaussian("vp")[0], torch.zeros(2, 3), **arguments)
