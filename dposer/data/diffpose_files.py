r"""DiffPose's data sets: heatmaps of single frames and the poses behind them, in one HDF5 file each.

The file has two tables, ``/dataset/trainset`` and ``/dataset/testset``, with one row a frame, in the form that PyTables writes and reads:

====================================  ============  ==================================================================================
``action, subject, subaction, cam``   text          3DHP: action and subject are TS1..TS6; 3DPW: subject ``tr`` or ``te``, else ``none``
``frame_orig``                        int           from 0
``hardsubset``                        bool          some joint is hard to find
``heatmap``                           (16, 64, 64)  half precision, channels of :data:`~dposer.body.skeleton.HEATMAP_16`
``argmax_2d``                         (2, 16)       row and column of the highest cells, over 64
``gt_2d``                             (2, 17)       pixels; 3DPW: (3, 18), of OpenPose's joints, with confidence
``gt_3d``                             (3, 17)       millimetres before the camera; 3DPW: (24, 3) metres
``gt_3d_uni``                         (51,)         of 3DHP: scaled to Human3.6M's skeleton
``crop_size``                         int           of Human3.6M: side of the crop, pixels
``gt_2d_image_coords``                (2, 32)       of Human3.6M: all joints in the crop, from 0 to 1
``crop``                              (3,)          left, top and side of the crop, pixels; not in files of the original code
====================================  ============  ==================================================================================

3DHP's arrays are flat. Files of the original code differ further: of 3DHP, ``argmax_2d`` is over the side of the crop instead, and
``gt_2d`` goes from 0 to 1 in it; of 3DPW, ``gt_3d`` is in the axes of the world; and frames are missing from ``hardsubset``, since the
names in the list of hard frames are not those of the videos (:func:`canonical_name`).

Source: Holmquist & Wandt, "DiffPose: Multi-hypothesis Human Pose Estimation using Diffusion Models", ICCV 2023. The hard frames of
Human3.6M are those of Wehrbein et al., "Probabilistic Monocular 3D Human Pose Estimation with Normalizing Flows", ICCV 2021.
"""

import logging
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import h5py
import numpy as np
import torch
from torch import Tensor

from dposer.body.skeleton import H36M_17, HEATMAP_16, SMPL_24, Layout
from dposer.data.h36m import CAMERAS, KEPT
from dposer.data.h36m import FPS as H36M_FPS
from dposer.data.heatmap_mixtures import SIDE, SIGMA, StoredMaps, cells, highest, keypoints_of_tops
from dposer.data.lifting_clip import LiftingClip
from dposer.data.mpi_inf_3dhp import SENSORS, TEST_FPS
from dposer.data.synthetic_heatmaps import HARD_SPREAD
from dposer.errors import InputError
from dposer.files import PathLike, atomic_path, existing_file, finite
from dposer.geometry.lens import Lens, Stand

logger = logging.getLogger(__name__)

Kind = Literal["h36m", "3dhp", "3dpw"]
Split = Literal["train", "valid", "rest", "test"]
Protocol = Literal["all", "h36m", "h36ma"]

VALID = ("S5", "S8")
"""Subjects of Human3.6M's training set that may be kept for validation."""

STRIDE = 16
"""Rows from one frame of the protocol of Human3.6M to the next."""
EVERY = 4
"""Frames of Human3.6M's videos from one row to the next."""

