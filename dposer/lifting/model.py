"""What every lifting method offers to training, evaluation and users; a method is one subclass, named in methods.py."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dposer.diffusion.schedule import DiscreteSchedule
from dposer.errors import InputError
from dposer.lifting.config import DiffusionConfig, LiftingConfig
from dposer.lifting.losses import Losses
from dposer.lifting.noise import Noise, NoiseStreams
from dposer.lifting.observed import mirrored
from dposer.lifting.windows import flip

Progress = Callable[[int, int], None]
MAX_BATCH = 64
"""Sequences that a network sees at once: fastest where its activations stay near the cores; more only needs more memory."""


class LiftingModel(nn.Module, ABC):
    """What is observed of a window (B, F, J, I) → poses relative to the root, metres before the camera.

    Observed are keypoints in screen units, with more columns where ``config.inputs`` says so (:mod:`dposer.lifting.observed`).

    Args:
        config: of the method.
    """

    draws: bool = True
    """Hypotheses differ; False: there is one, whatever is asked for."""
    quick: int = 1
    """Steps that give a fair impression."""
    usual: int = 1
    """Steps that serve well."""
    light: int = 1
    """How many of its windows are to the network what a sequence of other methods is; ``max_batch`` counts those."""

    def __init__(self, config: LiftingConfig) -> None:
        super().__init__()
        self.config = config
        self.losses = Losses(config)

    @property
    def root(self) -> int:
        """Row of the pelvis."""
        return self.config.skeleton.joints.index("pelvis")

    def start_from(self, theirs: LiftingConfig, weights: Mapping[str, Tensor]) -> None:
        """Take over trained weights: the same method's.

        Raises:
            InputError: they are of another method or size.
        """
        mine = self.config
        if (theirs.method, theirs.layout, theirs.network) != (mine.method, mine.layout, mine.network):
            raise self.other_weights(theirs, f"give weights of {mine.method}, and their network")
        self.load_state_dict(weights)

    def other_weights(self, theirs: LiftingConfig, mend: str) -> InputError:
        """What to raise where weights to start from do not fit."""
        mine = self.config
        return InputError(
            f"the weights to start from are of {theirs.method}, {theirs.layout}, {theirs.network}; the recipe says {mine.method}, "
            f"{mine.layout}, {mine.network}; {mend}"
        )

    @abstractmethod
    def estimate(self, observed: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What training compares to ``pose`` (B, F, J, 3): the regressed pose, or the denoised one at random times."""

    def loss(self, observed: Tensor, pose: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The minimised ``loss`` and its parts, scalars. The pose is relative to the root, which is zero."""
        return self.losses(self.estimate(observed, pose, generator), pose)

    def context(self, observed: Tensor) -> Tensor:
        """(B, ...) what :meth:`lift` needs of the input; worked out once a window, whatever the number of hypotheses and steps."""
        return observed

    @abstractmethod
    def lift(self, context: Tensor, steps: int, streams: NoiseStreams) -> Tensor:
        """(rows, ...) → (rows, K, F, J, 3): the poses after each of the K steps; some methods tell the last alone, K = 1."""

    @torch.no_grad()
    def predict(
        self,
        observed: Tensor,
        hypotheses: int = 1,
        steps: int = 1,
        noise: Noise | None = None,
        max_batch: int = MAX_BATCH,
        progress: Progress | None = None,
    ) -> Tensor:
        """(B, K, H, F, J, 3): the poses after each of the K steps, root at zero.

        Args:
            observed: (B, F, J, I), see the class.
            hypotheses, steps: H, K; a method that has no use for them takes its own.
            noise: of the B windows; None takes seed 0.
            max_batch: sequences that the network sees at once, mirror images among them; bounds the memory, changes no result but for
                rounding.
            progress: told (done, total) sequences.
        """
        noise = Noise.of(0, "", range(len(observed))) if noise is None else noise
        hypotheses = hypotheses if self.draws else 1
        pairs = [(window, hypothesis) for window in range(len(observed)) for hypothesis in range(hypotheses)]
        rows, poses = max(1, self.light * max_batch // (1 + self.config.flip)), []
        context = torch.cat([self.context(some) for some in observed.split(rows)])
        for i in range(0, len(pairs), rows):
            some = pairs[i : i + rows]
            poses.append(self.lift(context[[window for window, _ in some]], steps, noise.streams(some)))
            if progress:
                progress(i + len(some), len(pairs))
        merged = torch.cat(poses).unflatten(0, (len(observed), hypotheses)).transpose(1, 2)
        merged[..., self.root, :] = 0  # wherever the network put it; the other joints stay
        return merged

    def flipped(self, points: Tensor) -> Tensor:
        """The mirrored person, see :func:`dposer.lifting.windows.flip`."""
        return flip(points, self.config.skeleton)

    def mirrored(self, observed: Tensor) -> Tensor:
        """What would be observed of the mirrored person."""
        return mirrored(observed, self.config.inputs, self.config.skeleton)


def noise_schedule(config: DiffusionConfig) -> DiscreteSchedule:
    """The process that the settings describe."""
    with torch.device("cpu"):  # its tables are real even where weights are made as shapes only
        if config.schedule == "cosine":
            return DiscreteSchedule.cosine(config.timesteps, config.beta_end)
        return getattr(DiscreteSchedule, config.schedule)(config.timesteps, config.beta_start, config.beta_end)


def sampling_times(timesteps: int, steps: int) -> Tensor:
    """(K + 1,) from T − 1 down to −1, clean data: evenly spaced, cut to whole steps (D3DP, arXiv 2303.11579)."""
    return torch.linspace(-1, timesteps - 1, steps + 1, dtype=torch.float64).trunc().flip(0)


def sizes(model: nn.Module) -> dict[str, Any]:
    """Names and shapes of the weights, for comparison with those of a file."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
