"""MixSTE and DDHPose's denoiser: sizes, the tree, equivariances."""

import pytest
import torch

from dposer.body.skeleton import H36M_17, MPI_INF_3DHP_17, Layout
from dposer.lifting.ddhpose import ChildAttention, HierarchicalDenoiser, TreeAttention, bones, chains, edge_averages, joints_of, levels
from dposer.lifting.mixste import Attention, Block, DropPath, MixSTE, TimeEmbedding

LAYOUTS = pytest.mark.parametrize("layout", [H36M_17, MPI_INF_3DHP_17], ids=lambda layout: layout.name)


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_sizes_are_those_published() -> None:
    with torch.device("meta"):
        assert _count(MixSTE(243, 17)) == 33_783_811
        assert _count(MixSTE(27, 17, channels=64)) == 539_139
        assert _count(MixSTE(243, 17, inputs=5, timed=True)) == 34_835_459
        assert _count(HierarchicalDenoiser(H36M_17, 243, 512, 8, 8, 0.1, compat=True)) == 38_516_227
        assert _count(HierarchicalDenoiser(H36M_17, 243, 512, 8, 8, 0.1, compat=False)) == 38_516_227 - 1_838_592


@LAYOUTS
def test_the_tree(layout: Layout) -> None:
    found = chains(layout.parents)
    assert sorted({joint for chain in found for joint in chain}) == list(range(17))
    assert all(levels(layout.parents)[joint] == depth for chain in found for depth, joint in enumerate(chain))
    if layout is H36M_17:
        assert found == ((0, 1, 2, 3), (0, 4, 5, 6), (0, 7, 8, 9, 10), (0, 7, 8, 11, 12, 13), (0, 7, 8, 14, 15, 16))
    else:
        assert found[2:] == ((14, 15, 1, 0), (14, 15, 1, 2, 3, 4), (14, 15, 1, 5, 6, 7), (14, 15, 1, 16))


def _row(layout: Layout, repeat: bool, entry: tuple[int, int]) -> dict[tuple[int, int], float]:
    """What A'[entry] takes of which A."""
    places, mix = edge_averages(layout.parents, repeat)
    entries = [divmod(int(place), 17) for place in places]
    return {entries[column]: float(share) for column, share in enumerate(mix[entries.index(entry)]) if share}


def test_the_published_map_of_edges() -> None:
    """Coefficients measured on the published code, which averages shared edges once for each chain."""
    expected = {
        (1, 2): {(1, 2): 1 / 2, (0, 1): 1 / 2},
        (2, 3): {(2, 3): 1 / 2, (1, 2): 1 / 4, (0, 1): 1 / 4},
        (7, 8): {(7, 8): 1 / 8, (0, 7): 7 / 8},
        (8, 9): {(8, 9): 1 / 2, (7, 8): 1 / 4, (0, 7): 1 / 4},
        (8, 11): {(8, 11): 1 / 2, (7, 8): 1 / 8, (0, 7): 3 / 8},
        (8, 14): {(8, 14): 1 / 2, (7, 8): 1 / 16, (0, 7): 7 / 16},
        (0, 7): {(0, 7): 1},
    }
    for (row, column), shares in expected.items():
        assert _row(H36M_17, True, (row, column)) == pytest.approx(shares)
        back = {(column, row) if entry == (row, column) else entry: share for entry, share in shares.items()}
        assert _row(H36M_17, True, (column, row)) == pytest.approx(back)  # the reverse keeps its own logit and adds the same
    assert _row(MPI_INF_3DHP_17, True, (15, 1)) == pytest.approx({(15, 1): 1 / 16, (14, 15): 15 / 16})


@LAYOUTS
def test_without_repeats_left_and_right_are_alike(layout: Layout) -> None:
    mirror = layout.mirror
    for child, parent in enumerate(layout.parents):
        if parent >= 0:
            here, there = _row(layout, False, (parent, child)), _row(layout, False, (mirror[parent], mirror[child]))
            assert {(mirror[i], mirror[j]): share for (i, j), share in here.items()} == there
            assert sum(here.values()) == pytest.approx(1)  # an average: equal logits stay equal


def test_tree_attention_is_the_update_in_place() -> None:
    torch.manual_seed(0)
    attention = TreeAttention(16, 2, H36M_17.parents, repeat=True, dead=False)
    u = torch.randn(3, 17, 16)
    q, k, v = attention.qkv(u).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(-1, -2) / 8**0.5
    for chain in chains(H36M_17.parents):
        for a, b, c in zip(chain, chain[1:], chain[2:], strict=False):
            logits[..., b, c] = (logits[..., b, c] + logits[..., a, b]) / 2
            logits[..., c, b] = (logits[..., c, b] + logits[..., a, b]) / 2
    expected = attention.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(u), expected)