_WHAT = "an HDF5 file with the tables /dataset/trainset and /dataset/testset"
_REMAKE = "make it with python -m run.prepare_diffpose"
_CHANNELS = len(HEATMAP_16.joints)
_COMMON: dict[str, tuple[str, tuple[int, ...]]] = {
    "subaction": ("S1", ()), "cam": ("S8", ()), "frame_orig": ("i4", ()), "hardsubset": ("?", ()), "crop": ("f4", (3,)),
    "argmax_2d": ("f4", (2, _CHANNELS)), "heatmap": ("f2", (_CHANNELS, SIDE, SIDE)),
}  # fmt: skip
_COLUMNS: dict[Kind, dict[str, tuple[str, tuple[int, ...]]]] = {
    "h36m": {
        **_COMMON, "action": ("S16", ()), "subject": ("S3", ()), "crop_size": ("i4", ()),
        "gt_3d": ("f4", (3, 17)), "gt_2d": ("f4", (2, 17)), "gt_2d_image_coords": ("f4", (2, 32)),
    },
    "3dhp": {
        **_COMMON, "action": ("S4", ()), "subject": ("S4", ()), "argmax_2d": ("f4", (2 * _CHANNELS,)),
        "gt_3d": ("f4", (51,)), "gt_3d_uni": ("f4", (51,)), "gt_2d": ("f4", (34,)),
    },
    "3dpw": {**_COMMON, "action": ("S16", ()), "subject": ("S2", ()), "gt_3d": ("f4", (24, 3)), "gt_2d": ("f4", (3, 18))},
}  # fmt: skip
_TRUTH: dict[Kind, str] = {"h36m": "gt_3d", "3dhp": "gt_3d_uni", "3dpw": "gt_3d"}
_NEEDED: dict[Kind, tuple[str, ...]] = {
    "h36m": ("action", "subject", "subaction", "cam", "argmax_2d", "gt_3d", "heatmap"),
    "3dhp": ("subject", "argmax_2d", "gt_3d_uni", "heatmap"),
    "3dpw": ("subject", "argmax_2d", "gt_3d", "heatmap"),
}
_USED: dict[Kind, tuple[str, ...]] = {
    "h36m": ("frame_orig", "hardsubset", "crop", "crop_size", "gt_2d", "gt_2d_image_coords"),
    "3dhp": ("hardsubset", "crop"),
    "3dpw": ("hardsubset", "crop"),
}
"""What is read if it is there."""
_LAYOUTS: dict[Kind, Layout] = {"h36m": H36M_17, "3dhp": H36M_17, "3dpw": SMPL_24}
_FPS: dict[Kind, float] = {"h36m": H36M_FPS / EVERY, "3dhp": TEST_FPS, "3dpw": 30.0}
_TITLES = {"trainset": "Training set", "testset": "Test set"}
_BLOCK = 4096
"""Rows that are looked at in one go; a multiple of STRIDE."""
_REACH = (0.2, 10.0)
"""Metres: how far the farthest joint may be from the root, in the middle of a set."""


# ---- reading -----------------------------------------------------------------------------------------------------------


def read_diffpose(
    path: PathLike, split: Split = "train", protocol: Protocol = "all", hard_list: PathLike | None = None
) -> list[LiftingClip]:
    """One clip of each subject, action, sub-action and camera of Human3.6M, of each sequence of 3DHP, of each split of 3DPW.

    Heatmaps stay in the file (:class:`~dposer.data.heatmap_mixtures.StoredMaps`). Keypoints are the highest cells back in the picture,
    of confidence 1, with Human3.6M's nose midway from neck to head top. Where a file does not tell where its crops lie, the crop is the
    picture, of 64 x 64 pixels. 3DPW's picture is taken to lie on its side, 1920 x 1080.

    Args:
        path: of the file.
        split: "train" is all of its table; "valid" is what :data:`VALID` are in of that and "rest" what they are not, of Human3.6M.
        protocol: "all" rows; "h36m": every 16th of the table, whatever is asked of them later; "h36ma": hard frames.
        hard_list: hard frames of Human3.6M, see :func:`read_hard_list`, in place of what the file says.

    Raises:
        InputError: missing, truncated or another kind of file, lacking a table or column, columns of another shape, nothing to read.
    """
    for value, known in ((split, get_args(Split)), (protocol, get_args(Protocol))):
        if value not in known:
            raise InputError(f"{path}: asked for {value!r}, expected one of {', '.join(known)}")
    path, name = existing_file(path, _WHAT, _REMAKE), "testset" if split == "test" else "trainset"
    stride = STRIDE if protocol == "h36m" else 1
    with _opened(path) as file:
        table, kind = _table(path, file, name)
        if kind != "h36m" and (protocol == "h36m" or split in ("valid", "rest") or hard_list is not None):
            raise InputError(
                f"{path}: holds {kind}, but the protocol h36m, validation and lists of hard frames are of Human3.6M; leave them out"
            )
        columns = _columns(table, kind, stride)
    hard = _hard(path, columns, hard_list, stride)
    if protocol == "h36ma" and hard is None:
        raise InputError(f"{path}: lacks hardsubset, so its hard frames are not known; give the list of them, or {_REMAKE}")
    kept = np.ones(len(columns), bool) if protocol != "h36ma" or hard is None else hard
    if split in ("valid", "rest"):
        kept = kept & (np.isin(columns["subject"], np.array(VALID, "S3")) == (split == "valid"))
    if not kept.any():
        raise InputError(f"{path}: {name} has no {'hard ' * (protocol == 'h36ma')}frames of this split, expected some; {_REMAKE}")
    identity = ["subject", "action", "subaction", "cam"] if kind == "h36m" else ["subject"]
    _, first, member = np.unique(columns[identity], return_index=True, return_inverse=True)
    clips = []
    for group in np.argsort(first):
        rows = np.flatnonzero((member == group) & kept)
        if len(rows):
            maps = StoredMaps(path, f"/dataset/{name}", "heatmap", stride * rows)
            clips.append(_clip(kind, columns[rows], maps, None if hard is None else hard[rows]))
    return clips


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # what HDF5 raises for the ways a file can be broken
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{path}: not a readable HDF5 file ({reason}), expected {_WHAT}; it may be truncated, fetch it again") from error


