"""MPI-INF-3DHP: one person before one of several cameras, 2D and 3D joints of every frame.

Four kinds of file are read, all in millimetres before the camera and in pixels: the annotations as the data set ships them
(``S1/Seq1/annot.mat``, MATLAB v5; ``TS1/annot_data.mat``, MATLAB v7.3 = HDF5) and the two ``.npz`` that lifting methods train on and
are tested with, which are written here too.

There are two targets, and numbers of one cannot be compared with those of the other: ``annot3`` is the person in true size, which agrees
with the keypoints; ``univ_annot3`` is scaled about the pelvis to the size of Human3.6M's skeleton.

Source: Mehta et al., "Monocular 3D Human Pose Estimation In The Wild Using Improved CNN Supervision", 3DV 2017, to be had from the
authors for research; the layout of the ``.npz`` is that of P-STMO (ECCV 2022) and D3DP (ICCV 2023).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import torch

from dposer.body.skeleton import MPI_INF_3DHP_17
from dposer.data.lifting_clip import LiftingClip
from dposer.data.objects import load_object
from dposer.errors import InputError
from dposer.files import PathLike, existing_file, finite, save_npz
from dposer.geometry.lens import Lens

RAW_JOINTS = (7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6)
"""Rows of the 28 joints of ``annot.mat`` that are the 17 of the layout."""

ACTIVITIES = ("Standing/Walking", "Exercising", "Sitting", "Reaching/Crouching", "On The Floor", "Sports", "Miscellaneous")
"""What ``LiftingClip.activity`` counts from 1."""

TARGETS = ("annot3", "univ_annot3")
ASPECTS = ("clean", "compat")

VIEWS = ("0", "1", "2", "4", "5", "6", "7", "8")
"""The cameras that lifting methods train on, of 14."""

TRAIN_SIZE = (2048, 2048)

TRAIN_FRAMES: dict[str, tuple[int, float]] = {
    "S1 Seq1": (6416, 25), "S1 Seq2": (12430, 50), "S2 Seq1": (6502, 25), "S2 Seq2": (6081, 25),
    "S3 Seq1": (12488, 50), "S3 Seq2": (12283, 50), "S4 Seq1": (6171, 25), "S4 Seq2": (6675, 25),
    "S5 Seq1": (12820, 50), "S5 Seq2": (12312, 50), "S6 Seq1": (6188, 25), "S6 Seq2": (6145, 25),
    "S7 Seq1": (6239, 25), "S7 Seq2": (6320, 25), "S8 Seq1": (6468, 25), "S8 Seq2": (6054, 25),
}  # fmt: skip
"""Frames of each training sequence and its frames per second, which ``annot.mat`` does not hold."""

VALID_COUNTS = {"TS1": 603, "TS2": 540, "TS3": 506, "TS4": 558, "TS5": 276, "TS6": 392}
"""Valid frames behind the published numbers (the data set's own notes differ for TS3, TS4 and TS6)."""

TEST_FRAMES = {"TS5": 320, "TS6": 492}
"""Frames of the test sequences whose published number is known."""

TEST_FPS = 25.0
"""No file holds the rate of the test sequences; this is the rate of most of the training sequences."""

_ANNOTATIONS = {"train": "S*/Seq*/annot.mat", "test": "TS*/annot_data.mat"}
_TEST_NPZ = "an MPI-INF-3DHP test file with data = {TS1..TS6: {data_2d, data_3d, valid}}"
_TRAIN_NPZ = "an MPI-INF-3DHP training file with data = {'S1 Seq1': [{camera: {data_2d, data_3d}}, fps], ...}"
_TEST_MAT = "the annot_data.mat of an MPI-INF-3DHP test sequence (MATLAB v7.3)"
_TRAIN_MAT = "the annot.mat of an MPI-INF-3DHP training sequence (MATLAB v5)"


# --- cameras of the test sequences -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sensor:
    """A camera as its maker states it: lengths in mm, the resolution in pixels."""

    focal: float
    width: float
    resolution: tuple[int, int]
    offset: tuple[float, float]
    aspect: float

    def lens(self, aspect: str = "clean") -> Lens:
        """f = f_mm m, c = offset m + resolution / 2 with m = resolution / sensor, and f_y = f aspect.

        Args:
            aspect: "clean", which fits the annotation to 0.3 pixels; "compat" takes f_y = f, as published numbers do (1.5 pixels).
        """
        per_mm = self.resolution[0] / self.width
        focal = self.focal * per_mm
        centre = tuple(offset * per_mm + pixels / 2 for offset, pixels in zip(self.offset, self.resolution, strict=True))
        return Lens.of((focal, focal * (self.aspect if aspect == "clean" else 1.0)), centre)


STUDIO = Sensor(7.32506, 10.0, (2048, 2048), (-0.0322884, 0.0929296), 1.00044)
"""TS1 to TS4."""
OUTDOORS = Sensor(8.770747185, 10.0, (1920, 1080), (-0.104908645, 0.104899704), 0.993236423)
"""TS5 and TS6. The calibration lists a bending of the lens, but the pictures and the annotation are without it."""
SENSORS = {"TS1": STUDIO, "TS2": STUDIO, "TS3": STUDIO, "TS4": STUDIO, "TS5": OUTDOORS, "TS6": OUTDOORS}


# --- reading -----------------------------------------------------------------------------------------------------------


def read_3dhp_test(
    path: PathLike, target: str = "annot3", aspect: str = "clean", sequences: Sequence[str] | None = None
) -> list[LiftingClip]:
    """The test sequences, every frame of them, valid or not: ``subject`` is "TS1" and so on, ``action`` the target.

    Args:
        path: a folder of ``TSn/annot_data.mat``, one such file, ``data_test_3dhp_ori.npz`` (annot3) or ``data_test_3dhp.npz``
            (univ_annot3), or the folder with it.
        target: "annot3" (true size) or "univ_annot3" (scaled to a universal skeleton).
        aspect: of the pixels, see :meth:`Sensor.lens`.
        sequences: only these; None: all there are.

    Raises:
        InputError: missing, damaged or another kind of file, or arrays that are not what they should be.
    """
    _one_of(target, TARGETS, "target")
    _one_of(aspect, ASPECTS, "aspect")
    files = {file.parent.name: file for file in _annotations(path, "test")}
    data: Mapping[str, Any] = files or _npz(path, "test", target)
    unknown = sorted(data.keys() - SENSORS.keys())
    if unknown:
        raise InputError(f"{path}: found a sequence {unknown[0]!r}, expected TS1 to TS6; name the folders as the data set does")
    chosen = _chosen(sequences, sorted(data), path, "sequence")
    return [
        _test_clip(f"{files.get(name, path)}: {name}", name, _read_annot_data(files[name], target) if files else data[name], target, aspect)
        for name in chosen
    ]


def read_3dhp_train(
    path: PathLike, target: str = "annot3", subjects: Sequence[str] | None = None, views: Sequence[str] | None = None
) -> list[LiftingClip]:
    """The training sequences: ``subject`` "S1", ``action`` "Seq1", ``view`` the camera's number; the lens is not known.

    Args:
        path: a folder of ``S1/Seq1/annot.mat``, one such file, ``data_train_3dhp_ori.npz`` (annot3) or ``data_train_3dhp.npz``
            (univ_annot3), or the folder with it.
        target: "annot3" (true size) or "univ_annot3" (scaled to a universal skeleton).
        subjects: only these; None: all there are.
        views: only these cameras; None: those of :data:`VIEWS`, or all that an ``.npz`` holds.

    Raises:
        InputError: missing, damaged or another kind of file, or arrays that are not what they should be.
    """
    _one_of(target, TARGETS, "target")
    files = {f"{file.parent.parent.name} {file.parent.name}": file for file in _annotations(path, "train")}
    data: Mapping[str, Any] = files or _npz(path, "train", target)
    for name in data:
        if not re.fullmatch(r"\S+ \S+", name) or (files and name not in TRAIN_FRAMES):
            raise InputError(
                f"{path}: found a sequence {name!r}, expected names from 'S1 Seq1' to 'S8 Seq2'; name them as the data set does"
            )
    people = _chosen(subjects, sorted({name.split()[0] for name in data}), path, "subject")
    wanted = VIEWS if files and views is None else views
    clips = []
    for name in sorted(name for name in data if name.split()[0] in people):
        where = f"{files.get(name, path)}: {name}"
        cameras, fps = (_read_annot(files[name], target), TRAIN_FRAMES[name][1]) if files else _cameras(data[name], where)
        chosen = _chosen(wanted, sorted(cameras, key=lambda view: (len(view), view)), where, "view")
        clips += [_train_clip(f"{where}, camera {view}", name, view, cameras[view], fps) for view in chosen]
    return clips


def _annotations(path: PathLike, part: str) -> list[Path]:
    path = Path(path)
    return [path.absolute()] if path.suffix == ".mat" else sorted(path.glob(_ANNOTATIONS[part]))


def _npz_name(part: str, target: str) -> str:
    return f"data_{part}_3dhp{'_ori' if target == 'annot3' else ''}.npz"


def _npz(path: PathLike, part: str, target: str) -> Mapping[str, Any]:
    what = _TEST_NPZ if part == "test" else _TRAIN_NPZ
    file = Path(path)
    if file.is_dir():
        file /= _npz_name(part, target)
        if not file.is_file():
            raise InputError(
                f"{path}: holds neither {_ANNOTATIONS[part]} nor {file.name}, expected one of them; check the folder and the target"
            )
    stored = str(load_object(file, "target", what, optional=True))
    found = stored if stored in TARGETS else {_npz_name(part, each): each for each in TARGETS}.get(file.name, target)
    if found != target:
        raise InputError(f"{file}: holds the target {found}, expected {target}; read it with target='{found}' or give the other file")
    data = load_object(file, "data", what)
    if not isinstance(data, dict) or not data:
        raise InputError(f"{file}: 'data' is {_kind(data)}, expected {what}")
    return {str(key): value for key, value in data.items()}


def _cameras(entry: Any, where: str) -> tuple[dict[str, Any], float]:
    """The two halves of a training sequence's entry."""
    entry = entry.tolist() if isinstance(entry, np.ndarray) else entry
    if not isinstance(entry, list | tuple) or len(entry) != 2 or not isinstance(entry[0], dict):
        raise InputError(f"{where} is {_kind(entry)}, expected [{{camera: {{data_2d, data_3d}}}}, frames per second]")
    cameras, fps = entry
    if not isinstance(fps, int | float | np.integer | np.floating) or not 0 < fps < 1000:
        raise InputError(f"{where} has {fps!r} frames per second, expected a positive number")
    return {str(view): part for view, part in cameras.items()}, float(fps)


def _read_annot(file: Path, target: str) -> dict[str, Any]:
    """{camera: {data_2d, data_3d}} of ``annot.mat``."""
    fields = load_matlab5(file, ("annot2", target), _TRAIN_MAT)
    cells = {name: np.asarray(fields[name], object).ravel() for name in fields}
    counts = {name: len(cell) for name, cell in cells.items()}
    if len(set(counts.values())) != 1:
        raise InputError(f"{file}: {counts} cameras, expected as many of each; fetch it again")
    return {
        str(view): {"data_2d": _rows(flat, 2, f"{file}: camera {view}"), "data_3d": _rows(tall, 3, f"{file}: camera {view}")}
        for view, (flat, tall) in enumerate(zip(cells["annot2"], cells[target], strict=True))
    }


def _rows(cell: Any, columns: int, where: str) -> np.ndarray:
    """(n, 28 columns) to (n, 17, columns)."""
    array = np.asarray(cell)
    if array.ndim != 2 or array.shape[1] != 28 * columns:
        raise InputError(f"{where}: a cell of shape {array.shape}, expected (frames, {28 * columns}) = 28 joints; is it {_TRAIN_MAT}?")
    return array.reshape(-1, 28, columns)[:, RAW_JOINTS]


def _read_annot_data(file: Path, target: str) -> dict[str, Any]:
    """{data_2d, data_3d, valid, activity} of ``annot_data.mat``; cell arrays in it are left alone."""
    if _is_matlab5(existing_file(file, _TEST_MAT)):
        raise InputError(f"{file}: a MATLAB v5 file, expected {_TEST_MAT}; save it with '-v7.3' or fetch the original")
    try:
        with h5py.File(file, "r") as archive:
            flat, tall = _dataset(archive, "annot2", file, (1, 17, 2)), _dataset(archive, target, file, (1, 17, 3))
            # Only the axis MATLAB keeps for one person goes: a blind squeeze would take a single frame with it.
            parts = {"data_2d": flat[:, 0], "data_3d": tall[:, 0]}
            for name, key in (("valid", "valid_frame"), ("activity", "activity_annotation")):
                parts[name] = _dataset(archive, key, file, (1,))[:, 0]
            return parts
    except InputError:
        raise
    except Exception as error:  # HDF5 raises one of several for each way a file can be broken
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(
            f"{file}: not a readable HDF5 file ({reason}), expected {_TEST_MAT}; it may be truncated, fetch it again"
        ) from error


def _dataset(archive: h5py.File, key: str, file: Path, row: tuple[int, ...]) -> np.ndarray:
    dataset = archive.get(key)
    if not isinstance(dataset, h5py.Dataset):
        found = ", ".join(name for name in archive if not name.startswith("#")) or "nothing"
        raise InputError(f"{file}: lacks '{key}' (found {found}), expected {_TEST_MAT}; fetch it again")
    if dataset.shape[1:] != row or dataset.dtype.kind not in "fiub":
        raise InputError(f"{file}: '{key}' has shape {dataset.shape} and type {dataset.dtype}, expected (frames, {str(row)[1:]} of numbers")
    array: np.ndarray = dataset[()]
    return array


def load_matlab5(path: PathLike, names: Sequence[str] | None, what: str) -> dict[str, Any]:
    """The variables ``names`` (None: all) of a MATLAB v5 file.

    Raises:
        InputError: missing, truncated, HDF5 (v7.3), no MATLAB file, or lacking one of ``names``.
    """
    path = existing_file(path, what)
    if h5py.is_hdf5(path):
        raise InputError(f"{path}: a MATLAB v7.3 file (HDF5), expected {what}; save it with '-v7'")
    try:
        fields = scipy.io.loadmat(path, variable_names=names)
    except Exception as error:  # a damaged file raises anything from zlib's errors to a missing key
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: not a readable MATLAB v5 file ({reason}), expected {what}; it may be truncated, fetch it again"
        ) from error
    fields = {key: value for key, value in fields.items() if not key.startswith("__")}
    missing = [name for name in names or () if name not in fields]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}, expected {what}")
    return fields


