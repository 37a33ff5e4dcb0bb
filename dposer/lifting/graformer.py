"""GraFormer, and the denoisers made of its layers.

Sources: Zhao et al., GraFormer (CVPR 2022); Gong et al., DiffPose (CVPR 2023, arXiv 2211.16940); Jiang and Chen, Latent Cross-Channel
Diffusion (ICASSP 2024, arXiv 2401.09836).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dposer.body.skeleton import Layout
from dposer.lifting.graph import ChebConv, Edges, GraphAttention, ResCheb, adjacency, bones, doubled
from dposer.lifting.mixste import Sinusoid


class TimeEmbedding(nn.Module):
    """τ(t): [sin(t f), cos(t f)], linear C → 4C, swish, linear 4C → 4C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.waves = Sinusoid(channels)
        self.dense = nn.ModuleList((nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, 4 * channels)))

    def forward(self, t: Tensor) -> Tensor:
        return self.dense[1](functional.silu(self.dense[0](self.waves(t))))


class Branch(nn.Module):
    """A graph convolution into C channels, layers of attention and convolution, and a convolution out of them.

    Args:
        edges, nodes: the graph.
        inputs, outputs: channels of a node.
        dropout: of attention layers.
        times: channels of τ, 0 where no time is told.
    """

    def __init__(
        self, edges: Edges, nodes: int, inputs: int, outputs: int, channels: int, depth: int, heads: int, dropout: float, times: int = 0
    ) -> None:
        super().__init__()
        graph = adjacency(edges, nodes)
        self.input = ChebConv(graph, inputs, channels)
        self.attention = nn.ModuleList(GraphAttention(nodes, channels, heads, dropout) for _ in range(depth))
        self.convolution = nn.ModuleList(ResCheb(graph, channels, times) for _ in range(depth))
        self.output = ChebConv(graph, channels, outputs)


class GraFormer(Branch):
    """(N, J, inputs) → (N, J, outputs) on the graph of the bones: GraFormer, or with a time DiffPose's denoiser.

    Args:
        timed: told the time of a noisy input.
    """

    def __init__(
        self,
        layout: Layout,
        inputs: int = 2,
        outputs: int = 3,
        channels: int = 96,
        depth: int = 5,
        heads: int = 4,
        dropout: float = 0.25,
        timed: bool = False,
    ) -> None:
        times = 4 * channels if timed else 0
        super().__init__(bones(layout), len(layout.joints), inputs, outputs, channels, depth, heads, dropout, times)
        self.time = TimeEmbedding(channels) if timed else None

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """``t`` (N,): times."""
        tau = None if self.time is None or t is None else self.time(t)
        x = self.input(x)
        for attention, convolution in zip(self.attention, self.convolution, strict=True):
            x = convolution(attention(x), tau)
        return self.output(x)


class CrossChannel(Branch):
    """Noise of (x, y on the screen; x, y, z in space) of every joint, told the keypoints: (N, J, 5) → (N, J, 5).

    A joint has a node on the screen and one in space; bones link either kind, and the two nodes of a joint are linked. A second branch,
    fed by the keypoints, is added to the first before every convolution.

    Args:
        unused: also hold the second branch's last two convolutions, which no output depends on, as published weights do.
    """

    def __init__(
        self, layout: Layout, channels: int = 96, depth: int = 5, heads: int = 4, dropout: float = 0.25, unused: bool = False
    ) -> None:
        joints, times = len(layout.joints), 4 * channels
        flat = bones(layout)
        edges, nodes = doubled(flat, joints), 2 * joints
        super().__init__(edges, nodes, 3, 3, channels, depth, heads, dropout, times)
        self.time = TimeEmbedding(channels)
        self.guidance = Branch(edges, nodes, 2, 3, channels, depth, heads, dropout, times)
        self.guidance.input = ChebConv(adjacency(flat, joints), 2, channels)
        if unused:
            for idle in (self.guidance.convolution[-1], self.guidance.output):
                idle.requires_grad_(False)
        else:
            del self.guidance.convolution[-1], self.guidance.output
        self.raise_keypoints = nn.Linear(2, 3)
        self.spread_joints = nn.Linear(joints, nodes)
        self.join = nn.Linear(6, 5)

    def forward(self, x: Tensor, t: Tensor, keypoints: Tensor) -> Tensor:
        """``t`` (N,): times; ``keypoints`` (N, J, 2)."""
        tau = self.time(t)
        g = self.spread_joints(self.guidance.input(keypoints).transpose(-1, -2)).transpose(-1, -2)
        h = self.input(torch.cat((self.raise_keypoints(x[..., :2]), x[..., 2:]), -2)) + g
        last = len(self.attention) - 1
        for layer, (attention, other) in enumerate(zip(self.attention, self.guidance.attention, strict=True)):
            h, g = attention(h), other(g)
            h = h + g
            if layer < last:
                g = self.guidance.convolution[layer](g + h, tau)  # the sum just made, as published: g enters it twice
            h = self.convolution[layer](h, tau)
        return self.join(torch.cat(self.output(h).chunk(2, -2), -1))
