"""Mixtures of Gaussians over poses: densities in closed form, what a fit finds again, files."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from dposer.assets import asset
from dposer.data.amass import read_poses
from dposer.data.processed import PoseSplit, write_split
from dposer.errors import InputError
from dposer.prior.mixture import PoseMixture
from run.train_gmm import Args, main


def covariances(count: int, size: int, generator: torch.Generator) -> Tensor:
    factors = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    return 0.01 * (factors @ factors.mT / size + torch.eye(size))


@pytest.fixture
def mixture(generator: torch.Generator) -> PoseMixture:
    means = torch.randn(3, 63, generator=generator, dtype=torch.float64)
    return PoseMixture(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64), means, covariances(3, 63, generator), {"data": "invented"})


def test_density_energy_and_nearest_component(mixture: PoseMixture, generator: torch.Generator) -> None:
    parts = MultivariateNormal(mixture.means, mixture.covariances)
    poses = mixture.sample(50, generator)
    torch.testing.assert_close(mixture.log_prob(poses), MixtureSameFamily(Categorical(mixture.weights), parts).log_prob(poses))
    joint = parts.log_prob(poses[:, None]) + mixture.weights.log()
    torch.testing.assert_close(mixture.energy(poses), -joint.amax(1))
    assert torch.equal(mixture.nearest(poses), joint.argmax(1))
    centre, precision = mixture.means[mixture.nearest(poses)], mixture.precisions[mixture.nearest(poses)]
    slope = torch.func.grad(lambda x: mixture.energy(x).sum())(poses)
    torch.testing.assert_close(slope, torch.einsum("nij,nj->ni", precision, poses - centre))


def test_a_fit_finds_the_mixture_that_poses_were_drawn_from(mixture: PoseMixture, generator: torch.Generator) -> None:
    poses = mixture.sample(6000, generator)
    found = PoseMixture.fit(poses, 3, floor=1e-4, generator=generator)
    order = torch.cdist(mixture.means, found.means).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    torch.testing.assert_close(found.weights[order], mixture.weights, atol=0.02, rtol=0)
    torch.testing.assert_close(found.means[order], mixture.means, atol=0.03, rtol=0)
    torch.testing.assert_close(found.covariances[order], mixture.covariances, atol=0.004, rtol=0)
    mean, covariance = found.gaussian()
    torch.testing.assert_close(mean, poses.mean(0))
    torch.testing.assert_close(covariance, poses.T.cov(correction=0) + 1e-8 * torch.eye(63).double())
    again = PoseMixture.fit(poses, 3, floor=1e-4, generator=torch.Generator().manual_seed(5))
    assert float(again.log_prob(poses).mean()) == pytest.approx(float(found.log_prob(poses).mean()), abs=0.01)


def test_what_never_turns_is_known_to_the_floor(generator: torch.Generator) -> None:
    poses = torch.nn.functional.pad(0.3 * torch.randn(500, 60, generator=generator), (0, 3))
    found = PoseMixture.fit(poses, 2, floor=0.05, generator=generator)
    torch.testing.assert_close(found.covariances[:, 60:, 60:], 0.05**2 * torch.eye(3).expand(2, 3, 3))
    same = PoseMixture.fit(poses[:1].expand(10, -1), 4, floor=0.1, generator=generator)
    assert bool(same.log_prob(poses).isfinite().all())
    with pytest.raises(InputError, match=r"shape \(3, 63\).*components \(8\)"):
        PoseMixture.fit(poses[:3])


def test_files(mixture: PoseMixture, tmp_path: Path) -> None:
    mixture.save(tmp_path / "some.safetensors")
    read = PoseMixture.from_pretrained(tmp_path / "some.safetensors")
    assert read.provenance == {"data": "invented"} and read.means.dtype == torch.float32
    torch.testing.assert_close(read.covariances, mixture.covariances.float())
    torch.testing.assert_close(float(read.weights.sum()), 1.0)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "some.safetensors").read_bytes()[:2000])
    for path in (tmp_path / "cut.safetensors", asset("pretrained_models", "dposer-open.safetensors")):
        with pytest.raises(InputError, match=f"{path.name}.*expected a mixture"):
            PoseMixture.from_pretrained(path)
    with pytest.raises(InputError, match="run.train_gmm"):
        PoseMixture.from_pretrained(tmp_path / "none.safetensors")


def test_smplifys_file_without_hands(generator: torch.Generator, tmp_path: Path) -> None:
    whole = covariances(8, 69, generator).numpy()
    arrays = {"means": generator_means(generator), "covars": whole, "weights": np.full(8, 0.125)}
    (tmp_path / "gmm_08.pkl").write_bytes(pickle.dumps(arrays, protocol=2))
    read = PoseMixture.from_pretrained(tmp_path / "gmm_08.pkl")
    torch.testing.assert_close(read.covariances, torch.tensor(whole[:, :63, :63]).float())
    assert read.means.shape == (8, 63) and math.isclose(float(read.weights[0]), 0.125)
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"means": arrays["means"]}, protocol=2))
    with pytest.raises(InputError, match="lacks covars, weights"):
        PoseMixture.from_pretrained(tmp_path / "other.pkl")


def generator_means(generator: torch.Generator) -> np.ndarray:
    return torch.randn(8, 69, generator=generator, dtype=torch.float64).numpy()


def test_the_mixture_that_ships_knows_poses(generator: torch.Generator) -> None:
    mixture = PoseMixture.from_pretrained()
    held_out = torch.as_tensor(read_poses(asset("examples", "toy_data.npz")))
    assert len(mixture) == 8 and float(mixture.log_prob(held_out).median()) > 50
    assert float(mixture.log_prob(held_out[:, torch.randperm(63, generator=generator)]).median()) < -50


def test_training_from_prepared_poses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poses = torch.as_tensor(read_poses(asset("examples", "toy_data.npz")))
    subject = torch.arange(len(poses)) % 3
    for split, rows in (("train", slice(0, None, 2)), ("valid", slice(1, None, 2))):
        some = poses[rows]
        write_split(tmp_path / "version1", split, PoseSplit(some, some[:, :3], torch.zeros(len(some), 10), subject[rows]))
    args = Args(tmp_path, output=tmp_path / "gmm.safetensors", components=2, poses=400, steps=5)
    main(args)
    assert len(PoseMixture.from_pretrained(args.output)) == 2 and "mean log p" in capsys.readouterr().out
    with pytest.raises(InputError, match="--components"):
        main(Args(tmp_path, components=0))
