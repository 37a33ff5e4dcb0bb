r"""An open data set for lifting, in Human3.6M's layout: motion capture on bodies of known shape, before four cameras, seen by a detector.

Every subject gets a body (of its file, or drawn) and four cameras around a stage like Human3.6M's. Clips are cut into pieces that stay on
the stage, each is turned about the vertical by an angle of its own and put somewhere on it. Keypoints are once the exact projections
(``gt``) and once those of a :class:`Detector` (``noisy``), whose errors :math:`e` at joint :math:`j` of someone of :math:`h` pixels go

.. math:: e_{j,t} = \sigma\,h\,\kappa_j\,s_{j,t} \big( \sqrt{w}\,a_t + \sqrt{1 - w}\,b_t \big), \qquad
    a_t = \rho\,a_{t-1} + \sqrt{1 - \rho^2}\,c_t,

with white normal :math:`b, c`, proportions :math:`\kappa` of COCO's annotators (Lin et al., ECCV 2014) and scales :math:`s` that are larger
for a while or while a joint is behind the trunk. Outliers, swapped limbs (Ronchi & Perona, ICCV 2017) and gaps come on top.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from scipy.signal import lfilter
from scipy.special import ndtri
from torch import Tensor

from dposer.body import BodyModel
from dposer.body.points import BodyPoints, Skeleton
from dposer.body.skeleton import H36M_17
from dposer.data.amass import read_amass
from dposer.data.h36m import CAMERAS, View, projections, write_h36m
from dposer.data.keypoints import kappas
from dposer.errors import InputError
from dposer.files import PathLike, load_npz
from dposer.geometry.lens import Lens, Stand

SPLITS = ("train", "valid", "test")
NAME = "open"
"""What the files call the data set."""
FPS = 30.0
SIZE = 3.0
"""Metres: the side of the stage, a square around the origin that the pelvis stays on."""
SHORTEST = 27
"""Frames of a piece."""

_PELVIS = H36M_17.joints.index("pelvis")
_NECK = H36M_17.joints.index("neck")
_LIMBS = (("elbow", "wrist"), ("knee", "ankle"))
_TRUNK = ("pelvis", "spine", "neck", "head", "head_top")
_DISTANCE = (4.0, 5.7)
_HEIGHT = (1.4, 1.7)
_AIM = (0.4, 1.0)
"""Metres: how far from the middle and how high cameras stand, and at which height they look there, as Human3.6M's do."""
_AZIMUTH = math.radians(8)
_ZOOM, _SHIFT = 0.03, 0.01
"""Standard deviations about Human3.6M's cameras: of azimuths, of the logarithm of focal lengths, of centres in widths."""
_IN_PICTURE = 0.998
"""Share of a subject's joints that each of its cameras has in the picture; else it steps back,"""
_BACK = 1.03
"""by this factor, again and again."""
_BETAS = 2.0
"""Drawn shapes are standard normal, within this."""
_STATURE = 1.7
"""Metres."""
_LEAST_TRUST = 0.05
"""Confidence of what was found at all."""


