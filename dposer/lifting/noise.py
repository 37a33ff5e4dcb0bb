"""Noise that belongs to a window and a hypothesis, so that no result depends on what is computed together."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dposer.randomness import keyed_generator


@dataclass(frozen=True)
class Noise:
    """The streams of B windows.

    Args:
        keys: one a window; those that differ give independent streams.
    """

    keys: tuple[str, ...]

    @classmethod
    def of(cls, seed: int, clip: str, starts: Sequence[int] | Tensor) -> "Noise":
        """For windows of a clip, by their first frames."""
        return cls(tuple(repr((seed, clip, int(start))) for start in starts))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice) -> "Noise":
        return Noise(self.keys[rows])

    def streams(self, pairs: Sequence[tuple[int, int]]) -> "NoiseStreams":
        """Of (window, hypothesis) pairs."""
        return NoiseStreams([(self.keys[window], hypothesis) for window, hypothesis in pairs])


@dataclass
class NoiseStreams:
    """One a row of the arrays it is asked to fill.

    Args:
        keys: of a row: those that differ give independent streams.
    """

    keys: list[tuple[str, int]]

    def shared(self) -> "NoiseStreams":
        """Streams that all hypotheses of a window have in common."""
        return NoiseStreams([(key, -1) for key, _ in self.keys])

    @cached_property
    def generators(self) -> list[torch.Generator]:
        """Made when first asked for: deterministic methods never do."""
        return [keyed_generator("cpu", *key) for key in self.keys]

    def __call__(self, like: Tensor) -> Tensor:
        """z ~ N(0, I) like (rows, ...), drawn on the CPU: the same on every device."""
        return torch.stack([torch.randn(like.shape[1:], generator=generator) for generator in self.generators]).to(like)
