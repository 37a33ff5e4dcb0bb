r"""DiffPose: poses drawn from what the heatmaps of a single picture leave open.

.. math:: c = R \big( \operatorname{mix}_j ( W \sum_p \ell_{jp} [\varphi(x_{jp}); \varphi(y_{jp})] + P b + e_j ) \big), \qquad
    \hat\epsilon = D(x_t, t, c)

Every hypothesis has its own candidates (x, y) of likelihood ℓ, and its own noise. Since W is linear, codes are summed before it; as
candidates lie in cells, their sum is the product of two histograms with a table. Of the first layer of D the part that sees c is worked
out once a hypothesis, not at each step.

Source: Holmquist and Wandt, DiffPose: Multi-hypothesis Human Pose Estimation using Diffusion Models (ICCV 2023, arXiv 2211.16487). The
condition ``set`` is this library's: the reference sees of a map but its two marginals.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from dposer.body.skeleton import HEATMAP_16
from dposer.data.heatmap_mixtures import SIDE
from dposer.diffusion.denoiser import Denoiser
from dposer.diffusion.objective import draw_times
from dposer.diffusion.samplers import sample
from dposer.diffusion.schedule import expand, gaussian_like
from dposer.errors import InputError
from dposer.lifting.candidates import Candidates, channel_code, draw_candidates, marginals, normalised, on_crop, sine_code
from dposer.lifting.config import LiftingConfig
from dposer.lifting.model import LiftingModel, noise_schedule, sampling_times
from dposer.lifting.noise import NoiseStreams

_JOINTS = len(HEATMAP_16.joints)
_LINEAR = (512, 1024, 512)
"""Widths of the trained code of coordinates."""


class Condition(nn.Module):
    """Candidates (R, 16, P) → (R, width): see the module."""

    table: Tensor

    def __init__(self, config: LiftingConfig) -> None:
        super().__init__()
        n, h = config.network, config.heatmap
        self.config = h
        self.drawn = h.candidates - h.highest if h.candidates > h.highest else 0
        """Candidates of a joint that are drawn."""
        self.learned = h.condition in ("reference", "set")
        if not self.learned:
            self.width = _JOINTS * (2 + (h.condition == "concat" and h.likelihood)) * (h.candidates if h.condition == "concat" else 1)
            return
        if n.channels % 2:
            raise InputError(f"network.channels = {n.channels}, expected an even number: half of them code x, half y")
        self.width = h.readout
        self.register_buffer("table", channel_code(on_crop(torch.arange(SIDE, dtype=torch.float32)), n.channels // 2), persistent=False)
        if h.code == "linear":
            widths = (2, *_LINEAR, n.channels)
            layers = [layer for a, b in zip(widths, widths[1:], strict=False) for layer in (nn.Linear(a, b), nn.LeakyReLU())]
            self.code = nn.Sequential(*layers[:-1])
        inner = n.channels // 2 if h.condition == "set" else n.channels
        if h.condition == "set":
            self.each = nn.Linear(n.channels, inner)
        if h.projection:
            self.project = nn.Linear(inner, n.channels)
        self.joints = nn.Embedding(_JOINTS, n.channels)
        if h.transformer:
            layer = nn.TransformerEncoderLayer(n.channels, n.heads, h.feedforward, n.dropout, batch_first=True)
            self.mixer = nn.TransformerEncoder(layer, n.depth, enable_nested_tensor=False)
        self.readout = nn.Linear(_JOINTS * n.channels, h.readout)

    def draw(self, heatmaps: Tensor, noise: Tensor) -> Candidates:
        """Of heatmaps (R, 16, C) by noise (R, 16, drawn, 3)."""
        h = self.config
        return draw_candidates(heatmaps, noise, h.highest or h.condition == "pose", h.power)

    def forward(self, candidates: Candidates, kept: Tensor | None = None) -> Tensor:
        """``kept``: (R, 16) 0 for joints that are dropped, else 1."""
        if self.config.condition == "pose":
            return _as_pose(candidates.places[..., 0, :])
        if self.config.condition == "concat":
            return self._concatenated(candidates)
        token = self._summed(candidates, kept) + self.joints.weight
        if self.config.transformer:
            token = self.mixer(token)
        return cast(Tensor, self.readout(token.flatten(1)))

    def _summed(self, candidates: Candidates, kept: Tensor | None) -> Tensor:
        """(R, 16, channels)."""
        h, count = self.config, candidates.places.shape[-2]
        weight = candidates.likelihood if h.likelihood else torch.ones_like(candidates.likelihood)
        if kept is not None:
            weight = weight * kept[..., None]
        if h.condition == "set":
            seen = functional.gelu(self._first(candidates))
            summed = torch.einsum("rjp,rjpc->rjc", weight, seen) / count
            share = weight.mean(-1, keepdim=True)
            return summed @ self.project.weight.T + share * self.project.bias
        if h.code == "channel":
            summed = (marginals(candidates, weight) @ self.table).flatten(-2)
        else:
            summed = torch.einsum("rjp,rjpc->rjc", weight, self._codes(candidates))
        return summed @ self.project.weight.T + count * self.project.bias if h.projection else summed

    def _codes(self, candidates: Candidates) -> Tensor:
        """(R, 16, P, channels) of codes that are no table."""
        places = torch.cat([normalised(some.places, self.config.norm) for some in self._parts(candidates)], -2)
        if self.config.code == "linear":
            return cast(Tensor, self.code(places))
        return sine_code(places, self.joints.weight.shape[1] // 2).flatten(-2)

    def _parts(self, candidates: Candidates) -> list[Candidates]:
        """The highest cell and those that are drawn, each normalised by itself."""
        ends = (slice(0, int(self.config.highest)), slice(int(self.config.highest), None))
        parts = [Candidates(candidates.places[..., some, :], candidates.likelihood[..., some]) for some in ends]
        return [part for part in parts if part.likelihood.shape[-1]]

    def _first(self, candidates: Candidates) -> Tensor:
        """The first layer of ``set`` (R, 16, P, channels); of channel codes, which are rows of a table, it is one too."""
        if self.config.code != "channel":
            return cast(Tensor, self.each(self._codes(candidates)))
        of_x, of_y = (self.table @ half.T for half in self.each.weight.chunk(2, 1))
        column, row = candidates.places.long().unbind(-1)
        return functional.embedding(column, of_x) + functional.embedding(row, of_y) + self.each.bias

    def _concatenated(self, candidates: Candidates) -> Tensor:
        """The highest cell, then the others by falling likelihood; candidates come before joints."""
        h = self.config
        places, likelihood = [], []
        for some in self._parts(candidates):
            value, order = some.likelihood.sort(stable=True, dim=-1, descending=True)
            places.append(normalised(some.places.take_along_dim(order[..., None], -2), h.norm))
            likelihood.append(value)
        told = torch.cat(places, -2)
        if h.likelihood:
            told = torch.cat((told, torch.cat(likelihood, -1)[..., None]), -1)
        return told.transpose(1, 2).flatten(1)


def _as_pose(points: Tensor) -> Tensor:
    """(R, 32): less the mean of the joints, y upwards, over the deviation of all numbers; all x, then all y."""
    centred = (points - points.mean(1, keepdim=True)) * points.new_tensor([1, -1])
    return (centred / centred.std((1, 2), correction=0, keepdim=True).clamp_min(1e-6)).transpose(1, 2).flatten(1)


class Network(nn.Module):
    """ε̂ of (x_t, t, c): a linear layer, residual blocks, a linear layer; t is the step's plain number.

    Args:
        size: numbers of a pose.
        condition, width, blocks: sizes.
    """

    def __init__(self, size: int, condition: int, width: int, blocks: int) -> None:
        super().__init__()
        self.size = size
        self.first = nn.Linear(size + 1 + condition, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.last = nn.Linear(width, size)

    def told(self, condition: Tensor) -> Tensor:
        """What the first layer makes of the condition alone."""
        return functional.linear(condition, self.first.weight[:, self.size + 1 :], self.first.bias)

    def forward(self, x: Tensor, t: Tensor, told: Tensor) -> Tensor:
        y = torch.cat((x, t[:, None].to(x)), -1) @ self.first.weight[:, : self.size + 1].T + told
        for block in self.blocks:
            y = block(y)
        return cast(Tensor, self.last(y))


class Block(nn.Module):
    """y + lrelu(L₂ lrelu(L₁ y))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, y: Tensor) -> Tensor:
        return y + functional.leaky_relu(self.second(functional.leaky_relu(self.first(y))))


