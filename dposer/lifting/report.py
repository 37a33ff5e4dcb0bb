"""What an evaluation found: a row of figures for each group, setting and step, and the error of each window.

A report is plain numbers: it goes to JSON and back, to rows of a CSV, to tables, and to the log lines of the published code.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dposer.errors import InputError
from dposer.files import PathLike, existing_file

AVERAGE, POOLED = "average", "all"
"""Groups besides those of the data: the unweighted mean over them, and all frames alike."""

FIGURES = {
    "MPJPE": "mm", "P-MPJPE": "mm", "N-MPJPE": "mm", "PCK": "%", "AUC": "%", "MPJVE": "mm/frame", "velocity": "mm/s",
    "acceleration": "mm/frame²", "symmetry": "mm", "consistency": "mm",
    "legacy symmetry": "mm", "legacy consistency": "mm",
}  # fmt: skip
"""Units. PCK is at 150 mm and AUC up to there, over all joints but the root; velocity is MPJVE by the clip's rate; symmetry is the mean
difference of left and right bone lengths, consistency the standard deviation of bone lengths over a window, both of the prediction; legacy
ones are of the bones that DiffHPE's tables were made with (:mod:`dposer.lifting.bones`)."""

LOGGED = {"P-Best": "P_Best", "P-Agg": "P_Agg", "J-Best": "J_Best", "J-Agg (GT root)": "J_Agg", "J-Agg (solved root)": "J_Agg_solved"}
"""Settings as published logs and file names call them."""


@dataclass(frozen=True)
class Row:
    """Figures of one group in one setting after one step."""

    group: str
    subject: str
    """Empty: all subjects."""
    setting: str
    step: int
    """From 0."""
    figures: dict[str, float]
    """In the units of :data:`FIGURES`; what cannot be said (velocities of single frames) is not there."""
    joints: list[float]
    """MPJPE of each joint, mm."""
    levels: list[float]
    """MPJPE of the joints so many bones away from the root, mm."""
    coordinates: list[float] = field(default_factory=list)
    """Mean |error| along x, y, z, mm."""
    bones: list[float] = field(default_factory=list)
    """Consistency of each of :attr:`Report.bones`, mm; empty where windows have but one frame."""
    pairs: list[float] = field(default_factory=list)
    """Symmetry of each of :attr:`Report.pairs`, mm."""


@dataclass(frozen=True)
class WindowErrors:
    """MPJPE in mm of every window with frames that count, after the last step."""

    clip: list[str] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    errors: dict[str, list[float]] = field(default_factory=dict)
    """By setting."""

    @property
    def takes(self) -> list[int]:
        """Number of the motion a window is of: views of the same one are not independent, see :func:`paired_bootstrap`."""
        names = [name.rpartition("/")[0] for name in self.clip]
        order = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return [order[name] for name in names]