@dataclass(frozen=True)
class Detector:
    """How keypoints err. The mean error is about 5 pixels in a picture of 1000, as that of the detectors used with Human3.6M."""

    noise: float = 0.006
    """σ: standard deviation along each axis, mean over the kinds of joints, in heights of the person in the picture."""
    slow: float = 0.7
    """w: share of the variance that lasts."""
    lasting: float = 0.8
    """ρ: correlation of the lasting part from frame to frame."""
    tail: float = 0.08
    """Share of keypoints with errors ``tail_scale`` times as large, for some frames each."""
    tail_scale: float = 4.0
    hidden_scale: float = 2.5
    """How much larger errors are behind the trunk."""
    outliers: float = 0.004
    """Share of keypoints that are somewhere else, some ``outlier_size`` heights away."""
    outlier_size: float = 0.2
    swapped: float = 0.005
    """Share of frames with left and right of the arms mistaken for each other; of the legs as many."""
    missing: float = 0.005
    """Share of keypoints not found; outside the picture none is."""
    missing_hidden: float = 0.05
    """The same behind the trunk."""
    event: float = 0.9
    """Correlation from frame to frame of what decides about tails, swaps and gaps, so that they last."""
    trust: tuple[float, float, float] = (0.35, 0.6, 4.0)
    """c, d, r: a keypoint that is x deviations off has confidence c + d exp(-x² / 2r²),"""
    trust_noise: float = 0.06
    """give or take this;"""
    trust_hidden: float = 0.8
    trust_swapped: float = 0.85
    """times these behind the trunk and on swapped limbs."""

    def __call__(self, pixels: np.ndarray, joints: np.ndarray, view: View, random: np.random.Generator) -> np.ndarray:
        """Exact keypoints (F, 17, 2) and joints before the camera (F, 17, 3) → (F, 17, 3) pixels and confidence.

        Keypoints not found have confidence 0 and are where they were last (or will be first) seen.
        """
        shape, hidden = pixels.shape[:2], behind_trunk(joints)
        height = float(view.lens.focal.mean()) * _STATURE / joints[:, _PELVIS, 2].clip(1)
        unit = self.noise * height[:, None] * _proportions()
        scale = np.where(hidden, self.hidden_scale, 1) * np.where(self._event(random, shape, self.tail), self.tail_scale, 1)
        slow, fast = lasting(random, pixels.shape, self.lasting), random.standard_normal(pixels.shape)
        error = (unit * scale)[..., None] * (math.sqrt(self.slow) * slow + math.sqrt(1 - self.slow) * fast)
        away = self.outlier_size * height[:, None, None] * random.standard_normal(pixels.shape)
        error = np.where((random.random(shape) < self.outliers)[..., None], away, error)
        least, most, width = self.trust
        confidence = least + most * np.exp(-0.5 * (np.linalg.norm(error, axis=-1) / unit / width) ** 2)
        confidence = confidence * np.where(hidden, self.trust_hidden, 1) + self.trust_noise * random.standard_normal(shape)
        found = np.concatenate((pixels + error, confidence.clip(_LEAST_TRUST, 1)[..., None]), -1)
        for limb in _LIMBS:
            swapped = found[:, _swap(limb)] * (1, 1, self.trust_swapped)
            found = np.where(self._event(random, (len(pixels), 1), self.swapped)[..., None], swapped, found)
        outside = ((pixels < 0) | (pixels >= view.size)).any(-1)
        lost = self._event(random, shape, np.where(hidden, self.missing_hidden, self.missing)) | outside
        return _last_seen(found, lost, view.size).astype(np.float32)

    def _event(self, random: np.random.Generator, shape: tuple[int, ...], share: float | np.ndarray) -> np.ndarray:
        """Bool: true for runs of frames, ``share`` of all."""
        return np.asarray(lasting(random, shape, self.event) < ndtri(share))


def lasting(random: np.random.Generator, shape: tuple[int, ...], correlation: float) -> np.ndarray:
    r"""Standard normal :math:`a_t = \rho\,a_{t-1} + \sqrt{1 - \rho^2}\,c_t` along the first axis."""
    white = random.standard_normal(shape)
    rest = correlation * random.standard_normal((1, *shape[1:]))
    return lfilter([math.sqrt(1 - correlation**2)], [1, -correlation], white, axis=0, zi=rest)[0]


def behind_trunk(joints: np.ndarray, radius: float = 0.13, margin: float = 0.1) -> np.ndarray:
    """(F, 17) bool: joints (F, 17, 3) of the limbs whose rays pass the line from pelvis to neck within ``radius``, ``margin`` behind it."""
    rays = joints[..., :2] / joints[..., 2:]
    start, way = rays[:, [_PELVIS]], rays[:, [_NECK]] - rays[:, [_PELVIS]]
    along = (((rays - start) * way).sum(-1) / np.maximum((way**2).sum(-1), 1e-12)).clip(0, 1)
    depth = joints[:, [_PELVIS], 2] + along * (joints[:, [_NECK], 2] - joints[:, [_PELVIS], 2])
    apart = np.linalg.norm(rays - start - along[..., None] * way, axis=-1) * depth
    limb = np.array([name not in _TRUNK for name in H36M_17.joints])
    return (apart < radius) & (joints[..., 2] > depth + margin) & limb