def _is_matlab5(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(10) == b"MATLAB 5.0"


# --- arrays to clips ---------------------------------------------------------------------------------------------------


def _test_clip(where: str, name: str, part: Any, target: str, aspect: str) -> LiftingClip:
    keypoints, joints = _keypoints_and_joints(part, where)
    sensor = SENSORS[name]
    return LiftingClip(
        name, target, "0", keypoints, joints, sensor.resolution, sensor.lens(aspect), MPI_INF_3DHP_17, TEST_FPS,
        valid=_whole(part, "valid", where, len(keypoints), (0, 1)).astype(bool),
        activity=_whole(part, "activity", where, len(keypoints), (1, len(ACTIVITIES))) if "activity" in part else None,
    )  # fmt: skip


def _train_clip(where: str, name: str, view: str, part: Any, fps: float) -> LiftingClip:
    subject, action = name.split()
    keypoints, joints = _keypoints_and_joints(part, where)
    return LiftingClip(subject, action, view, keypoints, joints, TRAIN_SIZE, None, MPI_INF_3DHP_17, fps)


def _keypoints_and_joints(part: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels with a confidence of 1, and metres."""
    pixels, millimetres = _points(part, "data_2d", where, 2), _points(part, "data_3d", where, 3)
    if len(pixels) != len(millimetres):
        raise InputError(f"{where}: {len(pixels)} frames of 2D and {len(millimetres)} of 3D, expected as many of each; fetch it again")
    depth = float(np.median(millimetres[:, MPI_INF_3DHP_17.joints.index("pelvis"), 2]))
    if depth < 100:
        raise InputError(
            f"{where}: the pelvis has a median depth of {depth:.3g}, expected thousands of millimetres before the camera; "
            "multiply metres by 1000 and leave the root where it is"
        )
    return np.concatenate((pixels, np.ones_like(pixels[..., :1])), -1), (millimetres / 1000).astype(np.float32)


def _points(part: Any, key: str, where: str, columns: int) -> np.ndarray:
    array = _array(part, key, where)
    if array.shape != (len(array), 17, columns) or len(array) == 0:
        raise InputError(f"{where}: '{key}' has shape {array.shape}, expected (frames, 17, {columns}); take the 17 joints of MPI-INF-3DHP")
    return finite(array, f"{where}: '{key}'").astype(np.float32)


def _whole(part: Any, key: str, where: str, frames: int, limits: tuple[int, int]) -> np.ndarray:
    array = _array(part, key, where)
    if array.size != frames or len(array) != frames:
        raise InputError(f"{where}: '{key}' has shape {array.shape}, expected ({frames},), one number a frame; fetch it again")
    array = array.reshape(-1)
    if not np.isin(array, np.arange(limits[0], limits[1] + 1)).all():
        raise InputError(
            f"{where}: '{key}' goes from {array.min()} to {array.max()}, expected whole numbers from {limits[0]} to {limits[1]}"
        )
    return array.astype(np.int64)


def _array(part: Any, key: str, where: str) -> np.ndarray:
    if not isinstance(part, dict) or key not in part:
        found = ", ".join(map(str, part)) if isinstance(part, dict) else _kind(part)
        raise InputError(f"{where}: lacks '{key}' (found {found or 'nothing'}), expected it beside the others; convert the data anew")
    array = np.asarray(part[key])
    if array.ndim == 0 or array.dtype.kind not in "fiub":
        raise InputError(f"{where}: '{key}' is {_kind(part[key])} of type {array.dtype}, expected an array of numbers")
    return array


def _kind(value: Any) -> str:
    size = f" of {len(value)}" if hasattr(value, "__len__") and np.ndim(value) else ""
    return f"a {type(value).__name__}{size}"


def _one_of(value: str, allowed: Sequence[str], flag: str) -> None:
    if value not in allowed:
        raise InputError(f"{flag}: found {value!r}, expected one of {', '.join(allowed)}")


def _chosen(wanted: Sequence[str] | None, there: Sequence[str], where: object, what: str) -> Sequence[str]:
    """``wanted``, all of which must be ``there``; None: all."""
    missing = [name for name in wanted or () if name not in there]
    if missing or not there:
        raise InputError(
            f"{where}: found {what} {', '.join(there) or 'none'}, expected {', '.join(missing) or 'some'}; ask for what is there"
        )
    return there if wanted is None else wanted


# --- writing -----------------------------------------------------------------------------------------------------------


def write_3dhp_test(folder: PathLike, clips: Sequence[LiftingClip], target: str = "annot3") -> Path:
    """Write test sequences as ``data_test_3dhp_ori.npz`` (annot3) or ``data_test_3dhp.npz`` (univ_annot3); returns its path.

    Beside what others write there are the target, and the activities where they are known.

    Raises:
        InputError: clips without joints or of another target, or the folder cannot be written to.
    """
    data: dict[str, Any] = {}
    for clip in clips:
        if clip.action in TARGETS and clip.action != target:
            raise InputError(f"{clip.name}: read with the target {clip.action}, expected {target}; write it with target='{clip.action}'")
        part = _arrays(clip)
        part["valid"] = np.ones(len(clip), np.float32) if clip.valid is None else clip.valid.astype(np.float32)
        if clip.activity is not None:
            part["activity"] = clip.activity
        data[clip.subject] = part
    return _save(folder, "test", data, target)


def write_3dhp_train(folder: PathLike, clips: Sequence[LiftingClip], target: str = "annot3") -> Path:
    """Write training sequences as ``data_train_3dhp_ori.npz`` (annot3) or ``data_train_3dhp.npz`` (univ_annot3); returns its path.

    Raises:
        InputError: clips without joints, or the folder cannot be written to.
    """
    data: dict[str, Any] = {}
    for clip in clips:
        data.setdefault(f"{clip.subject} {clip.action}", [{}, clip.fps])[0][clip.view] = _arrays(clip)
    return _save(folder, "train", data, target)


def _arrays(clip: LiftingClip) -> dict[str, np.ndarray]:
    if clip.joints is None or clip.layout != MPI_INF_3DHP_17:
        raise InputError(f"{clip.name}: {'no 3D joints' if clip.joints is None else f'layout {clip.layout.name}'}, expected the 17 of 3DHP")
    return {"data_2d": clip.keypoints[..., :2], "data_3d": clip.joints * np.float32(1000)}


def _save(folder: PathLike, part: str, data: dict[str, Any], target: str) -> Path:
    _one_of(target, TARGETS, "target")
    path = Path(folder) / _npz_name(part, target)
    save_npz(path, {"data": np.array(data, object), "target": target})
    return path


# --- data doctor -------------------------------------------------------------------------------------------------------

_PIXELS, _LEG, _SWITCH = 3.0, (0.5, 1.3), 0.02


def check_3dhp(clips: Sequence[LiftingClip]) -> tuple[str, ...]:
    """What is odd about clips, a line each; empty if nothing is.

    Looked at are the number of frames and of valid frames, the length of the legs (units), how the size of the lower legs changes over
    time (TS6 as published switches between two), and how far the joints land from the keypoints: through the clip's lens, or where it has
    none through the one that suits it best.
    """
    return tuple(f"{clip.name}: {note}" for clip in clips for note in _oddities(clip))


def best_lens(keypoints: np.ndarray, joints: np.ndarray) -> Lens:
    """argmin over f, c of Σ (f ⊙ X_xy / Z + c − u)²: pixels (N, 2) and points before the camera (N, 3) to a lens that does not bend."""
    fits = [np.polyfit(joints[:, axis] / joints[:, 2], keypoints[:, axis], 1) for axis in (0, 1)]
    return Lens.of(*zip(*fits, strict=True))


def _oddities(clip: LiftingClip) -> Iterator[str]:
    yield from _counts(clip)
    if clip.joints is None:
        yield "no 3D joints"
        return
    thigh, shin = _leg(clip.joints)
    leg = float(np.median(thigh + shin))
    if not _LEG[0] < leg < _LEG[1]:
        yield f"legs of {leg:.3g} m, expected {_LEG[0]} to {_LEG[1]}; check the unit of the file"
    if np.ptp(shin) > _SWITCH:
        yield _switches(shin)
    yield from _residual(clip, clip.joints)


def _counts(clip: LiftingClip) -> Iterator[str]:
    frames, fps = TRAIN_FRAMES.get(f"{clip.subject} {clip.action}", (TEST_FRAMES.get(clip.subject, len(clip)), clip.fps))
    if frames != len(clip):
        yield f"{len(clip)} frames, published {frames}"
    if fps != clip.fps:
        yield f"{clip.fps:g} frames per second, published {fps:g}"
    valid = len(clip) if clip.valid is None else int(clip.valid.sum())
    if valid != VALID_COUNTS.get(clip.subject, valid):
        yield f"{valid} valid frames, published numbers are over {VALID_COUNTS[clip.subject]}"


def _leg(joints: np.ndarray) -> np.ndarray:
    """(2, F) lengths of upper and lower leg in metres, the mean of both sides."""
    rows = [[MPI_INF_3DHP_17.joints.index(f"{side}_{joint}") for side in ("left", "right")] for joint in ("hip", "knee", "ankle")]
    chain = joints[:, rows]
    lengths: np.ndarray = np.linalg.norm(np.diff(chain, axis=1), axis=-1).mean(-1).T
    return lengths


def _switches(shin: np.ndarray) -> str:
    long = shin > (shin.min() + shin.max()) / 2
    starts, ends = np.flatnonzero(np.diff(long, prepend=False, append=False)).reshape(-1, 2).T
    runs = [f"{start}-{end - 1}" for start, end in zip(starts, ends, strict=True)]
    listed = ", ".join(runs[:6]) + (f" and {len(runs) - 6} more" if len(runs) > 6 else "")
    sizes = [float(np.median(shin[part])) * 1000 for part in (~long, long)]
    return (
        f"lower legs of {sizes[0]:.0f} mm in {int((~long).sum())} frames and {sizes[1]:.0f} mm in {int(long.sum())} ({listed}); "
        "knees and ankles cannot be right in both"
    )


def _residual(clip: LiftingClip, joints: np.ndarray) -> Iterator[str]:
    seen = clip.keypoints[..., 2] > 0
    if clip.valid is not None:
        seen &= clip.valid[:, None]
    pixels, points = clip.keypoints[seen][:, :2].astype(np.float64), joints[seen].astype(np.float64)
    if not len(points):
        yield "no keypoints in valid frames"
        return
    if (points[:, 2] <= 0).any():
        yield f"{int((points[:, 2] <= 0).sum())} joints behind the camera; check the direction of z"
        return
    lens = clip.lens or best_lens(pixels, points)
    projected = lens.project(torch.from_numpy(points)).numpy()
    error = float(np.linalg.norm(projected - pixels, axis=-1).mean())
    through = "its lens" if clip.lens else "the lens that suits it best"
    if error > _PIXELS and clip.action != "univ_annot3":  # scaled about the pelvis, it lands elsewhere by design
        yield f"joints land {error:.1f} pixels from the keypoints through {through}; check that 2D and 3D belong together"
    if (lens.focal <= 0).any():
        yield f"{through} has focal lengths of {lens.focal.tolist()}; check the directions of x and y"
