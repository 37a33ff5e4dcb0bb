"""Priors as quadratics: closed forms of a Gaussian, and the diffusion prior where its denoiser is known exactly."""

import math

import pytest
import torch
from torch import Tensor

from dposer.prior import PosePrior
from dposer.prior.mixture import PoseMixture
from dposer.prior.normalizer import Normalizer
from dposer.solvers.pose_terms import Anneal, DiffusionTerm, GaussianTerm, MixtureTerm, spread
from tests.gaussian import GaussianNoise

ANNEAL = Anneal(2.0, 0.5, 0.3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


VARIANCE = torch.linspace(0.2, 1, 63).double()
MEAN, SCALE = 0.3, torch.linspace(0.1, 0.5, 63)


@pytest.fixture(scope="module")
def gaussian() -> PosePrior:
    """Poses are N(0.3, V scale²) radians."""
    return PosePrior(GaussianNoise(VARIANCE), Normalizer(torch.full((63,), MEAN), SCALE)).double().eval()


@pytest.fixture
def frames() -> Tensor:
    """(F, B, 63)."""
    return 0.3 * torch.randn(4, 2, 63, generator=seeded(1), dtype=torch.float64)


@pytest.mark.parametrize("ends", [(2.0, 0.5), (0.3, 0.3), (0.1, 4.0)])
def test_levels_fall_geometrically(ends: tuple[float, float]) -> None:
    anneal = Anneal(*ends, weight=1.0)
    levels = [anneal.level(k / 5) for k in range(6)]
    assert (levels[0], levels[-1]) == pytest.approx(ends)
    ratios = [after / before for before, after in zip(levels, levels[1:], strict=False)]
    assert ratios == pytest.approx(5 * [(ends[1] / ends[0]) ** 0.2])


def test_a_mixture_is_the_quadratic_of_its_nearest_component(frames: Tensor) -> None:
    means = torch.stack((torch.full((63,), -0.25), torch.full((63,), 0.25))).double()
    frames = torch.cat((frames - 0.25, frames + 0.5))
    term = MixtureTerm(
        PoseMixture(torch.tensor([0.4, 0.6]).double(), means, torch.eye(63).double() * torch.tensor([0.5, 2.0])[:, None, None]), 0.7
    )
    poses = frames.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(term.energy(poses).sum(), poses)
    quadratic = term(frames, 0.5)
    torch.testing.assert_close(quadratic.pull(frames), gradient)
    logs = torch.stack([
        math.log(weight) + torch.distributions.MultivariateNormal(mean, variance * torch.eye(63).double()).log_prob(frames)
        for weight, mean, variance in zip((0.4, 0.6), means, (0.5, 2.0), strict=True)
    ])  # fmt: skip
    torch.testing.assert_close(term.energy(frames), -0.7 * logs.amax(0))
    assert set(quadratic.centre[..., 0].unique().tolist()) == {-0.25, 0.25}


@pytest.mark.parametrize("weight", [1.0, 0.2])
def test_a_gaussian_is_its_own_quadratic(weight: float, frames: Tensor) -> None:
    root = torch.randn(63, 63, generator=seeded(2), dtype=torch.float64) / 8
    mean, covariance = 0.2 * torch.ones(63).double(), root @ root.T + 0.1 * torch.eye(63)
    quadratic = GaussianTerm(mean, covariance, weight)(frames, 0.5)
    poses = frames.clone().requires_grad_(True)
    density = weight * torch.distributions.MultivariateNormal(mean, covariance).log_prob(poses)
    (gradient,) = torch.autograd.grad(-density.sum(), poses)
    torch.testing.assert_close(quadratic.pull(frames), gradient)
    away = quadratic.energy(frames) - quadratic.energy(mean.expand_as(frames))
    torch.testing.assert_close(
        away, (weight * len(frames) * torch.distributions.MultivariateNormal(mean, covariance).log_prob(mean) - density.sum(0))
    )
    assert not quadratic.pull(mean.expand_as(frames)).any()


@pytest.mark.parametrize("done", [0.0, 0.4, 1.0])
def test_the_centre_is_the_denoised_pose(gaussian: PosePrior, frames: Tensor, done: float) -> None:
    """Of N(μ, v) blurred to σ̃ it is μ + (x − μ) v / (v + σ̃²); noise z and −z leave no trace of themselves where that is linear."""
    level = ANNEAL.level(done)
    quadratic = DiffusionTerm(gaussian, ANNEAL, seeded())(frames, done)
    torch.testing.assert_close(quadratic.centre, MEAN + (frames - MEAN) * VARIANCE / (VARIANCE + level**2), atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(quadratic.precision, ANNEAL.weight / (level * SCALE.double()) ** 2)


@pytest.mark.parametrize("done", [0.0, 1.0])
def test_for_a_weight_of_one_it_pulls_like_the_blurred_density(gaussian: PosePrior, frames: Tensor, done: float) -> None:
    """−∇ log N(μ, (v + σ̃²) scale²), and a curvature that is not less than its."""
    level = ANNEAL.level(done)
    quadratic = DiffusionTerm(gaussian, Anneal(ANNEAL.first, ANNEAL.last, 1.0), seeded())(frames, done)
    variance = (VARIANCE + level**2) * SCALE.double() ** 2
    torch.testing.assert_close(quadratic.pull(frames), (frames - MEAN) / variance, atol=5e-2, rtol=2e-3)
    assert bool((quadratic.precision >= 1 / variance).all())


def test_the_same_noise_goes_to_every_frame_with_both_signs(prior: PosePrior, poses: Tensor) -> None:
    frames = poses[:6].view(3, 2, 63)
    quadratic = DiffusionTerm(prior, ANNEAL, seeded(3))(frames, 0.5)
    noise = torch.randn(63, generator=seeded(3)).expand(6, -1)
    t = float(prior.schedule.time(-math.log(ANNEAL.level(0.5))))
    assert float(prior.schedule.sigma(t) / prior.schedule.alpha(t)) == pytest.approx(ANNEAL.level(0.5), rel=1e-4)
    with torch.no_grad():
        clean = (prior.denoise(poses[:6], t, noise) + prior.denoise(poses[:6], t, -noise)) / 2
    torch.testing.assert_close(quadratic.centre, clean.view(3, 2, 63), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(quadratic.precision, ANNEAL.weight / (ANNEAL.level(0.5) * spread(prior)) ** 2)


def test_same_seed_same_quadratic_and_new_noise_at_each_call(prior: PosePrior, poses: Tensor) -> None:
    frames = poses[:4].view(2, 2, 63)
    one, other, third = (DiffusionTerm(prior, ANNEAL, seeded(seed)) for seed in (5, 5, 6))
    first = one(frames, 0.0).centre
    assert torch.equal(first, other(frames, 0.0).centre) and not torch.equal(first, third(frames, 0.0).centre)
    second = one(frames, 0.0).centre
    assert not torch.equal(first, second) and torch.equal(second, other(frames, 0.0).centre)
    assert not first.requires_grad and first.dtype == frames.dtype


def test_real_poses_are_nearer_to_their_centres_than_broken_ones(prior: PosePrior, poses: Tensor) -> None:
    broken = poses[:40] + 0.6 * torch.randn(40, 63, generator=seeded(4)) * spread(prior)
    energies = [DiffusionTerm(prior, ANNEAL, seeded())(some[:, None], 1.0).energy(some[:, None]) for some in (poses[:40], broken)]
    assert float(energies[0]) < float(energies[1])


def test_the_spread_is_what_a_normalised_unit_stands_for(prior: PosePrior) -> None:
    assert torch.equal(spread(prior), prior.normalizer.scale)
    six = PosePrior(GaussianNoise(torch.ones(126)), Normalizer(torch.zeros(126), torch.full((126,), 0.2), "rot6d"))
    torch.testing.assert_close(spread(six), torch.full((63,), 0.2 * math.sqrt(0.75)))
    turn = 1e-3 * torch.nn.functional.normalize(torch.randn(2000, 21, 3, generator=seeded(7)), dim=-1)
    rotated = six.normalizer.normalize(turn.flatten(1)) - six.normalizer.normalize(torch.zeros(1, 63))
    moved = rotated.unflatten(1, (21, 6)).norm(dim=-1).square().mean().sqrt() / 1e-3  # normalised units a radian
    torch.testing.assert_close(moved * float(spread(six)[0]), torch.tensor(1.0), atol=0.02, rtol=0)


def test_what_nothing_is_measured_of_has_a_weight_of_its_own(gaussian: PosePrior, frames: Tensor) -> None:
    seen = torch.arange(63) % 2 == 0
    some = DiffusionTerm(gaussian, Anneal(2.0, 0.5, 0.3, unseen=0.9), seeded(), seen)(frames, 0.0)
    every = DiffusionTerm(gaussian, ANNEAL, seeded(), seen)(frames, 0.0)
    torch.testing.assert_close(some.precision, torch.where(seen, 1.0, 3.0) * every.precision)
    assert torch.equal(some.centre, every.centre)
    assert Anneal(2.0, 0.5, 0.3, 0.9).times(2) == Anneal(2.0, 0.5, 0.6, 1.8) and ANNEAL.times(2) == Anneal(2.0, 0.5, 0.6)


def test_the_energy_of_a_gaussian_is_its_own(gaussian: PosePrior, frames: Tensor) -> None:
    mean, root = torch.full((63,), MEAN).double(), torch.randn(63, 63, generator=seeded(3), dtype=torch.float64)
    covariance = root @ root.T + torch.eye(63)
    expected = -0.5 * torch.distributions.MultivariateNormal(mean, covariance).log_prob(frames)
    found = GaussianTerm(mean, covariance, 0.5).energy(frames)
    torch.testing.assert_close(found - found[0, 0], expected - expected[0, 0])


def test_the_energy_of_the_diffusion_prior_rises_from_its_mean(gaussian: PosePrior, frames: Tensor) -> None:
    term = DiffusionTerm(gaussian, ANNEAL, seeded())
    mean = torch.full((1, 1, 63), MEAN).double()
    away = torch.cat([mean + k * (frames[:1, :1] - mean) for k in (0.0, 0.5, 1.0, 2.0)])
    energy = term.energy(away)[:, 0]
    assert energy.shape == (4,) and bool((energy.diff() > 0).all())
    torch.testing.assert_close(energy[1:] - energy[0], (energy[2] - energy[0]) * torch.tensor([0.25, 1, 4]).double())
    assert torch.equal(term.energy(frames), term.energy(frames))
