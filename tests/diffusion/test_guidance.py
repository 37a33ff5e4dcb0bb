"""Guided samplers against conditionals known in closed form; the bias of each is stated, not hidden."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from dposer.diffusion import VPSDE, SubVPSDE, sample, time_nodes
from dposer.diffusion.analytic import GaussianMixture
from dposer.diffusion.guidance import GradientGuidance, Method, Observation, PseudoInverseGuidance, guided_sample, time_travel

SCHEDULE = SubVPSDE()
COUNT = 1500
NOISY = {"eta": 1.0, "spacing": "log_snr"}
GAUSSIAN = GaussianMixture(
    torch.ones(1, dtype=torch.float64),
    torch.tensor([[0.3, -0.4, 0.2]], dtype=torch.float64),
    torch.tensor([[[1.0, 0.8, 0.0], [0.8, 1.0, 0.3], [0.0, 0.3, 0.5]]], dtype=torch.float64),
)
MIXTURE = GaussianMixture(
    torch.tensor([0.5, 0.5], dtype=torch.float64),
    torch.tensor([[-1.0, -1.5], [1.0, 1.5]], dtype=torch.float64),
    torch.tensor([[[0.6, 0.2], [0.2, 0.2]], [[0.6, -0.2], [-0.2, 0.2]]], dtype=torch.float64),
)


def draw(target: GaussianMixture, method: Method, value: float = 1.2, seed: int = 0, **options: Any) -> tuple[Tensor, GaussianMixture]:
    """Samples of the free entries given the first, and their exact law."""
    generator = torch.Generator().manual_seed(seed)
    dims = target.means.shape[1]
    known = torch.arange(dims) == 0
    y = torch.full((dims,), value, dtype=torch.float64)
    observation = Observation(known.expand(COUNT, dims), y.expand(COUNT, dims))
    z = SCHEDULE.sample_prior((COUNT, dims), generator, dtype=torch.float64)
    x = guided_sample(target.denoiser(SCHEDULE), z, observation, method, generator=generator, **options)
    assert torch.equal(x[:, 0], y[:1].expand(COUNT))
    return x[:, 1:], target.given(known, y)


def biases(samples: Tensor, law: GaussianMixture) -> tuple[float, float]:
    """Error of the mean in exact standard deviations, and the ratio of standard deviations, of the first free entry."""
    exact = law.covariance[0, 0].sqrt()
    return float((samples[:, 0].mean() - law.mean[0]) / exact), float(samples[:, 0].std() / exact)


CASES: list[tuple[Method, dict[str, Any], tuple[float, float], tuple[float, float]]] = [
    # method, options, (bias of the mean in standard deviations, ratio of standard deviations) for the Gaussian, for the mixture
    ("inpainting", {"sampler": "dpm++", "steps": 20, "t_end": 0.02}, (0, 1), (0, 1)),
    ("RePaint", {"sampler": "ddim", "steps": 40, "resamples": 20, **NOISY}, (0, 0.95), (0, 1)),
    ("SMC", {"steps": 40, "particles": 16}, (0, 0.9), (0, 0.9)),  # few steps of DDPM narrow the samples
    # Replacement loses correlation, and here the choice between the components with it.
    ("ScoreSDE", {"sampler": "euler_maruyama", "steps": 200}, (-0.4, 1.1), (-1.4, 2.4)),
    ("ScoreSDE", {"sampler": "ddim", "steps": 40, **NOISY}, (-0.4, 1.05), (-1.4, 2.35)),
    # A gradient of a norm pushes too far and narrows the samples; without the Jacobian it is as blind as replacement.
    ("MCG", {"sampler": "ddim", "steps": 100, "eta": 1.0}, (0.45, 0.8), (0.15, 0.65)),
    ("DPS", {"sampler": "ddim", "steps": 100, "eta": 1.0}, (0.2, 0.9), (0.15, 0.75)),
    ("DPS", {"sampler": "euler_maruyama", "steps": 300, "scale": 1.0, "jacobian": False, "limit": False}, (0, 1), (-0.65, 1.65)),
    ("PiGDM", {"sampler": "ddim", "steps": 60, **NOISY}, (-0.05, 0.95), (-0.05, 1)),
    ("PiGDM", {"sampler": "dpm++", "steps": 20, "t_end": 0.02}, (-0.05, 1.05), (-0.05, 1.25)),
]


@pytest.mark.parametrize(
    ("method", "options", "gaussian", "mixture"), CASES, ids=[f"{row[0]} {row[1].get('sampler', '')}" for row in CASES]
)
def test_the_conditional_is_met_but_for_the_known_bias(
    method: Method, options: dict[str, Any], gaussian: tuple[float, float], mixture: tuple[float, float]
) -> None:
    for target, (bias, ratio) in ((GAUSSIAN, gaussian), (MIXTURE, mixture)):
        samples, law = draw(target, method, **options)
        off, spread = biases(samples, law)
        assert off == pytest.approx(bias, abs=0.1) and spread == pytest.approx(ratio, abs=0.12)


@pytest.mark.parametrize("method", [method for method in get_args(Method) if method != "SMC"])  # which has a sampler of its own
@pytest.mark.parametrize("sampler", ["euler_maruyama", "reverse_diffusion", "ddim", "dpm++", "ode_euler"])
def test_every_method_goes_with_every_sampler(method: Method, sampler: str) -> None:
    window = {"t_start": 0.7, "t_end": 0.02, "spacing": "log_snr"}
    samples, law = draw(GAUSSIAN, method, sampler=sampler, steps=30, resamples=3, **window)
    off, spread = biases(samples, law)
    assert abs(off) < 0.9 and 0.5 < spread < 1.6


def test_the_covariance_of_exact_methods_is_that_of_the_conditional() -> None:
    samples, law = draw(GAUSSIAN, "inpainting", sampler="ddim", steps=100, **NOISY)
    torch.testing.assert_close(samples.T.cov(), law.covariance, atol=0.04, rtol=0.1)
    samples, law = draw(GAUSSIAN, "RePaint", sampler="ddim", steps=40, resamples=20, **NOISY)
    torch.testing.assert_close(samples.T.cov(), law.covariance, atol=0.06, rtol=0.15)


def test_more_resampling_mends_replacement() -> None:
    errors = [abs(biases(*draw(MIXTURE, "RePaint", steps=20, resamples=r, **NOISY))[0]) for r in (1, 3, 12)]
    assert errors[0] > 2 * errors[1] > 2 * errors[2]


def test_more_particles_mend_guidance_far_from_the_data() -> None:
    far = {"value": 2.5, "steps": 40}
    errors = [abs(biases(*draw(MIXTURE, "SMC", particles=p, **far))[1] - 1) for p in (1, 32)]
    assert errors[1] < errors[0]


def _state() -> tuple[Observation, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    known = torch.tensor([True, False, True])
    return Observation(known.expand(4, 3), torch.randn(4, 3, generator=generator, dtype=torch.float64)), x


def test_the_gradient_of_dps_is_the_derivative_of_each_sample_s_own_norm() -> None:
    observation, x = _state()
    denoiser, t = GAUSSIAN.denoiser(SCHEDULE), torch.tensor(0.4, dtype=torch.float64)

    def norms(x: Tensor) -> Tensor:
        return observation.residual(denoiser.clean(x, t)).norm(dim=1)

    shift = GradientGuidance(denoiser, observation, scale=0.7, limit=False).shift(x, t)
    step = 1e-5
    for axis in range(3):
        nudge = step * torch.eye(3, dtype=torch.float64)[axis]
        slope = (norms(x + nudge) - norms(x - nudge)) / (2 * step)
        torch.testing.assert_close(shift[:, axis], -0.7 * slope, rtol=1e-5, atol=1e-7)


def test_the_published_form_has_no_jacobian_and_one_norm_for_the_batch() -> None:
    observation, x = _state()
    denoiser, t = GAUSSIAN.denoiser(SCHEDULE), torch.tensor(0.4, dtype=torch.float64)
    residual = observation.residual(denoiser.clean(x, t))
    shift = GradientGuidance(denoiser, observation, jacobian=False, per_sample=False, limit=False).shift(x, t)
    torch.testing.assert_close(shift, residual / (SCHEDULE.alpha(t) * residual.norm()))
    alone = Observation(observation.known[:1], observation.value[:1])
    assert not torch.allclose(GradientGuidance(denoiser, alone, jacobian=False, per_sample=False, limit=False).shift(x[:1], t), shift[:1])


def test_guidance_costs_one_evaluation_a_step() -> None:
    observation, x = _state()
    denoiser = GAUSSIAN.denoiser(SCHEDULE)
    calls: list[int] = []
    denoiser.network.register_forward_hook(lambda *_: calls.append(1))
    for method, expected in (("DPS", 12), ("MCG", 12), ("PiGDM", 12), ("ScoreSDE", 12), ("inpainting", 12)):
        calls.clear()
        guided_sample(denoiser, x, observation, method, sampler="ddim", steps=12)  # type: ignore[arg-type]
        assert len(calls) == expected, method
    calls.clear()
    guided_sample(denoiser, x, observation, "RePaint", steps=12, resamples=3)
    assert len(calls) == 3 * 11 + 1


def test_pseudo_inverse_guidance_of_a_standard_normal_knows_the_answer() -> None:
    observation, x = _state()
    eye = torch.eye(3, dtype=torch.float64)
    standard = GaussianMixture(torch.ones(1, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64), eye[None])
    for schedule in (VPSDE(), SCHEDULE):
        guided = PseudoInverseGuidance(standard.denoiser(schedule), observation)
        clean, noise = guided.clean_and_noise(x, torch.tensor(0.5, dtype=torch.float64))
        torch.testing.assert_close(clean[observation.known], observation.value[observation.known])
        torch.testing.assert_close(schedule.perturb(clean, 0.5, noise), x)


def test_repaint_goes_back_up_and_the_forward_chain_keeps_the_marginal() -> None:
    nodes = torch.tensor([1.0, 0.6, 0.3, 0.1, 0.0])
    assert time_travel(nodes, jump=1, resamples=2).tolist() == pytest.approx([1, 0.6, 1, 0.6, 0.3, 0.6, 0.3, 0.1, 0.3, 0.1, 0])
    assert time_travel(nodes, jump=2, resamples=2).tolist() == pytest.approx([1, 0.6, 0.3, 1, 0.6, 0.3, 0.1, 0.3, 0.1, 0])
    assert torch.equal(time_travel(nodes, resamples=1), nodes)
    generator = torch.Generator().manual_seed(0)
    z = SCHEDULE.sample_prior((COUNT, 3), generator, dtype=torch.float64)
    walk = time_travel(time_nodes(SCHEDULE, 40, spacing="log_snr"), jump=5, resamples=2)
    x = sample(GAUSSIAN.denoiser(SCHEDULE), z, sampler="dpm++", times=walk, generator=generator)
    torch.testing.assert_close(x.T.cov(), GAUSSIAN.covariance, atol=0.06, rtol=0.1)


@pytest.mark.parametrize(("options", "complaint"), [
    ({"method": "magic"}, "expected one of ScoreSDE"),
    ({"method": "RePaint", "jump": 0}, "at least 1"),
    ({"method": "DPS", "sampler": "magic"}, "sampler 'magic'"),
])  # fmt: skip
def test_what_does_not_exist_is_refused(options: dict[str, Any], complaint: str) -> None:
    observation, x = _state()
    with pytest.raises(ValueError, match=complaint):
        guided_sample(GAUSSIAN.denoiser(SCHEDULE), x, observation, **options)
