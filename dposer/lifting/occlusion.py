"""What cameras, detectors and obstacles do to keypoints, put on by hand: noise and missing joints, to see what a lifter makes of them.

A pattern says which keypoints of a window of F frames are hidden, ρ being its share:

=========  =======================================================================  ====================================
random     each by itself with probability ρ                                        all joints
arm_leg    ⌊ρF⌋ frames, anywhere                                                    left arm and right leg
joints     ⌊ρF⌋ frames in a row, each place alike                                   right leg
frames     ⌊ρF⌋ frames in a row, each place alike                                   all joints
mixed      for each window one of these with ρ = 0.2, 0.4, 0.4, 0.2, or nothing,    as above
           each as likely
=========  =======================================================================  ====================================

and ``noise`` adds white noise. Source: DiffHPE (Rommel et al., ICCV 2023 workshops, arXiv 2309.01575).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dposer.body.skeleton import Layout
from dposer.data.gmm import COLUMNS
from dposer.data.heatmap_mixtures import hidden_heatmaps
from dposer.errors import InputError
from dposer.lifting.config import LiftingConfig, OcclusionConfig
from dposer.lifting.hypotheses import bridged, limbs
from dposer.lifting.observed import hidden_mixture

Generators = torch.Generator | Sequence[torch.Generator]
"""One for the whole batch, or one for each window, so that its draws are its own."""

_HIDES = {"random": "", "arm_leg": "left_arm,right_leg", "joints": "right_leg", "frames": ""}
_MIXED = {"random": 0.2, "arm_leg": 0.4, "joints": 0.4, "frames": 0.2}
_PIXEL = 2 / 1000
"""In screen units, of a picture 1000 pixels wide."""


# ---- windows, as networks see them ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disturbance:
    """What happens to the keypoints of B windows."""

    hidden: Tensor
    """(B, F, J) bool."""
    shift: Tensor
    """(B, F, J, 2) screen units."""

    def of(self, observed: Tensor, config: LiftingConfig) -> Tensor:
        """(B, F, J, I) → the same, with hidden keypoints as ``config.hidden`` and ``config.inputs`` say.

        What was missing before stays where it is, unless the joint is now hidden in other frames of the window: then nothing may be told
        by what was filled in from there.
        """
        if not (self.hidden.any() or self.shift.any()):
            return observed
        hidden, shift = self.hidden.to(observed.device), self.shift.to(observed)
        if config.inputs == "heatmap":
            if bool(shift.any()):
                raise InputError("occlusion pattern noise: heatmaps cannot be shifted, expected patterns that hide keypoints")
            return hidden_heatmaps(observed, hidden, config.skeleton)
        if config.inputs == "mixture":
            moved = observed.unflatten(-1, (-1, COLUMNS)) + functional.pad(shift, (1, COLUMNS - 3))[..., None, :]
            return hidden_mixture(moved.flatten(-2), hidden, config.skeleton, zero=config.hidden == "zero")
        before = _seen(observed, config)
        seen = before & ~hidden
        points = observed[..., :2] + shift * before[..., None]
        if config.hidden == "zero":
            points = points * seen[..., None]
        else:
            anew = hidden.any(1, keepdim=True) & ~seen
            points = torch.where(anew[..., None], filled(points, seen, config.skeleton), points)
        return torch.cat((points, observed[..., 2:] * seen[..., None]), -1)


class Occlusion:
    """The patterns of some settings, one after another.

    Args:
        config: which.
        layout: of the keypoints.

    Raises:
        InputError: ``config.limbs`` names what the layout does not have.
    """

    def __init__(self, config: OcclusionConfig, layout: Layout) -> None:
        self.parts = config.parts()
        self._joints = len(layout.joints)
        self._rows = {name: named_joints(config.limbs or joints, layout) for name, joints in _HIDES.items()}

    def __bool__(self) -> bool:
        """Whether anything happens."""
        return bool(self.parts)

    def masks(self, count: int, frames: int, generators: Generators) -> Tensor:
        """(B, F, J) bool: what is hidden in B = ``count`` windows."""
        hidden = torch.zeros(count, frames, self._joints, dtype=torch.bool)
        for name, share in self.parts:
            if name != "noise":
                hidden |= self._mask(name, share, _Draws.of(count, frames, self._joints, generators))
        return hidden

    def draw(self, count: int, frames: int, generators: Generators, compat: bool = False) -> Disturbance:
        """What happens to B = ``count`` windows; ``compat``: sigma is in screen units, as published."""
        hidden = self.masks(count, frames, generators)
        shift = torch.zeros(*hidden.shape, 2)
        for name, sigma in self.parts:
            if name == "noise":
                shift += sigma * (1 if compat else _PIXEL) * _drawn(torch.randn, count, shift.shape[1:], generators)
        return Disturbance(hidden, shift)

    def apply(self, observed: Tensor, config: LiftingConfig, generators: Generators) -> Tensor:
        """What a network of ``config`` observes then: (B, F, J, I) to the same, see :meth:`Disturbance.of`."""
        count, frames = observed.shape[:2]
        return self.draw(count, frames, generators, config.compat).of(observed, config)

    def _mask(self, name: str, share: float, draws: "_Draws") -> Tensor:
        if name == "mixed":
            masks = [self._mask(one, rho, draws) for one, rho in _MIXED.items()]
            choices = torch.stack([torch.zeros_like(masks[0]), *masks])
            return choices[_whole(draws.choice, len(choices)), torch.arange(len(masks[0]))]
        hides, frames = self._rows[name], draws.order.shape[1]
        if name == "random":
            return (draws.cells < share) & hides
        many = int(share * frames + 1e-6)
        if name == "arm_leg":
            when = draws.order.argsort(1).argsort(1) < many
        else:
            since = torch.arange(frames) - _whole(draws.start, frames - many + 1)[:, None]
            when = (since >= 0) & (since < many)
        return when[..., None] & hides


@dataclass(frozen=True)
class _Draws:
    """Uniform in [0, 1), as much as any pattern needs of B windows."""

    choice: Tensor
    """(B,)."""
    start: Tensor
    """(B,)."""
    order: Tensor
    """(B, F)."""
    cells: Tensor
    """(B, F, J)."""

    @classmethod
    def of(cls, count: int, frames: int, joints: int, generators: Generators) -> "_Draws":
        all_of_them = _drawn(torch.rand, count, (2 + frames * (1 + joints),), generators)
        both, order, cells = all_of_them.split((2, frames, frames * joints), 1)
        return cls(both[:, 0], both[:, 1], order, cells.unflatten(1, (frames, joints)))


def _drawn(how: Callable[..., Tensor], count: int, shape: Sequence[int], generators: Generators) -> Tensor:
    """(B, ...)."""
    if isinstance(generators, torch.Generator):
        return how(count, *shape, generator=generators)
    return torch.stack([how(*shape, generator=generator) for generator in generators])


def _whole(uniform: Tensor, count: int) -> Tensor:
    """0 .. count − 1, each as likely; the bound is for float32, which may round u · count up to count."""
    return (uniform * count).long().clamp(max=count - 1)


def named_joints(names: str, layout: Layout) -> Tensor:
    """(J,) bool of a comma list of limbs (left_arm, right_arm, left_leg, right_leg, trunk) and joints; empty: all.

    Raises:
        InputError: another name.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    of = limbs(layout)
    for name in wanted:
        if name not in (*of, *layout.joints):
            raise InputError(f"{name!r}: no limb or joint of {layout.name}, expected {', '.join(dict.fromkeys((*of, *layout.joints)))}")
    return torch.tensor([not wanted or joint in wanted or limb in wanted for joint, limb in zip(layout.joints, of, strict=True)])


