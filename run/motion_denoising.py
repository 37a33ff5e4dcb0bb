"""Denoise motion: noisy, partly hidden 3D joints of AMASS sequences back into body poses, measured or on film.

    python -m run.motion_denoising                                             # the shipped example, 40 mm of noise, on film
    python -m run.motion_denoising --part left_arm --file-path walk_stageii.npz --view left_half
    python -m run.split_fragments --input-dir AMASS/HumanEva --output-dir fragments
    python -m run.motion_denoising --data-dir fragments --noise-std 0.1        # every fragment, scored
    python -m run.motion_denoising --data-dir fragments --preset v1 --time-strategy 1
    python -m run.motion_denoising --data-dir fragments --prior None           # without any prior
    torchrun --nproc-per-node 2 -m run.motion_denoising --data-dir fragments --part legs

The 22 joints of the poses, root and shape at zero, are measured with noise; poses are then sought from the measurement alone.
The noise of a fragment is decided by the seed and its name: whatever the batch size, the data is the same. A run over a
folder that was stopped is continued by the same command, from the batches it finished (<out>/batches/batch_*.npz).
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dposer import __version__
from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.parts import part_surface
from dposer.body.skeleton import PARTS, SMPLX_JOINTS, SMPLX_PARENTS
from dposer.data.amass import AmassSequence, write_amass
from dposer.data.fragments import read_motion
from dposer.data.masks import read_missing
from dposer.errors import InputError
from dposer.files import save_json
from dposer.prior.config import PriorConfig
from dposer.prior.pose_prior import Progress
from dposer.prior.timesteps import Strategy
from dposer.randomness import keyed_generator
from dposer.solvers.denoising_scores import FIGURES, DenoisingScores, Solve, denoising_scores, evaluate_denoising, published_figures, solver
from dposer.solvers.generation_scores import joint_positions
from dposer.solvers.motion_adam import Dataset, Release
from dposer.solvers.motion_denoising import JOINTS, MotionSettings, NewtonSettings, denoising_settings, simulate, smooth_poses
from dposer.viz import contact_sheet, save_image, write_video
from dposer.viz.motion import Layer, MeshLayer, Pane, PointLayer, Stage, film
from dposer.viz.render import view_rotation
from dposer.viz.skeletons import side_colours
from run._cli import cli, load_prior, pick_device, progress_bar, step_bar, table, writable_folder
from run._report import machine, save_csv
from run._shards import Crew, Shards, digest, processes, work_through
from run._studio import COMPLETED, KNOWN

FILM_FPS = 20
_REACH = 1.15
"""From the pelvis to the tip of a raised hand, metres."""
SHEET_ROWS = 8
NOTE = """Errors in mm, no alignment: MPJPE over 22 joints, MPVPE over the surface, init of what was measured; acceleration error in
mm/frame², jitter in mm/frame³; ms: of the solver per fragment."""
PUBLISHED_NOTE = """published: DPoser-X (arXiv 2508.00599), weights trained on AMASS, 60-frame fragments of HPS or AMASS's HumanEva subset,
with SMPL-X; comparable only with those weights, those fragments and that body."""


@dataclass
class Args:
    config: PriorConfig | None = None
    """A recipe file, as the original command has it; nothing is read from it, the network's settings come with the weights."""
    dataset_folder: Path = Path("./data/AMASS/amass_processed")
    """Where a published checkpoint's normaliser is looked for."""
    version: str = "version1"
    """Version folder below --dataset-folder."""
    ckpt_path: Path | None = None
    """Weights: a .safetensors of this library or a published .pth/.ckpt; default: the prior that ships."""
    bodymodel_path: Path | None = None
    """SMPL-X, SMPL-H or SMPL file; default: the open body that ships."""
    outpath_folder: Path = Path("./output/test_results/motion_denoise")
    """Where results go."""
    noise_std: float | None = None
    """Standard deviation of the noise in metres; default: 0.04, or 0 where joints are hidden."""
    part: str | None = None
    """A part that is hidden: left_leg, right_leg, left_arm, right_arm, trunk, hands, legs, arms, left_body, right_body."""
    missing: str | None = None
    """Joints that are hidden, in words (legs+head, left_elbow,right_knee) or as a mask file (.npz with missing, .npy, .pt, .txt, .csv)."""
    preset: Release | None = None
    """Solve as a release did: v1, v2, x (DPoser-X), or paper (its text); default: the library's own solver."""
    time_strategy: Strategy = "3"
    """Times that a preset asks the prior at: 1 random, 2 fixed, 3 truncated annealing."""
    prior: Literal["DPoser", "None"] = "DPoser"
    """None solves from the measurement and smoothness alone."""
    post_smooth: bool = False
    """Smooth the resulting poses over three frames; the preset v1 and those for hidden parts always do."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    file_path: Path | None = None
    """One sequence, with pictures and a film; default: examples/motion.npz."""
    data_dir: Path | None = None
    """Folder whose every .npz is denoised and scored: fragments (python -m run.split_fragments) or AMASS sequences."""
    dataset: Dataset = "AMASS"
    """What the data is: the name of the CSV, the published figures beside, and a lighter prior for HPS in presets from v2 on."""
    seq_len: int = 60
    """Longer sequences are cut into pieces of as even a length as can be, at most this many frames, and solved all together."""
    batch_size: int = 16
    """Fragments solved at once."""
    view: str = "front"
    """front, back, left or right, with half (45 degrees), above or bottom, e.g. left_half_above."""
    faster: bool = False
    """Smaller pictures."""
    seed: int = 42
    """Same seed, same device, same result."""


class Laboratory:
    """The models, what is measured and who solves."""

    def __init__(self, args: Args, device: torch.device):
        self.args, self.device = _checked(args), device
        self.hidden_name = args.part or ("missing" if args.missing else None)
        self.noise_std = (0.0 if self.hidden_name else 0.04) if args.noise_std is None else args.noise_std
        self.settings: MotionSettings = NewtonSettings()
        if args.preset is not None:
            self.settings = denoising_settings(args.preset, self.noise_std, self.hidden_name, args.time_strategy, args.dataset)
        self.body = BodyModel(args.bodymodel_path, device=device)
        self.prior = None
        if args.prior == "DPoser":
            self.prior = load_prior(args.ckpt_path, args.dataset_folder / args.version, device)

    @cached_property
    def solve(self) -> Solve:
        smooths = self.args.post_smooth and not getattr(self.settings, "smooth", None)
        solve = solver(self.prior, self.body, self.noise_std, self.settings)
        return (lambda *inputs: smooth_poses(solve(*inputs))) if smooths else solve

    def visible(self, frames: int) -> Tensor:
        """(22,) or (frames, 22) bool of what is measured."""
        words = self.args.part or self.args.missing
        if words is None:
            return torch.ones(JOINTS, dtype=torch.bool)
        hidden = read_missing(words, frames).unflatten(-1, (21, 3))
        if bool((hidden.any(-1) != hidden.all(-1)).any()):
            raise InputError(f"--missing {words}: single axes, but a joint is measured as a whole; name joints without .x, .y, .z")
        return torch.nn.functional.pad(~hidden.any(-1), (1, 0), value=True)

    def measured(self, name: str, poses: Tensor) -> Tensor:
        """(F, 22, 3) joints of poses (F, 63) with the noise of this name, NaN where they are hidden."""
        noise = keyed_generator("cpu", self.args.seed, "measurement", name)
        joints = simulate(joint_positions(self.body, poses), self.noise_std, noise)
        return torch.where(self.visible(len(poses))[:, None].to(self.device), joints, math.nan)

    def generator(self, name: str) -> torch.Generator:
        """Of the solver, for the batch that begins with this fragment."""
        return keyed_generator(self.device, self.args.seed, "solver", name)

    def decisive(self) -> dict[str, Any]:
        """What decides the numbers, beside the data."""
        args = self.args
        return {
            "seed": args.seed, "noise_std": self.noise_std, "part": args.part, "missing": args.missing, "prior": args.prior,
            "solver": repr(self.settings), "post_smooth": args.post_smooth, "batch_size": args.batch_size, "seq_len": args.seq_len,
            "device": self.device.type,
            "weights": digest(self.prior.state_dict().values()) if self.prior is not None else None,
            "body": digest([self.body.v_template, self.body.weights]), "library": __version__,
        }  # fmt: skip


def main(args: Args) -> None:
    if args.data_dir is None:
        Film(args).shoot()
        return
    with processes() as crew:
        study = crew.leader_first(lambda: Study(args, crew))
        work_through(crew, study)
        if crew.is_leader:
            study.report()


def _checked(args: Args) -> Args:
    if args.file_path and args.data_dir:
        raise InputError("--file-path and --data-dir: found both, expected one; a folder is scored, a file is also filmed")
    if args.part and args.missing:
        raise InputError("--part and --missing: found both, expected one; --missing takes parts as well, joined by +")
    if args.part and args.part not in PARTS:
        raise InputError(f"--part {args.part} does not exist, expected one of {', '.join(PARTS)}; single joints go with --missing")
    if args.noise_std is not None and not 0 <= args.noise_std < math.inf:
        raise InputError(f"--noise-std {args.noise_std}, expected metres, 0 or more")
    if args.time_strategy != "3" and args.preset is None:
        raise InputError(f"--time-strategy {args.time_strategy}: belongs to a preset; add --preset v1, v2, x or paper")
    for name in ("seq_len", "batch_size"):
        if not 1 <= getattr(args, name) <= 1_000_000:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}, expected 1 to 1000000")
    if "random" in args.view:
        raise InputError(f"--view {args.view}: a film has one view, expected front, back, left or right, with half, above or bottom")
    view_rotation(args.view)  # a wrong one is told before the work
    writable_folder(args.outpath_folder)
    return args


# ---- data --------------------------------------------------------------------------------------------------------------


def cut(motion: Tensor, seq_len: int) -> tuple[Tensor, ...]:
    """F frames (F, ...) in pieces of at most ``seq_len``, whose lengths differ by one at most."""
    return torch.tensor_split(motion, -(-len(motion) // seq_len))


def batched(pieces: Sequence[Tensor], size: int) -> list[list[int]]:
    """Indices of up to ``size`` pieces of one length each."""
    groups: dict[int, list[int]] = {}
    for i, piece in enumerate(pieces):
        groups.setdefault(len(piece), []).append(i)
    return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]


# ---- a folder ----------------------------------------------------------------------------------------------------------


class Study(Laboratory):
    """Every fragment of a folder, scored."""

    def __init__(self, args: Args, crew: Crew):
        super().__init__(args, crew.device(args.device))
        assert args.data_dir is not None
        self.skipped: list[str] = []
        self.pieces = {name: piece for path in _found(args.data_dir) for name, piece in self._pieces(path)}
        if not self.pieces:
            raise InputError(f"{args.data_dir}: none of its {len(self.skipped)} .npz files is a motion, the first: {self.skipped[0]}")
        self.names, motions = list(self.pieces), list(self.pieces.values())
        self.batches = batched(motions, args.batch_size)
        if crew.size > len(self.batches):
            raise InputError(
                f"{crew.size} processes for {len(self.pieces)} fragments in {len(self.batches)} batches: some would have none; "
                f"start at most {len(self.batches)}, or lower --batch-size"
            )
        masks = [self.visible(frames) for frames in {len(piece) for piece in motions}]  # a wrong one is told before the work
        data = {"data": digest(motions), "fragments": len(motions), "masks": digest(masks)}
        self.shards = Shards(args.outpath_folder / "batches", len(self.batches), self.decisive() | data)

    def _pieces(self, path: Path) -> list[tuple[str, Tensor]]:
        """The fragments of a file by name, none if it cannot be read."""
        assert self.args.data_dir is not None
        try:
            poses = torch.as_tensor(read_motion(path).pose_body, dtype=torch.float32)
        except InputError as error:
            self.skipped.append(str(error))
            return []
        name, pieces = path.relative_to(self.args.data_dir).with_suffix("").as_posix(), cut(poses, self.args.seq_len)
        return [(name, poses)] if len(pieces) == 1 else [(f"{name}_{i:03d}", piece) for i, piece in enumerate(pieces)]

    def compute(self, batch: int, progress: Progress | None = None) -> dict[str, Any]:
        """The scores of one batch, as arrays."""
        some = {self.names[i]: self.pieces[self.names[i]] for i in self.batches[batch]}
        poses = torch.stack(list(some.values())).to(self.device)
        observed = torch.stack([self.measured(name, piece) for name, piece in some.items()])
        generator = self.generator(next(iter(some)))
        return evaluate_denoising(self.body, poses, observed, self.solve, generator=generator, progress=progress).arrays()

    def watch(self, batches: Sequence[int]) -> Callable[[int], Progress]:
        """A progress bar over the fragments of these batches: a batch → its own progress."""
        update, total = step_bar("fragments"), sum(len(self.batches[batch]) for batch in batches)

        def within(batch: int) -> Progress:
            before = sum(len(self.batches[other]) for other in batches if other < batch)
            return lambda done, steps: update(before + len(self.batches[batch]) * done // steps, total)

        return within

    def report(self) -> None:
        """Merge the batches, write the files and print the table."""
        args, scores = self.args, DenoisingScores.from_arrays(self.shards.read())
        order = np.argsort([i for batch in self.batches for i in batch])
        figures = {name: values.numpy()[order].tolist() for name, values in scores.per_fragment().items()}
        rows = [{"Sequence": piece, **{name: figures[name][i] for name in FIGURES}} for i, piece in enumerate(self.names)]
        _save_csv(args.outpath_folder / f"{args.dataset}_results_logging.csv", rows, partial=self.hidden_name is not None)
        published = published_figures(args.dataset, self.noise_std, self.hidden_name)
        report = {
            "results": _plain(scores.report()), "units": NOTE, "published": {"note": PUBLISHED_NOTE, **published},
            "fragments": [_plain(row) for row in rows], "skipped": self.skipped,
            "flags": {key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(args).items()},
            "settings": dict(self.shards.settings), "machine": machine(self.device),
        }  # fmt: skip
        save_json(args.outpath_folder / "results.json", report)
        _tell_skipped(self.skipped)
        measured = f"{1000 * self.noise_std:g} mm of noise" + (f", {args.part or args.missing} hidden" if self.hidden_name else "")
        print(f"{len(rows)} fragments, {measured}\n")
        print(_table(args.prior, scores, published, self.hidden_name is not None))
        print(f"\nwritten to {args.outpath_folder}: {args.dataset}_results_logging.csv (cm) and results.json (mm)")


def _found(folder: Path) -> list[Path]:
    paths = sorted(folder.rglob("*.npz"))
    if not paths:
        raise InputError(f"{folder}: found no .npz files, expected motions (python -m run.split_fragments makes them); check --data-dir")
    return paths


def _tell_skipped(skipped: Sequence[str]) -> None:
    if skipped:
        rest = f"\n... and {len(skipped) - 10} more" if len(skipped) > 10 else ""
        print("\n".join(f"skipped {reason}" for reason in skipped[:10]) + rest)


_CENTIMETRES = ("init_MPJPE", "MPJPE", "MPVPE")
_PARTIAL = ("vis_MPJPE", "inv_MPJPE")


def _save_csv(path: Path, rows: Sequence[Mapping[str, Any]], partial: bool) -> None:
    """The original's columns, in its centimetres."""
    names = [*_CENTIMETRES, *(_PARTIAL if partial else ())]
    save_csv(path, [{"Sequence": row["Sequence"], **{name: row[name] / 10 for name in names}} for row in rows], ["Sequence", *names])


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Without NaN, which JSON does not know: what has no value is None."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def _table(prior: str, scores: DenoisingScores, published: Mapping[str, Mapping[str, float]], partial: bool) -> str:
    """Our row, and the published ones where there are any."""
    names = [name for name in FIGURES if partial or name not in _PARTIAL]
    lines = {"no prior" if prior == "None" else prior: scores.report()} | {f"  published {name}": row for name, row in published.items()}
    cells = [[name, *(_number(row.get(figure, math.nan)) for figure in names)] for name, row in lines.items()]
    return "\n".join([table(["", *names], cells), "", NOTE, *([PUBLISHED_NOTE] if published else [])])


