"""The score networks compute the published function."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp

from dposer.errors import InputError
from dposer.prior.config import ModelConfig, PriorConfig, TrainingConfig
from dposer.prior.networks import ScoreModelFC, build_denoiser, build_network, positional_embedding

SMALL = ModelConfig(HIDDEN_DIM=64, EMBED_DIM=16)

PUBLISHED = [
    ("sigmas", (1000,)),
    ("pre_dense.weight", (1024, 63)), ("pre_dense.bias", (1024,)),
    ("pre_dense_t.weight", (1024, 512)), ("pre_dense_t.bias", (1024,)),
    ("pre_gnorm.weight", (1024,)), ("pre_gnorm.bias", (1024,)),
    ("shared_time_embed.0.weight", (512, 512)), ("shared_time_embed.0.bias", (512,)),
    *(
        (f"b{b}_{layer}{i}{suffix}.{kind}", (1024,) if kind == "bias" or layer == "gnorm" else (1024, width))
        for b in (1, 2)
        for i in (1, 2)
        for layer, suffix, width in (("dense", "", 1024), ("dense", "_t", 512), ("gnorm", "", 0))
        for kind in ("weight", "bias")
    ),
    ("post_dense.weight", (63, 1024)), ("post_dense.bias", (63,)),
]  # fmt: skip
DEAD = 1024 * 1024 + 1024
"""The first release counts a layer that no output depends on."""


def _parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("config", "dim", "count"),
    [
        (ModelConfig(), 63, 7_227_967),
        (ModelConfig(), 63, 8_277_567 - DEAD),
        (ModelConfig(), 126, 8_406_654 - DEAD),
        (ModelConfig(type="TimeMLPs"), 63, 2_230_335),
    ],
)
def test_parameter_counts_are_the_published_ones(config: ModelConfig, dim: int, count: int) -> None:
    assert _parameters(build_network(config, dim)) == count


def test_the_state_dict_has_the_published_names_shapes_and_order() -> None:
    network = build_network(ModelConfig(), 63)
    assert [(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()] == PUBLISHED
    assert [name for name, _ in network.named_parameters()] == [name for name, _ in PUBLISHED[1:]]
    fourier = build_network(ModelConfig(embedding_type="fourier"), 63)
    assert fourier.state_dict()["gauss_proj.W"].shape == (256,)
    assert "gauss_proj.W" not in [name for name, p in fourier.named_parameters() if p.requires_grad]


def _by_hand(state: dict[str, Tensor], x: Tensor, tau: Tensor, config: ModelConfig) -> Tensor:
    """The formula once more, in matrix products."""

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ state[name + ".weight"].T + state[name + ".bias"]

    def silu(value: Tensor) -> Tensor:
        return value / (1 + torch.exp(-value))

    def group_norm(name: str, value: Tensor) -> Tensor:
        groups = value.reshape(len(value), 32, -1)
        mean, var = groups.mean(2, keepdim=True), groups.var(2, keepdim=True, correction=0)
        return ((groups - mean) / (var + 1e-5).sqrt()).reshape(value.shape) * state[name + ".weight"] + state[name + ".bias"]

    half = config.EMBED_DIM // 2
    frequencies = torch.tensor([10_000 ** (-k / (half - 1)) for k in range(half)], dtype=x.dtype)
    embedding = torch.cat([torch.sin(tau[:, None] * frequencies), torch.cos(tau[:, None] * frequencies)], 1)
    e = silu(linear("shared_time_embed.0", embedding))
    h = silu(group_norm("pre_gnorm", linear("pre_dense", x) + linear("pre_dense_t", e)))
    for b in range(1, config.N_BLOCKS + 1):
        inner = h
        for i in (1, 2):
            inner = silu(group_norm(f"b{b}_gnorm{i}", linear(f"b{b}_dense{i}", inner) + linear(f"b{b}_dense{i}_t", e)))
        h = h + inner
    sigma = torch.tensor([50 * (0.01 / 50) ** (int(t) / 999) for t in tau], dtype=x.dtype)
    return linear("post_dense", h) / sigma[:, None]


def test_forward_is_the_formula(generator: torch.Generator) -> None:
    network = build_network(SMALL, 63).double().eval()
    x = torch.randn(5, 63, generator=generator, dtype=torch.float64)
    tau = torch.tensor([0.0, 0.7, 12.999, 500.5, 999.0], dtype=torch.float64)
    torch.testing.assert_close(network(x, tau), _by_hand(network.state_dict(), x, tau, SMALL), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", ["ScoreModelFC", "TimeMLPs"])
def test_one_label_for_the_batch_equals_one_each(kind: Any, generator: torch.Generator) -> None:
    network = build_network(ModelConfig(type=kind, HIDDEN_DIM=64, EMBED_DIM=16), 63).double().eval()
    x = torch.randn(6, 63, generator=generator).double()
    each = network(x, torch.full((6,), 321.5).double())
    torch.testing.assert_close(network(x, torch.tensor([321.5]).double()), each)
    torch.testing.assert_close(network(x, torch.tensor(321.5).double().expand(6)), each)
    labels = torch.tensor([3.0, 900.0]).double()
    torch.testing.assert_close(network(x, labels), network(x, labels.repeat_interleave(3)))


def test_the_output_is_divided_by_the_descending_table() -> None:
    network = build_network(SMALL, 63)
    assert isinstance(network, ScoreModelFC)
    nn.init.zeros_(network.post_dense.weight)
    nn.init.ones_(network.post_dense.bias)
    out = network(torch.zeros(3, 63), torch.tensor([0.0, 999.0, 999.9]))[:, 0]
    torch.testing.assert_close(out, torch.tensor([1 / 50, 1 / 0.01, 1 / 0.01]), rtol=1e-5, atol=0)


def test_the_fourier_embedding_is_divided_by_the_label(generator: torch.Generator) -> None:
    config = ModelConfig(HIDDEN_DIM=64, EMBED_DIM=16, embedding_type="fourier", fourier_scale=1.0)
    network = build_network(config, 63).eval()
    assert isinstance(network, ScoreModelFC)
    label = torch.tensor([2.0])
    angle = 2 * math.pi * math.log(2.0) * network.gauss_proj.W
    torch.testing.assert_close(network.gauss_proj(label)[0], torch.cat([angle.sin(), angle.cos()]))
    nn.init.zeros_(network.post_dense.weight)
    torch.testing.assert_close(network(torch.zeros(1, 63), label)[0], network.post_dense.bias / 2)


@pytest.mark.parametrize("nonlinearity", ["elu", "relu", "lrelu"])
def test_all_nonlinearities_build(nonlinearity: Any) -> None:
    network = build_network(ModelConfig(HIDDEN_DIM=32, EMBED_DIM=8, nonlinearity=nonlinearity), 126)
    assert network(torch.zeros(2, 126), torch.tensor([1.0]), condition=None, mask=None).shape == (2, 126)


def test_labels_are_not_rounded() -> None:
    assert not torch.equal(positional_embedding(torch.tensor([1.0]), 8), positional_embedding(torch.tensor([1.4]), 8))


def test_forward_and_reverse_mode_derivatives_agree(generator: torch.Generator) -> None:
    network = build_network(SMALL, 63).double().eval()
    x = torch.randn(3, 63, generator=generator, dtype=torch.float64)
    v = torch.randn(3, 63, generator=generator, dtype=torch.float64)
    label = torch.tensor(400.0, dtype=torch.float64).expand(3)
    forward = jvp(lambda x: network(x, label), (x,), (v,))[1]
    rows = [torch.autograd.functional.jacobian(lambda row: network(row[None], label[:1])[0], row) for row in x]
    torch.testing.assert_close(forward, torch.stack([rows[i] @ v[i] for i in range(3)]))


@pytest.mark.parametrize(
    "config", [ModelConfig(HIDDEN_DIM=100), ModelConfig(HIDDEN_DIM=0), ModelConfig(EMBED_DIM=33), ModelConfig(EMBED_DIM=2)]
)
def test_impossible_widths_are_refused(config: ModelConfig) -> None:
    with pytest.raises(InputError, match="model\\.(HIDDEN|EMBED)_DIM"):
        build_network(config, 63)


def test_the_network_predicts_noise_but_the_score_under_ve(generator: torch.Generator) -> None:
    network = build_network(SMALL, 63).eval()
    x = torch.randn(2, 63, generator=generator)
    vp = build_denoiser(network, PriorConfig(model=SMALL))
    torch.testing.assert_close(vp.noise(x, 0.5), network(x, torch.tensor([499.5])))
    ve = build_denoiser(network, PriorConfig(model=SMALL, training=TrainingConfig(sde="vesde")))
    sigma = 0.01 * 5000**0.5
    torch.testing.assert_close(ve.score(x, 0.5), network(x, torch.tensor([sigma])), rtol=1e-4, atol=1e-5)
