"""People before cameras whose bodies are known exactly, and what a keypoint detector would make of them.

The detector is a model with published proportions: keypoints err by the deviations that annotators of COCO were found to have (Lin et al.,
ECCV 2014), some are far off, and now and then left and right of a limb are mistaken for each other (Ronchi & Perona, ICCV 2017).
Confidences know a little about the first and nothing about the others.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import roma
import torch
from torch import Tensor

from benchmarks.motion_data import read_clips
from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.points import BodyPoints, Skeleton
from dposer.body.skeleton import OPENPOSE_25
from dposer.data.amass import AmassSequence, read_amass, read_poses
from dposer.data.keypoints import kappas
from dposer.data.processed import balanced_indices, read_split
from dposer.errors import InputError
from dposer.geometry.camera import Camera

SIZE = (1280, 960)
"""Pixels, width and height of all pictures."""
Hidden = Literal["legs", "arms"]

_LIMBS = {"legs": ("knee", "ankle", "toe", "heel"), "arms": ("elbow", "wrist")}
_LONG = 1.5
"""Diagonals, the longer of the two focal lengths."""
_DISTANCE = (2.5, 6.0)
"""Metres."""
_ELEVATION = (-10.0, 30.0)
_ASIDE = 0.1
"""Of the picture, by how much a person may be out of its middle."""
_MARGIN = 0.02
_BACK = 1.05
"""Who is not all in the picture goes back by this factor, again and again."""
_LEAST_DEPTH = 0.5
_LEANING = 0.15
"""Radians, standard deviation."""
_LEFT = 6
"""Keypoints that never get lost."""
_UP = torch.tensor([-math.pi / 2, 0.0, 0.0])
"""Turns AMASS's +z up to SMPL-X's +y."""


@dataclass(frozen=True)
class Detector:
    """How keypoints err; shares are of all keypoints, or of people."""

    noise: float = 0.01
    """Standard deviation along each axis, mean over the kinds of keypoints, of the person's height in the picture."""
    missing: float = 0.05
    hidden: Hidden | None = None
    """What lies outside the picture, or behind something."""
    gross: float = 0.02
    """Share of keypoints that are ``gross_size`` of the height away."""
    gross_size: float = 0.1
    swapped: float = 0.02
    """Share of people with left and right of their arms or of their legs swapped."""
    lasting: float = 0.0
    """Correlation of the errors of neighbouring frames of a film."""


@dataclass(frozen=True)
class People:
    """N people of known bodies, or one person in N frames, whose camera looks along +z, y down."""

    pose_body: Tensor
    """(N, 63) axis-angle, radians."""
    root_orient: Tensor
    """(N, 3) axis-angle."""
    trans: Tensor
    """(N, 3) metres."""
    betas: Tensor
    """(N, 10)."""
    camera: Camera
    """Of each person."""
    joints: Tensor
    """(N, 22, 3) metres, in the camera's axes."""
    pixels: Tensor
    """(N, 25, 2): where OpenPose's keypoints are in the picture."""
    height: Tensor
    """(N,) pixels: how tall the person would stand where they are."""

    def __len__(self) -> int:
        return len(self.pose_body)

    def part(self, rows: slice) -> "People":
        """Some of them."""
        parts = {name: value[rows] for name, value in vars(self).items() if name != "camera"}
        return People(**parts, camera=Camera(self.camera.focal[rows], self.camera.centre[rows]))

    def detected(self, detector: Detector, seed: int, film: bool = False) -> Tensor:
        """(N, 25, 3) keypoints; those of other detectors with the same seed err in the same directions.

        Args:
            film: whether the N are frames of a film, so that swapped limbs stay swapped and the others' errors may last.
        """
        random = torch.Generator().manual_seed(seed)
        count, kinds = self.pixels.shape[:2]

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=random)

        error = _lasting(torch.randn(count, kinds, 2, generator=random), detector.lasting) * _deviations()[:, None]
        gross, direction, lost = uniform(count, kinds), 2 * math.pi * uniform(count, kinds), uniform(count, kinds)
        which, trust = uniform(1 if film else count), torch.randn(count, kinds, generator=random)
        surprise = torch.linalg.vector_norm(error, dim=-1) / _deviations()
        away = detector.gross_size * torch.stack((direction.cos(), direction.sin()), -1)
        error = torch.where((gross < detector.gross)[..., None], away, detector.noise * error)
        confidence = (0.8 - 0.1 * surprise + 0.1 * trust).clamp(0.1, 1)
        kept = (lost >= detector.missing) | (lost.argsort(descending=True).argsort() < _LEFT)
        if detector.hidden is not None:
            kept &= ~_of_kind(*_LIMBS[detector.hidden])
        keypoints = torch.cat((self.pixels + error * self.height[:, None, None], confidence[..., None]), -1)
        limbs = torch.where(which < detector.swapped / 2, 1, 0) + torch.where(which > 1 - detector.swapped / 2, 2, 0)
        return (keypoints * kept[..., None])[torch.arange(count)[:, None], _orders()[limbs]]


