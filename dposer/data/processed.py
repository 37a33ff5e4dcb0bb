"""The prepared pose set: ``<folder>/{train,valid,test}/{pose_body,root_orient,betas}.pt``, bare tensors, one row a pose.

Beside them, where the persons are known: ``subject.pt`` (a number per pose) in each split, and their names in ``<folder>/subjects.json``.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dposer.errors import InputError
from dposer.files import PathLike, load_tensors, save_tensors

_WIDTHS = {"pose_body": 63, "root_orient": 3, "betas": 10}
SUBJECTS = "subjects.json"


@dataclass(frozen=True)
class PoseSplit:
    """N poses."""

    pose_body: Tensor
    """(N, 63) float32 axis-angle."""
    root_orient: Tensor
    """(N, 3) float32 axis-angle."""
    betas: Tensor
    """(N, 10) body shape."""
    subject: Tensor | None = None
    """(N,) int64 number of the person, None if unknown."""

    def __len__(self) -> int:
        return len(self.pose_body)


def write_split(folder: PathLike, split: str, poses: PoseSplit) -> None:
    """Write one split; a ``subject.pt`` left from an earlier run is removed if the persons are unknown."""
    target = Path(folder) / split
    for key in _WIDTHS:
        save_tensors(target / f"{key}.pt", getattr(poses, key).contiguous())
    if poses.subject is None:
        (target / "subject.pt").unlink(missing_ok=True)
    else:
        save_tensors(target / "subject.pt", poses.subject)


def read_split(folder: PathLike, split: str, sample: int = 1) -> PoseSplit:
    """Read one split, every ``sample``-th pose; float32.

    Raises:
        InputError: the split was not prepared, or a file is not what it should be.
    """
    if sample < 1:
        raise InputError(f"sample: found {sample}, expected at least 1 (every sample-th pose is kept)")
    source = Path(folder) / split
    if not (source / "pose_body.pt").is_file():
        raise InputError(f"{source}: found no pose_body.pt, expected prepared poses; make them with python -m run.prepare_data")
    pose_body = _read(source / "pose_body.pt", 63)
    parts = {key: _read(source / f"{key}.pt", width, len(pose_body))[::sample] for key, width in _WIDTHS.items() if key != "pose_body"}
    return PoseSplit(pose_body[::sample], **parts, subject=_read_subject(source / "subject.pt", len(pose_body), sample))


def _read(path: Path, width: int, rows: int | None = None) -> Tensor:
    tensor = load_tensors(path, f"a tensor (poses, {width})")
    if (
        not isinstance(tensor, Tensor)
        or tensor.ndim != 2
        or tensor.shape[1] != width
        or len(tensor) == 0
        or rows not in (None, len(tensor))
    ):
        found = f"shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise InputError(f"{path}: found {found}, expected ({rows or 'poses'}, {width}); prepare the data again")
    if not torch.isfinite(tensor).all():
        raise InputError(f"{path}: found NaN or infinite values, expected finite numbers; prepare the data again")
    return tensor.float()


def _read_subject(path: Path, rows: int, sample: int) -> Tensor | None:
    if not path.is_file():
        return None
    subject = load_tensors(path, "subject numbers")
    if not isinstance(subject, Tensor) or subject.shape != (rows,) or subject.is_floating_point():
        raise InputError(
            f"{path}: found {getattr(subject, 'shape', type(subject).__name__)}, expected {rows} whole numbers; prepare the data again"
        )
    return subject.long()[::sample]


def subject_weights(subject: Tensor) -> Tensor:
    """Weight of each pose (N,) with which every subject counts the same: ``w_i = 1 / (S n_s(i))``, sum 1, float64."""
    _, inverse, counts = torch.unique(subject, return_inverse=True, return_counts=True)
    return 1.0 / (len(counts) * counts.double())[inverse]


def balanced_indices(subject: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """``n`` pose indices, with replacement: a subject drawn uniformly, then one of its poses drawn uniformly.

    A few subjects hold most of the frames of a mocap corpus; this keeps them from ruling the prior.
    """
    _, counts = torch.unique(subject, return_counts=True)
    order = torch.argsort(subject, stable=True)
    starts = counts.cumsum(0) - counts
    drawn = torch.randint(len(counts), (n,), generator=generator)
    within = (torch.rand(n, generator=generator, dtype=torch.float64) * counts[drawn]).long()
    return order[starts[drawn] + within]