def _table(path: Path, file: h5py.File, name: str) -> tuple[h5py.Dataset, Kind]:
    """The table and what it is of, once its columns are as they should be."""
    table = file.get(f"dataset/{name}")
    if not isinstance(table, h5py.Dataset) or not table.dtype.names or table.ndim != 1:
        there = ", ".join(file["dataset"]) if isinstance(file.get("dataset"), h5py.Group) else ""
        raise InputError(f"{path}: lacks the table /dataset/{name} (found {there or 'no tables'}), expected {_WHAT}; {_REMAKE}")
    found = table.dtype.fields
    kind: Kind = "3dhp" if "gt_3d_uni" in found else "3dpw" if "gt_3d" in found and found["gt_3d"][0].shape[:1] == (24,) else "h36m"
    missing = [column for column in _NEEDED[kind] if column not in found]
    if missing:
        raise InputError(f"{path}: {name} lacks {', '.join(missing)} (found {', '.join(found)}); {_REMAKE}")
    for column in (column for column in _NEEDED[kind] + _USED[kind] if column in found):
        dtype, (code, shape) = found[column][0], _COLUMNS[kind][column]
        kinds = "S" if code[0] == "S" else "iufb"
        if dtype.base.kind not in kinds or (dtype.shape != shape and not (shape == () and dtype.shape == (1,))):
            raise InputError(
                f"{path}: {name} has a column {column} of {dtype.base} and shape {dtype.shape}, "
                f"expected {'text' if kinds == 'S' else 'numbers'} of shape {shape}; {_REMAKE}"
            )
    if kind == "3dpw" and _text(table.attrs.get("axes", "")) != "camera":
        raise InputError(f"{path}: {name} has 3DPW's joints in the axes of the world, expected them before the camera; {_REMAKE}")
    return table, kind


def _columns(table: h5py.Dataset, kind: Kind, stride: int) -> np.ndarray:
    """Every so many rows, without their heatmaps."""
    names = [name for name in _NEEDED[kind] + _USED[kind] if name in table.dtype.names and name != "heatmap"]
    view = table.fields(names)
    return np.concatenate([view[start : start + _BLOCK : stride] for start in range(0, max(len(table), 1), _BLOCK)])


def _hard(path: Path, columns: np.ndarray, hard_list: PathLike | None, stride: int) -> np.ndarray | None:
    """(F,) bool; None if it is not known."""
    names = columns.dtype.names or ()
    if hard_list is None:
        return columns["hardsubset"].reshape(len(columns)).astype(bool) if "hardsubset" in names else None
    if "frame_orig" not in names:
        raise InputError(f"{path}: lacks frame_orig, so what is in {hard_list} cannot be found; leave the list out, or {_REMAKE}")
    listed = read_hard_list(hard_list)
    hard = hard_frames_of(columns, listed)
    if stride == 1 and len(listed) > hard.sum():
        logger.warning("%s: %d of the %d frames in %s are not among its rows", path, len(listed) - hard.sum(), len(listed), hard_list)
    return hard