def _proportions() -> np.ndarray:
    """(17,) with mean 1."""
    values = kappas(H36M_17.joints)
    return values / values.mean()


def _swap(parts: tuple[str, ...]) -> list[int]:
    """Order of the joints with left and right of some swapped."""
    return [other if name.endswith(parts) else row for row, (name, other) in enumerate(zip(H36M_17.joints, H36M_17.mirror, strict=True))]


def _last_seen(found: np.ndarray, lost: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    frames = np.arange(len(found))[:, None]
    last = np.maximum.accumulate(np.where(lost, -1, frames), 0)
    source = np.where(last < 0, (~lost).argmax(0), last)
    filled = np.take_along_axis(found, source[..., None], 0)
    filled[..., :2] = np.where(np.all(lost, axis=0)[:, None], np.array(size) / 2, filled[..., :2])
    return np.concatenate((filled[..., :2], np.where(lost, 0, found[..., 2])[..., None]), -1)


# ---- motions on the stage ----------------------------------------------------------------------------------------------


def find_motions(folder: PathLike) -> dict[tuple[str, str], list[Path]]:
    """(split, subject) → files <split>/<subject>/*.npz, of ``train``, ``valid`` and ``test``, in a fixed order.

    Raises:
        InputError: none found, or a subject in two splits.
    """
    found: dict[tuple[str, str], list[Path]] = {}
    for split in SPLITS:
        for path in sorted(Path(folder).glob(f"{split}/*/*.npz")):
            found.setdefault((split, path.parent.name), []).append(path)
    if not found:
        raise InputError(
            f"{folder}: found no train|valid|test/<subject>/*.npz, expected AMASS-style motions; "
            "python -m run.prepare_data --source cmu --write-amass writes such a folder"
        )
    subjects = [subject for _, subject in found]
    if twice := sorted({subject for subject in subjects if subjects.count(subject) > 1}):
        raise InputError(f"{folder}: subject {', '.join(twice)} is in more than one split, expected each in one; rename or remove it")
    return found


class Actors:
    """Bodies whose 17 joints are played."""

    def __init__(self, body: BodyModel | None = None) -> None:
        self.body = BodyModel() if body is None else body
        self.skeleton, self.points = Skeleton(self.body), BodyPoints.of_layout(self.body, H36M_17)

    def play(self, path: Path, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joints (F, 17, 3) metres, +z up, and which frames are plausible (F,), at 30 frames a second.

        Args:
            drawn: (10,) the shape where the file has none; paths are then scaled by the length of the legs.

        Raises:
            InputError: not a motion, or at a rate that is no multiple of 30.
        """
        motion = read_amass(path)
        step = round((motion.fps or FPS) / FPS)
        if step < 1 or abs((motion.fps or FPS) / step - FPS) > 1:
            raise InputError(f"{path}: {motion.fps:g} frames a second, expected a multiple of {FPS:g}; resample it")
        frames = slice(None, None, step)
        pose, root, trans = (
            torch.tensor(part[frames], dtype=torch.float32) for part in (motion.pose_body, motion.root_orient, motion.trans)
        )
        stored = np.zeros(self.body.num_betas)
        stored[: len(motion.betas)] = motion.betas[: self.body.num_betas]
        betas = torch.tensor(stored if stored.any() else drawn, dtype=torch.float32)[None]
        if not stored.any():
            (pelvis, legs), (mean_pelvis, mean_legs) = self._rest(betas), self._rest(torch.zeros_like(betas))
            trans = (trans + mean_pelvis) * (legs / mean_legs) - pelvis
        posed = self.skeleton(pose, roma.rotvec_to_rotmat(root), trans, betas.expand(len(pose), -1))
        joints = self.points(posed, betas.expand(len(pose), -1)).numpy()
        plausible = load_npz(path, "a motion", optional=("plausible",)).get("plausible", np.ones(len(motion), bool))
        return joints, plausible.astype(bool)[frames]

    def _rest(self, betas: Tensor) -> tuple[Tensor, Tensor]:
        """Where the pelvis is at rest (3,) and how far it is above the ankles."""
        zero = betas.new_zeros(1, 63)
        positions = self.skeleton(zero, torch.eye(3)[None], betas.new_zeros(1, 3), betas).positions[0]
        return positions[0], positions[0, 1] - positions[7:9, 1].mean()


def cut(path: np.ndarray, kept: np.ndarray, size: float = SIZE, shortest: int = SHORTEST) -> list[slice]:
    """Pieces of a path (F, 2), greedily as long as can be, of ``kept`` frames (F,) only, at most ``size`` wide along each axis."""
    pieces, start = [], 0
    while start < len(path):
        low, high = np.minimum.accumulate(path[start:]), np.maximum.accumulate(path[start:])
        ends = ((high - low).max(-1) > size) | ~kept[start:]
        length = int(ends.argmax()) if ends.any() else len(ends)
        if length >= shortest:
            pieces.append(slice(start, start + length))
        start += max(length, 1)
    return pieces


def staged(joints: np.ndarray, random: np.random.Generator, size: float = SIZE) -> np.ndarray:
    """Joints (F, 17, 3) turned about the vertical by any angle and put anywhere on the stage; heights stay."""
    angle = random.uniform(-math.pi, math.pi)
    turn = np.array([[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    turned = joints @ turn
    low, high = turned[:, _PELVIS, :2].min(0), turned[:, _PELVIS, :2].max(0)
    slack = np.maximum(size - (high - low), 0)
    turned[..., :2] += random.uniform(-0.5, 0.5, 2) * slack - (low + high) / 2
    return turned.astype(np.float32)


def draw_views(joints: np.ndarray, random: np.random.Generator) -> tuple[View, ...]:
    """Four cameras around the stage that have (nearly) all of some joints (N, 17, 3) in their pictures."""
    models = CAMERAS[list(CAMERAS)[int(random.integers(len(CAMERAS)))]]
    points = torch.from_numpy(joints.reshape(1, -1, 3))
    return tuple(_view(model, points, random) for model in models)


def _view(model: View, points: Tensor, random: np.random.Generator) -> View:
    x, y, _ = model.stand.position.tolist()
    azimuth = math.atan2(y, x) + _AZIMUTH * random.standard_normal()
    distance, height, aim = (random.uniform(*bounds) for bounds in (_DISTANCE, _HEIGHT, _AIM))
    lens = model.lens
    focal = lens.focal * math.exp(_ZOOM * random.standard_normal())
    centre = lens.centre + torch.tensor(random.standard_normal(2) * _SHIFT * model.size[0], dtype=torch.float32)
    lens = Lens(focal, centre, lens.radial, lens.tangential)
    while True:
        position = torch.tensor([distance * math.cos(azimuth), distance * math.sin(azimuth), height])
        view = View(model.name, model.size, lens, looking(position, torch.tensor([0.0, 0.0, aim])))
        seen = view.stand.to_camera(points)
        pixels = lens.project(seen)
        inside = ((pixels >= 0) & (pixels < torch.tensor(view.size))).all(-1) & (seen[..., 2] > 0)
        if inside.float().mean() >= _IN_PICTURE:
            return view
        distance *= _BACK


def looking(position: Tensor, target: Tensor) -> Stand:
    """A camera at a place (3,) that looks at another, the horizon level; +z is up."""
    forward = torch.nn.functional.normalize(target - position, dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, forward.new_tensor([0.0, 0.0, 1.0])), dim=0)
    axes = torch.stack((right, torch.linalg.cross(forward, right), forward), -1)
    return Stand(roma.rotmat_to_unitquat(axes).roll(1), position)


# ---- subjects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """One subject before its cameras."""

    split: str
    subject: str
    views: tuple[View, ...]
    joints: Mapping[str, np.ndarray]
    """Action → (n, 17, 3) metres in the world."""
    exact: Mapping[str, Sequence[np.ndarray]]
    """Action → of each camera (n, 17, 2) pixels."""
    detected: Mapping[str, Sequence[np.ndarray]]
    """Action → of each camera (n, 17, 3) pixels and confidence."""
    errors: tuple[InputError, ...] = ()
    """Why files were left out."""

    def __len__(self) -> int:
        return sum(map(len, self.joints.values()))


def record(split: str, subject: str, paths: Sequence[Path], actors: Actors, seed: int = 42, detector: Detector | None = None) -> Recording:
    """Put one subject's motions before four cameras. What is drawn depends on the seed and the names of the subject and the clip only."""
    detector = detector or Detector()
    own = _generator(seed, split, subject)
    drawn = own.standard_normal(actors.body.num_betas).clip(-_BETAS, _BETAS)
    joints, errors = {}, []
    for path in paths:
        try:
            motion, plausible = actors.play(path, drawn)
        except InputError as error:
            errors.append(error)
            continue
        name, random = path.stem.removesuffix("_stageii").removesuffix("_poses"), _generator(seed, split, subject, path.stem)
        for number, piece in enumerate(cut(motion[:, _PELVIS, :2], plausible), 1):
            joints[f"{name} {number}"] = staged(motion[piece], random)
    if not joints:
        return Recording(split, subject, (), {}, {}, {}, tuple(errors))
    views = draw_views(np.concatenate(list(joints.values())), own)
    exact = projections({subject: joints}, {subject: views})[subject]
    detected = {}
    for action, world in joints.items():
        random = _generator(seed, split, subject, action, "detector")
        films = zip(exact[action], views, strict=True)
        detected[action] = [detector(pixels, view.stand.to_camera(torch.from_numpy(world)).numpy(), view, random) for pixels, view in films]
    return Recording(split, subject, views, joints, exact, detected, tuple(errors))


def _generator(seed: int, *names: str) -> np.random.Generator:
    """Of these names' own, so that a draw does not depend on what else there is."""
    digest = np.frombuffer(hashlib.sha256("/".join(names).encode()).digest(), dtype="<u4")
    return np.random.default_rng([seed, *(int(word) for word in digest)])


def write_recordings(folder: PathLike, recordings: Iterable[Recording], source: str, seed: int) -> list[Path]:
    """``data_3d_open.npz``, ``data_2d_open_gt.npz`` and ``data_2d_open_noisy.npz``, to be read by :func:`~dposer.data.h36m.read_h36m`.

    Args:
        source: what the motions are, kept with the seed in the metadata.
    """
    filled = [recording for recording in recordings if len(recording)]
    positions = {
        "gt": {recording.subject: recording.exact for recording in filled},
        "noisy": {recording.subject: recording.detected for recording in filled},
    }
    metadata = {
        "fps": FPS,
        "splits": {split: [recording.subject for recording in filled if recording.split == split] for split in SPLITS},
        "source": source,
        "seed": seed,
    }
    joints = {recording.subject: recording.joints for recording in filled}
    return write_h36m(folder, NAME, joints, positions, {recording.subject: recording.views for recording in filled}, metadata)


@dataclass(frozen=True)
class Summary:
    """What one split came to."""

    split: str
    subjects: int
    pieces: int
    frames: int
    """Of each camera."""
    error: float
    """Pixels, mean over the keypoints found."""
    missing: float
    """Share of keypoints not found."""


def summarise(recordings: Sequence[Recording]) -> list[Summary]:
    """A row for each split that is there."""
    rows = []
    for split in SPLITS:
        some = [recording for recording in recordings if recording.split == split and len(recording)]
        if some:
            exact, detected = (
                np.concatenate([film for recording in some for films in getattr(recording, name).values() for film in films])
                for name in ("exact", "detected")
            )
            found = detected[..., 2] > 0
            error = np.linalg.norm(detected[..., :2] - exact, axis=-1)[found].mean()
            pieces, frames = sum(len(recording.joints) for recording in some), sum(map(len, some))
            rows.append(Summary(split, len(some), pieces, frames, float(error), float(1 - found.mean())))
    return rows
