"""From motion files to the prepared pose set: a task per file, run by several processes, gathered into splits."""

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dposer.data.amass import AmassFile, AmassSequence, draw_frames, draw_repeats, find_amass, read_amass, write_amass
from dposer.data.open_corpus import NONCOMMERCIAL, Clip, convert_clip, find_clips
from dposer.data.processed import SUBJECTS, PoseSplit, write_split
from dposer.data.retarget import to_z_up
from dposer.errors import InputError
from dposer.files import PathLike, save_json

_FEW = 8


@dataclass(frozen=True)
class Piece:
    """The poses taken from one file."""

    split: str
    subject: str
    pose_body: np.ndarray
    """(N, 63) float32."""
    root_orient: np.ndarray
    """(N, 3) float32, +z up."""
    betas: np.ndarray
    """(N, 10)."""
    implausible: int = 0
    """Frames left out because a joint was bent beyond belief."""

    def __len__(self) -> int:
        return len(self.pose_body)


@dataclass(frozen=True)
class CaptureTask:
    """Retarget one motion-capture clip and keep its plausible frames; betas are zero, since no body was measured."""

    clip: Clip
    rest_joints: np.ndarray
    amass_folder: Path | None = None
    """Where the whole motion goes as ``<split>/<subject>/<clip>_stageii.npz``, with a mask ``plausible`` (F,)."""

    def __call__(self) -> Piece:
        clip = self.clip
        motion = convert_clip(clip, self.rest_joints)
        root, trans = to_z_up(motion.root_orient, motion.trans, self.rest_joints[0])
        if self.amass_folder is not None:
            sequence = AmassSequence(motion.pose_body, root, trans, np.zeros(10), "neutral", motion.fps)
            name = clip.path.name.split(".")[0]
            write_amass(self.amass_folder / clip.split / clip.subject / f"{name}_stageii.npz", sequence, plausible=motion.plausible)
        keep = motion.plausible
        kept = int(keep.sum())
        betas = np.zeros((kept, 10), dtype=np.float32)
        return Piece(clip.split, clip.subject, motion.pose_body[keep], root[keep], betas, len(motion) - kept)


@dataclass(frozen=True)
class AmassTask:
    """Sample frames of one AMASS sequence."""

    file: AmassFile
    repeat: int
    seed: int

    def __call__(self) -> Piece:
        sequence = read_amass(self.file.path)
        frames = draw_frames(len(sequence), self.file.generator(self.seed, self.repeat))
        betas = np.zeros((len(frames), 10))
        betas[:, : len(sequence.betas)] = sequence.betas[:10]
        pose_body, root = sequence.pose_body[frames].astype(np.float32), sequence.root_orient[frames].astype(np.float32)
        return Piece(self.file.split, self.file.subject, pose_body, root, betas)


Task = CaptureTask | AmassTask


def capture_tasks(
    folder: PathLike, rest_joints: np.ndarray, include_noncommercial: bool = False, amass_folder: Path | None = None
) -> list[Task]:
    """A task per clip of :func:`~dposer.data.open_corpus.find_clips`."""
    return [CaptureTask(clip, rest_joints, amass_folder) for clip in find_clips(folder, include_noncommercial)]


def amass_tasks(folder: PathLike, seed: int = 42, duplicate_like_reference: bool = False) -> list[Task]:
    """A task per sequence of :func:`~dposer.data.amass.find_amass`, or several as :func:`~dposer.data.amass.draw_repeats` says."""
    files = find_amass(folder)
    repeats = draw_repeats(files) if duplicate_like_reference else [(file, 0) for file in files]
    return [AmassTask(file, repeat, seed) for file, repeat in repeats]


def run_tasks(tasks: Sequence[Task], workers: int = 2) -> Iterator[Piece | InputError]:
    """The tasks' pieces in the tasks' order, whatever the number of processes; for an unusable file the error that says why."""
    if workers <= 1 or len(tasks) < _FEW:
        yield from map(_attempt, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_ignore_interrupts) as pool:
        try:
            yield from pool.map(_attempt, tasks, chunksize=4)
        except BrokenProcessPool as error:
            raise InputError(
                f"--workers {workers}: a process that reads files died, probably for lack of memory; use --workers 1"
            ) from error


def _attempt(task: Task) -> Piece | InputError:
    try:
        return task()
    except InputError as error:
        return error


def _ignore_interrupts() -> None:
    """Only the parent process answers Ctrl-C, so that it ends in one line and not in a traceback a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class SplitSummary:
    """What one split was made of."""

    split: str
    subjects: int
    clips: int
    frames: int
    implausible: int


def write_pieces(folder: PathLike, pieces: Sequence[Piece]) -> list[SplitSummary]:
    """Gather pieces into ``<folder>/<split>`` and number the subjects by the sorted list of their names."""
    subjects = sorted({piece.subject for piece in pieces})
    summaries = []
    for split in ("train", "valid", "test", NONCOMMERCIAL):
        own = [piece for piece in pieces if piece.split == split and len(piece)]
        if own:
            subject = np.repeat([subjects.index(piece.subject) for piece in own], [len(piece) for piece in own])
            pose_body, root_orient, betas = (_joined(own, key) for key in ("pose_body", "root_orient", "betas"))
            write_split(folder, split, PoseSplit(pose_body, root_orient, betas, torch.from_numpy(subject)))
            implausible = sum(piece.implausible for piece in pieces if piece.split == split)
            summaries.append(SplitSummary(split, len({piece.subject for piece in own}), len(own), len(subject), implausible))
    save_json(Path(folder) / SUBJECTS, subjects)
    return summaries


def _joined(pieces: Sequence[Piece], key: str) -> Tensor:
    return torch.from_numpy(np.concatenate([getattr(piece, key) for piece in pieces]))
