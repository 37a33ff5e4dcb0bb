"""The motions that benchmarks are measured on: fragments, single poses and a long sequence of held-out subjects."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from dposer.body import BodyModel
from dposer.data.amass import AmassSequence, read_amass
from dposer.data.processed import balanced_indices, subject_weights
from dposer.errors import InputError
from dposer.metrics.distribution import gaussian_statistics
from dposer.prior import PosePrior
from dposer.solvers.generation_scores import joint_positions
from dposer.solvers.motion_denoising import simulate

FOLDER = Path("data/AMASS/amass_like")
FPS = 30.0
Clips = Mapping[str, Sequence[AmassSequence]]
"""By subject."""

_FADE = 0.2
"""Per frame: what differs between two clips is down to a tenth of itself after 20 frames."""
_LEAST_VARIANCE = 0.02**2
"""Radians², added to a Gaussian's variances: the feet of a corpus may never turn."""


@dataclass(frozen=True)
class Fragments:
    """N pieces of F frames, root, translation and shape at zero."""

    poses: Tensor
    """(N, F, 63) axis-angle."""
    joints: Tensor
    """(N, F, 22, 3) metres."""

    def __len__(self) -> int:
        return len(self.poses)

    def observed(self, noise_std: float, seed: int) -> Tensor:
        """The joints with noise; every method gets the same."""
        return simulate(self.joints, noise_std, torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Motions:
    """Clips <folder>/<split>/<subject>/*.npz, the prior and the body.

    Raises:
        InputError: of the methods: a split that is not there.
    """

    folder: Path
    prior: PosePrior
    body: BodyModel
    seed: int = 0

    def fragments(self, split: str, per_subject: int, frames: int = 60) -> Fragments:
        """Pieces that do not overlap, of each subject as many, drawn by the seed; of a subject without so many all there are."""
        random, drawn = np.random.default_rng(self.seed), []
        for clips in read_clips(self.folder / split).values():
            pieces = [clip.pose_body[i : i + frames] for clip in clips for i in range(0, len(clip) - frames + 1, frames)]
            drawn += [pieces[i] for i in random.permutation(len(pieces))[:per_subject]]
        if not drawn:
            raise InputError(f"{self.folder / split}: no motion there has {frames} frames (at {FPS:g} a second), expected some")
        poses = torch.tensor(np.stack(drawn), dtype=torch.float32)
        joints = joint_positions(self.body, poses.flatten(0, 1))
        return Fragments(poses, joints.unflatten(0, poses.shape[:2]))

    def poses(self, split: str, count: int) -> Tensor:
        """(count, 63) drawn by the seed, each subject as likely as any other."""
        poses, subject = self._frames(split)
        return poses[balanced_indices(subject, count, torch.Generator().manual_seed(self.seed))]

    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Mean (63,) and covariance (63, 63) of the training poses, each subject alike."""
        poses, subject = self._frames("train")
        mean, covariance = gaussian_statistics(poses, subject_weights(subject))
        return mean.float(), (covariance + _LEAST_VARIANCE * torch.eye(len(mean)).to(covariance)).float()

    def long(self, frames: int) -> AmassSequence:
        """A sequence without end: clips of the test subjects in turn, :func:`joined`, on a body with a shape of its own."""
        subjects = list(read_clips(self.folder / "test").values())
        random, total = np.random.default_rng(self.seed), 0
        clips: list[AmassSequence] = []
        while total < frames:
            some = subjects[len(clips) % len(subjects)]
            clips.append(some[int(random.integers(len(some)))])
            total += len(clips[-1])
        whole = joined(clips)
        betas = random.normal(size=self.body.num_betas)
        return AmassSequence(whole.pose_body[:frames], whole.root_orient[:frames], whole.trans[:frames], betas, "neutral", FPS)

    def _frames(self, split: str) -> tuple[Tensor, Tensor]:
        clips = [(clip, person) for person, some in enumerate(read_clips(self.folder / split).values()) for clip in some]
        poses = np.concatenate([clip.pose_body for clip, _ in clips])
        subject = np.repeat([person for _, person in clips], [len(clip) for clip, _ in clips])
        return torch.tensor(poses, dtype=torch.float32), torch.tensor(subject)


@cache
def read_clips(folder: Path) -> Clips:
    """All clips of a split, thinned to about 30 frames a second; those of a frame or two are left out."""
    clips: dict[str, list[AmassSequence]] = {}
    for path in sorted(folder.glob("*/*.npz")):
        clip = read_amass(path)
        step = max(1, round((clip.fps or FPS) / FPS))
        parts = {name: getattr(clip, name)[::step] for name in ("pose_body", "root_orient", "trans")}
        if len(parts["trans"]) > 2:
            clips.setdefault(path.parent.name, []).append(dataclasses.replace(clip, **parts, hands=None, fps=FPS))
    if not clips:
        raise InputError(
            f"{folder}: found no <subject>/*.npz, expected AMASS sequences; "
            f"make them by python -m run.prepare_data --source cmu --input MOCAP --write-amass {folder.parent}, or give --motion-folder"
        )
    return clips


def joined(clips: Sequence[AmassSequence]) -> AmassSequence:
    r"""Clips one after another, each turned about the vertical and moved to where the one before has led.

    What still differs at a joint, in place and in speed, fades away by :math:`(\delta + (v + k \delta) t) e^{-k t}`, so that poses and
    speeds are continuous.
    """
    rotations, places = _rotations(clips[0]), clips[0].trans
    for clip in clips[1:]:
        rotation, place = _rotations(clip), clip.trans
        ahead = rotations[-1] @ rotations[-2].swapaxes(-1, -2) @ rotations[-1]  # one frame beyond the last, at its speed
        turn = _about_vertical(_heading(ahead[0]) - _heading(rotation[0, 0]))
        rotation = np.concatenate((turn @ rotation[:, :1], rotation[:, 1:]), axis=1)
        place = (place - [*place[0, :2], 0]) @ turn.T
        target = 2 * places[-1] - places[-2]
        place = place + [*target[:2], 0]
        away = _vector(ahead @ rotation[0].swapaxes(-1, -2))
        speed = _vector(ahead @ rotations[-1].swapaxes(-1, -2)) - _vector(rotation[1] @ rotation[0].swapaxes(-1, -2))
        rotation = Rotation.from_rotvec(_fading(away, speed, len(clip)).reshape(-1, 3)).as_matrix().reshape(rotation.shape) @ rotation
        place = place + _fading(target - place[0], target - places[-1] - place[1] + place[0], len(clip))
        rotations, places = np.concatenate((rotations, rotation)), np.concatenate((places, place))
    vectors = _vector(rotations)
    return AmassSequence(vectors[:, 1:].reshape(-1, 63), vectors[:, 0], places, clips[0].betas, clips[0].gender, clips[0].fps)


def _fading(away: np.ndarray, speed: np.ndarray, frames: int) -> np.ndarray:
    t = np.arange(frames).reshape(-1, *[1] * away.ndim)
    return (away + (speed + _FADE * away) * t) * np.exp(-_FADE * t)


def _rotations(clip: AmassSequence) -> np.ndarray:
    """(F, 22, 3, 3), the root first."""
    vectors = np.concatenate((clip.root_orient, clip.pose_body), axis=1).reshape(-1, 3)
    return Rotation.from_rotvec(vectors).as_matrix().reshape(len(clip), -1, 3, 3)


def _vector(matrices: np.ndarray) -> np.ndarray:
    return Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_rotvec().reshape(matrices.shape[:-1])


def _heading(root: np.ndarray) -> float:
    """Where the chest points to on the ground, radians."""
    forward = root[:, 2]
    return float(np.arctan2(forward[1], forward[0]))


def _about_vertical(angle: float) -> np.ndarray:
    return Rotation.from_euler("z", angle).as_matrix()
