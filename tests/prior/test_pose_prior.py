"""The public face of the prior, against a denoiser whose answers are known in closed form."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dposer.errors import InputError
from dposer.prior.config import DataConfig, ModelConfig, PriorConfig, TrainingConfig
from dposer.prior.networks import build_network
from dposer.prior.normalizer import Normalizer
from dposer.prior.plausibility import Calibration
from dposer.prior.pose_prior import PosePrior, slerp
from tests.gaussian import GaussianNoise

SMALL = ModelConfig(HIDDEN_DIM=64, EMBED_DIM=16)


@pytest.fixture
def gaussian() -> PosePrior:
    """Normalised poses are N(0, diag V), V between 0.2 and 1; poses in radians are half as large, about 0.3."""
    variance = torch.linspace(0.2, 1, 63).double()
    return PosePrior(GaussianNoise(variance), Normalizer(torch.full((63,), 0.3), torch.full((63,), 0.5))).double().eval()


@pytest.fixture
def poses(gaussian: PosePrior, generator: torch.Generator) -> Tensor:
    return _draw(gaussian, 500, generator)


@pytest.fixture
def prior(generator: torch.Generator) -> PosePrior:
    """Random weights."""
    torch.manual_seed(0)
    config = PriorConfig(model=SMALL)
    return PosePrior(build_network(SMALL, 63), Normalizer.published(), config).eval().requires_grad_(False)


def _variance(prior: PosePrior) -> Tensor:
    network = prior.denoiser.network
    assert isinstance(network, GaussianNoise)
    return network.variance


def _draw(prior: PosePrior, n: int, generator: torch.Generator) -> Tensor:
    return prior.denormalize(_variance(prior).sqrt() * torch.randn(n, 63, generator=generator, dtype=torch.float64))


# ---- the regulariser


@pytest.mark.parametrize("t", [0.1, torch.tensor(0.1), torch.tensor([0.05, 0.1, 0.4])])
@pytest.mark.parametrize("weighting", ["plain", "sqrt(1+snr)", "sqrt(1+snr^2)"])
@pytest.mark.parametrize("form", ["residual", "red-diff"])
def test_the_gradient_of_the_loss_is_the_distilled_score(
    prior: PosePrior, generator: torch.Generator, t: Any, weighting: Any, form: Any
) -> None:
    prior = prior.double()
    x = torch.randn(3, 63, generator=generator, dtype=torch.float64, requires_grad=True)
    z = torch.randn(3, 63, generator=generator, dtype=torch.float64)
    loss = prior.loss(prior.denormalize(x), t, z, weighting=weighting, form=form)
    (gradient,) = torch.autograd.grad(loss.sum(), x)

    times = torch.as_tensor(t, dtype=torch.float64).expand(3)
    alpha, sigma = prior.schedule.alpha(times)[:, None], prior.schedule.sigma(times)[:, None]
    snr = alpha / sigma
    w = {"plain": torch.tensor(0.5), "sqrt(1+snr)": 0.5 * (1 + snr).sqrt(), "sqrt(1+snr^2)": 0.5 * (1 + snr**2).sqrt()}[weighting]
    predicted = prior.denoiser.network(alpha * x + sigma * z, 999 * times)
    torch.testing.assert_close(gradient, 2 * w * sigma / alpha * (predicted - z), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(prior.loss_gradient(x, t, z, weighting=weighting), gradient, rtol=1e-6, atol=1e-9)
    squares = w * (sigma / alpha * (predicted - z)) ** 2
    linear = 2 * w * sigma / alpha * (predicted - z) * x
    torch.testing.assert_close(loss, (squares if form == "residual" else linear).sum(1), rtol=1e-5, atol=1e-8)


def test_several_steps_are_ddim(prior: PosePrior, generator: torch.Generator) -> None:
    prior = prior.double()
    x, z = torch.randn(2, 4, 63, generator=generator, dtype=torch.float64)
    a, s = prior.schedule.alpha, prior.schedule.sigma
    t, end = 0.2, 0.2 / 6
    by_hand = a(t) * x + s(t) * z
    for now, then in ((0.2, 0.2 - (t - end) / 3), (0.2 - (t - end) / 3, end + (t - end) / 3), (end + (t - end) / 3, end)):
        noise = prior.denoiser.network(by_hand, torch.tensor([999 * now], dtype=torch.float64))
        by_hand = a(then) / a(now) * (by_hand - s(now) * noise) + s(then) * noise
    torch.testing.assert_close(prior.loss_gradient(x, t, z, steps=3), x - by_hand)
    torch.testing.assert_close(prior.ddim(a(t) * x + s(t) * z, torch.full((4,), t, dtype=torch.float64), 3), by_hand)
    # one step to clean data is the Tweedie estimate
    torch.testing.assert_close(prior.ddim(by_hand, t, 1, t_end=0.0), prior.ddim(by_hand, t))


def test_no_gradient_reaches_the_network(generator: torch.Generator) -> None:
    prior = PosePrior(build_network(SMALL, 63), Normalizer.published())
    pose = torch.zeros(2, 63, requires_grad=True)
    prior.loss(pose, 0.1, generator=generator, reduction="mean").backward()
    assert pose.grad is not None and all(p.grad is None for p in prior.parameters())


def test_reductions_and_seeds(prior: PosePrior, generator: torch.Generator) -> None:
    pose = 0.3 * torch.randn(5, 63, generator=generator)
    each = prior.loss(pose, 0.1, generator=torch.Generator().manual_seed(3))
    assert each.shape == (5,)
    for reduction, value in (("mean", each.mean()), ("sum", each.sum())):
        torch.testing.assert_close(prior.loss(pose, 0.1, generator=torch.Generator().manual_seed(3), reduction=reduction), value)  # type: ignore[arg-type]


# ---- denoising, samples, latents


def test_denoise_is_the_posterior_mean(gaussian: PosePrior, poses: Tensor, generator: torch.Generator) -> None:
    t, z = 0.3, torch.randn(500, 63, generator=generator, dtype=torch.float64)
    alpha, sigma = gaussian.schedule.alpha(t), gaussian.schedule.sigma(t)
    variance = _variance(gaussian)
    x_t = alpha * gaussian.normalize(poses) + sigma * z
    mean = alpha * variance / (alpha**2 * variance + sigma**2) * x_t
    torch.testing.assert_close(gaussian.normalize(gaussian.denoise(poses, t, z)), mean, rtol=1e-6, atol=1e-6)
    pose = poses[:1].clone().requires_grad_(True)
    gaussian.denoise(pose, t, z[:1]).sum().backward()
    assert pose.grad is not None and bool(pose.grad.abs().sum() > 0)


@pytest.mark.parametrize("options", [{}, {"sampler": "ddim", "steps": 50}, {"sampler": "euler_maruyama", "steps": 200}, {"sampler": "ode"}])
def test_samples_have_the_variance_of_the_data(gaussian: PosePrior, generator: torch.Generator, options: dict[str, Any]) -> None:
    samples = gaussian.sample(1000, generator=generator, **options)
    assert samples.shape == (1000, 63)
    variance = gaussian.normalize(samples).var(0)
    torch.testing.assert_close(variance, _variance(gaussian), rtol=0.25, atol=0.03)


def test_sampling_is_reproducible_and_can_show_its_way(prior: PosePrior) -> None:
    calls: list[tuple[int, int]] = []
    seed = torch.Generator().manual_seed
    poses, states = prior.sample(3, 5, generator=seed(1), trajectory=True, progress=lambda *call: calls.append(call))
    assert poses.shape == (3, 63) and states.shape == (5, 3, 63)
    assert calls == [(i, 5) for i in range(1, 6)]
    torch.testing.assert_close(states[-1], poses)
    assert torch.equal(poses, prior.sample(3, 5, generator=torch.Generator().manual_seed(1)))


def test_large_numbers_are_drawn_in_chunks(prior: PosePrior, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dposer.prior.pose_prior._SAMPLE_CHUNK", 4)
    calls: list[tuple[int, int]] = []
    poses, states = prior.sample(10, 2, trajectory=True, progress=lambda *call: calls.append(call))
    assert poses.shape == (10, 63) and states.shape == (2, 10, 63) and calls == [(i, 6) for i in range(1, 7)]


def test_decode_inverts_encode(gaussian: PosePrior, poses: Tensor) -> None:
    latents = gaussian.encode(poses)
    assert latents.var().item() == pytest.approx(1, abs=0.05)
    torch.testing.assert_close(gaussian.decode(latents), poses, rtol=1e-3, atol=1e-3)


def test_interpolation_passes_through_its_anchors(gaussian: PosePrior, poses: Tensor) -> None:
    path = gaussian.interpolate(poses[:3], frames=5)
    assert path.shape == (2, 5, 63)
    torch.testing.assert_close(path[:, 0], poses[:2], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(path[:, -1], poses[1:3], rtol=1e-3, atol=1e-3)


def test_slerp_keeps_the_norm_and_the_pace() -> None:
    a, b = torch.tensor([2.0, 0, 0]), torch.tensor([0, 2.0, 0])
    u = torch.linspace(0, 1, 7)[:, None]
    path = slerp(a, b, u)
    torch.testing.assert_close(path.norm(dim=1), torch.full((7,), 2.0))
    torch.testing.assert_close(torch.atan2(path[:, 1], path[:, 0]), u[:, 0] * math.pi / 2)
    torch.testing.assert_close(slerp(a, 2 * a, u), a * (1 + u))


# ---- density


def test_log_prob_is_that_of_the_gaussian_in_radians(gaussian: PosePrior, poses: Tensor) -> None:
    deviation = 0.5 * _variance(gaussian).sqrt()
    truth = torch.distributions.Normal(0.3, deviation).log_prob(poses[:3]).sum(1)
    torch.testing.assert_close(gaussian.log_prob(poses[:3]), truth, rtol=1e-3, atol=0.1)
    bits = -(truth + 63 * math.log(0.5)) / (63 * math.log(2))
    estimate = gaussian.bits_per_dim(poses[:3], torch.Generator().manual_seed(0), method="hutchinson")  # exact for a diagonal Jacobian
    torch.testing.assert_close(estimate, bits, rtol=1e-3, atol=3e-3)


def test_a_rot6d_prior_has_no_density_over_axis_angles() -> None:
    prior = PosePrior(
        build_network(SMALL, 126), Normalizer(torch.zeros(126), torch.ones(126), "rot6d"), PriorConfig(data=DataConfig(rot_rep="rot6d"))
    )
    with pytest.raises(InputError, match="bits_per_dim"):
        prior.log_prob(torch.zeros(1, 63))


# ---- plausibility


def test_corrupted_poses_rank_below_clean_ones(gaussian: PosePrior, poses: Tensor, generator: torch.Generator) -> None:
    gaussian.calibrate(_draw(gaussian, 2000, generator))
    clean = gaussian.plausibility(poses)
    assert clean.score.shape == (500,) and clean.per_joint.shape == (500, 21)
    assert clean.score.mean().item() == pytest.approx(50, abs=4)
    assert clean.per_joint.mean().item() == pytest.approx(50, abs=4)
    noisy = poses + 0.5 * torch.randn(poses.shape, generator=generator, dtype=torch.float64)
    assert (gaussian.plausibility(noisy).score < clean.score).double().mean() > 0.95
    broken = poses.clone()
    broken[:, 12:15] += 4.0  # joint 4
    per_joint = gaussian.plausibility(broken).per_joint
    assert per_joint[:, 4].mean() < 1 and per_joint[:, 5].mean() > 40


def test_plausibility_does_not_depend_on_the_companions(gaussian: PosePrior, poses: Tensor) -> None:
    gaussian.calibrate(poses)
    torch.testing.assert_close(gaussian.plausibility(poses[7:8]).score, gaussian.plausibility(poses).score[7:8])


def test_calibration_is_the_empirical_distribution(generator: torch.Generator) -> None:
    residual = torch.rand(1000, 21, generator=generator)
    ranked = Calibration.fit(residual)(residual)
    torch.testing.assert_close(ranked.score.sort().values, torch.linspace(0, 100, 1000), atol=0.6, rtol=0)
    order = residual[:, 3].argsort(descending=True)
    assert (ranked.per_joint[order, 3].diff() >= 0).all()
    extremes = Calibration.fit(residual)(torch.tensor([[0.0], [9.0]]).expand(2, 21))
    assert extremes.score.tolist() == [100, 0] and extremes.per_joint[:, 0].tolist() == [100, 0]


# ---- files


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_saved_priors_come_back(tmp_path: Path, prior: PosePrior, generator: torch.Generator, dtype: torch.dtype | None) -> None:
    pose = 0.3 * torch.randn(300, 63, generator=generator)
    prior.calibrate(pose)
    prior.save(tmp_path / "a.safetensors", {"step": 3}, dtype)
    before = torch.get_rng_state()
    loaded = PosePrior.from_pretrained(tmp_path / "a.safetensors")
    assert torch.equal(before, torch.get_rng_state())
    assert loaded.provenance == {"step": 3} and loaded.config == prior.config
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    z = torch.zeros(300, 63)
    tolerance = 1e-5 if dtype is None else 1e-2
    torch.testing.assert_close(loaded.denoise(pose, 0.1, z), prior.denoise(pose, 0.1, z), rtol=tolerance, atol=tolerance)
    if dtype is None:
        state = prior.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize(
    "config",
    [
        PriorConfig(model=SMALL, data=DataConfig(rot_rep="rot6d")),
        PriorConfig(model=SMALL, data=DataConfig(min_max=True), training=TrainingConfig(sde="vpsde")),
        PriorConfig(model=SMALL, training=TrainingConfig(sde="vesde")),
        PriorConfig(model=dataclasses.replace(SMALL, type="TimeMLPs")),
        PriorConfig(model=dataclasses.replace(SMALL, embedding_type="fourier"), data=DataConfig(normalize=False)),
    ],
)
def test_every_recipe_works_through_the_same_face(tmp_path: Path, generator: torch.Generator, config: PriorConfig) -> None:
    pose = 0.3 * torch.randn(20, 63, generator=generator)
    normalizer = Normalizer.fit(pose, config.data)
    PosePrior(build_network(config.model, normalizer.dim), normalizer, config).save(tmp_path / "a.safetensors")
    prior = PosePrior.from_pretrained(tmp_path / "a.safetensors")
    assert prior.sample(2, steps=3, generator=generator).shape == (2, 63)
    assert prior.denoise(pose, 0.2, generator=generator, steps=2).shape == pose.shape
    gradient = prior.loss_gradient(prior.normalize(pose), torch.full((20,), 0.2), generator=generator)
    assert gradient.shape == (20, prior.dim) and bool(gradient.isfinite().all())
    prior.calibrate(pose)
    assert prior.plausibility(pose).per_joint.shape == (20, 21)
    assert prior.expand_joints(torch.arange(21)).tolist() == [j for j in range(21) for _ in range(prior.dim // 21)]


# ---- bad input


def test_bad_input_is_named(prior: PosePrior) -> None:
    pose = torch.zeros(2, 63)
    bad = pose.clone()
    bad[1, 5] = math.nan
    calls: list[tuple[Any, str]] = [
        (lambda: prior.denoise(torch.zeros(63), 0.1), r"pose: shape \(63,\)"),
        (lambda: prior.loss(torch.zeros(2, 66), 0.1), "pose: shape"),
        (lambda: prior.log_prob(torch.zeros(0, 63)), "pose: shape"),
        (lambda: prior.denoise(bad, 0.1), "pose: row 1 holds NaN"),
        (lambda: prior.denoise(pose, 1.5), "t = 1.5"),
        (lambda: prior.loss(pose, -0.1), "t = -0.1"),
        (lambda: prior.denoise(pose, 0.1, steps=0), "steps = 0"),
        (lambda: prior.loss(pose, 0.1, weighting="snr"), "weighting = 'snr'"),  # type: ignore[arg-type]
        (lambda: prior.loss(pose, 0.1, reduction="max"), "reduction = 'max'"),  # type: ignore[arg-type]
        (lambda: prior.loss(pose, 0.1, form="x"), "form = 'x'"),  # type: ignore[arg-type]
        (lambda: prior.sample(0), "n = 0"),
        (lambda: prior.sample(2, steps=0), "steps = 0"),
        (lambda: prior.sample(2, sampler="magic"), "sampler 'magic'"),
        (lambda: prior.sample(2, stesp=4), "unknown option stesp"),
        (lambda: prior.sample(2, sampler="ode", trajectory=True), "trajectory"),
        (lambda: prior.encode(pose, steps=4), "unknown option steps"),
        (lambda: prior.decode(torch.zeros(2, 62)), "latent: shape"),
        (lambda: prior.interpolate(pose[:1]), "1 poses"),
        (lambda: prior.plausibility(pose), "no calibration tables"),
        (lambda: PosePrior.from_pretrained("nowhere.safetensors"), "nowhere.safetensors: found nothing"),
    ]
    for call, match in calls:
        with pytest.raises(InputError, match=match) as error:
            call()
        assert "\n" not in str(error.value)
