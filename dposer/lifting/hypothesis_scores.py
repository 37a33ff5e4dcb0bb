"""Figures of hypotheses, gathered frame by frame and kept as sums over the frames of a clip, a group and a kind.

Every figure is made of means over frames, so that groups, all frames and bootstrap draws of clips all come from the same sums, and the
memory does not grow with the frames of a clip.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dposer.data.hypothesis_dumps import ScoredFrames
from dposer.errors import InputError
from dposer.lifting.report import Difference
from dposer.metrics.hypotheses import (
    LEVELS,
    aligned,
    calibration_error,
    centrality,
    correct_poses,
    correct_shares,
    covered,
    crps,
    deviations,
    energy_scores,
    expected_minimum,
    hypothesis_errors,
    over_hypotheses,
    rescaled,
)
from dposer.metrics.poses import asymmetry, bone_lengths, mpjpe, pa_mpjpe

FIGURES = {
    **{f"{error} {of}": "mm" for error in ("MPJPE", "PA-MPJPE") for of in ("best", "mean", "median", "worst", "mean pose", "z0")},
    "P1-SC best": "mm", "P1-SC z0": "mm", "PCK": "%", "PCK-SC": "%", "CPS": "",
    "ECE": "", "kappa": "", "coverage 50": "%", "coverage 90": "%",
    "energy": "mm", "joint energy": "mm", "CRPS": "mm",
    "std x": "mm", "std y": "mm", "std z": "mm", "spread": "mm", "symmetry": "mm", "symmetry z0": "mm",
}  # fmt: skip
"""Units. MPJPE best and PA-MPJPE best choose a hypothesis for each frame, by their own error; mean is that of the hypotheses' errors, mean
pose the error of their mean, z0 that of the central pose, where a method has one. P1-SC and PCK-SC are of hypotheses as large as the
truth; PCK counts 14 joints at 150 mm; CPS is the area below 300 mm, all joints but the spine. ECE and kappa are medians over joints,
coverage is the mean over joints, of :func:`dposer.metrics.hypotheses.centrality`, without the root. energy is that of whole poses as
points of 3 J dimensions. spread is the root of the mean square distance from the mean pose; symmetry the difference of left and right.
Calibrated hypotheses have an ECE of about 0.3 / √F of F independent frames."""

BEST_OF = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""n of the best-of-n curves, as far as there are hypotheses."""
PARTS = ("all", "ambiguous", "clear")
"""Which frames."""
_AT_ONCE = 64 * 200 * 17
"""Joints."""
_SIDES = (("hip", "knee"), ("knee", "ankle"), ("neck", "shoulder"), ("shoulder", "elbow"), ("elbow", "wrist"))
_LIMBS = {"hip", "knee", "ankle", "shoulder", "elbow", "wrist"}

Means = dict[str, Tensor]
"""Means over frames by name; leading axes are those of bootstrap draws."""


@dataclass(frozen=True)
class JointSets:
    """Which joints figures are over, by their names in any layout."""

    root: int
    moving: list[int]
    """All but the root."""
    pck: list[int]
    """Limbs, neck and head top."""
    cps: list[int]
    """All but the spine."""
    edges: list[tuple[int, int]]
    """(parent, child), left then right of each of ``_SIDES``."""
    pairs: list[tuple[int, int]]

    @classmethod
    def of(cls, joints: Sequence[str]) -> "JointSets":
        """Raises :class:`InputError` for joints without a pelvis, a neck and limbs."""
        rows = {name: row for row, name in enumerate(joints)}

        def bone(side: str, parent: str, child: str) -> tuple[int, int]:
            return rows["neck" if parent == "neck" else f"{side}_{parent}"], rows[f"{side}_{child}"]

        try:
            edges = [bone(side, *ends) for ends in _SIDES for side in ("left", "right")]
            root = rows["pelvis"]
        except KeyError as error:
            raise InputError(f"joints: no {error.args[0]} among {', '.join(joints)}, expected a pelvis, a neck and limbs") from error
        return cls(
            root=root,
            moving=[row for row in range(len(joints)) if row != root],
            pck=[row for name, row in rows.items() if name.split("_", 1)[-1] in _LIMBS or name in ("neck", "head_top")],
            cps=[row for name, row in rows.items() if not name.startswith("spine")],
            edges=edges,
            pairs=[(bone, bone + 1) for bone in range(0, len(edges), 2)],
        )

    def asymmetry(self, poses: Tensor) -> Tensor:
        """Mean difference of left and right bones: (..., J, 3) → (...)."""
        return asymmetry(bone_lengths(poses, self.edges), self.pairs).mean(-1)


