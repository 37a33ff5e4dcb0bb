import math

import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.errors import InputError
from dposer.geometry.procrustes import procrustes, procrustes_align


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _rotation(seed: int, *batch: int) -> torch.Tensor:
    return roma.rotvec_to_rotmat(_random(*batch, 3, seed=seed))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), factor=st.floats(0.01, 100), points=st.integers(3, 20))
def test_recovers_a_similarity(seed: int, factor: float, points: int) -> None:
    x, rotation, translation = _random(4, points, 3, seed=seed), _rotation(seed + 1, 4), 5 * _random(4, 3, seed=seed + 2)
    y = factor * x @ rotation.mT + translation[:, None]
    found = procrustes(x, y)
    torch.testing.assert_close(found(x), y, rtol=1e-8, atol=1e-8 * factor)
    torch.testing.assert_close(found.scale, torch.full((4,), factor, dtype=torch.float64), rtol=1e-8, atol=0.0)
    torch.testing.assert_close(torch.linalg.det(found.rotation), torch.ones(4, dtype=torch.float64))


def test_the_residual_is_the_minimum() -> None:
    x, y = _random(50, 8, 3), _random(50, 8, 3, seed=1)
    for scale in (True, False):
        best = procrustes(x, y, scale)
        least = (best(x) - y).square().sum(dim=(-2, -1))
        for seed in range(5):
            turned = best._replace(rotation=roma.rotvec_to_rotmat(0.05 * _random(50, 3, seed=seed + 9)) @ best.rotation)
            turned = turned._replace(translation=y.mean(1) - best.scale[:, None] * (turned.rotation @ x.mean(1)[..., None])[..., 0])
            assert ((turned(x) - y).square().sum(dim=(-2, -1)) >= least - 1e-9).all()
        if scale:
            # Umeyama: the residual is var(y) − (Σ ± σ)² / var(x).
            xc, yc = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
            u, s, vh = torch.linalg.svd(yc.mT @ xc)
            s[:, 2] *= torch.linalg.det(u @ vh)
            torch.testing.assert_close(least, yc.square().sum((1, 2)) - s.sum(1).square() / xc.square().sum((1, 2)))


def test_rigid_alignment_keeps_the_size() -> None:
    x = _random(6, 3)
    found = procrustes(x, 3 * x, scale=False)
    assert float(found.scale) == 1
    torch.testing.assert_close(procrustes_align(x, 3 * x, scale=False), x + 2 * x.mean(0))


def test_a_mirror_image_is_not_undone() -> None:
    x = _random(10, 3)
    mirrored = x * torch.tensor([-1.0, 1, 1])
    found = procrustes(x, mirrored)
    assert math.isclose(float(torch.linalg.det(found.rotation)), 1, abs_tol=1e-9)
    assert (found(x) - mirrored).norm() > 0.1


def test_hypotheses_broadcast_against_one_target() -> None:
    x, y = _random(5, 7, 4, 3), _random(5, 1, 4, 3, seed=1)
    together = procrustes_align(x, y)
    torch.testing.assert_close(together[2, 3], procrustes_align(x[2, 3], y[2, 0]))


def test_degenerate_sets_still_reach_the_minimum() -> None:
    line = torch.arange(5.0)[:, None] * torch.tensor([1.0, 2, 2])
    torch.testing.assert_close(procrustes_align(line, line.flip(1) * 2 + 1), line.flip(1) * 2 + 1, atol=1e-4, rtol=1e-5)
    point = torch.ones(5, 3)
    found = procrustes(point, line)
    assert float(found.scale) == 1
    torch.testing.assert_close(found(point), line.mean(0).expand(5, 3))
    torch.testing.assert_close(procrustes_align(line, point), point)
    torch.testing.assert_close(procrustes_align(point[:1], 4 * point[:1]), 4 * point[:1])
    torch.testing.assert_close(torch.linalg.det(procrustes(point, point).rotation), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (torch.zeros(4, 3), torch.zeros(5, 3)),
        (torch.zeros(4, 2), torch.zeros(4, 2)),
        (torch.zeros(0, 3), torch.zeros(0, 3)),
        (torch.full((4, 3), torch.nan), torch.zeros(4, 3)),
    ],
)
def test_refuses_what_has_no_answer(source: torch.Tensor, target: torch.Tensor) -> None:
    with pytest.raises(InputError) as error:
        procrustes(source, target)
    assert "\n" not in str(error.value)
