"""What hypotheses are worth: rows of figures for each group and kind of frames, as tables and as text; and two methods side by side.

Groups (actions, subjects or sequences) are averaged alike, as Human3.6M's protocol has it; ``all`` of a part are its frames alike, as for
the ambiguous frames of Human3.6M (H36MA). A report always says how many hypotheses it is of, in how many steps, by which weights and seed:
figures of the best of N are comparable at the same N alone.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from dposer.data.hypothesis_dumps import Origin, ScoredFrames
from dposer.lifting.hypothesis_frames import hypotheses_of
from dposer.lifting.hypothesis_scores import (
    FIGURES,
    Cell,
    HypothesisScores,
    UncertainFrame,
    compared,
    joint_figures,
    plain,
    report_figures,
)
from dposer.lifting.report import AVERAGE, POOLED, Table
from dposer.metrics.hypotheses import LEVELS

__all__ = ["HypothesisReport", "Origin", "Row", "ScoredFrames", "comparison", "hypotheses_of", "score_hypotheses"]

_PUBLISHED = ("z0", "best", "mean", "median", "worst")


@dataclass(frozen=True)
class Row:
    """Figures of some frames."""

    part: str
    """all, ambiguous or clear."""
    group: str
    """A group, or their mean (average), or all frames alike (all)."""
    frames: int
    clips: int
    figures: dict[str, float]
    """In the units of :data:`~dposer.lifting.hypothesis_scores.FIGURES`; of the average, made of means of the groups' means."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """95 %, over clips; of all frames alike, where there are clips enough."""
    farthest: float = float("nan")
    """mm: the largest of the frames' MPJPE best."""
    joints: dict[str, list[float]] = field(default_factory=dict)
    """Of each joint, of all frames alike."""
    curves: dict[str, list[float]] = field(default_factory=dict)
    """MPJPE, PA-MPJPE: mm, expected best of :attr:`HypothesisReport.counts`; of all frames alike."""
    omega: list[list[float]] = field(default_factory=list)
    """(J, Q) the calibration curve of each joint; of all frames alike."""


