"""Score networks of the pose prior: ε_θ(x, τ) for a pose vector x and a time label τ.

Source: DPoser (arXiv 2312.05541), released code. Attribute names are those of the published state dicts.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dposer.diffusion.denoiser import Denoiser
from dposer.diffusion.schedule import Schedule, make_schedule
from dposer.errors import InputError
from dposer.prior.config import ModelConfig, PriorConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swish": F.silu,
    "elu": F.elu,
    "relu": F.relu,
    "lrelu": lambda x: F.leaky_relu(x, 0.2),
}
_GROUPS = 32


def _add_per_label(h: Tensor, e: Tensor) -> Tensor:
    """h_i + e_k for the i-th of B samples under the k-th of K labels, K dividing B: consecutive samples share a label."""
    return (h.unflatten(0, (len(e), -1)) + e[:, None]).flatten(0, 1)


class ScoreModelFC(nn.Module):
    """h ← Dropout(act(GN(W h + U e(τ)))), two such layers a residual block; the output divided by S[⌊τ⌋].

    S falls from 50 to 0.01 over the thousand labels: an inheritance from variance-exploding code, but part of the
    published function.

    Args:
        config: widths, depth and constants.
        dim: numbers per pose, 63 (axis-angle) or 126 (rot6d).
    """

    sigmas: Tensor

    def __init__(self, config: ModelConfig, dim: int):
        super().__init__()
        hidden, embedding = config.HIDDEN_DIM, config.EMBED_DIM
        self.config = config
        self.act = ACTIVATIONS[config.nonlinearity]
        self.dropout = nn.Dropout(config.dropout)
        sigmas = torch.exp(torch.linspace(math.log(config.sigma_max), math.log(config.sigma_min), config.num_scales))
        self.register_buffer("sigmas", sigmas)
        if config.embedding_type == "fourier":
            self.gauss_proj = GaussianFourierProjection(embedding // 2, config.fourier_scale)
        self.pre_dense = nn.Linear(dim, hidden)
        if config.masked:
            self.known_dense = nn.Linear(dim, hidden, bias=False)
            nn.init.zeros_(self.known_dense.weight)  # a network that learned without masks goes on as it was
        self.pre_dense_t = nn.Linear(embedding, hidden)
        self.pre_gnorm = nn.GroupNorm(_GROUPS, hidden)
        self.shared_time_embed = nn.Sequential(nn.Linear(embedding, embedding))
        self.blocks = range(1, config.N_BLOCKS + 1)
        for b in self.blocks:
            for layer in (1, 2):
                setattr(self, f"b{b}_dense{layer}", nn.Linear(hidden, hidden))
                setattr(self, f"b{b}_dense{layer}_t", nn.Linear(embedding, hidden))
                setattr(self, f"b{b}_gnorm{layer}", nn.GroupNorm(_GROUPS, hidden))
        self.post_dense = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, label: Tensor, known: Tensor | None = None, **ignored: object) -> Tensor:
        """ε_θ(x, τ), or ε_θ(x, τ, known) if the network is masked.

        Args:
            x: (B, dim), clean where known.
            label: (K,) labels τ, K dividing B; sample i has label ⌊i K / B⌋. K = 1 and K = B are the usual cases.
            known: (B, dim) bool, for masked networks; None: nothing is known.

        Returns:
            (B, dim).
        """
        if label.stride(0) == 0:  # one time expanded over the batch
            label = label[:1]
        time = self.gauss_proj(label) if self.config.embedding_type == "fourier" else positional_embedding(label, self.config.EMBED_DIM)
        e = self.act(self.shared_time_embed(time))
        told = self.known_dense(known.to(x.dtype)) if known is not None and self.config.masked else None
        h = self._layer("pre_dense", "pre_gnorm", x, e, told)
        for b in self.blocks:
            inner = self._layer(f"b{b}_dense1", f"b{b}_gnorm1", h, e)
            h = h + self._layer(f"b{b}_dense2", f"b{b}_gnorm2", inner, e)
        out: Tensor = self.post_dense(h)
        return self._scaled(out, label) if self.config.scale_by_sigma else out

    def _layer(self, dense: str, norm: str, x: Tensor, e: Tensor, extra: Tensor | None = None) -> Tensor:
        h = _add_per_label(getattr(self, dense)(x), getattr(self, dense + "_t")(e))
        h = h if extra is None else h + extra
        layer: Tensor = self.dropout(self.act(getattr(self, norm)(h)))
        return layer

    def _scaled(self, out: Tensor, label: Tensor) -> Tensor:
        scale = label if self.config.embedding_type == "fourier" else self.sigmas[label.long()]
        return (out.unflatten(0, (len(label), -1)) / scale[:, None, None]).flatten(0, 1)


class TimeMLPs(nn.Module):
    """A plain MLP on (x, τ): Linear, act, then n of (Linear, act, dropout), Linear."""

    def __init__(self, config: ModelConfig, dim: int):
        super().__init__()
        hidden = config.HIDDEN_DIM
        self.act = ACTIVATIONS[config.nonlinearity]
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList([nn.Linear(dim + 1, hidden), *(nn.Linear(hidden, hidden) for _ in range(config.N_BLOCKS))])
        self.post_dense = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, label: Tensor, **ignored: object) -> Tensor:
        """As :meth:`ScoreModelFC.forward`."""
        h = self.act(self.layers[0](torch.cat([x, label.repeat_interleave(len(x) // len(label))[:, None]], dim=1)))
        for layer in self.layers[1:]:
            h = self.dropout(self.act(layer(h)))
        out: Tensor = self.post_dense(h)
        return out


class GaussianFourierProjection(nn.Module):
    """[sin(2π W ln τ) ‖ cos(2π W ln τ)] with fixed random W ~ N(0, scale²)."""

    def __init__(self, size: int, scale: float):
        super().__init__()
        self.W = nn.Parameter(torch.randn(size) * scale, requires_grad=False)

    def forward(self, label: Tensor) -> Tensor:
        angle = 2 * math.pi * label.log()[:, None] * self.W
        return torch.cat([angle.sin(), angle.cos()], dim=1)


def positional_embedding(label: Tensor, size: int) -> Tensor:
    """[sin(τ f_k) ‖ cos(τ f_k)], f_k = exp(−k ln(10000) / (size/2 − 1)): (K,) → (K, size). τ is not rounded."""
    half = size // 2
    frequency = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half, device=label.device, dtype=label.dtype))
    angle = label[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def build_network(config: ModelConfig, dim: int) -> nn.Module:
    """The network that ``config.type`` names, for poses of ``dim`` numbers.

    Raises:
        InputError: widths that the layers cannot have.
    """
    if config.type == "TimeMLPs":
        return TimeMLPs(config, dim)
    if config.HIDDEN_DIM < 1 or config.HIDDEN_DIM % _GROUPS:
        raise InputError(f"model.HIDDEN_DIM = {config.HIDDEN_DIM}, expected a positive multiple of {_GROUPS} (group normalisation)")
    if config.EMBED_DIM < 4 or config.EMBED_DIM % 2:
        raise InputError(f"model.EMBED_DIM = {config.EMBED_DIM}, expected an even number from 4")
    return ScoreModelFC(config, dim)


def build_schedule(config: PriorConfig) -> Schedule:
    """The continuous SDE that ``config`` names, with its constants."""
    model = config.model
    if config.training.sde == "vesde":
        return make_schedule("vesde", sigma_min=model.sigma_min, sigma_max=model.sigma_max)
    return make_schedule(config.training.sde, beta_0=model.beta_min, beta_1=model.beta_max)


def build_denoiser(network: nn.Module, config: PriorConfig) -> Denoiser:
    """``network`` on its SDE: it predicts the noise, or under VE the score."""
    return Denoiser(network, build_schedule(config), predicts="score" if config.training.sde == "vesde" else "noise")