def _clip(kind: Kind, columns: np.ndarray, maps: StoredMaps, hard: np.ndarray | None) -> LiftingClip:
    subject, action, view = _name(kind, columns[0])
    box = _boxes(kind, columns)
    size, lens, stand = ((SIDE, SIDE), None, None) if box is None else _camera(kind, subject, view)
    box = np.tile(np.array([0, 0, SIDE], np.float32), (len(columns), 1)) if box is None else box
    keypoints = keypoints_of_tops(_found(kind, columns, maps), box, _LAYOUTS[kind])
    joints = _joints(kind, columns, f"{maps.path}: {subject}/{action}/{view}")
    return LiftingClip(
        subject, action, view, keypoints, joints, size, lens, _LAYOUTS[kind], _FPS[kind], stand, heatmaps=maps, hard=hard
    )  # fmt: skip


def _name(kind: Kind, row: np.ndarray) -> tuple[str, str, str]:
    """Subject, action and view of a clip."""
    if kind != "h36m":
        return _text(row["subject"]), *{"3dhp": ("univ_annot3", "0"), "3dpw": ("none", "none")}[kind]
    take = "" if row["subaction"] == b"0" else f" {_text(row['subaction'])}"
    return _text(row["subject"]), _text(row["action"]) + take, _text(row["cam"])


def _joints(kind: Kind, columns: np.ndarray, where: str) -> np.ndarray:
    """(F, J, 3) metres."""
    truth = finite(columns[_TRUTH[kind]], f"{where}: {_TRUTH[kind]}").astype(np.float32)
    joints = truth if kind == "3dpw" else truth.reshape(-1, 3, 17).swapaxes(1, 2) / 1000
    reach = float(np.median(np.linalg.norm(joints - joints[:, :1], axis=-1).max(1)))
    if not _REACH[0] < reach < _REACH[1]:
        raise InputError(
            f"{where}: the farthest joint is {reach:.3g} m from the root, expected {_REACH[0]} to {_REACH[1]}; "
            f"{_TRUTH[kind]} is to be in {'metres' if kind == '3dpw' else 'millimetres'}"
        )
    return joints


def _boxes(kind: Kind, columns: np.ndarray) -> np.ndarray | None:
    """(F, 3) left, top and side of the crops; None if the file does not tell."""
    names = columns.dtype.names or ()
    if "crop" in names:
        return columns["crop"]
    if kind == "h36m" and {"crop_size", "gt_2d", "gt_2d_image_coords"} <= set(names):
        side = columns["crop_size"].reshape(-1, 1, 1)
        corner = np.round(np.median(columns["gt_2d"] - columns["gt_2d_image_coords"][..., list(KEPT)] * side, axis=-1))
        return np.concatenate((corner, side[..., 0]), -1).astype(np.float32)
    return None


def _found(kind: Kind, columns: np.ndarray, maps: StoredMaps) -> np.ndarray:
    """(F, 16, 3): x and y of the highest cells, and confidence."""
    if kind == "3dhp" and "crop" not in (columns.dtype.names or ()):  # they are over sides of crops, which are nowhere
        blocks = [highest(torch.from_numpy(maps[start : start + 256])).numpy() for start in range(0, len(maps), 256)]
        top = np.concatenate(blocks)
        return np.concatenate((top[..., :2], top[..., 2:].clip(0, 1)), -1)
    places = columns["argmax_2d"].reshape(-1, 2, _CHANNELS)[:, ::-1].swapaxes(1, 2) * SIDE
    return np.concatenate((places, (places != 0).any(-1, keepdims=True)), -1)  # a map without any height has its highest cell first


def _camera(kind: Kind, subject: str, name: str) -> tuple[tuple[int, int], Lens | None, Stand | None]:
    """Size of the picture, lens and stand."""
    if kind == "3dhp" and subject in SENSORS:
        return SENSORS[subject].resolution, SENSORS[subject].lens(), None
    for view in CAMERAS.get(subject, ()):
        if kind == "h36m" and view.name == name:
            return view.size, view.lens, view.stand
    return ((1920, 1080) if kind == "3dpw" else (1000, 1000)), None, None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# ---- writing -----------------------------------------------------------------------------------------------------------


