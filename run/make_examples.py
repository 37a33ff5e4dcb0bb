"""Make the example files: poses and a motion of held-out subjects, and what a poor sensor would see of that motion.

python -m run.make_examples --dataset-folder data/cmu_processed --motion AMASS/CMU/86/86_01_stageii.npz
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dposer.body import BodyModel
from dposer.body.skeleton import SMPLX_22
from dposer.data.amass import AmassSequence, read_amass, write_amass
from dposer.data.processed import read_split
from dposer.errors import InputError
from dposer.files import save_npz
from dposer.solvers.generation_scores import balanced_draw
from run._cli import cli, table, writable_folder

_NOISE = 0.02
_HOLES = 0.05
_HIDDEN = (slice(120, 150), ("left_elbow", "left_wrist"))
"""Frames in which an arm is not seen."""


@dataclass
class Args:
    dataset_folder: Path = Path("./data/AMASS/amass_processed")
    """Folder of processed data sets (`python -m run.prepare_data`)."""
    version: str = "version1"
    """Which of them."""
    split: str = "test"
    """Split to draw poses from; keep it one that the prior was not trained on."""
    num: int = 500
    """How many poses; 0 makes none."""
    motion: Path | None = None
    """An AMASS sequence of such a subject; default: no motion is made."""
    start: int = 0
    """Its first frame that is taken."""
    frames: int = 240
    """How many."""
    output: Path = Path("./examples")
    """Folder to write: toy_data.npz with pose_samples (num, 63) in radians, motion.npz with AMASS's keys, and noisy_joints.npz with
    joints (frames, 22, 3) in metres, NaN where missing."""
    seed: int = 0
    """Of the poses drawn, the noise and the holes."""


def main(args: Args) -> None:
    folder = writable_folder(args.output)
    written = []
    if args.num:
        split = read_split(args.dataset_folder / args.version, args.split)
        poses = balanced_draw(split.pose_body, split.subject, args.num, args.seed)
        save_npz(folder / "toy_data.npz", {"pose_samples": poses.numpy()})
        written.append([str(folder / "toy_data.npz"), f"{len(poses)} poses"])
    if args.motion is not None:
        motion = _cut(args.motion, args.start, args.frames)
        write_amass(folder / "motion.npz", motion)
        joints = _measured(motion, np.random.default_rng(args.seed))
        save_npz(folder / "noisy_joints.npz", {"joints": joints, "names": np.array(SMPLX_22.joints), "fps": np.array(motion.fps)})
        written += [[str(folder / name), f"{len(motion)} frames"] for name in ("motion.npz", "noisy_joints.npz")]
    print(table(["written", "holds"], written))


def _cut(path: Path, start: int, count: int) -> AmassSequence:
    """Some frames in single precision, with the hands at rest."""
    whole = read_amass(path)
    if not 0 <= start < start + count <= len(whole):
        raise InputError(f"--start {start} --frames {count}: {path} has {len(whole)} frames; take fewer or begin earlier")
    rows = slice(start, start + count)
    pose, root, trans = (part[rows].astype(np.float32) for part in (whole.pose_body, whole.root_orient, whole.trans))
    return dataclasses.replace(whole, pose_body=pose, root_orient=root, trans=trans, betas=whole.betas.astype(np.float32), hands=None)


def _measured(motion: AmassSequence, rng: np.random.Generator) -> np.ndarray:
    """Joints (F, 22, 3) with noise, holes and an arm out of sight."""
    pose, root, trans, betas = (torch.as_tensor(part) for part in (motion.pose_body, motion.root_orient, motion.trans, motion.betas[None]))
    joints = BodyModel()(pose, root, betas[:, :10], trans, vertices=None, joints="body").joints.numpy()
    joints = joints + _NOISE * rng.standard_normal(joints.shape, dtype=np.float32)
    joints[rng.random(joints.shape[:2]) < _HOLES] = np.nan
    frames, names = _HIDDEN
    joints[frames, [SMPLX_22.joints.index(name) for name in names]] = np.nan
    return joints


if __name__ == "__main__":
    cli(main)
