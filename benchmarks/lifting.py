"""Lifting on the open benchmark: how far from the truth on held-out subjects, and what noise and holes in the keypoints do to it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.motion import tell
from dposer.data.images import read_photo
from dposer.data.lifting_clip import LiftingClip
from dposer.errors import InputError
from dposer.files import atomic_path
from dposer.lifting import Lifter
from dposer.lifting.evaluation import EvalSettings, evaluate
from dposer.lifting.occlusion import hidden, jittered
from dposer.lifting.report import Report
from dposer.randomness import keyed_generator
from dposer.viz import save_image
from run._lifting import read_clips, subjects_of
from run._report import markdown
from run.lift import Args as lift_args
from run.lift import main as lift

METHODS = ("mixste", "d3dp", "ddhpose")
TITLES = {
    "mixste": "MixSTE", "d3dp": "D3DP", "ddhpose": "DDHPose", "diffhpe": "DiffHPE-Wrapper", "diffhpe-2d": "DiffHPE-2D",
    "graformer": "GraFormer", "cross-channel": "cross-channel", "single-graph": "single graph", "diffpose": "DiffPose",
}  # fmt: skip
MANY = (20, 10)
"""Hypotheses and steps of the papers' probabilistic figures."""
NOISE = (0, 2, 5, 10, 15, 20)
"""Pixels."""
MISSING = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
_FEW, _SPARSER = (5, 2), 2
"""Hypotheses and steps of the curves, which take every second window of those that many hypotheses are lifted of."""
_FIGURES = ("MPJPE", "P-MPJPE", "N-MPJPE", "MPJVE", "PCK", "AUC", "symmetry", "consistency")


@dataclass(frozen=True)
class Study:
    """Weights by method, and the folder of the open benchmark.

    Args:
        every: of all windows take every n-th.
    """

    lifters: Mapping[str, Lifter]
    folder: Path
    every: int
    seed: int = 0

    @classmethod
    def of(cls, folder: Path, weights: Path | None, every: int, seed: int) -> "Study":
        """With <weights>/<method>.safetensors, or the weights that ship."""
        paths = {method: method if weights is None else str(weights / f"{method}.safetensors") for method in METHODS}
        return cls({method: Lifter.from_pretrained(path) for method, path in paths.items()}, folder, every, seed)

    def clips(self, keypoints: str) -> list[LiftingClip]:
        """Of the test subjects."""
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: found nothing, expected the open benchmark; run.prepare_data --source lifting makes it")
        subjects = subjects_of("open", self.folder, "test")
        return read_clips("open", self.folder, keypoints, subjects, "*", 1, next(iter(self.lifters.values())).config)

    def measured(self, method: str, clips: Sequence[LiftingClip], hypotheses: int, steps: int, every: int | None = None) -> Report:
        """With the average over subjects."""
        settings = EvalSettings(
            hypotheses,
            steps,
            batch=16,
            every=every or self.every,
            group="subject",
            p2=True,
            aggregates=("median", "limb", "soft"),
            seed=self.seed,
        )
        return evaluate(self.lifters[method].model, clips, settings)


