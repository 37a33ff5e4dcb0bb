"""Openly licensed motion capture: which clips there are, whose they are, which split they belong to, and one clip converted.

Two folder layouts are read: a corpus with a ``MANIFEST.csv`` (columns ``path, subject, clip, action, fps``), or the plain
folders of the CMU database (``SUBJECT/SUBJECT.asf`` with ``SUBJECT_TRIAL.amc`` beside it, or ``SUBJECT_TRIAL.bvh`` conversions).
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dposer.data.asf_amc import read_amc
from dposer.data.bvh import read_bvh
from dposer.data.motion import Motion
from dposer.data.retarget import RetargetedMotion, retarget
from dposer.data.text import suffix
from dposer.errors import InputError
from dposer.files import PathLike, existing_file

TEST_SUBJECTS = frozenset(("02", "06", "10", "17", "38", "49", "55", "86", "94", "131", "140"))
VALID_SUBJECTS = frozenset(("03", "09", "11", "30", "31", "43", "45", "46", "64", "90", "93"))
"""Splits are by subject, so that no person is both trained and tested on. Every other CMU subject, and ``snu``, is for training."""

OTHER_SUBJECT, NONCOMMERCIAL = "snu", "bandai"
"""Subject names of the SNU clips (train) and of the non-commercial clips (a split of their own, never trained on)."""

RATE = 30.0
"""Faster captures are thinned out to this many frames per second."""

_SUBJECTS_AT_60_HZ = frozenset(("33", "34", "42", "60", "61", "62", "74", "75", "77", "79", "80", "87", "88", "89"))
_MOTION_SUFFIXES = (".amc", ".bvh")
_CMU_CLIP = re.compile(r"^(\d+)_(\d+)")


@dataclass(frozen=True)
class Clip:
    """One motion file and what is known about it."""

    path: Path
    subject: str
    name: str
    action: str
    split: str
    fps: float | None
    """Frames per second where the file itself does not say (AMC)."""
    skip_first: bool = False
    """Whether the first frame is a T-pose (untouched cgspeed conversions)."""


def find_clips(folder: PathLike, include_noncommercial: bool = False) -> list[Clip]:
    """All usable clips of a corpus, in a fixed order, with their split.

    Left out: clips of unknown persons (they could be held-out ones), clips of unknown origin, and upper bodies.

    Raises:
        InputError: the folder holds neither a ``MANIFEST.csv`` nor any AMC or BVH file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: found no folder, expected motion capture (AMC or BVH files); check --input")
    clips = _from_manifest(folder) if (folder / "MANIFEST.csv").is_file() else _from_folders(folder)
    if not clips:
        raise InputError(f"{folder}: found no MANIFEST.csv and no .amc or .bvh file, expected motion capture; check --input")
    return sorted((clip for clip in clips if include_noncommercial or clip.split != NONCOMMERCIAL), key=lambda clip: str(clip.path))


def split_of(subject: str) -> str:
    """``train``, ``valid`` or ``test`` for a CMU subject (two digits or more, or any other name)."""
    return "test" if subject in TEST_SUBJECTS else "valid" if subject in VALID_SUBJECTS else "train"


def read_clip(clip: Clip) -> Motion:
    """A clip at no more than :data:`RATE` frames per second."""
    amc = suffix(clip.path) == ".amc"
    motion = read_amc(clip.path, _skeleton_beside(clip.path), clip.fps) if amc else read_bvh(clip.path)
    if clip.skip_first:
        motion = motion.select(slice(1, None))
    step = max(1, round(motion.fps / RATE))
    return motion if step == 1 else motion.select(slice(None, None, step), motion.fps / step)


def convert_clip(clip: Clip, rest_joints: np.ndarray) -> RetargetedMotion:
    """Read and retarget one clip.

    Raises:
        InputError: unreadable file or unknown skeleton.
    """
    try:
        return retarget(read_clip(clip), rest_joints)
    except InputError as error:
        raise error if str(clip.path) in str(error) else InputError(f"{clip.path}: {error}") from error


def _skeleton_beside(path: Path) -> Path:
    """``01_02.amc`` moves ``01.asf``, or the only ``.asf`` of its folder."""
    found = sorted(p for p in path.parent.iterdir() if suffix(p) == ".asf")
    own = [p for p in found if p.name.split(".")[0] == path.name.split("_")[0]]
    if len(own or found) != 1:
        raise InputError(
            f"{path}: found {len(found)} .asf files beside it, expected its skeleton {path.name.split('_')[0]}.asf; put it there"
        )
    return (own or found)[0]


def _from_manifest(folder: Path) -> list[Clip]:
    path = existing_file(folder / "MANIFEST.csv", "a list of motion files")
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    needed = {"path", "subject", "clip", "action", "fps"}
    if not rows or not needed <= set(rows[0]):
        found = ", ".join(rows[0]) if rows else "no rows"
        raise InputError(f"{path}: found {found}, expected the columns {', '.join(sorted(needed))}")
    clips = []
    for row in rows:
        motion = suffix(row["path"]) in _MOTION_SUFFIXES
        subject, split = _manifest_subject(row["path"], row["subject"])
        if motion and split:
            fps = _rate(row["fps"], path)
            clips.append(Clip(folder / row["path"], subject, row["clip"], row["action"], split, fps))
    return clips


def _manifest_subject(path: str, subject: str) -> tuple[str, str | None]:
    """Subject and split; no split for what is left out."""
    if path.startswith("noncommercial/"):
        return NONCOMMERCIAL, NONCOMMERCIAL
    if "/snu_" in path:
        return OTHER_SUBJECT, split_of(OTHER_SUBJECT)
    return subject, split_of(subject) if subject.isdigit() else None


def _rate(text: str, path: Path) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e4:
        raise InputError(f"{path}: found '{text}' in column fps, expected frames per second")
    return rate


def _from_folders(folder: Path) -> list[Clip]:
    clips: dict[str, Clip] = {}
    for path in sorted(folder.rglob("*")):
        found = _CMU_CLIP.match(path.name)
        if found is None or suffix(path) not in _MOTION_SUFFIXES or not path.is_file():
            continue
        subject, trial = found.group(1).zfill(2), found.group(2).zfill(2)
        amc = suffix(path) == ".amc"
        fps = 60.0 if amc and subject in _SUBJECTS_AT_60_HZ else None
        name = f"{subject}_{trial}"
        if amc or name not in clips:  # of two copies of a clip the original counts
            clips[name] = Clip(path, subject, name, "", split_of(subject), fps, skip_first=not amc)
    return list(clips.values())