def _number(value: float) -> str:
    return "-" if not math.isfinite(value) else f"{value:.2f}"


# ---- a file ------------------------------------------------------------------------------------------------------------


class Film(Laboratory):
    """One sequence, denoised and filmed: noisy joints, result and truth side by side."""

    def __init__(self, args: Args):
        super().__init__(args, pick_device(args.device))
        path = args.file_path or asset("examples", "motion.npz")
        sequence = read_motion(path)
        self.fps = sequence.fps or 30.0
        self.truth = torch.as_tensor(sequence.pose_body, dtype=torch.float32, device=self.device)
        self.name = path.stem

    def shoot(self) -> None:
        """Solve, and write the files."""
        observed = self.measured(self.name, self.truth)
        found = self._solved(observed)
        scores = denoising_scores(self.body, found[None], self.truth[None], observed[None])
        folder = self.args.outpath_folder
        extra = {"noisy_joints": observed.cpu().numpy()}
        write_amass(folder / "result.npz", AmassSequence.of_poses(found.cpu().numpy(), self.fps), **extra)
        merges = self._merges(observed, found)
        sheet: list[tuple[int, np.ndarray]] = []
        shown = set(np.linspace(0, len(found) - 1, min(SHEET_ROWS, len(found))).round().astype(int).tolist())

        def passing() -> Iterator[np.ndarray]:
            for frame, image in enumerate(progress_bar(merges, "drawing", len(found))):
                if frame in shown:
                    sheet.append((frame, image))
                yield image

        write_video(folder / "motion.mp4", passing(), FILM_FPS)
        captions = [f"{frame / self.fps:.2f} s" for frame, _ in sheet]
        save_image(folder / "contact_sheet.png", contact_sheet([image for _, image in sheet], captions, columns=2))
        print(_table(self.args.prior, scores, {}, self.hidden_name is not None))
        print(f"\nwritten to {folder}: motion.mp4, contact_sheet.png, renders/, merges/ and result.npz (AMASS layout)")

    def _solved(self, observed: Tensor) -> Tensor:
        """The poses (F, 63) of all pieces."""
        pieces = cut(observed, self.args.seq_len)
        found = list(pieces)
        batches, update = batched(pieces, self.args.batch_size), step_bar("solving")
        for k, batch in enumerate(batches):

            def progress(done: int, steps: int, before: int = k) -> None:
                update(before * steps + done, len(batches) * steps)

            generator = self.generator(f"{self.name} {k}")
            for i, poses in zip(batch, self.solve(torch.stack([pieces[i] for i in batch]), None, generator, progress), strict=True):
                found[i] = poses
        return torch.cat(found)

    def _merges(self, observed: Tensor, found: Tensor) -> Iterator[np.ndarray]:
        """Pictures of all three side by side, frame by frame, each also written on its own."""
        joints = side_colours(SMPLX_JOINTS[:JOINTS])
        edges = [(parent, child) for child, parent in enumerate(SMPLX_PARENTS[:JOINTS]) if parent >= 0]
        layers: dict[str, Layer] = {
            "frame": PointLayer(observed.cpu().numpy(), edges, joints),
            "out": MeshLayer(self._surface(found), self.body.faces, self._colours()),
            "gt": MeshLayer(self._surface(self.truth), self.body.faces),
        }
        pelvis = joint_positions(self.body, self.truth)[:, 0].cpu().numpy()
        size = (192, 192) if self.args.faster else (384, 384)
        stage = Stage.around(pelvis, up="y", view=self.args.view, size=size, reach=_REACH)  # no floor: the pelvis stays where it is
        films = {name: film([Pane("", [layer])], stage) for name, layer in layers.items()}
        for picture in (*self.args.outpath_folder.glob("renders/*_????.png"), *self.args.outpath_folder.glob("merges/merge_????.png")):
            picture.unlink()  # those of an earlier, perhaps longer, motion
        captions = ["noisy joints", "no prior" if self.prior is None else "denoised", "ground truth"]
        for frame, images in enumerate(zip(*films.values(), strict=True)):
            for name, image in zip(films, images, strict=True):
                save_image(self.args.outpath_folder / "renders" / f"{name}_{frame:04d}.png", image)
            merge = contact_sheet(images, captions, columns=3)
            save_image(self.args.outpath_folder / "merges" / f"merge_{frame:04d}.png", merge)
            yield merge

    def _surface(self, poses: Tensor) -> Callable[[int], np.ndarray]:
        """The mesh of one frame at a time, so that a film may be long."""

        @torch.no_grad()
        def vertices(frame: int) -> np.ndarray:
            points = self.body(poses[frame : frame + 1]).vertices
            assert points is not None
            return points[0].cpu().numpy()

        return vertices

    def _colours(self) -> np.ndarray:
        """(V, 3): what was hidden, all the time, stands out."""
        colours = np.tile(KNOWN, (self.body.num_vertices, 1))
        hidden = ~self.visible(len(self.truth)).view(-1, JOINTS).any(0)
        if bool(hidden.any()):
            colours[part_surface(self.body.weights, hidden[1:], self.body.parents).cpu().numpy()] = COMPLETED
        return colours


if __name__ == "__main__":
    cli(main)
