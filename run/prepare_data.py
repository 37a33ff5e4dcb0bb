"""Turn a folder of motion data into the pose sets that training reads.

``--source amass`` samples frames of AMASS sequences (SMPL+H or SMPL-X); ``--source cmu`` retargets AMC and BVH motion capture.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from dposer.body.skeleton import SMPLX_JOINTS
from dposer.data.amass import AmassFile, AmassSequence, draw_frames, draw_repeats, find_amass, read_amass, write_amass
from dposer.data.open_corpus import NONCOMMERCIAL, Clip, convert_clip, find_clips
from dposer.data.processed import SUBJECTS, PoseSplit, write_split
from dposer.data.retarget import to_z_up
from dposer.errors import InputError
from dposer.files import save_bytes, save_json
from run._cli import cli, table


@dataclass
class Args:
    """Where the motions are and where the poses go."""

    source: Literal["amass", "cmu"]
    """amass: an AMASS folder with its official splits; cmu: AMC or BVH files, split by subject."""
    input: Path
    """Folder of the motion files."""
    output: Path = Path("data/AMASS/amass_processed")
    """Folder of the prepared sets; they go into a sub-folder named by --version."""
    version: str = "version1"
    """Name of this set."""
    seed: int = 42
    """Seed of the frame sampling (amass); the same seed gives the same bytes."""
    duplicate_like_reference: bool = False
    """Repeat subsets as the reference preparation did (test: Transitions twice), to match the published set sizes (amass)."""
    include_noncommercial: bool = False
    """Also prepare the clips under noncommercial terms, as a split of their own for testing (cmu)."""
    write_amass: Path | None = None
    """Also write every motion here, whole, as AMASS files <split>/<subject>/<clip>_stageii.npz (cmu)."""
    workers: int = 2
    """Processes that read files."""


@dataclass(frozen=True)
class Piece:
    """Poses of one file."""

    split: str
    subject: str
    pose_body: np.ndarray
    root_orient: np.ndarray
    betas: np.ndarray
    dropped: int


@dataclass(frozen=True)
class CmuTask:
    """One clip to retarget; picklable, so that any process can do it."""

    clip: Clip
    rest_joints: np.ndarray
    amass_folder: Path | None

    def __call__(self) -> Piece:
        clip = self.clip
        motion = convert_clip(clip, self.rest_joints)
        root, trans = to_z_up(motion.root_orient, motion.trans, self.rest_joints[0])
        if self.amass_folder is not None:
            sequence = AmassSequence(motion.pose_body, root, trans, np.zeros(10), "neutral", motion.fps)
            path = self.amass_folder / clip.split / clip.subject / f"{clip.path.name.split('.')[0]}_stageii.npz"
            write_amass(path, sequence, plausible=motion.plausible)
        keep = motion.plausible
        betas = np.zeros((int(keep.sum()), 10), dtype=np.float32)
        return Piece(clip.split, clip.subject, motion.pose_body[keep], root[keep], betas, int((~keep).sum()))


@dataclass(frozen=True)
class AmassTask:
    """One sequence to sample frames of."""

    file: AmassFile
    repeat: int
    seed: int

    def __call__(self) -> Piece:
        sequence = read_amass(self.file.path)
        frames = draw_frames(len(sequence), self.file.generator(self.seed, self.repeat))
        betas = np.resize(np.pad(sequence.betas[:10], (0, max(0, 10 - len(sequence.betas)))), (len(frames), 10))
        pose_body, root = sequence.pose_body[frames].astype(np.float32), sequence.root_orient[frames].astype(np.float32)
        return Piece(self.file.split, self.file.subject, pose_body, root, betas, 0)


def main(args: Args) -> None:
    tasks = _cmu_tasks(args) if args.source == "cmu" else _amass_tasks(args)
    pieces, errors = [], []
    for result in tqdm(_run(tasks, args.workers), total=len(tasks), desc="clips", unit="clip", disable=None):
        (errors if isinstance(result, str) else pieces).append(result)
    if errors:
        print(f"{len(errors)} of {len(tasks)} files could not be used and were skipped:")
        print("\n".join(f"  {error}" for error in errors[:10]) + ("\n  ..." if len(errors) > 10 else ""))
    if not sum(len(piece.pose_body) for piece in pieces):
        raise InputError(f"{args.input}: none of its {len(tasks)} motion files gave a pose; the reasons are above")
    print(_write(args, pieces, errors))


def _cmu_tasks(args: Args) -> list[Callable[[], Piece]]:
    from dposer.body import BodyModel

    rest_joints = BodyModel().rest_joints().cpu().numpy().reshape(-1, 3)[: len(SMPLX_JOINTS)]
    return [CmuTask(clip, rest_joints, args.write_amass) for clip in find_clips(args.input, args.include_noncommercial)]


def _amass_tasks(args: Args) -> list[Callable[[], Piece]]:
    files = find_amass(args.input)
    repeats = draw_repeats(files) if args.duplicate_like_reference else [(file, 0) for file in files]
    return [AmassTask(file, repeat, args.seed) for file, repeat in repeats]


def _run(tasks: list[Callable[[], Piece]], workers: int) -> Iterator[Piece | str]:
    """The tasks' results in their order; a file that cannot be used gives its error message."""
    if workers <= 1 or len(tasks) < 8:
        yield from map(_attempt, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_attempt, tasks, chunksize=4)


def _attempt(task: Callable[[], Piece]) -> Piece | str:
    try:
        return task()
    except InputError as error:
        return str(error)


def _write(args: Args, pieces: list[Piece], errors: list[str]) -> str:
    folder = args.output / args.version
    subjects = sorted({piece.subject for piece in pieces})
    rows: list[list[Any]] = []
    for split in ("train", "valid", "test", NONCOMMERCIAL):
        own = [piece for piece in pieces if piece.split == split and len(piece.pose_body)]
        if not own:
            continue
        numbers = np.repeat([subjects.index(piece.subject) for piece in own], [len(piece.pose_body) for piece in own])
        parts = (torch.from_numpy(np.concatenate([getattr(piece, key) for piece in own])) for key in ("pose_body", "root_orient", "betas"))
        write_split(folder, split, PoseSplit(*parts, subject=torch.from_numpy(numbers)))
        rows.append([split, len({piece.subject for piece in own}), len(own), len(numbers), sum(piece.dropped for piece in own)])
    save_json(folder / SUBJECTS, subjects)
    summary = table(["split", "subjects", "clips", "frames", "dropped as implausible"], rows)
    log = [f"source {args.source}, seed {args.seed}, duplicate_like_reference {args.duplicate_like_reference}", summary, *errors]
    save_bytes(folder / f"{args.version}.log", ("\n".join(log) + "\n").encode())
    return f"{summary}\nwritten to {folder}"


if __name__ == "__main__":
    cli(main)