def frame_figures(frames: ScoredFrames, sets: JointSets, counts: Sequence[int]) -> Means:
    """All that is averaged, each (F, ...), in metres and shares; counts are the n of best-of-n."""
    h, truth, z0 = frames.hypotheses, frames.truth, frames.central
    laid, scaled, mean = aligned(h, truth), rescaled(h, truth, sets.root), h.mean(-3)
    p1, p2 = hypothesis_errors(h, truth), hypothesis_errors(laid, truth)
    energy, std, within = energy_scores(h, truth), deviations(h), centrality(h, truth)
    figures = {
        **_named("MPJPE", p1),
        "MPJPE mean pose": mpjpe(mean, truth),
        **_named("PA-MPJPE", p2),
        "PA-MPJPE mean pose": pa_mpjpe(mean, truth),
        "P1-SC best": hypothesis_errors(scaled, truth).amin(-1),
        "PCK": correct_shares(h, truth, sets.pck).amax(-1),
        "PCK-SC": correct_shares(scaled, truth, sets.pck).amax(-1),
        "CPS": correct_poses(laid, truth, sets.cps).amax(-1),
        "energy": energy.pose,
        "joint energy": energy.joints[:, sets.moving].mean(-1),
        "CRPS": crps(h, truth)[:, sets.moving].mean((-2, -1)),
        "spread": spread(h).mean(-1),
        "symmetry": sets.asymmetry(h).mean(-1),
        "std": std,
        "within": within,
        "omega": covered(within),
        "energy of joints": energy.joints,
        "MPJPE of n": expected_minimum(p1, counts),
        "PA-MPJPE of n": expected_minimum(p2, counts),
    }
    if z0 is not None:
        figures |= {
            "MPJPE z0": mpjpe(z0, truth),
            "PA-MPJPE z0": pa_mpjpe(z0, truth),
            "P1-SC z0": hypothesis_errors(rescaled(z0[:, None], truth, sets.root), truth)[:, 0],
            "symmetry z0": sets.asymmetry(z0),
        }
    return figures


def _named(error: str, errors: Tensor) -> Means:
    return {f"{error} {of}": value for of, value in over_hypotheses(errors)._asdict().items()}


def spread(h: Tensor) -> Tensor:
    """Root mean square distance from the mean of each joint, (..., N, J, 3) → (..., J)."""
    return h.var(-3, correction=0).sum(-1).sqrt()


def report_figures(means: Means, sets: JointSets) -> dict[str, Tensor]:
    """Those of :data:`FIGURES` that there are, in its units, each (...)."""
    curve, moving = means["omega"][..., sets.moving, :], sets.moving
    std = means["std"][..., moving, :].mean(-2)
    made = {
        "ECE": calibration_error(curve).quantile(0.5, -1),
        "kappa": 1 - means["within"][..., moving].quantile(0.5, -1),
        **{f"coverage {100 * level:.0f}": curve[..., LEVELS.index(level)].mean(-1) for level in (0.5, 0.9)},
        **{f"std {axis}": std[..., number] for number, axis in enumerate("xyz")},
    }
    found = means | made
    return {name: found[name] * {"mm": 1000, "%": 100, "": 1}[unit] for name, unit in FIGURES.items() if name in found}


def plain(figures: Mapping[str, Tensor]) -> dict[str, float]:
    """Scalars as numbers."""
    return {name: float(value) for name, value in figures.items()}


