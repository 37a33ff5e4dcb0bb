"""Measure many hypotheses of a lifting method: how near the best comes, and whether their spread is honest.

    python -m run.eval_hypotheses --checkpoint diffpose -d heatmaps --data data/heatmaps -n 200 --plot
    python -m run.eval_hypotheses --checkpoint d3dp --data data/lifting -n 20 --every 64 --dump output/d3dp.npz
    python -m run.eval_hypotheses --dumps output/diffpose.npz output/d3dp.npz --plot
    python -m run.eval_hypotheses --dumps hard_samples_poses.npy part1.pkl+part2.pkl

Dumps are compared at the same n, the least number of hypotheses among them: of the others the first n count. Each may be several files:
a+b joins hypotheses of the same frames, a,b puts frames one after another. Files are those of dposer/data/hypothesis_dumps.py.

Human3.6M's protocol takes every 16th row of the stored test set (--every 16) and the mean of actions; that of its ambiguous frames (H36MA)
all of them (--hard-only) alike. Written are report.json, report.csv, report.md and the published texts (eval_*.txt, full_eval_*.txt); of
several dumps each in its own folder, with comparison.md and comparison.csv beside them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from dposer.data.hypothesis_dumps import Dump, Origin, ScoredFrames, check_name, check_same, joined, read_hypotheses, write_hypotheses
from dposer.data.mpi_inf_3dhp import TARGETS
from dposer.errors import InputError
from dposer.files import save_bytes
from dposer.lifting import Lifter
from dposer.lifting.checkpoint import LiftingCheckpoint
from dposer.lifting.hypothesis_report import HypothesisReport, comparison, curve_of, hypotheses_of
from dposer.lifting.hypothesis_scores import HypothesisScores
from dposer.lifting.model import MAX_BATCH, LiftingModel
from dposer.lifting.report import Table
from dposer.viz import save_image
from dposer.viz.calibration import plot_best_of, plot_calibration, plot_coverage
from run._cli import cli, pick_device, step_bar, table, writable_folder
from run._lifting import Dataset, read_clips, subjects_of
from run._report import machine, markdown, save_csv

_CHUNK = 256
"""Frames of a dump that are scored at once."""


@dataclass
class Args:
    dumps: tuple[str, ...] = ()
    """Files of hypotheses to compare; without them --checkpoint is lifted with."""
    checkpoint: str = "diffpose"
    """Weights: a file, or the name of a method, whose shipped ones are taken."""
    dataset: Annotated[Dataset, tyro.conf.arg(aliases=["-d"])] = "heatmaps"
    """Which kind of data."""
    data: Path = Path("data/heatmaps")
    """Folder, or file, of it."""
    keypoints: Annotated[str, tyro.conf.arg(aliases=["-k"])] = ""
    """Which 2D keypoints, by the end of the file's name; of heatmaps which presets, of h5 which protocol."""
    subjects: str = ""
    """Comma list; default: those of the test split."""
    actions: Annotated[str, tyro.conf.arg(aliases=["-a"])] = "*"
    """Comma list of what actions begin with."""
    target: str = TARGETS[0]
    """Of 3dhp: annot3 or univ_annot3."""
    hypotheses: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None
    """N of a frame; default: 200, of dumps all that each of them has."""
    sampling_timesteps: int | None = None
    """Steps of the sampler; default: as many as serve the method."""
    every: int = 1
    """Of all frames, one after another, take every so many."""
    hard_only: bool = False
    """Take the ambiguous frames alone."""
    group: Literal["auto", "action", "subject", "sequence"] = "auto"
    """What the average is over; auto: actions, or the sequences of 3dhp."""
    central: bool = True
    """Of diffpose: also the pose that is drawn without noise (z0), from candidates of its own."""
    highest_only: bool = False
    """Of diffpose: also tell heatmaps by their highest cells alone, for the spread that does not come of the picture."""
    uncertain: int = 0
    """List so many of the frames whose hypotheses are farthest apart."""
    max_batch: int = MAX_BATCH
    """Sequences that the network sees at once; less needs less memory, the results are the same."""
    dump: Path | None = None
    """Write the hypotheses: NAME.npz, or NAME_samples_poses.npy and what goes with it. All are kept in memory until then."""
    plot: bool = False
    """Also draw calibration.png, coverage.png and best_of_n.png."""
    output: Path = Path("output/eval_hypotheses")
    """Folder of the results."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    seed: int = 0


def main(args: Args) -> None:
    for flag, value, least in (("-n", args.hypotheses or 1, 1), ("--every", args.every, 1), ("--uncertain", args.uncertain, 0)):
        if value < least:
            raise InputError(f"{flag} {value}, expected {least} or more")
    if args.dump is not None:
        check_name(args.dump)
    writable_folder(args.output)
    if args.dumps:
        _compare(args)
    else:
        _lift(args)
    print(f"\nwritten to {args.output}")


# ---- a method ----------------------------------------------------------------------------------------------------------


def _lift(args: Args) -> None:
    device = pick_device(args.device)
    lifter = Lifter.from_pretrained(args.checkpoint, device)
    model, config, heatmaps = lifter.model, lifter.config, lifter.config.inputs == "heatmap"
    if args.highest_only and not heatmaps:
        raise InputError(f"--highest-only: {config.method} sees no heatmaps, expected diffpose; leave it out")
    subjects = tuple(filter(None, args.subjects.split(","))) or subjects_of(args.dataset, args.data, "test")
    clips = read_clips(args.dataset, args.data, args.keypoints, subjects, args.actions, 1, config, args.target)
    number, joints = args.hypotheses or 200, config.skeleton.joints
    group = ("subject" if args.dataset == "3dhp" else "action") if args.group == "auto" else args.group
    lift = partial(
        hypotheses_of, model, clips, number, args.sampling_timesteps, args.seed, args.max_batch,
        every=args.every, hard_only=args.hard_only, group=group,
    )  # fmt: skip
    central = _central(lifter.checkpoint).to(device) if args.central and heatmaps else None
    kept: list[ScoredFrames] = []

    def frames() -> Iterator[ScoredFrames]:
        for some in lift(step_bar("frames"), central=central):
            if args.dump is not None:
                kept.append(some)
            yield some

    scores, origin = HypothesisScores.of(frames(), joints, args.uncertain, device), _origin(args, lifter)
    highest = None
    if args.highest_only:
        highest = HypothesisScores.of(lift(step_bar("highest cells"), highest_only=True), joints, device=device)
    report = HypothesisReport.of(scores, origin, args.seed, highest)
    if scores.hypotheses < number:
        report = replace(report, notes=[*report.notes, f"{config.method} gives {scores.hypotheses} hypothesis"])
    _tell(_brief(report))
    _write(args.output, report, machine(device))
    if args.dump is not None:
        write_hypotheses(args.dump, Dump(ScoredFrames.stacked(kept), tuple(joints), origin))
    if args.plot:
        _plot(args.output, {config.method: report}, [scores])


def _central(checkpoint: LiftingCheckpoint) -> LiftingModel:
    """The same method without noise."""
    silent = replace(checkpoint.config, heatmap=replace(checkpoint.config.heatmap, noise=0.0))
    return replace(checkpoint, config=silent).model()


def _origin(args: Args, lifter: Lifter) -> Origin:
    steps = (args.sampling_timesteps or lifter.model.usual) if lifter.model.usual > 1 else 1
    weights = str(lifter.checkpoint.provenance.get("weights", "EMA" if lifter.config.optim.ema else "raw"))
    name = "-".join(filter(None, (args.dataset, args.keypoints.replace(",", "-"))))
    return Origin(lifter.config.method, steps, weights, args.seed, name)


# ---- dumps -------------------------------------------------------------------------------------------------------------


def _compare(args: Args) -> None:
    if args.dump is not None and len(args.dumps) > 1:
        raise InputError("--dump: several --dumps, expected one, whose files are joined; join them by + or by a comma")
    dumps = [_read(text) for text in args.dumps]
    for other in dumps[1:]:
        check_same(dumps[0], other)
    dumps = [replace(dump, frames=_chosen(dump.frames, dumps[0].frames, args)) for dump in dumps]
    least = min(dump.frames.hypotheses.shape[1] for dump in dumps)
    number = args.hypotheses or least
    if number > least:
        raise InputError(f"-n {number}: a dump has {least} hypotheses, expected at most as many; leave -n out")
    scores = [_scores(dump, number, args.uncertain) for dump in dumps]
    wholes = [_scores(dump, None) if dump.frames.hypotheses.shape[1] > number else some for dump, some in zip(dumps, scores, strict=True)]
    reports = [HypothesisReport.of(some, dump.origin, args.seed) for some, dump in zip(scores, dumps, strict=True)]
    if len(dumps) == 1:
        _tell(_brief(reports[0]))
        _write(args.output, reports[0], machine())
    else:
        _write_comparison(args, _labels(dumps), reports, scores, wholes)
    if args.dump is not None:
        write_hypotheses(args.dump, dumps[0])
    if args.plot:
        _plot(args.output, dict(zip(_labels(dumps), reports, strict=True)), wholes)


def _read(text: str) -> Dump:
    """``a+b,c``: hypotheses of a and b, then frames of c."""
    parts = [joined([read_hypotheses(path) for path in part.split("+")]) for part in text.split(",")]
    if any(part.joints != parts[0].joints for part in parts):
        raise InputError(f"{text}: joints of different names, expected the same in all files")
    return parts[0] if len(parts) == 1 else replace(parts[0], frames=ScoredFrames.stacked([part.frames for part in parts]))


def _chosen(frames: ScoredFrames, first: ScoredFrames, args: Args) -> ScoredFrames:
    """Those that count, under the names that the first dump has for them."""
    rows = np.flatnonzero((np.arange(len(first)) % args.every == 0) & (first.hard | (not args.hard_only)))
    return replace(frames, group=first.group, hard=first.hard, clip=first.clips).take(rows)


def _scores(dump: Dump, number: int | None, uncertain: int = 0) -> HypothesisScores:
    """Of the first hypotheses, or of all."""
    return HypothesisScores.of(dump.frames.first(number).chunks(_CHUNK), dump.joints, uncertain)


def _labels(dumps: Sequence[Dump]) -> list[str]:
    names = [dump.origin.method.replace("/", "-") for dump in dumps]
    return [name if names.count(name) == 1 else f"{name} {number}" for number, name in enumerate(names, 1)]


# ---- what is written ---------------------------------------------------------------------------------------------------


def _tell(tables: Sequence[Table]) -> None:
    for title, header, rows in tables:
        print(f"\n{title}\n{table(header, rows)}")


def _brief(report: HypothesisReport) -> list[Table]:
    """Without the tables of joints."""
    return [some for some in report.tables() if some.header[0] != "joint"]


def _markdown(tables: Sequence[Table]) -> list[str]:
    return [f"## {title}\n\n{markdown(header, rows)}" for title, header, rows in tables]


def _write(folder: Path, report: HypothesisReport, on: str) -> None:
    save_bytes(folder / "report.json", report.to_json().encode())
    rows = report.flat()
    save_csv(folder / "report.csv", rows, list(rows[0]))
    notes = [f"Note: {note}." for note in report.notes]
    text = [f"# {report.origin.method}, N = {report.hypotheses}", f"{report}; {on}", *notes, *_markdown(report.tables())]
    save_bytes(folder / "report.md", ("\n\n".join(text) + "\n").encode())
    for name, lines in report.text_files().items():
        save_bytes(folder / name, lines.encode())


def _write_comparison(
    args: Args,
    labels: Sequence[str],
    reports: Sequence[HypothesisReport],
    scores: Sequence[HypothesisScores],
    wholes: Sequence[HypothesisScores],
) -> None:
    tables = {part: comparison(labels, reports, scores, wholes, part, args.seed) for part in reports[0].parts}
    _tell(tables["all"])
    for label, report in zip(labels, reports, strict=True):
        _write(args.output / label, report, machine())
    lines = [{"label": label} | row for label, report in zip(labels, reports, strict=True) for row in report.flat()]
    save_csv(args.output / "comparison.csv", lines, list(lines[0]))
    text = [f"# {', '.join(labels)}", *(f"{label}: {report}; {machine()}" for label, report in zip(labels, reports, strict=True))]
    text += [line for some in tables.values() for line in _markdown(some)]
    save_bytes(args.output / "comparison.md", ("\n\n".join(text) + "\n").encode())


def _plot(folder: Path, reports: dict[str, HypothesisReport], wholes: Sequence[HypothesisScores]) -> None:
    """Pictures of each report, and all curves of best of n in one."""
    for label, report in reports.items():
        mine = folder / label if len(reports) > 1 else folder
        row = report.row()
        moving = [joint for joint, name in enumerate(report.joints) if name != "pelvis"]
        names = [report.joints[joint] for joint in moving]
        errors = np.array(row.joints["ECE"])[moving]
        save_image(mine / "calibration.png", plot_calibration(report.levels, np.array(row.omega)[moving], names, errors, str(report)))
        shares = {level: [row.joints[f"coverage {level} %"][joint] for joint in moving] for level in (50, 90)}
        save_image(mine / "coverage.png", plot_coverage(shares, names, str(report)))
    curves = {
        f"{label} {part}": (list(curve), list(curve.values()))
        for label, scores in zip(reports, wholes, strict=True)
        for part in scores.parts[:2]
        for curve in [curve_of(scores, part=part)]
    }
    save_image(folder / "best_of_n.png", plot_best_of(curves))


if __name__ == "__main__":
    cli(main)