def test_child_keys_are_added_to_the_keys() -> None:
    torch.manual_seed(0)
    attention, u, c = ChildAttention(16, 2), torch.randn(4, 9, 16), torch.randn(4, 9, 16)
    q, k, v = attention.qkv(u).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    below = attention.qkv_xc(c).unflatten(-1, (2, 8)).transpose(1, 2)
    logits = (q @ k.transpose(-1, -2) + q @ below.transpose(-1, -2)) / 8**0.5
    expected = attention.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(u, c), expected)


@pytest.mark.parametrize("compat", [True, False])
def test_child_features_and_the_published_mix_up(compat: bool) -> None:
    """Published: the key of joint j, frame f is that of flat place n = j F + f among (frame, joint), i.e. frame n // J, joint n % J."""
    frames = 5
    net = HierarchicalDenoiser(H36M_17, frames, 8, 2, 2, 0.0, compat)
    u = torch.randn(1, 17, frames, 8)
    mean = torch.stack([u[:, [joint, *_children(joint)]].mean(1) for joint in range(17)], 1)
    found = net.context(u)
    if not compat:
        torch.testing.assert_close(found, mean)
    for joint, frame in ((0, 0), (0, 4), (3, 2), (16, 4)):
        there = divmod(joint * frames + frame, 17) if compat else (frame, joint)
        torch.testing.assert_close(found[0, joint, frame], mean[0, there[1], there[0]])


def _children(joint: int) -> list[int]:
    return [child for child, parent in enumerate(H36M_17.parents) if parent == joint]


@LAYOUTS
def test_bones_and_back(layout: Layout) -> None:
    pose = torch.randn(2, 3, 17, 3, dtype=torch.float64)
    root = layout.joints.index("pelvis")
    pose = pose - pose[..., root : root + 1, :]
    found = bones(pose, layout.parents)
    torch.testing.assert_close(joints_of(found, layout.parents), pose)
    assert not found[..., root, :].any()
    torch.testing.assert_close(found[..., :3].norm(dim=-1).sum(-1), torch.full((2, 3), 16.0, dtype=torch.float64))


def test_a_bone_without_length_has_no_direction_and_a_finite_gradient() -> None:
    pose = torch.zeros(1, 17, 3, requires_grad=True)
    found = bones(pose, H36M_17.parents)
    found.square().sum().backward()
    assert not found.any() and pose.grad is not None and bool(torch.isfinite(pose.grad).all())


def test_seventeen_frames_are_not_taken_for_seventeen_joints() -> None:
    net = HierarchicalDenoiser(H36M_17, 17, 16, 2, 2, 0.0, compat=False).eval()
    x, t = torch.randn(2, 17, 17, 6), torch.tensor([5.0, 700.0])
    assert net(x, t).shape == (2, 17, 17, 3)
    torch.testing.assert_close(net(x, t)[1:], net(x[1:], t[1:]))


def test_attention_equals_its_equation_and_drop_path_keeps_the_mean() -> None:
    torch.manual_seed(0)
    attention, u = Attention(16, 4), torch.randn(2, 3, 5, 16)
    q, k, v = attention.qkv(u).unflatten(-1, (3, 4, 4)).movedim(-3, 0).transpose(-2, -3)
    expected = attention.proj(((q @ k.transpose(-1, -2) / 2).softmax(-1) @ v).transpose(-2, -3).flatten(-2))
    torch.testing.assert_close(attention(u).view_as(u), expected)
    drop = DropPath(0.25).train()
    kept = drop(torch.ones(4000, 3, 2))
    assert kept.mean() == pytest.approx(1, abs=0.05) and kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(kept[:, :1, :1].expand_as(kept), kept)
    assert torch.equal(drop.eval()(u), u)
    assert isinstance(Block(16, attention, 0.0)(u), torch.Tensor)


def test_time_is_embedded_as_sines_then_cosines() -> None:
    table = TimeEmbedding(8)[0](torch.tensor([0.0, 10.0]))
    torch.testing.assert_close(table[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    torch.testing.assert_close(table[1, :4], torch.sin(10 * torch.tensor([1.0, 10000 ** (-1 / 3), 10000 ** (-2 / 3), 1e-4])))
