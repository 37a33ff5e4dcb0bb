r"""CT-GCN: DiffHPE's denoiser, gated residual blocks with graph convolutions over frames and over channels.

.. math:: y_i = \hat A_{ii} x_i W^0_i + \sum_{k \neq i} \hat A_{ik} x_k W^1_k + b, \qquad \hat A = D^{-1} (A + I)

Every joint has matrices of its own. Features are kept as (J, B, F, C), so that these are matrix products by joint.

Source: Rommel et al., DiffHPE: Robust, Coherent 3D Human Pose Lifting with Diffusion (ICCV 2023 workshops, arXiv 2309.01575).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from dposer.body.skeleton import Layout
from dposer.lifting.graph import adjacency, bones

_GAIN = 1.414
_GROUPS = (
    ("right_knee", "right_ankle"), ("left_knee", "left_ankle"), ("right_hip", "left_hip"), ("pelvis", "spine"),
    ("neck", "head", "head_top"), ("right_elbow", "right_wrist"), ("left_elbow", "left_wrist"), ("left_shoulder", "right_shoulder"),
)  # fmt: skip
"""Joints that the non-local layer sees as one."""


def groups(layout: Layout, compat: bool) -> list[tuple[int, ...]]:
    """Rows of the joints that are pooled together.

    Args:
        compat: as the published code: the joints of all groups in a row, cut into pairs, so that what follows the group of three is
            misplaced and the last joint of 17 is in none.
    """
    found = [tuple(layout.joints.index(name) for name in names) for names in _GROUPS]
    if not compat:
        return found
    order = [joint for group in found for joint in group]
    return list(zip(order[::2], order[1::2], strict=False))


class GraphLayer(nn.Module):
    """The convolution above, batch norm, ReLU and dropout: (J, N, features) → the same."""

    own: Tensor
    others: Tensor

    def __init__(self, layout: Layout, features: int, dropout: float) -> None:
        super().__init__()
        joints = len(layout.joints)
        bound = _GAIN * math.sqrt(6 / ((2 + joints) * features * features))  # Xavier's, of the four-dimensional array as a whole
        self.weight = nn.Parameter(torch.empty(2, joints, features, features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(features).uniform_(-(features**-0.5), features**-0.5))
        self.norm = nn.BatchNorm1d(features)
        self.dropout = nn.Dropout(dropout)
        mixing = adjacency(bones(layout), joints)
        self.register_buffer("own", mixing.diagonal().clone()[:, None, None], persistent=False)
        self.register_buffer("others", mixing - mixing.diagonal().diag(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        neighbours = (self.others @ (x @ self.weight[1]).flatten(1)).view_as(x)
        mixed = torch.baddbmm(neighbours, self.own * x, self.weight[0]) + self.bias
        return self.dropout(functional.relu(self.norm(mixed.flatten(0, 1)).view_as(x)))


class NonLocal(nn.Module):
    """x_i + BN(W y_i),  y_i = (1/M) Σ_j ReLU(w · [θ_i; φ_j]) g_j over M pooled groups of joints: (J, N, C) → the same.

    The layer is the identity before training.
    """

    groups: Tensor

    def __init__(self, channels: int, groups: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        half = channels // 2
        self.g, self.theta, self.phi = (nn.Linear(channels, half) for _ in range(3))
        self.pair = nn.Linear(2 * half, 1, bias=False)
        self.out = nn.Linear(half, channels)
        self.norm = nn.BatchNorm1d(channels)
        nn.init.zeros_(self.norm.weight)
        most = max(map(len, groups))
        rows = [group + group[-1:] * (most - len(group)) for group in groups]  # a repeated joint does not change the largest
        self.register_buffer("groups", torch.tensor(rows), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        of, to = self.pair.weight[0].chunk(2)
        g, phi = self._pooled(self.g(x)), self._pooled(self.phi(x))
        weight = functional.relu((self.theta(x) @ of)[:, None] + (phi @ to)[None])  # (J, M, N)
        y = torch.einsum("jmn,mnc->jnc", weight, g) / len(g)
        return x + self.norm(self.out(y).flatten(0, 1)).view_as(x)

    def _pooled(self, x: Tensor) -> Tensor:
        return x[self.groups].amax(1)


class Block(nn.Module):
    """Graphs over frames, over channels, between groups; then a gate: (h, e) → (h', skip), all (J, B, F, C)."""

    def __init__(self, layout: Layout, frames: int, channels: int, embedding: int, dropout: float, compat: bool) -> None:
        super().__init__()
        self.time = nn.Linear(embedding, channels)
        self.temporal = GraphLayer(layout, frames, dropout)
        self.spatial = GraphLayer(layout, channels, dropout)
        self.nonlocal_ = NonLocal(channels, groups(layout, compat))
        self.gate = _conv(channels, 2 * channels)
        self.out = _conv(channels, 2 * channels)

    def forward(self, h: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        u = (h + self.time(e)[:, None]).transpose(-1, -2)
        u = self.temporal(u.flatten(1, 2)).view(u.shape).transpose(-1, -2)
        u = self.nonlocal_(self.spatial(u.flatten(1, 2))).view(h.shape)
        gate, value = self.gate(u).chunk(2, -1)
        rest, skip = self.out(gate.sigmoid() * value.tanh()).chunk(2, -1)
        return (h + rest) * 0.5**0.5, skip


class StepEmbedding(nn.Module):
    """SiLU(W₂ SiLU(W₁ γ(t))),  γ(t) = [sin(t ω_k), cos(t ω_k)],  ω_k = 10^{4k / (E/2 − 1)}: whole times (K,) → (K, E)."""

    table: Tensor

    def __init__(self, timesteps: int, width: int) -> None:
        super().__init__()
        half = width // 2
        angles = torch.arange(timesteps)[:, None] * 10.0 ** (torch.arange(half) / (half - 1) * 4)
        self.register_buffer("table", torch.cat((angles.sin(), angles.cos()), 1), persistent=False)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        return functional.silu(self.second(functional.silu(self.first(self.table[t.long()]))))


class CTGCN(nn.Module):
    """z (B, F, J, D) and times → noise (B, F, J, 3); before training a constant for each channel.

    Args:
        layout: skeleton.
        inputs: D.
        frames: F, fixed, since frames of a joint are mixed by a dense matrix.
        channels, depth: C and the number of blocks.
        timesteps: of the process.
        embedding: width of that of the time.
        compat: groups of the non-local layer as published, see :func:`groups`.
    """

    def __init__(
        self, layout: Layout, inputs: int, frames: int, channels: int, depth: int, dropout: float, timesteps: int,
        embedding: int = 128, compat: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.step = StepEmbedding(timesteps, embedding)
        self.input = _conv(inputs, channels)
        self.blocks = nn.ModuleList(Block(layout, frames, channels, embedding, dropout, compat) for _ in range(depth))
        self.skip = _conv(channels, channels)
        self.output = nn.Linear(channels, 3)
        nn.init.zeros_(self.output.weight)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """``t`` (K,) with K dividing the batch: times of equal runs of samples."""
        h = functional.relu(self.input(z)).permute(2, 0, 1, 3)
        e = self.step(t).repeat_interleave(len(z) // len(t), 0)
        total: Tensor | float = 0.0
        for block in self.blocks:
            h, skip = block(h, e)
            total = total + skip
        assert isinstance(total, Tensor)
        found = self.output(functional.relu(self.skip(total / math.sqrt(len(self.blocks)))))
        return found.permute(1, 2, 0, 3)


def _conv(inputs: int, outputs: int) -> nn.Linear:
    """A 1 × 1 convolution on channels that come last."""
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight)
    return layer
