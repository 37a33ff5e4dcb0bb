r"""MixSTE: attention over the joints of a frame and over the frames of a joint, in turn.

.. math:: u \leftarrow u + \mathrm{DP}(\mathrm{MHSA}(\mathrm{LN}_1 u)), \qquad u \leftarrow u + \mathrm{DP}(\mathrm{MLP}(\mathrm{LN}_2 u))

Source: Zhang et al., MixSTE: Seq2seq Mixed Spatio-Temporal Encoder (CVPR 2022); with a noisy pose and its time among the inputs it is
the denoiser of D3DP (Shan et al., ICCV 2023, arXiv 2303.11579).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-6
"""Of the layer norms; the one before the head has PyTorch's."""


class DropPath(nn.Module):
    """Stochastic depth: in training a sample's branch is left out with probability ``rate``, and scaled by 1 / (1 − rate) else.

    A sample is a sequence of tokens (Huang et al., ECCV 2016).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        keep = branch.new_empty(*branch.shape[:-2], 1, 1).bernoulli_(1 - self.rate)
        return branch * keep / (1 - self.rate)


class Attention(nn.Module):
    """softmax(Q Kᵀ / √d) V with h heads over the last but one dimension of (..., tokens, channels)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels, expected a multiple of the {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, u: Tensor, other: Tensor | None = None) -> Tensor:
        q, k, v = self._split(self.qkv(u))
        return self.proj(self._attend(q, self._keys(k, other), v).transpose(1, 2).flatten(2)).view_as(u)

    def _split(self, u: Tensor) -> tuple[Tensor, ...]:
        """(..., N, P h d) → P times (batch, h, N, d)."""
        parts = u.flatten(0, -3).unflatten(-1, (-1, self.heads, self.proj.in_features // self.heads))
        return parts.permute(2, 0, 3, 1, 4).unbind()

    def _keys(self, k: Tensor, other: Tensor | None) -> Tensor:
        return k

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v)


class Mlp(nn.Module):
    """C → 2C → C with exact GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 2 * channels)
        self.fc2 = nn.Linear(2 * channels, channels)

    def forward(self, u: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(u)))


class Block(nn.Module):
    """A pre-norm transformer block on (..., tokens, channels)."""

    def __init__(self, channels: int, attention: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, EPS)
        self.attn = attention
        self.norm2 = nn.LayerNorm(channels, EPS)
        self.mlp = Mlp(channels)
        self.drop = DropPath(drop_path)

    def forward(self, u: Tensor, other: Tensor | None = None) -> Tensor:
        """``other`` is further input of the attention; it passes through the same first norm."""
        u = u + self.drop(self.attn(self.norm1(u), None if other is None else self.norm1(other)))
        return u + self.drop(self.mlp(self.norm2(u)))


class TimeEmbedding(nn.Sequential):
    """τ(t): [sin(t f), cos(t f)] with C / 2 frequencies f_i = 10000^(−i / (C/2 − 1)), then linear C → 2C, GELU, linear 2C → C."""

    def __init__(self, channels: int) -> None:
        super().__init__(Sinusoid(channels), nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))


class Sinusoid(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, t: Tensor) -> Tensor:
        half = self.channels // 2
        frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10000) / (half - 1)))
        angles = t[:, None] * frequencies
        return torch.cat((angles.sin(), angles.cos()), -1)


class MixSTE(nn.Module):
    """(batch, F, J, inputs) → (batch, F, J, 3).

    Args:
        frames, joints: F, J.
        inputs: channels of a joint: 2 for keypoints, 5 with a noisy pose.
        channels, depth, heads: width, pairs of blocks, heads of each attention.
        drop_path: of the last level, rising from 0 at the first.
        timed: told the time of a noisy input.
    """

    def __init__(
        self, frames: int, joints: int, inputs: int = 2, channels: int = 512, depth: int = 8, heads: int = 8,
        drop_path: float = 0.1, timed: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patch = nn.Linear(inputs, channels)
        self.spatial_position = nn.Parameter(torch.zeros(1, joints, channels))
        self.temporal_position = nn.Parameter(torch.zeros(1, frames, channels))
        self.time = TimeEmbedding(channels) if timed else None
        rates = [drop_path * level / max(depth - 1, 1) for level in range(depth)]
        self.spatial = nn.ModuleList(Block(channels, self.spatial_attention(i, channels, heads), rate) for i, rate in enumerate(rates))
        self.temporal = nn.ModuleList(Block(channels, self.temporal_attention(i, channels, heads), rate) for i, rate in enumerate(rates))
        self.spatial_norm = nn.LayerNorm(channels, EPS)
        self.temporal_norm = nn.LayerNorm(channels, EPS)
        self.head = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 3))

    def spatial_attention(self, level: int, channels: int, heads: int) -> nn.Module:
        return Attention(channels, heads)

    def temporal_attention(self, level: int, channels: int, heads: int) -> nn.Module:
        return Attention(channels, heads)

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """The regressed points. ``t`` (K,) with K dividing the batch: times of equal runs of samples."""
        return self.head(self.features(x, t))

    def features(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """(batch, F, J, C): what the head reads."""
        u = self.patch(x) + self.token_bias()
        if self.time is not None:
            assert t is not None
            u = u + self.time(t.to(u.dtype)).repeat_interleave(len(x) // len(t), 0)[:, None, None]
        u = self.spatial_norm(self.spatial[0](u)).transpose(1, 2) + self.temporal_position
        u = self.temporal_norm(self.temporal[0](u))
        context = self.context(u)
        for spatial, temporal in zip(self.spatial[1:], self.temporal[1:], strict=True):
            u = self.spatial_norm(spatial(u.transpose(1, 2))).transpose(1, 2)
            u = self.temporal_norm(temporal(u, context))
        return u.transpose(1, 2)

    def token_bias(self) -> Tensor:
        """(1, J, C) added to every joint's token."""
        return self.spatial_position

    def context(self, u: Tensor) -> Tensor | None:
        """What the temporal blocks above the first get besides their tokens; u is (batch, J, F, C)."""
        return None
