"""Which diffusion time the prior is asked at, step by step of an optimisation: random, fixed or truncated annealing.

Source: DPoser (arXiv 2312.05541), section 3.3 and eq. 11; ranges of its releases and of DPoser-X (arXiv 2508.00599).
"""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dposer.errors import InputError

Strategy = Literal["1", "2", "3"]

_T_MIN = 1e-3
"""The smallest time that is ever drawn."""


@dataclass(frozen=True)
class TimeStrategy(ABC):
    """'1' random, '2' fixed, '3' truncated annealing: the names used on command lines."""

    strategy: Strategy = dataclasses.field(default="3", kw_only=True)

    def times(self, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """The time of every step: (steps,) float64 on the CPU.

        Raises:
            InputError: unknown strategy or no steps.
        """
        if self.strategy not in ("1", "2", "3"):
            raise InputError(f"time strategy {self.strategy!r}, expected '1' (random), '2' (fixed) or '3' (truncated annealing)")
        if steps < 1:
            raise InputError(f"steps = {steps}, expected at least 1")
        if self.strategy == "1":
            device = None if generator is None else generator.device
            return self._random(torch.rand(steps, generator=generator, device=device, dtype=torch.float64).cpu())
        if self.strategy == "2":
            return self._fixed().expand(steps).clone()
        return self._annealed(steps)

    @abstractmethod
    def _random(self, uniform: Tensor) -> Tensor: ...

    @abstractmethod
    def _fixed(self) -> Tensor: ...

    @abstractmethod
    def _annealed(self, steps: int) -> Tensor: ...


@dataclass(frozen=True)
class GridTimes(TimeStrategy):
    """Entries of the grid linspace(1, 0.001, N), as in the first release.

    Annealing takes entry N − ⌊(S − 1 − k) N / (truncation S)⌋ − offset at step k of S.
    """

    levels: int
    truncation: int
    offset: int
    fixed_index: int

    @property
    def grid(self) -> Tensor:
        return torch.linspace(1, _T_MIN, self.levels, dtype=torch.float64)

    def _random(self, uniform: Tensor) -> Tensor:
        return self.grid[(uniform * self.levels).long()]

    def _fixed(self) -> Tensor:
        return self.grid[self.fixed_index]

    def _annealed(self, steps: int) -> Tensor:
        remaining = torch.arange(steps - 1, -1, -1)
        return self.grid[self.levels - remaining * self.levels // (self.truncation * steps) - self.offset]


@dataclass(frozen=True)
class LinearTimes(TimeStrategy):
    """From t_max down to t_min, as in the later releases: t_min + (S − 1 − k) / S (t_max − t_min) at step k of S.

    ``inclusive`` divides by S − 1, so that the first time is t_max, as in the paper's eq. 11.
    """

    t_max: float
    t_min: float
    t_fixed: float = 0.1
    inclusive: bool = False

    def _random(self, uniform: Tensor) -> Tensor:
        return _T_MIN + (1 - _T_MIN) * uniform

    def _fixed(self) -> Tensor:
        return torch.tensor(self.t_fixed, dtype=torch.float64)

    def _annealed(self, steps: int) -> Tensor:
        remaining = torch.arange(steps - 1, -1, -1, dtype=torch.float64)
        return self.t_min + remaining / (max(steps - 1, 1) if self.inclusive else steps) * (self.t_max - self.t_min)


def _paper(t_max: float, t_min: float) -> LinearTimes:
    return LinearTimes(t_max, t_min, inclusive=True)


_V2 = {
    "completion": LinearTimes(0.3, 0.05),
    "denoise20": LinearTimes(0.2, 0.05),
    "denoise40": LinearTimes(0.25, 0.05),
    "denoise100": LinearTimes(0.15, 0.05),
    "fitting": LinearTimes(0.12, 0.08),
    "partial_legs": LinearTimes(0.2, 0.01, t_fixed=0.05),
    "partial": LinearTimes(0.3, 0.01, t_fixed=0.05),
}

PRESETS: dict[str, dict[str, TimeStrategy]] = {
    "v1": {
        "completion": GridTimes(1000, 5, 2, 900),
        "denoise20": GridTimes(500, 10, 2, 495),
        "denoise40": GridTimes(500, 4, 2, 490),
        "denoise100": GridTimes(500, 3, 2, 480),
        "fitting": GridTimes(500, 20, 5, 450),
    },
    "v2": {**_V2},
    "x": {**_V2, "completion": LinearTimes(0.15, 0.05), "denoise100": LinearTimes(0.25, 0.1)},
    "paper": {
        "completion": _paper(0.15, 0.05),
        "denoise20": _paper(0.2, 0.05),
        "denoise40": _paper(0.2, 0.05),
        "denoise100": _paper(0.2, 0.1),
        "fitting": _paper(0.12, 0.08),
    },
}
"""Release → task → times. Releases: "v1", "v2", "x" (DPoser-X) and "paper"."""


def preset(release: str, task: str, strategy: Strategy = "3") -> TimeStrategy:
    """The times of a release for a task.

    Raises:
        InputError: no such release or task.
    """
    if release not in PRESETS:
        raise InputError(f"release {release!r}, expected one of {', '.join(PRESETS)}")
    if task not in PRESETS[release]:
        raise InputError(f"task {task!r} has no times in release {release!r}, expected one of {', '.join(PRESETS[release])}")
    return dataclasses.replace(PRESETS[release][task], strategy=strategy)