def row_type(kind: Kind) -> np.dtype:
    """Of the rows of its tables. Columns are by alphabet, as PyTables puts them."""
    return np.dtype([(name, *_COLUMNS[kind][name]) for name in sorted(_COLUMNS[kind])])


def write_diffpose(
    path: PathLike, trainset: np.ndarray | Iterable[np.ndarray], testset: np.ndarray | Iterable[np.ndarray], kind: Kind = "h36m"
) -> Path:
    """Write a file that :func:`read_diffpose` reads, whole or not at all; returns its path.

    Args:
        trainset, testset: rows of :func:`row_type`, as one array or as several that are written as they come. 3DPW's joints are before the
            camera.

    Raises:
        InputError: rows of another type, no rows at all, or the file cannot be written.
    """
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        _note(file, CLASS="GROUP", VERSION="1.0", PYTABLES_FORMAT_VERSION="2.1", TITLE=f"{kind} with heatmaps")
        group = file.create_group("dataset")
        _note(group, CLASS="GROUP", VERSION="1.0", TITLE="Dataset")
        count = 0
        for name, chunks in (("trainset", trainset), ("testset", testset)):
            table = _new_table(group, name, kind)
            for chunk in [chunks] if isinstance(chunks, np.ndarray) else chunks:
                _append(table, chunk, path, kind)
            table.attrs["NROWS"] = np.int64(len(table))
            count += len(table)
        if not count:
            raise InputError(f"{path}: no rows to write, expected some")
    return Path(path)


def _new_table(group: h5py.Group, name: str, kind: Kind) -> h5py.Dataset:
    dtype = row_type(kind)
    compound = h5py.h5t.create(h5py.h5t.COMPOUND, dtype.itemsize)
    for column, (part, offset) in _fields(dtype).items():
        # PyTables takes a bitfield for bool, where h5py would write an enumeration.
        compound.insert(column.encode(), offset, h5py.h5t.NATIVE_B8 if part == np.bool_ else h5py.h5t.py_create(part))
    space = h5py.h5s.create_simple((0,), (h5py.h5s.UNLIMITED,))
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((1,))  # a row is 128 KiB, and rows are read one by one
    table = h5py.Dataset(h5py.h5d.create(group.id, name.encode(), compound, space, creation))
    _note(table, CLASS="TABLE", VERSION="2.7", TITLE=_TITLES[name], FLAVOR="numpy", axes="camera")
    _note(table, **{f"FIELD_{number}_NAME": column for number, column in enumerate(_fields(dtype))})
    return table


def _fields(dtype: np.dtype) -> dict[str, tuple[np.dtype, int]]:
    """Type and offset of each column."""
    return {name: (dtype[name], dtype.fields[name][1]) for name in dtype.names or () if dtype.fields}


def _append(table: h5py.Dataset, rows: np.ndarray, path: PathLike, kind: Kind) -> None:
    if rows.dtype != row_type(kind) or rows.ndim != 1:
        found = ", ".join(rows.dtype.names or [str(rows.dtype)])
        raise InputError(f"{path}: rows of shape {rows.shape} with {found}, expected (n,) of row_type({kind!r})")
    start = len(table)
    table.resize((start + len(rows),))
    table[start:] = rows


def _note(node: Any, **texts: str) -> None:
    for name, text in texts.items():
        node.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", len(text.encode())))


# ---- names and hard frames of Human3.6M --------------------------------------------------------------------------------


class FrameName(NamedTuple):
    """One frame of one camera of Human3.6M, by canonical names."""

    subject: str
    action: str
    subaction: str
    """ "0" or "1"."""
    camera: str
    frame: int
    """From 0."""