def _seen(observed: Tensor, config: LiftingConfig) -> Tensor:
    """(B, F, J) bool, as far as what is observed tells."""
    if config.inputs == "visible":
        return observed[..., 2] > 0
    return (observed[..., :2] != 0).any(-1) if config.hidden == "zero" else torch.ones_like(observed[..., 0], dtype=torch.bool)


def filled(points: Tensor, seen: Tensor, layout: Layout) -> Tensor:
    """Hidden points laid on the line in time between the seen ones around them, held at the ends: (B, F, J, 2), (B, F, J) → (B, F, J, 2).

    A joint that a window never sees takes the place of its nearest ancestor that is seen, or else of what is nearest in the skeleton; all
    are zero where nothing is seen at all.
    """
    in_time = bridged(points.transpose(1, 2), seen.transpose(1, 2), 0.0)
    far = torch.where(seen.any(1)[:, None], _distances(layout).to(points), torch.inf)
    return torch.take_along_dim(in_time, far.argmin(-1)[..., None, None], 1).transpose(1, 2)


def _distances(layout: Layout) -> Tensor:
    """(J, J) bones on the way from a joint to another; what is no ancestor is farther than all ancestors."""
    parents = layout.parents
    ways = []
    for joint in range(len(parents)):
        way = [joint]
        while parents[way[-1]] >= 0:
            way.append(parents[way[-1]])
        ways.append(way)
    steps = torch.zeros(len(ways), len(ways))
    for a, up in enumerate(ways):
        for b, down in enumerate(ways):
            shared = len(set(up) & set(down))
            steps[a, b] = len(up) + len(down) - 2 * shared + (0 if b in up else len(ways))
    return steps


# ---- clips, as detectors give them ----------------------------------------------------------------------------------------


def jittered(keypoints: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """x + σ z, white: (F, J, 3) pixels and confidence to the same; the confidence stays."""
    noise = torch.randn(*keypoints.shape[:-1], 2, generator=generator)
    return keypoints + functional.pad(sigma * noise, (0, 1))


def hidden(keypoints: Tensor, share: float, generator: torch.Generator, run: float = 10.0) -> Tensor:
    """Each joint comes and goes: missing (confidence 0) for ``share`` of the frames, in runs of ``run`` frames on average.

    A two-state Markov chain: a joint that is missing comes back with probability 1 / run, one that is seen leaves with that probability
    times share / (1 − share), and the first frame is drawn from its stationary distribution.

    Args:
        keypoints: (F, J, 3) pixels and confidence.
        share: in [0, 1).
    """
    frames, joints = keypoints.shape[:2]
    back = 1 / run
    away = min(1.0, back * share / (1 - share))
    uniform = torch.rand(frames, joints, generator=generator)
    missing = [uniform[0] < share]
    for drawn in uniform[1:]:
        missing.append(torch.where(missing[-1], drawn >= back, drawn < away))
    return torch.where(torch.stack(missing)[..., None], keypoints * torch.tensor([1.0, 1.0, 0.0]), keypoints)
