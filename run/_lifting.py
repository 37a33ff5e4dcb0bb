"""What the lifting commands share: the data sets by their names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from dposer.body.skeleton import COCO_17, H36M_17
from dposer.data.h36m import read_h36m, splits
from dposer.data.lifting_clip import LiftingClip
from dposer.data.mpi_inf_3dhp import TARGETS, read_3dhp_test, read_3dhp_train
from dposer.errors import InputError
from dposer.lifting.config import LiftingConfig
from dposer.lifting.inputs import to_layout

Dataset = Literal["h36m", "3dhp", "open"]
KEYPOINTS = {"h36m": "cpn_ft_h36m_dbb", "open": "noisy"}
_SPLITS_3DHP = {
    "train": tuple(f"S{i}" for i in range(1, 8)), "valid": ("S8",), "test": tuple(f"TS{i}" for i in range(1, 7)),
}  # fmt: skip


def subjects_of(dataset: Dataset, folder: Path, split: str) -> tuple[str, ...]:
    """Of the train, valid or test split."""
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

    Raises:
        InputError: files missing or broken, or of another layout than the model's.
    """
    if dataset == "3dhp" and all(subject.startswith("TS") for subject in subjects):
        clips = read_3dhp_test(folder, target, aspect, None if subjects == _SPLITS_3DHP["test"] else subjects)  # of all, those there are
    elif dataset == "3dhp":
        clips = read_3dhp_train(folder, target, subjects)
    else:
        clips = read_h36m(folder, keypoints or KEYPOINTS[dataset], dataset, subjects, actions, stride, _from_coco, uv_square)
    for clip in clips:
        if clip.layout.name != config.layout:
            raise InputError(f"--dataset {dataset}: its joints are {clip.layout.name}, the model's {config.layout}; choose --config.layout")
    return clips


def _from_coco(keypoints: np.ndarray) -> np.ndarray:
    return to_layout(keypoints, COCO_17, H36M_17)
