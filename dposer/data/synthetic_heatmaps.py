r"""Heatmaps with a known posterior: motion capture before drawn cameras, seen by a simulated detector that is sometimes unsure.

Every frame has a camera of its own that looks at the person. In the person's crop a joint is at :math:`u`, and the detector's spread there
is :math:`S`, small where it sees the joint, large and slanting where something hides it. Its map is painted around

.. math:: \mu = u - \delta, \qquad \delta \sim N(0, S)

so that the truth is a genuine draw from the posterior :math:`N(\mu, S)` that the map stands for (:mod:`dposer.data.heatmap_mixtures`).
Left and right of the legs, or of the arms, may be mistaken for each other: then every joint of them has a second mode around its twin. One
of the two has the weight w, and it is the true one with probability w, with one coin for the whole group.

Mixtures are kept instead of maps, with the heavier mode first, so that their order tells nothing about the truth.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dposer.body.skeleton import H36M_17, HEATMAP_16, layout_map
from dposer.data.heatmap_crops import keypoints_of_heatmaps
from dposer.data.heatmap_mixtures import COLUMNS, SIDE, SIGMA, crop_box, highest, in_crop
from dposer.data.lifting_clip import LiftingClip
from dposer.data.open_lifting import _BETAS, FPS, SPLITS, Actors, _generator
from dposer.errors import InputError
from dposer.files import PathLike, existing_file, finite, load_npz, save_npz
from dposer.geometry.lens import Lens

SIZE = (1000, 1000)
"""Pixels."""
LENS = Lens.of((1145.0, 1145.0), (500.0, 500.0))
HARD_SPREAD = 5.0
"""Cells: a frame is hard if the blob of some joint has a larger standard deviation along its longest axis."""
FRAMES = {"train": (40_000, 20_000), "valid": (2_000, 600), "test": (3_000, 1_500)}
"""How many a split has of each preset."""

_ELEVATION = (math.radians(-5), math.radians(25))
_ROLL = math.radians(2)
"""Standard deviation."""
_DISTANCE = (3.5, 6.5)
"""Metres from the middle of the joints."""
_BONE, _TRUNK = 0.06, 0.13
"""Metres: how far from the line between its ends a bone hides what is behind it,"""
_BEHIND = 0.08
"""if that is so much farther from the camera."""
_RADII = np.array([_TRUNK if {H36M_17.joints[end] for end in edge} <= {"pelvis", "spine", "neck"} else _BONE for edge in H36M_17.edges])
_OWN = np.array([[joint in edge for edge in H36M_17.edges] for joint in range(len(H36M_17.joints))])
"""(17, bones): the joint is an end of the bone."""
_GROUPS = (slice(0, 6), slice(10, 16))
"""Channels of the legs and of the arms."""
_ROWS = list(layout_map(H36M_17.joints, HEATMAP_16.joints))
_MIRROR = list(HEATMAP_16.mirror)
_STORED: dict[str, tuple[tuple[int, ...], str]] = {
    "mixture": ((len(HEATMAP_16.joints), COLUMNS), "f"),
    "box": ((3,), "f"),
    "joints": ((len(H36M_17.joints), 3), "f"),
    "hard": ((), "b"),
    "preset": ((), "i"),
    "clip": ((), "i"),
}
"""What a file holds of every frame: shape and kind of number."""
_REMAKE = "make it by python -m run.prepare_data --source heatmaps --input <folder that --write-amass wrote>"


@dataclass(frozen=True)
class Sight:
    """What a detector makes of N frames."""

    mixture: np.ndarray
    """(N, 16, 10) float32, see :mod:`dposer.data.heatmap_mixtures`."""
    box: np.ndarray
    """(N, 3) float32: left, top and side of the crops, pixels."""
    candidates: np.ndarray
    """(N,) joints that something is in front of."""


@dataclass(frozen=True)
class HeatmapDetector:
    """How unsure the detector is. Lengths are in cells of a crop of 64 × 64 if nothing else is said."""

    scale: tuple[float, float] = (0.95, 1.12)
    """Crops are so many times as wide as they should be,"""
    shift: float = 0.02
    """and so far off, standard deviation in their width."""
    seen: tuple[float, float] = (0.6, 0.4)
    """Spread of what is seen: median, and standard deviation of the logarithm."""
    unseen: tuple[float, float] = (1.5, 5.5)
    """Spread of what is hidden, along the longer axis;"""
    slant: tuple[float, float] = (0.4, 1.0)
    """along the other, times this."""
    factors: tuple[float, ...] = (1.3, 1.0, 0.8, 0.8, 1.0, 1.3, 0.7, 0.9, 0.8, 0.9, 1.6, 1.2, 0.8, 0.8, 1.2, 1.6)
    """Times all spreads, for each channel."""
    rectangle: float = 0.05
    """Probability that a rectangle stands before the person."""
    rectangle_sides: tuple[float, float] = (0.15, 0.5)
    """In widths of the crop."""
    hidden: float = 0.1
    """Probability that a joint with something in front of it is hidden,"""
    hidden_anyway: float = 0.003
    """and that any joint is."""
    swapped: float = 0.01
    """Probability that left and right of the legs are mistaken for each other; of the arms the same;"""
    swapped_near: float = 0.1
    """if they are near each other."""
    near: float = 6.0
    """Mean distance of left from right."""
    certainty: tuple[float, float] = (0.5, 0.95)
    """Weight of the heavier mode then."""
    missed: float = 0.005
    """Probability that a joint is overlooked:"""
    missed_gain: tuple[float, float] = (0.0, 0.5)
    """then its map is so many times as high."""

    def __call__(self, joints: np.ndarray, random: np.random.Generator) -> Sight:
        """Joints before the camera (N, 17, 3) metres, of H36M_17."""
        pixels = LENS.project(torch.from_numpy(joints)).numpy()
        box = self.crop(pixels, random)
        places = in_crop(pixels[:, _ROWS], box)
        candidates = behind_bones(joints)[:, _ROWS] | self._covered(places, random)
        shape = candidates.shape
        hidden = (random.random(shape) < self.hidden) & candidates | (random.random(shape) < self.hidden_anyway)
        spread, offset = self._spread(hidden, random)
        weight, true = self._swap(places, random)
        own, twin = places - offset, places[:, _MIRROR] - offset
        first, second = np.where(true, own, twin), np.where(true, twin, own)
        missed = random.random(shape) < self.missed
        gain = np.where(missed, random.uniform(*self.missed_gain, shape), 1.0)
        parts = (weight, 1 - weight, first, np.where(weight < 1, second, first), spread, gain[..., None])
        return Sight(np.concatenate(parts, -1, dtype=np.float32), box, candidates.sum(-1))

    def crop(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(N, 3) float32: left, top and side, whole pixels, of the crops around (N, J, 2), not quite where they should be."""
        exact = crop_box(pixels, np.ones(pixels.shape[:2], bool))
        side = exact[:, 2:] * random.uniform(*self.scale, (len(exact), 1))
        centre = exact[:, :2] + exact[:, 2:] / 2 + side * self.shift * random.standard_normal((len(exact), 2))
        return np.round(np.concatenate((centre - side / 2, side), -1)).astype(np.float32)

    def _covered(self, places: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(N, J) bool: joints (N, J, 2) behind a rectangle."""
        there = random.random((len(places), 1)) < self.rectangle
        middle, sides = SIDE * random.random((len(places), 1, 2)), SIDE * random.uniform(*self.rectangle_sides, (len(places), 1, 2))
        return there & (np.abs(places - middle) < sides / 2).all(-1)

    def _spread(self, hidden: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """S (N, 16, 3) as xx, xy, yy, and a draw from N(0, S) (N, 16, 2)."""
        median, width = self.seen
        round_one = median * np.exp(width * random.standard_normal(hidden.shape))
        long_one = random.uniform(*self.unseen, hidden.shape)
        axes = np.stack((long_one, long_one * random.uniform(*self.slant, hidden.shape)), -1)
        axes = np.where(hidden[..., None], axes, round_one[..., None]) * np.array(self.factors)[:, None]
        angle = random.uniform(0, math.pi, hidden.shape)
        along = np.stack((np.cos(angle), np.sin(angle)), -1)
        across = np.stack((-np.sin(angle), np.cos(angle)), -1)
        scaled = axes[..., None] * np.stack((along, across), -2)  # S = scaledᵀ scaled
        x, y = scaled[..., 0], scaled[..., 1]
        spread = np.stack(((x * x).sum(-1), (x * y).sum(-1), (y * y).sum(-1)), -1)
        return spread, (random.standard_normal(axes.shape)[..., None] * scaled).sum(-2)

    def _swap(self, places: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Weights of the heavier mode, 1 where there is one only, and whether it is the true one, both (N, 16, 1)."""
        apart = np.linalg.norm(places - places[:, _MIRROR], axis=-1)
        weight, true = np.ones((*apart.shape, 1)), np.ones((*apart.shape, 1), bool)
        for group in _GROUPS:
            near = apart[:, group].mean(-1) < self.near
            swapped = random.random(len(places)) < np.where(near, self.swapped_near, self.swapped)
            drawn = random.uniform(*self.certainty, len(places))
            right = random.random(len(places)) < drawn
            weight[swapped, group] = drawn[swapped, None, None]
            true[swapped, group] = right[swapped, None, None]
        return weight, true


DEFAULT = HeatmapDetector()
"""Mostly sure, as a detector on Human3.6M."""
HARD = HeatmapDetector(rectangle=0.35, hidden=0.45, hidden_anyway=0.02, unseen=(2.0, 7.0), swapped=0.04, swapped_near=0.3, missed=0.02)
"""Half of the frames are hard."""
PRESETS = {"default": DEFAULT, "hard": HARD}


def filmed(poses: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Joints (N, J, 3) metres in the world, +z up, as a camera of each frame's own has them: (N, J, 3) float32, x right, y down, z forward.

    It stands anywhere around the middle of the joints, looks at it, and is hardly tilted.
    """
    count = len(poses)
    azimuth, elevation = random.uniform(0, 2 * math.pi, count), random.uniform(*_ELEVATION, count)
    roll, distance = _ROLL * random.standard_normal(count), random.uniform(*_DISTANCE, count)
    zero, sin, cos = np.zeros(count), np.sin(roll)[:, None], np.cos(roll)[:, None]
    away = np.stack((np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)), -1)
    right = np.stack((-np.sin(azimuth), np.cos(azimuth), zero), -1)
    down = np.cross(right, away)
    axes = np.stack((cos * right + sin * down, cos * down - sin * right, -away), -2)  # rows: x, y and z of the camera
    middle = poses.mean(-2, keepdims=True)
    seen = (poses - middle) @ axes.swapaxes(-1, -2)
    seen[..., 2] += distance[:, None]
    return seen.astype(np.float32)


def behind_bones(joints: np.ndarray) -> np.ndarray:
    """(N, 17) bool: joints of H36M_17 (N, 17, 3) before the camera whose rays pass by a bone, between its ends, that is nearer."""
    first, last = np.array(H36M_17.edges).T
    depth = joints[..., 2]
    rays = joints[..., :2] / depth[..., None]
    start, way = rays[:, first], rays[:, last] - rays[:, first]  # (N, bones, 2)
    offset = rays[:, :, None] - start[:, None]  # (N, 17, bones, 2)
    along = (offset * way[:, None]).sum(-1) / np.maximum((way**2).sum(-1), 1e-12)[:, None]
    beside = (along > 0) & (along < 1)
    along = along.clip(0, 1)
    there = 1 / ((1 - along) / depth[:, None, first] + along / depth[:, None, last])
    apart = np.linalg.norm(offset - along[..., None] * way[:, None], axis=-1) * there
    return (beside & (apart < _RADII) & (depth[..., None] - there > _BEHIND) & ~_OWN).any(-1)


def hard_frames(mixture: np.ndarray) -> np.ndarray:
    """(N,) bool of mixtures (N, 16, 10): the blob of some joint is wider than :data:`HARD_SPREAD` along its longest axis."""
    xx, xy, yy = np.moveaxis(mixture[..., 6:9].astype(float), -1, 0)
    longest = (xx + yy) / 2 + np.hypot((xx - yy) / 2, xy) + SIGMA**2
    return (longest > HARD_SPREAD**2).any(-1)


# ---- sets --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Performance:
    """The plausible frames of one subject, all in a row."""

    split: str
    subject: str
    joints: np.ndarray
    """(n, 17, 3) metres in the world."""
    clips: np.ndarray
    """(n,) names of the motions they are from,"""
    frames: np.ndarray
    """(n,) and the numbers they have there, at 30 a second."""
    errors: tuple[InputError, ...] = ()
    """Why files were left out."""

    def __len__(self) -> int:
        return len(self.joints)


def perform(split: str, subject: str, paths: Sequence[Path], actors: Actors, seed: int = 42) -> Performance:
    """Play one subject's motions on the body that :func:`~dposer.data.open_lifting.record` gives the subject for the same seed."""
    shape = _generator(seed, split, subject).standard_normal(actors.body.num_betas).clip(-_BETAS, _BETAS)
    joints, clips, frames, errors = [np.zeros((0, 17, 3), np.float32)], [np.zeros(0, str)], [np.zeros(0, int)], list[InputError]()
    for path in paths:
        try:
            motion, plausible = actors.play(path, shape)
        except InputError as error:
            errors.append(error)
            continue
        kept = np.flatnonzero(plausible)
        joints.append(motion[kept])
        clips.append(np.full(len(kept), path.stem.removesuffix("_stageii").removesuffix("_poses")))
        frames.append(kept)
    return Performance(split, subject, np.concatenate(joints), np.concatenate(clips), np.concatenate(frames), tuple(errors))


@dataclass(frozen=True)
class Scenes:
    """N frames of one subject, each before a camera of its own, as the detector of one preset sees them."""

    split: str
    subject: str
    preset: str
    joints: np.ndarray
    """(N, 17, 3) float32 metres before the camera."""
    clips: np.ndarray
    frames: np.ndarray
    """(N,) as in :class:`Performance`."""
    sight: Sight

    def __len__(self) -> int:
        return len(self.joints)


def draw_scenes(performances: Sequence[Performance], seed: int = 42, counts: Mapping[str, Sequence[int]] = FRAMES) -> list[Scenes]:
    """Of each split and preset as many frames as asked for, evenly out of all there are; each subject's draws are its own.

    A frame is taken several times, before other cameras, if there are too few. Subjects that no frame falls on are left out.

    Args:
        counts: split → number of frames of each of :data:`PRESETS`.
    """
    scenes = []
    for split in SPLITS:
        troupe = [one for one in performances if one.split == split and len(one)]
        ends = np.cumsum([len(one) for one in troupe])
        for count, (preset, detector) in zip(counts[split] if troupe else (), PRESETS.items(), strict=False):
            chosen = ((np.arange(count) + 0.5) * (ends[-1] / count)).astype(int)
            for one, end in zip(troupe, ends, strict=True):
                rows = chosen[(chosen >= end - len(one)) & (chosen < end)] - (end - len(one))
                if len(rows):
                    random = _generator(seed, split, one.subject, preset, "heatmaps")
                    joints = filmed(one.joints[rows], random)
                    scenes.append(Scenes(split, one.subject, preset, joints, one.clips[rows], one.frames[rows], detector(joints, random)))
    return scenes


def write_heatmaps(folder: PathLike, scenes: Sequence[Scenes], source: str, seed: int) -> list[Path]:
    """``<split>.npz`` of each split that is there, to be read by :func:`read_heatmaps`.

    Args:
        source: what the motions are, kept with the seed.
    """
    files = []
    for split in SPLITS:
        some = [one for one in scenes if one.split == split]
        if not some:
            continue
        names = np.concatenate([np.char.add(f"{one.subject}/", one.clips) for one in some])
        clips, clip = np.unique(names, return_inverse=True)
        mixture = np.concatenate([one.sight.mixture for one in some])
        arrays = {
            "mixture": mixture,
            "box": np.concatenate([one.sight.box for one in some]),
            "joints": np.concatenate([one.joints for one in some]),
            "hard": hard_frames(mixture),
            "preset": np.concatenate([np.full(len(one), list(PRESETS).index(one.preset), np.int8) for one in some]),
            "clips": clips,
            "clip": clip.astype(np.int32),
            "frame": np.concatenate([one.frames for one in some]).astype(np.int32),
            "seed": seed,
            "source": source,
        }
        files.append(Path(folder) / f"{split}.npz")
        save_npz(files[-1], arrays)
    return files


def read_heatmaps(folder: PathLike, split: str, presets: Sequence[str] | None = None) -> list[LiftingClip]:
    """What :func:`write_heatmaps` wrote, one clip of each subject and preset.

    Keypoints are the highest cells, back in the picture, with the height there as confidence; the nose, which has no channel, is midway
    from neck to head top and as sure as the less sure of them.

    Args:
        presets: some of :data:`PRESETS`; None: all.

    Raises:
        InputError: no such file, not such a file, or nothing of these presets in it.
    """
    presets = tuple(PRESETS) if presets is None else presets
    if unknown := ", ".join(sorted(set(presets) - set(PRESETS))):
        raise InputError(f"{unknown}: no preset of synthetic heatmaps, expected some of {', '.join(PRESETS)}")
    path, what = Path(folder) / f"{split}.npz", "synthetic heatmaps"
    existing_file(path, what, _REMAKE)
    stored = _checked(load_npz(path, what, required=("clips", *_STORED), optional=()), path)
    subjects = np.array([name.split("/")[0] for name in stored["clips"]])[stored["clip"]]
    clips = []
    for preset in presets:
        seen = stored["preset"] == list(PRESETS).index(preset)
        for subject in sorted(set(subjects[seen])):
            rows = seen & (subjects == subject)
            mixture, box = stored["mixture"][rows], stored["box"][rows]
            clips.append(
                LiftingClip(
                    str(subject), preset, "0", keypoints_of_heatmaps(mixture, box), stored["joints"][rows], SIZE, LENS, H36M_17, FPS,
                    heatmaps=mixture, hard=stored["hard"][rows],
                )
            )  # fmt: skip
    if not clips:
        raise InputError(f"{path}: holds no frames of {', '.join(presets)}; ask for another preset, or {_REMAKE}")
    return clips


def _checked(stored: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    frames = stored["preset"].size
    for name, (shape, kind) in _STORED.items():
        array = stored[name]
        if array.dtype.kind != kind or array.shape != (frames, *shape):
            raise InputError(f"{path}: {name} is {array.dtype} of shape {array.shape}, expected {(frames, *shape)}; {_REMAKE}")
        if kind == "f":
            finite(array, f"{path}: {name}")
    if stored["clips"].dtype.kind != "U" or not ((stored["clip"] >= 0) & (stored["clip"] < stored["clips"].size)).all():
        raise InputError(f"{path}: holds frames of clips that it does not name; {_REMAKE}")
    return stored


@dataclass(frozen=True)
class Summary:
    """What one split came to with one preset."""

    split: str
    preset: str
    subjects: int
    frames: int
    hard: float
    """Share of frames."""
    candidates: float
    """Joints of a frame that something is in front of, mean."""
    error: tuple[float, float, float]
    """Cells from a joint to the highest cell of its map: mean, median and 95th percentile."""


def summarise(scenes: Sequence[Scenes]) -> list[Summary]:
    """A row for each split and preset that is there."""
    rows = []
    for split in SPLITS:
        for preset in PRESETS:
            some = [one for one in scenes if (one.split, one.preset) == (split, preset)]
            if some:
                errors = np.concatenate([_errors(one).ravel() for one in some])
                hard = np.concatenate([hard_frames(one.sight.mixture) for one in some]).mean()
                candidates = np.concatenate([one.sight.candidates for one in some]).mean()
                spread = (errors.mean(), *np.percentile(errors, (50, 95)))
                rows.append(Summary(split, preset, len(some), sum(map(len, some)), float(hard), float(candidates), spread))
    return rows


def _errors(scenes: Scenes) -> np.ndarray:
    """(N, 16) cells."""
    pixels = LENS.project(torch.from_numpy(scenes.joints)).numpy()
    top = highest(torch.from_numpy(scenes.sight.mixture)).numpy()
    return np.linalg.norm(top[..., :2] - in_crop(pixels[:, _ROWS], scenes.sight.box), axis=-1)
