import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dposer.solvers.banded import BandedCholesky


def banded(frames: int, batch: int, size: int, width: int, seed: int) -> Tensor:
    """(B, F D, F D) random positive definite matrices without blocks beyond ``width``."""
    factor = torch.randn(batch, frames, size, frames, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    row, column = torch.arange(frames)[:, None], torch.arange(frames)
    factor = factor * ((row >= column) & (row - column <= width)).double()[:, None, :, None]
    flat = factor.flatten(3).flatten(1, 2)
    return flat @ flat.mT + 0.1 * torch.eye(frames * size)


def blocks_of(dense: Tensor, frames: int, width: int) -> list[Tensor]:
    """(F - k, B, D, D) for k = 0 .. w."""
    size = dense.shape[-1] // frames
    cut = dense.view(-1, frames, size, frames, size)
    return [torch.stack([cut[:, f, :, f + k] for f in range(frames - k)]) for k in range(min(width, frames - 1) + 1)]


def solved(dense: Tensor, right: Tensor) -> Tensor:
    flat = right.transpose(0, 1).flatten(1, 2)
    return torch.linalg.solve(dense, flat).unflatten(1, right.shape[::2][:1] + right.shape[2:3]).transpose(0, 1)


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_it_solves_what_a_dense_solver_solves(frames: int, batch: int, size: int, width: int, columns: int, seed: int) -> None:
    dense = banded(frames, batch, size, width, seed)
    right = torch.randn(frames, batch, size, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    factor = BandedCholesky(blocks_of(dense, frames, width))
    torch.testing.assert_close(factor.solve(right), solved(dense, right), atol=1e-7, rtol=1e-7)
    assert factor.definite.tolist() == [True] * batch


@pytest.mark.parametrize("width", [0, 1, 2])
@pytest.mark.parametrize("frame", [0, 2, 4])
def test_a_matrix_that_is_not_definite_is_reported_and_harms_no_other(width: int, frame: int) -> None:
    frames, batch, size = 5, 3, 4
    dense = banded(frames, batch, size, width, 0)
    bad = dense.clone()
    bad[1, frame * size, frame * size] -= 100
    assert float(torch.linalg.eigvalsh(bad[1])[0]) < 0
    right = torch.randn(frames, batch, size, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    factor = BandedCholesky(blocks_of(bad, frames, width))
    found = factor.solve(right)
    assert factor.definite.tolist() == [True, False, True] and bool(found.isfinite().all())
    torch.testing.assert_close(found[:, ::2], solved(dense, right)[:, ::2])


def test_the_blocks_are_left_alone() -> None:
    blocks = blocks_of(banded(4, 2, 3, 2, 5), 4, 2)
    copies = [block.clone() for block in blocks]
    right = torch.ones(4, 2, 3, 1, dtype=torch.float64)
    BandedCholesky(blocks).solve(right)
    assert all(map(torch.equal, blocks, copies)) and bool((right == 1).all())
