"""How good: motions from noisy and from partly hidden joints, and poses from a few end effectors, of held-out subjects."""

import dataclasses
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.motion_data import Fragments, Motions
from dposer.body.parts import part_missing
from dposer.body.skeleton import SMPLX_22
from dposer.metrics.poses import mpjpe
from dposer.prior import PosePrior
from dposer.solvers.denoising_scores import (
    DenoisingScores,
    best_window,
    evaluate_denoising,
    joint_scores,
    published_figures,
    savitzky_golay,
    solver,
)
from dposer.solvers.generation_scores import joint_positions
from dposer.solvers.motion_adam import denoising_settings
from dposer.solvers.motion_denoising import MotionSettings, NewtonSettings
from dposer.solvers.motion_fitting import IK_SETTINGS, fit_joints
from dposer.solvers.pose_terms import GaussianTerm
from run._report import figures_row, markdown

LEVELS = (0.02, 0.04, 0.1)
"""Metres."""
ACCELERATIONS = (5.0, 10.0, 20.0, 40.0, 100.0)
"""m/s²."""
WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Of the Gaussian prior."""
ORDERS = (1, 2, 3, 4)
DEFAULT = "**DPoser, the default**"
ADAM, ADAM_ALONE = "the paper's Adam", "the paper's Adam, no prior"
END_EFFECTORS = ("pelvis", "head", "left_wrist", "right_wrist", "left_ankle", "right_ankle")

_NEARER = "the default is nearer in"
_UNITS = {"MPJPE": "mm", "MPVPE": "mm", "acceleration error": "mm/frame²", "vis_MPJPE": "mm", "inv_MPJPE": "mm"}


@dataclass(frozen=True)
class Way:
    """One way to solve."""

    name: str
    prior: PosePrior | None
    settings: MotionSettings | None


def denoising(
    motions: Motions,
    per_subject: int = 2,
    levels: Sequence[float] = LEVELS,
    frames: int = 60,
    accelerations: Sequence[float] = ACCELERATIONS,
    weights: Sequence[float] = WEIGHTS,
) -> str:
    """Noise on every joint: the default beside filters, no prior, a Gaussian and the published optimiser."""
    test, valid = motions.fragments("test", per_subject, frames), motions.fragments("valid", 1, frames)
    mean, covariance = motions.gaussian()
    none = [Way(f"no prior, acceleration {a:g} m/s²", None, NewtonSettings(acceleration=a)) for a in accelerations]
    scaled = [
        Way(
            f"no prior, but its scale for rotations, acceleration {a:g} m/s²", motions.prior, NewtonSettings(acceleration=a, prior_weight=0)
        )
        for a in accelerations
    ]
    gaussian = [
        Way(f"Gaussian prior, weight {w:g}", motions.prior, NewtonSettings(term=GaussianTerm(mean, covariance, w))) for w in weights
    ]
    default = Way(DEFAULT, motions.prior, NewtonSettings())
    pages = [_denoising_note(test, valid)]
    for std in levels:
        observed, paper = test.observed(std, motions.seed), denoising_settings("paper", std)
        rows = {
            "observed": joint_scores(observed, test.joints, observed),
            **_filtered(observed, test.joints),
            **_scored(motions, test, observed, std, [_chosen(motions, valid, std, ways) for ways in (none, scaled, gaussian)]),
            **_scored(motions, test, observed, std, [default]),
            **_scored(
                motions,
                test,
                observed,
                std,
                [Way(ADAM, motions.prior, paper), Way(ADAM_ALONE, None, paper)],
            ),
        }
        pages += [
            f"### {1000 * std:g} mm of noise",
            _table(rows, ("MPJPE", "MPVPE", "acceleration error"), published_figures("AMASS", std)),
        ]
        pages += [_margin(rows, published_figures("AMASS", std)), _beaten(rows, ("MPJPE", "MPVPE", "acceleration error"))]
    return "\n\n".join(pages)


def _denoising_note(test: Fragments, valid: Fragments) -> str:
    return (
        f"{len(test)} fragments of {test.poses.shape[1]} frames at 30 a second, as many of each held-out subject; root and shape known, "
        "noise on each coordinate of all 22 joints, the same for every row. MPJPE over 22 joints, MPVPE over the surface, no alignment; "
        f"acceleration error in mm/frame². Seconds per fragment, all fragments solved together, on {torch.get_num_threads()} threads. "
        f"The last column: in how many fragments the default's MPJPE is the lower one.\n\n"
        "- observed: the joints as they were measured.\n"
        "- Savitzky-Golay: a filter that knows no body, with the window and the order that are best on these very fragments.\n"
        "- no prior: the second-order solver with the measurement and smooth joints alone. Its scale of accelerations is chosen on "
        f"{len(valid)} fragments of validation subjects, level by level.\n"
        "- no prior, but its scale for rotations: the same, and rotations are smooth in units of their spread over training poses, as "
        "they are in the default; it starts at the mean pose. Chosen likewise.\n"
        "- Gaussian prior: the default with a Gaussian of the training poses in the place of the network; its weight is chosen likewise.\n"
        "- DPoser, the default: what `denoise_motion` does. Nothing is chosen here.\n"
        "- the paper's Adam: the published optimiser, preset `paper`, with and without the prior.\n"
        "- published: DPoser-X (arXiv 2508.00599), on AMASS's HumanEva, with weights trained on AMASS and SMPL-X: for the margins, not "
        "to be compared with the other rows."
    )


def _filtered(observed: Tensor, truth: Tensor) -> dict[str, DenoisingScores]:
    orders = [order for order in ORDERS if order + 1 + order % 2 <= observed.shape[1]]
    filters = [(best_window(observed, truth, order), order) for order in orders]
    window, order = min(filters, key=lambda some: float(mpjpe(savitzky_golay(observed, *some), truth).mean()))
    scores = joint_scores(savitzky_golay(observed, window, order), truth, observed)
    return {f"Savitzky-Golay, {window} frames, order {order}": scores}


def _chosen(motions: Motions, valid: Fragments, noise_std: float, ways: Sequence[Way]) -> Way:
    """The way of the lowest MPJPE on validation fragments."""
    if len(ways) == 1:
        return ways[0]
    scores = _scored(motions, valid, valid.observed(noise_std, motions.seed + 1), noise_std, ways, "  validation, ")
    return min(ways, key=lambda way: scores[way.name].report()["MPJPE"])


def _scored(
    motions: Motions, fragments: Fragments, observed: Tensor, noise_std: float, ways: Sequence[Way], told: str = ""
) -> dict[str, DenoisingScores]:
    found = {}
    for way in ways:
        solve = solver(way.prior, motions.body, noise_std, way.settings)
        generator = torch.Generator().manual_seed(motions.seed)
        found[way.name] = evaluate_denoising(motions.body, fragments.poses, observed, solve, generator=generator)
        report = found[way.name].report()
        tell(f"{told}{1000 * noise_std:g} mm, {way.name}: MPJPE {report['MPJPE']:.2f} mm, {report['ms'] / 1000:.2f} s per fragment")
    return found


def tell(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


# ---- tables ------------------------------------------------------------------------------------------------------------


def _table(rows: Mapping[str, DenoisingScores], figures: Sequence[str], published: Mapping[str, Mapping[str, float]]) -> str:
    """What was measured, then what was published."""
    best = rows[DEFAULT].mpjpe
    lines = []
    for name, scores in rows.items():
        nearer = int((best < scores.mpjpe).sum())
        compared = "" if name == DEFAULT else f"{nearer} of {len(best)}"
        lines.append([*figures_row(name, scores.report(), figures, 2), _seconds(scores), compared])
    lines += [[*figures_row(f"published: {name}", row, figures, 2), "-", "-"] for name, row in published.items()]
    return markdown(["", *(f"{name} {_UNITS[name]}" for name in figures), "s per fragment", _NEARER], lines)


def _seconds(scores: DenoisingScores) -> str:
    value = scores.report()["ms"] / 1000
    return "-" if math.isnan(value) else f"{value:.2f}"


def _margin(rows: Mapping[str, DenoisingScores], published: Mapping[str, Mapping[str, float]], figure: str = "MPJPE") -> str:
    """What a prior brings: from each row without one to that of the same solver with it, and as published."""
    pairs = [(name, ADAM if name == ADAM_ALONE else DEFAULT) for name in rows if "no prior" in name]
    changes = [f"{before} → {after}: {_drop(*(rows[name].report()[figure] for name in (before, after)))}" for before, after in pairs]
    if published:
        changes.append(f"published, no prior → DPoser: {_drop(*(published[name][figure] for name in ('no prior', 'DPoser')))}")
    return "\n".join([f"{figure}:", "", *(f"- {change}" for change in changes)])


def _drop(before: float, after: float) -> str:
    return f"{before:.2f} → {after:.2f} mm ({100 * (after / before - 1):+.0f} %)"


def _beaten(rows: Mapping[str, DenoisingScores], figures: Sequence[str]) -> str:
    """Where the default is not best."""
    default, better = rows[DEFAULT].report(), []
    for figure in figures:
        names = [name for name, scores in rows.items() if scores.report()[figure] < default[figure]]
        if names:
            better.append(f"{figure} by {'; '.join(names)}")
    return f"The default is beaten in: {'. In: '.join(better)}." if better else "The default is best in every column."


# ---- hidden limbs ------------------------------------------------------------------------------------------------------


def partial(motions: Motions, per_subject: int = 2, parts: Sequence[str] = ("legs", "left_arm"), frames: int = 60) -> str:
    """Clean joints, those of a limb hidden."""
    test = motions.fragments("test", per_subject, frames)
    figures = ("vis_MPJPE", "inv_MPJPE", "MPJPE", "MPVPE")
    pages = [
        f"{len(test)} fragments of {frames} frames, as many of each held-out subject; joints without noise, those of a limb never seen. "
        "vis: joints that were seen, inv: hidden ones. Rows and the last column as for denoising, but nothing is chosen: "
        f"the second-order solver has its default settings in both rows. {torch.get_num_threads()} threads."
    ]
    for part in parts:
        hidden = torch.nn.functional.pad(part_missing(part), (1, 0), value=False)
        observed = torch.where(hidden[:, None], math.nan, test.joints)
        paper = denoising_settings("paper", 0.0, part)
        ways = [
            Way("no prior", None, NewtonSettings()),
            Way(ADAM_ALONE, None, paper),
            Way(DEFAULT, motions.prior, NewtonSettings()),
            Way(ADAM, motions.prior, paper),
        ]
        rows = _scored(motions, test, observed, 0.0, ways, f"{part} hidden, ")
        published = published_figures("AMASS", 0.0, part)
        pages += [f"### {part.replace('_', ' ').capitalize()} hidden", _table(rows, figures, published)]
        pages += [_margin(rows, published, "inv_MPJPE"), _beaten(rows, figures)]
    return "\n\n".join(pages)


# ---- single poses ------------------------------------------------------------------------------------------------------


def ik(motions: Motions, count: int = 256) -> str:
    """A pose from pelvis, head, wrists and ankles."""
    poses = motions.poses("test", count)
    joints = joint_positions(motions.body, poses)
    wanted = torch.tensor([name in END_EFFECTORS for name in SMPLX_22.joints])
    names = [name for name, here in zip(SMPLX_22.joints, wanted, strict=True) if here]
    gaussian = dataclasses.replace(IK_SETTINGS, term=GaussianTerm(*motions.gaussian()))
    ways = {DEFAULT: (motions.prior, None), "Gaussian prior, weight 1": (motions.prior, gaussian), "no prior": (None, None)}
    rows = []
    for name, (prior, settings) in ways.items():
        generator = torch.Generator().manual_seed(motions.seed)
        start = time.perf_counter()
        fit = fit_joints(joints[:, wanted], names, prior, body=motions.body, settings=settings, generator=generator)
        duration = time.perf_counter() - start
        out = motions.body(fit.pose_body, fit.root_orient, fit.betas.expand(count, -1), fit.trans, vertices=None, joints="body")
        errors = 1000 * torch.linalg.vector_norm(out.joints - joints, dim=-1)
        row = [f"{float(errors[:, some].mean()):.1f}" for some in (wanted, ~wanted)]
        rows.append([name, *row, f"{float(errors[:, ~wanted].mean(1).quantile(0.95)):.1f}", f"{1000 * duration / count:.2f}"])
        tell(f"{name}: {' '.join(rows[-1][1:])}")
    note = (
        f"{count} held-out poses, each subject alike; {', '.join(name.replace('_', ' ') for name in names)} are given without noise, root "
        "orientation and translation are sought with the pose. Errors in mm, no alignment; 95 %: of the poses' means. All poses solved in "
        f"one batch, {torch.get_num_threads()} threads."
    )
    return f"{note}\n\n{markdown(['', 'given joints mm', 'other joints mm', 'other joints, 95 %', 'ms per pose'], rows)}"