_USUAL = ("", "1")
_TAKES: dict[tuple[str, str], tuple[str, str]] = {
    **dict.fromkeys(
        [("S1", "Eating"), ("S1", "SittingDown"), ("S5", "Photo"), ("S6", "Posing"), ("S7", "Phoning"), ("S11", "Greeting"),
         ("S11", "Smoking")], ("", "2"),
    ),
    **dict.fromkeys(
        [("S1", "Sitting"), ("S5", "Directions"), ("S5", "Greeting"), ("S5", "Waiting"), ("S6", "Eating"), ("S6", "Sitting"),
         ("S7", "Waiting"), ("S7", "Walking"), ("S8", "WalkTogether"), ("S9", "Discussion"), ("S11", "Discussion")], ("2", "1"),
    ),
    **dict.fromkeys([("S5", "Discussion"), ("S11", "Phoning")], ("3", "2")),
    ("S6", "Waiting"): ("", "3"),
}  # fmt: skip
"""Subject and action → the numbers in the names of files that are sub-action 0 and 1, where they are not those of _USUAL."""


def canonical_name(subject: str, raw_name: str) -> tuple[str, str, str]:
    """Action, sub-action and camera of a file of Human3.6M: ``S9``, ``Discussion 2.54138969`` → Discussion, 0, 54138969.

    Raises:
        InputError: no such name.
    """
    found = re.fullmatch(r"([A-Za-z]+)(?: (\d))?\.(\d{8})", raw_name)
    action = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}.get(found[1], found[1]) if found else ""
    number = (found[2] or "") if found else ""
    takes = _TAKES.get((subject, action), _USUAL)
    if number not in takes:
        takes = _USUAL  # names may have been made canonical before
    if found is None or number not in takes:
        raise InputError(f"{subject}/{raw_name}: no name of a film of Human3.6M, expected one as 'Directions 1.54138969'; rename it")
    return action, str(takes.index(number)), found[3]


def read_hard_list(path: PathLike) -> frozenset[FrameName]:
    """Hard frames of Human3.6M, from a text of lines as ``/S9/Directions 1.54138969/160.jpg`` with canonical names and frames from 1.

    Raises:
        InputError: no such file, no text, or a line of another form.
    """
    path = existing_file(path, "a list of hard frames")
    frames = set()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no text, expected lines as /S9/Directions 1.54138969/160.jpg") from error
    for number, line in enumerate(lines, 1):
        found = re.fullmatch(r"/?(S\d+)/([A-Za-z]+)(?: (\d))?\.(\d{8})/0*([1-9]\d*)\.jpg", line.strip())
        if found:
            frames.add(FrameName(found[1], found[2], found[3] or "0", found[4], int(found[5]) - 1))
        elif line.strip():
            raise InputError(f"{path}: line {number} is {line.strip()[:60]!r}, expected one as /S9/Directions 1.54138969/160.jpg")
    if not frames:
        raise InputError(f"{path}: names no frames, expected lines as /S9/Directions 1.54138969/160.jpg")
    return frozenset(frames)


def hard_frames_of(rows: np.ndarray, listed: Collection[FrameName]) -> np.ndarray:
    """(F,) bool: the rows (F,) of Human3.6M that are listed."""
    names = [np.char.decode(rows[column]) for column in ("subject", "action", "subaction", "cam")]
    frames = rows["frame_orig"].reshape(-1).tolist()
    return np.array([key in listed for key in zip(*(name.tolist() for name in names), frames, strict=True)], bool)


# ---- one Gaussian a map ------------------------------------------------------------------------------------------------


class GaussianFit(NamedTuple):
    """What :func:`fit_gaussians` finds of maps (...)."""

    amplitude: Tensor
    """(...)"""
    mean: Tensor
    """(..., 2) x and y, cells."""
    sigmas: Tensor
    """(..., 2) cells, the larger one first."""
    angle: Tensor
    """(...) radians in (-π/2, π/2] from the x axis up to the axis of the larger one, as one sees it."""
    rmse: Tensor
    """(...)"""


