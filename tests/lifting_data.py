"""Small lifting data sets of the layouts that users have."""

from pathlib import Path

import numpy as np

from dposer.body.skeleton import H36M_17, MPI_INF_3DHP_17
from dposer.data.h36m import CAMERAS, projections, write_h36m
from dposer.data.lifting_clip import LiftingClip
from dposer.data.mpi_inf_3dhp import read_3dhp_test, write_3dhp_test


def someone(frames: int, seed: int) -> np.ndarray:
    """(frames, 17, 3): the joints of H36M_17 of a stick figure that sways about the middle of the stage, metres, z up."""
    random = np.random.default_rng(seed)
    joints = np.zeros((17, 3))
    ways = {
        "hip": (0.13, 0, 0), "knee": (0, 0.05, -0.44), "ankle": (0, -0.05, -0.44), "spine": (0, 0, 0.23), "neck": (0, 0, 0.25),
        "head": (0, 0.05, 0.11), "head_top": (0, 0, 0.12), "shoulder": (0.15, 0, 0), "elbow": (0.02, 0, -0.28), "wrist": (0, 0.05, -0.25),
    }  # fmt: skip
    for joint, (name, parent) in enumerate(zip(H36M_17.joints, H36M_17.parents, strict=True)):
        if parent >= 0:
            x, y, z = ways[name.removeprefix("left_").removeprefix("right_")]
            joints[joint] = joints[parent] + np.array([-x if name.startswith("left") else x, y, z])
    sway = np.sin(np.linspace(0, 6, frames))[:, None, None] * random.normal(0, 0.05, (1, 17, 3))
    return (joints + sway + [0, 0, 0.95]).astype(np.float32)


def write_dataset(folder: Path, dataset: str, keypoints: str, subjects: dict[str, tuple[str, ...]], frames: int = 40) -> None:
    """Two motions of each subject before Human3.6M's cameras, in VideoPose3D's layout."""
    names = [subject for some in subjects.values() for subject in some]
    positions = {
        name: {f"Walking {take}": someone(frames + 7 * take, 10 * number + take) for take in (1, 2)} for number, name in enumerate(names)
    }
    cameras = {name: CAMERAS["S1"] for name in names}
    films = projections(positions, cameras)
    write_h36m(folder, dataset, positions, {keypoints: films, "gt": films}, cameras, {"fps": 30.0, "splits": subjects})


def write_3dhp(folder: Path, frames: int = 30) -> None:
    """The six test sequences as the processed npz has them."""
    rows = [H36M_17.joints.index(name) for name in MPI_INF_3DHP_17.joints]
    clips = []
    for number in range(1, 7):
        joints = someone(frames, number)[:, rows] * [1, -1, -1] + [0, 0.9, 4]
        keypoints = np.concatenate((joints[..., :2] / joints[..., 2:] * 1500 + 1000, np.ones((frames, 17, 1))), -1)
        valid = np.arange(frames) != 3
        size = (2048, 2048) if number < 5 else (1920, 1080)
        clips.append(
            LiftingClip(
                f"TS{number}", "annot3", "0", keypoints.astype(np.float32), joints.astype(np.float32), size, None, MPI_INF_3DHP_17, 25.0,
                valid=valid,
            )
        )  # fmt: skip
    write_3dhp_test(folder, clips)
    assert len(read_3dhp_test(folder)) == 6
