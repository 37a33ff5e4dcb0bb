"""Schedules against the published constants, their own SDEs and their inverses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.diffusion import VESDE, VPSDE, DiscreteSchedule, Schedule, SubVPSDE, make_schedule
from dposer.diffusion.schedule import expand

SDES: list[Schedule] = [VPSDE(), SubVPSDE(), VESDE()]
TIMES = [1e-5, 1e-3, 0.05, 0.3, 0.7, 1.0]
sdes = pytest.mark.parametrize("schedule", SDES, ids=lambda s: type(s).__name__)


@pytest.mark.parametrize(
    ("t", "alpha", "sigma"),
    [(0.05, 0.98517, 0.02943), (0.1, 0.94672, 0.10372), (0.2, 0.81140, 0.34164), (0.3, 0.62955, 0.60367), (1.0, 0.00657, 0.99996)],
)
def test_published_table(t: float, alpha: float, sigma: float) -> None:
    schedule = SubVPSDE()
    assert float(schedule.alpha(t)) == pytest.approx(alpha, abs=5e-6)
    assert float(schedule.sigma(t)) == pytest.approx(sigma, abs=5e-6)
    assert float(VPSDE().alpha(t)) == pytest.approx(alpha, abs=5e-6)
    assert float(VPSDE().sigma(t)) == pytest.approx(math.sqrt(1 - float(schedule.alpha(t)) ** 2), abs=1e-9)
    assert float(VESDE().sigma(t)) == pytest.approx(0.01 * 5000**t)
    assert float(VESDE().alpha(t)) == 1


@sdes
@pytest.mark.parametrize("t", TIMES)
def test_marginals_solve_the_sde(schedule: Schedule, t: float) -> None:
    """d log(alpha)/dt = f and d(sigma^2)/dt = 2 f sigma^2 + g^2 for drift f x and diffusion g."""
    time = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    rate = schedule.drift(torch.ones(1, 1, dtype=torch.float64), time).squeeze()
    variance = schedule.sigma(time) ** 2
    (log_alpha_rate,) = torch.autograd.grad(schedule.log_alpha(time) + 0 * time, time)
    (variance_rate,) = torch.autograd.grad(variance, time)
    torch.testing.assert_close(log_alpha_rate, rate.detach(), rtol=1e-10, atol=1e-12)
    expected = (2 * rate * variance + schedule.diffusion(time) ** 2).detach()
    torch.testing.assert_close(variance_rate, expected, rtol=1e-7, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(t=st.floats(1e-5, 1.0), index=st.integers(0, 2), beta_0=st.floats(0.01, 1.0), beta_1=st.floats(1.0, 40.0))
def test_time_inverts_log_snr(t: float, index: int, beta_0: float, beta_1: float) -> None:
    schedule = [VPSDE(beta_0, beta_1), SubVPSDE(beta_0, beta_1), VESDE(beta_0, 1 + beta_1)][index]
    assert float(schedule.time(schedule.log_snr(t))) == pytest.approx(t, rel=1e-6, abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(times=st.lists(st.floats(1e-5, 1.0), min_size=2, max_size=2, unique=True), index=st.integers(0, 2))
def test_noise_grows_and_float32_agrees_with_float64(times: list[float], index: int) -> None:
    schedule, single = SDES[index], torch.tensor(sorted(times), dtype=torch.float32)
    double = single.double()
    for value in (schedule.alpha, schedule.sigma, schedule.log_snr):
        torch.testing.assert_close(value(single).double(), value(double), rtol=3e-6, atol=3e-6)
    earlier, later = schedule.log_snr(double)
    assert earlier >= later
    torch.testing.assert_close(schedule.time(schedule.log_snr(single)), single, rtol=2e-4, atol=1e-6)


def test_clean_time_is_the_limit_without_noise() -> None:
    for schedule in [*SDES, DiscreteSchedule.linear(10)]:
        assert float(schedule.alpha(schedule.clean_time)) == 1
        assert float(schedule.sigma(schedule.clean_time)) == 0
        assert float(schedule.log_snr(schedule.clean_time)) == math.inf
        assert float(schedule.time(math.inf)) == schedule.clean_time


def test_labels_and_stopping_times() -> None:
    assert [float(s.label(0.5)) for s in SDES] == pytest.approx([499.5, 499.5, 0.01 * 5000**0.5])
    assert [s.sampling_eps for s in SDES] == [1e-3, 1e-3, 1e-5]
    assert DiscreteSchedule.linear(5).label(torch.tensor([0, 4])).tolist() == [0, 4]


def test_perturb_broadcasts_times_and_keeps_the_dtype(generator: torch.Generator) -> None:
    x, z = torch.randn(4, 2, 3, generator=generator), torch.randn(4, 2, 3, generator=generator)
    for schedule, t in [(SubVPSDE(), torch.rand(4, generator=generator)), (DiscreteSchedule.cosine(50), torch.tensor([0, 3, 9, 49]))]:
        got = schedule.perturb(x, t, z)
        assert got.dtype == torch.float32
        for i in range(4):
            expected = schedule.alpha(t[i]) * x[i] + schedule.sigma(t[i]) * z[i]
            torch.testing.assert_close(got[i], expected.float())
    assert expand(torch.ones(4), x).shape == (4, 1, 1)
    assert expand(torch.tensor([1.0, 2.0]), x).flatten().tolist() == [1, 1, 2, 2]
    for times in (3, 8):
        with pytest.raises(ValueError, match=f"{times} times for 4 samples"):
            expand(torch.ones(times), x)
    assert SubVPSDE().perturb(x, 0.3, z).dtype == torch.float32


@pytest.mark.parametrize("schedule", [SubVPSDE(), VESDE()])
def test_prior(schedule: Schedule, generator: torch.Generator) -> None:
    z = schedule.sample_prior((20000, 2, 3), generator)
    assert float(z.std()) == pytest.approx(schedule.prior_sigma, rel=0.02)
    expected = torch.distributions.Normal(0, schedule.prior_sigma).log_prob(z).sum((1, 2))
    torch.testing.assert_close(schedule.prior_log_prob(z), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("schedule", "alpha_bars"),
    [
        (DiscreteSchedule.cosine(1000), {0: 0.9999587, 199: 0.898706, 499: 0.493844, 799: 0.0940456, 999: 2.4288e-9}),
        (DiscreteSchedule.cosine(50, max_beta=0.5), {0: 0.998252, 10: 0.879122, 25: 0.462707, 40: 0.0766498, 49: 0.00108976}),
        (DiscreteSchedule.cosine(25), {0: 0.99457, 1: 0.98146, 12: 0.46271, 22: 0.015464, 23: 0.003881, 24: 3.88e-6}),
        (DiscreteSchedule.linear(51, 1e-4, 1e-3), {0: 0.9999, 6: 0.998922, 12: 0.997299, 24: 0.992130, 50: 0.972331}),
    ],
    ids=["ddhpose", "diffhpe", "diffpose", "latent_cross_channel"],
)
def test_published_discrete_tables(schedule: DiscreteSchedule, alpha_bars: dict[int, float]) -> None:
    for i, value in alpha_bars.items():
        assert float(schedule.alpha_bars[i]) == pytest.approx(value, rel=2e-3 if value == 3.88e-6 else 4e-5)
        assert float(schedule.alpha(i)) ** 2 == pytest.approx(float(schedule.alpha_bars[i]))
        assert float(schedule.sigma(i)) ** 2 == pytest.approx(1 - float(schedule.alpha_bars[i]))


def test_published_betas() -> None:
    betas = DiscreteSchedule.cosine(50, max_beta=0.5).betas
    published = {0: 0.00174751, 1: 0.00368895, 10: 0.0217907, 25: 0.0630498, 40: 0.184972, 46: 0.436223, 47: 0.5, 49: 0.5}
    assert {i: round(float(betas[i]), 8 if i < 2 else 7 if i < 40 else 6) for i in published} == published
    assert float(DiscreteSchedule.cosine(1000).betas[999]) == 0.999
    quad = DiscreteSchedule.quad(5, 1e-4, 0.5).betas
    torch.testing.assert_close(quad.sqrt().diff(), quad.sqrt().diff()[:1].expand(4))
    assert quad[[0, -1]].tolist() == pytest.approx([1e-4, 0.5])


def test_vp_chain_has_the_continuous_limit() -> None:
    """beta_i = (beta_0 .. beta_1) / N; its alpha-bar tends to alpha(t)^2, and step_alpha is alpha_i = 1 - beta_i."""
    chain, sde = VPSDE().discretize(1000), VPSDE()
    torch.testing.assert_close(chain.betas, torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
    t = torch.linspace(0, 1, 1000, dtype=torch.float64)
    torch.testing.assert_close(chain.alpha(t * 999), sde.alpha(t), rtol=0, atol=2e-3)
    torch.testing.assert_close(chain.step_alpha(t * 999), sde.step_alpha(t), rtol=0, atol=1e-12)
    torch.testing.assert_close(SubVPSDE().step_alpha(t), sde.step_alpha(t))
    assert VESDE().step_alpha(t).unique().tolist() == [1]


@settings(max_examples=40, deadline=None)
@given(steps=st.integers(2, 200), kind=st.sampled_from(["linear", "quad", "cosine"]))
def test_discrete_time_inverts_log_snr(steps: int, kind: str) -> None:
    schedule: DiscreteSchedule = getattr(DiscreteSchedule, kind)(steps)
    t = torch.arange(-1, steps)
    assert schedule.time(schedule.log_snr(t)).tolist() == t.tolist()
    assert bool((schedule.log_snr(t).diff() < 0).all())


def test_make_schedule() -> None:
    assert make_schedule("subvpsde") == SubVPSDE(0.1, 20.0)
    assert make_schedule("vesde", sigma_max=10.0) == VESDE(0.01, 10.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_schedule("ddpm"), "ddpm.*expected one of vpsde"),
        (lambda: make_schedule("vpsde", sigma_min=1.0), "vpsde.*sigma_min"),
        (lambda: VPSDE(beta_0=-1.0), "beta_0 = -1.0"),
        (lambda: VESDE(sigma_min=60.0), "sigma_min = 60.0"),
        (lambda: DiscreteSchedule([]), "non-empty"),
        (lambda: DiscreteSchedule([0.1, 1.5]), "between 0 and 1"),
        (lambda: DiscreteSchedule.linear(5).alpha(5), "steps from -1"),
        (lambda: DiscreteSchedule.linear(5).diffusion(1), "no SDE"),
        (lambda: DiscreteSchedule.linear(5).drift(torch.ones(1, 1), 1), "no SDE"),
    ],
)
def test_bad_parameters_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