class Table(NamedTuple):
    """Of strings."""

    title: str
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Report:
    """What :func:`dposer.lifting.evaluation.evaluate` returns."""

    method: str
    settings: dict[str, Any]
    hypotheses: int
    """That the method gave."""
    steps: int
    clips: int
    windows: int
    frames: int
    """That counted."""
    joints: list[str]
    rows: list[Row]
    uncertainty: list[dict[str, Any]]
    """Of each step, over all frames; empty for one hypothesis. ``spread``: mm, root mean square distance from the mean pose; ``covered``: %
    of coordinates that lie between the hypotheses' extremes, ``exchangeable``: what it would be if truth and hypotheses were draws from
    one distribution; ``pose curve``, ``joint curve``: mm, expected P-Best (of each frame) and J-Best of m = 1 .. H hypotheses."""
    clamped: float
    """% of the coordinates of the last step's hypotheses at the bound that sampling clamps them to: limbs that might reach farther."""
    window_errors: WindowErrors
    notes: list[str]
    bones: list[str] = field(default_factory=list)
    """parent->child, see :class:`dposer.lifting.bones.Bones`."""
    pairs: list[str] = field(default_factory=list)
    """The same without a side."""

    # ---- what is in it

    @property
    def by(self) -> str:
        """What the groups are: action, subject or sequence."""
        return str(self.settings["group"])

    @property
    def setting_names(self) -> list[str]:
        return list(dict.fromkeys(row.setting for row in self.rows))

    def row(self, setting: str, step: int = -1, group: str = AVERAGE, subject: str = "") -> Row:
        """All figures of one; ``KeyError`` if it is not there."""
        rows = {(row.setting, row.step, row.group, row.subject): row for row in self.rows}
        return rows[setting, range(self.steps)[step], group, subject]

    def value(self, figure: str, setting: str, step: int = -1, group: str = AVERAGE, subject: str = "") -> float:
        """One figure; ``KeyError`` if it is not there."""
        return self.row(setting, step, group, subject).figures[figure]

    # ---- forms of it

    def to_json(self) -> str:
        """Everything."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = "report") -> "Report":
        """Inverse of :meth:`to_json`.

        Raises:
            InputError: not such a text.
        """
        try:
            values = json.loads(text)
            rows = [Row(**row) for row in values.pop("rows")]
            return cls(rows=rows, window_errors=WindowErrors(**values.pop("window_errors")), **values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{source}: not a report of run.eval_lift ({error}), expected its report.json; make it anew") from error

    @classmethod
    def read(cls, path: PathLike) -> "Report":
        """From a JSON file; raises :class:`InputError`."""
        return cls.from_json(existing_file(path, "a report of run.eval_lift (.json)").read_text(encoding="utf-8"), str(path))

    def flat(self) -> list[dict[str, Any]]:
        """A dict of plain values for each row, with the same keys in the same order: lines of a CSV."""
        depths = max((len(row.levels) for row in self.rows), default=0)
        return [
            {"subject": row.subject, self.by: row.group, "setting": row.setting, "step": row.step}
            | {f"{name} {unit}": row.figures.get(name, "") for name, unit in FIGURES.items()}
            | {f"level {depth} mm": value for depth, value in zip(range(depths), row.levels, strict=True)}
            | {f"{joint} mm": value for joint, value in zip(self.joints, row.joints, strict=True)}
            | {f"{axis} mm": value for axis, value in zip("xyz", row.coordinates, strict=False)}
            | {f"symmetry {pair} mm": value for pair, value in zip(self.pairs, row.pairs, strict=True)}
            | {f"consistency {bone} mm": value for bone, value in itertools.zip_longest(self.bones, row.bones, fillvalue="")}
            for row in self.rows
        ]

    def tables(self) -> list[Table]:
        """What a reader wants first comes first."""
        last = [row for row in self.rows if row.step == self.steps - 1]
        average = [row for row in last if row.group == AVERAGE and not row.subject]
        figures = [name for name in FIGURES if not name.startswith("legacy") and any(name in row.figures for row in average)]
        lines = [[row.setting, *(_cell(row.figures.get(name)) for name in figures)] for row in average]
        tables = [Table(f"mean over {self.by}s, last step", ["setting", *(f"{name} {FIGURES[name]}" for name in figures)], lines)]
        errors = [name for name in ("MPJPE", "P-MPJPE") if name in figures]
        for error in errors:
            tables.append(self._by_setting(f"{error} mm, last step", self.by, [row for row in last if not row.subject], "group", error))
        if self.steps > 1:
            steps = [row for row in self.rows if row.group == AVERAGE and not row.subject]
            tables += [self._by_setting(f"{error} mm by step", "step", steps, "step", error) for error in errors]
        for subject in dict.fromkeys(row.subject for row in last if row.subject):
            rows = [row for row in last if row.subject == subject]
            tables += [self._by_setting(f"{error} mm of {subject}, last step", self.by, rows, "group", error) for error in errors]
        levels = [f"level {depth}" for depth in range(len(average[0].levels))]
        tables.append(_in_columns("MPJPE mm by level, last step", "level", levels, {row.setting: row.levels for row in average}))
        tables.append(_in_columns("MPJPE mm by joint, last step", "joint", self.joints, {row.setting: row.joints for row in average}))
        for title, names, each_of in (
            ("symmetry mm by pair of bones", self.pairs, {row.setting: row.pairs for row in average}),
            ("consistency mm by bone", self.bones, {row.setting: row.bones for row in average}),
        ):
            if all(each_of.values()):
                tables.append(_in_columns(f"{title}, last step", "bone", names, each_of))
        if self.uncertainty:
            columns = {"spread mm": "spread", "covered %": "covered", "exchangeable %": "exchangeable"}
            each = {title: [entry[name] for entry in self.uncertainty] for title, name in columns.items()}
            tables.append(_in_columns("the hypotheses", "step", [str(step) for step in range(self.steps)], each))
            final = self.uncertainty[-1]
            curves = {"P-Best (frame)": final["pose curve"], "J-Best": final["joint curve"]}
            counts = [str(m) for m in range(1, self.hypotheses + 1)]
            tables.append(_in_columns("MPJPE mm of the best of m hypotheses, expected, last step", "m", counts, curves))
        return tables

    def _by_setting(self, title: str, what: str, rows: Sequence[Row], key: str, figure: str) -> Table:
        """Settings beside each other, a line for each value of a field of the rows."""
        cells = {(str(getattr(row, key)), row.setting): _cell(row.figures.get(figure)) for row in rows}
        lines = [[name, *(cells[name, setting] for setting in self.setting_names)] for name in dict.fromkeys(name for name, _ in cells)]
        return Table(title, [what, *self.setting_names], lines)

    def log_lines(self) -> list[str]:
        """The lines of the published ``h36m_test_log_H{H}_K{K}.txt``: protocol 1 is MPJPE, 2 is P-MPJPE."""
        lines = []
        rows = [row for row in self.rows if not row.subject and row.group != POOLED and row.setting in LOGGED]
        for group in dict.fromkeys(row.group for row in rows):
            lines.append(f"----{group}----")
            for protocol, figure in enumerate(("MPJPE", "P-MPJPE"), 1):
                for row in sorted((row for row in rows if row.group == group and figure in row.figures), key=lambda row: row.step):
                    value = f"{LOGGED[row.setting]}: {row.figures[figure]:.6f} mm"
                    if group == AVERAGE:
                        lines.append(f"step {row.step} Protocol #{protocol}   (MPJPE) action-wise average {value}")
                    else:
                        lines.append(f"step {row.step} : Protocol #{protocol} Error (MPJPE) {value}")
        return lines


def _in_columns(title: str, what: str, names: Sequence[str], columns: Mapping[str, Sequence[float]]) -> Table:
    lines = [[name, *(_cell(column[i]) for column in columns.values())] for i, name in enumerate(names)]
    return Table(title, [what, *columns], lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


class Difference(NamedTuple):
    """Of two runs, a − b."""

    mean: float
    low: float
    high: float
    p: float
    """Twice the share of draws on the other side of zero, at most 1."""


def paired_bootstrap(
    errors_a: Tensor,
    errors_b: Tensor,
    generator: torch.Generator,
    takes: Sequence[int] | None = None,
    draws: int = 2000,
    level: float = 0.95,
) -> Difference:
    """Mean difference of paired errors and the interval that holds ``level`` of its bootstrap distribution.

    Args:
        errors_a, errors_b: (N,) of the same windows by two runs, in the same order.
        takes: N numbers; windows with the same one are drawn together, since they are not independent (:attr:`WindowErrors.takes`).
        draws: of as many takes as there are, with replacement.

    Raises:
        InputError: not as many of each, or none.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13.
    """
    if errors_a.shape != errors_b.shape or errors_a.ndim != 1 or not len(errors_a):
        raise InputError(f"errors: shapes {tuple(errors_a.shape)} and {tuple(errors_b.shape)}, expected (N,) twice, of the same windows")
    group = torch.arange(len(errors_a)) if takes is None else torch.as_tensor(takes)
    total = torch.zeros(int(group.max()) + 1, dtype=torch.float64).index_add(0, group, (errors_a - errors_b).double().cpu())
    count = torch.zeros_like(total).index_add(0, group, torch.ones(len(group), dtype=torch.float64))
    drawn = torch.randint(len(total), (draws, len(total)), generator=generator, device=generator.device).cpu()
    means = total[drawn].sum(1) / count[drawn].sum(1)
    low, high = means.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    share = min(float((means <= 0).double().mean()), float((means >= 0).double().mean()))
    return Difference(float(total.sum() / count.sum()), low, high, min(1.0, 2 * share))