def _lasting(noise: Tensor, correlation: float) -> Tensor:
    """White noise along the first axis → an autoregression with the same deviation."""
    if correlation == 0:
        return noise
    rows = [noise[0]]
    for row in noise[1:]:
        rows.append(correlation * rows[-1] + math.sqrt(1 - correlation**2) * row)
    return torch.stack(rows)


def _deviations() -> Tensor:
    """(25,) with mean 1."""
    values = torch.tensor(kappas(OPENPOSE_25.joints), dtype=torch.float32)
    return values / values.mean()


def _of_kind(*kinds: str) -> Tensor:
    return torch.tensor([any(kind in name for kind in kinds) for name in OPENPOSE_25.joints])


def _orders() -> Tensor:
    """(3, 25): keypoints as they are, with swapped arms, and with swapped legs."""
    same, other = torch.arange(len(OPENPOSE_25.joints)), torch.tensor(OPENPOSE_25.mirror)
    return torch.stack([same, *(torch.where(_of_kind(*_LIMBS[limb]), other, same) for limb in ("arms", "legs"))])


# ---- bodies before cameras ---------------------------------------------------------------------------------------------


def people(poses: Tensor, body: BodyModel, seed: int) -> People:
    """Each pose (N, 63) on a body of its own, seen from anywhere around it.

    Shapes are standard normal within ±2, azimuths uniform, elevations from -10° to 30°, distances from 2.5 m to 6 m, or more until all
    of the person is in the picture; the focal length is the diagonal or half as much again.
    """
    random, count = torch.Generator().manual_seed(seed), len(poses)
    betas = torch.randn(count, body.num_betas, generator=random).clamp(-2, 2)
    leaning = roma.rotvec_to_rotmat(_LEANING * torch.randn(count, 3, generator=random) * torch.tensor([1.0, 0.0, 1.0]))
    view, camera, ray = _views(count, random)
    return _seen(poses, view @ leaning, torch.zeros(count, 3), betas, camera, ray, body)


def film(clip: AmassSequence, body: BodyModel, seed: int) -> People:
    """One person, whose shape is drawn as for :func:`people`, before a camera at rest that has all of the motion in the picture."""
    random = torch.Generator().manual_seed(seed)
    pose, root, trans = (torch.tensor(part, dtype=torch.float32) for part in (clip.pose_body, clip.root_orient, clip.trans))
    betas = torch.randn(1, body.num_betas, generator=random).clamp(-2, 2).expand(len(pose), -1)
    view, camera, ray = _views(1, random)
    view = view @ roma.rotvec_to_rotmat(_UP)
    return _seen(pose, view @ roma.rotvec_to_rotmat(root), trans @ view[0].T, betas, camera, ray, body)


