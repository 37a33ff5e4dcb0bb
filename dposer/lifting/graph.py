r"""Convolutions and attention on the graph of a skeleton.

.. math:: Y = \sum_{k=0}^{2} T_k X W_k + b, \qquad T_0 = I,\; T_1 = L,\; T_2 = 2 L^2 - I,\; L = I - \hat A

with Â the graph's adjacency, every node its own neighbour and every row summing to 1. Features are (N, nodes, channels) throughout.

Source: Defferrard et al., Convolutional Neural Networks on Graphs (NeurIPS 2016); Zhao et al., GraFormer (CVPR 2022).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from dposer.body.skeleton import Layout

Edges = Sequence[tuple[int, int]]
_DROPOUT = 0.1
"""After a graph convolution, and of attention weights: the published networks have no setting for it."""
_EPS = 1e-6
_LEAST_DEGREE = 1e-5


def bones(layout: Layout) -> Edges:
    """(child, parent) of every joint that has one."""
    return [(joint, parent) for joint, parent in enumerate(layout.parents) if parent >= 0]


def doubled(edges: Edges, nodes: int) -> Edges:
    """Two copies of a graph, each node i linked with its double i + nodes."""
    return [*edges, *((a + nodes, b + nodes) for a, b in edges), *((node, node + nodes) for node in range(nodes))]


def adjacency(edges: Edges, nodes: int) -> Tensor:
    """Â: (nodes, nodes), 0/1 and symmetric with a full diagonal, each row divided by its sum."""
    matrix = torch.eye(nodes)
    for a, b in edges:
        matrix[a, b] = matrix[b, a] = 1
    return matrix / matrix.sum(1, keepdim=True)


def chebyshev(adjacency: Tensor) -> Tensor:
    """(3, nodes, nodes): T_0, T_1, T_2 of the module's equation. Eigenvalues are not rescaled."""
    identity = torch.eye(len(adjacency))
    laplacian = identity - adjacency
    return torch.stack((identity, laplacian, 2 * laplacian @ laplacian - identity))


class ChebConv(nn.Module):
    """The module's equation.

    Args:
        adjacency: Â.
        inputs, outputs: channels.
    """

    mixing: Tensor

    def __init__(self, adjacency: Tensor, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, 1, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(1, 1, outputs))
        nn.init.xavier_normal_(self.weight)  # on this shape: a standard deviation of 1 / √(2 inputs outputs), as published
        # (nodes, 3 nodes), columns by node, then k: all three terms are one product
        self.register_buffer("mixing", chebyshev(adjacency).permute(1, 2, 0).flatten(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        terms = (x @ self.weight[:, 0].transpose(0, 1).flatten(1)).unflatten(-1, (3, -1)).flatten(-3, -2)
        return self.mixing @ terms + self.bias[0]


class GraphConv(ChebConv):
    """ChebConv, ReLU, dropout."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(super().forward(x).relu(), _DROPOUT, self.training)


class ResCheb(nn.Module):
    """x + GraphConv₂(GraphConv₁(x) + linear(swish(τ))), the τ of a time or none.

    Args:
        times: channels of τ; 0: not told.
    """

    def __init__(self, adjacency: Tensor, channels: int, times: int = 0) -> None:
        super().__init__()
        self.first = GraphConv(adjacency, channels, channels)
        self.second = GraphConv(adjacency, channels, channels)
        self.time = nn.Linear(times, channels) if times else None

    def forward(self, x: Tensor, tau: Tensor | None = None) -> Tensor:
        """``tau`` (N, times) is the same for all nodes."""
        inner = self.first(x)
        if self.time is not None:
            assert tau is not None
            inner = inner + self.time(functional.silu(tau))[:, None]
        return x + self.second(inner)


class Norm(nn.Module):
    """scale (x − mean) / (s + 10⁻⁶) + shift, s the unbiased standard deviation of the channels; not LayerNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, -1, keepdim=True)
        deviation = variance.clamp(min=_EPS**2).sqrt()  # where nothing varies the root has no gradient
        return self.scale * (x - mean) / (deviation + _EPS) + self.shift


class Attention(nn.Module):
    """softmax(Q Kᵀ / √d) V over nodes, with h heads of d channels."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels, expected a multiple of the {heads} heads")
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(-2, -3) for layer in (self.query, self.key, self.value))
        found = functional.scaled_dot_product_attention(q, k, v, dropout_p=_DROPOUT if self.training else 0.0)
        return self.out(found.transpose(-2, -3).flatten(-2))


class LearnedGraph(nn.Module):
    """linear(G ReLU(linear(G X))), G = D^(−1/2) A D^(−1/2): A is learnt, D holds the sums of its columns (GraFormer's LAM-GCN)."""

    def __init__(self, nodes: int, channels: int) -> None:
        super().__init__()
        self.adjacency = nn.Parameter(torch.eye(nodes))
        self.widen = nn.Linear(channels, 2 * channels)
        self.narrow = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        # A may be learnt to be negative; a sum below zero has no root
        root = (self.adjacency.sum(0) + _LEAST_DEGREE).clamp(min=_LEAST_DEGREE).rsqrt()
        graph = root[:, None] * self.adjacency * root
        return self.narrow(graph @ self.widen(graph @ x).relu())


class GraphAttention(nn.Module):
    """x ← x + drop(attention(norm x)); x ← x + drop(learned graph(norm x)) (GraFormer's GraAttention)."""

    def __init__(self, nodes: int, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(channels, heads)
        self.graph = LearnedGraph(nodes, channels)
        self.norms = nn.ModuleList(Norm(channels) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norms[0](x)))
        return x + self.dropout(self.graph(self.norms[1](x)))