def joint_figures(means: Means) -> dict[str, Tensor]:
    """ECE, kappa, coverage in %, and in mm the energy and the deviations of each joint, (J,)."""
    return {
        "ECE": calibration_error(means["omega"]),
        "kappa": 1 - means["within"],
        **{f"coverage {100 * level:.0f} %": 100 * means["omega"][:, LEVELS.index(level)] for level in (0.5, 0.9)},
        "energy mm": 1000 * means["energy of joints"],
        **{f"std {axis} mm": 1000 * means["std"][:, number] for number, axis in enumerate("xyz")},
    }


# ---- sums --------------------------------------------------------------------------------------------------------------


class Cell(NamedTuple):
    """Whose frames are summed together."""

    clip: str
    group: str
    hard: bool


class UncertainFrame(NamedTuple):
    """A frame whose hypotheses are far apart."""

    spread: float
    """mm, mean over joints."""
    clip: str
    frame: int
    joint: str
    """The one of the largest spread."""
    best: float
    """MPJPE of the best hypothesis, mm."""


class HypothesisScores:
    """Sums of figures over the frames of each :class:`Cell`.

    Args:
        joints: names.
        hypotheses: of every frame.
        uncertain: so many of the frames whose hypotheses are farthest apart are remembered.
        device: where figures are worked out.
    """

    def __init__(self, joints: Sequence[str], hypotheses: int, uncertain: int = 0, device: torch.device | str = "cpu") -> None:
        self.joints, self.hypotheses, self.device = tuple(joints), hypotheses, device
        self.sets = JointSets.of(joints)
        self.counts = sorted({*(n for n in BEST_OF if n < hypotheses), hypotheses})
        self.sums: dict[Cell, Means] = {}
        self.frames: dict[Cell, int] = {}
        self.farthest: dict[Cell, float] = {}
        """Metres: the largest of the frames' MPJPE best."""
        self.uncertain: list[UncertainFrame] = []
        self._remembered = uncertain

    @classmethod
    def of(
        cls, frames: Iterable[ScoredFrames], joints: Sequence[str], uncertain: int = 0, device: torch.device | str = "cpu"
    ) -> "HypothesisScores":
        """Of all frames.

        Raises:
            InputError: none, or with different numbers of hypotheses or other joints than there are names.
        """
        scores: HypothesisScores | None = None
        for some in frames:
            scores = scores or cls(joints, some.hypotheses.shape[1], uncertain, device)
            scores.add(some)
        if scores is None or not scores.sums:
            raise InputError("frames: found none, expected some; check the subjects, --every and --hard-only")
        return scores

    def add(self, frames: ScoredFrames) -> None:
        """Count in some frames.

        Raises:
            InputError: they have another number of hypotheses or joints.
        """
        wanted = (self.hypotheses, len(self.joints))
        if frames.hypotheses.shape[1:3] != wanted:
            raise InputError(f"hypotheses of shape {tuple(frames.hypotheses.shape)}, expected (frames, {wanted[0]}, {wanted[1]}, 3)")
        for some in frames.chunks(max(1, _AT_ONCE // (self.hypotheses * len(self.joints)))):
            self._add(some)

    def _add(self, frames: ScoredFrames) -> None:
        figures = frame_figures(frames.to(self.device), self.sets, self.counts)
        figures = {name: value.double().cpu() for name, value in figures.items()}
        cells = [Cell(str(clip), str(group), bool(hard)) for clip, group, hard in zip(frames.clips, frames.group, frames.hard, strict=True)]
        for cell in dict.fromkeys(cells):
            mine = torch.tensor([other == cell for other in cells])
            sums = {name: value[mine].sum(0) for name, value in figures.items()}
            before = self.sums.get(cell, {})
            self.sums[cell] = {name: before.get(name, 0) + value for name, value in sums.items()}
            self.frames[cell] = self.frames.get(cell, 0) + int(mine.sum())
            self.farthest[cell] = max(self.farthest.get(cell, 0.0), float(figures["MPJPE best"][mine].max()))
        if self._remembered:
            self._remember(frames, figures)

    def _remember(self, frames: ScoredFrames, figures: Means) -> None:
        widest = spread(frames.hypotheses).argmax(-1)
        found = [
            UncertainFrame(1000 * float(figures["spread"][i]), str(frames.clips[i]), int(frames.numbers[i]), self.joints[int(widest[i])],
                           1000 * float(figures["MPJPE best"][i]))
            for i in figures["spread"].topk(min(self._remembered, len(frames))).indices.tolist()
        ]  # fmt: skip
        self.uncertain = heapq.nlargest(self._remembered, [*self.uncertain, *found])

    # ---- what they say

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(cell.group for cell in self.sums))

    @property
    def parts(self) -> list[str]:
        """Of :data:`PARTS` those that tell something."""
        kinds = {cell.hard for cell in self.sums}
        return [*PARTS[:1], *PARTS[1:2] * (True in kinds), *PARTS[2:] * (len(kinds) == 2)]

    def cells(self, part: str = "all", group: str | None = None) -> list[Cell]:
        """Of a part and a group (None: all)."""
        hard = {"all": (True, False), "ambiguous": (True,), "clear": (False,)}[part]
        return [cell for cell in self.sums if cell.hard in hard and group in (None, cell.group)]

    def means(self, cells: Sequence[Cell]) -> Means:
        """Over all frames of some cells."""
        count = sum(self.frames[cell] for cell in cells)
        return {name: torch.stack([self.sums[cell][name] for cell in cells]).sum(0) / count for name in self.sums[cells[0]]}

    def figures(self, cells: Sequence[Cell]) -> dict[str, float]:
        """:data:`FIGURES` of all frames of some cells."""
        return plain(report_figures(self.means(cells), self.sets))

    def drawn(self, cells: Sequence[Cell], seed: int = 0, draws: int = 1000) -> dict[str, Tensor]:
        """Bootstrap draws (D,) of :data:`FIGURES`: as many clips as there are, with replacement; empty for a single clip.

        The same cells and seed draw the same clips, so that draws of two methods are paired.

        Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13.
        """
        clips = {clip: number for number, clip in enumerate(dict.fromkeys(cell.clip for cell in cells))}
        if len(clips) < 2:
            return {}
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(len(clips), (draws, len(clips)), generator=generator)
        times = torch.zeros(draws, len(clips), dtype=torch.float64).scatter_add_(1, chosen, torch.ones(chosen.shape, dtype=torch.float64))
        weight = times[:, [clips[cell.clip] for cell in cells]]  # (D, cells)
        count = weight @ torch.tensor([self.frames[cell] for cell in cells], dtype=torch.float64)
        means = {}
        for name, value in self.sums[cells[0]].items():
            sums = torch.stack([self.sums[cell][name].flatten() for cell in cells])
            means[name] = (weight @ sums / count[:, None]).reshape(draws, *value.shape)
        return report_figures(means, self.sets)

    def intervals(self, cells: Sequence[Cell], seed: int = 0, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """That hold ``level`` of the bootstrap draws of each figure; empty for a single clip."""
        return {name: _interval(value, level) for name, value in self.drawn(cells, seed).items()}


def _interval(draws: Tensor, level: float) -> tuple[float, float]:
    low, high = draws.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=draws.dtype)).tolist()
    return low, high


def compared(a: HypothesisScores, b: HypothesisScores, part: str = "all", seed: int = 0, level: float = 0.95) -> dict[str, Difference]:
    """Each figure of a less that of b on the same frames, and its interval; empty for a single clip.

    Raises:
        InputError: other frames.
    """
    cells = a.cells(part)
    if a.frames != b.frames:
        raise InputError("scores: of other frames, clips or groups, expected the same; compare dumps of the same frames")
    mine, theirs = a.figures(cells), b.figures(cells)
    draws, others = a.drawn(cells, seed), b.drawn(cells, seed)
    found = {}
    for name in (name for name in draws if name in others):
        gap = draws[name] - others[name]
        share = min(float((gap <= 0).double().mean()), float((gap >= 0).double().mean()))
        found[name] = Difference(mine[name] - theirs[name], *_interval(gap, level), min(1.0, 2 * share))
    return found
