"""AMASS sequences: SMPL, SMPL+H and SMPL-X pose files, read into one form and written in the SMPL-X form.

Columns of ``poses``: root 3, body 63, then SMPL+H (156): hands 90; SMPL-X (165): jaw 3, eyes 6, hands 90; SMPL (72): two hand joints.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dposer.errors import InputError
from dposer.files import PathLike, finite, load_npz, save_npz

SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("CMU", "PosePrior", "TotalCapture", "Eyes_Japan_Dataset", "KIT", "BMLrub", "BMLmovi", "EKUT", "TCDHands", "ACCAD"),
    "valid": ("HumanEva", "HDM05", "SFU", "Mosh"),
    "test": ("Transitions", "SSM"),
}
"""Subsets of AMASS in the usual split."""

ALIASES: dict[str, str] = {
    "BioMotionLab_NTroje": "BMLrub", "MPI_Limits": "PosePrior", "MPI_HDM05": "HDM05", "MPI_mosh": "Mosh", "MoSh": "Mosh",
    "SSM_synced": "SSM", "Transitions_mocap": "Transitions", "TCD_handMocap": "TCDHands", "EyesJapanDataset": "Eyes_Japan_Dataset",
}  # fmt: skip
"""Folder names of other AMASS releases."""

_HANDS = {72: None, 156: slice(66, 156), 165: slice(75, 165)}
_WHAT = "an AMASS pose sequence"
_KEYS = ("poses", "pose_body", "root_orient", "pose_hand", "trans", "betas", "gender", "mocap_frame_rate", "mocap_framerate")


@dataclass(frozen=True)
class AmassSequence:
    """F frames of one sequence; +z is up."""

    pose_body: np.ndarray
    """(F, 63) axis-angle, as stored (not wrapped)."""
    root_orient: np.ndarray
    """(F, 3) axis-angle."""
    trans: np.ndarray
    """(F, 3) metres."""
    betas: np.ndarray
    """(B,) body shape."""
    gender: str
    fps: float | None
    """Frames per second, None if the file does not say."""
    hands: np.ndarray | None = None
    """(F, 90) left and right hand, None if the file has none."""

    def __len__(self) -> int:
        return len(self.pose_body)

    @classmethod
    def of_poses(cls, pose_body: np.ndarray, fps: float = 30.0) -> "AmassSequence":
        """Body poses (F, 63) alone: upright, at the origin, of mean shape."""
        upright = np.tile(np.array([np.pi / 2, 0, 0], dtype=pose_body.dtype), (len(pose_body), 1))  # SMPL-X's +y up becomes +z up
        return cls(pose_body, upright, np.zeros_like(upright), np.zeros(10, dtype=pose_body.dtype), "neutral", fps)


def read_poses(path: PathLike) -> np.ndarray:
    """(N, 63) body poses of a pose collection (``pose_samples``) or of any sequence that :func:`read_amass` reads.

    Raises:
        InputError: neither of them.
    """
    arrays = load_npz(path, "poses (pose_samples, or an AMASS sequence)", optional=("pose_samples",))
    return _frames(path, arrays, "pose_samples", (63,)) if "pose_samples" in arrays else read_amass(path).pose_body


def read_amass(path: PathLike) -> AmassSequence:
    """Read ``*_poses.npz`` (SMPL+H), ``*_stageii.npz`` (SMPL-X), 72-column SMPL files, or files with split keys.

    Raises:
        InputError: unreadable, without poses (``shape.npz``, stage-i files), or with broken ones.
    """
    arrays = load_npz(path, _WHAT, optional=_KEYS)
    if "pose_body" not in arrays:  # says what the file lacks, or that its poses are pickled
        arrays = load_npz(path, f"{_WHAT} (shape and stage-i files hold no poses)", required=("poses",), optional=_KEYS)
    if "poses" in arrays:
        poses = _frames(path, arrays, "poses", tuple(_HANDS))
        columns = _HANDS[poses.shape[1]]
        root, body = poses[:, :3], poses[:, 3:66]
        hands = poses[:, columns] if columns else None
    else:
        body = _frames(path, arrays, "pose_body", (63,))
        root = _frames(path, arrays, "root_orient", (3,), len(body)) if "root_orient" in arrays else np.zeros_like(body[:, :3])
        hands = _frames(path, arrays, "pose_hand", (90,), len(body)) if "pose_hand" in arrays else None
    trans = _frames(path, arrays, "trans", (3,), len(body)) if "trans" in arrays else np.zeros_like(root)
    betas = _betas(path, arrays) if "betas" in arrays else np.zeros(10)
    return AmassSequence(body, root, trans, betas, _text(arrays.get("gender"), "neutral"), _rate(path, arrays), hands)


def read_betas(path: PathLike) -> np.ndarray:
    """(B,) the body shape of any ``.npz`` with ``betas``: sequences, ``shape.npz``; of several shapes the first.

    Raises:
        InputError: unreadable, without betas, or with none in them.
    """
    betas = _betas(path, load_npz(path, "a body shape (betas)", required=("betas",)))
    if not betas.size:
        raise InputError(f"{path}: 'betas' is empty, expected the coefficients of a body shape")
    return betas


def write_amass(path: PathLike, sequence: AmassSequence, **extra: np.ndarray) -> None:
    """Write a sequence with the keys of AMASS's SMPL-X files, plain arrays only; ``extra`` arrays are stored beside them."""
    frames = len(sequence)
    jaw_eyes = np.zeros((frames, 9), dtype=sequence.pose_body.dtype)
    hands = np.zeros((frames, 90), dtype=sequence.pose_body.dtype) if sequence.hands is None else sequence.hands
    save_npz(
        path,
        {
            "poses": np.concatenate([sequence.root_orient, sequence.pose_body, jaw_eyes, hands], axis=1),
            "root_orient": sequence.root_orient,
            "pose_body": sequence.pose_body,
            "pose_jaw": jaw_eyes[:, :3],
            "pose_eye": jaw_eyes[:, 3:],
            "pose_hand": hands,
            "trans": sequence.trans,
            "betas": sequence.betas,
            "num_betas": np.array(len(sequence.betas)),
            "gender": np.array(sequence.gender),
            "surface_model_type": np.array("smplx"),
            **({} if sequence.fps is None else {"mocap_frame_rate": np.array(float(sequence.fps))}),
            **extra,
        },
    )