def accuracy(study: Study) -> str:
    """Every method with one hypothesis on all windows, and with many on some."""
    clips = study.clips("noisy")
    single, many, ways = [], [], []
    for method in METHODS:
        report = study.measured(method, clips, 1, 1, every=1)
        single.append([TITLES[method], "Single", *_figures(report, "Single")])
        tell(" ".join(single[-1]))
    windows = report.windows
    for method in METHODS[1:]:
        report = study.measured(method, clips, *MANY)
        one = study.measured(method, clips, 1, 1)
        many.append([TITLES[method], "H = K = 1", *_figures(one, "Single")])
        for setting in report.setting_names:
            row = [TITLES[method], _said(setting), *_figures(report, setting)]
            (ways if setting in ("Median", "Limb", "Soft") else many).append(row)
            tell(" ".join(row))
        for step in (0, report.steps // 2):
            row = [TITLES[method], f"P-Agg, step {step + 1}", *_figures(report, "P-Agg", step)]
            ways.append(row)
    header = ["", "", *(f"{figure} {_unit(figure)}" for figure in _FIGURES)]
    hypotheses, steps = MANY
    subjects = len({clip.subject for clip in clips})
    notes = (
        f"Test subjects of the open benchmark, keypoints of the simulated detector, mean over {subjects} subjects. One hypothesis, one "
        f"step, all {windows} windows:",
        f"H = {hypotheses}, K = {steps}, one window in {study.every} ({report.windows}); the first row of each is one hypothesis in one "
        "step on the same windows:",
        "Other ways to one pose from the same hypotheses, by roots that are solved from the keypoints, and what the steps do:",
    )
    return "\n\n".join(f"{note}\n\n{markdown(header, rows)}" for note, rows in zip(notes, (single, many, ways), strict=True))


def _said(setting: str) -> str:
    return {"Single": "first of the hypotheses"}.get(setting, setting)


def _figures(report: Report, setting: str, step: int = -1) -> list[str]:
    return [f"{report.value(figure, setting, step):.1f}" for figure in _FIGURES]


def _unit(figure: str) -> str:
    return {"PCK": "%", "AUC": "%", "MPJVE": "mm/frame"}.get(figure, "mm")


def picture(folder: Path, width: int = 1600) -> str:
    """Of the shipped clip lifted by the shipped weights."""
    with TemporaryDirectory() as temporary:
        lift(lift_args(output=Path(temporary), num_proposals=MANY[0], sampling_timesteps=MANY[1]))
        sheet = read_photo(Path(temporary) / "walk_lifted_sheet.png").pixels
    height = round(len(sheet) * width / sheet.shape[1])
    path = folder / "walk.jpg"
    save_image(path, cv2.resize(sheet, (width, height), interpolation=cv2.INTER_AREA))
    return f"![Keypoints, and the hypotheses of the pose in space from two sides]({folder.name}/{path.name})"


def robustness(study: Study, folder: Path) -> str:
    """MPJPE by noise and by missing joints: tables, and a picture of curves in ``folder``."""
    clips = study.clips("gt")
    curves = {
        "white noise on the true keypoints, pixels": _curve(study, clips, NOISE, jittered),
        "share of the true keypoints missing, in runs of about 10 frames": _curve(study, clips, MISSING, hidden),
    }
    parts = []
    for title, (levels, errors) in curves.items():
        rows = [[TITLES[method], *(f"{error:.1f}" for error in found)] for method, found in errors.items()]
        parts.append(markdown([f"MPJPE mm; {title}", *(f"{level:g}" for level in levels)], rows))
    path = folder / "robustness.png"
    _draw(curves, path)
    hypotheses, steps = _FEW
    note = (
        f"P-Agg of H = {hypotheses}, K = {steps}, one window in {_SPARSER * study.every} of the test subjects; missing joints are "
        "interpolated over time."
    )
    picture = f"![MPJPE by noise and by missing joints]({folder.name}/{path.name})"
    return "\n\n".join([note, *parts, picture])


def _curve(
    study: Study, clips: Sequence[LiftingClip], levels: Sequence[float], spoil: Callable[[Tensor, float, torch.Generator], Tensor]
) -> tuple[Sequence[float], dict[str, list[float]]]:
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    for level in levels:
        spoilt = [
            dataclasses.replace(
                clip, keypoints=spoil(torch.from_numpy(clip.keypoints), level, keyed_generator("cpu", study.seed, clip.name, level)).numpy()
            )
            for clip in clips
        ]
        for method, found in errors.items():
            found.append(study.measured(method, spoilt, *_FEW, every=_SPARSER * study.every).value("MPJPE", "P-Agg"))
        tell(f"{spoil.__name__} {level:g}: " + ", ".join(f"{method} {found[-1]:.1f}" for method, found in errors.items()))
    return levels, errors


def _draw(curves: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[float]]]], path: Path) -> None:
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (title, (levels, errors)) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        for method, found in errors.items():
            axes.plot(levels, found, marker="o", label=TITLES[method])
        axes.set(xlabel=title, ylabel="MPJPE, mm", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
