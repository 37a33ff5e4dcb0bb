"""Measure a lifting method on the test subjects of Human3.6M, MPI-INF-3DHP or the open benchmark.

    python -m run.eval_lift --data data/lifting                                      # the shipped DDHPose on the open benchmark
    python -m run.eval_lift -d h36m --data data -k gt --num-proposals 20 --sampling-timesteps 10 --p2 --checkpoint weights.safetensors
    python -m run.eval_lift -d 3dhp --data data --checkpoint weights.safetensors --compat
    python -m run.eval_lift --data data/lifting --subset 0.1 --compare output/eval_lift/report.json
    python -m run.eval_lift --checkpoint graformer --refine single-graph
    python -m run.eval_lift --data data/lifting --occlusion joints:0.4+noise:5 --occlusion-limbs left_arm

Several hypotheses become one pose in the ways that dposer/lifting/evaluation.py lists. --compat counts as published tables do: P-Best is
one hypothesis for all windows that are lifted at once, J-Agg knows where the root is, and on Human3.6M frames in two windows count twice.

Written are report.json, report.csv, report.md, the published log (h36m_test_log_H5_K5.txt), and for 3dhp the tables of its protocol
(mpii_3dhp_evaluation_*.csv) and the poses (inference_data_*.mat). With --tables diffhpe also protocol_1_err.csv, seg_symmetry.csv,
seg_consistency.csv, cw_err.csv and jw_err.csv, for which best and worst are hypotheses of a window; with --tables cross-channel pred.npy
(action_subject_vcamera: poses of all frames, without --subset), and a table of actions is printed.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from dposer.data.lifting_clip import LiftingClip
from dposer.data.mpi_inf_3dhp import TARGETS
from dposer.errors import InputError
from dposer.files import save_bytes
from dposer.lifting import Lifter
from dposer.lifting.config import LiftingConfig, OcclusionConfig
from dposer.lifting.evaluation import EvalSettings, evaluate
from dposer.lifting.hypotheses import Scope
from dposer.lifting.protocol_3dhp import evaluate_3dhp, write_csv, write_predictions
from dposer.lifting.report import LOGGED, Report, paired_bootstrap
from dposer.lifting.tables_diffhpe import diffhpe_tables
from dposer.lifting.tables_refiners import action_table, prediction_names, write_poses
from run._cli import cli, pick_device, step_bar, table, writable_folder
from run._lifting import Dataset, read_clips, subjects_of
from run._report import machine, markdown, save_csv

_PRINTED = 4
"""Tables."""


@dataclass
class Args:
    checkpoint: Annotated[str, tyro.conf.arg(aliases=["--evaluate"])] = "ddhpose"
    """Weights: a file, or the name of a method, whose shipped ones are taken."""
    refine: str = ""
    """Refine every pose by cross-channel or single-graph, or by such weights of your own (a file)."""
    refine_error: float | None = None
    """Millimetres: standard deviation of the errors along an axis of what is refined; default: by its error on validation subjects."""
    dataset: Annotated[Dataset, tyro.conf.arg(aliases=["-d"])] = "open"
    """h36m, 3dhp or open (python -m run.prepare_data --source lifting)."""
    data: Path = Path("data/lifting")
    """Folder of its files."""
    keypoints: Annotated[str, tyro.conf.arg(aliases=["-k"])] = ""
    """Which 2D keypoints, by the end of the file's name; default: cpn_ft_h36m_dbb (h36m), noisy (open)."""
    subjects: Annotated[str, tyro.conf.arg(aliases=["--subjects-test", "-ste"])] = ""
    """Comma list of subjects, of sequences for 3dhp; default: those of the test split."""
    actions: Annotated[str, tyro.conf.arg(aliases=["-a"])] = "*"
    """Comma list of what actions begin with."""
    target: str = TARGETS[0]
    """Of 3dhp: annot3 (true size) or univ_annot3."""
    uv_square: bool = False
    """Take pictures to be 1000 x 1000 whatever their size, as the published cross-channel refiner does."""
    num_proposals: Annotated[int, tyro.conf.arg(aliases=["-num_proposals"])] = 5
    """Hypotheses H."""
    sampling_timesteps: Annotated[int | None, tyro.conf.arg(aliases=["-sampling_timesteps"])] = None
    """Steps K of the sampler; each is measured where the method tells of it; default: as many as serve the method."""
    batch: Annotated[int, tyro.conf.arg(aliases=["-b"])] = EvalSettings.batch
    """Windows lifted at once."""
    max_batch: int = EvalSettings.max_batch
    """Sequences that the network sees at once; less needs less memory, the results are the same."""
    p2: bool = False
    """Also P-MPJPE."""
    by_subject: bool = False
    """Also each subject by itself."""
    group: Literal["auto", "action", "subject", "sequence"] = "auto"
    """What the average is over; auto: actions, or the sequences of 3dhp."""
    scope: Scope = EvalSettings.scope
    """P-Best is one hypothesis for a frame, a window or a batch."""
    root: Literal["gt", "solved", "both"] = "both"
    """How J-Agg knows where the root is: told, or solved from the keypoints."""
    aggregates: tuple[str, ...] = ()
    """Further ways to one pose: mean, median, joint, limb, soft."""
    compat: bool = False
    """Count as published tables do."""
    occlusion: str = "none"
    """Disturb the keypoints: random, arm_leg, joints, frames, noise, mixed, or several (joints:0.4+noise:5)."""
    occlusion_share: float = OcclusionConfig.share
    """Of keypoints (random) or frames that are hidden, where the pattern itself does not say."""
    occlusion_sigma: float = OcclusionConfig.sigma
    """Pixels of noise, in a picture 1000 pixels wide, where the pattern itself does not say."""
    occlusion_limbs: str = ""
    """Comma list of the limbs and joints to hide (left_arm, right_leg, trunk, head, ...) in place of those of the pattern."""
    worst: bool = False
    """Also P-Worst, the hypothesis farthest from the truth."""
    tables: Literal["own", "diffhpe", "cross-channel"] = "own"
    """diffhpe, cross-channel: also what their published code prints and writes."""
    subset: float = 1.0
    """Share of the windows, for a quick look."""
    downsample: int = 1
    """Keep every k-th frame."""
    compare: Path | None = None
    """report.json of another run on the same windows: tell the difference and its interval."""
    output: Path = Path("output/eval_lift")
    """Folder of the results."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    seed: int = 0

    def settings(self, steps: int) -> EvalSettings:
        """``steps``: where none are asked for."""
        group = ("subject" if self.dataset == "3dhp" else "action") if self.group == "auto" else self.group
        chosen = EvalSettings(
            self.num_proposals, self.sampling_timesteps or steps, self.batch, self.max_batch, self.scope, self.root, self.aggregates,
            every=round(1 / self.subset), group=group, by_subject=self.by_subject, seed=self.seed,
            p2=self.p2 or self.tables == "cross-channel", worst=self.worst,
            occlusion=OcclusionConfig(self.occlusion, self.occlusion_share, self.occlusion_sigma, self.occlusion_limbs),
        )  # fmt: skip
        if self.tables == "diffhpe":
            chosen = replace(chosen, scope="window", worst=True)
        return chosen.published("3dhp" if self.dataset == "3dhp" else "h36m") if self.compat else chosen


def main(args: Args) -> None:
    if not 0 < args.subset <= 1:
        raise InputError(f"--subset {args.subset}, expected a share of the windows, above 0 and at most 1")
    args.settings(1)  # refuses what cannot be, before anything is read
    other = None if args.compare is None else Report.read(args.compare)
    device = pick_device(args.device)
    writable_folder(args.output)
    lifter = Lifter.from_pretrained(args.checkpoint, device)
    if args.refine:
        error = None if args.refine_error is None else args.refine_error / 1000
        lifter = lifter.refined(Lifter.from_pretrained(args.refine, device), error)
    settings = args.settings(lifter.model.usual)
    clips = _clips(args, lifter.config)
    poses: dict[str, dict[str, np.ndarray]] = defaultdict(dict)

    whole_3dhp, names = args.dataset == "3dhp" and settings.every == 1, prediction_names(clips)

    def keep(clip: LiftingClip, setting: str, found: Tensor) -> None:
        poses[setting][clip.subject if whole_3dhp else names[clip.name]] = found.numpy()

    kept = whole_3dhp or args.tables == "cross-channel"
    report = evaluate(lifter.model, clips, settings, step_bar("windows"), keep if kept else None)
    if report.hypotheses < args.num_proposals:
        report = replace(report, notes=[*report.notes, f"{report.method} gives {report.hypotheses} hypothesis, at once"])
    for title, header, rows in report.tables()[:_PRINTED]:
        print(f"\n{title}\n{table(header, rows)}")
    for note in report.notes:
        print(f"\nnote: {note}")
    _write(args, report, device)
    if args.tables == "cross-channel":
        print("\n" + action_table(report, "P-Agg"))
        if settings.every == 1:
            write_poses(args.output / "pred.npy", {name: steps[-1] for name, steps in poses["P-Agg"].items()})
    if whole_3dhp:
        _protocol_3dhp(args, clips, poses)
    if other is not None:
        print("\n" + _compared(report, other, args.seed))
    print(f"\nwritten to {args.output}")


def _clips(args: Args, config: LiftingConfig) -> list[LiftingClip]:
    if args.dataset == "3dhp" and (args.downsample != 1 or args.actions != "*" or args.keypoints):
        raise InputError(
            "--downsample, --actions, --keypoints: 3dhp has none of them, its protocol counts every valid frame; leave them out"
        )
    subjects = tuple(filter(None, args.subjects.split(","))) or subjects_of(args.dataset, args.data, "test")
    aspect: Literal["compat", "clean"] = "compat" if args.compat else "clean"
    return read_clips(
        args.dataset, args.data, args.keypoints, subjects, args.actions, args.downsample, config, args.target, aspect, args.uv_square
    )


def _write(args: Args, report: Report, device: torch.device) -> None:
    rows = report.flat()
    save_bytes(args.output / "report.json", report.to_json().encode())
    save_csv(args.output / "report.csv", rows, list(rows[0]))
    parts = [
        f"# {report.method} on {args.dataset}",
        f"H = {report.hypotheses}, K = {report.settings['steps']}, {report.clips} clips, {report.windows} windows, {report.frames} frames; "
        f"{report.clamped:.2f} % of coordinates clamped; weights {args.checkpoint}, seed {args.seed}; {machine(device)}",
        *(f"Note: {note}." for note in report.notes),
        *(f"## {title}\n\n{markdown(header, lines)}" for title, header, lines in report.tables()),
    ]
    save_bytes(args.output / "report.md", ("\n\n".join(parts) + "\n").encode())
    name = f"{args.dataset}_test_log_H{report.hypotheses}_K{report.settings['steps']}.txt"
    save_bytes(args.output / name, ("\n".join(report.log_lines()) + "\n").encode())
    for file, lines in (diffhpe_tables(report) if args.tables == "diffhpe" else {}).items():
        save_csv(args.output / file, lines, list(lines[0]))


def _protocol_3dhp(args: Args, clips: Sequence[LiftingClip], poses: dict[str, dict[str, np.ndarray]]) -> None:
    """Write the tables and poses of the data set's own protocol, print its totals after the last step."""
    rows = []
    for setting, name in LOGGED.items():
        if setting not in poses:
            continue
        write_predictions(args.output / f"inference_data_{name}.mat", poses[setting])
        for step in range(len(next(iter(poses[setting].values())))):
            found = evaluate_3dhp({subject: steps[step] for subject, steps in poses[setting].items()}, clips)
            write_csv(args.output, found, name, step + 1, args.target)
        rows.append([setting, f"{found.mpjpe:.2f}", f"{found.pck:.2f}", f"{found.auc:.2f}"])
    print(f"\nMPI-INF-3DHP's protocol ({args.target}), last step\n{table(['setting', 'MPJPE mm', 'PCK %', 'AUC %'], rows)}")


def _compared(report: Report, other: Report, seed: int) -> str:
    """MPJPE of this run less that of the other over the same windows."""
    mine, theirs = report.window_errors, other.window_errors
    if (mine.clip, mine.start) != (theirs.clip, theirs.start):
        raise InputError("--compare: that report is of other windows; evaluate on the same data, subjects and --subset")
    rows = []
    for setting in mine.errors.keys() & theirs.errors.keys():
        pair = torch.tensor(mine.errors[setting]), torch.tensor(theirs.errors[setting])
        found = paired_bootstrap(*pair, torch.Generator().manual_seed(seed), mine.takes)
        rows.append([setting, f"{found.mean:+.3f}", f"{found.low:+.3f}", f"{found.high:+.3f}", f"{found.p:.4f}"])
    order = list(mine.errors)
    rows.sort(key=lambda row: order.index(row[0]))
    title = f"this run less the other ({other.method}, H = {other.hypotheses}, K = {other.settings['steps']}), mean MPJPE of windows"
    return f"{title}\n{table(['setting', 'mm', 'low 95 %', 'high 95 %', 'p'], rows)}"


if __name__ == "__main__":
    cli(main)
