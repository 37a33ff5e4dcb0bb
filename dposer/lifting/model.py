"""What every lifting method offers to training, evaluation and users, and the methods of the D3DP family.

A method with another network or another process is one more subclass of :class:`LiftingModel`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dposer.diffusion.denoiser import Denoiser
from dposer.diffusion.objective import draw_times
from dposer.diffusion.samplers import sample
from dposer.diffusion.schedule import DiscreteSchedule, gaussian_like
from dposer.lifting.config import LiftingConfig
from dposer.lifting.ddhpose import HierarchicalDenoiser, bones
from dposer.lifting.losses import Losses
from dposer.lifting.mixste import MixSTE
from dposer.lifting.noise import Noise, NoiseStreams
from dposer.lifting.windows import flip

Progress = Callable[[int, int], None]


class LiftingModel(nn.Module, ABC):
    """Keypoints (B, F, J, 2) in screen units → poses relative to the root, metres before the camera.

    Args:
        config: of the method.
    """

    def __init__(self, config: LiftingConfig) -> None:
        super().__init__()
        self.config = config
        self.losses = Losses(config)

    @property
    def root(self) -> int:
        """Row of the pelvis."""
        return self.config.skeleton.joints.index("pelvis")

    @abstractmethod
    def estimate(self, keypoints: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What training compares to ``pose`` (B, F, J, 3): the regressed pose, or the denoised one at random times."""

    def loss(self, keypoints: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The minimised ``loss`` and its parts, scalars. The pose is relative to the root, which is zero."""
        return self.losses(self.estimate(keypoints, pose, generator), pose)

    @abstractmethod
    def predict(
        self,
        keypoints: Tensor,
        hypotheses: int = 1,
        steps: int = 1,
        noise: Noise | None = None,
        max_batch: int = 256,
        progress: Progress | None = None,
    ) -> Tensor:
        """(B, K, H, F, J, 3): the poses after each of the K steps, root at zero.

        Args:
            keypoints: (B, F, J, 2) in screen units.
            hypotheses, steps: H, K; a method that has no use for them takes its own.
            noise: of the B windows; None takes seed 0.
            max_batch: sequences that the network sees at once; bounds the memory, changes no result but for rounding.
            progress: told (done, total) sequences.
        """


class Regressor(LiftingModel):
    """MixSTE: one pose, at once. H = K = 1 whatever is asked for."""

    def __init__(self, config: LiftingConfig) -> None:
        super().__init__(config)
        n = config.network
        self.network = MixSTE(n.frames, len(config.skeleton.joints), 2, n.channels, n.depth, n.heads, n.drop_path)

    def estimate(self, keypoints: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.network(keypoints)

    @torch.no_grad()
    def predict(
        self,
        keypoints: Tensor,
        hypotheses: int = 1,
        steps: int = 1,
        noise: Noise | None = None,
        max_batch: int = 256,
        progress: Progress | None = None,
    ) -> Tensor:
        poses, rows = [], max(1, max_batch // (1 + self.config.flip))
        for some in keypoints.split(rows):
            pose = self.network(some)
            if self.config.flip:
                layout = self.config.skeleton
                pose = (pose + flip(self.network(flip(some, layout)), layout)) / 2
            poses.append(pose)
            if progress:
                progress(sum(map(len, poses)), len(keypoints))
        return _rooted(torch.cat(poses), self.root)[:, None, None]


class Diffusion(LiftingModel):
    """D3DP: the pose itself is diffused; DDHPose: its bones are, all with one time a window, and the denoiser estimates the clean pose.

    Sources: Shan et al. (ICCV 2023, arXiv 2303.11579); Cai et al. (AAAI 2024, arXiv 2403.04444).
    """

    def __init__(self, config: LiftingConfig) -> None:
        super().__init__(config)
        n, d, layout = config.network, config.diffusion, config.skeleton
        self.disentangled = config.method == "ddhpose"
        if self.disentangled:
            network: nn.Module = HierarchicalDenoiser(layout, n.frames, n.channels, n.depth, n.heads, n.drop_path, config.compat)
        else:
            network = MixSTE(n.frames, len(layout.joints), 5, n.channels, n.depth, n.heads, n.drop_path, timed=True)
        self.network = network
        with torch.device("cpu"):  # its tables are real even where weights are made as shapes only
            self.schedule = DiscreteSchedule.cosine(d.timesteps)

    def state(self, pose: Tensor) -> Tensor:
        """What is diffused: the pose (..., J, 3), or its bones (..., J, 4)."""
        state = bones(pose, self.config.skeleton.parents) if self.disentangled else pose
        return self.config.diffusion.scale * state

    def estimate(self, keypoints: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> Tensor:
        state = self.state(pose)
        t = draw_times(self.schedule, len(pose), generator=generator, device=pose.device)
        return self._denoise(self.schedule.perturb(state, t, gaussian_like(state, generator)), t, keypoints)

    def forward(
        self, state: Tensor, t: Tensor, keypoints: Tensor, record: Callable[[Tensor], object] | None = None, mirrored: bool = False
    ) -> Tensor:
        """The clean state, as :class:`Denoiser` asks for it; ``record`` is handed the pose it stands for."""
        if mirrored:
            both = self._denoise(torch.cat((state, self._flipped(state))), t.repeat(2), torch.cat((keypoints, self._flipped(keypoints))))
            straight, flipped = both.chunk(2)
            pose = (straight + self._flipped(flipped)) / 2
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

    def _flipped(self, points: Tensor) -> Tensor:
        return flip(points, self.config.skeleton)

    @torch.no_grad()
    def predict(
        self,
        keypoints: Tensor,
        hypotheses: int = 1,
        steps: int = 1,
        noise: Noise | None = None,
        max_batch: int = 256,
        progress: Progress | None = None,
    ) -> Tensor:
        noise = Noise.of(0, "", range(len(keypoints))) if noise is None else noise
        pairs = [(window, hypothesis) for window in range(len(keypoints)) for hypothesis in range(hypotheses)]
        rows, poses = max(1, max_batch // (1 + self.config.flip)), []
        for i in range(0, len(pairs), rows):
            some = pairs[i : i + rows]
            poses.append(self._sampled(keypoints[[window for window, _ in some]], steps, noise.streams(some)))
            if progress:
                progress(i + len(some), len(pairs))
        merged = torch.cat(poses).unflatten(0, (len(keypoints), hypotheses)).transpose(1, 2)
        return _rooted(merged, self.root)

    def _sampled(self, keypoints: Tensor, steps: int, streams: NoiseStreams) -> Tensor:
        """DDIM with η = 1 from pure noise: (rows, F, J, 2) → (rows, K, F, J, 3)."""
        start = streams(keypoints.new_empty(*keypoints.shape[:-1], 4 if self.disentangled else 3))
        poses: list[Tensor] = []
        sample(
            Denoiser(self, self.schedule, predicts="clean"),
            start,
            sampler="ddim",
            times=sampling_times(self.config.diffusion.timesteps, steps),
            eta=1.0,
            noise=streams,
            constrain=self._root_kept(start) if self.disentangled and self.config.compat else None,
            keypoints=keypoints,
            record=poses.append,
            mirrored=self.config.flip,
        )
        return torch.stack(poses, 1)

    def _root_kept(self, start: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Published: no step touches the root's slot, which holds no bone; so its noise does not fade as it did in training."""
        slot = (torch.arange(start.shape[-2]) == self.root).to(start.device)[:, None]
        return lambda state, t: torch.where(slot, start, state)


def sampling_times(timesteps: int, steps: int) -> Tensor:
    """(K + 1,) from T − 1 down to −1, clean data: evenly spaced, cut to whole steps (D3DP, arXiv 2303.11579)."""
    return torch.linspace(-1, timesteps - 1, steps + 1, dtype=torch.float64).trunc().flip(0)


def _rooted(poses: Tensor, root: int) -> Tensor:
    """With the root at exactly zero, wherever the network put it; the other joints stay."""
    poses[..., root, :] = 0
    return poses


def build_model(config: LiftingConfig) -> LiftingModel:
    """The method that ``config`` names, with random weights from torch's generator."""
    return Regressor(config) if config.method == "mixste" else Diffusion(config)


def sizes(model: nn.Module) -> dict[str, Any]:
    """Names and shapes of the weights, for comparison with those of a file."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
