r"""Symmetric positive definite systems whose blocks couple a frame with its next few: Cholesky along time.

:math:`H = L L^T` with blocks :math:`H_{f,f+k}`, :math:`k \le w`, keeps the band:

.. math::
    L_{f,f-k} = \Big(H_{f,f-k} - \sum_{m > k} L_{f,f-m} L_{f-k,f-m}^T\Big) L_{f-k,f-k}^{-T}, \qquad
    L_{f,f} L_{f,f}^T = H_{f,f} - \sum_{m \ge 1} L_{f,f-m} L_{f,f-m}^T.

The cost is linear in the number of frames; all sequences of a batch are solved together.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class BandedCholesky:
    """The factor of a batch of block-banded matrices.

    Args:
        blocks: ``blocks[k]`` is (F - k, B, D, D): the blocks :math:`H_{f,f+k}` of all frames, for k = 0 .. w.

    Attributes:
        definite: (B,) whether a matrix is positive definite; of others the solutions mean nothing, and those of the rest are not touched.
    """

    def __init__(self, blocks: Sequence[Tensor]) -> None:
        self.definite = torch.ones(blocks[0].shape[1], dtype=torch.bool, device=blocks[0].device)
        self._inverse: list[Tensor] = []  # of the diagonal blocks L[f, f]: products are faster than solving with each anew
        self._below: list[list[Tensor]] = []  # of frame f: L[f, f - 1], L[f, f - 2], ...
        width = len(blocks) - 1
        for f in range(len(blocks[0])):
            reach = min(width, f)
            row: list[Tensor] = [torch.empty(0)] * reach
            for k in range(reach, 0, -1):
                block = blocks[k][f - k].mT
                for m in range(k + 1, reach + 1):
                    block = torch.baddbmm(block, row[m - 1], self._below[f - k][m - k - 1].mT, alpha=-1)
                row[k - 1] = block @ self._inverse[f - k].mT
            rest = blocks[0][f]
            for part in row:
                rest = torch.baddbmm(rest, part, part.mT, alpha=-1)
            factor, info = torch.linalg.cholesky_ex(rest)
            fine, identity = info == 0, torch.eye(len(rest[0])).to(rest)
            self.definite &= fine
            factor = torch.where(fine[:, None, None], factor, identity)
            self._inverse.append(torch.linalg.solve_triangular(factor, identity, upper=False))
            self._below.append(row)

    def solve(self, right: Tensor) -> Tensor:
        """:math:`H^{-1}` times (F, B, D, R)."""
        forward: list[Tensor] = []
        for f, row in enumerate(self._below):
            value = right[f]
            for k, part in enumerate(row, start=1):
                value = torch.baddbmm(value, part, forward[f - k], alpha=-1)
            forward.append(self._inverse[f] @ value)
        for f in range(len(forward) - 1, -1, -1):
            forward[f] = self._inverse[f].mT @ forward[f]
            for k, part in enumerate(self._below[f], start=1):
                forward[f - k] = torch.baddbmm(forward[f - k], part.mT, forward[f], alpha=-1)
        return torch.stack(forward)
