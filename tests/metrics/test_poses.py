import math

import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.errors import InputError
from dposer.metrics import (
    acceleration_error,
    apd,
    asymmetry,
    auc,
    best_of,
    bone_lengths,
    consistency,
    jitter,
    mpjpe,
    mpjve,
    mpvpe,
    n_mpjpe,
    pa_mpjpe,
    pck,
)
from dposer.metrics.poses import root_aligned


def _joints(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _naive_apd(joints: torch.Tensor) -> float:
    pairs = [(a, b) for a in range(len(joints)) for b in range(a)]
    return sum(float((joints[a] - joints[b]).norm(dim=-1).mean()) for a, b in pairs) / len(pairs)


def test_apd_of_known_sets() -> None:
    square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])[:, None]
    assert math.isclose(float(apd(square)), (4 + 2 * math.sqrt(2)) / 6, rel_tol=1e-6)
    two_joints = torch.stack([torch.zeros(2, 3), torch.tensor([[3.0, 4, 0], [0, 0, 1]])])
    assert float(apd(two_joints)) == 3.0  # (5 + 1) / 2
    assert float(apd(torch.ones(7, 22, 3))) == 0
    assert apd(torch.ones(2, 1, 22, 3)).isnan().all()


def test_apd_of_many_gaussian_samples() -> None:
    # The difference of two standard normals has length √2 times a chi variable of 3 degrees: mean 4/√π.
    assert math.isclose(float(apd(_joints(2000, 4))), 4 / math.sqrt(math.pi), rel_tol=0.01)


@settings(max_examples=15, deadline=None)
@given(batch=st.integers(1, 4), samples=st.integers(2, 9), joints=st.integers(1, 5))
def test_apd_is_the_mean_over_pairs(batch: int, samples: int, joints: int) -> None:
    x = _joints(batch, samples, joints)
    expected = torch.tensor([_naive_apd(group) for group in x], dtype=torch.float64)
    torch.testing.assert_close(apd(x), expected)
    torch.testing.assert_close(apd(x[:, torch.randperm(samples)]), expected)
    torch.testing.assert_close(apd(3 * x + 7), 3 * expected)


def test_mean_distance_of_a_shift() -> None:
    target = _joints(5, 1, 22)
    predicted = target + torch.tensor([0.3, 0.0, 0.4]).expand(5, 10, 22, 3)
    torch.testing.assert_close(mpjpe(predicted, target), torch.full((5, 10), 0.5, dtype=torch.float64))
    assert mpjpe is mpvpe
    legs = [0, 3]
    predicted = target.clone()
    predicted[..., 0, 0] += 1
    torch.testing.assert_close(mpjpe(predicted[..., legs, :], target[..., legs, :]), torch.full((5, 1), 0.5, dtype=torch.float64))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), factor=st.floats(0.1, 10))
def test_pa_mpjpe_ignores_similarities_of_the_prediction(seed: int, factor: float) -> None:
    predicted, target = _joints(3, 17, seed=seed), _joints(3, 17, seed=seed + 1)
    rotation = roma.rotvec_to_rotmat(_joints(3, seed=seed + 2))
    moved = factor * predicted @ rotation.mT + _joints(3, 1, seed=seed + 3)
    torch.testing.assert_close(pa_mpjpe(moved, target), pa_mpjpe(predicted, target))
    torch.testing.assert_close(pa_mpjpe(moved, predicted), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)


def test_root_alignment_ignores_translation_only() -> None:
    points, target = _joints(3, 4, 22), _joints(3, 1, 22, seed=1)
    shift = _joints(3, 4, 1, seed=2)
    error = mpjpe(root_aligned(points), root_aligned(target))
    torch.testing.assert_close(mpjpe(root_aligned(points + shift), root_aligned(target)), error)
    assert (root_aligned(points, 5)[..., 5, :] == 0).all()
    torch.testing.assert_close(root_aligned(points, points[..., 5, :]), root_aligned(points, 5))
    turned = root_aligned(points) @ roma.random_rotmat(dtype=torch.float64)
    assert not torch.isclose(mpjpe(turned, root_aligned(target)), error).any()


