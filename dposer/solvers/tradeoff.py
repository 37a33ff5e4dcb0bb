"""What a completion costs and what it is worth: every solver on the same poses, error beside price."""

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dposer.body.model import BodyModel
from dposer.errors import InputError
from dposer.files import PathLike, save_json
from dposer.prior.pose_prior import PosePrior, Progress
from dposer.solvers.completion import CompletionSettings, Mode, SamplingSettings, mode_settings, replacement_settings
from dposer.solvers.completion_scores import BASELINES, Solve, baseline, evaluate_completion, solver
from dposer.solvers.generation_scores import fingerprint

PARTS = ("left_leg", "legs", "arms", "trunk")
"""Those of the published tables."""

_INDEPENDENT = "posterior, independent"
_GUIDED: tuple[Mode, ...] = ("MCG", "DPS")


@dataclass(frozen=True)
class Solver:
    """One setting to be measured: a mode as it is, as a release ran it, at another number of steps, or with settings of its own."""

    label: str
    mode: Mode
    preset: str | None = None
    steps: int | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the settings that are replaced."""
    base: Callable[[PosePrior], CompletionSettings | SamplingSettings] | None = None
    """In place of the mode's own settings."""
    published: bool = False
    """Whether these are the settings of a published figure, to be marked in plots."""
    series: str = ""
    """The curve of a plot it belongs to, default: that of its mode."""

    def resolved(self, prior: PosePrior) -> CompletionSettings | SamplingSettings:
        """The settings in full. Raises :class:`InputError` if the prior or the mode cannot do that."""
        settings = self.base(prior) if self.base else mode_settings(prior, self.mode, self.preset, self.steps)
        return dataclasses.replace(settings, **self.changes)


SOLVERS: tuple[Solver, ...] = (
    Solver("posterior", "posterior"),
    *(Solver(f"posterior, {n} candidates each", "posterior", changes={"candidates": n}) for n in (2, 4, 20)),
    Solver("posterior, independent", "posterior", changes={"candidates": 1}, series=_INDEPENDENT),
    Solver("posterior, independent, 50 steps", "posterior", steps=50, changes={"candidates": 1}, series=_INDEPENDENT),
    Solver("posterior without masks", "ScoreSDE", base=replacement_settings, series="posterior without masks"),
    *(Solver(f"DPoser {preset}", "DPoser", preset, published=preset == "v1") for preset in ("v1", "v1-demo", "v2", "x", "paper")),
    *(Solver(f"DPoser, own starts, {steps} steps", "DPoser", steps=steps) for steps in (50, 100, 200)),
    Solver("ScoreSDE v2", "ScoreSDE", "v2"),
    *(Solver(f"ScoreSDE, {steps} steps", "ScoreSDE", steps=steps) for steps in (50, 200)),
    *(Solver(f"{mode} v2", mode, "v2") for mode in _GUIDED),
    *(Solver(mode, mode) for mode in _GUIDED),
    *(Solver(f"PiGDM, {steps} steps", "PiGDM", steps=steps) for steps in (20, 50, 100)),
    *(Solver(f"RePaint, {steps} × 10 steps", "RePaint", steps=steps) for steps in (5, 20)),
    *(Solver(f"SMC, {steps} steps of 8", "SMC", steps=steps) for steps in (15, 50)),
)
"""What is measured by default: all but the second release's demo, whose 4,000 evaluations few will want."""


@dataclass(frozen=True)
class SolverRow:
    """What one solver made of one part."""

    part: str
    label: str
    family: str
    """The mode, or "baseline": rows of one family differ in their settings only."""
    preset: str | None = None
    published: bool = False
    series: str = ""
    """The curve of a plot it belongs to."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Those of :data:`FIGURES` that have a finite value."""
    reason: str = ""
    """Why there are no figures."""
    kept: bool = False
    """Whether it was measured by an earlier call."""


def solver_tradeoff(
    prior: PosePrior,
    body: BodyModel,
    poses: Tensor,
    parts: Sequence[str] = PARTS,
    solvers: Sequence[Solver] = SOLVERS,
    *,
    hypotheses: int = 10,
    seed: int = 42,
    training: Tensor | None = None,
    folder: PathLike | None = None,
    bar: Callable[[str], Progress] | None = None,
) -> list[SolverRow]:
    """Complete every part of every pose with every solver.

    Args:
        poses: (N, 63) the truth; all hypotheses of all poses are solved in one batch, whose time is shared out among them.
        solvers: one that the prior cannot do, or that refuses its settings, leaves a row without figures.
        seed: of the noise, the same for each solver and part.
        training: (K, 63) poses; if given, filling in from their mean and from the nearest of them are rows too.
        folder: where rows are kept; those of the same weights, body, poses, settings and seed are not measured again.
        bar: given a title, returns what is told of a solver's progress.
    """
    poses = poses.to(prior.device, prior.dtype)
    measured = [_digest(poses), _digest(body.v_template), _digest(body.weights), fingerprint(prior), prior.device.type, hypotheses, seed]

    def measure(row: SolverRow, solve: Solve, settings: object) -> SolverRow:
        key = hashlib.sha256(json.dumps([*measured, row.part, row.family, repr(settings)]).encode()).hexdigest()[:16]
        path = None if folder is None else Path(folder) / f"{key}.json"
        figures = {} if path is None else _read(path)
        if figures:
            return dataclasses.replace(row, figures=figures, kept=True)
        try:
            solve(poses[:1], row.part, _generator(prior, seed), None)  # refusals come at once, and first calls are not timed
            progress = bar and bar(f"{row.part}, {row.label}")
            report = evaluate_completion(prior, body, poses, row.part, solve, _generator(prior, seed), progress).report()
        except InputError as error:
            return dataclasses.replace(row, reason=str(error))
        figures = {key: value for key, value in report.items() if math.isfinite(value)}
        if path is not None:
            save_json(path, {"part": row.part, "label": row.label, "figures": figures})
        return dataclasses.replace(row, figures=figures, reason="" if "MPJPE mean" in figures else "diverged to NaN or infinity")

    rows: list[SolverRow] = []
    for part in parts:
        if training is not None:
            bank = training.to(poses)
            for name in BASELINES:
                row = SolverRow(part, f"{name} of the training poses", "baseline")
                rows.append(measure(row, baseline(name, bank), (name, _digest(bank))))
        for setting in solvers:
            row = SolverRow(part, setting.label, setting.mode, setting.preset, setting.published, setting.series or setting.mode)
            try:
                settings = setting.resolved(prior)
            except InputError as error:
                rows.append(dataclasses.replace(row, reason=str(error)))
                continue
            rows.append(measure(row, solver(prior, setting.mode, hypotheses, settings), settings))
    return rows


def _read(path: Path) -> dict[str, float]:
    """The figures of a kept row, none where there is no such file or it is not of ours."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        figures = json.loads(path.read_text())["figures"]
        return {str(key): float(value) for key, value in figures.items()}
    return {}


def _generator(prior: PosePrior, seed: int) -> torch.Generator:
    return torch.Generator(prior.device).manual_seed(seed)


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
