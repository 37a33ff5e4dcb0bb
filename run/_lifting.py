"""What the lifting commands share: the data sets by their names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np

from dposer.body.skeleton import COCO_17, H36M_17
from dposer.data.diffpose_files import Protocol, Split, read_diffpose
from dposer.data.h36m import read_h36m, splits
from dposer.data.lifting_clip import LiftingClip
from dposer.data.mpi_inf_3dhp import TARGETS, read_3dhp_test, read_3dhp_train
from dposer.data.synthetic_heatmaps import read_heatmaps
from dposer.errors import InputError
from dposer.lifting.config import LiftingConfig
from dposer.lifting.inputs import to_layout

Dataset = Literal["h36m", "3dhp", "open", "heatmaps", "h5"]
KEYPOINTS = {"h36m": "cpn_ft_h36m_dbb", "open": "noisy"}
_SPLITS_3DHP = {
    "train": tuple(f"S{i}" for i in range(1, 8)), "valid": ("S8",), "test": tuple(f"TS{i}" for i in range(1, 7)),
}  # fmt: skip


def subjects_of(dataset: Dataset, folder: Path, split: str) -> tuple[str, ...]:
    """Of the train, valid or test split; of heatmaps, which are not read by subject, the split itself."""
    if dataset == "heatmaps":
        return (split,)
    if dataset == "h5":
        return ({"train": "rest"}.get(split, split),)  # train has those of valid too, as the published training
    return _SPLITS_3DHP[split] if dataset == "3dhp" else splits(folder, dataset)[split]


def read_clips(
    dataset: Dataset,
    folder: Path,
    keypoints: str,
    subjects: Sequence[str],
    actions: str,
    stride: int,
    config: LiftingConfig,
    target: str = TARGETS[0],
    aspect: Literal["clean", "compat"] = "clean",
    uv_square: bool = False,
) -> list[LiftingClip]:
    """Clips of the named subjects, in the layout of the model; ``target``, ``aspect`` are those of 3dhp, ``uv_square`` of read_h36m.

    Of heatmaps and h5, ``subjects`` are splits, and ``keypoints`` names presets (default, hard) and the protocol (all, h36m, h36ma).

    Raises:
        InputError: files missing or broken, or of another layout than the model's.
    """
    if dataset == "heatmaps":
        presets = tuple(filter(None, keypoints.split(","))) or None
        clips = [clip for split in subjects for clip in read_heatmaps(folder, split, presets)]
    elif dataset == "h5":
        file, protocol = _table_file(folder), cast(Protocol, keypoints or "all")  # the reader checks both names
        clips = [clip for split in subjects for clip in read_diffpose(file, cast(Split, split), protocol)]
    elif dataset == "3dhp" and all(subject.startswith("TS") for subject in subjects):
        clips = read_3dhp_test(folder, target, aspect, None if subjects == _SPLITS_3DHP["test"] else subjects)  # of all, those there are
    elif dataset == "3dhp":
        clips = read_3dhp_train(folder, target, subjects)
    else:
        clips = read_h36m(folder, keypoints or KEYPOINTS[dataset], dataset, subjects, actions, stride, _from_coco, uv_square)
    for clip in clips:
        if clip.layout.name != config.layout:
            raise InputError(f"--dataset {dataset}: its joints are {clip.layout.name}, the model's {config.layout}; choose --config.layout")
    return clips


def _table_file(path: Path) -> Path:
    """The file, or the only one of a folder."""
    files = sorted(path.glob("*.h5")) if path.is_dir() else [path]
    if len(files) != 1:
        raise InputError(f"{path}: {len(files)} files .h5, expected one; give its path as --data")
    return files[0]


def _from_coco(keypoints: np.ndarray) -> np.ndarray:
    return to_layout(keypoints, COCO_17, H36M_17)