@dataclass(frozen=True)
class HypothesisReport:
    """What :func:`score_hypotheses` returns."""

    origin: Origin
    hypotheses: int
    joints: list[str]
    rows: list[Row]
    counts: list[int]
    """n of the best-of-n curves."""
    levels: list[float]
    """q of the calibration curves."""
    uncertain: list[UncertainFrame]
    notes: list[str]
    highest_only: dict[str, float] = field(default_factory=dict)
    """Figures of all frames where heatmaps were told by their highest cells alone, if asked for."""

    @classmethod
    def of(
        cls, scores: HypothesisScores, origin: Origin, seed: int = 0, highest_only: HypothesisScores | None = None
    ) -> "HypothesisReport":
        """Args: seed: of the bootstrap."""
        few = len({cell.clip for cell in scores.sums})
        notes = [f"intervals are of {few} clips"] if 1 < few < 10 else [] if few > 1 else ["a single clip: no intervals"]
        return cls(
            origin, scores.hypotheses, list(scores.joints), list(_rows(scores, seed)), scores.counts, list(LEVELS), scores.uncertain, notes,
            {} if highest_only is None else highest_only.figures(highest_only.cells()),
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{self.origin}, N = {self.hypotheses}, {self.row().frames} frames"

    def row(self, group: str = POOLED, part: str = "all") -> Row:
        """``KeyError`` if it is not there."""
        return {(row.group, row.part): row for row in self.rows}[group, part]

    @property
    def parts(self) -> list[str]:
        return list(dict.fromkeys(row.part for row in self.rows))

    # ---- forms of it

    def to_json(self) -> str:
        """Everything."""
        values = dataclasses.asdict(self) | {"uncertain": [frame._asdict() for frame in self.uncertain]}
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"

    def flat(self) -> list[dict[str, Any]]:
        """A dict of plain values for each row, with the same keys in the same order: lines of a CSV."""
        origin = dataclasses.asdict(self.origin) | {"hypotheses": self.hypotheses}
        return [
            origin
            | {"part": row.part, "group": row.group, "frames": row.frames, "clips": row.clips}
            | {f"{name} {unit}".strip(): row.figures.get(name, "") for name, unit in FIGURES.items()}
            | {f"{name} {end}": row.intervals.get(name, ("", ""))[i] for name in FIGURES for i, end in enumerate(("low", "high"))}
            for row in self.rows
        ]

    def tables(self) -> list[Table]:
        """What a reader wants first comes first."""
        pooled = [row for row in self.rows if row.group == POOLED]
        average = self.row(AVERAGE)
        header = ["figure", "unit", "mean of groups", *(f"{row.part} frames" for row in pooled)]
        lines = [
            [name, unit, figure(name, average.figures[name]), *(_with_interval(name, row) for row in pooled)]
            for name, unit in FIGURES.items()
            if name in average.figures
        ]
        tables = [Table(f"{self}", header, lines)]
        columns = [(f"{error} {row.part}", row.curves[error]) for row in pooled for error in ("MPJPE", "PA-MPJPE")]
        curves = [[str(n), *(f"{values[i]:.2f}" for _, values in columns)] for i, n in enumerate(self.counts)]
        tables.append(Table("best of n hypotheses, expected, mm", ["n", *(name for name, _ in columns)], curves))
        for part in self.parts:
            tables.append(self._by_group(part))
        for row in pooled:
            names = list(row.joints)
            each = [[joint, *(figure(name, row.joints[name][i]) for name in names)] for i, joint in enumerate(self.joints)]
            tables.append(Table(f"joints, {row.part} frames", ["joint", *names], each))
        if self.highest_only:
            spread = ["MPJPE best", "MPJPE mean", "std x", "std y", "std z", "spread"]
            both = [[name, *(figure(name, some[name]) for some in (self.row().figures, self.highest_only))] for name in spread]
            tables.append(Table("spread by candidates and noise, mm", ["figure", "both", "highest cells alone"], both))
        if self.uncertain:
            frames = [[f"{some.spread:.1f}", some.clip, str(some.frame), some.joint, f"{some.best:.1f}"] for some in self.uncertain]
            tables.append(Table("most uncertain frames", ["spread mm", "clip", "frame", "most of all", "best mm"], frames))
        return tables

    def _by_group(self, part: str) -> Table:
        rows = [row for row in self.rows if row.part == part]
        names = [name for name in ("MPJPE best", "MPJPE mean", "PA-MPJPE best", "P1-SC best", "PCK", "CPS", "ECE", "kappa", "symmetry")]
        lines = [[row.group, str(row.frames), *(figure(name, row.figures[name]) for name in names)] for row in rows]
        return Table(f"groups, {part} frames", ["group", "frames", *(f"{name} {FIGURES[name]}".strip() for name in names)], lines)

    def text_files(self) -> dict[str, str]:
        """By name, what the published code writes: figures of each group, their average, and the deviations of joints.

        ``eval_..._hardset_...`` is of the ambiguous frames by groups, ``full_eval_...`` of them alike. κ stands where published files say
        ECE, of joints but the root.
        """
        end = f"nhypo_{self.hypotheses}"
        files = {f"eval_{self.origin.method}_{end}_{self.origin.dataset}.txt": self._text("all")}
        if "ambiguous" in self.parts:
            files[f"eval_{self.origin.method}_hardset_{end}_{self.origin.dataset}.txt"] = self._text("ambiguous")
            row = self.row(part="ambiguous")
            lines = [str(self), *_published(row), f"MPJPE (hard) - best, worst frame: {row.farthest:.4f}", *self._deviations(row)]
            files[f"full_eval_{self.origin.method}_hardset_{end}.txt"] = "\n".join(lines) + "\n"
        return {name.replace("/", "-").replace(" ", "_"): text for name, text in files.items()}

    def _text(self, part: str) -> str:
        lines = [str(self)]
        for row in (row for row in self.rows if row.part == part and row.group != POOLED):
            lines += [f"----{'Average' if row.group == AVERAGE else row.group}----", *_published(row)]
        return "\n".join([*lines, *self._deviations(self.row(part=part))]) + "\n"

    def _deviations(self, row: Row) -> list[str]:
        std = [row.joints[f"std {axis} mm"] for axis in "xyz"]
        lines = [f"Joint {i}: std {x:.4f} | {y:.4f} | {z:.4f}" for i, (x, y, z) in enumerate(zip(*std, strict=True))]
        return [*lines, "Mean joint std: " + " | ".join(f"{row.figures[f'std {axis}']:.4f}" for axis in "xyz")]


def score_hypotheses(
    frames: Iterable[ScoredFrames], joints: Sequence[str], origin: Origin | None = None, uncertain: int = 0, seed: int = 0
) -> HypothesisReport:
    """All figures of some hypotheses, see :data:`~dposer.lifting.hypothesis_scores.FIGURES`.

    Args:
        joints: names of the joints.
        origin: how they were made.
        uncertain: so many of the frames whose hypotheses are farthest apart are listed.
        seed: of the bootstrap.

    Raises:
        InputError: no frames, or such as do not go together.
    """
    return HypothesisReport.of(HypothesisScores.of(frames, joints, uncertain), origin or Origin(), seed)


def comparison(
    labels: Sequence[str],
    reports: Sequence[HypothesisReport],
    scores: Sequence[HypothesisScores],
    wholes: Sequence[HypothesisScores],
    part: str = "all",
    seed: int = 0,
) -> list[Table]:
    """Methods side by side on the same frames, and how far each is from the first.

    Args:
        labels: M names.
        reports, scores: of the same number of hypotheses.
        wholes: of all hypotheses that there are, for the best-of-n curves.
        part: which frames.
        seed: of the bootstrap.

    Raises:
        InputError: they are of other frames.
    """
    of = f"{part} frames"
    tables = [
        _beside(labels, [report.row(group, part) for report in reports], f"{title}, N = {reports[0].hypotheses}")
        for group, title in ((AVERAGE, f"mean of groups, {of}"), (POOLED, of))
    ]
    for error in ("MPJPE", "PA-MPJPE"):
        curves = [curve_of(some, error, part) for some in wholes]
        lines = [[str(n), *(_cell(error, curve.get(n)) for curve in curves)] for n in sorted({n for curve in curves for n in curve})]
        tables.append(Table(f"{error} of the best of n, expected, mm, {of}", ["n", *labels], lines))
    for label, some in zip(labels[1:], scores[1:], strict=True):
        gaps = compared(some, scores[0], part, seed)
        lines = [[name, *(figure(name, value) for value in gap[:3]), f"{gap.p:.4f}"] for name, gap in gaps.items()]
        if lines:
            tables.append(Table(f"{label} less {labels[0]}, {of}", ["figure", "difference", "low 95 %", "high 95 %", "p"], lines))
    return tables


def curve_of(scores: HypothesisScores, error: str = "MPJPE", part: str = "all") -> dict[int, float]:
    """n → mm, expected error of the best of n."""
    means = scores.means(scores.cells(part))[f"{error} of n"]
    return dict(zip(scores.counts, (1000 * means).tolist(), strict=True))


def _beside(labels: Sequence[str], rows: Sequence[Row], title: str) -> Table:
    names = [name for name in FIGURES if any(name in row.figures for row in rows)]
    return Table(
        title, ["figure", "unit", *labels], [[name, FIGURES[name], *(_cell(name, row.figures.get(name)) for row in rows)] for name in names]
    )


def _cell(name: str, value: float | None) -> str:
    return "-" if value is None else figure(name, value)


def figure(name: str, value: float) -> str:
    """With as many digits as it is worth."""
    return f"{value:.3f}" if name in ("ECE", "kappa") else f"{value:.2f}"


def _with_interval(name: str, row: Row) -> str:
    ends = row.intervals.get(name)
    value = figure(name, row.figures[name])
    return value if ends is None else f"{value} ({figure(name, ends[0])}, {figure(name, ends[1])})"


def _rows(scores: HypothesisScores, seed: int) -> Iterator[Row]:
    for part in scores.parts:
        cells, means = scores.cells(part), []
        for group in scores.groups:
            if mine := scores.cells(part, group):
                means.append(scores.means(mine))
                yield Row(part, group, *_size(scores, mine), scores.figures(mine), farthest=_farthest(scores, mine))
        size, farthest, whole = _size(scores, cells), _farthest(scores, cells), scores.means(cells)
        average = {name: torch.stack([some[name] for some in means]).mean(0) for name in whole}
        yield Row(part, AVERAGE, *size, plain(report_figures(average, scores.sets)), farthest=farthest)
        yield Row(
            part, POOLED, *size, scores.figures(cells), scores.intervals(cells, seed), farthest,
            {name: value.tolist() for name, value in joint_figures(whole).items()},
            {error: (1000 * whole[f"{error} of n"]).tolist() for error in ("MPJPE", "PA-MPJPE")},
            whole["omega"].tolist(),
        )  # fmt: skip


def _size(scores: HypothesisScores, cells: Sequence[Cell]) -> tuple[int, int]:
    return sum(scores.frames[cell] for cell in cells), len({cell.clip for cell in cells})


def _farthest(scores: HypothesisScores, cells: Sequence[Cell]) -> float:
    return 1000 * max(scores.farthest[cell] for cell in cells)


def _published(row: Row) -> Iterator[str]:
    """Lines of figures under the published names."""
    kind = " (hard)" if row.part == "ambiguous" else ""
    for error in ("MPJPE", "PA-MPJPE", "P1-SC"):
        for of in _PUBLISHED:
            if f"{error} {of}" in row.figures:
                yield f"{error}{kind} - {of}: {row.figures[f'{error} {of}']:.4f}"
    for said, name in (
        ("PCK", "PCK"),
        ("PCK-SC", "PCK-SC"),
        ("CPS", "CPS"),
        ("kappa", "kappa"),
        ("ECE", "ECE"),
        ("Sym z0", "symmetry z0"),
        ("Sym", "symmetry"),
    ):
        if name in row.figures:
            yield f"{said}: {row.figures[name]:.4f}"
