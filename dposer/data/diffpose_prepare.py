r"""From the films of Human3.6M, MPI-INF-3DHP and 3DPW to DiffPose's data sets (:mod:`dposer.data.diffpose_files`).

In every frame that counts, the square around the true keypoints, 1.2 times as wide as they are, goes to a detector of heatmaps. What
counts:

- Human3.6M: frames 3, 7, 11, ... of ``<subject>/**/Videos/<film>.mp4``, whose poses are in ``**/*D2_Positions`` and
  ``**/*D3_Positions_mono`` as ``<film>.cdf`` or ``<film>.cdf.mat``, or once for all cameras in ``**/*D3_Positions``;
- MPI-INF-3DHP: valid frames of ``TS1`` .. ``TS6``, from ``annot_data.mat`` and the pictures in ``imageSequence``;
- 3DPW: frames of ``imageFiles`` in which ``sequenceFiles/train`` or ``test`` has a detected joint of a person.

Every film is written to a file of its own first, so that whoever is stopped goes on from there.

Source: Holmquist & Wandt, ICCV 2023; the frames and films of Human3.6M are those of Wehrbein et al., ICCV 2021.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io import loadmat
from torch import Tensor

from dposer.body.skeleton import H36M_17, HEATMAP_16, MPI_INF_3DHP_17, layout_map
from dposer.data.diffpose_files import EVERY, Kind, canonical_name, row_type, write_diffpose
from dposer.data.h36m import CAMERAS, KEPT
from dposer.data.heatmap_crops import crop
from dposer.data.heatmap_mixtures import SIDE, crop_box, in_crop
from dposer.data.images import read_photo
from dposer.data.lifting_clip import LiftingClip
from dposer.data.mpi_inf_3dhp import read_3dhp_test
from dposer.data.video import open_video
from dposer.errors import InputError
from dposer.files import PathLike, atomic_path, existing_file, finite, load_npy, save_json
from dposer.pickles import plain, read_pickle, to_array

Detector = Callable[[Tensor], Tensor]
"""Crops (B, 3, 255, 255), RGB in [0, 1], to heatmaps (B, 16, 64, 64)."""

SPLITS = ("train", "test")
SUBJECTS = {"train": ("S1", "S5", "S6", "S7", "S8"), "test": ("S9", "S11")}
"""Of Human3.6M."""
SKIPPED = {("S5", "Waiting", "1", "55011271"), ("S11", "Directions", "0", "54138969")}
"""Subject, action, sub-action and camera of what is left out of Human3.6M."""

_BLOCK = 64
"""Rows that are moved in one go."""
_OPENPOSE_18 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip
"""What the 18 joints of 3DPW's ``poses2d`` are."""
_JOINTS_2D: dict[Kind, tuple[str, ...]] = {"h36m": H36M_17.joints, "3dhp": H36M_17.joints, "3dpw": _OPENPOSE_18}
_FAR = 4.0
"""Cells: highest cells whose median distance from the truth is more than this are doubted."""


@dataclass(frozen=True)
class Footage:
    """A film, or a folder of pictures."""

    name: str
    """That no other one has."""
    split: str
    """train or test."""
    annotations: Callable[[], np.ndarray]
    """(n,) rows of :func:`~dposer.data.diffpose_files.row_type` without what a detector tells."""
    pictures: Callable[[np.ndarray], Iterator[np.ndarray]]
    """Frames (n,), counted from 0, to so many pictures (h, w, 3), or fewer if the film ends before."""


# ---- films to rows -----------------------------------------------------------------------------------------------------


