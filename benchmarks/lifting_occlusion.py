"""Lifting under occlusion: every method and training pattern against every test pattern, as DiffHPE is measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.lifting import TITLES, Study
from benchmarks.motion import tell
from dposer.data.lifting_clip import LiftingClip
from dposer.errors import InputError
from dposer.files import atomic_path
from dposer.lifting import Lifter
from dposer.lifting.config import OcclusionConfig
from dposer.lifting.evaluation import EvalSettings, evaluate
from dposer.lifting.lifter import SHIPPED
from dposer.lifting.report import Report
from run._report import markdown

PATTERNS = {
    "clean": "none", "random 0.2": "random:0.2", "arm_leg 0.4": "arm_leg:0.4", "joints 0.4": "joints:0.4", "frames 0.2": "frames:0.2",
    "noise 5 px": "noise:5",
}  # fmt: skip
FIGURES = {"MPJPE": "MPJPE", "symmetry": "sagittal symmetry", "consistency": "segment consistency"}
"""Of a report, and what they are called."""
HYPOTHESES = 5


@dataclass(frozen=True)
class Entrant:
    """A row."""

    title: str
    training: str
    """Pattern."""
    sees: str
    """In place of a hidden keypoint."""
    lifter: Lifter

    @classmethod
    def of(cls, title: str, lifter: Lifter) -> "Entrant":
        """``title`` is the method's or the file's name."""
        parts = [name if name == "mixed" else f"{name} {amount:g}" for name, amount in lifter.config.occlusion.parts()]
        inputs, hidden = lifter.config.inputs, lifter.config.hidden
        return cls(title, " + ".join(parts) or "clean", hidden if inputs == "points" else f"{hidden}, {inputs}", lifter)


def entrants(weights: Path | None, models: Path | None, methods: Sequence[str] = ()) -> list[Entrant]:
    """Weights that ship or those of ``weights``, of all methods or some, then every file of the folder ``models``, called by its name."""
    names = methods or tuple(SHIPPED)
    paths = {TITLES.get(name, name): name if weights is None else str(weights / f"{name}.safetensors") for name in names}
    if models is not None:
        found = sorted(models.glob("*.safetensors"))
        if not found:
            raise InputError(
                f"{models}: no .safetensors, expected weights of run.train_lift; leave --occlusion-models out for those that ship"
            )
        paths |= {path.stem: str(path) for path in found}
    return [Entrant.of(title, Lifter.from_pretrained(path)) for title, path in paths.items()]


def matrix(study: Study, rows: Sequence[Entrant], folder: Path) -> str:
    """A table for each figure, and a picture of the first in ``folder``."""
    found: dict[str, dict[str, Report]] = {}
    clips = study.clips("noisy")
    for row in rows:
        name = f"{row.title} | {row.training} | {row.sees}"
        found[name] = {title: _measured(study, row.lifter, clips, pattern) for title, pattern in PATTERNS.items()}
        tell(f"{name}: " + ", ".join(f"{title} {report.value('MPJPE', 'P-Agg'):.1f}" for title, report in found[name].items()))
    some = next(iter(next(iter(found.values())).values()))
    note = (
        f"P-Agg of H = {HYPOTHESES} (one where a method has no more) in as many steps as serve each, one window in {study.every} "
        f"({some.windows} windows, {some.frames} frames) of the test subjects, keypoints of the simulated detector. Each row is a "
        "method, what was hidden of its keypoints in training, and what it sees in place of a hidden one (filled: its neighbours in "
        "time, zero: the middle of the picture, visible: also that it is hidden). Each column is what is hidden in the test, the same "
        "for all rows: single keypoints (random), left arm and right leg in single frames (arm_leg), the right leg (joints) or "
        "everything (frames) for a while; the number is the share. Methods of single frames have no consistency."
    )
    parts = [note]
    for figure, title in FIGURES.items():
        lines = [[*name.split(" | "), *(_cell(report, figure) for report in of.values())] for name, of in found.items()]
        parts.append(markdown([f"{title}, mm", "trained on", "sees", *PATTERNS], lines))
    path = folder / "occlusion.png"
    _draw(found, path)
    parts.append(f"![MPJPE of every method by what is hidden]({folder.name}/{path.name})")
    return "\n\n".join(parts)


def _cell(report: Report, figure: str) -> str:
    value = report.row("P-Agg").figures.get(figure)
    return "-" if value is None else f"{value:.1f}"


def _measured(study: Study, lifter: Lifter, clips: Sequence[LiftingClip], pattern: str) -> Report:
    settings = EvalSettings(
        HYPOTHESES,
        lifter.model.usual,
        batch=16,
        every=study.every,
        group="subject",
        root="solved",
        seed=study.seed,
        occlusion=OcclusionConfig(pattern),
    )
    return evaluate(lifter.model, clips, settings)


def _draw(found: Mapping[str, Mapping[str, Report]], path: Path) -> None:
    """Bars of MPJPE: a group for each test pattern, a bar for each row."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(found)
    for number, (name, reports) in enumerate(found.items()):
        heights = [report.value("MPJPE", "P-Agg") for report in reports.values()]
        axes.bar(np.arange(len(heights)) + (number - (len(found) - 1) / 2) * width, heights, width, label=name)
    axes.set_xticks(range(len(PATTERNS)), list(PATTERNS))
    axes.set(ylabel="MPJPE, mm", ylim=(0, None))
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(fontsize=7, ncols=4, loc="outside upper center")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