def _views(count: int, random: torch.Generator) -> tuple[Tensor, Camera, Tensor]:
    """Rotations (C, 3, 3) from an upright body that faces +z, cameras, and where at a given distance a person is (C, 3)."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=random)

    azimuth, elevation, nothing = uniform(-math.pi, math.pi), torch.deg2rad(uniform(*_ELEVATION)), torch.zeros(count)
    around = roma.rotvec_to_rotmat(torch.stack((nothing, azimuth, nothing), -1))
    facing = roma.rotvec_to_rotmat(torch.stack((math.pi + elevation, nothing, nothing), -1))
    distance, long = uniform(*_DISTANCE), uniform(0, 1) < 0.5
    one = Camera.of_size(*SIZE)
    camera = Camera(one.focal * torch.where(long, _LONG, 1.0)[:, None], one.centre.expand(count, 2))
    aside = torch.stack([size * uniform(-_ASIDE, _ASIDE) for size in SIZE], -1)
    return facing @ around, camera, camera.ray((camera.centre + aside)[:, None])[:, 0] * distance[:, None]


def _seen(pose: Tensor, root: Tensor, trans: Tensor, betas: Tensor, camera: Camera, middle: Tensor, body: BodyModel) -> People:
    """N people before N cameras, or all before one; whoever is not in the picture goes back."""
    points, skeleton, cameras = BodyPoints.of_layout(body, OPENPOSE_25), Skeleton(body), len(middle)
    count = len(pose)
    posed = skeleton(pose, root, trans, betas)
    cloud = torch.cat((points(posed, betas), posed.positions), 1).unflatten(0, (cameras, -1)).flatten(1, 2)
    centre = (cloud.amin(1) + cloud.amax(1)) / 2
    size, border = torch.tensor(SIZE), _MARGIN * min(SIZE)
    outside = torch.ones(cameras, 1, dtype=torch.bool)
    while bool(outside.any()):
        placed = cloud + (middle - centre)[:, None]
        pixels = camera.project(placed)
        there = ((pixels > border) & (pixels < size - border)).all(-1) & (placed[..., 2] > _LEAST_DEPTH)
        outside = ~there.all(1, keepdim=True)
        middle = torch.where(outside, _BACK * middle, middle)
    trans = trans + (middle - centre).repeat_interleave(count // cameras, 0)
    focal, principal = (part.expand(count, 2) if cameras == 1 else part for part in (camera.focal, camera.centre))
    camera = Camera(focal, principal)
    posed = skeleton(pose, root, trans, betas)
    height = _stature(body, betas) * focal.mean(-1) / posed.positions[:, 0, 2]
    return People(pose, roma.rotmat_to_rotvec(root), trans, betas, camera, posed.positions, camera.project(points(posed, betas)), height)


def _stature(body: BodyModel, betas: Tensor) -> Tensor:
    """(N,) metres."""
    different, rows = torch.unique(betas, dim=0, return_inverse=True)
    tall = []
    for some in different.split(64):
        vertices = body(some.new_zeros(len(some), 63), betas=some).vertices
        assert vertices is not None
        tall.append(vertices[..., 1].amax(1) - vertices[..., 1].amin(1))
    return torch.cat(tall)[rows]


# ---- poses and clips ---------------------------------------------------------------------------------------------------


def held_out_poses(folder: Path | None, split: str, count: int, seed: int) -> Tensor:
    """(count, 63), each subject as likely as any other, of a prepared set; None: of the example poses, which are of test subjects."""
    random = torch.Generator().manual_seed(seed)
    if folder is None:
        poses = torch.as_tensor(read_poses(asset("examples", "toy_data.npz")))
        if count > len(poses):
            raise InputError(f"{count} people, but there are {len(poses)} example poses; ask for fewer, or give --dataset-folder")
        return poses[torch.randperm(len(poses), generator=random)[:count]].float()
    data = read_split(folder, split)
    if data.subject is None:
        return data.pose_body[torch.randperm(len(data), generator=random)[:count]]
    return data.pose_body[balanced_indices(data.subject, count, random)]


def held_out_clips(folder: Path, count: int, seed: int, frames: int = 90) -> list[AmassSequence]:
    """The middle ``frames`` of at most ``count`` clips, one of each test subject of <folder>/test/<subject>/*.npz, 30 frames a second;
    without such a folder, of both halves of the example motion."""
    random = np.random.default_rng(seed)
    if (folder / "test").is_dir():
        subjects = [[clip for clip in clips if len(clip) >= frames] for clips in read_clips(folder / "test").values()]
        clips = [some[int(random.integers(len(some)))] for some in subjects if some]
    else:
        whole = read_amass(asset("examples", "motion.npz"))
        clips = [_cut(whole, 0, len(whole) // 2), _cut(whole, len(whole) // 2, len(whole))]
    return [_cut(clip, (len(clip) - frames) // 2, (len(clip) + frames) // 2) for clip in clips[:count]]


def _cut(clip: AmassSequence, start: int, stop: int) -> AmassSequence:
    parts = {name: getattr(clip, name)[max(start, 0) : stop] for name in ("pose_body", "root_orient", "trans")}
    return dataclasses.replace(clip, **parts)