def detect(rows: np.ndarray, pictures: Iterable[np.ndarray], detector: Detector, batch: int = 32) -> np.ndarray:
    """Fill in heatmaps and highest cells; rows without a picture go.

    Args:
        rows: (n,) annotations, which are changed.
        pictures: of each row (h, w, 3) uint8 RGB.
        batch: crops at once.

    Raises:
        InputError: heatmaps of another shape, or NaN.
    """
    done = 0
    shown = zip(rows["crop"], pictures, strict=False)
    while some := list(islice(shown, batch)):
        maps = detector(torch.stack([crop(picture, box) for box, picture in some])).detach().float().cpu().numpy()
        if maps.shape != (len(some), len(HEATMAP_16.joints), SIDE, SIDE):
            raise InputError(f"the detector's heatmaps have shape {maps.shape}, expected {(len(some), len(HEATMAP_16.joints), SIDE, SIDE)}")
        heatmaps = finite(maps, "the detector's heatmaps").astype(np.float16)
        highest = np.stack(np.divmod(heatmaps.reshape(*heatmaps.shape[:2], -1).argmax(-1), SIDE), 1) / SIDE
        filled = slice(done, done + len(some))
        rows["heatmap"][filled], rows["argmax_2d"][filled] = heatmaps, highest.reshape(len(some), *rows["argmax_2d"].shape[1:])
        done += len(some)
    return rows[:done]


