"""All lifters side by side on the open benchmark, and what a refiner makes of the poses of other lifters."""

from collections.abc import Sequence

import torch

from benchmarks.lifting import TITLES, Study
from benchmarks.motion import tell
from dposer.data.lifting_clip import LiftingClip
from dposer.lifting import Lifter
from dposer.lifting.evaluation import EvalSettings, evaluate
from dposer.lifting.lifter import SHIPPED
from dposer.lifting.report import Report, paired_bootstrap
from run._report import markdown

HYPOTHESES = 5
_FIGURES = ("MPJPE", "P-MPJPE", "MPJVE", "symmetry", "consistency")
_REFINED = ("graformer", "mixste", "ddhpose")
_REFINERS = ("cross-channel", "single-graph")


def methods(study: Study) -> str:
    """Two tables."""
    clips = study.clips("noisy")
    lifters = {name: Lifter.from_pretrained(name) for name in SHIPPED}
    rows, reports = [], {}
    for name, lifter in lifters.items():
        report = reports[name] = _measured(study, lifter, clips)
        found = [report.row(_setting(report)).figures.get(figure) for figure in _FIGURES]
        rows.append(
            [TITLES[name], str(report.hypotheses), str(report.settings["steps"]), *("-" if f is None else f"{f:.1f}" for f in found)]
        )
        tell(" ".join(rows[-1]))
    note = (
        f"Every method that ships with its usual steps, mean of up to {HYPOTHESES} hypotheses, one window in {study.every} of the test "
        "subjects (methods of single frames: one frame in as many, so neither velocity nor consistency):"
    )
    table = markdown(["", "H", "K", *(f"{name}, mm/frame" if name == "MPJVE" else f"{name}, mm" for name in _FIGURES)], rows)
    return "\n\n".join([note, table, _apart(study, reports), _refined(study, lifters, clips)])


def _setting(report: Report) -> str:
    return "P-Agg" if report.hypotheses > 1 else "Single"


def _apart(study: Study, reports: dict[str, Report]) -> str:
    """How much more accurate the Wrapper is than what it wraps, and than DiffHPE-2D."""
    rows = []
    for other in ("mixste", "diffhpe-2d"):
        mine, theirs = reports["diffhpe"], reports[other]
        pair = (torch.tensor(report.window_errors.errors[_setting(report)]) for report in (mine, theirs))
        found = paired_bootstrap(*pair, torch.Generator().manual_seed(study.seed), mine.window_errors.takes)
        rows.append([f"{TITLES['diffhpe']} less {TITLES[other]}", f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"])
    return markdown(["difference of MPJPE (95 %)", "mm"], rows)


def _refined(study: Study, lifters: dict[str, Lifter], clips: Sequence[LiftingClip]) -> str:
    """Differences over the same windows, with intervals over motions."""
    rows = []
    for base in _REFINED:
        raw = _measured(study, lifters[base], clips, hypotheses=1)
        for refiner in filter(lifters.__contains__, _REFINERS):
            both = lifters[base].refined(lifters[refiner])
            refined = _measured(study, both, clips, hypotheses=1)
            mine, theirs = (torch.tensor(report.window_errors.errors["Single"]) for report in (refined, raw))
            found = paired_bootstrap(mine, theirs, torch.Generator().manual_seed(study.seed), raw.window_errors.takes)
            values = [report.value(figure, "Single") for figure in ("MPJPE", "P-MPJPE") for report in (raw, refined)]
            span = getattr(both.model, "span", None)
            rows.append(
                [TITLES[base], TITLES[refiner], str(span), *(f"{value:.1f}" for value in values)]
                + [f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"]
            )
            tell(" ".join(rows[-1]))
    header = ["lifter", "refiner", "T'", "MPJPE, mm", "refined", "P-MPJPE, mm", "refined", "difference of MPJPE (95 %), mm"]
    note = (
        "One hypothesis of a lifter, raw and refined in two steps from T', which its error on the validation subjects sets. The interval "
        "is a bootstrap over motions, all views of one drawn together: below zero, new motions of such people would gain too."
    )
    return f"{note}\n\n{markdown(header, rows)}"


def _measured(study: Study, lifter: Lifter, clips: Sequence[LiftingClip], hypotheses: int = HYPOTHESES) -> Report:
    settings = EvalSettings(
        hypotheses, lifter.model.usual, batch=16 if lifter.config.network.frames > 1 else 256, every=study.every, group="subject", p2=True,
        root="solved", seed=study.seed,
    )  # fmt: skip
    return evaluate(lifter.model, clips, settings)