def fit_gaussians(maps: Tensor, iterations: int = 100, chunk: int = 256) -> GaussianFit:
    r"""argmin over A, m, M of :math:`\sum_v (A \exp(-\tfrac12 |M (v - m)|^2) - H(v))^2`, M upper triangular: maps (..., 64, 64).

    This is the rotated Gaussian of deviations :math:`1 / \mathrm{svd}(M)`, found by Levenberg and Marquardt's method from the highest
    cell with a deviation of 2; where that does not settle, the start is kept. Heights are clipped to 0 .. 1 before.

    Args:
        iterations: after so many a fit has not settled.
        chunk: so many maps at a time.
    """
    heights = maps.detach().float().flatten(-2).clamp(0, 1).nan_to_num()
    fits = [_fitted(some, iterations) for some in heights.reshape(-1, SIDE * SIDE).split(chunk)]
    values, rmse = (torch.cat(some) for some in zip(*fits, strict=True)) if fits else (heights.new_zeros(0, 6), heights.new_zeros(0))
    a, b, c = values[:, 3:].unbind(-1)
    precision = torch.stack((a * a, a * b, a * b, b * b + c * c), -1).unflatten(-1, (2, 2))
    lengths, axes = torch.linalg.eigh(precision)  # the least precision, first, is the largest deviation
    x, y = axes[:, 0, 0], -axes[:, 1, 0]
    upright = torch.where((x < 0) | ((x == 0) & (y < 0)), -1.0, 1.0)
    angle = torch.atan2(y * upright, x * upright)
    shape = maps.shape[:-2]
    return GaussianFit(
        values[:, 0].reshape(shape), values[:, 1:3].reshape(*shape, 2), lengths.clamp(min=1e-10).rsqrt().reshape(*shape, 2),
        angle.reshape(shape), rmse.reshape(shape),
    )  # fmt: skip


def hard_by_fit(maps: Tensor, spread: float = HARD_SPREAD) -> Tensor:
    """(...) bool of maps (..., 16, 64, 64): the Gaussian that fits some map best is wider than ``spread``."""
    return (fit_gaussians(maps).sigmas > spread).flatten(-2).any(-1)


def _fitted(heights: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """(B, 4096) → amplitude, mean and the three entries of M (B, 6), and the root mean square of what is left (B,)."""
    top, cell = heights.max(-1)
    half = torch.full_like(top, 1 / SIGMA)
    start = torch.stack((top, cell % SIDE, cell // SIDE, half, torch.zeros_like(top), half), -1)
    values, cost, damping = start.clone(), _residual(start, heights)[0].square().sum(-1), torch.full_like(top, 1e-3)
    live = torch.arange(len(heights), device=heights.device)
    for _ in range(iterations):
        if not len(live):
            break
        left, slopes = _residual(values[live], heights[live])
        curvature = slopes @ slopes.mT
        scaled = curvature.diagonal(dim1=-2, dim2=-1).clamp(min=1e-9) * damping[live, None]
        step = torch.linalg.solve(curvature + torch.diag_embed(scaled), -(slopes @ left[..., None]))[..., 0]
        trial = values[live] + step
        reached = _residual(trial, heights[live])[0].square().sum(-1)
        better, before = reached <= cost[live], cost[live]
        values[live] = torch.where(better[:, None], trial, values[live])
        cost[live] = torch.where(better, reached, before)
        damping[live] = damping[live] * torch.where(better, 0.1, 10.0)
        settled = (better & (before - reached <= 1e-6 * before)) | (damping[live] > 1e8)
        live = live[~settled]
    bad = torch.zeros(len(heights), dtype=torch.bool, device=heights.device)
    bad[live] = True
    bad |= ~values.isfinite().all(-1)
    values = torch.where(bad[:, None], start, values)
    return values, _residual(values, heights)[0].square().mean(-1).sqrt()


def _residual(values: Tensor, heights: Tensor) -> tuple[Tensor, Tensor]:
    """A exp(-½ (u² + w²)) - H with u = a dx + b dy, w = c dy: (B, 4096), and its derivatives (B, 6, 4096)."""
    amplitude, x, y, a, b, c = values[..., None].unbind(-2)
    dx, dy = (cells(heights.device).mT[:, None] - torch.stack((x, y))).unbind(0)
    u, w = a * dx + b * dy, c * dy
    blob = torch.exp(-0.5 * (u * u + w * w))
    model = amplitude * blob
    slopes = (blob, model * u * a, model * (u * b + w * c), -model * u * dx, -model * u * dy, -model * w * dy)
    return model - heights, torch.stack(slopes, -2)