def annotated(kind: Kind, names: Sequence[str], frames: np.ndarray, points: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(n,) rows with crops around points (n, J, 2) pixels that are seen (n, J) bool; poses are to be filled in.

    Args:
        names: action, subject, sub-action and camera.
        frames: (n,) from 0.
    """
    rows = np.zeros(len(frames), row_type(kind))
    rows["action"], rows["subject"], rows["subaction"], rows["cam"] = (name.encode() for name in names)
    rows["frame_orig"], rows["crop"] = frames, crop_box(points, seen)
    return rows


# ---- Human3.6M ---------------------------------------------------------------------------------------------------------


def h36m_footage(folder: PathLike) -> list[Footage]:
    """The films of Human3.6M, in the order of published files.

    Raises:
        InputError: no films, or one whose name is none of them.
    """
    footage = []
    for split, subjects in SUBJECTS.items():
        for subject in subjects:
            place = Path(folder) / subject
            films = (film for film in place.glob("**/Videos/*.mp4") if not film.name.startswith("_"))
            poses = {(path.parent.name.removeprefix("Poses_"), _stem(path)): path for path in sorted(place.rglob("*.cdf*"))}
            for film in sorted(films, key=lambda path: path.name):
                names = (subject, *canonical_name(subject, film.stem))
                if names not in SKIPPED:
                    footage.append(_h36m_film(film, split, names, poses))
    if not footage:
        raise InputError(f"{folder}: found no S1/.../Videos/*.mp4, expected Human3.6M unpacked, one folder a subject")
    return footage


def h36m_rows(names: tuple[str, str, str, str], points: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Every fourth row of a film.

    Args:
        names: subject, action, sub-action and camera.
        points: (F, 32, 2) pixels.
        joints: (F, 32, 3) millimetres before the camera.
    """
    frames = np.arange(EVERY - 1, min(len(points), len(joints)), EVERY)
    points, joints = points[frames], joints[frames]
    subject, action, subaction, camera = names
    rows = annotated("h36m", (action, subject, subaction, camera), frames, points, np.ones(points.shape[:2], bool))
    box = rows["crop"][:, None]
    rows["crop_size"] = box[:, 0, 2]
    rows["gt_3d"], rows["gt_2d"] = joints[:, KEPT].swapaxes(1, 2), points[:, KEPT].swapaxes(1, 2)
    rows["gt_2d_image_coords"] = ((points - box[..., :2]) / box[..., 2:]).swapaxes(1, 2)
    return rows


def _h36m_film(film: Path, split: str, names: tuple[str, str, str, str], poses: Mapping[tuple[str, str], Path]) -> Footage:
    def annotations() -> np.ndarray:
        flat, tall = (poses.get((folder, film.stem)) for folder in ("D2_Positions", "D3_Positions_mono"))
        if flat and tall:
            return h36m_rows(names, _positions(flat, 2), _positions(tall, 3))
        world = poses.get(("D3_Positions", film.stem.rpartition(".")[0]))
        if world is None:
            raise InputError(
                f"{film}: found neither D2_Positions and D3_Positions_mono of {film.stem}.cdf nor D3_Positions of its action, "
                "expected the one or the other beside the videos; unpack them"
            )
        return h36m_rows(names, *_before_camera(_positions(world, 3), names[0], names[3]))

    def pictures(frames: np.ndarray) -> Iterator[np.ndarray]:
        wanted = set(frames.tolist())
        shown = islice(open_video(film), max(wanted, default=-1) + 1)
        return (picture for frame, picture in enumerate(shown) if frame in wanted)

    return Footage(f"{names[0]} {film.stem}", split, annotations, pictures)


def _before_camera(world: np.ndarray, subject: str, camera: str) -> tuple[np.ndarray, np.ndarray]:
    """Joints (F, 32, 3) millimetres in the world as pixels (F, 32, 2) and before the camera."""
    view = next(view for view in CAMERAS[subject] if view.name == camera)
    joints = view.stand.to_camera(torch.from_numpy(world / 1000))
    return view.lens.project(joints).numpy(), joints.numpy() * 1000


def _stem(path: Path) -> str:
    return path.name.removesuffix(".mat").removesuffix(".cdf")


def _positions(path: Path, axes: int) -> np.ndarray:
    """(F, 32, axes) of a ``.cdf`` or ``.cdf.mat``."""
    what = f"Human3.6M's positions, (n, {32 * axes})"
    existing_file(path, what)
    try:
        rows = np.asarray(loadmat(path)["data"][0, 0] if path.suffix == ".mat" else _read_cdf(path), np.float32)
        positions = rows.reshape(-1, 32, axes) if rows.shape[-1] == 32 * axes else None
    except InputError:
        raise
    except Exception as error:  # damaged files raise almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{path}: not readable ({reason}), expected {what}; unpack it again") from error
    if positions is None:
        raise InputError(f"{path}: positions of shape {rows.shape}, expected {what}")
    return finite(positions, str(path))


def _read_cdf(path: Path) -> np.ndarray:
    try:
        import cdflib
    except ImportError as error:
        raise InputError(f"{path}: .cdf files are read by cdflib, which is not installed; pip install cdflib") from error
    return np.asarray(cdflib.CDF(str(path)).varget("Pose"))


# ---- MPI-INF-3DHP ------------------------------------------------------------------------------------------------------


def mpi_inf_3dhp_footage(folder: PathLike) -> list[Footage]:
    """The test sequences that are there.

    Raises:
        InputError: none, broken annotations, or pictures missing.
    """
    footage = []
    for clip, scaled in zip(*(read_3dhp_test(folder, target) for target in ("annot3", "univ_annot3")), strict=True):
        place = Path(folder) / clip.subject / "imageSequence"
        files = sorted(path for path in place.glob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        if len(files) < len(clip):
            raise InputError(f"{place}: found {len(files)} pictures, expected {len(clip)}, one a frame; unpack the sequence again")
        footage.append(Footage(clip.subject, "test", partial(mpi_inf_3dhp_rows, clip, scaled), _album(files.__getitem__)))
    return footage


def mpi_inf_3dhp_rows(clip: LiftingClip, scaled: LiftingClip) -> np.ndarray:
    """The valid frames of a sequence, in true size and scaled to Human3.6M's skeleton."""
    frames = np.arange(len(clip)) if clip.valid is None else np.flatnonzero(clip.valid)
    points = clip.keypoints[frames, :, :2]
    rows = annotated("3dhp", (clip.subject, clip.subject, "", ""), frames, points, np.ones(points.shape[:2], bool))
    order = list(layout_map(MPI_INF_3DHP_17.joints, H36M_17.joints))
    columns = {"gt_2d": points} | {
        name: 1000 * one.joints[frames] for name, one in (("gt_3d", clip), ("gt_3d_uni", scaled)) if one.joints is not None
    }
    for name, values in columns.items():
        rows[name] = values[:, order].swapaxes(1, 2).reshape(len(rows), -1)
    return rows


def _album(file_of: Callable[[int], Path]) -> Callable[[np.ndarray], Iterator[np.ndarray]]:
    """Pictures of frames, each in a file."""
    return lambda frames: (read_photo(file_of(frame)).pixels for frame in frames.tolist())


# ---- 3DPW --------------------------------------------------------------------------------------------------------------


def pw3d_footage(folder: PathLike) -> list[Footage]:
    """The sequences of the training and test splits, with all of their people.

    Raises:
        InputError: no sequences.
    """
    footage = []
    for split in SPLITS:
        for path in sorted((Path(folder) / "sequenceFiles" / split).glob("*.pkl")):
            pictures = Path(folder) / "imageFiles" / path.stem
            footage.append(Footage(path.stem, split, partial(pw3d_rows, path, split), _album(partial(_numbered, pictures))))
    if not footage:
        raise InputError(f"{folder}: found no sequenceFiles/train/*.pkl or sequenceFiles/test/*.pkl, expected 3DPW unpacked")
    return footage


def pw3d_rows(path: Path, split: str) -> np.ndarray:
    r"""The people of a sequence one after another, in frames in which some joint was detected; joints before the camera, :math:`R X + t`.

    Raises:
        InputError: missing, damaged, an unsafe pickle, or arrays that do not fit together.
    """
    stored = read_pickle(path, "a sequence of 3DPW")
    if missing := [key for key in ("poses2d", "jointPositions", "cam_poses") if key not in stored]:
        raise InputError(f"{path}: lacks {', '.join(missing)} (found {', '.join(map(str, stored))}), expected a sequence of 3DPW")
    cameras = to_array(stored["cam_poses"], f"{path}: cam_poses")
    people = []
    for flat, tall in zip(*(plain(stored[key], f"{path}: {key}") for key in ("poses2d", "jointPositions")), strict=False):
        points, joints = np.asarray(flat, np.float64), np.asarray(tall, np.float64)
        if cameras.shape[1:] != (4, 4) or points.shape != (len(cameras), 3, 18) or joints.size != len(cameras) * 72:
            raise InputError(
                f"{path}: cam_poses of shape {cameras.shape}, poses2d {points.shape} and jointPositions {joints.shape}, "
                "expected (n, 4, 4), (n, 3, 18) and (n, 72)"
            )
        frames = np.flatnonzero((points[:, 2] != 0).any(-1))
        points, joints = points[frames], joints.reshape(-1, 24, 3)[frames]
        before = joints @ cameras[frames, :3, :3].swapaxes(1, 2) + cameras[frames, None, :3, 3]
        seen = points[:, 2] != 0
        rows = annotated("3dpw", ("none", split[:2], "none", "none"), frames, points[:, :2].swapaxes(1, 2), seen)
        rows["gt_2d"], rows["gt_3d"] = points, before
        people.append(rows)
    return np.concatenate(people) if people else np.zeros(0, row_type("3dpw"))


def _numbered(folder: Path, frame: int) -> Path:
    return folder / f"image_{frame:05d}.jpg"


FOOTAGE: dict[Kind, Callable[[PathLike], list[Footage]]] = {"h36m": h36m_footage, "3dhp": mpi_inf_3dhp_footage, "3dpw": pw3d_footage}


# ---- all of it ---------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What came of the films of one subject."""

    split: str
    subject: str
    films: int = 0
    frames: int = 0
    hard: int = 0
    errors: list[np.ndarray] = field(default_factory=list, repr=False)
    """Cells from the truth to the highest cell, of joints whose place is known."""

    @property
    def error(self) -> tuple[float, float]:
        """Median and 95th percentile; NaN if nothing is known."""
        known = np.concatenate([*self.errors, np.empty(0)])
        return (float(np.median(known)), float(np.quantile(known, 0.95))) if len(known) else (np.nan, np.nan)

    @property
    def doubt(self) -> str | None:
        """What is odd, a line."""
        if not self.error[0] > _FAR:
            return None
        return (
            f"{self.subject}: highest cells are {self.error[0]:.1f} cells from the truth; check the weights, and that films go with poses"
        )


def prepare(
    path: PathLike,
    kind: Kind,
    footage: Sequence[Footage],
    detector: Detector,
    settings: Mapping[str, Any],
    hard: Callable[[np.ndarray], np.ndarray] | None = None,
    batch: int = 32,
    bar: Callable[[Sequence[Footage]], Iterable[Footage]] = iter,
) -> list[Tally]:
    """Write a file that :func:`~dposer.data.diffpose_files.read_diffpose` reads; stopped and started again, it goes on after the last film.

    Until the file is whole, its parts are in a folder beside it, which then goes: so much more room it takes.

    Args:
        settings: plain values that tell apart runs whose parts must not be mixed, such as what the detector is.
        hard: rows to (n,) bool; None: none are hard.
        batch: crops at once.
        bar: shows how far it is.

    Raises:
        InputError: parts of another run, a broken film, or files that cannot be written.
    """
    path = Path(path)
    parts = path.with_suffix(".parts")
    _same_run(parts, dict(settings))
    files: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for film in bar(footage):
        part = parts / f"{film.split} {film.name}.npy"
        if not part.is_file():
            rows = film.annotations()
            rows = detect(rows, film.pictures(rows["frame_orig"]), detector, batch)
            rows["hardsubset"] = False if hard is None else hard(rows)
            with atomic_path(part) as temporary:
                np.save(temporary, rows)
        files[film.split].append(part)
    tallies: dict[tuple[str, str], Tally] = {}
    trainset, testset = (_moved(files[split], kind, split, tallies) for split in SPLITS)
    write_diffpose(path, trainset, testset, kind)
    shutil.rmtree(parts)
    return list(tallies.values())


def _same_run(parts: Path, settings: dict[str, Any]) -> None:
    note = parts / "settings.json"
    if not note.is_file():
        save_json(note, settings)
    elif json.loads(note.read_text()) != settings:
        raise InputError(f"{parts}: parts of a run with other settings, which cannot be mixed; delete the folder, or write elsewhere")


def _moved(files: Sequence[Path], kind: Kind, split: str, tallies: dict[tuple[str, str], Tally]) -> Iterator[np.ndarray]:
    """The rows of parts, and an account of them."""
    for file in files:
        rows = load_npy(file, "a part of a data set")
        if rows.dtype != row_type(kind):
            raise InputError(f"{file}: no part of {kind}, expected one of this run; delete the folder")
        if len(rows):
            subject = rows["subject"][0].decode()
            tally = tallies.setdefault((split, subject), Tally(split, subject))
            tally.films += 1
            tally.frames += len(rows)
            tally.hard += int(rows["hardsubset"].sum())
            tally.errors.append(_errors(kind, rows))
        for start in range(0, len(rows), _BLOCK):
            yield rows[start : start + _BLOCK]


def _errors(kind: Kind, rows: np.ndarray) -> np.ndarray:
    """Cells from the truth to the highest cell, of joints that both have."""
    names = _JOINTS_2D[kind]
    truth = rows["gt_2d"].reshape(len(rows), -1, len(names)).swapaxes(1, 2)
    found = rows["argmax_2d"].reshape(len(rows), 2, -1)[:, ::-1].swapaxes(1, 2) * SIDE
    order = np.array(layout_map(names, HEATMAP_16.joints))
    known = (order >= 0) & (found != 0).any(-1) & (truth[:, order, 2] != 0 if truth.shape[2] == 3 else True)
    away = np.linalg.norm(in_crop(truth[:, order, :2], rows["crop"]) - found, axis=-1)
    return away[known]
