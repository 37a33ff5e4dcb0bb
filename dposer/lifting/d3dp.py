"""D3DP and DDHPose: DDIM on poses, or on their bones, with a network that estimates the clean pose.

Sources: Shan et al., Diffusion-Based 3D Human Pose Estimation with Multi-Hypothesis Aggregation (ICCV 2023, arXiv 2303.11579); Cai et al.,
Disentangled Diffusion-Based 3D Human Pose Estimation (AAAI 2024, arXiv 2403.04444).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from dposer.diffusion.denoiser import Denoiser
from dposer.diffusion.objective import draw_times
from dposer.diffusion.samplers import sample
from dposer.diffusion.schedule import gaussian_like
from dposer.lifting.config import LiftingConfig
from dposer.lifting.ddhpose import HierarchicalDenoiser, bones
from dposer.lifting.mixste import MixSTE
from dposer.lifting.model import LiftingModel, noise_schedule, sampling_times
from dposer.lifting.noise import NoiseStreams


class D3DP(LiftingModel):
    """D3DP: the pose itself is diffused; DDHPose: its bones are, all with one time a window, and the denoiser estimates the clean pose."""

    usual = 5

    def __init__(self, config: LiftingConfig) -> None:
        super().__init__(config)
        n, layout = config.network, config.skeleton
        self.disentangled = config.method == "ddhpose"
        if self.disentangled:
            network: nn.Module = HierarchicalDenoiser(
                layout, n.frames, n.channels, n.depth, n.heads, n.drop_path, config.compat, inputs=config.columns + 4
            )
        else:
            network = MixSTE(n.frames, len(layout.joints), config.columns + 3, n.channels, n.depth, n.heads, n.drop_path, timed=True)
        self.network = network
        self.schedule = noise_schedule(config.diffusion)

    def start_from(self, theirs: LiftingConfig, weights: Mapping[str, Tensor]) -> None:
        """Take over the same method's weights, or MixSTE's.

        Of what MixSTE has not, the keys of children start at zero. Times and noisy poses enter as drawn: were both at zero, neither would
        get a gradient from the other, and the noisy pose would go unused for long.

        Raises:
            InputError: they are of another method or size.
        """
        mine = self.config
        if theirs.network != mine.network or theirs.layout != mine.layout or theirs.method not in ("mixste", mine.method):
            raise self.other_weights(theirs, f"give weights of {mine.method} or of mixste, and their network")
        with torch.no_grad():
            for name, tensor in self.state_dict().items():
                given = weights.get(name)
                if given is None:
                    tensor.mul_("qkv_xc" not in name)
                elif given.shape == tensor.shape:
                    tensor.copy_(given)
                else:  # the first layer, whose further inputs are the noisy pose
                    tensor[:, : given.shape[1]] = given

    def state(self, pose: Tensor) -> Tensor:
        """What is diffused: the pose (..., J, 3), or its bones (..., J, 4)."""
        state = bones(pose, self.config.skeleton.parents) if self.disentangled else pose
        return self.config.diffusion.scale * state

    def estimate(self, observed: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> Tensor:
        state = self.state(pose)
        t = draw_times(self.schedule, len(pose), generator=generator, device=pose.device)
        return self._denoise(self.schedule.perturb(state, t, gaussian_like(state, generator)), t, observed)

    def forward(
        self, state: Tensor, t: Tensor, keypoints: Tensor, record: Callable[[Tensor], object] | None = None, mirrored: bool = False
    ) -> Tensor:
        """The clean state, as :class:`Denoiser` asks for it; ``record`` is handed the pose it stands for."""
        if mirrored:
            both = self._denoise(torch.cat((state, self.flipped(state))), t.repeat(2), torch.cat((keypoints, self.flipped(keypoints))))
            straight, flipped = both.chunk(2)
            pose = (straight + self.flipped(flipped)) / 2
        else:
            pose = self._denoise(state, t, keypoints)
        bound = self.config.diffusion.bound
        if record is not None:
            record(pose.clamp(-bound, bound))
        if self.disentangled and self.config.compat:
            limit = bound * self.config.diffusion.scale
            return self.state(pose).clamp(-limit, limit)  # published: the bones of the pose before its clamp
        return self.state(pose.clamp(-bound, bound))

    def _denoise(self, state: Tensor, t: Tensor, keypoints: Tensor) -> Tensor:
        d = self.config.diffusion
        limit = d.bound * d.scale
        return self.network(torch.cat((keypoints, state.clamp(-limit, limit) / d.scale), -1), t)

    def lift(self, context: Tensor, steps: int, streams: NoiseStreams) -> Tensor:
        """DDIM from pure noise: (rows, F, J, 2) → (rows, K, F, J, 3)."""
        start = streams(context.new_empty(*context.shape[:-1], 4 if self.disentangled else 3))
        poses: list[Tensor] = []
        sample(
            Denoiser(self, self.schedule, predicts="clean"),
            start,
            sampler="ddim",
            times=sampling_times(self.config.diffusion.timesteps, steps),
            eta=self.config.diffusion.eta,
            noise=streams,
            constrain=self._root_kept(start) if self.disentangled and self.config.compat else None,
            keypoints=context,
            record=poses.append,
            mirrored=self.config.flip,
        )
        return torch.stack(poses, 1)

    def _root_kept(self, start: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Published: no step touches the root's slot, which holds no bone; so its noise does not fade as it did in training."""
        slot = (torch.arange(start.shape[-2]) == self.root).to(start.device)[:, None]
        return lambda state, t: torch.where(slot, start, state)