def test_n_mpjpe_ignores_scale_only() -> None:
    predicted, target = _joints(4, 17), _joints(4, 17, seed=1)
    torch.testing.assert_close(n_mpjpe(5 * predicted, target), n_mpjpe(predicted, target))
    torch.testing.assert_close(n_mpjpe(0.2 * target, target), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(n_mpjpe(0 * target, target), target.norm(dim=-1).mean(-1))


def test_best_of_over_any_dimension() -> None:
    errors = torch.tensor([[1.0, 3.0, 5.0, 7.0], [2.0, 2.0, 2.0, 2.0]])
    stats = best_of(errors)
    assert stats.min.tolist() == [1, 2]
    assert stats.mean.tolist() == [4, 2]
    torch.testing.assert_close(stats.std, torch.tensor([math.sqrt(5), 0.0]))
    assert torch.equal(best_of(errors.T, dim=0).std, stats.std)
    assert best_of(errors[:, :1]).std.tolist() == [0, 0]


def test_pck_and_auc_of_one_constant_error() -> None:
    target = _joints(2, 14)
    for error in (0.0, 0.012, 0.149, 0.151, 1.0):
        predicted = target + torch.tensor([0.0, error, 0.0], dtype=torch.float64)
        assert pck(predicted, target).tolist() == [float(error < 0.15)] * 2
        expected = sum(5 * i > 1000 * error for i in range(31)) / 31
        torch.testing.assert_close(auc(predicted, target), torch.full((2,), expected, dtype=torch.float64))
    half = target + torch.tensor([1.0, 0, 0]) * (torch.arange(14) % 2)[:, None]
    torch.testing.assert_close(pck(half, target), torch.full((2,), 0.5, dtype=torch.float64))


def test_motion_metrics_of_polynomials() -> None:
    time = torch.arange(10.0, dtype=torch.float64)[:, None, None]
    direction = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64).expand(5, 3)
    rest = torch.zeros(10, 5, 3, dtype=torch.float64)
    assert math.isclose(float(mpjve(2 * time * direction, rest)), 2)
    assert math.isclose(float(mpjve(2 * time * direction, rest, fps=30)), 60)
    assert math.isclose(float(acceleration_error(3 * time**2 * direction, rest, fps=10)), 600)
    assert math.isclose(float(jitter(time**3 * direction, fps=2)), 48)
    # Each order is blind to what the lower ones measure.
    assert float(mpjve(rest + 4, rest)) == 0
    assert float(acceleration_error(2 * time * direction, rest)) < 1e-12
    assert float(jitter(time**2 * direction)) < 1e-12
    assert mpjve(_joints(2, 3, 10, 5), _joints(2, 3, 10, 5, seed=1)).shape == (2, 3)


def test_bad_shapes_are_named() -> None:
    for call in (
        lambda: mpjpe(torch.zeros(4, 3), torch.zeros(5, 3)),
        lambda: mpjpe(torch.zeros(4, 2), torch.zeros(4, 2)),
        lambda: pck(torch.zeros(3), torch.zeros(3)),
        lambda: apd(torch.zeros(4, 3)),
        lambda: jitter(torch.zeros(3, 22, 3)),
        lambda: mpjve(torch.zeros(9, 22, 3), torch.zeros(9, 1, 3)),
    ):
        with pytest.raises(InputError, match="found|expected"):
            call()


_EDGES = ((0, 1), (1, 2), (0, 3), (3, 4))
"""A root, two bones to the left, two to the right."""


def test_coherence_of_rigid_and_of_mirrored_skeletons() -> None:
    generator = torch.Generator().manual_seed(0)
    side = torch.randn(7, 2, 3, generator=generator, dtype=torch.float64)
    mirrored = torch.cat((torch.zeros(7, 1, 3), side, side * torch.tensor([-1.0, 1, 1])), 1)
    lengths = bone_lengths(mirrored, _EDGES)
    torch.testing.assert_close(lengths[:, 0], side[:, 0].norm(dim=-1))
    assert float(asymmetry(lengths, ((0, 2), (1, 3))).max()) < 1e-12 and float(consistency(lengths).min()) > 0.1
    turns = roma.rotvec_to_rotmat(torch.randn(7, 3, generator=generator, dtype=torch.float64))
    rigid = mirrored[:1] @ turns.mT + torch.randn(7, 1, 3, generator=generator, dtype=torch.float64)
    assert float(consistency(bone_lengths(rigid, _EDGES)).max()) < 1e-12
    uneven = asymmetry(bone_lengths(rigid, _EDGES), ((0, 1),))
    torch.testing.assert_close(uneven, (lengths[0, 0] - lengths[0, 1]).abs().expand(7, 1))


def test_consistency_is_the_unbiased_deviation_of_what_counts() -> None:
    lengths = torch.rand(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(consistency(lengths), lengths.std(1))
    counts = torch.tensor([[True, True, False, True, False, False], [True, False, False, False, False, False]])
    found = consistency(lengths, counts)
    torch.testing.assert_close(found[0], lengths[0, [0, 1, 3]].std(0))
    assert bool(found[1].isnan().all()) and bool(consistency(lengths[:, :1]).isnan().all())
