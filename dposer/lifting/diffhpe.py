"""DiffHPE: ancestral diffusion of whole sequences with a graph denoiser, conditioned on keypoints or on what a MixSTE sees in them.

Source: Rommel et al., DiffHPE: Robust, Coherent 3D Human Pose Lifting with Diffusion (ICCV 2023 workshops, arXiv 2309.01575); guidance: Ho
and Salimans, Classifier-Free Diffusion Guidance (arXiv 2207.12598).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dposer.diffusion.denoiser import Denoiser
from dposer.diffusion.objective import draw_times
from dposer.diffusion.samplers import sample
from dposer.diffusion.schedule import expand, gaussian_like
from dposer.errors import InputError
from dposer.lifting.config import ConditionConfig, LiftingConfig
from dposer.lifting.ctgcn import CTGCN
from dposer.lifting.mixste import MixSTE
from dposer.lifting.model import LiftingModel, noise_schedule, sampling_times
from dposer.lifting.noise import NoiseStreams


class Conditioner(nn.Module):
    """Noisy poses (B, F, J, 3) and keypoints (B, F, J, I) → input of the denoiser (B, F, J, :attr:`width`).

    Args:
        config: ``condition`` says how.
    """

    def __init__(self, config: LiftingConfig) -> None:
        super().__init__()
        self.config: ConditionConfig = config.condition
        c, inputs = self.config, config.columns
        self.trunk: MixSTE | None = None
        told = {"points": inputs, "none": 0}.get(c.kind, 3 if c.keep_head else c.channels)
        if c.kind in ("features", "trained"):
            self.trunk = MixSTE(config.network.frames, len(config.skeleton.joints), inputs, c.channels, c.depth, c.heads, 0.0)
            if not c.keep_head:
                self.trunk.head = nn.Sequential(self.trunk.head[0])
            self.trunk.requires_grad_(c.kind == "trained")
        encodes = self.trunk is not None and c.encode_pose
        self.encode = nn.Linear(3, c.channels) if encodes else nn.Identity()
        of_pose = c.channels if encodes else 3
        if c.mix == "sum" and told != of_pose:
            raise InputError(
                f"condition.mix = 'sum': {of_pose} channels of the pose and {told} of the condition, expected as many; see the others"
            )
        self.width = of_pose + told * (c.mix == "concat")

    def train(self, mode: bool = True) -> "Conditioner":
        """A trunk that stays as it is stays in evaluation mode."""
        super().train(mode)
        if self.trunk is not None and self.config.kind == "features":
            self.trunk.eval()
        return self

    def features(self, observed: Tensor) -> Tensor:
        """What the denoiser is told of keypoints, (B, F, J, width of the condition); none: no column."""
        if self.config.kind == "none":
            return observed[..., :0]
        return observed if self.trunk is None else self.trunk.head(self.trunk.features(observed))

    def forward(self, state: Tensor, features: Tensor) -> Tensor:
        pose = self.encode(state)
        return torch.cat((pose, features), -1) if self.config.mix == "concat" else pose + features


class DiffHPE(LiftingModel):
    """DiffHPE-2D (method diffhpe-2d: the keypoints themselves) and DiffHPE-Wrapper (diffhpe: features of a trained MixSTE).

    The Wrapper is no refinement of MixSTE's pose: it denoises whole poses. Its trunk is evaluated once a window.
    """

    quick = usual = 5

    def __init__(self, config: LiftingConfig) -> None:
        super().__init__(config)
        n, d, c = config.network, config.diffusion, config.condition
        wraps = c.kind in ("features", "trained")
        if wraps != (config.method == "diffhpe"):
            raise InputError(
                f"condition.kind = {c.kind!r}: not of {config.method}; diffhpe has features or trained, diffhpe-2d points or none"
            )
        if c.drop_share < 1 and not c.drop_before:
            raise InputError(f"condition.drop_share = {c.drop_share}: single keypoints cannot be dropped behind the trunk; set drop_before")
        if c.guidance and not c.drop:
            raise InputError(
                f"condition.guidance = {c.guidance}: the network never saw poses without a condition; train with condition.drop"
            )
        self.condition = Conditioner(config)
        self.network = CTGCN(
            config.skeleton, self.condition.width, n.frames, n.channels, n.depth, n.dropout, d.timesteps, compat=config.compat
        )
        self.schedule = noise_schedule(d)

    def start_from(self, theirs: LiftingConfig, weights: Mapping[str, Tensor]) -> None:
        """Take over the same method's weights, or MixSTE's as the trunk of the Wrapper.

        Raises:
            InputError: they are of another method or size.
        """
        c, trunk = self.config.condition, self.condition.trunk
        if theirs.method != "mixste":
            super().start_from(theirs, weights)
            return
        n = theirs.network
        if (theirs.layout, n.frames, n.channels, n.depth, n.heads, theirs.inputs) != (
            self.config.layout, self.config.network.frames, c.channels, c.depth, c.heads, self.config.inputs,
        ) or trunk is None:  # fmt: skip
            raise self.other_weights(theirs, f"the trunk takes MixSTE's of {self.config.inputs} and of the sizes in {c}")
        names = trunk.state_dict().keys()
        trunk.load_state_dict({name: tensor for key, tensor in weights.items() if (name := key.removeprefix("network.")) in names})

    def estimate(self, observed: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self._denoised(observed, pose, generator)[1]

    def loss(self, observed: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """mean (ε − ε̂)², with weights λ of ``loss`` on how bone lengths of the clean estimate vary and differ between sides.

        Where the network estimates the clean state x, mean (x − x̂)².
        """
        error, clean = self._denoised(observed, pose, generator)
        return self.losses.denoising(error, clean, pose)

    def _denoised(self, observed: Tensor, pose: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """The mean square of the network's error at random times, one a sequence, and the clean pose that it stands for."""
        d = self.config.diffusion
        t = draw_times(self.schedule, len(pose), generator=generator, device=pose.device)
        noise = gaussian_like(pose, generator)
        state = self.schedule.perturb(d.scale * pose, t, noise)
        found = self.network(self.condition(state, self._features_to_train(observed, generator)), t)
        if d.predicts == "clean":
            return (found - d.scale * pose).square().mean(), found / d.scale
        clean = (state - expand(self.schedule.sigma(t), state) * found) / (expand(self.schedule.alpha(t), state) * d.scale)
        return (found - noise).square().mean(), clean.clamp(-d.bound, d.bound)

    def _features_to_train(self, observed: Tensor, generator: torch.Generator | None) -> Tensor:
        """Without those that are dropped."""
        c = self.config.condition
        if not c.drop:
            return self.condition.features(observed)
        source = observed.device if generator is None else generator.device
        whole = torch.rand(len(observed), 1, 1, 1, generator=generator, device=source) >= c.drop
        if c.drop_before:
            single = torch.rand(*observed.shape[:-1], 1, generator=generator, device=source) >= c.drop_share
            return self.condition.features(observed * (whole | single).to(observed))
        return self.condition.features(observed) * whole.to(observed)

    def context(self, observed: Tensor) -> Tensor:
        """(B, views, F, J, width): of the straight and, with ``flip``, of the mirrored keypoints, then without any if there is guidance."""
        views = [observed] + [self.mirrored(observed)] * self.config.flip
        found = [self.condition.features(view) for view in views]
        if self.config.condition.guidance:
            c = self.config.condition
            found += [self.condition.features(0 * view) if c.drop_before else 0 * told for view, told in zip(views, found, strict=True)]
        return torch.stack(found, 1)

    def lift(self, context: Tensor, steps: int, streams: NoiseStreams) -> Tensor:
        """The chain of all T steps backwards, or of K of them; the last pose alone, (rows, 1, F, J, 3)."""
        d = self.config.diffusion
        if not 1 <= steps <= d.timesteps:
            raise InputError(f"{steps} steps, expected 1 to the {d.timesteps} of the process")
        start = streams(context.new_empty(len(context), *context.shape[2:-1], 3))
        found: Tensor = sample(
            Denoiser(self, self.schedule, d.predicts, clip=None if self.config.compat else d.bound * d.scale),
            start, sampler="ddim", times=sampling_times(d.timesteps, steps), eta=d.eta, noise=streams, told=context,
        )  # fmt: skip
        return found[:, None] / d.scale

    def forward(self, state: Tensor, t: Tensor, told: Tensor) -> Tensor:
        """ε̂, or the clean state, as :class:`Denoiser` asks for it: guided, and averaged over the mirror; all views in one batch."""
        flip, w = self.config.flip, self.config.condition.guidance
        states = torch.stack([state] + [self.flipped(state)] * flip, 1)
        every = states.repeat(1, told.shape[1] // states.shape[1], 1, 1, 1)
        found = self.network(self.condition(every.flatten(0, 1), told.flatten(0, 1)), t.repeat_interleave(told.shape[1]))
        found = found.unflatten(0, (len(state), -1, 1 + flip))
        found = (1 + w) * found[:, 0] - w * found[:, 1] if w else found[:, 0]
        return (found[:, 0] + self.flipped(found[:, 1])) / 2 if flip else found[:, 0]