class DiffPose(LiftingModel):
    """Heatmaps (B, 1, 16, C) → poses (B, 1, J, 3). Hypotheses differ by their candidates as well as by their noise."""

    light = 4

    def __init__(self, config: LiftingConfig) -> None:
        super().__init__(config)
        d, h = config.diffusion, config.heatmap
        _check(config)
        self.steps = d.timesteps - h.late
        """Of the chain that are taken."""
        self.quick = self.usual = self.steps if h.sampler == "ancestral" else min(10, self.steps)
        self.rows = [row for row, name in enumerate(config.skeleton.joints) if name != "pelvis" or config.layout == "smpl24"]
        self.condition = Condition(config)
        self.network = Network(3 * len(self.rows), self.condition.width, h.width, h.blocks)
        self.schedule = noise_schedule(d)

    # ---- poses as the network has them: axis by axis, y and z turned, about the mean, in units of 1 / scale metres

    def encoded(self, pose: Tensor) -> Tensor:
        """(B, 1, J, 3) → (B, 3 J'), J' being all joints but the pelvis (smpl24: all)."""
        kept = pose[:, 0, self.rows] * pose.new_tensor([1, -1, -1])
        return self.config.diffusion.scale * (kept - kept.mean(1, keepdim=True)).transpose(1, 2).flatten(1)

    def decoded(self, x: Tensor) -> Tensor:
        """Inverse of :meth:`encoded`; the pelvis is in the middle of the hips."""
        kept = x.unflatten(1, (3, -1)).transpose(1, 2) * x.new_tensor([1, -1, -1]) / self.config.diffusion.scale
        names = self.config.skeleton.joints
        pose = x.new_zeros(len(x), len(names), 3)
        pose[:, self.rows] = kept
        if self.root not in self.rows:
            pose[:, self.root] = (pose[:, names.index("left_hip")] + pose[:, names.index("right_hip")]) / 2
        return (pose - pose[:, self.root : self.root + 1])[:, None]

    # ---- training

    def estimate(self, observed: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self._denoised(observed, pose, generator)[1]

    def loss(self, observed: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """mean (ε − ε̂)², or mean |ε − ε̂|; of the clean state where the network estimates that."""
        error, clean = self._denoised(observed, pose, generator)
        return self.losses.denoising(error, clean, pose)

    def _denoised(self, observed: Tensor, pose: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        d = self.config.diffusion
        x = self.encoded(pose)
        t = draw_times(self.schedule, len(x), generator=generator, device=x.device)
        noise = gaussian_like(x, generator)
        state = self.schedule.perturb(x, t, noise)
        found = self.network(state, self.schedule.label(t).to(x), self.network.told(self._condition_to_train(observed[:, 0], generator)))
        target = noise if d.predicts == "noise" else x
        clean = found if d.predicts == "clean" else (state - expand(self.schedule.sigma(t), x) * found) / expand(self.schedule.alpha(t), x)
        wrong = (found - target).abs() if self.config.loss.kind == "mae" else (found - target).square()
        return wrong.mean(), self.decoded(clean.clamp(-d.bound * d.scale, d.bound * d.scale))

    def _condition_to_train(self, heatmaps: Tensor, generator: torch.Generator | None) -> Tensor:
        """With new candidates, and without those of joints that are dropped."""
        shape = (*heatmaps.shape[:2], self.condition.drawn, 3)
        candidates = self.condition.draw(heatmaps, gaussian_like(heatmaps.new_empty(shape), generator))
        kept = None
        if self.config.heatmap.drop and self.training and self.condition.learned:
            source = heatmaps.device if generator is None else generator.device
            kept = (torch.rand(heatmaps.shape[:2], generator=generator, device=source) >= self.config.heatmap.drop).to(heatmaps)
        return cast(Tensor, self.condition(candidates, kept))

    # ---- sampling

    def lift(self, context: Tensor, steps: int, streams: NoiseStreams) -> Tensor:
        """The chain backwards, all of it or in K steps; the last pose alone, (rows, 1, 1, J, 3)."""
        d, h = self.config.diffusion, self.config.heatmap
        if not 1 <= steps <= self.steps:
            raise InputError(f"{steps} steps, expected 1 to the {self.steps} of the process")
        heatmaps = context[:, 0]
        of_window = streams.shared() if h.condition == "concat" else streams  # there, one draw is all hypotheses'
        candidates = self.condition.draw(heatmaps, of_window(heatmaps.new_empty(*heatmaps.shape[:2], self.condition.drawn, 3)))
        told = self.network.told(self.condition(candidates))
        steps_of_noise = iter(h.noise * streams(heatmaps.new_empty(len(heatmaps), steps + 1, self.network.size)).transpose(0, 1))
        x = sample(
            Denoiser(self.network, self.schedule, d.predicts, clip=d.bound * d.scale),
            next(steps_of_noise), sampler="dpm++" if h.sampler == "dpm++" else "ddim",
            times=sampling_times(self.steps, steps), eta=1.0 if h.sampler == "ancestral" else d.eta,
            noise=lambda _: next(steps_of_noise), told=told,
        )  # fmt: skip
        return self.decoded(x)[:, None]


def _check(config: LiftingConfig) -> None:
    """Refuse settings that would have no effect, or ask for what there is not."""
    n, d, h = config.network, config.diffusion, config.heatmap
    wrong = {
        f"inputs = {config.inputs!r}": (config.inputs == "heatmap", "heatmap"),
        f"flip = {config.flip}": (not config.flip, "False: hypotheses of the mirrored picture are others"),
        f"variant = {config.variant!r}": (config.variant == "clean", "clean"),
        f"network.frames = {n.frames}": (n.frames == 1, "1: frames are lifted one by one"),
        f"network.drop_path = {n.drop_path}": (n.drop_path == 0, "0"),
        f"diffusion.predicts = {d.predicts!r}": (d.predicts in ("noise", "clean"), "noise or clean"),
        f"diffusion.eta = {d.eta}": (h.sampler != "ancestral" or d.eta == 1, "1 of the ancestral chain; choose another heatmap.sampler"),
        f"loss.kind = {config.loss.kind!r}": (config.loss.kind in ("mse", "mae"), "mse or mae"),
        f"loss.consistency = {config.loss.consistency}": (config.loss.consistency == 0, "0: a single frame has no motion"),
        f"heatmap.candidates = {h.candidates}": (h.candidates >= 1, "1 or more"),
        f"heatmap.power = {h.power}": (h.power > 0, "a positive number"),
        f"heatmap.drop = {h.drop}": (0 <= h.drop < 1, "0 to below 1"),
        f"heatmap.late = {h.late}": (0 <= h.late < d.timesteps, f"0 to below the {d.timesteps} steps of the chain"),
        f"heatmap.noise = {h.noise}": (h.noise >= 0, "0 or more"),
    }
    for said, (fine, expected) in wrong.items():
        if not fine:
            raise InputError(f"{said}: not of diffpose, expected {expected}")
