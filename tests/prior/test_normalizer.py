"""Normalisation: statistics, round trips, reference files."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dposer.errors import InputError
from dposer.prior.config import DataConfig
from dposer.prior.normalizer import Normalizer, RotationRepresentation, find_reference

CONFIGS = [
    DataConfig(),
    DataConfig(min_max=True),
    DataConfig(normalize=False),
    DataConfig(rot_rep="rot6d"),
    DataConfig(rot_rep="rot6d", min_max=True),
]


@pytest.fixture
def poses(generator: torch.Generator) -> Tensor:
    return 0.1 + torch.rand(63, generator=generator) * torch.randn(300, 63, generator=generator).clamp(-2, 2) / 2


def test_z_score_has_zero_mean_and_unit_unbiased_deviation(poses: Tensor) -> None:
    x = Normalizer.fit(poses, DataConfig()).normalize(poses)
    torch.testing.assert_close(x.mean(0), torch.zeros(63), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.square().sum(0) / 299, torch.ones(63), atol=1e-4, rtol=0)


def test_min_max_spans_minus_one_to_one(poses: Tensor) -> None:
    x = Normalizer.fit(poses, DataConfig(min_max=True)).normalize(poses)
    torch.testing.assert_close(x.amin(0), -torch.ones(63))
    torch.testing.assert_close(x.amax(0), torch.ones(63))


def test_quantiles_ignore_outliers(poses: Tensor) -> None:
    poses[0] = 1000.0
    x = Normalizer.fit(poses, DataConfig(min_max=True), quantiles=(0.01, 0.99)).normalize(poses[1:])
    assert ((x.abs() <= 1).float().mean(0) > 0.95).all() and x.abs().max() < 3


def test_off_is_the_identity(poses: Tensor) -> None:
    normalizer = Normalizer.fit(poses, DataConfig(normalize=False))
    assert torch.equal(normalizer.normalize(poses), poses)
    assert normalizer.log_det() == 0


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("shape", [(300, 63), (3, 100, 63), (63,)])
def test_denormalize_inverts_normalize(poses: Tensor, config: DataConfig, shape: tuple[int, ...]) -> None:
    normalizer = Normalizer.fit(poses, config)
    pose = poses.flatten()[: math.prod(shape)].view(shape)
    x = normalizer.normalize(pose)
    assert x.shape == (*shape[:-1], normalizer.dim)
    torch.testing.assert_close(normalizer.denormalize(x), pose, atol=2e-5, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=63, max_size=63))
def test_published_statistics_round_trip(values: list[float]) -> None:
    pose = torch.tensor([values])
    normalizer = Normalizer.published()
    torch.testing.assert_close(normalizer.denormalize(normalizer.normalize(pose)), pose, atol=1e-5, rtol=1e-5)


def test_published_statistics() -> None:
    normalizer = Normalizer.published()
    assert normalizer.shift[3 * 4].item() == pytest.approx(0.497393) and normalizer.scale[3 * 4].item() == pytest.approx(0.537981)
    assert normalizer.shift[-1].item() == pytest.approx(-0.083177) and normalizer.scale[-1].item() == pytest.approx(0.294543)


def test_log_det_is_that_of_the_jacobian(poses: Tensor) -> None:
    normalizer = Normalizer.fit(poses, DataConfig())
    jacobian = torch.func.jacrev(normalizer.normalize)(poses[0])
    torch.testing.assert_close(normalizer.log_det(), torch.linalg.slogdet(jacobian).logabsdet)


@pytest.mark.parametrize("config", [DataConfig(), DataConfig(min_max=True)])
def test_constant_dimensions_stay_finite(poses: Tensor, config: DataConfig) -> None:
    poses[:, 7] = 0.25
    normalizer = Normalizer.fit(poses, config)
    x = normalizer.normalize(poses)
    assert normalizer.scale[7] == pytest.approx(0.05)
    torch.testing.assert_close(x[:, 7], torch.zeros(300), atol=1e-6, rtol=0)
    torch.testing.assert_close(normalizer.denormalize(x), poses)


def test_wrapping_is_optional() -> None:
    pose = torch.zeros(1, 63)
    pose[0, 0] = 1.5 * math.pi
    unit = (torch.zeros(63), torch.ones(63))
    assert torch.equal(Normalizer(*unit).normalize(pose), pose)
    assert Normalizer(*unit, wrap=True).normalize(pose)[0, 0].item() == pytest.approx(-0.5 * math.pi, abs=1e-5)


def test_it_moves_with_its_module(poses: Tensor) -> None:
    normalizer = Normalizer.fit(poses, DataConfig()).double()
    assert normalizer.normalize(poses.double()).dtype == torch.float64
    assert set(normalizer.state_dict()) == {"shift", "scale"}


@pytest.mark.parametrize("dim", [63, 126])
def test_reference_files(tmp_path: Path, dim: int) -> None:
    rot_rep: RotationRepresentation = "axis" if dim == 63 else "rot6d"
    low, high = -torch.rand(dim) - 0.5, torch.rand(dim)
    torch.save({"mean_poses": low, "std_poses": high, "mean_shapes": None, "std_shapes": None}, tmp_path / f"{rot_rep}_normalize2.pt")
    torch.save({"min_poses": low, "max_poses": high, "min_shapes": None, "max_shapes": None}, tmp_path / f"{rot_rep}_normalize1.pt")
    z_score = find_reference(tmp_path, rot_rep, min_max=False)
    min_max = find_reference(tmp_path, rot_rep, min_max=True)
    assert z_score is not None and min_max is not None
    normalizer = Normalizer.from_reference(z_score)
    assert normalizer.rot_rep == rot_rep and torch.equal(normalizer.shift, low) and torch.equal(normalizer.scale, high)
    x = torch.rand(4, dim)
    normalizer = Normalizer.from_reference(min_max)
    torch.testing.assert_close((x - normalizer.shift) / normalizer.scale, 2 * (x - low) / (high - low) - 1)


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(63),
        {"mean_poses": torch.zeros(63)},
        {"mean_poses": torch.zeros(60), "std_poses": torch.ones(60)},
        {"mean_poses": torch.zeros(63), "std_poses": -torch.ones(63)},
        {"mean_poses": torch.full((63,), math.nan), "std_poses": torch.ones(63)},
        {"min_poses": torch.zeros(63), "max_poses": torch.ones(126)},
        {"mean_poses": torch.tensor(0.0), "std_poses": torch.tensor(1.0)},
    ],
)
def test_bad_reference_files_are_named(tmp_path: Path, content: object) -> None:
    path = tmp_path / "axis_normalize2.pt"
    torch.save(content, path)
    with pytest.raises(InputError, match=r"axis_normalize2\.pt") as error:
        Normalizer.from_reference(path)
    assert "\n" not in str(error.value)


def test_a_reference_file_of_the_other_representation_is_refused(tmp_path: Path) -> None:
    torch.save({"mean_poses": torch.zeros(63), "std_poses": torch.ones(63)}, tmp_path / "n.pt")
    with pytest.raises(InputError, match="126"):
        Normalizer.from_reference(tmp_path / "n.pt", "rot6d")


@pytest.mark.parametrize("bad", [torch.zeros(10, 62), torch.zeros(1, 63), torch.zeros(63), torch.full((10, 63), math.inf)])
def test_bad_poses_are_refused(bad: Tensor) -> None:
    with pytest.raises(InputError, match="pose_body"):
        Normalizer.fit(bad, DataConfig())