@dataclass(frozen=True)
class AmassFile:
    """One sequence file of an AMASS folder."""

    path: Path
    split: str
    subset: str
    subject: str
    """``subset/folder``: AMASS keeps one folder per subject."""

    def generator(self, seed: int, repeat: int = 0) -> np.random.Generator:
        """A generator of this file's own, so that its draw does not depend on which other files there are."""
        name = f"{self.subject}/{self.path.name}".encode()
        digest = np.frombuffer(hashlib.sha256(name).digest(), dtype="<u4")
        return np.random.default_rng([seed, repeat, *(int(word) for word in digest)])


def find_amass(folder: PathLike) -> list[AmassFile]:
    """Sequence files ``<subset>/<subject>/*_{stageii,poses}.npz`` of the known subsets, in a fixed order.

    Raises:
        InputError: none found.
    """
    folder = Path(folder)
    found = list(_walk(folder)) if folder.is_dir() else []
    if not found:
        raise InputError(
            f"{folder}: found no <subset>/<subject>/*_stageii.npz or *_poses.npz of a known AMASS subset, expected AMASS; check --input"
        )
    return found


def _walk(folder: Path) -> Iterator[AmassFile]:
    folders: dict[str, list[Path]] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_dir()):
        folders.setdefault(ALIASES.get(path.name, path.name), []).append(path)
    for split, subsets in SPLITS.items():
        for subset in subsets:
            for root in folders.get(subset, []):
                for path in sorted([*root.glob("*/*_stageii.npz"), *root.glob("*/*_poses.npz")]):
                    yield AmassFile(path, split, subset, f"{subset}/{path.parent.name}")


def draw_frames(frames: int, generator: np.random.Generator) -> np.ndarray:
    """Indices, ascending, of ``floor(0.3 * 0.8 * N)`` frames drawn without replacement from ``floor(0.1 N) .. floor(0.9 N) - 1``.

    Source: the usual preparation of AMASS for pose priors (VPoser, DPoser).
    """
    first, last = frames // 10, 9 * frames // 10
    count = min(24 * frames // 100, last - first)
    return np.sort(generator.choice(np.arange(first, last), size=count, replace=False))


def draw_repeats(files: list[AmassFile]) -> list[tuple[AmassFile, int]]:
    """The files with the duplication of the reference preparation: (file, number of the draw).

    There the list of files grows from subset to subset and is drawn from anew each time, so that of the k subsets of a split the
    first is drawn from k times and the last once. The published size of the test split (Transitions twice, SSM once) comes from this.
    """
    repeated = []
    for split in SPLITS:
        own = [file for file in files if file.split == split]
        present = list(dict.fromkeys(file.subset for file in own))
        for repeat in range(len(present)):
            repeated += [(file, repeat - present.index(file.subset)) for file in own if present.index(file.subset) <= repeat]
    return repeated


def _frames(path: PathLike, arrays: dict[str, np.ndarray], key: str, widths: tuple[int, ...], frames: int | None = None) -> np.ndarray:
    array = finite(arrays[key], f"{path}: {key}")
    fits = array.ndim == 2 and array.shape[1] in widths and len(array) > 0 and frames in (None, len(array))
    if not fits:
        wanted = f"({frames or 'frames'}, {' or '.join(map(str, widths))})"
        raise InputError(f"{path}: '{key}' has shape {array.shape}, expected {wanted}; check that it is {_WHAT}")
    return array


def _betas(path: PathLike, arrays: dict[str, np.ndarray]) -> np.ndarray:
    betas = np.atleast_2d(finite(arrays["betas"], f"{path}: betas"))
    if betas.ndim != 2 or not len(betas):
        raise InputError(f"{path}: 'betas' has shape {betas.shape}, expected (coefficients,) or (shapes, coefficients)")
    return betas[0]


def _text(value: np.ndarray | None, default: str) -> str:
    if value is None or value.size != 1:
        return default
    item = value.reshape(-1)[0]
    return item.decode(errors="replace") if isinstance(item, bytes) else str(item)


def _rate(path: PathLike, arrays: dict[str, np.ndarray]) -> float | None:
    for key in ("mocap_frame_rate", "mocap_framerate"):
        if key in arrays:
            rate = finite(arrays[key], f"{path}: {key}")
            if rate.size != 1 or rate.item() <= 0:
                raise InputError(f"{path}: '{key}' is {rate}, expected a positive number of frames per second")
            return float(rate.item())
    return None
