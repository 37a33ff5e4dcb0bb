"""Measure pose completion by the protocol of the published tables: hide a part of every pose of a split, complete it, score it.

    python -m run.completion                                                   # the test split, left leg, ten hypotheses each
    python -m run.completion --part left_leg legs arms trunk --mode posterior DPoser ScoreSDE DPS --baselines
    python -m run.completion --mode DPoser --preset v1 --sample 10
    python -m run.completion --missing left_elbow,right_knee.x                 # any joints, any axes, or a mask file
    torchrun --nproc-per-node 2 -m run.completion --part arms

Every pose counts: the last batch is smaller, none is dropped. A run that was stopped is continued by the same command, from the
batches it finished (<output>/<mode>/<part>/batch_*.npz). The noise of a batch is decided by the seed, the mode, the part and the
number of its first pose: with one --batch-size, any number of processes and any interruptions give the same results, to the bit
if every process computes on as many threads and the same kind of device. Another batch size draws other noise.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dposer import __version__
from dposer.body import BodyModel
from dposer.body.skeleton import PARTS
from dposer.data.masks import read_missing
from dposer.data.processed import read_split
from dposer.errors import InputError
from dposer.files import save_json, save_npz
from dposer.prior.pose_prior import Progress
from dposer.randomness import keyed_generator
from dposer.solvers.completion import PRESETS, Mode, mode_settings
from dposer.solvers.completion_scores import (
    BASELINES,
    FIGURES,
    CompletionResult,
    Solve,
    baseline,
    evaluate_completion,
    published_figures,
    solver,
)
from run._cli import cli, load_prior, step_bar, table, writable_folder
from run._report import machine, save_csv
from run._shards import Crew, Shards, digest, processes

PUBLISHED_HYPOTHESES = 10
NOTE = """MPVPE and MPJPE in mm over the missing part, no alignment; APD in cm; plausible: % of held-out motion that is less so;
evaluations: of the network per hypothesis, one whose gradient is taken counts as one; ms: of the solver per hypothesis."""
PUBLISHED_NOTE = """published: by DPoser (arXiv 2312.05541) and DPoser-X (arXiv 2508.00599) for weights trained on AMASS, on its test split,
with SMPL-X; comparable only with those weights, those poses and that body."""


@dataclass
class Args:
    ckpt_path: Path | None = None
    """Weights: a .safetensors of this library or a published .pth/.ckpt; default: the prior that ships."""
    bodymodel_path: Path | None = None
    """SMPL-X, SMPL-H or SMPL file; default: the open body that ships."""
    dataset_folder: Path = Path("./data/AMASS/amass_processed")
    """Folder of processed data sets (python -m run.prepare_data)."""
    version: str = "version1"
    """Which of them."""
    split: str = "test"
    """Which of its splits."""
    hypo: int = 10
    """Completions of each pose (1 to 1000)."""
    part: tuple[str, ...] = ()
    """What is hidden, a table row each: left_leg, right_leg, left_arm, right_arm, trunk, hands, legs, arms, left_body, right_body;
    default: left_leg, or nothing but --missing where that is given."""
    missing: str | None = None
    """What is hidden in words (legs+head, left_elbow,right_knee.x) or as a mask file (.npz with missing, .npy, .pt, .txt, .csv)."""
    mode: tuple[Mode, ...] = ("posterior",)
    """Who completes, one table row each."""
    preset: str | None = None
    """Settings as a release had them: v1, v1-demo, v2, v2-demo, x or paper for DPoser, v2 for ScoreSDE, MCG and DPS."""
    steps: int | None = None
    """Steps of the solver; default: the mode's own."""
    sample: int = 1
    """Keep every k-th pose."""
    batch_size: int = 100
    """Poses completed at once, each --hypo times."""
    baselines: bool = False
    """Also measure the mean, the nearest and the ten nearest poses of the train split."""
    save_poses: bool = False
    """Also write the poses, what was missing and the completions: <output>/<mode>/<part>/completions.npz."""
    output: Path = Path("./output/completion")
    """Where results go."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    seed: int = 42
    """Same seed, same device, same result."""


@dataclass(frozen=True)
class Task:
    """One row of the table: who completes what."""

    mode: str
    part: str
    missing: str | Tensor
    solve: Solve
    shards: Shards


class Study:
    """The poses, the models and the tasks."""

    def __init__(self, args: Args, crew: Crew):
        self.args = _checked(args)
        self.device = crew.device(args.device)
        data = args.dataset_folder / args.version
        self.poses = read_split(data, args.split, args.sample).pose_body
        self.batches = -(-len(self.poses) // args.batch_size)
        if crew.size > self.batches:
            raise InputError(
                f"{crew.size} processes for {len(self.poses)} poses in {self.batches} batches of {args.batch_size}: some would have none; "
                f"start at most {self.batches}, or lower --batch-size"
            )
        self.prior = load_prior(args.ckpt_path, data, self.device)
        self.body = BodyModel(args.bodymodel_path, device=self.device)
        self.shared = self._shared_settings()
        hidden = _hidden(args, len(self.poses))
        self.tasks = [
            self._task(mode, part, missing, solve, decisive)
            for mode, (solve, decisive) in self._solvers().items()
            for part, missing in hidden.items()
        ]

    def _solvers(self) -> dict[str, tuple[Solve, dict[str, Any]]]:
        """Who completes, by name, and the settings that decide how."""
        args = self.args
        solvers: dict[str, tuple[Solve, dict[str, Any]]] = {}
        for mode in dict.fromkeys(args.mode):
            settings = mode_settings(self.prior, mode, args.preset if args.preset in PRESETS.get(mode, {}) else None, args.steps)
            solvers[mode] = (solver(self.prior, mode, args.hypo, settings), {"hypo": args.hypo, "solver": repr(settings)})
        if args.baselines:
            training = read_split(args.dataset_folder / args.version, "train").pose_body.to(self.device)
            for name in BASELINES:
                solvers[name] = (baseline(name, training), {"training poses": digest([training])})
        return solvers

    def _shared_settings(self) -> dict[str, Any]:
        """What decides the numbers of every task."""
        args = self.args
        return {
            "seed": args.seed, "split": args.split, "sample": args.sample, "batch_size": args.batch_size, "poses": len(self.poses),
            "save_poses": args.save_poses, "device": self.device.type, "data": digest([self.poses]),
            "weights": digest(self.prior.state_dict().values()), "body": digest([self.body.v_template, self.body.weights]),
            "library": __version__,
        }  # fmt: skip

    def _task(self, mode: str, part: str, missing: str | Tensor, solve: Solve, decisive: dict[str, Any]) -> Task:
        settings = {"mode": mode, "part": part, **decisive, **self.shared}
        if isinstance(missing, Tensor):
            settings["missing"] = digest([missing])
        return Task(mode, part, missing, solve, Shards(self.args.output / mode / part, self.batches, settings))

    def compute(self, task: Task, batch: int, progress: Progress | None = None) -> dict[str, Any]:
        """One batch of a task, as arrays."""
        first = batch * self.args.batch_size
        rows = slice(first, first + self.args.batch_size)
        missing = task.missing[rows] if isinstance(task.missing, Tensor) and task.missing.ndim == 2 else task.missing
        generator = keyed_generator(self.device, self.args.seed, task.mode, task.part, first)
        result = evaluate_completion(self.prior, self.body, self.poses[rows], missing, task.solve, generator, progress)
        arrays = result.arrays()
        if not self.args.save_poses:
            arrays["completions"] = arrays["completions"][..., :0]  # by far the largest
        return arrays


def main(args: Args) -> None:
    with processes() as crew:
        study = crew.leader_first(lambda: Study(args, crew))
        for task in study.tasks:
            crew.leader_first(task.shards.open)
        for task, batches in [(task, crew.share(task.shards.remaining())) for task in study.tasks]:
            watch = _Watch(study, task, batches) if crew.is_leader and batches else None
            for batch in batches:
                task.shards.write(batch, study.compute(task, batch, watch.within(batch) if watch else None))
        crew.wait()
        if crew.is_leader:
            _report(study)


class _Watch:
    """A progress bar over the poses of this process."""

    def __init__(self, study: Study, task: Task, batches: Sequence[int]):
        self.sizes = {batch: len(study.poses[batch * study.args.batch_size :][: study.args.batch_size]) for batch in batches}
        self.update = step_bar(f"poses, {task.mode}, {task.part}")

    def within(self, batch: int) -> Progress:
        before = sum(size for other, size in self.sizes.items() if other < batch)
        total = sum(self.sizes.values())
        return lambda done, steps: self.update(before + self.sizes[batch] * done // steps, total)


def _checked(args: Args) -> Args:
    for name, high in {"hypo": 1000, "batch_size": 1_000_000, "sample": 1_000_000, "steps": 100_000}.items():
        if (value := getattr(args, name)) is not None and not 1 <= value <= high:
            raise InputError(f"--{name.replace('_', '-')} {value}, expected 1 to {high}")
    for part in args.part:
        if part not in PARTS:
            raise InputError(f"--part {part} does not exist, expected some of {', '.join(PARTS)}; single joints go with --missing")
    if args.preset is not None and not any(args.preset in PRESETS.get(mode, {}) for mode in args.mode):
        owners = " or ".join(mode for mode, presets in PRESETS.items() if args.preset in presets) or "no mode"
        raise InputError(f"--preset {args.preset}: belongs to {owners}, found --mode {' '.join(args.mode)}; give a mode that has it")
    writable_folder(args.output)
    return args


def _hidden(args: Args, poses: int) -> dict[str, str | Tensor]:
    """What is missing by name: parts by themselves, which have published segments, and the mask of --missing."""
    hidden: dict[str, str | Tensor] = {part: part for part in args.part or (() if args.missing else ("left_leg",))}
    if args.missing:
        words = Path(args.missing).stem if "/" in args.missing else args.missing
        hidden["missing_" + re.sub(r"[^\w.+-]+", "_", words)[:80]] = read_missing(args.missing, poses)
    return hidden


# ---- results -----------------------------------------------------------------------------------------------------------


def _report(study: Study) -> None:
    """Merge the batches, write the files and print the table."""
    rows: list[dict[str, Any]] = []
    for task in study.tasks:
        result = CompletionResult.from_arrays(task.shards.read())
        poses, hypotheses = result.plausibility.shape
        rows.append({"mode": task.mode, "part": task.part, "poses": poses, "hypotheses": hypotheses, **result.report()})
        folder = task.shards.folder
        _save_rows(folder / "poses.csv", _rows({"pose": range(0, poses * study.args.sample, study.args.sample), **result.per_pose()}))
        if study.args.save_poses:
            _save_poses(folder / "completions.npz", study, task, result)
    _save_rows(study.args.output / "results.csv", rows)
    flags = {key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(study.args).items()}
    report = {"results": [_plain(row) for row in rows], "published": PUBLISHED_NOTE, "flags": flags, "machine": machine(study.device)}
    save_json(study.args.output / "results.json", report | {"settings": [dict(task.shards.settings) for task in study.tasks]})
    print(_table(study.args, rows))
    print(f"\nwritten to {study.args.output}: results.csv, results.json and, of each pose, <mode>/<part>/poses.csv")


def _save_poses(path: Path, study: Study, task: Task, result: CompletionResult) -> None:
    """pose_body (N, 63), missing (63,) or (N, 63), completions (N, H, 63)."""
    missing = read_missing(task.missing, len(study.poses)) if isinstance(task.missing, str) else task.missing
    save_npz(path, {"pose_body": study.poses.numpy(), "missing": missing.numpy(), "completions": result.completions.numpy()})


def _save_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    save_csv(path, [_plain(row) for row in rows], list(rows[0]))


def _rows(columns: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    values = [column.tolist() if isinstance(column, Tensor) else column for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Without NaN, which JSON does not know: what has no value is None."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def _table(args: Args, rows: Sequence[Mapping[str, Any]]) -> str:
    """Our rows, each with the published one below where the setting is the same."""
    lines: list[list[str]] = []
    for row in rows:
        lines.append([row["mode"], row["part"], *(_number(name, row[name]) for name in FIGURES)])
        if args.split == "test" and row["hypotheses"] == PUBLISHED_HYPOTHESES and (figures := published_figures(row["mode"], row["part"])):
            lines.append(["  published", row["part"], *(_number(name, figures.get(name, math.nan)) for name in FIGURES)])
    text = table(["mode", "missing", *(_HEADERS.get(name, name) for name in FIGURES)], lines)
    notes = [NOTE] + [PUBLISHED_NOTE] * any(line[0].strip() == "published" for line in lines)
    return "\n".join([f"{rows[0]['poses']} poses of the {args.split} split, {args.hypo} hypotheses each", "", text, "", *notes])


_HEADERS = {"MPVPE mean": "mean", "MPVPE std": "std", "MPJPE mean": "mean", "MPJPE std": "std", "plausibility": "plausible"}


def _number(name: str, value: float) -> str:
    return "-" if not math.isfinite(value) else f"{value:.0f}" if name == "evaluations" else f"{value:.2f}"


if __name__ == "__main__":
    cli(main)
