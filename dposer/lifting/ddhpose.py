r"""DDHPose's denoiser: MixSTE's blocks that know the tree of the body.

Noisy bones — direction and length, each in the slot of its child joint — and keypoints go in, a pose comes out. Source: Cai et al.,
Disentangled Diffusion-Based 3D Human Pose Estimation with Hierarchical Spatial and Temporal Denoiser (AAAI 2024, arXiv 2403.04444).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dposer.body.skeleton import Layout
from dposer.lifting.mixste import Attention, MixSTE

SHORTEST = 1e-6
"""Metres."""

# ---- the tree ----------------------------------------------------------------------------------------------------------


def levels(parents: Sequence[int]) -> tuple[int, ...]:
    """Edges between each joint and the root."""
    depth = [0] * len(parents)
    for joint in _root_outwards(parents):
        depth[joint] = depth[parents[joint]] + 1
    return tuple(depth)


def chains(parents: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The way from the root to each leaf, children in ascending order."""

    def below(joint: int) -> list[tuple[int, ...]]:
        children = [child for child, parent in enumerate(parents) if parent == joint]
        return [(joint, *rest) for child in children for rest in below(child)] or [(joint,)]

    return tuple(below(tuple(parents).index(-1)))


def _root_outwards(parents: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(joint for chain in chains(parents) for joint in chain[1:]))


def edge_averages(parents: Sequence[int], repeat: bool) -> tuple[Tensor, Tensor]:
    r"""HRST's map on the logits of a J × J attention: the E entries (parent, child) and their mirror entries become A' = M A.

    For every three joints a → b → c in a row of the tree, from the root on: :math:`A_{bc} \leftarrow (A_{bc} + A_{ab}) / 2`,
    :math:`A_{cb} \leftarrow (A_{cb} + A_{ab}) / 2`.

    Args:
        repeat: visit three joints once for each chain from the root to a leaf that they lie on, as the published code does: what
            several chains share is averaged again, and left and right then differ. False: once.

    Returns:
        places (2E,) of the entries (parent, child) in the order of the children and then of (child, parent), row by row in J × J, and
        M (2E, 2E).

    Source: arXiv 2403.04444, and its public code for the order.
    """
    edges = [(parent, child) for child, parent in enumerate(parents) if parent >= 0]
    row = {entry: number for number, entry in enumerate(edges + [(child, parent) for parent, child in edges])}
    mix = torch.eye(len(row), dtype=torch.float64)
    triples = [triple for chain in chains(parents) for triple in zip(chain, chain[1:], chain[2:], strict=False)]
    for a, b, c in triples if repeat else dict.fromkeys(triples):
        above, there, back = row[a, b], row[b, c], row[c, b]
        mix[there] = (mix[there] + mix[above]) / 2
        mix[back] = (mix[back] + mix[above]) / 2
    return torch.tensor([i * len(parents) + j for i, j in row]), mix.float()


def bones(pose: Tensor, parents: Sequence[int]) -> Tensor:
    """d_i = (y_i − y_parent) / ℓ_i,  ℓ_i = |y_i − y_parent|: (..., J, 3) → (..., J, 4), direction and length; zeros for the root.

    A bone shorter than :data:`SHORTEST` has no direction (zeros); the published code has NaN there if it has no length.

    Source: arXiv 2403.04444, eq. 1.
    """
    up = torch.tensor([parent if parent >= 0 else joint for joint, parent in enumerate(parents)], device=pose.device)
    vector = pose - pose[..., up, :]
    length = vector.square().sum(-1, keepdim=True)
    there = (up != torch.arange(len(parents), device=pose.device))[:, None] & (length > SHORTEST**2)
    length = torch.where(there, length, 1.0).sqrt()  # no gradient where the root of zero would have an infinite one
    return torch.cat((torch.where(there, vector / length, 0.0), torch.where(there, length, 0.0)), -1)


def joints_of(bones: Tensor, parents: Sequence[int]) -> Tensor:
    """Inverse of :func:`bones` with the root at the origin: (..., J, 4) → (..., J, 3)."""
    places: list[Tensor] = [bones.new_zeros(*bones.shape[:-2], 3)] * len(parents)
    for joint in _root_outwards(parents):
        places[joint] = places[parents[joint]] + bones[..., joint, :3] * bones[..., joint, 3:]
    return torch.stack(places, -2)


# ---- the blocks --------------------------------------------------------------------------------------------------------


class TreeAttention(Attention):
    """HRST: attention over joints whose logits along the edges are averaged with those of the edge above, see :func:`edge_averages`.

    Args:
        dead: also own the linear layer that the published code has here without using it.
    """

    places: Tensor
    mix: Tensor

    def __init__(self, channels: int, heads: int, parents: Sequence[int], repeat: bool, dead: bool) -> None:
        super().__init__(channels, heads)
        if dead:
            self.qkv_xc = nn.Linear(channels, channels)
        places, mix = edge_averages(parents, repeat)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("mix", mix.T.contiguous(), persistent=False)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        flat = logits.flatten(-2)
        mixed = flat.index_copy(-1, self.places, flat[..., self.places] @ self.mix)
        return mixed.view_as(logits).softmax(-1) @ v


class ChildAttention(Attention):
    """HRTT: attention over frames with the keys of the joint and of what lies below it, Q (K + K_c)ᵀ, K_c = W_c LN₁(c) + b_c."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads)
        self.qkv_xc = nn.Linear(channels, channels)

    def _keys(self, k: Tensor, other: Tensor | None) -> Tensor:
        if other is None:
            return k
        (below,) = self._split(self.qkv_xc(other))
        return k + below


class HierarchicalDenoiser(MixSTE):
    """HSTDenoiser: (batch, F, J, 6) = keypoint, direction, length → pose (batch, F, J, 3).

    Args:
        layout: whose tree it knows.
        compat: as the published code: shared edges averaged once for each chain, child features of other joints and frames, dead weights.
    """

    below: Tensor
    level: Tensor

    def __init__(
        self, layout: Layout, frames: int, channels: int, depth: int, heads: int, drop_path: float, compat: bool, inputs: int = 6
    ) -> None:
        self.parents, self.compat = layout.parents, compat
        super().__init__(frames, len(self.parents), inputs, channels, depth, heads, drop_path, timed=True)
        level = levels(self.parents)
        self.group = nn.Parameter(torch.zeros(1, max(level) + 1, channels))
        self.register_buffer("level", torch.tensor(level), persistent=False)
        family = torch.eye(len(self.parents))
        for child, parent in enumerate(self.parents):
            if parent >= 0:
                family[parent, child] = 1
        self.register_buffer("below", family / family.sum(1, keepdim=True), persistent=False)

    def spatial_attention(self, level: int, channels: int, heads: int) -> nn.Module:
        if level == 0:
            return Attention(channels, heads)
        return TreeAttention(channels, heads, self.parents, repeat=self.compat, dead=self.compat)

    def temporal_attention(self, level: int, channels: int, heads: int) -> nn.Module:
        return Attention(channels, heads) if level == 0 else ChildAttention(channels, heads)

    def token_bias(self) -> Tensor:
        return self.spatial_position + self.group.index_select(1, self.level)

    def context(self, u: Tensor) -> Tensor:
        """Mean of a joint's features and its children's, (batch, J, F, C)."""
        mean = torch.einsum("ij,bjfc->bifc", self.below, u)
        if not self.compat:
            return mean
        return mean.transpose(1, 2).reshape(mean.shape)  # published: frames and joints exchanged in memory, not in name
