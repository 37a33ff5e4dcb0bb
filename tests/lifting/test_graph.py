"""Graphs, their layers and the networks made of them, held against the equations written out node by node."""

import pytest
import torch
from torch import Tensor, nn

from dposer.body.skeleton import H36M_17, MPI_INF_3DHP_17
from dposer.lifting.graformer import CrossChannel, GraFormer, TimeEmbedding
from dposer.lifting.graph import (
    Attention,
    ChebConv,
    GraphAttention,
    LearnedGraph,
    Norm,
    ResCheb,
    adjacency,
    bones,
    chebyshev,
    doubled,
)

FLAT = adjacency(bones(H36M_17), 17)
CROSSED = adjacency(doubled(bones(H36M_17), 17), 34)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_rows_of_a_graph_sum_to_one_over_a_node_and_its_neighbours() -> None:
    torch.testing.assert_close(CROSSED.sum(1), torch.ones(34))
    assert (CROSSED > 0).sum().item() == 2 * 49 + 34
    assert torch.equal(CROSSED > 0, (CROSSED > 0).T)
    assert sorted(CROSSED[0].nonzero().flatten().tolist()) == [0, 1, 4, 7, 17]  # the hip, its three neighbours, itself in space
    assert CROSSED[0].max() == pytest.approx(0.2)
    assert FLAT[8].nonzero().flatten().tolist() == [7, 8, 9, 11, 14]
    assert (adjacency(bones(MPI_INF_3DHP_17), 17) > 0).sum() == 2 * 16 + 17


def test_a_graph_convolution_is_its_polynomial() -> None:
    """Σ_k T_k X W_k + b with T_k by the recurrence, one node after another."""
    torch.manual_seed(0)
    layer, x = ChebConv(FLAT, 3, 4), torch.randn(2, 17, 3)
    layer.bias.data = torch.randn(1, 1, 4)
    laplacian = torch.eye(17) - FLAT
    terms = [x, laplacian @ x, 2 * laplacian @ (laplacian @ x) - x]
    expected = sum((term @ weight[0] for term, weight in zip(terms, layer.weight, strict=True)), layer.bias[0])
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(chebyshev(FLAT)[1], laplacian)
    assert not [name for name in layer.state_dict() if name not in ("weight", "bias")]
    wide = ChebConv(FLAT, 96, 96)
    assert float(wide.weight.detach().std()) == pytest.approx((2 * 96 * 96) ** -0.5, rel=0.05)


def test_parameters_are_as_many_as_published() -> None:
    assert _count(GraphAttention(34, 96, 4, 0.0)) == 75_940
    assert _count(GraphAttention(17, 96, 4, 0.0)) == 75_073
    assert _count(ResCheb(FLAT, 96, 384)) == 92_448
    assert _count(ResCheb(FLAT, 96)) == 55_488
    assert _count(TimeEmbedding(96)) == 185_088
    assert _count(GraFormer(H36M_17)) == 654_344
    assert _count(GraFormer(H36M_17, 5, 5, timed=True)) == 1_025_674
    published = CrossChannel(H36M_17, unused=True)
    assert sum(map(_count, (published.raise_keypoints, published.join, published.spread_joints))) == 656
    assert _count(published) == 1_872_990
    assert _count(CrossChannel(H36M_17)) == 1_872_990 - 93_315
    assert sum(parameter.numel() for parameter in published.parameters() if not parameter.requires_grad) == 93_315


def test_time_embedding_at_six() -> None:
    wave = TimeEmbedding(96).waves(torch.tensor([6.0]))[0]
    assert [round(float(wave[i]), 4) for i in (0, 1, 47, 48, 49, 95)] == [-0.2794, -0.9759, 0.0006, 0.9602, 0.2181, 1.0]


def test_layers_by_their_equations() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 17, 8)
    norm = Norm(8)
    torch.testing.assert_close(norm(x), (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6))
    flat = torch.ones(1, 1, 8, requires_grad=True)
    norm(flat).sum().backward()
    assert flat.grad is not None and bool(torch.isfinite(flat.grad).all())

    attention = Attention(8, 2).eval()
    heads = []
    for some in (slice(0, 4), slice(4, 8)):
        q, k, v = (layer(x)[..., some] for layer in (attention.query, attention.key, attention.value))
        heads.append((q @ k.transpose(-1, -2) / 2).softmax(-1) @ v)
    torch.testing.assert_close(attention(x), attention.out(torch.cat(heads, -1)))

    learned = LearnedGraph(17, 8)
    with torch.no_grad():
        learned.adjacency.copy_(torch.rand(17, 17))
    degree = learned.adjacency.sum(0) + 1e-5
    graph = learned.adjacency / (degree[:, None] * degree).sqrt()
    torch.testing.assert_close(learned(x), learned.narrow(graph @ learned.widen(graph @ x).relu()))
    with torch.no_grad():
        learned.adjacency[:, 3] = -1  # a sum below zero
    assert bool(torch.isfinite(learned(x)).all())

    block, tau = ResCheb(FLAT, 8, 5).eval(), torch.randn(2, 5)
    assert block.time is not None
    inner = ChebConv.forward(block.first, x).relu() + block.time(tau * tau.sigmoid())[:, None]
    torch.testing.assert_close(block(x, tau), x + ChebConv.forward(block.second, inner).relu())


def test_the_cross_channel_network_step_by_step() -> None:
    torch.manual_seed(0)
    net = CrossChannel(H36M_17, 8, 3, 2, unused=True).eval()
    x, t, keypoints = torch.randn(2, 17, 5), torch.tensor([3.0, 40.0]), torch.randn(2, 17, 2)
    tau = net.time(t)
    g0 = torch.einsum("mj,bjc->bmc", net.spread_joints.weight, net.guidance.input(keypoints)) + net.spread_joints.bias[:, None]
    nodes = torch.cat((net.raise_keypoints(x[..., :2]), x[..., 2:]), 1)
    h, g = net.input(nodes) + g0, g0
    for i in range(2):
        h, g = net.attention[i](h), net.guidance.attention[i](g)
        h, g = net.convolution[i](h + g, tau), net.guidance.convolution[i](h + 2 * g, tau)
    h = net.output(net.convolution[2](net.attention[2](h) + net.guidance.attention[2](g), tau))
    torch.testing.assert_close(net(x, t, keypoints), net.join(torch.cat((h[:, :17], h[:, 17:]), -1)))

    clean = CrossChannel(H36M_17, 8, 3, 2).eval()
    clean.load_state_dict({name: tensor for name, tensor in net.state_dict().items() if name in clean.state_dict()})
    torch.testing.assert_close(clean(x, t, keypoints), net(x, t, keypoints))
    net.train()(x, t, keypoints).sum().backward()
    assert all((parameter.grad is None) != parameter.requires_grad for parameter in net.parameters())


def test_dropout_is_off_in_evaluation() -> None:
    torch.manual_seed(0)
    net, x = GraFormer(H36M_17, 2, 3, 8, 2, 2, 0.5), torch.randn(3, 17, 2)

    def twice(mode: bool) -> tuple[Tensor, Tensor]:
        net.train(mode)
        return net(x), net(x)

    assert torch.equal(*twice(False)) and not torch.allclose(*twice(True))
